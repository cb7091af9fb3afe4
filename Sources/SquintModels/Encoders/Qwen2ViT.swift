import SquintCompute
import SquintFile

/// Qwen2-VL's tower: a pre-norm vision transformer for images of any size, whose queries and keys turn by their patch's row and column
/// (formats/vision.md).
///
/// Source: Qwen2-VL (arXiv 2409.12191); the reference is transformers' modeling_qwen2_vl.py.
package struct Qwen2ViT: EncoderLayers, @unchecked Sendable {  // views of the arena
  package struct Layer: EncoderLayerWeights, @unchecked Sendable {  // views of the file
    let attentionNorm: Compute.LayerNorm  // [width]
    let attention: SelfAttention
    let ffnNorm: Compute.LayerNorm  // [width]
    let ffn: PlainFFN
  }

  package struct Weights: @unchecked Sendable {  // views of the file
    let patches: QwenPatchWeights
    let norm: Compute.LayerNorm  // [width]
  }

  package struct Regions: Sendable {
    let patches: QwenPatches.Regions
  }

  private let blueprint: Qwen2ViTBlueprint
  private let weights: Weights
  private let buffers: EncoderBuffers
  private let compute: Compute
  private var patches: QwenPatches

  package init(
    _ blueprint: Qwen2ViTBlueprint, _ weights: Weights, levels: [Float], _ regions: Regions, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    self.blueprint = blueprint
    self.weights = weights
    self.buffers = buffers
    self.compute = compute
    patches = QwenPatches(blueprint, weights.patches, levels: levels, regions.patches, in: arena)
  }
}

// MARK: Forward

extension Qwen2ViT {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    layer.forward(x, count: count, blueprint.activation, patches.angles, buffers, compute)
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) { patches.begin(shape: shape, grid, window: nil) }

  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) { patches.embed(numbers, buffers, compute, into: x) }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    compute.layerNorm(x, weights.norm, into: features, count: count)
  }
}

extension Qwen2ViT.Layer {
  /// Sends the `count` rows of an image through the layer, in place; each sees all.
  func forward(
    _ x: Rows, count: Int, _ activation: Activation, _ angles: RotaryAngles, _ buffers: EncoderBuffers,
    _ compute: Compute
  ) {
    let (h, q, quantized) = (buffers.h, buffers.q, buffers.quantized)
    let headWidth = 2 * angles.cosines.width
    buffers.storeKeys(x, count: count, attention, compute) { x, rows in
      compute.layerNorm(x, attentionNorm, into: h, count: rows)
    } turn: { keys, first, rows in
      compute.rotate(keys, headWidth: headWidth, count: rows, angles.from(first))
    }
    // All keys and values are there: from here on a row needs no other.
    buffers.forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.layerNorm(x, attentionNorm, into: h, count: rows)
      compute.record("attention.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(attention.q, into: q))
      compute.rotate(q, headWidth: headWidth, count: rows, angles.from(first))
      buffers.attention.attend(q: q, count: rows, positions: count, into: h, compute)
      compute.record("attention.heads", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(attention.o, into: x, accumulate: true))
      compute.record("attention", x, count: rows)

      compute.layerNorm(x, ffnNorm, into: h, count: rows)
      compute.record("ffn.norm", h, count: rows)
      ffn(h, count: rows, activation, buffers, compute, addTo: x)
      compute.record("ffn", x, count: rows)
    }
  }

  init(_ tensors: Qwen2ViTBlueprint.Layer, epsilon: Double, in file: ModelFile) throws(SquintError) {
    attentionNorm = try Compute.LayerNorm(tensors.attentionNorm, epsilon: epsilon, in: file)
    attention = try SelfAttention(tensors.attention, in: file)
    ffnNorm = try Compute.LayerNorm(tensors.ffnNorm, epsilon: epsilon, in: file)
    ffn = try PlainFFN(up: tensors.up, down: tensors.down, in: file)
  }

  package init(_ c: Qwen2ViTBlueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    try self.init(c.layer(index), epsilon: c.normEpsilon, in: file)
  }

  package func moved(by distance: Int) -> Self {
    Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      ffnNorm: ffnNorm.moved(by: distance), ffn: ffn.moved(by: distance))
  }

  package var isQuantized: Bool { attention.q.type.isQuantized }
}

// MARK: Weights and sizes

extension Qwen2ViT {
  package static func sizes(_ c: Qwen2ViTBlueprint) -> EncoderSizes { c.sizes(featureLayers: [c.layers]) }

  package static func grid(_ c: Qwen2ViTBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    try c.grid(of: shape)
  }

  package static func weights(_ c: Qwen2ViTBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    Weights(
      patches: try QwenPatchWeights(c, in: file),
      norm: try Compute.LayerNorm(c.norm, epsilon: c.normEpsilon, in: file))
  }

  package static func reserve(
    _ c: Qwen2ViTBlueprint, patches: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    Regions(patches: try QwenPatches.Regions(c, patches: patches, hasWindows: false, in: &plan))
  }
}
