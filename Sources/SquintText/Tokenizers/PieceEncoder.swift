import SquintFile

/// Byte strings by their starts: an edge per byte, those of a node in a row and ascending.
struct ByteTrie: Sendable {
  /// Of each node: its first edge, and the value of what ends there; -1 where nothing does.
  private var firstEdges: [Int32] = []
  private(set) var values: [Int32] = []
  private var edgeBytes: [UInt8] = []
  private var edgeNodes: [Int32] = []
  private var roots = [Int32](repeating: -1, count: 256)

  var isEmpty: Bool { edgeBytes.isEmpty }

  /// - Parameter keys: ranges of `bytes`, ascending by what they hold, none empty, and their values. Of equal ones the first
  ///   counts.
  init(_ bytes: [UInt8], keys: [(range: Range<Int>, value: Int32)]) {
    guard !keys.isEmpty else { return }
    var nodes = [(low: 0, high: keys.count, depth: 0)]
    var node = 0
    while node < nodes.count {
      let (first, high, depth) = nodes[node]
      var low = first
      firstEdges.append(Int32(edgeBytes.count))
      values.append(-1)
      while low < high && keys[low].range.count == depth {
        if values[node] < 0 { values[node] = keys[low].value }
        low += 1
      }
      while low < high {
        let byte = bytes[keys[low].range.lowerBound + depth]
        var end = low + 1
        while end < high && bytes[keys[end].range.lowerBound + depth] == byte { end += 1 }
        edgeBytes.append(byte)
        edgeNodes.append(Int32(nodes.count))
        if node == 0 { roots[Int(byte)] = Int32(nodes.count) }
        nodes.append((low, end, depth + 1))
        low = end
      }
      node += 1
    }
    firstEdges.append(Int32(edgeBytes.count))
  }

  static let root = 0

  /// The node that `byte` leads to, or -1.
  @inline(__always)
  func next(_ node: Int, _ byte: UInt8) -> Int {
    if node == Self.root { return Int(roots[Int(byte)]) }
    var low = Int(firstEdges[node])
    let end = Int(firstEdges[node + 1])
    var high = end
    while low < high {
      let middle = (low + high) / 2
      if edgeBytes[middle] < byte { low = middle + 1 } else { high = middle }
    }
    return low < end && edgeBytes[low] == byte ? Int(edgeNodes[low]) : -1
  }

  /// The value of exactly these bytes, or -1.
  func value(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int, _ end: Int) -> Int32 {
    guard !isEmpty else { return -1 }
    var node = Self.root
    for index in start..<end {
      node = next(node, bytes[index])
      if node < 0 { return -1 }
    }
    return values[node]
  }

  /// The longest of the strings that `bytes` has at `start`: its value and where it ends.
  func longest(_ bytes: UnsafeBufferPointer<UInt8>, at start: Int) -> (value: Int32, end: Int)? {
    guard !isEmpty else { return nil }
    var found: (Int32, Int)?
    var node = Self.root
    var index = start
    while index < bytes.count {
      node = next(node, bytes[index])
      guard node >= 0 else { break }
      index += 1
      if values[node] >= 0 { found = (values[node], index) }
    }
    return found
  }
}

/// The pieces of a model by their bytes.
struct PieceTable: Sendable {
  /// What text can become: normal, user-defined and unused pieces.
  let text: ByteTrie
  /// All others but the unknown one.
  let reserved: ByteTrie
  let userDefined: ByteTrie
  /// `<0xNN>` by byte; -1 where there is none.
  let bytePieces: [Int32]

  init(_ model: TokenizerDefinition.PieceModel) {
    var keys: [(range: Range<Int>, value: Int32)] = []
    var start = 0
    for (index, length) in model.pieceLengths.enumerated() {
      keys.append((start..<start + Int(length), Int32(index)))
      start += Int(length)
    }
    let bytes = model.pieceBytes
    keys.sort {
      let (left, right) = (bytes[$0.range], bytes[$1.range])
      return left.elementsEqual(right) ? $0.value < $1.value : left.lexicographicallyPrecedes(right)
    }
    func trie(_ kinds: Set<TokenizerDefinition.PieceModel.PieceKind>) -> ByteTrie {
      ByteTrie(
        bytes, keys: keys.filter { kinds.contains(.init(rawValue: model.pieceKinds[Int($0.value)]) ?? .unknown) })
    }
    text = trie([.normal, .userDefined, .unused])
    let reserved = trie([.control, .byte])
    self.reserved = reserved
    userDefined = trie([.userDefined])
    let digits = Array("0123456789ABCDEF".utf8)
    bytePieces = (0..<256).map { byte in
      let name = Array("<0x".utf8) + [digits[byte / 16], digits[byte % 16], UInt8(ascii: ">")]
      return name.withUnsafeBufferPointer { reserved.value($0, 0, $0.count) }
    }
  }

  /// The piece that is exactly these bytes, or -1 (`PieceToId`, without the unknown piece).
  func piece(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int, _ end: Int) -> Int32 {
    let reserved = reserved.value(bytes, start, end)
    return reserved >= 0 ? reserved : text.value(bytes, start, end)
  }
}

/// The table of replacements of a SentencePiece model: u32 size, that many bytes of units of a double array (s-yata/darts-clone), and the
/// contents, each ended by a zero. A path through it is bounded, whatever it holds.
struct CharacterMap: Sendable {
  /// The published tables have 12.
  private static let maximumPatternBytes = 64
  /// How many times as long a text may become.
  private static let maximumGrowth = 64

  private var units: [UInt32] = []
  private(set) var contents: [UInt8] = []

  /// Replaces nothing.
  init() {}

  /// Nil where `bytes` are no such table.
  init?(_ bytes: [UInt8]) {
    guard !bytes.isEmpty else { return }
    guard bytes.count > 4 else { return nil }
    func unit(_ start: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[start + $1]) << (8 * UInt32($1)) } }
    let size = Int(unit(0))
    guard size > 0, size % 4 == 0, size < bytes.count - 4, bytes.last == 0 else { return nil }
    units = stride(from: 4, to: 4 + size, by: 4).map(unit)
    contents = Array(bytes[(4 + size)...])
    guard contents.withUnsafeBytes({ UTF8Text.validPrefix($0) }) == contents.count else { return nil }
  }

  @inline(__always)
  private static func offset(_ unit: UInt32) -> Int { Int((unit >> 10) << ((unit & 0x200) >> 6)) }

  /// What takes the place of the longest pattern that `text` has at `start`, a range of `contents`, and where that ends.
  func longest(_ text: UnsafeBufferPointer<UInt8>, at start: Int) -> (content: Range<Int>, end: Int)? {
    guard let root = units.first else { return nil }
    var found: (Int, Int)?
    var place = Self.offset(root)
    let limit = min(text.count, start + Self.maximumPatternBytes)
    var index = start
    while index < limit {
      place ^= Int(text[index])
      guard place < units.count, units[place] & 0x8000_00FF == UInt32(text[index]) else { break }
      let unit = units[place]
      place ^= Self.offset(unit)
      index += 1
      // A pattern ends where a character does.
      guard unit & 0x100 != 0, place < units.count, index == text.count || text[index] & 0xC0 != 0x80 else { continue }
      found = (Int(units[place] & 0x7FFF_FFFF), index)
    }
    guard let (first, end) = found, first < contents.count, contents[first] & 0xC0 != 0x80 else { return nil }
    var last = first
    // A table ends with a zero.
    let most = Self.maximumGrowth * (end - start)
    while last - first <= most, contents[last] != 0 { last += 1 }
    return last - first <= most ? (first..<last, end) : nil
  }
}

/// Cuts text into pieces as SentencePiece's `Encode` does: normalizer.cc, unigram_model.cc (`EncodeOptimized`), bpe_model.cc.
struct PieceEncoder: Sendable {
  private typealias Kind = TokenizerDefinition.PieceModel.PieceKind

  let table: PieceTable
  private let model: TokenizerDefinition.PieceModel
  private let isUnused: [Bool]
  private let scores: [Float]
  private let characterMap: CharacterMap
  /// What an unknown character costs, and the best score of a normal piece.
  private let unknownScore: Float
  private let maximumScore: Float

  private static let space = UInt8(ascii: " ")

  init(_ model: TokenizerDefinition.PieceModel) {
    var settings = model
    settings.pieceBytes = []
    settings.characterMap = []
    self.model = settings
    table = PieceTable(model)
    isUnused = model.pieceKinds.map { $0 == Kind.unused.rawValue }
    scores = model.pieceScores.map(Float.init(bitPattern:))
    characterMap = CharacterMap(model.characterMap) ?? CharacterMap()
    var (least, most) = (Float.greatestFiniteMagnitude, Float.leastNormalMagnitude)
    for (score, kind) in zip(scores, model.pieceKinds) where kind == Kind.normal.rawValue {
      least = min(least, score)
      most = max(most, score)
    }
    unknownScore = least - 10
    maximumScore = most
  }

  /// A piece's number, or 0 for text that has none, and what it is of the normalized text.
  struct Part {
    var piece: Int32
    var range: Range<Int>
  }

  /// The normalized form of `text`, and its parts in order.
  ///
  /// Characters in a row that no piece has are one part, or, where the model falls back to bytes, a part per byte.
  func encode(_ text: UnsafeBufferPointer<UInt8>) -> (bytes: [UInt8], parts: [Part]) {
    let bytes = normalized(text)
    var parts: [Part] = []
    guard !bytes.isEmpty else { return (bytes, parts) }
    bytes.withUnsafeBufferPointer {
      let pieces = model.algorithm == .unigram ? bestPath($0) : merged($0)
      var followsUnknown = false
      for part in pieces {
        if part.piece != 0 {
          parts.append(part)
        } else if model.byteFallback {
          for index in part.range {
            parts.append(Part(piece: table.bytePieces[Int($0[index])], range: index..<index + 1))
          }
        } else if followsUnknown, let last = parts.last {
          parts[parts.count - 1].range = last.range.lowerBound..<part.range.upperBound
        } else {
          parts.append(part)
        }
        followsUnknown = part.piece == 0
      }
    }
    return (bytes, parts)
  }

  /// How long the character that starts with `byte` is.
  @inline(__always)
  private static func length(_ byte: UInt8) -> Int { byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4 }

  // MARK: Normalization

  private func normalized(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] {
    let mark = model.escapesWhitespace ? Tokenizer.metaspace : [Self.space]
    var index = 0
    if model.removesExtraWhitespace {
      while index < text.count {
        let (isSpace, end) = withPrefix(of: text, at: index) { ($0.count == 1 && $0[0] == Self.space, $1) }
        guard isSpace else { break }
        index = end
      }
    }
    guard index < text.count else { return [] }
    var out: [UInt8] = []
    out.reserveCapacity(text.count + text.count / 8 + 8)
    if model.addsDummyPrefix && !model.treatsWhitespaceAsSuffix { out += mark }
    var followsSpace = model.removesExtraWhitespace
    while index < text.count {
      index = withPrefix(of: text, at: index) { part, end in
        var start = 0
        while followsSpace && start < part.count && part[start] == Self.space { start += 1 }
        if start < part.count {
          for byte in part[start...] {
            if byte == Self.space { out += mark } else { out.append(byte) }
          }
          followsSpace = part[part.count - 1] == Self.space
        }
        return end
      }
      if !model.removesExtraWhitespace { followsSpace = false }
    }
    if model.removesExtraWhitespace {
      while out.count >= mark.count, out[(out.count - mark.count)...].elementsEqual(mark) { out.removeLast(mark.count) }
    }
    if model.addsDummyPrefix && model.treatsWhitespaceAsSuffix { out += mark }
    return out
  }

  /// Gives `body` what the text at `index` is replaced by, and where that ends.
  private func withPrefix<T>(
    of text: UnsafeBufferPointer<UInt8>, at index: Int, _ body: (UnsafeBufferPointer<UInt8>, Int) -> T
  ) -> T {
    if let (_, end) = table.userDefined.longest(text, at: index) {
      return body(UnsafeBufferPointer(rebasing: text[index..<end]), end)
    }
    if let (content, end) = characterMap.longest(text, at: index) {
      return characterMap.contents.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[content]), end) }
    }
    let end = min(index + Self.length(text[index]), text.count)
    return body(UnsafeBufferPointer(rebasing: text[index..<end]), end)
  }

  // MARK: Unigram

  /// The pieces with the best sum of scores; sums are f32, as in the reference, which decides between those that are as good.
  private func bestPath(_ text: UnsafeBufferPointer<UInt8>) -> [Part] {
    var sums = [Float](repeating: 0, count: text.count + 1)
    var starts = [Int32](repeating: -1, count: text.count + 1)
    var pieces = [Int32](repeating: 0, count: text.count + 1)
    var start = 0
    while start < text.count {
      let length = min(Self.length(text[start]), text.count - start)
      let sum = sums[start]
      func offer(_ piece: Int32, _ end: Int, _ score: Float) {
        guard starts[end] < 0 || score + sum > sums[end] else { return }
        sums[end] = score + sum
        starts[end] = Int32(start)
        pieces[end] = piece
      }
      var hasCharacter = false
      var node = ByteTrie.root
      var index = start
      while index < text.count, !table.text.isEmpty {
        node = table.text.next(node, text[index])
        guard node >= 0 else { break }
        index += 1
        let piece = table.text.values[node]
        guard piece >= 0, !isUnused[Int(piece)] else { continue }
        let isUserDefined = model.pieceKinds[Int(piece)] == Kind.userDefined.rawValue
        offer(
          piece, index,
          isUserDefined ? Float(Double(Float(index - start) * maximumScore) - 0.1) : scores[Int(piece)])
        if index - start == length { hasCharacter = true }
      }
      if !hasCharacter { offer(0, start + length, unknownScore) }
      start += length
    }
    var parts: [Part] = []
    var end = text.count
    while end > 0 {
      let start = Int(starts[end])
      // Every character has a piece or is unknown, so that every place is reached.
      guard start >= 0, start < end else { break }
      parts.append(Part(piece: pieces[end], range: start..<end))
      end = start
    }
    return parts.reversed()
  }

  // MARK: BPE

  fileprivate struct Pair {
    var score: Float
    var left: Int32
    var right: Int32
    var length: Int32

    /// The better score first, of equals the leftmost.
    func precedes(_ other: Pair) -> Bool { score != other.score ? score > other.score : left < other.left }
  }

  private struct Symbol {
    var start: Int32
    /// 0 where it is part of another.
    var length: Int32
    var previous: Int32
    var next: Int32
    var isFixed: Bool
  }

  /// The pieces that joining neighbours makes, the best piece first.
  private func merged(_ text: UnsafeBufferPointer<UInt8>) -> [Part] {
    var symbols: [Symbol] = []
    symbols.reserveCapacity(text.count)
    var index = 0
    while index < text.count {
      let whole = table.userDefined.longest(text, at: index)
      let end = whole?.end ?? min(index + Self.length(text[index]), text.count)
      let number = Int32(symbols.count)
      symbols.append(
        Symbol(
          start: Int32(index), length: Int32(end - index), previous: number - 1,
          next: end < text.count ? number + 1 : -1,
          isFixed: whole != nil))
      index = end
    }
    var heap = PairHeap()
    // Where an unused piece was last put together, should it be left over.
    var cuts: [Int32: Int] = [:]
    func offer(_ left: Int32, _ right: Int32) {
      guard left >= 0, right >= 0, !symbols[Int(left)].isFixed, !symbols[Int(right)].isFixed else { return }
      let start = Int(symbols[Int(left)].start)
      let length = Int(symbols[Int(left)].length) + Int(symbols[Int(right)].length)
      guard length <= TokenizerDefinition.Domains.maximumPieceBytes else { return }
      let piece = table.text.value(text, start, start + length)
      guard piece >= 0 else { return }
      heap.push(Pair(score: scores[Int(piece)], left: left, right: right, length: Int32(length)))
      if isUnused[Int(piece)] { cuts[piece] = Int(symbols[Int(left)].length) }
    }
    for left in 0..<Int32(max(symbols.count - 1, 0)) { offer(left, left + 1) }
    while let pair = heap.pop() {
      let (left, right) = (Int(pair.left), Int(pair.right))
      // What was offered has changed since.
      guard symbols[left].length > 0, symbols[right].length > 0,
        symbols[left].length + symbols[right].length == pair.length
      else { continue }
      symbols[left].length = pair.length
      symbols[right].length = 0
      let following = symbols[right].next
      symbols[left].next = following
      if following >= 0 { symbols[Int(following)].previous = pair.left }
      offer(symbols[left].previous, pair.left)
      offer(pair.left, following)
    }
    var parts: [Part] = []
    var number: Int32 = symbols.isEmpty ? -1 : 0
    while number >= 0 {
      let symbol = symbols[Int(number)]
      append(Int(symbol.start)..<Int(symbol.start + symbol.length), of: text, cuts, to: &parts)
      number = symbol.next
    }
    return parts
  }

  /// Appends the piece of `range`, or, where it is unused, those that it was made of.
  private func append(
    _ range: Range<Int>, of text: UnsafeBufferPointer<UInt8>, _ cuts: [Int32: Int], to parts: inout [Part]
  ) {
    let piece = table.piece(text, range.lowerBound, range.upperBound)
    guard piece > 0, isUnused[Int(piece)], let cut = cuts[piece], cut < range.count else {
      parts.append(Part(piece: max(piece, 0), range: range))
      return
    }
    let middle = range.lowerBound + cut
    append(range.lowerBound..<middle, of: text, cuts, to: &parts)
    append(middle..<range.upperBound, of: text, cuts, to: &parts)
  }
}

/// A binary heap: the best pair first.
private struct PairHeap {
  private var pairs: [PieceEncoder.Pair] = []

  mutating func push(_ pair: PieceEncoder.Pair) {
    pairs.append(pair)
    var index = pairs.count - 1
    while index > 0 {
      let parent = (index - 1) / 2
      guard pairs[index].precedes(pairs[parent]) else { break }
      pairs.swapAt(index, parent)
      index = parent
    }
  }

  mutating func pop() -> PieceEncoder.Pair? {
    guard let first = pairs.first, let last = pairs.popLast() else { return nil }
    guard !pairs.isEmpty else { return first }
    pairs[0] = last
    var index = 0
    while true {
      var best = index
      if 2 * index + 1 < pairs.count, pairs[2 * index + 1].precedes(pairs[best]) { best = 2 * index + 1 }
      if 2 * index + 2 < pairs.count, pairs[2 * index + 2].precedes(pairs[best]) { best = 2 * index + 2 }
      guard best != index else { return first }
      pairs.swapAt(index, best)
      index = best
    }
  }
}
