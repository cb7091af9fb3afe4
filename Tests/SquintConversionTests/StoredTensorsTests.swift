import Foundation
import SquintConversion
import SquintFile
import Testing

/// What is stored wins over what is said: a fixture whose configuration is spoiled converts as it did before, and says so.
@Suite struct StoredTensorsTests {
  private func converted(_ name: String, _ change: (inout CheckpointVariant) throws -> Void = { _ in }) throws
    -> Converted
  {
    var variant = try CheckpointVariant(name)
    try change(&variant)
    return try Converted { try variant.write(to: $0) }
  }

  // MARK: The head

  private static let ties: [Bool?] = [true, false, nil]

  @Test(arguments: ["llama-gqa", "mistral-full", "qwen2-tied", "qwen3"])
  func theHeadIsTheOneThatIsStored(name: String) throws {
    let original = try converted(name)
    let isStored = original.tensors["decoder.head"] != nil
    for said in Self.ties {
      let same = try converted(name) { $0.config["tie_word_embeddings"] = said }
      #expect(same == original, "\(name), \(String(describing: said))")
      #expect(same.hasNote("tie_word_embeddings") == ((said ?? false) == isStored))
    }
  }

  /// Stored twice, as old files have it: the copy takes no room where the configuration says that it is one.
  @Test func aCopyOfTheEmbeddingIsNoHead() throws {
    let original = try converted("qwen2-tied")
    for said in Self.ties {
      let copy = try converted("qwen2-tied") {
        $0.config["tie_word_embeddings"] = said
        $0.tensors["lm_head.weight"] = $0.tensors["model.embed_tokens.weight"]
      }
      #expect(copy.notes.filter { $0.contains("tie_word_embeddings") }.isEmpty)
      #expect(copy.tensors["decoder.head"] == (said == true ? nil : original.tensors["decoder.embedding"]))
      #expect(copy.tensors.filter { $0.key != "decoder.head" } == original.tensors)
    }
  }

  /// Of two names of one tensor safetensors' `save_model` keeps the first.
  @Test func anEmbeddingUnderTheHeadsName() throws {
    let original = try converted("qwen2-tied")
    let renamed = try converted("qwen2-tied") {
      $0.rename { $0 == "model.embed_tokens.weight" ? "lm_head.weight" : $0 }
    }
    #expect(renamed == original)
  }

  @Test(arguments: ["llava-clip", "llava-siglip", "smolvlm", "idefics3"])
  func headsOfModelsThatSee(name: String) throws {
    let original = try converted(name)
    let isStored = original.tensors["decoder.head"] != nil
    for outer in Self.ties {
      for inner in Self.ties {
        let same = try converted(name) {
          $0.set("tie_word_embeddings", outer)
          $0.set("tie_word_embeddings", inner, in: "text_config")
        }
        #expect(same == original)
        // Where both say the same, and what is so, there is nothing to note.
        if outer == inner, let outer, outer != isStored { #expect(!same.hasNote("tie_word_embeddings")) }
        if isStored, outer == true { #expect(same.hasNote("tie_word_embeddings")) }
      }
    }
  }

  @Test func nanoVLMsHead() throws {
    let original = try converted("nanovlm")
    #expect(try converted("nanovlm") { $0.config["lm_tie_weights"] = false } == original)
    let own = try converted("nanovlm") {
      var embedding = try #require($0.tensors["decoder.head.weight"])
      embedding.bytes[3] ^= 0x80  // the first number's sign
      $0.tensors["decoder.token_embedding.weight"] = embedding
    }
    #expect(own.tensors["decoder.head"] == original.tensors["decoder.embedding"])
    #expect(own.hasNote("lm_tie_weights", "decoder.head.weight"))
  }

  // MARK: Biases and norms

  @Test func biasesThatAreStoredAreUsed() throws {
    let original = try converted("llama-biases")
    for said in [false, nil] as [Bool?] {
      let same = try converted("llama-biases") {
        $0.config["attention_bias"] = said
        $0.config["mlp_bias"] = said
      }
      #expect(same == original)
      #expect(same.hasNote("biases of attention.q", "used") && same.hasNote("biases of ffn.gate", "mlp_bias"))
    }
    let without = try converted("llama-gqa") {
      $0.config["attention_bias"] = true
      $0.config["mlp_bias"] = true
    }
    #expect(try without == converted("llama-gqa"))
    #expect(without.hasNote("attention_bias", "none are stored") && without.hasNote("mlp_bias", "none are stored"))
  }

  @Test func aBiasOfOneLayerIsNotWhole() throws {
    let error = try planError { folder in
      var variant = try CheckpointVariant("llama-biases")
      variant.tensors["model.layers.1.self_attn.q_proj.bias"] = nil
      try variant.write(to: folder)
    }
    #expect(error?.message.contains("1 of 2 layers have a bias for decoder.*.attention.q") == true)
  }

  @Test func normsOfHeadsThatAreStoredAreUsed() throws {
    let original = try converted("qwen3")
    let same = try converted("qwen3") { $0.config["model_type"] = "llama" }
    #expect(same == original)
    #expect(same.hasNote("norms of queries and keys"))
    let error = try planError { folder in
      var variant = try CheckpointVariant("qwen3")
      for name in variant.tensors.keys where name.hasSuffix("q_norm.weight") { variant.tensors[name] = nil }
      try variant.write(to: folder)
    }
    #expect(error?.message.contains("self_attn.q_norm.weight (decoder.0.attention.q_norm) is missing") == true)
  }

  // MARK: Sizes

  @Test(arguments: [
    ("llama-gqa", "vocab_size", 99), ("llama-gqa", "hidden_size", 80), ("llama-gqa", "intermediate_size", 57),
    ("llama-gqa", "num_key_value_heads", 4), ("llama-gqa", "num_key_value_heads", 1), ("llama-gqa", "head_dim", 20),
    ("llama-gqa", "num_attention_heads", 2), ("llama-head-dim", "head_dim", 16), ("qwen3", "head_dim", 8),
    ("qwen2-tied", "num_key_value_heads", 5), ("mistral-full", "vocab_size", 32000),
  ])
  func sizesAreThoseOfTheTensors(name: String, key: String, value: Int) throws {
    let original = try converted(name)
    let same = try converted(name) { $0.config[key] = value }
    #expect(same == original)
    #expect(same.hasNote("\(key) is \(grouped(value)), but"))
  }

  /// Two ways to read the same rows, both of which change two of three numbers.
  @Test func headsThatNothingTellsAreRefused() throws {
    let error = try planError { folder in
      var variant = try CheckpointVariant("llama-gqa")
      variant.config["num_attention_heads"] = 8
      variant.config["num_key_value_heads"] = 8
      try variant.write(to: folder)
    }
    #expect(
      error?.message.contains("q_proj.weight has shape [40, 40], but the configuration makes it [80, 40]") == true)
  }

  @Test(arguments: ["llama-gqa", "llava-clip", "nanovlm"]) func layersBeyondThoseOfTheConfiguration(name: String) throws
  {
    let key = name == "nanovlm" ? "lm_n_blocks" : "num_hidden_layers"
    let inner = name == "llava-clip" ? "text_config" : nil
    func change(_ variant: inout CheckpointVariant) { variant.set(key, 1, in: inner) }
    let less = try converted(name) { change(&$0) }
    let same = try converted(name) {
      change(&$0)
      for name in $0.tensors.keys where name.contains("layers.1.") || name.contains("decoder.blocks.1.") {
        if !name.contains("vision") { $0.tensors[name] = nil }
      }
    }
    #expect(less == same)
    #expect(less.hasNote("the configuration has 1 layers", "left out"))
    #expect(same.notes.count + 1 == less.notes.count)
    // Whatever is in them.
    let more = try converted(name) {
      change(&$0)
      let lead =
        name == "nanovlm" ? "decoder.blocks" : name == "llava-clip" ? "model.language_model.layers" : "model.layers"
      $0.tensors["\(lead).7.eh_proj.weight"] = StoredTensor(type: "F32", shape: [1], bytes: Data(count: 4))
    }
    #expect(more == same)
  }

  @Test func layersThatAreNotStored() throws {
    let error = try planError { folder in
      var variant = try CheckpointVariant("llama-gqa")
      variant.config["num_hidden_layers"] = 3
      try variant.write(to: folder)
    }
    #expect(error?.message.contains("model.layers.2.input_layernorm.weight") == true)
    #expect(error?.message.contains("incomplete") == true)
  }

  // MARK: Encoders and projectors

  @Test(arguments: [
    ("llava-clip", "patch_size", 14), ("llava-clip", "image_size", 56), ("llava-clip", "intermediate_size", 99),
    ("llava-clip", "hidden_size", 64), ("llava-siglip", "image_size", 56), ("llava-dinov2", "image_size", 60),
    ("smolvlm", "patch_size", 12), ("idefics3", "image_size", 112),
  ])
  func sizesOfEncoders(name: String, key: String, value: Int) throws {
    let original = try converted(name)
    let same = try converted(name) { $0.set(key, value, in: "vision_config") }
    #expect(same == original)
    #expect(same.hasNote(key == "image_size" ? "image_size / patch_size" : key))
  }

  /// A tower is what its tensors are: CLIP's class token and norm, SigLIP's bias.
  @Test func partsOfEncoders() throws {
    let original = try converted("llava-clip")
    let siglip = try converted("llava-clip") {
      $0.set("model_type", "siglip_vision_model", in: "vision_config")
      // What the other class assumes otherwise.
      $0.config["vision_feature_layer"] = -2
    }
    #expect(siglip == original)
    #expect(siglip.hasNote("a class token is stored") && siglip.hasNote("a norm before the first layer is stored"))
    #expect(siglip.hasNote("a bias of the patches is not stored"))

    let withoutBias = try converted("llava-clip") {
      for name in $0.tensors.keys where name.hasSuffix("k_proj.bias") { $0.tensors[name] = nil }
    }
    #expect(withoutBias.tensors["encoder.image.0.attention.k.bias"] == nil)
    #expect(withoutBias.tensors["encoder.image.0.attention.q.bias"] != nil)

    let error = try planError { folder in
      var variant = try CheckpointVariant("llava-siglip")
      variant.tensors["vision_tower.embeddings.class_embedding"] = StoredTensor(
        type: "F16", shape: [32], bytes: Data(count: 64))
      try variant.write(to: folder)
    }
    #expect(error?.message.contains("a class token is stored, but the 16 positions") == true)
  }

  @Test func layersOfEncodersBeyondThoseOfTheConfiguration() throws {
    let less = try converted("llava-siglip") { $0.set("num_hidden_layers", 2, in: "vision_config") }
    #expect(less.tensors["encoder.image.1.ffn.up"] != nil && less.tensors["encoder.image.2.ffn.up"] == nil)
    #expect(less.hasNote("encoder's configuration has 2 layers"))
  }

  @Test func projectorsAreAsDeepAsTheyAreStored() throws {
    let original = try converted("llava-clip")
    let flagged = try converted("llava-clip") { $0.config["multimodal_projector_bias"] = false }
    #expect(flagged == original)
    #expect(flagged.hasNote("multimodal_projector_bias", "used"))
    let plain = try converted("llava-clip") {
      for name in $0.tensors.keys where name.contains("projector") && name.hasSuffix("bias") { $0.tensors[name] = nil }
    }
    #expect(plain.tensors["projector.image.0.bias"] == nil)
    #expect(plain.hasNote("multimodal_projector_bias", "none"))
    let deeper = try converted("llava-clip") {
      let prefix = "model.multi_modal_projector.linear_"
      for kind in ["weight", "bias"] { $0.tensors["\(prefix)3.\(kind)"] = $0.tensors["\(prefix)2.\(kind)"] }
    }
    #expect(deeper.settings["projector.image.widths"]?.contains("32, 32, 32, 32") == true)
    #expect(deeper.hasNote("3 matrices, not 2"))

    let original3 = try converted("original-mlp3x")
    for kind in ["linear", "mlp2x_gelu", "identity"] {
      let same = try converted("original-mlp3x") { $0.config["mm_projector_type"] = kind }
      #expect(same == original3)
      #expect(same.hasNote("mm_projector has 3 matrices", kind))
    }
    let error = try planError { folder in
      var variant = try CheckpointVariant("original-mlp3x")
      variant.config["mm_projector_type"] = "mlp4x_gelu"
      try variant.write(to: folder)
    }
    #expect(error?.message.contains("mm_projector has 3 matrices, but mm_projector_type mlp4x_gelu makes it 4") == true)
  }

  /// The convolution [width, side, side, 3], as MLX has it.
  @Test(arguments: ["llava-clip", "llava-dinov2", "smolvlm"]) func patchesWithChannelsLast(name: String) throws {
    let original = try converted(name)
    let same = try converted(name) { variant in
      let patch = try #require(variant.tensors.first { $0.value.shape.count == 4 })
      let (width, side) = (patch.value.shape[0], patch.value.shape[2])
      let size = patch.value.bytes.count / (width * 3 * side * side)
      let bytes = [UInt8](patch.value.bytes)
      var moved = Data()
      for row in 0..<width {
        for pixel in 0..<side * side {
          for channel in 0..<3 {
            let place = size * ((row * 3 + channel) * side * side + pixel)
            moved.append(contentsOf: bytes[place..<place + size])
          }
        }
      }
      variant.tensors[patch.key] = StoredTensor(type: patch.value.type, shape: [width, side, side, 3], bytes: moved)
    }
    #expect(same == original)
  }
}
