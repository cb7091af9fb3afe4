import SquintCompute
import SquintFile

/// Qwen2-VL's tower: a pre-norm vision transformer for images of any size, whose queries and keys turn by their patch's row and column
/// (formats/vision.md).
///
/// Source: Qwen2-VL (arXiv 2409.12191); the reference is transformers' modeling_qwen2_vl.py.
package struct Qwen2ViT: EncoderLayers, @unchecked Sendable {  // views of the arena
  package typealias Layer = PreNormLayer<Qwen2ViTBlueprint>

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
    layer.forward(x, count: count, blueprint.activation, buffers, compute) { rows, first, count in
      patches.turn(rows, first: first, count: count, compute)
    }
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) { patches.begin(shape: shape, grid, window: nil) }

  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) { patches.embed(numbers, buffers, compute, into: x) }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    compute.layerNorm(x, weights.norm, into: features, count: count)
  }
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
