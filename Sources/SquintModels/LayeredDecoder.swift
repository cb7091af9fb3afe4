import SquintCompute
import SquintFile

// What is the same for every decoder that is a stack of layers: where weights come from, what is kept in memory, in which order the
// rows go through the layers, and the head. What a layer computes is in Decoders/, one file for each graph.

/// A graph of layers, in the memory of a session.
package protocol LayerGraph {
  associatedtype Blueprint: DecoderBlueprint
  associatedtype Layer: LayerWeights where Layer.Blueprint == Blueprint
  associatedtype Regions: Sendable

  /// What each of the layers remembers.
  static func memories(_ blueprint: Blueprint, _ layers: [Layer]) -> [LayerMemory]

  /// Reserves what a layer needs while it computes. The chunk's normalized rows, and their int8 form, are there.
  static func reserve(
    _ blueprint: Blueprint, _ layers: [Layer], _ size: DecoderSize, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions

  /// The widths of the widest normalized row and of the widest row that is multiplied with a matrix.
  static func widths(_ blueprint: Blueprint) -> (normalized: Int, multiplied: Int)

  init(_ blueprint: Blueprint, _ regions: Regions, _ shared: SharedRows, in arena: Arena, _ compute: Compute)

  /// What a token's embedding becomes before the first layer, in place: x[width].
  func prepareEmbedding(_ x: UnsafeMutablePointer<Float>)

  /// Computes what all layers need of a pass over rows at `positions`.
  func begin(_ positions: UnsafePointer<RotaryPosition>, count: Int)

  /// Sends the rows of `x` [count, width] through layer `index`, in place.
  ///
  /// - Parameter first: the row of the pass that `x` begins with.
  func forward(
    _ x: Rows, count: Int, _ layer: Layer, _ index: Int, first: Int, _ state: LayerState, _ placement: Placement)

  /// The epsilon of the norm before the head.
  var normEpsilon: Float { get }
}

extension LayerGraph {
  package func prepareEmbedding(_ x: UnsafeMutablePointer<Float>) {}
}

/// The weights of a layer, in place in the file.
package protocol LayerWeights: Sendable {
  associatedtype Blueprint: DecoderBlueprint

  /// Finds the tensors of layer `index` and checks their shapes.
  ///
  /// - Throws: `badData` naming the tensor that is missing or has another shape.
  init(_ blueprint: Blueprint, _ index: Int, in file: ModelFile) throws(SquintError)

  /// The same layer, read `distance` bytes behind where it was.
  func moved(by distance: Int) -> Self
}

/// Rows of a chunk that every graph has.
package struct SharedRows: Sendable {
  /// The normalized rows [chunk, width].
  package let h: Rows
  /// The int8 form of rows that are multiplied.
  package let quantized: QuantizedRows
  /// Hands out experts; nil where there are none, or they are in place in the file.
  package let experts: ExpertStream?
}

// MARK: Weights

/// What a pass over a decoder uses, in order, as ranges of the file: its layers without their experts, and slices of the head no
/// larger than those.
package struct DecoderUnits: Sendable {
  package let ranges: [Range<Int>]
  /// nil where no layer has experts.
  package let experts: ExpertTable?
  /// The panels of each slice of the head.
  let headSlices: [Range<Int>]
  /// The size of a panel of the embedding, in bytes.
  let embeddingPanelBytes: Int
  /// Whether the embedding is the head, and so stays in memory where that does.
  private let isTied: Bool

  /// Whether the embedding is in memory at any time where these stay. One that is not the head does not stay where anything is
  /// read: of it single rows are used.
  func keepsEmbedding(_ residency: Residency) -> Bool {
    residency.streamsNothing || isTied && !residency.isStreamed[layers...].contains(true)
  }

  /// How many of `ranges` are layers.
  package var layers: Int { ranges.count - headSlices.count }

  /// Keeps as many of them as `bytes` hold; of experts as few as can be, and more where all of them stay.
  package func keeping(atMost bytes: Int) -> Residency {
    var residency = Residency(units: ranges, tail: layers, keepingAtMost: bytes)
    residency.pool = experts.map { experts in
      let left = residency.streamsUnits ? 0 : bytes - residency.keptBytes
      return ExpertPool(experts, slots: ExpertPool.leastSlots + left / experts.slotBytes)
    }
    return residency
  }

  /// Keeps all of them, and as many experts as there are slots; nil where there are none.
  package func keeping(experts slots: Int) -> Residency? {
    guard let experts else { return nil }
    var residency = Residency(keeping: ranges)
    residency.pool = ExpertPool(experts, slots: slots)
    return residency
  }

  init(
    _ file: ModelFile, layers count: Int, experts tensors: [ExpertsTensors], embedding: Matrix, head: Matrix
  ) {
    let expertNames = Set(tensors.flatMap { [$0.gateUp.name, $0.down.name] })
    let layers = file.layerRanges(of: "decoder", count: count, without: expertNames)
    experts = tensors.first.map { first in
      ExpertTable(
        tensors.map {
          ExpertTable.Layer(gateUp: file.tensor($0.gateUp.name)!.range, down: file.tensor($0.down.name)!.range)
        }, experts: first.experts.count, chosen: first.experts.chosen)
    }
    isTied = file.tensor("decoder.head") == nil
    let tensor = file.tensor(isTied ? "decoder.embedding" : "decoder.head")!
    let perSlice = max((layers.map(\.count).max() ?? 0) / head.panelBytes, 1)
    headSlices = stride(from: 0, to: head.panels, by: perSlice).map { $0..<min($0 + perSlice, head.panels) }
    ranges =
      layers
      + headSlices.map { panels in
        let bytes = head.bytes(ofPanels: panels)
        return tensor.range.lowerBound + bytes.lowerBound..<tensor.range.lowerBound + bytes.upperBound
      }
    embeddingPanelBytes = embedding.panelBytes
  }
}

/// A decoder in a file.
package struct LayeredDecoderModel<Graph: LayerGraph>: DecoderModel {
  package let blueprint: any DecoderBlueprint
  package let graph: Graph.Blueprint
  package let units: DecoderUnits
  let layers: [Graph.Layer]
  let memories: [LayerMemory]
  let embedding: Matrix  // [vocabulary, width]
  nonisolated(unsafe) let norm: UnsafePointer<Float>  // [width]
  let head: Matrix  // [vocabulary, width]; the embedding where they are tied
  /// Keeps the file mapped for the views above.
  let file: ModelFile

  /// Reads the keys `decoder.*`, finds the tensors of module `decoder` and checks their shapes.
  ///
  /// - Throws: `badData` naming the key, or the tensor that is missing or has another shape.
  package init(_ file: ModelFile) throws(SquintError) {
    self.file = file
    let graph = try Graph.Blueprint(file.metadata)
    self.graph = graph
    blueprint = graph
    embedding = try Matrix(graph.embedding, in: file)
    var layers: [Graph.Layer] = []
    layers.reserveCapacity(graph.layers)
    for index in 0..<graph.layers { layers.append(try Graph.Layer(graph, index, in: file)) }
    self.layers = layers
    norm = try file.vector(graph.norm)
    head = file.tensor(graph.head.name) == nil ? embedding : try Matrix(graph.head, in: file)
    memories = Graph.memories(graph, layers)
    // That may have read biases, and the system maps the pages around them, but no weight is to be in memory yet.
    file.advise(file.range(ofModule: "decoder"), .done)
    units = DecoderUnits(
      file, layers: graph.layers, experts: graph.expertTensors, embedding: embedding, head: head)
  }

  package func reserve(
    _ residency: Residency, _ size: DecoderSize, in plan: inout ArenaPlan
  ) throws(SquintError) -> any DecoderRegions {
    try LayeredDecoder<Graph>.Regions(self, residency, size, in: &plan)
  }

  package func decoder(
    _ regions: any DecoderRegions, reader: DirectReader, in arena: Arena, _ compute: Compute
  ) throws(SquintError) -> any Decoder {
    guard let regions = regions as? LayeredDecoder<Graph>.Regions else {
      preconditionFailure("the regions of another decoder")
    }
    return try LayeredDecoder(self, regions, reader: reader, in: arena, compute)
  }
}

// MARK: State

/// A decoder with its memory.
package final class LayeredDecoder<Graph: LayerGraph>: Decoder {
  /// Every buffer there is.
  package struct Regions: DecoderRegions {
    let size: DecoderSize
    let stream: WeightStream.Regions
    /// Room for a panel of an embedding that does not stay in memory.
    let embeddingPanel: Region<UInt8>?
    let states: LayerStates.Regions
    let positions: Region<RotaryPosition>
    /// nil where nothing is added behind layers.
    let deep: Region<DeepRows>?
    let x: Region<Float>
    let h: Region<Float>
    let quantized: QuantizedRows.Regions
    let graph: Graph.Regions
    let logits: Region<Float>

    init(
      _ model: LayeredDecoderModel<Graph>, _ residency: Residency, _ size: DecoderSize, in plan: inout ArenaPlan
    ) throws(SquintError) {
      let phases: Phases = [.prefill, .decode]
      let c = model.graph
      let units = model.units
      let widths = Graph.widths(c)
      self.size = size
      stream = try WeightStream.Regions(residency, phases: phases, in: &plan)
      embeddingPanel =
        units.keepsEmbedding(residency)
        ? nil
        : try plan.reserve(
          "embedding panel", count: DirectReader.spaceBytes(units.embeddingPanelBytes), phases: phases,
          alignment: DirectReader.alignment)
      states = try LayerStates.Regions(model.memories, size, in: &plan)
      positions = try plan.reserve("rotary positions", count: size.rows, phases: phases)
      deep =
        size.deepLevels == 0 ? nil : try plan.reserve("rows behind layers", count: size.rows, phases: phases)
      x = try plan.reserve("residual stream", count: size.rows * c.width, phases: phases)
      h = try plan.reserve("normalized rows", count: size.chunk * max(c.width, widths.normalized), phases: phases)
      quantized = try QuantizedRows.Regions(
        rows: size.chunk, columns: max(c.width, widths.multiplied), phases: phases, in: &plan)
      graph = try Graph.reserve(c, model.layers, size, in: &plan)
      logits = try plan.reserve("logits", count: size.logitRows * c.vocabulary, phases: phases)
    }
  }

  private let model: LayeredDecoderModel<Graph>
  private let compute: Compute
  private let graph: Graph
  package let stream: WeightStream
  /// The panels of the head that are multiplied at a time.
  private let headSlices: [Range<Int>]
  private let reader: DirectReader
  /// nil where the embedding stays in memory.
  private let embeddingPanel: UnsafeMutableRawPointer?
  private let states: LayerStates
  private let positions: UnsafeMutablePointer<RotaryPosition>
  /// Of each row of a pass; nil where nothing is added behind layers.
  private let deep: UnsafeMutablePointer<DeepRows>?
  private let deepLevels: Int
  package let rows: Int
  /// The rows that go through the buffers below `x` at a time.
  private let chunk: Int
  package let x: Rows
  private let shared: SharedRows
  package let logits: Rows

  package var instructionSet: String { compute.kernels.name }
  package var trace: Trace? {
    get { compute.trace.current }
    set { compute.trace.current = newValue }
  }

  init(
    _ model: LayeredDecoderModel<Graph>, _ regions: Regions, reader: DirectReader, in arena: Arena, _ compute: Compute
  ) throws(SquintError) {
    let c = model.graph
    self.model = model
    self.compute = compute
    self.reader = reader
    let keepsExperts = regions.stream.residency.pool == nil
    stream = try WeightStream(
      regions.stream, others: keepsExperts ? model.units.experts?.ranges ?? [] : [], reader: reader, file: model.file,
      in: arena)
    headSlices = stream.keeps(c.layers) ? [0..<model.head.panels] : model.units.headSlices
    embeddingPanel = regions.embeddingPanel.map { UnsafeMutableRawPointer(arena[$0].baseAddress!) }
    states = LayerStates(regions.states, in: arena)
    positions = arena[regions.positions].baseAddress!
    deep = regions.deep.map { arena[$0].baseAddress! }
    deepLevels = min(regions.size.deepLevels, c.layers)
    rows = regions.size.rows
    chunk = regions.size.chunk
    x = Rows(regions.x, width: c.width, in: arena)
    shared = SharedRows(
      h: Rows(regions.h, width: c.width, in: arena), quantized: QuantizedRows(regions.quantized, in: arena),
      experts: stream.experts)
    graph = Graph(c, regions.graph, shared, in: arena, compute)
    logits = Rows(regions.logits, width: c.vocabulary, in: arena)
  }
}

/// What is added to a row behind the first layers: [deep levels, width]; nil: nothing.
struct DeepRows: BitwiseCopyable, @unchecked Sendable {  // a view of who called
  let first: UnsafePointer<Float>?
}

// MARK: Forward

// Reached through `any Decoder`, these would be compiled once for all graphs: a token of a small model would take 2 % longer. A graph
// that is not named here computes the same.
extension LayeredDecoder {
  @_specialize(where Graph == Llama)
  @_specialize(where Graph == Gemma3)
  @_specialize(where Graph == LFM2)
  @_specialize(where Graph == Qwen3MoE)
  package func embed(_ token: Int, row: Int) throws(SquintError) {
    let output = UnsafeMutableBufferPointer(start: x[row], count: x.width)
    defer { graph.prepareEmbedding(x[row]) }
    deep?[row] = DeepRows(first: nil)
    let embedding = model.embedding
    guard let embeddingPanel else { return embedding.copyRow(token, to: output, compute.kernels) }
    let panel = token / PanelLayout.rowsPerPanel
    let bytes = embedding.bytes(ofPanels: panel..<panel + 1)
    let start = embedding.data + bytes.lowerBound - model.file.address(of: 0)
    let range = DirectReader.aligned(start..<start + bytes.count)
    try reader.read(range, into: embeddingPanel)
    embedding.slice(
      panels: panel..<panel + 1,
      movedBy: UnsafeRawPointer(embeddingPanel) - model.file.address(of: range.lowerBound)
    ).copyRow(token % PanelLayout.rowsPerPanel, to: output, compute.kernels)
  }

  package func embed(_ features: UnsafePointer<Float>, row: Int) {
    x[row].update(from: features, count: x.width)
    deep?[row] = DeepRows(first: features + x.width)
  }

  package func place(_ row: Int, at position: RotaryPosition) { positions[row] = position }

  @_specialize(where Graph == Llama)
  @_specialize(where Graph == Gemma3)
  @_specialize(where Graph == LFM2)
  @_specialize(where Graph == Qwen3MoE)
  @discardableResult package func forward(
    count: Int, _ placement: Placement, projects: Bool, while shouldContinue: (_ layer: Int) -> Bool
  ) -> Bool {
    let layers = model.layers.count
    graph.begin(positions, count: count)
    stream.begin(units: projects ? model.units.ranges.count : layers)
    defer { stream.end() }
    trace?.place = "decoder"
    compute.record("input", x, count: count)
    for index in 0..<layers {
      guard shouldContinue(index) else { return false }
      if let trace { trace.place = "decoder.\(index)" }
      let layer = model.layers[index].moved(by: stream.use(index))
      for first in stride(from: 0, to: count, by: chunk) {
        graph.forward(
          x.from(first), count: min(chunk, count - first), layer, index, first: first, states[index],
          placement.from(first))
      }
      if index < deepLevels, let deep {
        for row in 0..<count {
          guard let rows = deep[row].first else { continue }
          compute.kernels.add(x[row], rows + index * x.width, x[row], x.width)
        }
        compute.record("deep", x, count: count)
      }
    }
    return true
  }

  @_specialize(where Graph == Llama)
  @_specialize(where Graph == Gemma3)
  @_specialize(where Graph == LFM2)
  @_specialize(where Graph == Qwen3MoE)
  package func project(first: Int, count: Int) {
    trace?.place = "decoder"
    compute.rmsNorm(x.from(first), model.norm, epsilon: graph.normEpsilon, into: shared.h, count: count)
    compute.record("norm", shared.h, count: count)
    for (index, panels) in headSlices.enumerated() {
      let slice = model.head.slice(panels: panels, movedBy: stream.use(model.layers.count + index))
      compute.multiply(
        shared.h, count: count, scratch: shared.quantized,
        .init(slice, into: logits.columns(from: panels.lowerBound * PanelLayout.rowsPerPanel)))
    }
    stream.end()
    compute.record("logits", logits, count: count)
  }

  package func copyState(_ positions: Range<Int>, from source: Int, to target: Int) {
    states.copy(positions, from: source, to: target)
  }

  package func cutBack(to count: Int) -> Int { states.cutBack(to: count) }

  package func keepSnapshot(at count: Int) { states.keepSnapshot(at: count) }
}
