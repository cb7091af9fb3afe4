import SquintFile

/// The numbers of a file: one series in each column.
package struct SeriesTable: Equatable, Sendable {
  package struct Column: Equatable, Sendable {
    /// What the file calls it; nil where it does not.
    package var name: String?
    package var numbers: [Double]

    package init(name: String? = nil, numbers: [Double]) {
      self.name = name
      self.numbers = numbers
    }
  }

  package var columns: [Column]
  /// Whether the file has the numbers in f32, with which NumPy would go on to compute.
  package var isSingle = false
  /// What is not taken of the file, a line each.
  package var notes: [String] = []

  /// More is no series that a model takes: a minute of 30,000 points a second.
  static let mostNumbers = 1 << 21
  static let mostColumns = 1024

  /// What it takes in memory, in bytes.
  var byteCount: Int { columns.reduce(0) { $0 + 8 * $1.numbers.count } }

  /// Reads the file of a series: NumPy's format, or text.
  ///
  /// - Throws: `badData` with the line and the column where it is none, or has a gap; `inputOutput` where it cannot be read.
  package init(reading file: MediaFile) throws(SquintError) {
    let start = try file.bytes(at: 0, count: 8)
    guard !start.isEmpty else { throw file.error("the file is empty; a series is a column of numbers") }
    if start.starts(with: SeriesNPY.magic) {
      self = try SeriesNPY(file).table()
    } else if start.starts(with: [0x50, 0x4B, 0x03, 0x04]) {
      throw file.error("this is an archive (.npz, .xlsx); save one array as .npy, or the sheet as CSV")
    } else if start.starts(with: [0xFF, 0xFE]) || start.starts(with: [0xFE, 0xFF]) {
      throw file.error("this is text in UTF-16; save it as UTF-8")
    } else if try Self.isJSON(file) {
      throw file.error("this is JSON; give CSV, a number or more in each line, or an array of NumPy's as .npy")
    } else {
      self = try SeriesText(file).table()
    }
  }

  init(columns: [Column]) { self.columns = columns }

  /// Whether a file begins as an array or an object, and not with a name in brackets, such as `[V]`.
  private static func isJSON(_ file: MediaFile) throws(SquintError) -> Bool {
    let blanks = " \t\r\n".utf8
    var rest = try file.bytes(at: 0, count: 256)[...]
    if rest.starts(with: [0xEF, 0xBB, 0xBF]) { rest = rest.dropFirst(3) }
    rest = rest.drop { blanks.contains($0) }
    guard let open = rest.popFirst(), open == UInt8(ascii: "[") || open == UInt8(ascii: "{") else { return false }
    guard let next = rest.first(where: { !blanks.contains($0) }) else { return false }
    return open == UInt8(ascii: "{") ? "\"}".utf8.contains(next) : "\"[{]-0123456789".utf8.contains(next)
  }
}

extension SeriesTable {
  /// A name of a column as a prompt may have it: what could be read as a control token, or as a placeholder, is left out.
  static func safeName(_ name: String) -> String {
    let kept = name.unicodeScalars.filter { scalar in
      scalar.value >= 0x20 && scalar.value != 0x7F && !"<>|[]{}\\".unicodeScalars.contains(scalar)
        && !scalar.properties.isBidiControl && scalar.properties.generalCategory != .format
        && scalar.properties.generalCategory != .control && scalar.properties.generalCategory != .lineSeparator
        && scalar.properties.generalCategory != .paragraphSeparator
    }
    return String(String(String.UnicodeScalarView(kept)).prefix(longestName))
  }

  private static let longestName = 64
}
