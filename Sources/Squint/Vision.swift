import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// How a model sees (formats/vision.md): what is done to an image, its encoder, and the projector onto the decoder's width.
///
/// Made when the file is opened; no weight is touched before an image is encoded.
struct Vision: Sendable {
  let processor: ImageProcessor
  let encoder: ViT.Configuration
  let encoderWeights: ViT.Weights
  /// nil where it is not wanted, or a file has an encoder only, which `squint embed` can use.
  let projector: MLP.Configuration?
  let projectorWeights: MLP.Weights?

  static let modules = (encoder: "encoder.image", projector: "projector.image")

  /// The part of `file` that sees; nil where it has none.
  ///
  /// - Parameters:
  ///   - decoderWidth: the width that the projector must give; nil where there is no decoder.
  ///   - projects: whether the projector is wanted.
  ///   - side: takes the place of the side of the image that the checkpoint says.
  /// - Throws: `badData` naming what is missing or impossible.
  init?(
    _ file: ModelFile, decoderWidth: Int?, projects: Bool = true, side: Int? = nil
  ) throws(SquintError) {
    guard file.module(Self.modules.encoder) != nil else {
      guard file.module(Self.modules.projector) == nil else {
        throw SquintError(.badData, "there is a projector and no encoder in this file; convert the model again")
      }
      return nil
    }
    let processor = try ImageProcessor(file.metadata)
    self.processor = try side.map { (side) throws(SquintError) in try processor.resizing(toSide: side) } ?? processor
    encoder = try ViT.Configuration(file, name: Self.modules.encoder)
    encoderWeights = try ViT.Weights(file, encoder)
    guard projects, file.module(Self.modules.projector) != nil else {
      guard decoderWidth == nil || !projects else {
        throw SquintError(.badData, "there is an encoder and no projector in this file; convert the model again")
      }
      projector = nil
      projectorWeights = nil
      return
    }
    let configuration = try MLP.Configuration(
      file, name: Self.modules.projector, encoderWidth: encoder.featureWidth, hasClassRow: encoder.hasClassRow,
      decoderWidth: decoderWidth)
    projectorWeights = try MLP.Weights(file, configuration)
    projector = configuration
  }

  /// The rows of features that a tile gives: [rows, featureWidth].
  func featureRows(_ layout: TileLayout) throws(SquintError) -> Int {
    try encoder.rows(height: layout.height, width: layout.width)
  }

  /// The rows that a tile gives behind the projector (or the encoder, where there is none), and their width.
  func projectedRows(_ layout: TileLayout) throws(SquintError) -> (count: Int, width: Int) {
    guard let projector else { return (try featureRows(layout), encoder.featureWidth) }
    let grid = try encoder.grid(height: layout.height, width: layout.width)
    return (try projector.rows(gridRows: grid.rows, gridColumns: grid.columns), projector.outputWidth)
  }
}

// MARK: State

extension Vision {
  /// Every buffer between the pixels and the decoder's rows.
  struct Regions: Sendable {
    let encoder: ViT.Regions
    let projector: MLP.Regions?
    let rows: Region<Float>
    let rowCapacity: Int

    /// Reserves the buffers for tiles of `layouts`, `tiles` at a time, and for `rowCapacity` projected rows, which live until
    /// the prompt has been computed. Of the encoder's parts, those of `residency` stay in memory.
    init(
      _ vision: Vision, _ residency: Residency, layouts: [TileLayout], tiles: Int, rowCapacity: Int, threads: Int,
      in plan: inout ArenaPlan
    ) throws(SquintError) {
      var (patches, projectedRows) = (1, 1)
      for layout in layouts {
        patches = max(patches, try vision.encoder.grid(height: layout.height, width: layout.width).count)
        projectedRows = max(projectedRows, try vision.projectedRows(layout).count)
      }
      encoder = try ViT.Regions(
        vision.encoder, residency, patches: patches, tiles: tiles, threads: threads, in: &plan)
      projector = try vision.projector.map { (configuration) throws(SquintError) in
        try MLP.Regions(configuration, rows: projectedRows, in: &plan)
      }
      let width = vision.projector?.outputWidth ?? vision.encoder.featureWidth
      self.rowCapacity = rowCapacity
      rows = try plan.reserve("projected rows", count: rowCapacity * width, phases: [.encode, .prefill])
    }
  }

  /// The encoder and the projector with their buffers.
  struct Engine {
    private let vision: Vision
    private let encoder: ViT
    private let projector: MLP?
    private let levels: [Float]
    /// [capacity, width]: what the decoder takes.
    let rows: Rows
    let rowCapacity: Int

    init(
      _ vision: Vision, _ regions: Regions, reader: DirectReader, in arena: Arena, _ compute: Compute
    ) throws(SquintError) {
      self.vision = vision
      encoder = try ViT(
        vision.encoder, vision.encoderWeights, regions.encoder, reader: reader, in: arena, compute)
      if let configuration = vision.projector, let weights = vision.projectorWeights, let own = regions.projector {
        projector = MLP(configuration, weights, own, in: arena, compute)
      } else {
        projector = nil
      }
      levels = vision.processor.levels
      rows = Rows(regions.rows, width: vision.projector?.outputWidth ?? vision.encoder.featureWidth, in: arena)
      rowCapacity = regions.rowCapacity
    }

    /// The tiles that go through the encoder together.
    var tilesAtATime: Int { encoder.tiles }

    /// What has been read of the encoder's weights beside those that stay in memory, in bytes.
    var bytesRead: Int { encoder.stream.bytesRead }

    /// The encoder's weights leave memory until the next image; the page cache, too, where `uncached`.
    func evict(uncached: Bool) { encoder.stream.evict(uncached: uncached) }

    /// Computes the features of the tiles `tiles` of `image`, at most `tilesAtATime`.
    ///
    /// - Parameters:
    ///   - shouldContinue: asked before each layer.
    ///   - visit: called with each tile in turn and its features, which are valid until it returns.
    /// - Returns: whether it was finished.
    func encode(
      _ image: TiledImage, tiles: Range<Int>, while shouldContinue: () -> Bool = { true },
      visit: (_ tile: Int, _ features: Rows) throws(SquintError) -> Void
    ) throws(SquintError) -> Bool {
      let layout = image.layout
      let tileBytes = layout.byteCount / layout.count
      return try image.pixels.withElements { (pixels) throws(SquintError) in
        try levels.withElements { (levels) throws(SquintError) in
          try encoder.encode(
            pixels: pixels.baseAddress! + tiles.lowerBound * tileBytes, count: tiles.count, height: layout.height,
            width: layout.width, levels: levels.baseAddress!, while: shouldContinue
          ) { (tile, features) throws(SquintError) in try visit(tiles.lowerBound + tile, features) }
        }
      }
    }

    /// Projects the features of a tile into `rows` from row `first` on.
    func project(_ features: Rows, _ layout: TileLayout, first: Int) throws(SquintError) {
      let target = Rows(data: rows[first], width: rows.width)
      let grid = try vision.encoder.grid(height: layout.height, width: layout.width)
      guard let projector else {
        target.data.update(from: features.data, count: try vision.featureRows(layout) * features.width)
        return
      }
      projector.project(features, gridRows: grid.rows, gridColumns: grid.columns, into: target)
    }
  }
}
