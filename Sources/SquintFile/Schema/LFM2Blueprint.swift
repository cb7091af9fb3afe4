/// The graph `lfm2`: short convolutions, and between them layers of attention with normalized queries and keys, each before SwiGLU
/// (formats/decoder.md).
package struct LFM2Blueprint: DecoderBlueprint {
  package static var graph: DecoderGraph { .lfm2 }
  package var architecture = ""
  package var vocabulary = 0
  package var context = 0
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var attention = AttentionBlueprint()
  package var normEpsilon = 0.0
  /// The layers that have attention; the others have a convolution.
  package var attentionLayers: [Int]? = []
  /// The positions that a convolution sees: its own and those before it.
  package var convolutionWidth = 0
  /// [rope_width / 2], radians per position.
  package var ropeFrequencies: [Float] = []
  package var ropeScaling = ""

  package init() {}

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try coder.int("decoder.ffn_width", &ffnWidth, in: 1...1 << 24)
    try attention.code(&coder)
    try coder.number("decoder.norm_epsilon", &normEpsilon)
    try coder.ints("decoder.attention_layers", &attentionLayers)
    try coder.int("decoder.convolution_width", &convolutionWidth, in: 1...64)
    try coder.numbers("decoder.rope_frequencies", &ropeFrequencies)
    try coder.text("decoder.rope_scaling", &ropeScaling, default: "")
  }

  package func check() throws(SquintError) {
    try attention.check()
    try checkEpsilon(normEpsilon, key: "decoder.norm_epsilon")
    try attention.check(frequencies: ropeFrequencies, key: "decoder.rope_frequencies")
    try checkLayers(attentionLayers ?? [], layers: layers, key: "decoder.attention_layers")
  }

  /// [layers]: whether a layer has attention.
  package var hasAttention: [Bool] { layerMask(attentionLayers ?? [], layers: layers) }

  // MARK: Tensors

  package enum Operator: Sendable {
    case attention(AttentionTensors)
    case convolution(ShortConvolutionTensors)

    package var tensors: [TensorSpecification] {
      switch self {
      case .attention(let tensors): tensors.tensors
      case .convolution(let tensors): tensors.tensors
      }
    }
  }

  package struct Layer: Sendable {
    /// In front of the operator.
    package let norm: TensorSpecification
    package let `operator`: Operator
    package let ffnNorm: TensorSpecification
    package let ffn: GatedFFNTensors

    package var tensors: [TensorSpecification] { [norm] + `operator`.tensors + [ffnNorm] + ffn.tensors }
  }

  package func layer(_ index: Int, hasAttention: Bool) -> Layer {
    let prefix = "decoder.\(index)"
    let name = hasAttention ? "attention" : "convolution"
    return Layer(
      norm: .vector("\(prefix).\(name).norm", width),
      operator: hasAttention
        ? .attention(
          AttentionTensors("\(prefix).attention", width: width, attention, isHeadNormOptional: false))
        : .convolution(
          ShortConvolutionTensors("\(prefix).convolution", width: width, reach: convolutionWidth)),
      ffnNorm: .vector("\(prefix).ffn.norm", width),
      ffn: GatedFFNTensors("\(prefix).ffn", width: width, innerWidth: ffnWidth))
  }

  package var tensors: [TensorSpecification] {
    embedding.tensors + hasAttention.enumerated().flatMap { layer($0, hasAttention: $1).tensors } + [norm]
      + head.tensors
  }
}
