/// What each Unicode scalar is to the reference tokenizer, as a bit set, in one lookup of two steps.
///
/// A page of 256 scalars that are all alike is shared, so the table takes about 70 KB. It is made once a process.
struct UnicodeCategories: Sendable {
  /// `\p{L}`, `\p{N}` and `\s` of the regular expressions.
  static let letter: UInt8 = 1
  static let number: UInt8 = 2
  static let space: UInt8 = 4
  /// What the Digits pre-tokenizer takes apart: `\p{N}` of another Unicode version.
  static let numeric: UInt8 = 8
  /// What an added token with `isSingleWord` may not touch.
  static let word: UInt8 = 16
  /// Changes in normalization form C, or may join the scalar before it.
  static let composes: UInt8 = 32
  /// Has a canonical combining class other than 0.
  static let mark: UInt8 = 64

  static let shared = UnicodeCategories()

  /// `pages[scalar >> 8] + scalar & 255` is the scalar's place in `values`. Page 0 comes first: ASCII needs no `pages`.
  nonisolated(unsafe) let pages: UnsafePointer<UInt32>
  nonisolated(unsafe) let values: UnsafePointer<UInt8>

  private init() {
    let pageCount = 0x110000 / 256
    var starts: [UInt32] = []
    starts.reserveCapacity(pageCount)
    var pool: [UInt8] = []
    pool.reserveCapacity(96 << 10)
    var uniform = [UInt32?](repeating: nil, count: 256)
    UnicodeTables.categoryRuns.withUnsafeBufferPointer { runs in
      var run = 0
      for page in 0..<pageCount {
        let first = UInt32(page) << 8
        while run + 1 < runs.count && runs[run + 1] >> 8 <= first { run += 1 }
        let isUniform = run + 1 == runs.count || runs[run + 1] >> 8 >= first + 256
        let value = UInt8(truncatingIfNeeded: runs[run])
        if isUniform, let start = uniform[Int(value)] {
          starts.append(start)
          continue
        }
        let start = UInt32(pool.count)
        if isUniform { uniform[Int(value)] = start }
        starts.append(start)
        for scalar in first..<first + 256 {
          while run + 1 < runs.count && runs[run + 1] >> 8 <= scalar { run += 1 }
          pool.append(UInt8(truncatingIfNeeded: runs[run]))
        }
      }
    }
    // Never freed: it lives as long as the process.
    let pages = UnsafeMutablePointer<UInt32>.allocate(capacity: starts.count)
    starts.withUnsafeBufferPointer { pages.initialize(from: $0.baseAddress!, count: $0.count) }
    let values = UnsafeMutablePointer<UInt8>.allocate(capacity: pool.count)
    pool.withUnsafeBufferPointer { values.initialize(from: $0.baseAddress!, count: $0.count) }
    self.pages = UnsafePointer(pages)
    self.values = UnsafePointer(values)
  }

  @inline(__always)
  subscript(scalar: UInt32) -> UInt8 {
    scalar < 128 ? values[Int(scalar)] : values[Int(pages[Int(scalar >> 8)]) + Int(scalar & 255)]
  }
}

/// A stretch of valid UTF-8 together with what its scalars are.
struct TextView {
  let base: UnsafePointer<UInt8>
  var end: Int
  let categories: UnicodeCategories

  /// The scalar at `index`, which is the first byte of one.
  @inline(__always)
  func scalar(at index: Int) -> (value: UInt32, length: Int) {
    let first = UInt32(base[index])
    if first < 0x80 { return (first, 1) }
    let second = UInt32(base[index + 1]) & 0x3F
    if first < 0xE0 { return ((first & 0x1F) << 6 | second, 2) }
    let third = UInt32(base[index + 2]) & 0x3F
    if first < 0xF0 { return ((first & 0x0F) << 12 | second << 6 | third, 3) }
    let fourth = UInt32(base[index + 3]) & 0x3F
    return ((first & 0x07) << 18 | second << 12 | third << 6 | fourth, 4)
  }

  /// The category of the scalar at `index`, and its length in bytes.
  @inline(__always)
  func category(at index: Int) -> (bits: UInt8, length: Int) {
    let first = base[index]
    if first < 0x80 { return (categories.values[Int(first)], 1) }
    let (value, length) = scalar(at: index)
    return (categories.values[Int(categories.pages[Int(value >> 8)]) + Int(value & 255)], length)
  }

  /// Where the scalar that ends before `index` starts.
  @inline(__always)
  func previous(_ index: Int) -> Int {
    var index = index - 1
    while base[index] & 0xC0 == 0x80 { index -= 1 }
    return index
  }
}
