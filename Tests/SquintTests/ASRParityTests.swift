import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// Our features and logits beside transformers' on a tiny Qwen3-ASR (tools/fixtures/asr.py), from the sound files on.
@Suite struct ASRParityTests {
  /// The same numbers in transformers' words and in those of the published folders.
  static let checkpoints = ["checkpoint", "checkpoint-published"]

  /// What takes the sounds' places: less than a chunk, some chunks and a part of one.
  @Test(arguments: checkpoints) func features(_ checkpoint: String) throws {
    let fixture = try ASRFixture(checkpoint, .f32)
    for test in fixture.cases where test.name == "short" || test.name == "middle" {
      let expected = try numpyNumbers(fixture.file(test, "features.npy"))
      var ours: [Float] = []
      try Embedder(path: fixture.path, .audio, stage: .projector, threads: 2).embed(fixture.sounds(test)[0]) {
        _ in
      } visit: {
        (_, _, part) throws(SquintError) in
        ours += part
        return true
      }
      #expect(ours.count == expected.count)
      #expect(largestDifference(ours, expected) < 1e-4, "\(test.name)")
    }
  }

  /// From the sounds to the logits of the last positions, which see all of them; another sound moves them by more than 1.
  @Test(arguments: checkpoints) func f32(_ checkpoint: String) throws {
    let fixture = try ASRFixture(checkpoint, .f32)
    let model = fixture.model
    for test in fixture.cases {
      let media = try fixture.sounds(test).map { (path) throws in try model.medium(.audio, path) }
      let prompt = try model.prompt(text: fixture.text(test), media: media)
      let expected = try numpyRows(fixture.file(test, "logits.npy").path)
      for (chunk, use) in [(128, SessionOptions.MediaUse.once(media.map(\.size))), (7, .always)] {
        // However long a sound is, chunks of the prompt need not be.
        if chunk == 7, test.name == "long" { continue }
        var options = SessionOptions(kvType: .f32, threads: 2, chunk: chunk, media: use)
        options.known = media.map(\.size)
        let ours = try logits(model, prompt, options).suffix(expected.count)
        #expect(
          largestDifference(ours.flatMap { $0 }, expected.flatMap { $0 }) < 1e-4, "\(test.name), chunks of \(chunk)")
      }
    }
  }

  /// A row for each 80 milliseconds, 13 for a whole second; half a second at least.
  @Test func rows() throws {
    let fixture = try ASRFixture("checkpoint", .f32)
    for (name, rows, units) in [
      ("short", [7], [1]), ("middle", [61], [1]), ("long", [403], [4]), ("two", [7, 61], [1, 1]),
    ] {
      let test = try #require(fixture.cases.first { $0.name == name })
      let media = try fixture.sounds(test).map { (path) throws in try fixture.model.medium(.audio, path) }
      #expect(media.map(\.rows) == rows)
      #expect(media.map(\.size.units) == units)
    }
  }

  /// The same bits whatever the threads are, and whether layers come from the disk.
  @Test func threadsAndBudgets() throws {
    let fixture = try ASRFixture("checkpoint-published", .int8)
    let test = try #require(fixture.cases.first { $0.name == "long" })
    let media = try fixture.sounds(test).map { (path) throws in try fixture.model.medium(.audio, path) }
    let prompt = try fixture.model.prompt(text: fixture.text(test), media: media)
    let options = SessionOptions(threads: 1, media: .once(media.map(\.size)))
    let expected = try logits(fixture.model, prompt, options).flatMap { $0 }
    for (threads, bytes, units) in [(3, nil, 0), (2, 0, 1), (2, 0, 3), (1, 20_000, 2)] as [(Int, Int?, Int)] {
      var options = options
      options.threads = threads
      let plan = try bytes.map { try SessionPlan(fixture.model, options, keeping: $0, rows: 64, units: units) }
      let session = try plan.map { try Session(fixture.model, $0) } ?? Session(fixture.model, options)
      try session.append(prompt)
      var ours: [Float] = []
      try session.forEachLogits { (_, logits) throws(SquintError) in ours += logits }
      #expect(ours == expected, "\(threads) threads, \(bytes.map { "\($0) bytes" } ?? "all weights") stay")
    }
  }

  /// int8 weights and activations throughout.
  @Test func int8() throws {
    let fixture = try ASRFixture("checkpoint", .int8)
    var cosines: [Double] = []
    for test in fixture.cases {
      let media = try fixture.sounds(test).map { (path) throws in try fixture.model.medium(.audio, path) }
      let prompt = try fixture.model.prompt(text: fixture.text(test), media: media)
      let expected = try numpyRows(fixture.file(test, "logits.npy").path)
      let ours = try logits(
        fixture.model, prompt, SessionOptions(threads: 2, media: .once(media.map(\.size)))
      ).suffix(expected.count)
      cosines += zip(ours, expected).map(cosine)
    }
    // Rows of 16 and 24 numbers, of which a group's scale has all: the rounding of one does not vanish in a sum.
    #expect(cosines.min()! > 0.99)
    #expect(cosines.reduce(0, +) / Double(cosines.count) > 0.998)
  }

  /// The chat template has no place for a question, and none is asked where the user asks none.
  @Test(arguments: checkpoints) func asksNothing(_ checkpoint: String) throws {
    let fixture = try ASRFixture(checkpoint, .f32)
    let model = fixture.model
    #expect(model.usualQuestion(about: .audio) == "")
    let sound = try model.medium(.audio, fixture.sounds(fixture.cases[0])[0])
    let prompt = try model.prompt([ChatMessage(role: "user", "", media: [sound])], media: [sound])
    #expect(prompt.notes.isEmpty)
    let text =
      "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
      + "<|im_start|>assistant\n"
    #expect(try prompt.tokens == model.prompt(text: text, media: [sound]).tokens)
  }
}

/// The model of Tests/Fixtures/asr, and its cases.
private struct ASRFixture {
  struct Sound: Decodable {
    let samples: Int
    let seed: Int
  }

  struct Case: Decodable {
    let name: String
    let sounds: [Sound]
  }

  private struct Cases: Decodable {
    let cases: [Case]
  }

  static let root = fixtures.appendingPathComponent("asr")

  let cases: [Case]
  let model: Model
  let path: String
  private let folder: TemporaryFolder

  init(_ checkpoint: String, _ type: ElementType) throws {
    cases = try JSONDecoder().decode(Cases.self, from: Data(contentsOf: Self.root.appendingPathComponent("cases.json")))
      .cases
    folder = try TemporaryFolder()
    var options = ConversionOptions()
    options.type = type
    options.jobs = 1
    path = folder.path + "/model.squint"
    try convert(source: Self.root.appendingPathComponent(checkpoint).path, to: path, options: options)
    model = try Model(path: path)
  }

  func file(_ test: Case, _ name: String) -> URL { Self.root.appendingPathComponent("\(test.name)/\(name)") }

  func text(_ test: Case) throws -> String { try String(contentsOf: file(test, "prompt.txt"), encoding: .utf8) }

  /// The files of the sounds.
  func sounds(_ test: Case) throws -> [String] {
    try test.sounds.map { sound in
      let path = folder.path + "/\(sound.samples).wav"
      try Self.wave(sound).write(to: URL(fileURLWithPath: path))
      return path
    }
  }

  /// As `sound` of tools/fixtures/asr.py makes it.
  private static func wave(_ sound: Sound) -> Data {
    func number<Number: FixedWidthInteger>(_ value: Number) -> Data {
      withUnsafeBytes(of: value.littleEndian) { Data($0) }
    }
    var samples = Data(capacity: 2 * sound.samples)
    var (state, phase) = (sound.seed, 0)
    for i in 0..<sound.samples {
      state = (state * 1_664_525 + 1_013_904_223) % (1 << 32)
      phase = (phase + 400 + 97 * sound.seed * (i / 1600 % 13)) % 65_536
      let triangle = abs(phase - 32_768) - 16_384
      let loudness = 1 + i / 4000 % 5
      // Towards minus infinity, as Python divides.
      let noise = ((state >> 24) - 128) * (i / 8000 % 3) * 8
      samples += number(Int16((triangle * loudness) >> 3 + noise))
    }
    let format =
      number(UInt16(1)) + number(UInt16(1)) + number(UInt32(16_000)) + number(UInt32(32_000))
      + number(UInt16(2)) + number(UInt16(16))
    let body =
      Data("WAVEfmt ".utf8) + number(UInt32(16)) + format + Data("data".utf8) + number(UInt32(samples.count)) + samples
    return Data("RIFF".utf8) + number(UInt32(body.count)) + body
  }
}
