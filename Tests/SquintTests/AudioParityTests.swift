import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// Our rows and logits beside transformers' on the tiny models of tools/fixtures/audio.py, from the sound files.
@Suite struct AudioParityTests {
  /// Sums in another order, and mels that differ by 1e-6; another sound moves rows by 1 and logits by more than 1.
  @Test(arguments: AudioFixture.all) func f32(_ fixture: AudioFixture) throws {
    let (path, folder) = try fixture.convert(.f32)
    let model = try Model(path: path)
    for test in fixture.cases {
      let sounds = try test.sounds.map { try AudioFixture.write($0, in: folder) }
      let expectedRows = try numpyNumbers(fixture.file("\(test.name)-rows.npy"))
      let rows = try sounds.flatMap { try self.rows(path, $0) }
      let ours = stride(from: 0, to: rows.count, by: fixture.step).flatMap { rows[$0] }
      #expect(ours.count == expectedRows.count)
      #expect(largestDifference(ours, expectedRows) < 1e-4, "\(test.name)")

      let media = try sounds.map { try model.medium(.audio, $0) }
      let prompt = try model.prompt(text: test.prompt, media: media)
      #expect(prompt.count == test.ids.count)
      for (ours, theirs) in zip(prompt.tokens, test.ids) {
        #expect(ours == theirs || ours == Prompt.featureToken && theirs == -1)
      }
      let expected = try numpyRows(fixture.file("\(test.name)-logits.npy").path)
      for (chunk, use) in [(128, SessionOptions.MediaUse.once(media.map(\.size))), (7, .always)] {
        let options = SessionOptions(kvType: .f32, threads: 2, chunk: chunk, media: use)
        let all = try logits(model, prompt, options)
        #expect(all.count == test.ids.count)
        let ours = test.positions.flatMap { all[$0] }
        #expect(largestDifference(ours, expected.flatMap { $0 }) < 1e-4, "\(test.name), chunks of \(chunk)")
      }
    }
  }

  /// int8 weights and activations beside f32.
  @Test(arguments: AudioFixture.all) func int8(_ fixture: AudioFixture) throws {
    let (path, folder) = try fixture.convert(.int8)
    let test = fixture.cases[0]
    let expected = try numpyRows(fixture.file("\(test.name)-rows.npy").path)
    let rows = try test.sounds.flatMap { try self.rows(path, AudioFixture.write($0, in: folder)) }
    for (index, row) in expected.enumerated() { #expect(cosine(rows[index * fixture.step], row) > 0.995) }
  }

  /// Weights that are read for each pass, and another number of threads, change no bit.
  @Test(arguments: [ElementType.f32, .int8]) func streamed(_ type: ElementType) throws {
    let fixture = AudioFixture.named("qwen2-audio")
    let (path, folder) = try fixture.convert(type)
    let sound = try AudioFixture.write("middle", in: folder)
    let rows = try self.rows(path, sound)
    #expect(rows.count == 117)
    let model = try Model(path: path)
    let medium = try model.medium(.audio, sound)
    let prompt = try model.prompt(text: "The quick <audio> fox", media: [medium])
    var kept: [[Float]]?
    for (threads, keeping) in [(1, 1 << 30), (2, 1 << 30), (1, 0), (2, 20_000)] {
      let options = SessionOptions(kvType: .f32, threads: threads, media: .once([medium.size]))
      let session = try Session(model, SessionPlan(model, options, keeping: keeping, rows: 128, units: 1))
      try session.append(prompt)
      var ours: [[Float]] = []
      try session.forEachLogits { (_, logits) throws(SquintError) in ours.append(Array(logits)) }
      #expect(ours == kept ?? ours, "\(threads) threads, \(keeping) bytes stay")
      kept = ours
    }
    #expect(try self.rows(path, sound, threads: 1) == rows)
  }

  /// Of a sound of one frame there is one row, of which no pair is made: nobody could hear it.
  @Test func shortestSound() throws {
    let (path, folder) = try AudioFixture.named("qwen2-audio").convert(.f32)
    let sound = folder.path + "/click.wav"
    try AudioFixture.wave([1000, -1000]).write(to: URL(fileURLWithPath: sound))
    let model = try Model(path: path)
    let error = caught { _ = try model.medium(.audio, sound) }
    #expect(
      error?.message.contains("click.wav: the sound becomes no token: it is too short; give one of at least") == true)
  }

  /// The rows behind the projector.
  private func rows(_ model: String, _ sound: String, threads: Int = 2) throws -> [[Float]] {
    var numbers: [Float] = []
    var shape: [Int] = []
    try Embedder(path: model, .audio, stage: .projector, threads: threads).embed(sound) {
      shape = $0
    } visit: { (_, _, part) throws(SquintError) in
      numbers += part
      return true
    }
    let width = shape.last!
    #expect(shape.reduce(1, *) == numbers.count)
    return stride(from: 0, to: numbers.count, by: width).map { Array(numbers[$0..<$0 + width]) }
  }
}

/// A model of Tests/Fixtures/audio, and its cases (tools/fixtures/audio.py).
struct AudioFixture: ModelFixture {
  struct Case: Decodable, Sendable {
    let name: String
    let prompt: String
    let sounds: [String]
    /// -1 for the rows of sounds.
    let ids: [Int32]
    /// Those whose logits are stored.
    let positions: [Int]
  }

  let convert: FixtureConversion
  /// Each so many rows one is stored.
  let step: Int
  let cases: [Case]
  var name = ""

  enum CodingKeys: CodingKey { case convert, step, cases }

  static let root = fixtures.appendingPathComponent("audio")
  static let modality = "audio"
  static let all = found()

  // MARK: Sounds

  private static let rate = 16_000
  private static let seconds = ["short": 0.3, "middle": 4.7, "long": 31.0]

  /// A tone that rises, again and again louder, and noise (`sound` of tools/fixtures/audio.py).
  static func samples(_ name: String) -> [Int16] {
    let count = Int(seconds[name]! * Double(rate))
    var state = 12_345 + count
    return (0..<count).map { n in
      state = (state * 1_664_525 + 1_013_904_223) & 0xFFFF_FFFF
      let phase = (300 * n + n * n / 640) & 0xFFFF
      let tone = abs(phase - 32_768) - 16_384
      // As Python divides.
      let louder = (tone * ((n >> 11 & 7) + 1)) >> 4
      return Int16(louder + (state >> 16 & 0x3FF) - 512)
    }
  }

  /// Writes the sound `name` as a WAV file; returns its path.
  static func write(_ name: String, in folder: TemporaryFolder) throws -> String {
    let path = "\(folder.path)/\(name).wav"
    try wave(samples(name)).write(to: URL(fileURLWithPath: path))
    return path
  }

  /// 16 bits, one channel.
  static func wave(_ samples: [Int16]) -> Data {
    func bytes(_ value: Int, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
    let size = 2 * samples.count
    var data: [UInt8] = Array("RIFF".utf8)
    data += bytes(36 + size, 4)
    data += Array("WAVEfmt ".utf8)
    for (value, count) in [(16, 4), (1, 2), (1, 2), (rate, 4), (2 * rate, 4), (2, 2), (16, 2)] {
      data += bytes(value, count)
    }
    data += Array("data".utf8)
    data += bytes(size, 4)
    for sample in samples { data += bytes(Int(sample), 2) }
    return Data(data)
  }
}
