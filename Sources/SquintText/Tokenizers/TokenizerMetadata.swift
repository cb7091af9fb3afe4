import SquintFile

// The tokenizer as the model file holds it: formats/tokenizer.md.

extension TokenizerDefinition {
  private enum Key {
    /// Every key below. What is under others is not read.
    static let all = Domains.keys.union([
      model, tokens, lengths, kinds, merges, ignoresMerges, byteFallback, fusesUnknown, unknown, bos, eos, pad,
      normalizers, preTokenizer, preTokenizerSteps, addsPrefixSpace, metaspacePrepend, metaspaceSplits, decoder,
      decoderByteFallback, decoderStrip, addedIDs, addedContents, addedFlags, prefix, suffix,
    ])
    static let model = "tokenizer.model"
    static let tokens = "tokenizer.tokens"
    static let lengths = "tokenizer.token_lengths"
    static let kinds = "tokenizer.token_kinds"
    static let merges = "tokenizer.merges"
    static let ignoresMerges = "tokenizer.ignore_merges"
    static let byteFallback = "tokenizer.byte_fallback"
    static let fusesUnknown = "tokenizer.fuse_unknown"
    static let unknown = "tokenizer.unknown_id"
    static let bos = "tokenizer.bos_id"
    static let eos = "tokenizer.eos_id"
    static let pad = "tokenizer.pad_id"
    static let normalizers = "tokenizer.normalizers"
    static let preTokenizer = "tokenizer.pre_tokenizer"
    static let preTokenizerSteps = "tokenizer.pre_tokenizer.steps"
    // Of files that name their pre-tokenizer.
    static let addsPrefixSpace = "tokenizer.add_prefix_space"
    static let metaspacePrepend = "tokenizer.metaspace.prepend"
    static let metaspaceSplits = "tokenizer.metaspace.split"
    static let decoder = "tokenizer.decoder"
    static let decoderByteFallback = "tokenizer.decoder.byte_fallback"
    static let decoderStrip = "tokenizer.decoder.strip"
    static let addedIDs = "tokenizer.added.ids"
    static let addedContents = "tokenizer.added.contents"
    static let addedFlags = "tokenizer.added.flags"
    static let prefix = "tokenizer.prefix"
    static let suffix = "tokenizer.suffix"

    /// The name of a model with domains, which readers that know none refuse.
    static let domainsModel = "byte_level_bpe_domains"
  }

  /// Whether `metadata` holds a tokenizer at all.
  package static func isPresent(in metadata: Metadata) -> Bool { metadata[Key.model] != nil }

  /// Whether a tokenizer is made of what is under `key`.
  package static func isKey(_ key: String) -> Bool { Key.all.contains(key) }

  /// The most bytes that a list of texts among them has: the added tokens', and four for the length of each.
  package static let maximumTextBytes = maximumAddedBytes + 4 * maximumAddedTokens

  /// What `metadata` holds of it in memory, in bytes; a definition that is made of it takes at most as much again.
  package static func storedBytes(in metadata: Metadata) -> Int {
    metadata.entries.reduce(0) { sum, entry in isKey(entry.key) ? sum + entry.value.byteCount : sum }
  }

  /// Writes every `tokenizer.*` key that differs from its default, in a fixed order.
  package func write(to metadata: inout Metadata) {
    metadata[Key.model] = .string(domains.models.isEmpty ? model.rawValue : Key.domainsModel)
    metadata[Key.tokens] = .bytes(tokenBytes)
    metadata[Key.lengths] = .bytes(littleEndianBytes(tokenLengths))
    metadata[Key.kinds] = .bytes(tokenKinds)
    metadata[Key.merges] = .bytes(littleEndianBytes(merges))
    metadata[Key.ignoresMerges] = ignoresMerges ? .bool(true) : nil
    metadata[Key.byteFallback] = byteFallback ? .bool(true) : nil
    metadata[Key.fusesUnknown] = fusesUnknown ? .bool(true) : nil
    metadata[Key.unknown] = unknownToken.map { .int(Int64($0)) }
    metadata[Key.bos] = bosToken.map { .int(Int64($0)) }
    metadata[Key.eos] = eosToken.map { .int(Int64($0)) }
    metadata[Key.pad] = padToken.map { .int(Int64($0)) }
    var steps: [String] = []
    for normalizer in normalizers {
      switch normalizer {
      case .nfc: steps.append("nfc")
      case .nfd: steps.append("nfd")
      case .prepend(let content): steps += ["prepend", content]
      case .replace(let pattern, let content): steps += ["replace", pattern, content]
      case .replaceMatches(let expression, let content): steps += ["replace_matches", expression, content]
      case .strip(let left, let right): steps += ["strip", left ? "left" : "-", right ? "right" : "-"]
      }
    }
    metadata[Key.normalizers] = steps.isEmpty ? nil : .strings(steps)
    metadata[Key.preTokenizer] = .string("steps")
    metadata[Key.preTokenizerSteps] = preTokenizers.isEmpty ? nil : .strings(preTokenizers.flatMap(\.words))
    switch decoder {
    case .byteLevel:
      metadata[Key.decoder] = .string("byte_level")
      metadata[Key.decoderByteFallback] = nil
      metadata[Key.decoderStrip] = nil
    case .sentencePiece(let byteFallback, let strippedSpaces):
      metadata[Key.decoder] = .string("sentencepiece")
      metadata[Key.decoderByteFallback] = byteFallback ? .bool(true) : nil
      metadata[Key.decoderStrip] = strippedSpaces == 0 ? nil : .int(Int64(strippedSpaces))
    }
    let hasAdded = !addedTokens.isEmpty
    metadata[Key.addedIDs] = hasAdded ? .ints(addedTokens.map { Int64($0.id) }) : nil
    metadata[Key.addedContents] = hasAdded ? .strings(addedTokens.map(\.content)) : nil
    metadata[Key.addedFlags] = hasAdded ? .bytes(addedTokens.map(\.flags)) : nil
    metadata[Key.prefix] = prefix.isEmpty ? nil : .ints(prefix.map(Int64.init))
    metadata[Key.suffix] = suffix.isEmpty ? nil : .ints(suffix.map(Int64.init))
    domains.write(to: &metadata)
    precondition(
      metadata.entries.allSatisfy { !$0.key.hasPrefix("tokenizer.") || Self.isKey($0.key) }, "what is written is read")
  }

  /// Reads the `tokenizer.*` keys.
  ///
  /// - Throws: `SquintError.badData` where a key is missing or its value contradicts another.
  package init(metadata: Metadata) throws(SquintError) {
    let modelName = try metadata.string(Key.model)
    let hasDomains = modelName == Key.domainsModel
    guard let model = hasDomains ? .byteLevel : Model(rawValue: modelName) else {
      throw Self.unknown(Key.model, modelName)
    }
    let decoderName = try metadata.string(Key.decoder)
    switch decoderName {
    case "byte_level": self.init(model: model, decoder: .byteLevel)
    case "sentencepiece":
      let byteFallback = try metadata.bool(Key.decoderByteFallback, default: false)
      let strip = try metadata.int(Key.decoderStrip, in: 0...1024, default: 0)
      self.init(model: model, decoder: .sentencePiece(byteFallback: byteFallback, strippedSpaces: strip))
    default: throw Self.unknown(Key.decoder, decoderName)
    }
    tokenBytes = try metadata.bytes(Key.tokens)
    tokenLengths = try Self.integers(metadata, Key.lengths)
    tokenKinds = try metadata.bytes(Key.kinds)
    merges = try Self.integers(metadata, Key.merges)
    ignoresMerges = try metadata.bool(Key.ignoresMerges, default: false)
    byteFallback = try metadata.bool(Key.byteFallback, default: false)
    fusesUnknown = try metadata.bool(Key.fusesUnknown, default: false)
    unknownToken = try Self.id(metadata, Key.unknown)
    bosToken = try Self.id(metadata, Key.bos)
    eosToken = try Self.id(metadata, Key.eos)
    padToken = try Self.id(metadata, Key.pad)
    normalizers = try Self.normalizers(metadata)
    preTokenizers = try Self.preTokenizers(metadata)
    addedTokens = try Self.addedTokens(metadata)
    prefix = try Self.ids(metadata, Key.prefix)
    suffix = try Self.ids(metadata, Key.suffix)
    if hasDomains { domains = try Domains(metadata: metadata) }
    try validate()
  }

  static func unknown(_ key: String, _ value: String) -> SquintError {
    SquintError(.badData, "metadata \(key) is '\(value)', which this version does not know; update Squint")
  }

  private static func id(_ metadata: Metadata, _ key: String) throws(SquintError) -> Int32? {
    metadata[key] == nil ? nil : Int32(try metadata.int(key, in: 0...maximumVocabularySize))
  }

  private static func ids(_ metadata: Metadata, _ key: String) throws(SquintError) -> [Int32] {
    var out: [Int32] = []
    for value in try metadata.ints(key) {
      guard (0...Int64(maximumVocabularySize)).contains(value) else {
        throw SquintError(.badData, "metadata \(key) holds \(value), which is no id")
      }
      out.append(Int32(value))
    }
    return out
  }

  static func integers<T: FixedWidthInteger>(
    _ metadata: Metadata, _ key: String
  ) throws(SquintError) -> [T] {
    let bytes = try metadata.bytes(key)
    let size = MemoryLayout<T>.size
    guard bytes.count % size == 0 else {
      throw SquintError(.badData, "metadata \(key) has \(grouped(bytes.count)) bytes, not a multiple of \(size)")
    }
    return bytes.withUnsafeBytes { source in
      [T](unsafeUninitializedCapacity: bytes.count / size) { target, count in
        for index in target.indices {
          let value = T(littleEndian: source.loadUnaligned(fromByteOffset: index * size, as: T.self))
          target.initializeElement(at: index, to: value)
        }
        count = target.count
      }
    }
  }

  /// Steps and their arguments, one after the other in one list.
  private struct Steps {
    let key: String
    private var words: ArraySlice<String>

    init(_ metadata: Metadata, _ key: String) throws(SquintError) {
      self.key = key
      words = try metadata.strings(key)[...]
    }

    mutating func next() -> String? { words.popFirst() }

    mutating func argument(of step: String) throws(SquintError) -> String {
      guard let word = words.popFirst() else {
        throw SquintError(.badData, "metadata \(key) ends within '\(step)'")
      }
      return word
    }

    mutating func argument<T: RawRepresentable>(
      of step: String, as _: T.Type = T.self
    ) throws(SquintError) -> T where T.RawValue == String {
      let word = try argument(of: step)
      guard let value = T(rawValue: word) else { throw TokenizerDefinition.unknown(key, word) }
      return value
    }

    mutating func flag(of step: String, _ yes: String, _ no: String) throws(SquintError) -> Bool {
      let word = try argument(of: step)
      guard word == yes || word == no else { throw TokenizerDefinition.unknown(key, word) }
      return word == yes
    }
  }

  private static func normalizers(_ metadata: Metadata) throws(SquintError) -> [Normalizer] {
    var out: [Normalizer] = []
    var steps = try Steps(metadata, Key.normalizers)
    while let step = steps.next() {
      switch step {
      case "nfc": out.append(.nfc)
      case "nfd": out.append(.nfd)
      case "prepend": out.append(.prepend(try steps.argument(of: step)))
      case "replace":
        out.append(.replace(pattern: try steps.argument(of: step), content: try steps.argument(of: step)))
      case "replace_matches":
        out.append(.replaceMatches(expression: try steps.argument(of: step), content: try steps.argument(of: step)))
      case "strip":
        out.append(
          .strip(left: try steps.flag(of: step, "left", "-"), right: try steps.flag(of: step, "right", "-")))
      default: throw unknown(Key.normalizers, step)
      }
    }
    return out
  }

  private static func preTokenizers(_ metadata: Metadata) throws(SquintError) -> [PreTokenizer] {
    let name = try metadata.string(Key.preTokenizer)
    guard name == "steps" else { return try namedPreTokenizers(name, metadata) }
    var out: [PreTokenizer] = []
    var steps = try Steps(metadata, Key.preTokenizerSteps)
    while let step = steps.next() {
      switch step {
      case "split":
        out.append(
          .split(
            expression: try steps.argument(of: step), try steps.argument(of: step),
            isInverted: try steps.flag(of: step, "gaps", "matches")))
      case "prefix_space": out.append(.prefixSpace)
      case "bytes": out.append(.bytes)
      case "metaspace":
        out.append(
          .metaspace(prepend: try steps.argument(of: step), splits: try steps.flag(of: step, "split", "whole")))
      default: throw unknown(Key.preTokenizerSteps, step)
      }
    }
    return out
  }

  /// Those of files that name what others say in steps.
  private static func namedPreTokenizers(_ name: String, _ metadata: Metadata) throws(SquintError) -> [PreTokenizer] {
    let front: [PreTokenizer] = try metadata.bool(Key.addsPrefixSpace, default: false) ? [.prefixSpace] : []
    switch name {
    case "none": return front
    case "gpt2": return front + [.gpt2]
    case "gpt2_digits": return [.digits, .gpt2]
    case "llama3": return [.llama3]
    case "qwen2": return [.qwen2]
    case "metaspace":
      let prepend = try metadata.string(Key.metaspacePrepend, default: "never")
      guard let prepend = MetaspacePrepend(rawValue: prepend) else { throw unknown(Key.metaspacePrepend, prepend) }
      return [.metaspace(prepend: prepend, splits: try metadata.bool(Key.metaspaceSplits, default: false))]
    default: throw unknown(Key.preTokenizer, name)
    }
  }

  private static func addedTokens(_ metadata: Metadata) throws(SquintError) -> [AddedToken] {
    let ids = try ids(metadata, Key.addedIDs)
    guard !ids.isEmpty else { return [] }
    let contents = try metadata.strings(Key.addedContents)
    let flags = try metadata.bytes(Key.addedFlags)
    guard contents.count == ids.count, flags.count == ids.count else {
      throw SquintError(
        .badData,
        "metadata tokenizer.added: \(grouped(ids.count)) ids, \(grouped(contents.count)) texts, "
          + "\(grouped(flags.count)) flags")
    }
    var out: [AddedToken] = []
    for index in ids.indices {
      guard flags[index] < 32 else {
        throw SquintError(.badData, "metadata \(Key.addedFlags) holds \(flags[index]); update Squint")
      }
      out.append(AddedToken(id: ids[index], content: contents[index], flags: flags[index]))
    }
    return out
  }
}

extension TokenizerDefinition.PreTokenizer {
  /// The step and its arguments.
  fileprivate var words: [String] {
    switch self {
    case .split(let expression, let behavior, let isInverted):
      ["split", expression, behavior.rawValue, isInverted ? "gaps" : "matches"]
    case .prefixSpace: ["prefix_space"]
    case .bytes: ["bytes"]
    case .metaspace(let prepend, let splits): ["metaspace", prepend.rawValue, splits ? "split" : "whole"]
    }
  }
}

extension TokenizerDefinition.AddedToken {
  fileprivate var flags: UInt8 {
    (isSpecial ? 1 : 0) | (stripsLeft ? 2 : 0) | (stripsRight ? 4 : 0) | (isSingleWord ? 8 : 0)
      | (isNormalized ? 16 : 0)
  }

  fileprivate init(id: Int32, content: String, flags: UInt8) {
    self.init(
      id: id, content: content, isSpecial: flags & 1 != 0, stripsLeft: flags & 2 != 0, stripsRight: flags & 4 != 0,
      isSingleWord: flags & 8 != 0, isNormalized: flags & 16 != 0)
  }
}

func littleEndianBytes<T: FixedWidthInteger>(_ values: [T]) -> [UInt8] {
  let size = MemoryLayout<T>.size
  return [UInt8](unsafeUninitializedCapacity: values.count * size) { target, count in
    let raw = UnsafeMutableRawBufferPointer(target)
    for (index, value) in values.enumerated() {
      raw.storeBytes(of: value.littleEndian, toByteOffset: index * size, as: T.self)
    }
    count = raw.count
  }
}
