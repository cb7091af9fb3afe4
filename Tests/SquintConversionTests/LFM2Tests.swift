import Foundation
import SquintConversion
import SquintFile
import Testing

/// LFM2, in transformers' words and in llama.cpp's.
@Suite struct LFM2Tests {
  private func decode(_ text: String) throws -> LFM2Blueprint {
    let json = try JSONValue(parsing: text, name: "config.json")
    let decoder = try DecoderConfiguration(huggingFace: json, place: "config.json")
    return try #require(decoder.blueprint as? LFM2Blueprint)
  }

  // MARK: Configuration

  /// The configuration of LFM2 350M as it was published.
  @Test func configuration() throws {
    let blueprint = try decode(
      """
      {"model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"], "block_auto_adjust_ff_dim": true, "block_dim": 1024,
       "block_ff_dim": 6656, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256, "conv_L_cache": 3,
       "conv_bias": false, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "hidden_size": 1024,
       "max_position_embeddings": 128000, "norm_eps": 1e-05, "num_attention_heads": 16, "num_hidden_layers": 16,
       "num_key_value_heads": 8, "rope_theta": 1000000.0, "vocab_size": 65536}
      """)
    #expect(blueprint.architecture == "lfm2")
    #expect((blueprint.layers, blueprint.width, blueprint.ffnWidth) == (16, 1024, 4608))
    #expect((blueprint.vocabulary, blueprint.context) == (65_536, 128_000))
    #expect(blueprint.attention.heads == 16)
    #expect(blueprint.attention.kvHeads == 8)
    #expect(blueprint.attention.headWidth == 64)
    #expect(blueprint.normEpsilon == 1e-5)
    #expect(blueprint.attentionLayers == [2, 5, 8, 10, 12, 14])
    #expect(blueprint.convolutionWidth == 3)
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(width: 64, base: 1_000_000).frequencies)
  }

  @Test func spellings() throws {
    #expect(try decode(#"{"model_type": "lfm2"}"#).ffnWidth == 8192)
    #expect(try decode(#"{"model_type": "lfm2"}"#).attentionLayers == Array(0..<32))
    #expect(
      try decode(#"{"model_type": "lfm2", "intermediate_size": 100, "block_auto_adjust_ff_dim": false}"#).ffnWidth
        == 100)
    #expect(
      try decode(#"{"model_type": "lfm2", "intermediate_size": 100, "block_ffn_dim_multiplier": null}"#).ffnWidth == 66)
    #expect(
      try decode(
        #"{"model_type": "lfm2", "block_ff_dim": 100, "block_ffn_dim_multiplier": 1.5, "block_multiple_of": 8}"#
      ).ffnWidth == 104)
    let types = #"["conv", "full_attention", "conv"]"#
    #expect(
      try decode(#"{"model_type": "lfm2", "num_hidden_layers": 3, "layer_types": "# + types + "}").hasAttention
        == [false, true, false])
  }

  @Test(arguments: [
    (#""num_hidden_layers": 1, "layer_types": ["mamba"]"#, "layer_types: \"mamba\""),
    (#""num_hidden_layers": 2, "layer_types": ["conv"]"#, "layer_types names 1 layers of 2"),
    (#""num_hidden_layers": 2, "full_attn_idxs": [2]"#, "attention in the layers [2] of 2"),
    (#""conv_L_cache": 100"#, "convolutions over 100 positions"),
    (#""block_ffn_dim_multiplier": -1.0"#, "block_ffn_dim_multiplier"),
    (#""rope_parameters": {"rope_type": "yarn", "factor": 4.0}"#, "attention factor"),
  ]) func refuses(setting: String, message: String) throws {
    let error = squintError { _ = try decode(#"{"model_type": "lfm2", "# + setting + "}") }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
  }

  // MARK: Files

  private static let convolution = [
    "attention.norm": [32], "convolution.in": [96, 32], "convolution.kernel": [32, 3], "convolution.out": [32, 32],
  ]
  private static let attention = [
    "attention.norm": [32], "attention.q": [32, 32], "attention.k": [16, 32], "attention.v": [16, 32],
    "attention.q_norm": [8], "attention.k_norm": [8], "attention.o": [32, 32],
  ]
  private static let ffn = ["ffn.norm": [32], "ffn.gate": [48, 32], "ffn.up": [48, 32], "ffn.down": [32, 48]]

  /// The tensors of a decoder whose second layer has attention.
  ///
  /// - Parameter names: what a checkpoint calls the tensors of a layer, and what is in front of them.
  private func shapes(layer: String, names: [String: String], ends: [String: [Int]]) -> [String: [Int]] {
    var shapes = ends
    for (index, own) in [Self.convolution, Self.attention, Self.convolution].enumerated() {
      for (name, shape) in own.merging(Self.ffn, uniquingKeysWith: { $1 }) {
        shapes["\(layer).\(index).\(names[name] ?? "?").weight"] = shape
      }
    }
    return shapes
  }

  private var checkpoint: SyntheticCheckpoint {
    var checkpoint = SyntheticCheckpoint()
    checkpoint.config = [
      "model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"], "vocab_size": 40, "hidden_size": 32,
      "intermediate_size": 48, "block_auto_adjust_ff_dim": false, "num_hidden_layers": 3, "num_attention_heads": 4,
      "num_key_value_heads": 2, "layer_types": ["conv", "full_attention", "conv"], "max_position_embeddings": 64,
    ]
    checkpoint.shapes = shapes(
      layer: "model.layers",
      names: [
        "attention.norm": "operator_norm", "convolution.in": "conv.in_proj", "convolution.kernel": "conv.conv",
        "convolution.out": "conv.out_proj", "attention.q": "self_attn.q_proj", "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj", "attention.q_norm": "self_attn.q_layernorm",
        "attention.k_norm": "self_attn.k_layernorm", "attention.o": "self_attn.out_proj", "ffn.norm": "ffn_norm",
        "ffn.gate": "feed_forward.w1", "ffn.up": "feed_forward.w3", "ffn.down": "feed_forward.w2",
      ], ends: ["model.embed_tokens.weight": [40, 32], "model.embedding_norm.weight": [32]])
    // As PyTorch keeps a depthwise convolution.
    for layer in [0, 2] { checkpoint.shapes["model.layers.\(layer).conv.conv.weight"] = [32, 1, 3] }
    return checkpoint
  }

  private var gguf: SyntheticGGUF {
    SyntheticGGUF(
      metadata: [
        "general.architecture": .text("lfm2"), "lfm2.context_length": .int(64), "lfm2.embedding_length": .int(32),
        "lfm2.block_count": .int(3), "lfm2.feed_forward_length": .int(48), "lfm2.attention.head_count": .int(4),
        "lfm2.attention.head_count_kv": .ints([0, 2, 0]), "lfm2.attention.layer_norm_rms_epsilon": .float(1e-5),
        "lfm2.rope.freq_base": .float(1e6), "lfm2.shortconv.l_cache": .int(3),
      ],
      shapes: shapes(
        layer: "blk",
        names: [
          "attention.norm": "attn_norm", "convolution.in": "shortconv.in_proj", "convolution.kernel": "shortconv.conv",
          "convolution.out": "shortconv.out_proj", "attention.q": "attn_q", "attention.k": "attn_k",
          "attention.v": "attn_v", "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm",
          "attention.o": "attn_output", "ffn.norm": "ffn_norm", "ffn.gate": "ffn_gate", "ffn.up": "ffn_up",
          "ffn.down": "ffn_down",
        ], ends: ["token_embd.weight": [40, 32], "token_embd_norm.weight": [32]]))
  }

  private func expectWhole(_ model: ModelFile) throws {
    #expect(try model.metadata.string("decoder.graph") == "lfm2")
    let blueprint = try LFM2Blueprint(model.metadata)
    #expect(blueprint.hasAttention == [false, true, false])
    #expect(blueprint.convolutionWidth == 3)
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(width: 8, base: 1_000_000).frequencies)
    #expect(model.tensors.map(\.name) == blueprint.tensors.filter { !$0.isOptional }.map(\.name))
    #expect(model.tensors.map(\.name).contains("decoder.2.convolution.norm"))
    // Whatever type matrices have.
    #expect(model.tensor("decoder.0.convolution.kernel")?.type == .f32)
    #expect(model.tensor("decoder.0.convolution.kernel")?.shape == [32, 3])
    #expect(model.tensor("decoder.0.convolution.in")?.type == .int4)
    try model.refuseUnknown()
  }

  @Test func folders() throws {
    try withFolder { folder in
      var checkpoint = checkpoint
      checkpoint.firstNumbers["model.layers.2.operator_norm.weight"] = 0.5
      checkpoint.firstNumbers["model.layers.2.conv.conv.weight"] = 0.25
      try checkpoint.write(to: folder)
      try convert(source: folder, to: "\(folder)/model.squint")
      let model = try ModelFile(path: "\(folder)/model.squint")
      try expectWhole(model)
      #expect(try model.numbers("decoder.2.convolution.norm")[0] == 0.5)
      #expect(try model.numbers("decoder.2.convolution.kernel")[0] == 0.25)
    }
  }

  @Test func biases() throws {
    try withFolder { folder in
      var checkpoint = checkpoint
      checkpoint.config["conv_bias"] = true
      for layer in [0, 2] {
        for (name, count) in [("in_proj", 96), ("conv", 32), ("out_proj", 32)] {
          checkpoint.shapes["model.layers.\(layer).conv.\(name).bias"] = [count]
        }
      }
      try checkpoint.write(to: folder)
      let names = try planConversion(source: folder).tensors.map(\.name)
      let own = names.filter { $0.hasPrefix("decoder.2.convolution") }.map {
        $0.dropFirst("decoder.2.convolution.".count)
      }
      #expect(own == ["norm", "in", "in.bias", "kernel", "kernel.bias", "out", "out.bias"])
    }
  }

  @Test func ggufFiles() throws {
    try withFolder { folder in
      try gguf.write(to: "\(folder)/model.gguf")
      try convert(source: "\(folder)/model.gguf", to: "\(folder)/model.squint")
      let model = try ModelFile(path: "\(folder)/model.squint")
      try expectWhole(model)
      // Queries and keys are in transformers' order.
      let numbers = (0..<32 * 32).map { Float($0 % 97 - 48) }
      var options = ConversionOptions()
      options.type = .f32
      try convert(source: "\(folder)/model.gguf", to: "\(folder)/model.squint", options: options)
      let queries = try ModelFile(path: "\(folder)/model.squint").numbers("decoder.1.attention.q")
      #expect(queries == numbers)
    }
  }

  @Test func ggufRefusals() throws {
    for (key, value, message) in [
      ("shortconv.l_cache", nil, "shortconv.l_cache is missing"),
      ("attention.head_count_kv", WrittenGGUFValue.ints([0, 2]), "no list of 3"),
      ("attention.head_count_kv", .ints([1, 2, 0]), "the same positive integer"),
    ] as [(String, WrittenGGUFValue?, String)] {
      try withFolder { folder in
        var gguf = gguf
        gguf.metadata["lfm2.\(key)"] = value
        try gguf.write(to: "\(folder)/model.gguf")
        let error = squintError { _ = try planConversion(source: "\(folder)/model.gguf") }
        #expect(error?.kind == .badData)
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
      }
    }
  }
}
