import SquintCompute
import SquintFile

/// Attention of a decoder's layer: rotary positions, grouped queries (arXiv 2305.13245), heads that may be normalized, and a cache of
/// keys and values.
package struct Attention: @unchecked Sendable {  // a view of the arena

  // MARK: Weights

  package struct Weights: @unchecked Sendable {  // views of the file
    package let q: Matrix  // [heads · head_width, width]
    package let k: Matrix  // [kv_heads · head_width, width]
    package let v: Matrix  // [kv_heads · head_width, width]
    package let qNorm: Compute.HeadNorm?  // [head_width]
    package let kNorm: Compute.HeadNorm?  // [head_width]
    package let o: Matrix  // [width, heads · head_width]

    package init(_ tensors: AttentionTensors, normEpsilon: Double, in file: ModelFile) throws(SquintError) {
      func headNorm(_ tensor: TensorSpecification) throws(SquintError) -> Compute.HeadNorm? {
        if tensor.isOptional, file.tensor(tensor.name) == nil { return nil }
        return Compute.HeadNorm(weight: try file.vector(tensor), epsilon: Float(normEpsilon))
      }
      q = try Matrix(tensors.q, in: file)
      k = try Matrix(tensors.k, in: file)
      v = try Matrix(tensors.v, in: file)
      qNorm = try headNorm(tensors.qNorm)
      kNorm = try headNorm(tensors.kNorm)
      o = try Matrix(tensors.o, in: file)
    }

    private init(q: Matrix, k: Matrix, v: Matrix, qNorm: Compute.HeadNorm?, kNorm: Compute.HeadNorm?, o: Matrix) {
      self.q = q
      self.k = k
      self.v = v
      self.qNorm = qNorm
      self.kNorm = kNorm
      self.o = o
    }

    /// The same weights, read `distance` bytes behind where they were.
    package func moved(by distance: Int) -> Weights {
      Weights(
        q: q.moved(by: distance), k: k.moved(by: distance), v: v.moved(by: distance), qNorm: qNorm?.moved(by: distance),
        kNorm: kNorm?.moved(by: distance), o: o.moved(by: distance))
    }

    /// What is the same in the keys of all positions, but for the turn of each: nil where they are normalized behind it.
    package var keyBias: UnsafePointer<Float>? { kNorm == nil ? k.bias : nil }

    /// Whether a byte for each number of a key is too little: a large bias turns so fast that it is no part of the center, and the
    /// rounding of what is left moves scores. Of the layers of Qwen2.5's decoders that is the first one of 0.5B alone.
    ///
    /// A number of a key is off by 0.007 of their root mean square (a 254th of a group's largest, which is three times that, over
    /// √3), so a score, whose terms add up at random, is by 0.007 · ‖key‖ · ‖query‖ / head_width; 1/20 is where that begins to show.
    ///
    /// - Parameter shares: [pairs]: how much of a pair is in the center.
    func needsFineKeys(_ c: AttentionBlueprint, shares: [Double]) -> Bool {
      guard let keyBias else { return false }
      let width = c.headWidth
      let queryHeads = c.heads / c.kvHeads
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
  }

  /// What layers with these weights remember.
  ///
  /// - Parameters:
  ///   - windows: [layers]: how many positions a row sees; 0 for all.
  ///   - frequencies: of the rotary embedding.
  package static func memories(
    _ layers: [Weights], _ c: AttentionBlueprint, windows: [Int], frequencies: [Float]
  ) -> [LayerMemory] {
    let shares = frequencies.map { RotaryAngles.mean(of: $0, positions: Rotary.meanPositions).length }
    return zip(layers, windows).map { layer, window in
      .keysAndValues(c, window: window, isFine: layer.needsFineKeys(c, shares: shares))
    }
  }

  // MARK: State

  package struct Regions: Sendable {
    let q: Region<Float>
    let k: Region<Float>
    let v: Region<Float>
    /// nil where keys have no center, or the cache needs none.
    let center: Region<Float>?
    let scratch: Region<Float>
    let partial: Region<Float>

    /// - Parameter hasCenter: whether what is the same in all keys is taken out of them.
    package init(
      _ c: AttentionBlueprint, _ size: DecoderSize, hasCenter: Bool, phases: Phases, in plan: inout ArenaPlan
    ) throws(SquintError) {
      q = try plan.reserve("queries", count: size.chunk * c.queryWidth, phases: phases)
      k = try plan.reserve("keys of the step", count: size.chunk * c.keyWidth, phases: phases)
      v = try plan.reserve("values of the step", count: size.chunk * c.keyWidth, phases: phases)
      center = hasCenter ? try plan.reserve("center of keys", count: c.keyWidth, phases: phases) : nil
      scratch = try plan.reserve(
        "attention tiles", count: size.threads * Compute.attentionScratch(headWidth: c.headWidth), phases: phases)
      partial = try plan.reserve(
        "partial attention",
        count: PartialAttention.floats(context: size.context, heads: c.heads, headWidth: c.headWidth), phases: phases)
    }
  }

  private let compute: Compute
  private let headWidth: Int
  private let q: Rows
  private let k: Rows
  private let v: Rows
  private let center: Rows?
  private let scratch: Rows
  private let partial: PartialAttention

  package init(_ c: AttentionBlueprint, _ regions: Regions, in arena: Arena, _ compute: Compute) {
    self.compute = compute
    headWidth = c.headWidth
    q = Rows(regions.q, width: c.queryWidth, in: arena)
    k = Rows(regions.k, width: c.keyWidth, in: arena)
    v = Rows(regions.v, width: c.keyWidth, in: arena)
    center = regions.center.map { Rows($0, width: c.keyWidth, in: arena) }
    scratch = Rows(regions.scratch, width: Compute.attentionScratch(headWidth: c.headWidth), in: arena)
    partial = PartialAttention(regions.partial, heads: c.heads, headWidth: c.headWidth, in: arena)
  }

  // MARK: Forward

  /// heads = softmax(q · kᵀ / √head_width) · v, with q, k, v from the normalized rows h, and h's keys and values added to the cache.
  ///
  /// - Parameters:
  ///   - h: [count, width]; quantized anew into `quantized`.
  ///   - heads: [count, heads · head_width]; may lie where h does.
  ///   - first: the row of the pass that h begins with.
  package func callAsFunction(
    _ h: Rows, count: Int, _ layer: Weights, _ rotary: Rotary, first: Int, _ state: LayerState, _ mask: AttentionMask,
    _ placement: Placement, quantized: QuantizedRows, into heads: Rows
  ) {
    guard case .keysAndValues(let cache, layer: let index) = state else {
      preconditionFailure("attention remembers keys")
    }
    let center = center(of: layer, rotary)
    compute.multiply(
      h, count: count, scratch: quantized, .init(layer.q, into: q), .init(layer.k, into: k), .init(layer.v, into: v))
    compute.record("attention.q", q, count: count)
    compute.record("attention.k", k, count: count)
    compute.record("attention.v", v, count: count)
    compute.rotateAndStore(
      q: q, k: k, v: v, count: count, rotary.angles.from(first), qNorm: layer.qNorm, kNorm: layer.kNorm, center: center,
      cache: cache, layer: index, placement)
    compute.attend(
      q: q, into: heads, count: count, cache: cache, layer: index, mask, placement, scratch: scratch, partial: partial)
    compute.record("attention.heads", heads, count: count)
  }

  /// The mean of the layer's key bias behind the rotary embedding: of pairs that turn slowly nearly all of it, of others nearly
  /// nothing. Qwen2.5 has biases of a hundred and more, and all of them turn slowly.
  private func center(of layer: Weights, _ rotary: Rotary) -> UnsafePointer<Float>? {
    guard let keys = center, let means = rotary.means, let bias = layer.keyBias else { return nil }
    keys.data.update(from: bias, count: keys.width)
    compute.kernels.rotary(
      keys.data, keys.width / headWidth, headWidth, means.cosines.width, means.cosines.data, means.sines.data)
    return UnsafePointer(keys.data)
  }
}
