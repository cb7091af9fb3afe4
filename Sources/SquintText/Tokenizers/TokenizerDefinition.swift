import SquintFile

/// Everything a tokenizer needs, as a model file holds it (formats/tokenizer.md). `Tokenizer` runs it.
package struct TokenizerDefinition: Sendable, Equatable {
  /// What the merges work on.
  package enum Model: String, Sendable {
    /// Bytes: GPT-2 and its successors. Tokens are bytes as they stand in the text.
    case byteLevel = "byte_level_bpe"
    /// Unicode scalars, spaces written as ▁ (U+2581): SentencePiece's BPE, as in Llama 2.
    case sentencePiece = "sentencepiece_bpe"
  }

  /// What an id is.
  package enum TokenKind: UInt8, Sendable {
    /// A token that merges produce, or that they start from.
    case normal = 0
    /// A token that only `addedTokens`, `prefix` and `suffix` produce.
    case literal = 1
    /// A hole in the vocabulary; its bytes are empty and it decodes to nothing.
    case unused = 2
  }

  /// A step that changes the text before it is cut into words.
  package enum Normalizer: Sendable, Equatable {
    /// Unicode's normalization form C.
    case nfc
    /// Unicode's normalization form D.
    case nfd
    /// Puts a text in front of every text that is not empty.
    case prepend(String)
    /// Replaces every occurrence of `pattern`, which is not empty, by `content`.
    case replace(pattern: String, content: String)
    /// Replaces every match of an expression (Oniguruma's syntax) by `content`.
    case replaceMatches(expression: String, content: String)
    /// Takes white space off a text's ends.
    case strip(left: Bool, right: Bool)
  }

  /// A step of cutting a text into words, which merges never cross. It works on each piece that the steps before it
  /// made as if that were a text of its own.
  package enum PreTokenizer: Sendable, Equatable {
    /// Cuts at the matches of an expression (Oniguruma's syntax), or at what lies between them where `isInverted`.
    case split(expression: String, SplitBehavior, isInverted: Bool)
    /// Puts a space in front of a piece that does not start with one.
    case prefixSpace
    /// From here on every byte is a character: the one that GPT-2 style vocabularies write it as.
    case bytes
    /// Spaces become ▁, and one is put in front as `prepend` says; pieces start at each ▁ where `splits`.
    case metaspace(prepend: MetaspacePrepend, splits: Bool)

    /// Cuts at every match of `expression`.
    package static func words(_ expression: String) -> PreTokenizer {
      .split(expression: expression, .isolated, isInverted: false)
    }

    /// GPT-2's words.
    package static let gpt2 = words(#"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#)
    /// Llama 3's words.
    package static let llama3 = llama3(numbers: #"\p{N}{1,3}"#)
    /// Qwen2's words: Llama 3's with numbers of one digit.
    package static let qwen2 = llama3(numbers: #"\p{N}"#)

    private static func llama3(numbers: String) -> PreTokenizer {
      words(
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"# + numbers
          + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#)
    }

    /// Each digit by itself.
    package static let digits = words(#"\p{x_numeric}"#)
  }

  /// What becomes of a match that a text is cut at.
  package enum SplitBehavior: String, Sendable {
    /// It is a piece.
    case isolated
    /// It is left out.
    case removed
    /// It goes with the piece before it, or the one behind it, that is no match.
    case mergedWithPrevious = "merged_with_previous"
    case mergedWithNext = "merged_with_next"
    /// Matches in a row are one piece.
    case contiguous
  }

  /// Which pieces `PreTokenizer.metaspace` puts a ▁ in front of, unless they start with one.
  package enum MetaspacePrepend: String, Sendable {
    case never
    /// Only the one that starts the whole text.
    case first
    case always
  }

  /// A token that is found in the text before anything else happens to it.
  package struct AddedToken: Sendable, Equatable {
    package var id: Int32
    package var content: String
    /// Controls the model rather than being text: `decode` can leave it out.
    package var isSpecial: Bool
    /// Takes the white space before it.
    package var stripsLeft: Bool
    /// Takes the white space after it.
    package var stripsRight: Bool
    /// Is found only where no word character is beside it.
    package var isSingleWord: Bool
    /// Is looked for, in normalized form, in the normalized text.
    package var isNormalized: Bool

    package init(
      id: Int32, content: String, isSpecial: Bool = false, stripsLeft: Bool = false, stripsRight: Bool = false,
      isSingleWord: Bool = false, isNormalized: Bool = false
    ) {
      self.id = id
      self.content = content
      self.isSpecial = isSpecial
      self.stripsLeft = stripsLeft
      self.stripsRight = stripsRight
      self.isSingleWord = isSingleWord
      self.isNormalized = isNormalized
    }
  }

  /// How ids become text again.
  package enum Decoder: Sendable, Equatable {
    /// The tokens' bytes, one after the other, read as UTF-8.
    case byteLevel
    /// ▁ becomes a space and, with `byteFallback`, runs of `<0xNN>` tokens become the bytes they name; then up to
    /// `strippedSpaces` spaces at the start go.
    case sentencePiece(byteFallback: Bool, strippedSpaces: Int)
  }

  package var model: Model
  /// The bytes of all tokens, in the order of their ids.
  package var tokenBytes: [UInt8] = []
  /// The length of each token in `tokenBytes`.
  package var tokenLengths: [UInt16] = []
  /// What each token is: raw values of `TokenKind`.
  package var tokenKinds: [UInt8] = []
  /// left, right, left, right, …: the ids of each merge's parts, best merge first.
  package var merges: [UInt32] = []
  /// A word that is a token as a whole becomes that token, whatever the merges say.
  package var ignoresMerges = false
  /// A character without a token becomes the `<0xNN>` tokens of its bytes.
  package var byteFallback = false
  /// The token of a character that has none; nil leaves such characters out.
  package var unknownToken: Int32?
  /// A run of unknown characters becomes one unknown token.
  package var fusesUnknown = false
  package var normalizers: [Normalizer] = []
  package var preTokenizers: [PreTokenizer] = []
  package var addedTokens: [AddedToken] = []
  /// The ids put before and after a text that is encoded with special tokens.
  package var prefix: [Int32] = []
  package var suffix: [Int32] = []
  package var decoder: Decoder
  /// Parts of a text that have tokens of their own.
  package var domains = Domains()
  package var bosToken: Int32?
  package var eosToken: Int32?
  package var padToken: Int32?

  package init(model: Model, decoder: Decoder) {
    self.model = model
    self.decoder = decoder
  }

  /// The number of ids.
  package var vocabularySize: Int { tokenLengths.count }

  /// At most what a tokenizer of it holds, in bytes.
  package var tableBytes: Int {
    let added = AddedTokenMatcher.byteCount(of: addedTokens.count, bytes: normalizedAddedBytes)
    return TokenTables.byteCount(self) + added.kept + vocabularySize / 4 + WordEncoder.byteCount + domains.tableBytes
  }

  /// At most what is held beside the definition and the tokenizer while this is made of that, in bytes.
  package var makingBytes: Int {
    AddedTokenMatcher.byteCount(of: addedTokens.count, bytes: normalizedAddedBytes).making
  }

  /// Adds a token under the next id.
  ///
  /// - Throws: `SquintError.badData` where it is longer than 65,535 bytes.
  package mutating func appendToken(_ bytes: some Collection<UInt8>, kind: TokenKind) throws(SquintError) {
    guard let length = UInt16(exactly: bytes.count) else {
      throw SquintError(
        .badData, "tokenizer: token \(grouped(vocabularySize)) is \(grouped(bytes.count)) bytes long; 65,535 at most")
    }
    tokenBytes.append(contentsOf: bytes)
    tokenLengths.append(length)
    tokenKinds.append(kind.rawValue)
  }
}

// MARK: Validation

extension TokenizerDefinition {
  /// Ids fit 24 bits, so that a table's slot holds one with eight bits of its hash.
  package static let maximumVocabularySize = (1 << 24) - 1
  /// Longer added tokens would let a text make the search for them slow.
  package static let maximumAddedTokenBytes = 1024
  /// A trie of them takes dozens of bytes for each of theirs. (The most that are known are 6,415, in 60 KB.)
  package static let maximumAddedTokens = 65_536
  package static let maximumAddedBytes = 2 << 20
  /// The longest text a normalizer puts in place of another.
  package static let maximumNormalizerBytes = 64

  /// Throws where a part contradicts another; everything that `Tokenizer` relies on but the results of merges, which
  /// it looks up itself.
  package func validate() throws(SquintError) {
    let count = vocabularySize
    guard count > 0 else { throw bad("the vocabulary is empty") }
    guard count <= Self.maximumVocabularySize else {
      throw bad("\(grouped(count)) tokens; \(grouped(Self.maximumVocabularySize)) at most")
    }
    guard tokenBytes.count <= 1 << 30 else { throw bad("the tokens are longer than 1 GiB together") }
    guard tokenKinds.count == count else {
      throw bad("\(grouped(tokenKinds.count)) kinds for \(grouped(count)) tokens")
    }
    var total = 0
    for length in tokenLengths { total += Int(length) }
    guard total == tokenBytes.count else {
      throw bad("the tokens' lengths add up to \(grouped(total)) bytes, there are \(grouped(tokenBytes.count))")
    }
    if let kind = tokenKinds.first(where: { TokenKind(rawValue: $0) == nil }) {
      throw bad("a token is of kind \(kind), which this version does not know")
    }
    guard merges.count % 2 == 0, merges.count / 2 <= Self.maximumVocabularySize else {
      throw bad("\(grouped(merges.count / 2)) merges; \(grouped(Self.maximumVocabularySize)) at most")
    }
    if let id = merges.first(where: { $0 >= UInt32(count) }) {
      throw bad("a merge names token \(grouped(id)) of \(grouped(count))")
    }
    for (name, ids) in [
      ("prefix", prefix), ("suffix", suffix), ("added token", addedTokens.map(\.id)),
      ("bos, eos, pad or unknown token", [bosToken, eosToken, padToken, unknownToken].compactMap { $0 }),
    ] {
      if let id = ids.first(where: { $0 < 0 || Int($0) >= count }) {
        throw bad("the \(name) \(id) is not one of \(grouped(count)) ids")
      }
    }
    guard prefix.count <= 64, suffix.count <= 64 else { throw bad("more than 64 tokens around a text") }
    let addedBytes = addedTokens.reduce(0) { $0 + $1.content.utf8.count }
    guard addedTokens.count <= Self.maximumAddedTokens, addedBytes <= Self.maximumAddedBytes else {
      throw bad(
        "\(grouped(addedTokens.count)) added tokens of \(grouped(addedBytes)) bytes together; "
          + "\(grouped(Self.maximumAddedTokens)) of \(grouped(Self.maximumAddedBytes)) at most")
    }
    for token in addedTokens {
      guard (1...Self.maximumAddedTokenBytes).contains(token.content.utf8.count) else {
        throw bad(
          "added token \(token.id) is \(grouped(token.content.utf8.count)) bytes long; 1 to "
            + "\(grouped(Self.maximumAddedTokenBytes)) are allowed")
      }
    }
    try validateSteps()
    try validateDomains()
  }

  /// How many times as long the normalizers may make a text, beside what they put in front.
  private var normalizerGrowth: Double {
    var growth = 1.0
    for normalizer in normalizers {
      switch normalizer {
      case .replace(let pattern, let content):
        growth *= max(1, Double(content.utf8.count) / Double(pattern.utf8.count))
      // A match may be empty and stand before every byte.
      case .replaceMatches(_, let content): growth *= Double(content.utf8.count + 1)
      case .nfd: growth *= 3
      case .nfc, .prepend, .strip: break
      }
    }
    return growth
  }

  /// At most the bytes of the added tokens, some of them normalized.
  var normalizedAddedBytes: Int {
    let growth = normalizerGrowth
    let front = normalizers.reduce(0) { if case .prepend(let text) = $1 { $0 + text.utf8.count } else { $0 } }
    return addedTokens.reduce(0) { sum, token in
      let bytes = token.content.utf8.count
      return sum + (token.isNormalized ? Int(Double(bytes + front) * growth) : bytes)
    }
  }

  private func validateSteps() throws(SquintError) {
    guard normalizers.count <= 8 else { throw bad("more than 8 normalizers") }
    for normalizer in normalizers {
      switch normalizer {
      case .nfc, .nfd, .strip: break
      case .prepend(let content):
        guard content.utf8.count <= Self.maximumNormalizerBytes else { throw bad("a normalizer's text is too long") }
      case .replace(let pattern, let content):
        guard (1...Self.maximumNormalizerBytes).contains(pattern.utf8.count),
          content.utf8.count <= Self.maximumNormalizerBytes
        else { throw bad("a normalizer's text is empty or too long") }
      case .replaceMatches(_, let content):
        guard content.utf8.count <= Self.maximumNormalizerBytes else { throw bad("a normalizer's text is too long") }
      }
    }
    // Each step may multiply the length of the text; together they must not be a bomb.
    let growth = normalizerGrowth
    guard growth <= 64 else { throw bad("the normalizers make a text up to \(growth) times as long; 64 at most") }
    let normalized = normalizedAddedBytes
    guard normalized <= 4 * Self.maximumAddedBytes else {
      throw bad(
        "the normalizers may make \(grouped(normalized)) bytes of the added tokens; "
          + "\(grouped(4 * Self.maximumAddedBytes)) at most")
    }
    guard preTokenizers.count <= 16 else { throw bad("more than 16 pre-tokenizers") }
    if let place = preTokenizers.firstIndex(of: .bytes) {
      for step in preTokenizers[(place + 1)...] {
        guard case .split = step else { throw bad("a pre-tokenizer cannot change the text once it is bytes") }
      }
      guard model == .byteLevel else { throw bad("a pre-tokenizer makes bytes of a text whose tokens are none") }
    }
    for case .metaspace in preTokenizers where model == .byteLevel {
      throw bad("the pre-tokenizer metaspace does not go with \(model.rawValue)")
    }
    guard model == .byteLevel || decoder != .byteLevel else { throw bad("the decoder does not go with the model") }
    if case .sentencePiece(_, let spaces) = decoder {
      guard (0...1024).contains(spaces) else {
        throw bad("the decoder strips \(spaces) spaces; 0 to 1,024 are allowed")
      }
    }
  }

  func bad(_ message: String) -> SquintError { .badData("tokenizer", message) }
}
