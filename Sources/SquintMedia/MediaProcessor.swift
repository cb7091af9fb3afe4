import SquintFile

/// From the file of a medium to the numbers that its encoder takes.
///
/// A processor is a value that says all that a checkpoint does; it holds no medium.
package protocol MediaProcessor: Sendable {
  /// What each 8-bit level of each channel is for the encoder: [channel, level]. Empty where units are not of levels.
  var levels: [Float] { get }

  /// What media take that a conversation is planned for, rising: of images one for each number of units that there can be; of sounds, molecules
  /// and series the usual one. None where there is no bound to a unit's shape.
  func costs() -> [MediaCost]

  /// What the medium in `file` takes.
  ///
  /// - Throws: `badData` where it is no medium of this kind, or one that is refused.
  func cost(of file: MediaFile) throws(SquintError) -> MediaCost

  /// The same processor, which makes no more than `most` units of the medium in `file`.
  ///
  /// - Throws: `usage` where no limit can be set; else as `cost(of:)`.
  func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> Self

  /// The same processor, which makes units of no more than `most` pixels, where their size follows from the medium's.
  ///
  /// - Throws: `usage` where it does not.
  func limited(toPixels most: Int) throws(SquintError) -> Self

  /// The processor of a medium that stands in a prompt with others of its kind; the same where that changes nothing.
  func amongSeveral() -> Self

  /// What images' sides are multiples of, where their size follows from the medium's: a square of so many pixels becomes one row
  /// of the decoder. nil elsewhere.
  var multiple: Int? { get }

  /// The same processor, which makes units whose sides are `side`.
  ///
  /// - Throws: `usage` where that cannot be chosen.
  func resizing(toSide side: Int) throws(SquintError) -> Self

  /// Decodes the medium in `file`, and cuts it as `cost(of:)` says; one that is streamed is only looked at, and decoded when its
  /// units are read.
  ///
  /// - Parameter shouldContinue: asked now and then.
  /// - Returns: nil where `shouldContinue` said no.
  /// - Throws: `badData` where the file is damaged.
  func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits?

  /// The numbers that the encoder takes of a unit of `shape` whose bytes these are, and their axes.
  func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float])
}

extension MediaProcessor {
  package func limited(toPixels most: Int) throws(SquintError) -> Self {
    throw SquintError(.usage, "the number of pixels of these media cannot be limited")
  }

  package func amongSeveral() -> Self { self }

  package var multiple: Int? { nil }
}

/// How a medium is cut into units: what an encoder takes by itself, such as a tile of an image.
package struct MediaLayout: Sendable, Equatable, Hashable {
  /// Units of one shape, one after the other.
  package struct Run: Sendable, Equatable, Hashable {
    /// The size along each axis, the outer first: of a tile its height and width in pixels.
    package let shape: [Int]
    package var count: Int
    /// What the numbers of one take, in bytes.
    package let unitBytes: Int

    package init(shape: [Int], count: Int, unitBytes: Int) {
      self.shape = shape
      self.count = count
      self.unitBytes = unitBytes
    }
  }

  /// Units that lie side by side: rows × columns, and perhaps one that shows the whole behind them.
  package struct Grid: Sendable, Equatable, Hashable {
    package let rows: Int
    package let columns: Int
    package let hasOverview: Bool

    package init(rows: Int, columns: Int, hasOverview: Bool) {
      self.rows = rows
      self.columns = columns
      self.hasOverview = hasOverview
    }
  }

  /// A size in pixels.
  package struct Size: Sendable, Equatable, Hashable {
    package let width: Int
    package let height: Int

    package init(width: Int, height: Int) {
      self.width = width
      self.height = height
    }
  }

  package let runs: [Run]
  /// nil where the units are a sequence.
  package let grid: Grid?
  /// The size of the image itself, before any resize, where it lies in the middle of its tiles with padding around it that is cut
  /// from the features again (LLaVA-NeXT's `anyres`); nil elsewhere.
  package let original: Size?

  package init(runs: [Run], grid: Grid? = nil, original: Size? = nil) {
    self.runs = runs
    self.grid = grid
    self.original = original
  }

  /// How many units there are.
  package var count: Int { runs.reduce(0) { $0 + $1.count } }

  /// The bytes of all units' numbers.
  package var byteCount: Int { runs.reduce(0) { $0 + $1.count * $1.unitBytes } }

  /// In how many passes of at most `units` units each all of them go through an encoder; those of a pass are of one shape.
  package func passes(of units: Int) -> Int { runs.reduce(0) { $0 + ($1.count + units - 1) / units } }

  /// The layout of no more than `most` units that lie side by side; the same where they do not.
  package func limited(toUnits most: Int) -> MediaLayout {
    guard grid != nil, count > most, var run = runs.first else { return self }
    run.count = most
    if original != nil {
      // One row of tiles that leaves no padding, and the overview, which may stand alone.
      let columns = max(1, most - 1)
      return MediaLayout(
        runs: [run], grid: Grid(rows: 1, columns: columns, hasOverview: most > 1),
        original: Size(width: columns * run.shape[1], height: run.shape[0]))
    }
    return MediaLayout(runs: [run], grid: Grid(rows: 1, columns: most, hasOverview: false))
  }
}

/// What a medium takes before it is encoded.
package struct MediaCost: Sendable, Equatable {
  package var layout: MediaLayout
  /// The memory that decoding and cutting take at most, in bytes: with all units, or with one of a medium that is streamed.
  package var decodingBytes: Int
  /// The size of an image as it is displayed, before any resize; nil where no medium is looked at.
  package let source: MediaLayout.Size?
  /// When what units show happens; nil where that has no time.
  package var timing: MediaTiming?
  /// What stands in the prompt for placeholders such as `{offset}` around each unit, by their names; none where nothing does.
  package var words: [[String: String]] = []
  /// What people should know of how it is taken, in words behind its name, a line each: that a part of it is not used.
  package var notes: [String] = []
  /// Whether units are decoded when the encoder asks for them, and then forgotten.
  package var isStreamed: Bool

  package init(
    layout: MediaLayout, decodingBytes: Int, source: MediaLayout.Size? = nil, timing: MediaTiming? = nil,
    isStreamed: Bool = false
  ) {
    self.layout = layout
    self.decodingBytes = decodingBytes
    self.source = source
    self.timing = timing
    self.isStreamed = isStreamed
  }

  /// The memory of the units that are held at a time beside those that an encoder looks at, in bytes.
  package var heldUnitBytes: Int { isStreamed ? 0 : layout.byteCount }

  /// What each unit that an encoder looks at takes more than `decodingBytes` has, in bytes.
  package var streamedUnitBytes: Int { isStreamed ? layout.runs.map(\.unitBytes).max() ?? 0 : 0 }
}

/// When what the units of a medium show happens.
package struct MediaTiming: Sendable, Equatable {
  /// The times of each unit's frames, in seconds from the beginning; an odd last frame is there twice.
  package let seconds: [[Double]]
  /// How long the whole medium is, in seconds.
  package let duration: Double
  /// How many frames of the medium are in its units.
  package let frames: Int
  /// From a unit to the next, in seconds, on average.
  package let secondsPerUnit: Double

  package init(seconds: [[Double]], duration: Double, frames: Int, secondsPerUnit: Double) {
    self.seconds = seconds
    self.duration = duration
    self.frames = frames
    self.secondsPerUnit = secondsPerUnit
  }
}
