import SquintFile
import SquintText

/// Mistral's tekken.json: the expression, tokens as base64 with their ranks, and special tokens, whose ids come first
/// (mistralai/mistral-common, tokens/tokenizers/tekken.py).
struct TekkenTokenizer {
  let path: String
  let json: JSONValue

  private func bad(_ message: String) -> SquintError { .badData(path, message) }

  /// The special tokens of files that list none (tekken.py, `Tekkenizer.DEPRECATED_SPECIAL_TOKENS`).
  private static let olderSpecialTokens = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
  ]

  func definition(_ settings: TokenizerSettings) throws(SquintError) -> TokenizerDefinition {
    guard let expression = json["config"]?["pattern"]?.string else { throw bad("config.pattern is missing") }
    guard let entries = json["vocab"]?.array else { throw bad("vocab is not a list of tokens") }
    let specialCount = json["config"]?["default_num_special_tokens"]?.int ?? 1000
    let size = json["config"]?["default_vocab_size"]?.int ?? entries.count + min(specialCount, 1 << 16)
    guard (0...1 << 16).contains(specialCount), (specialCount...specialCount + entries.count).contains(size) else {
      throw bad("\(size) ids, \(specialCount) of them special, of \(grouped(entries.count)) tokens")
    }
    var definition = TokenizerDefinition(model: .byteLevel, decoder: .byteLevel)
    definition.preTokenizers = [.words(expression)]
    definition.ignoresMerges = true

    var vocabulary = VocabularyAssembly(name: path, model: .byteLevel)
    var names = [String](repeating: "", count: specialCount)
    if let listed = json["special_tokens"]?.array {
      for token in listed {
        guard let rank = token["rank"]?.int, names.indices.contains(rank), let name = token["token_str"]?.string else {
          throw bad("an entry of special_tokens has no rank or no text")
        }
        names[rank] = name
      }
    } else {
      for (rank, name) in Self.olderSpecialTokens.prefix(specialCount).enumerated() { names[rank] = name }
    }
    for (id, name) in names.enumerated() {
      try vocabulary.addAdded(
        .init(id: Int32(id), content: name.isEmpty ? "<SPECIAL_\(id)>" : name, isSpecial: true))
    }
    var tokens: [[UInt8]] = []
    for (rank, entry) in entries.prefix(size - specialCount).enumerated() {
      guard entry["rank"]?.int == rank, let bytes = (entry["token_bytes"]?.string).flatMap({ Base64.decoded($0.utf8) }),
        !bytes.isEmpty
      else { throw bad("entry \(rank) of vocab has another rank or no bytes") }
      tokens.append(bytes)
      try vocabulary.add(ByteLevelAlphabet.text(bytes), id: specialCount + rank)
    }
    definition.merges = Self.merges(of: tokens, firstID: specialCount)
    try settings.addTokens(to: &vocabulary)
    definition.bosToken = settings.token("bos_token", vocabulary) ?? vocabulary.id("<s>")
    definition.eosToken = settings.token("eos_token", vocabulary) ?? vocabulary.id("</s>")
    definition.padToken = settings.token("pad_token", vocabulary) ?? vocabulary.id("<pad>")
    try vocabulary.write(to: &definition)
    settings.setEnds(of: &definition, addsBosByDefault: true)
    try definition.checked(path)
    return definition
  }

  /// The merges that ranks stand for: each way to put a token together from two others, the lowest rank first
  /// (transformers, convert_slow_tokenizer.py, `TikTokenConverter.extract_vocab_merges_from_model`).
  private static func merges(of tokens: [[UInt8]], firstID: Int) -> [UInt32] {
    var ranks: [ByteString: Int] = [:]
    ranks.reserveCapacity(tokens.count)
    for (rank, token) in tokens.enumerated() where ranks[ByteString(token)] == nil { ranks[ByteString(token)] = rank }
    var merges: [UInt32] = []
    // No trained token is longer than a few dozen bytes; without a bound a hostile one would be quadratic.
    for token in tokens where token.count > 1 && token.count <= 512 {
      var ways: [(left: Int, right: Int)] = []
      for cut in 1..<token.count {
        if let left = ranks[ByteString(Array(token[..<cut]))], let right = ranks[ByteString(Array(token[cut...]))] {
          ways.append((left, right))
        }
      }
      for way in ways.sorted(by: { ($0.left, $0.right) < ($1.left, $1.right) }) {
        merges += [UInt32(firstID + way.left), UInt32(firstID + way.right)]
      }
    }
    return merges
  }
}

/// RFC 4648's base64 with its padding.
enum Base64 {
  /// Nil where `text` is none.
  static func decoded(_ text: some Collection<UInt8>) -> [UInt8]? {
    guard text.count % 4 == 0 else { return nil }
    var out: [UInt8] = []
    out.reserveCapacity(text.count / 4 * 3)
    var bits: UInt32 = 0
    var count = 0
    var padding = 0
    for character in text {
      let value: UInt32
      switch character {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = UInt32(character) - 65
      case UInt8(ascii: "a")...UInt8(ascii: "z"): value = UInt32(character) - 97 + 26
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = UInt32(character) - 48 + 52
      case UInt8(ascii: "+"): value = 62
      case UInt8(ascii: "/"): value = 63
      case UInt8(ascii: "="):
        padding += 1
        value = 0
      default: return nil
      }
      // Nothing but padding comes after padding.
      guard padding == 0 || character == UInt8(ascii: "="), padding <= 2 else { return nil }
      bits = bits << 6 | value
      count += 1
      if count % 4 == 0 {
        out += [UInt8(bits >> 16 & 255), UInt8(bits >> 8 & 255), UInt8(bits & 255)]
        bits = 0
      }
    }
    out.removeLast(padding)
    return out
  }
}
