import Foundation
import SquintConversion
import SquintFile
import Testing

/// Encoders in ONNX files against the checkpoints that they were exported from.
@Suite struct ONNXEncoderTests {
  private static func path(_ name: String) -> String { ReaderFixtures.path("onnx/\(name)") }

  /// The tensors of an encoder as the output would have them in f32.
  private static func numbers(
    _ configuration: EncoderConfiguration, _ tensors: MappedTensors
  ) throws -> [String: [Float]] {
    let module = try PlannedModule(
      name: "encoder.image", expected: configuration.tensors(name: "image"), mapped: tensors,
      types: TypeChoice(matrices: .f32, keep: false))
    var numbers: [String: [Float]] = [:]
    for tensor in module.tensors {
      var values = [Float](repeating: 0, count: tensor.elementCount)
      try values.withUnsafeMutableBufferPointer { try tensor.origin.read(rows: 0..<tensor.rows, into: $0) }
      numbers[tensor.name] = values
    }
    return numbers
  }

  /// How transformers calls the tensors of the three families.
  private static let published = NameMap(
    module: "encoder.image",
    stems: [
      ("embeddings.patch_embeddings.projection", "patch"), ("embeddings.patch_embedding", "patch"),
      ("embeddings.position_embedding", "positions"), ("pre_layrnorm", "pre_norm"),
      ("encoder.layer.*.norm1", "*.attention.norm"), ("encoder.layers.*.layer_norm1", "*.attention.norm"),
      ("encoder.layer.*.attention.q_proj", "*.attention.q"), ("encoder.layers.*.self_attn.q_proj", "*.attention.q"),
      ("encoder.layer.*.attention.k_proj", "*.attention.k"), ("encoder.layers.*.self_attn.k_proj", "*.attention.k"),
      ("encoder.layer.*.attention.v_proj", "*.attention.v"), ("encoder.layers.*.self_attn.v_proj", "*.attention.v"),
      ("encoder.layer.*.attention.o_proj", "*.attention.o"), ("encoder.layers.*.self_attn.out_proj", "*.attention.o"),
      ("encoder.layer.*.norm2", "*.ffn.norm"), ("encoder.layers.*.layer_norm2", "*.ffn.norm"),
      ("encoder.layer.*.mlp.fc1", "*.ffn.up"), ("encoder.layers.*.mlp.fc1", "*.ffn.up"),
      ("encoder.layer.*.mlp.fc2", "*.ffn.down"), ("encoder.layers.*.mlp.fc2", "*.ffn.down"),
      ("layernorm", "norm"), ("post_layernorm", "norm"),
    ],
    names: [
      ("embeddings.cls_token", "class"), ("embeddings.class_embedding", "class"),
      ("embeddings.position_embeddings", "positions"),
      ("encoder.layer.*.layer_scale1.lambda1", "*.attention.scale"),
      ("encoder.layer.*.layer_scale2.lambda1", "*.ffn.scale"),
    ])

  /// Each exporter's file, and what it was exported from.
  @Test(arguments: [
    ("traced", "model"), ("dynamo", "model"), ("original", "model"), ("shared", "shared"), ("traced-f16", "model"),
    ("clip", "clip"), ("siglip", "siglip"),
  ])
  func sameAsCheckpoint(_ name: String, _ checkpoint: String) throws {
    let path = Self.path("\(name).onnx")
    let encoder = try EncoderPart(onnx: path, name: "image")
    let isDINO = checkpoint == "model" || checkpoint == "shared"
    let configuration = encoder.configuration
    #expect(configuration.architecture == (isDINO ? "dinov2" : name))
    #expect(configuration.width == 16)
    #expect(configuration.ffnWidth == 32)
    #expect(configuration.layers == 2)
    #expect(configuration.heads == 2)
    #expect(configuration.patch == 4)
    #expect(configuration.grid == 3)
    #expect(configuration.hasClass == (name != "siglip"))
    #expect(configuration.normEpsilon == (name == "clip" ? 1e-5 : 1e-6))
    #expect(configuration.activation == (name == "clip" ? .quickGELU : name == "siglip" ? .geluTanh : .gelu))
    #expect(configuration.positions == (isDINO ? .bicubic : .fixed))
    #expect(encoder.usualImages.tileSize == ImageConfiguration.Size(height: 12, width: 12))
    #expect(encoder.usualImages.mean[0] == (name == "clip" ? 0.48145466 : name == "siglip" ? 0.5 : 0.485))
    #expect(
      encoder.notes
        == (name == "original"
          ? ["\(path) has more than the encoder; left out are the tensors onnx::MatMul_299"] : []))

    let got = try Self.numbers(configuration, encoder.tensors)
    let checkpointTensors = MappedTensors(
      source: try SafetensorsSource(path: Self.path("\(checkpoint).safetensors")), maps: [Self.published],
      place: checkpoint)
    let wanted = try Self.numbers(configuration, checkpointTensors)
    #expect(Set(got.keys) == Set(wanted.keys))
    for (tensor, values) in wanted {
      let other = try #require(got[tensor])
      if name == "traced-f16" {
        #expect(zip(values, other).allSatisfy { abs($0 - $1) <= 1e-3 * max(1, abs($0)) }, "\(tensor)")
      } else {
        #expect(ReaderFixtures.identical(values, other), "\(tensor)")
      }
    }
  }

  /// Rows are read in pieces that begin anywhere.
  @Test func transposedInPieces() throws {
    for name in ["traced", "traced-f16"] {
      let source = try EncoderPart(onnx: Self.path("\(name).onnx"), name: "image").tensors.source
      for stem in ["0.ffn.up.weight", "positions"] {
        let tensor = try #require(source.tensor(named: stem))
        let whole = try source.read(tensor)
        let size = tensor.type.bytesPerBlock
        var all = [UInt8](repeating: 0, count: tensor.byteCount)
        try all.withUnsafeMutableBytes { try source.readBlocks(of: tensor, blocks: 0..<tensor.elementCount, into: $0) }
        for range in [0..<1, 5..<6, 3..<40, 15..<17, 31..<32, 1..<tensor.elementCount] {
          var bytes = [UInt8](repeating: 0, count: range.count * size)
          try bytes.withUnsafeMutableBytes { try source.readBlocks(of: tensor, blocks: range, into: $0) }
          #expect(bytes == Array(all[range.lowerBound * size..<range.upperBound * size]))
        }
        #expect(whole.count == tensor.elementCount)
      }
    }
  }

  @Test func activations() {
    #expect(abs(Activation.gelu(1) - 0.8413447461) < 1e-9)
    #expect(abs(Activation.geluTanh(1) - 0.8411919906) < 1e-9)
    #expect(abs(Activation.quickGELU(1) - 0.8457957659) < 1e-9)
    #expect(abs(Activation.silu(1) - 0.7310585786) < 1e-9)
    #expect(Activation.relu(-1) == 0 && Activation.relu(2) == 2)
  }

  /// What is no such transformer is refused with the node where that shows.
  @Test func otherGraphs() throws {
    func message(_ name: String, _ changes: [(String, String)]) throws -> String {
      var bytes = try ReaderFixtures.bytes("onnx/\(name)")
      for (old, new) in changes {
        var rest = bytes[...]
        while let range = rest.firstRange(of: Array(old.utf8)) {
          bytes.replaceSubrange(range, with: Array(new.utf8))
          rest = bytes[range.upperBound...]
        }
        #expect(rest.count < bytes.count, "\(name) has no \(old)")
      }
      let folder = try TemporaryFolder()
      let path = try folder.write("x.onnx", bytes)
      let error = squintError { try EncoderPart(onnx: path, name: "image") }
      #expect(error?.kind == .badData)
      return error?.message ?? ""
    }
    #expect(try message("storage.onnx", [("storage.data", "/torage.data")]).contains("not below the model's folder"))
    #expect(try message("dynamo.onnx", [("Conv", "Conw")]).contains("no convolution that cuts an image"))
    #expect(try message("dynamo.onnx", [("Softmax", "Softmin")]).contains("plain attention"))
    #expect(try message("dynamo.onnx", [("Gelu", "Selu")]).contains("an activation"))
    #expect(try message("original.onnx", [("Erf", "Exp")]).contains("an activation"))
    #expect(try message("original.onnx", [("Erf", "Abs")]).contains("an activation"))
    #expect(try message("siglip.onnx", [("Tanh", "Sqrt")]).contains("is not supported"))
    #expect(try message("dynamo.onnx", [("LayerNormalization", "LayerNormalizatiun")]).contains("layer"))
    #expect(try message("dynamo.onnx", [("Concat", "Comcat")]).contains("positions"))
    #expect(try message("traced.onnx", [("cubic", "conic")]).contains("resizes the positions"))
  }

  /// Through the whole converter, which multiplies LayerScale into the matrices.
  @Test func assembled() throws {
    let vision = ConverterFixture.folder.appendingPathComponent("vision/parts").path
    try withFolder { folder in
      var projector = SyntheticCheckpoint()
      projector.shapes = ["0.weight": [32, 16], "0.bias": [32]]
      try projector.write(to: folder)
      var options = ConversionOptions()
      options.type = .f32
      let sources = ConversionSources(
        decoder: "\(vision)/decoder", encoders: ["image": Self.path("original.onnx")],
        projectors: ["image": "\(folder)/model.safetensors"])
      let report = try convert(sources, to: "\(folder)/out.squint", options: options)
      #expect(report.unmapped.isEmpty)
      #expect(report.notes.contains { $0.contains("has more than the encoder") })
      let model = try ModelFile(path: "\(folder)/out.squint")
      #expect(model.metadata["encoder.image.architecture"] == .string("dinov2"))
      #expect(model.metadata["encoder.image.drops_class"] == .bool(true))
      #expect(model.metadata["image.crop"] == .ints([12, 12]))
      let source = try SafetensorsSource(path: Self.path("model.safetensors"))
      func numbers(_ name: String) throws -> [Float] { try source.read(#require(source.tensor(named: name))) }
      let scale = try numbers("encoder.layer.1.layer_scale2.lambda1")
      let down = try numbers("encoder.layer.1.mlp.fc2.weight")
      #expect(
        try model.numbers("encoder.image.1.ffn.down") == down.indices.map { down[$0] * scale[$0 / (down.count / 16)] })
      #expect(
        try model.numbers("encoder.image.0.attention.k") == numbers("encoder.layer.0.attention.k_proj.weight"))
    }
    let missing = squintError {
      try planConversion(ConversionSources(decoder: "\(vision)/decoder", encoders: ["image": "/absent/x.onnx"]))
    }
    #expect(missing?.kind == .noInput)
  }
}
