import SquintCompute
import SquintFile

/// The text decoder of Qwen3-MoE, and so of Intern-S1 and Qwen3-VL-MoE: Llama's with normalized queries and keys, where the
/// feed-forward network of most layers is a choice of a few experts (formats/decoder.md).
///
/// Source: Qwen3 (arXiv 2505.09388); the reference is transformers' modeling_qwen3_moe.py.
package struct Qwen3MoE: LayerGraph {
  package struct Layer: LayerWeights, @unchecked Sendable {  // views of the file
    enum Network {
      case dense(GatedFFN.Weights)
      case experts(MixtureOfExperts.Weights)
    }

    let attentionNorm: UnsafePointer<Float>  // [width]
    let attention: Attention.Weights
    let ffnNorm: UnsafePointer<Float>  // [width]
    let network: Network
  }

  private let compute: Compute
  private let h: Rows
  private let heads: Rows
  private let quantized: QuantizedRows
  private let rotary: Rotary
  private let attention: Attention
  /// nil where all layers have experts.
  private let ffn: GatedFFN?
  private let experts: MixtureOfExperts
  private let mask: AttentionMask
  package let normEpsilon: Float
}

// MARK: Forward

extension Qwen3MoE {
  package func forward(
    _ x: Rows, count: Int, _ layer: Layer, _ index: Int, first: Int, _ state: LayerState, _ placement: Placement
  ) {
    compute.rmsNorm(x, layer.attentionNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("attention.norm", h, count: count)
    attention(
      h, count: count, layer.attention, rotary, first: first, state, mask, placement, quantized: quantized, into: heads)
    compute.multiply(heads, count: count, scratch: quantized, .init(layer.attention.o, into: x, accumulate: true))
    compute.record("attention", x, count: count)

    compute.rmsNorm(x, layer.ffnNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("ffn.norm", h, count: count)
    switch layer.network {
    case .dense(let weights): ffn?(h, count: count, weights, quantized: quantized, into: x, accumulate: true)
    case .experts(let weights): experts(h, count: count, weights, quantized: quantized, into: x)
    }
    compute.record("ffn", x, count: count)
  }

  package func begin(_ positions: UnsafePointer<RotaryPosition>, count: Int) { rotary.fill(positions, count: count) }
}

// MARK: Weights and memory

extension Qwen3MoE.Layer {
  package init(_ c: Qwen3MoEBlueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    let isDense = c.isDense
    let tensors = c.layer(index, isDense: isDense[index])
    attentionNorm = try file.vector(tensors.attentionNorm)
    attention = try Attention.Weights(tensors.attention, normEpsilon: c.normEpsilon, in: file)
    ffnNorm = try file.vector(tensors.ffnNorm)
    switch tensors.network {
    case .dense(let tensors): network = .dense(try GatedFFN.Weights(tensors, in: file))
    case .experts(let tensors):
      network = .experts(
        try MixtureOfExperts.Weights(tensors, ordinal: isDense[..<index].count { !$0 }, in: file))
    }
  }

  package func moved(by distance: Int) -> Self {
    let moved: Network =
      switch network {
      case .dense(let weights): .dense(weights.moved(by: distance))
      case .experts(let weights): .experts(weights.moved(by: distance))
      }
    return Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      ffnNorm: ffnNorm.moved(by: distance), network: moved)
  }
}

extension Qwen3MoE {
  package struct Regions: Sendable {
    let rotary: Rotary.Regions
    let attention: Attention.Regions
    let ffn: GatedFFN.Regions?
    let experts: MixtureOfExperts.Regions
  }

  package static func memories(_ c: Qwen3MoEBlueprint, _ layers: [Layer]) -> [LayerMemory] {
    Attention.memories(
      layers.map(\.attention), c.attention, windows: layers.map { _ in c.window }, frequencies: c.ropeFrequencies)
  }

  // The normalized rows' place holds the heads' outputs, too, which are not needed at the same time.
  package static func widths(_ c: Qwen3MoEBlueprint) -> (normalized: Int, multiplied: Int) {
    (c.attention.queryWidth, max(c.ffnWidth, c.experts.width, c.attention.queryWidth))
  }

  package static func reserve(
    _ c: Qwen3MoEBlueprint, _ layers: [Layer], _ size: DecoderSize, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let phases: Phases = [.prefill, .decode]
    return Regions(
      rotary: try Rotary.Regions(
        pairs: c.ropeFrequencies.count, rows: size.rows, hasMeans: false, hasAxes: c.ropeAxes != nil, phases: phases,
        in: &plan),
      attention: try Attention.Regions(c.attention, size, hasCenter: false, phases: phases, in: &plan),
      ffn: c.isDense.contains(true)
        ? try GatedFFN.Regions(innerWidth: c.ffnWidth, chunk: size.chunk, phases: phases, in: &plan) : nil,
      experts: try MixtureOfExperts.Regions(
        c.experts, width: c.width, chunk: size.chunk, phases: phases, in: &plan))
  }

  package init(
    _ c: Qwen3MoEBlueprint, _ regions: Regions, _ shared: SharedRows, in arena: Arena, _ compute: Compute
  ) {
    self.compute = compute
    h = shared.h
    heads = Rows(data: shared.h.data, width: c.attention.queryWidth)
    quantized = shared.quantized
    rotary = Rotary(
      regions.rotary, frequencies: c.ropeFrequencies, axes: c.ropeAxes, magnitude: Float(c.ropeMagnitude), in: arena)
    attention = Attention(c.attention, regions.attention, in: arena, compute)
    ffn = regions.ffn.map { GatedFFN(.silu, innerWidth: c.ffnWidth, $0, in: arena, compute) }
    experts = MixtureOfExperts(c.experts, width: c.width, regions.experts, shared.experts, in: arena, compute)
    mask = .causal(window: c.window)
    normEpsilon = Float(c.normEpsilon)
  }
}
