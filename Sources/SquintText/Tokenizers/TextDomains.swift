import SquintFile

extension TokenizerDefinition {
  /// Parts of a text that SentencePiece models cut into tokens in place of the merges: between tags, and what looks like a molecule
  /// or a sequence (Intern-S1; formats/tokenizer.md, "Domains").
  package struct Domains: Sendable, Equatable {
    /// What switches to a model.
    package enum Mode: String, Sendable {
      /// Tags, and what is found in the text between them.
      case detect
      case tags
      /// Nothing: as if there were no domains.
      case none
    }

    package var mode = Mode.detect
    package var models: [PieceModel] = []
    /// Between these nothing is looked for. They are no tokens.
    package var protections: [Tags] = []

    package init() {}

    /// Whether anything of them counts.
    package var isActive: Bool { mode != .none && !models.isEmpty }
  }

  /// Two texts around a part of a text.
  package struct Tags: Sendable, Equatable {
    package var opening: String
    package var closing: String

    package init(opening: String, closing: String) {
      self.opening = opening
      self.closing = closing
    }
  }

  /// A SentencePiece model (google/sentencepiece), whose pieces have ids in a row.
  package struct PieceModel: Sendable, Equatable {
    package enum Algorithm: String, Sendable {
      case unigram
      case bpe
    }

    /// ModelProto.SentencePiece.Type.
    package enum PieceKind: UInt8, Sendable {
      case normal = 1
      case unknown = 2
      case control = 3
      case userDefined = 4
      case unused = 5
      case byte = 6
    }

    /// What is looked for in text that has no tags.
    package enum Detection: String, Sendable {
      /// Molecules in SMILES notation.
      case molecules = "smiles"
      /// Sequences of letters for amino acids or bases.
      case sequences = "fasta"
    }

    /// The id of the first piece, which is the unknown one.
    package var firstID: Int32
    package var algorithm: Algorithm
    /// The pieces as the model writes them (spaces as ▁), one after the other.
    package var pieceBytes: [UInt8] = []
    package var pieceLengths: [UInt16] = []
    /// Raw values of `PieceKind`.
    package var pieceKinds: [UInt8] = []
    /// Bit patterns of f32.
    package var pieceScores: [UInt32] = []
    /// What takes the place of what before the text is cut, as the model has it (`precompiled_charsmap`); may be empty.
    package var characterMap: [UInt8] = []
    package var addsDummyPrefix = false
    package var removesExtraWhitespace = false
    package var escapesWhitespace = false
    /// Spaces come at the end of words: the dummy prefix is a suffix.
    package var treatsWhitespaceAsSuffix = false
    package var byteFallback = false
    /// Added tokens around text of this model.
    package var tags: [Tags] = []
    package var detection: Detection?

    package init(firstID: Int32, algorithm: Algorithm) {
      self.firstID = firstID
      self.algorithm = algorithm
    }

    package var count: Int { pieceLengths.count }
  }
}

// MARK: - Validation

extension TokenizerDefinition.Domains {
  package static let maximumModels = 8
  static let maximumTags = 16
  static let maximumPieces = 65_536
  static let maximumPieceBytes = 256
  /// Of all pieces of a model. A trie of them takes a dozen bytes for each.
  static let maximumBytes = 1 << 20
  static let maximumCharacterMapBytes = 4 << 20

  /// At most what a tokenizer holds for them, in bytes.
  var tableBytes: Int {
    models.reduce(0) { sum, model in
      sum + 32 * model.pieceBytes.count + 160 * model.count + 2 * model.characterMap.count + 4096
    }
  }
}

extension TokenizerDefinition {
  /// Throws where a part of the domains contradicts another, or the vocabulary.
  func validateDomains() throws(SquintError) {
    guard !domains.models.isEmpty else {
      guard domains.protections.isEmpty else { throw bad("parts are protected from domains that there are not") }
      return
    }
    guard model == .byteLevel else { throw bad("domains do not go with \(model.rawValue)") }
    guard domains.models.count <= Domains.maximumModels else {
      throw bad("\(grouped(domains.models.count)) domains; \(Domains.maximumModels) at most")
    }
    // The whole text is normalized before anything is looked for.
    guard !addedTokens.contains(where: \.isNormalized) else {
      throw bad("an added token is looked for in normalized text, which does not go with domains")
    }
    try validate(tags: domains.protections)
    var ids: [Range<Int>] = []
    for domain in domains.models {
      try validate(tags: domain.tags)
      try validate(domain)
      let range = Int(domain.firstID)..<Int(domain.firstID) + domain.count
      guard !ids.contains(where: { $0.overlaps(range) }) else { throw bad("two domains have the same ids") }
      ids.append(range)
    }
    let detections = domains.models.compactMap(\.detection)
    guard Set(detections).count == detections.count else { throw bad("two domains look for the same") }
  }

  private func validate(tags: [Tags]) throws(SquintError) {
    guard tags.count <= Domains.maximumTags else { throw bad("more than \(Domains.maximumTags) pairs of tags") }
    for text in tags.flatMap({ [$0.opening, $0.closing] }) {
      guard (1...Self.maximumAddedTokenBytes).contains(text.utf8.count) else {
        throw bad(
          "a tag is \(grouped(text.utf8.count)) bytes long; 1 to \(grouped(Self.maximumAddedTokenBytes)) are allowed")
      }
    }
  }

  private func validate(_ domain: PieceModel) throws(SquintError) {
    let count = domain.count
    guard (1...Domains.maximumPieces).contains(count) else {
      throw bad("a domain has \(grouped(count)) pieces; 1 to \(grouped(Domains.maximumPieces)) are allowed")
    }
    guard domain.pieceKinds.count == count, domain.pieceScores.count == count else {
      throw bad(
        "\(grouped(domain.pieceKinds.count)) kinds and \(grouped(domain.pieceScores.count)) scores for "
          + "\(grouped(count)) pieces of a domain")
    }
    guard domain.firstID >= 0, Int(domain.firstID) + count <= vocabularySize else {
      throw bad("the pieces of a domain, \(domain.firstID) and up, are not among \(grouped(vocabularySize)) ids")
    }
    guard domain.pieceLengths.allSatisfy({ (1...Domains.maximumPieceBytes).contains(Int($0)) }),
      domain.pieceBytes.count <= Domains.maximumBytes,
      domain.pieceLengths.reduce(0, { $0 + Int($1) }) == domain.pieceBytes.count
    else { throw bad("the lengths of a domain's pieces do not go with their bytes, or one is empty or too long") }
    for (index, kind) in domain.pieceKinds.enumerated() {
      guard let kind = PieceModel.PieceKind(rawValue: kind), (kind == .unknown) == (index == 0) else {
        throw bad(
          "piece \(grouped(index)) of a domain is of kind \(kind); the first is the unknown one, and no other is")
      }
    }
    guard domain.pieceScores.allSatisfy({ Float(bitPattern: $0).isFinite }) else {
      throw bad("a piece of a domain has a score that is no number")
    }
    var start = 0
    for length in domain.pieceLengths {
      guard isUTF8(domain.pieceBytes, start, start + Int(length)) else { throw bad("a piece of a domain is not UTF-8") }
      start += Int(length)
    }
    guard domain.characterMap.count <= Domains.maximumCharacterMapBytes else {
      throw bad("a domain's table of characters is longer than \(grouped(Domains.maximumCharacterMapBytes)) bytes")
    }
    guard CharacterMap(domain.characterMap) != nil else { throw bad("a domain's table of characters is damaged") }
    if domain.byteFallback {
      guard PieceTable(domain).bytePieces.allSatisfy({ $0 >= 0 }) else {
        throw bad("a domain falls back to bytes, and has no piece for some")
      }
    }
  }

  private func isUTF8(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Bool {
    bytes.withUnsafeBytes { UTF8Text.validPrefix(UnsafeRawBufferPointer(rebasing: $0[start..<end])) == end - start }
  }
}
