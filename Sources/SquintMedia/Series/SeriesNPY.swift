import SquintFile

/// Reads series in NumPy's format: [time], or [time, channels] (NumPy's `numpy.lib.format`, versions 1 to 3).
struct SeriesNPY {
  static let magic: [UInt8] = [0x93, 0x4E, 0x55, 0x4D, 0x50, 0x59]

  private let file: MediaFile
  private let kind: Kind
  private let isBigEndian: Bool
  private let isFortran: Bool
  private let time: Int
  private let channels: Int
  private let dataOffset: Int

  private enum Kind {
    case float(bytes: Int)
    case signed(bytes: Int)
    case unsigned(bytes: Int)

    var byteCount: Int {
      switch self {
      case .float(let bytes), .signed(let bytes), .unsigned(let bytes): bytes
      }
    }
  }

  private static let longestHeader = 1 << 16

  /// Reads the header.
  ///
  /// - Throws: `badData` where it is none, or of an array that is no series.
  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let start = try file.bytes(at: 0, count: 12)
    guard start.count >= 10, (1...3).contains(start[6]), start[7] == 0 else {
      throw file.error("its NumPy header is of a version that is not known; save it with numpy.save")
    }
    let isShort = start[6] == 1
    guard isShort || start.count == 12 else { throw file.error("the file ends in its NumPy header; copy it again") }
    let length =
      isShort
      ? Int(start[8]) | Int(start[9]) << 8
      : Int(start[8]) | Int(start[9]) << 8 | Int(start[10]) << 16 | Int(start[11]) << 24
    let first = isShort ? 10 : 12
    guard length <= Self.longestHeader else {
      throw file.error("its NumPy header has \(grouped(length)) bytes; \(grouped(Self.longestHeader)) at most")
    }
    let header = try file.bytes(at: first, count: length)
    guard header.count == length else { throw file.error("the file ends in its NumPy header; copy it again") }
    dataOffset = first + length
    var parser = NPYHeader(header, file)
    let (descr, isFortran, shape) = try parser.parse()
    self.isFortran = isFortran
    guard let type = Self.type(descr) else {
      throw file.error(
        "its numbers are of type \"\(descr)\"; known are f2, f4, f8, i1 to i8 and u1 to u8, save it with "
          + "array.astype(\"f8\")")
    }
    (kind, isBigEndian) = type
    guard shape.count == 1 || shape.count == 2 else {
      throw file.error("an array of \(shape.count) axes is no series; [time] and [time, channels] are")
    }
    time = shape[0]
    channels = shape.count == 2 ? shape[1] : 1
    guard time > 0, channels > 0 else { throw file.error("the array is empty") }
    guard channels <= SeriesTable.mostColumns else {
      throw file.error(
        "an array of \(grouped(time)) × \(grouped(channels)) has more than \(grouped(SeriesTable.mostColumns)) channels; time "
          + "comes first, transpose it")
    }
    let (count, overflow) = time.multipliedReportingOverflow(by: channels)
    guard !overflow, count <= SeriesTable.mostNumbers else {
      throw file.error(
        "more than \(grouped(SeriesTable.mostNumbers)) numbers; give fewer channels, or fewer points of them")
    }
    guard file.byteCount - dataOffset == count * kind.byteCount else {
      throw file.error(
        "its header says \(grouped(count * kind.byteCount)) bytes of numbers, and \(grouped(max(file.byteCount - dataOffset, 0))) "
          + "are there; copy it again")
    }
  }

  private static func type(_ descr: String) -> (Kind, isBigEndian: Bool)? {
    var characters = descr.utf8[...]
    guard let order = characters.popFirst(), let letter = characters.popFirst(), let size = characters.popFirst(),
      characters.isEmpty, ["<", ">", "|", "="].contains(Character(UnicodeScalar(order))),
      (UInt8(ascii: "1")...UInt8(ascii: "8")).contains(size)
    else { return nil }
    let bytes = Int(size - UInt8(ascii: "0"))
    guard [1, 2, 4, 8].contains(bytes), order != UInt8(ascii: "|") || bytes == 1 else { return nil }
    let kind: Kind
    switch letter {
    case UInt8(ascii: "f") where bytes > 1: kind = .float(bytes: bytes)
    case UInt8(ascii: "i"): kind = .signed(bytes: bytes)
    case UInt8(ascii: "u"): kind = .unsigned(bytes: bytes)
    default: return nil
    }
    return (kind, order == UInt8(ascii: ">"))
  }

  /// - Throws: `badData` where a number is not finite.
  func table() throws(SquintError) -> SeriesTable {
    let size = kind.byteCount
    var columns = [SeriesTable.Column](repeating: SeriesTable.Column(name: nil, numbers: []), count: channels)
    for index in columns.indices { columns[index].numbers.reserveCapacity(time) }
    /// In each column, the first point that is none.
    var gaps = [Int?](repeating: nil, count: channels)
    let perPiece = 8192
    for first in stride(from: 0, to: time * channels, by: perPiece) {
      let count = min(perPiece, time * channels - first)
      let bytes = try file.bytes(at: dataOffset + first * size, count: count * size)
      guard bytes.count == count * size else { throw file.error("the file became shorter while it was read") }
      for index in 0..<count {
        let (row, column) =
          isFortran
          ? ((first + index) % time, (first + index) / time) : ((first + index) / channels, (first + index) % channels)
        let number = value(bytes[index * size..<(index + 1) * size])
        guard !number.isNaN else {
          gaps[column] = gaps[column] ?? row
          continue
        }
        guard number.isFinite else { throw file.error("\(place(row, column)) is not finite") }
        if let gap = gaps[column] {
          throw file.error(
            "\(place(gap, column)) is not a number, and more follow; fill the gap, or leave the channel out")
        }
        columns[column].numbers.append(number)
      }
    }
    for (index, column) in columns.enumerated() where column.numbers.isEmpty {
      throw file.error("channel \(index + 1) has no numbers; leave it out")
    }
    var table = SeriesTable(columns: columns)
    if case .float(4) = kind { table.isSingle = true }
    return table
  }

  private func place(_ row: Int, _ column: Int) -> String {
    "point \(grouped(row + 1))" + (channels > 1 ? " of channel \(column + 1)" : "")
  }

  private func value(_ bytes: ArraySlice<UInt8>) -> Double {
    var bits: UInt64 = 0
    for byte in isBigEndian ? Array(bytes) : bytes.reversed() { bits = bits << 8 | UInt64(byte) }
    switch kind {
    case .float(2): return Double(HalfPrecision.float(UInt16(truncatingIfNeeded: bits)))
    case .float(4): return Double(Float(bitPattern: UInt32(truncatingIfNeeded: bits)))
    case .float: return Double(bitPattern: bits)
    case .signed(let size): return Double(Int64(bitPattern: bits << (64 - 8 * size)) >> (64 - 8 * size))
    case .unsigned: return Double(bits)
    }
  }
}

/// The dictionary in front of an array, a literal of Python's.
private struct NPYHeader {
  private let bytes: [UInt8]
  private let file: MediaFile
  private var position = 0

  init(_ bytes: [UInt8], _ file: MediaFile) {
    self.bytes = bytes
    self.file = file
  }

  mutating func parse() throws(SquintError) -> (descr: String, isFortran: Bool, shape: [Int]) {
    var descr: String?
    var isFortran: Bool?
    var shape: [Int]?
    try expect("{")
    while !take("}") {
      let key = try text()
      try expect(":")
      switch key {
      case "descr" where descr == nil: descr = try text()
      case "fortran_order" where isFortran == nil:
        if word("True") {
          isFortran = true
        } else if word("False") {
          isFortran = false
        } else {
          throw damaged
        }
      case "shape" where shape == nil: shape = try tuple()
      default: throw damaged
      }
      if !take(",") {
        try expect("}")
        break
      }
    }
    skip()
    guard position == bytes.count, let descr, let isFortran, let shape else { throw damaged }
    return (descr, isFortran, shape)
  }

  private var damaged: SquintError {
    file.error("its NumPy header is not what numpy.save writes (byte \(position) of it); save a plain array of numbers")
  }

  private mutating func skip() {
    while position < bytes.count, [0x20, 0x0A, 0x09, 0x0D].contains(bytes[position]) { position += 1 }
  }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skip()
    guard position < bytes.count, bytes[position] == UInt8(ascii: character) else { return false }
    position += 1
    return true
  }

  private mutating func expect(_ character: Unicode.Scalar) throws(SquintError) {
    guard take(character) else { throw damaged }
  }

  private mutating func word(_ word: String) -> Bool {
    skip()
    guard bytes[position...].starts(with: word.utf8) else { return false }
    position += word.utf8.count
    return true
  }

  private mutating func text() throws(SquintError) -> String {
    skip()
    guard position < bytes.count, bytes[position] == UInt8(ascii: "'") || bytes[position] == UInt8(ascii: "\"") else {
      throw damaged
    }
    let quote = bytes[position]
    guard let end = bytes[(position + 1)...].firstIndex(of: quote), end - position <= 64,
      bytes[position + 1..<end].allSatisfy({ (0x20...0x7E).contains($0) && $0 != UInt8(ascii: "\\") })
    else { throw damaged }
    defer { position = end + 1 }
    return String(decoding: bytes[position + 1..<end], as: UTF8.self)
  }

  private mutating func tuple() throws(SquintError) -> [Int] {
    try expect("(")
    var numbers: [Int] = []
    while !take(")") {
      skip()
      let digits = bytes[position...].prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
      guard !digits.isEmpty, let number = Int(String(decoding: digits, as: UTF8.self)), numbers.count < 32 else {
        throw damaged
      }
      numbers.append(number)
      position += digits.count
      if !take(",") {
        try expect(")")
        break
      }
    }
    return numbers
  }
}
