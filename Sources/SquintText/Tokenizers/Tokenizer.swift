import SquintFile
import Synchronization

/// Turns text into ids and ids into text, as PyPI `tokenizers` does for the same checkpoint.
///
/// Safe to share between threads; texts that are encoded at the same time each take about 300 KB of working memory,
/// one after the other they share it.
package final class Tokenizer: Sendable {
  /// The number of ids: every id is less.
  package let vocabularySize: Int
  package let bosToken: Int32?
  package let eosToken: Int32?
  package let padToken: Int32?

  let tables: TokenTables
  let decoder: TokenizerDefinition.Decoder
  /// `<0xNN>` tokens by byte, for the decoder and, where the model falls back to bytes, the encoder.
  private let settings: TokenizerDefinition
  private let fallbackTokens: [Int32]?
  private let specialBits: [UInt64]
  private let usedBits: [UInt64]
  private let rawTokens: AddedTokenMatcher
  private let normalizedTokens: AddedTokenMatcher
  /// SentencePiece: whether a token joins ▁ to a scalar that ends in this byte. Where none
  /// does, the text is cut before the ▁ without changing the result. Nil where it must not be cut.
  private let joinsSpace: [Bool]?
  private let normalizer: TextNormalizer
  private let steps: [PieceStep]
  private let domains: DomainSet?
  private let idle: Mutex<WordEncoder?>

  static let metaspace: [UInt8] = [0xE2, 0x96, 0x81]  // ▁

  /// Builds the tables; about 10 ms per 100,000 tokens.
  ///
  /// - Throws: `SquintError.badData` where the definition contradicts itself.
  package init(_ definition: TokenizerDefinition) throws(SquintError) {
    try definition.validate()
    tables = try TokenTables(definition)
    vocabularySize = definition.vocabularySize
    bosToken = definition.bosToken
    eosToken = definition.eosToken
    padToken = definition.padToken
    decoder = definition.decoder
    var settings = definition
    settings.tokenBytes = []
    settings.tokenLengths = []
    settings.tokenKinds = []
    settings.merges = []
    settings.addedTokens = []
    settings.domains = .init()
    self.settings = settings

    var special = [UInt64](repeating: 0, count: (vocabularySize + 63) / 64)
    for token in definition.addedTokens where token.isSpecial { special[Int(token.id) / 64] |= 1 << (token.id % 64) }
    specialBits = special
    var used = [UInt64](repeating: 0, count: (vocabularySize + 63) / 64)
    for (id, kind) in definition.tokenKinds.enumerated() where kind != TokenizerDefinition.TokenKind.unused.rawValue {
      used[id / 64] |= 1 << (id % 64)
    }
    usedBits = used

    if definition.byteFallback {
      let tables = tables
      fallbackTokens = (0..<256).map { byte in
        let digits = Array("0123456789ABCDEF".utf8)
        let name = Array("<0x".utf8) + [digits[byte / 16], digits[byte % 16]] + [UInt8(ascii: ">")]
        return name.withUnsafeBufferPointer {
          tables.token($0.baseAddress!, $0.count, hash: tables.hash($0.baseAddress!, $0.count)).map(Int32.init) ?? -1
        }
      }
    } else {
      fallbackTokens = nil
    }
    let normalizer = try TextNormalizer(definition.normalizers)
    self.normalizer = normalizer
    domains = definition.domains.isActive ? DomainSet(definition, tables) : nil
    rawTokens = AddedTokenMatcher(
      (definition.addedTokens.filter { !$0.isNormalized } + (domains?.marks ?? [])).map { ($0, Array($0.content.utf8)) }
    )
    normalizedTokens = AddedTokenMatcher(
      definition.addedTokens.filter(\.isNormalized).map {
        ($0, normalizer.normalized($0.content))
      })
    joinsSpace = Self.spaceJoins(definition, tables)
    steps = try PieceStep.steps(of: definition)
    idle = Mutex(nil)
  }

  private static func spaceJoins(_ definition: TokenizerDefinition, _ tables: TokenTables) -> [Bool]? {
    guard definition.model == .sentencePiece, !definition.ignoresMerges else { return nil }
    // Without a token for ▁ an unknown token could reach across.
    let known = metaspace.withUnsafeBufferPointer {
      tables.token($0.baseAddress!, 3, hash: tables.hash($0.baseAddress!, 3)) != nil
    }
    guard known else { return nil }
    var joins = [Bool](repeating: false, count: 256)
    for id in 0..<definition.vocabularySize {
      let token = tables.token(id)
      var index = 1
      while index + 3 <= token.count {
        if token[index] == 0xE2 && token[index + 1] == 0x96 && token[index + 2] == 0x81 {
          joins[Int(token[index - 1])] = true
        }
        index += 1
      }
    }
    return joins
  }

  // MARK: Encoding

  /// What `addSpecialTokens` puts before a text.
  package var prefixTokens: [Int32] { settings.prefix }
  /// What `addSpecialTokens` puts behind a text.
  package var suffixTokens: [Int32] { settings.suffix }

  /// The ids of `text`.
  ///
  /// - Parameters:
  ///   - addSpecialTokens: puts the tokens around it that the checkpoint's tokenizer puts there.
  ///   - parseAddedTokens: whether special tokens that are spelled out in the text become those tokens. False for
  ///     what a user typed, who must not be able to write control tokens.
  package func encode(_ text: String, addSpecialTokens: Bool, parseAddedTokens: Bool = true) -> [Int32] {
    var text = text
    return text.withUTF8 {
      encode(validated: $0, addSpecialTokens: addSpecialTokens, parseAddedTokens: parseAddedTokens)
    }
  }

  /// The ids of `text`, in whose content no token of `controls` is found: what spells one there is tokenized as other text is.
  /// Where the content spells none, the ids are those of the whole text.
  ///
  /// - Throws: `badData` where the vocabulary makes a token of `controls` of ordinary text.
  package func encode(
    _ text: PromptText, addSpecialTokens: Bool, controls: Set<Int32>
  ) throws(SquintError) -> [Int32] {
    // Tags say how the text between them is read, and control nothing else.
    let controls = domains.map { controls.subtracting($0.tags) } ?? controls
    var found = 0
    let ids = text.bytes.withUnsafeBufferPointer {
      encode(
        validated: $0, addSpecialTokens: addSpecialTokens, parseAddedTokens: true,
        ControlTokens(ids: controls, own: text.own), found: &found)
    }
    // The unknown token stands for characters that the vocabulary does not have.
    let ends = addSpecialTokens ? prefixTokens + suffixTokens : []
    let isControl = { (id: Int32) in controls.contains(id) && id != self.settings.unknownToken }
    guard ids.count(where: isControl) == found + ends.count(where: isControl) else {
      throw SquintError(
        .badData,
        "the tokenizer makes a control token of text that somebody wrote; convert the model again, or allow control tokens"
      )
    }
    return ids
  }

  /// The ids of `bytes`, read as UTF-8 with U+FFFD in place of what is none.
  package func encode(
    _ bytes: UnsafeRawBufferPointer, addSpecialTokens: Bool, parseAddedTokens: Bool = true
  ) -> [Int32] {
    if UTF8Text.validPrefix(bytes) == bytes.count {
      return encode(
        validated: bytes.assumingMemoryBound(to: UInt8.self), addSpecialTokens: addSpecialTokens,
        parseAddedTokens: parseAddedTokens)
    }
    var repaired: [UInt8] = []
    repaired.reserveCapacity(bytes.count + bytes.count / 8)
    UTF8Text.appendRepaired(bytes, to: &repaired)
    return repaired.withUnsafeBufferPointer {
      encode(validated: $0, addSpecialTokens: addSpecialTokens, parseAddedTokens: parseAddedTokens)
    }
  }

  private func encode(
    validated text: UnsafeBufferPointer<UInt8>, addSpecialTokens: Bool, parseAddedTokens: Bool
  ) -> [Int32] {
    var found = 0
    return encode(
      validated: text, addSpecialTokens: addSpecialTokens, parseAddedTokens: parseAddedTokens, nil, found: &found)
  }

  /// - Parameter found: counts the tokens of `controls`, but for the unknown token, that the text spells.
  private func encode(
    validated text: UnsafeBufferPointer<UInt8>, addSpecialTokens: Bool, parseAddedTokens: Bool,
    _ controls: ControlTokens?, found: inout Int
  ) -> [Int32] {
    let encoder = takeEncoder()
    defer { idle.withLock { $0 = encoder } }
    if addSpecialTokens { for id in settings.prefix { encoder.append(id) } }
    if let base = text.baseAddress {
      let view = TextView(base: base, end: text.count, categories: .shared)
      if let domains {
        encode(view, in: domains, parseAddedTokens, controls, found: &found, encoder)
      } else if rawTokens.isEmpty {
        encode(piece: view, isStart: true, parseAddedTokens, controls, found: &found, encoder)
      } else {
        rawTokens.split(view, skipsSpecial: !parseAddedTokens, controls) { id, start, end in
          if id >= 0 {
            append(id, controls, found: &found, encoder)
          } else {
            let piece = TextView(base: base + start, end: end - start, categories: view.categories)
            var inside = controls
            if let controls { inside?.own = controls.own.clamped(to: start..<end) }
            encode(piece: piece, isStart: start == 0, parseAddedTokens, inside, found: &found, encoder)
          }
        }
      }
    }
    if addSpecialTokens { for id in settings.suffix { encoder.append(id) } }
    return encoder.takeOutput()
  }

  private func takeEncoder() -> WordEncoder {
    let kept = idle.withLock { slot in
      let kept = slot
      slot = nil
      return kept
    }
    return kept ?? WordEncoder(tables, settings, stepCount: steps.count, fallbackTokens: fallbackTokens)
  }

  /// An added token that the text spells.
  private func append(_ id: Int32, _ controls: ControlTokens?, found: inout Int, _ encoder: WordEncoder) {
    encoder.append(id)
    if let controls, controls.ids.contains(id), id != settings.unknownToken { found += 1 }
  }

  /// A whole text, in parts of which the pieces of domains are the tokens.
  private func encode(
    _ whole: TextView, in domains: DomainSet, _ parseAddedTokens: Bool, _ controls: ControlTokens?, found: inout Int,
    _ encoder: WordEncoder
  ) {
    // Unlike elsewhere, what is added is found in normalized text.
    normalizer.normalize(whole, &encoder.normalized)
    let text = TextView(
      base: UnsafePointer(encoder.normalized.text.base), end: encoder.normalized.text.count,
      categories: whole.categories)
    var controls = controls
    if let own = controls?.own {
      controls?.own = normalizer.ranges(own, of: whole, in: UnsafeBufferPointer(start: text.base, count: text.end))
    }
    var reader = DomainReader(domains) { part, model, isMark in
      if let model, !isMark { return self.encode(part, of: model, encoder) }
      let start = encoder.outputCount
      self.encode(spacing: part, encoder)
      if let model { encoder.replace(from: start, model.idsOfTokens) }
    }
    rawTokens.split(text, skipsSpecial: !parseAddedTokens, controls) { id, start, end in
      if id >= 0 {
        append(id, controls, found: &found, encoder)
        reader.read(token: id)
      } else {
        let part = TextView(base: text.base + start, end: end - start, categories: text.categories)
        if id == -1 { reader.read(part) } else { reader.read(mark: id, part) }
      }
    }
  }

  /// Text of the base vocabulary, in which ▁ is a space.
  private func encode(spacing text: TextView, _ encoder: WordEncoder) {
    var index = 0
    while index + 3 <= text.end {
      guard let found = memchr(text.base + index, Int32(Self.metaspace[0]), text.end - index - 2) else { break }
      index = UnsafeRawPointer(found) - UnsafeRawPointer(text.base)
      if Self.isMetaspace(text, at: index) {
        var spaced = ByteBuffer()
        TextNormalizer.replace(Self.metaspace, with: [UInt8(ascii: " ")], in: text, into: &spaced)
        encode(
          words: TextView(base: UnsafePointer(spaced.base), end: spaced.count, categories: text.categories),
          isStart: false,
          encoder)
        return
      }
      index += 1
    }
    encode(words: text, isStart: false, encoder)
  }

  /// Text of a domain: its pieces, and the base vocabulary's tokens for what has none.
  private func encode(_ text: TextView, of model: DomainSet.Model, _ encoder: WordEncoder) {
    let (bytes, parts) = model.encoder.encode(UnsafeBufferPointer(start: text.base, count: text.end))
    bytes.withUnsafeBufferPointer {
      guard let base = $0.baseAddress else { return }
      for part in parts {
        guard part.piece == 0 else {
          encoder.append(model.ids[Int(part.piece)])
          continue
        }
        let start = encoder.outputCount
        let unknown = TextView(base: base + part.range.lowerBound, end: part.range.count, categories: text.categories)
        encode(spacing: unknown, encoder)
        // The model may know what that made after all.
        encoder.replace(from: start, model.idsOfTokens)
      }
    }
  }

  /// Text between added tokens that are not normalized.
  private func encode(
    piece: TextView, isStart: Bool, _ parseAddedTokens: Bool, _ controls: ControlTokens?, found: inout Int,
    _ encoder: WordEncoder
  ) {
    var text = piece
    var controls = controls
    if !normalizer.isEmpty {
      normalizer.normalize(piece, &encoder.normalized)
      text = TextView(
        base: UnsafePointer(encoder.normalized.text.base), end: encoder.normalized.text.count,
        categories: piece.categories)
      if let own = controls?.own, !normalizedTokens.isEmpty {
        controls?.own = normalizer.ranges(
          own, of: piece, in: UnsafeBufferPointer(start: text.base, count: text.end))
      }
    }
    if normalizedTokens.isEmpty {
      encode(words: text, isStart: isStart, encoder)
    } else {
      normalizedTokens.split(text, skipsSpecial: !parseAddedTokens, controls) { id, start, end in
        if id >= 0 {
          append(id, controls, found: &found, encoder)
        } else {
          let words = TextView(base: text.base + start, end: end - start, categories: text.categories)
          encode(words: words, isStart: isStart && start == 0, encoder)
        }
      }
    }
  }

  /// Normalized text between added tokens, or a piece of it that the steps before `step` made.
  private func encode(words text: TextView, step: Int = 0, isStart: Bool, _ encoder: WordEncoder) {
    guard text.end > 0 else { return }
    guard step < steps.count else {
      if settings.model == .sentencePiece { encode(spaced: text, encoder) } else { encoder.encode(text.base, text.end) }
      return
    }
    let memory = encoder.memory[step]
    func next(_ start: Int, _ end: Int) {
      let piece = TextView(base: text.base + start, end: end - start, categories: text.categories)
      encode(words: piece, step: step + 1, isStart: isStart && start == 0, encoder)
    }
    switch steps[step] {
    case .split(let matcher, .isolated, false, let isBytes):
      if step + 1 == steps.count && settings.model == .byteLevel {
        matcher.forEachPart(of: text, isBytes: isBytes, memory.scratch) { start, end, _ in
          if start < end { encoder.encode(text.base + start, end - start) }
        }
      } else {
        matcher.forEachPiece(of: text, isBytes: isBytes, memory.scratch) { start, end, _ in next(start, end) }
      }
    case .split(let matcher, let behavior, let isInverted, let isBytes):
      var cutter = PieceCutter(behavior, isInverted: isInverted)
      matcher.forEachPiece(of: text, isBytes: isBytes, memory.scratch) { start, end, isMatch in
        cutter.add(start, end, isMatch: isMatch, next)
      }
      cutter.finish(next)
    case .pattern(.gpt2): encode(text, GPT2Pattern.self, from: 0, encoder)
    case .pattern(.gpt2Digits): encodeDigits(text, encoder)
    case .pattern(.llama3): encode(text, Llama3Pattern<ThreeNumbers>.self, from: 0, encoder)
    case .pattern(.qwen2): encode(text, Llama3Pattern<OneNumber>.self, from: 0, encoder)
    case .prefixSpace:
      guard text.base[0] != UInt8(ascii: " ") else {
        encode(words: text, step: step + 1, isStart: isStart, encoder)
        return
      }
      memory.text.count = 0
      memory.text.append([UInt8(ascii: " ")])
      memory.text.append(text.base, text.end)
      encode(words: view(memory, text), step: step + 1, isStart: isStart, encoder)
    case .metaspace(let prepend, let splits):
      memory.text.count = 0
      let startsSpaced = text.base[0] == UInt8(ascii: " ") || Self.isMetaspace(text, at: 0)
      if !startsSpaced && (prepend == .always || (prepend == .first && isStart)) {
        memory.text.append(Self.metaspace)
      }
      TextNormalizer.replace([UInt8(ascii: " ")], with: Self.metaspace, in: text, into: &memory.text)
      let spaced = view(memory, text)
      var start = 0
      if splits {
        for index in 1..<spaced.end where Self.isMetaspace(spaced, at: index) {
          let piece = TextView(base: spaced.base + start, end: index - start, categories: text.categories)
          encode(words: piece, step: step + 1, isStart: isStart && start == 0, encoder)
          start = index
        }
      }
      let piece = TextView(base: spaced.base + start, end: spaced.end - start, categories: text.categories)
      encode(words: piece, step: step + 1, isStart: isStart && start == 0, encoder)
    }
  }

  @inline(__always)
  private func encode<Pattern: WordPattern>(
    _ text: TextView, _: Pattern.Type, from start: Int, _ encoder: WordEncoder
  ) {
    var start = start
    while start < text.end {
      let end = Pattern.end(of: start, in: text)
      encoder.encode(text.base + start, end - start)
      start = end
    }
  }

  /// Each digit is a text of its own for GPT-2's expression, and so is what stands between two.
  private func encodeDigits(_ text: TextView, _ encoder: WordEncoder) {
    var start = 0
    while start < text.end {
      var end = start
      while end < text.end {
        let (bits, length) = text.category(at: end)
        if bits & UnicodeCategories.numeric != 0 {
          if end == start { end += length }
          break
        }
        end += length
      }
      encode(
        TextView(base: text.base, end: end, categories: text.categories), GPT2Pattern.self, from: start, encoder)
      start = end
    }
  }

  private func view(_ memory: PieceStep.Memory, _ text: TextView) -> TextView {
    TextView(base: UnsafePointer(memory.text.base), end: memory.text.count, categories: text.categories)
  }

  @inline(__always)
  private static func isMetaspace(_ text: TextView, at index: Int) -> Bool {
    index + 3 <= text.end && text.base[index] == 0xE2 && text.base[index + 1] == 0x96 && text.base[index + 2] == 0x81
  }

  /// Text whose spaces are ▁, cut before each ▁ where the vocabulary lets it.
  private func encode(spaced text: TextView, _ encoder: WordEncoder) {
    let base = text.base
    guard let joinsSpace else {
      encoder.encode(base, text.end)
      return
    }
    joinsSpace.withUnsafeBufferPointer { joins in
      var start = 0
      var index = 1
      while index + 3 <= text.end {
        if Self.isMetaspace(text, at: index), !joins[Int(base[index - 1])] {
          encoder.encode(base + start, index - start)
          start = index
        }
        index += 1
      }
      encoder.encode(base + start, text.end - start)
    }
  }

  // MARK: Decoding

  /// The text of `ids`; ids that the vocabulary does not have are left out.
  ///
  /// - Parameter skipSpecialTokens: leaves special tokens out.
  package func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool) -> String {
    var stream = DecodingStream(self, skipSpecialTokens: skipSpecialTokens)
    var out: [UInt8] = []
    for id in ids { stream.append(id, to: &out) }
    stream.finish(to: &out)
    return String(decoding: out, as: UTF8.self)
  }

  // MARK: The vocabulary

  /// The bytes of token `id`: what it stands for, before the decoder's rules for spaces and bytes. Empty for an id
  /// that the vocabulary does not have.
  package func bytes(of id: Int32) -> [UInt8] { contains(id) ? [UInt8](tables.token(Int(id))) : [] }

  /// The id of the added token or, failing that, the token whose bytes are those of `token`.
  package func id(of token: String) -> Int32? {
    var token = token
    return token.withUTF8 { bytes in
      guard let base = bytes.baseAddress, bytes.count > 0 else { return nil }
      for matcher in [rawTokens, normalizedTokens] {
        if let id = matcher.id(of: bytes) { return id }
      }
      return tables.token(base, bytes.count, hash: tables.hash(base, bytes.count)).map(Int32.init)
    }
  }

  /// The tokens that are found in a text before anything else happens to it.
  package var addedTokens: [TokenizerDefinition.AddedToken] {
    (rawTokens.tokens + normalizedTokens.tokens).filter { $0.id >= 0 }
  }

  /// Whether `id` is a special token: one that controls the model rather than being text.
  package func isSpecial(_ id: Int32) -> Bool {
    id >= 0 && Int(id) < vocabularySize && specialBits[Int(id) / 64] >> (id % 64) & 1 == 1
  }

  /// Whether the vocabulary has a token `id`.
  package func contains(_ id: Int32) -> Bool {
    id >= 0 && Int(id) < vocabularySize && usedBits[Int(id) / 64] >> (id % 64) & 1 == 1
  }
}
