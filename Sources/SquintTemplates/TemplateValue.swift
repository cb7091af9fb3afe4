import SquintFile
import SquintText

/// A value that a chat template can see: JSON's types, with integers and fractions told apart as Python does.
///
/// A variable or a key that is absent is what a template calls undefined.
public indirect enum TemplateValue: Sendable, Equatable {
  case none
  case bool(Bool)
  case int(Int)
  case double(Double)
  /// Content: control tokens that are spelled in it are text.
  case string(String)
  /// A text that is the program's own words, or in part.
  case text(PromptText)
  case list([TemplateValue])
  case dictionary(TemplateDictionary)
}

/// Keys and values in the order in which they were given, which is the order that templates iterate and print.
public struct TemplateDictionary: Sendable, Equatable, ExpressibleByDictionaryLiteral {
  public struct Entry: Sendable, Equatable {
    public var key: String
    public var value: TemplateValue

    public init(key: String, value: TemplateValue) {
      self.key = key
      self.value = value
    }
  }

  /// The entries in order; where a key is repeated, the last value counts, at the first one's place.
  public var entries: [Entry]

  public init(entries: [Entry] = []) { self.entries = entries }

  public init(dictionaryLiteral elements: (String, TemplateValue)...) {
    entries = elements.map { Entry(key: $0.0, value: $0.1) }
  }

  /// The value of `key`: nil where there is none; assigning nil removes the entry.
  public subscript(key: String) -> TemplateValue? {
    get { entries.last { $0.key == key }?.value }
    set {
      guard let newValue else {
        entries.removeAll { $0.key == key }
        return
      }
      if let index = entries.firstIndex(where: { $0.key == key }) {
        entries[index].value = newValue
      } else {
        entries.append(Entry(key: key, value: newValue))
      }
    }
  }
}

extension TemplateValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByFloatLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(integerLiteral value: Int) { self = .int(value) }
  public init(floatLiteral value: Double) { self = .double(value) }
  public init(arrayLiteral elements: TemplateValue...) { self = .list(elements) }
  public init(dictionaryLiteral elements: (String, TemplateValue)...) {
    self = .dictionary(TemplateDictionary(entries: elements.map { .init(key: $0.0, value: $0.1) }))
  }
  public init(nilLiteral: ()) { self = .none }
}

extension TemplateValue {
  /// Reads JSON text, keeping the order of keys, as `tools` and messages are written to files.
  ///
  /// - Parameters:
  ///   - json: UTF-8 text of one JSON value.
  ///   - place: what an error message names, such as the file.
  /// - Throws: `badData` with the byte offset of the first mistake. Nesting is bounded at 64 levels.
  public init(json: some Sequence<UInt8>, place: String = "JSON") throws(SquintError) {
    var reader = TemplateJSONReader(bytes: Array(json), place: place)
    self = try reader.read()
  }
}

private struct TemplateJSONReader {
  let bytes: [UInt8]
  let place: String
  var index = 0

  mutating func read() throws(SquintError) -> TemplateValue {
    let value = try value(depth: 0)
    skipSpace()
    guard index == bytes.count else { throw fail("there is text after the value") }
    return value
  }

  private func fail(_ reason: String) -> SquintError {
    SquintError(.badData, "\(place): byte \(grouped(index)): \(reason); check that it is valid JSON")
  }

  private mutating func skipSpace() {
    while index < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[index]) { index += 1 }
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    skipSpace()
    guard index < bytes.count, bytes[index] == byte else { return false }
    index += 1
    return true
  }

  private mutating func takeWord(_ word: StaticString) -> Bool {
    let count = word.utf8CodeUnitCount
    guard bytes.count - index >= count else { return false }
    let matches = word.withUTF8Buffer { $0.elementsEqual(bytes[index..<index + count]) }
    if matches { index += count }
    return matches
  }

  private mutating func value(depth: Int) throws(SquintError) -> TemplateValue {
    guard depth < 64 else { throw fail("nested more than 64 levels deep") }
    skipSpace()
    guard index < bytes.count else { throw fail("the text ends where a value is expected") }
    switch bytes[index] {
    case UInt8(ascii: "{"):
      index += 1
      var dictionary = TemplateDictionary()
      var places: [PythonText: Int] = [:]
      if take(UInt8(ascii: "}")) { return .dictionary(dictionary) }
      repeat {
        skipSpace()
        guard index < bytes.count, bytes[index] == UInt8(ascii: "\"") else { throw fail("a key is expected") }
        let key = try string()
        guard take(UInt8(ascii: ":")) else { throw fail("':' is expected") }
        let item = try value(depth: depth + 1)
        if let place = places[PythonText(key)] {
          dictionary.entries[place].value = item
        } else {
          places[PythonText(key)] = dictionary.entries.count
          dictionary.entries.append(.init(key: key, value: item))
        }
      } while take(UInt8(ascii: ","))
      guard take(UInt8(ascii: "}")) else { throw fail("',' or '}' is expected") }
      return .dictionary(dictionary)
    case UInt8(ascii: "["):
      index += 1
      var items: [TemplateValue] = []
      if take(UInt8(ascii: "]")) { return .list(items) }
      repeat { items.append(try value(depth: depth + 1)) } while take(UInt8(ascii: ","))
      guard take(UInt8(ascii: "]")) else { throw fail("',' or ']' is expected") }
      return .list(items)
    case UInt8(ascii: "\""): return .string(try string())
    default:
      if takeWord("true") { return .bool(true) }
      if takeWord("false") { return .bool(false) }
      if takeWord("null") { return .none }
      return try number()
    }
  }

  private mutating func number() throws(SquintError) -> TemplateValue {
    let start = index
    var isFraction = false
    while index < bytes.count {
      switch bytes[index] {
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"): break
      case UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"): isFraction = true
      default:
        return try number(from: start, isFraction: isFraction)
      }
      index += 1
    }
    return try number(from: start, isFraction: isFraction)
  }

  private func number(from start: Int, isFraction: Bool) throws(SquintError) -> TemplateValue {
    let text = String(decoding: bytes[start..<index], as: UTF8.self)
    if !isFraction, let value = Int(text) { return .int(value) }
    guard let value = Double(text), value.isFinite else { throw fail("a value is expected") }
    return .double(value)
  }

  private mutating func string() throws(SquintError) -> String {
    index += 1
    var text = PythonText()
    while index < bytes.count {
      let byte = bytes[index]
      index += 1
      if byte == UInt8(ascii: "\"") {
        return String(decoding: text.bytes, as: UTF8.self)
      }
      guard byte == UInt8(ascii: "\\") else {
        guard byte >= 0x20 else { throw fail("a control character in a string") }
        text.append(byte: byte)
        continue
      }
      guard index < bytes.count else { break }
      let escape = bytes[index]
      index += 1
      switch escape {
      case UInt8(ascii: "n"): text.append(byte: 0x0A)
      case UInt8(ascii: "t"): text.append(byte: 0x09)
      case UInt8(ascii: "r"): text.append(byte: 0x0D)
      case UInt8(ascii: "b"): text.append(byte: 0x08)
      case UInt8(ascii: "f"): text.append(byte: 0x0C)
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte: escape)
      case UInt8(ascii: "u"):
        var code = try hexadecimalUnit()
        if (0xD800..<0xDC00).contains(code), takeWord("\\u") {
          let low = try hexadecimalUnit()
          guard (0xDC00..<0xE000).contains(low) else { throw fail("half a surrogate pair") }
          code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw fail("half a surrogate pair") }
        text.append(scalar)
      default: throw fail("an unknown escape in a string")
      }
    }
    throw fail("the text ends inside a string")
  }

  private mutating func hexadecimalUnit() throws(SquintError) -> UInt32 {
    guard bytes.count - index >= 4,
      let code = UInt32(String(decoding: bytes[index..<index + 4], as: UTF8.self), radix: 16),
      bytes[index] != UInt8(ascii: "+")
    else { throw fail("four hexadecimal digits are expected") }
    index += 4
    return code
  }
}
