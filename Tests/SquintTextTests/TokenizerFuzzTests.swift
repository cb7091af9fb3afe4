import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

/// Damaged definitions and arbitrary texts: an error or a result, never a crash and never a long wait.
@Suite struct TokenizerFuzzTests {
  /// SplitMix64, so that every run sees the same damage.
  struct Random: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      return z ^ (z >> 31)
    }
  }

  static let families = ["gpt2_prefix_space", "smollm", "llama3", "qwen2", "llama2", "llama2_metaspace"]

  static func folder(_ family: String) -> String {
    TokenizerFixtureTests.fixtures.appendingPathComponent(family).path
  }

  static func text(_ random: inout Random) -> [UInt8] {
    let pieces: [[UInt8]] = [
      Array("hello ".utf8), [0xFF], [0xE2, 0x96], Array("▁".utf8), Array("<s>".utf8), Array("e\u{301}\u{323}".utf8),
      Array("\u{1100}\u{1161}\u{11A8}".utf8), Array("  \n\t\r\n".utf8), Array("'ſ'LL".utf8), Array("1²٣".utf8),
      [0xF0, 0x9F, 0x98, 0x80], [0],
    ]
    var out: [UInt8] = []
    for _ in 0..<Int.random(in: 0..<40, using: &random) {
      if Bool.random(using: &random) {
        out += pieces.randomElement(using: &random)!
      } else {
        out += (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
      }
    }
    return out
  }

  /// Encodes and decodes with a tokenizer that may be nonsense but has been accepted.
  static func exercise(_ tokenizer: Tokenizer, _ random: inout Random) {
    for _ in 0..<4 {
      let text = text(&random)
      let ids = text.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: true) }
      #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.vocabularySize })
      var strange = ids
      for _ in 0..<20 { strange.append(Int32(truncatingIfNeeded: Int64.random(in: -10...2000, using: &random))) }
      strange += [.max, .min, -1]
      let decoded = tokenizer.decode(strange, skipSpecialTokens: false)
      var stream = DecodingStream(tokenizer, skipSpecialTokens: false)
      var streamed = strange.reduce(into: "") { $0 += stream.append($1) }
      streamed += stream.finish()
      #expect(streamed.utf8.count >= decoded.utf8.count)
    }
  }

  @Test(arguments: families) func damagedMetadata(family: String) throws {
    var random = Random(state: 1)
    let definition = try HuggingFaceTokenizer.definition(folder: Self.folder(family))
    var whole = Metadata()
    definition.write(to: &whole)
    var accepted = 0
    for _ in 0..<1500 {
      var metadata = whole
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let entry = metadata.entries.randomElement(using: &random)!
        metadata[entry.key] = Self.damaged(entry.value, &random)
      }
      guard let read = try? TokenizerDefinition(metadata: metadata), let tokenizer = try? Tokenizer(read) else {
        continue
      }
      accepted += 1
      Self.exercise(tokenizer, &random)
    }
    #expect(accepted > 20)
  }

  static func damaged(_ value: MetadataValue, _ random: inout Random) -> MetadataValue? {
    switch value {
    case .bool(let value): return Bool.random(using: &random) ? .bool(!value) : nil
    case .int: return .int(Int64([-1, 0, 5, 1000, 1 << 40, .max].randomElement(using: &random)!))
    case .string(let value):
      let names = [
        "none", "gpt2", "llama3", "metaspace", "byte_level", "sentencepiece", "byte_level_bpe", "first", value,
      ]
      return .string(names.randomElement(using: &random)!)
    case .bytes(var bytes):
      switch Int.random(in: 0..<4, using: &random) {
      case 0: bytes.removeLast(min(bytes.count, Int.random(in: 0...9, using: &random)))
      case 1: bytes += [1, 2, 3, 4]
      default:
        guard !bytes.isEmpty else { break }
        for _ in 0..<3 {
          bytes[Int.random(in: 0..<bytes.count, using: &random)] = [0, 1, 2, 32, 97, 255].randomElement(using: &random)!
        }
      }
      return .bytes(bytes)
    case .ints(var values):
      values[Int.random(in: 0..<values.count, using: &random)] = [-1, 0, 7, 1 << 33].randomElement(using: &random)!
      return .ints(values)
    case .strings(var values):
      let texts = ["", " ", "a", "<s>", "nfc", "replace", "▁", "e\u{301}", String(repeating: "x", count: 2000)]
      values[Int.random(in: 0..<values.count, using: &random)] = texts.randomElement(using: &random)!
      return .strings(values)
    default: return nil
    }
  }

  @Test(arguments: ["gpt2_prefix_space/tokenizer.json", "llama2/tokenizer.json", "sentencepiece/tokenizer.model"])
  func damagedFiles(file: String) throws {
    var random = Random(state: 2)
    let source = TokenizerFixtureTests.fixtures.appendingPathComponent(file)
    let original = [UInt8](try Data(contentsOf: source))
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let target = folder.appendingPathComponent(source.lastPathComponent)
    for _ in 0..<300 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        // The start holds the structure, which is where damage does most.
        let limit = Bool.random(using: &random) ? min(3000, bytes.count) : bytes.count
        let place = Int.random(in: 0..<limit, using: &random)
        bytes[place] = Bool.random(using: &random) ? UInt8.random(in: 0...255, using: &random) : bytes[place] ^ 1
      }
      if Int.random(in: 0..<10, using: &random) == 0 {
        bytes.removeLast(Int.random(in: 1..<bytes.count, using: &random))
      }
      try Data(bytes).write(to: target)
      if let definition = try? HuggingFaceTokenizer.definition(folder: folder.path) {
        Self.exercise(try Tokenizer(definition), &random)
      }
    }
  }

  /// Texts that make a careless tokenizer quadratic. Well under a second each; minutes if it were.
  @Test(.timeLimit(.minutes(1)), arguments: families)
  func hostileTexts(family: String) throws {
    let tokenizer = try TokenizerFixtureTests.tokenizer(folder: Self.folder(family))
    let unit = 1 << 18
    for pattern in ["a", " ", "\n", "\u{301}", "▁", "<", "return", " \u{3000}", "你", "ab\u{323}", "self ", "1"] {
      let text = Array(repeating: Array(pattern.utf8), count: unit / pattern.utf8.count).flatMap { $0 }
      let ids = text.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: false) }
      #expect(!ids.isEmpty)
    }
  }
}
