import SquintFile

/// Typed access to config.json: absent or null is nil, a wrong type is an error that names the key.
package struct ConfigurationReader: Sendable {
  package let json: JSONValue
  /// The object around, whose keys some checkpoints put there.
  package let outer: JSONValue
  package let place: String

  package init(json: JSONValue, outer: JSONValue = .null, place: String) {
    self.json = json
    self.outer = outer
    self.place = place
  }

  /// Whether the key is not there at all; null is there.
  package func isAbsent(_ key: String) -> Bool { json.object?[key] == nil }

  /// A positive integer.
  package func size(
    _ key: String, atMost most: Int = DecoderConfiguration.largestDimension
  ) throws(SquintError) -> Int? {
    guard let value = json[key] else { return nil }
    guard let int = value.int, int > 0, int <= most else { throw wrong(key, "an integer from 1 to \(grouped(most))") }
    return int
  }

  /// An integer that is not negative.
  package func count(_ key: String) throws(SquintError) -> Int? {
    guard let value = json[key] else { return nil }
    guard let int = value.int, int >= 0, int <= DecoderConfiguration.largestDimension else {
      throw wrong(key, "an integer from 0 on")
    }
    return int
  }

  package func number(_ key: String) throws(SquintError) -> Double? {
    guard let value = json[key] else { return nil }
    guard let number = value.double, number.isFinite else { throw wrong(key, "a number") }
    return number
  }

  package func flag(_ key: String) throws(SquintError) -> Bool? { try flag(key, of: json) }

  package func outerFlag(_ key: String) throws(SquintError) -> Bool? { try flag(key, of: outer) }

  private func flag(_ key: String, of object: JSONValue) throws(SquintError) -> Bool? {
    guard let value = object[key] else { return nil }
    guard let flag = value.bool else { throw wrong(key, "true or false") }
    return flag
  }

  package func text(_ key: String) throws(SquintError) -> String? {
    guard let value = json[key] else { return nil }
    guard let text = value.string else { throw wrong(key, "a text") }
    return text
  }

  /// One integer or a list of them, of either sign.
  package func integers(_ key: String) throws(SquintError) -> [Int]? {
    guard let value = json[key] else { return nil }
    let range = -DecoderConfiguration.largestDimension...DecoderConfiguration.largestDimension
    if let one = value.int, range.contains(one) { return [one] }
    let integers = value.array?.compactMap { $0.int }.filter { range.contains($0) }
    guard let integers, integers.count == value.array?.count else { throw wrong(key, "an integer or a list of them") }
    return integers
  }

  /// A positive integer that some files write as a list of two equal ones: the side of a square.
  package func side(_ key: String, atMost most: Int) throws(SquintError) -> Int? {
    guard let pair = json[key]?.array, pair.count == 2, let first = pair[0].int, pair[1].int == first else {
      return try size(key, atMost: most)
    }
    guard first > 0, first <= most else { throw wrong(key, "an integer from 1 to \(grouped(most))") }
    return first
  }

  package func texts(_ key: String) throws(SquintError) -> [String]? {
    guard let value = json[key] else { return nil }
    guard let array = value.array else { throw wrong(key, "a list of texts") }
    var texts: [String] = []
    for element in array {
      guard let text = element.string else { throw wrong(key, "a list of texts") }
      texts.append(text)
    }
    return texts
  }

  func wrong(_ key: String, _ wanted: String) -> SquintError {
    .badData(place, "\(key) is not \(wanted)")
  }
}

/// The first of `values` that is not nil. (`??` does not keep the type of an error on its right side.)
func either<Value>(_ values: Value?...) -> Value? { values.lazy.compactMap { $0 }.first }
