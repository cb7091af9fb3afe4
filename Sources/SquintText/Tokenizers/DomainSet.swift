import SquintFile

/// The domains of a definition, ready to run.
struct DomainSet: Sendable {
  struct Model: Sendable {
    let encoder: PieceEncoder
    /// The id of each piece.
    let ids: [Int32]
    /// Of tokens of the base vocabulary that are written as a piece is: that piece's id.
    let idsOfTokens: [Int32: Int32]
  }

  /// What a tag or a mark does.
  enum Switch: Sendable {
    case open(Int)
    case close
    /// Tags of parts in which nothing is looked for, and no model begins.
    case protect
    case unprotect
  }

  let models: [Model]
  let detects: Bool
  /// The models of what is found in the text.
  let molecules: Int?
  let sequences: Int?
  /// What each of the added tokens that are tags does, and each of `marks`.
  let switches: [Int32: Switch]
  /// The tags that are not tokens, under ids less than -1.
  let marks: [TokenizerDefinition.AddedToken]
  /// The ids of the tags that are tokens.
  let tags: Set<Int32>
  /// What stands around found parts in the reference. Text that is one of them and nothing else is taken for it.
  let transientMarks: [(text: [UInt8], action: Switch)]

  init(_ definition: TokenizerDefinition, _ tables: TokenTables) {
    let domains = definition.domains
    var added: [String: Int32] = [:]
    for token in definition.addedTokens where added[token.content] == nil { added[token.content] = token.id }
    var models: [Model] = []
    var switches: [Int32: Switch] = [:]
    var transientMarks: [(text: [UInt8], action: Switch)] = []
    for (index, domain) in domains.models.enumerated() {
      models.append(Self.model(domain, added, tables))
      for tags in domain.tags {
        if let id = added[tags.opening] { switches[id] = .open(index) }
        if let id = added[tags.closing] { switches[id] = .close }
      }
      guard let name = domain.detection?.rawValue.uppercased() else { continue }
      transientMarks.append((Array("<\(name)_AUTO_DETECT>".utf8), .open(index)))
      transientMarks.append((Array("</\(name)_AUTO_DETECT>".utf8), .close))
    }
    tags = Set(switches.keys)
    var marks: [TokenizerDefinition.AddedToken] = []
    for (index, tags) in domains.protections.enumerated() where domains.mode == .detect {
      for (offset, text) in [tags.opening, tags.closing].enumerated() {
        guard let id = added[text] else {
          let id = Int32(-2 - 2 * index - offset)
          marks.append(.init(id: id, content: text))
          switches[id] = offset == 0 ? .protect : .unprotect
          continue
        }
        if switches[id] == nil { switches[id] = offset == 0 ? .protect : .unprotect }
      }
    }
    self.models = models
    self.switches = switches
    self.marks = marks
    self.transientMarks = domains.mode == .detect ? transientMarks : []
    detects = domains.mode == .detect
    molecules = domains.models.firstIndex { $0.detection == .molecules }
    sequences = domains.models.firstIndex { $0.detection == .sequences }
  }

  private static func model(
    _ domain: TokenizerDefinition.PieceModel, _ added: [String: Int32], _ tables: TokenTables
  ) -> Model {
    var ids: [Int32] = []
    var idsOfTokens: [Int32: Int32] = [:]
    var start = 0
    for (index, length) in domain.pieceLengths.enumerated() {
      let text = String(decoding: domain.pieceBytes[start..<start + Int(length)], as: UTF8.self)
      start += Int(length)
      // A piece that is written as an added token is that token.
      let id = added[text] ?? domain.firstID + Int32(index)
      ids.append(id)
      guard index > 0, let bytes = ByteAlphabet.bytes(text) else { continue }
      let token = bytes.withUnsafeBufferPointer { bytes in
        bytes.baseAddress.flatMap { tables.token($0, bytes.count, hash: tables.hash($0, bytes.count)) }
      }
      if let token { idsOfTokens[Int32(token)] = id }
    }
    return Model(encoder: PieceEncoder(domain), ids: ids, idsOfTokens: idsOfTokens)
  }
}

/// Follows the tags of a text from its start, and says of each part which model reads it.
struct DomainReader {
  private let domains: DomainSet
  /// Takes a part of the text, not empty, the model whose domain it is in, if any, and whether it is a mark, which the base
  /// vocabulary reads wherever it stands.
  private let body: (_ text: TextView, _ model: DomainSet.Model?, _ isMark: Bool) -> Void
  /// The models whose parts have begun and not ended.
  private var open: [Int] = []
  /// How many tags keep detection off.
  private var depth = 0

  init(_ domains: DomainSet, _ body: @escaping (_ text: TextView, _ model: DomainSet.Model?, _ isMark: Bool) -> Void) {
    self.domains = domains
    self.body = body
  }

  private mutating func apply(_ action: DomainSet.Switch) {
    switch action {
    case .open(let model): open.append(model)
    // Which model it closes is not asked: wrong nesting closes the last one.
    case .close: _ = open.popLast()
    case .protect, .unprotect: break
    }
  }

  /// An added token.
  mutating func read(token id: Int32) {
    guard let action = domains.switches[id] else { return }
    switch action {
    case .open, .protect: depth += 1
    case .close, .unprotect: depth = max(0, depth - 1)
    }
    apply(action)
  }

  /// A tag that is no token.
  mutating func read(mark id: Int32, _ text: TextView) {
    read(token: id)
    body(text, open.last.map { domains.models[$0] }, true)
  }

  /// Text between added tokens and marks.
  mutating func read(_ text: TextView) {
    guard domains.detects, depth == 0 else { return read(plain: text) }
    guard let molecules = domains.molecules else { return readSequences(text) }
    var parts: [(isMolecule: Bool, start: Int, end: Int)] = []
    DomainDetection.forEachMolecule(in: text) { parts.append(($0, $1, $2)) }
    for part in parts {
      if part.isMolecule { open.append(molecules) }
      readSequences(TextView(base: text.base + part.start, end: part.end - part.start, categories: text.categories))
      if part.isMolecule { _ = open.popLast() }
    }
  }

  private mutating func readSequences(_ text: TextView) {
    guard let sequences = domains.sequences else { return read(plain: text) }
    var parts: [(isSequence: Bool, start: Int, end: Int)] = []
    DomainDetection.forEachSequence(in: text) { parts.append(($0, $1, $2)) }
    for part in parts {
      if part.isSequence { open.append(sequences) }
      read(plain: TextView(base: text.base + part.start, end: part.end - part.start, categories: text.categories))
      if part.isSequence { _ = open.popLast() }
    }
  }

  private mutating func read(plain text: TextView) {
    for mark in domains.transientMarks where mark.text.count == text.end {
      if mark.text.elementsEqual(UnsafeBufferPointer(start: text.base, count: text.end)) { return apply(mark.action) }
    }
    body(text, open.last.map { domains.models[$0] }, false)
  }
}

extension ByteAlphabet {
  /// The byte that each of the first 324 scalars stands for; -1 where it stands for none.
  private static let byteOfScalar: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x144)
    for byte in 0..<256 { table[Int(scalar(of: UInt8(byte)))] = Int16(byte) }
    return table
  }()

  /// The byte that `scalar` stands for, if any.
  package static func byte(of scalar: Unicode.Scalar) -> UInt8? {
    scalar.value < 0x144 ? UInt8(exactly: byteOfScalar[Int(scalar.value)]) : nil
  }

  /// The bytes that `text` writes; nil where one of its characters writes none.
  package static func bytes(_ text: String) -> [UInt8]? {
    var out: [UInt8] = []
    out.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
      guard let byte = byte(of: scalar) else { return nil }
      out.append(byte)
    }
    return out
  }
}
