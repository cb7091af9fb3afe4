import Foundation
import SquintConversion
import SquintFile
import Testing

/// Qwen3-MoE, in transformers' words and in llama.cpp's.
@Suite struct Qwen3MoETests {
  private func decode(_ text: String) throws -> Qwen3MoEBlueprint {
    let json = try JSONValue(parsing: text, name: "config.json")
    let decoder = try DecoderConfiguration(huggingFace: json, place: "config.json")
    return try #require(decoder.blueprint as? Qwen3MoEBlueprint)
  }

  // MARK: Configuration

  /// The configuration of Qwen3-235B-A22B as it was published.
  @Test func configuration() throws {
    let blueprint = try decode(
      """
      {"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643,
       "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
       "initializer_range": 0.02, "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 94,
       "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 1536, "norm_topk_prob": true,
       "num_attention_heads": 64, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 94,
       "num_key_value_heads": 4, "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null,
       "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
       "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}
      """)
    #expect(blueprint.architecture == "qwen3_moe")
    #expect((blueprint.layers, blueprint.width, blueprint.context) == (94, 4096, 40960))
    #expect((blueprint.attention.heads, blueprint.attention.kvHeads, blueprint.attention.headWidth) == (64, 4, 128))
    #expect((blueprint.experts.count, blueprint.experts.chosen, blueprint.experts.width) == (128, 8, 1536))
    #expect(blueprint.experts.areNormalized)
    #expect(blueprint.denseLayers == nil)
    #expect(blueprint.window == 0)
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(width: 128, base: 1_000_000).frequencies)
    // Two tensors for the experts of a layer: the table stays short.
    #expect(blueprint.tensors.filter { !$0.isOptional }.count == 94 * 11 + 2)
    let experts = blueprint.expertTensors[93]
    #expect((experts.gateUp.rows, experts.gateUp.columns) == (128 * 2 * 1536, 4096))
    #expect((experts.down.rows, experts.down.columns) == (128 * 4096, 1536))
  }

  @Test func spellings() throws {
    func experts(_ settings: String) throws -> Qwen3MoEBlueprint {
      try decode(#"{"model_type": "qwen3_moe", "num_hidden_layers": 6, "# + settings + "}")
    }
    // What the class assumes.
    let usual = try decode(#"{"model_type": "qwen3_moe"}"#)
    #expect((usual.experts.count, usual.experts.chosen, usual.experts.width) == (128, 8, 768))
    #expect(!usual.experts.areNormalized)
    #expect((usual.layers, usual.width, usual.attention.kvHeads) == (24, 2048, 4))
    #expect(try experts(#""num_local_experts": 16"#).experts.count == 16)
    #expect(try experts(#""decoder_sparse_step": 3"#).isDense == [true, true, false, true, true, false])
    #expect(
      try experts(#""decoder_sparse_step": 2, "mlp_only_layers": [1, 4]"#).isDense
        == [true, true, true, false, true, false])
    #expect(try experts(#""mlp_only_layers": null"#).denseLayers == nil)
    let dense = try experts(#""num_experts": 0, "intermediate_size": 96"#)
    #expect(dense.isDense.allSatisfy { $0 } && dense.ffnWidth == 96 && dense.expertTensors.isEmpty)
    #expect(try experts(#""use_sliding_window": true, "sliding_window": 100"#).window == 100)
    #expect(try experts(#""sliding_window": 100"#).window == 0)
  }

  @Test(arguments: [
    (#""num_experts": 4, "num_experts_per_tok": 5"#, "5 of 4 experts"),
    (#""num_experts": 5000"#, "8 of 5,000 experts"),
    (#""hidden_act": "gelu""#, "hidden_act"),
  ]) func refuses(setting: String, message: String) throws {
    let error = squintError { _ = try decode(#"{"model_type": "qwen3_moe", "# + setting + "}") }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
  }

  // MARK: Ways to store experts

  /// The experts of a layer in two tensors, as transformers 5 has them in memory, or with rows and columns the other way round.
  private func fused(_ variant: CheckpointVariant, isTransposed: Bool, suffix: String = "") throws -> CheckpointVariant {
    var variant = variant
    for layer in [0, 2] {
      let prefix = "model.layers.\(layer).mlp.experts"
      func take(_ expert: Int, _ name: String) throws -> Data {
        let stored = variant.tensors.removeValue(forKey: "\(prefix).\(expert).\(name)_proj.weight")
        let tensor = try #require(stored)
        #expect(tensor.type == "F16")
        return tensor.bytes
      }
      var (gateUp, down) = (Data(), Data())
      for expert in 0..<4 {
        let rows = try take(expert, "gate") + take(expert, "up")
        gateUp += isTransposed ? transposed(rows, columns: 40) : rows
        let own = try take(expert, "down")
        down += isTransposed ? transposed(own, columns: 24) : own
      }
      variant.tensors["\(prefix).gate_up_proj\(suffix)"] = StoredTensor(
        type: "F16", shape: isTransposed ? [4, 40, 48] : [4, 48, 40], bytes: gateUp)
      variant.tensors["\(prefix).down_proj\(suffix)"] = StoredTensor(
        type: "F16", shape: isTransposed ? [4, 24, 40] : [4, 40, 24], bytes: down)
    }
    return variant
  }

  /// A matrix of two bytes a number, with rows and columns the other way round.
  private func transposed(_ bytes: Data, columns: Int) -> Data {
    let bytes = [UInt8](bytes)
    let rows = bytes.count / 2 / columns
    var result = Data()
    for column in 0..<columns {
      for row in 0..<rows { result += bytes[2 * (row * columns + column)..<2 * (row * columns + column) + 2] }
    }
    return result
  }

  @Test func allWaysAreTheSame() throws {
    let variant = try CheckpointVariant("qwen3moe")
    let plain = try Converted { try variant.write(to: $0) }
    #expect(plain.notes.allSatisfy { !$0.contains("not known") })
    for isTransposed in [false, true] {
      for suffix in ["", ".weight"] {
        let other = try fused(variant, isTransposed: isTransposed, suffix: suffix)
        #expect(try Converted { try other.write(to: $0) } == plain)
      }
    }
  }

  /// Experts are in the types of other matrices, the router never, and rows that fill panels are zero.
  @Test func types() throws {
    for type in [ElementType.f32, .int8, .int4] {
      try withFolder { folder in
        var options = ConversionOptions()
        options.type = type
        try convert(source: ConverterFixture.model("qwen3moe"), to: "\(folder)/model.squint", options: options)
        let model = try ModelFile(path: "\(folder)/model.squint")
        try model.refuseUnknown()
        #expect(model.tensor("decoder.0.ffn.router")?.type == .f32)
        let gateUp = try #require(model.tensor("decoder.0.ffn.experts.gate_up"))
        #expect(gateUp.type == type && gateUp.shape == [4 * 2 * 32, 40])
        #expect(model.tensor("decoder.0.ffn.experts.down")?.shape == [4 * 48, 24])
        #expect(model.tensor("decoder.1.ffn.gate")?.type == type)
        let numbers = try model.numbers("decoder.0.ffn.experts.gate_up")
        for matrix in 0..<8 {
          let rows = (0..<32).map { row in numbers[(32 * matrix + row) * 40..<(32 * matrix + row + 1) * 40] }
          #expect(rows[..<24].allSatisfy { $0.contains { $0 != 0 } })
          #expect(rows[24...].allSatisfy { $0.allSatisfy { $0 == 0 } })
        }
      }
    }
  }

  @Test func whatIsMissingIsNamed() throws {
    var variant = try CheckpointVariant("qwen3moe")
    variant.tensors["model.layers.2.mlp.experts.3.up_proj.weight"] = nil
    let missing = try planError { try variant.write(to: $0) }
    #expect(missing?.message.contains("model.layers.2.mlp.experts.3.up_proj.weight") == true, "\(missing?.message ?? "")")
    var wide = try CheckpointVariant("qwen3moe")
    wide.set("moe_intermediate_size", 32)
    let shape = try planError { try wide.write(to: $0) }
    #expect(shape?.message.contains("has shape [24, 40], but the configuration makes it [32, 40]") == true)
    var odd = try fused(try CheckpointVariant("qwen3moe"), isTransposed: true)
    odd.tensors["model.layers.0.mlp.experts.down_proj"]?.shape = [2, 48, 40]
    let other = try planError { try odd.write(to: $0) }
    #expect(other?.message.contains("model.layers.0.mlp.experts.down_proj has shape [2, 48, 40]") == true)
  }

  // MARK: GGUF

  private var gguf: SyntheticGGUF {
    var shapes = ["token_embd.weight": [40, 32], "output_norm.weight": [32], "output.weight": [40, 32]]
    for layer in 0..<2 {
      let own = [
        "attn_norm": [32], "attn_q": [32, 32], "attn_k": [16, 32], "attn_v": [16, 32], "attn_q_norm": [8],
        "attn_k_norm": [8], "attn_output": [32, 32], "ffn_norm": [32], "ffn_gate_inp": [3, 32],
        "ffn_gate_exps": [3, 20, 32], "ffn_up_exps": [3, 20, 32], "ffn_down_exps": [3, 32, 20],
      ]
      for (name, shape) in own { shapes["blk.\(layer).\(name).weight"] = shape }
    }
    return SyntheticGGUF(
      metadata: [
        "general.architecture": .text("qwen3moe"), "qwen3moe.context_length": .int(64),
        "qwen3moe.embedding_length": .int(32), "qwen3moe.block_count": .int(2), "qwen3moe.feed_forward_length": .int(48),
        "qwen3moe.attention.head_count": .int(4), "qwen3moe.attention.head_count_kv": .int(2),
        "qwen3moe.attention.key_length": .int(8), "qwen3moe.attention.value_length": .int(8),
        "qwen3moe.attention.layer_norm_rms_epsilon": .float(1e-6), "qwen3moe.rope.freq_base": .float(1e6),
        "qwen3moe.expert_count": .int(3), "qwen3moe.expert_used_count": .int(2),
        "qwen3moe.expert_feed_forward_length": .int(20),
      ], shapes: shapes)
  }

  @Test func ggufFiles() throws {
    try withFolder { folder in
      try gguf.write(to: "\(folder)/model.gguf")
      try convert(source: "\(folder)/model.gguf", to: "\(folder)/model.squint", options: VisionFixture.f32())
      let model = try ModelFile(path: "\(folder)/model.squint")
      let blueprint = try Qwen3MoEBlueprint(model.metadata)
      #expect((blueprint.experts.count, blueprint.experts.chosen, blueprint.experts.width) == (3, 2, 20))
      #expect(blueprint.experts.areNormalized && blueprint.denseLayers == nil)
      // Number n of a tensor is n % 97 − 48.
      let gateUp = try model.numbers("decoder.1.ffn.experts.gate_up")
      for (expert, row, column) in [(0, 0, 0), (1, 3, 5), (2, 19, 31)] {
        let expected = Float((expert * 20 * 32 + row * 32 + column) % 97 - 48)
        for half in 0..<2 { #expect(gateUp[((2 * expert + half) * 32 + row) * 32 + column] == expected) }
      }
      let down = try model.numbers("decoder.1.ffn.experts.down")
      #expect(down[(32 + 7) * 20 + 3] == Float((32 * 20 + 7 * 20 + 3) % 97 - 48))
    }
  }

  @Test func ggufRefusals() throws {
    for (key, value, message) in [
      ("expert_count", nil, "expert_count is missing"), ("expert_used_count", nil, "expert_used_count is missing"),
      ("expert_used_count", .int(4), "4 of 3 experts"), ("expert_weights_scale", .float(2.5), "expert_weights_scale"),
    ] as [(String, WrittenGGUFValue?, String)] {
      try withFolder { folder in
        var gguf = gguf
        gguf.metadata["qwen3moe.\(key)"] = value
        try gguf.write(to: "\(folder)/model.gguf")
        let error = squintError { _ = try planConversion(source: "\(folder)/model.gguf") }
        #expect(error?.kind == .badData)
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
      }
    }
    // Another family's experts.
    try withFolder { folder in
      var gguf = gguf
      gguf.metadata = Dictionary(
        uniqueKeysWithValues: gguf.metadata.map { ($0.replacingOccurrences(of: "qwen3moe", with: "qwen3"), $1) })
      gguf.metadata["general.architecture"] = .text("qwen3")
      try gguf.write(to: "\(folder)/model.gguf")
      let error = squintError { _ = try planConversion(source: "\(folder)/model.gguf") }
      #expect(error?.message.contains("a mixture of experts is not supported") == true)
    }
  }
}
