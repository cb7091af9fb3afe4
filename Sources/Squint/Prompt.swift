import SquintCompute
import SquintFile
import SquintMedia
import SquintText

/// What goes into the decoder: tokens, and among them the places that rows of images take.
public struct Prompt: Sendable {
  /// A run of places for rows of one image.
  struct Span: Sendable {
    /// The first place.
    let position: Int
    let image: Image
    /// Which of the image's rows.
    let rows: Range<Int>

    var end: Int { position + rows.count }
  }

  /// One for each position; `featureToken` where a row of an image stands.
  public internal(set) var tokens: [Int32] = []
  /// In the order of the positions.
  private(set) var spans: [Span] = []
  /// What was done to make it that people should know, a line each.
  public internal(set) var notes: [String] = []

  /// Stands for a row of an image: no token.
  public static let featureToken: Int32 = -1

  public init(tokens: [Int32] = []) { self.tokens = tokens }

  /// The positions.
  public var count: Int { tokens.count }

  /// Where the position `index`, or the one behind the last, stands for the rotary embedding: here each row is one step further on all
  /// axes.
  func rotaryPosition(_ index: Int) -> RotaryPosition { RotaryPosition(repeating: Int32(index)) }

  /// The images, each as often as it is in the prompt.
  public var images: [Image] { spans.filter { $0.rows.lowerBound == 0 }.map(\.image) }

  /// Appends places for `rows` of `image`.
  mutating func append(_ rows: Range<Int>, of image: Image) {
    guard !rows.isEmpty else { return }
    spans.append(Span(position: tokens.count, image: image, rows: rows))
    tokens.append(contentsOf: repeatElement(Self.featureToken, count: rows.count))
  }

  /// Appends `other` from position `first` on.
  mutating func append(_ other: Prompt, from first: Int = 0) {
    let offset = tokens.count - first
    for span in other.spans where span.end > first {
      let skipped = max(first - span.position, 0)
      spans.append(
        Span(
          position: span.position + skipped + offset, image: span.image,
          rows: span.rows.lowerBound + skipped..<span.rows.upperBound))
    }
    tokens.append(contentsOf: other.tokens[first...])
  }

  /// Forgets everything from position `count` on.
  mutating func truncate(to count: Int) {
    tokens.removeLast(max(tokens.count - max(count, 0), 0))
    while let last = spans.last, last.end > tokens.count {
      spans.removeLast()
      let kept = tokens.count - last.position
      if kept > 0 {
        spans.append(
          Span(
            position: last.position, image: last.image,
            rows: last.rows.lowerBound..<last.rows.lowerBound + kept))
      }
    }
  }

  /// How many positions this prompt and `other` have in common from the first on.
  func commonPrefix(with other: Prompt) -> Int {
    var common = zip(tokens, other.tokens).prefix { $0 == $1 }.count
    for (a, b) in zip(spans, other.spans) where a.position < common {
      guard a.position == b.position, a.image === b.image, a.rows.lowerBound == b.rows.lowerBound else {
        common = min(common, a.position)
        break
      }
      // A run that ends earlier ends what is common: behind it stands another row, or another image's.
      if a.rows != b.rows { common = min(common, min(a.end, b.end)) }
    }
    return common
  }
}

/// How an image stands in a prompt: text around the places of its rows (formats/vision.md, "In the prompt").
struct ImageMarkup: Sendable {
  /// What stands for an image in a rendered template.
  let marker: String
  /// The token whose places rows take; nil where the text around them is tokenized piece by piece.
  let token: Int32?
  /// The text of that token.
  let tokenText: String
  let singlePrefix: String
  let singleSuffix: String
  let tilePrefix: String
  let rowSuffix: String
  let overviewPrefix: String
  let overviewSuffix: String

  /// What stands for an image in what people write.
  static let publicMarker = "<image>"

  init(_ metadata: Metadata) throws(SquintError) {
    /// A text of some dozen bytes: it is repeated for each tile, or each row, of an image.
    func text(_ key: String, default fallback: String = "") throws(SquintError) -> String {
      let text = try metadata.string(key, default: fallback)
      guard text.utf8.count <= 256 else {
        throw SquintError(
          .badData, "metadata \(key) has \(grouped(text.utf8.count)) bytes; 256 at most, convert the model again")
      }
      return text
    }
    marker = try text("image.marker", default: Self.publicMarker)
    guard !marker.isEmpty else {
      throw SquintError(.badData, "metadata image.marker is empty; convert the model again")
    }
    tokenText = try text("image.token_text", default: marker)
    token =
      metadata["image.token"] == nil ? nil : Int32(try metadata.int("image.token", in: 0...Int(Int32.max)))
    singlePrefix = try text("image.single_prefix")
    singleSuffix = try text("image.single_suffix")
    tilePrefix = try text("image.tile_prefix")
    rowSuffix = try text("image.row_suffix")
    overviewPrefix = try text("image.overview_prefix")
    overviewSuffix = try text("image.overview_suffix")
  }

  /// All that is written for images.
  var texts: String {
    marker + tokenText + singlePrefix + singleSuffix + tilePrefix + rowSuffix + overviewPrefix + overviewSuffix
  }

  enum Piece: Equatable {
    case text(String)
    /// Places for these rows of the image.
    case rows(Range<Int>)
  }

  /// What an image of `size` becomes.
  func pieces(_ size: ImageSize) -> [Piece] {
    let layout = size.layout
    let perTile = size.rowsPerTile
    guard layout.count > 1 else { return [.text(singlePrefix), .rows(0..<perTile), .text(singleSuffix)] }
    var pieces: [Piece] = []
    for row in 0..<layout.rows {
      for column in 0..<layout.columns {
        let tile = row * layout.columns + column
        let place = tilePrefix.replacing("{row}", with: "\(row + 1)").replacing("{column}", with: "\(column + 1)")
        pieces += [.text(place), .rows(tile * perTile..<(tile + 1) * perTile)]
      }
      pieces.append(.text(rowSuffix))
    }
    if layout.hasOverview {
      let first = layout.rows * layout.columns * perTile
      pieces += [.text(overviewPrefix), .rows(first..<first + perTile), .text(overviewSuffix)]
    }
    return pieces
  }
}
