import SquintCompute
import SquintFile

/// The text decoder of the Llama, Mistral, Qwen2 and Qwen3 families: a pre-norm transformer with rotary positions, grouped queries
/// and SwiGLU. What distinguishes the families is in `LlamaBlueprint` (formats/decoder.md).
///
/// Sources: LLaMA (arXiv 2302.13971), Qwen2 (2407.10671), Qwen3 (2505.09388); the reference is transformers'
/// modeling_llama.py, modeling_qwen2.py, modeling_qwen3.py.
package struct Llama: LayerGraph {
  package struct Layer: LayerWeights, @unchecked Sendable {  // views of the file
    let attentionNorm: UnsafePointer<Float>  // [width]
    let attention: Attention.Weights
    let ffnNorm: UnsafePointer<Float>  // [width]
    let ffn: GatedFFN.Weights
  }

  private let compute: Compute
  private let h: Rows
  private let heads: Rows
  private let quantized: QuantizedRows
  private let rotary: Rotary
  private let attention: Attention
  private let ffn: GatedFFN
  private let masks: [AttentionMask]
  package let normEpsilon: Float
}

// MARK: Forward

extension Llama {
  package func forward(
    _ x: Rows, count: Int, _ layer: Layer, _ index: Int, first: Int, _ state: LayerState, _ placement: Placement
  ) {
    compute.rmsNorm(x, layer.attentionNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("attention.norm", h, count: count)
    attention(
      h, count: count, layer.attention, rotary, first: first, state, masks[index], placement, quantized: quantized,
      into: heads)
    compute.multiply(heads, count: count, scratch: quantized, .init(layer.attention.o, into: x, accumulate: true))
    compute.record("attention", x, count: count)

    compute.rmsNorm(x, layer.ffnNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("ffn.norm", h, count: count)
    ffn(h, count: count, layer.ffn, quantized: quantized, into: x, accumulate: true)
    compute.record("ffn", x, count: count)
  }

  package func begin(_ positions: UnsafePointer<RotaryPosition>, count: Int) { rotary.fill(positions, count: count) }
}

// MARK: Weights and memory

extension Llama.Layer {
  package init(_ c: LlamaBlueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    let tensors = c.layer(index)
    attentionNorm = try file.vector(tensors.attentionNorm)
    attention = try Attention.Weights(tensors.attention, normEpsilon: c.normEpsilon, in: file)
    ffnNorm = try file.vector(tensors.ffnNorm)
    ffn = try GatedFFN.Weights(tensors.ffn, in: file)
  }

  package func moved(by distance: Int) -> Self {
    Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      ffnNorm: ffnNorm.moved(by: distance), ffn: ffn.moved(by: distance))
  }
}

extension Llama {
  package struct Regions: Sendable {
    let rotary: Rotary.Regions
    let attention: Attention.Regions
    let ffn: GatedFFN.Regions
  }

  package static func memories(_ c: LlamaBlueprint, _ layers: [Layer]) -> [LayerMemory] {
    Attention.memories(layers.map(\.attention), c.attention, windows: c.windows, frequencies: c.ropeFrequencies)
  }

  // The normalized rows' place holds the heads' outputs, too, which are not needed at the same time.
  package static func widths(_ c: LlamaBlueprint) -> (normalized: Int, multiplied: Int) {
    (c.attention.queryWidth, max(c.ffnWidth, c.attention.queryWidth))
  }

  package static func reserve(
    _ c: LlamaBlueprint, _ layers: [Layer], _ size: DecoderSize, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let phases: Phases = [.prefill, .decode]
    let hasCenter = size.kvType.centersKeys && layers.contains { $0.attention.keyBias != nil }
    return Regions(
      rotary: try Rotary.Regions(
        pairs: c.ropeFrequencies.count, rows: size.rows, hasMeans: hasCenter, hasAxes: c.ropeAxes != nil,
        phases: phases, in: &plan),
      attention: try Attention.Regions(c.attention, size, hasCenter: hasCenter, phases: phases, in: &plan),
      ffn: try GatedFFN.Regions(innerWidth: c.ffnWidth, chunk: size.chunk, phases: phases, in: &plan))
  }

  package init(_ c: LlamaBlueprint, _ regions: Regions, _ shared: SharedRows, in arena: Arena, _ compute: Compute) {
    self.compute = compute
    h = shared.h
    heads = Rows(data: shared.h.data, width: c.attention.queryWidth)
    quantized = shared.quantized
    rotary = Rotary(
      regions.rotary, frequencies: c.ropeFrequencies, axes: c.ropeAxes, magnitude: Float(c.ropeMagnitude), in: arena)
    attention = Attention(c.attention, regions.attention, in: arena, compute)
    ffn = GatedFFN(.silu, innerWidth: c.ffnWidth, regions.ffn, in: arena, compute)
    masks = c.windows.map { .causal(window: $0) }
    normEpsilon = Float(c.normEpsilon)
  }
}
