import SquintFile
import SquintMedia
import SquintModels
import Synchronization

/// A medium for a prompt, such as an image: where it is, how it will be cut, and what that costs. Two media are the same where
/// they are the same object, so that a conversation knows which ones it has encoded.
///
/// It is decoded when the session encodes it, and what it was decoded to is forgotten afterwards.
public final class Medium: Sendable {
  public let path: String
  /// What messages call it: `path`, but a beginning of a long text.
  package let name: String
  public let size: MediumSize
  /// The sound of a video, whose rows stand in a prompt among those of its frames; nil where there is none, or it is not heard.
  public let sound: Medium?
  /// What people should know of how it is taken, a line each: what of it the model does not get.
  public var notes: [String] {
    size.cost.notes.map { "\(name): \($0)" } + (sound?.notes ?? [])
  }
  private let processor: any MediaProcessor
  /// The file, where it cannot be opened again by its path.
  private let kept: MediaFile?
  private let decoded = Mutex<MediaUnits?>(nil)

  /// - Parameter sounds: what hears a video's own sound; nil: nothing does.
  convenience init(
    path: String, _ modality: Modality, sounds: Modality? = nil, _ limits: MediaLimits = MediaLimits()
  ) throws(SquintError) {
    let file = try modality.kind.file(path)
    try self.init(file, modality, limits) { () throws(SquintError) in
      guard let sounds, let own = try file.soundOfVideo() else { return nil }
      return try Medium(own, sounds, MediaLimits()) { () throws(SquintError) in nil }
    }
  }

  /// The same medium within other limits.
  convenience init(_ medium: Medium, _ modality: Modality, _ limits: MediaLimits) throws(SquintError) {
    try self.init(medium.file(), modality, limits) { () throws(SquintError) in medium.sound }
  }

  /// - Parameter sound: finds its sound, once it is known to be one of its kind.
  private init(
    _ file: MediaFile, _ modality: Modality, _ limits: MediaLimits,
    sound find: () throws(SquintError) -> Medium?
  ) throws(SquintError) {
    path = file.path
    name = file.name
    kept = file.isReadOnce ? file : nil
    var size: MediumSize
    do throws(SquintError) {
      (processor, size) = try modality.limited(limits, of: file)
      guard size.rows > 0 else {
        throw try modality.tooShort()
      }
    } catch {
      throw error.naming(name)
    }
    sound = try find()
    size.sounds = sound.map { [$0.size] } ?? []
    self.size = size
  }

  private func file() throws(SquintError) -> MediaFile {
    if let kept { return kept }
    return try kind.file(path)
  }

  public var kind: MediaKind { size.kind }

  /// The rows of the decoder that it takes.
  public var rows: Int { size.rows }

  /// What is encoded by itself: the medium, and its sound.
  var parts: [Medium] { [self] + (sound.map { [$0] } ?? []) }

  /// Its units, decoded now or before; nil where `shouldContinue`, which is asked while it is decoded, said no.
  func units(while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? {
    if let units = decoded.withLock({ $0 }) { return units }
    guard let units = try processor.units(of: file(), while: shouldContinue) else { return nil }
    guard units.layout == size.cost.layout else {
      throw .badData(path, "the \(kind.noun) was changed while it was looked at; ask again")
    }
    decoded.withLock { $0 = units }
    return units
  }

  /// Whether it holds the memory of its units.
  package var isDecoded: Bool { decoded.withLock { $0 != nil } }

  /// Gives the memory of the units back.
  func forget() { decoded.withLock { $0 = nil } }
}

/// A medium that is an image.
public typealias Image = Medium

/// How much of a medium a model is to look at, within what it allows; nil: as the checkpoint does.
public struct MediaLimits: Equatable, Sendable {
  /// The units, such as tiles, that an image is cut into at most.
  public var units: Int?
  /// The rows of the decoder that an image takes at most: a lower resolution, or fewer tiles.
  public var rows: Int?
  /// Whether it stands in a prompt with others of its kind: some models cut images only where there is one.
  public var isOneOfSeveral = false
  /// The frames of a second of a video that are looked at; of a folder of frames, all of which are, how many a second has: two where this
  /// is nil.
  public var framesPerSecond: Double?
  /// The frames of a video that are looked at, at most.
  public var frames: Int?
  /// Whether the sound of a video is heard, where the model was trained with it.
  public var hearsVideos = true
  /// The points that a second of a series has; nil: unknown, and as is usual for the model.
  public var pointsPerSecond: Double?

  public init(units: Int? = nil, rows: Int? = nil, framesPerSecond: Double? = nil, frames: Int? = nil) {
    self.units = units
    self.rows = rows
    self.framesPerSecond = framesPerSecond
    self.frames = frames
  }
}

extension Modality {
  /// The processor within `limits` for the medium in `file`, and what the medium takes then.
  ///
  /// - Throws: `usage` where no such limit can be set, or it cannot be met; else as the processor's `cost(of:)`.
  func limited(_ limits: MediaLimits, of file: MediaFile) throws(SquintError) -> (any MediaProcessor, MediumSize) {
    func size(_ processor: any MediaProcessor) throws(SquintError) -> MediumSize {
      try self.size(processor.cost(of: file), heldBytes: file.heldBytes)
    }
    if let videos = processor as? VideoProcessor {
      let chosen = try videos.choosing(rate: limits.framesPerSecond, mostFrames: limits.frames)
      return (chosen, try size(chosen))
    }
    if let series = processor as? SeriesProcessor {
      let chosen = try series.choosing(rate: limits.pointsPerSecond)
      return (chosen, try size(chosen))
    }
    // What is heard or read is taken whole.
    guard kind == .image else { return (processor, try size(processor)) }
    var processor: any MediaProcessor = limits.isOneOfSeveral ? processor.amongSeveral() : processor
    if let rows = limits.rows, let multiple = processor.multiple, try size(processor).rows > rows {
      processor = try processor.limited(toPixels: rows.clamped(to: 1...1 << 24) * multiple * multiple)
    }
    if let units = limits.units { processor = try processor.limited(toUnits: units, of: file) }
    var found = try size(processor)
    guard let most = limits.rows else { return (processor, found) }
    while found.rows > most {
      guard found.units > 1 else {
        throw SquintError(
          .usage,
          "the model makes \(grouped(found.rows)) tokens of this \(kind.noun) at least, and \(grouped(most)) are asked for"
        )
      }
      // The rows of one unit are not more than those of all are in the mean, but for what packing adds.
      let units = min(max(most * found.units / found.rows, 1), found.units - 1)
      processor = try processor.limited(toUnits: units, of: file)
      found = try size(processor)
    }
    return (processor, found)
  }

  /// The error of a medium that becomes no row, with what would become one where that is known.
  fileprivate func tooShort() throws(SquintError) -> SquintError {
    let problem = "the \(kind.noun) becomes no token"
    switch kind {
    case .audio:
      guard let sounds = processor as? SoundProcessor, let samples = try shortest(sounds) else { fallthrough }
      let milliseconds = (1000 * samples + sounds.mel.rate - 1) / sounds.mel.rate
      return SquintError(.badData, "\(problem): it is too short; give one of at least \(grouped(milliseconds)) ms")
    case .video, .series: return SquintError(.badData, "\(problem): it is too short; give a longer one")
    case .image, .molecule: return SquintError(.badData, "\(problem); give another one")
    }
  }

  /// The samples of the shortest sound that becomes a row; nil where none of a minute does.
  private func shortest(_ sounds: SoundProcessor) throws(SquintError) -> Int? {
    func hasRows(_ samples: Int) throws(SquintError) -> Bool { try size(sounds.cost(ofSamples: samples)).rows > 0 }
    var (least, most) = (1, 60 * sounds.mel.rate)
    guard try hasRows(most) else { return nil }
    while least < most {
      let middle = (least + most) / 2
      if try hasRows(middle) { most = middle } else { least = middle + 1 }
    }
    return most
  }

  /// What the largest medium within `limits` takes; nil where there is no bound.
  func largest(_ limits: MediaLimits) throws(SquintError) -> MediumSize? {
    let limits = kind == .image ? limits : MediaLimits()
    var costs = processor.costs()
    if let rows = limits.rows, let multiple = processor.multiple {
      costs = try processor.limited(toPixels: rows.clamped(to: 1...1 << 24) * multiple * multiple).costs()
    }
    // Features of many tiles may become fewer rows than those of a few.
    var most: MediumSize?
    for cost in costs {
      let size = try size(cost).limited(toUnits: limits.units ?? Int.max)
      if most.map({ size.rows > $0.rows }) ?? true { most = size }
    }
    guard var found = most else { return nil }
    // One that cannot meet the limit, such as a very narrow image, is refused when it comes.
    while let rows = limits.rows, found.rows > rows, found.units > 1 {
      found = found.limited(toUnits: found.units - 1)
    }
    return found
  }
}

extension Int {
  fileprivate func clamped(to range: ClosedRange<Int>) -> Int {
    Swift.min(Swift.max(self, range.lowerBound), range.upperBound)
  }
}

/// What a medium takes, known from the head of its file alone: from the width and height of an image.
public struct MediumSize: Equatable, Sendable {
  public let kind: MediaKind
  /// How it is cut, and what that takes.
  package private(set) var cost: MediaCost
  /// How the rows of the decoder lie that each unit of a run of the layout becomes.
  let grids: [FeatureGrid]
  /// How these are packed; nil where they follow each other.
  private(set) var arrangement: RowArrangement?
  /// Where they stand for the rotary embedding.
  let positions: MediaPositions
  /// The memory of a medium that came through a pipe, as long as it is there, in bytes.
  public let heldBytes: Int
  /// That of its sound, which a video may have: none or one.
  fileprivate(set) var sounds: [MediumSize] = []

  init(
    kind: MediaKind, cost: MediaCost, grids: [FeatureGrid], arrangement: RowArrangement?, positions: MediaPositions,
    heldBytes: Int
  ) {
    self.kind = kind
    self.cost = cost
    self.grids = grids
    self.arrangement = arrangement
    self.positions = positions
    self.heldBytes = heldBytes
  }

  /// How many units it is cut into, each of which is encoded by itself: the tiles of an image.
  public var units: Int { cost.layout.count }

  /// How many frames of a video these show; 0 elsewhere.
  public var frames: Int { cost.timing?.frames ?? 0 }

  /// The rows of the decoder that it takes.
  public var rows: Int { arrangement?.count ?? zip(cost.layout.runs, grids).reduce(0) { $0 + $1.0.count * $1.1.count } }

  /// What its sound takes, where a video has one that is heard.
  public var sound: MediumSize? { sounds.first }

  /// The rows of the decoder that it takes together with its sound.
  public var rowsWithSound: Int { rows + (sound?.rows ?? 0) }

  /// What is encoded by itself: the medium, and its sound.
  var parts: [MediumSize] { [self] + sounds }

  /// The first of the rows of unit `unit`, where they follow each other.
  func firstRow(ofUnit unit: Int) -> Int {
    var (first, rest) = (0, unit)
    for (run, grid) in zip(cost.layout.runs, grids) {
      first += min(rest, run.count) * grid.count
      rest = max(rest - run.count, 0)
    }
    return first
  }

  /// The unit that row `row` is of, its place in it, and how the rows of that unit lie.
  func place(ofRow row: Int) -> (unit: Int, row: Int, grid: FeatureGrid) {
    var (unit, rest) = (0, row)
    for (run, grid) in zip(cost.layout.runs, grids) {
      if rest < run.count * grid.count { return (unit + rest / grid.count, rest % grid.count, grid) }
      unit += run.count
      rest -= run.count * grid.count
    }
    return (unit, rest, FeatureGrid(rows: 1, columns: 1))
  }

  /// The width and height of an image's largest tile, in pixels.
  package var unitSize: (width: Int, height: Int) {
    let shape = cost.layout.runs.first?.shape ?? []
    return shape.count >= 2 ? (shape[shape.count - 1], shape[shape.count - 2]) : (0, 0)
  }

  /// The memory that decoding and cutting it take at most, its units among them, in bytes.
  public var decodingBytes: Int { cost.decodingBytes }

  /// The memory of its units, which are decoded together, in bytes; 0 where they are decoded when they are encoded.
  public var unitBytes: Int { cost.heldUnitBytes }

  /// What a medium of at most `most` units takes instead, where it can be cut into fewer.
  func limited(toUnits most: Int) -> MediumSize {
    var size = self
    size.cost.layout = cost.layout.limited(toUnits: most)
    if arrangement != nil, let tiles = size.cost.layout.grid, let original = size.cost.layout.original {
      // None of its rows is padding, and none is left out.
      size.arrangement = RowArrangement(tiles: tiles, tile: grids[0], original: original, limit: nil)
    }
    size.cost.decodingBytes -= unitBytes - size.unitBytes
    return size
  }
}
