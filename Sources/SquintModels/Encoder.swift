import SquintCompute
import SquintFile

/// An encoder as a plan sees it: its blueprint and where its weights are in the file. Nothing of them has been read.
///
/// A unit is what the encoder takes by itself, such as a tile of an image; its shape is its size along each axis, the outer
/// first.
package protocol EncoderModel: Sendable {
  /// The width of a row of features.
  var featureWidth: Int { get }
  /// Whether the features of a unit begin with a row that stands for all of it.
  var hasClassRow: Bool { get }
  /// The layers that are used, as ranges of the file, in their order.
  var streamUnits: [Range<Int>] { get }

  /// How the features of a unit lie, without a row that stands for all of it.
  ///
  /// - Throws: `badData` where the encoder takes no unit of this shape.
  func grid(of shape: [Int]) throws(SquintError) -> FeatureGrid

  /// Whether an encoder that was planned for units of `patches` patches has room for those of `shape`.
  func holds(_ shape: [Int], patches: Int) -> Bool

  /// The rows that a unit has in the layers, of which features may be fewer; 0 where the encoder takes no unit of this shape.
  func layerRows(of shape: [Int]) -> Int

  /// The multiplications and additions of attention for a unit of `rows` rows.
  func attentionOperations(rows: Int) -> Double

  /// Reserves the encoder's buffers.
  ///
  /// - Parameters:
  ///   - residency: which of `streamUnits` stay in memory.
  ///   - shapes: of all units that there can be.
  ///   - units: that go through the layers together. Weights that do not stay are read once for them.
  /// - Returns: what makes the encoder in an arena of this plan.
  func reserve(
    _ residency: Residency, shapes: [[Int]], units: Int, threads: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> EncoderMaker
}

extension EncoderModel {
  /// The rows of features that a unit gives.
  package func rows(of shape: [Int]) throws(SquintError) -> Int { try grid(of: shape).count + (hasClassRow ? 1 : 0) }

  package func layerRows(of shape: [Int]) -> Int { (try? rows(of: shape)) ?? 0 }

  package func holds(_ shape: [Int], patches: Int) -> Bool {
    ((try? grid(of: shape).count) ?? Int.max) <= patches
  }
}

/// Makes an encoder in an arena; throws `internalError` where the system gives no threads to read weights.
package typealias EncoderMaker =
  @Sendable (_ reader: DirectReader, _ arena: Arena, _ compute: Compute) throws(SquintError) -> any Encoder

/// An encoder with its buffers.
package protocol Encoder {
  /// The units of the largest pass.
  var units: Int { get }
  /// The patches of the largest unit, or the rows that it has in the layers.
  var patches: Int { get }
  /// Hands out the weights.
  var stream: WeightStream { get }

  /// Computes the features of units of one shape, such as the graph accepts, and as were planned for.
  ///
  /// - Parameters:
  ///   - numbers: of the units, one after the other, as the processor makes them.
  ///   - count: at most `units`.
  ///   - shouldContinue: asked before each unit and before each layer, and within what takes long.
  ///   - visit: called with each unit in turn and its features [rows, features' width], which are valid until it returns.
  /// - Returns: whether it was finished.
  func encode(
    _ numbers: UnsafeRawPointer, count: Int, shape: [Int], while shouldContinue: () -> Bool,
    visit: (_ unit: Int, _ features: Rows) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool
}

/// How a unit's features lie: row after row. Those of a sequence are one row.
package struct FeatureGrid: Equatable, Sendable {
  package let rows: Int
  package let columns: Int

  package init(rows: Int, columns: Int) {
    self.rows = rows
    self.columns = columns
  }

  package var count: Int { rows * columns }
}

extension FeatureGrid {
  /// The patches of a tile of [height, width] pixels; what is left at the right and the bottom is not seen.
  ///
  /// - Parameter table: the side of the only grid that there are positions for; nil where any will do.
  /// - Throws: `badData` where the tile has no patch, or another grid.
  package init(patchesOf shape: [Int], side: Int, table: Int?, module: String) throws(SquintError) {
    guard shape.count == 2 else {
      throw SquintError(
        .badData, "\(module): it takes single images, not \(shape.count == 3 ? "pairs of frames" : "these")")
    }
    let (height, width) = (shape[0], shape[1])
    self.init(rows: height / side, columns: width / side)
    guard rows > 0, columns > 0 else {
      throw SquintError(
        .badData,
        "\(module): a tile of \(height) × \(width) pixels is smaller than a patch; it needs \(side) × \(side) at least")
    }
    if let table, self != FeatureGrid(rows: table, columns: table) {
      let side = table * side
      throw SquintError(
        .badData,
        "\(module): a tile of \(height) × \(width) pixels has \(rows) × \(columns) patches, and the positions "
          + "are for \(table) × \(table); it needs \(side) × \(side) pixels")
    }
  }
}
