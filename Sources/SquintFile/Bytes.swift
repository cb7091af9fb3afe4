/// Appends little-endian numbers and bytes.
package struct ByteWriter {
  package private(set) var bytes: [UInt8] = []

  package init() {}

  package mutating func append(_ value: some FixedWidthInteger) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  package mutating func append(bytes more: some Sequence<UInt8>) { bytes.append(contentsOf: more) }
}

/// Reads little-endian numbers and bytes from a buffer, and never past its end.
package struct ByteCursor {
  private let buffer: UnsafeRawBufferPointer
  private let place: String
  package private(set) var offset = 0

  /// - Parameter place: what is being read, for messages: "model.squint: tensor table".
  package init(_ buffer: UnsafeRawBufferPointer, place: String) {
    self.buffer = buffer
    self.place = place
  }

  package var remaining: Int { buffer.count - offset }

  package func error(_ message: String) -> SquintError { .badData(place, message) }

  package mutating func next<T: FixedWidthInteger>(_: T.Type) throws(SquintError) -> T {
    T(littleEndian: try take(MemoryLayout<T>.size).loadUnaligned(as: T.self))
  }

  /// The next `count` bytes.
  package mutating func take(_ count: Int) throws(SquintError) -> UnsafeRawBufferPointer {
    guard count >= 0, count <= remaining else {
      throw error(
        "\(grouped(count)) bytes at offset \(grouped(offset)) run past the end (\(grouped(buffer.count)) bytes)")
    }
    defer { offset += count }
    return UnsafeRawBufferPointer(rebasing: buffer[offset..<offset + count])
  }

  /// The next `count` bytes as UTF-8.
  package mutating func text(_ count: Int) throws(SquintError) -> String {
    let start = offset
    guard let text = String(validating: try take(count), as: UTF8.self) else {
      throw error("the text at offset \(grouped(start)) is not UTF-8")
    }
    return text
  }
}

extension ByteCursor {
  /// The next `count` bytes as the name of something (formats/squint.md, "Names").
  package mutating func name(_ count: Int) throws(SquintError) -> String {
    let start = offset
    let bytes = try take(count)
    guard isName(bytes) else { throw error("the name at offset \(grouped(start)) has bytes that a name cannot have") }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// Whether `bytes` may name a key, a module or a tensor: visible ASCII without a slash, so that a name can be printed, compared
/// byte for byte and used as the name of a file.
package func isName(_ bytes: some Collection<UInt8>) -> Bool {
  !bytes.isEmpty && bytes.count <= Int(UInt16.max)
    && bytes.allSatisfy { (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "/") }
}

extension Array {
  /// `withUnsafeBufferPointer` that keeps the type of the error.
  package func withElements<Result>(
    _ body: (UnsafeBufferPointer<Element>) throws(SquintError) -> Result
  ) throws(SquintError) -> Result {
    try withUnsafeBufferPointer { elements in Swift.Result { () throws(SquintError) in try body(elements) } }.get()
  }
}

extension Array where Element == UInt8 {
  /// `withUnsafeBytes` that keeps the type of the error.
  package func withBytes<Result>(
    _ body: (UnsafeRawBufferPointer) throws(SquintError) -> Result
  ) throws(SquintError) -> Result {
    try withElements { (bytes) throws(SquintError) in try body(UnsafeRawBufferPointer(bytes)) }
  }
}
