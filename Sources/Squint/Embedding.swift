import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// Looks at images without a decoder: what the encoder, or the projector, makes of them.
public final class Embedder {
  /// Where on its way to the decoder an image is taken.
  public enum Stage: String, CaseIterable, Sendable {
    /// The normalized numbers that the encoder takes: [tiles, 3, height, width].
    case pixels
    /// The encoder's features: [tiles · patches, width].
    case encoder
    /// The decoder's rows: [tiles · tokens, width].
    case projector
  }

  private let file: ModelFile
  private let vision: Vision
  private let stage: Stage
  private let threads: Int
  private let memory: Int?

  /// Opens the model at `path`, which needs no decoder, and for the stages `pixels` and `encoder` no projector.
  ///
  /// - Parameters:
  ///   - stage: what is wanted.
  ///   - side: the side in pixels that images are resized and cut to; nil: as the checkpoint says.
  ///   - memory: the bytes that the whole process may take; nil: what is free.
  /// - Throws: `noInput` where the file cannot be read, `badData` where it is not sound, `usage` where it has no encoder.
  public convenience init(
    path: String, stage: Stage, side: Int? = nil, threads: Int? = nil, memory: Int? = nil
  ) throws(SquintError) {
    try self.init(ModelFile(path: path), stage: stage, side: side, threads: threads, memory: memory)
  }

  /// The same of a model that is open.
  public init(
    _ file: ModelFile, stage: Stage, side: Int? = nil, threads: Int? = nil, memory: Int? = nil
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
        file.module("decoder") == nil ? nil : try TransformerDecoder.Configuration(file.metadata).width
      guard let vision = try Vision(file, decoderWidth: width, projects: stage == .projector, side: side) else {
        throw SquintError(.usage, "this model takes text alone; convert one with an encoder")
      }
      self.vision = vision
    } catch {
      throw error.naming(file.path)
    }
  }

  /// Computes what the image at `path` becomes.
  ///
  /// - Parameters:
  ///   - begin: called once with the shape of all that comes.
  ///   - progress: called now and then, with how far it is.
  ///   - visit: called with each tile's part in turn, as counted by `TileLayout`; returns whether to go on.
  /// - Throws: `noInput`, `badData` for the image; `doesNotFit` where the memory does not hold it.
  public func embed(
    _ path: String, begin: ([Int]) throws(SquintError) -> Void, progress: (SessionProgress) -> Void = { _ in },
    visit: (_ tile: Int, _ of: Int, UnsafeBufferPointer<Float>) throws(SquintError) -> Bool
  ) throws(SquintError) {
    let image = try Image(path: path, vision)
    let layout = image.size.layout
    func tiles() throws(SquintError) -> TiledImage {
      _ = try image.tiles(while: {
        progress(.decode(image: 0, of: 1))
        return true
      })
      return try image.tiles()
    }
    if stage == .pixels {
      let tiles = try tiles()
      try begin([layout.count, 3, layout.height, layout.width])
      for tile in 0..<layout.count {
        let planes = Self.planes(tiles, tile: tile, levels: vision.processor.levels)
        let shouldContinue = try planes.withElements { (planes) throws(SquintError) in try visit(tile, layout.count, planes) }
        guard shouldContinue else { return }
      }
      return
    }
    guard stage == .encoder || vision.projector != nil else {
      throw SquintError(.usage, "\(file.path): there is no projector in this file; --stage encoder")
    }
    let (plan, regions) = try self.plan(image)
    let arena = try Arena(plan)
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: threads))
    let engine = try Vision.Engine(vision, regions, reader: DirectReader(file), in: arena, compute)
    if stage == .projector { file.advise(file.range(ofModule: Vision.modules.projector), .soon) }
    let tiles = try tiles()
    let width = stage == .encoder ? vision.encoder.featureWidth : engine.rows.width
    let rows = stage == .encoder ? try vision.featureRows(layout) : regions.rowCapacity
    try begin([layout.count * rows, width])
    for tile in 0..<layout.count {
      var shouldContinue = true
      let isFinished = try engine.encode(
        tiles, tiles: tile..<tile + 1,
        while: {
          progress(.encode(tile: tile, of: layout.count))
          return true
        }
      ) { (tile, features) throws(SquintError) in
        var part = features
        if stage == .projector {
          try engine.project(features, layout, first: 0)
          part = engine.rows
        }
        shouldContinue = try visit(tile, layout.count, UnsafeBufferPointer(start: part.data, count: rows * width))
      }
      guard isFinished, shouldContinue else { return }
    }
    withExtendedLifetime(arena) {}
  }

  /// The buffers for `image`, where the encoder's weights that do not fit are read again for each tile.
  private func plan(_ image: Image) throws(SquintError) -> (ArenaPlan, Vision.Regions) {
    let layout = image.size.layout
    let parts = vision.encoderWeights.parts
    func plan(_ residency: Residency) throws(SquintError) -> (ArenaPlan, Vision.Regions, bytes: Int) {
      var plan = ArenaPlan()
      let regions = try Vision.Regions(
        vision, residency, layouts: [layout], tiles: 1, rowCapacity: try vision.projectedRows(layout).count,
        threads: threads, in: &plan)
      let weights =
        residency.byteCount(of: file.range(ofModule: Vision.modules.encoder))
        + file.range(ofModule: Vision.modules.projector).count
      let stacks = (threads - 1) * Workers.stackBytes + (residency.streamsNothing ? 0 : WeightStream.stackBytes)
      return (
        plan, regions,
        machine.processBytes + Machine.growthBytes + stacks + weights + plan.byteCount + image.size.decodingBytes
          + image.size.heldBytes
      )
    }
    let machine = Machine()
    let budget = memory ?? machine.availableBytes
    var found = try plan(Residency(keeping: parts))
    if found.bytes > budget {
      found = try plan(Residency(parts: parts, keepingAtMost: 0))
      let spare = budget - found.bytes
      if spare > 0 { found = try plan(Residency(parts: parts, keepingAtMost: spare)) }
    }
    guard found.bytes <= budget else {
      throw SquintError(
        .doesNotFit,
        "\(image.path): looking at it takes \(grouped(found.bytes)) bytes, and \(grouped(budget)) are "
          + (memory == nil
            ? "free; end other programs, or take a smaller model"
            : "allowed; --memory \((found.bytes >> 20) + 1)M would do"))
    }
    return (found.0, found.1)
  }

  /// The numbers [3, height, width] of one tile.
  private static func planes(_ image: TiledImage, tile: Int, levels: [Float]) -> [Float] {
    let plane = image.layout.height * image.layout.width
    return [Float](unsafeUninitializedCapacity: 3 * plane) { planes, count in
      for channel in 0..<3 {
        for pixel in 0..<plane {
          planes[channel * plane + pixel] =
            levels[channel * 256 + Int(image.pixels[(tile * plane + pixel) * 3 + channel])]
        }
      }
      count = 3 * plane
    }
  }
}
