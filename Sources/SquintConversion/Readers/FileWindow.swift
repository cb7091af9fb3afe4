import SquintFile

/// A place in a file that moves forward through a window, so that only that much of the file is in memory at once.
struct FileWindow {
  let file: SourceFile
  /// Where the next byte is in the file.
  var position: Int {
    get { start + offset }
    set {
      // What the window holds stays of use where the new place is in it.
      if newValue >= start, newValue <= start + window.count {
        offset = newValue - start
      } else {
        window = []
        start = newValue
        offset = 0
      }
    }
  }
  /// How many bytes follow, 0 behind the end.
  var bytesLeft: Int { max(0, file.byteCount - position) }

  private var window: [UInt8] = []
  private var start = 0
  private var offset = 0

  /// The most that can be asked for in one piece.
  static let maximumBytes = 256 << 10

  init(file: SourceFile) { self.file = file }

  /// Makes the next `count` bytes, at most `maximumBytes`, available.
  private mutating func fill(_ count: Int) throws(SquintError) {
    guard window.count - offset < count else { return }
    let start = position
    let size = max(count, min(Self.maximumBytes, file.byteCount - start))
    if window.count != size { window = [UInt8](repeating: 0, count: size) }
    let file = file
    let result = window.withUnsafeMutableBytes { bytes in
      Result { () throws(SquintError) in try file.read(at: start, into: bytes) }
    }
    try result.get()
    self.start = start
    offset = 0
  }

  mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) throws(SquintError) -> Value {
    try fill(MemoryLayout<Value>.size)
    let value = window.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Value.self) }
    offset += MemoryLayout<Value>.size
    return Value(littleEndian: value)
  }

  /// The next `count` bytes, of which the caller knows that they are not too many.
  mutating func bytes(_ count: Int) throws(SquintError) -> [UInt8] {
    var left = count
    var result: [UInt8] = []
    result.reserveCapacity(left)
    while left > 0 {
      let piece = min(left, Self.maximumBytes)
      try fill(piece)
      result.append(contentsOf: window[offset..<offset + piece])
      offset += piece
      left -= piece
    }
    return result
  }
}
