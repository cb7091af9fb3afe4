import Foundation
import SquintConversion
import SquintFile
import Testing

/// The spellings of InternVL, Intern-S1, LLaVA-NeXT and LLaVA-OneVision, whose logits VisionParityTests compares in one spelling: another
/// gives the same tensors and the same settings. And what goes into weights at conversion: InternLM2's packing, Granite's constants.
@Suite struct TiledFamiliesTests {
  private func converted(_ name: String, _ change: (inout CheckpointVariant) throws -> Void = { _ in }) throws
    -> Converted
  {
    var variant = try CheckpointVariant(name)
    try change(&variant)
    return try Converted { try variant.write(to: $0) }
  }

  /// The names that transformers 5 has in memory.
  private static func inMemory(_ name: String) -> String {
    if name == "language_model.lm_head.weight" { return "lm_head.weight" }
    return "model." + name.replacingOccurrences(of: "language_model.model.", with: "language_model.")
  }

  @Test(arguments: ["internvl", "internvl-6b", "llava-next", "llava-onevision"])
  func namesOfTransformersInMemory(name: String) throws {
    let original = try converted(name)
    #expect(try converted(name) { $0.rename(Self.inMemory) } == original)
  }

  @Test(arguments: ["interns1", "intern_s1"]) func internS1(modelType: String) throws {
    let original = try converted("internvl-6b")
    let renamed = try converted("internvl-6b") {
      $0.rename(Self.inMemory)
      $0.config["model_type"] = modelType
      $0.config["architectures"] = ["InternS1ForConditionalGeneration"]
      $0.set("model_type", modelType + "_vision", in: "vision_config")
    }
    #expect(renamed == original)
    #expect(!renamed.hasNote("not known"))
  }

  // MARK: OpenGVLab's

  private static let towerNames = [
    ("vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
    ("vision_tower.embeddings.position_embeddings", "vision_model.embeddings.position_embedding"),
    ("vision_tower.embeddings.patch_embeddings.projection", "vision_model.embeddings.patch_embedding"),
    ("vision_tower.encoder.layer.", "vision_model.encoder.layers."), ("attention.projection_layer", "attn.proj"),
    ("attention.q_proj", "attn.qkv"), ("attention.q_norm", "attn.q_norm"), ("attention.k_norm", "attn.k_norm"),
    ("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("lambda_1", "ls1"), ("lambda_2", "ls2"),
    ("multi_modal_projector.layer_norm", "mlp1.0"), ("multi_modal_projector.linear_1", "mlp1.1"),
    ("multi_modal_projector.linear_2", "mlp1.3"),
  ]

  /// Makes the checkpoint of transformers one of OpenGVLab's program.
  private static func makeOriginal(_ variant: inout CheckpointVariant, tiles: ClosedRange<Int>) throws {
    for (name, query) in variant.tensors where name.contains("vision_tower") && name.contains("attention.q_proj") {
      var all = query
      for part in ["k_proj", "v_proj"] {
        let key = name.replacingOccurrences(of: "q_proj", with: part)
        let found = variant.tensors.removeValue(forKey: key)
        all.bytes += try #require(found).bytes
      }
      all.shape[0] *= 3
      variant.tensors[name] = all
    }
    variant.rename { name in
      guard !name.hasPrefix("language_model") else { return name }
      return towerNames.reduce(name) { $0.replacingOccurrences(of: $1.0, with: $1.1) }
    }
    let vision = try #require(variant.config["vision_config"] as? [String: Any])
    var text = try #require(variant.config["text_config"] as? [String: Any])
    text["architectures"] = ["Qwen2ForCausalLM"]
    var tower: [String: Any] = ["model_type": "intern_vit_6b", "image_size": 28, "patch_size": 7]
    for key in [
      "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "hidden_act", "layer_norm_eps",
      "norm_type",
    ] { tower[key] = vision[key] }
    tower["qk_normalization"] = vision["use_qk_norm"]
    tower["qkv_bias"] = vision["attention_bias"]
    variant.config = [
      "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5,
      "dynamic_image_size": true, "force_image_size": 28, "min_dynamic_patch": tiles.lowerBound,
      "max_dynamic_patch": tiles.upperBound, "ps_version": "v2", "select_layer": -1, "use_thumbnail": true,
      "pad2square": false, "template": "internvl2_5", "llm_config": text, "vision_config": tower,
    ]
  }

  private func original(
    _ name: String, tiles: ClosedRange<Int>, _ change: (inout CheckpointVariant) -> Void = { _ in }
  ) throws -> Converted {
    var variant = try CheckpointVariant(name)
    try Self.makeOriginal(&variant, tiles: tiles)
    change(&variant)
    return try Converted { folder in
      try variant.write(to: folder)
      for file in ["processor_config.json", "chat_template.jinja"] {
        try FileManager.default.removeItem(atPath: "\(folder)/\(file)")
      }
      let images =
        #"{"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28, "do_center_crop": true, "#
        + #""image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}"#
      try images.write(toFile: "\(folder)/preprocessor_config.json", atomically: true, encoding: .utf8)
    }
  }

  @Test(arguments: [("internvl", 1...4), ("internvl-6b", 1...6)])
  func openGVLab(_ name: String, _ tiles: ClosedRange<Int>) throws {
    let expected = try converted(name)
    let ours = try original(name, tiles: tiles)
    #expect(ours.tensors == expected.tensors)
    // The one folder has no video_preprocessor_config.json, so that its class says what becomes of frames.
    let words: Set = [
      "image.marker", "image.token_text", "chat.template", "video.mean", "video.std", "video.size",
    ]
    #expect(
      ours.settings.filter { !words.contains($0.key) }
        == expected.settings.filter { !words.contains($0.key) })
    // The template has no place for an image, so that the usual marker stands for it.
    #expect(ours.settings["image.marker"] == nil)
    #expect(ours.settings["image.token_text"]?.contains("<IMG_CONTEXT>") == true)
  }

  @Test func whatOpenGVLabHasAndWeDoNot() throws {
    func message(_ key: String, _ value: Any) throws -> String? {
      var variant = try CheckpointVariant("internvl")
      try Self.makeOriginal(&variant, tiles: 1...4)
      variant.config[key] = value
      return try planError { try variant.write(to: $0) }?.message
    }
    #expect(try message("ps_version", "v1")?.contains("ps_version \"v1\"") == true)
    #expect(try message("pad2square", true)?.contains("pad2square") == true)
    #expect(try message("downsample_ratio", 0.3)?.contains("downsample_ratio 0.3") == true)
    #expect(try message("min_dynamic_patch", 5)?.contains("min_dynamic_patch 5") == true)
  }

  @Test func whatTransformersHasAndWeDoNot() throws {
    func message(_ name: String, _ key: String, _ value: Any, in object: String? = nil) throws -> String? {
      var variant = try CheckpointVariant(name)
      variant.set(key, value, in: object)
      return try planError { try variant.write(to: $0) }?.message
    }
    #expect(try message("internvl", "use_qk_norm", true, in: "vision_config")?.contains("layer_norm") == true)
    #expect(try message("internvl-6b", "use_mean_pooling", false, in: "vision_config")?.contains("rms_norm") == true)
    #expect(try message("internvl-6b", "layer_norm_eps", 1e-5, in: "vision_config")?.contains("1e-6") == true)
    #expect(try message("internvl", "vision_feature_select_strategy", "full")?.contains("full") == true)
    #expect(try message("internvl", "vision_feature_layer", [1, 2])?.contains("[1, 2]") == true)
    #expect(try message("llava-onevision", "vision_aspect_ratio", "anyres")?.contains("anyres_max_1") == true)
    #expect(try message("granite-docling", "residual_multiplier", 0, in: "text_config")?.contains("1e-6") == true)
  }

  // MARK: LLaVA

  @Test func newlinesAndPacking() throws {
    let next = try converted("llava-next")
    #expect(next.tensors["projector.image.newline"]?.contains("[32]") == true)
    #expect(next.settings["image.packing"]?.contains("anyres") == true)
    #expect(next.settings["image.packing_limit"] == nil)
    #expect(try converted("llava-onevision").settings["image.packing_limit"]?.contains("2") == true)
  }

  // MARK: InternLM2

  /// The tensors of a Llama as InternLM2 has them.
  @Test(arguments: [("llama-gqa", 2), ("llama-one-kv-head", 1), ("llama-biases", 1)])
  func internLM2(_ name: String, _ groups: Int) throws {
    let expected = try converted(name)
    let packed = try converted(name) { variant in
      try Self.pack(&variant, groups: groups)
      let hasBias = variant.config["attention_bias"] as? Bool ?? false
      variant.config["model_type"] = "internlm2"
      variant.config["architectures"] = ["InternLM2ForCausalLM"]
      variant.config["attention_bias"] = nil
      variant.config["bias"] = hasBias
    }
    #expect(packed == expected)
  }

  private static func pack(_ variant: inout CheckpointVariant, groups: Int) throws {
    for (name, query) in variant.tensors where name.contains("q_proj") {
      func rest(_ part: String) throws -> StoredTensor {
        let found = variant.tensors.removeValue(forKey: name.replacingOccurrences(of: "q_proj", with: part))
        return try #require(found)
      }
      let (key, value) = (try rest("k_proj"), try rest("v_proj"))
      var all = query
      all.bytes = Data()
      all.shape[0] += key.shape[0] + value.shape[0]
      for group in 0..<groups {
        for part in [query, key, value] {
          let bytes = part.bytes.count / groups
          all.bytes += part.bytes.dropFirst(group * bytes).prefix(bytes)
        }
      }
      variant.tensors[name] = all
    }
    let names = [
      ("embed_tokens", "tok_embeddings"), ("self_attn.q_proj", "attention.wqkv"), ("self_attn.o_proj", "attention.wo"),
      ("mlp.gate_proj", "feed_forward.w1"), ("mlp.up_proj", "feed_forward.w3"), ("mlp.down_proj", "feed_forward.w2"),
      ("post_attention_layernorm", "ffn_norm"), ("input_layernorm", "attention_norm"), ("lm_head", "output"),
    ]
    variant.rename { name in names.reduce(name) { $0.replacingOccurrences(of: $1.0, with: $1.1) } }
  }

  // MARK: Granite

  /// A Llama with constants; VisionParityTests has their logits.
  @Test(arguments: [true, false]) func granite(isTied: Bool) throws {
    var variant = try CheckpointVariant(isTied ? "llama-one-kv-head" : "llama-gqa")
    variant.config["model_type"] = "granite"
    variant.config["architectures"] = ["GraniteForCausalLM"]
    let before = try numbers(variant)
    variant.config["embedding_multiplier"] = 12.0
    variant.config["residual_multiplier"] = 0.25
    variant.config["attention_multiplier"] = 0.5
    variant.config["logits_scaling"] = 8.0
    let after = try numbers(variant)
    let width = isTied ? 24.0 : 10.0
    // Without the keys all constants are 1, and so is what scores are multiplied with.
    let factors: [String: Double] = [
      "decoder.embedding": 48, "decoder.0.attention.q": 0.5, "decoder.norm": 1 / 8.0 / (isTied ? 48 : 1),
      "decoder.0.attention.k": 1, "decoder.0.attention.o": 1, "decoder.1.ffn.down": 1,
    ]
    for (name, factor) in factors {
      let (old, new) = (try #require(before.tensors[name]), try #require(after.tensors[name]))
      for (old, new) in zip(old, new) {
        #expect(abs(Double(new) - Double(old) * factor) <= 1e-6 * abs(Double(new)), "\(name)")
      }
    }
    #expect(abs(after.epsilon - before.epsilon * 16) < 1e-9)
    // The scores of the graph are divided by the root of the head's width.
    let stored = try #require(variant.tensors["model.layers.0.self_attn.q_proj.weight"])
    guard stored.type == "F32" else { return }
    let first = stored.bytes.withUnsafeBytes { $0.loadUnaligned(as: Float.self) }
    #expect(abs(after.tensors["decoder.0.attention.q"]![0] - first * Float(0.5 * width.squareRoot())) < 1e-5)
  }

  private func numbers(_ variant: CheckpointVariant) throws -> (tensors: [String: [Float]], epsilon: Double) {
    try withFolder { folder in
      let source = "\(folder)/source"
      try FileManager.default.createDirectory(atPath: source, withIntermediateDirectories: true)
      try variant.write(to: source)
      try convert(source: source, to: "\(folder)/model.squint", options: VisionFixture.f32())
      let model = try ModelFile(path: "\(folder)/model.squint")
      var tensors: [String: [Float]] = [:]
      for tensor in model.tensors { tensors[tensor.name] = try model.numbers(tensor.name) }
      return (tensors, try model.metadata.float("decoder.norm_epsilon"))
    }
  }
}
