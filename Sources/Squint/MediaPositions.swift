import SquintCompute
import SquintFile
import SquintMedia

/// Where the rows of a medium stand for the rotary embedding: the key `KIND.positions` (formats/vision.md).
struct MediaPositions: Equatable, Sendable {
  enum Rule: String, CaseIterable, Sendable {
    /// As tokens do: each one step behind the other, on all axes.
    case sequence
    /// On three axes from where the medium begins: time, row and column (Qwen2-VL's M-RoPE). What follows is one step behind the largest
    /// of all.
    case grid
  }

  let rule: Rule
  /// The seconds of a unit, and the steps of a second, where units follow each other in time; their product is rounded down. Elsewhere
  /// a unit is one step.
  private(set) var secondsPerUnit: Float
  let stepsPerSecond: Float
  /// How the rows of a video's sound stand among its own; nil: it is not heard.
  let interleaving: Interleaving?
  /// Whether the metadata says how many steps a second is.
  private let isTimed: Bool

  /// Reads the keys of `kind`.
  ///
  /// - Throws: `badData` where one makes no sense.
  init(_ kind: MediaKind, _ metadata: Metadata) throws(SquintError) {
    rule = try metadata.choice("\(kind.rawValue).positions", default: .sequence)
    let key = "\(kind.rawValue).steps_per_second"
    stepsPerSecond = Float(try metadata.float(key, default: 1))
    secondsPerUnit = 1
    isTimed = metadata[key] != nil
    guard (0...1e6).contains(stepsPerSecond) else {
      throw SquintError(.badData, "metadata \(key) is \(stepsPerSecond); convert the model again")
    }
    interleaving = try Self.interleaving(kind, metadata, stepsPerSecond: stepsPerSecond)
  }

  /// Reads `video.sound` and what belongs to it.
  private static func interleaving(
    _ kind: MediaKind, _ metadata: Metadata, stepsPerSecond: Float
  ) throws(SquintError) -> Interleaving? {
    guard kind == .video, metadata["video.sound"] != nil else { return nil }
    let rule = try metadata.string("video.sound")
    let seconds = try metadata.float("video.sound_seconds")
    let steps = Double(stepsPerSecond) * seconds
    guard rule == "interleaved", seconds > 0, steps >= 1, steps <= 1e6 else {
      throw SquintError(
        .badData,
        "metadata video.sound is \(rule) by turns of \(seconds) seconds, which is not known; convert the model again"
      )
    }
    return Interleaving(stepsPerTurn: Int(steps))
  }

  /// The same for a medium whose units come at these times, where time counts.
  func timed(_ timing: MediaTiming?) -> MediaPositions {
    guard isTimed, let timing else { return self }
    var positions = self
    positions.secondsPerUnit = Float(timing.secondsPerUnit)
    return positions
  }

  var isSpread: Bool { rule == .grid }

  /// The step of unit `unit` on the axis of time.
  func step(_ unit: Int) -> Int32 {
    let step = Float(unit) * secondsPerUnit * stepsPerSecond
    // Further on, angles mean nothing any more.
    return step.isFinite ? Int32(max(0, min(step, 1e8))) : 0
  }
}

extension MediumSize {
  /// Where row `row` is, from where row `first` begins, on the axes time, row and column.
  func offset(ofRow row: Int, from first: Int) -> RotaryPosition {
    let (unit, place, grid) = place(ofRow: row)
    let time = positions.step(unit - self.place(ofRow: first).unit)
    return RotaryPosition(time, Int32(place / grid.columns), Int32(place % grid.columns))
  }

  /// How many steps behind the beginning of `rows` what follows them is: one behind the largest of all, as transformers 4 has it. (Its
  /// version 5 leaves the time out, which a long video shows.)
  func advance(of rows: Range<Int>) -> Int {
    guard !rows.isEmpty else { return 0 }
    let (first, last) = (place(ofRow: rows.lowerBound), place(ofRow: rows.upperBound - 1))
    let time = Int(positions.step(last.unit - first.unit))
    return max(time, max(last.grid.rows, last.grid.columns) - 1) + 1
  }
}
