import SquintFile

/// A place in an image that an answer names, in pixels of the image as it is displayed, from its upper left corner.
public struct ImageRegion: Sendable, Equatable {
  public enum Shape: Sendable, Equatable {
    /// The upper left and the lower right corner.
    case box(left: Double, top: Double, right: Double, bottom: Double)
    case point(x: Double, y: Double)
  }

  public let shape: Shape
  /// What the answer says that is there; nil where it does not.
  public let label: String?

  public init(_ shape: Shape, label: String?) {
    self.shape = shape
    self.label = label
  }
}

/// What the numbers mean that a model gives for places in an image: `image.coordinates` (formats/vision.md).
package enum ImageCoordinates: String, Sendable, CaseIterable {
  /// 0 to 1,000 of each side (InternVL, Qwen2-VL, Qwen3-VL).
  case thousandths
  /// Pixels of the image as the encoder sees it (Qwen2.5-VL).
  case resized

  /// nil where the model names no places.
  ///
  /// - Throws: `badData` where the key has another word.
  package init?(_ metadata: Metadata) throws(SquintError) {
    guard metadata["image.coordinates"] != nil else { return nil }
    let word = try metadata.string("image.coordinates")
    guard let known = ImageCoordinates(rawValue: word) else {
      throw SquintError(
        .badData,
        "metadata image.coordinates is \(word), which is neither thousandths nor resized; convert the model again")
    }
    self = known
  }
}

/// From the numbers in an answer to the pixels of an image.
package struct RegionRule: Sendable, Equatable {
  private let scaleX: Double
  private let scaleY: Double
  private let width: Double
  private let height: Double

  /// - Parameters:
  ///   - original: width and height of the image as it is displayed, in pixels.
  ///   - resized: the same of the image that is cut into what the encoder sees.
  package init?(
    _ coordinates: ImageCoordinates, original: (width: Int, height: Int), resized: (width: Int, height: Int)
  ) {
    let whole =
      switch coordinates {
      case .thousandths: (width: 1000, height: 1000)
      case .resized: resized
      }
    guard original.width > 0, original.height > 0, whole.width > 0, whole.height > 0 else { return nil }
    width = Double(original.width)
    height = Double(original.height)
    scaleX = width / Double(whole.width)
    scaleY = height / Double(whole.height)
  }

  /// The regions that `answer` names, in its order. Its control tokens must be there as their texts.
  ///
  /// These spellings are known, with any space between: `<ref>…</ref><box>[[x1, y1, x2, y2], …]</box>` (InternVL),
  /// `<|object_ref_start|>…<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>` (Qwen2-VL), where one pair is a point, and
  /// objects of JSON with `bbox_2d` or `point_2d`, and `label` or `text_content` (Qwen2.5-VL, Qwen3-VL), which may stand in
  /// text that is cut off. What is none of them is left out; what lies outside the image is brought to its edge.
  ///
  /// Takes time in proportion to the answer's length, whatever is in it.
  package func regions(in answer: String) -> [ImageRegion] {
    var scanner = RegionScanner(Array(answer.utf8))
    scanner.scan()
    return scanner.found.map { found in
      switch found.numbers.count {
      case 2: ImageRegion(.point(x: x(found.numbers[0]), y: y(found.numbers[1])), label: found.label)
      default:
        ImageRegion(
          .box(
            left: x(min(found.numbers[0], found.numbers[2])), top: y(min(found.numbers[1], found.numbers[3])),
            right: x(max(found.numbers[0], found.numbers[2])), bottom: y(max(found.numbers[1], found.numbers[3]))),
          label: found.label)
      }
    }
  }

  private func x(_ number: Double) -> Double { max(0, min(width, number * scaleX)) }
  private func y(_ number: Double) -> Double { max(0, min(height, number * scaleY)) }
}

extension Model {
  /// The boxes and points that an answer about `image` names, in the image's own pixels; nil where the model is none that names any.
  ///
  /// - Parameter tokens: of the answer.
  public func regions(_ tokens: [Int32], in image: Image) throws(SquintError) -> [ImageRegion]? {
    guard let coordinates, let source = image.size.cost.source, let run = image.size.cost.layout.runs.first else {
      return nil
    }
    let (height, width) = (run.shape[run.shape.count - 2], run.shape[run.shape.count - 1])
    let rule = RegionRule(coordinates, original: (source.width, source.height), resized: (width, height))
    return rule?.regions(in: try text(tokens, skipSpecialTokens: false))
  }
}

/// Goes through an answer once, from its start to its end.
private struct RegionScanner {
  /// A point (2 numbers) or a box (4).
  struct Found {
    var numbers: [Double]
    var label: String?
  }

  private(set) var found: [Found] = []
  private let bytes: [UInt8]
  private var position = 0
  /// What stands before boxes with nothing between.
  private var label: String?
  private var labelStart: Int?
  /// Where the last tag was.
  private var tagStart = 0

  private static let deepest = 32
  /// More than an object's places in any answer; what is beyond is not looked at.
  private static let mostNumbers = 4096

  private enum Tag { case labelStart, labelEnd, boxStart, boxEnd }

  /// In the words of InternVL, and of Qwen2-VL.
  private static let tags: [(tag: Tag, spelling: [UInt8])] = [
    (.labelStart, Array("<ref>".utf8)), (.labelEnd, Array("</ref>".utf8)), (.boxStart, Array("<box>".utf8)),
    (.boxEnd, Array("</box>".utf8)), (.labelStart, Array("<|object_ref_start|>".utf8)),
    (.labelEnd, Array("<|object_ref_end|>".utf8)), (.boxStart, Array("<|box_start|>".utf8)),
    (.boxEnd, Array("<|box_end|>".utf8)),
  ]

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  mutating func scan() {
    while let byte = peek() {
      if byte == UInt8(ascii: "<"), let tag = takeTag() {
        take(tag)
      } else if byte == UInt8(ascii: "{"), labelStart == nil {
        label = nil
        object(depth: 0)
      } else {
        // A label has one line; between the boxes of one are spaces and commas.
        if labelStart == nil, !Self.isSpace(byte), byte != UInt8(ascii: ",") { label = nil }
        if byte == 0x0A { labelStart = nil }
        position += 1
      }
    }
  }

  // MARK: Tags

  private mutating func takeTag() -> Tag? {
    for (tag, spelling) in Self.tags where startsHere(spelling) {
      // Where a label ends is before the tag.
      tagStart = position
      position += spelling.count
      return tag
    }
    return nil
  }

  private func startsHere(_ text: [UInt8]) -> Bool {
    guard text.count <= bytes.count - position else { return false }
    for index in 0..<text.count where bytes[position + index] != text[index] { return false }
    return true
  }

  private mutating func take(_ tag: Tag) {
    switch tag {
    case .labelStart:
      label = nil
      labelStart = position
    case .labelEnd:
      guard let start = labelStart else { break }
      label = Self.trimmed(bytes[start..<tagStart])
      labelStart = nil
    case .boxStart:
      labelStart = nil
      box()
    case .boxEnd: break
    }
  }

  /// The numbers up to the end of the box. Of what is no box nothing is taken.
  private mutating func box() {
    var numbers: [Double] = []
    while let byte = peek() {
      switch byte {
      case UInt8(ascii: "<"):
        let before = position
        guard takeTag() == .boxEnd else {
          position = before
          return
        }
        add(numbers, of: numbers.count == 2 ? 2 : 4, label: label)
        return
      case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "0")...UInt8(ascii: "9"):
        guard let number = number() else { return }
        if numbers.count < Self.mostNumbers { numbers.append(number) }
      case UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: ","): position += 1
      case _ where Self.isSpace(byte): position += 1
      default: return
      }
    }
  }

  private mutating func add(_ numbers: [Double], of count: Int, label: String?) {
    guard !numbers.isEmpty, numbers.count % count == 0 else { return }
    for start in stride(from: 0, to: numbers.count, by: count) {
      found.append(Found(numbers: Array(numbers[start..<start + count]), label: label))
    }
  }

  // MARK: JSON

  /// What of a value is needed.
  private enum Value {
    case text(String)
    case numbers([Double])
    case other
  }

  /// Reads an object, and notes its region, and those of the objects in it that end. Where it is none the position is behind what was
  /// read.
  @discardableResult
  private mutating func object(depth: Int) -> Bool {
    position += 1
    var boxes: [Double] = []
    var points: [Double] = []
    var label: String?
    var text: String?
    let place = found.count
    skipSpace()
    if peek() == UInt8(ascii: "}") {
      position += 1
      return true
    }
    while true {
      skipSpace()
      guard let key = string() else { return false }
      skipSpace()
      guard take(UInt8(ascii: ":")), let value = value(depth: depth) else { return false }
      switch (key, value) {
      case ("bbox_2d", .numbers(let numbers)): boxes = numbers
      case ("point_2d", .numbers(let numbers)): points = numbers
      case ("label", .text(let word)): label = word
      case ("text_content", .text(let word)): text = word
      default: break
      }
      skipSpace()
      if take(UInt8(ascii: "}")) { break }
      guard take(UInt8(ascii: ",")) else { return false }
    }
    guard !boxes.isEmpty || !points.isEmpty else { return true }
    // The outer object comes first.
    let inner = Array(found[place...])
    found.removeSubrange(place...)
    add(boxes, of: 4, label: label ?? text)
    add(points, of: 2, label: label ?? text)
    found += inner
    return true
  }

  private mutating func value(depth: Int) -> Value? {
    guard depth < Self.deepest else { return nil }
    skipSpace()
    guard let byte = peek() else { return nil }
    switch byte {
    case UInt8(ascii: "{"): return object(depth: depth + 1) ? .other : nil
    case UInt8(ascii: "["): return array(depth: depth + 1)
    case UInt8(ascii: "\""): return string().map { .text($0) }
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return number() == nil ? nil : .other
    default:
      for word in ["true", "false", "null"] where bytes[position...].starts(with: word.utf8) {
        position += word.utf8.count
        return .other
      }
      return nil
    }
  }

  /// Numbers, or lists of them one behind the other.
  private mutating func array(depth: Int) -> Value? {
    position += 1
    var numbers: [Double] = []
    var isNumbers = true
    skipSpace()
    if take(UInt8(ascii: "]")) { return .other }
    while true {
      skipSpace()
      if let byte = peek(), byte == UInt8(ascii: "-") || Self.isDigit(byte) {
        guard let number = number() else { return nil }
        if numbers.count < Self.mostNumbers { numbers.append(number) }
      } else {
        guard let value = value(depth: depth) else { return nil }
        if case .numbers(let inner) = value {
          if numbers.count + inner.count <= Self.mostNumbers { numbers += inner }
        } else {
          isNumbers = false
        }
      }
      skipSpace()
      if take(UInt8(ascii: "]")) { return isNumbers ? .numbers(numbers) : .other }
      guard take(UInt8(ascii: ",")) else { return nil }
    }
  }

  /// A string of one line; nil where it does not end.
  private mutating func string() -> String? {
    guard take(UInt8(ascii: "\"")) else { return nil }
    var text: [UInt8] = []
    while let byte = peek(), byte >= 0x20 {
      position += 1
      switch byte {
      case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\"):
        guard let escaped = peek() else { return nil }
        position += 1
        switch escaped {
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "u"):
          guard let scalar = scalar() else { return nil }
          text += Array(String(Character(scalar)).utf8)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(escaped)
        default: return nil
        }
      default: text.append(byte)
      }
    }
    return nil
  }

  /// The scalar of four hexadecimal digits, or of two times four that are a pair; U+FFFD for half of one.
  private mutating func scalar() -> Unicode.Scalar? {
    guard let first = hexadecimal() else { return nil }
    if (0xD800..<0xDC00).contains(first), bytes[position...].starts(with: [0x5C, 0x75]) {
      let before = position
      position += 2
      guard let second = hexadecimal() else { return nil }
      if (0xDC00..<0xE000).contains(second) {
        return Unicode.Scalar(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
      }
      position = before
    }
    return Unicode.Scalar(first) ?? "\u{FFFD}"
  }

  private mutating func hexadecimal() -> UInt32? {
    guard position + 4 <= bytes.count else { return nil }
    var value: UInt32 = 0
    for byte in bytes[position..<position + 4] {
      guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { return nil }
      value = value << 4 | UInt32(digit)
    }
    position += 4
    return value
  }

  // MARK: Parts

  private func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard peek() == byte else { return false }
    position += 1
    return true
  }

  private mutating func skipSpace() {
    while let byte = peek(), Self.isSpace(byte) { position += 1 }
  }

  /// A number, however many digits it has; what no double holds is infinite. nil where it is none, the position behind it.
  private mutating func number() -> Double? {
    let start = position
    while let byte = peek(), Self.isDigit(byte) || "+-.eE".utf8.contains(byte) { position += 1 }
    guard let number = Double(String(decoding: bytes[start..<position], as: UTF8.self)), !number.isNaN else {
      return nil
    }
    return number
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

  private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }

  private static func trimmed(_ bytes: ArraySlice<UInt8>) -> String {
    let front = bytes.drop(while: isSpace)
    let end = front.lastIndex { !isSpace($0) }.map { $0 + 1 } ?? front.startIndex
    return String(decoding: front[front.startIndex..<end], as: UTF8.self)
  }
}
