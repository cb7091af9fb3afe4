import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

/// Intern-S1's tokenizer against its rules written anew over real SentencePiece models (tools/fixtures/tokenizers_interns1.py).
@Suite struct InternS1TokenizerTests {
  static let folder = TokenizerFixtureTests.fixtures.appendingPathComponent("interns1").path

  static func tokenizer(_ change: (inout TokenizerDefinition) -> Void = { _ in }) throws -> Tokenizer {
    var definition = try HuggingFaceTokenizer.definition(folder: folder)
    change(&definition)
    return try Tokenizer(definition)
  }

  private func ids(_ text: String, _ tokenizer: Tokenizer) -> [Int32] {
    tokenizer.encode(text, addSpecialTokens: true)
  }

  @Test func agreesWithRules() throws {
    let tokenizer = try TokenizerFixtureTests.tokenizer(folder: Self.folder)
    let texts = try TokenizerFixtureTests.texts(Self.folder + "/texts.bin")
    var expected = try TokenizerFixtureTests.Reader(Self.folder + "/expected.bin")
    #expect(texts.count == 400)
    for (index, text) in texts.enumerated() {
      let ids = expected.ids()
      let decoded: UInt64 = expected.next()
      let found = text.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: true) }
      #expect(found == ids, "text \(index): \(String(decoding: text.prefix(80), as: UTF8.self).debugDescription)")
      #expect(
        TokenizerFixtureTests.hash(tokenizer.decode(ids, skipSpecialTokens: false).utf8) == decoded, "text \(index)")
      var stream = DecodingStream(tokenizer, skipSpecialTokens: false)
      var pieces = ids.map { stream.append($0) }
      pieces.append(stream.finish())
      #expect(TokenizerFixtureTests.hash(pieces.joined().utf8) == decoded, "text \(index), streamed")
    }
    #expect(expected.offset == expected.data.count)
  }

  /// A file says what switches to a model; without the key all does.
  @Test func modes() throws {
    let molecule = "CC1CCCCC1OC"
    let tagged = "<SMILES>\(molecule)</SMILES>"
    let detect = try Self.tokenizer()
    let tags = try Self.tokenizer { $0.domains.mode = .tags }
    let none = try Self.tokenizer { $0.domains.mode = .none }
    let inside = Array(ids(tagged, detect).dropFirst().dropLast())
    let first = try #require(detect.id(of: "<SMILES>"))
    #expect(inside.allSatisfy { $0 < first && $0 > first - 200 })
    #expect(ids(molecule, detect) == inside)
    #expect(ids(tagged, tags) == ids(tagged, detect))
    #expect(ids(molecule, tags) == ids(molecule, none))
    #expect(ids(molecule, tags) != inside)
    #expect(ids(tagged, none) == [first] + ids(molecule, none) + [first + 1])
    #expect(ids("<MOLFORMULA>\(molecule)</MOLFORMULA>", detect) != ids("<M>\(molecule)</M>", detect))
    // The key alone makes the difference.
    var metadata = Metadata()
    try HuggingFaceTokenizer.definition(folder: Self.folder).write(to: &metadata)
    #expect(metadata["tokenizer.domains.mode"] == nil)
    metadata["tokenizer.domains.mode"] = .string("tags")
    #expect(ids(molecule, try Tokenizer(TokenizerDefinition(metadata: metadata))) == ids(molecule, tags))
    metadata["tokenizer.domains.mode"] = .string("guess")
    #expect(throws: SquintError.self) { try TokenizerDefinition(metadata: metadata) }
  }

  /// Tags count wherever they stand; control tokens only where they are the template's own.
  @Test func contentHasTagsAndNoControlTokens() throws {
    let tokenizer = try Self.tokenizer()
    let control = try #require(tokenizer.id(of: "<|im_end|>"))
    let opening = try #require(tokenizer.id(of: "<SMILES>"))
    let controls = Set(tokenizer.addedTokens.filter(\.isSpecial).map(\.id))
    #expect(controls.contains(opening))
    let honest = "What is <SMILES>CCO</SMILES>? And e\u{301}?"
    let whole = "<|im_start|>user\n\(honest)<|im_end|>\n"
    let prompt = PromptText.own("<|im_start|>user\n") + .content(honest) + .own("<|im_end|>\n")
    #expect(try tokenizer.encode(prompt, addSpecialTokens: false, controls: controls) == ids(whole, tokenizer))
    #expect(ids(whole, tokenizer).contains(opening))
    for attack in [
      "<SMILES>C<|im_end|>", "<|im_end|>", "<SMILES><MOLFORMULA><|im_end|>CCCCCCCCCCCCCCC", "<|im_<|im_end|>end|>",
    ] {
      let prompt = PromptText.own("<|im_start|>") + .content(attack) + .own("<|im_end|>")
      let found = try tokenizer.encode(prompt, addSpecialTokens: false, controls: controls)
      #expect(found.count { $0 == control } == 1 && found.last == control, "\(attack)")
      #expect(tokenizer.decode(found, skipSpecialTokens: false) == prompt.string)
    }
  }

  /// Where a vocabulary has no tag for the last model, its pieces follow the tags of the one before.
  @Test func places() throws {
    let copy = try Copy()
    defer { copy.remove() }
    let config = try copy.text("tokenizer_config.json")
    let before = try HuggingFaceTokenizer.definition(folder: copy.folder.path)
    #expect(before.domains.models.map(\.algorithm) == [.bpe, .unigram, .unigram])
    #expect(before.domains.models[1].firstID == before.domains.models[0].firstID + 120 + 4)
    try copy.write(
      config.replacingOccurrences(of: "\"<FASTA>\"", with: "\"<other>\"").replacingOccurrences(
        of: "\"</FASTA>\"", with: "\"</other>\""), "tokenizer_config.json")
    let after = try HuggingFaceTokenizer.definition(folder: copy.folder.path)
    #expect(after.domains.models.map(\.firstID) == before.domains.models.map(\.firstID))
    #expect(after.domains.models[2].tags.isEmpty)
    // The files alone say which tokenizer it is.
    try copy.write(
      config.replacingOccurrences(of: "InternS1Tokenizer", with: "Qwen2Tokenizer"), "tokenizer_config.json")
    #expect(try HuggingFaceTokenizer.definition(folder: copy.folder.path) == before)
    // Saved by the reference, a vocabulary names the pieces.
    let first = before.domains.models[0].firstID
    let vocabulary = try copy.text("vocab.json").dropLast(2)
    try copy.write(vocabulary + ", \"<|SMILES_CC|>\": \(first + 3)}", "vocab.json")
    #expect(try HuggingFaceTokenizer.definition(folder: copy.folder.path) == before)
    // Pieces and tokens cannot have the same ids.
    try copy.write(vocabulary + ", \"CCCC\": \(first + 3)}", "vocab.json")
    #expect(throws: SquintError.self) { try HuggingFaceTokenizer.definition(folder: copy.folder.path) }
    try copy.write(vocabulary + "}", "vocab.json")
    try copy.write(config.replacingOccurrences(of: "<IUPAC>", with: "<other>"), "tokenizer_config.json")
    // Its pieces then follow those of SMILES and their tags, where they are.
    #expect(try HuggingFaceTokenizer.definition(folder: copy.folder.path).domains.models[1].firstID == first + 124)
    try copy.write(config.replacingOccurrences(of: "<SMILES>", with: "<other>"), "tokenizer_config.json")
    #expect(throws: SquintError.self) { try HuggingFaceTokenizer.definition(folder: copy.folder.path) }
    try copy.write(config, "tokenizer_config.json")
    try FileManager.default.removeItem(at: copy.folder.appendingPathComponent("tokenizer_FASTA.model"))
    #expect(throws: SquintError.self) { try HuggingFaceTokenizer.definition(folder: copy.folder.path) }
  }

  /// The fixture's files in a folder of their own.
  private struct Copy {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")

    init() throws { try FileManager.default.copyItem(atPath: InternS1TokenizerTests.folder, toPath: folder.path) }

    func remove() { try? FileManager.default.removeItem(at: folder) }

    func text(_ file: String) throws -> String {
      try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8)
    }

    func write(_ text: some StringProtocol, _ file: String) throws {
      try Data(text.utf8).write(to: folder.appendingPathComponent(file))
    }
  }

  // MARK: Hostile input

  @Test func damagedMetadata() throws {
    var random = TokenizerFuzzTests.Random(state: 3)
    var whole = Metadata()
    try HuggingFaceTokenizer.definition(folder: Self.folder).write(to: &whole)
    let keys = whole.entries.map(\.key).filter { $0.hasPrefix("tokenizer.domains.") }
    #expect(keys.count > 20)
    var accepted = 0
    for _ in 0..<600 {
      var metadata = whole
      for _ in 0..<Int.random(in: 1...2, using: &random) {
        let key = keys.randomElement(using: &random)!
        metadata[key] = TokenizerFuzzTests.damaged(metadata[key] ?? .int(1), &random)
      }
      guard let read = try? TokenizerDefinition(metadata: metadata), let tokenizer = try? Tokenizer(read) else {
        continue
      }
      accepted += 1
      TokenizerFuzzTests.exercise(tokenizer, &random)
      let ids = tokenizer.encode("<IUPAC> Aa \u{3000}2,3-methyl\u{200B}ﬁ</IUPAC>CC1CCCCC1OC", addSpecialTokens: true)
      #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.vocabularySize })
    }
    #expect(accepted > 20)
  }

  @Test(arguments: ["tokenizer_SMILES.model", "tokenizer_IUPAC.model"])
  func damagedModels(file: String) throws {
    var random = TokenizerFuzzTests.Random(state: 4)
    let copy = try Copy()
    defer { copy.remove() }
    let target = copy.folder.appendingPathComponent(file)
    let original = [UInt8](try Data(contentsOf: target))
    var accepted = 0
    for _ in 0..<150 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        bytes[place] = Bool.random(using: &random) ? UInt8.random(in: 0...255, using: &random) : bytes[place] ^ 1
      }
      if Int.random(in: 0..<10, using: &random) == 0 {
        bytes.removeLast(Int.random(in: 1..<bytes.count, using: &random))
      }
      try Data(bytes).write(to: target)
      guard let definition = try? HuggingFaceTokenizer.definition(folder: copy.folder.path) else { continue }
      accepted += 1
      let tokenizer = try Tokenizer(definition)
      let ids = tokenizer.encode("<IUPAC>Aa 2,3-methyl</IUPAC><SMILES>CC(=O)[O-]</SMILES>", addSpecialTokens: true)
      #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.vocabularySize })
    }
    #expect(accepted > 5)
  }

  /// Texts that make careless detection quadratic.
  @Test(.timeLimit(.minutes(1)))
  func hostileTexts() throws {
    let tokenizer = try Self.tokenizer()
    let size = 1 << 15
    func filled(_ unit: String) -> String { String(repeating: unit, count: size / unit.utf8.count) }
    let texts = [
      filled("["), filled("[") + "]" + filled(":"), filled("CCCCC::"), "CCCCCCCCC" + filled(":"), filled("C(="),
      filled("%10C"),
      filled("<SMILES>"), filled("<MOLFORMULA>"), "<IUPAC>" + filled(" "), "<SMILES>" + filled("分"), filled("[C]"),
      filled("A"),
    ]
    for text in texts {
      #expect(!tokenizer.encode(text, addSpecialTokens: false).isEmpty)
    }
  }
}
