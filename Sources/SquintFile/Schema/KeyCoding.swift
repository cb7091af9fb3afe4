/// Goes through the keys of a blueprint, to read, to write, or to list them: so each key is declared once.
package protocol KeyCoder {
  mutating func int(_ key: String, _ value: inout Int, in range: ClosedRange<Int>, default fallback: Int?)
    throws(SquintError)
  mutating func number(_ key: String, _ value: inout Double, default fallback: Double?) throws(SquintError)
  mutating func text(_ key: String, _ value: inout String, default fallback: String?) throws(SquintError)
  mutating func ints(_ key: String, _ value: inout [Int]?) throws(SquintError)
  mutating func numbers(_ key: String, _ value: inout [Float]) throws(SquintError)
  /// Absent is false.
  mutating func flag(_ key: String, _ value: inout Bool) throws(SquintError)
}

extension KeyCoder {
  /// A number that must be there.
  package mutating func int(_ key: String, _ value: inout Int, in range: ClosedRange<Int>) throws(SquintError) {
    try int(key, &value, in: range, default: nil)
  }
  package mutating func number(_ key: String, _ value: inout Double) throws(SquintError) {
    try number(key, &value, default: nil)
  }
  package mutating func text(_ key: String, _ value: inout String) throws(SquintError) {
    try text(key, &value, default: nil)
  }

  /// One of the words that are the raw values of `Choice`.
  package mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, _ value: inout Choice
  ) throws(SquintError) {
    var word = value.rawValue
    try text(key, &word)
    guard let choice = Choice(rawValue: word) else {
      let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
      throw SquintError(
        .badData, "metadata \(key) is \"\(word)\", which this version does not know (it knows \(known)); update squint")
    }
    value = choice
  }
}

/// Reads the keys of a file, checked.
package struct KeyReader: KeyCoder {
  private let metadata: Metadata

  package init(_ metadata: Metadata) { self.metadata = metadata }

  package mutating func int(
    _ key: String, _ value: inout Int, in range: ClosedRange<Int>, default fallback: Int?
  ) throws(SquintError) {
    value = try metadata.int(key, in: range, default: fallback)
  }

  package mutating func number(_ key: String, _ value: inout Double, default fallback: Double?) throws(SquintError) {
    value = try metadata.float(key, default: fallback)
    guard Float(value).isFinite else {
      throw SquintError(.badData, "metadata \(key) is too large for a number in f32")
    }
  }

  package mutating func text(_ key: String, _ value: inout String, default fallback: String?) throws(SquintError) {
    value = try metadata.string(key, default: fallback)
  }

  package mutating func ints(_ key: String, _ value: inout [Int]?) throws(SquintError) {
    guard metadata[key] != nil else {
      value = nil
      return
    }
    value = try metadata.ints(key).map { Int(clamping: $0) }
  }

  package mutating func numbers(_ key: String, _ value: inout [Float]) throws(SquintError) {
    value = try metadata.floats(key).map { Float($0) }
  }

  package mutating func flag(_ key: String, _ value: inout Bool) throws(SquintError) {
    value = try metadata.bool(key, default: false)
  }
}

/// Writes the keys to metadata; those that have their default are left out.
package struct KeyWriter: KeyCoder {
  package private(set) var metadata: Metadata

  package init(_ metadata: Metadata) { self.metadata = metadata }

  package mutating func int(_ key: String, _ value: inout Int, in range: ClosedRange<Int>, default fallback: Int?) {
    if value != fallback { metadata[key] = .int(Int64(value)) }
  }

  package mutating func number(_ key: String, _ value: inout Double, default fallback: Double?) {
    if value != fallback { metadata[key] = .float(value) }
  }

  package mutating func text(_ key: String, _ value: inout String, default fallback: String?) {
    if value != fallback { metadata[key] = .string(value) }
  }

  package mutating func ints(_ key: String, _ value: inout [Int]?) {
    if let value { metadata[key] = .ints(value.map { Int64($0) }) }
  }

  package mutating func numbers(_ key: String, _ value: inout [Float]) {
    metadata[key] = .floats(value.map { Double($0) })
  }

  package mutating func flag(_ key: String, _ value: inout Bool) {
    if value { metadata[key] = .bool(true) }
  }
}

/// Collects the names of the keys.
package struct KeyLister: KeyCoder {
  package private(set) var keys: Set<String> = []

  package init() {}

  package mutating func int(_ key: String, _: inout Int, in: ClosedRange<Int>, default: Int?) { keys.insert(key) }
  package mutating func number(_ key: String, _: inout Double, default: Double?) { keys.insert(key) }
  package mutating func text(_ key: String, _: inout String, default: String?) { keys.insert(key) }
  package mutating func ints(_ key: String, _: inout [Int]?) { keys.insert(key) }
  package mutating func numbers(_ key: String, _: inout [Float]) { keys.insert(key) }
  package mutating func flag(_ key: String, _: inout Bool) { keys.insert(key) }
}
