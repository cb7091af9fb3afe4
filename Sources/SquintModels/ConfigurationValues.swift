import SquintFile

/// What several configurations read from metadata.
extension Metadata {
  /// A number that is finite in f32, too.
  func finite(_ key: String, default fallback: Double? = nil) throws(SquintError) -> Float {
    let value = Float(try float(key, default: fallback))
    guard value.isFinite else { throw SquintError(.badData, "metadata \(key) is too large for a number in f32") }
    return value
  }

  /// What a norm adds to a mean square.
  func epsilon(_ key: String) throws(SquintError) -> Float {
    let value = try finite(key)
    guard value >= 0 else {
      throw SquintError(.badData, "metadata \(key) is \(value), and a mean square is never negative")
    }
    return value
  }

  /// One of the words that are the raw values of `Choice`.
  func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, _: Choice.Type = Choice.self
  ) throws(SquintError) -> Choice {
    let word = try string(key)
    guard let choice = Choice(rawValue: word) else {
      let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
      throw SquintError(
        .badData, "metadata \(key) is \"\(word)\", which this version does not know (it knows \(known)); update squint")
    }
    return choice
  }
}
