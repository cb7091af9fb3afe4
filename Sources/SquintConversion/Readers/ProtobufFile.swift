import SquintFile

/// Reads the fields of protobuf messages in a file from start to end (protobuf.dev, "Encoding").
///
/// A message is known by where it ends. What is read is checked against that end, so that no field reaches out of the
/// message that it is in, however the file was made.
struct ProtobufFileReader {
  /// What is being read, for messages.
  var place: String
  /// Where the next byte is in the file.
  var position: Int { window.position }
  /// How many bytes the texts and lists that are kept may still take.
  private(set) var budget: Int

  private var window: FileWindow

  /// How a field is stored.
  enum Wire: UInt64 {
    case varint = 0
    case fixed64 = 1
    case bytes = 2
    case fixed32 = 5
  }

  struct Field {
    let number: Int
    let wire: Wire
  }

  /// - Parameter budget: bounds the memory that the file can make us take.
  init(file: SourceFile, place: String, budget: Int) {
    window = FileWindow(file: file)
    self.place = place
    self.budget = budget
  }

  func error(_ message: String) -> SquintError { .badData(window.file.path, "\(place): \(message)") }

  /// Takes `count` bytes from the budget.
  mutating func spend(_ count: Int) throws(SquintError) {
    guard count <= budget else {
      throw error("it makes more than is read of a graph; save the model with its numbers as raw data")
    }
    budget -= count
  }

  // MARK: Fields

  /// The next field of the message that ends at `end`; nil at its end.
  mutating func field(until end: Int) throws(SquintError) -> Field? {
    guard window.position < end else { return nil }
    let start = window.position
    let tag = try varint(until: end)
    let number = tag >> 3
    guard number > 0, number < 1 << 29, let wire = Wire(rawValue: tag & 7) else {
      throw error("there is no field at offset \(grouped(start)); the file is corrupt or no ONNX model")
    }
    return Field(number: Int(number), wire: wire)
  }

  mutating func varint(until end: Int) throws(SquintError) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<10 {
      try require(1, until: end)
      let byte = try window.integer(UInt8.self)
      // The tenth byte has room for the last bit only.
      guard index < 9 || byte <= 1 else { break }
      value |= UInt64(byte & 0x7F) << (7 * UInt64(index))
      if byte < 0x80 { return value }
    }
    throw error("a number before offset \(grouped(window.position)) has more than 64 bits; the file is corrupt")
  }

  mutating func fixed32(until end: Int) throws(SquintError) -> UInt32 {
    try require(4, until: end)
    return try window.integer(UInt32.self)
  }

  /// Where the message or the bytes that start here, after their length, end.
  mutating func length(until end: Int) throws(SquintError) -> Int {
    let length = try varint(until: end)
    guard length <= UInt64(end - window.position) else { throw pastTheEnd(length, end) }
    return window.position + Int(length)
  }

  mutating func text(until end: Int) throws(SquintError) -> String {
    let end = try length(until: end)
    let count = end - window.position
    guard count <= Self.maximumTextBytes else { throw error("a text of \(grouped(count)) bytes is too long") }
    try spend(count)
    guard let text = String(validating: try window.bytes(count), as: UTF8.self) else {
      throw error("a name is not UTF-8; the file is corrupt")
    }
    return text
  }

  /// The bytes from here to `end`, which is known to be inside the file.
  mutating func bytes(until end: Int) throws(SquintError) -> [UInt8] {
    try spend(end - window.position)
    return try window.bytes(end - window.position)
  }

  /// Calls `body` for each number of a repeated field, packed or not, with where the numbers end.
  mutating func forEach(
    _ field: Field, until end: Int, _ body: (inout Self, Int) throws(SquintError) -> Void
  ) throws(SquintError) {
    guard field.wire == .bytes else { return try body(&self, end) }
    let end = try length(until: end)
    while window.position < end { try body(&self, end) }
  }

  mutating func skip(_ field: Field, until end: Int) throws(SquintError) {
    switch field.wire {
    case .varint: _ = try varint(until: end)
    case .fixed64: try skip(8, until: end)
    case .fixed32: try skip(4, until: end)
    case .bytes: window.position = try length(until: end)
    }
  }

  /// Moves on to `end`, which is known to be inside the file.
  mutating func move(to end: Int) { window.position = end }

  /// That the field has the wire type that its definition gives it.
  func expect(_ field: Field, _ wire: Wire) throws(SquintError) {
    guard field.wire == wire else {
      throw error("field \(field.number) before offset \(grouped(position)) is of a wrong kind; the file is corrupt")
    }
  }

  private static let maximumTextBytes = 1 << 16

  private mutating func skip(_ count: Int, until end: Int) throws(SquintError) {
    try require(count, until: end)
    window.position += count
  }

  private func require(_ count: Int, until end: Int) throws(SquintError) {
    guard end - window.position >= count else { throw pastTheEnd(UInt64(count), end) }
  }

  private func pastTheEnd(_ count: UInt64, _ end: Int) -> SquintError {
    let whole = end == window.file.byteCount
    return error(
      "\(grouped(count)) bytes at offset \(grouped(window.position)) run past the end of the \(whole ? "file" : "message") "
        + "(\(grouped(end))); \(whole ? "the download is incomplete" : "the file is corrupt")")
  }
}
