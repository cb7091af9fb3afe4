import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// How a model sees (formats/vision.md): what is done to a picture, its encoder, and the projector onto the decoder's width.
///
/// Made when the file is opened; no weight is touched before a picture is encoded.
struct Vision: Sendable {
  let processor: PictureProcessor
  let encoder: VisionTransformer.Configuration
  let encoderWeights: VisionTransformer.Weights
  /// nil where it is not wanted, or a file has an encoder only, which `squint embed` can use.
  let projector: Projector.Configuration?
  let projectorWeights: Projector.Weights?

  static let modules = (encoder: "encoder.image", projector: "projector.image")

  /// The part of `file` that sees; nil where it has none.
  ///
  /// - Parameters:
  ///   - decoderWidth: the width that the projector must give; nil where there is no decoder.
  ///   - projects: whether the projector is wanted.
  ///   - side: takes the place of the side of the picture that the checkpoint says.
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
    let processor = try PictureProcessor(file.metadata)
    self.processor = try side.map { (side) throws(SquintError) in try processor.resizing(toSide: side) } ?? processor
    encoder = try VisionTransformer.Configuration(file, name: Self.modules.encoder)
    encoderWeights = try VisionTransformer.Weights(file, encoder)
    guard projects, file.module(Self.modules.projector) != nil else {
      guard decoderWidth == nil || !projects else {
        throw SquintError(.badData, "there is an encoder and no projector in this file; convert the model again")
      }
      projector = nil
      projectorWeights = nil
      return
    }
    let configuration = try Projector.Configuration(
      file, name: Self.modules.projector, encoderWidth: encoder.featureWidth, hasClassRow: encoder.hasClassRow,
      decoderWidth: decoderWidth)
    projectorWeights = try Projector.Weights(file, configuration)
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
    let encoder: VisionTransformer.Regions
    let projector: Projector.Regions?
    let features: Region<Float>
    let rows: Region<Float>
    let rowCapacity: Int

    /// Reserves the buffers for tiles of `layouts`, and for `rowCapacity` projected rows, which live until the prompt has been
    /// computed.
    init(
      _ vision: Vision, layouts: [TileLayout], rowCapacity: Int, threads: Int, in plan: inout ArenaPlan
    ) throws(SquintError) {
      var (patches, featureRows, projectedRows) = (1, 1, 1)
      for layout in layouts {
        patches = max(patches, try vision.encoder.grid(height: layout.height, width: layout.width).count)
        featureRows = max(featureRows, try vision.featureRows(layout))
        projectedRows = max(projectedRows, try vision.projectedRows(layout).count)
      }
      encoder = try VisionTransformer.Regions(vision.encoder, patches: patches, threads: threads, in: &plan)
      projector = try vision.projector.map { (configuration) throws(SquintError) in
        try Projector.Regions(configuration, rows: projectedRows, in: &plan)
      }
      features = try plan.reserve(
        "features of a tile", count: featureRows * vision.encoder.featureWidth, phases: .encode)
      let width = vision.projector?.outputWidth ?? vision.encoder.featureWidth
      self.rowCapacity = rowCapacity
      rows = try plan.reserve("projected rows", count: rowCapacity * width, phases: [.encode, .prefill])
    }
  }

  /// The encoder and the projector with their buffers.
  struct Engine {
    private let vision: Vision
    private let encoder: VisionTransformer
    private let projector: Projector?
    private let levels: [Float]
    let features: Rows
    /// [capacity, width]: what the decoder takes.
    let rows: Rows
    let rowCapacity: Int

    init(_ vision: Vision, _ regions: Regions, in arena: Arena, _ compute: Compute) {
      self.vision = vision
      encoder = VisionTransformer(vision.encoder, vision.encoderWeights, regions.encoder, in: arena, compute)
      if let configuration = vision.projector, let weights = vision.projectorWeights, let own = regions.projector {
        projector = Projector(configuration, weights, own, in: arena, compute)
      } else {
        projector = nil
      }
      levels = vision.processor.levels
      features = Rows(regions.features, width: vision.encoder.featureWidth, in: arena)
      rows = Rows(regions.rows, width: vision.projector?.outputWidth ?? vision.encoder.featureWidth, in: arena)
      rowCapacity = regions.rowCapacity
    }

    /// Computes the features of tile `tile` of `picture` into `features`.
    func encode(_ picture: TiledPicture, tile: Int) {
      let layout = picture.layout
      let tileBytes = layout.byteCount / layout.count
      picture.pixels.withUnsafeBufferPointer { pixels in
        levels.withUnsafeBufferPointer { levels in
          encoder.encode(
            pixels: pixels.baseAddress! + tile * tileBytes, height: layout.height, width: layout.width,
            levels: levels.baseAddress!, into: features)
        }
      }
    }

    /// Projects `features` into `rows` from row `first` on.
    func project(_ layout: TileLayout, first: Int) throws(SquintError) {
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
