import SquintCompute
import SquintFile

/// A projector as a plan sees it: its blueprint and where its weights are in the file. Nothing of them has been read.
package protocol ProjectorModel: Sendable {
  /// The width of the decoder's rows.
  var decoderWidth: Int { get }
  /// How many more rows each has that are added behind the decoder's first layers; they follow it: [1 + levels, decoder width].
  var levels: Int { get }

  /// How many rows of the decoder the features of a grid become.
  ///
  /// - Throws: `badData` where the grid cannot be cut as the projector wants it.
  func rows(of grid: FeatureGrid) throws(SquintError) -> Int

  /// Reserves the projector's buffers, for units that become at most `rows` rows.
  ///
  /// - Returns: what makes the projector in an arena of this plan.
  func reserve(rows: Int, in plan: inout ArenaPlan) throws(SquintError) -> ProjectorMaker
}

extension ProjectorModel {
  package var levels: Int { 0 }
  /// The width of what a row of the decoder gets.
  package var rowWidth: Int { (1 + levels) * decoderWidth }
}

/// Makes a projector in an arena.
package typealias ProjectorMaker = @Sendable (_ arena: Arena, _ compute: Compute) -> any Projector

/// A projector with its buffers.
package protocol Projector {
  /// Writes the decoder's rows for the features of a grid of patches, which must be one that the model accepts.
  ///
  /// - Parameters:
  ///   - features: [(1 +) patches, features' width]
  ///   - rows: [tokens, row width]
  func project(_ features: Rows, _ grid: FeatureGrid, into rows: Rows)
}
