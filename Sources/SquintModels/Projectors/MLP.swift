import SquintCompute
import SquintFile

/// From an encoder's features to rows of the decoder: LLaVA's one or two linear layers, or Idefics3's and SmolVLM's, before
/// which squares of patches are put side by side (formats/vision.md).
///
/// Sources: LLaVA (arXiv 2304.08485), LLaVA-1.5 (2310.03744), Idefics3 (2408.12637); the reference is transformers'
/// LlavaMultiModalProjector and Idefics3Connector.
package struct MLP {

  // MARK: Configuration

  /// The blueprint.
  package struct Configuration: Sendable {
    /// The module, and what its keys and tensors begin with: `projector.image`.
    package let name: String
    let blueprint: MLPBlueprint
    /// The first column of the features that go in.
    let column: Int
    /// What goes in, between the layers, and comes out.
    package let widths: [Int]
    /// The side of the squares of patches that become one row.
    package let shuffle: Int
    /// How many neighbouring rows of features become one row.
    package let stack: Int
    /// Between two layers.
    package let activation: Activation?
    /// Of the norm before the first layer, or nil where there is none.
    package let normEpsilon: Float?
    /// Whether the features begin with a row that is no patch.
    package let hasClassRow: Bool

    var layers: Int { widths.count - 1 }
    /// The width of what comes out.
    package var outputWidth: Int { widths[layers] }

    /// Reads the keys `NAME.*`, and whether there is a tensor `NAME.norm`.
    ///
    /// - Parameters:
    ///   - encoderWidth: the width of the features.
    ///   - hasClassRow: whether the features begin with the row of a class token.
    ///   - decoderWidth: the width of the decoder's rows; nil where the file has no decoder.
    /// - Throws: `badData` where a key is missing or impossible, or the widths do not fit.
    package init(
      _ file: ModelFile, name: String, encoderWidth: Int, hasClassRow: Bool, decoderWidth: Int?
    ) throws(SquintError) {
      try self.init(
        MLPBlueprint(file, module: name), encoderWidth: encoderWidth, hasClassRow: hasClassRow,
        decoderWidth: decoderWidth)
    }

    /// The same of a blueprint, for some columns of the features.
    ///
    /// - Parameter column: the first of these columns, of which there are `encoderWidth`.
    init(
      _ blueprint: MLPBlueprint, encoderWidth: Int, column: Int = 0, hasClassRow: Bool, decoderWidth: Int?
    ) throws(SquintError) {
      self.blueprint = blueprint
      name = blueprint.module
      self.column = column
      self.hasClassRow = hasClassRow
      widths = blueprint.widths
      shuffle = blueprint.shuffle
      stack = blueprint.stack
      activation = blueprint.layers > 1 ? blueprint.activation : nil
      normEpsilon = blueprint.hasNorm ? Float(blueprint.normEpsilon) : nil
      let taken = shuffle * shuffle * stack * encoderWidth
      guard self.widths[0] == taken else {
        throw SquintError(
          .badData,
          "metadata \(name).widths begins with \(grouped(self.widths[0])), and the encoder gives \(grouped(taken)) numbers"
            + (shuffle > 1 ? " (\(shuffle) × \(shuffle) patches of \(grouped(encoderWidth)))" : "")
            + (stack > 1 ? " (\(stack) rows of \(grouped(encoderWidth)))" : "")
            + "; convert the model again")
      }
      if let decoderWidth, self.widths[layers] != decoderWidth {
        throw SquintError(
          .badData,
          "metadata \(name).widths ends with \(grouped(self.widths[layers])), and the decoder's rows have "
            + "\(grouped(decoderWidth)) numbers; convert the model again")
      }
      guard shuffle == 1 || !hasClassRow else {
        throw SquintError(
          .badData,
          "metadata \(name).shuffle is \(shuffle), but the features begin with a class token, which is in no square of "
            + "patches; convert the model again")
      }
      guard stack == 1 || !hasClassRow else {
        throw SquintError(
          .badData,
          "metadata \(name).stack is \(stack), but the features begin with a class token; convert the model again")
      }
    }

    /// How many rows of the decoder the features of a grid become.
    ///
    /// - Throws: `badData` where a side is no multiple of the shuffle.
    package func rows(gridRows: Int, gridColumns: Int) throws(SquintError) -> Int {
      if stack > 1 { return stacks(of: gridRows * gridColumns) }
      guard gridRows % shuffle == 0, gridColumns % shuffle == 0 else {
        throw SquintError(
          .badData,
          "\(name): \(gridRows) × \(gridColumns) patches cannot be cut into squares of \(shuffle) × \(shuffle); convert the "
            + "model again, with tiles whose sides are multiples")
      }
      return gridRows / shuffle * (gridColumns / shuffle) + (hasClassRow ? 1 : 0)
    }

    /// How many rows `count` rows of features become, side by side.
    fileprivate func stacks(of count: Int) -> Int { (count + stack - 1) / stack }
  }

  // MARK: Weights

  /// The tensors of the file, in place.
  package struct Weights: Sendable {
    let norm: Compute.LayerNorm?  // [widths[0]]
    let layers: [Matrix]  // [widths[N + 1], widths[N]]
    /// Keeps the file mapped for the views above.
    private let file: ModelFile

    /// Finds the tensors of the module and checks their shapes.
    ///
    /// - Throws: `badData` naming the tensor that is missing or has another shape.
    package init(_ file: ModelFile, _ c: Configuration) throws(SquintError) {
      self.file = file
      let blueprint = c.blueprint
      if let epsilon = c.normEpsilon {
        norm = try Compute.LayerNorm(
          blueprint.norm.name, width: blueprint.norm.count, epsilon: epsilon, in: file)
      } else {
        norm = nil
      }
      var layers: [Matrix] = []
      for index in 0..<c.layers {
        let matrix = blueprint.layer(index)
        layers.append(try Matrix(matrix.name, rows: matrix.rows, columns: matrix.columns, in: file))
      }
      self.layers = layers
    }
  }

  // MARK: State

  /// Every buffer there is, for at most `rows` rows.
  package struct Regions: Sendable {
    /// The rows that go through the layers at a time: many enough that the matrices, read once for them, cost little beside
    /// the arithmetic.
    static let chunk = 128

    let gathered: Region<Float>
    let hidden: [Region<Float>]
    let quantized: QuantizedRows.Regions

    /// Reserves the projector's buffers.
    ///
    /// - Parameter rows: what the features of a tile become at most, as `configuration.rows(gridRows:gridColumns:)` says.
    package init(_ c: Configuration, rows: Int, in plan: inout ArenaPlan) throws(SquintError) {
      let phases = Phases.encode
      let chunk = min(rows, Self.chunk)
      // Where neither a norm nor a shuffle nor a stack makes new rows of the features, they are read in place.
      let gathers = c.shuffle > 1 || c.stack > 1 || c.normEpsilon != nil || c.column > 0
      gathered = try plan.reserve("projector input", count: gathers ? chunk * c.widths[0] : 0, phases: phases)
      // One layer reads the one while it writes the other.
      let inner = c.widths[1..<c.layers].max() ?? 0
      var hidden: [Region<Float>] = []
      for _ in 0..<min(c.layers - 1, 2) {
        hidden.append(try plan.reserve("projector inner rows", count: chunk * inner, phases: phases))
      }
      self.hidden = hidden
      quantized = try QuantizedRows.Regions(
        rows: chunk, columns: max(c.widths[0], inner), phases: phases, in: &plan)
    }
  }

  package let configuration: Configuration
  private let weights: Weights
  private let compute: Compute
  /// [chunk, widths[0]]
  private let gathered: Rows
  /// The outputs of all layers but the last: [chunk, widths[N + 1]]
  private let hidden: [Rows]
  private let quantized: QuantizedRows

  package init(
    _ configuration: Configuration, _ weights: Weights, _ regions: Regions, in arena: Arena, _ compute: Compute
  ) {
    let c = configuration
    self.configuration = c
    self.weights = weights
    self.compute = compute
    gathered = Rows(regions.gathered, width: c.widths[0], in: arena)
    hidden = (0..<c.layers - 1).map { Rows(regions.hidden[$0 % 2], width: c.widths[$0 + 1], in: arena) }
    quantized = QuantizedRows(regions.quantized, in: arena)
  }
}

// MARK: Forward

extension MLP {
  /// Writes the decoder's rows for the features of a grid of patches: `configuration.rows(gridRows:gridColumns:)` of them.
  ///
  /// The grid must be one that this function accepts. features: [(1 +) patches, features' width]; rows: [tokens,
  /// decoder.width], which may be further apart.
  package func project(_ features: Rows, gridRows: Int, gridColumns: Int, into rows: Rows) {
    let c = configuration
    let count =
      c.stack > 1
      ? c.stacks(of: gridRows * gridColumns)
      : gridRows / c.shuffle * (gridColumns / c.shuffle) + (c.hasClassRow ? 1 : 0)
    for first in stride(from: 0, to: count, by: Regions.chunk) {
      let chunk = min(Regions.chunk, count - first)
      var z = features.from(first)
      if c.stack > 1 {
        let taken = first * c.stack..<min((first + chunk) * c.stack, gridRows * gridColumns)
        gathered.stack(features.columns(from: c.column), taken, width: c.widths[0] / c.stack, rows: chunk)
        z = gathered
      } else if c.shuffle > 1 || features.width != c.widths[0] {
        compute.gatherSquares(
          features.columns(from: c.column), side: c.shuffle, columns: gridColumns, first: first, count: chunk,
          into: gathered)
        z = gathered
      }
      if let norm = weights.norm {
        compute.layerNorm(z, norm, into: gathered, count: chunk)
        z = gathered
      }
      for index in 0..<c.layers {
        let output = index == c.layers - 1 ? rows.from(first) : hidden[index]
        compute.multiply(z, count: chunk, scratch: quantized, .init(weights.layers[index], into: output))
        if index < c.layers - 1, let activation = c.activation {
          compute.activate(output, count: chunk, activation)
        }
        z = output
      }
      compute.trace.current?.place = c.name
      compute.record("rows", z, count: chunk)
    }
  }
}

extension Rows {
  /// `rows` rows here = the first `width` numbers of the rows `taken` of `features`, one behind the other, and zeros behind them.
  fileprivate func stack(_ features: Rows, _ taken: Range<Int>, width: Int, rows: Int) {
    for (index, row) in taken.enumerated() { (data + index * width).update(from: features[row], count: width) }
    (data + taken.count * width).update(repeating: 0, count: rows * self.width - taken.count * width)
  }
}

extension Compute {
  /// z[token] = the first features of the patches of square `first + token`, row after row, side by side (transformers'
  /// `Idefics3Connector.pixel_shuffle`).
  fileprivate func gatherSquares(
    _ features: Rows, side: Int, columns: Int, first: Int, count: Int, into z: Rows
  ) {
    struct Job {
      let features: Rows
      let side: Int
      let columns: Int
      let first: Int
      let z: Rows

      func run(_ token: Int) {
        let squares = columns / side
        let (top, left) = ((first + token) / squares * side, (first + token) % squares * side)
        let width = z.width / (side * side)
        for row in 0..<side {
          let patches = features.from((top + row) * columns + left)
          for column in 0..<side {
            (z[token] + (row * side + column) * width).update(from: patches[column], count: width)
          }
        }
      }
    }
    var job = Job(features: features, side: side, columns: columns, first: first, z: z)
    workers.run(&job, pieces: count) { job, token, _ in job.assumingMemoryBound(to: Job.self).pointee.run(token) }
  }
}

// MARK: As any projector

extension MLP: Projector {
  package func project(_ features: Rows, _ grid: FeatureGrid, into rows: Rows) {
    project(features, gridRows: grid.rows, gridColumns: grid.columns, into: rows)
  }

  /// The blueprint and the weights.
  package struct Graph: ProjectorModel {
    package let configuration: Configuration
    package let weights: Weights

    /// - Throws: `badData` where keys or tensors are missing or impossible, or the widths do not fit.
    package init(_ file: ModelFile, _ configuration: Configuration) throws(SquintError) {
      self.configuration = configuration
      weights = try Weights(file, configuration)
    }

    package var decoderWidth: Int { configuration.outputWidth }

    package func rows(of grid: FeatureGrid) throws(SquintError) -> Int {
      try configuration.rows(gridRows: grid.rows, gridColumns: grid.columns)
    }

    package func reserve(rows: Int, in plan: inout ArenaPlan) throws(SquintError) -> ProjectorMaker {
      let regions = try Regions(configuration, rows: rows, in: &plan)
      let graph = self
      return { arena, compute in MLP(graph.configuration, graph.weights, regions, in: arena, compute) }
    }
  }
}
