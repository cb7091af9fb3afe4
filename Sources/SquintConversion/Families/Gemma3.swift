import SquintFile

// Gemma 3's text part (arXiv 2503.19786): norms on both sides of attention and feed-forward network, five layers that see a window
// to each one that sees all, each kind with rotary frequencies of its own.

extension DecoderFamily {
  /// configuration_gemma3.py, modeling_gemma3.py; llama.cpp's LLM_ARCH_GEMMA3
  static let gemma3 = DecoderFamily(
    name: "gemma3",
    huggingFace: HuggingFaceFacts(
      modelType: "gemma3_text", wholes: ["gemma3"], vocabulary: 262_208, width: 2304, ffnWidth: 9216, layers: 26,
      heads: 8, keyValueHeads: 4, headWidth: 256, context: 131_072, isTied: true,
      activation: ActivationRule(
        key: "hidden_activation", usual: "gelu_pytorch_tanh", names: ["gelu_pytorch_tanh"]),
      hasHeadNorm: true, names: .huggingFaceGemma3, finish: finishGemma3),
    gguf: GGUFFacts(
      architecture: "gemma3", hasHeadNorm: true, names: .ggufGemma3, finish: finishGemma3))

  /// Every sixth layer sees all.
  private static let usualPattern = 6
  private static let usualWindowBase = 10_000.0

  @Sendable private static func finishGemma3(
    _ decoder: inout DecoderConfiguration, _ reader: ConfigurationReader, _ notes: inout [String]
  ) throws(SquintError) {
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] where try reader.number(key) != nil {
      throw .badData(reader.place, "\(key) is not supported; Gemma 3 has none")
    }
    guard try reader.flag("use_bidirectional_attention") != true else {
      throw .badData(
        reader.place,
        "use_bidirectional_attention is true: this is an encoder of texts, whose tokens see what comes after them, and it "
          + "does not write")
    }
    if let chosen = try reader.windowLayers(of: decoder.layers) {
      decoder.windowLayers = chosen
    } else {
      let pattern = either(
        try reader.size("sliding_window_pattern"), try reader.size("_sliding_window_pattern"))
      decoder.windowLayers = windowLayers(pattern: pattern ?? usualPattern, layers: decoder.layers)
    }
    guard let window = try reader.size("sliding_window") ?? (reader.isAbsent("sliding_window") ? 4096 : nil) else {
      throw .badData(reader.place, "sliding_window is null, which is not supported; Gemma 3 has windows")
    }
    decoder.window = window
    decoder.rotary = try HuggingFaceRotary.layerType(
      "full_attention", reader, scaling: "rope_scaling", baseKey: "rope_theta", base: 1_000_000,
      headWidth: decoder.headWidth, context: decoder.context, notes: &notes)
    let windowRotary = try HuggingFaceRotary.layerType(
      "sliding_attention", reader, scaling: nil, baseKey: "rope_local_base_freq", base: usualWindowBase,
      headWidth: decoder.headWidth, context: decoder.context, notes: &notes)
    let scalar = try reader.number("query_pre_attn_scalar") ?? 256
    guard scalar > 0 else { throw .badData(reader.place, "query_pre_attn_scalar \(scalar) is not positive") }
    // transformers' norms are stored without the 1 that is added to them.
    let added = Fold(addend: 1)
    for name in ["attention.norm", "attention.post_norm", "attention.k_norm", "ffn.norm", "ffn.post_norm", "norm"] {
      decoder.folds[name] = added
    }
    try decoder.setGemma3(windowRotary, scalar: scalar, normAddend: added.addend, place: reader.place)
  }

  @Sendable private static func finishGemma3(
    _ decoder: inout DecoderConfiguration, _ reader: GGUFDecoderReader
  ) throws(SquintError) {
    let metadata = reader.metadata
    for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
      let value = try metadata.number(reader.key(name)) ?? 0
      guard value == 0 else {
        throw .badData(metadata.place, "metadata \(reader.key(name)) is \(value), which is not supported")
      }
    }
    guard try metadata.flag(reader.key("attention.causal")) != false else {
      throw .badData(metadata.place, "metadata \(reader.key("attention.causal")) is false: this model does not write")
    }
    let patternKey = reader.key("attention.sliding_window_pattern")
    // Without a window all layers see all, and turn with the frequencies of those that do.
    decoder.window = try metadata.count(reader.key("attention.sliding_window")) ?? 0
    let isList = metadata.values[patternKey]?.bools != nil
    let pattern = isList ? nil : try metadata.count(patternKey) ?? usualPattern
    decoder.windowLayers =
      if let pattern { windowLayers(pattern: pattern, layers: decoder.layers) } else {
        try reader.windowPattern(layers: decoder.layers)
      }
    decoder.rotary = try reader.rotary(headWidth: decoder.headWidth, context: decoder.context)
    let windowBase = try metadata.number(reader.key("rope.freq_base_swa")) ?? usualWindowBase
    guard windowBase > 1 else {
      throw .badData(metadata.place, "metadata \(reader.key("rope.freq_base_swa")) is \(windowBase)")
    }
    let windowRotary = RotaryFrequencies(width: 2 * decoder.rotary.frequencies.count, base: windowBase)
    // llama.cpp tells the model of 27B, whose scalar is another, by its layers (llama-model.cpp, `LLM_ARCH_GEMMA3`).
    let scalar = decoder.layers == 62 ? decoder.width / decoder.heads : decoder.headWidth
    try decoder.setGemma3(windowRotary, scalar: Double(scalar), normAddend: 0, place: metadata.place)
  }

  /// The layers but each `pattern`th; all where it is 0.
  private static func windowLayers(pattern: Int, layers: Int) -> [Int] {
    (0..<layers).filter { pattern == 0 || ($0 + 1) % pattern != 0 }
  }
}

/// The graph `gemma3`.
package struct Gemma3Graph: GraphSettings {
  /// What the rows of tokens are multiplied with.
  package var embeddingScale: Float
  /// The rotary frequencies of the layers that see a window.
  package var windowRotary: RotaryFrequencies

  package func blueprint(of configuration: DecoderConfiguration) -> any DecoderBlueprint {
    var blueprint = Gemma3Blueprint(configuration)
    blueprint.ffnWidth = configuration.ffnWidth
    blueprint.attention = AttentionBlueprint(configuration)
    blueprint.normEpsilon = configuration.normEpsilon
    blueprint.embeddingScale = Double(embeddingScale)
    // Where there is no window, no layer has it.
    let hasWindow = configuration.window > 0
    blueprint.window = hasWindow ? configuration.window : configuration.context
    blueprint.windowLayers = hasWindow ? configuration.windowLayers ?? Array(0..<configuration.layers) : []
    blueprint.ropeFrequencies = configuration.rotary.frequencies
    blueprint.windowRopeFrequencies = windowRotary.frequencies
    blueprint.ropeScaling = "\(configuration.rotary.description); with a window \(windowRotary.description)"
    return blueprint
  }
}

extension DecoderConfiguration {
  /// Sets what is computed from the configuration, whichever words that has.
  ///
  /// - Parameters:
  ///   - scalar: scores are divided by its root.
  ///   - normAddend: what is added to the weights of norms.
  fileprivate mutating func setGemma3(
    _ windowRotary: RotaryFrequencies, scalar: Double, normAddend: Float, place: String
  ) throws(SquintError) {
    guard rotary.magnitude == 1, windowRotary.magnitude == 1 else {
      throw .badData(place, "a rotary scaling with an attention factor is not supported for Gemma 3")
    }
    // Attention divides the scores by the root of the head's width: the rest goes into the queries' norm.
    let factor = Float((Double(headWidth) / scalar).squareRoot())
    folds["attention.q_norm"] = Fold(addend: normAddend, factor: factor)
    // As torch rounds it, for weights in f32.
    graph = Gemma3Graph(embeddingScale: Float(Double(width).squareRoot()), windowRotary: windowRotary)
  }
}

extension NameMap {
  /// modeling_gemma3.py
  static let huggingFaceGemma3 = NameMap.huggingFaceDecoder(
    layer: [
      ("input_layernorm", "attention.norm"),
      ("self_attn.q_proj", "attention.q"),
      ("self_attn.k_proj", "attention.k"),
      ("self_attn.v_proj", "attention.v"),
      ("self_attn.q_norm", "attention.q_norm"),
      ("self_attn.k_norm", "attention.k_norm"),
      ("self_attn.o_proj", "attention.o"),
      ("post_attention_layernorm", "attention.post_norm"),
      ("pre_feedforward_layernorm", "ffn.norm"),
      ("mlp.gate_proj", "ffn.gate"),
      ("mlp.up_proj", "ffn.up"),
      ("mlp.down_proj", "ffn.down"),
      ("post_feedforward_layernorm", "ffn.post_norm"),
    ], norm: "norm")

  static let ggufGemma3 = NameMap.ggufDecoder(layer: [
    ("post_attention_norm", "attention.post_norm"), ("post_ffw_norm", "ffn.post_norm"),
  ])
}
