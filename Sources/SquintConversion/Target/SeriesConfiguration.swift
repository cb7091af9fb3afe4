import SquintFile

/// What is done to series before their encoder: the keys `series.*` (formats/series.md).
package struct SeriesConfiguration: ProcessorSettings, Equatable {
  package var normalization: Normalization
  /// What numbers are rounded to before the encoder; nil: they are not.
  package var rounding: Rounding?
  /// The points of the longest series.
  package var mostPoints: Int

  package enum Normalization: String, Sendable {
    /// Around the mean, and scaled where they are large; both are written into the prompt.
    case valuePreserving = "value_preserving"
    /// Around the mean, in standard deviations.
    case zScore = "z_score"
  }

  package enum Rounding: String, Sendable {
    case f16, bf16
  }

  /// More is no series that a model takes.
  package static let largestPoints = 1 << 20

  package init(normalization: Normalization, rounding: Rounding?, mostPoints: Int) {
    self.normalization = normalization
    self.rounding = rounding
    self.mostPoints = mostPoints
  }

  package func write(to metadata: inout Metadata) {
    metadata["series.normalization"] = .string(normalization.rawValue)
    if let rounding { metadata["series.rounding"] = .string(rounding.rawValue) }
    metadata["series.most_points"] = .int(Int64(min(mostPoints, Self.largestPoints)))
  }
}
