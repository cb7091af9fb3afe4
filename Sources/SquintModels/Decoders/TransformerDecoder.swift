import SquintCompute
import SquintFile

/// The text decoder of the Llama, Mistral, Qwen2 and Qwen3 families: a pre-norm transformer with rotary positions,
/// grouped queries and SwiGLU. What distinguishes the families is in `Configuration` (formats/decoder.md).
///
/// Sources: LLaMA (arXiv 2302.13971), Qwen2 (2407.10671), Qwen3 (2505.09388); the reference is transformers'
/// modeling_llama.py, modeling_qwen2.py, modeling_qwen3.py.
public struct TransformerDecoder {

  // MARK: Configuration

  /// The blueprint.
  public struct Configuration: Sendable {
    public let architecture: String
    public let vocabulary: Int
    /// The positions that the model was trained for.
    public let context: Int
    public let layers: Int
    public let width: Int
    public let ffnWidth: Int
    public let heads: Int
    public let kvHeads: Int
    public let headWidth: Int
    public let normEpsilon: Float
    /// [layers]: a position attends to this many positions at most; 0 for all.
    public let windows: [Int]
    /// [rope_width / 2], radians per position.
    public let ropeFrequencies: [Float]
    public let ropeMagnitude: Float

    /// Reads the keys `decoder.*`.
    ///
    /// - Throws: `badData` where one is missing or impossible.
    public init(_ metadata: Metadata) throws(SquintError) {
      let size = 1...1 << 24
      architecture = try metadata.string("decoder.architecture")
      vocabulary = try metadata.int("decoder.vocabulary", in: size)
      context = try metadata.int("decoder.context", in: 1...1 << 30)
      layers = try metadata.int("decoder.layers", in: 1...4096)
      width = try metadata.int("decoder.width", in: size)
      ffnWidth = try metadata.int("decoder.ffn_width", in: size)
      heads = try metadata.int("decoder.heads", in: 1...4096)
      kvHeads = try metadata.int("decoder.kv_heads", in: 1...heads)
      headWidth = try metadata.int("decoder.head_width", in: 2...Compute.headWidths.upperBound)
      guard heads % kvHeads == 0 else {
        throw SquintError(.badData, "metadata decoder.kv_heads is \(kvHeads), which does not divide \(heads) heads")
      }
      normEpsilon = try metadata.epsilon("decoder.norm_epsilon")
      let window = try metadata.int("decoder.window", in: 0...Int(Int32.max), default: 0)
      let windowLayers =
        metadata["decoder.window_layers"] == nil ? nil : Set(try metadata.ints("decoder.window_layers"))
      windows = (0..<layers).map { windowLayers?.contains(Int64($0)) ?? true ? window : 0 }
      ropeFrequencies = try metadata.floats("decoder.rope_frequencies").map { Float($0) }
      guard (1...headWidth / 2).contains(ropeFrequencies.count), ropeFrequencies.allSatisfy(\.isFinite) else {
        throw SquintError(
          .badData,
          "metadata decoder.rope_frequencies must be 1 to \(headWidth / 2) finite numbers for heads of \(headWidth); "
            + "convert the model again")
      }
      ropeMagnitude = try metadata.finite("decoder.rope_magnitude", default: 1)
    }
  }

  // MARK: Weights

  /// The tensors of the file, in place.
  public struct Weights: Sendable {
    struct Layer: @unchecked Sendable {  // views of the file
      let attentionNorm: UnsafePointer<Float>  // [width]
      let q: Matrix  // [heads · head_width, width]
      let k: Matrix  // [kv_heads · head_width, width]
      let v: Matrix  // [kv_heads · head_width, width]
      let qNorm: Compute.HeadNorm?  // [head_width]
      let kNorm: Compute.HeadNorm?  // [head_width]
      let o: Matrix  // [width, heads · head_width]
      let ffnNorm: UnsafePointer<Float>  // [width]
      let gate: Matrix  // [ffn_width, width]
      let up: Matrix  // [ffn_width, width]
      let down: Matrix  // [width, ffn_width]

      /// What is the same in the keys of all positions, but for the turn of each: nil where they are normalized behind it.
      var keyBias: UnsafePointer<Float>? { kNorm == nil ? k.bias : nil }

      /// Whether a byte for each number of a key is too little: a large bias turns so fast that it is no part of the center, and the
      /// rounding of what is left moves scores. Of the layers of Qwen2.5's decoders that is the first one of 0.5B alone.
      ///
      /// A number of a key is off by 0.007 of their root mean square (a 254th of a group's largest, which is three times that, over
      /// √3), so a score, whose terms add up at random, is by 0.007 · ‖key‖ · ‖query‖ / head_width; 1/20 is where that begins to show.
      func needsFineKeys(_ c: Configuration) -> Bool {
        guard let keyBias else { return false }
        let width = c.headWidth
        let queryHeads = c.heads / c.kvHeads
        // How much of a pair is in the center.
        let shares = c.ropeFrequencies.map { RotaryAngles.mean(of: $0, positions: centerPositions).length }
        for head in 0..<c.kvHeads {
          var turning = 0.0
          for (pair, share) in shares.enumerated() {
            let (a, b) = (keyBias[head * width + pair], keyBias[head * width + pair + shares.count])
            turning += Double(a * a + b * b) * (1 - share * share)
          }
          // Beside its bias, a number of a query is about 2.
          var queries = Double(4 * width)
          if let bias = q.bias {
            for index in 0..<queryHeads * width {
              let number = Double(bias[head * queryHeads * width + index])
              queries += number * number / Double(queryHeads)
            }
          }
          if 0.007 * (turning * queries).squareRoot() / Double(width) > 0.05 { return true }
        }
        return false
      }

      /// The same layer, read `distance` bytes behind where it was.
      func moved(by distance: Int) -> Layer {
        Layer(
          attentionNorm: attentionNorm.moved(by: distance), q: q.moved(by: distance), k: k.moved(by: distance),
          v: v.moved(by: distance), qNorm: qNorm?.moved(by: distance), kNorm: kNorm?.moved(by: distance),
          o: o.moved(by: distance), ffnNorm: ffnNorm.moved(by: distance), gate: gate.moved(by: distance),
          up: up.moved(by: distance), down: down.moved(by: distance))
      }
    }

    let embedding: Matrix  // [vocabulary, width]
    let layers: [Layer]
    nonisolated(unsafe) let norm: UnsafePointer<Float>  // [width]
    let head: Matrix  // [vocabulary, width]; the embedding where they are tied
    /// [layers]: whether a byte for each number of a key is too little.
    let needsFineKeys: [Bool]
    /// Keeps the file mapped for the views above.
    let file: ModelFile

    /// Finds the tensors of module `decoder` and checks their shapes.
    ///
    /// - Throws: `badData` naming the tensor that is missing or has another shape.
    public init(_ file: ModelFile, _ c: Configuration) throws(SquintError) {
      self.file = file
      embedding = try Matrix("decoder.embedding", rows: c.vocabulary, columns: c.width, in: file)
      var layers: [Layer] = []
      layers.reserveCapacity(c.layers)
      for index in 0..<c.layers {
        let name = "decoder.\(index)"
        func headNorm(_ name: String) throws(SquintError) -> Compute.HeadNorm? {
          guard file.tensor(name) != nil else { return nil }
          return Compute.HeadNorm(weight: try file.vector(name, count: c.headWidth), epsilon: c.normEpsilon)
        }
        layers.append(
          Layer(
            attentionNorm: try file.vector("\(name).attention.norm", count: c.width),
            q: try Matrix("\(name).attention.q", rows: c.heads * c.headWidth, columns: c.width, in: file),
            k: try Matrix("\(name).attention.k", rows: c.kvHeads * c.headWidth, columns: c.width, in: file),
            v: try Matrix("\(name).attention.v", rows: c.kvHeads * c.headWidth, columns: c.width, in: file),
            qNorm: try headNorm("\(name).attention.q_norm"),
            kNorm: try headNorm("\(name).attention.k_norm"),
            o: try Matrix("\(name).attention.o", rows: c.width, columns: c.heads * c.headWidth, in: file),
            ffnNorm: try file.vector("\(name).ffn.norm", count: c.width),
            gate: try Matrix("\(name).ffn.gate", rows: c.ffnWidth, columns: c.width, in: file),
            up: try Matrix("\(name).ffn.up", rows: c.ffnWidth, columns: c.width, in: file),
            down: try Matrix("\(name).ffn.down", rows: c.width, columns: c.ffnWidth, in: file)))
      }
      self.layers = layers
      needsFineKeys = layers.map { $0.needsFineKeys(c) }
      // That read biases, and the system maps the pages around them, but no weight is to be in memory yet.
      if layers.contains(where: { $0.keyBias != nil }) { file.advise(file.range(ofModule: "decoder"), .done) }
      norm = try file.vector("decoder.norm", count: c.width)
      head =
        file.tensor("decoder.head") == nil
        ? embedding : try Matrix("decoder.head", rows: c.vocabulary, columns: c.width, in: file)
    }
  }

  /// The positions over which the center of a layer's keys is a mean: as many as a session has unless it is told otherwise. They must
  /// not depend on the session, whose answers do not depend on its memory.
  static let centerPositions = 4096

  /// What a pass over the decoder uses, in order, as ranges of the file: its layers, and slices of the head no larger than those.
  public struct Parts: Sendable {
    public let ranges: [Range<Int>]
    /// The panels of each slice of the head.
    let headSlices: [Range<Int>]
    /// The size of a panel of the embedding, in bytes.
    let embeddingPanelBytes: Int
    /// Whether a layer's keys have a center.
    let hasKeyBias: Bool
    /// [layers]: whether a byte for each number of a key is too little.
    let needsFineKeys: [Bool]
    /// Whether the embedding is the head, and so stays in memory where that does.
    private let isTied: Bool

    /// Whether the embedding is in memory at any time where these stay. One that is not the head does not stay where anything is
    /// read: of it single rows are used.
    func keepsEmbedding(_ residency: Residency) -> Bool {
      residency.streamsNothing || isTied && !residency.isStreamed[layers...].contains(true)
    }

    /// How many of `ranges` are layers.
    public var layers: Int { ranges.count - headSlices.count }

    /// Keeps as many of them as `bytes` hold.
    public func keeping(atMost bytes: Int) -> Residency {
      Residency(parts: ranges, tail: layers, keepingAtMost: bytes)
    }

    public init(_ weights: Weights) {
      let file = weights.file
      let layers = file.layerRanges(of: "decoder", count: weights.layers.count)
      isTied = file.tensor("decoder.head") == nil
      let head = file.tensor(isTied ? "decoder.embedding" : "decoder.head")!
      let perSlice = max((layers.map(\.count).max() ?? 0) / weights.head.panelBytes, 1)
      headSlices = stride(from: 0, to: weights.head.panels, by: perSlice).map {
        $0..<min($0 + perSlice, weights.head.panels)
      }
      ranges =
        layers
        + headSlices.map { panels in
          let bytes = weights.head.bytes(ofPanels: panels)
          return head.range.lowerBound + bytes.lowerBound..<head.range.lowerBound + bytes.upperBound
        }
      embeddingPanelBytes = weights.embedding.panelBytes
      hasKeyBias = weights.layers.contains { $0.keyBias != nil }
      needsFineKeys = weights.needsFineKeys
    }
  }

  // MARK: State

  /// Every buffer there is, for passes of at most `rows` rows.
  public struct Regions: Sendable {
    let rows: Int
    let chunk: Int
    let parts: Parts
    let stream: WeightStream.Regions
    /// Room for a panel of an embedding that does not stay in memory.
    let embeddingPanel: Region<UInt8>?
    let cache: KVCache.Regions
    /// Of the layers whose keys need more than a byte for each number; nil where there are none.
    let fineCache: KVCache.Regions?
    let x: Region<Float>
    let h: Region<Float>
    let q: Region<Float>
    let k: Region<Float>
    let v: Region<Float>
    let gate: Region<Float>
    let up: Region<Float>
    let quantized: QuantizedRows.Regions
    let cosines: Region<Float>
    let sines: Region<Float>
    let frequencies: Region<Float>
    /// nil where keys have no center, or the cache needs none.
    let center: CenterRegions?
    let scratch: Region<Float>
    let attentionParts: Region<Float>
    let logits: Region<Float>

    struct CenterRegions {
      let keys: Region<Float>
      let cosines: Region<Float>
      let sines: Region<Float>
    }

    /// Reserves the decoder's buffers.
    ///
    /// - Parameters:
    ///   - parts: of the weights.
    ///   - residency: which of them stay in memory.
    ///   - rows: that go through the layers together: of a prompt, or the beams. Weights that do not stay are read once for
    ///     them.
    ///   - chunk: the rows that are computed at a time; at least the beams.
    ///   - logitRows: the rows whose logits are kept at a time.
    ///   - keepsCacheWhileEncoding: whether media may come when the cache holds a conversation.
    public init(
      _ c: Configuration, _ parts: Parts, _ residency: Residency, cache: KVShape, rows: Int, chunk: Int,
      logitRows: Int, threads: Int, keepsCacheWhileEncoding: Bool = false, in plan: inout ArenaPlan
    ) throws(SquintError) {
      let phases: Phases = [.prefill, .decode]
      self.rows = rows
      self.chunk = chunk
      self.parts = parts
      stream = try WeightStream.Regions(residency, phases: phases, in: &plan)
      embeddingPanel =
        parts.keepsEmbedding(residency)
        ? nil
        : try plan.reserve(
          "embedding panel", count: DirectReader.spaceBytes(parts.embeddingPanelBytes), phases: phases,
          alignment: DirectReader.alignment)
      let cachePhases = keepsCacheWhileEncoding ? [.encode, .prefill, .decode] : phases
      var coarse = cache
      var fine = cache
      fine.type = .f16
      fine.layers = cache.type == .int8 ? parts.needsFineKeys.count { $0 } : 0
      coarse.layers -= fine.layers
      self.cache = try KVCache.Regions(coarse, phases: cachePhases, in: &plan)
      fineCache =
        fine.layers == 0
        ? nil : try KVCache.Regions(fine, phases: cachePhases, in: &plan)
      func reserve(_ name: String, _ width: Int) throws(SquintError) -> Region<Float> {
        try plan.reserve(name, count: chunk * width, phases: phases)
      }
      x = try plan.reserve("residual stream", count: rows * c.width, phases: phases)
      // Holds the normalized rows, and then the heads' outputs, which are not needed at the same time.
      h = try reserve("normalized rows", max(c.width, c.heads * c.headWidth))
      q = try reserve("queries", c.heads * c.headWidth)
      k = try reserve("keys of the step", c.kvHeads * c.headWidth)
      v = try reserve("values of the step", c.kvHeads * c.headWidth)
      gate = try reserve("feed-forward gate", c.ffnWidth)
      up = try reserve("feed-forward up", c.ffnWidth)
      quantized = try QuantizedRows.Regions(
        rows: chunk, columns: max(c.width, c.ffnWidth, c.heads * c.headWidth), phases: phases, in: &plan)
      cosines = try plan.reserve("cosines", count: rows * c.ropeFrequencies.count, phases: phases)
      sines = try plan.reserve("sines", count: rows * c.ropeFrequencies.count, phases: phases)
      // Written once, before anything runs.
      frequencies = try plan.reserve(
        "rotary frequencies", count: c.ropeFrequencies.count, phases: [.encode, .prefill, .decode])
      center =
        cache.type.centersKeys && parts.hasKeyBias
        ? CenterRegions(
          keys: try plan.reserve("center of keys", count: c.kvHeads * c.headWidth, phases: phases),
          // Written once, too.
          cosines: try plan.reserve(
            "mean cosines", count: c.ropeFrequencies.count, phases: [.encode, .prefill, .decode]),
          sines: try plan.reserve(
            "mean sines", count: c.ropeFrequencies.count, phases: [.encode, .prefill, .decode])) : nil
      scratch = try plan.reserve(
        "attention tiles", count: threads * Compute.attentionScratch(headWidth: c.headWidth), phases: phases)
      attentionParts = try plan.reserve(
        "attention parts",
        count: AttentionParts.floats(context: cache.context, heads: c.heads, headWidth: c.headWidth), phases: phases)
      logits = try plan.reserve("logits", count: logitRows * c.vocabulary, phases: phases)
    }
  }

  public let configuration: Configuration
  /// The instruction set whose kernels run.
  public var instructionSet: String { compute.kernels.name }
  private let weights: Weights
  private let compute: Compute
  private let parts: Parts
  /// Hands out the weights.
  public let stream: WeightStream
  /// The panels of the head that are multiplied at a time.
  private let headSlices: [Range<Int>]
  private let reader: DirectReader
  /// nil where the embedding stays in memory.
  private let embeddingPanel: UnsafeMutableRawPointer?
  private let cache: KVCache
  private let fineCache: KVCache?
  /// The largest number of rows of a pass.
  public let rows: Int
  /// The rows that go through the buffers below `x` at a time.
  private let chunk: Int
  /// The rows that go through the layers: [rows, width]. Encoders' features are written here, too.
  public let x: Rows
  private let h: Rows
  private let attended: Rows
  private let q: Rows
  private let k: Rows
  private let v: Rows
  private let gate: Rows
  private let up: Rows
  private let quantized: QuantizedRows
  private let angles: RotaryAngles
  private let frequencies: UnsafeMutablePointer<Float>
  private let center: Center?
  private let scratch: Rows
  private let attentionParts: AttentionParts
  /// [logit rows, vocabulary]
  public let logits: Rows

  /// What is taken out of a layer's keys.
  private struct Center {
    let keys: Rows
    let angles: RotaryAngles
  }

  /// - Throws: `internalError` where the system gives no threads to read weights.
  public init(
    _ configuration: Configuration, _ weights: Weights, _ regions: Regions, reader: DirectReader, in arena: Arena,
    _ compute: Compute
  ) throws(SquintError) {
    let c = configuration
    self.configuration = c
    self.weights = weights
    self.compute = compute
    self.reader = reader
    parts = regions.parts
    stream = try WeightStream(regions.stream, reader: reader, file: weights.file, in: arena)
    headSlices = stream.keeps(c.layers) ? [0..<weights.head.panels] : parts.headSlices
    embeddingPanel = regions.embeddingPanel.map { UnsafeMutableRawPointer(arena[$0].baseAddress!) }
    cache = KVCache(regions.cache, in: arena)
    fineCache = regions.fineCache.map { KVCache($0, in: arena) }
    rows = regions.rows
    chunk = regions.chunk
    x = Rows(regions.x, width: c.width, in: arena)
    h = Rows(regions.h, width: c.width, in: arena)
    attended = Rows(regions.h, width: c.heads * c.headWidth, in: arena)
    q = Rows(regions.q, width: c.heads * c.headWidth, in: arena)
    k = Rows(regions.k, width: c.kvHeads * c.headWidth, in: arena)
    v = Rows(regions.v, width: c.kvHeads * c.headWidth, in: arena)
    gate = Rows(regions.gate, width: c.ffnWidth, in: arena)
    up = Rows(regions.up, width: c.ffnWidth, in: arena)
    quantized = QuantizedRows(regions.quantized, in: arena)
    angles = RotaryAngles(
      cosines: Rows(regions.cosines, width: c.ropeFrequencies.count, in: arena),
      sines: Rows(regions.sines, width: c.ropeFrequencies.count, in: arena))
    frequencies = arena[regions.frequencies].baseAddress!
    frequencies.update(from: c.ropeFrequencies, count: c.ropeFrequencies.count)
    center = regions.center.map { regions in
      Center(
        keys: Rows(regions.keys, width: c.kvHeads * c.headWidth, in: arena),
        angles: RotaryAngles(
          cosines: Rows(regions.cosines, width: c.ropeFrequencies.count, in: arena),
          sines: Rows(regions.sines, width: c.ropeFrequencies.count, in: arena)))
    }
    center?.angles.fillMeans(positions: Self.centerPositions, frequencies: frequencies, magnitude: c.ropeMagnitude)
    scratch = Rows(regions.scratch, width: Compute.attentionScratch(headWidth: c.headWidth), in: arena)
    attentionParts = AttentionParts(regions.attentionParts, heads: c.heads, headWidth: c.headWidth, in: arena)
    logits = Rows(regions.logits, width: c.vocabulary, in: arena)
  }
}

// MARK: Forward

extension TransformerDecoder {
  /// Writes the embedding of `token` to row `row` of `x`. The token must be less than the vocabulary.
  ///
  /// - Throws: `inputOutput` where the embedding is not in memory and cannot be read.
  public func embed(_ token: Int, row: Int) throws(SquintError) {
    let output = UnsafeMutableBufferPointer(start: x[row], count: configuration.width)
    let embedding = weights.embedding
    guard let embeddingPanel else { return embedding.copyRow(token, to: output, compute.kernels) }
    let panel = token / PanelLayout.rowsPerPanel
    let bytes = embedding.bytes(ofPanels: panel..<panel + 1)
    let start = embedding.data + bytes.lowerBound - weights.file.address(of: 0)
    let range = DirectReader.aligned(start..<start + bytes.count)
    try reader.read(range, into: embeddingPanel)
    embedding.slice(
      panels: panel..<panel + 1,
      movedBy: UnsafeRawPointer(embeddingPanel) - weights.file.address(of: range.lowerBound)
    ).copyRow(token % PanelLayout.rowsPerPanel, to: output, compute.kernels)
  }

  /// Sends the first `count` rows of `x` through all layers, in place, and adds them to the cache.
  ///
  /// - Parameters:
  ///   - projects: whether `project` comes next.
  ///   - shouldContinue: asked before each layer.
  /// - Returns: whether it was finished.
  @discardableResult public func forward(
    count: Int, _ placement: Placement, projects: Bool = true, while shouldContinue: (_ layer: Int) -> Bool = { _ in true }
  ) -> Bool {
    let c = configuration
    angles.fill(placement, count: count, frequencies: frequencies, magnitude: c.ropeMagnitude)
    stream.begin(parts: projects ? parts.ranges.count : c.layers)
    defer { stream.end() }
    var fineLayers = 0
    for index in 0..<c.layers {
      guard shouldContinue(index) else { return false }
      // Each cache holds its layers one after the other.
      let isFine = fineCache != nil && parts.needsFineKeys[index]
      let cache = isFine ? fineCache! : cache
      let place = isFine ? fineLayers : index - fineLayers
      if isFine { fineLayers += 1 }
      let layer = weights.layers[index].moved(by: stream.use(index))
      let center = center(of: layer)
      for first in stride(from: 0, to: count, by: chunk) {
        forward(
          layer, x.from(first), count: min(chunk, count - first), angles.from(first), window: c.windows[index], center,
          cache, place, placement.from(first))
      }
    }
    return true
  }

  /// Copies the positions `positions` of sequence `source` of the cache to sequence `target`.
  public func copyCache(_ positions: Range<Int>, from source: Int, to target: Int) {
    cache.copy(positions, from: source, to: target)
    fineCache?.copy(positions, from: source, to: target)
  }

  /// The mean of the layer's key bias behind the rotary embedding: of pairs that turn slowly nearly all of it, of others nearly
  /// nothing. Qwen2.5 has biases of a hundred and more, and all of them turn slowly.
  private func center(of layer: Weights.Layer) -> UnsafePointer<Float>? {
    guard let center, let bias = layer.keyBias else { return nil }
    let keys = center.keys
    keys.data.update(from: bias, count: keys.width)
    compute.kernels.rotary(
      keys.data, configuration.kvHeads, configuration.headWidth, center.angles.cosines.width,
      center.angles.cosines.data, center.angles.sines.data)
    return UnsafePointer(keys.data)
  }

  private func forward(
    _ layer: Weights.Layer, _ x: Rows, count: Int, _ angles: RotaryAngles, window: Int, _ center: UnsafePointer<Float>?,
    _ cache: KVCache, _ place: Int, _ placement: Placement
  ) {
    let c = configuration
    compute.rmsNorm(x, layer.attentionNorm, epsilon: c.normEpsilon, into: h, count: count)
    compute.multiply(
      h, count: count, scratch: quantized, .init(layer.q, into: q), .init(layer.k, into: k), .init(layer.v, into: v))
    compute.rotateAndStore(
      q: q, k: k, v: v, count: count, angles, qNorm: layer.qNorm, kNorm: layer.kNorm, center: center, cache: cache,
      layer: place, placement)
    compute.attend(
      q: q, into: attended, count: count, cache: cache, layer: place, window: window, placement,
      scratch: scratch, parts: attentionParts)
    compute.multiply(attended, count: count, scratch: quantized, .init(layer.o, into: x, accumulate: true))

    compute.rmsNorm(x, layer.ffnNorm, epsilon: c.normEpsilon, into: h, count: count)
    compute.multiply(h, count: count, scratch: quantized, .init(layer.gate, into: gate), .init(layer.up, into: up))
    compute.swiGLU(gate: gate, up: up, count: count)
    compute.multiply(gate, count: count, scratch: quantized, .init(layer.down, into: x, accumulate: true))
  }

  /// Computes the logits [vocabulary] of the `count` rows of `x` from `first` on, into the first rows of `logits`.
  public func project(first: Int, count: Int) {
    let c = configuration
    compute.rmsNorm(x.from(first), weights.norm, epsilon: c.normEpsilon, into: h, count: count)
    for (index, panels) in headSlices.enumerated() {
      let slice = weights.head.slice(panels: panels, movedBy: stream.use(c.layers + index))
      compute.multiply(
        h, count: count, scratch: quantized,
        .init(slice, into: logits.columns(from: panels.lowerBound * PanelLayout.rowsPerPanel)))
    }
    stream.end()
  }
}
