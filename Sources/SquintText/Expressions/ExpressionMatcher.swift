import SquintFile

/// Finds the matches of an expression in a text, each where Oniguruma finds it: the leftmost, and of those that start at
/// one place the one that its first alternatives lead to. The time is linear in the text's length whatever the
/// expression; a text that takes memory (an expression that looks at several characters, or reads on without a match)
/// takes at most nine bytes for each of its own.
///
/// Safe to share between threads, each with its own `Scratch`.
final class ExpressionMatcher: @unchecked Sendable {
  /// What a text's search needs beyond the text.
  final class Scratch {
    /// Of each byte of the text, the looks that hold there.
    fileprivate var looks = ByteBuffer()
    /// Of each byte of the text, the states (bits of `ExpressionTable.endless`) that find no match from there on.
    fileprivate var failed: [UInt64] = []

    func trim(to limit: Int) {
      looks.trim(to: limit)
      if failed.count * 8 > limit { failed = [] }
    }
  }

  private struct Look {
    let table: ExpressionTable
    let isReversed: Bool
  }

  private let asciiClasses: UnsafeMutablePointer<UInt8>
  /// The classes of bytes that stand for characters of their own: see `PreTokenizerStep.bytes`.
  private let byteClasses: UnsafeMutablePointer<UInt8>
  private let pages: UnsafeMutablePointer<UInt16>
  private let pool: UnsafeMutablePointer<UInt8>
  private let entries: UnsafeMutablePointer<UInt32>
  private let table: ExpressionTable
  private let looks: [Look]
  /// The class that stands for a text's edge; one more is the number of symbols.
  private let edge: Int

  /// - Throws: `SquintError.badData` where the expression cannot be compiled; it shows which part.
  init(_ expression: String) throws(SquintError) {
    let program = try ExpressionProgram(expression)
    guard let classes = ScalarClasses(program.sets) else {
      throw SquintError(
        .badData, "more than 64 sets or 250 classes of characters in the expression \(expression.prefix(400))")
    }
    func table(_ part: ExpressionProgram.Part) throws(SquintError) -> ExpressionTable {
      do {
        return try ExpressionTable(part, classes, lookCount: program.lookCount, isExistence: part.isLook)
      } catch {
        throw SquintError(.badData, "\(error.message) in the expression \(expression.prefix(400))")
      }
    }
    var looks: [Look] = []
    for part in program.parts.dropLast() { looks.append(Look(table: try table(part), isReversed: part.isReversed)) }
    let main = try table(program.parts[program.parts.count - 1])
    self.looks = looks
    self.table = main
    edge = classes.count
    asciiClasses = .allocate(capacity: 128)
    for scalar in 0..<128 { asciiClasses[scalar] = UInt8(classes[UInt32(scalar)]) }
    byteClasses = .allocate(capacity: 256)
    for byte in 0..<256 { byteClasses[byte] = UInt8(classes[ByteAlphabet.scalar(of: UInt8(byte))]) }
    pages = .allocate(capacity: classes.pages.count)
    pages.initialize(from: classes.pages, count: classes.pages.count)
    pool = .allocate(capacity: classes.pool.count)
    pool.initialize(from: classes.pool, count: classes.pool.count)
    entries = .allocate(capacity: main.entries.count)
    entries.initialize(from: main.entries, count: main.entries.count)
  }

  deinit {
    asciiClasses.deallocate()
    byteClasses.deallocate()
    pages.deallocate()
    pool.deallocate()
    entries.deallocate()
  }

  // MARK: Characters

  /// How a text is read: its scalars, or its bytes as characters.
  private protocol Characters {
    static func character(_ matcher: ExpressionMatcher, _ text: TextView, _ index: Int) -> (symbol: Int, length: Int)
    static func previous(_ text: TextView, _ index: Int) -> Int
  }

  private enum Scalars: Characters {
    @inline(__always)
    static func character(_ matcher: ExpressionMatcher, _ text: TextView, _ index: Int) -> (symbol: Int, length: Int) {
      let first = text.base[index]
      if first < 0x80 { return (Int(matcher.asciiClasses[Int(first)]), 1) }
      let (value, length) = text.scalar(at: index)
      return (Int(matcher.pool[Int(matcher.pages[Int(value >> 8)]) << 8 | Int(value & 255)]), length)
    }

    @inline(__always)
    static func previous(_ text: TextView, _ index: Int) -> Int { text.previous(index) }
  }

  private enum Bytes: Characters {
    @inline(__always)
    static func character(_ matcher: ExpressionMatcher, _ text: TextView, _ index: Int) -> (symbol: Int, length: Int) {
      (Int(matcher.byteClasses[Int(text.base[index])]), 1)
    }

    @inline(__always)
    static func previous(_ text: TextView, _ index: Int) -> Int { index - 1 }
  }

  // MARK: Matches

  /// Cuts `text` at the matches as the reference's `find_matches` does: calls `body` with each match and with what lies
  /// between, from left to right. A match may be empty.
  ///
  /// Inlined, for the step that gives out words; `forEachPiece` is the same.
  @inline(__always)
  func forEachPart(
    of text: TextView, isBytes: Bool, _ scratch: Scratch, _ body: (_ start: Int, _ end: Int, _ isMatch: Bool) -> Void
  ) {
    if isBytes {
      forEachPart(of: text, Bytes.self, scratch, body)
    } else {
      forEachPart(of: text, Scalars.self, scratch, body)
    }
  }

  @inline(never)
  func forEachPiece(
    of text: TextView, isBytes: Bool, _ scratch: Scratch, _ body: (_ start: Int, _ end: Int, _ isMatch: Bool) -> Void
  ) {
    forEachPart(of: text, isBytes: isBytes, scratch, body)
  }

  @inline(__always)
  private func forEachPart<Reader: Characters>(
    of text: TextView, _ reader: Reader.Type, _ scratch: Scratch,
    _ body: (_ start: Int, _ end: Int, _ isMatch: Bool) -> Void
  ) {
    let mayBeEndless = !table.endless.isEmpty
    var isPlain = looks.isEmpty && !table.startsDiffer
    prepare(text, reader, scratch)
    let firstRow = Int(table.starts[0])
    // Where the part that is not given out yet starts, and where the last match ends.
    var done = 0
    var lastEnd = -1
    var start = 0
    var searchStart = 0
    while start <= text.end {
      var end = -1
      if isPlain {
        // Nothing starts with most characters of an expression that matches few.
        while start < text.end {
          let (symbol, length) = reader.character(self, text, start)
          guard entries[firstRow + symbol] == 0 else { break }
          start += length
        }
        var index = start
        end = plainEnd(of: start, in: text, reader, from: firstRow, &index)
        // From now on it must not read what it has read in vain.
        if mayBeEndless && index - max(start, end) > Self.longestVain { isPlain = false }
      } else {
        end = self.end(of: start, in: text, reader, isSearchStart: start == searchStart, scratch)
      }
      if end > start || (end == start && end != lastEnd) {
        if done < start { body(done, start, false) }
        body(start, end, true)
        done = end
        lastEnd = end
        start = end
        searchStart = end
        continue
      }
      guard start < text.end else { break }
      start += reader.character(self, text, start).length
      // An empty match right behind another does not count, and the search starts anew one character on.
      if end >= 0 { searchStart = start }
    }
    if done < text.end { body(done, text.end, false) }
  }

  /// How far the text is read beyond a match before what was read is remembered.
  private static let longestVain = 64

  /// Where the match at `start` ends, -1 where there is none; `index` is left where the reading ended.
  @inline(__always)
  private func plainEnd<Reader: Characters>(
    of start: Int, in text: TextView, _: Reader.Type, from row: Int, _ index: inout Int
  ) -> Int {
    var row = row
    /// The entry that stays in the row and says that a match ends here.
    var back = UInt32(row) << 1 | 1
    var end = -1
    while index < text.end {
      let (symbol, length) = Reader.character(self, text, index)
      let entry = entries[row + symbol]
      // Most characters of a word lead back to the row; then the next lookup need not wait for this one.
      if entry == back {
        end = index
        index += length
        continue
      }
      if entry & 1 != 0 { end = index }
      row = Int(entry >> 1)
      if row == 0 { return end }
      back = entry | 1
      index += length
    }
    return entries[row + edge] & 1 != 0 ? index : end
  }

  /// The same where looks, the search's start or endless states play a part.
  private func end<Reader: Characters>(
    of start: Int, in text: TextView, _: Reader.Type, isSearchStart: Bool, _ scratch: Scratch
  ) -> Int {
    let symbols = edge + 1
    let behind = start > 0 ? Reader.character(self, text, Reader.previous(text, start)).symbol : edge
    var row = Int(table.starts[(isSearchStart ? 0 : symbols) + behind])
    var index = start
    var end = -1
    // Where the reading that has found no match yet started.
    var (lastIndex, lastRow) = (start, row)
    while true {
      if !scratch.failed.isEmpty && scratch.failed[index] & table.endless[row / table.width] != 0 { break }
      let (symbol, length) = index < text.end ? Reader.character(self, text, index) : (edge, 0)
      let entry = entries[row + symbol + looks(at: index, scratch) * symbols]
      if entry & 1 != 0 {
        end = index
        (lastIndex, lastRow) = (index, Int(entry >> 1))
        if index < text.end { lastIndex += length }
      }
      row = Int(entry >> 1)
      if row == 0 || index >= text.end { break }
      index += length
    }
    if index - lastIndex > Self.longestVain && !table.endless.isEmpty {
      remember(from: lastIndex, lastRow, to: index, in: text, Reader.self, scratch)
    }
    return end
  }

  @inline(__always)
  private func looks(at index: Int, _ scratch: Scratch) -> Int {
    looks.isEmpty ? 0 : Int(scratch.looks.base[index])
  }

  /// Notes that the states from `start` to `end` lead to no match, so that no later search reads there again.
  private func remember<Reader: Characters>(
    from start: Int, _ row: Int, to end: Int, in text: TextView, _: Reader.Type, _ scratch: Scratch
  ) {
    if scratch.failed.isEmpty { scratch.failed = [UInt64](repeating: 0, count: text.end + 1) }
    var row = row
    var index = start
    while index < end && row != 0 {
      scratch.failed[index] |= table.endless[row / table.width]
      let (symbol, length) = Reader.character(self, text, index)
      row = Int(entries[row + symbol + looks(at: index, scratch) * (edge + 1)] >> 1)
      index += length
    }
  }

  // MARK: Looks

  /// Finds where the looks at several characters hold, each in one reading of the text.
  private func prepare<Reader: Characters>(_ text: TextView, _: Reader.Type, _ scratch: Scratch) {
    if !scratch.failed.isEmpty { scratch.failed = [] }
    guard !looks.isEmpty else { return }
    let symbols = edge + 1
    scratch.looks.count = 0
    scratch.looks.reserve(text.end + 1)
    let held = scratch.looks.base
    memset(held, 0, text.end + 1)
    for (bit, look) in looks.enumerated() {
      var row = Int(look.table.starts[edge])
      var index = look.isReversed ? text.end : 0
      while true {
        var symbol = edge
        var next = -1
        if look.isReversed && index > 0 {
          next = Reader.previous(text, index)
          symbol = Reader.character(self, text, next).symbol
        } else if !look.isReversed && index < text.end {
          let (found, length) = Reader.character(self, text, index)
          (symbol, next) = (found, index + length)
        }
        let entry = look.table.entries[row + symbol + Int(held[index]) * symbols]
        if entry & 1 != 0 { held[index] |= 1 << UInt8(bit) }
        if next < 0 { break }
        row = Int(entry >> 1)
        index = next
      }
    }
  }
}

/// The characters that GPT-2 style vocabularies write bytes as: printable Latin-1 characters stand for themselves, the
/// other 68 bytes for U+0100 to U+0143 in order (openai/gpt-2, encoder.py, `bytes_to_unicode`).
package enum ByteAlphabet {
  private static let scalars: [UInt32] = {
    var next: UInt32 = 0x100
    return (0..<256).map { byte in
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return UInt32(byte)
      default:
        next += 1
        return next - 1
      }
    }
  }()

  package static func scalar(of byte: UInt8) -> UInt32 { scalars[Int(byte)] }
}
