import SquintCompute
import SquintFile

// What is the same for every encoder that is a stack of layers: where weights come from, in which order units and chunks of rows go
// through the layers, and where features are taken. What a layer computes is in Encoders/, one file for each graph.

/// A graph of an encoder's layers, in the memory of a session.
package protocol EncoderLayers: Sendable {
  associatedtype Blueprint: ModuleBlueprint
  /// The weights outside of the layers, in place in the file.
  associatedtype Weights: Sendable
  associatedtype Layer: EncoderLayerWeights where Layer.Blueprint == Blueprint
  associatedtype Regions: Sendable

  static func sizes(_ blueprint: Blueprint) -> EncoderSizes

  /// How the patches of a unit lie.
  ///
  /// - Throws: `badData` where the encoder takes no unit of this shape.
  static func grid(_ blueprint: Blueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid

  /// The rows that a unit of this shape, which `grid(of:)` accepts, has in the layers, where features are made of fewer or of others than
  /// each patch; those that stand for the whole unit are not among them.
  static func layerRows(_ blueprint: Blueprint, of shape: [Int], _ grid: FeatureGrid) -> Int

  /// The bytes of the numbers of a unit of this shape.
  static func unitBytes(of shape: [Int]) -> Int

  /// Finds the tensors outside of the layers and checks their shapes.
  ///
  /// - Throws: `badData` naming the tensor that is missing or has another shape.
  static func weights(_ blueprint: Blueprint, in file: ModelFile) throws(SquintError) -> Weights

  /// Reserves what only this graph needs, for units of at most `patches` rows in the layers.
  static func reserve(_ blueprint: Blueprint, patches: Int, in plan: inout ArenaPlan) throws(SquintError) -> Regions

  /// - Parameter levels: [3, 256]: what each level of each channel is for the model.
  init(
    _ blueprint: Blueprint, _ weights: Weights, levels: [Float], _ regions: Regions, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute)

  /// Computes what all layers need of units of this shape.
  mutating func begin(shape: [Int], _ grid: FeatureGrid)

  /// Writes the rows of a unit [rows, width] to `x`.
  func embed(_ numbers: UnsafeRawPointer, into x: Rows)

  /// The same, of a graph in which this is long work.
  ///
  /// - Parameter shouldContinue: asked now and then.
  /// - Returns: whether it was finished.
  func embed(_ numbers: UnsafeRawPointer, into x: Rows, while shouldContinue: () -> Bool) -> Bool

  /// Sends the `count` rows of a unit through layer `index`, in place.
  func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int)

  /// Writes the features of the `count` rows of a unit that are taken at `index` of `featureLayers` to the first columns of
  /// `features`; graphs that make fewer of them write those.
  func take(_ x: Rows, count: Int, index: Int, into features: Rows)
}

extension EncoderLayers {
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows, while shouldContinue: () -> Bool) -> Bool {
    embed(numbers, into: x)
    return true
  }

  package static func layerRows(_ blueprint: Blueprint, of shape: [Int], _ grid: FeatureGrid) -> Int { grid.count }

  /// Of 8-bit levels of three channels.
  package static func unitBytes(of shape: [Int]) -> Int { shape.reduce(3, *) }
}

/// What the buffers of an encoder follow from.
package struct EncoderSizes: Sendable {
  /// The module, and what its keys and tensors begin with: `encoder.image`.
  package let module: String
  package let layers: Int
  package let width: Int
  package let heads: Int
  /// The widest row that is multiplied beside those of `width`.
  package let innerWidth: Int
  /// How many such rows there are for a row of `width`: two where one is multiplied with the other.
  package var innerRows = 1
  /// The width of a patch's numbers.
  package let patchWidth: Int
  /// Whether a row that stands for the whole unit goes before its patches.
  package var hasClass = false
  /// Whether that row is the first of the features.
  package var hasClassRow = false
  /// After how many layers features are taken, never falling; a block of columns for each.
  package let featureLayers: [Int]
  /// The rows of the largest block, where rows of some layers see those of their block alone; else 0.
  package var blockRows = 0
  /// The layers in which rows do so.
  package var blockLayers = 0
  /// The width of the features, where it is another than that of the rows; features are then taken once.
  package var outputWidth: Int?

  package init(
    module: String, layers: Int, width: Int, heads: Int, innerWidth: Int, patchWidth: Int, featureLayers: [Int]
  ) {
    self.module = module
    self.layers = layers
    self.width = width
    self.heads = heads
    self.innerWidth = innerWidth
    self.patchWidth = patchWidth
    self.featureLayers = featureLayers
  }

  package var headWidth: Int { width / heads }
  var featureWidth: Int { outputWidth ?? featureLayers.count * width }
  var lastLayer: Int { featureLayers[featureLayers.count - 1] }

  /// The rows that go through the wide buffers at a time: many enough that the matrices, read once for them, cost little beside the
  /// arithmetic. About 256, so that no chunk is left over with a few rows, and in groups of attention's.
  func chunk(_ rows: Int) -> Int {
    let chunks = max((rows + 128) / 256, 1)
    let group = PanelLayout.columnsPerGroup
    return (max((rows + chunks - 1) / chunks, blockRows) + group - 1) / group * group
  }
}

/// The weights of a layer, in place in the file.
package protocol EncoderLayerWeights: Sendable {
  associatedtype Blueprint: ModuleBlueprint

  /// Finds the tensors of layer `index` and checks their shapes.
  ///
  /// - Throws: `badData` naming the tensor that is missing or has another shape.
  init(_ blueprint: Blueprint, _ index: Int, in file: ModelFile) throws(SquintError)

  /// The same layer, read `distance` bytes behind where it was.
  func moved(by distance: Int) -> Self

  /// Whether the matrices are quantized: then attention is as well.
  var isQuantized: Bool { get }
}

// MARK: Buffers

/// The buffers that every graph has.
package struct EncoderBuffers {
  package struct Regions: Sendable {
    let chunk: Int
    let rows: Int
    let attention: EncoderAttention.Regions
    let h: Region<Float>
    let q: Region<Float>
    let wide: Region<Float>
    let quantized: QuantizedRows.Regions

    init(
      _ s: EncoderSizes, rows: Int, isQuantized: Bool, threads: Int, in plan: inout ArenaPlan
    ) throws(SquintError) {
      let phases = Phases.encode
      chunk = s.chunk(rows)
      let most = min(rows, chunk)
      self.rows = most
      attention = try EncoderAttention.Regions(
        .init(
          positions: rows, heads: s.heads, headWidth: s.headWidth, chunk: chunk, arithmetic: isQuantized ? .int8 : .f32,
          hasBlocks: s.blockRows > 0),
        threads: threads, phases: phases, in: &plan)
      // Holds the normalized rows, and then the heads' outputs, which are not needed at the same time.
      h = try plan.reserve("encoder normalized rows", count: most * s.width, phases: phases)
      q = try plan.reserve("encoder queries", count: most * s.width, phases: phases)
      // Holds the pixels of patches, and later the feed-forward network's inner rows.
      wide = try plan.reserve(
        "encoder feed-forward", count: most * max(s.innerRows * s.innerWidth, s.patchWidth), phases: phases)
      quantized = try QuantizedRows.Regions(
        rows: most, columns: max(s.width, s.innerWidth, s.patchWidth), phases: phases, in: &plan)
    }
  }

  /// The rows that go through these at a time.
  package let chunk: Int
  package let attention: EncoderAttention
  /// [chunk, width]
  package let h: Rows
  package let q: Rows
  /// [chunk, patch width]
  package let pixels: Rows
  /// [chunk, inner width]
  package let inner: Rows
  /// The same behind them, where there are two such rows for each.
  package let secondInner: Rows
  package let quantized: QuantizedRows

  init(_ s: EncoderSizes, _ regions: Regions, in arena: Arena) {
    chunk = regions.chunk
    attention = EncoderAttention(regions.attention, in: arena)
    h = Rows(regions.h, width: s.width, in: arena)
    q = Rows(regions.q, width: s.width, in: arena)
    pixels = Rows(regions.wide, width: s.patchWidth, in: arena)
    inner = Rows(regions.wide, width: s.innerWidth, in: arena)
    secondInner = inner.from(s.innerRows > 1 ? regions.rows : 0)
    quantized = QuantizedRows(regions.quantized, in: arena)
  }

  /// Calls `body` with each chunk of `count` rows.
  func forEachChunk(of count: Int, _ body: (_ first: Int, _ rows: Int) -> Void) {
    for first in stride(from: 0, to: count, by: chunk) { body(first, min(chunk, count - first)) }
  }
}

// MARK: The model

/// An encoder in a file.
package struct LayeredEncoderModel<Graph: EncoderLayers>: EncoderModel {
  package let blueprint: Graph.Blueprint
  package let sizes: EncoderSizes
  let weights: Graph.Weights
  let layers: [Graph.Layer]
  /// [3, 256]: what each level of each channel is for the model.
  let levels: [Float]
  package let streamUnits: [Range<Int>]
  /// Keeps the file mapped for the views above.
  let file: ModelFile

  /// - Throws: `badData` where tensors of the module are missing or impossible.
  package init(_ file: ModelFile, _ blueprint: Graph.Blueprint, levels: [Float]) throws(SquintError) {
    self.file = file
    self.blueprint = blueprint
    self.levels = levels
    sizes = Graph.sizes(blueprint)
    weights = try Graph.weights(blueprint, in: file)
    var layers: [Graph.Layer] = []
    layers.reserveCapacity(sizes.layers)
    for index in 0..<sizes.layers { layers.append(try Graph.Layer(blueprint, index, in: file)) }
    self.layers = layers
    streamUnits = file.layerRanges(of: sizes.module, count: sizes.lastLayer)
  }

  package var featureWidth: Int { sizes.featureWidth }
  package var hasClassRow: Bool { sizes.hasClassRow }

  package func grid(of shape: [Int]) throws(SquintError) -> FeatureGrid { try Graph.grid(blueprint, of: shape) }

  package func layerRows(of shape: [Int]) -> Int {
    guard let grid = try? grid(of: shape) else { return 0 }
    return Graph.layerRows(blueprint, of: shape, grid) + (sizes.hasClass ? 1 : 0)
  }

  package func holds(_ shape: [Int], patches: Int) -> Bool {
    guard let grid = try? grid(of: shape) else { return false }
    return Graph.layerRows(blueprint, of: shape, grid) <= patches
  }

  package func attentionOperations(rows: Int) -> Double {
    let seen = rows * (sizes.layers - sizes.blockLayers) + min(sizes.blockRows, rows) * sizes.blockLayers
    return 4 * Double(rows) * Double(sizes.width) * Double(seen)
  }

  package func reserve(
    _ residency: Residency, shapes: [[Int]], units: Int, threads: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> EncoderMaker {
    var patches = 1
    for shape in shapes { patches = max(patches, Graph.layerRows(blueprint, of: shape, try grid(of: shape))) }
    let regions = try LayeredEncoder<Graph>.Regions(
      self, residency, patches: patches, units: units, threads: threads, in: &plan)
    let model = self
    return { (reader, arena, compute) throws(SquintError) in
      try LayeredEncoder(model, regions, reader: reader, in: arena, compute)
    }
  }
}

// MARK: The encoder

/// An encoder with its buffers.
package final class LayeredEncoder<Graph: EncoderLayers>: Encoder {
  /// Every buffer there is, for passes over at most `units` units of at most `rows` rows.
  struct Regions: Sendable {
    let rows: Int
    let units: Int
    let stream: WeightStream.Regions
    let x: Region<Float>
    let features: Region<Float>
    let buffers: EncoderBuffers.Regions
    let graph: Graph.Regions

    init(
      _ model: LayeredEncoderModel<Graph>, _ residency: Residency, patches: Int, units: Int, threads: Int,
      in plan: inout ArenaPlan
    ) throws(SquintError) {
      let s = model.sizes
      guard patches < 1 << 24 else {
        throw SquintError(
          .doesNotFit, "\(s.module): a tile of \(grouped(patches)) patches is more than any machine holds")
      }
      let phases = Phases.encode
      self.units = units
      rows = patches + (s.hasClass ? 1 : 0)
      stream = try WeightStream.Regions(residency, phases: phases, in: &plan)
      x = try plan.reserve("encoder rows", count: units * rows * s.width, phases: phases)
      // Those of the last layer are handed out unit by unit.
      features = try plan.reserve(
        "features", count: (s.featureLayers.count > 1 ? units : 1) * rows * s.featureWidth, phases: phases)
      buffers = try EncoderBuffers.Regions(
        s, rows: rows, isQuantized: model.layers.first?.isQuantized == true, threads: threads, in: &plan)
      graph = try Graph.reserve(model.blueprint, patches: patches, in: &plan)
    }
  }

  private let model: LayeredEncoderModel<Graph>
  private let compute: Compute
  private var graph: Graph
  private let rows: Int
  package var patches: Int { rows - (model.sizes.hasClass ? 1 : 0) }
  package let units: Int
  package let stream: WeightStream
  /// [units · rows, width]
  private let x: Rows
  /// [units · rows, feature_width], of one unit where features are taken once
  private let features: Rows

  /// - Throws: `internalError` where the system gives no threads to read weights.
  init(
    _ model: LayeredEncoderModel<Graph>, _ regions: Regions, reader: DirectReader, in arena: Arena, _ compute: Compute
  ) throws(SquintError) {
    let s = model.sizes
    self.model = model
    self.compute = compute
    rows = regions.rows
    units = regions.units
    let module = model.file.range(ofModule: s.module)
    stream = try WeightStream(
      regions.stream, others: regions.stream.residency.others(in: module), reader: reader, file: model.file, in: arena)
    x = Rows(regions.x, width: s.width, in: arena)
    features = Rows(regions.features, width: s.featureWidth, in: arena)
    graph = Graph(
      model.blueprint, model.weights, levels: model.levels, regions.graph,
      EncoderBuffers(s, regions.buffers, in: arena), in: arena, compute)
  }

  package func encode(
    _ numbers: UnsafeRawPointer, count units: Int, shape: [Int], while shouldContinue: () -> Bool,
    visit: (_ unit: Int, _ features: Rows) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool {
    let s = model.sizes
    let grid = try model.grid(of: shape)
    let count = Graph.layerRows(model.blueprint, of: shape, grid) + (s.hasClass ? 1 : 0)
    precondition(count <= rows && units <= self.units, "more or larger units than were planned")

    stream.begin(units: s.lastLayer)
    defer { stream.end() }
    graph.begin(shape: shape, grid)
    let unitBytes = Graph.unitBytes(of: shape)
    for unit in 0..<units {
      let x = x.from(unit * count)
      guard shouldContinue(), graph.embed(numbers + unit * unitBytes, into: x, while: shouldContinue) else {
        return false
      }
      compute.trace.current?.place = s.module
      compute.record("input", x, count: count)
      if s.lastLayer > 0 { take(x, after: 0, count: count, unit: unit) }
    }
    for index in 0..<s.lastLayer {
      guard shouldContinue() else { return false }
      if let trace = compute.trace.current { trace.place = "\(s.module).\(index)" }
      let layer = model.layers[index].moved(by: stream.use(index))
      for unit in 0..<units {
        let x = x.from(unit * count)
        graph.forward(x, count: count, layer, index)
        if index + 1 < s.lastLayer { take(x, after: index + 1, count: count, unit: unit) }
      }
    }
    try stream.check()
    for unit in 0..<units {
      try visit(unit, take(x.from(unit * count), after: s.lastLayer, count: count, unit: unit))
    }
    return true
  }

  /// Where features are to be taken after `layers` layers, writes them as a block of columns of the unit's features. Returns these.
  @discardableResult private func take(_ x: Rows, after layers: Int, count: Int, unit: Int) -> Rows {
    let s = model.sizes
    let kept = count - (s.hasClass && !s.hasClassRow ? 1 : 0)
    let features = features.from(s.featureLayers.count > 1 ? unit * kept : 0)
    for index in s.featureLayers.indices where s.featureLayers[index] == layers {
      graph.take(x.from(count - kept), count: kept, index: index, into: features.columns(from: index * s.width))
    }
    return features
  }
}
