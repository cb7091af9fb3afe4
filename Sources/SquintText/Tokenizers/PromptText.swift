/// A text that knows which of its bytes are the template's own, or the program's; all others are content: what people,
/// models and files said.
///
/// Control tokens count in what is its own alone. Content that spells one stays text (`Tokenizer.encode(_:controls:)`).
public struct PromptText: Sendable, Equatable {
  public private(set) var bytes: [UInt8]
  public private(set) var own: ByteRanges

  /// No text.
  public init() { self.init(bytes: [], own: ByteRanges()) }

  public init(bytes: [UInt8], own: ByteRanges) {
    self.bytes = bytes
    self.own = own
  }

  /// What somebody said, without the meaning that its words may have for the model.
  public static func content(_ text: String) -> PromptText { PromptText(bytes: Array(text.utf8), own: ByteRanges()) }

  /// The program's own words, in which control tokens are what they are.
  public static func own(_ text: String) -> PromptText {
    let bytes = Array(text.utf8)
    return PromptText(bytes: bytes, own: ByteRanges(0..<bytes.count))
  }

  public var string: String { String(decoding: bytes, as: UTF8.self) }

  public mutating func append(_ other: PromptText) {
    own.append(other.own, at: bytes.count)
    bytes += other.bytes
  }

  public static func + (left: PromptText, right: PromptText) -> PromptText {
    var sum = left
    sum.append(right)
    return sum
  }

  /// The part of the text in `range` of its bytes.
  public subscript(range: Range<Int>) -> PromptText {
    PromptText(bytes: Array(bytes[range]), own: own.clamped(to: range))
  }

  /// Whether all of `range` of the bytes is the template's own.
  public func isOwn(_ range: Range<Int>) -> Bool { own.contains(range) }

  /// The parts of the text between the occurrences of `separator` that are its own, compared byte by byte.
  public func pieces(around separator: String) -> [PromptText] {
    let separator = Array(separator.utf8)
    var pieces: [PromptText] = []
    var start = 0
    for range in own.ranges where !separator.isEmpty {
      var index = range.lowerBound
      while index + separator.count <= range.upperBound {
        guard bytes[index...].starts(with: separator) else {
          index += 1
          continue
        }
        pieces.append(self[start..<index])
        index += separator.count
        start = index
      }
    }
    pieces.append(self[start..<bytes.count])
    return pieces
  }

  /// The first place of `text` among what is content.
  public func firstContent(_ text: String) -> Range<Int>? {
    let text = Array(text.utf8)
    guard !text.isEmpty, text.count <= bytes.count else { return nil }
    for start in 0...bytes.count - text.count where bytes[start...].starts(with: text) {
      let range = start..<start + text.count
      if !own.overlaps(range) { return range }
    }
    return nil
  }
}

/// Ranges of a text's bytes, ascending, none empty, no two of them touching.
public struct ByteRanges: Sendable, Equatable {
  public private(set) var ranges: [Range<Int>] = []

  public init() {}
  public init(_ range: Range<Int>) { append(range) }

  /// Shared by all texts of one byte, of which a template can make very many.
  private static let oneByte = [0..<1]

  public var isEmpty: Bool { ranges.isEmpty }
  /// What they hold in memory.
  public var byteCount: Int { ranges.count * MemoryLayout<Range<Int>>.stride }

  /// Appends `range`, which begins where all others have ended.
  public mutating func append(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    if let last = ranges.last, last.upperBound == range.lowerBound {
      ranges[ranges.count - 1] = last.lowerBound..<range.upperBound
    } else if range == 0..<1 {
      ranges = Self.oneByte
    } else {
      ranges.append(range)
    }
  }

  /// Appends the ranges of a text that is put behind this one, at byte `offset`.
  public mutating func append(_ other: ByteRanges, at offset: Int) {
    for range in other.ranges { append(range.lowerBound + offset..<range.upperBound + offset) }
  }

  /// The ranges of the part `bounds` of the text.
  public func clamped(to bounds: Range<Int>) -> ByteRanges {
    var result = ByteRanges()
    for range in ranges[first(endingBehind: bounds.lowerBound)...] {
      guard range.lowerBound < bounds.upperBound else { break }
      let part = range.clamped(to: bounds)
      result.append(part.lowerBound - bounds.lowerBound..<part.upperBound - bounds.lowerBound)
    }
    return result
  }

  /// Whether all of `range` is in one of them.
  public func contains(_ range: Range<Int>) -> Bool {
    let index = first(endingBehind: range.lowerBound)
    return index < ranges.count && ranges[index].lowerBound <= range.lowerBound
      && range.upperBound <= ranges[index].upperBound
  }

  public func overlaps(_ range: Range<Int>) -> Bool {
    let index = first(endingBehind: range.lowerBound)
    return index < ranges.count && ranges[index].lowerBound < range.upperBound
  }

  /// The place of the first range that ends behind byte `place`.
  private func first(endingBehind place: Int) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound <= place { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
