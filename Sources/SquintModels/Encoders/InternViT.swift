import SquintCompute
import SquintFile

/// InternViT-6B, the tower of the large InternVL models: a pre-norm vision transformer with RMSNorm, in which queries and keys are
/// normalized over all heads together. What it scales its sums with is folded into the matrices (formats/vision.md).
///
/// Source: InternVL (arXiv 2312.14238); the reference is transformers' modeling_internvl.py. InternViT-300M computes as `ViT` does.
package struct InternViT: EncoderLayers, @unchecked Sendable {  // views of the arena
  package struct Layer: EncoderLayerWeights, @unchecked Sendable {  // views of the file
    let attentionNorm: UnsafePointer<Float>  // [width]
    let attention: SelfAttention
    let qNorm: UnsafePointer<Float>?  // [width]
    let kNorm: UnsafePointer<Float>?  // [width]
    let ffnNorm: UnsafePointer<Float>  // [width]
    let ffn: PlainFFN
  }

  package struct Weights: @unchecked Sendable {  // views of the file
    let patches: Matrix  // [width, 3 · patch · patch]
    let classToken: UnsafePointer<Float>  // [width]
    let positions: UnsafePointer<Float>  // [1 + grid · grid, width]
    let norm: UnsafePointer<Float>?  // [width]
  }

  private let blueprint: InternViTBlueprint
  private let weights: Weights
  private let levels: [Float]
  private let buffers: EncoderBuffers
  private let compute: Compute
  private let epsilon: Float
  private var shape = [0, 0]
  private var grid = FeatureGrid(rows: 0, columns: 0)

  package init(
    _ blueprint: InternViTBlueprint, _ weights: Weights, levels: [Float], _ regions: Void, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    self.blueprint = blueprint
    self.weights = weights
    self.levels = levels
    self.buffers = buffers
    self.compute = compute
    epsilon = Float(blueprint.normEpsilon)
  }
}

// MARK: Forward

extension InternViT {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    let (h, q, quantized, attention) = (buffers.h, buffers.q, buffers.quantized, buffers.attention)
    buffers.storeKeys(x, count: count, layer.attention, compute) { x, rows in
      compute.rmsNorm(x, layer.attentionNorm, epsilon: epsilon, into: h, count: rows)
    } turn: { keys, _, rows in
      if let norm = layer.kNorm { compute.rmsNorm(keys, norm, epsilon: epsilon, into: keys, count: rows) }
    }
    // All keys and values are there: from here on a row needs no other.
    buffers.forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.rmsNorm(x, layer.attentionNorm, epsilon: epsilon, into: h, count: rows)
      compute.record("attention.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.attention.q, into: q))
      if let norm = layer.qNorm { compute.rmsNorm(q, norm, epsilon: epsilon, into: q, count: rows) }
      attention.attend(q: q, count: rows, positions: count, into: h, compute)
      compute.record("attention.heads", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(layer.attention.o, into: x, accumulate: true))
      compute.record("attention", x, count: rows)

      compute.rmsNorm(x, layer.ffnNorm, epsilon: epsilon, into: h, count: rows)
      compute.record("ffn.norm", h, count: rows)
      layer.ffn(h, count: rows, blueprint.activation, buffers, compute, addTo: x)
      compute.record("ffn", x, count: rows)
    }
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) {
    self.shape = shape
    self.grid = grid
  }

  /// x = class token, patch · pixels; + positions.
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) {
    let width = blueprint.width
    compute.kernels.add(weights.classToken, weights.positions, x[0], width)
    let patchRows = x.from(1)
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
    let table = PositionTable(
      rows: weights.positions + width, width: width, side: blueprint.grid, use: blueprint.positions)
    compute.addPositions(table, grid, to: patchRows)
  }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    if let norm = weights.norm {
      compute.rmsNorm(x, norm, epsilon: epsilon, into: features, count: count)
    } else {
      for row in 0..<count { features[row].update(from: x[row], count: x.width) }
    }
  }
}

// MARK: Weights and sizes

extension InternViT.Layer {
  package init(_ c: InternViTBlueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    func optional(_ tensor: TensorSpecification) throws(SquintError) -> UnsafePointer<Float>? {
      file.tensor(tensor.name) == nil ? nil : try file.vector(tensor)
    }
    let tensors = c.layer(index)
    attentionNorm = try file.vector(tensors.attentionNorm)
    attention = try SelfAttention(tensors.attention, in: file)
    qNorm = try optional(tensors.qNorm)
    kNorm = try optional(tensors.kNorm)
    ffnNorm = try file.vector(tensors.ffnNorm)
    ffn = try PlainFFN(up: tensors.up, down: tensors.down, in: file)
  }

  package func moved(by distance: Int) -> Self {
    Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      qNorm: qNorm?.moved(by: distance), kNorm: kNorm?.moved(by: distance), ffnNorm: ffnNorm.moved(by: distance),
      ffn: ffn.moved(by: distance))
  }

  package var isQuantized: Bool { attention.q.type.isQuantized }
}

extension InternViT {
  package static func sizes(_ c: InternViTBlueprint) -> EncoderSizes {
    var sizes = EncoderSizes(
      module: c.module, layers: c.layers, width: c.width, heads: c.heads, innerWidth: c.ffnWidth,
      patchWidth: 3 * c.patch * c.patch, featureLayers: [c.layers])
    sizes.hasClass = true
    sizes.hasClassRow = !c.dropsClass
    return sizes
  }

  package static func grid(_ c: InternViTBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    try FeatureGrid(
      patchesOf: shape, side: c.patch, table: c.positions == .fixed ? c.grid : nil, module: c.module)
  }

  package static func weights(_ c: InternViTBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    Weights(
      patches: try Matrix(c.patches, in: file), classToken: try file.vector(c.classToken),
      positions: try file.vector(c.positionTable),
      norm: file.tensor(c.norm.name) == nil ? nil : try file.vector(c.norm))
  }

  package static func reserve(_ c: InternViTBlueprint, patches: Int, in plan: inout ArenaPlan) {}
}
