/// The graph `llama`: a pre-norm transformer with rotary positions, grouped queries and SwiGLU (formats/decoder.md).
package struct LlamaBlueprint: DecoderBlueprint {
  package static var graph: DecoderGraph { .llama }
  package var architecture = ""
  package var vocabulary = 0
  package var context = 0
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var attention = AttentionBlueprint()
  package var normEpsilon = 0.0
  /// A position attends to this many positions at most; 0 for all.
  package var window = 0
  /// The layers that have the window; nil: all.
  package var windowLayers: [Int]?
  /// [rope_width / 2], radians per position.
  package var ropeFrequencies: [Float] = []
  package var ropeMagnitude = 1.0
  /// [rope_width / 2]: the axis of a row's position that each pair turns by, 0, 1 or 2; nil: all by axis 0.
  package var ropeAxes: [Int]?
  package var ropeScaling = ""

  package init() {}

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try coder.int("decoder.ffn_width", &ffnWidth, in: 1...1 << 24)
    try attention.code(&coder)
    try coder.number("decoder.norm_epsilon", &normEpsilon)
    try coder.int("decoder.window", &window, in: 0...Int(Int32.max), default: 0)
    try coder.ints("decoder.window_layers", &windowLayers)
    try coder.numbers("decoder.rope_frequencies", &ropeFrequencies)
    try coder.number("decoder.rope_magnitude", &ropeMagnitude, default: 1)
    try coder.ints("decoder.rope_axes", &ropeAxes)
    try coder.text("decoder.rope_scaling", &ropeScaling, default: "")
  }

  package func check() throws(SquintError) {
    try attention.check()
    try checkLayers(windowLayers ?? [], layers: layers, key: "decoder.window_layers")
    try checkEpsilon(normEpsilon, key: "decoder.norm_epsilon")
    try attention.check(frequencies: ropeFrequencies, key: "decoder.rope_frequencies")
    try checkAxes(ropeAxes, pairs: ropeFrequencies.count, key: "decoder.rope_axes")
  }

  /// [layers]: a position attends to this many positions at most; 0 for all.
  package var windows: [Int] { layerMask(windowLayers, layers: layers).map { $0 ? window : 0 } }

  // MARK: Tensors

  package struct Layer: Sendable {
    package let attentionNorm: TensorSpecification
    package let attention: AttentionTensors
    package let ffnNorm: TensorSpecification
    package let ffn: GatedFFNTensors

    package var tensors: [TensorSpecification] { [attentionNorm] + attention.tensors + [ffnNorm] + ffn.tensors }
  }

  package func layer(_ index: Int) -> Layer {
    Layer(
      attentionNorm: .vector("decoder.\(index).attention.norm", width),
      attention: AttentionTensors(
        "decoder.\(index).attention", width: width, attention, isHeadNormOptional: true),
      ffnNorm: .vector("decoder.\(index).ffn.norm", width),
      ffn: GatedFFNTensors("decoder.\(index).ffn", width: width, innerWidth: ffnWidth))
  }

  package var tensors: [TensorSpecification] {
    embedding.tensors + (0..<layers).flatMap { layer($0).tensors } + [norm] + head.tensors
  }
}
