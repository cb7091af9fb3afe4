import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// Our logits beside transformers' on the tiny checkpoints of tools/fixtures/models_tiny.py.
@Suite struct ParityTests {
  static let checkpoints = try! FileManager.default.contentsOfDirectory(
    atPath: fixtures.appendingPathComponent("models").path
  ).filter {
    FileManager.default.fileExists(atPath: fixtures.appendingPathComponent("models/\($0)/logits.npy").path)
      && FileManager.default.fileExists(atPath: fixtures.appendingPathComponent("models/\($0)/config.json").path)
  }.sorted()

  @Test func allFamiliesAreThere() {
    for family in ["llama", "mistral", "qwen2", "qwen3", "qwen3moe", "gemma3", "lfm2"] {
      #expect(Self.checkpoints.contains { $0.hasPrefix(family) })
    }
  }

  /// The same numbers in the same types, summed in another order: what is left is the rounding of f32, about 1e-5 here; a
  /// wrong formula moves logits by 1e-1 and more (`moved_without_feature` in expected.json).
  @Test(arguments: checkpoints) func f32(_ name: String) throws {
    let expected = try numpyRows(fixtures.appendingPathComponent("models/\(name)/logits.npy").path)
    let model = try model(name, .f32)
    // A chunk that does not divide the prompt, so that positions continue across chunks.
    for chunk in [128, 7] {
      let ours = try logits(model, promptIDs(name), SessionOptions(kvType: .f32, threads: 2, chunk: chunk))
      #expect(ours.count == expected.count)
      for (a, b) in zip(ours, expected) {
        let difference = zip(a, b).map { abs($0 - $1) }.max()!
        #expect(difference < 1e-4)
      }
    }
  }

  /// The same weights in GGUF, as llama.cpp's converter stores them (tools/fixtures/models_gguf.py).
  @Test(arguments: ["gguf-gemma3-f16", "gguf-gemma3-q8_0", "gguf-lfm2-f32", "gguf-lfm2-q8_0", "gguf-qwen3moe-q8_0"])
  func ggufOfNewerGraphs(_ name: String) throws {
    let folder = try TemporaryFolder()
    let source = fixtures.appendingPathComponent("models/\(name)").path
    var options = ConversionOptions()
    options.type = .f32
    try convert(source: source + "/model.gguf", to: folder.path + "/model.squint", options: options)
    let expected = try numpyRows(source + "/logits.npy")
    let ours = try logits(
      Model(path: folder.path + "/model.squint"), promptIDs(name), SessionOptions(kvType: .f32, threads: 2))
    #expect(ours.count == expected.count)
    for (a, b) in zip(ours, expected) { #expect(largestDifference(a, b) < 1e-4) }
  }

  /// Adapters that PEFT saved, merged while converting, beside PEFT's merged models (tools/fixtures/adapters.py). The GGUF files
  /// hold the same weights.
  @Test(arguments: [
    ("patterns", "models/llama-biases"), ("patterns", "conversion/llama-biases.gguf"),
    ("rslora", "models/llama-llama3"), ("rslora", "conversion/llama-llama3.gguf"),
  ])
  func adapters(_ adapter: String, _ source: String) throws {
    let folder = try TemporaryFolder()
    var sources = ConversionSources(fixtures.appendingPathComponent(source).path)
    sources.adapter = fixtures.appendingPathComponent("adapters/\(adapter)").path
    var options = ConversionOptions()
    options.type = .f32
    try convert(sources, to: folder.path + "/model.squint", options: options)
    let expected = try numpyRows(sources.adapter! + "/logits.npy")
    let ids = try promptIDs(adapter == "rslora" ? "llama-llama3" : "llama-biases").prefix(expected.count)
    let ours = try logits(
      Model(path: folder.path + "/model.squint"), Array(ids), SessionOptions(kvType: .f32, threads: 2))
    #expect(ours.count == expected.count)
    for (a, b) in zip(ours, expected) { #expect(zip(a, b).map { abs($0 - $1) }.max()! < 1e-4) }
  }

  /// Checkpoints in few bits (tools/fixtures/quantized_checkpoints.py) beside transformers on the same weights in f32.
  @Test(arguments: [
    "awq", "awq-gemv-32", "awq-gemv-64", "compressed-tensors", "fp8-blocks", "fp8-plain", "fp8-rows", "gptq",
    "gptq-symmetric", "gptq-v2", "mlx", "mlx-bf16",
  ])
  func quantized(_ name: String) throws {
    let folder = try TemporaryFolder()
    let source = fixtures.appendingPathComponent("quantized-checkpoints/\(name)").path
    var options = ConversionOptions()
    options.type = .f32
    try convert(source: source, to: folder.path + "/model.squint", options: options)
    let expected = try numpyRows(source + "/logits.npy")
    let ids = try JSONDecoder().decode([Int32].self, from: Data(contentsOf: URL(fileURLWithPath: source + "/ids.json")))
    let ours = try logits(Model(path: folder.path + "/model.squint"), ids, SessionOptions(kvType: .f32, threads: 2))
    #expect(ours.count == expected.count)
    for (a, b) in zip(ours, expected) { #expect(largestDifference(a, b) < 1e-4) }
  }

  /// int8 weights and activations lose no more than the same rounding inside transformers loses (tools/fixtures/models_int8.py),
  /// and on the average of the checkpoints less than a thousandth.
  ///
  /// These checkpoints have weights of deviation 1, which makes their attention nearly a choice of one position and so
  /// amplifies rounding; how much differs from one to the next.
  @Test func int8() throws {
    let simulated = try JSONDecoder().decode(
      [String: Double].self, from: Data(contentsOf: fixtures.appendingPathComponent("models/int8.json")))
    var sum = 0.0
    for name in Self.checkpoints {
      let expected = try numpyRows(fixtures.appendingPathComponent("models/\(name)/logits.npy").path)
      let ours = try logits(model(name, .int8), promptIDs(name), SessionOptions(threads: 2))
      let mean = zip(ours, expected).map(cosine).reduce(0, +) / Double(expected.count)
      // Another rounding of the same size: which positions it hits is chance, so the losses are equal within a third.
      #expect(1 - mean < 1.33 * (1 - simulated[name]!), "\(name): cosine \(mean), simulated \(simulated[name]!)")
      sum += mean
    }
    #expect(sum / Double(Self.checkpoints.count) > 0.999)
  }

  /// The same question to the same numbers through each cache: f16 rounds by 2⁻¹¹, int8 by 1/254 of a group's greatest.
  @Test func cacheTypes() throws {
    let model = try model("llama-gqa", .f32)
    let ids = try promptIDs("llama-gqa")
    let exact = try logits(model, ids, SessionOptions(kvType: .f32, threads: 1))
    for (type, least) in [(KVType.f16, 0.99999), (.int8, 0.999)] {
      let rounded = try logits(model, ids, SessionOptions(kvType: type, threads: 1))
      #expect(zip(exact, rounded).map(cosine).min()! > least)
      #expect(exact != rounded)
    }
  }

  /// Some models (Qwen2.5) have key biases of a hundred and more. In pairs that turn slowly they are the same in all keys, and a byte
  /// for each number is for what is not; where others have them, a layer's keys get more than a byte.
  ///
  /// Heads are 8 wide: the pair (3, 7) turns by 1/30,000 of a radian at a step, (0, 4) by 1.
  @Test(arguments: [[3: -180, 7: 120], [0: 90, 4: -60, 3: -180]])
  func cacheHoldsKeysWithLargeBiases(_ biases: [Int: Float]) throws {
    let folder = try TemporaryFolder()
    let source = folder.path + "/checkpoint"
    try FileManager.default.copyItem(
      atPath: fixtures.appendingPathComponent("models/qwen2-tied").path, toPath: source)
    try overwriteBF16("k_proj.bias", in: source + "/model.safetensors", with: biases)
    var options = ConversionOptions()
    options.type = .f32
    try convert(source: source, to: folder.path + "/model.squint", options: options)
    let biased = try Model(path: folder.path + "/model.squint")
    let ids = try promptIDs("qwen2-tied")
    let prompt = (0..<200).map { ids[$0 % ids.count] }
    let exact = try logits(biased, prompt, SessionOptions(kvType: .f32, threads: 1))
    let rounded = try logits(biased, prompt, SessionOptions(threads: 1))
    #expect(zip(exact, rounded).map(cosine).reduce(0, +) / Double(prompt.count) > 0.999)
  }

  /// Sets numbers, by their places, of the BF16 tensors whose names end in `suffix`.
  private func overwriteBF16(_ suffix: String, in path: String, with numbers: [Int: Float]) throws {
    var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    let headerBytes = (0..<8).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) }
    let header = try JSONSerialization.jsonObject(with: Data(bytes[8..<8 + headerBytes])) as! [String: [String: Any]]
    for (name, entry) in header where name.hasSuffix(suffix) {
      let start = 8 + headerBytes + (entry["data_offsets"] as! [Int])[0]
      for (place, number) in numbers {
        bytes[start + 2 * place] = UInt8(truncatingIfNeeded: number.bitPattern >> 16)
        bytes[start + 2 * place + 1] = UInt8(truncatingIfNeeded: number.bitPattern >> 24)
      }
    }
    try Data(bytes).write(to: URL(fileURLWithPath: path))
  }

  /// Threads divide the work and do not change the result.
  @Test(arguments: [ElementType.f32, .int8, .int4]) func threads(_ type: ElementType) throws {
    let model = try model("qwen2-tied", type)
    let ids = try promptIDs("qwen2-tied")
    let one = try logits(model, ids, SessionOptions(threads: 1))
    for threads in [2, 3, 5] {
      #expect(try logits(model, ids, SessionOptions(threads: threads)) == one)
    }
  }
}
