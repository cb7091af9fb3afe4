import Foundation
import SquintConversion
import SquintFile
import SquintText
import Testing

/// The expressions by which checkpoints cut text into words, against PyPI `tokenizers`
/// (tools/fixtures/tokenizers_expressions.py and tokenizers_families.py).
@Suite struct ExpressionTests {
  static let folder = TokenizerFixtureTests.fixtures.appendingPathComponent("expressions")

  /// pre_tokenizers.json: each step list, as JSON, by its name.
  static func preTokenizers() throws -> [String: Any] {
    let data = try Data(contentsOf: folder.appendingPathComponent("pre_tokenizers.json"))
    return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
  }

  /// The definition that the fixture's vocabulary makes with a pre-tokenizer and a normalizer.
  static func definition(
    _ preTokenizer: Any, normalizer: Any = NSNull(), decoder: Any? = nil
  ) throws -> TokenizerDefinition {
    let data = try Data(contentsOf: folder.appendingPathComponent("tokenizer.json"))
    var json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    json["pre_tokenizer"] = preTokenizer
    json["normalizer"] = normalizer
    if let decoder { json["decoder"] = decoder }
    let copy = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: copy) }
    try JSONSerialization.data(withJSONObject: json).write(to: copy.appendingPathComponent("tokenizer.json"))
    return try HuggingFaceTokenizer.definition(folder: copy.path)
  }

  static func split(_ expression: String, _ behavior: String = "Isolated") -> [String: Any] {
    let split: [String: Any] = [
      "type": "Split", "pattern": ["Regex": expression], "behavior": behavior, "invert": false,
    ]
    let bytes: [String: Any] = ["type": "ByteLevel", "add_prefix_space": false, "use_regex": false]
    return ["type": "Sequence", "pretokenizers": [split, bytes]]
  }

  @Test func agreesWithReference() throws {
    let texts =
      try TokenizerFixtureTests.texts(TokenizerFixtureTests.fixtures.appendingPathComponent("texts.bin").path)
      + TokenizerFixtureTests.texts(Self.folder.appendingPathComponent("texts.bin").path)
    let steps = try Self.preTokenizers()
    #expect(steps.count >= 40)
    for (name, preTokenizer) in steps {
      let definition = try Self.definition(preTokenizer)
      // As a model file would give it back.
      var metadata = Metadata()
      definition.write(to: &metadata)
      let read = try TokenizerDefinition(metadata: metadata)
      #expect(read == definition, "\(name)")
      let tokenizer = try Tokenizer(read)
      var expected = try TokenizerFixtureTests.Reader(Self.folder.appendingPathComponent("\(name).bin").path)
      var wrong: [String] = []
      for text in texts {
        let (count, hash) = (Int(expected.next(UInt16.self)), expected.next(UInt32.self))
        let ids = text.withUnsafeBytes { tokenizer.encode($0, addSpecialTokens: false) }
        let bytes = ids.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
        if ids.count != count || UInt32(truncatingIfNeeded: TokenizerFixtureTests.hash(bytes)) != hash {
          wrong.append(String(decoding: text.prefix(80), as: UTF8.self).debugDescription)
        }
      }
      #expect(wrong.isEmpty, "\(name): \(wrong.count) texts, the first \(wrong.first ?? "")")
      #expect(expected.offset == expected.data.count)
    }
  }

  /// The matchers written by hand find what the automaton of the same expression finds, which a group makes another.
  @Test(arguments: ["gpt2", "llama3", "qwen2", "command_r"])
  func matchersByHand(name: String) throws {
    let definition = try Self.definition(try #require(try Self.preTokenizers()[name]))
    var other = definition
    other.preTokenizers = definition.preTokenizers.map {
      guard case .split(let expression, let behavior, let isInverted) = $0 else { return $0 }
      return .split(expression: "(?:\(expression))", behavior, isInverted: isInverted)
    }
    let (byHand, automaton) = (try Tokenizer(definition), try Tokenizer(other))
    var random = TokenizerFuzzTests.Random(state: 5)
    for _ in 0..<3000 {
      let text = TokenizerFuzzTests.text(&random)
      let ids = text.withUnsafeBytes { byHand.encode($0, addSpecialTokens: false) }
      #expect(ids == text.withUnsafeBytes { automaton.encode($0, addSpecialTokens: false) })
    }
  }

  /// Every name that llama.cpp knows for a byte-level tokenizer has an expression that can be compiled.
  @Test func namesOfGGUF() throws {
    let names = [
      "default", "llama-bpe", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "mpt", "starcoder", "gpt-2",
      "stablelm2", "qwen2", "qwen35", "refact", "command-r", "olmo", "dbrx", "smaug-bpe", "poro-chat", "chatglm-bpe",
      "glm4", "viking", "jais", "jais-2", "tekken", "smollm", "codeshell", "bloom", "gpt3-finnish", "exaone",
      "exaone-moe", "chameleon", "minerva-7b", "megrez", "gpt-4o", "superbpe", "trillion", "bailingmoe", "llama4",
      "pixtral", "seed-coder", "hunyuan", "hunyuan-dense", "kimi-k2", "midm-2.0", "lfm2", "falcon3", "falcon-h1",
      "granite-docling", "minimax-m2", "afmoe", "tiny_aya", "youtu", "solar-open", "grok-2", "minicpm5", "laguna",
    ]
    let text = "It's 1234567 Ab\n\n  don't, 你好"
    for name in names {
      let metadata: [String: GGUFValue] = [
        "tokenizer.ggml.model": .string(ByteString(Array("gpt2".utf8))),
        "tokenizer.ggml.pre": .string(ByteString(Array(name.utf8))),
        "tokenizer.ggml.tokens": .strings(
          (0..<256).map { ByteString(Array(String(UnicodeScalar(ByteAlphabet.scalar(of: UInt8($0)))!).utf8)) }),
        "tokenizer.ggml.merges": .strings([ByteString(Array("1 2".utf8))]),
      ]
      // "12" is no token.
      #expect(throws: SquintError.self) { try GGUFTokenizer.definition(metadata: metadata, name: "m.gguf") }
      var sound = metadata
      sound["tokenizer.ggml.merges"] = .strings([])
      let tokenizer = try Tokenizer(try GGUFTokenizer.definition(metadata: sound, name: "m.gguf"))
      #expect(tokenizer.encode(text, addSpecialTokens: false) == text.utf8.map { Int32($0) }, "\(name)")
    }
  }

  /// Files of earlier versions name what files of today spell out.
  @Test(arguments: [
    ("gpt2", "gpt2"), ("llama3", "llama3"), ("qwen2", "qwen2"), ("gpt2_digits", "command_r"),
  ])
  func namesOfOlderFiles(name: String, same: String) throws {
    let definition = try Self.definition(try #require(try Self.preTokenizers()[same]))
    var metadata = Metadata()
    definition.write(to: &metadata)
    #expect(metadata["tokenizer.pre_tokenizer"] == .string("steps"))
    metadata["tokenizer.pre_tokenizer"] = .string(name)
    metadata["tokenizer.pre_tokenizer.steps"] = nil
    #expect(try TokenizerDefinition(metadata: metadata) == definition)
  }

  /// A refusal shows what cannot be compiled, where it stands, and the expression.
  @Test(arguments: [
    (#"(a)\1"#, #"'\1' (character 4) in the expression (a)\1"#),
    (#"\p{Klingon}+"#, #"a property that is not known at '\p{Klingon}' (character 1) in the expression"#),
    (#"(?:a|b*)+c"#, "a repetition of what may be empty"),
    (#"[a-\d]"#, "a range that ends in a set"),
    (#"a{2000}"#, "more than 1,024 repetitions at '{2000}' (character 2)"),
    (#"(?:a|b)*a(?:a|b){20}"#, "more than 4,096 states"),
    (#"(?:(?:(?:a{100}){100}){100})"#, "more than 16,384 steps"),
    (#"(a"#, "a group that is not closed at its end"),
    (#"*a"#, "nothing to repeat at '*' (character 1)"),
    (#"[abc"#, "a bracket that is not closed"),
    (#"(?i:straSSe)"#, "letters that equal one where case does not matter"),
    (#"(?>a*b*)c"#, "an atomic group"),
    (String(repeating: "(", count: 100) + "a" + String(repeating: ")", count: 100), "more than 48 groups"),
    (#"(?~ab)"#, "a kind of group"),
  ])
  func refusals(expression: String, message: String) throws {
    do {
      _ = try Self.definition(Self.split(expression))
      Issue.record("accepted")
    } catch let error as SquintError {
      #expect(error.kind == .badData)
      #expect(error.message.contains(message), "\(error.message)")
      #expect(!error.message.contains("\n"))
    }
  }

  /// Random expressions are refused or compiled, and what is compiled reads any text, all in little time.
  @Test(.timeLimit(.minutes(1)))
  func randomExpressions() throws {
    var random = TokenizerFuzzTests.Random(state: 7)
    let parts = [
      "a", "b", "\\p{L}", "\\s", "\\d", "[a-c]", "[^\\s]", "(", ")", "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "|",
      "*",
      "+", "?", "{1,3}", "{2}", "++", "*?", "^", "$", "\\b", "\\G", "(?i)", "[[:alpha:]&&[^x]]", ".", "\\", "[", "]",
      "{", "é",
    ]
    var accepted = 0
    for _ in 0..<3000 {
      let expression = (0..<Int.random(in: 1...9, using: &random)).map { _ in parts.randomElement(using: &random)! }
        .joined()
      var definition = try TokenizerTests.byteLevel()
      definition.preTokenizers = [.words(expression)]
      guard let tokenizer = try? Tokenizer(definition) else { continue }
      accepted += 1
      let text = "ab1 \u{E9}\n xa" + String(repeating: "a ", count: 40)
      #expect(tokenizer.encode(text, addSpecialTokens: false) == text.utf8.map { Int32($0) }, "\(expression)")
    }
    #expect(accepted > 300)
  }

  /// Expressions and texts that make a backtracking engine quadratic or worse. Milliseconds each; minutes if they did.
  @Test(
    .timeLimit(.minutes(1)),
    arguments: [
      (#"\s+$"#, " "), (#"\s+\n|\s"#, " "), (#"a+b|a"#, "a"), (#"(?:a|aa)+c|a"#, "a"), (#"(?=.*b)a|a"#, "a"),
      (#"\d{1,3}(?=(?:\d{3})*\b)"#, "1"), (#"(?<=x.*)a|a"#, "a"), (#"(?=(\d{3})+(?!\d))"#, "1"), (#".*?b|a"#, "a"),
      (#"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}"#, "1"), (#"(?:x+x+)+y|x"#, "x"),
      (#"(?:\w+\s?)+\."#, "a "),
    ])
  func hostileTexts(expression: String, unit: String) throws {
    var definition = try TokenizerTests.byteLevel()
    definition.preTokenizers = [.words(expression)]
    let tokenizer = try Tokenizer(definition)
    let text = String(repeating: unit, count: (1 << 18) / unit.utf8.count) + "!"
    #expect(tokenizer.encode(text, addSpecialTokens: false).count == text.utf8.count)
  }

  /// What the reference makes of each text, by `tokenizers` 0.23.
  @Test func normalizers() throws {
    let cases: [([String: Any], String, String)] = [
      (["type": "NFD"], "\u{E9}\u{AC01}", "e\u{301}\u{1100}\u{1161}\u{11A8}"),
      (["type": "Strip", "strip_left": true, "strip_right": false], " \u{3000}a \n", "a \n"),
      (["type": "Strip", "strip_left": true, "strip_right": true], " \n ", ""),
      (["type": "Replace", "pattern": ["Regex": " {2,}"], "content": "_"], "a  b   c d", "a_b_c d"),
      (["type": "Replace", "pattern": ["Regex": "(?=b)"], "content": "-"], "abb", "a-b-b"),
    ]
    for (normalizer, text, expected) in cases {
      let definition = try Self.definition(Self.split("\\s"), normalizer: normalizer)
      let tokenizer = try Tokenizer(definition)
      let ids = tokenizer.encode(text, addSpecialTokens: false)
      #expect(tokenizer.decode(ids, skipSpecialTokens: false).unicodeScalars.elementsEqual(expected.unicodeScalars))
      var metadata = Metadata()
      definition.write(to: &metadata)
      #expect(try TokenizerDefinition(metadata: metadata) == definition)
    }
  }

  /// Mistral's tekken.json; and files of tokens alone, which do not say how text is cut.
  @Test func ranks() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let tokens = (0..<256).map { [UInt8($0)] } + [Array("ab".utf8), Array("bc".utf8), Array("abc".utf8)]
    let vocabulary: [[String: Any]] = tokens.enumerated().map {
      ["rank": $0.offset, "token_bytes": Data($0.element).base64EncodedString(), "token_str": NSNull()]
    }
    let json: [String: Any] = [
      "config": [
        "pattern": #"\p{L}+|\P{L}"#, "default_vocab_size": 4 + 259, "default_num_special_tokens": 4, "version": "v11",
      ],
      "vocab": vocabulary,
      "special_tokens": [
        ["rank": 0, "token_str": "<unk>"], ["rank": 1, "token_str": "<s>"], ["rank": 2, "token_str": "</s>"],
      ],
    ]
    let path = folder.appendingPathComponent("tekken.json")
    try JSONSerialization.data(withJSONObject: json).write(to: path)
    let tokenizer = try Tokenizer(try HuggingFaceTokenizer.definition(folder: folder.path))
    // The lowest rank first: a bc, not ab c, would be wrong; a whole word that is a token is that token.
    #expect(tokenizer.encode("abc", addSpecialTokens: true) == [1, 262])
    #expect(tokenizer.encode("abcd", addSpecialTokens: false) == [262, 104])
    #expect(tokenizer.encode("bcab", addSpecialTokens: false) == [261, 260])
    #expect(tokenizer.encode("a<s>", addSpecialTokens: false) == [101, 1])
    #expect(tokenizer.bosToken == 1 && tokenizer.eosToken == 2 && tokenizer.vocabularySize == 263)
    try FileManager.default.removeItem(at: path)

    try Data("IQ== 0\nIg== 1\n".utf8).write(to: folder.appendingPathComponent("tokenizer.model"))
    do {
      _ = try HuggingFaceTokenizer.definition(folder: folder.path)
      Issue.record("accepted")
    } catch {
      #expect(error.message.contains("tokenizer.json"), "\(error.message)")
    }
  }
}
