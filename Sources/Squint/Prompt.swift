import SquintCompute
import SquintFile
import SquintMedia
import SquintText

/// What goes into the decoder: tokens, and among them the places that rows of media take.
public struct Prompt: Sendable {
  /// A run of places for rows of one medium.
  struct Span: Sendable {
    /// The first place.
    let position: Int
    let medium: Medium
    /// Which of the medium's rows.
    let rows: Range<Int>

    var end: Int { position + rows.count }
  }

  /// One for each position; `featureToken` where a row of a medium stands.
  public internal(set) var tokens: [Int32] = []
  /// In the order of the positions.
  private(set) var spans: [Span] = []
  /// The tokens that stand, for the rotary embedding, where the one before them does; ascending.
  private(set) var standing: [Int] = []
  /// What was done to make it that people should know, a line each.
  public internal(set) var notes: [String] = []

  /// Stands for a row of a medium: no token.
  public static let featureToken: Int32 = -1

  public init(tokens: [Int32] = []) { self.tokens = tokens }

  /// The positions.
  public var count: Int { tokens.count }

  /// Where the position `index`, or one behind the last, stands for the rotary embedding: a token is one step behind what comes before
  /// it, on all axes, or where that is; the rows of a medium are where `MediaPositions` says.
  func rotaryPosition(_ index: Int) -> RotaryPosition {
    // How much further behind the beginning a position is than it would be without the media before it.
    var shift = 0
    var rest = spans[...]
    while let span = rest.first, span.position <= index {
      let group = SpanGroup(first: rest)
      rest = rest.dropFirst(group.spans.count)
      guard group.isSpread else { continue }
      if index < group.end {
        let start = group.position + shift - standing(upTo: group.position)
        return RotaryPosition(repeating: Int32(clamping: start)) &+ group.offset(of: index)
      }
      shift += group.advance - (group.end - group.position)
    }
    return RotaryPosition(repeating: Int32(clamping: index + shift - standing(upTo: index)))
  }

  /// How many of the tokens up to `index` stand where the one before them does.
  private func standing(upTo index: Int) -> Int { standing.isEmpty ? 0 : standing.count { $0 <= index } }

  /// The media, each as often as it is in the prompt.
  public var media: [Medium] { spans.filter { $0.rows.lowerBound == 0 }.map(\.medium) }

  /// Appends places for `rows` of `medium`.
  mutating func append(_ rows: Range<Int>, of medium: Medium) {
    guard !rows.isEmpty else { return }
    spans.append(Span(position: tokens.count, medium: medium, rows: rows))
    tokens.append(contentsOf: repeatElement(Self.featureToken, count: rows.count))
  }

  /// Appends `other` from position `first` on.
  package mutating func append(_ other: Prompt, from first: Int = 0) {
    let offset = tokens.count - first
    for span in other.spans where span.end > first {
      let skipped = max(first - span.position, 0)
      spans.append(
        Span(
          position: span.position + skipped + offset, medium: span.medium,
          rows: span.rows.lowerBound + skipped..<span.rows.upperBound))
    }
    standing += other.standing.filter { $0 >= first }.map { $0 + offset }
    tokens.append(contentsOf: other.tokens[first...])
  }

  /// Lets the two tokens in front of each video with its sound stand at one position, and the two behind it: what begins and ends a
  /// sound stands where what begins and ends the video does.
  mutating func joinSounds() {
    var rest = spans[...]
    while !rest.isEmpty {
      let group = SpanGroup(first: rest)
      rest = rest.dropFirst(group.spans.count)
      guard group.isInterleaved else { continue }
      for position in [group.position - 1, group.end + 1] {
        let isToken = tokens.indices.contains(position) && tokens[position] != Self.featureToken
        let before = position - 1
        if isToken, before >= 0, tokens[before] != Self.featureToken { standing.append(position) }
      }
    }
  }

  /// Forgets everything from position `count` on.
  package mutating func truncate(to count: Int) {
    tokens.removeLast(max(tokens.count - max(count, 0), 0))
    standing.removeAll { $0 >= tokens.count }
    while let last = spans.last, last.end > tokens.count {
      spans.removeLast()
      let kept = tokens.count - last.position
      if kept > 0 {
        spans.append(
          Span(
            position: last.position, medium: last.medium,
            rows: last.rows.lowerBound..<last.rows.lowerBound + kept))
      }
    }
  }

  /// How many positions this prompt and `other` have in common from the first on.
  package func commonPrefix(with other: Prompt) -> Int {
    var common = zip(tokens, other.tokens).prefix { $0 == $1 }.count
    if let first = Set(standing).symmetricDifference(other.standing).min() { common = min(common, first) }
    for (a, b) in zip(spans, other.spans) where a.position < common {
      guard a.position == b.position, a.medium === b.medium, a.rows.lowerBound == b.rows.lowerBound else {
        common = min(common, a.position)
        break
      }
      // A run that ends earlier ends what is common: behind it stands another row, or another medium's.
      if a.rows != b.rows { common = min(common, min(a.end, b.end)) }
    }
    return common
  }
}

/// How media of one kind stand in a prompt: text around the places of their rows (formats/vision.md, "In the prompt").
struct MediaMarkup: Sendable {
  let kind: MediaKind
  /// What stands for a medium in a rendered template.
  let marker: String
  /// The token whose places rows take; nil where the text around them is tokenized piece by piece.
  let token: Int32?
  /// The text of that token.
  let tokenText: String
  /// Around a medium of several units.
  let prefix: String
  let suffix: String
  let singlePrefix: String
  let singleSuffix: String
  let tilePrefix: String
  let rowSuffix: String
  let overviewPrefix: String
  let overviewSuffix: String
  /// Around and between the units of a medium in time.
  let unitPrefix: String
  let unitSuffix: String
  let separator: String
  /// What is asked about a medium where the user asks nothing; nil: the model does not say.
  let question: String?
  /// Around the rows of a video and its sound, inside `prefix` and `suffix`.
  let soundPrefix: String
  let soundSuffix: String

  /// Reads the keys `KIND.*`.
  init(_ kind: MediaKind, _ metadata: Metadata) throws(SquintError) {
    let name = kind.rawValue
    /// A text of some dozen bytes: it is repeated for each unit, or each row, of a medium.
    func text(_ key: String, default fallback: String = "") throws(SquintError) -> String {
      let text = try metadata.string("\(name).\(key)", default: fallback)
      guard text.utf8.count <= 256 else {
        throw SquintError(
          .badData,
          "metadata \(name).\(key) has \(grouped(text.utf8.count)) bytes; 256 at most, convert the model again")
      }
      return text
    }
    self.kind = kind
    marker = try text("marker", default: kind.marker)
    guard !marker.isEmpty else {
      throw SquintError(.badData, "metadata \(name).marker is empty; convert the model again")
    }
    tokenText = try text("token_text", default: marker)
    token =
      metadata["\(name).token"] == nil ? nil : Int32(try metadata.int("\(name).token", in: 0...Int(Int32.max)))
    prefix = try text("prefix")
    suffix = try text("suffix")
    singlePrefix = try text("single_prefix")
    singleSuffix = try text("single_suffix")
    tilePrefix = try text("tile_prefix")
    rowSuffix = try text("row_suffix")
    overviewPrefix = try text("overview_prefix")
    overviewSuffix = try text("overview_suffix")
    unitPrefix = try text("unit_prefix")
    unitSuffix = try text("unit_suffix")
    separator = try text("separator")
    question = metadata["\(name).question"] == nil ? nil : try text("question")
    soundPrefix = try text("sound_prefix")
    soundSuffix = try text("sound_suffix")
  }

  /// All that is written for media.
  var texts: String {
    marker + tokenText + prefix + suffix + singlePrefix + singleSuffix + tilePrefix + rowSuffix + overviewPrefix
      + overviewSuffix + unitPrefix + unitSuffix + separator + soundPrefix + soundSuffix
  }

  /// What a medium of `size` becomes, each of whose units has words of its own.
  private func pieces(_ size: MediumSize, words: [[String: String]]) -> [Piece] {
    var pieces: [Piece] = [.text(prefix)]
    for (unit, words) in words.enumerated() {
      func filled(_ text: String) -> String {
        words.reduce(text) { $0.replacing("{\($1.key)}", with: $1.value) }
      }
      if unit > 0 { pieces.append(.text(separator)) }
      pieces += [
        .text(filled(unitPrefix)), .rows(size.firstRow(ofUnit: unit)..<size.firstRow(ofUnit: unit + 1)),
        .text(filled(unitSuffix)),
      ]
    }
    return pieces + [.text(suffix)]
  }

  enum Piece: Equatable {
    case text(String)
    /// Places for these rows of the medium.
    case rows(Range<Int>)
    /// Places for these rows of its sound.
    case sound(Range<Int>)
  }

  /// The places of all rows of a medium of `size`, without what is around them.
  func places(_ size: MediumSize) -> [Piece] {
    guard let sound = size.sound, let interleaving = size.positions.interleaving else { return [.rows(0..<size.rows)] }
    let turns = interleaving.turns(video: size, sound: sound).map { turn -> Piece in
      turn.part == .frames ? .rows(turn.rows) : .sound(turn.rows)
    }
    return [.text(soundPrefix)] + turns + [.text(soundSuffix)]
  }

  /// What a medium of `size` becomes.
  func pieces(_ size: MediumSize) -> [Piece] {
    if size.sound != nil { return [.text(prefix)] + places(size) + [.text(suffix)] }
    if let timing = size.cost.timing { return pieces(size, timing) }
    if !size.cost.words.isEmpty { return pieces(size, words: size.cost.words) }
    guard let grid = size.cost.layout.grid, size.units > 1, size.arrangement == nil else {
      return [.text(singlePrefix), .rows(0..<size.rows), .text(singleSuffix)]
    }
    let perTile = size.grids[0].count
    var pieces: [Piece] = [.text(prefix)]
    for row in 0..<grid.rows {
      for column in 0..<grid.columns {
        let tile = row * grid.columns + column
        let place = tilePrefix.replacing("{row}", with: "\(row + 1)").replacing("{column}", with: "\(column + 1)")
        pieces += [.text(place), .rows(tile * perTile..<(tile + 1) * perTile)]
      }
      pieces.append(.text(rowSuffix))
    }
    if grid.hasOverview {
      let first = grid.rows * grid.columns * perTile
      pieces += [.text(overviewPrefix), .rows(first..<first + perTile), .text(overviewSuffix)]
    }
    pieces.append(.text(suffix))
    return pieces
  }
}
