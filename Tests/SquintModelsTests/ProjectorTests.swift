import SquintCompute
import SquintFile
import SquintModels
import Testing

/// What the projector refuses; what it computes is compared with the encoder's (VisionTransformerTests).
@Suite struct ProjectorTests {
  private func configuration(
    _ model: TinyVision, encoderWidth: Int? = nil, decoderWidth: Int? = nil
  ) throws -> MLP.Configuration {
    try MLP.Configuration(
      model.open(), name: "projector.image", encoderWidth: encoderWidth ?? model.settings.width,
      hasClassRow: model.settings.hasClassRow, decoderWidth: decoderWidth ?? model.settings.decoderWidth)
  }

  @Test func widthsMustFit() throws {
    var settings = VisionSettings()
    settings.shuffle = 2
    let model = TinyVision(settings)
    #expect(
      caught { _ = try configuration(model, encoderWidth: 30) }
        == SquintError(
          .badData,
          "metadata projector.image.widths begins with 96, and the encoder gives 120 numbers (2 × 2 patches of 30); convert "
            + "the model again"))
    #expect(
      caught { _ = try configuration(model, decoderWidth: 576) }
        == SquintError(
          .badData,
          "metadata projector.image.widths ends with 16, and the decoder's rows have 576 numbers; convert the model again"
        ))
  }

  @Test func rowsFollowTheShuffle() throws {
    var settings = VisionSettings()
    settings.shuffle = 2
    let c = try configuration(TinyVision(settings))
    #expect(try c.rows(gridRows: 4, gridColumns: 6) == 6)
    let error = caught { _ = try c.rows(gridRows: 4, gridColumns: 5) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("4 × 5 patches cannot be cut into squares of 2 × 2") == true)
    settings.shuffle = 1
    settings.hasClass = true
    #expect(try configuration(TinyVision(settings)).rows(gridRows: 4, gridColumns: 5) == 21)
  }

  @Test func classRowAndShuffleExcludeEachOther() throws {
    var settings = VisionSettings()
    settings.shuffle = 2
    settings.hasClass = true
    let error = caught { _ = try configuration(TinyVision(settings)) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("projector.image.shuffle") == true)
    settings.dropsClass = true
    #expect(try configuration(TinyVision(settings)).hasClassRow == false)
  }

  @Test(arguments: [
    ("widths", MetadataValue.ints([24])), ("widths", .ints([24, 0, 16])), ("widths", .ints([24, -1, 16])),
    ("widths", .ints([24, .max, 16])), ("widths", .ints([.max, 16])), ("widths", .int(1)),
    ("widths", .ints([24] + [Int64](repeating: 8, count: 64))), ("shuffle", .int(0)), ("shuffle", .int(.max)),
    ("activation", .string("mish")), ("norm_epsilon", .float(-1)), ("norm_epsilon", .string("1")),
  ])
  func impossibleConfigurationsAreRefused(_ key: String, _ value: MetadataValue) throws {
    var settings = VisionSettings()
    settings.projectorNorm = true
    var model = TinyVision(settings)
    model.metadata["projector.image.\(key)"] = value
    let error = caught { _ = try configuration(model) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("projector.image.\(key)") == true, "\(error?.message ?? "accepted")")
  }

  @Test func neededKeysAreNamed() throws {
    var settings = VisionSettings()
    settings.projectorNorm = true
    for key in ["widths", "activation", "norm_epsilon"] {
      var model = TinyVision(settings)
      model.metadata["projector.image.\(key)"] = nil
      #expect(caught { _ = try configuration(model) }?.message.contains("projector.image.\(key)") == true, "\(key)")
    }
    // Without a norm or a second layer there is nothing that they would say.
    settings.projectorNorm = false
    settings.projectorWidths = []
    #expect(try configuration(TinyVision(settings)).activation == nil)
  }

  @Test func tensorsAreChecked() throws {
    let model = TinyVision(VisionSettings())
    for name in ["projector.image.0", "projector.image.1"] {
      var broken = model
      broken.projector.removeAll { $0.name == name }
      let file = try broken.open()
      let c = try configuration(broken)
      #expect(caught { _ = try MLP.Weights(file, c) }?.message.contains("tensor \(name) is missing") == true)
    }
  }
}
