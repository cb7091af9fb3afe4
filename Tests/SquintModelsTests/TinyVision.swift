import Foundation
import SquintCompute
import SquintConversion
import SquintFile
import SquintModels

/// What a tiny encoder and its projector are like; every setting of formats/vision.md.
struct VisionSettings {
  var layers = 2
  var width = 24
  var ffnWidth = 40
  var heads = 3
  var patch = 4
  var grid = 3
  var positions = PositionRule.fixed
  var normEpsilon = 1e-5
  var activation = Activation.gelu
  var featureLayers: [Int]?
  var hasClass = false
  var dropsClass = false
  var preNorm = false
  var norm = true
  var biases = true
  var shuffle = 1
  /// Between the projector's layers.
  var projectorWidths: [Int] = [20]
  var projectorActivation = Activation.gelu
  var projectorNorm = false
  var decoderWidth = 16

  var featureBlocks: Int { featureLayers?.count ?? 1 }
  var hasClassRow: Bool { hasClass && !dropsClass }
  var allProjectorWidths: [Int] {
    [shuffle * shuffle * featureBlocks * width] + projectorWidths + [decoderWidth]
  }
}

/// An encoder and a projector with random weights.
struct TinyVision {
  struct Tensor {
    let name: String
    let shape: [Int]
    var values: [Float]
    /// Norms, biases, class and positions are f32 in every file.
    let isMatrix: Bool
  }

  let settings: VisionSettings
  var encoder: [Tensor] = []
  var projector: [Tensor] = []
  var metadata = Metadata()

  init(_ settings: VisionSettings, seed: UInt64 = 1) {
    self.settings = settings
    let s = settings
    var random = Random(seed)
    func matrix(_ name: String, _ rows: Int, _ columns: Int) -> [Tensor] {
      let scale = 1 / Float(columns).squareRoot()
      var tensors = [
        Tensor(
          name: name, shape: [rows, columns], values: random.normals(rows * columns).map { $0 * scale }, isMatrix: true)
      ]
      if s.biases {
        tensors.append(
          Tensor(name: name + ".bias", shape: [rows], values: random.normals(rows).map { $0 / 4 }, isMatrix: false))
      }
      return tensors
    }
    func norm(_ name: String, _ width: Int) -> [Tensor] {
      [
        Tensor(name: name, shape: [width], values: random.normals(width).map { 1 + $0 / 4 }, isMatrix: false),
        Tensor(name: name + ".bias", shape: [width], values: random.normals(width).map { $0 / 4 }, isMatrix: false),
      ]
    }
    let e = "encoder.image"
    encoder += matrix("\(e).patch", s.width, 3 * s.patch * s.patch)
    if s.hasClass {
      encoder.append(Tensor(name: "\(e).class", shape: [s.width], values: random.normals(s.width), isMatrix: false))
    }
    let positions = s.grid * s.grid + (s.hasClass ? 1 : 0)
    encoder.append(
      Tensor(
        name: "\(e).positions", shape: [positions, s.width], values: random.normals(positions * s.width),
        isMatrix: false))
    if s.preNorm { encoder += norm("\(e).pre_norm", s.width) }
    for layer in 0..<s.layers {
      encoder += norm("\(e).\(layer).attention.norm", s.width)
      for name in ["q", "k", "v", "o"] { encoder += matrix("\(e).\(layer).attention.\(name)", s.width, s.width) }
      encoder += norm("\(e).\(layer).ffn.norm", s.width)
      encoder += matrix("\(e).\(layer).ffn.up", s.ffnWidth, s.width)
      encoder += matrix("\(e).\(layer).ffn.down", s.width, s.ffnWidth)
    }
    if s.norm { encoder += norm("\(e).norm", s.width) }
    let widths = s.allProjectorWidths
    if s.projectorNorm { projector += norm("projector.image.norm", widths[0]) }
    for layer in 0..<widths.count - 1 {
      projector += matrix("projector.image.\(layer)", widths[layer + 1], widths[layer])
    }

    metadata["\(e).architecture"] = .string("siglip")
    metadata["\(e).layers"] = .int(Int64(s.layers))
    metadata["\(e).width"] = .int(Int64(s.width))
    metadata["\(e).ffn_width"] = .int(Int64(s.ffnWidth))
    metadata["\(e).heads"] = .int(Int64(s.heads))
    metadata["\(e).patch"] = .int(Int64(s.patch))
    metadata["\(e).grid"] = .int(Int64(s.grid))
    metadata["\(e).positions"] = .string(s.positions.rawValue)
    metadata["\(e).norm_epsilon"] = .float(s.normEpsilon)
    metadata["\(e).activation"] = .string(s.activation.rawValue)
    if let layers = s.featureLayers { metadata["\(e).feature_layers"] = .ints(layers.map { Int64($0) }) }
    if s.dropsClass { metadata["\(e).drops_class"] = .bool(true) }
    metadata["projector.image.widths"] = .ints(widths.map { Int64($0) })
    if s.shuffle > 1 { metadata["projector.image.shuffle"] = .int(Int64(s.shuffle)) }
    if widths.count > 2 { metadata["projector.image.activation"] = .string(s.projectorActivation.rawValue) }
    if s.projectorNorm { metadata["projector.image.norm_epsilon"] = .float(s.normEpsilon) }
  }

  /// The numbers of a tensor, in double precision; nil where it is absent.
  func values(_ name: String) -> [Double]? {
    (encoder + projector).first { $0.name == name }?.values.map { Double($0) }
  }

  /// Writes the model with matrices of `type`, and opens it. The mapping outlives the file.
  func open(_ type: ElementType = .f32) throws -> ModelFile {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)").path
    defer { unlink(path) }
    func entry(_ tensor: Tensor) -> ModelFilePlan.Tensor {
      ModelFilePlan.Tensor(name: tensor.name, type: tensor.isMatrix ? type : .f32, shape: tensor.shape)
    }
    var plan = ModelFilePlan()
    plan.metadata = metadata
    plan.modules = [
      .init(name: "encoder.image", tensors: encoder.map(entry)),
      .init(name: "projector.image", tensors: projector.map(entry)),
    ]
    let writer = try ModelFileWriter(path: path, plan: plan)
    for (index, tensor) in (encoder + projector).enumerated() {
      let bytes = tensor.isMatrix && type.isQuantized ? try Self.quantized(tensor, type) : Self.bytes(tensor.values)
      try bytes.withUnsafeBytes { try writer.append($0, toTensor: index) }
    }
    try writer.finish()
    return try ModelFile(path: path)
  }

  private static func bytes(_ values: [Float]) -> [UInt8] { values.withUnsafeBytes { [UInt8]($0) } }

  private static func quantized(_ tensor: Tensor, _ type: ElementType) throws -> [UInt8] {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1])
    let layout = PanelLayout(type: type, rows: rows, columns: columns)!
    var bytes = [UInt8](repeating: 0, count: layout.byteCount)
    try tensor.values.withUnsafeBufferPointer { weights in
      try bytes.withUnsafeMutableBytes { bytes in
        for panel in 0..<layout.panels {
          let first = panel * PanelLayout.rowsPerPanel
          try quantizePanel(
            weights: UnsafeBufferPointer(rebasing: weights[(first * columns)...]),
            rowsUsed: min(PanelLayout.rowsPerPanel, rows - first), layout: layout, importance: nil,
            into: UnsafeMutableRawBufferPointer(rebasing: bytes[(panel * layout.panelBytes)...]))
        }
      }
    }
    return bytes
  }
}

/// An image's pixels and what they mean.
struct Tile {
  let height: Int
  let width: Int
  let pixels: [UInt8]
  let levels: [Float]
  let shape: [Int]

  init(height: Int, width: Int, seed: UInt64 = 7) {
    self.height = height
    self.width = width
    shape = [height, width]
    var random = Random(seed)
    pixels = (0..<height * width * 3).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    // Another mean and deviation for each channel.
    levels = (0..<3 * 256).map {
      let (channel, level) = (Float($0 / 256), Float($0 % 256))
      return (level / 255 - 0.4 - 0.1 * channel) / (0.2 + 0.05 * channel)
    }
  }
}

/// An encoder and a projector in an arena of their own.
struct VisionRun {
  let encoder: any Encoder
  private let model: LayeredEncoderModel<ViT>
  let projector: MLP
  let features: Rows
  let rows: Rows
  let featureRows: Int
  let tokens: Int
  let tile: Tile
  private let grid: FeatureGrid
  private let arena: Arena

  init(_ file: ModelFile, _ settings: VisionSettings, _ tile: Tile, threads: Int = 1) throws {
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: threads))
    model = try LayeredEncoderModel<ViT>(
      file, ViTBlueprint(file, module: "encoder.image"), levels: tile.levels)
    let projection = try MLP.Configuration(
      file, name: "projector.image", encoderWidth: model.featureWidth, hasClassRow: model.hasClassRow,
      decoderWidth: settings.decoderWidth)
    let shape = [tile.height, tile.width]
    grid = try model.grid(of: shape)
    featureRows = try model.rows(of: shape)
    tokens = try projection.rows(gridRows: grid.rows, gridColumns: grid.columns)
    var plan = ArenaPlan()
    let makeEncoder = try model.reserve(
      Residency(keeping: model.streamUnits), shapes: [shape], units: 1, threads: threads, in: &plan)
    let projectorRegions = try MLP.Regions(projection, rows: tokens, in: &plan)
    let features = try plan.reserve(
      "features", Float.self, count: featureRows * model.featureWidth, phases: .encode)
    let rows = try plan.reserve("rows", Float.self, count: tokens * settings.decoderWidth, phases: .encode)
    arena = try Arena(plan)
    encoder = try makeEncoder(DirectReader(file), arena, compute)
    projector = MLP(projection, try MLP.Weights(file, projection), projectorRegions, in: arena, compute)
    self.features = Rows(features, width: model.featureWidth, in: arena)
    self.rows = Rows(rows, width: settings.decoderWidth, in: arena)
    self.tile = tile
  }

  func run() throws {
    try encode(tile)
    projector.project(features, gridRows: grid.rows, gridColumns: grid.columns, into: rows)
  }

  /// Writes what the encoder makes of `tile` to `features`.
  func encode(_ tile: Tile) throws {
    try tile.pixels.withElements { (pixels) throws(SquintError) in
      _ = try encoder.encode(
        pixels.baseAddress!, count: 1, shape: tile.shape, while: { true }
      ) { (_, found) throws(SquintError) in
        let rows = try model.rows(of: tile.shape)
        features.data.update(from: found.data, count: rows * features.width)
      }
    }
  }

  /// The features and the decoder's rows, after a run.
  func outputs() throws -> (features: [Float], rows: [Float]) {
    try run()
    return (
      Array(UnsafeBufferPointer(start: features.data, count: featureRows * features.width)),
      Array(UnsafeBufferPointer(start: rows.data, count: tokens * rows.width))
    )
  }
}

/// SplitMix64 (Steele, Lea & Flood 2014): the same numbers in every run.
struct Random: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  /// Roughly normal, of standard deviation 1.
  mutating func normals(_ count: Int) -> [Float] {
    (0..<count).map { _ in
      (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -0.866...0.866, using: &self) }
    }
  }
}
