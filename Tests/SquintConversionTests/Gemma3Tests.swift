import Foundation
import SquintConversion
import SquintFile
import Testing

/// Gemma 3's text part, in transformers' words and in llama.cpp's.
@Suite struct Gemma3Tests {
  private func decode(_ config: [String: Any]) throws -> Gemma3Blueprint {
    let data = try JSONSerialization.data(withJSONObject: config)
    let json = try JSONValue(parsing: String(decoding: data, as: UTF8.self), name: "config.json")
    let decoder = try DecoderConfiguration(huggingFace: json, place: "config.json")
    return try #require(decoder.blueprint as? Gemma3Blueprint)
  }

  // MARK: Configuration

  /// The configuration of Gemma 3 4B as it was published: only what differs from the class is written.
  @Test func olderConfigurationsSpeakOfTheWhole() throws {
    let blueprint = try decode([
      "model_type": "gemma3",
      "text_config": [
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": ["factor": 8.0, "rope_type": "linear"], "sliding_window": 1024,
      ] as [String: Any],
    ])
    #expect(blueprint.architecture == "gemma3")
    #expect(blueprint.vocabulary == 262_208)
    #expect(blueprint.context == 131_072)
    #expect((blueprint.layers, blueprint.width, blueprint.ffnWidth) == (34, 2560, 10240))
    #expect(blueprint.attention.heads == 8)
    #expect(blueprint.attention.kvHeads == 4)
    #expect(blueprint.attention.headWidth == 256)
    #expect(blueprint.normEpsilon == 1e-6)
    #expect(blueprint.embeddingScale == Double(Float(2560).squareRoot()))
    #expect(blueprint.window == 1024)
    #expect(blueprint.windowLayers == (0..<34).filter { ![5, 11, 17, 23, 29].contains($0) })
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(linear: 8, width: 256, base: 1_000_000).frequencies)
    #expect(blueprint.windowRopeFrequencies == RotaryFrequencies(width: 256, base: 10_000).frequencies)
    #expect(blueprint.ropeScaling.contains("linear, factor 8, base 1000000"))
  }

  /// As transformers 5 writes it: rotary settings and windows for each type of layer.
  @Test func newerConfigurationsNameTheLayers() throws {
    var config: [String: Any] = [
      "model_type": "gemma3_text", "num_hidden_layers": 3, "sliding_window": 512, "sliding_window_pattern": 2,
      "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
      "rope_parameters": [
        "full_attention": ["rope_type": "linear", "factor": 2.0, "rope_theta": 5e5] as [String: Any],
        "sliding_attention": ["rope_type": "default", "rope_theta": 2e4] as [String: Any],
      ],
    ]
    var blueprint = try decode(config)
    #expect(blueprint.windowLayers == [0, 2])
    #expect(blueprint.windows == [512, 0, 512])
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(linear: 2, width: 256, base: 500_000).frequencies)
    #expect(blueprint.windowRopeFrequencies == RotaryFrequencies(width: 256, base: 20_000).frequencies)
    // Without the list the pattern counts.
    config["layer_types"] = nil
    config["rope_parameters"] = nil
    config["rope_theta"] = 7e5
    config["rope_local_base_freq"] = 3e4
    blueprint = try decode(config)
    #expect(blueprint.windowLayers == [0, 2])
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(width: 256, base: 700_000).frequencies)
    #expect(blueprint.windowRopeFrequencies == RotaryFrequencies(width: 256, base: 30_000).frequencies)
  }

  @Test(arguments: [
    (#""attn_logit_softcapping": 50.0"#, "attn_logit_softcapping"),
    (#""final_logit_softcapping": 30.0"#, "final_logit_softcapping"),
    (#""use_bidirectional_attention": true"#, "use_bidirectional_attention"),
    (#""hidden_activation": "gelu""#, "hidden_activation \"gelu\""),
    (#""sliding_window": null"#, "sliding_window is null"),
    (#""query_pre_attn_scalar": 0"#, "query_pre_attn_scalar"),
    (#""layer_types": ["full_attention"]"#, "layer_types names 1 layers of 26"),
    (
      #""rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}"#,
      "attention factor"
    ),
  ]) func refuses(setting: String, message: String) throws {
    let json = try JSONValue(parsing: #"{"model_type": "gemma3_text", "# + setting + "}", name: "config.json")
    let error = squintError { _ = try DecoderConfiguration(huggingFace: json, place: "config.json") }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
  }

  // MARK: Folders

  /// Two layers of heads of 8, in the names of Gemma3ForCausalLM.
  private var checkpoint: SyntheticCheckpoint {
    var checkpoint = SyntheticCheckpoint()
    checkpoint.config = [
      "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "vocab_size": 40, "hidden_size": 32,
      "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
      "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 16, "sliding_window_pattern": 2,
      "query_pre_attn_scalar": 32,
    ]
    checkpoint.shapes = ["model.embed_tokens.weight": [40, 32], "model.norm.weight": [32]]
    for layer in 0..<2 {
      let norms = [
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
      ]
      for norm in norms { checkpoint.shapes["model.layers.\(layer).\(norm).weight"] = [32] }
      let matrices = [
        "self_attn.q_proj": [32, 32], "self_attn.k_proj": [16, 32], "self_attn.v_proj": [16, 32],
        "self_attn.o_proj": [32, 32], "self_attn.q_norm": [8], "self_attn.k_norm": [8], "mlp.gate_proj": [48, 32],
        "mlp.up_proj": [48, 32], "mlp.down_proj": [32, 48],
      ]
      for (name, shape) in matrices { checkpoint.shapes["model.layers.\(layer).\(name).weight"] = shape }
    }
    return checkpoint
  }

  /// What is written can be read, and has the constants in it.
  @Test func constantsAreFolded() throws {
    try withFolder { folder in
      var checkpoint = checkpoint
      for norm in ["model.norm", "model.layers.0.self_attn.q_norm", "model.layers.1.self_attn.k_norm"] {
        checkpoint.firstNumbers["\(norm).weight"] = 0.5
      }
      checkpoint.firstNumbers["model.layers.1.post_feedforward_layernorm.weight"] = -0.25
      checkpoint.firstNumbers["model.layers.1.self_attn.q_proj.weight"] = 0.125
      try checkpoint.write(to: folder)
      let path = "\(folder)/model.squint"
      var options = ConversionOptions()
      options.type = .f32
      try convert(source: folder, to: path, options: options)
      let model = try ModelFile(path: path)
      #expect(try model.metadata.string("decoder.graph") == "gemma3")
      let blueprint = try Gemma3Blueprint(model.metadata)
      #expect(blueprint.windows == [16, 0])
      #expect(model.tensors.map(\.name) == blueprint.tensors.filter { !$0.isOptional }.map(\.name))
      #expect(try model.numbers("decoder.norm")[0] == 1.5)
      #expect(try model.numbers("decoder.1.ffn.post_norm")[0] == 0.75)
      #expect(try model.numbers("decoder.1.attention.k_norm")[0] == 1.5)
      // √(8 / 32): attention divides by √8, the model by √32.
      #expect(try model.numbers("decoder.0.attention.q_norm")[0] == 1.5 * 0.5)
      #expect(try model.numbers("decoder.1.attention.q")[0] == 0.125)
    }
  }

  /// The text part alone of a model that sees is converted, in the names that such a model has.
  @Test func theImagePartIsRefused() throws {
    var checkpoint = checkpoint
    let inner = checkpoint.config
    checkpoint.config = [
      "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": inner,
      "vision_config": ["model_type": "siglip_vision_model"],
    ]
    checkpoint.shapes = Dictionary(
      uniqueKeysWithValues: checkpoint.shapes.map { ("language_model.\($0)", $1) })
    let whole = checkpoint
    try withFolder { folder in
      try whole.write(to: folder)
      let report = try planConversion(source: folder)
      #expect(report.notes.allSatisfy { !$0.contains("not known") })
      #expect(report.tensors.contains { $0.name == "decoder.1.ffn.post_norm" })
    }
    checkpoint.shapes["multi_modal_projector.mm_input_projection_weight"] = [32, 32]
    let seeing = checkpoint
    try withFolder { folder in
      try seeing.write(to: folder)
      let error = squintError { _ = try planConversion(source: folder) }
      #expect(error?.kind == .badData)
      for part in ["Gemma3ForConditionalGeneration", "not supported", "mm_input_projection_weight"] {
        #expect(error?.message.contains(part) == true, "\(error?.message ?? "accepted")")
      }
    }
  }

  // MARK: GGUF

  private var gguf: SyntheticGGUF {
    var shapes: [String: [Int]] = ["token_embd.weight": [40, 32], "output_norm.weight": [32]]
    let layer = [
      "attn_norm": [32], "attn_q": [32, 32], "attn_k": [16, 32], "attn_v": [16, 32], "attn_q_norm": [8],
      "attn_k_norm": [8], "attn_output": [32, 32], "post_attention_norm": [32], "ffn_norm": [32],
      "ffn_gate": [48, 32], "ffn_up": [48, 32], "ffn_down": [32, 48], "post_ffw_norm": [32],
    ]
    for index in 0..<7 {
      for (name, shape) in layer { shapes["blk.\(index).\(name).weight"] = shape }
    }
    return SyntheticGGUF(
      metadata: [
        "general.architecture": .text("gemma3"), "gemma3.context_length": .int(64), "gemma3.embedding_length": .int(32),
        "gemma3.block_count": .int(7), "gemma3.feed_forward_length": .int(48), "gemma3.attention.head_count": .int(4),
        "gemma3.attention.head_count_kv": .int(2), "gemma3.attention.key_length": .int(8),
        "gemma3.attention.value_length": .int(8), "gemma3.attention.layer_norm_rms_epsilon": .float(1e-6),
        "gemma3.attention.sliding_window": .int(16), "gemma3.rope.freq_base": .float(1e6),
        "gemma3.rope.scaling.type": .text("linear"), "gemma3.rope.scaling.factor": .float(8),
      ], shapes: shapes)
  }

  /// The blueprint of what `gguf` becomes, and the file.
  private func converted(_ gguf: SyntheticGGUF, _ body: (Gemma3Blueprint, ModelFile) throws -> Void) throws {
    try withFolder { folder in
      let source = "\(folder)/model.gguf"
      try gguf.write(to: source)
      var options = ConversionOptions()
      options.type = .f32
      try convert(source: source, to: "\(folder)/model.squint", options: options)
      let model = try ModelFile(path: "\(folder)/model.squint")
      try body(Gemma3Blueprint(model.metadata), model)
    }
  }

  /// Its norms have the 1, and its queries and keys are in transformers' order.
  @Test func ggufFiles() throws {
    try converted(gguf) { blueprint, model in
      #expect(blueprint.architecture == "gemma3")
      #expect(blueprint.windows == [16, 16, 16, 16, 16, 0, 16])
      #expect(blueprint.ropeFrequencies == RotaryFrequencies(linear: 8, width: 8, base: 1_000_000).frequencies)
      #expect(blueprint.windowRopeFrequencies == RotaryFrequencies(width: 8, base: 10_000).frequencies)
      #expect(blueprint.embeddingScale == Double(Float(32).squareRoot()))
      let norms = [try model.numbers("decoder.norm")[0], try model.numbers("decoder.0.attention.q_norm")[0]]
      #expect(norms == [-48, -48])
      let queries = try model.numbers("decoder.0.attention.q")
      #expect(queries[32..<64].elementsEqual((32..<64).map { Float($0 - 48) }))
    }
  }

  @Test func ggufPatterns() throws {
    var gguf = gguf
    gguf.metadata["gemma3.rope.freq_base_swa"] = .float(20_000)
    gguf.metadata["gemma3.attention.sliding_window_pattern"] = .int(2)
    try converted(gguf) { blueprint, _ in
      #expect(blueprint.windows == [16, 0, 16, 0, 16, 0, 16])
      #expect(blueprint.windowRopeFrequencies == RotaryFrequencies(width: 8, base: 20_000).frequencies)
    }
    gguf.metadata["gemma3.attention.sliding_window_pattern"] = .bools([true, true, false, true, true, true, false])
    try converted(gguf) { blueprint, _ in #expect(blueprint.windows == [16, 16, 0, 16, 16, 16, 0]) }
    // Without a window no layer has one.
    gguf.metadata["gemma3.attention.sliding_window_pattern"] = .int(1)
    gguf.metadata["gemma3.attention.sliding_window"] = nil
    try converted(gguf) { blueprint, _ in #expect(blueprint.windows == [0, 0, 0, 0, 0, 0, 0]) }
  }

  @Test func ggufRefusals() throws {
    for (key, value, message) in [
      ("final_logit_softcapping", WrittenGGUFValue.float(30), "final_logit_softcapping"),
      ("attention.causal", .bool(false), "does not write"),
      ("attention.sliding_window_pattern", .bools([true]), "no list of 7"),
      ("rope.freq_base_swa", .float(0), "freq_base_swa"),
    ] {
      var gguf = gguf
      gguf.metadata["gemma3.\(key)"] = value
      let error = squintError { try converted(gguf) { _, _ in } }
      #expect(error?.kind == .badData)
      #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
    }
  }
}
