import SquintFile

/// The vocabulary and the merges in flat hash tables: a slot is eight bits of the hash and an index into an array.
///
/// Hashes are seeded per process, so that a file cannot be made to fill a table with collisions.
final class TokenTables: @unchecked Sendable {
  let vocabularySize: Int
  /// Token `id` is `bytes[offsets[id]..<offsets[id + 1]]`.
  let bytes: UnsafeMutablePointer<UInt8>
  let offsets: UnsafeMutablePointer<UInt32>
  /// The token of each single byte; -1 where there is none.
  let byteTokens: UnsafeMutablePointer<Int32>

  private let seed: UInt64
  private let tokenSlots: UnsafeMutablePointer<UInt32>
  private let tokenMask: Int
  /// `left << 32 | right` and the token it makes, by rank.
  private let mergePairs: UnsafeMutablePointer<UInt64>
  private let mergeResults: UnsafeMutablePointer<UInt32>
  private let mergeSlots: UnsafeMutablePointer<UInt32>
  private let mergeMask: Int

  static let noMerge = UInt32.max
  /// Merges that make longer tokens are refused: reading the merges must not take forever.
  static let maximumMergedBytes = 4096

  /// - Throws: `SquintError.badData` where a merge makes no token of the vocabulary.
  init(_ definition: TokenizerDefinition) throws(SquintError) {
    let count = definition.vocabularySize
    let merges = definition.merges
    let mergeCount = merges.count / 2
    vocabularySize = count
    seed = UInt64.random(in: .min ... .max) | 1
    bytes = .allocate(capacity: definition.tokenBytes.count + 8)
    offsets = .allocate(capacity: count + 1)
    byteTokens = .allocate(capacity: 256)
    byteTokens.initialize(repeating: -1, count: 256)
    tokenMask = Self.slots(for: count) - 1
    tokenSlots = .allocate(capacity: tokenMask + 1)
    tokenSlots.initialize(repeating: 0, count: tokenMask + 1)
    mergePairs = .allocate(capacity: max(1, mergeCount))
    mergeResults = .allocate(capacity: max(1, mergeCount))
    mergeMask = Self.slots(for: mergeCount) - 1
    mergeSlots = .allocate(capacity: mergeMask + 1)
    mergeSlots.initialize(repeating: 0, count: mergeMask + 1)

    definition.tokenBytes.withUnsafeBufferPointer {
      if let source = $0.baseAddress { bytes.update(from: source, count: $0.count) }
    }
    (bytes + definition.tokenBytes.count).initialize(repeating: 0, count: 8)
    definition.tokenLengths.withUnsafeBufferPointer { lengths in
      var offset: UInt32 = 0
      for id in 0..<count {
        offsets[id] = offset
        offset += UInt32(lengths[id])
      }
      offsets[count] = offset
    }
    definition.tokenKinds.withUnsafeBufferPointer { kinds in
      for id in 0..<count where kinds[id] == TokenizerDefinition.TokenKind.normal.rawValue { insert(id) }
    }
    let failed = merges.withUnsafeBufferPointer { insert(merges: $0) }
    if let failed {
      let left = Int(merges[2 * failed])
      let right = Int(merges[2 * failed + 1])
      let text = String(decoding: [UInt8](token(left)) + [UInt8](token(right)), as: UTF8.self)
      throw definition.bad(
        "merge \(grouped(failed)) of tokens \(left) and \(right) makes '\(text.prefix(64))', which is no token of "
          + "its own or too long")
    }
  }

  deinit {
    bytes.deallocate()
    offsets.deallocate()
    byteTokens.deallocate()
    tokenSlots.deallocate()
    mergePairs.deallocate()
    mergeResults.deallocate()
    mergeSlots.deallocate()
  }

  /// What the tables of `definition` take, in bytes.
  static func byteCount(_ definition: TokenizerDefinition) -> Int {
    let (count, merges) = (definition.vocabularySize, definition.merges.count / 2)
    return definition.tokenBytes.count + 4 * (count + slots(for: count)) + 12 * merges + 4 * slots(for: merges) + 4096
  }

  /// A power of two that `count` fills to at most two thirds.
  private static func slots(for count: Int) -> Int {
    var slots = 16
    while slots * 2 < count * 3 { slots *= 2 }
    return slots
  }

  func token(_ id: Int) -> UnsafeBufferPointer<UInt8> {
    UnsafeBufferPointer(start: bytes + Int(offsets[id]), count: Int(offsets[id + 1] - offsets[id]))
  }

  // MARK: Hashing

  @inline(__always)
  private static func mix(_ value: UInt64) -> UInt64 {
    let product = value.multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
    return product.high ^ product.low
  }

  /// A hash of `count` bytes, at least one, that reads nothing beyond them.
  @inline(__always)
  func hash(_ start: UnsafePointer<UInt8>, _ count: Int) -> UInt64 {
    let raw = UnsafeRawPointer(start)
    var state = seed &+ UInt64(truncatingIfNeeded: count)
    if count >= 8 {
      var index = 0
      while index + 8 < count {
        state = Self.mix(state ^ raw.loadUnaligned(fromByteOffset: index, as: UInt64.self))
        index += 8
      }
      // The last eight bytes, whether or not some of them have been read.
      return Self.mix(Self.mix(state ^ raw.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self)) &+ seed)
    }
    let tail: UInt64
    if count >= 4 {
      tail =
        UInt64(raw.loadUnaligned(as: UInt32.self))
        | UInt64(raw.loadUnaligned(fromByteOffset: count - 4, as: UInt32.self)) << 32
    } else {
      tail = UInt64(start[0]) | UInt64(start[count / 2]) << 8 | UInt64(start[count - 1]) << 16
    }
    return Self.mix(Self.mix(state ^ tail) &+ seed)
  }

  @inline(__always)
  private func hash(pair: UInt64) -> UInt64 { Self.mix(Self.mix(pair ^ seed) &+ seed) }

  // MARK: Tokens

  private func insert(_ id: Int) {
    let start = bytes + Int(offsets[id])
    let count = Int(offsets[id + 1] - offsets[id])
    guard count > 0 else { return }
    if count == 1 && byteTokens[Int(start[0])] < 0 { byteTokens[Int(start[0])] = Int32(id) }
    let hash = hash(start, count)
    let tag = UInt32(truncatingIfNeeded: hash >> 56) << 24
    var slot = Int(truncatingIfNeeded: hash) & tokenMask
    while tokenSlots[slot] != 0 {
      let value = tokenSlots[slot]
      // Of two tokens with the same bytes the first counts.
      if value & 0xFF00_0000 == tag && matches(Int(value & 0xFF_FFFF) - 1, start, count) { return }
      slot = (slot + 1) & tokenMask
    }
    tokenSlots[slot] = tag | UInt32(id + 1)
  }

  @inline(__always)
  private func matches(_ id: Int, _ start: UnsafePointer<UInt8>, _ count: Int) -> Bool {
    let offset = Int(offsets[id])
    return Int(offsets[id + 1]) - offset == count && memcmp(bytes + offset, start, count) == 0
  }

  /// The token that is exactly these bytes, at least one; nil where there is none.
  @inline(__always)
  func token(_ start: UnsafePointer<UInt8>, _ count: Int, hash: UInt64) -> Int? {
    let tag = UInt32(truncatingIfNeeded: hash >> 56) << 24
    var slot = Int(truncatingIfNeeded: hash) & tokenMask
    while true {
      let value = tokenSlots[slot]
      if value == 0 { return nil }
      if value & 0xFF00_0000 == tag {
        let id = Int(value & 0xFF_FFFF) - 1
        if matches(id, start, count) { return id }
      }
      slot = (slot + 1) & tokenMask
    }
  }

  // MARK: Merges

  /// - Returns: the rank of the first merge that makes no token, or nil.
  private func insert(merges: UnsafeBufferPointer<UInt32>) -> Int? {
    let joined = UnsafeMutablePointer<UInt8>.allocate(capacity: Self.maximumMergedBytes)
    defer { joined.deallocate() }
    var guess = 0
    for rank in 0..<merges.count / 2 {
      let left = token(Int(merges[2 * rank]))
      let right = token(Int(merges[2 * rank + 1]))
      let count = left.count + right.count
      guard left.count > 0, right.count > 0, count <= Self.maximumMergedBytes else { return rank }
      memcpy(joined, left.baseAddress!, left.count)
      memcpy(joined + left.count, right.baseAddress!, right.count)
      // Most vocabularies list tokens in the order of the merges, so the next one is mostly it.
      let result: Int
      if guess < vocabularySize, matches(guess, joined, count), token(joined, count, hash: hash(joined, count)) == guess
      {
        result = guess
      } else if let found = token(joined, count, hash: hash(joined, count)) {
        result = found
      } else {
        return rank
      }
      guess = result + 1
      let pair = UInt64(merges[2 * rank]) << 32 | UInt64(merges[2 * rank + 1])
      mergePairs[rank] = pair
      mergeResults[rank] = UInt32(result)
      let hash = hash(pair: pair)
      let tag = UInt32(truncatingIfNeeded: hash >> 56) << 24
      var slot = Int(truncatingIfNeeded: hash) & mergeMask
      while mergeSlots[slot] != 0 {
        // Of two equal merges the last counts, as in the reference.
        if mergePairs[Int(mergeSlots[slot] & 0xFF_FFFF) - 1] == pair { break }
        slot = (slot + 1) & mergeMask
      }
      mergeSlots[slot] = tag | UInt32(rank + 1)
    }
    return nil
  }

  /// The rank of the merge of two tokens, or `noMerge`.
  @inline(__always)
  func rank(_ left: Int32, _ right: Int32) -> UInt32 {
    let pair = UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    let hash = hash(pair: pair)
    let tag = UInt32(truncatingIfNeeded: hash >> 56) << 24
    var slot = Int(truncatingIfNeeded: hash) & mergeMask
    while true {
      let value = mergeSlots[slot]
      if value == 0 { return Self.noMerge }
      if value & 0xFF00_0000 == tag {
        let rank = Int(value & 0xFF_FFFF) - 1
        if mergePairs[rank] == pair { return UInt32(rank) }
      }
      slot = (slot + 1) & mergeMask
    }
  }

  @inline(__always)
  func result(ofMerge rank: UInt32) -> Int32 { Int32(bitPattern: mergeResults[Int(rank)]) }
}
