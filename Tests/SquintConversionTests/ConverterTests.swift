import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

@Suite struct ConverterTests {
  private func options(_ type: ElementType?, keep: Bool? = nil, jobs: Int? = nil) -> ConversionOptions {
    var options = ConversionOptions()
    options.type = type
    options.keep = keep
    options.jobs = jobs
    return options
  }

  // MARK: Hugging Face

  @Test(arguments: ConverterFixture.models) func f32IsTheCheckpointToTheBit(name: String) throws {
    try withFolder { folder in
      let path = "\(folder)/model.squint"
      let report = try convert(source: ConverterFixture.model(name), to: path, options: options(.f32))
      let model = try ModelFile(path: path)
      try model.verify()
      let source = try SafetensorsSource(path: ConverterFixture.model(name))
      for tensor in model.tensors {
        let original = try #require(source.tensor(named: transformersName(tensor.name)), "\(tensor.name)")
        #expect(tensor.type == .f32)
        #expect(tensor.shape == original.shape)
        #expect(try model.numbers(tensor.name).map(\.bitPattern) == source.read(original).map(\.bitPattern))
      }
      let isTied = model.tensor("decoder.head") == nil
      let named = Set(source.tensors.map(\.name)).subtracting(isTied ? ["lm_head.weight"] : [])
      #expect(Set(model.tensors.map { transformersName($0.name) }) == named)
      #expect(report.types.map(\.type) == [.f32])
      #expect(report.types.first?.relativeRMSE == 0)
      #expect(report.fileBytes == model.byteCount)
    }
  }

  /// Bounds: weights with a normal distribution in groups of 32 reach about 2.2 standard deviations, so a uniform grid
  /// of 255 steps leaves 2 · 2.2 / 255 / √12 = 0.5 %; one of 15 leaves 8 % and searching for the best scale less.
  @Test(arguments: [(ElementType.int8, 0.006), (.int4, 0.08), (.int4F16, 0.08), (.bf16, 0.002), (.f16, 0.0003)])
  func errorIsSmallAndReported(type: ElementType, bound: Double) throws {
    try withFolder { folder in
      for name in ["llama-head-dim", "qwen3"] {
        let path = "\(folder)/model.squint"
        let report = try convert(source: ConverterFixture.model(name), to: path, options: options(type))
        let model = try ModelFile(path: path)
        let source = try SafetensorsSource(path: ConverterFixture.model(name))
        var error = 0.0
        var norm = 0.0
        for tensor in model.tensors {
          let original = try source.read(try #require(source.tensor(named: transformersName(tensor.name))))
          let numbers = try model.numbers(tensor.name)
          guard tensor.shape.count == 2 else {
            #expect(tensor.type == .f32)
            #expect(numbers == original)
            continue
          }
          #expect(tensor.type == type)
          for (a, b) in zip(numbers, original) {
            error += Double(a - b) * Double(a - b)
            norm += Double(b) * Double(b)
          }
        }
        let relative = (error / norm).squareRoot()
        #expect(relative < bound)
        let reported = try #require(report.types.first { $0.type == type }?.relativeRMSE)
        // The sums are made in another order.
        #expect(abs(reported - relative) <= 1e-6 * relative)
      }
    }
  }

  @Test func partsHaveTheirOwnTypes() throws {
    var chosen = ConversionOptions()
    var report = try planConversion(source: ConverterFixture.model("llama-gqa"), options: chosen)
    func type(_ name: String) -> ElementType? { report.tensors.first { $0.name == name }?.type }
    #expect(type("decoder.embedding") == .int8)
    #expect(type("decoder.head") == .int8)
    #expect(type("decoder.1.ffn.up") == .int4)
    #expect(type("decoder.1.ffn.norm") == .f32)
    chosen.type = .f16
    chosen.embeddingType = .f32
    report = try planConversion(source: ConverterFixture.model("llama-gqa"), options: chosen)
    #expect(type("decoder.embedding") == .f32)
    #expect(type("decoder.head") == .f32)
    #expect(type("decoder.1.ffn.up") == .f16)
    #expect(report.fileBytes == nil)
  }

  /// Tensors of many chunks, whatever the number of threads; the last panel has 8 rows.
  @Test func threadsDoNotChangeTheFile() throws {
    try withFolder { folder in
      var checkpoint = SyntheticCheckpoint()
      checkpoint.config["vocab_size"] = 40_008
      checkpoint.shapes["model.embed_tokens.weight"] = [40_008, 32]
      checkpoint.shapes["lm_head.weight"] = [40_008, 32]
      try FileManager.default.createDirectory(atPath: "\(folder)/source", withIntermediateDirectories: true)
      try checkpoint.write(to: "\(folder)/source")
      let source = try SafetensorsSource(path: "\(folder)/source")
      for type in [ElementType.f32, .int4] {
        var files: [Data] = []
        for jobs in [1, 3, 16] {
          let path = "\(folder)/\(jobs).squint"
          try convert(source: "\(folder)/source", to: path, options: options(type, jobs: jobs))
          files.append(try Data(contentsOf: URL(fileURLWithPath: path)))
        }
        #expect(files[1] == files[0])
        #expect(files[2] == files[0])
        let model = try ModelFile(path: "\(folder)/3.squint")
        let original = try source.read(try #require(source.tensor(named: "lm_head.weight")))
        let numbers = try model.numbers("decoder.head")
        if type == .f32 { #expect(numbers == original) }
        let largest = zip(numbers, original).map { abs($0 - $1) }.max() ?? 1
        // A step of the grid, 0.1 / 15, at most.
        #expect(largest < 0.007)
      }
    }
  }

  // MARK: GGUF

  @Test(arguments: ["llama-biases", "llama-llama3", "llama-linear", "llama-yarn", "qwen2-tied", "qwen3"])
  func ggufIsTheSameModel(name: String) throws {
    try withFolder { folder in
      try convert(source: ConverterFixture.file("\(name).gguf"), to: "\(folder)/a.squint", options: options(.f32))
      try convert(source: ConverterFixture.model(name), to: "\(folder)/b.squint", options: options(.f32))
      let a = try ModelFile(path: "\(folder)/a.squint")
      let b = try ModelFile(path: "\(folder)/b.squint")
      #expect(a.tensors.map(\.name) == b.tensors.map(\.name))
      for (left, right) in zip(a.tensors, b.tensors) {
        #expect(left.shape == right.shape && left.checksum == right.checksum, "\(left.name)")
      }
      for (key, value) in b.metadata.entries where key.hasPrefix("decoder.") && key != "decoder.rope_scaling" {
        if case .floats(let theirs) = value {
          let ours = try a.metadata.floats(key)
          #expect(ours.count == theirs.count)
          // rope_freqs holds quotients of f32, which give the frequencies back up to two roundings.
          for (x, y) in zip(ours, theirs) { #expect(abs(x - y) <= 0x1p-22 * y, "\(key)") }
        } else if case .float(let theirs) = value {
          #expect(abs(try a.metadata.float(key) - theirs) <= 1e-7 * theirs, "\(key)")  // GGUF has them as f32
        } else {
          #expect(a.metadata[key] == value, "\(key)")
        }
      }
    }
  }

  private func hash(_ numbers: [Float]) -> String {
    let hash = numbers.map { $0 == 0 ? 0 : $0 }.withUnsafeBytes { checksum($0) }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  /// Each tensor of the file with all kinds of blocks, as PyPI's gguf dequantizes it.
  private func quantizedHash(_ name: String) throws -> String? {
    let json = try JSONValue.read(path: ConverterFixture.file("quantized.json"))
    return json[transformersName(name)]?["xxh3"]?.string
  }

  @Test func keptBlocksAreExact() throws {
    try withFolder { folder in
      let path = "\(folder)/model.squint"
      let report = try convert(source: ConverterFixture.file("quantized.gguf"), to: path)
      let model = try ModelFile(path: path)
      let expected: [String: (ElementType, Bool)] = [
        "decoder.embedding": (.int8, true), "decoder.0.attention.q": (.int4, true),
        "decoder.0.attention.k": (.int8, true), "decoder.0.attention.v": (.int8, false),
        "decoder.0.attention.o": (.int4F16, true), "decoder.0.ffn.gate": (.int4F16, true),
        "decoder.0.ffn.up": (.int8, false), "decoder.0.ffn.down": (.int8, false), "decoder.head": (.int4, true),
      ]
      for tensor in report.tensors where tensor.shape.count == 2 {
        let (type, isKept) = try #require(expected[tensor.name])
        #expect(tensor.type == type && tensor.isKept == isKept, "\(tensor.name)")
        #expect(model.tensor(tensor.name)?.type == type)
        let isEqual = try hash(model.numbers(tensor.name)) == quantizedHash(tensor.name)
        #expect(isEqual == isKept, "\(tensor.name)")
      }
      let share = try #require(report.types.first { $0.type == .int4F16 })
      #expect(share.keptParameters == share.parameters)
      #expect(share.relativeRMSE == nil)
      #expect(try #require(report.types.first { $0.type == .int8 }?.relativeRMSE) < 0.01)
    }
  }

  @Test func blocksOfEveryKindBecomeF32() throws {
    try withFolder { folder in
      let path = "\(folder)/model.squint"
      let report = try convert(source: ConverterFixture.file("quantized.gguf"), to: path, options: options(.f32))
      #expect(report.tensors.allSatisfy { !$0.isKept && $0.type == .f32 })
      let model = try ModelFile(path: path)
      for tensor in model.tensors {
        #expect(try hash(model.numbers(tensor.name)) == quantizedHash(tensor.name), "\(tensor.name)")
      }
    }
  }

  @Test func aTypeThatIsAskedForIsNotRaised() throws {
    let source = ConverterFixture.file("quantized.gguf")
    let plain = try planConversion(source: source, options: options(.int4))
    #expect(plain.tensors.allSatisfy { !$0.isKept })
    #expect(plain.tensors.allSatisfy { $0.type == ($0.shape.count == 2 ? .int4 : .f32) })
    let kept = try planConversion(source: source, options: options(.int4, keep: true))
    #expect(kept.tensors.first { $0.sourceType == "Q8_0" }?.type == .int8)
    #expect(kept.tensors.first { $0.sourceType == "Q6_K" }?.type == .int4)
    let none = try planConversion(source: source, options: options(nil, keep: false))
    #expect(none.tensors.allSatisfy { !$0.isKept })
    #expect(none.tensors.first { $0.sourceType == "Q6_K" }?.type == .int4)
  }

  // MARK: Metadata

  @Test func whatPeopleAndChatsNeedGoesAlong() throws {
    try withFolder { folder in
      var checkpoint = SyntheticCheckpoint()
      checkpoint.config["_name_or_path"] = "people/Small-1B"
      checkpoint.config["eos_token_id"] = 3
      checkpoint.files = [
        "generation_config.json":
          #"{"eos_token_id": [7, 5, 7, 400], "temperature": 0.6, "top_k": 20, "top_p": 0.9, "do_sample": true}"#,
        "tokenizer_config.json":
          #"{"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}"#,
        "README.md": "---\nlanguage: en\nlicense: other\nlicense_name: \"small-licence\"\n---\nlicense: none\n",
      ]
      let source = "\(folder)/source"
      try FileManager.default.createDirectory(atPath: source, withIntermediateDirectories: true)
      try checkpoint.write(to: source)
      let path = "\(folder)/model.squint"
      try convert(source: source + "/", to: path, options: options(.f32))
      let metadata = try ModelFile(path: path).metadata
      #expect(metadata["general.name"] == .string("Small-1B"))
      #expect(metadata["general.source"] == .string("source: Hugging Face checkpoint, F32"))
      #expect(metadata["general.license"] == .string("small-licence"))
      #expect(metadata["general.settings"] == .string("decoder f32, embedding f32"))
      #expect(metadata["chat.template"] == .string("D"))
      #expect(metadata["generation.stop_tokens"] == .ints([7, 5]))
      #expect(metadata["generation.temperature"] == .float(0.6))
      #expect(metadata["generation.top_k"] == .int(20))
      #expect(metadata["generation.top_p"] == .float(0.9))
      #expect(metadata["generation.repetition_penalty"] == nil)

      checkpoint.files["chat_template.jinja"] = "{{ messages }}\n"
      checkpoint.files["generation_config.json"] = #"{"temperature": 0.6, "do_sample": false}"#
      try checkpoint.write(to: source)
      try convert(source: source, to: path, options: options(.f32))
      let second = try ModelFile(path: path).metadata
      #expect(second["chat.template"] == .string("{{ messages }}\n"))
      #expect(second["generation.stop_tokens"] == .ints([3]))
      #expect(second["generation.temperature"] == .float(0))
    }
  }

  @Test(arguments: ["llama-llama3", "qwen2-tied"]) func theTokenizerGoesAlong(name: String) throws {
    try withFolder { folder in
      let path = "\(folder)/model.squint"
      let report = try convert(source: ConverterFixture.model(name), to: path)
      #expect(report.notes.isEmpty)
      let model = try ModelFile(path: path)
      let definition = try TokenizerDefinition(metadata: model.bulkMetadata())
      #expect(try definition == HuggingFaceTokenizer.definition(folder: ConverterFixture.model(name)))
      #expect(try model.metadata.string("chat.template").contains("<|im_start|>"))
      #expect(try model.metadata.ints("generation.stop_tokens") == [2])
    }
  }

  // MARK: What is wrong

  /// Converts a spoiled checkpoint; nothing may be left behind.
  private func failure(
    options: ConversionOptions = ConversionOptions(), _ spoil: (inout SyntheticCheckpoint) -> Void
  ) throws -> SquintError? {
    try withFolder { folder in
      var checkpoint = SyntheticCheckpoint()
      spoil(&checkpoint)
      for name in ["source", "output"] {
        try FileManager.default.createDirectory(atPath: "\(folder)/\(name)", withIntermediateDirectories: true)
      }
      try checkpoint.write(to: "\(folder)/source")
      let error = squintError {
        try convert(source: "\(folder)/source", to: "\(folder)/output/model.squint", options: options)
      }
      #expect(try contents(of: "\(folder)/output") == (error == nil ? ["model.squint"] : []))
      #expect(error?.message.contains("\n") != true)
      return error
    }
  }

  @Test func aSoundCheckpointConverts() throws {
    #expect(try failure { _ in } == nil)
    #expect(try failure { $0.shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = [4] } == nil)
    // Tied: the head of the file is left out.
    #expect(try failure { $0.config["tie_word_embeddings"] = true } == nil)
  }

  @Test func anUnmappedTensorIsNamed() throws {
    let error = try failure { $0.shapes["model.layers.0.mlp.router.weight"] = [4] }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("no rule maps tensor model.layers.0.mlp.router.weight;") == true)
    var allowing = ConversionOptions()
    allowing.allowsUnmapped = true
    #expect(try failure(options: allowing) { $0.shapes["model.layers.0.mlp.router.weight"] = [4] } == nil)
    // Obeying would leave out a part of what the layer computes, so it is not offered.
    #expect(error?.message.contains("allow-unmapped") == false)
    #expect(
      try failure { $0.shapes["score.weight"] = [4, 32] }?.message.contains("--allow-unmapped leaves them") == true)
  }

  @Test func aMissingTensorIsNamed() throws {
    let error = try failure { $0.shapes["model.layers.0.mlp.up_proj.weight"] = nil }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("model.layers.0.mlp.up_proj.weight (decoder.0.ffn.up) is missing") == true)
  }

  @Test func aWrongShapeIsNamed() throws {
    let error = try failure { $0.shapes["model.layers.0.self_attn.k_proj.weight"] = [32, 32] }
    #expect(error?.kind == .badData)
    // Keys and values must have as many heads.
    #expect(
      error?.message.contains("v_proj.weight has shape [16, 32], but the configuration makes it [32, 32]") == true)
  }

  @Test(arguments: [ElementType.f32, .f16, .bf16, .int8, .int4]) func numbersThatAreNotFinite(type: ElementType) throws
  {
    for number in [Float.nan, .infinity] {
      let error = try failure(options: options(type)) { $0.firstNumbers["lm_head.weight"] = number }
      #expect(error?.kind == .badData)
      #expect(error?.message.contains("tensor lm_head.weight: row 0, column 0") == true, "\(error?.message ?? "")")
    }
  }

  @Test func aNumberThatIsTooLargeForF16() throws {
    let error = try failure(options: options(.f16)) { $0.firstNumbers["lm_head.weight"] = 70_000 }
    #expect(error?.kind == .badData)
    #expect(try failure(options: options(.bf16)) { $0.firstNumbers["lm_head.weight"] = 70_000 } == nil)
  }

  @Test func generationDefaultsOutOfRange() throws {
    let error = try failure { $0.files["generation_config.json"] = #"{"top_p": 2}"# }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("top_p is 2.0") == true)
  }

  @Test func aCancelledConversionLeavesNothing() throws {
    let calls = Calls()
    var cancelled = ConversionOptions()
    cancelled.isCancelled = { calls.next() > 5 }
    let error = try failure(options: cancelled) { _ in }
    #expect(error?.message == "the conversion was cancelled")
    #expect(calls.next() > 6)
  }

  @Test func sourcesThatAreNone() throws {
    try withFolder { folder in
      func kind(_ source: String) -> SquintError.Kind? {
        squintError { try convert(source: source, to: "\(folder)/out.squint") }?.kind
      }
      #expect(kind("\(folder)/nothing") == .noInput)
      #expect(kind(folder) == .noInput)  // no config.json
      try Data("{".utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
      #expect(kind(folder) == .badData)
      try Data(#"{"model_type": "llama"}"#.utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
      #expect(kind(folder) == .noInput)  // no weights
      #expect(kind("\(folder)/config.json") == .badData)
      try Data("GGUF".utf8).write(to: URL(fileURLWithPath: "\(folder)/short.gguf"))
      #expect(kind("\(folder)/short.gguf") == .badData)
      #expect(try contents(of: folder) == ["config.json", "short.gguf"])
    }
  }

  @Test func outputsThatCannotBe() throws {
    try withFolder { folder in
      let source = "\(folder)/quantized.gguf"
      try FileManager.default.copyItem(atPath: ConverterFixture.file("quantized.gguf"), toPath: source)
      let before = try Data(contentsOf: URL(fileURLWithPath: source))
      func kind(_ path: String) -> SquintError.Kind? { squintError { try convert(source: source, to: path) }?.kind }
      #expect(kind("\(folder)/no/such/folder.squint") == .cannotCreate)
      #expect(kind(folder) == .cannotCreate)
      #expect(kind("/dev/full") == .cannotCreate)
      #expect(kind(source) == .usage)
      try FileManager.default.createSymbolicLink(atPath: "\(folder)/link.squint", withDestinationPath: source)
      #expect(kind("\(folder)/link.squint") == .usage)
      #expect(try Data(contentsOf: URL(fileURLWithPath: source)) == before)
      #expect(try contents(of: folder) == ["link.squint", "quantized.gguf"])
      // A model that is there already is replaced.
      try Data("old".utf8).write(to: URL(fileURLWithPath: "\(folder)/model.squint"))
      #expect(kind("\(folder)/model.squint") == nil)
      try ModelFile(path: "\(folder)/model.squint").verify()
    }
  }

  @Test func progressReachesTheEnd() throws {
    try withFolder { folder in
      let calls = Calls()
      let report = try convert(source: ConverterFixture.model("llama-gqa"), to: "\(folder)/m.squint") { progress in
        #expect(progress.writtenBytes <= progress.totalBytes)
        calls.set(progress.writtenBytes)
      }
      #expect(calls.next() - 1 == report.modules.reduce(0) { $0 + $1.bytes })
    }
  }
}

/// A counter that threads share.
private final class Calls: @unchecked Sendable {
  private let lock = NSLock()
  private var count = 0

  func next() -> Int {
    lock.withLock {
      count += 1
      return count
    }
  }

  func set(_ value: Int) { lock.withLock { count = value } }
}
