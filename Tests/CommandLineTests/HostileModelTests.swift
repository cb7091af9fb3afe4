import Foundation
import Squint
import SquintFile
import Testing

/// Model files that lie behind sound checksums: whatever they say, opening and using them ends in an answer or in a
/// `SquintError`, soon, and without taking much memory. (A trap would end the whole test.)
@Suite struct HostileModelTests {
  private let folder: TemporaryFolder
  private let source: ModelFile
  private let path: String

  init() throws {
    folder = try TemporaryFolder()
    source = try ModelFile(path: folder.model("llama-llama3"))
    // Thousands of files are written and synced: in memory where there is such a disk.
    let shared = "/dev/shm/squint-hostile-\(UUID().uuidString)"
    path = access("/dev/shm", W_OK) == 0 ? shared : "\(folder.path)/hostile.squint"
  }

  private enum Result: Hashable { case rejected, refused, answered }

  /// Writes, opens and uses `plan`; nil where no such file can be written.
  private func attempt(
    _ plan: ModelFilePlan, contents: [String: [UInt8]] = [:], _ random: inout Random, _ name: String
  ) -> Result? {
    let begin = ContinuousClock.now
    defer {
      // Milliseconds each; a second for a template that counts to its limit, several on a busy machine with sanitizers.
      let duration = ContinuousClock.now - begin
      #expect(duration < .seconds(30), "\(name): \(duration)")
      unlink(path)
    }
    do { try write(plan, from: source, contents: contents, to: path) } catch { return nil }
    let model: Model
    do { model = try Model(path: path) } catch {
      #expect(error.kind == .badData && error.message.hasPrefix(path), "\(name): \(error)")
      return .rejected
    }
    do {
      let beams = random.pick([1, 1, 3])
      let session = try Session(
        model,
        SessionOptions(
          context: random.pick([nil, 40]), kvType: random.pick(KVType.allCases), threads: 1, beams: beams,
          // Beside what the process holds already, which with a sanitizer is much.
          memory: Machine().processBytes + (1 << 29),
          chunk: random.pick([128, 5])))
      do { try session.append(model.prompt([ChatMessage(role: "user", "Hello <|im_end|> \u{1F642}")])) } catch {
        #expect(error.kind == .badData || error.kind == .usage, "\(name): \(error)")
        // Without a prompt of its own a model is given tokens.
        try session.append((0..<7).map { Int32($0 % model.vocabularySize) })
      }
      var options = SamplingOptions(seed: 1)
      if beams == 1 {
        options.temperature = random.pick([0, 1, 1e-38, 1e30])
        options.topK = random.pick([0, 1, 40])
        options.topP = random.pick([1, 0.9, 1e-9, 0])
        options.minP = random.pick([0, 0.05, 1])
        options.repetitionPenalty = random.pick([1, 1.1, 1e30])
      }
      var generator = Generator(session, GenerationOptions(sampling: options, maxTokens: 5, stop: ["\n"]))
      while let token = try generator.next() {
        if let id = token.id { #expect(id >= 0 && Int(id) < model.vocabularySize) }
      }
      #expect(generator.finishReason != nil)
      return .answered
    } catch {
      return .refused
    }
  }

  // MARK: Metadata

  private static let numbers: [Int64] = [
    0, 1, 2, 3, 5, 16, 31, 33, 63, 512, 513, 1 << 16, 1 << 24, (1 << 24) + 1, 1 << 30, 1 << 31, 1 << 32, 1 << 46, -1,
    -2, .max, .min,
  ]
  private static let fractions: [Double] = [
    0, -0.0, 1, -1, 0.5, 1e-300, 1e-45, 1e38, 1e39, 1e300, .infinity, -.infinity, .nan, .greatestFiniteMagnitude,
  ]
  private static let texts = [
    "", "x", "{{", "{% for %}", "llama", "bpe", "byte_level", "sentencepiece", "gpt2", "\u{0}", "\n", "\u{1B}[2J",
    "%s%n",
    String(repeating: "a", count: 100_000), String(repeating: "é", count: 3),
  ]
  private static let templates = [
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for i in range(100000000) %}{{ i }}{% endfor %}",
    "{% for i in range(10000) %}{% for j in range(10000) %}{% for k in range(10000) %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ 'a' * 1000000000 }}", "{{ [0] * 1000000000 }}", "{{ 'a' * -1 }}", "{{ 9223372036854775807 + 1 }}",
    "{{ -9223372036854775807 - 2 }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 2 ** 100000 }}", "{{ 2 ** -1 }}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    String(repeating: "{% if true %}", count: 20_000), String(repeating: "(", count: 50_000),
    "{{ " + String(repeating: "[", count: 50_000), "{{ " + String(repeating: "-", count: 50_000) + "1 }}",
    "{{ " + String(repeating: "not ", count: 50_000) + "1 }}", "{{ 1" + String(repeating: "+1", count: 50_000) + " }}",
    "{{ messages" + String(repeating: "[0]", count: 50_000) + " }}",
    "{{ 'x'" + String(repeating: "|upper", count: 50_000) + " }}",
    "{{ messages[9223372036854775807] }}", "{{ messages[-9223372036854775808] }}", "{{ 'abc'[::0] }}",
    "{{ 'abc'[9223372036854775807:-9223372036854775807:-9223372036854775807] }}", "{{ '%' % 1 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ 'x'.center(1000000000) }}", "{{ 'x'|indent(1000000000) }}", "{{ 'ab'.replace('', 'c' * 10000) }}",
    "{{ range(0, 9223372036854775807, 9223372036854775807)|list }}", "{{ raise_exception('no\\nno') }}",
    "{{ messages|tojson(indent=1000000000) }}", "{% set a = [] %}{% set _ = a.append(a) %}{{ a }}",
    "{{ bos_token * 3 }}",
    "{{ messages[0].content * 100000 }}", "{{ 1e400|int }}", "{{ (0/0)|int }}", "{{ 'nan'|float|int }}",
    "{{ 'inf'|float|round|int }}",
    "{{ 5|round(-400) }}", "{{ 5.5|round(400) }}", "{{ strftime_now('%' * 1000) }}",
  ]

  private func value(like old: MetadataValue, _ random: inout Random) -> MetadataValue? {
    switch random.next(8) {
    case 0: return nil
    case 1: return anyValue(&random)
    default: break
    }
    switch old {
    case .bool(let value): return .bool(!value)
    case .int(let value):
      return .int(random.next(2) == 0 ? value &+ Int64(random.next(5)) - 2 : random.pick(Self.numbers))
    case .float: return .float(random.pick(Self.fractions))
    case .string: return .string(random.pick(Self.texts))
    case .bytes(var bytes):
      switch random.next(4) {
      case 0: bytes.removeLast(min(bytes.count, 1 + random.next(9)))
      case 1: bytes += [UInt8](repeating: UInt8(random.next(256)), count: 1 + random.next(9))
      case 2: for index in bytes.indices { bytes[index] = UInt8(random.next(256)) }
      default:
        for _ in 0...random.next(4) where !bytes.isEmpty { bytes[random.next(bytes.count)] = UInt8(random.next(256)) }
      }
      return .bytes(bytes)
    case .ints(var values):
      switch random.next(4) {
      case 0: values.removeLast(min(values.count, 1 + random.next(3)))
      case 1: values += (0...random.next(3)).map { _ in random.pick(Self.numbers) }
      case 2: values = (0..<1000).map { Int64($0) }
      default: if !values.isEmpty { values[random.next(values.count)] = random.pick(Self.numbers) }
      }
      return .ints(values)
    case .floats(var values):
      switch random.next(3) {
      case 0: values.removeLast(min(values.count, 1 + random.next(9)))
      case 1: values += (0...random.next(9)).map { _ in random.pick(Self.fractions) }
      default: if !values.isEmpty { values[random.next(values.count)] = random.pick(Self.fractions) }
      }
      return .floats(values)
    case .strings(var values):
      switch random.next(3) {
      case 0: values.removeLast(min(values.count, 1 + random.next(3)))
      case 1: values += (0...random.next(3)).map { _ in random.pick(Self.texts) }
      default: if !values.isEmpty { values[random.next(values.count)] = random.pick(Self.texts) }
      }
      return .strings(values)
    }
  }

  private func anyValue(_ random: inout Random) -> MetadataValue {
    switch random.next(8) {
    case 0: .bool(true)
    case 1: .int(random.pick(Self.numbers))
    case 2: .float(random.pick(Self.fractions))
    case 3: .string(random.pick(Self.texts))
    case 4: .bytes([UInt8](repeating: 255, count: random.next(9)))
    case 5: .ints(Self.numbers)
    case 6: .floats(Self.fractions)
    default: .strings(Self.texts)
    }
  }

  @Test func metadata() throws {
    var random = Random(state: 1)
    let original = try ModelFilePlan(source)
    var counts: [Result: Int] = [:]
    let optional = [
      "decoder.window", "decoder.window_layers", "decoder.rope_magnitude", "generation.temperature", "generation.top_k",
      "generation.top_p", "generation.min_p", "generation.repetition_penalty", "generation.stop_tokens", "general.name",
    ]
    let bulkOptional = [
      "tokenizer.normalizers", "tokenizer.prefix", "tokenizer.suffix", "tokenizer.unknown_id",
      "tokenizer.byte_fallback",
      "tokenizer.fuse_unknown", "tokenizer.ignore_merges", "tokenizer.metaspace.prepend", "tokenizer.metaspace.split",
      "tokenizer.decoder.strip", "tokenizer.decoder.byte_fallback", "tokenizer.add_prefix_space",
    ]
    let keys =
      original.metadata.entries.map(\.key).filter { !$0.hasPrefix("general.") && !$0.hasPrefix("source") } + optional
    let bulkKeys = original.bulkMetadata.entries.map(\.key) + bulkOptional
    for number in 0..<1800 {
      var plan = original
      var changed: [String] = []
      for _ in 0...random.next(2) {
        if random.next(2) == 0 {
          let key = random.pick(keys)
          plan.metadata[key] = plan.metadata[key].map { value(like: $0, &random) } ?? anyValue(&random)
          changed.append(key)
        } else {
          let key = random.pick(bulkKeys)
          plan.bulkMetadata[key] = plan.bulkMetadata[key].map { value(like: $0, &random) } ?? anyValue(&random)
          changed.append(key)
        }
      }
      if let result = attempt(plan, &random, "case \(number): \(changed)") { counts[result, default: 0] += 1 }
    }
    // Neither does everything pass, nor is everything refused at the door.
    #expect(counts[.rejected, default: 0] > 300, "\(counts)")
    #expect(counts[.answered, default: 0] > 300, "\(counts)")
  }

  @Test func templates() throws {
    var random = Random(state: 2)
    for template in Self.templates {
      var plan = try ModelFilePlan(source)
      plan.metadata["chat.template"] = .string(template)
      #expect(attempt(plan, &random, String(template.prefix(80))) != nil)
    }
  }

  // MARK: Tensors

  @Test func tensors() throws {
    var random = Random(state: 3)
    let original = try ModelFilePlan(source)
    var counts: [Result: Int] = [:]
    for number in 0..<600 {
      var plan = original
      var contents: [String: [UInt8]] = [:]
      let index = random.next(plan.modules[0].tensors.count)
      let old = plan.modules[0].tensors[index]
      var new = old
      switch random.next(7) {
      case 0: plan.modules[0].tensors.remove(at: index)
      case 1: new = .init(name: old.name, type: old.type, shape: old.shape.reversed())
      case 2: new = .init(name: old.name, type: old.type, shape: old.shape.map { max(1, $0 + random.next(3) - 1) })
      case 3: new = .init(name: old.name, type: random.pick(ElementType.allCases), shape: old.shape)
      case 4: new = .init(name: old.name, type: .f32, shape: old.shape + [1])
      case 5: new = .init(name: old.name + ".bias", type: .f32, shape: [old.shape[0]])
      default:
        let bits: UInt32 = random.pick([0x7FC0_0000, 0x7F80_0000, 0xFF80_0000, 0x7F7F_FFFF, 0x0000_0001, 0])
        let word = withUnsafeBytes(of: bits.littleEndian) { [UInt8]($0) }
        contents[old.name] = (0..<4 * old.shape.reduce(1, *)).map { word[$0 % 4] }
      }
      if plan.modules[0].tensors.count == original.modules[0].tensors.count { plan.modules[0].tensors[index] = new }
      if let result = attempt(plan, contents: contents, &random, "case \(number): \(old.name) \(new)") {
        counts[result, default: 0] += 1
      }
    }
    #expect(counts[.rejected, default: 0] > 100 && counts[.answered, default: 0] > 100, "\(counts)")
  }

  /// Files that contradict themselves nowhere, of shapes that no checkpoint has, with any bytes for weights.
  @Test func shapes() throws {
    var random = Random(state: 4)
    var counts: [Result: Int] = [:]
    for number in 0..<500 {
      let kvHeads = random.pick([1, 1, 2, 3])
      let heads = kvHeads * random.pick([1, 2, 3, 5])
      let headWidth = random.pick([2, 3, 5, 7, 15, 16, 31, 33, 64, 65, 127, 511, 512])
      let (width, ffn) = (random.pick([1, 2, 15, 31, 32, 33, 70]), random.pick([1, 3, 16, 17, 33, 65]))
      let vocabulary = random.pick([1, 2, 3, 15, 17, 300, 310])
      let layers = 1 + random.next(2)
      var plan = ModelFilePlan()
      if random.next(2) == 0 { plan.bulkMetadata = try source.bulkMetadata() }
      for (key, value) in [
        ("vocabulary", vocabulary), ("context", random.pick([1, 2, 8, 64, 1 << 30])), ("layers", layers),
        ("width", width),
        ("ffn_width", ffn), ("heads", heads), ("kv_heads", kvHeads), ("head_width", headWidth),
        ("window", random.pick([0, 1, 2, 64, Int(Int32.max)])),
      ] { plan.metadata["decoder.\(key)"] = .int(Int64(value)) }
      plan.metadata["decoder.architecture"] = .string("llama")
      plan.metadata["decoder.norm_epsilon"] = .float(random.pick([0, 1e-5, 1e30]))
      plan.metadata["decoder.rope_magnitude"] = .float(random.pick([1, 0, -1, 1e38]))
      plan.metadata["decoder.rope_frequencies"] = .floats(
        (0..<1 + random.next(headWidth / 2)).map { _ in random.pick([1, 0, -1, 1e-30, 1e38]) })
      let type = random.pick(ElementType.allCases)
      func matrix(
        _ name: String, _ rows: Int, _ columns: Int, mayHaveBias: Bool = true
      ) -> [ModelFilePlan.Tensor] {
        [
          .init(
            name: name, type: random.next(4) == 0 ? random.pick(ElementType.allCases) : type, shape: [rows, columns])
        ]
          + (mayHaveBias && random.next(3) == 0 ? [.init(name: name + ".bias", type: .f32, shape: [rows])] : [])
      }
      func vector(_ name: String, _ count: Int) -> ModelFilePlan.Tensor {
        .init(name: name, type: .f32, shape: [count])
      }
      var tensors = matrix("decoder.embedding", vocabulary, width, mayHaveBias: false)
      for layer in 0..<layers {
        let name = "decoder.\(layer)"
        tensors += [vector("\(name).attention.norm", width), vector("\(name).ffn.norm", width)]
        tensors += matrix("\(name).attention.q", heads * headWidth, width)
        tensors += matrix("\(name).attention.k", kvHeads * headWidth, width)
        tensors += matrix("\(name).attention.v", kvHeads * headWidth, width)
        if random.next(2) == 0 {
          tensors += [vector("\(name).attention.q_norm", headWidth), vector("\(name).attention.k_norm", headWidth)]
        }
        tensors += matrix("\(name).attention.o", width, heads * headWidth)
        tensors += matrix("\(name).ffn.gate", ffn, width) + matrix("\(name).ffn.up", ffn, width)
        tensors += matrix("\(name).ffn.down", width, ffn)
      }
      tensors.append(vector("decoder.norm", width))
      if random.next(2) == 0 { tensors += matrix("decoder.head", vocabulary, width, mayHaveBias: false) }
      plan.modules = [.init(name: "decoder", tensors: tensors)]
      var contents: [String: [UInt8]] = [:]
      let isTame = random.next(2) == 0
      for tensor in tensors {
        let count = tensor.type.byteCount(shape: tensor.shape)!
        contents[tensor.name] = (0..<count).map { index in
          // Tame: no exponent so large that everything becomes infinite.
          let byte = UInt8(random.next(256))
          return isTame && index % 2 == 1 ? byte & 0xBC : byte
        }
      }
      let result = attempt(plan, contents: contents, &random, "case \(number)")
      if let result { counts[result, default: 0] += 1 }
      #expect(result != .rejected, "case \(number)")
    }
    #expect(counts[.answered, default: 0] > 250, "\(counts)")
  }
}

/// SplitMix64: the same cases every time.
private struct Random {
  var state: UInt64

  mutating func next(_ bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Int((z ^ (z >> 31)) % UInt64(bound))
  }

  mutating func pick<T>(_ values: [T]) -> T { values[next(values.count)] }
}
