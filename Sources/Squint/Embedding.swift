import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// Encodes media without a decoder: what the encoder, or the projector, makes of them.
public final class Embedder {
  /// Where on its way to the decoder a medium is taken.
  public enum Stage: String, CaseIterable, Sendable {
    /// The numbers that the encoder takes: of an image, normalized, [tiles, 3, height, width].
    case pixels
    /// The encoder's features: [units · rows, width].
    case encoder
    /// The decoder's rows: [units · tokens, width].
    case projector
  }

  private let file: ModelFile
  private let modality: Modality
  private let stage: Stage
  private let threads: Int
  private let memory: Int?

  /// Opens the model at `path`, which needs no decoder, and for the stages `pixels` and `encoder` no projector.
  ///
  /// - Parameters:
  ///   - kind: of the media that will come.
  ///   - stage: what is wanted.
  ///   - side: the side in pixels that images are resized and cut to; nil: as the checkpoint says.
  ///   - memory: the bytes that the whole process may take; nil: what is free.
  /// - Throws: `noInput` where the file cannot be read, `badData` where it is not sound, `usage` where it has no encoder.
  public convenience init(
    path: String, _ kind: MediaKind = .image, stage: Stage, side: Int? = nil, threads: Int? = nil, memory: Int? = nil
  ) throws(SquintError) {
    try self.init(ModelFile(path: path), kind, stage: stage, side: side, threads: threads, memory: memory)
  }

  /// The same of a model that is open.
  package init(
    _ file: ModelFile, _ kind: MediaKind = .image, stage: Stage, side: Int? = nil, threads: Int? = nil,
    memory: Int? = nil
  ) throws(SquintError) {
    self.file = file
    self.stage = stage
    self.memory = memory
    if let threads, !Workers.counts.contains(threads) {
      throw SquintError(.usage, "\(threads) threads; choose 1 to \(Workers.counts.upperBound)")
    }
    self.threads = threads ?? Machine().processors
    do throws(SquintError) {
      try file.refuseUnknown()
      let width =
        file.module("decoder") == nil ? nil : try decoderBlueprint(of: file).width
      let modalities = try Modality.all(
        in: file, decoderWidth: width, projects: stage == .projector, side: side)
      guard let modality = modalities.first(where: { $0.kind == kind }) else {
        throw SquintError(
          .usage,
          modalities.isEmpty
            ? "this model takes text alone; convert one with an encoder"
            : "this model takes no \(kind.plural); convert one with an encoder for them")
      }
      self.modality = modality
    } catch {
      throw error.naming(file.path)
    }
  }

  /// Computes what the medium at `path` becomes.
  ///
  /// - Parameters:
  ///   - limits: what is looked at of a video; others are not for this.
  ///   - note: takes what people should know of how the medium is taken.
  ///   - begin: called once with the shape of all that comes.
  ///   - progress: called now and then, with how far it is.
  ///   - visit: called with each unit's part in turn, as the processor orders them; returns whether to go on.
  /// - Throws: `noInput`, `badData` for the medium; `doesNotFit` where the memory does not hold it.
  public func embed(
    _ path: String, _ limits: MediaLimits = MediaLimits(), note: (String) -> Void = { _ in },
    begin: ([Int]) throws(SquintError) -> Void,
    progress: (SessionProgress) -> Void = { _ in },
    visit: (_ unit: Int, _ of: Int, UnsafeBufferPointer<Float>) throws(SquintError) -> Bool
  ) throws(SquintError) {
    let medium = try Medium(path: path, modality, limits)
    medium.notes.forEach(note)
    let (kind, layout) = (modality.kind, medium.size.cost.layout)
    func units() throws(SquintError) -> MediaUnits {
      let units = try medium.units(while: {
        progress(.decode(kind, 0, of: 1))
        return true
      })
      guard let units else { preconditionFailure("nobody cancelled it") }
      return units
    }
    if stage == .pixels {
      let reader = try units().reader()
      var unit = 0
      // Units of different lengths follow each other along their first axis.
      let isOneArray = kind == .image || kind == .video
      let length = layout.runs.reduce(0) { $0 + $1.count * ($1.shape.first ?? 0) }
      for run in layout.runs {
        for _ in 0..<run.count {
          let shouldContinue = try reader.next(1, of: run, while: { true }) { (bytes) throws(SquintError) in
            let (shape, numbers) = modality.processor.numbers(of: bytes, shape: run.shape)
            if unit == 0 { try begin(isOneArray ? [layout.count] + shape : [length] + shape.dropFirst()) }
            return try numbers.withElements { (numbers) throws(SquintError) in
              try visit(unit, layout.count, numbers)
            }
          }
          guard shouldContinue else { return }
          unit += 1
        }
      }
      return
    }
    guard stage == .encoder || modality.projector != nil else {
      throw SquintError(.usage, "\(file.path): there is no projector in this file", remedies: [.encoderStage])
    }
    let planned = try plan(medium)
    let arena = try Arena(planned.arena)
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: threads))
    let engine = try Modality.Engine(modality, planned.regions, reader: DirectReader(file), in: arena, compute)
    if stage == .projector { file.advise(file.range(ofModule: kind.projectorModule), .soon) }
    let rows = Rows(planned.rows, width: modality.width, in: arena)
    let units = try units()
    let width = stage == .encoder ? modality.encoder.featureWidth : modality.width
    var all = 0
    for run in layout.runs { all += run.count * (try rowCount(of: run.shape)) }
    try begin([all, width])
    var shouldContinue = true
    let isFinished = try engine.encode(
      units,
      while: { unit in
        progress(.encode(kind, unit: unit, of: layout.count))
        return shouldContinue
      }
    ) { (unit, shape, features) throws(SquintError) in
      guard shouldContinue else { return }
      var part = features
      if stage == .projector {
        _ = try engine.project(features, of: shape, into: rows)
        part = rows
      }
      let count = try rowCount(of: shape) * width
      shouldContinue = try visit(unit, layout.count, UnsafeBufferPointer(start: part.data, count: count))
    }
    withExtendedLifetime(arena) { _ = isFinished }
  }

  /// The rows that a unit gives at the stage that is wanted.
  private func rowCount(of shape: [Int]) throws(SquintError) -> Int {
    stage == .encoder ? try modality.encoder.rows(of: shape) : try modality.rows(of: shape)
  }

  private struct Plan {
    let arena: ArenaPlan
    let regions: Modality.Regions
    /// What the projector makes of a unit.
    let rows: Region<Float>
    /// All that is held in memory.
    let byteCount: Int
  }

  /// The buffers for `medium`, where the encoder's weights that do not fit are read again for each unit.
  private func plan(_ medium: Medium) throws(SquintError) -> Plan {
    let (kind, layout) = (modality.kind, medium.size.cost.layout)
    let machine = Machine()
    func plan(_ residency: Residency) throws(SquintError) -> Plan {
      var arena = ArenaPlan()
      let regions = try Modality.Regions(
        modality, residency, layouts: [layout], units: 1, threads: threads, in: &arena)
      var most = 0
      for run in layout.runs { most = max(most, try modality.rows(of: run.shape)) }
      let rows: Region<Float> = try arena.reserve(
        "projected rows", count: most * modality.width, phases: [.encode, .prefill])
      let weights =
        residency.byteCount(of: file.range(ofModule: kind.encoderModule))
        + file.range(ofModule: kind.projectorModule).count
      let stacks = (threads - 1) * Workers.stackBytes + (residency.streamsNothing ? 0 : WeightStream.stackBytes)
      return Plan(
        arena: arena, regions: regions, rows: rows,
        byteCount: machine.processBytes + Machine.growthBytes([kind]) + stacks + weights + arena.byteCount
          + medium.size.decodingBytes + medium.size.heldBytes)
    }
    let budget = memory ?? machine.availableBytes
    let units = modality.encoder.streamUnits
    var found = try plan(Residency(keeping: units))
    if found.byteCount > budget {
      found = try plan(Residency(units: units, keepingAtMost: 0))
      let spare = budget - found.byteCount
      if spare > 0 { found = try plan(Residency(units: units, keepingAtMost: spare)) }
    }
    guard found.byteCount <= budget else {
      throw SquintError(
        .doesNotFit,
        "\(medium.path): looking at it takes \(grouped(found.byteCount)) bytes, and \(grouped(budget)) are "
          + (memory == nil ? "free" : "allowed"),
        needed: found.byteCount, available: budget,
        remedies: memory == nil ? [.closePrograms, .smallerModel] : [.memory(found.byteCount)])
    }
    return found
  }
}
