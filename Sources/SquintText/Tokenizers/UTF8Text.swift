import SquintFile

/// Reading bytes as UTF-8 the way Python's `bytes.decode("utf-8", errors="replace")`, Rust's `from_utf8_lossy` and
/// the WHATWG encoding standard do: each maximal part of an ill-formed sequence becomes one U+FFFD.
enum UTF8Text {
  static let replacement: [UInt8] = [0xEF, 0xBF, 0xBD]

  /// What stands at one place of a text.
  enum Sequence {
    /// A character of so many bytes.
    case valid(Int)
    /// So many bytes that no character starts with.
    case invalid(Int)
    /// The text ends within a character, after so many bytes of it.
    case incomplete(Int)
  }

  @inline(__always)
  static func sequence(_ base: UnsafePointer<UInt8>, _ index: Int, _ end: Int) -> Sequence {
    let first = base[index]
    if first < 0x80 { return .valid(1) }
    guard first >= 0xC2, first <= 0xF4 else { return .invalid(1) }
    let length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
    // The second byte's range rules out overlong forms, surrogates and what lies past U+10FFFF.
    var low: UInt8 = 0x80
    var high: UInt8 = 0xBF
    switch first {
    case 0xE0: low = 0xA0
    case 0xED: high = 0x9F
    case 0xF0: low = 0x90
    case 0xF4: high = 0x8F
    default: break
    }
    var count = 1
    while count < length {
      guard index + count < end else { return .incomplete(count) }
      let byte = base[index + count]
      guard byte >= low, byte <= high else { return .invalid(count) }
      low = 0x80
      high = 0xBF
      count += 1
    }
    return .valid(length)
  }

  /// How many bytes from the start are valid UTF-8.
  static func validPrefix(_ bytes: UnsafeRawBufferPointer) -> Int {
    guard let raw = bytes.baseAddress else { return 0 }
    let base = raw.assumingMemoryBound(to: UInt8.self)
    var index = 0
    while index < bytes.count {
      if base[index] < 0x80 {
        index += 1
        while index + 8 <= bytes.count
          && raw.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
        {
          index += 8
        }
        continue
      }
      guard case .valid(let length) = sequence(base, index, bytes.count) else { return index }
      index += length
    }
    return index
  }

  /// Appends `bytes` with U+FFFD in place of what is ill-formed.
  ///
  /// - Parameter holdsBack: leaves a character that the end cuts off unread instead of replacing it.
  /// - Returns: how many bytes were read.
  @discardableResult
  static func appendRepaired(
    _ bytes: UnsafeRawBufferPointer, to out: inout [UInt8], holdsBack: Bool = false
  ) -> Int {
    var start = 0
    while start < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[start...])
      let valid = validPrefix(rest)
      out.append(contentsOf: rest[..<valid])
      start += valid
      guard valid < rest.count else { break }
      switch sequence(rest.baseAddress!.assumingMemoryBound(to: UInt8.self), valid, rest.count) {
      case .valid(let count), .invalid(let count):
        out.append(contentsOf: replacement)
        start += count
      case .incomplete(let count):
        if holdsBack { return start }
        out.append(contentsOf: replacement)
        start += count
      }
    }
    return start
  }
}

/// A growing run of bytes without a bounds check or a uniqueness check at each of them.
struct ByteBuffer: ~Copyable {
  private(set) var base: UnsafeMutablePointer<UInt8>
  private(set) var capacity: Int
  var count = 0

  init() {
    capacity = 256
    base = .allocate(capacity: capacity)
  }

  deinit { base.deallocate() }

  @inline(__always)
  mutating func reserve(_ more: Int) {
    if count + more > capacity { grow(to: count + more) }
  }

  @inline(never)
  private mutating func grow(to needed: Int) {
    let larger = max(needed, capacity * 2)
    let next = UnsafeMutablePointer<UInt8>.allocate(capacity: larger)
    next.update(from: base, count: count)
    base.deallocate()
    base = next
    capacity = larger
  }

  @inline(__always)
  mutating func append(_ source: UnsafePointer<UInt8>, _ length: Int) {
    reserve(length)
    memcpy(base + count, source, length)
    count += length
  }

  @inline(__always)
  mutating func append(_ bytes: [UInt8]) {
    bytes.withUnsafeBufferPointer { if let source = $0.baseAddress { append(source, $0.count) } }
  }

  mutating func append(scalar: UInt32) {
    reserve(4)
    switch scalar {
    case ..<0x80:
      base[count] = UInt8(scalar)
      count += 1
    case ..<0x800:
      base[count] = UInt8(0xC0 | scalar >> 6)
      base[count + 1] = UInt8(0x80 | scalar & 0x3F)
      count += 2
    case ..<0x10000:
      base[count] = UInt8(0xE0 | scalar >> 12)
      base[count + 1] = UInt8(0x80 | scalar >> 6 & 0x3F)
      base[count + 2] = UInt8(0x80 | scalar & 0x3F)
      count += 3
    default:
      base[count] = UInt8(0xF0 | scalar >> 18)
      base[count + 1] = UInt8(0x80 | scalar >> 12 & 0x3F)
      base[count + 2] = UInt8(0x80 | scalar >> 6 & 0x3F)
      base[count + 3] = UInt8(0x80 | scalar & 0x3F)
      count += 4
    }
  }

  /// Gives the memory of an unusually long text back.
  mutating func trim(to limit: Int) {
    count = 0
    guard capacity > limit else { return }
    base.deallocate()
    capacity = limit
    base = .allocate(capacity: limit)
  }
}
