import Foundation
import SquintConversion
import SquintFile
import Testing

/// Qwen2-VL, Qwen2.5-VL and Qwen3-VL, in transformers' words and in llama.cpp's.
@Suite struct QwenVLTests {
  static let models = ["qwen2-vl", "qwen25-vl", "qwen3-vl"]

  private func json(_ text: String) throws -> JSONValue { try JSONValue(parsing: text, name: "config.json") }

  /// The keys that an encoder writes, without what all begin with.
  private func keys(_ encoder: EncoderConfiguration) -> [String: MetadataValue] {
    var metadata = Metadata()
    encoder.write(to: &metadata, name: "image")
    return Dictionary(
      uniqueKeysWithValues: metadata.entries.map { (String($0.key.dropFirst("encoder.image.".count)), $0.value) })
  }

  private func converted(_ name: String, in folder: String) throws -> ModelFile {
    let path = "\(folder)/\(name).squint"
    try convert(VisionFixture.sources(name), to: path, options: VisionFixture.f32())
    return try ModelFile(path: path)
  }

  // MARK: Configuration

  /// Qwen2.5-VL-3B's configuration as it was published: most of its tower is what the class assumes.
  @Test func publishedQwen25() throws {
    let config = try json(
      """
      {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0, "bos_token_id": 151643,
       "eos_token_id": 151645, "vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654,
       "image_token_id": 151655, "video_token_id": 151656, "hidden_act": "silu", "hidden_size": 2048,
       "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 128000,
       "max_window_layers": 70, "model_type": "qwen2_5_vl", "num_attention_heads": 16, "num_hidden_layers": 36,
       "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
       "tie_word_embeddings": true, "use_cache": true, "use_sliding_window": false,
       "vision_config": {"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420,
        "num_heads": 16, "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
        "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2, "temporal_patch_size": 2},
       "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 151936}
      """)
    let silent = try json(
      """
      {"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280, "in_chans": 3, "model_type": "qwen2_5_vl",
       "out_hidden_size": 2048, "spatial_patch_size": 14, "tokens_per_second": 2}}
      """)
    let encoder = try EncoderConfiguration(huggingFaceQwenVL: config, place: "config.json")
    let written = keys(encoder)
    #expect(try written == keys(EncoderConfiguration(huggingFaceQwenVL: silent, place: "config.json")))
    #expect(written["graph"] == .string("qwen2_5vl"))
    #expect(written["layers"] == .int(32) && written["width"] == .int(1280) && written["ffn_width"] == .int(3420))
    #expect(written["heads"] == .int(16) && written["patch"] == .int(14) && written["merge"] == .int(2))
    #expect(written["window"] == .int(4) && written["full_layers"] == .ints([7, 15, 23, 31]))
    #expect(written["norm_epsilon"] == .float(1e-6))
    let frequencies = RotaryFrequencies(width: 40, base: 10_000).frequencies
    #expect(frequencies.count == 20 && written["rope_frequencies"] == .floats(frequencies.map { Double($0) }))

    let decoder = try DecoderConfiguration(huggingFace: config, family: "qwen2_5_vl_text", place: "config.json")
    let blueprint = try #require(decoder.blueprint as? LlamaBlueprint)
    #expect((blueprint.layers, blueprint.width, blueprint.ffnWidth) == (36, 2048, 11_008))
    #expect(blueprint.attention.heads == 16)
    #expect(blueprint.attention.kvHeads == 2)
    #expect(blueprint.ropeFrequencies == RotaryFrequencies(width: 128, base: 1_000_000).frequencies)
    #expect(
      blueprint.ropeAxes == [(0, 16), (1, 24), (2, 24)].flatMap { [Int](repeating: $0.0, count: $0.1) })
    #expect(blueprint.window == 0 && decoder.isTied && decoder.optionals.queryKeyValueBias == .required)
  }

  /// Qwen3-VL-2B's, with a text part of its own; and the axes, which are interleaved.
  @Test func publishedQwen3() throws {
    let config = try json(
      """
      {"architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 151655, "model_type": "qwen3_vl",
       "text_config": {"attention_bias": false, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 262144, "model_type": "qwen3_vl_text",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000, "tie_word_embeddings": true, "vocab_size": 151936},
       "tie_word_embeddings": true, "video_token_id": 151656,
       "vision_config": {"deepstack_visual_indexes": [5, 11, 17], "depth": 24, "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024, "in_channels": 3, "intermediate_size": 4096, "model_type": "qwen3_vl", "num_heads": 16,
        "num_position_embeddings": 2304, "out_hidden_size": 2048, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2}}
      """)
    let written = keys(try EncoderConfiguration(huggingFaceQwenVL: config, place: "config.json"))
    #expect(written["graph"] == .string("qwen3vl") && written["activation"] == .string("gelu_tanh"))
    #expect(written["grid"] == .int(48) && written["feature_layers"] == .ints([6, 12, 18]))
    let decoder = try DecoderConfiguration(huggingFace: config, family: "qwen3_vl_text", place: "config.json")
    let blueprint = try #require(decoder.blueprint as? LlamaBlueprint)
    let axes = try #require(blueprint.ropeAxes)
    #expect(Array(axes.prefix(6)) == [0, 1, 2, 0, 1, 2])
    // The last pairs are time's alone: 20 of 64 are each of the others', the last at 58 and 59.
    #expect(Array(axes[57...]) == [0, 1, 2, 0, 0, 0, 0])
    #expect([0, 1, 2].map { axis in axes.count { $0 == axis } } == [24, 20, 20])
    #expect(decoder.optionals.headNorm == .required && decoder.optionals.queryKeyValueBias == .absent)
    // Heads of 16 with the class's sections, which are for 128.
    let small = try DecoderConfiguration(
      huggingFace: json(#"{"model_type": "qwen3_vl_text", "hidden_size": 64, "head_dim": 16}"#), place: "config.json")
    #expect((small.blueprint as? LlamaBlueprint)?.ropeAxes == [0, 1, 2, 0, 1, 2, 0, 1])
  }

  // MARK: Tensors

  /// What stands for a still picture is the sum of what stands for the two frames; queries, keys and values are rows of one.
  @Test(arguments: models) func tensors(_ name: String) throws {
    try withFolder { folder in
      let model = try converted(name, in: folder)
      let source = try SafetensorsSource(path: "\(VisionFixture.folder)/\(name)/checkpoint")
      func original(_ ending: String) throws -> [Float] {
        try source.read(try #require(source.tensors.first { $0.name.hasSuffix("visual.\(ending)") }))
      }
      let kernels = try original("patch_embed.proj.weight")
      #expect(try model.numbers("encoder.image.frames") == kernels)
      let pixels = 16
      let sums = (0..<kernels.count / 2).map { index in
        let (channel, pixel) = (index / pixels, index % pixels)
        return kernels[2 * channel * pixels + pixel] + kernels[(2 * channel + 1) * pixels + pixel]
      }
      #expect(try model.numbers("encoder.image.patch") == sums)
      for kind in ["weight", "bias"] {
        let fused = try original("blocks.1.attn.qkv.\(kind)")
        let ending = kind == "bias" ? ".bias" : ""
        for (index, part) in ["q", "k", "v"].enumerated() {
          let rows = fused.count / 3
          #expect(
            try model.numbers("encoder.image.1.attention.\(part)\(ending)")
              == Array(fused[index * rows..<(index + 1) * rows]))
        }
      }
      let isThird = name == "qwen3-vl"
      #expect(
        try model.numbers("encoder.image.norm") == original(isThird ? "merger.norm.weight" : "merger.ln_q.weight"))
      #expect(
        try model.numbers("projector.image.1") == original(isThird ? "merger.linear_fc2.weight" : "merger.mlp.2.weight")
      )
      if isThird {
        #expect(try model.numbers("projector.image.deep.1.norm") == original("deepstack_merger_list.1.norm.weight"))
        #expect(try model.numbers("projector.image.deep.1.0") == original("deepstack_merger_list.1.linear_fc1.weight"))
        #expect(try model.numbers("encoder.image.positions") == original("pos_embed.weight"))
        #expect(try model.numbers("encoder.image.patch.bias") == original("patch_embed.proj.bias"))
      }
      try model.refuseUnknown()
    }
  }

  @Test func keys() throws {
    try withFolder { folder in
      let all = try Self.models.map { try converted($0, in: folder).metadata }
      for (metadata, graph) in zip(all, ["qwen2vl", "qwen2_5vl", "qwen3vl"]) {
        #expect(metadata["encoder.image.graph"] == .string(graph))
        #expect(metadata["image.positions"] == .string("grid"))
        #expect(metadata["image.marker"] == .string("<|vision_start|><|image_pad|><|vision_end|>"))
        #expect(metadata["image.token_text"] == .string("<|image_pad|>") && metadata["image.token"] == .int(6))
        #expect(metadata["image.resize"] == .string("smart") && metadata["image.multiple"] == .int(8))
        #expect(metadata["video.temporal_patch"] == .int(2) && metadata["video.factor"] == .int(8))
        #expect(metadata["video.token"] == .int(7) && metadata["video.positions"] == .string("grid"))
      }
      #expect(all.map { $0["image.coordinates"] } == ["thousandths", "resized", "thousandths"].map { .string($0) })
      #expect(all.map { $0["projector.image.graph"] } == ["mlp", "mlp", "deepstack"].map { .string($0) })
      #expect(all.map { $0["projector.image.levels"] } == [nil, nil, .int(2)])
      #expect(all[0]["decoder.rope_axes"] == .ints([0, 1, 1, 2]))
      #expect(all[2]["decoder.rope_axes"] == .ints([0, 1, 2, 0, 1, 2, 0, 0]))
      #expect(all[1]["encoder.image.window"] == .int(2) && all[1]["encoder.image.full_layers"] == .ints([1, 3]))
      #expect(all.map { $0["video.steps_per_second"] } == [nil, .float(2), nil])
      #expect(all[2]["encoder.image.feature_layers"] == .ints([1, 3]))
      #expect(all[2]["video.unit_prefix"] == .string("<{seconds} seconds><|vision_start|>"))
    }
  }

  // MARK: Spellings

  /// The names and the configurations of other versions, MLX's order of a kernel's axes, and Qwen2.5-Omni's matrices apart.
  @Test(arguments: models) func spellings(_ name: String) throws {
    let wanted = try Converted { try CheckpointVariant(name).write(to: $0) }
    #expect(!wanted.hasNote("is not known"))
    func expectSame(_ change: (inout CheckpointVariant) throws -> Void) throws {
      var variant = try CheckpointVariant(name)
      try change(&variant)
      let other = try Converted { try variant.write(to: $0) }
      #expect(other.tensors == wanted.tensors)
      #expect(other.settings == wanted.settings)
    }
    try expectSame { variant in
      variant.rename { name in
        let name = name.replacingOccurrences(of: "model.language_model.", with: "model.")
        return name.replacingOccurrences(of: "model.visual.", with: "visual.")
      }
    }
    try expectSame { variant in
      variant.rename { name in
        if name.hasPrefix("model.language_model.") || name.hasPrefix("model.visual.") || name.hasPrefix("lm_head") {
          return name
        }
        return name.hasPrefix("visual.")
          ? "model." + name : name.replacingOccurrences(of: "model.", with: "model.language_model.")
      }
    }
    // Outside or in text_config.
    try expectSame { variant in
      guard let text = variant.config["text_config"] as? [String: Any] else {
        var text = variant.config
        text.removeValue(forKey: "vision_config")
        text["model_type"] = "qwen2_vl_text"
        variant.config["text_config"] = text
        return
      }
      guard name != "qwen3-vl" else { return }
      variant.config.removeValue(forKey: "text_config")
      variant.config.merge(text) { outer, _ in outer }
    }
    try expectSame { variant in
      for (name, tensor) in variant.tensors where name.contains(".attn.qkv.") {
        variant.tensors.removeValue(forKey: name)
        let rows = tensor.shape[0] / 3
        for (index, part) in ["q", "k", "v"].enumerated() {
          let bytes = tensor.bytes.count / 3
          variant.tensors[name.replacingOccurrences(of: ".qkv.", with: ".\(part).")] = StoredTensor(
            type: tensor.type, shape: [rows] + tensor.shape.dropFirst(),
            bytes: Data(tensor.bytes[index * bytes..<(index + 1) * bytes]))
        }
      }
    }
    try expectSame { variant in
      for (name, tensor) in variant.tensors where name.hasSuffix("patch_embed.proj.weight") {
        let (rows, size) = (tensor.shape[0], tensor.bytes.count / tensor.shape.reduce(1, *))
        let inner = 2 * 4 * 4
        var bytes = Data()
        for row in 0..<rows {
          for pixel in 0..<inner {
            for channel in 0..<3 {
              let first = ((row * 3 + channel) * inner + pixel) * size
              bytes += tensor.bytes[first..<first + size]
            }
          }
        }
        variant.tensors[name] = StoredTensor(type: tensor.type, shape: [rows, 2, 4, 4, 3], bytes: bytes)
      }
    }
  }

  // MARK: Refusals

  @Test(arguments: [
    ("qwen2-vl", "vision_config", "temporal_patch_size", "1", "temporal_patch_size is 1"),
    ("qwen2-vl", "vision_config", "num_heads", "2", "heads are 6 wide"),
    ("qwen2-vl", "vision_config", "in_channels", "1", "in_channels is 1"),
    ("qwen2-vl", nil, "rope_scaling", #"{"type": "mrope", "mrope_section": [1, 2, 2]}"#, "mrope_section is [1, 2, 2]"),
    ("qwen25-vl", "vision_config", "window_size", "4", "a window of 4 pixels"),
    ("qwen25-vl", "vision_config", "hidden_act", #""gelu""#, "qwen2_5_vl has silu"),
    ("qwen3-vl", "vision_config", "num_position_embeddings", "37", "not those of a square grid"),
    ("qwen3-vl", "vision_config", "deepstack_visual_indexes", "[2, 0]", "they must ascend"),
    ("qwen3-vl", "vision_config", "deepstack_visual_indexes", "[0, 1, 2]", "tensor projector.image.deep.2.norm"),
    ("qwen3-vl", "vision_config", "deepstack_visual_indexes", "[0]", "deepstack_merger_list.1"),
    ("qwen3-vl", "vision_config", "deepstack_visual_indexes", "[0, 9]", "[0, 9] of 4"),
    ("qwen3-vl", "vision_config", "spatial_merge_size", "4", "multiples of 16 pixels"),
  ])
  func refusals(_ name: String, _ object: String?, _ key: String, _ value: String, _ message: String) throws {
    let json = try JSONSerialization.jsonObject(with: Data(value.utf8), options: .fragmentsAllowed)
    let error = try planError {
      var variant = try CheckpointVariant(name)
      variant.set(key, json, in: object)
      try variant.write(to: $0)
    }
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "none")")
  }

  /// A file that is silent is one of the class; one that speaks of other patches is not for this tower.
  @Test func videos() throws {
    func variant(_ text: String?) throws -> SquintError? {
      try planError { folder in
        try CheckpointVariant("qwen25-vl").write(to: folder)
        let path = "\(folder)/video_preprocessor_config.json"
        try FileManager.default.removeItem(atPath: path)
        try text.map { try Data($0.utf8).write(to: URL(fileURLWithPath: path)) }
      }
    }
    #expect(try variant(#"{"patch_size": 6}"#)?.message.contains("multiples of 8 pixels") == true)
    #expect(try variant(nil) == nil)
  }

  // MARK: GGUF

  /// llama.cpp's files against the folders that they are from.
  @Test(arguments: models) func gguf(_ name: String) throws {
    try withFolder { folder in
      let wanted = try converted(name, in: folder)
      let files = ConverterFixture.folder.appendingPathComponent("vision-gguf/\(name)").path
      let path = "\(folder)/gguf.squint"
      let report = try convert(
        ConversionSources("\(files)/model.gguf", mmproj: "\(files)/mmproj-f16.gguf"), to: path,
        options: VisionFixture.f32())
      #expect(report.unmapped.isEmpty)
      let got = try ModelFile(path: path)
      #expect(got.tensors.map(\.name) == wanted.tensors.map(\.name))
      #expect(got.tensors.map(\.shape) == wanted.tensors.map(\.shape))
      for tensor in wanted.tensors {
        let (left, right) = (try wanted.numbers(tensor.name), try got.numbers(tensor.name))
        // BF16's smallest numbers are none of F16's.
        #expect(zip(left, right).allSatisfy { abs($0 - $1) <= 0x1p-24 }, "\(tensor.name)")
      }
      let keys = Set((wanted.metadata.entries + got.metadata.entries).map(\.key))
      let different = keys.filter { wanted.metadata[$0] != got.metadata[$0] }
      // The files say it in f32, or not at all.
      let known: Set<String> = [
        "general.name", "general.source", "decoder.architecture", "decoder.norm_epsilon", "image.pixels", "image.mean",
        "image.std", "video.mean", "video.std", "video.least_pixels", "video.most_pixels",
      ]
      #expect(different.subtracting(known) == [], "\(different.sorted())")
    }
  }

  @Test func ggufOfAnotherModel() throws {
    let files = ConverterFixture.folder.appendingPathComponent("vision-gguf").path
    let error = squintError {
      try planConversion(
        ConversionSources("\(files)/qwen2-vl/model.gguf", mmproj: "\(files)/qwen3-vl/mmproj-f16.gguf"))
    }
    #expect(error?.message.contains("belongs to a text model of the architecture qwen3vl") == true)
  }
}
