import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// How a model takes media of one kind (formats/vision.md): what is done to a file, its encoder, and the projector onto the
/// decoder's width.
///
/// Made when the file is opened; no weight is touched before a medium is encoded.
struct Modality: Sendable {
  struct Projector: Sendable {
    let configuration: MLP.Configuration
    let weights: MLP.Weights
  }

  let kind: MediaKind
  let processor: any MediaProcessor
  let encoder: any EncoderModel
  /// nil where it is not wanted, or a file has an encoder only, which `squint embed` can use.
  let projector: Projector?

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
    self.kind = kind
    let processor = try kind.processor(file.metadata)
    self.processor = try side.map { (side) throws(SquintError) in try processor.resizing(toSide: side) } ?? processor
    encoder = try encoderModel(of: file, module: kind.encoderModule, levels: processor.levels)
    guard projects, file.module(kind.projectorModule) != nil else {
      guard decoderWidth == nil || !projects else {
        throw SquintError(.badData, "there is an encoder and no projector in this file; convert the model again")
      }
      projector = nil
      return
    }
    let configuration = try projectorConfiguration(
      of: file, module: kind.projectorModule, encoderWidth: encoder.featureWidth, hasClassRow: encoder.hasClassRow,
      decoderWidth: decoderWidth)
    projector = Projector(configuration: configuration, weights: try MLP.Weights(file, configuration))
  }

  /// The rows that a unit gives behind the projector (or the encoder, where there is none).
  func rows(of shape: [Int]) throws(SquintError) -> Int {
    guard let projector else { return try encoder.rows(of: shape) }
    let grid = try encoder.grid(of: shape)
    return try projector.configuration.rows(gridRows: grid.rows, gridColumns: grid.columns)
  }

  /// The width of those rows.
  var width: Int { projector?.configuration.outputWidth ?? encoder.featureWidth }

  /// What a medium takes, whose decoding takes `cost`.
  func size(_ cost: MediaCost, heldBytes: Int = 0) throws(SquintError) -> MediumSize {
    var rowsPerUnit: [Int] = []
    for run in cost.layout.runs { rowsPerUnit.append(try rows(of: run.shape)) }
    return MediumSize(kind: kind, cost: cost, rowsPerUnit: rowsPerUnit, heldBytes: heldBytes)
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
    fileprivate let projector: MLP.Regions?

    /// Reserves the buffers for media of `layouts`, `units` units at a time. Of the encoder's parts, those of `residency` stay in
    /// memory.
    init(
      _ modality: Modality, _ residency: Residency, layouts: [MediaLayout], units: Int, threads: Int,
      in plan: inout ArenaPlan
    ) throws(SquintError) {
      let shapes = layouts.flatMap { $0.runs.map(\.shape) }
      encoder = try modality.encoder.reserve(residency, shapes: shapes, units: units, threads: threads, in: &plan)
      guard let configuration = modality.projector?.configuration else {
        projector = nil
        return
      }
      var rows = 1
      for shape in shapes { rows = max(rows, try modality.rows(of: shape)) }
      projector = try MLP.Regions(configuration, rows: rows, in: &plan)
    }
  }

  /// The encoder and the projector with their buffers.
  struct Engine {
    let modality: Modality
    private let encoder: any Encoder
    private let projector: MLP?

    init(
      _ modality: Modality, _ regions: Regions, reader: DirectReader, in arena: Arena, _ compute: Compute
    ) throws(SquintError) {
      self.modality = modality
      encoder = try regions.encoder(reader, arena, compute)
      if let own = modality.projector, let regions = regions.projector {
        projector = MLP(own.configuration, own.weights, regions, in: arena, compute)
      } else {
        projector = nil
      }
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
      try units.bytes.withBytes { (bytes) throws(SquintError) in
        var done = 0
        var offset = 0
        for run in units.layout.runs {
          for first in stride(from: 0, to: run.count, by: encoder.units) {
            let count = min(encoder.units, run.count - first)
            let before = done
            let isFinished = try encoder.encode(
              bytes.baseAddress! + offset, count: count, shape: run.shape, while: { shouldContinue(before) }
            ) { (unit, features) throws(SquintError) in try visit(before + unit, run.shape, features) }
            guard isFinished else { return false }
            done += count
            offset += count * run.unitBytes
          }
        }
        return true
      }
    }

    /// Projects the features of a unit into `rows`; returns how many of them it becomes.
    func project(_ features: Rows, of shape: [Int], into rows: Rows) throws(SquintError) -> Int {
      let count = try modality.rows(of: shape)
      guard let projector else {
        rows.data.update(from: features.data, count: count * features.width)
        return count
      }
      let grid = try modality.encoder.grid(of: shape)
      projector.project(features, gridRows: grid.rows, gridColumns: grid.columns, into: rows)
      return count
    }
  }
}
