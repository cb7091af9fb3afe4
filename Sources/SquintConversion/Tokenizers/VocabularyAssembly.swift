import SquintFile
import SquintText

/// Gathers a source's tokens, in any order and by their written form, and lays them out as a definition has them.
struct VocabularyAssembly {
  /// The file that errors name.
  let name: String
  let model: TokenizerDefinition.Model
  private(set) var ids: [ByteString: Int32] = [:]
  private var tokens: [Int32: (text: String, isMergeable: Bool)] = [:]
  /// Tokens that nothing in the vocabulary makes, by the bytes that they decode to.
  private var literals: [Int32: [UInt8]] = [:]
  private(set) var added: [TokenizerDefinition.AddedToken] = []
  private var addedPlaces: [ByteString: Int] = [:]

  init(name: String, model: TokenizerDefinition.Model) {
    self.name = name
    self.model = model
  }

  func bad(_ message: String) -> SquintError { .badData(name, message) }

  /// Adds a token of the model's vocabulary.
  ///
  /// - Parameter isMergeable: whether text can become it without an added token.
  mutating func add(_ text: String, id: Int, isMergeable: Bool = true) throws(SquintError) {
    guard let id32 = Int32(exactly: id), (0..<TokenizerDefinition.maximumVocabularySize).contains(id) else {
      throw bad(
        "token '\(text.prefix(64))' has the id \(id), outside 0…\(TokenizerDefinition.maximumVocabularySize - 1)")
    }
    if let other = tokens[id32] {
      throw bad("the tokens '\(other.text.prefix(64))' and '\(text.prefix(64))' have the same id \(id)")
    }
    tokens[id32] = (text, isMergeable)
    let key = ByteString(Array(text.utf8))
    if ids[key] == nil { ids[key] = id32 }
  }

  /// Adds a token that a domain's model makes.
  mutating func addLiteral(_ bytes: [UInt8], id: Int32) { literals[id] = bytes }

  /// What has one of the ids `range`: the token's text.
  func firstToken(in range: Range<Int>) -> String? {
    for token in added where range.contains(Int(token.id)) { return token.content }
    guard let id = tokens.keys.filter({ range.contains(Int($0)) }).min() else { return nil }
    return tokens[id]?.text
  }

  /// Looks for no added token in normalized text.
  mutating func findsAddedTokensInTextItself() {
    for index in added.indices { added[index].isNormalized = false }
  }

  /// Adds a token that is looked for in the text; of two with the same text the later one counts.
  mutating func addAdded(_ token: TokenizerDefinition.AddedToken) throws(SquintError) {
    guard !token.content.isEmpty else { return }
    guard (0..<TokenizerDefinition.maximumVocabularySize).contains(Int(token.id)) else {
      throw bad("added token '\(token.content.prefix(64))' has the id \(token.id)")
    }
    let key = ByteString(Array(token.content.utf8))
    if let place = addedPlaces[key] {
      added[place] = token
    } else {
      addedPlaces[key] = added.count
      added.append(token)
    }
  }

  func addedToken(_ text: String) -> TokenizerDefinition.AddedToken? {
    addedPlaces[ByteString(Array(text.utf8))].map { added[$0] }
  }

  /// The id of the token written `text`: of an added token first.
  func id(_ text: String) -> Int32? {
    let key = ByteString(Array(text.utf8))
    return addedPlaces[key].map { added[$0].id } ?? ids[key]
  }

  /// One more than the highest id.
  var size: Int {
    max(
      tokens.keys.max().map { Int($0) + 1 } ?? 0, literals.keys.max().map { Int($0) + 1 } ?? 0,
      added.map { Int($0.id) + 1 }.max() ?? 0)
  }

  /// Writes vocabulary and added tokens to `definition`, whose normalizers are set.
  func write(to definition: inout TokenizerDefinition) throws(SquintError) {
    guard !tokens.isEmpty else { throw bad("the vocabulary is empty") }
    var addedByID: [Int32: TokenizerDefinition.AddedToken] = [:]
    for token in added { addedByID[token.id] = token }
    for id in 0..<Int32(size) {
      let modelToken = tokens[id]
      if let token = addedByID[id] {
        // The reference decodes a token that it looks for in normalized text to its normalized form.
        let text = token.isNormalized ? definition.normalized(token.content) : token.content
        let isSame = modelToken.map { $0.text.utf8.elementsEqual(text.utf8) && $0.isMergeable } ?? false
        try append(text, isMergeable: isSame, to: &definition)
      } else if let modelToken {
        try append(modelToken.text, isMergeable: modelToken.isMergeable, to: &definition)
      } else if let literal = literals[id] {
        try definition.appendToken(literal, kind: .literal)
      } else {
        try definition.appendToken([], kind: .unused)
      }
    }
    definition.addedTokens = added
  }

  private func append(
    _ text: String, isMergeable: Bool, to definition: inout TokenizerDefinition
  ) throws(SquintError) {
    switch model {
    case .sentencePiece: try definition.appendToken(Array(text.utf8), kind: isMergeable ? .normal : .literal)
    case .byteLevel:
      if let bytes = ByteLevelAlphabet.bytes(text) {
        try definition.appendToken(bytes, kind: isMergeable ? .normal : .literal)
      } else {
        // Not written in the alphabet of bytes, so no merge can make it; it decodes to itself.
        try definition.appendToken(Array(text.utf8), kind: .literal)
      }
    }
  }

  // MARK: Merges

  /// The ids of the two parts of a merge.
  func merge(_ left: String, _ right: String, rank: Int) throws(SquintError) -> [UInt32] {
    guard let leftID = ids[ByteString(Array(left.utf8))], let rightID = ids[ByteString(Array(right.utf8))] else {
      throw bad("merge \(rank + 1), '\(left.prefix(64)) \(right.prefix(64))', names a token that the vocabulary lacks")
    }
    return [UInt32(leftID), UInt32(rightID)]
  }

  /// A merge written as "left right".
  func merge(_ line: String, rank: Int) throws(SquintError) -> [UInt32] {
    let parts = line.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 2 else { throw bad("merge \(rank + 1), '\(line.prefix(64))', is not two tokens") }
    return try merge(String(parts[0]), String(parts[1]), rank: rank)
  }

  /// The merges that SentencePiece's scores stand for: each way to put a token together from two others, the highest
  /// score first (transformers, convert_slow_tokenizer.py, `generate_merges`).
  func merges(scores: [Int32: Double]) -> [UInt32] {
    struct Merge {
      var left: Int32
      var right: Int32
      var leftLength: Int
      var rightLength: Int
      var score: Double
    }
    var merges: [Merge] = []
    for id in tokens.keys.sorted() {
      guard let (text, isMergeable) = tokens[id], isMergeable, let score = scores[id] else { continue }
      let bytes = Array(text.utf8)
      let starts = bytes.indices.filter { bytes[$0] & 0xC0 != 0x80 }
      // No trained piece is longer than a few dozen characters; without a bound a hostile one would be quadratic.
      guard starts.count > 1, starts.count <= 512 else { continue }
      var local: [Merge] = []
      for (length, start) in starts.enumerated().dropFirst() {
        guard let left = ids[ByteString(Array(bytes[..<start]))], let right = ids[ByteString(Array(bytes[start...]))],
          tokens[left]?.isMergeable == true, tokens[right]?.isMergeable == true
        else { continue }
        local.append(
          Merge(left: left, right: right, leftLength: length, rightLength: starts.count - length, score: score))
      }
      merges += local.sorted { ($0.left, $0.right) < ($1.left, $1.right) }
    }
    let order = merges.indices.sorted {
      let (a, b) = (merges[$0], merges[$1])
      if a.score != b.score { return a.score > b.score }
      if a.leftLength != b.leftLength { return a.leftLength > b.leftLength }
      if a.rightLength != b.rightLength { return a.rightLength > b.rightLength }
      return $0 < $1
    }
    return order.flatMap { [UInt32(merges[$0].left), UInt32(merges[$0].right)] }
  }
}
