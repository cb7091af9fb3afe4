/// A value of the metadata (formats/squint.md, "Metadata").
public enum MetadataValue: Equatable, Sendable {
  case bool(Bool)
  case int(Int64)
  case float(Double)
  case string(String)
  case bytes([UInt8])
  case ints([Int64])
  case floats([Double])
  case strings([String])

  /// The word for this kind of value in messages.
  var kindName: String {
    switch self {
    case .bool: "a boolean"
    case .int: "an integer"
    case .float: "a number"
    case .string: "a text"
    case .bytes: "bytes"
    case .ints: "a list of integers"
    case .floats: "a list of numbers"
    case .strings: "a list of texts"
    }
  }
}

/// Typed key–value pairs in the order in which they were added. Keys are unique.
public struct Metadata: Equatable, Sendable {
  public private(set) var entries: [(key: String, value: MetadataValue)] = []
  private var positions: [String: Int] = [:]

  public init() {}

  public subscript(_ key: String) -> MetadataValue? {
    get { positions[key].map { entries[$0].value } }
    set {
      switch (positions[key], newValue) {
      case (let position?, let value?): entries[position].value = value
      case (nil, let value?):
        positions[key] = entries.count
        entries.append((key, value))
      case (let position?, nil):
        entries.remove(at: position)
        positions = [:]
        for (index, entry) in entries.enumerated() { positions[entry.key] = index }
      case (nil, nil): break
      }
    }
  }

  public static func == (a: Metadata, b: Metadata) -> Bool {
    a.entries.elementsEqual(b.entries) { $0.key == $1.key && $0.value == $1.value }
  }
}

// MARK: Typed access

extension Metadata {
  /// The boolean under `key`, or `fallback` where there is none.
  public func bool(_ key: String, default fallback: Bool) throws(SquintError) -> Bool {
    switch self[key] {
    case nil: return fallback
    case .bool(let value): return value
    case let other?: throw mismatch(key, other, "a boolean")
    }
  }

  /// The integer under `key`; throws where there is none or it is outside `range`.
  public func int(_ key: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws(SquintError) -> Int {
    switch self[key] {
    case nil:
      guard let fallback else { throw missing(key) }
      return fallback
    case .int(let value):
      guard let int = Int(exactly: value), range.contains(int) else {
        throw SquintError(
          .badData, "metadata \(key) is \(value), outside \(range.lowerBound)…\(range.upperBound)")
      }
      return int
    case let other?: throw mismatch(key, other, "an integer")
    }
  }

  /// The number under `key` (an integer counts as one); throws where there is none or it is not finite.
  public func float(_ key: String, default fallback: Double? = nil) throws(SquintError) -> Double {
    let value: Double
    switch self[key] {
    case nil:
      guard let fallback else { throw missing(key) }
      value = fallback
    case .float(let number): value = number
    case .int(let number): value = Double(number)
    case let other?: throw mismatch(key, other, "a number")
    }
    guard value.isFinite else { throw SquintError(.badData, "metadata \(key) is not a finite number") }
    return value
  }

  /// The text under `key`, or `fallback`; throws where there is neither.
  public func string(_ key: String, default fallback: String? = nil) throws(SquintError) -> String {
    switch self[key] {
    case nil:
      guard let fallback else { throw missing(key) }
      return fallback
    case .string(let value): return value
    case let other?: throw mismatch(key, other, "a text")
    }
  }

  /// The bytes under `key`; throws where there are none.
  public func bytes(_ key: String) throws(SquintError) -> [UInt8] {
    switch self[key] {
    case nil: throw missing(key)
    case .bytes(let value): return value
    case let other?: throw mismatch(key, other, "bytes")
    }
  }

  /// The integers under `key`, or none.
  public func ints(_ key: String) throws(SquintError) -> [Int64] {
    switch self[key] {
    case nil: return []
    case .ints(let value): return value
    case let other?: throw mismatch(key, other, "a list of integers")
    }
  }

  /// The numbers under `key`, or none.
  public func floats(_ key: String) throws(SquintError) -> [Double] {
    switch self[key] {
    case nil: return []
    case .floats(let value): return value
    case let other?: throw mismatch(key, other, "a list of numbers")
    }
  }

  /// The texts under `key`, or none.
  public func strings(_ key: String) throws(SquintError) -> [String] {
    switch self[key] {
    case nil: return []
    case .strings(let value): return value
    case let other?: throw mismatch(key, other, "a list of texts")
    }
  }

  private func missing(_ key: String) -> SquintError {
    SquintError(.badData, "metadata \(key) is missing; convert the model again")
  }

  private func mismatch(_ key: String, _ found: MetadataValue, _ wanted: String) -> SquintError {
    SquintError(.badData, "metadata \(key) is \(found.kindName) where \(wanted) belongs; convert the model again")
  }
}

// MARK: Encoding

extension Metadata {
  /// The entries as the file holds them.
  package func encoded() -> [UInt8] {
    var out = ByteWriter()
    for (key, value) in entries {
      var payload = ByteWriter()
      let kind: UInt8
      switch value {
      case .bool(let value):
        kind = 0
        payload.append(UInt8(value ? 1 : 0))
      case .int(let value):
        kind = 1
        payload.append(value)
      case .float(let value):
        kind = 2
        payload.append(value.bitPattern)
      case .string(let value):
        kind = 3
        payload.append(bytes: value.utf8)
      case .bytes(let value):
        kind = 4
        payload.append(bytes: value)
      case .ints(let values):
        kind = 5
        for value in values { payload.append(value) }
      case .floats(let values):
        kind = 6
        for value in values { payload.append(value.bitPattern) }
      case .strings(let values):
        kind = 7
        for value in values {
          payload.append(UInt32(value.utf8.count))
          payload.append(bytes: value.utf8)
        }
      }
      out.append(UInt16(key.utf8.count))
      out.append(kind)
      out.append(UInt8(0))
      out.append(UInt32(payload.bytes.count))
      out.append(bytes: key.utf8)
      out.append(bytes: payload.bytes)
    }
    return out.bytes
  }

  /// Reads `count` entries. Values of a kind that this version does not know are skipped.
  package init(reading cursor: inout ByteCursor, count: Int) throws(SquintError) {
    var seen: Set<String> = []
    for _ in 0..<count {
      let keyBytes = Int(try cursor.next(UInt16.self))
      let kind = try cursor.next(UInt8.self)
      guard try cursor.next(UInt8.self) == 0 else { throw cursor.error("a reserved byte of a metadata entry is set") }
      let valueBytes = Int(try cursor.next(UInt32.self))
      let key = try cursor.name(keyBytes)
      let payload = try cursor.take(valueBytes)
      guard seen.insert(key).inserted else { throw cursor.error("metadata \(key) appears twice") }
      guard let value = try MetadataValue(kind: kind, payload: payload, key: key) else { continue }
      self[key] = value
    }
  }
}

extension MetadataValue {
  fileprivate init?(kind: UInt8, payload: UnsafeRawBufferPointer, key: String) throws(SquintError) {
    var cursor = ByteCursor(payload, place: "metadata \(key)")
    switch kind {
    case 0:
      let value = try cursor.next(UInt8.self)
      guard value <= 1 else { throw cursor.error("\(value) is no boolean") }
      self = .bool(value == 1)
    case 1: self = .int(try cursor.next(Int64.self))
    case 2: self = .float(Double(bitPattern: try cursor.next(UInt64.self)))
    case 3: self = .string(try cursor.text(payload.count))
    case 4: self = .bytes([UInt8](try cursor.take(payload.count)))
    case 5:
      var values: [Int64] = []
      values.reserveCapacity(payload.count / 8)
      while cursor.remaining > 0 { values.append(try cursor.next(Int64.self)) }
      self = .ints(values)
    case 6:
      var values: [Double] = []
      values.reserveCapacity(payload.count / 8)
      while cursor.remaining > 0 { values.append(Double(bitPattern: try cursor.next(UInt64.self))) }
      self = .floats(values)
    case 7:
      var values: [String] = []
      while cursor.remaining > 0 { values.append(try cursor.text(Int(try cursor.next(UInt32.self)))) }
      self = .strings(values)
    default: return nil
    }
    guard cursor.remaining == 0 else { throw cursor.error("\(cursor.remaining) bytes too many for its kind") }
  }
}
