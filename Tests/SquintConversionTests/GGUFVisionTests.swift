import Foundation
import SquintConversion
import SquintFile
import Testing

/// GGUF models that see, as llama.cpp's converters write them, against the folders that they were written from.
@Suite struct GGUFVisionTests {
  private static func folder(_ name: String) -> String {
    ConverterFixture.folder.appendingPathComponent("vision/\(name)/checkpoint").path
  }

  private static func gguf(_ name: String, _ file: String) -> String {
    ConverterFixture.folder.appendingPathComponent("vision-gguf/\(name)/\(file).gguf").path
  }

  private static func convert(
    _ sources: ConversionSources, _ type: ElementType? = .f32, in folder: String
  ) throws -> (ModelFile, ConversionReport) {
    var options = ConversionOptions()
    options.type = type
    let path = "\(folder)/\(UUID().uuidString).squint"
    let report = try SquintConversion.convert(sources, to: path, options: options)
    return (try ModelFile(path: path), report)
  }

  /// Keys that differ because the files say less, or say it in f32.
  private static func known(_ name: String) -> Set<String> {
    let always: Set<String> = ["general.name", "general.source", "decoder.norm_epsilon"]
    return switch name {
    // The converter writes no max_image_size.
    case "smolvlm": always.union(["encoder.image.architecture", "image.tile"])
    // Nothing in the file says that images are cut and not padded.
    case "llava-clip":
      always.union(["image.pad_to_square", "image.background", "image.mean", "image.std"])
    case "llava-siglip": always.union(["image.pad_to_square", "image.background"])
    default: always
    }
  }

  @Test(arguments: [
    ("smolvlm", "f32"), ("smolvlm", "f16"), ("idefics3", "f32"), ("idefics3", "f16"), ("llava-clip", "f32"),
    ("llava-clip", "f16"), ("llava-siglip", "f32"),
  ])
  func sameAsFolder(_ name: String, _ kind: String) throws {
    try withFolder { folder in
      let (wanted, _) = try Self.convert(ConversionSources(Self.folder(name)), in: folder)
      let (got, report) = try Self.convert(
        ConversionSources(Self.gguf(name, "model"), mmproj: Self.gguf(name, "mmproj-\(kind)")), in: folder)
      #expect(report.unmapped.isEmpty)
      let keys = Set((wanted.metadata.entries + got.metadata.entries).map(\.key))
      let different = keys.filter { wanted.metadata[$0] != got.metadata[$0] }
      // Nothing in the file says that the model takes videos.
      #expect(different.filter { !$0.hasPrefix("video.") } == Self.known(name))
      #expect(got.tensors.map(\.name) == wanted.tensors.map(\.name))
      #expect(got.tensors.map(\.shape) == wanted.tensors.map(\.shape))
      // The old converter writes patches and projectors in f16 whatever is asked for; BF16's numbers fit it exactly.
      let isRounded = name.hasPrefix("llava")
      for tensor in wanted.tensors {
        let (left, right) = (try wanted.numbers(tensor.name), try got.numbers(tensor.name))
        if isRounded {
          #expect(zip(left, right).allSatisfy { abs($0 - $1) <= max(abs($0), 0x1p-14) / 2048 }, "\(tensor.name)")
        } else {
          #expect(left == right, "\(tensor.name)")
        }
      }
      #expect(got.metadata["encoder.image.activation"] == .string(name == "llava-clip" ? "quick_gelu" : "gelu_tanh"))
      if name == "llava-clip" {
        #expect(got.metadata["image.background"] == .ints([122, 116, 104]))
        #expect(got.metadata["encoder.image.layers"] == .int(2))
        #expect(got.metadata["encoder.image.drops_class"] == .bool(true))
        guard case .floats(let mean) = got.metadata["image.mean"] else { throw SquintError(.badData, "no image.mean") }
        #expect(zip(mean, [0.48145466, 0.4578275, 0.40821073]).allSatisfy { abs($0 - $1) < 1e-7 })
      }
    }
  }

  @Test func quantizedBlocksAreKept() throws {
    try withFolder { folder in
      let path = Self.gguf("smolvlm", "mmproj-q8_0")
      let (model, report) = try Self.convert(
        ConversionSources(Self.gguf("smolvlm", "model"), mmproj: path), nil, in: folder)
      let kept = Set(report.tensors.filter(\.isKept).map(\.name))
      #expect(kept.contains("encoder.image.0.attention.q") && kept.contains("projector.image.0"))
      // 40 columns are no whole blocks, so that the converter falls back to F16.
      #expect(!kept.contains("encoder.image.0.ffn.down"))
      let source = try GGUFSource(path: path)
      let query = try #require(source.tensor(named: "v.blk.0.attn_q.weight"))
      #expect(query.type == .q80)
      #expect(try model.numbers("encoder.image.0.attention.q") == source.read(query))
    }
  }

  /// Parts may be from GGUF files, too.
  @Test func parts() throws {
    try withFolder { folder in
      let mmproj = Self.gguf("idefics3", "mmproj-f32")
      let (whole, _) = try Self.convert(ConversionSources(Self.folder("idefics3")), in: folder)
      let (parts, _) = try Self.convert(
        ConversionSources(Self.folder("idefics3"), encoders: ["image": mmproj], projectors: ["image": mmproj]),
        in: folder)
      for tensor in whole.tensors { #expect(try parts.numbers(tensor.name) == whole.numbers(tensor.name)) }
      #expect(parts.metadata["image.tile_prefix"] == whole.metadata["image.tile_prefix"])
    }
  }

  // MARK: What is refused

  private static func failure(_ sources: ConversionSources) -> SquintError? {
    squintError { try planConversion(sources) }
  }

  @Test func wrongFiles() throws {
    let (text, mmproj) = (Self.gguf("smolvlm", "model"), Self.gguf("smolvlm", "mmproj-f32"))
    let alone = Self.failure(ConversionSources(mmproj))
    #expect(alone?.kind == .badData)
    #expect(alone?.message.contains("give the text model as the source and this with --mmproj") == true)
    let twice = Self.failure(ConversionSources(text, mmproj: text))
    #expect(twice?.message.contains("this is no encoder with a projector (general.architecture is \"llama\")") == true)
    let folder = Self.failure(ConversionSources(Self.folder("smolvlm"), mmproj: mmproj))
    #expect(folder?.kind == .usage)
    #expect(folder?.message.contains("--mmproj goes with a GGUF text model") == true)
    #expect(Self.failure(ConversionSources(text, mmproj: "/absent.gguf"))?.kind == .noInput)
    let other = ConverterFixture.model("gguf-llama-f16") + "/model.gguf"
    #expect(
      Self.failure(ConversionSources(other, mmproj: mmproj))?.message.contains("has no <fake_token_around_image>")
        == true)
    // A projector for a decoder of another width.
    let llava = Self.gguf("llava-clip", "mmproj-f16")
    #expect(Self.failure(ConversionSources(other, mmproj: llava))?.message.contains("the decoder's width is") == true)
  }

  /// `file` with each text replaced by another of the same length.
  private static func failure(_ file: String, _ changes: [(String, String)]) throws -> String {
    var bytes = Array(try Data(contentsOf: URL(fileURLWithPath: file)))
    for (old, new) in changes {
      precondition(old.utf8.count == new.utf8.count)
      var rest = bytes[...]
      while let range = rest.firstRange(of: Array(old.utf8)) {
        bytes.replaceSubrange(range, with: Array(new.utf8))
        rest = bytes[range.upperBound...]
      }
      #expect(rest.count < bytes.count, "there is no \(old)")
    }
    let folder = try TemporaryFolder()
    let path = try folder.write("mmproj.gguf", bytes)
    let error = failure(ConversionSources(gguf("smolvlm", "model"), mmproj: path))
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("mmproj.gguf: ") == true)
    return error?.message ?? ""
  }

  @Test func wrongSettings() throws {
    let file = Self.gguf("smolvlm", "mmproj-f32")
    #expect(
      try Self.failure(file, [("idefics3", "idefics9")]).contains(
        "clip.projector_type \"idefics9\" is not supported; known are mlp, idefics3"))
    #expect(
      try Self.failure(file, [("clip.has_vision_encoder", "clip.has_vision_encodes")]).contains("no vision encoder"))
    for key in ["embedding_length", "patch_size", "image_size", "block_count", "attention.head_count"] {
      let other = String(key.dropLast()) + "_"
      #expect(
        try Self.failure(file, [("clip.vision.\(key)", "clip.vision.\(other)")]).contains(
          "metadata clip.vision.\(key) is missing"))
    }
    #expect(try Self.failure(file, [("layer_norm_epsilon", "layer_norm_epsilom")]).contains("epsilon is missing"))
    #expect(try Self.failure(file, [("v.blk.1.attn_q.bias", "v.blk.1.attn_x.bias")]).contains("no rule maps tensor"))
    #expect(try Self.failure(file, [("v.blk.1.ln1.bias", "v.blk.7.ln1.bias")]).contains("v.blk.1.ln1.bias"))
    #expect(
      try Self.failure(file, [("v.blk.0.ffn_up.weight", "v.blk.0.ffn_xx.weight")]).contains("v.blk.0.ffn_up.weight"))
    #expect(try Self.failure(file, [("mm.model.fc", "mm.model.fx")]).contains("no matrix of a projector"))
  }

  /// A GGUF file of metadata alone.
  private static func file(_ pairs: [(key: String, value: [UInt8])]) -> [UInt8] {
    var bytes =
      Array("GGUF".utf8) + littleEndian(UInt32(3)) + littleEndian(UInt64(0)) + littleEndian(UInt64(pairs.count))
    for (key, value) in pairs { bytes += littleEndian(UInt64(key.utf8.count)) + Array(key.utf8) + value }
    return bytes
  }

  private static func text(_ text: String) -> [UInt8] {
    littleEndian(UInt32(8)) + littleEndian(UInt64(text.utf8.count)) + Array(text.utf8)
  }

  @Test func otherModels() throws {
    func message(_ pairs: [(key: String, value: [UInt8])]) throws -> String {
      let folder = try TemporaryFolder()
      let start: [(key: String, value: [UInt8])] = [
        ("general.architecture", Self.text("clip")), ("clip.has_vision_encoder", littleEndian(UInt32(7)) + [1]),
      ]
      let path = try folder.write("x.gguf", Self.file(start + pairs))
      let error = Self.failure(ConversionSources(Self.gguf("smolvlm", "model"), mmproj: path))
      #expect(error?.kind == .badData)
      return error?.message ?? ""
    }
    #expect(try message([("clip.projector_type", Self.text("ldp"))]).contains("known are mlp, idefics3"))
    #expect(try message([]).contains("known are mlp, idefics3"))
    #expect(
      try message([("clip.projector_type", littleEndian(UInt32(7)) + [1])]).contains(
        "metadata clip.projector_type is not a text"))
  }
}
