/// A value of the metadata (formats/squint.md, "Metadata").
package enum MetadataValue: Equatable, Sendable {
  case bool(Bool)
  case int(Int64)
  case float(Double)
  case string(String)
  case bytes([UInt8])
  case ints([Int64])
  case floats([Double])
  case strings([String])

  /// What it takes in memory, in bytes.
  package var byteCount: Int {
    switch self {
    case .bool, .int, .float: 16
    case .string(let value): value.utf8.count
    case .bytes(let value): value.count
    case .ints(let value): 8 * value.count
    case .floats(let value): 8 * value.count
    case .strings(let value): value.reduce(0) { $0 + MemoryLayout<String>.stride + $1.utf8.count }
    }
  }

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
package struct Metadata: Equatable, Sendable {
  package private(set) var entries: [(key: String, value: MetadataValue)] = []
  private var positions: [String: Int] = [:]

  package init() {}

  package subscript(_ key: String) -> MetadataValue? {
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

  package static func == (a: Metadata, b: Metadata) -> Bool {
    a.entries.elementsEqual(b.entries) { $0.key == $1.key && $0.value == $1.value }
  }
}

// MARK: Typed access

extension Metadata {
  /// The boolean under `key`, or `fallback` where there is none.
  package func bool(_ key: String, default fallback: Bool) throws(SquintError) -> Bool {
    switch self[key] {
    case nil: return fallback
    case .bool(let value): return value
    case let other?: throw mismatch(key, other, "a boolean")
    }
  }

  /// The integer under `key`; throws where there is none or it is outside `range`.
  package func int(_ key: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws(SquintError) -> Int {
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
  package func float(_ key: String, default fallback: Double? = nil) throws(SquintError) -> Double {
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
  package func string(_ key: String, default fallback: String? = nil) throws(SquintError) -> String {
    switch self[key] {
    case nil:
      guard let fallback else { throw missing(key) }
      return fallback
    case .string(let value): return value
    case let other?: throw mismatch(key, other, "a text")
    }
  }

  /// One of the words that are the raw values of `Choice`, under `key`, or `fallback`.
  package func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, default fallback: Choice
  ) throws(SquintError) -> Choice {
    let word = try string(key, default: fallback.rawValue)
    guard let choice = Choice(rawValue: word) else {
      let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
      throw SquintError(
        .badData, "metadata \(key) is \"\(word)\", which this version does not know (it knows \(known)); update squint")
    }
    return choice
  }

  /// The bytes under `key`; throws where there are none.
  package func bytes(_ key: String) throws(SquintError) -> [UInt8] {
    switch self[key] {
    case nil: throw missing(key)
    case .bytes(let value): return value
    case let other?: throw mismatch(key, other, "bytes")
    }
  }

  /// The integers under `key`, or none.
  package func ints(_ key: String) throws(SquintError) -> [Int64] {
    switch self[key] {
    case nil: return []
    case .ints(let value): return value
    case let other?: throw mismatch(key, other, "a list of integers")
    }
  }

  /// The numbers under `key`, or none.
  package func floats(_ key: String) throws(SquintError) -> [Double] {
    switch self[key] {
    case nil: return []
    case .floats(let value): return value
    case let other?: throw mismatch(key, other, "a list of numbers")
    }
  }

  /// The texts under `key`, or none.
  package func strings(_ key: String) throws(SquintError) -> [String] {
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

  /// No file has more entries: each costs more than its bytes.
  static let maximumEntries = 65_536

  private static func tooManyEntries(_ count: Int) -> String {
    "\(grouped(count)) entries of metadata; \(grouped(maximumEntries)) at most, convert the model again"
  }

  /// Reads `count` entries. Values of a kind that this version does not know are skipped.
  package init(reading cursor: inout ByteCursor, count: Int) throws(SquintError) {
    guard count <= Self.maximumEntries else { throw cursor.error(Self.tooManyEntries(count)) }
    var keys = SeenKeys()
    for _ in 0..<count {
      let head = try EntryHead(reading: &cursor)
      let key = try cursor.name(head.keyBytes)
      let payload = try cursor.take(head.valueBytes)
      guard keys.insert(key) else { throw cursor.error("metadata \(key) appears twice") }
      guard let value = try MetadataValue(kind: head.kind, payload: payload, key: key) else { continue }
      self[key] = value
    }
  }

  /// Reads `count` entries out of a compressed frame, and keeps those whose keys are `wanted`; the others take no memory.
  init(
    reading frame: FrameReader, count: Int, path: String, memory: MemoryLimit, textBytes: Int,
    wanted: (String) -> Bool
  ) throws(SquintError) {
    let place = "\(path): compressed metadata"
    guard count <= Self.maximumEntries else { throw .badData(place, Self.tooManyEntries(count)) }
    var keys = SeenKeys()
    for _ in 0..<count {
      let head = try frame.bytes(EntryHead.byteCount).withBytes { (bytes) throws(SquintError) in
        var cursor = ByteCursor(bytes, place: place)
        return try EntryHead(reading: &cursor)
      }
      let key = try frame.bytes(head.keyBytes).withBytes { (bytes) throws(SquintError) in
        var cursor = ByteCursor(bytes, place: place)
        return try cursor.name(bytes.count)
      }
      guard keys.insert(key) else { throw .badData(place, "metadata \(key) appears twice") }
      guard wanted(key) else {
        try frame.skip(head.valueBytes)
        continue
      }
      guard head.valueBytes <= frame.remaining else {
        throw .badData(
          place,
          "metadata \(key) claims \(grouped(head.valueBytes)) bytes, and \(grouped(frame.remaining)) are left; "
            + "fetch the file again")
      }
      guard head.kind != MetadataValue.textsKind || head.valueBytes <= textBytes else {
        throw .badData(
          place,
          "metadata \(key) has \(grouped(head.valueBytes)) bytes of texts; \(grouped(textBytes)) at most, convert the model "
            + "again")
      }
      try memory.check(head.valueBytes, for: "\(path): reading metadata \(key)")
      let payload = try frame.bytes(head.valueBytes)
      if head.kind == MetadataValue.bytesKind {
        self[key] = .bytes(payload)
        continue
      }
      let value = try payload.withBytes { (payload) throws(SquintError) in
        // A list is made of what lies in `payload`, beside it.
        try memory.check(
          MetadataValue.byteCount(kind: head.kind, payload: payload), for: "\(path): reading metadata \(key)")
        return try MetadataValue(kind: head.kind, payload: payload, key: key)
      }
      if let value { self[key] = value }
    }
    try frame.finish()
  }

  /// What an entry begins with.
  private struct EntryHead {
    static let byteCount = 8

    let keyBytes: Int
    let kind: UInt8
    let valueBytes: Int

    init(reading cursor: inout ByteCursor) throws(SquintError) {
      keyBytes = Int(try cursor.next(UInt16.self))
      kind = try cursor.next(UInt8.self)
      guard try cursor.next(UInt8.self) == 0 else { throw cursor.error("a reserved byte of a metadata entry is set") }
      valueBytes = Int(try cursor.next(UInt32.self))
    }
  }

  /// The keys that were there, by their checksums: eight bytes each, however long they are. (Two keys that were made to have the
  /// same checksum are refused like one that appears twice.)
  private struct SeenKeys {
    private var checksums: Set<UInt64> = []

    /// Returns whether `key` is new.
    mutating func insert(_ key: String) -> Bool {
      var key = key
      return checksums.insert(key.withUTF8 { checksum(UnsafeRawBufferPointer($0)) }).inserted
    }
  }
}

extension MetadataValue {
  fileprivate static let bytesKind: UInt8 = 4
  fileprivate static let textsKind: UInt8 = 7

  /// The memory of the value of kind `kind` in `payload` beside that of `payload`, in bytes.
  fileprivate static func byteCount(kind: UInt8, payload: UnsafeRawBufferPointer) -> Int {
    guard kind == textsKind else { return payload.count }
    // Longer texts lie outside of the list.
    return textCount(payload) * MemoryLayout<String>.stride + payload.count
  }

  /// How many texts begin in `payload`, whole or not.
  private static func textCount(_ payload: UnsafeRawBufferPointer) -> Int {
    var (count, offset) = (0, 0)
    while payload.count - offset >= 4 {
      let bytes = UInt32(littleEndian: payload.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      offset += 4 + min(Int(bytes), payload.count - offset - 4)
      count += 1
    }
    return count
  }

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
      // An array that grows by doubling would have been there twice.
      values.reserveCapacity(Self.textCount(payload))
      while cursor.remaining > 0 { values.append(try cursor.text(Int(try cursor.next(UInt32.self)))) }
      self = .strings(values)
    default: return nil
    }
    guard cursor.remaining == 0 else { throw cursor.error("\(cursor.remaining) bytes too many for its kind") }
  }
}
