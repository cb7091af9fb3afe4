import SquintText

/// A Python `str`: UTF-8 bytes that are compared, ordered and indexed by code point.
///
/// Swift's `String` compares by canonical equivalence and counts grapheme clusters; a template must see what
/// Python sees, where "é" has two spellings that differ and "\r\n" is two characters.
///
/// It also knows which of its bytes the template itself wrote (`PromptText`). An operation that does not say so makes content:
/// nothing that was content can become the template's own by being forgotten.
struct PythonText: Hashable, Comparable, Sendable, ExpressibleByStringLiteral {
  private(set) var bytes: [UInt8]
  private(set) var own = ByteRanges()

  init(bytes: [UInt8] = []) { self.bytes = bytes }
  init(_ text: PromptText) {
    bytes = text.bytes
    own = text.own
  }
  init(_ string: String) { bytes = Array(string.utf8) }
  init(stringLiteral value: StaticString) {
    bytes = value.withUTF8Buffer { Array($0) }
  }
  init(_ scalars: some Sequence<Unicode.Scalar>) {
    bytes = []
    for scalar in scalars { append(scalar) }
  }

  var string: String { String(decoding: bytes, as: UTF8.self) }
  var prompt: PromptText { PromptText(bytes: bytes, own: own) }
  var isEmpty: Bool { bytes.isEmpty }

  // Where a text is from makes it no other text.
  static func == (left: PythonText, right: PythonText) -> Bool { left.bytes == right.bytes }
  func hash(into hasher: inout Hasher) { hasher.combine(bytes) }

  /// The same text as the template's own.
  var asOwn: PythonText {
    var text = self
    text.own = ByteRanges(0..<bytes.count)
    return text
  }

  /// The same text as the template's own where all of `source`, which it was made of, is.
  func inheriting(from source: PythonText) -> PythonText { source.isOwn ? asOwn : self }

  /// Whether all of it is the template's own.
  var isOwn: Bool { bytes.isEmpty || own.contains(0..<bytes.count) }

  /// What it holds in memory.
  var byteCount: Int { bytes.count + own.byteCount }

  /// The number of code points: Python's `len`.
  var count: Int {
    var total = 0
    for byte in bytes where byte & 0xC0 != 0x80 { total += 1 }
    return total
  }

  var scalars: [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    result.reserveCapacity(bytes.count)
    var index = 0
    while index < bytes.count {
      let (scalar, length) = scalar(at: index)
      result.append(scalar)
      index += length
    }
    return result
  }

  static func < (left: PythonText, right: PythonText) -> Bool {
    // The order of UTF-8 bytes is the order of code points.
    left.bytes.lexicographicallyPrecedes(right.bytes)
  }

  mutating func append(_ scalar: Unicode.Scalar) {
    if scalar.value < 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: scalar.value))
    } else {
      bytes.append(contentsOf: UTF8.encode(scalar)!)
    }
  }

  mutating func append(byte: UInt8) { bytes.append(byte) }
  mutating func append(contentsOf more: some Sequence<UInt8>) { bytes.append(contentsOf: more) }
  mutating func reserveCapacity(_ count: Int) { bytes.reserveCapacity(count) }

  mutating func append(_ text: PythonText) {
    own.append(text.own, at: bytes.count)
    bytes.append(contentsOf: text.bytes)
  }

  static func + (left: PythonText, right: PythonText) -> PythonText {
    var sum = left
    sum.append(right)
    return sum
  }

  /// The code point that begins at byte `index`, and its length in bytes. The bytes are valid UTF-8 by construction.
  func scalar(at index: Int) -> (Unicode.Scalar, Int) {
    let first = UInt32(bytes[index])
    if first < 0x80 { return (Unicode.Scalar(UInt8(first)), 1) }
    let length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2
    guard index + length <= bytes.count else { return ("\u{FFFD}", bytes.count - index) }
    var value = length == 4 ? first & 0x07 : length == 3 ? first & 0x0F : first & 0x1F
    for offset in 1..<length { value = value << 6 | UInt32(bytes[index + offset] & 0x3F) }
    return (Unicode.Scalar(value) ?? "\u{FFFD}", length)
  }

  /// The code point that ends before byte `index` (> 0), and its length in bytes.
  func scalar(before index: Int) -> (Unicode.Scalar, Int) {
    var start = index - 1
    while start > 0 && bytes[start] & 0xC0 == 0x80 { start -= 1 }
    let (value, _) = scalar(at: start)
    return (value, index - start)
  }

  subscript(range: Range<Int>) -> PythonText {
    var part = PythonText(bytes: Array(bytes[range]))
    part.own = own.clamped(to: range)
    return part
  }

  /// The code point at position `index`, counted in code points; nil past the end.
  func character(at index: Int) -> PythonText? {
    guard index >= 0 else { return nil }
    var position = 0
    var offset = 0
    while offset < bytes.count {
      let length = scalar(at: offset).1
      if position == index { return self[offset..<offset + length] }
      position += 1
      offset += length
    }
    return nil
  }

  /// The byte at which the code point at `position` begins; the end where there are no more.
  func offset(of position: Int) -> Int {
    var remaining = position
    for (offset, byte) in bytes.enumerated() where byte & 0xC0 != 0x80 {
      if remaining == 0 { return offset }
      remaining -= 1
    }
    return bytes.count
  }

  // MARK: Searching

  func hasPrefix(_ prefix: PythonText) -> Bool { matches(prefix, at: 0) }

  func hasSuffix(_ suffix: PythonText) -> Bool {
    matches(suffix, at: bytes.count - suffix.bytes.count)
  }

  func matches(_ other: PythonText, at index: Int) -> Bool {
    guard index >= 0, other.bytes.count <= bytes.count - index else { return false }
    for offset in 0..<other.bytes.count where bytes[index + offset] != other.bytes[offset] { return false }
    return true
  }

  /// The byte offsets at which `needle` occurs, from left to right without overlap, at most `limit` of them.
  ///
  /// Knuth-Morris-Pratt for long needles, so that the cost stays linear whatever the texts are.
  func occurrences(of needle: PythonText, limit: Int = .max) -> [Int] {
    let count = needle.bytes.count
    guard count > 0, count <= bytes.count, limit > 0 else { return [] }
    var found: [Int] = []
    if count <= 16 {
      var index = 0
      let first = needle.bytes[0]
      while index <= bytes.count - count {
        if bytes[index] == first && matches(needle, at: index) {
          found.append(index)
          if found.count == limit { break }
          index += count
        } else {
          index += 1
        }
      }
      return found
    }
    var borders = [Int32](repeating: 0, count: count)
    var length = 0
    for index in 1..<count {
      while length > 0 && needle.bytes[index] != needle.bytes[length] { length = Int(borders[length - 1]) }
      if needle.bytes[index] == needle.bytes[length] { length += 1 }
      borders[index] = Int32(truncatingIfNeeded: length)
    }
    length = 0
    for index in 0..<bytes.count {
      while length > 0 && bytes[index] != needle.bytes[length] { length = Int(borders[length - 1]) }
      if bytes[index] == needle.bytes[length] { length += 1 }
      if length == count {
        found.append(index - count + 1)
        if found.count == limit { break }
        length = 0
      }
    }
    return found
  }

  func contains(_ needle: PythonText) -> Bool {
    needle.isEmpty || !occurrences(of: needle, limit: 1).isEmpty
  }

  // MARK: Python's str methods

  /// The text without the code points at its ends that `set` holds, or without white space where `set` is nil.
  func stripped(_ set: PythonText? = nil, left: Bool = true, right: Bool = true) -> PythonText {
    let members = set.map { Set($0.scalars) }
    func drops(_ scalar: Unicode.Scalar) -> Bool { members?.contains(scalar) ?? scalar.isPythonSpace }
    var start = 0
    var end = bytes.count
    while left && start < end {
      let (value, length) = scalar(at: start)
      guard drops(value) else { break }
      start += length
    }
    while right && end > start {
      let (value, length) = scalar(before: end)
      guard drops(value) else { break }
      end -= length
    }
    return start == 0 && end == bytes.count ? self : self[start..<end]
  }

  /// Replaces the first `limit` occurrences of `old`. An empty `old` matches before every code point and at the end.
  func replacing(_ old: PythonText, with new: PythonText, limit: Int = .max) -> PythonText {
    var result = PythonText()
    if old.isEmpty {
      var done = 0
      for scalar in scalars {
        if done < limit {
          result.append(new)
          done += 1
        }
        result.append(scalar)
      }
      if done < limit { result.append(new) }
      return isOwn && new.isOwn ? result.asOwn : result
    }
    let found = occurrences(of: old, limit: limit)
    if found.isEmpty { return self }
    var start = 0
    for index in found {
      result.append(self[start..<index])
      result.append(new)
      start = index + old.bytes.count
    }
    result.append(self[start..<bytes.count])
    return result
  }

  /// Splits at `separator` (not empty), at most `limit` times, from the left.
  func split(separator: PythonText, limit: Int = .max) -> [PythonText] {
    var pieces: [PythonText] = []
    var start = 0
    for index in occurrences(of: separator, limit: limit) {
      pieces.append(self[start..<index])
      start = index + separator.bytes.count
    }
    pieces.append(self[start..<bytes.count])
    return pieces
  }

  /// Splits at runs of white space, at most `limit` times, dropping empty pieces.
  func splitWhitespace(limit: Int = .max) -> [PythonText] {
    var pieces: [PythonText] = []
    var index = 0
    while true {
      while index < bytes.count {
        let (value, length) = scalar(at: index)
        guard value.isPythonSpace else { break }
        index += length
      }
      guard index < bytes.count else { return pieces }
      if pieces.count == limit {
        pieces.append(self[index..<bytes.count])
        return pieces
      }
      let start = index
      while index < bytes.count {
        let (value, length) = scalar(at: index)
        if value.isPythonSpace { break }
        index += length
      }
      pieces.append(self[start..<index])
    }
  }

  func lines() -> [PythonText] {
    var result: [PythonText] = []
    var start = 0
    var index = 0
    while index < bytes.count {
      let (value, length) = scalar(at: index)
      guard value.isPythonLineBreak else {
        index += length
        continue
      }
      var end = index + length
      if value == "\r" && end < bytes.count && bytes[end] == 0x0A { end += 1 }
      result.append(self[start..<index])
      start = end
      index = end
    }
    if start < bytes.count { result.append(self[start..<bytes.count]) }
    return result
  }

  var uppercased: PythonText {
    var result = PythonText()
    result.reserveCapacity(bytes.count)
    for scalar in scalars { result.append(contentsOf: scalar.properties.uppercaseMapping.utf8) }
    return result.inheriting(from: self)
  }

  var lowercased: PythonText { cased { _ in .lower } }

  var capitalized: PythonText {
    guard !bytes.isEmpty else { return self }
    let (first, length) = scalar(at: 0)
    let start = PythonText(first.properties.titlecaseMapping).inheriting(from: self[0..<length])
    return start + self[length..<bytes.count].lowercased
  }

  /// Python's `str.title`: a letter after a caseless character begins a word.
  var titlecased: PythonText {
    var afterCased = false
    return cased { scalar in
      defer { afterCased = scalar.properties.isCased }
      return afterCased ? .lower : .title
    }
  }

  private enum LetterCase { case lower, title }

  private func cased(_ letterCase: (Unicode.Scalar) -> LetterCase) -> PythonText {
    let all = scalars
    var result = PythonText()
    result.reserveCapacity(bytes.count)
    for (index, scalar) in all.enumerated() {
      switch letterCase(scalar) {
      case .title: result.append(contentsOf: scalar.properties.titlecaseMapping.utf8)
      case .lower:
        // The one mapping that depends on its neighbours: a sigma that ends a word.
        guard scalar == "\u{3A3}" else {
          result.append(contentsOf: scalar.properties.lowercaseMapping.utf8)
          continue
        }
        let before = all[..<index].last { !$0.properties.isCaseIgnorable }
        let after = all[(index + 1)...].first { !$0.properties.isCaseIgnorable }
        let isFinal = before?.properties.isCased == true && after?.properties.isCased != true
        result.append((isFinal ? "\u{3C2}" : "\u{3C3}") as Unicode.Scalar)
      }
    }
    return result.inheriting(from: self)
  }

  /// Whether every code point satisfies `predicate`, and there is at least one.
  func allScalars(_ predicate: (Unicode.Scalar) -> Bool) -> Bool {
    !isEmpty && scalars.allSatisfy(predicate)
  }

  /// Python's `repr` of a str.
  var quoted: PythonText {
    let quote: UInt8 = bytes.contains(0x27) && !bytes.contains(0x22) ? 0x22 : 0x27
    var result = PythonText(bytes: [quote])
    for scalar in scalars {
      switch scalar {
      case "\\": result.append(contentsOf: [0x5C, 0x5C])
      case "\n": result.append("\\n" as PythonText)
      case "\r": result.append("\\r" as PythonText)
      case "\t": result.append("\\t" as PythonText)
      default:
        if scalar.value == UInt32(quote) {
          result.append(contentsOf: [0x5C, quote])
        } else if scalar.isPythonPrintable {
          result.append(scalar)
        } else if scalar.value <= 0xFF {
          result.append(PythonText("\\x" + hexadecimal(scalar.value, digits: 2)))
        } else if scalar.value <= 0xFFFF {
          result.append(PythonText("\\u" + hexadecimal(scalar.value, digits: 4)))
        } else {
          result.append(PythonText("\\U" + hexadecimal(scalar.value, digits: 8)))
        }
      }
    }
    result.append(byte: quote)
    return result
  }
}

func hexadecimal(_ value: UInt32, digits: Int) -> String {
  let text = String(value, radix: 16)
  return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
}

extension Unicode.Scalar {
  /// Python's `str.isspace` for one code point.
  var isPythonSpace: Bool {
    switch value {
    case 9...13, 28...32, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
    default: false
    }
  }

  /// The code points at which Python's `str.splitlines` breaks.
  var isPythonLineBreak: Bool {
    switch value {
    case 10...13, 28...30, 0x85, 0x2028, 0x2029: true
    default: false
    }
  }

  var isPythonPrintable: Bool {
    if value >= 0x20 && value < 0x7F { return true }
    switch properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
      .spaceSeparator:
      return false
    default: return true
    }
  }

}
