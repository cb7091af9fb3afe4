import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

/// Runs the encoder over texts that are too large for the repository; tools/fixtures/tokenizers_compare.py writes the
/// cases and compares the results with PyPI `tokenizers`.
///
/// The environment variable SQUINT_TOKENIZER_CASES names a file with a line for each case: a checkpoint folder or GGUF
/// file, a file of texts, and the file to write, separated by tabs. Texts: u32 count, then per text u32 length and
/// bytes. Results, per text: u32 count and ids, with special tokens; u32 length and bytes of their text; the same
/// without special tokens; u32 count and ids where special tokens are left as text.
@Suite struct TokenizerCasesTests {
  static let casesPath = ProcessInfo.processInfo.environment["SQUINT_TOKENIZER_CASES"]

  @Test(.enabled(if: casesPath != nil))
  func encodesCases() throws {
    let cases = try String(contentsOfFile: try #require(Self.casesPath), encoding: .utf8)
    for line in cases.split(separator: "\n") {
      let fields = line.split(separator: "\t").map(String.init)
      try #require(fields.count == 3)
      let definition =
        fields[0].hasSuffix(".gguf")
        ? try GGUFTokenizer.definition(metadata: GGUFSource(path: fields[0]).metadata, name: fields[0])
        : try HuggingFaceTokenizer.definition(folder: fields[0])
      var metadata = Metadata()
      definition.write(to: &metadata)
      let clock = ContinuousClock()
      var tokenizer: Tokenizer?
      let loading = try clock.measure { tokenizer = try Tokenizer(try TokenizerDefinition(metadata: metadata)) }
      try run(try #require(tokenizer), texts: fields[1], output: fields[2], name: fields[0], loading: loading)
    }
  }

  private func run(
    _ tokenizer: Tokenizer, texts path: String, output: String, name: String, loading: Duration
  ) throws {
    let clock = ContinuousClock()
    var writer = ByteWriter()
    var encoding = Duration.zero
    var byteCount = 0
    for text in try TokenizerFixtureTests.texts(path) {
      var ids: [Int32] = []
      encoding += clock.measure { ids = text.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: true) } }
      byteCount += text.count
      append(ids, to: &writer)
      for skip in [false, true] {
        let decoded = tokenizer.decode(ids, skipSpecialTokens: skip)
        var stream = DecodingStream(tokenizer, skipSpecialTokens: skip)
        var streamed = ids.reduce(into: "") { $0 += stream.append($1) }
        streamed += stream.finish()
        #expect(Array(streamed.utf8) == Array(decoded.utf8))
        writer.append(UInt32(decoded.utf8.count))
        writer.append(bytes: decoded.utf8)
      }
      let plain = text.withUnsafeBytes {
        tokenizer.encode($0, addSpecialTokens: false, parseAddedTokens: false)
      }
      append(plain, to: &writer)
    }
    try Data(writer.bytes).write(to: URL(fileURLWithPath: output))
    let speed = Double(byteCount) / 1e6 / (encoding / .seconds(1))
    print("\(name): loads in \(loading), \(byteCount) bytes at \(String(format: "%.1f", speed)) MB/s")
  }

  private func append(_ ids: [Int32], to writer: inout ByteWriter) {
    writer.append(UInt32(ids.count))
    for id in ids { writer.append(id) }
  }
}
