import SquintFile

/// Turns words into ids: byte-pair encoding with a cache of short words. Holds all memory that encoding needs, so that
/// one text after the other is encoded without allocating.
///
/// One thread at a time.
final class WordEncoder: @unchecked Sendable {
  private let tables: TokenTables
  private let isByteLevel: Bool
  private let ignoresMerges: Bool
  private let fusesUnknown: Bool
  private let unknownToken: Int32
  /// The `<0xNN>` token of each byte; -1 where there is none. Nil without byte fallback.
  private let fallbackTokens: [Int32]?

  /// The ids so far.
  private(set) var output: UnsafeMutablePointer<Int32>
  private(set) var outputCount = 0
  private var outputCapacity = 1024

  // A word's symbols: their tokens, and the ranks of the merges with the symbol to the right.
  private var symbols: UnsafeMutablePointer<Int32>
  private var ranks: UnsafeMutablePointer<UInt32>
  private var symbolCapacity = 256

  private let cache: UnsafeMutableRawPointer

  /// Memory of the caller's steps, kept here with the rest.
  var normalized = TextNormalizer.Memory()
  let memory: [PieceStep.Memory]

  /// Up to here a word's best merge is searched for, beyond it is kept in a heap.
  private static let longestScannedWord = 48
  private static let longestWord = 1 << 30
  /// Memory for longer texts is given back.
  static let keptBytes = 64 << 10

  /// A cache entry: a word's length, its number of tokens, its bytes and its tokens, 64 bytes in all.
  private enum Entry {
    static let bytes = 64
    static let count = 4096
    static let wordOffset = 4
    static let longestWord = 28
    static let tokensOffset = 32
    static let mostTokens = 8
  }

  /// What it holds before it has met a long text, in bytes.
  static let byteCount = Entry.bytes * Entry.count + 8192

  init(_ tables: TokenTables, _ definition: TokenizerDefinition, stepCount: Int, fallbackTokens: [Int32]?) {
    memory = (0..<stepCount).map { _ in PieceStep.Memory() }
    self.tables = tables
    isByteLevel = definition.model == .byteLevel
    ignoresMerges = definition.ignoresMerges
    fusesUnknown = definition.fusesUnknown
    unknownToken = definition.unknownToken ?? -1
    self.fallbackTokens = fallbackTokens
    output = .allocate(capacity: outputCapacity)
    symbols = .allocate(capacity: symbolCapacity)
    ranks = .allocate(capacity: symbolCapacity)
    cache = .allocate(byteCount: Entry.bytes * Entry.count, alignment: 64)
    cache.initializeMemory(as: UInt8.self, repeating: 0, count: Entry.bytes * Entry.count)
  }

  deinit {
    output.deallocate()
    symbols.deallocate()
    ranks.deallocate()
    cache.deallocate()
  }

  // MARK: Output

  @inline(__always)
  func append(_ id: Int32) {
    if outputCount == outputCapacity { growOutput(to: outputCount + 1) }
    output[outputCount] = id
    outputCount += 1
  }

  @inline(never)
  private func growOutput(to needed: Int) {
    let larger = max(needed, outputCapacity * 2)
    let next = UnsafeMutablePointer<Int32>.allocate(capacity: larger)
    next.update(from: output, count: outputCount)
    output.deallocate()
    output = next
    outputCapacity = larger
  }

  /// Puts other ids in place of those from the `start`th on that `ids` names.
  func replace(from start: Int, _ ids: [Int32: Int32]) {
    for index in start..<outputCount {
      if let id = ids[output[index]] { output[index] = id }
    }
  }

  /// The ids so far, which are then forgotten; the memory of an unusually long text is given back.
  func takeOutput() -> [Int32] {
    let ids = [Int32](UnsafeBufferPointer(start: output, count: outputCount))
    outputCount = 0
    if outputCapacity * 4 > Self.keptBytes {
      output.deallocate()
      outputCapacity = Self.keptBytes / 4
      output = .allocate(capacity: outputCapacity)
    }
    if symbolCapacity * 4 > Self.keptBytes {
      symbolCapacity = 0
      reserveSymbols(256)
    }
    normalized.trim(to: Self.keptBytes)
    for memory in memory { memory.trim(to: Self.keptBytes) }
    return ids
  }

  // MARK: Words

  /// Appends the tokens of one word, `count` bytes of valid UTF-8, at least one.
  @inline(__always)
  func encode(_ word: UnsafePointer<UInt8>, _ count: Int) {
    if count == 1 && isByteLevel {
      let token = tables.byteTokens[Int(word[0])]
      if token >= 0 { append(token) } else if unknownToken >= 0 { append(unknownToken) }
      return
    }
    let hash = tables.hash(word, count)
    guard count <= Entry.longestWord else {
      encodeUncached(word, count, hash: hash)
      return
    }
    let entry = cache + (Int(truncatingIfNeeded: hash >> 20) & (Entry.count - 1)) * Entry.bytes
    let header = entry.load(as: UInt16.self)
    if Int(header & 0xFF) == count && isEqual(entry + Entry.wordOffset, word, count) {
      let tokens = Int(header >> 8)
      if outputCount + Entry.mostTokens > outputCapacity { growOutput(to: outputCount + Entry.mostTokens) }
      let source = (entry + Entry.tokensOffset).assumingMemoryBound(to: Int32.self)
      for index in 0..<tokens { output[outputCount + index] = source[index] }
      outputCount += tokens
      return
    }
    encodeAndKeep(word, count, hash: hash, entry: entry)
  }

  @inline(__always)
  private func isEqual(_ a: UnsafeMutableRawPointer, _ word: UnsafePointer<UInt8>, _ count: Int) -> Bool {
    let b = UnsafeRawPointer(word)
    if count >= 8 {
      var index = 0
      while index + 8 < count {
        let left = a.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        if left != b.loadUnaligned(fromByteOffset: index, as: UInt64.self) { return false }
        index += 8
      }
      return a.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
        == b.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)
    }
    if count >= 4 {
      return a.loadUnaligned(as: UInt32.self) == b.loadUnaligned(as: UInt32.self)
        && a.loadUnaligned(fromByteOffset: count - 4, as: UInt32.self)
          == b.loadUnaligned(fromByteOffset: count - 4, as: UInt32.self)
    }
    for index in 0..<count where a.load(fromByteOffset: index, as: UInt8.self) != word[index] { return false }
    return true
  }

  @inline(never)
  private func encodeAndKeep(
    _ word: UnsafePointer<UInt8>, _ count: Int, hash: UInt64, entry: UnsafeMutableRawPointer
  ) {
    let start = outputCount
    encodeUncached(word, count, hash: hash)
    let tokens = outputCount - start
    guard tokens <= Entry.mostTokens else { return }
    (entry + Entry.wordOffset).copyMemory(from: word, byteCount: count)
    (entry + Entry.tokensOffset).copyMemory(from: output + start, byteCount: tokens * 4)
    entry.storeBytes(of: UInt16(count) | UInt16(tokens) << 8, as: UInt16.self)
  }

  @inline(never)
  private func encodeUncached(_ word: UnsafePointer<UInt8>, _ count: Int, hash: UInt64) {
    if ignoresMerges, let token = tables.token(word, count, hash: hash) {
      append(Int32(token))
      return
    }
    guard count <= Self.longestWord else {
      // Symbols are counted in 32 bits. No such word is text; it is cut between two characters.
      var cut = Self.longestWord
      while word[cut] & 0xC0 == 0x80 { cut -= 1 }
      encodeUncached(word, cut, hash: tables.hash(word, cut))
      encodeUncached(word + cut, count - cut, hash: tables.hash(word + cut, count - cut))
      return
    }
    reserveSymbols(count + 1)
    let symbolCount = isByteLevel ? splitIntoBytes(word, count) : splitIntoScalars(word, count)
    if symbolCount <= Self.longestScannedWord {
      mergeByScanning(symbolCount)
    } else {
      mergeByHeap(symbolCount)
    }
  }

  private func reserveSymbols(_ needed: Int) {
    guard needed > symbolCapacity else { return }
    symbolCapacity = max(needed, symbolCapacity * 2)
    symbols.deallocate()
    ranks.deallocate()
    symbols = .allocate(capacity: symbolCapacity)
    ranks = .allocate(capacity: symbolCapacity)
  }

  private func splitIntoBytes(_ word: UnsafePointer<UInt8>, _ count: Int) -> Int {
    var symbolCount = 0
    var endsInUnknown = false
    for index in 0..<count {
      let token = tables.byteTokens[Int(word[index])]
      if token >= 0 {
        symbols[symbolCount] = token
        symbolCount += 1
        endsInUnknown = false
      } else if unknownToken >= 0 && !(endsInUnknown && fusesUnknown) {
        symbols[symbolCount] = unknownToken
        symbolCount += 1
        endsInUnknown = true
      }
    }
    return symbolCount
  }

  private func splitIntoScalars(_ word: UnsafePointer<UInt8>, _ count: Int) -> Int {
    var symbolCount = 0
    var index = 0
    // As in the reference, an unknown token is held until a known scalar or the end follows; bytes of the fallback,
    // which come in between only where some bytes have a token and others none, overtake it.
    var unknowns = 0
    while index < count {
      let first = word[index]
      let length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
      defer { index += length }
      let start = word + index
      let token =
        length == 1
        ? tables.byteTokens[Int(first)]
        : tables.token(start, length, hash: tables.hash(start, length)).map(Int32.init) ?? -1
      if token >= 0 {
        if unknowns > 0 {
          symbols[symbolCount] = unknownToken
          symbolCount += 1
          unknowns = 0
        }
        symbols[symbolCount] = token
        symbolCount += 1
        continue
      }
      if let fallbackTokens, (0..<length).allSatisfy({ fallbackTokens[Int(start[$0])] >= 0 }) {
        for offset in 0..<length { symbols[symbolCount + offset] = fallbackTokens[Int(start[offset])] }
        symbolCount += length
        continue
      }
      guard unknownToken >= 0 else { continue }
      if unknowns > 0 && !fusesUnknown {
        symbols[symbolCount] = unknownToken
        symbolCount += 1
      }
      unknowns = 1
    }
    if unknowns > 0 {
      symbols[symbolCount] = unknownToken
      symbolCount += 1
    }
    return symbolCount
  }

  // MARK: Merging

  /// Applies the best merge, the leftmost of equals, until there is none: quadratic, and fastest for short words.
  private func mergeByScanning(_ symbolCount: Int) {
    guard symbolCount > 0 else { return }
    let symbols = symbols
    let ranks = ranks
    var count = symbolCount
    for index in 0..<count - 1 { ranks[index] = tables.rank(symbols[index], symbols[index + 1]) }
    while count > 1 {
      var best = TokenTables.noMerge
      var place = 0
      for index in 0..<count - 1 where ranks[index] < best {
        best = ranks[index]
        place = index
      }
      if best == TokenTables.noMerge { break }
      symbols[place] = tables.result(ofMerge: best)
      count -= 1
      for index in place + 1..<max(count, place + 1) {
        symbols[index] = symbols[index + 1]
        ranks[index] = ranks[index + 1]
      }
      if place > 0 { ranks[place - 1] = tables.rank(symbols[place - 1], symbols[place]) }
      if place + 1 < count { ranks[place] = tables.rank(symbols[place], symbols[place + 1]) }
    }
    if outputCount + count > outputCapacity { growOutput(to: outputCount + count) }
    (output + outputCount).update(from: symbols, count: count)
    outputCount += count
  }

  /// The same with the merges in a heap: n log n, for words that would make the scan slow.
  private func mergeByHeap(_ symbolCount: Int) {
    let symbols = symbols
    let ranks = ranks
    let next = UnsafeMutablePointer<Int32>.allocate(capacity: symbolCount)
    let previous = UnsafeMutablePointer<Int32>.allocate(capacity: symbolCount)
    var heap = MergeHeap(capacity: symbolCount)
    defer {
      next.deallocate()
      previous.deallocate()
    }
    for index in 0..<symbolCount {
      next[index] = index + 1 < symbolCount ? Int32(index + 1) : -1
      previous[index] = Int32(index) - 1
      ranks[index] =
        index + 1 < symbolCount ? tables.rank(symbols[index], symbols[index + 1]) : TokenTables.noMerge
      if ranks[index] != TokenTables.noMerge { heap.append(rank: ranks[index], place: index) }
    }
    heap.order()
    while let (rank, place) = heap.pop() {
      // The pair at this place has changed since.
      guard ranks[place] == rank else { continue }
      let right = Int(next[place])
      symbols[place] = tables.result(ofMerge: rank)
      ranks[right] = TokenTables.noMerge
      let following = Int(next[right])
      next[place] = Int32(following)
      ranks[place] = TokenTables.noMerge
      if following >= 0 {
        previous[following] = Int32(place)
        ranks[place] = tables.rank(symbols[place], symbols[following])
        if ranks[place] != TokenTables.noMerge { heap.push(rank: ranks[place], place: place) }
      }
      let preceding = Int(previous[place])
      if preceding >= 0 {
        ranks[preceding] = tables.rank(symbols[preceding], symbols[place])
        if ranks[preceding] != TokenTables.noMerge { heap.push(rank: ranks[preceding], place: preceding) }
      }
    }
    var place = 0
    while place >= 0 {
      append(symbols[place])
      place = Int(next[place])
    }
  }
}

/// A binary heap of `rank << 32 | place`: the best merge first, the leftmost of equals.
private struct MergeHeap: ~Copyable {
  private var keys: UnsafeMutablePointer<UInt64>
  private var count = 0

  /// Every merge removes one key and adds at most two, and there are fewer merges than symbols.
  init(capacity symbols: Int) { keys = .allocate(capacity: 2 * symbols + 2) }

  deinit { keys.deallocate() }

  mutating func append(rank: UInt32, place: Int) {
    keys[count] = UInt64(rank) << 32 | UInt64(place)
    count += 1
  }

  mutating func order() {
    var index = count / 2
    while index > 0 {
      index -= 1
      sink(index)
    }
  }

  mutating func push(rank: UInt32, place: Int) {
    let key = UInt64(rank) << 32 | UInt64(place)
    var index = count
    count += 1
    while index > 0 && keys[(index - 1) / 2] > key {
      keys[index] = keys[(index - 1) / 2]
      index = (index - 1) / 2
    }
    keys[index] = key
  }

  mutating func pop() -> (rank: UInt32, place: Int)? {
    guard count > 0 else { return nil }
    let key = keys[0]
    count -= 1
    if count > 0 {
      keys[0] = keys[count]
      sink(0)
    }
    return (UInt32(truncatingIfNeeded: key >> 32), Int(key & 0xFFFF_FFFF))
  }

  private func sink(_ start: Int) {
    let key = keys[start]
    var index = start
    while 2 * index + 1 < count {
      var child = 2 * index + 1
      if child + 1 < count && keys[child + 1] < keys[child] { child += 1 }
      if keys[child] >= key { break }
      keys[index] = keys[child]
      index = child
    }
    keys[index] = key
  }
}
