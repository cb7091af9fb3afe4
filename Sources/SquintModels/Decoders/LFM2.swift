import SquintCompute
import SquintFile

/// The text decoder of LFM2: layers of gated short convolutions, and among them a few of attention with normalized queries and keys,
/// each before a SwiGLU network (formats/decoder.md).
///
/// Source: LFM2 (arXiv 2511.23404); the reference is transformers' modeling_lfm2.py.
package struct LFM2: LayerGraph {
  package struct Layer: LayerWeights, @unchecked Sendable {  // views of the file
    enum Mixer {
      case convolution(ShortConvolution.Weights)
      case attention(Attention.Weights)
    }

    let norm: UnsafePointer<Float>  // [width]
    let mixer: Mixer
    let ffnNorm: UnsafePointer<Float>  // [width]
    let ffn: GatedFFN.Weights
  }

  private let compute: Compute
  private let h: Rows
  /// The heads' outputs: [chunk, heads · head_width]
  private let heads: Rows
  private let quantized: QuantizedRows
  private let rotary: Rotary
  private let convolution: ShortConvolution
  private let attention: Attention
  private let ffn: GatedFFN
  package let normEpsilon: Float
}

// MARK: Forward

extension LFM2 {
  package func forward(
    _ x: Rows, count: Int, _ layer: Layer, _ index: Int, first: Int, _ state: LayerState, _ placement: Placement
  ) {
    compute.rmsNorm(x, layer.norm, epsilon: normEpsilon, into: h, count: count)
    switch layer.mixer {
    case .convolution(let weights):
      compute.record("convolution.norm", h, count: count)
      convolution(h, count: count, weights, state, placement, quantized: quantized, into: h)
      compute.multiply(h, count: count, scratch: quantized, .init(weights.output, into: x, accumulate: true))
      compute.record("convolution", x, count: count)
    case .attention(let weights):
      compute.record("attention.norm", h, count: count)
      attention(
        h, count: count, weights, rotary, first: first, state, .causal(window: 0), placement, quantized: quantized,
        into: heads)
      compute.multiply(heads, count: count, scratch: quantized, .init(weights.o, into: x, accumulate: true))
      compute.record("attention", x, count: count)
    }

    compute.rmsNorm(x, layer.ffnNorm, epsilon: normEpsilon, into: h, count: count)
    compute.record("ffn.norm", h, count: count)
    ffn(h, count: count, layer.ffn, quantized: quantized, into: x, accumulate: true)
    compute.record("ffn", x, count: count)
  }

  package func begin(_ positions: UnsafePointer<RotaryPosition>, count: Int) { rotary.fill(positions, count: count) }
}

// MARK: Weights and memory

extension LFM2.Layer {
  package init(_ c: LFM2Blueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    let tensors = c.layer(index, hasAttention: c.hasAttention[index])
    norm = try file.vector(tensors.norm)
    switch tensors.operator {
    case .convolution(let tensors): mixer = .convolution(try ShortConvolution.Weights(tensors, in: file))
    case .attention(let tensors):
      mixer = .attention(try Attention.Weights(tensors, normEpsilon: c.normEpsilon, in: file))
    }
    ffnNorm = try file.vector(tensors.ffnNorm)
    ffn = try GatedFFN.Weights(tensors.ffn, in: file)
  }

  package func moved(by distance: Int) -> Self {
    let moved: Mixer =
      switch mixer {
      case .convolution(let weights): .convolution(weights.moved(by: distance))
      case .attention(let weights): .attention(weights.moved(by: distance))
      }
    return Self(
      norm: norm.moved(by: distance), mixer: moved, ffnNorm: ffnNorm.moved(by: distance), ffn: ffn.moved(by: distance))
  }
}

extension LFM2 {
  package struct Regions: Sendable {
    let rotary: Rotary.Regions
    let convolution: ShortConvolution.Regions
    let attention: Attention.Regions
    let ffn: GatedFFN.Regions
  }

  package static func memories(_ c: LFM2Blueprint, _ layers: [Layer]) -> [LayerMemory] {
    layers.map { layer in
      switch layer.mixer {
      case .convolution: .convolution(width: c.width, reach: c.convolutionWidth)
      case .attention: .keysAndValues(c.attention, window: 0, isFine: false)
      }
    }
  }

  // The normalized rows' place holds what the mixers give, too: it is not needed at the same time.
  package static func widths(_ c: LFM2Blueprint) -> (normalized: Int, multiplied: Int) {
    (c.attention.queryWidth, max(c.ffnWidth, c.attention.queryWidth))
  }

  package static func reserve(
    _ c: LFM2Blueprint, _ layers: [Layer], _ size: DecoderSize, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let phases: Phases = [.prefill, .decode]
    return Regions(
      rotary: try Rotary.Regions(
        pairs: c.ropeFrequencies.count, rows: size.rows, hasMeans: false, phases: phases, in: &plan),
      convolution: try ShortConvolution.Regions(width: c.width, chunk: size.chunk, phases: phases, in: &plan),
      attention: try Attention.Regions(c.attention, size, hasCenter: false, phases: phases, in: &plan),
      ffn: try GatedFFN.Regions(innerWidth: c.ffnWidth, chunk: size.chunk, phases: phases, in: &plan))
  }

  package init(_ c: LFM2Blueprint, _ regions: Regions, _ shared: SharedRows, in arena: Arena, _ compute: Compute) {
    self.compute = compute
    h = shared.h
    heads = Rows(data: shared.h.data, width: c.attention.queryWidth)
    quantized = shared.quantized
    rotary = Rotary(regions.rotary, frequencies: c.ropeFrequencies, magnitude: 1, in: arena)
    convolution = ShortConvolution(width: c.width, reach: c.convolutionWidth, regions.convolution, in: arena, compute)
    attention = Attention(c.attention, regions.attention, in: arena, compute)
    ffn = GatedFFN(.silu, innerWidth: c.ffnWidth, regions.ffn, in: arena, compute)
    normEpsilon = Float(c.normEpsilon)
  }
}
