import SquintFile

// Llama and Mistral.

extension DecoderFamily {
  /// configuration_llama.py; llama.cpp's LLM_ARCH_LLAMA
  static let llama = DecoderFamily(
    name: "llama",
    huggingFace: HuggingFaceFacts(
      modelType: "llama", vocabulary: 32000, ffnWidth: 11008, context: 2048, hasFFNBias: true,
      names: .huggingFaceLlama
    ) { (decoder, reader, notes) throws(SquintError) in
      try decoder.finishLlama(reader, window: (0, nil), notes: &notes)
    },
    gguf: GGUFFacts(architecture: "llama", interleavesPairs: true, names: .ggufLlama) {
      (decoder, reader) throws(SquintError) in try decoder.finishLlama(reader)
    })

  /// configuration_mistral.py; its GGUF files are Llama's
  static let mistral = DecoderFamily(
    name: "mistral",
    huggingFace: HuggingFaceFacts(
      modelType: "mistral", vocabulary: 32000, ffnWidth: 14336, keyValueHeads: 8, context: 131_072,
      queryKeyValueBias: false, names: .huggingFaceLlama
    ) { (decoder, reader, notes) throws(SquintError) in
      let window = try reader.size("sliding_window") ?? (reader.isAbsent("sliding_window") ? 4096 : 0)
      try decoder.finishLlama(reader, window: (window, nil), notes: &notes)
    },
    gguf: nil)
}

/// The graph `llama`.
package struct LlamaGraph: GraphSettings {
  /// [rotary width / 2]: the axis of a row's position that each pair turns by; nil: all by the first.
  package var ropeAxes: [Int]?

  package init(ropeAxes: [Int]? = nil) { self.ropeAxes = ropeAxes }

  package func blueprint(of configuration: DecoderConfiguration) -> any DecoderBlueprint {
    var blueprint = LlamaBlueprint(configuration)
    blueprint.ffnWidth = configuration.ffnWidth
    blueprint.attention = AttentionBlueprint(configuration)
    blueprint.normEpsilon = configuration.normEpsilon
    if configuration.window > 0 && configuration.windowLayers?.isEmpty != true {
      blueprint.window = configuration.window
      blueprint.windowLayers = configuration.windowLayers
    }
    blueprint.ropeFrequencies = configuration.rotary.frequencies
    blueprint.ropeMagnitude = configuration.rotary.magnitude
    blueprint.ropeAxes = ropeAxes
    return blueprint
  }
}

extension DecoderConfiguration {
  /// Sets the window, and reads the rotary embedding, which is the same in all layers.
  mutating func finishLlama(
    _ reader: ConfigurationReader, window: (positions: Int, layers: [Int]?), notes: inout [String]
  ) throws(SquintError) {
    self.window = window.positions
    windowLayers = window.layers
    rotary = try HuggingFaceRotary.uniform(
      reader, headWidth: headWidth, context: context, layerTypes: reader.texts("layer_types"), notes: &notes)
  }

  /// Reads the window and the rotary embedding of a GGUF file.
  mutating func finishLlama(_ reader: GGUFDecoderReader) throws(SquintError) {
    window = try reader.metadata.count(reader.key("attention.sliding_window")) ?? 0
    if window > 0 { windowLayers = try reader.windowPattern(layers: layers) }
    rotary = try reader.rotary(headWidth: headWidth, context: context)
  }
}

extension NameMap {
  /// As transformers names the tensors (modeling_llama.py and its siblings).
  package static let huggingFaceLlama = NameMap.huggingFaceDecoder(
    layer: [
      ("input_layernorm", "attention.norm"),
      ("self_attn.q_proj", "attention.q"),
      ("self_attn.k_proj", "attention.k"),
      ("self_attn.v_proj", "attention.v"),
      ("self_attn.q_norm", "attention.q_norm"),
      ("self_attn.k_norm", "attention.k_norm"),
      ("self_attn.o_proj", "attention.o"),
      ("post_attention_layernorm", "ffn.norm"),
      ("mlp.gate_proj", "ffn.gate"),
      ("mlp.up_proj", "ffn.up"),
      ("mlp.down_proj", "ffn.down"),
    ], norm: "norm")

  /// The same in GGUF (gguf-py/gguf/constants.py, `TENSOR_NAMES`).
  package static let ggufLlama = NameMap.ggufDecoder(layer: [])
}
