import Foundation
import SquintConversion
import SquintFile
import Testing

/// What cannot be converted is called by its name, with what to do.
@Suite struct RefusalTests {
  private func expect(
    _ error: SquintError?, _ kind: SquintError.Kind, _ parts: [String],
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(error?.kind == kind, "\(error?.message ?? "accepted")", sourceLocation: sourceLocation)
    for part in parts {
      #expect(error?.message.contains(part) == true, "\(error?.message ?? "")", sourceLocation: sourceLocation)
    }
  }

  // MARK: Models

  private static let unmapped: [Bool] = [false, true]

  private func options(_ allowsUnmapped: Bool) -> ConversionOptions {
    var options = ConversionOptions()
    options.allowsUnmapped = allowsUnmapped
    return options
  }

  /// Whatever the flag: a model that sees would be blind.
  @Test(arguments: unmapped) func modelsThatAreNotSupported(allowed: Bool) throws {
    for (type, architecture) in [
      ("paligemma", "PaliGemmaForConditionalGeneration"), ("florence2", "Florence2ForConditionalGeneration"),
      ("minicpmv", "MiniCPMV"), ("gemma3", "Gemma3ForConditionalGeneration"), ("moonshine", nil),
      ("gpt2", "GPT2LMHeadModel"),
    ] {
      let error = try planError(options: options(allowed)) { folder in
        var vision = SyntheticVision()
        vision.checkpoint.config["model_type"] = type
        vision.checkpoint.config["architectures"] = architecture.map { [$0] }
        try vision.checkpoint.write(to: folder)
      }
      expect(error, .badData, [architecture ?? type, "\"\(type)\"", "not supported", "llama", "qwen3", "idefics3"])
      #expect(error?.message.contains("unmapped") == false)
    }
  }

  /// A configuration that says nothing of the parts that the tensors are of.
  @Test(arguments: unmapped) func sensesThatWouldBeLost(allowed: Bool) throws {
    for name in [
      "model.vision_tower.vision_model.embeddings.class_embedding", "model.mm_projector.0.weight",
      "visual.patch_embed.proj.weight", "vision_model.encoder.layers.0.attn.qkv.weight", "mlp1.0.weight",
      "model.image_newline", "audio_tower.conv1.weight", "model.resampler.query",
    ] {
      let error = try planError(options: options(allowed)) { folder in
        var checkpoint = SyntheticCheckpoint()
        checkpoint.shapes[name] = [32]
        try checkpoint.write(to: folder)
      }
      expect(error, .badData, ["encoder or a projector that is not supported"])
      #expect(error?.message.contains("unmapped") == false)
    }
  }

  @Test(arguments: unmapped) func partsThatAreMissing(allowed: Bool) throws {
    for (part, message) in [
      ("vision_tower", "is missing"), ("multi_modal_projector", "no matrix of a projector"),
      ("language_model", "is missing"),
    ] {
      let error = try planError(options: options(allowed)) { folder in
        var vision = SyntheticVision()
        for name in vision.checkpoint.shapes.keys where name.contains(part) { vision.checkpoint.shapes[name] = nil }
        try vision.checkpoint.write(to: folder)
      }
      expect(error, .badData, [message])
    }
  }

  /// The class is called by its name where something of it is not known; where all is, only a note says so.
  @Test func classesThatAreNotKnown() throws {
    var variant = try CheckpointVariant("llama-gqa")
    let original = try Converted { try variant.write(to: $0) }
    for name in ["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel", "MyLlamaForCausalLM"] {
      variant.config["architectures"] = [name]
      let same = try Converted { try variant.write(to: $0) }
      #expect(same == original)
      #expect(same.hasNote(name, "is not known") == (name == "MyLlamaForCausalLM"))
    }
    variant.tensors["model.layers.0.self_attn.sinks"] = StoredTensor(type: "F32", shape: [4], bytes: Data(count: 16))
    let error = try planError { try variant.write(to: $0) }
    expect(error, .badData, ["no rule maps tensor model.layers.0.self_attn.sinks; MyLlamaForCausalLM is not supported"])
  }

  @Test func headsForOtherTasks() throws {
    for (architecture, head) in [
      ("LlamaForSequenceClassification", "score.weight"), ("Qwen2ForTokenClassification", "score.weight"),
      ("Qwen2ForRewardModel", "score.0.weight"),
    ] {
      let error = try planError(options: options(true)) { folder in
        var checkpoint = SyntheticCheckpoint()
        checkpoint.config["architectures"] = [architecture]
        checkpoint.shapes["lm_head.weight"] = nil
        checkpoint.shapes[head] = [2, 32]
        try checkpoint.write(to: folder)
      }
      expect(error, .badData, [architecture, "does not write text"])
    }
  }

  // MARK: Quantized weights

  /// From what is said, and from the tensors alone.
  @Test func quantizedWeights() throws {
    let cases: [(name: String, config: [String: Any]?, tensors: [String: (String, [Int])])] = [
      (
        "bitsandbytes (4 bits)", ["quant_method": "bitsandbytes", "load_in_4bit": true], ["weight.absmax": ("U8", [4])]
      ),
      ("bitsandbytes (4 bits)", nil, ["weight.absmax": ("F32", [4]), "weight.quant_map": ("F32", [16])]),
      ("bitsandbytes (8 bits)", ["quant_method": "bitsandbytes", "load_in_8bit": true], ["SCB": ("F32", [32])]),
      ("bitsandbytes (8 bits)", nil, ["SCB": ("F32", [32])]),
      (
        "compressed-tensors", ["quant_method": "compressed-tensors", "format": "int-quantized"],
        ["weight": ("I8", [32, 32])]
      ),
      ("HQQ", ["quant_method": "hqq"], ["W_q": ("U8", [16, 32])]), ("HQQ", nil, ["W_q": ("U8", [16, 32])]),
      ("AQLM", ["quant_method": "aqlm"], ["codes": ("I16", [32, 4, 1]), "codebooks": ("F16", [1, 16, 1, 8])]),
      ("EXL2", ["quant_method": "exl2"], ["q_weight": ("I32", [4, 32]), "q_invperm": ("I16", [32])]),
      ("EXL3", nil, ["trellis": ("I16", [2, 2, 64])]),
      ("MXFP4", ["quant_method": "mxfp4"], ["weight_blocks": ("U8", [32, 16])]),
      ("torchao", ["quant_method": "torchao"], ["weight": ("I8", [32, 32])]),
      ("EETQ", ["quant_method": "eetq"], ["weight": ("I8", [32, 32])]),
      ("quanto", ["quant_method": "quanto"], ["weight._data": ("I8", [32, 32])]),
      ("quanto", nil, ["weight._data": ("I8", [32, 32])]),
      ("BitNet", ["quant_method": "bitnet"], ["weight": ("U8", [8, 32])]),
      ("NVFP4", nil, ["weight": ("U8", [32, 16]), "weight_scale_2": ("F32", [])]),
      ("my-own", ["quant_method": "my-own"], ["weight": ("U8", [32, 16])]),
      ("U8 numbers", nil, ["weight": ("U8", [32, 16])]),
    ]
    let matrix = "model.layers.0.self_attn.q_proj"
    for (name, config, tensors) in cases {
      let error = try planError { folder in
        var variant = try CheckpointVariant("llama-gqa")
        variant.tensors["\(matrix).weight"] = nil
        variant.config["quantization_config"] = config
        for (ending, (type, shape)) in tensors {
          let size = ["U8": 1, "I8": 1, "I16": 2, "F16": 2][type] ?? 4
          variant.tensors["\(matrix).\(ending)"] = StoredTensor(
            type: type, shape: shape, bytes: Data(count: size * shape.reduce(1, *)))
        }
        try variant.write(to: folder)
      }
      expect(error, .badData, [name, "take the checkpoint that it was made from"])
    }
  }

  /// Left over from the checkpoint that the weights were made from.
  @Test func aSchemeBesidePlainNumbers() throws {
    var variant = try CheckpointVariant("llama-gqa")
    let original = try Converted { try variant.write(to: $0) }
    variant.config["quantization_config"] = ["quant_method": "bitsandbytes", "load_in_4bit": true] as [String: Any]
    let same = try Converted { try variant.write(to: $0) }
    #expect(same == original)
    #expect(same.hasNote("bitsandbytes (4 bits)", "stored as plain numbers"))
  }

  // MARK: Files

  private static let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 269060552\n"

  private static let foreign: [(bytes: [UInt8], part: String)] = [
    (Array(pointer.utf8), "Git LFS pointer"), (Array("<!DOCTYPE html>\n<html><head>".utf8), "web page"),
    (Array("\n\n<HTML lang=\"en\">".utf8), "web page"), ([0xEF, 0xBB, 0xBF] + Array("<html>".utf8), "web page"),
    (Array("Invalid username or password.".utf8), "web page"), (Array("Entry not found".utf8), "web page"),
    (Array("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>".utf8), "web page"), ([], "is empty"),
    ([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0], "gzip archive"), ([0x28, 0xB5, 0x2F, 0xFD, 0, 0, 0, 0, 0], "zstd archive"),
    (Array("PK".utf8) + [3, 4] + [UInt8](repeating: 0, count: 20), "zip archive"),
    ([0x80, 0x02] + [UInt8](repeating: 0x7D, count: 20), "pickle"),
    ([UInt8](repeating: 0x61, count: 257) + Array("ustar".utf8) + [UInt8](repeating: 0, count: 250), "tar archive"),
  ]

  @Test(arguments: [
    "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    "model-00001-of-00002.safetensors",
  ])
  func filesThatStandForOthers(file: String) throws {
    for (bytes, part) in Self.foreign {
      let error = try planError { folder in
        let variant = try CheckpointVariant("llama-gqa")
        try file.hasSuffix(".safetensors") ? variant.writeRest(to: folder) : variant.write(to: folder)
        for name in file.hasPrefix("model-") ? [file, "model-00002-of-00002.safetensors"] : [file] {
          try Data(bytes).write(to: URL(fileURLWithPath: "\(folder)/\(name)"))
        }
      }
      expect(error, .badData, ["/\(file): ", part])
    }
  }

  @Test func sourcesThatStandForOthers() throws {
    let folder = try TemporaryFolder()
    for name in ["model.gguf", "model.bin", "model.safetensors", "model", "model.tar.gz"] {
      for (bytes, part) in Self.foreign {
        let path = try folder.write(name, bytes)
        expect(squintError { try planConversion(source: path) }, .badData, ["\(path): ", part])
      }
    }
    for name in ["encoder.onnx", "encoder.gguf"] {
      let path = try folder.write(name, Array(Self.pointer.utf8))
      let sources = ConversionSources(ConverterFixture.model("llama-gqa"), encoders: ["image": path])
      expect(squintError { try planConversion(sources) }, .badData, [path, "Git LFS pointer"])
    }
    let path = try folder.write("projector.safetensors", Array(Self.pointer.utf8))
    let sources = ConversionSources(ConverterFixture.model("llama-gqa"), projectors: ["image": path])
    expect(squintError { try planConversion(sources) }, .badData, [path, "Git LFS pointer"])
    let model = try folder.write("model.squint", Array(Self.pointer.utf8))
    expect(squintError { _ = try ModelFile(path: model) }, .badData, [model, "Git LFS pointer"])
  }

  /// A header's length may look like the mark of another kind of file.
  @Test(arguments: [0x280, 0x380, 0x8B1F]) func headersThatLookLikeOtherFiles(length: Int) throws {
    let folder = try TemporaryFolder()
    let entry = #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
    let header = entry + String(repeating: " ", count: length - entry.utf8.count)
    let path = try folder.write("x.safetensors", littleEndian(UInt64(length)) + Array(header.utf8) + [0, 0, 0, 0])
    #expect(try SafetensorsSource(path: path).tensors.count == 1)
  }

  @Test func namesThatAreNoFiles() throws {
    for (source, part) in [
      ("https://huggingface.co/HuggingFaceTB/SmolVLM-256M-Instruct", "hf download HuggingFaceTB/SmolVLM-256M-Instruct"),
      ("https://example.org/model.gguf", "this is a URL"), ("file:///models/x", "this is a URL"),
      ("hf:HuggingFaceTB/SmolVLM-256M-Instruct", "hf download"),
      ("HuggingFaceTB/SmolVLM-256M-Instruct", "hf download HuggingFaceTB/SmolVLM-256M-Instruct --local-dir"),
      ("data:application/octet-stream;base64,AAAA", "data URI"),
      ("data:image/png;base64," + String(repeating: "A", count: 100_000), "data URI"),
    ] {
      let error = squintError { try planConversion(source: source) }
      expect(error, .noInput, [part])
      #expect((error?.message.utf8.count ?? 0) < 500)
    }
    // A file that is not there is only that.
    for source in ["nothing", "/tmp/nothing/there.gguf", "./a/b", "../a", "nowhere/model.gguf"] {
      expect(squintError { try planConversion(source: source) }, .noInput, ["No such file or directory"])
    }
  }

  // MARK: JSON

  @Test func byteOrderMarks() throws {
    let original = try Converted { try CheckpointVariant("llama-llama3").write(to: $0) }
    let marked = try Converted { folder in
      try CheckpointVariant("llama-llama3").write(to: folder)
      for file in try contents(of: folder) where file.hasSuffix(".json") {
        let url = URL(fileURLWithPath: "\(folder)/\(file)")
        try (Data([0xEF, 0xBB, 0xBF]) + Data(contentsOf: url)).write(to: url)
      }
    }
    #expect(marked == original)
    for encoding in [String.Encoding.utf16LittleEndian, .utf16BigEndian] {
      let error = try planError { folder in
        try CheckpointVariant("llama-gqa").write(to: folder)
        let url = URL(fileURLWithPath: "\(folder)/config.json")
        let text = "\u{FEFF}" + String(decoding: try Data(contentsOf: url), as: UTF8.self)
        try #require(text.data(using: encoding)).write(to: url)
      }
      expect(error, .badData, ["config.json: this is text in UTF-16; save it as UTF-8"])
    }
  }

  @Test func whatJSONDoesNotHave() throws {
    for (text, part) in [
      (
        "{\n  // a llama\n  \"model_type\": \"llama\"}",
        "line 2, column 3: not valid JSON: expected a key in quotes; JSON has no comments"
      ),
      ("{\"model_type\": # llama\n\"llama\"}", "JSON has no comments"),
      ("{\"model_type\": \"llama\",}", "expected a key in quotes"),
      ("{\"model_type\": \"llama\", \"rms_norm_eps\": NaN}", "rms_norm_eps is not a number"),
      ("{\"model_type\": \"llama\", \"rope_theta\": -Infinity}", "rope_theta is not a number"),
      ("{\"model_type\": \"llama\", \"vocab_size\": Infinity}", "vocab_size is not an integer"),
    ] {
      let error = try planError { folder in
        try CheckpointVariant("llama-gqa").write(to: folder)
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
      }
      expect(error, .badData, ["config.json", part])
    }
    // Of a key that is there twice the last counts, and what nobody reads may be infinite: as in Python.
    let original = try Converted { try CheckpointVariant("llama-gqa").write(to: $0) }
    let same = try Converted { folder in
      try CheckpointVariant("llama-gqa").write(to: folder)
      let url = URL(fileURLWithPath: "\(folder)/config.json")
      let text = String(decoding: try Data(contentsOf: url), as: UTF8.self)
      try Data(("{\"model_type\": \"gpt2\", \"initializer_range\": Infinity, \"x\": NaN, " + text.dropFirst()).utf8)
        .write(to: url)
    }
    #expect(same == original)
  }
}
