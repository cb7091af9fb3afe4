import Foundation
import SquintConversion
import SquintFile
import Testing

/// Checkpoints whose names were saved by other programs and classes are the same checkpoints.
@Suite struct NameSpellingTests {
  private func converted(_ name: String, _ change: (String) -> String = { $0 }) throws -> Converted {
    var variant = try CheckpointVariant(name)
    variant.rename(change)
    return try Converted { try variant.write(to: $0) }
  }

  private static let models = [
    "llama-gqa", "llama-biases", "mistral-full", "qwen2-tied", "qwen3", "llava-clip", "llava-siglip", "llava-dinov2",
    "llava-clip-layers", "idefics3", "smolvlm", "original-mlp3x", "nanovlm",
  ]

  @Test(arguments: models) func wrappersAreTakenOff(name: String) throws {
    let original = try converted(name)
    for prefix in ["module.", "_orig_mod.", "model.", "base_model.model.", "module._orig_mod.", "ema.", "policy.net."] {
      let same = try converted(name) { prefix + $0 }
      #expect(same == original, "\(prefix)")
      let isNoted = prefix != "model." && prefix != "base_model.model." && prefix != "ema."
      #expect(same.hasNote("in the names of tensors") == isNoted, "\(prefix): \(same.notes)")
    }
    // Around every layer, and around what is in it.
    for wrapper in ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "module"] {
      let same = try converted(name) { name in
        var parts = name.split(separator: ".").map(String.init)
        if let number = parts.firstIndex(where: { Int($0) != nil }) {
          parts.insert(wrapper, at: number + 1)
          parts.insert(wrapper, at: parts.count - 1)
        }
        return (["_fsdp_wrapped_module"] + parts).joined(separator: ".")
      }
      #expect(same == original, "\(wrapper)")
    }
  }

  /// How transformers 4 and 5, their classes without a head, and other programs call the parts of models that see.
  @Test(arguments: ["llava-clip", "llava-siglip", "llava-dinov2", "llava-clip-layers"]) func spellingsOfLLaVA(
    name: String
  ) throws {
    let original = try converted(name)
    /// The stored name with `decoder` before the decoder's names, `head`, `tower` and `projector` before the others'.
    func spell(decoder: String, head: String, tower: String, projector: String) throws -> Converted {
      try converted(name) { name in
        let parts = name.split(separator: ".").map(String.init)
        func rest(from known: Set<String>) -> String {
          parts[(parts.firstIndex { known.contains($0) } ?? 0)...].joined(separator: ".")
        }
        if parts.contains("lm_head") { return head + "lm_head.weight" }
        if parts.contains("multi_modal_projector") { return projector + rest(from: ["linear_1", "linear_2"]) }
        if parts.contains("language_model") { return decoder + rest(from: ["embed_tokens", "layers", "norm"]) }
        return tower + rest(from: ["embeddings", "encoder", "pre_layrnorm", "post_layernorm", "layernorm", "head"])
      }
    }
    for (decoder, head, tower, projector) in [
      // transformers 5.24's LLaVA, as it comes from a training that wraps it, and its older releases
      (
        "model.language_model.model.", "language_model.", "model.vision_tower.vision_model.",
        "model.multi_modal_projector."
      ),
      ("model.language_model.", "", "model.vision_tower.", "model.multi_modal_projector."),
      ("language_model.model.", "language_model.", "vision_tower.vision_model.", "multi_modal_projector."),
      // LlavaModel by itself, and inside something else
      ("language_model.", "", "vision_tower.", "multi_modal_projector."),
      ("model.model.language_model.", "model.", "model.model.vision_tower.", "model.model.multi_modal_projector."),
      (
        "module.model.language_model.", "module.", "module.model.vision_tower.module.",
        "module.model.multi_modal_projector."
      ),
    ] {
      let same = try spell(decoder: decoder, head: head, tower: tower, projector: projector)
      #expect(same == original, "\(decoder)")
    }
  }

  /// What `AutoModel` saves has no head, and no `model.` before its names.
  @Test(arguments: ["qwen2-tied", "qwen3"]) func decodersWithoutTheirClass(name: String) throws {
    #expect(try converted(name) { String($0.dropFirst("model.".count)) } == converted(name))
  }

  @Test func aDecoderWithoutItsHead() throws {
    var variant = try CheckpointVariant("llama-gqa")
    variant.tensors["lm_head.weight"] = nil
    variant.rename { String($0.dropFirst("model.".count)) }
    variant.config["architectures"] = ["LlamaModel"]
    let headless = try Converted { try variant.write(to: $0) }
    #expect(headless.tensors["decoder.head"] == nil)
    #expect(headless.hasNote("no head is stored"))
  }

  @Test(arguments: ["smolvlm", "idefics3"]) func idefics3WithoutItsClass(name: String) throws {
    let same = try converted(name) { $0.hasPrefix("model.") ? String($0.dropFirst("model.".count)) : $0 }
    #expect(try same == converted(name))
  }

  /// Another part between what is known, and a head beside a body that was wrapped.
  @Test func wrapsInTheMiddle() throws {
    let original = try converted("llama-gqa")
    for part in ["llm", "decoder"] {
      #expect(
        try converted("llama-gqa") { $0.hasPrefix("model.") ? "model.\(part)." + $0.dropFirst(6) : $0 } == original)
    }
    #expect(try converted("llama-gqa") { $0.hasPrefix("model.") ? "student." + $0 : $0 } == original)
  }

  // MARK: What would be lost

  /// A head that no rule maps is never replaced by the embedding, whatever the flag.
  @Test(arguments: ["output.weight", "student.lm_head.linear.weight", "head.weight"])
  func headsOfOtherNames(name: String) throws {
    var variant = try CheckpointVariant("llama-gqa")
    variant.tensors[name] = variant.tensors.removeValue(forKey: "lm_head.weight")
    var options = ConversionOptions()
    for isAllowed in [false, true] {
      options.allowsUnmapped = isAllowed
      let error = try planError(options: options) { try variant.write(to: $0) }
      #expect(error?.kind == .badData)
      #expect(error?.message.contains("\(name) seems to be the head") == true, "\(error?.message ?? "none")")
    }
    var biased = try CheckpointVariant("llama-gqa")
    biased.tensors["lm_head.bias"] = biased.tensors["model.norm.weight"]
    #expect(
      try planError(options: options) { try biased.write(to: $0) }?.message.contains(
        "lm_head.bias is a part of the head")
        == true)
  }

  /// A model that sees, called a text model: its eyes are never left out, whatever they are called.
  @Test(arguments: ["siglip", "clip_model", "visual_encoder", "image_tower", "ViT", "dino", "eyes"])
  func encodersOfOtherNames(name: String) throws {
    var variant = try CheckpointVariant("llama-gqa")
    variant.rename { "llm." + $0 }
    variant.tensors["\(name).patch.weight"] = StoredTensor(type: "F32", shape: [4, 3, 2, 2], bytes: Data(count: 192))
    var options = ConversionOptions()
    options.allowsUnmapped = true
    let error = try planError(options: options) { try variant.write(to: $0) }
    #expect(error?.message.contains("would be blind or deaf") == true, "\(error?.message ?? "none")")
  }

  /// Only a head is stored, and the configuration says that it is not the embedding.
  @Test func anEmbeddingThatIsMissing() throws {
    var variant = try CheckpointVariant("llama-gqa")
    variant.tensors["model.embed_tokens.weight"] = nil
    variant.config["tie_word_embeddings"] = false
    let error = try planError { try variant.write(to: $0) }
    #expect(error?.message.contains("embed_tokens.weight (decoder.embedding) is missing") == true)
  }

  // MARK: What is ambiguous

  @Test func twoTensorsOfOneName() throws {
    let original = try converted("llama-gqa")
    var variant = try CheckpointVariant("llama-gqa")
    let name = "model.layers.1.mlp.up_proj.weight"
    variant.tensors["ema.\(name)"] = variant.tensors[name]
    let twice = try Converted { try variant.write(to: $0) }
    #expect(twice == original)
    #expect(twice.hasNote("1 tensors are stored twice"))
    let count = try #require(variant.tensors[name]).bytes.count
    variant.tensors["ema.\(name)"]?.bytes = Data(count: count)
    let error = try planError { try variant.write(to: $0) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("tensors ema.\(name) and \(name) are both \(name) and differ") == true)
  }

  @Test func twoModels() throws {
    var variant = try CheckpointVariant("llama-gqa")
    for (name, tensor) in variant.tensors {
      variant.tensors[name] = nil
      variant.tensors["student.\(name)"] = tensor
      variant.tensors["teacher.\(name)"] = tensor
    }
    let error = try planError { try variant.write(to: $0) }
    #expect(error?.message.contains("more than one model") == true)
    #expect(error?.message.contains("student") == true && error?.message.contains("teacher") == true)
  }

  // MARK: Training

  @Test func adaptersInTheSameFile() throws {
    var variant = try CheckpointVariant("llama-gqa")
    let original = try Converted { try variant.write(to: $0) }
    variant.rename { name in
      "base_model.model." + name.replacingOccurrences(of: "q_proj.weight", with: "q_proj.base_layer.weight")
    }
    // Merged, but not unwrapped.
    #expect(try Converted { try variant.write(to: $0) } == original)
    let zero = StoredTensor(type: "F32", shape: [1], bytes: Data(count: 4))
    for name in ["layers.0.self_attn.q_proj.lora_A.default.weight", "lm_head.modules_to_save.default.weight"] {
      var with = variant
      with.tensors["base_model.model.model.\(name)"] = zero
      let error = try planError { try with.write(to: $0) }
      #expect(error?.message.contains(name) == true && error?.message.contains("merge_and_unload") == true)
    }
    variant.tensors["_fsdp_wrapped_module._flat_param"] = zero
    let error = try planError { try variant.write(to: $0) }
    #expect(error?.message.contains("FULL_STATE_DICT") == true)
  }
}
