import Foundation
import Squint
import SquintConversion
import SquintFile
import SquintMedia
import Testing

/// Our rows and logits beside the references' on the tiny models of tools/fixtures/series.py, from the files of series.
@Suite struct SeriesParityTests {
  @Test func allArchitecturesAreThere() {
    let names = SeriesFixture.all.map(\.name)
    #expect(
      names == ["chatts-qwen2", "chatts-qwen2-positions", "chatts-qwen3", "chatts-qwen3-index", "interns1-pro"])
  }

  @Test(arguments: SeriesFixture.all) func features(_ fixture: SeriesFixture) throws {
    let (path, folder) = try fixture.convert(.f32)
    defer { withExtendedLifetime(folder) {} }
    for test in fixture.cases {
      let expected = try numpyNumbers(fixture.file(test, "features.npy"))
      var ours: [Float] = []
      for threads in [1, 2] {
        var numbers: [Float] = []
        for file in test.files {
          try Embedder(path: path, .series, stage: .projector, threads: threads)
            .embed(SeriesFixture.series(file), test.limits) { _ in
            } visit: {
              (_, _, part) throws(SquintError) in
              numbers += part
              return true
            }
        }
        // The same bits, whatever the threads.
        #expect(ours.isEmpty || ours == numbers)
        ours = numbers
      }
      #expect(ours.count == expected.count)
      #expect(largestDifference(ours, expected) < 1e-4, "\(test.name)")
    }
  }

  /// From the files to the logits of the last positions; in another order the rows move them by half.
  @Test(arguments: SeriesFixture.all) func f32(_ fixture: SeriesFixture) throws {
    let model = try fixture.model(.f32)
    for test in fixture.cases {
      let media = try test.media(model)
      let prompt = try model.prompt(text: fixture.text(test), media: media)
      let ids = try fixture.ids(test)
      #expect(prompt.count == ids.count)
      for (ours, theirs) in zip(prompt.tokens, ids) {
        #expect(ours == theirs || ours == Prompt.featureToken && (theirs == -1 || theirs == model.token(for: .series)))
      }
      let expected = try numpyRows(fixture.file(test, "logits.npy").path).flatMap { $0 }
      for chunk in [512, 7] {
        let options = SessionOptions(
          context: 512, kvType: .f32, threads: 2, chunk: chunk, media: .once(media.map(\.size)))
        let ours = try logits(model, prompt, options).suffix(12).flatMap { $0 }
        #expect(ours.count == expected.count)
        #expect(largestDifference(ours, expected) < 1e-4, "\(test.name), chunks of \(chunk)")
      }
      guard !ids.contains(-1) else { continue }
      #expect(try model.prompt(tokens: ids, media: media).tokens == prompt.tokens)
      // ChatTS's own placeholder is a place, too.
      let own = try fixture.text(test).replacingOccurrences(of: "<series>", with: "<ts><ts/>")
      #expect(try model.prompt(text: own, media: media).tokens == prompt.tokens)
    }
  }

  /// Series seen in conversations, and with little memory: what is planned for the longest holds all, and the bits stay.
  @Test(arguments: SeriesFixture.all) func plans(_ fixture: SeriesFixture) throws {
    let model = try fixture.model(.f32)
    let test = fixture.cases[0]
    let media = try test.media(model)
    let prompt = try model.prompt(text: fixture.text(test), media: media)
    func last(_ options: SessionOptions) throws -> [Float] { try logits(model, prompt, options).last ?? [] }
    var options = SessionOptions(context: 512, kvType: .f32, threads: 2, media: .once(media.map(\.size)))
    let expected = try last(options)
    // The rows of a prompt may be cut otherwise: what is planned for the longest series has another step.
    options.media = .always
    options.known = media.map(\.size)
    let planned = try last(options)
    #expect(largestDifference(planned, expected) < 1e-5)
    options.threads = 1
    #expect(try last(options) == planned)
  }

  @Test func int8() throws {
    for fixture in SeriesFixture.all {
      let model = try fixture.model(.int8)
      for test in fixture.cases {
        let media = try test.media(model)
        let prompt = try model.prompt(text: fixture.text(test), media: media)
        let expected = try numpyRows(fixture.file(test, "logits.npy").path)
        let ours = try logits(
          model, prompt, SessionOptions(context: 512, threads: 2, media: .once(media.map(\.size)))
        ).suffix(12)
        let mean = zip(ours, expected).map(cosine).reduce(0, +) / 12
        #expect(mean > 0.99, "\(fixture.name), \(test.name): \(mean)")
      }
    }
  }

  /// A long series has many patches before the first layer, among which it can be interrupted.
  @Test func longSeriesAreInterrupted() throws {
    let (path, folder) = try SeriesFixture.named("interns1-pro").convert(.f32)
    let file = folder.path + "/long.csv"
    let numbers = (0..<20_000).map { "\($0 % 17)" }.joined(separator: "\n")
    try Data(numbers.utf8).write(to: URL(fileURLWithPath: file))
    var limits = MediaLimits()
    limits.pointsPerSecond = 1e-6
    var asked = 0
    try Embedder(path: path, .series, stage: .encoder, threads: 1).embed(file, limits) { _ in
    } progress: { step in
      if case .encode = step { asked += 1 }
    } visit: { (_, _, _) throws(SquintError) in
      true
    }
    // Some 10,000 patches of 4 points, of which 80 go through their layer at a time.
    #expect(asked > 120)
  }

  @Test func refusals() throws {
    let model = try SeriesFixture.named("chatts-qwen2-positions").model(.f32)
    let long = caught { _ = try model.medium(.series, SeriesFixture.series("long.csv")) }
    #expect(long?.kind == .badData)
    #expect(
      long?.message.hasSuffix(
        "long.csv: the series has 150 points, and the model takes 64; give a part of it, or every second point") == true
    )
    let rated = caught {
      var limits = MediaLimits()
      limits.pointsPerSecond = 10
      _ = try model.medium(.series, SeriesFixture.series("wave.csv"), limits)
    }
    #expect(rated?.kind == .usage)
    let image = caught { _ = try model.image(SeriesFixture.series("wave.csv")) }
    #expect(image?.kind == .usage)
    // Of several columns the longest counts, and a file with times says so.
    let whole = try SeriesFixture.named("chatts-qwen3").model(.f32)
    let columns = try whole.medium(.series, SeriesFixture.series("columns.csv"))
    #expect(columns.size.units == 3)
    #expect(columns.notes.count == 1)
    let intern = try SeriesFixture.named("interns1-pro").model(.f32)
    #expect(caught { _ = try intern.medium(.series, SeriesFixture.series("columns.csv")) }?.kind == .badData)
    var fast = MediaLimits()
    fast.pointsPerSecond = 1e6
    #expect(
      caught { _ = try intern.medium(.series, SeriesFixture.series("wave.csv"), fast) }?.message.contains("321") == true
    )
  }
}

/// A model of Tests/Fixtures/series, and its cases.
struct SeriesFixture: ModelFixture {
  struct Case: Decodable, Sendable {
    let name: String
    let files: [String]
    let rate: Double?

    var limits: MediaLimits {
      var limits = MediaLimits()
      limits.pointsPerSecond = rate
      return limits
    }

    func media(_ model: Model) throws -> [Medium] {
      try files.map { try model.medium(.series, SeriesFixture.series($0), limits) }
    }
  }

  let convert: FixtureConversion
  let cases: [Case]
  var name = ""

  enum CodingKeys: CodingKey { case convert, cases }

  static let root = fixtures.appendingPathComponent("series")
  static let modality = "series"
  static let all = found()

  static func series(_ name: String) -> String { root.appendingPathComponent("files/\(name)").path }

  func file(_ test: Case, _ name: String) -> URL {
    Self.root.appendingPathComponent("\(self.name)/\(test.name)/\(name)")
  }
  func text(_ test: Case) throws -> String { try String(contentsOf: file(test, "prompt.txt"), encoding: .utf8) }
  func ids(_ test: Case) throws -> [Int32] {
    try JSONDecoder().decode([Int32].self, from: Data(contentsOf: file(test, "ids.json")))
  }
}
