import SquintCompute
import SquintFile

/// The rotary embedding (arXiv 2104.09864) of the rows of a pass: the angles by which pairs of a head's numbers turn.
package struct Rotary: @unchecked Sendable {  // a view of the arena
  package struct Regions: Sendable {
    let cosines: Region<Float>
    let sines: Region<Float>
    let frequencies: Region<Float>
    let axes: Region<UInt8>?
    let means: (cosines: Region<Float>, sines: Region<Float>)?
    let pairs: Int

    /// - Parameters:
    ///   - hasMeans: whether the mean turn over many positions is wanted, too.
    ///   - hasAxes: whether pairs turn by several axes.
    package init(
      pairs: Int, rows: Int, hasMeans: Bool, hasAxes: Bool = false, phases: Phases, in plan: inout ArenaPlan
    ) throws(SquintError) {
      self.pairs = pairs
      cosines = try plan.reserve("cosines", count: rows * pairs, phases: phases)
      sines = try plan.reserve("sines", count: rows * pairs, phases: phases)
      // Written once, before anything runs.
      let always: Phases = [.encode, .prefill, .decode]
      frequencies = try plan.reserve("rotary frequencies", count: pairs, phases: always)
      axes = hasAxes ? try plan.reserve("rotary axes", count: pairs, phases: always) : nil
      means =
        hasMeans
        ? (
          try plan.reserve("mean cosines", count: pairs, phases: always),
          try plan.reserve("mean sines", count: pairs, phases: always)
        ) : nil
    }
  }

  /// The positions over which means are taken: as many as a session has unless it is told otherwise. They must not depend on the
  /// session, whose answers do not depend on its memory.
  package static let meanPositions = 4096

  package let angles: RotaryAngles
  /// What turns a vector by them gives the mean of the vector turned at each position; nil where that is not wanted.
  package let means: RotaryAngles?
  private let frequencies: UnsafeMutablePointer<Float>
  private let axes: UnsafeMutablePointer<UInt8>?
  private let magnitude: Float

  /// - Parameters:
  ///   - frequencies: [pairs], radians per position.
  ///   - axes: [pairs], by which axis of a row's position each pair turns; nil: all by the first.
  ///   - magnitude: a factor of all cosines and sines.
  package init(_ regions: Regions, frequencies: [Float], axes: [Int]? = nil, magnitude: Float, in arena: Arena) {
    self.magnitude = magnitude
    self.axes = regions.axes.map { arena[$0].baseAddress! }
    if let own = self.axes, let axes { own.update(from: axes.map { UInt8($0) }, count: regions.pairs) }
    self.frequencies = arena[regions.frequencies].baseAddress!
    self.frequencies.update(from: frequencies, count: regions.pairs)
    angles = RotaryAngles(
      cosines: Rows(regions.cosines, width: regions.pairs, in: arena),
      sines: Rows(regions.sines, width: regions.pairs, in: arena))
    means = regions.means.map { means in
      RotaryAngles(
        cosines: Rows(means.cosines, width: regions.pairs, in: arena),
        sines: Rows(means.sines, width: regions.pairs, in: arena))
    }
    means?.fillMeans(positions: Self.meanPositions, frequencies: self.frequencies, magnitude: magnitude)
  }

  /// Computes the angles of the `count` rows of a pass, which stand at `positions`.
  package func fill(_ positions: UnsafePointer<RotaryPosition>, count: Int) {
    angles.fill(positions, count: count, frequencies: frequencies, axes: axes, magnitude: magnitude)
  }
}
