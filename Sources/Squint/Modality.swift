import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// How a model takes media of one kind (formats/vision.md): what is done to a file, its encoder, and the projector onto the
/// decoder's width.
///
/// Made when the file is opened; no weight is touched before a medium is encoded.
struct Modality: Sendable {
  let kind: MediaKind
  let processor: any MediaProcessor
  let encoder: any EncoderModel
  /// nil where it is not wanted, or a file has an encoder only, which `squint embed` can use.
  let projector: (any ProjectorModel)?
  /// Where the rows of a medium stand for the rotary embedding.
  let positions: MediaPositions
  let packing: RowPacking
  /// Of the tiles of a packed image so many have features at most; nil: all.
  let packingLimit: Int?
  /// What stands behind each row of a packed image: [decoder width].
  nonisolated(unsafe) let newline: UnsafePointer<Float>?

  /// The modalities of `file`.
  ///
  /// - Parameters:
  ///   - decoderWidth: the width that projectors must give; nil where there is no decoder.
  ///   - projects: whether projectors are wanted.
  ///   - side: takes the place of the side of units that the checkpoint says.
  /// - Throws: `badData` naming what is missing or impossible.
  static func all(
    in file: ModelFile, decoderWidth: Int?, projects: Bool = true, side: Int? = nil
  ) throws(SquintError) -> [Modality] {
    let known = Set(MediaKind.allCases.flatMap { [$0.encoderModule, $0.projectorModule] } + ["decoder"])
    if let stranger = file.modules.first(where: { !known.contains($0.name) }) {
      throw SquintError(
        .badData, "there is a module \(stranger.name) in this file, which this version has no use for; update squint")
    }
    var modalities: [Modality] = []
    for kind in MediaKind.allCases {
      guard let modality = try Modality(kind, file, decoderWidth: decoderWidth, projects: projects, side: side) else {
        continue
      }
      modalities.append(modality)
    }
    return modalities
  }

  private init?(
    _ kind: MediaKind, _ file: ModelFile, decoderWidth: Int?, projects: Bool, side: Int?
  ) throws(SquintError) {
    guard file.module(kind.encoderModule) != nil else {
      guard file.module(kind.projectorModule) == nil else {
        throw SquintError(.badData, "there is a projector and no encoder in this file; convert the model again")
      }
      return nil
    }
    guard kind.isTaken(by: file.metadata) else { return nil }
    self.kind = kind
    let processor = try kind.processor(file.metadata)
    // The side of images is not that of frames.
    let side = kind == .video ? nil : side
    self.processor = try side.map { (side) throws(SquintError) in try processor.resizing(toSide: side) } ?? processor
    encoder = try encoderModel(of: file, module: kind.encoderModule, levels: processor.levels)
    let metadata = file.metadata
    positions = try MediaPositions(kind, metadata)
    packing = try metadata.choice("\(kind.rawValue).packing", default: .plain)
    let limit = try metadata.int("\(kind.rawValue).packing_limit", in: 0...1024, default: 0)
    packingLimit = limit > 0 ? limit : nil
    guard projects, file.module(kind.projectorModule) != nil else {
      guard decoderWidth == nil || !projects else {
        throw SquintError(.badData, "there is an encoder and no projector in this file; convert the model again")
      }
      projector = nil
      newline = nil
      return
    }
    let projector = try projectorModel(
      of: file, module: kind.projectorModule, encoderWidth: encoder.featureWidth, hasClassRow: encoder.hasClassRow,
      decoderWidth: decoderWidth)
    self.projector = projector
    guard packing == .anyres else {
      newline = nil
      return
    }
    newline = try file.vector("\(kind.projectorModule).newline", count: projector.decoderWidth)
    guard projector.levels == 0, !encoder.hasClassRow else {
      throw SquintError(
        .badData,
        "metadata \(kind.rawValue).packing is \(packing.rawValue), which does not go with this projector; convert the model "
          + "again")
    }
  }

  /// The rows that a unit gives behind the projector (or the encoder, where there is none).
  func rows(of shape: [Int]) throws(SquintError) -> Int {
    guard let projector else { return try encoder.rows(of: shape) }
    return try projector.rows(of: encoder.grid(of: shape))
  }

  /// The width of those rows, with what is added behind the decoder's first layers.
  var width: Int { projector?.rowWidth ?? encoder.featureWidth }

  /// How the rows of a unit lie: as its patches do, of which squares may have become one.
  private func rowGrid(of shape: [Int]) throws(SquintError) -> FeatureGrid {
    let grid = try encoder.grid(of: shape)
    let count = try rows(of: shape)
    // Squares are cut from both sides alike.
    let side = (1...64).first { grid.count == count * $0 * $0 } ?? 1
    let found = FeatureGrid(rows: grid.rows / side, columns: grid.columns / side)
    return found.count == count ? found : FeatureGrid(rows: 1, columns: count)
  }

  /// What a medium takes, whose decoding takes `cost`.
  func size(_ cost: MediaCost, heldBytes: Int = 0) throws(SquintError) -> MediumSize {
    var grids: [FeatureGrid] = []
    for run in cost.layout.runs { grids.append(try rowGrid(of: run.shape)) }
    return MediumSize(
      kind: kind, cost: cost, grids: grids, arrangement: arrangement(cost.layout, grids),
      positions: positions.timed(cost.timing),
      heldBytes: heldBytes)
  }

  /// How the rows of a medium that is cut as `layout` says are packed; nil where its units' rows follow each other.
  private func arrangement(_ layout: MediaLayout, _ grids: [FeatureGrid]) -> RowArrangement? {
    guard packing == .anyres, projector != nil, let tiles = layout.grid, let grid = grids.first else { return nil }
    // Of one that is a tile alone nothing is padding that would be left out.
    let original = layout.original ?? MediaLayout.Size(width: 1, height: 1)
    guard layout.original != nil || tiles.rows * tiles.columns == 1 && !tiles.hasOverview else { return nil }
    return RowArrangement(tiles: tiles, tile: grid, original: original, limit: packingLimit)
  }

  /// What media take, one for each number of units that there can be, rising.
  func sizes() throws(SquintError) -> [MediumSize] {
    var sizes: [MediumSize] = []
    for cost in processor.costs() { sizes.append(try size(cost)) }
    return sizes
  }
}

// MARK: State

extension Modality {
  /// Every buffer between a unit's numbers and the decoder's rows.
  struct Regions: Sendable {
    fileprivate let encoder: EncoderMaker
    fileprivate let projector: ProjectorMaker?
    /// The rows of a unit of a packed medium, on their way to their places.
    fileprivate let unitRows: Region<Float>?

    /// Reserves the buffers for media of `layouts`, `units` units at a time. Of the encoder's parts, those of `residency` stay in
    /// memory.
    init(
      _ modality: Modality, _ residency: Residency, layouts: [MediaLayout], units: Int, threads: Int,
      in plan: inout ArenaPlan
    ) throws(SquintError) {
      let shapes = layouts.flatMap { $0.runs.map(\.shape) }
      encoder = try modality.encoder.reserve(residency, shapes: shapes, units: units, threads: threads, in: &plan)
      guard let model = modality.projector else {
        projector = nil
        unitRows = nil
        return
      }
      var rows = 1
      for shape in shapes { rows = max(rows, try modality.rows(of: shape)) }
      projector = try model.reserve(rows: rows, in: &plan)
      unitRows =
        modality.packing == .plain
        ? nil : try plan.reserve("rows of a unit", count: rows * modality.width, phases: .encode)
    }
  }

  /// The encoder and the projector with their buffers.
  struct Engine {
    let modality: Modality
    private let encoder: any Encoder
    private let projector: (any Projector)?
    private let unitRows: Rows?

    init(
      _ modality: Modality, _ regions: Regions, reader: DirectReader, in arena: Arena, _ compute: Compute
    ) throws(SquintError) {
      self.modality = modality
      encoder = try regions.encoder(reader, arena, compute)
      projector = regions.projector?(arena, compute)
      unitRows = regions.unitRows.map { Rows($0, width: modality.width, in: arena) }
    }

    /// Whether there is room for the units of a medium of `size`.
    func holds(_ size: MediumSize) -> Bool {
      size.cost.layout.runs.allSatisfy { modality.encoder.holds($0.shape, patches: encoder.patches) }
    }

    /// What has been read of the encoder's weights beside those that stay in memory, in bytes.
    var bytesRead: Int { encoder.stream.bytesRead }

    /// The encoder's weights leave memory until the next medium; the page cache, too, where `uncached`.
    func evict(uncached: Bool) { encoder.stream.evict(uncached: uncached) }

    /// Computes the features of a medium, pass by pass.
    ///
    /// - Parameters:
    ///   - shouldContinue: asked before each layer, with the units that are done.
    ///   - visit: called with each unit in turn, its shape, and its features, which are valid until it returns.
    /// - Returns: whether it was finished.
    func encode(
      _ units: MediaUnits, while shouldContinue: (_ done: Int) -> Bool,
      visit: (_ unit: Int, _ shape: [Int], _ features: Rows) throws(SquintError) -> Void
    ) throws(SquintError) -> Bool {
      let reader = try units.reader()
      var done = 0
      for run in units.layout.runs {
        for first in stride(from: 0, to: run.count, by: encoder.units) {
          let count = min(encoder.units, run.count - first)
          let before = done
          let isFinished = try reader.next(count, of: run, while: { shouldContinue(before) }) {
            (bytes) throws(SquintError) in
            try encoder.encode(
              bytes.baseAddress!, count: count, shape: run.shape, while: { shouldContinue(before) }
            ) { (unit, features) throws(SquintError) in try visit(before + unit, run.shape, features) }
          }
          guard isFinished else { return false }
          done += count
        }
      }
      return true
    }

    /// Projects the features of a unit into `rows`; returns how many of them it becomes.
    func project(_ features: Rows, of shape: [Int], into rows: Rows) throws(SquintError) -> Int {
      let count = try modality.rows(of: shape)
      guard let projector else {
        rows.data.update(from: features.data, count: count * features.width)
        return count
      }
      projector.project(features, try modality.encoder.grid(of: shape), into: rows)
      return count
    }

    /// Writes what a unit's features become to the rows of its medium, `rows` [size.rows, width]; units come in their order.
    func place(_ features: Rows, unit: Int, of shape: [Int], _ size: MediumSize, into rows: Rows) throws(SquintError) {
      // What is added behind the decoder's layers is nothing, where only media of another kind have it.
      if unit == 0, rows.width > modality.width { rows.data.update(repeating: 0, count: size.rows * rows.width) }
      guard let arrangement = size.arrangement, let unitRows, let newline = modality.newline else {
        _ = try project(features, of: shape, into: rows.from(size.firstRow(ofUnit: unit)))
        return
      }
      if unit == 0 {
        rows.data.update(repeating: 0, count: size.rows * rows.width)
        arrangement.addNewlines(newline, width: modality.width, to: rows)
      }
      _ = try project(features, of: shape, into: unitRows)
      arrangement.add(unit: unit, unitRows, to: rows)
    }
  }
}
