import SquintCompute
import SquintFile

/// The text decoder of Gemma 3: norms before and behind attention and feed-forward network, normalized queries and keys, GeGLU, a
/// scaled embedding, and several layers that see a window, with rotary frequencies of their own, to each layer that sees all
/// (formats/decoder.md).
///
/// Source: Gemma 3 (arXiv 2503.19786); the reference is transformers' modeling_gemma3.py.
package struct Gemma3: LayerGraph {
  package struct Layer: LayerWeights, @unchecked Sendable {  // views of the file
    let attentionNorm: UnsafePointer<Float>  // [width]
    let attention: Attention.Weights
    let attentionPostNorm: UnsafePointer<Float>  // [width]
    let ffnNorm: UnsafePointer<Float>  // [width]
    let ffn: GatedFFN.Weights
    let ffnPostNorm: UnsafePointer<Float>  // [width]
  }

  private let compute: Compute
  private let h: Rows
  private let heads: Rows
  /// What a block gives before it is normalized: [chunk, width].
  private let y: Rows
  private let quantized: QuantizedRows
  private let rotary: Rotary
  private let windowRotary: Rotary
  private let attention: Attention
  private let ffn: GatedFFN
  /// [layers]: how many positions a row sees; 0 for all.
  private let windows: [Int]
  private let embeddingScale: Float
  package let normEpsilon: Float
}

// MARK: Forward

extension Gemma3 {
  package func forward(
    _ x: Rows, count: Int, _ layer: Layer, _ index: Int, first: Int, _ state: LayerState, _ placement: Placement
  ) {
    let window = windows[index]
    compute.rmsNorm(x, layer.attentionNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("attention.norm", h, count: count)
    attention(
      h, count: count, layer.attention, window > 0 ? windowRotary : rotary, first: first, state,
      .causal(window: window), placement, quantized: quantized, into: heads)
    compute.multiply(heads, count: count, scratch: quantized, .init(layer.attention.o, into: y))
    compute.rmsNorm(y, layer.attentionPostNorm, epsilon: normEpsilon, into: y, count: count)
    compute.record("attention.post_norm", y, count: count)
    compute.add(y, to: x, count: count)
    compute.record("attention", x, count: count)

    compute.rmsNorm(x, layer.ffnNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("ffn.norm", h, count: count)
    ffn(h, count: count, layer.ffn, quantized: quantized, into: y, accumulate: false)
    compute.rmsNorm(y, layer.ffnPostNorm, epsilon: normEpsilon, into: y, count: count)
    compute.record("ffn.post_norm", y, count: count)
    compute.add(y, to: x, count: count)
    compute.record("ffn", x, count: count)
  }

  package func prepareEmbedding(_ x: UnsafeMutablePointer<Float>) {
    for column in 0..<h.width { x[column] *= embeddingScale }
  }

  package func begin(_ positions: UnsafePointer<RotaryPosition>, count: Int) {
    rotary.fill(positions, count: count)
    windowRotary.fill(positions, count: count)
  }
}

// MARK: Weights and memory

extension Gemma3.Layer {
  package init(_ c: Gemma3Blueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    let tensors = c.layer(index)
    attentionNorm = try file.vector(tensors.attentionNorm)
    attention = try Attention.Weights(tensors.attention, normEpsilon: c.normEpsilon, in: file)
    attentionPostNorm = try file.vector(tensors.attentionPostNorm)
    ffnNorm = try file.vector(tensors.ffnNorm)
    ffn = try GatedFFN.Weights(tensors.ffn, in: file)
    ffnPostNorm = try file.vector(tensors.ffnPostNorm)
  }

  package func moved(by distance: Int) -> Self {
    Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      attentionPostNorm: attentionPostNorm.moved(by: distance), ffnNorm: ffnNorm.moved(by: distance),
      ffn: ffn.moved(by: distance), ffnPostNorm: ffnPostNorm.moved(by: distance))
  }
}

extension Gemma3 {
  package struct Regions: Sendable {
    let y: Region<Float>
    let rotary: Rotary.Regions
    let windowRotary: Rotary.Regions
    let attention: Attention.Regions
    let ffn: GatedFFN.Regions
  }

  package static func memories(_ c: Gemma3Blueprint, _ layers: [Layer]) -> [LayerMemory] {
    Attention.memories(layers.map(\.attention), c.attention, windows: c.windows, frequencies: c.ropeFrequencies)
  }

  // The normalized rows' place holds the heads' outputs, too, which are not needed at the same time.
  package static func widths(_ c: Gemma3Blueprint) -> (normalized: Int, multiplied: Int) {
    (c.attention.queryWidth, max(c.ffnWidth, c.attention.queryWidth))
  }

  package static func reserve(
    _ c: Gemma3Blueprint, _ layers: [Layer], _ size: DecoderSize, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let phases: Phases = [.prefill, .decode]
    return Regions(
      y: try plan.reserve("rows of a block", count: size.chunk * c.width, phases: phases),
      rotary: try Rotary.Regions(
        pairs: c.ropeFrequencies.count, rows: size.rows, hasMeans: false, phases: phases, in: &plan),
      windowRotary: try Rotary.Regions(
        pairs: c.windowRopeFrequencies.count, rows: size.rows, hasMeans: false, phases: phases, in: &plan),
      attention: try Attention.Regions(c.attention, size, hasCenter: false, phases: phases, in: &plan),
      ffn: try GatedFFN.Regions(innerWidth: c.ffnWidth, chunk: size.chunk, phases: phases, in: &plan))
  }

  package init(_ c: Gemma3Blueprint, _ regions: Regions, _ shared: SharedRows, in arena: Arena, _ compute: Compute) {
    self.compute = compute
    h = shared.h
    heads = Rows(data: shared.h.data, width: c.attention.queryWidth)
    y = Rows(regions.y, width: c.width, in: arena)
    quantized = shared.quantized
    rotary = Rotary(regions.rotary, frequencies: c.ropeFrequencies, magnitude: 1, in: arena)
    windowRotary = Rotary(regions.windowRotary, frequencies: c.windowRopeFrequencies, magnitude: 1, in: arena)
    attention = Attention(c.attention, regions.attention, in: arena, compute)
    ffn = GatedFFN(.geluTanh, innerWidth: c.ffnWidth, regions.ffn, in: arena, compute)
    windows = c.windows
    embeddingScale = Float(c.embeddingScale)
    normEpsilon = Float(c.normEpsilon)
  }
}
