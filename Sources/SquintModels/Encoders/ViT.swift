import SquintCompute
import SquintFile

/// The vision transformers of CLIP, SigLIP, DINOv2, Idefics3, SmolVLM and InternViT-300M: an image's patches as the rows of a pre-norm
/// transformer in which every row sees all rows. What distinguishes the families is in `ViTBlueprint` (formats/vision.md).
///
/// Sources: ViT (arXiv 2010.11929), CLIP (2103.00020), SigLIP (2303.15343), DINOv2 (2304.07193), Idefics3 (2408.12637), InternVL
/// (2312.14238); the reference is transformers' modeling_clip.py, modeling_siglip.py, modeling_dinov2.py, modeling_idefics3.py,
/// modeling_internvl.py.
package struct ViT: EncoderLayers, @unchecked Sendable {  // views of the arena
  package typealias Layer = PreNormLayer<ViTBlueprint>

  package struct Weights: @unchecked Sendable {  // views of the file
    let patches: Matrix  // [width, 3 · patch · patch]
    let classToken: UnsafePointer<Float>?  // [width]
    let positions: UnsafePointer<Float>  // [(1 +) grid · grid, width]
    let preNorm: Compute.LayerNorm?  // [width]
    let norm: Compute.LayerNorm?  // [width]
  }

  private let blueprint: ViTBlueprint
  private let weights: Weights
  /// [3, 256]: what each level of each channel is for the model.
  private let levels: [Float]
  private let buffers: EncoderBuffers
  private let compute: Compute
  private var shape = [0, 0]
  private var grid = FeatureGrid(rows: 0, columns: 0)

  package init(
    _ blueprint: ViTBlueprint, _ weights: Weights, levels: [Float], _ regions: Void, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    self.blueprint = blueprint
    self.weights = weights
    self.levels = levels
    self.buffers = buffers
    self.compute = compute
  }
}

// MARK: Forward

extension ViT {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    layer.forward(x, count: count, blueprint.activation, buffers, compute)
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) {
    self.shape = shape
    self.grid = grid
  }

  /// x = class token, patch · pixels; + positions.
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) {
    let width = blueprint.width
    var patchRows = x
    var table = weights.positions
    if let token = weights.classToken {
      compute.kernels.add(token, table, x[0], width)
      patchRows = x.from(1)
      table += width
    }
    levels.withUnsafeBufferPointer { levels in
      let image = PixelFrames(
        pixels: numbers.assumingMemoryBound(to: UInt8.self), frames: 1, height: shape[0], width: shape[1],
        levels: levels.baseAddress!)
      buffers.forEachChunk(of: grid.count) { first, rows in
        compute.gatherPatches(
          image, side: blueprint.patch, columns: grid.columns, first: first, count: rows, into: buffers.pixels)
        compute.multiply(
          buffers.pixels, count: rows, scratch: buffers.quantized, .init(weights.patches, into: patchRows.from(first)))
      }
    }
    let positions = PositionTable(rows: table, width: width, side: blueprint.grid, use: blueprint.positions)
    compute.addPositions(positions, grid, to: patchRows)
    if let norm = weights.preNorm {
      compute.layerNorm(x, norm, into: x, count: grid.count + (blueprint.hasClass ? 1 : 0))
    }
  }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    if let norm = weights.norm {
      compute.layerNorm(x, norm, into: features, count: count)
    } else {
      for row in 0..<count { features[row].update(from: x[row], count: x.width) }
    }
  }
}

// MARK: Weights and sizes

extension ViT {
  package static func sizes(_ c: ViTBlueprint) -> EncoderSizes {
    let taken = c.featureLayers ?? []
    var sizes = EncoderSizes(
      module: c.module, layers: c.layers, width: c.width, heads: c.heads, innerWidth: c.ffnWidth,
      patchWidth: 3 * c.patch * c.patch, featureLayers: taken.isEmpty ? [c.layers] : taken)
    sizes.hasClass = c.hasClass
    sizes.hasClassRow = c.hasClass && !c.dropsClass
    return sizes
  }

  package static func grid(_ c: ViTBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    try FeatureGrid(
      patchesOf: shape, side: c.patch, table: c.positions == .fixed ? c.grid : nil, module: c.module)
  }

  package static func weights(_ c: ViTBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    func optional(_ norm: NormSpecification) throws(SquintError) -> Compute.LayerNorm? {
      file.tensor(norm.name) == nil ? nil : try Compute.LayerNorm(norm, epsilon: c.normEpsilon, in: file)
    }
    return Weights(
      patches: try Matrix(c.patches, in: file), classToken: c.hasClass ? try file.vector(c.classToken) : nil,
      positions: try file.vector(c.positionTable), preNorm: try optional(c.preNorm), norm: try optional(c.norm))
  }

  package static func reserve(_ c: ViTBlueprint, patches: Int, in plan: inout ArenaPlan) {}
}
