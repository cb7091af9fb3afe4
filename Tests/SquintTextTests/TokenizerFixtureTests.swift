import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

/// Each family against PyPI `tokenizers` (tools/fixtures/tokenizers_families.py).
@Suite struct TokenizerFixtureTests {
  static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../Fixtures/tokenizers").standardizedFileURL

  /// Little-endian numbers out of a fixture.
  struct Reader {
    let data: [UInt8]
    var offset = 0

    init(_ path: String) throws { data = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

    mutating func next<T: FixedWidthInteger>(_: T.Type = T.self) -> T {
      defer { offset += MemoryLayout<T>.size }
      return data.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    mutating func bytes() -> [UInt8] {
      let count = Int(next(UInt32.self))
      defer { offset += count }
      return Array(data[offset..<offset + count])
    }

    mutating func ids() -> [Int32] { (0..<Int(next(UInt32.self))).map { _ in next() } }
  }

  static func texts(_ path: String) throws -> [[UInt8]] {
    var reader = try Reader(path)
    return (0..<Int(reader.next(UInt32.self))).map { _ in reader.bytes() }
  }

  /// FNV-1a, 64 bits.
  static func hash(_ text: String) -> UInt64 {
    text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  /// The tokenizer as a model file would give it back.
  static func tokenizer(folder: String) throws -> Tokenizer {
    let definition = try HuggingFaceTokenizer.definition(folder: folder)
    var metadata = Metadata()
    definition.write(to: &metadata)
    let read = try TokenizerDefinition(metadata: metadata)
    #expect(read == definition)
    return try Tokenizer(read)
  }

  @Test(arguments: [
    "gpt2", "gpt2_prefix_space", "smollm", "llama3", "qwen2", "llama2", "llama2_metaspace", "sentencepiece"
  ])
  func agreesWithReference(family: String) throws {
    let folder = Self.fixtures.appendingPathComponent(family).path
    let tokenizer = try Self.tokenizer(folder: folder)
    let texts = try Self.texts(Self.fixtures.appendingPathComponent("texts.bin").path)
    var expected = try Reader(folder + "/expected.bin")
    #expect(texts.count >= 400)
    for (index, text) in texts.enumerated() {
      let ids = expected.ids()
      let (decoded, decodedPlain) = (expected.next(UInt64.self), expected.next(UInt64.self))
      let plain = expected.ids()
      let found = text.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: true) }
      #expect(found == ids, "text \(index): \(String(decoding: text.prefix(80), as: UTF8.self).debugDescription)")
      let foundPlain = text.withUnsafeBytes {
        tokenizer.encode($0, addSpecialTokens: false, parseAddedTokens: false)
      }
      #expect(foundPlain == plain, "text \(index), special tokens as text")
      #expect(Self.hash(tokenizer.decode(ids, skipSpecialTokens: false)) == decoded, "text \(index), decoded")
      #expect(
        Self.hash(tokenizer.decode(ids, skipSpecialTokens: true)) == decodedPlain, "text \(index), decoded without")
      var stream = DecodingStream(tokenizer, skipSpecialTokens: true)
      var pieces = ids.map { stream.append($0) }
      pieces.append(stream.finish())
      #expect(Self.hash(pieces.joined()) == decodedPlain, "text \(index), streamed")
    }
    #expect(expected.offset == expected.data.count)
  }
}
