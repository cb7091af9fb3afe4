import Foundation
import SquintConversion
import SquintFile
import Testing

/// LoRA adapters merged while converting.
@Suite struct AdapterTests {
  private func options(_ type: ElementType?, keep: Bool? = nil, jobs: Int? = nil) -> ConversionOptions {
    var options = ConversionOptions()
    options.type = type
    options.keep = keep
    options.jobs = jobs
    return options
  }

  private func sources(_ source: String, adapter: String?) -> ConversionSources {
    var sources = ConversionSources(source)
    sources.adapter = adapter
    return sources
  }

  // MARK: As PEFT merges

  /// What PEFT merges into the checkpoint, from the checkpoint and from a GGUF file of it, whose q and k are permuted.
  ///
  /// PEFT sums in another order: of at most six products of numbers around 1, and of W, a few roundings are left.
  @Test(arguments: [
    ("patterns", "models/llama-biases"), ("patterns", "conversion/llama-biases.gguf"),
    ("rslora", "models/llama-llama3"), ("rslora", "conversion/llama-llama3.gguf"),
    ("llava", "vision/llava-clip/checkpoint"), ("idefics3", "vision/idefics3/checkpoint"),
  ])
  func theMatricesAreThoseOfPEFT(adapter: String, source: String) throws {
    try withFolder { folder in
      let path = "\(folder)/model.squint"
      let from = sources(AdapterFixture.model(source), adapter: AdapterFixture.folder(adapter))
      let report = try convert(from, to: path, options: options(.f32))
      let model = try ModelFile(path: path)
      try model.verify()
      let merged = try SafetensorsSource(path: AdapterFixture.folder(adapter) + "/merged.safetensors")
      #expect(!merged.tensors.isEmpty)
      for tensor in merged.tensors {
        let name = try #require(
          model.tensors.map(\.name).filter {
            $0.hasPrefix("decoder.") && tensor.name.hasSuffix(transformersName($0).dropFirst("model.".count))
          }.first)
        let ours = try model.numbers(name)
        let theirs = try merged.read(tensor)
        #expect(ours.count == theirs.count)
        #expect(zip(ours, theirs).allSatisfy { abs($0 - $1) <= 5e-7 * max(1, abs($1)) }, "\(name)")
        #expect(report.tensors.first { $0.name == name }?.adapterRank != nil)
      }
      #expect(try model.metadata.string("general.source").contains("; adapter \(adapter) merged (LoRA, rank "))
    }
  }

  /// Layers without an adapter, norms and the other parts are the same to the bit.
  @Test func theRestIsAsWithout() throws {
    try withFolder { folder in
      for name in ["llava-clip/checkpoint", "idefics3/checkpoint"] {
        let source = AdapterFixture.model("vision/\(name)")
        let adapter = AdapterFixture.folder(name.hasPrefix("llava") ? "llava" : "idefics3")
        let report = try convert(sources(source, adapter: adapter), to: "\(folder)/a.squint", options: options(.int8))
        try convert(sources(source, adapter: nil), to: "\(folder)/b.squint", options: options(.int8))
        let (a, b) = (try ModelFile(path: "\(folder)/a.squint"), try ModelFile(path: "\(folder)/b.squint"))
        var changed = 0
        for (left, right) in zip(a.tensors, b.tensors) {
          let isAdapted = report.tensors.first { $0.name == left.name }?.adapterRank != nil
          #expect((left.checksum == right.checksum) == !isAdapted, "\(left.name)")
          changed += isAdapted ? 1 : 0
        }
        #expect(changed == 4)
      }
    }
  }

  // MARK: Names

  /// A checkpoint of its own and one inside a larger model, in the spellings of transformers 4 and 5, with and without heads.
  @Test func namesWithEveryPrefix() throws {
    try withFolder { folder in
      var files: [Data] = []
      try FileManager.default.createDirectory(atPath: "\(folder)/source", withIntermediateDirectories: true)
      try SyntheticCheckpoint().write(to: "\(folder)/source")
      for prefix in [
        "model.", "", "language_model.model.", "model.language_model.", "language_model.", "model.text_model.",
        "text_model.",
      ] {
        var adapter = SyntheticAdapter()
        adapter.adapt("\(prefix)layers.0.mlp.down_proj", rows: 32, columns: 48)
        adapter.adapt("\(prefix)layers.0.self_attn.k_proj", rows: 16, columns: 32)
        try adapter.write(to: "\(folder)/adapter")
        try convert(
          sources("\(folder)/source", adapter: "\(folder)/adapter"), to: "\(folder)/m.squint", options: options(.f32))
        files.append(try Data(contentsOf: URL(fileURLWithPath: "\(folder)/m.squint")))
      }
      #expect(Set(files).count == 1)
    }
  }

  @Test func anAdapterOfNanoVLM() throws {
    try withFolder { folder in
      let source = try #require(try VisionFixture.sources("nanovlm").source)
      let plain = try planConversion(source: source)
      let shape = try #require(plain.tensors.first { $0.name == "decoder.0.attention.o" }).shape
      var adapter = SyntheticAdapter()
      adapter.adapt("decoder.blocks.0.attn.out_proj", rows: shape[0], columns: shape[1])
      try adapter.write(to: folder)
      let report = try planConversion(sources(source, adapter: folder))
      #expect(report.tensors.filter { $0.adapterRank == 2 }.map(\.name) == ["decoder.0.attention.o"])
    }
  }

  // MARK: Types

  /// The fixture's tensors are of every kind of block: those with an adapter get the type of their part, as those do that no
  /// type holds exactly, and the others keep their blocks.
  @Test(arguments: [nil, true]) func whatHasNoAdapterKeepsItsBlocks(keep: Bool?) throws {
    try withFolder { folder in
      let source = ConverterFixture.file("quantized.gguf")
      let without = try convert(source: source, to: "\(folder)/b.squint", options: options(nil, keep: keep))
      func shape(_ name: String) throws -> [Int] { try #require(without.tensors.first { $0.name == name }).shape }
      var adapter = SyntheticAdapter()
      for (module, name) in [
        ("self_attn.q_proj", "attention.q"), ("self_attn.k_proj", "attention.k"), ("mlp.gate_proj", "ffn.gate"),
      ] {
        let shape = try shape("decoder.0.\(name)")
        adapter.adapt("model.layers.0.\(module)", rows: shape[0], columns: shape[1])
      }
      try adapter.write(to: "\(folder)/adapter")
      let with = sources(source, adapter: "\(folder)/adapter")
      let report = try convert(with, to: "\(folder)/a.squint", options: options(nil, keep: keep))
      let (a, b) = (try ModelFile(path: "\(folder)/a.squint"), try ModelFile(path: "\(folder)/b.squint"))
      let types = Dictionary(uniqueKeysWithValues: report.tensors.map { ($0.name, $0) })
      // Q4_K and Q4_1 have no more than 5 bits, Q8_0 has.
      for (name, type) in [("attention.q", ElementType.int4), ("attention.k", .int8), ("ffn.gate", .int4)] {
        let tensor = try #require(types["decoder.0.\(name)"])
        #expect(tensor.type == type && !tensor.isKept && tensor.adapterRank == 2, "\(name)")
      }
      for tensor in b.tensors where types[tensor.name]?.adapterRank == nil {
        #expect(a.tensor(tensor.name)?.checksum == tensor.checksum, "\(tensor.name)")
        #expect(types[tensor.name]?.isKept == without.tensors.first { $0.name == tensor.name }?.isKept)
      }
      #expect(without.tensors.first { $0.name == "decoder.0.ffn.gate" }?.isKept == true)
    }
  }

  @Test func theTypeThatIsAskedForIsWhatAnAdaptedMatrixBecomes() throws {
    try withFolder { folder in
      var adapter = SyntheticAdapter()
      let source = ConverterFixture.file("quantized.gguf")
      let shape = try #require(try planConversion(source: source).tensors.first { $0.name == "decoder.0.attention.k" })
        .shape
      adapter.adapt("model.layers.0.self_attn.k_proj", rows: shape[0], columns: shape[1])
      try adapter.write(to: folder)
      var chosen = ConversionOptions()
      chosen.decoderType = .int4
      chosen.keep = true
      let report = try planConversion(sources(source, adapter: folder), options: chosen)
      #expect(report.tensors.first { $0.name == "decoder.0.attention.k" }?.type == .int4)
    }
  }

  /// The quantized blocks, dequantized, and the adapter in Hugging Face's order of rows.
  @Test func quantizedBlocksAndTheAdapterAddUp() throws {
    try withFolder { folder in
      let source = ConverterFixture.file("quantized.gguf")
      try convert(source: source, to: "\(folder)/b.squint", options: options(.f32))
      let without = try ModelFile(path: "\(folder)/b.squint")
      var adapter = SyntheticAdapter()
      let modules = [
        "decoder.0.attention.q", "decoder.0.attention.k", "decoder.0.attention.v", "decoder.0.attention.o",
        "decoder.0.ffn.gate", "decoder.0.ffn.up", "decoder.0.ffn.down", "decoder.head",
      ].map { ($0, String(transformersName($0).dropLast(".weight".count))) }
      for (name, module) in modules {
        let shape = try #require(without.tensor(name)).shape
        adapter.adapt(module, rows: shape[0], columns: shape[1])
      }
      try adapter.write(to: "\(folder)/adapter")
      try convert(
        sources(source, adapter: "\(folder)/adapter"), to: "\(folder)/a.squint", options: options(.f32))
      let with = try ModelFile(path: "\(folder)/a.squint")
      for (name, module) in modules {
        try expectMerged(try with.numbers(name), try without.numbers(name), adapter.pairs[module], scale: 1.5, name)
      }
    }
  }

  private func expectMerged(
    _ merged: [Float], _ plain: [Float], _ pair: SyntheticAdapter.Pair?, scale: Double, _ name: String
  ) throws {
    let product = try #require(pair).product
    #expect(merged.count == plain.count && merged.count == product.count)
    let isMerged = zip(zip(merged, plain), product).allSatisfy { numbers, product in
      let wanted = Double(numbers.1) + scale * product
      return abs(Double(numbers.0) - wanted) <= 1e-6 * max(abs(wanted), abs(Double(numbers.1)), 0.1)
    }
    #expect(isMerged, "\(name)")
  }

  // MARK: Pieces

  /// Tensors of many chunks, a rank above the matrix's columns, and an A of several pieces, whatever the number of threads.
  @Test func piecesDoNotChangeTheFile() throws {
    try withFolder { folder in
      var checkpoint = SyntheticCheckpoint()
      checkpoint.config["vocab_size"] = 20_008
      checkpoint.shapes["model.embed_tokens.weight"] = [20_008, 32]
      checkpoint.shapes["lm_head.weight"] = [20_008, 32]
      checkpoint.config["intermediate_size"] = 30_016
      for name in ["gate_proj", "up_proj"] { checkpoint.shapes["model.layers.0.mlp.\(name).weight"] = [30_016, 32] }
      checkpoint.shapes["model.layers.0.mlp.down_proj.weight"] = [32, 30_016]
      var adapter = SyntheticAdapter()
      adapter.config["rank_pattern"] = ["lm_head": 50, "down_proj": 40]
      adapter.config["alpha_pattern"] = ["lm_head": 25, "down_proj": 20]
      adapter.adapt("lm_head", rows: 20_008, columns: 32, rank: 50)
      adapter.adapt("model.layers.0.mlp.down_proj", rows: 32, columns: 30_016, rank: 40)
      try FileManager.default.createDirectory(atPath: "\(folder)/source", withIntermediateDirectories: true)
      try checkpoint.write(to: "\(folder)/source")
      try adapter.write(to: "\(folder)/adapter")
      let from = sources("\(folder)/source", adapter: "\(folder)/adapter")
      for type in [ElementType.f32, .int4] {
        var files: [Data] = []
        for jobs in [1, 3] {
          try convert(from, to: "\(folder)/\(jobs).squint", options: options(type, jobs: jobs))
          files.append(try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(jobs).squint")))
        }
        #expect(files[1] == files[0])
        guard type == .f32 else { continue }
        let model = try ModelFile(path: "\(folder)/1.squint")
        let source = try SafetensorsSource(path: "\(folder)/source")
        for name in ["decoder.head", "decoder.0.ffn.down"] {
          let module = transformersName(name)
          let plain = try source.read(try #require(source.tensor(named: module)))
          try expectMerged(
            try model.numbers(name), plain, adapter.pairs[String(module.dropLast(".weight".count))], scale: 0.5, name)
        }
      }
    }
  }

  // MARK: What is refused

  /// Converts with a spoiled adapter; nothing may be left behind.
  private func failure(
    tied: Bool = false, after: (String) throws -> Void = { _ in }, _ spoil: (inout SyntheticAdapter) -> Void
  ) throws -> SquintError? {
    try withFolder { folder in
      var checkpoint = SyntheticCheckpoint()
      if tied {
        checkpoint.config["tie_word_embeddings"] = true
        checkpoint.shapes["lm_head.weight"] = nil
      }
      for name in ["source", "output"] {
        try FileManager.default.createDirectory(atPath: "\(folder)/\(name)", withIntermediateDirectories: true)
      }
      try checkpoint.write(to: "\(folder)/source")
      var adapter = SyntheticAdapter()
      adapter.adapt("model.layers.0.self_attn.q_proj", rows: 32, columns: 32)
      adapter.adapt("model.layers.0.mlp.down_proj", rows: 32, columns: 48)
      spoil(&adapter)
      try adapter.write(to: "\(folder)/adapter")
      try after("\(folder)/adapter")
      let error = squintError {
        try convert(
          sources("\(folder)/source", adapter: "\(folder)/adapter"), to: "\(folder)/output/m.squint",
          options: options(.int8))
      }
      #expect(try contents(of: "\(folder)/output") == (error == nil ? ["m.squint"] : []))
      #expect(error?.message.contains("\n") != true)
      return error
    }
  }

  private func expectFailure(_ error: SquintError?, _ message: String, _ kind: SquintError.Kind = .badData) {
    #expect(error?.kind == kind, "\(message)")
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted"), not \(message)")
  }

  @Test func aSoundAdapterIsMerged() throws {
    #expect(try failure { _ in } == nil)
    // What PEFT writes where nothing is asked for, and what says only where adapters are.
    #expect(
      try failure {
        $0.config["modules_to_save"] = NSNull()
        $0.config["layer_replication"] = [Int]()
        $0.config["loftq_config"] = [String: Any]()
        $0.config["target_modules"] = ["q_proj", "down_proj"]
        $0.config["megatron_core"] = "megatron.core"
        $0.config["qalora_group_size"] = 16
        $0.config["inference_mode"] = true
        $0.config["init_lora_weights"] = "gaussian"
        $0.config["a_setting_of_tomorrow"] = false
      } == nil)
  }

  @Test func settingsThatAreNotSupported() throws {
    for (key, value, message) in [
      ("use_dora", true as Any, "use_dora is set, which is not supported; merge the adapter with PEFT"),
      ("fan_in_fan_out", true, "fan_in_fan_out is set"), ("bias", "lora_only", "bias is not \"none\""),
      ("modules_to_save", ["embed_tokens"], "modules_to_save is set"), ("lora_bias", true, "lora_bias is set"),
      ("layer_replication", [[0, 1], [0, 1]], "layer_replication is set"),
      ("trainable_token_indices", [1], "trainable_token_indices is set"), ("use_qalora", true, "use_qalora is set"),
      ("alora_invocation_tokens", [1], "alora_invocation_tokens is set"),
      ("a_variant_of_tomorrow", ["a": 1], "a_variant_of_tomorrow is set"),
      ("init_lora_weights", "pissa_niter_4", "init_lora_weights \"pissa_niter_4\" changes the model"),
      ("peft_type", "IA3", "peft_type \"IA3\" is not supported, only LORA is"), ("peft_type", NSNull(), "no peft_type"),
      ("r", 0, "r is not an integer from 1"), ("r", 100_000, "r is not an integer from 1 to 65,536"),
      ("r", "2", "r is not an integer"),
      ("lora_alpha", "x", "lora_alpha is not a"),
      ("lora_alpha", 1e300, "lora_alpha is too large"), ("use_rslora", 1, "use_rslora is not true or false"),
      ("rank_pattern", [1], "rank_pattern is not a JSON object"),
      ("rank_pattern", ["q_proj": -1], "q_proj is not an integer"),
      ("rank_pattern", ["q_proj": NSNull()], "q_proj is not an integer"),
      ("alpha_pattern", ["(q|k)_proj": 1], "\"(q|k)_proj\" is a regular expression"),
      ("alpha_pattern", [".*q_proj": 1], "is a regular expression"),
      ("alpha_pattern", ["q_proj": "1"], "q_proj is not a number"),
    ] { expectFailure(try failure { $0.config[key] = value }, message) }
    expectFailure(
      try failure(after: { try Data("[]".utf8).write(to: URL(fileURLWithPath: "\($0)/adapter_config.json")) }) { _ in },
      "adapter_config.json: it is not a JSON object")
  }

  @Test func tensorsThatDoNotFit() throws {
    let q = "base_model.model.model.layers.0.self_attn.q_proj"
    func tensor(_ shape: [Int]) -> (shape: [Int], numbers: [Float]) {
      (shape, [Float](repeating: 0.5, count: shape.reduce(1, *)))
    }
    for (message, spoil) in [
      ("\(q).lora_A.weight has no lora_B beside it", { $0.tensors["\(q).lora_B.weight"] = nil }),
      ("\(q).lora_B.weight has no lora_A beside it", { $0.tensors["\(q).lora_A.weight"] = nil }),
      (
        "\(q).lora_B.weight has shape [32, 3] and so rank 3, but adapter_config.json says 2",
        { $0.tensors["\(q).lora_B.weight"] = tensor([32, 3]) }
      ),
      (
        "down_proj.lora_A.weight has shape [2, 48] and so rank 2, but adapter_config.json says 4",
        { $0.config["r"] = 4 }
      ),
      (
        "adapter_config.json says 3",
        { $0.config["rank_pattern"] = ["layers.0.self_attn.q_proj": 3] }
      ),
      (
        "\(q).lora_A.weight has shape [2, 31], but model.layers.0.self_attn.q_proj.weight of shape [32, 32] takes [2, 32]",
        { $0.tensors["\(q).lora_A.weight"] = tensor([2, 31]) }
      ),
      (
        "\(q).lora_B.weight has shape [64, 2], but model.layers.0.self_attn.q_proj.weight of shape [32, 32] takes [32, 2]",
        { $0.tensors["\(q).lora_B.weight"] = tensor([64, 2]) }
      ),
      ("\(q).lora_A.weight has shape [64]; it must be a matrix", { $0.tensors["\(q).lora_A.weight"] = tensor([64]) }),
      (
        "layers.1.self_attn.q_proj.lora_A.weight has no matrix in the decoder (decoder.1.attention.q)",
        { $0.adapt("model.layers.1.self_attn.q_proj", rows: 32, columns: 32) }
      ),
      (
        "has no matrix in the decoder, the only part that an adapter is merged into",
        { $0.adapt("model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", rows: 32, columns: 32) }
      ),
      (
        "has no matrix in the decoder (decoder.0.attention.norm)",
        { $0.adapt("model.layers.0.input_layernorm", rows: 32, columns: 1) }
      ),
      (
        "has no matrix in the decoder (decoder.embedding)",
        { $0.adapt("model.embed_tokens", rows: 40, columns: 32) }
      ),
      (
        "are for the same matrix, decoder.0.attention.q",
        { $0.adapt("model.language_model.layers.0.self_attn.q_proj", rows: 32, columns: 32) }
      ),
      (
        "adapts the embedding, which is not supported",
        { $0.tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = tensor([2, 40]) }
      ),
      (
        "belongs to DoRA, which is not supported",
        { $0.tensors["\(q).lora_magnitude_vector"] = tensor([32]) }
      ),
      (
        "model.norm.weight is neither lora_A.weight nor lora_B.weight of a module",
        { $0.tensors["base_model.model.model.norm.weight"] = tensor([32]) }
      ),
      ("is neither lora_A.weight", { $0.tensors["\(q).lora_A.default.weight"] = tensor([2, 32]) }),
      ("is neither lora_A.weight", { $0.tensors["model.layers.0.self_attn.q_proj.lora_A.weight"] = tensor([2, 32]) }),
      ("there are no tensors of an adapter", { $0.tensors = [:] }),
      (
        "lm_head.base_layer.weight has shape [41, 32], but lm_head.weight of shape [40, 32] takes [40, 32]",
        {
          $0.adapt("lm_head", rows: 40, columns: 32)
          $0.tensors["base_model.model.lm_head.base_layer.weight"] = tensor([41, 32])
        }
      ),
    ] as [(String, (inout SyntheticAdapter) -> Void)] { expectFailure(try failure(spoil), message) }
    expectFailure(
      try failure(tied: true) { $0.adapt("lm_head", rows: 40, columns: 32) }, "whose head is its embedding")
  }

  @Test func numbersThatAreNotFinite() throws {
    let q = "base_model.model.model.layers.0.self_attn.q_proj"
    for number in [Float.nan, .infinity] {
      expectFailure(
        try failure { $0.tensors["\(q).lora_A.weight"]?.numbers[35] = number },
        "tensor \(q).lora_A.weight: row 1, column 3 is \(number), not a finite number")
      expectFailure(
        try failure { $0.tensors["\(q).lora_B.weight"]?.numbers[41] = number },
        "tensor \(q).lora_B.weight: row 20, column 1 is \(number), not a finite number")
    }
    expectFailure(
      try failure {
        $0.tensors["\(q).lora_A.weight"]?.numbers[0] = 1e38
        $0.tensors["\(q).lora_B.weight"]?.numbers[10] = 1e38
      }, "tensor \(q).lora_B.weight: row 5 gives numbers that are not finite")
  }

  @Test func filesThatAreBroken() throws {
    func weights(_ folder: String) -> URL { URL(fileURLWithPath: "\(folder)/adapter_model.safetensors") }
    for length in [0, 7, 8, 100, 1_000] {
      let error = try failure(after: { folder in
        try Data(contentsOf: weights(folder)).prefix(length).write(to: weights(folder))
      }) { _ in }
      #expect(error?.kind == .badData, "\(length)")
      #expect(error?.message.contains("/adapter_model.safetensors") == true)
    }
    // Shapes whose products overflow, a dimension below zero, a type without numbers.
    for (shape, type) in [
      ("[4294967296, 4294967296]", "F32"), ("[9223372036854775807, 2]", "F32"), ("[-2, 32]", "F32"),
      ("[0, 4611686018427387904]", "F32"), ("[2, 32]", "I32"),
    ] {
      let error = try failure(after: { folder in
        let bytes = shape.hasPrefix("[0") ? 0 : 256
        let header = Data(
          #"{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {"dtype": "\#(type)", "shape": \#(shape), "data_offsets": [0, \#(bytes)]}}"#
            .utf8)
        try (withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) } + header + Data(count: bytes))
          .write(to: weights(folder))
      }) { _ in }
      #expect(error?.kind == .badData, "\(shape)")
    }
    expectFailure(
      try failure(after: { try FileManager.default.removeItem(at: weights($0)) }) { _ in },
      "adapter_model.safetensors: No such file", .noInput)
    expectFailure(
      try failure(after: {
        try FileManager.default.moveItem(atPath: weights($0).path, toPath: "\($0)/adapter_model.bin")
      }) { _ in }, "adapter_model.bin: this is a pickle, which runs code when it is read; convert it with")
    expectFailure(
      try failure(after: { try FileManager.default.removeItem(atPath: "\($0)/adapter_config.json") }) { _ in },
      "an adapter is a folder as PEFT saves it", .noInput)
  }

  @Test func whereAnAdapterIsNotOne() throws {
    let adapter = AdapterFixture.folder("patterns")
    expectFailure(
      squintError { _ = try planConversion(source: adapter) }, "give the model that it is for as the source")
    var alone = ConversionSources(encoders: ["image": AdapterFixture.model("vision/parts/tower")])
    alone.adapter = adapter
    expectFailure(squintError { _ = try planConversion(alone) }, "merged into a decoder, and there is none", .usage)
    expectFailure(
      squintError { _ = try planConversion(sources(ConverterFixture.model("llama-gqa"), adapter: adapter)) },
      "the adapter is for another model")
  }

  @Test func whatIsTrainedBesideIsNoted() throws {
    try withFolder { folder in
      let source = ConverterFixture.model("llama-llama3")
      try FileManager.default.copyItem(atPath: AdapterFixture.folder("rslora"), toPath: "\(folder)/adapter")
      try Data().write(to: URL(fileURLWithPath: "\(folder)/adapter/non_lora_trainables.bin"))
      let report = try planConversion(sources(source, adapter: "\(folder)/adapter/"))
      #expect(
        report.notes == [
          "\(folder)/adapter/non_lora_trainables.bin is not read; give a projector that is in it with --projector"
        ])
    }
  }
}
