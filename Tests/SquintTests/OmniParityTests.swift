import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// Our logits beside transformers' on the tiny Qwen2.5-Omni of tools/fixtures/omni.py: from images, frames and sounds in files.
@Suite struct OmniParityTests {
  /// The talker and token2wav are left out, and named.
  @Test func namesWhatIsLeftOut() throws {
    let report = try planConversion(source: OmniFixture.checkpoint)
    #expect(report.notes.contains { $0.contains("talker (4 tensors), token2wav (2 tensors)") })
    #expect(report.unmapped.isEmpty)
    let (path, folder) = try OmniFixture.convert(.f32)
    defer { withExtendedLifetime(folder) {} }
    #expect(try ModelFile(path: path).metadata["general.dropped"] == .strings(["talker", "token2wav"]))
  }

  /// The prompt is what the model's processor makes, and the logits are transformers' within the rounding of sums, however the prompt is
  /// cut.
  @Test(arguments: OmniFixture.all.cases) func f32(_ test: OmniFixture.Case) throws {
    let model = try OmniFixture.model(.f32)
    let (media, folder) = try test.open(model)
    defer { withExtendedLifetime(folder) {} }
    let ids = try test.ids()
    let prompt = try model.prompt(tokens: ids, media: media)
    let expanded = try model.text(ids, skipSpecialTokens: false)
    for text in [test.prompt, test.marked, expanded] {
      let written = try model.prompt(text: text, media: media, addSpecialTokens: false)
      #expect(written.tokens == prompt.tokens, "\(text)")
      #expect(written.commonPrefix(with: prompt) == prompt.count)
    }
    let expected = try numpyRows(test.file("logits.npy").path)
    for chunk in [256, 7] {
      var options = SessionOptions(
        context: ids.count, kvType: .f32, threads: 2, chunk: chunk, media: .once(media.map(\.size)))
      #expect(try test.difference(logits(model, prompt, options), expected) < 1e-4, "chunks of \(chunk)")
      guard chunk < 256, ids.count < 300 else { continue }
      options.media = .always
      options.known = media.map(\.size)
      options.context = nil
      #expect(try test.difference(logits(model, prompt, options), expected) < 1e-4, "media at any time")
    }
  }

  /// A sound that is too short for a token says how long one must be; one of that length is long enough.
  @Test func shortSounds() throws {
    let model = try OmniFixture.model(.f32)
    let folder = try TemporaryFolder()
    /// A WAV file of so many samples of silence, 16,000 a second.
    func wav(_ samples: Int) throws -> String {
      func bytes(_ value: Int, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(value >> (8 * $0) & 0xFF) } }
      var file = Array("RIFF".utf8) + bytes(36 + 2 * samples, 4) + Array("WAVEfmt ".utf8) + bytes(16, 4)
      file += bytes(1, 2) + bytes(1, 2) + bytes(16_000, 4) + bytes(32_000, 4) + bytes(2, 2) + bytes(16, 2)
      file += Array("data".utf8) + bytes(2 * samples, 4) + [UInt8](repeating: 0, count: 2 * samples)
      let path = folder.path + "/\(samples).wav"
      try Data(file).write(to: URL(fileURLWithPath: path))
      return path
    }
    let message = caught { _ = try model.medium(.audio, wav(160)) }?.message ?? ""
    #expect(message.contains("the sound becomes no token: it is too short; give one of at least 21 ms"))
    #expect(try model.medium(.audio, wav(16 * 21)).rows == 1)
  }

  /// However much of the weights stays, and however many units go through an encoder at a time, no bit changes.
  @Test(arguments: [ElementType.f32, .int8]) func budgets(_ type: ElementType) throws {
    let model = try OmniFixture.model(type)
    let test = OmniFixture.named("everything")
    let (media, folder) = try test.open(model)
    defer { withExtendedLifetime(folder) {} }
    let prompt = try model.prompt(tokens: test.ids(), media: media)
    func options(threads: Int) -> SessionOptions {
      SessionOptions(context: prompt.count, threads: threads, media: .once(media.map(\.size)))
    }
    let expected = try logits(model, prompt, options(threads: 2))
    #expect(try logits(model, prompt, options(threads: 1)) == expected)
    // Attention takes as many rows together, whatever the prompt is cut into (ResidencyTests).
    for (bytes, rows, units) in [(0, 64, 1), (10_000, 128, 2)] {
      let session = try Session(
        model, SessionPlan(model, options(threads: 2), keeping: bytes, rows: rows, units: units))
      try session.append(prompt)
      var ours: [[Float]] = []
      try session.forEachLogits { (_, logits) throws(SquintError) in ours.append(Array(logits)) }
      #expect(session.bytesRead > 0)
      #expect(ours == expected, "\(bytes) bytes stay")
    }
  }

  /// int8 weights and activations throughout.
  @Test func int8() throws {
    let model = try OmniFixture.model(.int8)
    var means: [Double] = []
    for test in OmniFixture.all.cases {
      let (media, folder) = try test.open(model)
      defer { withExtendedLifetime(folder) {} }
      let prompt = try model.prompt(tokens: test.ids(), media: media)
      let expected = try numpyRows(test.file("logits.npy").path)
      let ours = try test.sampled(
        logits(
          model, prompt, SessionOptions(context: prompt.count, threads: 2, media: .once(media.map(\.size)))))
      means.append(zip(ours, expected).map(cosine).reduce(0, +) / Double(expected.count))
      #expect(means.last! > 0.997, "\(test.name)")
    }
    #expect(means.reduce(0, +) / Double(means.count) > 0.998)
  }

  /// A conversation that goes on behind a video with its sound, or otherwise from within it, is as if it had begun so.
  @Test func conversations() throws {
    let model = try OmniFixture.model(.f32)
    let test = OmniFixture.named("heard")
    let (media, folder) = try test.open(model)
    defer { withExtendedLifetime(folder) {} }
    let prompt = try model.prompt(tokens: test.ids(), media: media)
    var options = SessionOptions(context: 400, kvType: .f32, threads: 1, media: .always)
    options.known = media.map(\.size)
    func fresh(_ prompt: Prompt) throws -> [Float] { try logits(model, prompt, options).last! }
    let session = try Session(model, options)
    func continued(_ prompt: Prompt) throws -> [Float] {
      try session.replace(with: prompt)
      var last: [Float] = []
      try session.forEachLogits { (_, logits) throws(SquintError) in last = Array(logits) }
      return last
    }
    #expect(try largestDifference(continued(prompt), fresh(prompt)) < 1e-4)
    let first = try #require(prompt.tokens.firstIndex(of: Prompt.featureToken))
    let end = try #require(prompt.tokens.lastIndex(of: Prompt.featureToken)) + 1
    // Up to what begins the sound, whose position is another without it; into the second turn; up to the first of what ends it.
    for (kept, more) in [(first, [5, 6, 7]), (first + 40, [8, 9]), (end + 1, [9, 10, 11])] as [(Int, [Int32])] {
      var other = Prompt()
      other.append(prompt)
      other.truncate(to: kept)
      other.append(Prompt(tokens: more))
      #expect(try largestDifference(continued(other), fresh(other)) < 1e-4, "\(kept) positions")
      #expect(try largestDifference(continued(prompt), fresh(prompt)) < 1e-4, "behind \(kept) positions")
    }
    let plain = Prompt(tokens: Array(prompt.tokens[..<first]) + [5, 6])
    #expect(prompt.commonPrefix(with: plain) == first - 1)
    #expect(try largestDifference(continued(plain), fresh(plain)) < 1e-4)
  }

  /// Without its sound a video is what it is without one.
  @Test func unheard() throws {
    let model = try OmniFixture.model(.f32)
    let (media, folder) = try OmniFixture.named("heard").open(model)
    defer { withExtendedLifetime(folder) {} }
    var limits = MediaLimits()
    limits.hearsVideos = false
    let unheard = try model.medium(.video, media[0].path, limits)
    #expect(media[0].sound != nil && unheard.sound == nil)
    let test = OmniFixture.named("video")
    let prompt = try model.prompt(tokens: test.ids(), media: [unheard])
    let options = SessionOptions(kvType: .f32, threads: 1, media: .once([unheard.size]))
    #expect(try test.difference(logits(model, prompt, options), numpyRows(test.file("logits.npy").path)) < 1e-4)
    // Two sounds beside the frames: which is it?
    try Data().write(to: URL(fileURLWithPath: media[0].path + "/other.flac"))
    let error = try #require(caught { _ = try model.medium(.video, media[0].path) })
    #expect(error.kind == .usage && error.message.contains("2 sounds beside the frames"))
  }
}

/// The tiny Qwen2.5-Omni in Tests/Fixtures/omni, and its cases.
struct OmniFixture: Decodable, Sendable {
  struct Sound: Decodable, Sendable {
    let seconds: Double
    let number: Int
  }

  struct Video: Decodable, Sendable {
    let seconds: Double?
    let number: Int?
    let rate: Double?
  }

  struct Item: Decodable, Sendable {
    let image: String?
    let sound: Sound?
    let video: Video?
  }

  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let prompt: String
    let media: [Item]

    var testDescription: String { name }
  }

  /// Of how many positions, and of how many tokens of the vocabulary, the logits of one are there.
  let step: Int
  let columns: Int
  let cases: [Case]

  static let root = fixtures.appendingPathComponent("omni")
  static let checkpoint = root.appendingPathComponent("checkpoint").path
  static let all = try! JSONDecoder().decode(
    OmniFixture.self, from: Data(contentsOf: root.appendingPathComponent("cases.json")))

  static func named(_ name: String) -> Case { all.cases.first { $0.name == name }! }

  static func convert(_ type: ElementType) throws -> (path: String, TemporaryFolder) {
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.squint"
    var options = ConversionOptions()
    options.type = type
    options.jobs = 1
    try SquintConversion.convert(source: checkpoint, to: path, options: options)
    return (path, folder)
  }

  /// The same, opened. The mapping outlives the file.
  static func model(_ type: ElementType) throws -> Model {
    let (path, folder) = try convert(type)
    defer { withExtendedLifetime(folder) {} }
    return try Model(path: path)
  }
}

extension OmniFixture.Case {
  func file(_ name: String) -> URL { OmniFixture.root.appendingPathComponent("\(self.name)/\(name)") }

  func ids() throws -> [Int32] { try JSONDecoder().decode([Int32].self, from: Data(contentsOf: file("ids.json"))) }

  /// The prompt with our markers in the place of the model's own.
  var marked: String {
    [("vision", "IMAGE", "<image>"), ("vision", "VIDEO", "<video>"), ("audio", "AUDIO", "<audio>")].reduce(prompt) {
      $0.replacingOccurrences(of: "<|\($1.0)_bos|><|\($1.1)|><|\($1.0)_eos|>", with: $1.2)
    }
  }

  /// Its media, whose files are there as long as the folder.
  func open(_ model: Model) throws -> ([Medium], TemporaryFolder) {
    let folder = try TemporaryFolder()
    var media: [Medium] = []
    for (index, item) in self.media.enumerated() {
      let path = "\(folder.path)/\(index)"
      if let image = item.image {
        media.append(try model.image(VisionFixture.image(image)))
      } else if let sound = item.sound {
        try wave(sound.seconds, sound.number).write(to: URL(fileURLWithPath: path + ".wav"))
        media.append(try model.medium(.audio, path + ".wav"))
      } else if let video = item.video {
        try FileManager.default.copyItem(
          at: OmniFixture.root.appendingPathComponent("frames"), to: URL(fileURLWithPath: path))
        if let seconds = video.seconds, let number = video.number {
          try wave(seconds, number).write(to: URL(fileURLWithPath: path + "/sound.wav"))
        }
        media.append(try model.medium(.video, path, MediaLimits(framesPerSecond: video.rate)))
      }
    }
    return (media, folder)
  }

  /// Those of `logits` that the fixture has.
  func sampled(_ logits: [[Float]]) -> [[Float]] {
    let (step, columns) = (OmniFixture.all.step, OmniFixture.all.columns)
    return stride(from: 0, to: logits.count, by: step).map { row in
      stride(from: 0, to: logits[row].count, by: columns).map { logits[row][$0] }
    }
  }

  func difference(_ logits: [[Float]], _ expected: [[Float]]) throws -> Float {
    let ours = sampled(logits)
    #expect(ours.count == expected.count && ours[0].count == expected[0].count)
    return largestDifference(ours.flatMap { $0 }, expected.flatMap { $0 })
  }
}

/// A WAV file of 16,000 samples a second: the formula of tools/fixtures/omni.py.
private func wave(_ seconds: Double, _ number: Int) -> Data {
  AudioFixture.wave(
    (0..<Int((seconds * 16_000).rounded())).map { i in
      let phase = i * (300 * number + (i >> 5)) & 65_535
      let level = (phase < 32_768 ? phase : 65_535 - phase) - 16_384
      return Int16((level * (4 + (i >> 10) * number % 12)) >> 4)
    })
}
