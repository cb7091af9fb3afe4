import AllocationCounter
import SquintCompute
import SquintFile
import SquintModels
import Testing

/// Every setting of the encoder and the projector, and the tile that it is tried with.
private let settings: [(name: String, settings: VisionSettings, height: Int, width: Int)] = {
  var list: [(name: String, settings: VisionSettings, height: Int, width: Int)] = []
  func add(_ name: String, _ height: Int = 12, _ width: Int = 12, _ change: (inout VisionSettings) -> Void) {
    var settings = VisionSettings()
    change(&settings)
    list.append((name, settings, height, width))
  }
  add("plain") { _ in }
  add("no biases") { $0.biases = false }
  add("no norm") { $0.norm = false }
  add("class") { $0.hasClass = true }
  add("class dropped") {
    $0.hasClass = true
    $0.dropsClass = true
  }
  add("pre-norm") {
    $0.hasClass = true
    $0.preNorm = true
    $0.norm = false
    $0.activation = .quickGELU
  }
  for activation in Activation.allCases {
    add("activation \(activation.rawValue)") {
      $0.activation = activation
      $0.projectorActivation = activation
    }
  }
  add("feature layers") { $0.featureLayers = [0, 1, 2] }
  add("one inner feature layer, without a norm") {
    $0.featureLayers = [1]
    $0.hasClass = true
    $0.dropsClass = true
    $0.norm = false
  }
  add("no layers") { $0.layers = 0 }
  add("bicubic, its own grid") { $0.positions = .bicubic }
  add("bicubic, larger", 20, 28) {
    $0.positions = .bicubic
    $0.hasClass = true
  }
  add("bicubic, smaller", 8, 4) { $0.positions = .bicubic }
  add("bicubic, one side the same", 12, 20) { $0.positions = .bicubic }
  add("buckets, its own grid") { $0.positions = .buckets }
  add("buckets, larger", 16, 28) { $0.positions = .buckets }
  add("buckets, smaller", 8, 4) { $0.positions = .buckets }
  add("pixels left at the right and the bottom", 14, 15) { $0.positions = .bicubic }
  add("shuffle", 16, 24) {
    $0.positions = .bicubic
    $0.shuffle = 2
    $0.projectorWidths = []
  }
  add("shuffle of three with norm") {
    $0.shuffle = 3
    $0.projectorNorm = true
    $0.featureLayers = [1, 2]
  }
  add("projector's norm") { $0.projectorNorm = true }
  add("three projector layers, norm, class") {
    $0.projectorWidths = [36, 28]
    $0.projectorNorm = true
    $0.hasClass = true
  }
  add("one projector layer") { $0.projectorWidths = [] }
  // More rows than go through the wide buffers at a time, and the class token shifts them.
  add("several chunks", 72, 76) {
    $0.positions = .bicubic
    $0.hasClass = true
    $0.layers = 1
    $0.width = 16
    $0.heads = 2
  }
  return list
}()

@Suite struct VisionTransformerTests {
  @Test(arguments: settings.indices)
  func equalsReference(_ index: Int) throws {
    let (name, settings, height, width) = settings[index]
    let model = TinyVision(settings, seed: UInt64(index))
    let tile = Tile(height: height, width: width)
    let reference = VisionReference(model: model)
    let features = reference.features(tile)
    let rows = reference.rows(
      features, gridRows: height / settings.patch, gridColumns: width / settings.patch)
    let run = try VisionRun(model.open(), settings, tile, threads: 2)
    let found = try run.outputs()
    #expect(run.featureRows == features.count, "\(name)")
    #expect(run.tokens == rows.count, "\(name)")
    #expect(difference(found.features, features) < 1e-5, "\(name): features")
    #expect(difference(found.rows, rows) < 1e-5, "\(name): rows")
  }

  /// The same to the last bit however the work is divided.
  @Test(arguments: [ElementType.f32, .int8, .int4])
  func threadsDoNotChangeTheResult(_ type: ElementType) throws {
    var settings = VisionSettings()
    settings.positions = .bicubic
    settings.hasClass = true
    settings.dropsClass = true
    settings.shuffle = 2
    let file = try TinyVision(settings).open(type)
    let tile = Tile(height: 72, width: 80)
    let expected = try VisionRun(file, settings, tile).outputs()
    for threads in [2, 3, 5] {
      let found = try VisionRun(file, settings, tile, threads: threads).outputs()
      #expect(found.features == expected.features, "\(threads) threads")
      #expect(found.rows == expected.rows, "\(threads) threads")
    }
  }

  /// A tile leaves nothing behind that the next one, of another grid, would see.
  @Test func tilesAreIndependent() throws {
    var settings = VisionSettings()
    settings.positions = .bicubic
    let file = try TinyVision(settings).open()
    let (small, large) = (Tile(height: 8, width: 16), Tile(height: 40, width: 20, seed: 9))
    let expected = try VisionRun(file, settings, small).outputs().features
    let run = try VisionRun(file, settings, large)
    try run.run()
    try run.encode(small)
    #expect(Array(UnsafeBufferPointer(start: run.features.data, count: expected.count)) == expected)
  }

  /// Weights, activations, keys and values of 8 bits change the direction of what comes out by less than 2.6 degrees: also
  /// where heads and positions fill no group, and the rows are stored in several chunks.
  @Test(arguments: [(64, 8, 8), (80, 17, 19), (40, 9, 7), (72, 1, 1)])
  func int8IsClose(headWidth: Int, gridRows: Int, gridColumns: Int) throws {
    var settings = VisionSettings()
    settings.width = 2 * headWidth
    settings.heads = 2
    settings.ffnWidth = 8 * headWidth
    settings.layers = 4
    settings.patch = 8
    settings.grid = 8
    settings.positions = .bicubic
    settings.hasClass = true
    settings.activation = .geluTanh
    settings.decoderWidth = 96
    let model = TinyVision(settings)
    let tile = Tile(height: 8 * gridRows, width: 8 * gridColumns)
    let exact = try VisionRun(model.open(), settings, tile).outputs()
    let found = try VisionRun(model.open(.int8), settings, tile).outputs()
    #expect(cosine(found.features, exact.features) >= 0.999)
    #expect(cosine(found.rows, exact.rows) >= 0.999)
    for row in 0..<gridRows * gridColumns {
      let part = row * settings.width..<(row + 1) * settings.width
      #expect(cosine(Array(found.features[part]), Array(exact.features[part])) >= 0.999, "row \(row)")
    }
    // It does something.
    #expect(found.rows != exact.rows)
  }

  @Test(
    .enabled(if: squint_counts_allocations(), "this allocator cannot be counted"), arguments: [ElementType.f32, .int8])
  func encodingAllocatesNothing(_ type: ElementType) throws {
    var settings = VisionSettings()
    settings.positions = .bicubic
    settings.featureLayers = [1, 2]
    settings.shuffle = 2
    settings.projectorWidths = [20, 20]
    settings.projectorNorm = true
    let file = try TinyVision(settings).open(type)
    for threads in [1, 2] {
      let run = try VisionRun(file, settings, Tile(height: 72, width: 72), threads: threads)
      try run.run()
      let before = squint_allocations()
      try run.run()
      #expect(squint_allocations() - before == 0, "\(type.name), \(threads) threads")
    }
  }

  /// The planner is told what a tile gives, and no tile is taken that cannot be encoded.
  @Test func gridsAreChecked() throws {
    var settings = VisionSettings()
    settings.hasClass = true
    var c = try model(TinyVision(settings).open())
    #expect(try c.grid(of: [12, 15]) == FeatureGrid(rows: 3, columns: 3))
    #expect(try c.rows(of: [12, 12]) == 10)
    let other = caught { _ = try c.grid(of: [12, 16]) }
    #expect(
      other
        == SquintError(
          .badData,
          "encoder.image: a tile of 12 × 16 pixels has 3 × 4 patches, and the positions are for 3 × 3; it needs 12 × 12 "
            + "pixels"))
    settings.positions = .buckets
    settings.dropsClass = true
    c = try model(TinyVision(settings).open())
    #expect(try c.rows(of: [12, 16]) == 12)
    let small = caught { _ = try c.grid(of: [12, 3]) }
    #expect(
      small
        == SquintError(
          .badData, "encoder.image: a tile of 12 × 3 pixels is smaller than a patch; it needs 4 × 4 at least"))
  }

  /// Impossible values are refused, and the error names the key.
  @Test(arguments: [
    ("layers", MetadataValue.int(-1)), ("layers", .int(5000)), ("width", .int(0)), ("width", .int(1 << 40)),
    ("ffn_width", .int(0)), ("heads", .int(0)), ("heads", .int(5)), ("heads", .int(25)), ("patch", .int(0)),
    ("patch", .int(1 << 30)), ("grid", .int(0)), ("grid", .int(.max)), ("positions", .string("rotary")),
    ("norm_epsilon", .float(-1)), ("norm_epsilon", .float(.nan)), ("norm_epsilon", .float(1e300)),
    ("activation", .string("swish")), ("activation", .int(1)), ("feature_layers", .ints([3])),
    ("feature_layers", .ints([-1])), ("feature_layers", .ints([2, 1])), ("feature_layers", .ints([1, 1])),
    ("drops_class", .int(1)), ("architecture", .int(1)),
  ])
  func impossibleConfigurationsAreRefused(_ key: String, _ value: MetadataValue) throws {
    var model = TinyVision(VisionSettings())
    model.metadata["encoder.image.\(key)"] = value
    let file = try model.open()
    let error = caught { _ = try ViTBlueprint(file, module: "encoder.image") }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("encoder.image.\(key)") == true, "\(error?.message ?? "accepted")")
  }

  @Test func missingKeysAreNamed() throws {
    for key in [
      "architecture", "layers", "width", "ffn_width", "heads", "patch", "grid", "positions", "norm_epsilon",
      "activation",
    ] {
      var model = TinyVision(VisionSettings())
      model.metadata["encoder.image.\(key)"] = nil
      let file = try model.open()
      let error = caught { _ = try ViTBlueprint(file, module: "encoder.image") }
      #expect(error?.message.contains("encoder.image.\(key)") == true, "\(key)")
    }
  }

  /// A tensor that is missing or of another shape is named; an optional one may be missing.
  @Test func tensorsAreChecked() throws {
    var settings = VisionSettings()
    settings.hasClass = true
    settings.preNorm = true
    let whole = TinyVision(settings)
    for tensor in whole.encoder {
      let isOptional =
        tensor.name.hasSuffix(".bias") && !tensor.name.contains("norm")
        || ["class"].contains { tensor.name.hasSuffix($0) }
      var model = whole
      model.encoder.removeAll { $0.name == tensor.name }
      let error = try load(model)
      if tensor.name.hasSuffix(".class") {
        // Without it there is one position too many.
        #expect(error?.message.contains("encoder.image.positions") == true)
      } else if isOptional || ["encoder.image.pre_norm", "encoder.image.norm"].contains(tensor.name) {
        #expect(error == nil, "\(tensor.name)")
      } else {
        #expect(error?.kind == .badData)
        #expect(error?.message.contains("tensor \(tensor.name) is missing") == true, "\(tensor.name)")
      }
      model = whole
      let index = model.encoder.firstIndex { $0.name == tensor.name }!
      model.encoder[index] = TinyVision.Tensor(
        name: tensor.name, shape: [tensor.values.count + 1] + tensor.shape.dropFirst().map { _ in 1 },
        values: tensor.values + [0], isMatrix: tensor.isMatrix)
      #expect(try load(model)?.message.contains("tensor \(tensor.name) has shape") == true, "\(tensor.name)")
    }
  }

  private func load(_ model: TinyVision) throws -> SquintError? {
    let file = try model.open()
    return caught { _ = try self.model(file) }
  }

  private func model(_ file: ModelFile) throws(SquintError) -> LayeredEncoderModel<ViT> {
    try LayeredEncoderModel<ViT>(file, ViTBlueprint(file, module: "encoder.image"), levels: [])
  }
}

/// The largest difference, relative to numbers above 1.
func difference(_ found: [Float], _ expected: [[Double]]) -> Double {
  let flat = expected.flatMap { $0 }
  guard found.count == flat.count else { return .infinity }
  return zip(found, flat).reduce(0) { worst, pair in
    let difference = abs(Double(pair.0) - pair.1) / max(1, abs(pair.1))
    return difference <= worst ? worst : difference.isNaN ? .infinity : difference
  }
}

func cosine(_ a: [Float], _ b: [Float]) -> Double {
  var (ab, aa, bb) = (0.0, 0.0, 0.0)
  for (x, y) in zip(a, b) {
    ab += Double(x) * Double(y)
    aa += Double(x) * Double(x)
    bb += Double(y) * Double(y)
  }
  return ab / (aa * bb).squareRoot()
}

/// The error that `body` throws, or nil.
func caught(_ body: () throws -> Void) -> SquintError? {
  do {
    try body()
    return nil
  } catch { return error as? SquintError }
}
