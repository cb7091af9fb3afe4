import SquintFile

/// What stands around an image's features in a prompt (formats/vision.md, "In the prompt").
package struct ImagePrompt: Equatable, Sendable {
  /// What stands for an image in a rendered prompt.
  package var marker = "<image>"
  /// The token whose places the features take, and its text; nil: the text around features is tokenized for itself.
  package var token: Int?
  /// nil: the marker.
  package var tokenText: String?
  /// Around an image of several tiles.
  package var prefix = ""
  package var suffix = ""
  package var singlePrefix = ""
  package var singleSuffix = ""
  package var tilePrefix = ""
  package var rowSuffix = ""
  package var overviewPrefix = ""
  package var overviewSuffix = ""
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

  /// Writes the prompt keys of the modality `name`.
  package func write(to metadata: inout Metadata, name: String) {
    if marker != "<\(name)>" { metadata["\(name).marker"] = .string(marker) }
    if let token { metadata["\(name).token"] = .int(Int64(token)) }
    if let tokenText, tokenText != marker { metadata["\(name).token_text"] = .string(tokenText) }
    for (key, text) in [
      ("prefix", prefix), ("suffix", suffix), ("single_prefix", singlePrefix), ("single_suffix", singleSuffix),
      ("tile_prefix", tilePrefix),
      ("row_suffix", rowSuffix), ("overview_prefix", overviewPrefix), ("overview_suffix", overviewSuffix),
    ] where !text.isEmpty { metadata["\(name).\(key)"] = .string(text) }
    if let positions { metadata["\(name).positions"] = .string(positions.rawValue) }
    if let coordinates { metadata["\(name).coordinates"] = .string(coordinates.rawValue) }
    if let packing { metadata["\(name).packing"] = .string(packing.rawValue) }
    if let packingLimit { metadata["\(name).packing_limit"] = .int(Int64(packingLimit)) }
  }
}
