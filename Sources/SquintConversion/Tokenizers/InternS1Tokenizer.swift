import SquintFile
import SquintText

/// Intern-S1's tokenizer: Qwen2's, and SentencePiece models for molecules, their names, and sequences (transformers,
/// tokenization_intern_s1.py; tokenization_interns1.py of the checkpoint).
enum InternS1Tokenizer {
  static let className = "InternS1Tokenizer"

  /// A model, in the order of its ids, and the tags around its text, which are added tokens.
  private struct Domain {
    var name: String
    var tags: [String]
    var detection: TokenizerDefinition.PieceModel.Detection?

    var file: String { "tokenizer_\(name).model" }
  }

  private static let domains = [
    Domain(name: "SMILES", tags: ["SMILES", "SELFIES"], detection: .molecules),
    Domain(name: "IUPAC", tags: ["IUPAC"]),
    Domain(name: "FASTA", tags: ["FASTA"], detection: .sequences),
  ]

  /// Whether `folder` has this tokenizer: it has the files, or says so.
  ///
  /// - Throws: `SquintError.noInput` where it says so and a file is missing.
  static func isPresent(in folder: String, _ settings: TokenizerSettings) throws(SquintError) -> Bool {
    let isNamed = settings.config["tokenizer_class"]?.string == className
    guard isNamed || domains.allSatisfy({ HuggingFaceTokenizer.exists($0.file, in: folder) }) else { return false }
    for file in ["vocab.json", "merges.txt"] + domains.map(\.file) where !HuggingFaceTokenizer.exists(file, in: folder)
    {
      guard isNamed else { return false }
      throw SquintError(.noInput, "\(folder): \(file) is missing, which \(className) reads; add it to the folder")
    }
    return true
  }

  /// Whether a saved vocabulary means a domain's piece by `token`.
  static func isPieceName(_ token: String) -> Bool {
    token.hasSuffix("|>") && domains.contains { token.hasPrefix("<|\($0.name)_") }
  }

  /// Reads the models of `folder`, and gives their pieces ids.
  static func addDomains(
    of folder: String, to vocabulary: inout VocabularyAssembly, _ definition: inout TokenizerDefinition
  ) throws(SquintError) {
    // The whole text is normalized before added tokens are looked for.
    vocabulary.findsAddedTokensInTextItself()
    // Behind the domain before it and its tags, where the next one has no tag of its own to say where it is.
    var next: Int?
    for domain in domains {
      let path = folder + "/" + domain.file
      try SourceFile(path: path).refuseForeign()
      let file = try MappedFile(path: path)
      let source = try SentencePieceModel(parsing: file.bytes, name: path)
      let count = source.pieces.count
      // Its ids end where its tag is; in the published vocabulary these are 151,669, 151,929 and 152,443 and up.
      guard let first = vocabulary.addedToken("<\(domain.name)>").map({ Int($0.id) - count }) ?? next else {
        throw .badData(
          path,
          "no added token <\(domain.name)>, whose id says where the pieces' ids are; add it to tokenizer_config.json")
      }
      guard first >= 0, let firstID = Int32(exactly: first), first + count <= TokenizerDefinition.maximumVocabularySize
      else {
        throw .badData(path, "\(grouped(count)) pieces have no place before the added token <\(domain.name)>")
      }
      if let token = vocabulary.firstToken(in: first..<first + count) {
        throw .badData(
          path, "its \(grouped(count)) pieces would have the ids \(first) and up, among which '\(token.prefix(64))' is")
      }
      let model = try pieceModel(source, firstID: firstID, domain, vocabulary, name: path)
      for (index, piece) in source.pieces.enumerated() {
        vocabulary.addLiteral(decoded(piece.text), id: firstID + Int32(index))
      }
      let closing = model.tags.compactMap { vocabulary.addedToken($0.closing).map { Int($0.id) + 1 } }
      next = max(first + count, closing.max() ?? 0)
      definition.domains.models.append(model)
    }
    definition.domains.protections = [tags("MOLFORMULA")]
  }

  private static func tags(_ name: String) -> TokenizerDefinition.Tags {
    .init(opening: "<\(name)>", closing: "</\(name)>")
  }

  /// What a piece decodes to: its characters are bytes as the vocabulary writes them, ▁ a space. Characters that write no byte,
  /// which the reference cannot decode, are themselves.
  private static func decoded(_ piece: String) -> [UInt8] {
    var out: [UInt8] = []
    for scalar in piece.unicodeScalars {
      switch scalar {
      case "▁": out.append(UInt8(ascii: " "))
      default:
        if let byte = ByteAlphabet.byte(of: scalar) { out.append(byte) } else { out += Array(String(scalar).utf8) }
      }
    }
    return out
  }

  private static func pieceModel(
    _ source: SentencePieceModel, firstID: Int32, _ domain: Domain, _ vocabulary: VocabularyAssembly, name: String
  ) throws(SquintError) -> TokenizerDefinition.PieceModel {
    let algorithm: TokenizerDefinition.PieceModel.Algorithm
    switch source.modelType {
    case 1: algorithm = .unigram
    case 2: algorithm = .bpe
    default:
      let names = [3: "word", 4: "character"]
      throw .badData(
        name, "a SentencePiece \(names[source.modelType] ?? "unknown") model; only unigram and BPE are supported")
    }
    guard source.pieces.firstIndex(where: { $0.type == .unknown }) == 0 else {
      throw .badData(
        name, "the unknown piece is not the first, which \(className) relies on; train the model with unk_id 0")
    }
    var texts = Set<[UInt8]>()
    var model = TokenizerDefinition.PieceModel(firstID: firstID, algorithm: algorithm)
    for (index, piece) in source.pieces.enumerated() {
      let bytes = Array(piece.text.utf8)
      guard let length = UInt16(exactly: bytes.count), let kind = UInt8(exactly: piece.type.rawValue) else {
        throw .badData(name, "piece \(grouped(index)) is \(grouped(bytes.count)) bytes long")
      }
      guard texts.insert(bytes).inserted else {
        throw .badData(name, "the piece '\(piece.text.prefix(64))' is there twice")
      }
      model.pieceBytes += bytes
      model.pieceLengths.append(length)
      model.pieceKinds.append(kind)
      model.pieceScores.append(piece.score.bitPattern)
    }
    model.characterMap = source.characterMap
    model.addsDummyPrefix = source.addsDummyPrefix
    model.removesExtraWhitespace = source.removesExtraWhitespace
    model.escapesWhitespace = source.escapesWhitespace
    model.treatsWhitespaceAsSuffix = source.treatsWhitespaceAsSuffix
    model.byteFallback = source.byteFallback
    // A tag that is no added token is never found.
    model.tags = domain.tags.map(tags).filter {
      vocabulary.addedToken($0.opening) != nil || vocabulary.addedToken($0.closing) != nil
    }
    model.detection = domain.detection
    return model
  }
}
