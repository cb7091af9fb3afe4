import SquintFile

/// What stands around a medium's rows in a prompt (formats/vision.md, "In the prompt").
package struct MediaPrompt: Equatable, Sendable {
  /// What stands for a medium in a rendered prompt.
  package var marker = "<image>"
  /// The token whose places the features take, and its text; nil: the text around features is tokenized for itself.
  package var token: Int?
  /// nil: the marker.
  package var tokenText: String?
  /// Whether it has no token, whatever the tokenizer has.
  package var isWithoutToken = false
  /// Around an image of several tiles.
  package var prefix = ""
  package var suffix = ""
  package var singlePrefix = ""
  package var singleSuffix = ""
  package var tilePrefix = ""
  package var rowSuffix = ""
  package var overviewPrefix = ""
  package var overviewSuffix = ""
  /// Around each unit of a medium whose units have words of their own, and between two of them.
  package var unitPrefix = ""
  package var unitSuffix = ""
  package var separator = ""
  /// What is asked where the user asks nothing; empty: nothing is; nil: what the program asks.
  package var question: String?
  /// Where rows stand for the rotary embedding; nil: each is one position further.
  package var positions: Positions?
  /// What the numbers of places are that the model names; nil: unknown.
  package var coordinates: Coordinates?

  package enum Positions: String, Sendable {
    /// Row and column of the image are axes of their own.
    case grid
  }

  package enum Coordinates: String, Sendable {
    /// Pixels of the resized image.
    case resized
    /// Thousandths of the image's sides.
    case thousandths
  }

  /// The order of the rows of an image of several tiles.
  package var packing: Packing?
  /// How many tiles' areas the grid of rows has at most, before it is resized; nil: as many as there are.
  package var packingLimit: Int?

  package enum Packing: String, Sendable {
    /// The overview's rows, then those of the grid without its padding, a newline behind each row of the grid.
    case anyres
  }

  package init() {}

  /// Checks the token, or finds it where the checkpoint does not say it.
  ///
  /// - Parameters:
  ///   - name: the modality.
  ///   - tokens: the id of an added token of the tokenizer; nil where it has none with this text.
  mutating func findToken(
    name: String, decoder: DecoderConfiguration?, place: String, tokens: (String) -> Int?
  ) throws(SquintError) {
    let text = tokenText ?? marker
    guard !isWithoutToken else { return }
    guard let token else {
      guard let decoder else { return }
      self.token = tokens(text).flatMap { $0 < decoder.vocabulary ? $0 : nil }
      return
    }
    if let decoder, token >= decoder.vocabulary {
      throw .badData(place, "the token \(token) for \(name) is not one of the decoder's \(grouped(decoder.vocabulary))")
    }
    if let known = tokens(text), known != token {
      throw .badData(
        place, "the token for \(name) is \(token), but the tokenizer's \(printable(text)) is \(known)")
    }
  }

  /// Writes the prompt keys of the modality `name`.
  package func write(to metadata: inout Metadata, name: String) {
    if marker != "<\(name)>" { metadata["\(name).marker"] = .string(marker) }
    if let token { metadata["\(name).token"] = .int(Int64(token)) }
    if let tokenText, tokenText != marker { metadata["\(name).token_text"] = .string(tokenText) }
    for (key, text) in [
      ("prefix", prefix), ("suffix", suffix), ("single_prefix", singlePrefix), ("single_suffix", singleSuffix),
      ("tile_prefix", tilePrefix),
      ("row_suffix", rowSuffix), ("overview_prefix", overviewPrefix), ("overview_suffix", overviewSuffix),
      ("unit_prefix", unitPrefix), ("unit_suffix", unitSuffix), ("separator", separator),
    ] where !text.isEmpty { metadata["\(name).\(key)"] = .string(text) }
    if let question { metadata["\(name).question"] = .string(question) }
    if let positions { metadata["\(name).positions"] = .string(positions.rawValue) }
    if let coordinates { metadata["\(name).coordinates"] = .string(coordinates.rawValue) }
    if let packing { metadata["\(name).packing"] = .string(packing.rawValue) }
    if let packingLimit { metadata["\(name).packing_limit"] = .int(Int64(packingLimit)) }
  }
}
