import SquintFile

/// Reads series that are text: CSV and its kin (formats/series.md, "Text").
///
/// Lines are read one after the other, in pieces of the file; only numbers stay in memory.
struct SeriesText {
  private let file: MediaFile
  private var lines: SeriesLines
  private var separator = Separator.none
  /// What numbers have had in front of their fraction, and in which line first.
  private var decimal: (mark: UInt8, line: Int)?
  private var columns: [Column] = []
  private var numbers = 0
  private var notes: [String] = []
  /// Where the first column has no name and the others have: what says so if it is no index.
  private var unnamedIndex: SquintError?

  private enum Separator {
    case byte(UInt8)
    case blanks
    /// One column.
    case none
  }

  private struct Column {
    var name: String?
    /// Times, which are not looked at.
    var isTime = false
    var numbers: [Double] = []
    /// The first line without a number behind those that are there.
    var gap: (line: Int, text: String)?
  }

  private struct Line {
    let number: Int
    let bytes: [UInt8]
  }

  init(_ file: MediaFile) {
    self.file = file
    lines = SeriesLines(file)
  }

  /// - Throws: `badData` with the line and the column.
  func table() throws(SquintError) -> SeriesTable {
    var reader = self
    return try reader.read()
  }

  private mutating func read() throws(SquintError) -> SeriesTable {
    var first = try firstLine()
    let said = first.flatMap { Self.saidSeparator(in: $0.bytes) }
    if said != nil { first = try firstLine() }
    guard let first else { throw file.error("there is no number in it; a series is a column of numbers") }
    // A line of names may have blanks and commas in it; one of numbers has not.
    var (blank, second): (Line?, Line?) = (nil, nil)
    while second == nil, let line = try nextLine() {
      if line.bytes.allSatisfy(isBlank) { blank = blank ?? line } else { second = line }
    }
    separator = said ?? Self.separator(of: second?.bytes ?? first.bytes)
    let names = try cells(of: first)
    let reason = isHeader(names, before: try second.map { (line) throws(SquintError) in try cells(of: line) })
    // Behind names a line with nothing in it means nothing.
    if let line = blank, reason != nil, isEmpty(line) { blank = nil }
    let pending = [reason == nil ? first : nil, blank, second].compactMap { $0 }
    guard let data = pending.first else {
      throw file.error("there are names in line \(grouped(first.number)), and no numbers")
    }
    if let reason, names.contains(where: isLikeNumber) {
      notes.append(
        "line \(grouped(first.number)) has names of columns, since \(reason); its numbers are not looked at"
      )
    }
    try begin(header: reason != nil ? (names, first.number) : nil, data)
    for line in pending { try take(line) }
    while let line = try nextLine() { try take(line) }
    return try finish()
  }

  // MARK: Lines and cells

  private mutating func nextLine() throws(SquintError) -> Line? {
    try lines.next().map { Line(number: lines.number, bytes: $0) }
  }

  /// The first line that is neither blank nor a comment.
  private mutating func firstLine() throws(SquintError) -> Line? {
    while let line = try nextLine() {
      if !line.bytes.allSatisfy(isBlank), line.bytes.first != UInt8(ascii: "#") { return line }
    }
    return nil
  }

  /// Whether there are neither cells nor separators in a line.
  private func isEmpty(_ line: Line) -> Bool {
    var isTab = false
    if case .byte(UInt8(ascii: "\t")) = separator { isTab = true }
    return line.bytes.allSatisfy { isBlank($0) && !(isTab && $0 == UInt8(ascii: "\t")) }
  }

  /// What a first line `sep=;` says, which Excel reads and some programs write for it; nil where it is no such line.
  private static func saidSeparator(in line: [UInt8]) -> Separator? {
    var rest = line.trimmed[...]
    if rest.count > 2, rest.first == UInt8(ascii: "\""), rest.last == UInt8(ascii: "\"") {
      rest = rest.dropFirst().dropLast()
    }
    guard String(decoding: rest.prefix(4), as: UTF8.self).lowercased() == "sep=" else { return nil }
    // A tab is a blank, too.
    let said = line.suffix(from: rest.startIndex + 4).prefix { $0 != UInt8(ascii: "\"") }
    guard let byte = said.first, ";,\t |:".utf8.contains(byte), said.allSatisfy({ $0 == byte || isBlank($0) }) else {
      return nil
    }
    return byte == UInt8(ascii: " ") ? .blanks : .byte(byte)
  }

  /// What lies between the cells of a line of numbers: the first of these that is there outside of quotes.
  private static func separator(of line: [UInt8]) -> Separator {
    var found: Set<UInt8> = []
    var isQuoted = false
    for byte in line.trimmed {
      if byte == UInt8(ascii: "\"") { isQuoted.toggle() }
      if !isQuoted { found.insert(byte) }
    }
    for byte in [UInt8(ascii: ";"), UInt8(ascii: "\t"), UInt8(ascii: ",")] where found.contains(byte) {
      return .byte(byte)
    }
    return found.contains(UInt8(ascii: " ")) ? .blanks : .none
  }

  /// The cells of a line, without the blanks and the quotes around them.
  private func cells(of line: Line) throws(SquintError) -> [[UInt8]] {
    let bytes = line.bytes
    let quote = UInt8(ascii: "\"")
    var cells: [[UInt8]] = []
    var position = 0
    func isSeparator(_ byte: UInt8) -> Bool {
      switch separator {
      case .byte(let separator): byte == separator
      case .blanks: isBlank(byte)
      case .none: false
      }
    }
    if case .blanks = separator { while position < bytes.count, isBlank(bytes[position]) { position += 1 } }
    while true {
      while position < bytes.count, isBlank(bytes[position]), !isSeparator(bytes[position]) { position += 1 }
      if position < bytes.count, bytes[position] == quote {
        var cell: [UInt8] = []
        position += 1
        while true {
          guard position < bytes.count else {
            throw file.error(
              "line \(grouped(line.number)), column \(cells.count + 1): a quote is not closed in its line")
          }
          if bytes[position] == quote {
            guard position + 1 < bytes.count, bytes[position + 1] == quote else { break }
            position += 1
          }
          cell.append(bytes[position])
          position += 1
        }
        position += 1
        while position < bytes.count, isBlank(bytes[position]), !isSeparator(bytes[position]) { position += 1 }
        guard position == bytes.count || isSeparator(bytes[position]) else {
          throw file.error("line \(grouped(line.number)), column \(cells.count + 1): there is text behind a quote")
        }
        cells.append(Array(cell.trimmed))
      } else {
        let end = bytes[position...].firstIndex(where: isSeparator) ?? bytes.count
        cells.append(Array(bytes[position..<end].trimmed))
        position = end
      }
      guard cells.count <= SeriesTable.mostColumns else { throw tooMany(line: line.number) }
      guard position < bytes.count else { return cells }
      if case .blanks = separator {
        while position < bytes.count, isBlank(bytes[position]) { position += 1 }
        guard position < bytes.count else { return cells }
      } else {
        position += 1
      }
    }
  }

  private func tooMany(line: Int) -> SquintError {
    file.error(
      "line \(grouped(line)) has more than \(grouped(SeriesTable.mostColumns)) columns; a series is a column, from top to bottom"
    )
  }

  // MARK: What a cell is

  private enum Cell {
    case number(Double)
    case missing
    case time
    case text
    /// A number that is none: infinite, or beyond what there is.
    case infinite
    /// A number whose decimal mark is not that of the numbers before.
    case mixed
  }

  private static let missing: Set<String> = ["", "nan", "-nan", "na", "n/a", "#n/a", "null", "none"]
  private static let infinite: Set<String> = ["inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"]

  private func cell(_ bytes: [UInt8]) -> (cell: Cell, mark: UInt8?) {
    let comma = UInt8(ascii: ",")
    let point = UInt8(ascii: ".")
    var mark = point
    if bytes.contains(comma) {
      // Between two cells it would be a separator.
      guard case .byte(let separator) = separator, separator != comma else { return (Self.word(bytes), nil) }
      mark = comma
    }
    guard let number = DecimalNumber.value(of: bytes, mark: mark) else { return (Self.word(bytes), nil) }
    guard bytes.contains(mark) else { return (number.isFinite ? .number(number) : .infinite, nil) }
    if let decimal, decimal.mark != mark { return (.mixed, mark) }
    return (number.isFinite ? .number(number) : .infinite, mark)
  }

  private static func word(_ bytes: [UInt8]) -> Cell {
    guard bytes.count <= 64 else { return .text }
    let text = String(decoding: bytes, as: UTF8.self)
    let word = text.lowercased()
    if missing.contains(word) { return .missing }
    if infinite.contains(word) { return .infinite }
    return isTime(bytes) ? .time : .text
  }

  /// Whether this is a date, a time of day, or both: digits with two marks between them at least.
  private static func isTime(_ bytes: [UInt8]) -> Bool {
    guard let first = bytes.first, isDigit(first) else { return false }
    var marks = 0
    for (index, byte) in bytes.enumerated() where !isDigit(byte) {
      let isMark = [UInt8(ascii: "-"), UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: ".")].contains(byte)
      if isMark, index > 0, isDigit(bytes[index - 1]), index + 1 < bytes.count, isDigit(bytes[index + 1]) {
        marks += 1
        continue
      }
      // Between a date and a time, and of a zone.
      guard
        [UInt8(ascii: " "), UInt8(ascii: "T"), UInt8(ascii: "Z"), UInt8(ascii: "+"), UInt8(ascii: "-")].contains(byte)
      else { return false }
    }
    return marks >= 2 || marks == 1 && bytes.contains(UInt8(ascii: ":"))
  }

  /// Why the first line has names: one of its cells is a word, or the first of several is empty (the index that a program wrote beside its
  /// columns), or none is a number, and those of the `next` line are no such times; nil where it has none.
  private func isHeader(_ cells: [[UInt8]], before next: [[UInt8]]?) -> String? {
    for bytes in cells {
      if case .text = cell(bytes).cell, !isLikeNumber(bytes) { return "\(shown(bytes)) is no number" }
    }
    if cells.count > 1, cells[0].isEmpty { return "its first cell is empty" }
    let isData = zip(cells.indices, cells).contains { (index, bytes) in
      switch cell(bytes).cell {
      case .number, .mixed, .infinite, .text: return true
      // A gap that has a word.
      case .missing: return !bytes.isEmpty
      case .time:
        guard let next, index < next.count, case .time = cell(next[index]).cell else { return false }
        return true
      }
    }
    return isData ? nil : "none of its cells is a number"
  }

  /// Whether a cell is a number, or would be one with other marks and separators, and no name.
  private func isLikeNumber(_ bytes: [UInt8]) -> Bool {
    guard bytes.contains(where: isDigit) else { return false }
    return bytes.indices.allSatisfy { index in
      let byte = bytes[index]
      if isDigit(byte) || ".,;' \t".utf8.contains(byte) { return true }
      let isExponent = { (byte: UInt8) in byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E") }
      if isExponent(byte) { return index > 0 && isDigit(bytes[index - 1]) }
      // A sign.
      guard byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") else { return false }
      return index == 0 || isExponent(bytes[index - 1]) || ",; \t".utf8.contains(bytes[index - 1])
    }
  }

  // MARK: Rows

  private mutating func begin(header: (cells: [[UInt8]], line: Int)?, _ line: Line) throws(SquintError) {
    let data = try cells(of: line)
    var names = header?.cells.map { SeriesTable.safeName(String(decoding: $0, as: UTF8.self)) } ?? []
    if let header {
      // Separators at the ends of lines make no columns.
      let count = (data.lastIndex { !$0.isEmpty } ?? -1) + 1
      let named = header.cells.count
      if count > named {
        let error = file.error(
          "line \(grouped(line.number)) has \(count) columns, and line \(grouped(header.line)) has \(named == 1 ? "one name" : "\(named) names"); "
            + "give each a name" + (isComma ? ", or separate columns with ; where the comma stands for a point" : ""))
        // Some programs have no name for the column of their index.
        guard count == named + 1, named > 1 else { throw error }
        unnamedIndex = error
        names.insert("", at: 0)
      }
    }
    columns = (0..<max(names.count, data.count)).map { Column(name: $0 < names.count ? names[$0] : nil) }
    for (index, bytes) in data.enumerated() {
      guard case .time = cell(bytes).cell else { break }
      columns[index].isTime = true
    }
  }

  private var isComma: Bool { if case .byte(UInt8(ascii: ",")) = separator { true } else { false } }

  private mutating func take(_ line: Line) throws(SquintError) {
    // Of one column this is a gap; between rows it is none.
    if isEmpty(line), columns.count > 1 { return }
    let cells = try isEmpty(line) ? [] : cells(of: line)
    for (index, bytes) in cells.enumerated() where index >= columns.count && !bytes.isEmpty {
      throw file.error(
        "line \(grouped(line.number)) has \(cells.count) columns, and the lines before \(columns.count); is a number missing, "
          + "or a name?")
    }
    for index in columns.indices where !columns[index].isTime {
      let bytes = index < cells.count ? cells[index] : []
      let (cell, mark) = cell(bytes)
      switch cell {
      case .number(let number):
        if let gap = columns[index].gap {
          throw file.error(
            "\(place(gap.line, index)): there is no number (\(gap.text)), and more follow; fill the gap, or leave the column out"
          )
        }
        if let mark, decimal == nil { decimal = (mark, line.number) }
        numbers += 1
        guard numbers <= SeriesTable.mostNumbers else {
          throw file.error(
            "more than \(grouped(SeriesTable.mostNumbers)) numbers; give fewer columns, or fewer points of them")
        }
        columns[index].numbers.append(number)
      case .missing:
        if columns[index].gap == nil {
          columns[index].gap = (line.number, bytes.isEmpty ? "it is empty" : String(decoding: bytes, as: UTF8.self))
        }
      case .infinite:
        throw file.error("\(place(line.number, index)): \(shown(bytes)) is not finite")
      case .mixed:
        throw file.error(
          "\(place(line.number, index)): \(shown(bytes)) has another decimal mark than line \(grouped(decimal?.line ?? 0)) has"
        )
      case .time, .text:
        throw file.error(
          "\(place(line.number, index)): \(shown(bytes)) is no number; "
            + (isLikeNumber(bytes) ? "write it with a point, and nothing between thousands" : "leave the column out"))
      }
    }
  }

  private func place(_ line: Int, _ column: Int) -> String {
    let name = columns[column].name.flatMap { $0.isEmpty ? nil : " (\($0))" } ?? ""
    return "line \(grouped(line)), column \(column + 1)\(name)"
  }

  private func shown(_ bytes: [UInt8]) -> String {
    let text = String(decoding: bytes.prefix(40), as: UTF8.self).unicodeScalars.reduce(into: "") { text, scalar in
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator: text += scalar.escaped(asASCII: true)
      default: text.unicodeScalars.append(scalar)
      }
    }
    return "\"\(text)\(bytes.count > 40 ? "…" : "")\""
  }

  // MARK: The end

  /// Names of columns of times, or of the numbers of rows.
  private static let indexNames: Set<String> = [
    "", "index", "idx", "unnamed: 0", "time", "timestamp", "datetime", "date", "ds", "year", "step",
  ]

  private func finish() throws(SquintError) -> SeriesTable {
    if let unnamedIndex, let first = columns.first, !first.isTime {
      let numbers = first.numbers
      guard let start = numbers.first, start == 0 || start == 1,
        numbers.enumerated().allSatisfy({ $1 == start + Double($0) })
      else { throw unnamedIndex }
    }
    var notes = notes
    var kept: [SeriesTable.Column] = []
    var isFirst = true
    for (index, column) in columns.enumerated() {
      let name = column.name ?? ""
      let called = name.isEmpty ? "column \(index + 1)" : "the column \(name)"
      if column.isTime {
        notes.append("\(called) has times, and is not looked at")
        continue
      }
      // What a separator at the ends of lines makes.
      if column.numbers.isEmpty, name.isEmpty, columns.count > 1 { continue }
      guard !column.numbers.isEmpty else {
        throw file.error("column \(index + 1)\(name.isEmpty ? "" : " (\(name))") has no numbers; leave it out")
      }
      defer { isFirst = false }
      if isFirst, column.name != nil, Self.indexNames.contains(name.lowercased()), columns.count > index + 1,
        columns[(index + 1)...].contains(where: { !$0.numbers.isEmpty }),
        zip(column.numbers, column.numbers.dropFirst()).allSatisfy(<)
      {
        notes.append("\(called) numbers the points, and is not looked at")
        continue
      }
      kept.append(SeriesTable.Column(name: name.isEmpty ? nil : name, numbers: column.numbers))
    }
    guard !kept.isEmpty else { throw file.error("there is no number in it; a series is a column of numbers") }
    var table = SeriesTable(columns: kept)
    table.notes = notes
    return table
  }
}

private func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }

private func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

extension Collection<UInt8> where Self: BidirectionalCollection, SubSequence: BidirectionalCollection {
  /// Without the blanks around it.
  fileprivate var trimmed: SubSequence {
    guard let first = firstIndex(where: { !isBlank($0) }), let last = lastIndex(where: { !isBlank($0) }) else {
      return self[endIndex...]
    }
    return self[first...last]
  }
}

// MARK: Lines

/// The lines of a file, however they end, without a mark of the encoding in front.
private struct SeriesLines {
  private let file: MediaFile
  private var buffer: [UInt8]
  private var position = 0
  private var offset = 0
  private var isBehindReturn = false
  /// Of the line that came last, from 1.
  private(set) var number = 0

  private static let pieceBytes = 64 << 10
  private static let longestLine = 1 << 20
  private static let mark: [UInt8] = [0xEF, 0xBB, 0xBF]

  init(_ file: MediaFile) {
    self.file = file
    buffer = []
  }

  /// The next line without its end; nil behind the last.
  mutating func next() throws(SquintError) -> [UInt8]? {
    var line: [UInt8] = []
    var hasLine = false
    while true {
      if position == buffer.count {
        buffer = try file.bytes(at: offset, count: Self.pieceBytes)
        position = offset == 0 && buffer.starts(with: Self.mark) ? Self.mark.count : 0
        offset += buffer.count
        if position == buffer.count {
          guard hasLine else { return nil }
          number += 1
          return line
        }
      }
      if isBehindReturn {
        isBehindReturn = false
        if buffer[position] == UInt8(ascii: "\n") {
          position += 1
          continue
        }
      }
      hasLine = true
      let end = buffer[position...].firstIndex { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }
      let part = buffer[position..<(end ?? buffer.count)]
      if let strange = part.firstIndex(where: { $0 == 0 }) {
        throw file.error(
          "there is a zero byte at offset \(grouped(offset - buffer.count + strange)): this is no text; give CSV in UTF-8, or .npy"
        )
      }
      line += part
      guard line.count <= Self.longestLine else {
        throw file.error(
          "line \(grouped(number + 1)) is longer than \(grouped(Self.longestLine)) bytes; a series is a column, from top to bottom"
        )
      }
      position = (end ?? buffer.count)
      guard let end else { continue }
      isBehindReturn = buffer[end] == UInt8(ascii: "\r")
      position += 1
      number += 1
      return line
    }
  }
}

// MARK: Numbers

/// Decimal numbers as text, read to the nearest double whatever the locale.
package enum DecimalNumber {
  private static let powers: [Double] = [
    1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21,
    1e22,
  ]

  /// The number that is all of `bytes`: a sign, digits with perhaps a `mark` before or among or behind them, an exponent. nil where
  /// it is none; infinite where there is no such double.
  package static func value(of bytes: some Collection<UInt8>, mark: UInt8) -> Double? {
    // No program writes longer ones.
    guard bytes.count <= 1024 else { return nil }
    var rest = bytes[...]
    var isNegative = false
    if let sign = rest.first, sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") {
      isNegative = sign == UInt8(ascii: "-")
      rest = rest.dropFirst()
    }
    var text: [UInt8] = []
    var mantissa: UInt64 = 0
    var digits = 0
    var fraction = 0
    var isBehindMark = false
    loop: while let byte = rest.first {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"):
        digits += 1
        if mantissa < 1 << 59 { mantissa = mantissa * 10 + UInt64(byte - UInt8(ascii: "0")) }
        if isBehindMark { fraction += 1 }
        text.append(byte)
      case mark where !isBehindMark:
        isBehindMark = true
        text.append(UInt8(ascii: "."))
      default: break loop
      }
      rest = rest.dropFirst()
    }
    guard digits > 0 else { return nil }
    if text.first == UInt8(ascii: ".") { text.insert(UInt8(ascii: "0"), at: 0) }
    if text.last == UInt8(ascii: ".") { text.append(UInt8(ascii: "0")) }
    var exponent = 0
    if let letter = rest.first, letter == UInt8(ascii: "e") || letter == UInt8(ascii: "E") {
      rest = rest.dropFirst()
      var sign = 1
      if let byte = rest.first, byte == UInt8(ascii: "-") || byte == UInt8(ascii: "+") {
        sign = byte == UInt8(ascii: "-") ? -1 : 1
        rest = rest.dropFirst()
      }
      guard !rest.isEmpty else { return nil }
      for byte in rest {
        guard isDigit(byte) else { return nil }
        exponent = min(exponent * 10 + Int(byte - UInt8(ascii: "0")), 1 << 20)
      }
      exponent *= sign
      rest = rest[rest.endIndex...]
    }
    guard rest.isEmpty else { return nil }
    let power = exponent - fraction
    // Both are doubles, and one operation rounds once (Clinger, "How to read floating point numbers accurately").
    if digits <= 15, (-22...22).contains(power) {
      let magnitude = power < 0 ? Double(mantissa) / powers[-power] : Double(mantissa) * powers[power]
      return isNegative ? -magnitude : magnitude
    }
    // Swift's own reading knows no locale.
    guard let value = Double(String(decoding: text, as: UTF8.self) + "e\(exponent)") else { return nil }
    return isNegative ? -value : value
  }
}
