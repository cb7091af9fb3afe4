import SquintCompute
import SquintFile

/// Qwen2.5-VL's and Qwen2.5-Omni's tower: Qwen2-VL's with RMSNorm and SwiGLU, and in most layers a patch sees those of its window alone
/// (formats/vision.md).
///
/// The patches of a window follow each other, so that attention within windows needs no mask, and no key of another window.
///
/// Source: Qwen2.5-VL (arXiv 2502.13923); the reference is transformers' modeling_qwen2_5_vl.py.
package struct Qwen25ViT: EncoderLayers, @unchecked Sendable {  // views of the arena
  package struct Layer: EncoderLayerWeights, @unchecked Sendable {  // views of the file
    let attentionNorm: UnsafePointer<Float>  // [width]
    let attention: SelfAttention
    let ffnNorm: UnsafePointer<Float>  // [width]
    let ffn: GatedFFN.Weights
  }

  package struct Weights: @unchecked Sendable {  // views of the file
    let patches: QwenPatchWeights
    let norm: UnsafePointer<Float>  // [width]
  }

  package struct Regions: Sendable {
    let patches: QwenPatches.Regions
  }

  private let blueprint: Qwen25ViTBlueprint
  private let isWindowed: [Bool]
  private let weights: Weights
  private let buffers: EncoderBuffers
  private let compute: Compute
  private let ffn: GatedFFN
  private let epsilon: Float
  private var patches: QwenPatches

  package init(
    _ blueprint: Qwen25ViTBlueprint, _ weights: Weights, levels: [Float], _ regions: Regions,
    _ buffers: EncoderBuffers, in arena: Arena, _ compute: Compute
  ) {
    self.blueprint = blueprint
    isWindowed = blueprint.isWindowed
    self.weights = weights
    self.buffers = buffers
    self.compute = compute
    ffn = GatedFFN(.silu, gate: buffers.inner, up: buffers.secondInner, compute)
    epsilon = Float(blueprint.normEpsilon)
    patches = QwenPatches(blueprint, weights.patches, levels: levels, regions.patches, in: arena)
  }
}

// MARK: Forward

extension Qwen25ViT {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    if isWindowed[index] {
      forEachRunOfWindows { windows, rows in attendWithin(windows, x.from(rows.lowerBound), rows, layer) }
    } else {
      attendToAll(x, count: count, layer)
    }
    buffers.forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.rmsNorm(x, layer.ffnNorm, epsilon: epsilon, into: buffers.h, count: rows)
      compute.record("ffn.norm", buffers.h, count: rows)
      ffn(buffers.h, count: rows, layer.ffn, quantized: buffers.quantized, into: x, accumulate: true)
      compute.record("ffn", x, count: rows)
    }
  }

  /// x += o · attention(x) for whole windows.
  private func attendWithin(
    _ windows: UnsafeBufferPointer<RowBlock>, _ x: Rows, _ rows: Range<Int>, _ layer: Layer
  ) {
    let (h, q, quantized, attention) = (buffers.h, buffers.q, buffers.quantized, buffers.attention)
    let (first, count) = (rows.lowerBound, rows.count)
    let keys = attention.keys(from: first)
    compute.rmsNorm(x, layer.attentionNorm, epsilon: epsilon, into: h, count: count)
    compute.record("attention.norm", h, count: count)
    compute.multiply(
      h, count: count, scratch: quantized, .init(layer.attention.q, into: q), .init(layer.attention.k, into: keys),
      .init(layer.attention.v, into: attention.values(from: first)))
    patches.turn(q, first: first, count: count, compute)
    patches.turn(keys, first: first, count: count, compute)
    attention.attend(q: q, blocks: windows, first: first, into: h, compute)
    compute.record("attention.heads", h, count: count)
    compute.multiply(h, count: count, scratch: quantized, .init(layer.attention.o, into: x, accumulate: true))
    compute.record("attention", x, count: count)
  }

  /// x += o · attention(x), each row seeing all.
  private func attendToAll(_ x: Rows, count: Int, _ layer: Layer) {
    let (h, q, quantized) = (buffers.h, buffers.q, buffers.quantized)
    buffers.storeKeys(x, count: count, layer.attention, compute) { x, rows in
      compute.rmsNorm(x, layer.attentionNorm, epsilon: epsilon, into: h, count: rows)
    } turn: { keys, first, rows in
      patches.turn(keys, first: first, count: rows, compute)
    }
    buffers.forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.rmsNorm(x, layer.attentionNorm, epsilon: epsilon, into: h, count: rows)
      compute.record("attention.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.attention.q, into: q))
      patches.turn(q, first: first, count: rows, compute)
      buffers.attention.attend(q: q, count: rows, positions: count, into: h, compute)
      compute.record("attention.heads", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.attention.o, into: x, accumulate: true))
      compute.record("attention", x, count: rows)
    }
  }

  /// Calls `body` with as many windows at a time as a chunk holds, and their rows.
  private func forEachRunOfWindows(_ body: (UnsafeBufferPointer<RowBlock>, Range<Int>) -> Void) {
    let windows = patches.windows
    var first = 0
    while first < windows.count {
      var end = first + 1
      while end < windows.count, windows[end].end - windows[first].first <= buffers.chunk { end += 1 }
      body(
        UnsafeBufferPointer(rebasing: windows[first..<end]), windows[first].first..<windows[end - 1].end)
      first = end
    }
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) {
    patches.begin(shape: shape, grid, window: blueprint.window)
  }

  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) { patches.embed(numbers, buffers, compute, into: x) }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    for row in 0..<count {
      compute.kernels.rmsNorm(x[row], weights.norm, features[patches.featureRow(row)], x.width, epsilon)
    }
  }
}

// MARK: Weights and sizes

extension Qwen25ViT.Layer {
  package init(_ c: Qwen25ViTBlueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    let tensors = c.layer(index)
    attentionNorm = try file.vector(tensors.attentionNorm)
    attention = try SelfAttention(tensors.attention, in: file)
    ffnNorm = try file.vector(tensors.ffnNorm)
    ffn = try GatedFFN.Weights(tensors.ffn, in: file)
  }

  package func moved(by distance: Int) -> Self {
    Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      ffnNorm: ffnNorm.moved(by: distance), ffn: ffn.moved(by: distance))
  }

  package var isQuantized: Bool { attention.q.type.isQuantized }
}

extension Qwen25ViT {
  package static func sizes(_ c: Qwen25ViTBlueprint) -> EncoderSizes {
    let side = c.window * c.merge
    var sizes = c.sizes(innerRows: 2, featureLayers: [c.layers])
    sizes.blockRows = side * side
    sizes.blockLayers = c.isWindowed.count { $0 }
    return sizes
  }

  package static func grid(_ c: Qwen25ViTBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    try c.grid(of: shape)
  }

  package static func weights(_ c: Qwen25ViTBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    Weights(patches: try QwenPatchWeights(c, in: file), norm: try file.vector(c.norm))
  }

  package static func reserve(
    _ c: Qwen25ViTBlueprint, patches: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    Regions(patches: try QwenPatches.Regions(c, patches: patches, hasWindows: true, in: &plan))
  }
}
