import SquintFile
import SquintMedia

/// What is done to series before their encoder: the keys `series.*` (formats/series.md).
package struct SeriesConfiguration: ProcessorSettings, Equatable {
  package var normalization: SeriesProcessor.Normalization
  package var rounding: SeriesProcessor.Rounding
  /// The points of the longest series.
  package var mostPoints: Int

  package init(
    normalization: SeriesProcessor.Normalization, rounding: SeriesProcessor.Rounding, mostPoints: Int
  ) {
    self.normalization = normalization
    self.rounding = rounding
    self.mostPoints = mostPoints
  }

  package func write(to metadata: inout Metadata) {
    metadata["series.normalization"] = .string(normalization.rawValue)
    if rounding != .none { metadata["series.rounding"] = .string(rounding.rawValue) }
    metadata["series.most_points"] = .int(Int64(min(mostPoints, SeriesProcessor.pointLimit)))
  }
}
