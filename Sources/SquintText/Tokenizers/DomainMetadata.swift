import SquintFile

// Domains as the model file holds them: formats/tokenizer.md, "Domains".

extension TokenizerDefinition.Domains {
  private enum Key {
    static let mode = "tokenizer.domains.mode"
    static let count = "tokenizer.domains.count"
    static let protected = "tokenizer.domains.protected"
    static let firstID = "first_id"
    static let algorithm = "algorithm"
    static let pieces = "pieces"
    static let pieceLengths = "piece_lengths"
    static let pieceKinds = "piece_kinds"
    static let pieceScores = "piece_scores"
    static let characterMap = "character_map"
    static let options = "options"
    static let tags = "tags"
    static let detection = "detection"
    static let ofModels = [
      firstID, algorithm, pieces, pieceLengths, pieceKinds, pieceScores, characterMap, options,
      tags,
      detection,
    ]

    static func of(_ index: Int, _ name: String) -> String { "tokenizer.domains.\(index).\(name)" }
  }

  private enum Option: String, CaseIterable {
    case dummyPrefix = "dummy_prefix"
    case removeExtraWhitespace = "remove_extra_whitespace"
    case escapeWhitespace = "escape_whitespace"
    case whitespaceAsSuffix = "whitespace_as_suffix"
    case byteFallback = "byte_fallback"

    var path: WritableKeyPath<TokenizerDefinition.PieceModel, Bool> {
      switch self {
      case .dummyPrefix: \.addsDummyPrefix
      case .removeExtraWhitespace: \.removesExtraWhitespace
      case .escapeWhitespace: \.escapesWhitespace
      case .whitespaceAsSuffix: \.treatsWhitespaceAsSuffix
      case .byteFallback: \.byteFallback
      }
    }
  }

  /// Every key of domains.
  static let keys = Set(
    [Key.mode, Key.count, Key.protected]
      + (0..<maximumModels).flatMap { index in Key.ofModels.map { Key.of(index, $0) } })

  func write(to metadata: inout Metadata) {
    for key in Self.keys { metadata[key] = nil }
    guard !models.isEmpty else { return }
    metadata[Key.mode] = mode == .detect ? nil : .string(mode.rawValue)
    metadata[Key.count] = .int(Int64(models.count))
    metadata[Key.protected] = Self.texts(protections)
    for (index, model) in models.enumerated() {
      metadata[Key.of(index, Key.firstID)] = .int(Int64(model.firstID))
      metadata[Key.of(index, Key.algorithm)] = .string(model.algorithm.rawValue)
      metadata[Key.of(index, Key.pieces)] = .bytes(model.pieceBytes)
      metadata[Key.of(index, Key.pieceLengths)] = .bytes(littleEndianBytes(model.pieceLengths))
      metadata[Key.of(index, Key.pieceKinds)] = .bytes(model.pieceKinds)
      metadata[Key.of(index, Key.pieceScores)] = .bytes(littleEndianBytes(model.pieceScores))
      metadata[Key.of(index, Key.characterMap)] = model.characterMap.isEmpty ? nil : .bytes(model.characterMap)
      let options = Option.allCases.filter { model[keyPath: $0.path] }
      metadata[Key.of(index, Key.options)] = options.isEmpty ? nil : .strings(options.map(\.rawValue))
      metadata[Key.of(index, Key.tags)] = Self.texts(model.tags)
      metadata[Key.of(index, Key.detection)] = model.detection.map { .string($0.rawValue) }
    }
  }

  init(metadata: Metadata) throws(SquintError) {
    self.init()
    let modeName = try metadata.string(Key.mode, default: Mode.detect.rawValue)
    guard let mode = Mode(rawValue: modeName) else { throw TokenizerDefinition.unknown(Key.mode, modeName) }
    self.mode = mode
    protections = try Self.tags(metadata, Key.protected)
    for index in 0..<(try metadata.int(Key.count, in: 1...Self.maximumModels)) {
      models.append(try Self.model(metadata, index))
    }
  }

  private static func model(_ metadata: Metadata, _ index: Int) throws(SquintError) -> TokenizerDefinition.PieceModel {
    let algorithmKey = Key.of(index, Key.algorithm)
    let name = try metadata.string(algorithmKey)
    guard let algorithm = TokenizerDefinition.PieceModel.Algorithm(rawValue: name) else {
      throw TokenizerDefinition.unknown(algorithmKey, name)
    }
    let firstID = try metadata.int(Key.of(index, Key.firstID), in: 0...TokenizerDefinition.maximumVocabularySize)
    var model = TokenizerDefinition.PieceModel(firstID: Int32(firstID), algorithm: algorithm)
    model.pieceBytes = try metadata.bytes(Key.of(index, Key.pieces))
    model.pieceLengths = try TokenizerDefinition.integers(metadata, Key.of(index, Key.pieceLengths))
    model.pieceKinds = try metadata.bytes(Key.of(index, Key.pieceKinds))
    model.pieceScores = try TokenizerDefinition.integers(metadata, Key.of(index, Key.pieceScores))
    let mapKey = Key.of(index, Key.characterMap)
    if metadata[mapKey] != nil { model.characterMap = try metadata.bytes(mapKey) }
    let optionsKey = Key.of(index, Key.options)
    for word in try metadata.strings(optionsKey) {
      guard let option = Option(rawValue: word) else { throw TokenizerDefinition.unknown(optionsKey, word) }
      model[keyPath: option.path] = true
    }
    model.tags = try tags(metadata, Key.of(index, Key.tags))
    let detectionKey = Key.of(index, Key.detection)
    if metadata[detectionKey] != nil {
      let name = try metadata.string(detectionKey)
      guard let detection = TokenizerDefinition.PieceModel.Detection(rawValue: name) else {
        throw TokenizerDefinition.unknown(detectionKey, name)
      }
      model.detection = detection
    }
    return model
  }

  private static func texts(_ tags: [TokenizerDefinition.Tags]) -> MetadataValue? {
    tags.isEmpty ? nil : .strings(tags.flatMap { [$0.opening, $0.closing] })
  }

  private static func tags(_ metadata: Metadata, _ key: String) throws(SquintError) -> [TokenizerDefinition.Tags] {
    let texts = try metadata.strings(key)
    guard texts.count % 2 == 0 else { throw SquintError(.badData, "metadata \(key) ends within a pair of tags") }
    return stride(from: 0, to: texts.count, by: 2).map { .init(opening: texts[$0], closing: texts[$0 + 1]) }
  }
}
