import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

@Suite struct TokenizerTests {
  /// Bytes 0 to 255 under their own ids, then tokens made by merges.
  static func byteLevel(merging pairs: [(String, String)] = []) throws -> TokenizerDefinition {
    var definition = TokenizerDefinition(model: .byteLevel, decoder: .byteLevel)
    for byte in 0..<256 { try definition.appendToken([UInt8(byte)], kind: .normal) }
    var ids: [String: UInt32] = [:]
    for byte in 0..<128 { ids[String(UnicodeScalar(UInt8(byte)))] = UInt32(byte) }
    for (left, right) in pairs {
      ids[left + right] = UInt32(definition.vocabularySize)
      try definition.appendToken(Array((left + right).utf8), kind: .normal)
      definition.merges += [try #require(ids[left]), try #require(ids[right])]
    }
    return definition
  }

  @Test func mergesBestFirstThenLeftmost() throws {
    let tokenizer = try Tokenizer(try Self.byteLevel(merging: [("b", "c"), ("a", "b"), ("a", "bc"), ("a", "a")]))
    #expect(tokenizer.encode("abc", addSpecialTokens: false) == [258])
    #expect(tokenizer.encode("abab", addSpecialTokens: false) == [257, 257])
    #expect(tokenizer.encode("aaaaa", addSpecialTokens: false) == [259, 259, 97])
    // Long enough for the heap.
    let long = String(repeating: "abcaa", count: 100)
    let expected: [Int32] = (0..<100).flatMap { _ -> [Int32] in [258, 259] }
    #expect(tokenizer.encode(long, addSpecialTokens: false) == expected)
  }

  @Test func invalidBytesAreReplacedAsPythonDoes() throws {
    let tokenizer = try Tokenizer(try Self.byteLevel())
    // bytes.decode("utf-8", "replace") of CPython for each.
    let cases: [([UInt8], String)] = [
      ([0xFF], "\u{FFFD}"), ([0xC3, 0x28], "\u{FFFD}("), ([0xE4, 0xBD], "\u{FFFD}"),
      ([0xF0, 0x9F, 0x98, 0x41], "\u{FFFD}A"), ([0xED, 0xA0, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}"),
      ([0xC0, 0xAF], "\u{FFFD}\u{FFFD}"), ([0xF4, 0x90, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
      ([0x61, 0x80, 0x62], "a\u{FFFD}b"),
    ]
    for (bytes, text) in cases {
      let ids = bytes.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: false) }
      #expect(ids == text.utf8.map { Int32($0) }, "\(bytes)")
      #expect(tokenizer.decode(bytes.map { Int32($0) }, skipSpecialTokens: false) == text, "\(bytes)")
    }
  }

  @Test func streamHoldsBackHalfCharacters() throws {
    let tokenizer = try Tokenizer(try Self.byteLevel())
    var stream = DecodingStream(tokenizer, skipSpecialTokens: true)
    #expect([0x41, 0xF0, 0x9F, 0x98].map { stream.append($0) } == ["A", "", "", ""])
    #expect(stream.append(0x80) == "😀")
    #expect([0xE4, 0xBD].map { stream.append($0) } == ["", ""])
    #expect(stream.append(0x41) == "\u{FFFD}A")
    #expect(stream.append(0xC3) == "")
    #expect(stream.finish() == "\u{FFFD}")
  }

  @Test func streamOfBytesAndSpaces() throws {
    let tokenizer = try TokenizerFixtureTests.tokenizer(folder: TokenizerFuzzTests.folder("llama2"))
    let ids = try ["▁a", "<0xE4>", "<0xBD>", "<0xA0>", "▁a"].map { try #require(tokenizer.id(of: $0)) }
    var stream = DecodingStream(tokenizer, skipSpecialTokens: true)
    #expect(ids.map { stream.append($0) } == ["a", "", "", "", "你 a"])
    #expect(stream.finish() == "")
    // A run of bytes that is no text is U+FFFD for each byte, as in the reference.
    #expect(tokenizer.decode([ids[1], ids[2], ids[0]], skipSpecialTokens: true) == "\u{FFFD}\u{FFFD} a")
  }

  @Test func specialTokensCanBeLeftAsText() throws {
    var definition = try Self.byteLevel()
    try definition.appendToken(Array("<end>".utf8), kind: .literal)
    definition.addedTokens = [.init(id: 256, content: "<end>", isSpecial: true)]
    definition.suffix = [256]
    let tokenizer = try Tokenizer(definition)
    #expect(tokenizer.encode("a<end>", addSpecialTokens: true) == [97, 256, 256])
    #expect(
      tokenizer.encode("a<end>", addSpecialTokens: false, parseAddedTokens: false) == "a<end>".utf8.map { Int32($0) })
    #expect(tokenizer.decode([97, 256, 98], skipSpecialTokens: true) == "ab")
    #expect(tokenizer.id(of: "<end>") == 256)
    #expect(tokenizer.bytes(of: 256) == Array("<end>".utf8))
    #expect(tokenizer.isSpecial(256) && !tokenizer.isSpecial(97) && !tokenizer.contains(257))
  }

  @Test func damageIsNamed() throws {
    var definition = try Self.byteLevel(merging: [("a", "b")])
    definition.merges += [98, 97]
    #expect(
      throws: SquintError(
        .badData,
        "tokenizer: merge 1 of tokens 98 and 97 makes 'ba', which is no token of its own or too long")
    ) { try Tokenizer(definition) }
    definition.merges = [98, 9999]
    #expect(throws: SquintError(.badData, "tokenizer: a merge names token 9,999 of 257")) { try Tokenizer(definition) }
    definition.merges = []
    var metadata = Metadata()
    definition.write(to: &metadata)
    metadata["tokenizer.tokens"] = .bytes([1, 2, 3])
    #expect(
      throws: SquintError(
        .badData, "tokenizer: the tokens' lengths add up to 258 bytes, there are 3")
    ) { try TokenizerDefinition(metadata: metadata) }
    metadata["tokenizer.pre_tokenizer"] = .string("bert")
    #expect(
      throws: SquintError(
        .badData, "metadata tokenizer.pre_tokenizer is 'bert', which this version does not know; update Squint")
    ) { try TokenizerDefinition(metadata: metadata) }
  }

  @Test(arguments: [
    (
      #"{"type":"Sequence","pretokenizers":[{"type":"UnicodeScripts"},{"type":"ByteLevel","add_prefix_space":false}]}"#,
      "pre_tokenizer of type 'UnicodeScripts' is not supported"
    ),
    (
      #"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(x)\\1"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]}"#,
      #"'\1' (character 4) in the expression (x)\1"#
    ),
  ])
  func unsupportedPartsAreNamed(preTokenizer: String, message: String) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let json =
      #"{"added_tokens":[],"normalizer":null,"pre_tokenizer":\#(preTokenizer),"post_processor":null,"#
      + #""decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#
    let path = folder.appendingPathComponent("tokenizer.json")
    try Data(json.utf8).write(to: path)
    do {
      _ = try HuggingFaceTokenizer.definition(folder: folder.path)
      Issue.record("accepted")
    } catch {
      #expect(error.kind == .badData)
      #expect(error.message.hasPrefix(path.path))
      #expect(error.message.contains(message))
    }
  }

  @Test func vocabularyAndMergesFiles() throws {
    let source = TokenizerFuzzTests.folder("qwen2")
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let data = try Data(contentsOf: URL(fileURLWithPath: source + "/tokenizer.json"))
    let json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    let model = try #require(json["model"] as? [String: Any])
    let merges = try #require(model["merges"] as? [[String]])
    try JSONSerialization.data(withJSONObject: try #require(model["vocab"]))
      .write(to: folder.appendingPathComponent("vocab.json"))
    let lines = ["#version: 0.2"] + merges.map { $0.joined(separator: " ") }
    try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: folder.appendingPathComponent("merges.txt"))
    let config = #"{"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}"#
    try Data(config.utf8).write(to: folder.appendingPathComponent("tokenizer_config.json"))
    let added = try #require(json["added_tokens"] as? [[String: Any]])
    let addedIDs = added.map { "\"\($0["content"]!)\": \($0["id"]!)" }.joined(separator: ", ")
    try Data("{\(addedIDs)}".utf8).write(to: folder.appendingPathComponent("added_tokens.json"))

    let found = try Tokenizer(try HuggingFaceTokenizer.definition(folder: folder.path))
    let expected = try TokenizerFixtureTests.tokenizer(folder: source)
    #expect(found.eosToken == expected.eosToken && found.eosToken != nil)
    for text in try TokenizerFixtureTests.texts(
      TokenizerFixtureTests.fixtures.appendingPathComponent("texts.bin").path)
    {
      let ids = text.withUnsafeBytes { found.encode($0, addSpecialTokens: false) }
      #expect(ids == text.withUnsafeBytes { expected.encode($0, addSpecialTokens: false) })
    }
  }

  @Test func metadataOfGGUF() throws {
    // SmolLM's fixture as a GGUF file's metadata would have it.
    let folder = TokenizerFuzzTests.folder("smollm")
    let data = try Data(contentsOf: URL(fileURLWithPath: folder + "/tokenizer.json"))
    let json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    let model = try #require(json["model"] as? [String: Any])
    let vocabulary = try #require(model["vocab"] as? [String: Int])
    let merges = try #require(model["merges"] as? [[String]])
    let special = try #require(json["added_tokens"] as? [[String: Any]]).map { $0["content"] as! String }
    let tokens = vocabulary.sorted { $0.value < $1.value }.map(\.key)
    let metadata: [String: GGUFValue] = [
      "tokenizer.ggml.model": .string(ByteString(Array("gpt2".utf8))),
      "tokenizer.ggml.pre": .string(ByteString(Array("smollm".utf8))),
      "tokenizer.ggml.tokens": .strings(tokens.map { ByteString(Array($0.utf8)) }),
      "tokenizer.ggml.token_type": .integers(tokens.map { special.contains($0) ? 3 : 1 }),
      "tokenizer.ggml.merges": .strings(merges.map { ByteString(Array($0.joined(separator: " ").utf8)) }),
      "tokenizer.ggml.bos_token_id": .integer(1),
      "tokenizer.ggml.eos_token_id": .integer(2),
    ]
    var found = try GGUFTokenizer.definition(metadata: metadata, name: "model.gguf")
    let expected = try HuggingFaceTokenizer.definition(folder: folder)
    #expect(found.bosToken == expected.bosToken && found.eosToken == expected.eosToken)
    found.padToken = expected.padToken
    // Control tokens of a GGUF file cannot be made by merges; those of tokenizer.json are not either, but say so less.
    #expect(found.tokenBytes == expected.tokenBytes)
    #expect(found.merges == expected.merges)
    #expect(found.preTokenizers == expected.preTokenizers)
    #expect(found.addedTokens == expected.addedTokens)

    // Ends of turns that are not marked are control tokens by their names; others are not.
    var unmarked = metadata
    unmarked["tokenizer.ggml.token_type"] = .integers(tokens.map { _ in 1 })
    #expect(GGUFTokenizer.unmarkedTurnEnds(metadata: metadata).isEmpty)
    #expect(GGUFTokenizer.unmarkedTurnEnds(metadata: unmarked) == ["<|endoftext|>", "<|im_end|>"])
    // One that merges make is an ordinary word.
    let made = [("<", "|im_end|>")]
    unmarked["tokenizer.ggml.merges"] = .strings(
      (merges.map { $0.joined(separator: " ") } + made.map { "\($0) \($1)" }).map { ByteString(Array($0.utf8)) })
    #expect(GGUFTokenizer.unmarkedTurnEnds(metadata: unmarked) == ["<|endoftext|>"])
    unmarked["tokenizer.ggml.merges"] = metadata["tokenizer.ggml.merges"]
    #expect(
      try GGUFTokenizer.definition(metadata: unmarked, name: "model.gguf").addedTokens
        == expected.addedTokens.filter { $0.content != "<|im_start|>" })

    var unknown = metadata
    unknown["tokenizer.ggml.pre"] = .string(ByteString(Array("klingon".utf8)))
    do {
      _ = try GGUFTokenizer.definition(metadata: unknown, name: "model.gguf")
      Issue.record("accepted")
    } catch {
      #expect(error.message.hasPrefix("model.gguf: tokenizer.ggml.pre 'klingon' is none of the pre-tokenizers"))
      #expect(error.message.contains("tekken") && error.message.contains("tokenizer.json"))
    }
  }
}
