import SquintFile

/// Typed access to a GGUF file's metadata: absent is nil, a wrong kind is an error that names the key.
package struct GGUFMetadata: Sendable {
  package let values: [String: GGUFValue]
  package let place: String

  package init(values: [String: GGUFValue], place: String) {
    self.values = values
    self.place = place
  }

  /// A positive integer.
  package func size(
    _ key: String, atMost most: Int = DecoderConfiguration.largestDimension
  ) throws(SquintError) -> Int? {
    guard let value = values[key] else { return nil }
    guard let int = value.int, int > 0, int <= most else { throw wrong(key, "an integer from 1 to \(grouped(most))") }
    return int
  }

  /// A positive integer, which some files give per layer; all must be the same.
  ///
  /// - Parameter skipsZeros: whether layers may have 0, which do without.
  package func uniformSize(_ key: String, skipsZeros: Bool = false) throws(SquintError) -> Int? {
    guard let all = values[key]?.integers else { return try size(key) }
    let list = skipsZeros ? all.filter { $0 != 0 } : all
    guard let first = list.first, first > 0, first <= DecoderConfiguration.largestDimension,
      list.allSatisfy({ $0 == first })
    else { throw wrong(key, "the same positive integer for all layers") }
    return Int(first)
  }

  /// An integer that is not negative.
  package func count(_ key: String) throws(SquintError) -> Int? {
    guard let value = values[key] else { return nil }
    guard let int = value.int, int >= 0, int <= DecoderConfiguration.largestDimension else {
      throw wrong(key, "an integer from 0 on")
    }
    return int
  }

  package func number(_ key: String) throws(SquintError) -> Double? {
    guard let value = values[key] else { return nil }
    guard let number = value.double, number.isFinite else { throw wrong(key, "a number") }
    return number
  }

  package func flag(_ key: String) throws(SquintError) -> Bool? {
    guard let value = values[key] else { return nil }
    guard let flag = value.bool else { throw wrong(key, "true or false") }
    return flag
  }

  /// Numbers that people wrote and the file has in f32.
  package func numbers(_ key: String, count: Int) throws(SquintError) -> [Double]? {
    guard let value = values[key] else { return nil }
    let numbers = value.floats ?? value.integers?.map { Double($0) } ?? []
    guard numbers.count == count, numbers.allSatisfy(\.isFinite) else { throw wrong(key, "\(count) numbers") }
    return numbers.map { Double(shortest: Float($0)) }
  }

  package func text(_ key: String) throws(SquintError) -> String? {
    guard let value = values[key] else { return nil }
    guard let text = value.string else { throw wrong(key, "a text") }
    return text
  }

  private func wrong(_ key: String, _ wanted: String) -> SquintError {
    .badData(place, "metadata \(key) is not \(wanted)")
  }
}

extension GGUFMetadata {
  /// Whether the file holds an encoder and a projector instead of a text model.
  func holdsEncoder() throws(SquintError) -> Bool {
    let type = try text("general.type")
    let architecture = try text("general.architecture")
    return type == "mmproj" || architecture == "clip"
  }
}
