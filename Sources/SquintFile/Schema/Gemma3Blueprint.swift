/// The graph `gemma3`: norms before and behind attention and feed-forward network, GeGLU, normalized queries and keys, a scaled
/// embedding, and layers that see a window beside layers that see all (formats/decoder.md).
package struct Gemma3Blueprint: DecoderBlueprint {
  package static var graph: DecoderGraph { .gemma3 }
  package var architecture = ""
  package var vocabulary = 0
  package var context = 0
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var attention = AttentionBlueprint()
  package var normEpsilon = 0.0
  /// What the rows of tokens are multiplied with.
  package var embeddingScale = 1.0
  /// A position of a layer with a window attends to this many positions at most.
  package var window = 0
  /// The layers that have the window.
  package var windowLayers: [Int]? = []
  /// [rope_width / 2], radians per position, of the layers that see all.
  package var ropeFrequencies: [Float] = []
  /// The same of the layers that see a window.
  package var windowRopeFrequencies: [Float] = []
  package var ropeScaling = ""

  package init() {}

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try coder.int("decoder.ffn_width", &ffnWidth, in: 1...1 << 24)
    try attention.code(&coder)
    try coder.number("decoder.norm_epsilon", &normEpsilon)
    try coder.number("decoder.embedding_scale", &embeddingScale)
    try coder.int("decoder.window", &window, in: 1...Int(Int32.max))
    try coder.ints("decoder.window_layers", &windowLayers)
    try coder.numbers("decoder.rope_frequencies", &ropeFrequencies)
    try coder.numbers("decoder.window_rope_frequencies", &windowRopeFrequencies)
    try coder.text("decoder.rope_scaling", &ropeScaling, default: "")
  }

  package func check() throws(SquintError) {
    try attention.check()
    try checkLayers(windowLayers ?? [], layers: layers, key: "decoder.window_layers")
    try checkEpsilon(normEpsilon, key: "decoder.norm_epsilon")
    try attention.check(frequencies: ropeFrequencies, key: "decoder.rope_frequencies")
    try attention.check(frequencies: windowRopeFrequencies, key: "decoder.window_rope_frequencies")
  }

  /// [layers]: a position attends to this many positions at most; 0 for all.
  package var windows: [Int] { layerMask(windowLayers, layers: layers).map { $0 ? window : 0 } }

  // MARK: Tensors

  package struct Layer: Sendable {
    package let attentionNorm: TensorSpecification
    package let attention: AttentionTensors
    package let attentionPostNorm: TensorSpecification
    package let ffnNorm: TensorSpecification
    package let ffn: GatedFFNTensors
    package let ffnPostNorm: TensorSpecification

    package var tensors: [TensorSpecification] {
      [attentionNorm] + attention.tensors + [attentionPostNorm, ffnNorm] + ffn.tensors + [ffnPostNorm]
    }
  }

  package func layer(_ index: Int) -> Layer {
    Layer(
      attentionNorm: .vector("decoder.\(index).attention.norm", width),
      attention: AttentionTensors(
        "decoder.\(index).attention", width: width, attention, isHeadNormOptional: false),
      attentionPostNorm: .vector("decoder.\(index).attention.post_norm", width),
      ffnNorm: .vector("decoder.\(index).ffn.norm", width),
      ffn: GatedFFNTensors("decoder.\(index).ffn", width: width, innerWidth: ffnWidth),
      ffnPostNorm: .vector("decoder.\(index).ffn.post_norm", width))
  }

  package var tensors: [TensorSpecification] {
    embedding.tensors + (0..<layers).flatMap { layer($0).tensors } + [norm] + head.tensors
  }
}
