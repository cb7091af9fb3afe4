import Foundation
import SquintConversion
import SquintFile
import Testing

/// A folder of parts is what the parts are as options.
@Suite struct PartsFolderTests {
  private let parts = "\(VisionFixture.folder)/parts"

  private func link(_ path: String, _ target: String) throws {
    try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: target)
  }

  /// A folder with links to the parts of a model that sees.
  private func withParts(_ body: (String) throws -> Void) throws {
    try withFolder { folder in
      let model = "\(folder)/mine"
      try FileManager.default.createDirectory(atPath: model, withIntermediateDirectories: true)
      try link("\(model)/decoder", "\(parts)/decoder")
      try link("\(model)/encoder", "\(parts)/tower")
      try link("\(model)/projector.safetensors", "\(parts)/projector.safetensors")
      try body(model)
    }
  }

  /// All bytes but the names of what it is made of.
  private func expectSame(
    _ first: ConversionSources, _ second: ConversionSources, in folder: String, _ options: ConversionOptions = .init()
  ) throws {
    let paths = ["\(folder)/first.squint", "\(folder)/second.squint"]
    for (sources, path) in zip([first, second], paths) { try convert(sources, to: path, options: options) }
    let files = try paths.map { try ModelFile(path: $0) }
    let provenance = ["general.name", "general.source"]
    let metadata = files.map { $0.metadata.entries.filter { !provenance.contains($0.key) } }
    #expect(metadata[0].elementsEqual(metadata[1]) { $0.key == $1.key && $0.value == $1.value })
    #expect(try files[0].bulkMetadata() == files[1].bulkMetadata())
    #expect(files[0].modules.map(\.name) == files[1].modules.map(\.name))
    #expect(files[0].tensors.map(\.name) == files[1].tensors.map(\.name))
    for (a, b) in zip(files[0].tensors, files[1].tensors) {
      #expect(a.type == b.type && a.shape == b.shape && a.checksum == b.checksum, "\(a.name)")
      #expect(files[0].bytes(of: a).elementsEqual(files[1].bytes(of: b)))
    }
  }

  @Test func theSameAsTheParts() throws {
    try withParts { model in
      let options = ConversionSources(
        decoder: "\(parts)/decoder", encoders: ["image": "\(parts)/tower"],
        projectors: ["image": "\(parts)/projector.safetensors"])
      try expectSame(ConversionSources(model + "/"), options, in: model)
      let metadata = try ModelFile(path: "\(model)/first.squint").metadata
      #expect(metadata["general.name"] == .string("mine"))
      #expect(try metadata.string("general.source").contains("projector image from projector.safetensors"))

      var adapter = SyntheticAdapter()
      adapter.adapt("model.layers.1.mlp.up_proj", rows: 40, columns: 32)
      try adapter.write(to: "\(model)/adapter")
      var adapted = options
      adapted.adapter = "\(model)/adapter"
      try expectSame(ConversionSources(model), adapted, in: model)
      let report = try planConversion(ConversionSources(model))
      #expect(report.tensors.filter { $0.adapterRank == 2 }.map(\.name) == ["decoder.1.ffn.up"])
    }
  }

  /// decoder.gguf, encoder.onnx, and a file of images, which an ONNX file has not.
  @Test func filesAsParts() throws {
    try withFolder { folder in
      let model = "\(folder)/model"
      try FileManager.default.createDirectory(atPath: model, withIntermediateDirectories: true)
      let gguf = ConverterFixture.file("llama-biases.gguf")
      let onnx = ReaderFixtures.path("onnx/traced.onnx")
      try link("\(model)/decoder.gguf", gguf)
      try link("\(model)/encoder.onnx", onnx)
      try writeSafetensors(
        ["0.weight": ([40, 16], (0..<640).map { Float($0) / 640 })], to: "\(model)/projector.safetensors")
      var options = ConversionSources(
        decoder: gguf, encoders: ["image": onnx], projectors: ["image": "\(model)/projector.safetensors"])
      try expectSame(ConversionSources(model), options, in: model)
      #expect(try ModelFile(path: "\(model)/first.squint").metadata["image.resize"] == .string("shortest_edge"))

      try Data(
        #"{"do_center_crop": false, "size": {"height": 16, "width": 20}, "image_mean": [0.1, 0.2, 0.3]}"#.utf8
      ).write(to: URL(fileURLWithPath: "\(model)/preprocessor_config.json"))
      options.images = ["image": "\(model)/preprocessor_config.json"]
      try expectSame(ConversionSources(model), options, in: model)
      let metadata = try ModelFile(path: "\(model)/first.squint").metadata
      #expect(metadata["image.resize"] == .string("exact"))
      #expect(metadata["image.size"] == .ints([16, 20]))
      #expect(metadata["image.crop"] == nil)
      #expect(metadata["image.mean"] == .floats([0.1, 0.2, 0.3]))
      #expect(try planConversion(ConversionSources(model)).notes.allSatisfy { !$0.contains("preprocessor_config") })
    }
  }

  @Test func theFileOfImagesReplacesTheEncoders() throws {
    try withParts { model in
      try Data(#"{"image_mean": [0.1, 0.2, 0.3]}"#.utf8)
        .write(to: URL(fileURLWithPath: "\(model)/preprocessor_config.json"))
      // SigLIP's class assumes 224 pixels, which this tower does not take.
      let error = squintError { _ = try planConversion(ConversionSources(model)) }
      #expect(error?.message.contains("images of 224 × 224 pixels") == true)
      // An encoder that is given brings its own.
      #expect(
        squintError {
          _ = try planConversion(
            ConversionSources(model, encoders: ["image": "\(parts)/tower"]))
        } == nil)
    }
  }

  @Test func optionsWin() throws {
    try withParts { model in
      func source(_ sources: ConversionSources) throws -> String {
        try convert(sources, to: "\(model)/m.squint")
        return try ModelFile(path: "\(model)/m.squint").metadata.string("general.source")
      }
      // Other parts in the folder, which could not be opened.
      for name in ["decoder", "encoder", "projector.safetensors"] {
        try FileManager.default.removeItem(atPath: "\(model)/\(name)")
        try Data("no part".utf8).write(to: URL(fileURLWithPath: "\(model)/\(name)"))
      }
      try FileManager.default.createDirectory(atPath: "\(model)/adapter", withIntermediateDirectories: true)
      var adapter = SyntheticAdapter()
      adapter.adapt("model.layers.1.mlp.up_proj", rows: 40, columns: 32)
      try adapter.write(to: "\(model)/other")
      var sources = ConversionSources(
        model, decoder: "\(parts)/decoder", encoders: ["image": "\(parts)/tower"],
        projectors: ["image": "\(parts)/projector.safetensors"])
      sources.adapter = "\(model)/other"
      #expect(try source(sources).contains("adapter other merged"))
      for spoil in [
        { $0.decoder = nil }, { $0.encoders = [:] }, { $0.projectors = [:] }, { $0.adapter = nil },
      ] as [(inout ConversionSources) -> Void] {
        var incomplete = sources
        spoil(&incomplete)
        #expect(squintError { _ = try planConversion(incomplete) }?.message.contains(model) == true)
      }
    }
  }

  @Test func foldersThatLackSomething() throws {
    try withParts { model in
      func failure(_ sources: ConversionSources? = nil) -> SquintError? {
        squintError { _ = try planConversion(sources ?? ConversionSources(model)) }
      }
      func expect(_ error: SquintError?, _ message: String) {
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted"), not \(message)")
      }
      try link("\(model)/decoder.gguf", ConverterFixture.file("llama-biases.gguf"))
      expect(failure(), "there is decoder and decoder.gguf; remove one, or choose with --decoder")
      #expect(failure(ConversionSources(model, decoder: "\(parts)/decoder")) == nil)
      try FileManager.default.removeItem(atPath: "\(model)/decoder.gguf")
      try link("\(model)/encoder.onnx", ReaderFixtures.path("onnx/traced.onnx"))
      expect(failure(), "there is encoder and encoder.onnx; remove one, or choose with --encoder")
      try FileManager.default.removeItem(atPath: "\(model)/encoder.onnx")
      try FileManager.default.removeItem(atPath: "\(model)/encoder")
      expect(failure(), "there is a projector for image, but no encoder; give it with --encoder image=")
      try FileManager.default.removeItem(atPath: "\(model)/decoder")
      expect(failure(), "there is projector.safetensors, but no decoder; put it beside as decoder/ or decoder.gguf")
      #expect(failure()?.kind == .noInput)
      try FileManager.default.removeItem(atPath: "\(model)/projector.safetensors")
      expect(failure(), "a checkpoint folder has a config.json")
    }
  }

  /// An encoder of sounds or of series is taken as what it is.
  @Test(arguments: [("audio", "audio/whisper"), ("series", "series/interns1-pro")])
  func encodersOfOtherMedia(_ kind: String, _ fixture: String) throws {
    let decoder = kind == "audio" ? "models/qwen2-tied" : "\(fixture)/decoder"
    func place(_ part: String) -> String { ConverterFixture.folder.appendingPathComponent(part).path }
    try withFolder { folder in
      let model = "\(folder)/model"
      try FileManager.default.createDirectory(atPath: model, withIntermediateDirectories: true)
      try link("\(model)/decoder", place(decoder))
      try link("\(model)/encoder", place("\(fixture)/encoder"))
      try link("\(model)/projector.safetensors", place("\(fixture)/projector.safetensors"))
      let options = ConversionSources(
        decoder: place(decoder), encoders: [kind: place("\(fixture)/encoder")],
        projectors: [kind: place("\(fixture)/projector.safetensors")])
      try expectSame(ConversionSources(model), options, in: model)
      #expect(try ModelFile(path: "\(model)/first.squint").modules.contains { $0.name == "encoder.\(kind)" })
      try Data("{}".utf8).write(to: URL(fileURLWithPath: "\(model)/preprocessor_config.json"))
      let error = squintError { _ = try planConversion(ConversionSources(model)) }
      #expect(error?.message.contains("encoder/ is one for \(kind)") == true, "\(error?.message ?? "accepted")")
    }
  }

  /// config.json makes a folder a checkpoint, whatever else is in it.
  @Test func aCheckpointIsNoFolderOfParts() throws {
    try withFolder { folder in
      try SyntheticCheckpoint().write(to: folder)
      try link("\(folder)/decoder", "\(parts)/decoder")
      #expect(try planConversion(ConversionSources(folder)).tensors.first?.shape == [40, 32])
    }
  }
}
