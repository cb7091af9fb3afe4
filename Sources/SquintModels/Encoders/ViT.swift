import SquintCompute
import SquintFile

/// The vision transformers of CLIP, SigLIP, DINOv2, Idefics3 and SmolVLM: an image's patches as the rows of a pre-norm
/// transformer in which every row sees all rows. What distinguishes the families is in `Configuration`
/// (formats/vision.md).
///
/// Sources: ViT (arXiv 2010.11929), CLIP (2103.00020), SigLIP (2303.15343), DINOv2 (2304.07193), Idefics3 (2408.12637); the
/// reference is transformers' modeling_clip.py, modeling_siglip.py, modeling_dinov2.py, modeling_idefics3.py.
package struct ViT {

  // MARK: Configuration

  /// Patches: row after row.
  package typealias Grid = FeatureGrid

  /// What becomes of the table of positions where a tile's grid is another.
  package typealias Positions = PositionRule

  /// The blueprint.
  package struct Configuration: Sendable {
    /// The module, and what its keys and tensors begin with: `encoder.image`.
    package let name: String
    package let architecture: String
    package let layers: Int
    package let width: Int
    package let ffnWidth: Int
    package let heads: Int
    /// The side of a patch in pixels.
    package let patch: Int
    /// The side of the grid that the table of positions is for.
    package let grid: Int
    package let positions: Positions
    package let normEpsilon: Float
    package let activation: Activation
    /// After how many layers features are taken, ascending.
    package let featureLayers: [Int]
    /// Whether a row that stands for the whole image goes before the patches.
    package let hasClass: Bool
    package let dropsClass: Bool
    /// Where the matrices are quantized, attention is as well.
    let attention: EncoderAttention.Arithmetic
    package var headWidth: Int { width / heads }
    /// Whether the class token's row is the first of the features.
    package var hasClassRow: Bool { hasClass && !dropsClass }
    /// The width of a row of features.
    package var featureWidth: Int { featureLayers.count * width }

    /// Reads the keys `NAME.*`, and whether there is a tensor `NAME.class`.
    ///
    /// - Throws: `badData` where a key is missing or impossible.
    package init(_ file: ModelFile, name: String) throws(SquintError) {
      let blueprint = try ViTBlueprint(file, module: name)
      self.name = name
      architecture = blueprint.architecture
      layers = blueprint.layers
      width = blueprint.width
      ffnWidth = blueprint.ffnWidth
      heads = blueprint.heads
      patch = blueprint.patch
      grid = blueprint.grid
      positions = blueprint.positions
      normEpsilon = Float(blueprint.normEpsilon)
      activation = blueprint.activation
      let taken = blueprint.featureLayers ?? []
      featureLayers = taken.isEmpty ? [layers] : taken
      hasClass = blueprint.hasClass
      dropsClass = blueprint.dropsClass
      let firstMatrix = layers > 0 ? file.tensor(blueprint.layer(0).q.name) : nil
      attention = firstMatrix?.type.isQuantized == true ? .int8 : .f32
    }

    /// The patches of a tile of [height, width] pixels; what is left at the right and the bottom is not seen.
    ///
    /// - Throws: `badData` where the tile has none, or the table of positions is fixed to another grid.
    package func grid(height: Int, width: Int) throws(SquintError) -> Grid {
      let found = Grid(rows: height / patch, columns: width / patch)
      guard found.rows > 0, found.columns > 0 else {
        throw SquintError(
          .badData,
          "\(name): a tile of \(height) × \(width) pixels is smaller than a patch; it needs \(patch) × \(patch) at least"
        )
      }
      if positions == .fixed, found != Grid(rows: grid, columns: grid) {
        let side = grid * patch
        throw SquintError(
          .badData,
          "\(name): a tile of \(height) × \(width) pixels has \(found.rows) × \(found.columns) patches, and the positions "
            + "are for \(grid) × \(grid); it needs \(side) × \(side) pixels")
      }
      return found
    }

    /// How many rows of features a tile of [height, width] pixels gives.
    ///
    /// - Throws: as `grid(height:width:)`.
    package func rows(height: Int, width: Int) throws(SquintError) -> Int {
      try grid(height: height, width: width).count + (hasClassRow ? 1 : 0)
    }
  }

  // MARK: Weights

  /// The tensors of the file, in place.
  package struct Weights: Sendable {
    struct Layer: Sendable {
      let attentionNorm: Compute.LayerNorm  // [width]
      let q: Matrix  // [width, width]
      let k: Matrix  // [width, width]
      let v: Matrix  // [width, width]
      let o: Matrix  // [width, width]
      let ffnNorm: Compute.LayerNorm  // [width]
      let up: Matrix  // [ffn_width, width]
      let down: Matrix  // [width, ffn_width]

      /// The same layer, read `distance` bytes behind where it was.
      func moved(by distance: Int) -> Layer {
        Layer(
          attentionNorm: attentionNorm.moved(by: distance), q: q.moved(by: distance), k: k.moved(by: distance),
          v: v.moved(by: distance), o: o.moved(by: distance), ffnNorm: ffnNorm.moved(by: distance),
          up: up.moved(by: distance), down: down.moved(by: distance))
      }
    }

    let patch: Matrix  // [width, 3 · patch · patch]
    nonisolated(unsafe) let classToken: UnsafePointer<Float>?  // [width]
    nonisolated(unsafe) let positions: UnsafePointer<Float>  // [(1 +) grid · grid, width]
    let preNorm: Compute.LayerNorm?  // [width]
    let layers: [Layer]
    let norm: Compute.LayerNorm?  // [width]
    /// Keeps the file mapped for the views above.
    let file: ModelFile
    /// The layers that are used, as ranges of the file, in their order.
    package let streamUnits: [Range<Int>]

    /// Finds the tensors of the module and checks their shapes.
    ///
    /// - Throws: `badData` naming the tensor that is missing or has another shape.
    package init(_ file: ModelFile, _ c: Configuration) throws(SquintError) {
      self.file = file
      let blueprint = try ViTBlueprint(file, module: c.name)
      func norm(_ norm: NormSpecification) throws(SquintError) -> Compute.LayerNorm {
        try Compute.LayerNorm(norm.name, width: norm.count, epsilon: c.normEpsilon, in: file)
      }
      func optional(_ norm: NormSpecification) throws(SquintError) -> Compute.LayerNorm? {
        file.tensor(norm.name) == nil
          ? nil : try Compute.LayerNorm(norm.name, width: norm.count, epsilon: c.normEpsilon, in: file)
      }
      func matrix(_ matrix: MatrixSpecification) throws(SquintError) -> Matrix {
        try Matrix(matrix.name, rows: matrix.rows, columns: matrix.columns, in: file)
      }
      patch = try matrix(blueprint.patches)
      classToken = c.hasClass ? try file.vector(blueprint.classToken.name, count: c.width) : nil
      positions = try file.floats(blueprint.positionTable.name, shape: blueprint.positionTable.shape)
      preNorm = try optional(blueprint.preNorm)
      var layers: [Layer] = []
      layers.reserveCapacity(c.layers)
      for index in 0..<c.layers {
        let layer = blueprint.layer(index)
        layers.append(
          Layer(
            attentionNorm: try norm(layer.attentionNorm), q: try matrix(layer.q), k: try matrix(layer.k),
            v: try matrix(layer.v), o: try matrix(layer.o), ffnNorm: try norm(layer.ffnNorm), up: try matrix(layer.up),
            down: try matrix(layer.down)))
      }
      self.layers = layers
      streamUnits = file.layerRanges(of: c.name, count: c.featureLayers[c.featureLayers.count - 1])
      self.norm = try optional(blueprint.norm)
    }
  }

  // MARK: State

  /// Every buffer there is, for passes over at most `tiles` tiles of at most `patches` patches.
  package struct Regions: Sendable {
    /// The rows that go through the wide buffers at a time: many enough that the matrices, read once for them, cost little
    /// beside the arithmetic. About 256, so that no chunk is left over with a few rows, and in groups of attention's.
    static func chunk(_ rows: Int) -> Int {
      let chunks = max((rows + 128) / 256, 1)
      let group = PanelLayout.columnsPerGroup
      return ((rows + chunks - 1) / chunks + group - 1) / group * group
    }

    let patches: Int
    let tiles: Int
    let stream: WeightStream.Regions
    let x: Region<Float>
    let features: Region<Float>
    let attention: EncoderAttention.Regions
    let h: Region<Float>
    let q: Region<Float>
    let wide: Region<Float>
    let quantized: QuantizedRows.Regions

    /// Reserves the encoder's buffers.
    ///
    /// - Parameters:
    ///   - residency: which of the weights' parts stay in memory.
    ///   - patches: of the tile that has the most.
    ///   - tiles: that go through the layers together. Weights that do not stay are read once for them.
    package init(
      _ c: Configuration, _ residency: Residency, patches: Int, tiles: Int, threads: Int, in plan: inout ArenaPlan
    ) throws(SquintError) {
      guard patches < 1 << 24 else {
        throw SquintError(
          .doesNotFit, "\(c.name): a tile of \(grouped(patches)) patches is more than any machine holds")
      }
      let phases = Phases.encode
      self.patches = patches
      self.tiles = tiles
      stream = try WeightStream.Regions(residency, phases: phases, in: &plan)
      let rows = patches + (c.hasClass ? 1 : 0)
      let chunk = min(rows, Self.chunk(rows))
      let patchWidth = 3 * c.patch * c.patch
      x = try plan.reserve("encoder rows", count: tiles * rows * c.width, phases: phases)
      // Those of the last layer are handed out tile by tile.
      features = try plan.reserve(
        "features", count: (c.featureLayers.count > 1 ? tiles : 1) * rows * c.featureWidth, phases: phases)
      attention = try EncoderAttention.Regions(
        .init(
          positions: rows, heads: c.heads, headWidth: c.headWidth, chunk: Self.chunk(rows), arithmetic: c.attention),
        threads: threads, phases: phases, in: &plan)
      // Holds the normalized rows, and then the heads' outputs, which are not needed at the same time.
      h = try plan.reserve("encoder normalized rows", count: chunk * c.width, phases: phases)
      q = try plan.reserve("encoder queries", count: chunk * c.width, phases: phases)
      // Holds the pixels of patches, and later the feed-forward network's inner rows.
      wide = try plan.reserve("encoder feed-forward", count: chunk * max(c.ffnWidth, patchWidth), phases: phases)
      quantized = try QuantizedRows.Regions(
        rows: chunk, columns: max(c.width, c.ffnWidth, patchWidth), phases: phases, in: &plan)
    }
  }

  package let configuration: Configuration
  private let weights: Weights
  /// [3, 256]: what each level of each channel is for the model.
  private let levels: [Float]
  private let compute: Compute
  private let patches: Int
  /// The tiles of the largest pass.
  package let tiles: Int
  /// Hands out the weights.
  package let stream: WeightStream
  /// The rows that go through the wide buffers at a time.
  private let chunk: Int
  /// [tiles · ((1 +) patches), width]
  private let x: Rows
  /// [tiles · rows, feature_width], of one tile where features are taken once
  private let features: Rows
  private let attention: EncoderAttention
  /// [chunk, width]
  private let h: Rows
  private let q: Rows
  /// [chunk, 3 · patch · patch]
  private let pixels: Rows
  /// [chunk, ffn_width]
  private let up: Rows
  private let quantized: QuantizedRows

  /// - Parameter levels: [3, 256]: what each level of each channel is for the model.
  /// - Throws: `internalError` where the system gives no threads to read weights.
  package init(
    _ configuration: Configuration, _ weights: Weights, levels: [Float], _ regions: Regions, reader: DirectReader,
    in arena: Arena, _ compute: Compute
  ) throws(SquintError) {
    let c = configuration
    self.configuration = c
    self.weights = weights
    self.levels = levels
    self.compute = compute
    patches = regions.patches
    tiles = regions.tiles
    let module = weights.file.range(ofModule: c.name)
    stream = try WeightStream(
      regions.stream, others: regions.stream.residency.others(in: module), reader: reader,
      file: weights.file, in: arena)
    chunk = Regions.chunk(regions.patches + (configuration.hasClass ? 1 : 0))
    x = Rows(regions.x, width: c.width, in: arena)
    features = Rows(regions.features, width: c.featureWidth, in: arena)
    attention = EncoderAttention(regions.attention, in: arena)
    h = Rows(regions.h, width: c.width, in: arena)
    q = Rows(regions.q, width: c.width, in: arena)
    pixels = Rows(regions.wide, width: 3 * c.patch * c.patch, in: arena)
    up = Rows(regions.wide, width: c.ffnWidth, in: arena)
    quantized = QuantizedRows(regions.quantized, in: arena)
  }
}

// MARK: Forward

extension ViT {
  /// Computes the features of tiles: of each, `configuration.rows(height:width:)` rows of `configuration.featureWidth`.
  ///
  /// The tiles must be such as `configuration.grid(height:width:)` accepts, of no more patches than were planned.
  ///
  /// - Parameters:
  ///   - pixels: RGB, [count, height, width, 3].
  ///   - count: at most `tiles`.
  ///   - shouldContinue: asked before each layer.
  ///   - visit: called with each tile in turn and its features, which are valid until it returns.
  /// - Returns: whether it was finished.
  package func encode(
    pixels: UnsafePointer<UInt8>, count tiles: Int, height: Int, width: Int,
    while shouldContinue: () -> Bool = { true }, visit: (_ tile: Int, _ features: Rows) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool {
    let c = configuration
    let grid = Grid(rows: height / c.patch, columns: width / c.patch)
    precondition(grid.count <= patches && tiles <= self.tiles, "more or larger tiles than were planned")
    let count = grid.count + (c.hasClass ? 1 : 0)
    let last = c.featureLayers[c.featureLayers.count - 1]

    stream.begin(units: last)
    defer { stream.end() }
    for tile in 0..<tiles {
      let x = x.from(tile * count)
      levels.withUnsafeBufferPointer {
        embed(pixels + tile * height * width * 3, width: width, grid, $0.baseAddress!, into: x)
      }
      if let norm = weights.preNorm { compute.layerNorm(x, norm, into: x, count: count) }
      compute.trace.current?.place = c.name
      compute.record("input", x, count: count)
      if last > 0 { take(x, after: 0, count: count, tile: tile) }
    }
    for index in 0..<last {
      guard shouldContinue() else { return false }
      if let trace = compute.trace.current { trace.place = "\(c.name).\(index)" }
      let layer = weights.layers[index].moved(by: stream.use(index))
      for tile in 0..<tiles {
        let x = x.from(tile * count)
        forward(layer, x, count: count)
        if index + 1 < last { take(x, after: index + 1, count: count, tile: tile) }
      }
    }
    try stream.check()
    for tile in 0..<tiles {
      try visit(tile, take(x.from(tile * count), after: last, count: count, tile: tile))
    }
    return true
  }

  private func forward(_ layer: Weights.Layer, _ x: Rows, count: Int) {
    forEachChunk(of: count) { first, rows in
      compute.layerNorm(x.from(first), layer.attentionNorm, into: h, count: rows)
      compute.multiply(
        h, count: rows, scratch: quantized, .init(layer.k, into: attention.keys(from: first)),
        .init(layer.v, into: attention.values(from: first)))
      attention.store(first: first, count: rows, positions: count, compute)
    }
    // All keys and values are there: from here on a row needs no other.
    forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.layerNorm(x, layer.attentionNorm, into: h, count: rows)
      compute.record("attention.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.q, into: q))
      attention.attend(q: q, count: rows, positions: count, into: h, compute)
      compute.record("attention.heads", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.o, into: x, accumulate: true))
      compute.record("attention", x, count: rows)

      compute.layerNorm(x, layer.ffnNorm, into: h, count: rows)
      compute.record("ffn.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.up, into: up))
      compute.activate(up, count: rows, configuration.activation)
      compute.multiply(up, count: rows, scratch: quantized, .init(layer.down, into: x, accumulate: true))
      compute.record("ffn", x, count: rows)
    }
  }

  private func forEachChunk(of count: Int, _ body: (_ first: Int, _ rows: Int) -> Void) {
    for first in stride(from: 0, to: count, by: chunk) { body(first, min(chunk, count - first)) }
  }

  /// x = class token, patch · pixels; + positions.
  private func embed(
    _ tile: UnsafePointer<UInt8>, width: Int, _ grid: Grid, _ levels: UnsafePointer<Float>, into x: Rows
  ) {
    let c = configuration
    var patchRows = x
    var table = weights.positions
    if let token = weights.classToken {
      compute.kernels.add(token, table, x[0], c.width)
      patchRows = x.from(1)
      table += c.width
    }
    let image = Image(pixels: tile, width: width, levels: levels)
    forEachChunk(of: grid.count) { first, rows in
      compute.gatherPatches(image, side: c.patch, columns: grid.columns, first: first, count: rows, into: pixels)
      compute.multiply(pixels, count: rows, scratch: quantized, .init(weights.patch, into: patchRows.from(first)))
    }
    let positions = PositionTable(rows: table, width: c.width, side: c.grid, use: c.positions)
    compute.addPositions(positions, grid, to: patchRows)
  }

  /// Where features are to be taken after `layers` layers, writes them, normalized, as a block of columns of the tile's features.
  /// Returns these.
  @discardableResult private func take(_ x: Rows, after layers: Int, count: Int, tile: Int) -> Rows {
    let c = configuration
    let first = c.hasClass && c.dropsClass ? 1 : 0
    let features = features.from(c.featureLayers.count > 1 ? tile * (count - first) : 0)
    guard let index = c.featureLayers.firstIndex(of: layers) else { return features }
    let output = features.columns(from: index * c.width)
    if let norm = weights.norm {
      compute.layerNorm(x.from(first), norm, into: output, count: count - first)
    } else {
      for row in 0..<count - first { output[row].update(from: x[first + row], count: c.width) }
    }
    return features
  }
}

// MARK: As any encoder

extension ViT: Encoder {
  package var units: Int { tiles }

  /// - Parameter numbers: RGB, [count, height, width, 3].
  package func encode(
    _ numbers: UnsafeRawPointer, count: Int, shape: [Int], while shouldContinue: () -> Bool,
    visit: (_ unit: Int, _ features: Rows) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool {
    try encode(
      pixels: numbers.assumingMemoryBound(to: UInt8.self), count: count, height: shape[0], width: shape[1],
      while: shouldContinue, visit: visit)
  }

  /// The blueprint and the weights, for tiles of [height, width] pixels.
  package struct Graph: EncoderModel {
    package let configuration: Configuration
    package let weights: Weights
    /// [3, 256]: what each level of each channel is for the model.
    let levels: [Float]

    /// - Throws: `badData` where keys or tensors of the module `name` are missing or impossible.
    package init(_ file: ModelFile, name: String, levels: [Float]) throws(SquintError) {
      configuration = try Configuration(file, name: name)
      weights = try Weights(file, configuration)
      self.levels = levels
    }

    package var featureWidth: Int { configuration.featureWidth }
    package var hasClassRow: Bool { configuration.hasClassRow }
    package var streamUnits: [Range<Int>] { weights.streamUnits }

    package func grid(of shape: [Int]) throws(SquintError) -> FeatureGrid {
      try configuration.grid(height: shape[0], width: shape[1])
    }

    package func attentionOperations(rows: Int) -> Int { 4 * rows * rows * configuration.width * configuration.layers }

    package func reserve(
      _ residency: Residency, shapes: [[Int]], units: Int, threads: Int, in plan: inout ArenaPlan
    ) throws(SquintError) -> EncoderMaker {
      var patches = 1
      for shape in shapes { patches = max(patches, try grid(of: shape).count) }
      let regions = try Regions(configuration, residency, patches: patches, tiles: units, threads: threads, in: &plan)
      let graph = self
      return { (reader, arena, compute) throws(SquintError) in
        try ViT(
          graph.configuration, graph.weights, levels: graph.levels, regions, reader: reader, in: arena, compute)
      }
    }
  }
}

// MARK: Patches

/// A tile as it comes: RGB, [height, width, 3], and what each level of each channel means, [3, 256].
private struct Image {
  let pixels: UnsafePointer<UInt8>
  let width: Int
  let levels: UnsafePointer<Float>
}

extension Compute {
  /// patches[patch, channel · row · column] = the pixels of `count` patches from patch `first` on: what a convolution whose
  /// stride is its size multiplies with its weights.
  fileprivate func gatherPatches(
    _ image: Image, side: Int, columns: Int, first: Int, count: Int, into patches: Rows
  ) {
    struct Job {
      let image: Image
      let side: Int
      let columns: Int
      let first: Int
      let patches: Rows

      func run(_ row: Int) {
        let (top, left) = ((first + row) / columns * side, (first + row) % columns * side)
        let output = patches[row]
        for y in 0..<side {
          let line = image.pixels + 3 * ((top + y) * image.width + left)
          for channel in 0..<3 {
            let levels = image.levels + 256 * channel
            let to = output + (channel * side + y) * side
            for x in 0..<side { to[x] = levels[Int(line[3 * x + channel])] }
          }
        }
      }
    }
    var job = Job(image: image, side: side, columns: columns, first: first, patches: patches)
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.run(row) }
  }
}
