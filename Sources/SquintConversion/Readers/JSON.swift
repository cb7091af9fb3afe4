import SquintFile

/// A JSON document or a part of one (RFC 8259).
///
/// The parser is our own, because JSONDecoder takes 14 s for the values of a tokenizer.json of 18 MB where this one
/// takes 0.3 s, and because dictionaries of strings compare keys by Unicode's canonical equivalence: a vocabulary holds
/// both "Å" (U+00C5) and "Å" (U+212B), and these are two tokens.
///
/// As Python writes them, `NaN`, `Infinity` and `-Infinity` are numbers.
package enum JSONValue: Sendable {
  case null
  case bool(Bool)
  /// A number without a fraction or exponent that fits 64 bits.
  case int(Int64)
  /// Any other number.
  case double(Double)
  case string(String)
  case array([JSONValue])
  case object(JSONObject)
}

extension JSONValue: Equatable {
  /// Whether both are the same document; strings are equal where their UTF-8 bytes are.
  package static func == (left: JSONValue, right: JSONValue) -> Bool {
    switch (left, right) {
    case (.null, .null): true
    case (.bool(let a), .bool(let b)): a == b
    case (.int(let a), .int(let b)): a == b
    case (.double(let a), .double(let b)): a == b
    case (.string(let a), .string(let b)): ExactString(a) == ExactString(b)
    case (.array(let a), .array(let b)): a == b
    case (.object(let a), .object(let b)): a == b
    default: false
    }
  }
}

// MARK: - Access

extension JSONValue {
  /// The member `key` of an object; nil where this is no object, has no such member, or the member is `null`.
  package subscript(key: String) -> JSONValue? {
    guard case .object(let object) = self, let value = object[key], !value.isNull else { return nil }
    return value
  }

  /// The element `index` of an array; nil where this is no array or it is shorter.
  package subscript(index: Int) -> JSONValue? {
    guard case .array(let array) = self, array.indices.contains(index) else { return nil }
    return array[index]
  }

  package var isNull: Bool {
    if case .null = self { true } else { false }
  }

  package var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The number, where it is a whole one that fits an Int (`2` or `2.0`).
  package var int: Int? {
    switch self {
    case .int(let value): Int(exactly: value)
    case .double(let value): Int(exactly: value)
    default: nil
    }
  }

  package var double: Double? {
    switch self {
    case .int(let value): Double(value)
    case .double(let value): value
    default: nil
    }
  }

  package var string: String? {
    if case .string(let value) = self { value } else { nil }
  }

  package var array: [JSONValue]? {
    if case .array(let value) = self { value } else { nil }
  }

  package var object: JSONObject? {
    if case .object(let value) = self { value } else { nil }
  }
}

/// A string that is equal to another only where their UTF-8 bytes are, unlike `String`.
package struct ExactString: Hashable, Sendable {
  package let text: String

  package init(_ text: String) { self.text = text }

  package static func == (left: ExactString, right: ExactString) -> Bool {
    var left = left.text
    var right = right.text
    return left.withUTF8 { a in
      right.withUTF8 { b in
        a.count == b.count && (a.count == 0 || memcmp(a.baseAddress!, b.baseAddress!, a.count) == 0)
      }
    }
  }

  package func hash(into hasher: inout Hasher) {
    var text = text
    text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    hasher.combine(0xFF as UInt8)
  }
}

/// The members of a JSON object, in the order of the document. Of members with the same key the last one counts, as
/// in Python.
package struct JSONObject: Sendable, Equatable {
  package struct Member: Sendable, Equatable {
    package let key: String
    package fileprivate(set) var value: JSONValue

    package static func == (left: Member, right: Member) -> Bool {
      ExactString(left.key) == ExactString(right.key) && left.value == right.value
    }
  }

  package private(set) var members: [Member] = []
  /// Where each key is in `members`; empty while the object is small, when a scan is as fast and takes no memory.
  private var places: [ExactString: Int32] = [:]
  private static let scannedMembers = 12

  package init() {}

  package var count: Int { members.count }

  /// The value of `key`, in constant time; `.null` where the document says null, nil where there is no such key.
  package subscript(key: String) -> JSONValue? { place(of: key).map { members[$0].value } }

  private func place(of key: String) -> Int? {
    let key = ExactString(key)
    if places.isEmpty {
      return members.firstIndex { ExactString($0.key) == key }
    }
    return places[key].map { Int($0) }
  }

  fileprivate mutating func set(_ key: String, _ value: JSONValue) {
    if let place = place(of: key) {
      members[place].value = value
      return
    }
    members.append(Member(key: key, value: value))
    if !places.isEmpty {
      places[ExactString(key)] = Int32(members.count - 1)
    } else if members.count > Self.scannedMembers {
      for (place, member) in members.enumerated() { places[ExactString(member.key)] = Int32(place) }
    }
  }

  /// The same object with `value` for `key`.
  func setting(_ key: String, to value: JSONValue) -> JSONObject {
    var object = self
    object.set(key, value)
    return object
  }

  /// Whether both have the same members, in whatever order.
  package static func == (left: JSONObject, right: JSONObject) -> Bool {
    left.count == right.count && left.members.allSatisfy { right[$0.key] == $0.value }
  }
}

// MARK: - Parsing

extension JSONValue {
  /// The largest document that is read: twice the largest published tokenizer.json, and a bound on memory.
  package static let maximumByteCount = 64 << 20
  /// The deepest nesting that is read; serde_json, which reads tokenizer.json in the reference, has 128.
  package static let maximumDepth = 128
  /// The most values that are read, twice what the largest published tokenizer.json has: a bound on memory, since a
  /// value takes up to 120 bytes and may be written in two.
  package static let maximumValueCount = 4 << 20

  /// Reads and parses the file at `path`.
  ///
  /// - Throws: `SquintError.noInput` when it cannot be opened; `.badData` with the line and column when it is not JSON.
  package static func read(path: String) throws(SquintError) -> JSONValue {
    let file = try SourceFile(path: path)
    guard file.byteCount <= maximumByteCount else {
      throw .badData(
        path, "\(grouped(file.byteCount)) bytes are more than a JSON file may have (\(grouped(maximumByteCount)))")
    }
    try file.refuseForeign()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: file.byteCount, alignment: 16)
    defer { buffer.deallocate() }
    try file.read(at: 0, into: buffer)
    return try JSONValue(parsing: UnsafeRawBufferPointer(buffer), name: path)
  }

  /// Parses `bytes`, one JSON document in UTF-8, with or without a byte order mark; errors call it `name`.
  ///
  /// - Throws: `SquintError.badData` with the line and column of the first thing that is not JSON.
  package init(parsing bytes: UnsafeRawBufferPointer, name: String) throws(SquintError) {
    var parser = JSONParser(bytes: bytes.bindMemory(to: UInt8.self), name: name)
    self = try parser.document()
  }

  /// Parses `text`, one JSON document; errors call it `name`.
  package init(parsing text: String, name: String) throws(SquintError) {
    let bytes = Array(text.utf8)
    let parsed = bytes.withUnsafeBytes { bytes in
      Result { () throws(SquintError) in try JSONValue(parsing: bytes, name: name) }
    }
    self = try parsed.get()
  }
}

/// A recursive-descent parser over UTF-8 bytes, of bounded depth.
private struct JSONParser {
  let bytes: UnsafeBufferPointer<UInt8>
  let name: String
  var position = 0
  var valueCount = 0
  /// The bytes of a string with escapes, reused.
  var unescaped: [UInt8] = []

  init(bytes: UnsafeBufferPointer<UInt8>, name: String) {
    self.bytes = bytes
    self.name = name
  }

  mutating func document() throws(SquintError) -> JSONValue {
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
    guard !bytes.starts(with: [0xFF, 0xFE]), !bytes.starts(with: [0xFE, 0xFF]) else {
      throw .badData(name, "this is text in UTF-16; save it as UTF-8")
    }
    let value = try value(depth: 0)
    skipSpace()
    guard position == bytes.count else { throw error("there is more after the end of the document") }
    return value
  }

  private func error(_ message: String) -> SquintError {
    var line = 1
    var lineStart = 0
    for place in 0..<min(position, bytes.count) where bytes[place] == UInt8(ascii: "\n") {
      line += 1
      lineStart = place + 1
    }
    let column = position - lineStart + 1
    return .badData(name, "line \(line), column \(column): not valid JSON: \(message)")
  }

  /// What to say where a comment stands, which other formats have.
  private var commentHint: String {
    current == UInt8(ascii: "/") || current == UInt8(ascii: "#") ? "; JSON has no comments, remove them" : ""
  }

  /// The byte at the position, or 0 (which is nowhere allowed) at the end.
  private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

  private mutating func skipSpace() {
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t"): position += 1
      default: return
      }
    }
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard position < bytes.count, bytes[position] == byte else { return false }
    position += 1
    return true
  }

  private mutating func take(word: StaticString) -> Bool {
    let count = word.utf8CodeUnitCount
    guard bytes.count - position >= count,
      memcmp(bytes.baseAddress! + position, word.utf8Start, count) == 0
    else { return false }
    position += count
    return true
  }

  private mutating func value(depth: Int) throws(SquintError) -> JSONValue {
    skipSpace()
    guard position < bytes.count else { throw error("the document ends where a value should be") }
    valueCount += 1
    guard valueCount <= JSONValue.maximumValueCount else {
      throw error("it holds more than \(grouped(JSONValue.maximumValueCount)) values")
    }
    switch bytes[position] {
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "{"): return .object(try object(depth: depth))
    case UInt8(ascii: "["): return .array(try array(depth: depth))
    case UInt8(ascii: "t"): if take(word: "true") { return .bool(true) }
    case UInt8(ascii: "f"): if take(word: "false") { return .bool(false) }
    case UInt8(ascii: "n"): if take(word: "null") { return .null }
    case UInt8(ascii: "N"): if take(word: "NaN") { return .double(.nan) }
    case UInt8(ascii: "I"): if take(word: "Infinity") { return .double(.infinity) }
    case UInt8(ascii: "-"):
      if take(word: "-Infinity") { return .double(-.infinity) }
      return try number()
    case UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
    default: break
    }
    throw error("expected a value\(commentHint)")
  }

  private mutating func enter(depth: Int) throws(SquintError) {
    guard depth < JSONValue.maximumDepth else {
      throw error("it is nested deeper than \(JSONValue.maximumDepth) levels")
    }
    position += 1
  }

  private mutating func array(depth: Int) throws(SquintError) -> [JSONValue] {
    try enter(depth: depth)
    var elements: [JSONValue] = []
    skipSpace()
    if take(UInt8(ascii: "]")) { return elements }
    while true {
      elements.append(try value(depth: depth + 1))
      skipSpace()
      if take(UInt8(ascii: "]")) { return elements }
      guard take(UInt8(ascii: ",")) else { throw error("expected ',' or ']'") }
    }
  }

  private mutating func object(depth: Int) throws(SquintError) -> JSONObject {
    try enter(depth: depth)
    var object = JSONObject()
    skipSpace()
    if take(UInt8(ascii: "}")) { return object }
    while true {
      skipSpace()
      guard current == UInt8(ascii: "\"") else { throw error("expected a key in quotes\(commentHint)") }
      let key = try string()
      skipSpace()
      guard take(UInt8(ascii: ":")) else { throw error("expected ':'") }
      object.set(key, try value(depth: depth + 1))
      skipSpace()
      if take(UInt8(ascii: "}")) { return object }
      guard take(UInt8(ascii: ",")) else { throw error("expected ',' or '}'") }
    }
  }

  private mutating func digits() -> Int {
    let start = position
    while position < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) { position += 1 }
    return position - start
  }

  private mutating func number() throws(SquintError) -> JSONValue {
    let start = position
    _ = take(UInt8(ascii: "-"))
    let leadingZero = current == UInt8(ascii: "0")
    let whole = digits()
    guard whole > 0, !(leadingZero && whole > 1) else { throw error("this is not a number") }
    var isWhole = true
    if take(UInt8(ascii: ".")) {
      isWhole = false
      guard digits() > 0 else { throw error("expected a digit") }
    }
    if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
      isWhole = false
      if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
      guard digits() > 0 else { throw error("expected a digit") }
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if isWhole, let integer = Int64(text) { return .int(integer) }
    guard let number = Double(text) else { throw error("this is not a number") }
    return .double(number)
  }

  private mutating func string() throws(SquintError) -> String {
    position += 1
    let start = position
    var place = position
    while place < bytes.count, bytes[place] != UInt8(ascii: "\""), bytes[place] != UInt8(ascii: "\\"),
      bytes[place] >= 0x20
    {
      place += 1
    }
    position = place
    if take(UInt8(ascii: "\"")) {
      return try text(UnsafeBufferPointer(rebasing: bytes[start..<place]), start: start)
    }
    unescaped.removeAll(keepingCapacity: true)
    unescaped.append(contentsOf: bytes[start..<place])
    while true {
      guard position < bytes.count else { throw error("the document ends inside a string") }
      let byte = bytes[position]
      switch byte {
      case UInt8(ascii: "\""):
        position += 1
        let result = unescaped.withUnsafeBufferPointer { String(validating: $0, as: UTF8.self) }
        guard let result else {
          position = start
          throw error("this string is not valid UTF-8")
        }
        return result
      case UInt8(ascii: "\\"):
        try escape()
      case 0..<0x20:
        throw error("a control character in a string must be escaped")
      default:
        unescaped.append(byte)
        position += 1
      }
    }
  }

  private mutating func text(_ utf8: UnsafeBufferPointer<UInt8>, start: Int) throws(SquintError) -> String {
    guard let result = String(validating: utf8, as: UTF8.self) else {
      position = start
      throw error("this string is not valid UTF-8")
    }
    return result
  }

  private mutating func escape() throws(SquintError) {
    position += 1
    let kind = current
    switch kind {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): unescaped.append(kind)
    case UInt8(ascii: "b"): unescaped.append(0x08)
    case UInt8(ascii: "f"): unescaped.append(0x0C)
    case UInt8(ascii: "n"): unescaped.append(0x0A)
    case UInt8(ascii: "r"): unescaped.append(0x0D)
    case UInt8(ascii: "t"): unescaped.append(0x09)
    case UInt8(ascii: "u"):
      position += 1
      let first = try hexadecimal()
      var code = UInt32(first)
      if UTF16.isLeadSurrogate(first) {
        guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw error("half of a surrogate pair") }
        let second = try hexadecimal()
        guard UTF16.isTrailSurrogate(second) else { throw error("half of a surrogate pair") }
        code = 0x10000 + (UInt32(first) - 0xD800) << 10 + (UInt32(second) - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw error("half of a surrogate pair") }
      unescaped.append(contentsOf: UTF8.encode(scalar)!)
      return
    default: throw error("an unknown escape in a string")
    }
    position += 1
  }

  private mutating func hexadecimal() throws(SquintError) -> UInt16 {
    guard bytes.count - position >= 4 else { throw error("expected four hexadecimal digits") }
    var code: UInt16 = 0
    for _ in 0..<4 {
      let byte = bytes[position]
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
      default: throw error("expected four hexadecimal digits")
      }
      code = code << 4 | UInt16(digit)
      position += 1
    }
    return code
  }
}
