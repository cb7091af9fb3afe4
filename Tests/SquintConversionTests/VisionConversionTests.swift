import Foundation
import SquintConversion
import SquintFile
import Testing

/// Models that see: what is in the file is what the checkpoint has.
@Suite struct VisionConversionTests {
  private func converted<Result>(
    _ model: String, options: ConversionOptions = VisionFixture.f32(),
    _ body: (ModelFile, ConversionReport) throws -> Result
  ) throws -> Result {
    try withFolder { folder in
      let path = "\(folder)/model.squint"
      let report = try convert(try VisionFixture.sources(model), to: path, options: options)
      let file = try ModelFile(path: path)
      try file.verify()
      return try body(file, report)
    }
  }

  // MARK: Tensors

  @Test(arguments: VisionFixture.models) func f32IsTheCheckpointToTheBit(model: String) throws {
    let sources = try VisionFixture.sources(model)
    let originals = try VisionFixture.tensors(sources)
    func original(_ ending: String, isDecoder: Bool) throws -> [Float] {
      let found = originals.filter { original in
        let name = original.tensor.name
        guard !name.hasPrefix("text_model."), !isDecoder || !name.contains("encoder.") else { return false }
        return name == ending || ("." + name).hasSuffix(ending)
      }
      let one = try #require(found.first, "\(ending)")
      #expect(found.count == 1, "\(ending): \(found.map(\.tensor.name))")
      return try one.source.read(one.tensor)
    }
    try converted(model) { file, report in
      #expect(file.modules.map(\.name) == ["encoder.image", "projector.image", "decoder"])
      #expect(report.modules.map(\.name) == file.modules.map(\.name))
      #expect(report.types.map(\.type) == [.f32])
      #expect(report.unmapped.isEmpty)
      for tensor in file.tensors {
        let ending = visionSourceEnding(tensor.name, model: model)
        var expected = try original(ending, isDecoder: tensor.name.hasPrefix("decoder."))
        if model == "llava-dinov2", let scale = layerScale(tensor.name) {
          let factors = try original(scale, isDecoder: false)
          let columns = expected.count / factors.count
          for index in expected.indices { expected[index] *= factors[index / columns] }
        }
        if ending.contains("qkv_proj") {
          // The three matrices are one below the other.
          let part = try #require(["q", "k", "v"].firstIndex(of: tensor.name.split(separator: ".")[4]))
          let count = expected.count / 3
          expected = Array(expected[part * count..<(part + 1) * count])
        }
        #expect(
          try file.numbers(tensor.name).map(\.bitPattern) == expected.map(\.bitPattern), "\(tensor.name)")
      }
    }
  }

  /// The vector that multiplies the rows of a tensor of DINOv2.
  private func layerScale(_ name: String) -> String? {
    let parts = name.split(separator: ".")
    guard parts[0] == "encoder", parts.count > 4 else { return nil }
    switch "\(parts[3]).\(parts[4])" {
    case "attention.o": return "encoder.layer.\(parts[2]).layer_scale1.lambda1"
    case "ffn.down": return "encoder.layer.\(parts[2]).layer_scale2.lambda1"
    default: return nil
    }
  }

  /// What formats/vision.md lists, in its order, for an encoder with `layers` layers.
  private func encoderNames(
    layers: Int, patchBias: Bool, hasClass: Bool, preNorm: Bool, norm: Bool
  ) -> [String] {
    var names = ["patch"] + (patchBias ? ["patch.bias"] : []) + (hasClass ? ["class"] : []) + ["positions"]
    if preNorm { names += ["pre_norm", "pre_norm.bias"] }
    for layer in 0..<layers {
      for stem in [
        "attention.norm", "attention.q", "attention.k", "attention.v", "attention.o", "ffn.norm", "ffn.up", "ffn.down",
      ] { names += ["\(layer).\(stem)", "\(layer).\(stem).bias"] }
    }
    if norm { names += ["norm", "norm.bias"] }
    return names.map { "encoder.image." + $0 }
  }

  @Test func theEncoderHasWhatTheFeaturesNeed() throws {
    func check(_ model: String, _ names: [String], _ shapes: [String: [Int]]) throws {
      try converted(model) { file, _ in
        #expect(file.tensors.map(\.name).filter { $0.hasPrefix("encoder.") } == names, "\(model)")
        for (name, shape) in shapes {
          #expect(file.tensor("encoder.image.\(name)")?.shape == shape, "\(model) \(name)")
        }
      }
    }
    // Three layers, of which the last is behind the features.
    try check(
      "llava-clip", encoderNames(layers: 2, patchBias: false, hasClass: true, preNorm: true, norm: false),
      ["patch": [32, 147], "class": [32], "positions": [17, 32], "1.ffn.up": [40, 32], "1.ffn.down": [32, 40]])
    try check(
      "llava-clip-layers", encoderNames(layers: 3, patchBias: false, hasClass: true, preNorm: true, norm: false),
      ["patch": [32, 588], "positions": [5, 32]])
    try check(
      "llava-siglip", encoderNames(layers: 3, patchBias: true, hasClass: false, preNorm: false, norm: false),
      ["positions": [16, 32]])
    try check(
      "llava-dinov2", encoderNames(layers: 3, patchBias: true, hasClass: true, preNorm: false, norm: false),
      ["patch": [32, 300], "class": [32], "positions": [17, 32], "0.ffn.up": [64, 32]])
    try check(
      "smolvlm", encoderNames(layers: 3, patchBias: true, hasClass: false, preNorm: false, norm: true),
      ["positions": [36, 32]])
    try check(
      "original-linear", encoderNames(layers: 1, patchBias: false, hasClass: true, preNorm: true, norm: false), [:])
    try check(
      "parts", encoderNames(layers: 2, patchBias: true, hasClass: false, preNorm: false, norm: true), [:])
  }

  // MARK: Metadata

  @Test func theKeysAreThoseOfTheCheckpoint() throws {
    func check(_ model: String, _ keys: [String: MetadataValue], absent: [String] = []) throws {
      try converted(model) { file, _ in
        for (key, value) in keys { #expect(file.metadata[key] == value, "\(model): \(key)") }
        for key in absent { #expect(file.metadata[key] == nil, "\(model): \(key)") }
      }
    }
    try check(
      "llava-clip",
      [
        "encoder.image.architecture": .string("clip"), "encoder.image.layers": .int(2), "encoder.image.width": .int(32),
        "encoder.image.ffn_width": .int(40), "encoder.image.heads": .int(4), "encoder.image.patch": .int(7),
        "encoder.image.grid": .int(4), "encoder.image.positions": .string("fixed"),
        "encoder.image.norm_epsilon": .float(1e-5), "encoder.image.activation": .string("quick_gelu"),
        "encoder.image.drops_class": .bool(true),
        "projector.image.widths": .ints([32, 32, 32]),
        "projector.image.activation": .string("gelu"),
        "image.layout": .string("whole"), "image.resize": .string("shortest_edge"),
        "image.size": .ints([28]), "image.crop": .ints([28, 28]), "image.filter": .string("bicubic"),
        "image.rescale": .float(0.00392156862745098),
        "image.mean": .floats([0.48145466, 0.4578275, 0.40821073]),
        "image.std": .floats([0.26862954, 0.26130258, 0.27577711]),
        "image.token": .int(3),
        "general.settings": .string("decoder f32, embedding f32, encoder f32, projector f32"),
      ],
      absent: [
        "encoder.image.feature_layers", "projector.image.shuffle", "projector.image.norm_epsilon",
        "image.pad_to_square", "image.tile", "image.split", "image.marker", "image.token_text", "image.single_prefix",
      ])
    try check(
      "llava-clip-layers",
      [
        "encoder.image.layers": .int(3), "encoder.image.feature_layers": .ints([0, 2, 3]),
        "encoder.image.activation": .string("gelu"),
        "projector.image.widths": .ints([96, 32, 32]), "projector.image.activation": .string("gelu_tanh"),
        "image.pad_to_square": .bool(true), "image.background": .ints([122, 116, 104]),
        "image.resize": .string("shortest_edge"), "image.size": .ints([28]), "image.crop": .ints([28, 28]),
      ], absent: ["encoder.image.drops_class"])
    try check(
      "llava-siglip",
      [
        "encoder.image.architecture": .string("siglip"), "encoder.image.layers": .int(3),
        "encoder.image.activation": .string("gelu_tanh"), "image.resize": .string("exact"),
        "image.size": .ints([28, 28]), "image.mean": .floats([0.5, 0.5, 0.5]),
      ], absent: ["encoder.image.feature_layers", "encoder.image.drops_class", "image.crop"])
    try check(
      "llava-dinov2",
      [
        "encoder.image.architecture": .string("dinov2"), "encoder.image.positions": .string("bicubic"),
        "encoder.image.grid": .int(4), "encoder.image.activation": .string("gelu"), "image.crop": .ints([30, 30]),
        "encoder.image.drops_class": .bool(true),
      ])
    try check(
      "smolvlm",
      [
        "encoder.image.architecture": .string("smolvlm"), "encoder.image.positions": .string("buckets"),
        "encoder.image.grid": .int(6), "projector.image.widths": .ints([128, 32]), "projector.image.shuffle": .int(2),
        "image.layout": .string("tiles"), "image.tile": .int(24),
        "image.split": .bool(true), "image.resize": .string("longest_edge"), "image.size": .ints([48]),
        "image.filter": .string("lanczos"), "image.token": .int(4),
        "image.single_prefix": .string("<fake_token_around_image><global-img>"),
        "image.single_suffix": .string("<fake_token_around_image>"),
        "image.tile_prefix": .string("<fake_token_around_image><row_{row}_col_{column}>"),
        "image.row_suffix": .string("\n"),
        "image.overview_prefix": .string("\n<fake_token_around_image><global-img>"),
        "image.overview_suffix": .string("<fake_token_around_image>"),
      ], absent: ["projector.image.activation", "image.token_text"])
    try check("smolvlm-single", ["projector.image.widths": .ints([512, 32]), "projector.image.shuffle": .int(4)])
    try check("idefics3-whole", ["image.split": .bool(false), "encoder.image.architecture": .string("idefics3")])
    try check(
      "original-linear",
      [
        "decoder.architecture": .string("llama"), "encoder.image.layers": .int(1),
        "projector.image.widths": .ints([32, 32]), "encoder.image.drops_class": .bool(true),
        "general.source": .string("checkpoint: Hugging Face checkpoint, F16; encoder image from tower"),
      ], absent: ["image.token"])
    try check(
      "original-mlp3x",
      [
        "decoder.architecture": .string("mistral"), "encoder.image.layers": .int(2),
        "projector.image.widths": .ints([32, 24, 24, 32]),
        "projector.image.activation": .string("gelu"), "image.pad_to_square": .bool(true),
        "image.background": .ints([122, 116, 104]), "image.single_prefix": .string("<im_start>"),
        "image.single_suffix": .string("<im_end>"),
      ], absent: ["encoder.image.drops_class", "image.token"])
    try check(
      "parts",
      [
        "encoder.image.architecture": .string("siglip"), "projector.image.widths": .ints([128, 24, 32]),
        "projector.image.shuffle": .int(2), "projector.image.activation": .string("silu"),
        "projector.image.norm_epsilon": .float(1e-5), "image.token": .int(3), "image.resize": .string("exact"),
        "general.source": .string(
          "decoder: Hugging Face checkpoint, BF16; encoder image from tower, projector image from projector.safetensors"
        ),
      ])
  }

  @Test func aProjectorThatDoesNothing() throws {
    try withFolder { folder in
      var checkpoint = SyntheticCheckpoint()
      checkpoint.config["model_type"] = "llava_llama"
      checkpoint.config["mm_projector_type"] = "identity"
      checkpoint.config["mm_vision_select_layer"] = -2
      try checkpoint.write(to: folder)
      let sources = ConversionSources(folder, encoders: ["image": "\(VisionFixture.folder)/original-linear/tower"])
      try withFolder { output in
        try convert(sources, to: "\(output)/m.squint", options: VisionFixture.f32())
        let file = try ModelFile(path: "\(output)/m.squint")
        #expect(file.metadata["projector.image.widths"] == .ints([32, 32]))
        let expected = (0..<32 * 32).map { $0 / 32 == $0 % 32 ? Float(1) : 0 }
        #expect(try file.numbers("projector.image.0") == expected)
      }
    }
  }

  @Test func theChatTemplateAndTheTokenizerGoAlong() throws {
    try converted("llava-clip") { file, report in
      #expect(try file.metadata.string("chat.template").contains("part['type'] == 'image'"))
      let bulk = try file.bulkMetadata()
      #expect(!bulk.entries.isEmpty)
      #expect(report.notes.isEmpty)
    }
  }

  // MARK: Types

  @Test func partsHaveTheirOwnTypes() throws {
    let sources = try VisionFixture.sources("llava-clip")
    var options = ConversionOptions()
    func type(_ name: String) throws -> ElementType? {
      try planConversion(sources, options: options).tensors.first { $0.name == name }?.type
    }
    #expect(try type("encoder.image.patch") == .int8)
    #expect(try type("encoder.image.0.ffn.up") == .int8)
    #expect(try type("encoder.image.positions") == .f32)
    #expect(try type("encoder.image.class") == .f32)
    #expect(try type("encoder.image.0.attention.norm.bias") == .f32)
    #expect(try type("projector.image.0") == .int8)
    #expect(try type("projector.image.0.bias") == .f32)
    #expect(try type("decoder.0.ffn.up") == .int4)
    options.encoderType = .f16
    options.projectorType = .int4
    #expect(try type("encoder.image.patch") == .f16)
    #expect(try type("encoder.image.positions") == .f32)
    #expect(try type("projector.image.1") == .int4)
    #expect(try type("decoder.0.ffn.up") == .int4)
    options = ConversionOptions()
    options.type = .bf16
    #expect(try type("encoder.image.0.attention.o") == .bf16)
    #expect(try type("projector.image.0") == .bf16)
    #expect(try type("decoder.embedding") == .bf16)
  }

  @Test func quantizedFilesAreCloseToTheCheckpoint() throws {
    try converted("llava-dinov2", options: ConversionOptions()) { quantized, report in
      try converted("llava-dinov2") { exact, _ in
        #expect(report.types.contains { $0.type == .int8 && ($0.relativeRMSE ?? 1) < 0.01 })
        for name in ["encoder.image.patch", "encoder.image.1.attention.o", "projector.image.1"] {
          let ours = try quantized.numbers(name)
          let theirs = try exact.numbers(name)
          let error = zip(ours, theirs).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
          let norm = theirs.reduce(0) { $0 + Double($1 * $1) }
          #expect((error / norm).squareRoot() < 0.01, "\(name)")
        }
      }
    }
  }

  // MARK: Projectors by themselves

  /// The tensors' names and shapes, and `__metadata__`.
  private func projector(
    _ shapes: [String: [Int]], metadata: [String: String] = [:], at path: String
  ) throws {
    var header: [String: Any] = ["__metadata__": metadata]
    var end = 0
    for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
      let start = end
      end += 4 * shape.reduce(1, *)
      header[name] = ["dtype": "F32", "shape": shape, "data_offsets": [start, end]] as [String: Any]
    }
    let json = try JSONSerialization.data(withJSONObject: header)
    let file = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json + Data(count: end)
    try file.write(to: URL(fileURLWithPath: path))
  }

  /// What a projector's file becomes over the tower and the decoder of `parts` (32 numbers each, 4 × 4 patches).
  private func plan(
    _ shapes: [String: [Int]], metadata: [String: String] = [:], tower: String = "parts"
  ) throws -> (metadata: Metadata?, error: SquintError?) {
    try withFolder { folder in
      let path = "\(folder)/projector.safetensors"
      try projector(shapes, metadata: metadata, at: path)
      let sources = ConversionSources(
        decoder: "\(VisionFixture.folder)/parts/decoder", encoders: ["image": "\(VisionFixture.folder)/\(tower)/tower"],
        projectors: ["image": path])
      let error = squintError { try convert(sources, to: "\(folder)/m.squint", options: VisionFixture.f32()) }
      return (error == nil ? try ModelFile(path: "\(folder)/m.squint").metadata : nil, error)
    }
  }

  @Test(arguments: [
    ["0.weight": [24, 32], "2.weight": [32, 24]],
    ["linear_1.weight": [24, 32], "linear_2.weight": [32, 24]],
    [
      "model.mm_projector.0.weight": [24, 32], "model.mm_projector.2.weight": [32, 24],
      "model.mm_projector.2.bias": [32],
    ],
    ["multi_modal_projector.linear_1.weight": [24, 32], "multi_modal_projector.linear_2.weight": [32, 24]],
    ["norm.weight": [32], "norm.bias": [32], "layers.0.weight": [24, 32], "layers.1.weight": [32, 24]],
    ["mlp1.0.weight": [32], "mlp1.0.bias": [32], "mlp1.1.weight": [24, 32], "mlp1.3.weight": [32, 24]],
    ["x.9.weight": [24, 32], "x.10.weight": [32, 24]],
  ]) func projectorsAreFoundByTheirShapes(shapes: [String: [Int]]) throws {
    let (metadata, error) = try plan(shapes)
    #expect(error == nil)
    #expect(metadata?["projector.image.widths"] == .ints([32, 24, 32]))
    #expect(metadata?["projector.image.activation"] == .string("gelu"))
    #expect(metadata?["projector.image.norm_epsilon"] == (shapes.count > 3 ? .float(1e-5) : nil))
    #expect(metadata?["projector.image.shuffle"] == nil)
  }

  @Test func projectorsSayWhatTheyWant() throws {
    var metadata = try plan(["proj.weight": [32, 512]]).metadata
    #expect(metadata?["projector.image.shuffle"] == .int(4))
    #expect(metadata?["projector.image.widths"] == .ints([512, 32]))
    metadata =
      try plan(
        ["0.weight": [8, 64], "1.weight": [32, 8]],
        metadata: ["feature_layer": "[1, -1]", "select": "full", "activation": "gelu_pytorch_tanh"],
        tower: "original-linear"
      ).metadata
    #expect(metadata?["encoder.image.feature_layers"] == .ints([1, 2]))
    #expect(metadata?["encoder.image.drops_class"] == nil)
    #expect(metadata?["projector.image.activation"] == .string("gelu_tanh"))
    metadata = try plan(["0.weight": [32, 32]], tower: "original-linear").metadata
    #expect(metadata?["encoder.image.feature_layers"] == nil)
    #expect(metadata?["encoder.image.layers"] == .int(2))
    #expect(metadata?["encoder.image.drops_class"] == .bool(true))
  }

  @Test func projectorsThatDoNotFit() throws {
    for (shapes, metadata, tower, message) in [
      (["0.weight": [32, 30]], [:], "parts", "takes 30 numbers, but the encoder's features have 32"),
      (["0.weight": [32, 96]], [:], "parts", "takes 96 numbers, but the encoder's features have 32"),
      (["0.weight": [32, 288]], [:], "parts", "4 × 4 patches is not cut into squares of 3 × 3"),
      (["0.weight": [30, 32]], [:], "parts", "gives 30 numbers, but the decoder's width is 32"),
      (["0.weight": [8, 32], "1.weight": [32, 9]], [:], "parts", "1.weight takes 9 numbers, but 0.weight gives 8"),
      (["a.weight": [8, 32], "b.weight": [32, 8]], [:], "parts", "which of the projector's matrices a and b"),
      (["0.weight": [32]], [:], "parts", "there is no matrix of a projector"),
      (["0.weight": [32, 32], "1.weight": [32]], [:], "parts", "1.weight with shape [32] is no norm in front"),
      (
        ["0.weight": [32], "1.weight": [32], "2.weight": [32, 32]], [:], "parts", "a projector with two norms, 0 and 1"
      ),
      (["0.weight": [32], "1.weight": [32, 32]], [:], "parts", "0.bias (projector.image.norm.bias) is missing"),
      (["0.weight": [32, 32, 1, 1]], [:], "parts", "a projector's are matrices and vectors"),
      (["0.weight": [32, 32], "0.bias": [31]], [:], "parts", "0.bias has shape [31]"),
      (["0.weight": [32, 32], "gate": [1]], [:], "parts", "no rule maps tensor gate"),
      (["0.weight": [0, 32]], [:], "parts", "0.weight has shape [0, 32]"),
      (["0.weight": [32, 128]], ["select": "full"], "original-linear", "does not go with features that have a row"),
      (["0.weight": [32, 32]], ["select": "some"], "parts", "select \"some\" is not patch or full"),
      (["0.weight": [32, 32]], ["activation": "mish"], "parts", "activation \"mish\" is not supported"),
      (["0.weight": [32, 32]], ["shuffle": "0"], "parts", "shuffle is not an integer from 1 to 64"),
      (["0.weight": [32, 32]], ["scale_factor": "99999999999999999999"], "parts", "is not an integer"),
      (["0.weight": [32, 32]], ["feature_layer": "-9"], "parts", "features after the layers [-6]"),
      (["0.weight": [32, 32]], ["feature_layer": ""], "parts", "feature_layer \"\" is not an integer"),
      (
        ["0.weight": [32], "0.bias": [32], "1.weight": [32, 32]], ["norm_epsilon": "nan"], "parts",
        "norm_epsilon \"nan\""
      ),
    ] as [([String: [Int]], [String: String], String, String)] {
      let error = try plan(shapes, metadata: metadata, tower: tower).error
      #expect(error?.kind == .badData, "\(message)")
      #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted"), not \(message)")
    }
  }

  @Test func picklesAreRefused() throws {
    try withFolder { folder in
      let path = "\(folder)/mm_projector.bin"
      try Data("PK".utf8).write(to: URL(fileURLWithPath: path))
      let parts = "\(VisionFixture.folder)/parts"
      func failure(_ path: String) -> SquintError? {
        squintError {
          try planConversion(
            ConversionSources(
              decoder: "\(parts)/decoder", encoders: ["image": "\(parts)/tower"], projectors: ["image": path]))
        }
      }
      #expect(
        failure(path)?.message.contains("this is a pickle, which runs code when it is read; convert it with") == true)
      #expect(failure("\(folder)/other.bin")?.kind == .noInput)
      // The original LLaVA's, beside the decoder.
      var checkpoint = SyntheticCheckpoint()
      checkpoint.config["model_type"] = "llava_llama"
      checkpoint.config["mm_vision_select_layer"] = -2
      checkpoint.files["mm_projector.bin"] = "PK"
      try checkpoint.write(to: folder)
      let error = squintError {
        try planConversion(
          ConversionSources(folder, encoders: ["image": "\(VisionFixture.folder)/original-linear/tower"]))
      }
      #expect(error?.message.contains("the projector is a pickle (mm_projector.bin)") == true)
    }
  }

  @Test func originalLLaVAsThatAreNotSupported() throws {
    for (key, value, message) in [
      (
        "image_aspect_ratio", "anyres",
        "mm_patch_merge_type \"flat\" is not supported with anyres; spatial_unpad is"
      ),
      ("image_aspect_ratio", "highres", "image_aspect_ratio \"highres\" is not supported"),
      ("mm_projector_type", "cabstract", "mm_projector_type \"cabstract\" is not supported; known are linear"),
      ("mm_projector_type", "mlp99999999999999999999x_gelu", "is not supported; known are linear"),
      // One matrix without a number is a linear projector, whatever is said.
      (
        "mm_projector_type", "mlp2x_gelu",
        "note: mm_projector has 1 matrices, but mm_projector_type mlp2x_gelu makes it 2"
      ),
      ("mm_vision_select_layer", "last", "mm_vision_select_layer is not an integer or a list"),
      ("mm_vision_select_layer", -9, "features after the layers [-6] of an encoder with 2"),
      ("mm_vision_select_feature", "cls", "mm_vision_select_feature \"cls\" is not patch or cls_patch"),
      ("mm_use_im_start_end", "yes", "mm_use_im_start_end is not true or false"),
    ] as [(String, any Sendable, String)] {
      try withFolder { folder in
        var checkpoint = SyntheticCheckpoint()
        checkpoint.config["model_type"] = "llava"
        checkpoint.config["mm_vision_select_layer"] = -2
        checkpoint.config[key] = value
        checkpoint.shapes["model.mm_projector.weight"] = [32, 32]
        checkpoint.shapes["model.mm_projector.bias"] = [32]
        try checkpoint.write(to: folder)
        var notes: [String] = []
        let error = squintError {
          notes = try planConversion(
            ConversionSources(folder, encoders: ["image": "\(VisionFixture.folder)/original-linear/tower"])
          ).notes
        }
        if message.hasPrefix("note: ") {
          #expect(notes.contains { $0.contains(message.dropFirst("note: ".count)) }, "\(error?.message ?? "accepted")")
        } else {
          #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted"), not \(message)")
        }
      }
    }
  }

  // MARK: Parts in place of others

  /// A whole checkpoint with another projector: the replaced one is known, not unmapped.
  @Test func partsReplaceThoseOfASource() throws {
    let llava = "\(VisionFixture.folder)/llava-siglip/checkpoint"
    let parts = "\(VisionFixture.folder)/parts"
    var sources = ConversionSources(llava, projectors: ["image": "\(parts)/projector.safetensors"])
    // 128 = 2² · 32: the same projector fits this encoder, which then is used as the projector wants it.
    var report = try planConversion(sources)
    #expect(report.tensors.contains { $0.sourceName == "projector.1.weight" })
    #expect(!report.tensors.contains { $0.sourceName.hasPrefix("multi_modal_projector") })
    sources = ConversionSources(llava, encoders: ["image": "\(parts)/tower"])
    report = try planConversion(sources)
    #expect(
      report.tensors.filter { $0.name.hasPrefix("encoder.image.") && $0.name.hasSuffix("attention.q") }.count == 2)
    sources = ConversionSources(llava, decoder: "\(parts)/decoder")
    report = try planConversion(sources)
    #expect(report.tensors.contains { $0.sourceName == "model.embed_tokens.weight" })
    // A decoder that is part of a larger checkpoint.
    sources = ConversionSources(
      decoder: llava, encoders: ["image": "\(parts)/tower"], projectors: ["image": "\(parts)/projector.safetensors"])
    #expect(try planConversion(sources).modules.count == 3)
  }

  /// A decoder from GGUF, and CLIP, whose last norm is for the class token alone.
  @Test func partsOfSeveralKinds() throws {
    let decoder = ConverterFixture.file("llama-llama3.gguf")
    let sources = ConversionSources(
      decoder: decoder, encoders: ["image": "\(VisionFixture.folder)/original-linear/tower"],
      projectors: ["image": "\(VisionFixture.folder)/parts/projector.safetensors"])
    let report = try planConversion(sources)
    #expect(report.unmapped.isEmpty)
    let names = report.tensors.map(\.name)
    #expect(names.contains("encoder.image.1.ffn.down"))
    #expect(!names.contains("encoder.image.norm"))
    #expect(report.tensors.first { $0.name == "decoder.embedding" }?.sourceName == "token_embd.weight")
  }

  @Test func partsThatDoNotPairUp() throws {
    let parts = "\(VisionFixture.folder)/parts"
    func failure(_ sources: ConversionSources) -> SquintError? { squintError { try planConversion(sources) } }
    var error = failure(ConversionSources(decoder: "\(parts)/decoder", encoders: ["image": "\(parts)/tower"]))
    #expect(error?.kind == .usage)
    #expect(error?.message.contains("no projector; give it with --projector image=") == true)
    error = failure(
      ConversionSources("\(parts)/decoder", projectors: ["image": "\(parts)/projector.safetensors"]))
    #expect(error?.kind == .usage)
    #expect(error?.message.contains("no encoder; give it with --encoder image=") == true)
    error = failure(ConversionSources())
    #expect(error?.kind == .usage)
    error = failure(ConversionSources("\(parts)/tower"))
    #expect(error?.message.contains("is an encoder alone; give it with --encoder") == true)
    error = failure(ConversionSources("\(VisionFixture.folder)/original-linear/checkpoint"))
    #expect(error?.kind == .badData)
    #expect(
      error?.message.contains("mm_vision_tower: openai/clip-vit-large-patch14-336); download it and give its folder")
        == true)
    error = failure(ConversionSources("\(parts)/decoder", encoders: ["image": "\(parts)/nothing"]))
    #expect(error?.kind == .noInput)
  }
}
