import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// Our pixels, features and logits beside transformers' on the tiny models of tools/fixtures/vision_models.py and vision_families.py, from
/// the image files.
@Suite struct VisionParityTests {
  @Test func allArchitecturesAreThere() {
    for family in [
      "llava-clip", "llava-siglip", "llava-dinov2", "idefics3", "smolvlm", "original", "parts", "qwen2-vl", "qwen25-vl",
      "qwen3-vl", "internvl", "internvl-6b", "llava-next", "llava-onevision", "granite-docling",
    ] {
      #expect(VisionFixture.all.contains { $0.name.hasPrefix(family) })
    }
  }

  /// What the encoder sees, to the last bit of the image: a level is 1/255, and its normalized form differs by more than
  /// 1e-2.
  @Test(arguments: VisionFixture.all) func pixels(_ fixture: VisionFixture) throws {
    let (path, folder) = try fixture.convert(.f32)
    defer { withExtendedLifetime(folder) {} }
    for test in fixture.cases {
      let expected = try numpyNumbers(fixture.file(test, "pixels.npy"))
      let ours = try test.images.flatMap { try embed(path, $0, .pixels) }
      #expect(ours.count == expected.count)
      #expect(largestDifference(ours, expected) < 1e-5, "\(test.name)")
    }
  }

  /// Sums in another order: the rounding of f32 over some dozens of terms.
  @Test(arguments: VisionFixture.all) func features(_ fixture: VisionFixture) throws {
    let (path, folder) = try fixture.convert(.f32)
    defer { withExtendedLifetime(folder) {} }
    for test in fixture.cases {
      let expected = try numpyNumbers(fixture.file(test, "features.npy"))
      let ours = try test.images.flatMap { try embed(path, $0, .projector) }
      #expect(ours.count == expected.count)
      #expect(largestDifference(ours, expected) < 1e-4, "\(test.name)")
    }
  }

  /// From the image files to the logits of every position; the mirrored image moves them by more than 2.
  @Test(arguments: VisionFixture.all) func f32(_ fixture: VisionFixture) throws {
    let model = try fixture.model(.f32)
    for test in fixture.cases {
      let images = try test.images.map { try model.image(VisionFixture.image($0)) }
      let prompt = try model.prompt(text: fixture.text(test), media: images)
      let ids = try fixture.ids(test)
      #expect(prompt.count == ids.count)
      // Where a row of an image stands, the processor has its image token, or none.
      for (ours, theirs) in zip(prompt.tokens, ids) {
        #expect(ours == theirs || ours == Prompt.featureToken && (theirs == -1 || theirs == model.token(for: .image)))
      }
      let expected = try numpyRows(fixture.file(test, "logits.npy").path)
      for (chunk, media) in [
        (128, SessionOptions.MediaUse.once(images.map(\.size))), (7, .always), (1, .always),
      ] {
        let options = SessionOptions(kvType: .f32, threads: 2, chunk: chunk, media: media)
        let ours = try logits(model, prompt, options)
        #expect(ours.count == expected.count)
        #expect(
          largestDifference(ours.flatMap { $0 }, expected.flatMap { $0 }) < 1e-4, "\(test.name), chunks of \(chunk)")
      }
      guard !ids.contains(-1) else { continue }
      #expect(try model.prompt(tokens: ids, media: images).tokens == prompt.tokens)
    }
  }

  /// Those with videos. As an argument of @Test, the closure crashes Swift 6.0.3.
  private static let ofVideos = VisionFixture.all.filter { $0.videos != nil }

  /// From the files of a video, and of images beside it, to the logits of every position, however the prompt is cut.
  @Test(arguments: ofVideos) func videos(_ fixture: VisionFixture) throws {
    let model = try fixture.model(.f32)
    for video in fixture.videos ?? [] {
      let test = VisionFixture.Case(name: video.name, images: video.images)
      let clip = try model.medium(.video, VisionFixture.image(video.video))
      let media = try [clip] + video.images.map { try model.image(VisionFixture.image($0)) }
      let prompt = try model.prompt(tokens: fixture.ids(test), media: media)
      let expected = try numpyRows(fixture.file(test, "logits.npy").path).flatMap { $0 }
      for chunk in [128, 7] {
        var options = SessionOptions(kvType: .f32, threads: 2, chunk: chunk, media: .once(media.map(\.size)))
        #expect(largestDifference(try logits(model, prompt, options).flatMap { $0 }, expected) < 1e-4, "\(video.name)")
        options.media = .always
        options.known = [clip.size]
        #expect(largestDifference(try logits(model, prompt, options).flatMap { $0 }, expected) < 1e-4, "\(video.name)")
      }
    }
  }

  /// A GGUF text model and its mmproj file, as llama.cpp's converter writes them, give the logits of the folder that they are from:
  /// in f32 within the rounding of sums, in f16 within that of the weights (2⁻¹² of each, half the step of f16). LLaVA's
  /// converter writes patches and projector in f16 always. (The tiles of the fixture smolvlm are not of the size of its table of
  /// positions, which a mmproj file cannot say.)
  @Test(
    arguments: ["idefics3", "internvl", "llava-clip", "llava-siglip", "qwen2-vl", "qwen25-vl", "qwen3-vl"],
    ["f32", "f16"])
  func gguf(_ name: String, _ type: String) throws {
    let files = fixtures.appendingPathComponent("vision-gguf/\(name)")
    let mmproj = files.appendingPathComponent("mmproj-\(type).gguf")
    guard FileManager.default.fileExists(atPath: mmproj.path) else { return }
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.squint"
    var options = ConversionOptions()
    options.type = .f32
    options.jobs = 1
    try SquintConversion.convert(
      ConversionSources(files.appendingPathComponent("model.gguf").path, mmproj: mmproj.path), to: path,
      options: options)
    let model = try Model(path: path)
    let reference = try VisionFixture.named(name).model(.f32)
    // LLaVA's mmproj does not say whether images are padded or cut to a square; this one is a square.
    // A Qwen's does not say how large images become; this one becomes the smallest there is.
    let images =
      name.hasPrefix("llava") ? ["square.png"] : name.hasPrefix("qwen") ? ["tiny.png"] : ["wide.png", "square.png"]
    func logits(_ model: Model) throws -> [[Float]] {
      let images = try images.map { try model.image(VisionFixture.image($0)) }
      let prompt = try model.prompt(text: "The quick brown fox is", media: images)
      return try SquintTests.logits(
        model, prompt, SessionOptions(kvType: .f32, threads: 1, media: .once(images.map(\.size))))
    }
    let (ours, expected) = (try logits(model), try logits(reference))
    #expect(ours.count == expected.count)
    let largest = largestDifference(ours.flatMap { $0 }, expected.flatMap { $0 })
    #expect(largest < (type == "f32" && name == "idefics3" ? 1e-4 : 2e-2), "\(largest)")
    #expect(zip(ours, expected).map(cosine).min()! > 0.9999)
  }

  /// int8 weights and activations throughout lose less than a thousandth on the average of the cases.
  ///
  /// These models have weights so large, and rows so short, that the rounding of one of them may lose twice that; with the
  /// initialization of transformers all are above 0.9998 (tools/oracle/vision_int8.py).
  @Test func int8() throws {
    var means: [Double] = []
    for fixture in VisionFixture.all {
      let model = try fixture.model(.int8)
      for test in fixture.cases {
        let images = try test.images.map { try model.image(VisionFixture.image($0)) }
        let prompt = try model.prompt(text: fixture.text(test), media: images)
        let expected = try numpyRows(fixture.file(test, "logits.npy").path)
        let ours = try logits(
          model, prompt, SessionOptions(threads: 2, media: .once(images.map(\.size))))
        means.append(zip(ours, expected).map(cosine).reduce(0, +) / Double(expected.count))
        #expect(means.last! > 0.997, "\(fixture.name), \(test.name)")
      }
    }
    #expect(means.reduce(0, +) / Double(means.count) > 0.999)
  }

  private func embed(_ model: String, _ image: String, _ stage: Embedder.Stage) throws -> [Float] {
    var numbers: [Float] = []
    var shape: [Int] = []
    try Embedder(path: model, stage: stage, threads: 2).embed(VisionFixture.image(image)) {
      shape = $0
    } visit: {
      (_, _, part) throws(SquintError) in
      numbers += part
      return true
    }
    #expect(shape.reduce(1, *) == numbers.count)
    return numbers
  }
}

/// A model of Tests/Fixtures/vision, and its cases (README.md there).
struct VisionFixture: ModelFixture {
  struct Case: Decodable, Sendable {
    let name: String
    let images: [String]
  }

  /// A prompt with a video and perhaps images.
  struct Video: Decodable, Sendable {
    let name: String
    let video: String
    let images: [String]
  }

  let convert: FixtureConversion
  let cases: [Case]
  let videos: [Video]?
  var name = ""

  enum CodingKeys: CodingKey { case convert, cases, videos }

  static let root = fixtures.appendingPathComponent("vision")
  static let modality = "image"
  static let all = found()

  static func image(_ name: String) -> String { root.appendingPathComponent("pictures/\(name)").path }

  func file(_ test: Case, _ name: String) -> URL {
    Self.root.appendingPathComponent("\(self.name)/\(test.name)/\(name)")
  }
  func text(_ test: Case) throws -> String { try String(contentsOf: file(test, "prompt.txt"), encoding: .utf8) }
  func ids(_ test: Case) throws -> [Int32] {
    try JSONDecoder().decode([Int32].self, from: Data(contentsOf: file(test, "ids.json")))
  }
}
