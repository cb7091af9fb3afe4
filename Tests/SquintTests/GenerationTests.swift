import Foundation
import Squint
import SquintCompute
import Testing

@Suite struct GenerationTests {
  private var decoder: JSONDecoder {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return decoder
  }

  struct BeamCase: Decodable {
    let model: String
    let beams: Int
    let length: Int
    let stops: [Int32]
    let answer: [Int32]
  }

  /// Beam search finds what transformers' finds (tools/fixtures/generation.py).
  @Test func beamSearch() throws {
    let cases = try decoder.decode(
      [BeamCase].self, from: Data(contentsOf: fixtures.appendingPathComponent("generation/beams.json")))
    for (name, cases) in Dictionary(grouping: cases, by: \.model) {
      let model = try model(name, .f32)
      for test in cases {
        let session = try Session(model, SessionOptions(kvType: .f32, threads: 1, beams: test.beams))
        try session.append(promptIDs(name))
        let answer = try session.bestBeam(length: test.length, stops: Set(test.stops))
        #expect(answer == test.answer, "\(name), \(test.beams) beams, \(test.length) tokens, stops \(test.stops)")
      }
    }
  }

  struct SamplingCase: Decodable {
    let logits: [Float]
    let seen: [Int32]
    let repetitionPenalty: Float
    let temperature: Float
    let topK: Int
    let topP: Float
    let minP: Float
    let probabilities: [String: Double]
  }

  /// Sampling draws from the distribution that transformers' processors leave.
  @Test func sampling() throws {
    let cases = try decoder.decode(
      [SamplingCase].self, from: Data(contentsOf: fixtures.appendingPathComponent("generation/sampling.json")))
    #expect(cases.count == 36)
    for test in cases {
      let options = SamplingOptions(
        temperature: test.temperature, topK: test.topK, topP: test.topP, minP: test.minP,
        repetitionPenalty: test.repetitionPenalty, seed: 1)
      let draws = 20_000
      let counts = try sampleCounts(test.logits, seen: test.seen, options, draws: draws)
      #expect(Set(counts.keys).isSubset(of: Set(test.probabilities.keys.map { Int32($0)! })))
      for (token, probability) in test.probabilities {
        let share = Double(counts[Int32(token)!] ?? 0) / Double(draws)
        // Five standard deviations of a binomial share, and five draws more for the rare tokens, whose counts are not
        // normally distributed: fewer than one false alarm in a million.
        let deviation = (probability * (1 - probability) / Double(draws)).squareRoot()
        #expect(abs(share - probability) <= 5 * deviation + 5 / Double(draws))
      }
    }
  }

  @Test func theSameSeedGivesTheSameAnswer() throws {
    let model = try model("llama-gqa", .int8)
    func answer(_ seed: UInt64) throws -> [Int32] {
      let session = try Session(model, SessionOptions(threads: 2))
      try session.append(promptIDs("llama-gqa"))
      var generator = Generator(
        session, GenerationOptions(sampling: SamplingOptions(temperature: 1, seed: seed), maxTokens: 30))
      var ids: [Int32] = []
      while let token = try generator.next() { ids += [token.id].compactMap { $0 } }
      return ids
    }
    #expect(try answer(3) == answer(3))
    #expect(try answer(3) != answer(4))
  }

  @Test func greedyIsTransformersGreedy() throws {
    struct Expected: Decodable { let greedyIds: [Int32] }
    for name in ParityTests.checkpoints {
      let expected = try decoder.decode(
        Expected.self, from: Data(contentsOf: fixtures.appendingPathComponent("models/\(name)/expected.json")))
      let session = try Session(model(name, .f32), SessionOptions(kvType: .f32, threads: 1))
      try session.append(promptIDs(name))
      var generator = Generator(
        session, GenerationOptions(maxTokens: expected.greedyIds.count, stopsAtStopTokens: false))
      var ids: [Int32] = []
      while let token = try generator.next() { ids += [token.id].compactMap { $0 } }
      #expect(ids == expected.greedyIds, "\(name)")
      #expect(generator.finishReason == .length)
    }
  }

  /// A conversation goes on where it was: nothing is computed twice, and the answer is that of a fresh session.
  @Test(arguments: [("llama-gqa", KVType.f32), ("qwen2-tied", .int8)])
  func replacingKeepsWhatIsCommon(_ name: String, _ kvType: KVType) throws {
    let model = try model(name, .f32)
    let ids = try promptIDs(name)
    let session = try Session(model, SessionOptions(kvType: kvType, threads: 1))
    try session.append(Array(ids.prefix(30)))
    var first = Generator(session, GenerationOptions(maxTokens: 4, stopsAtStopTokens: false))
    while try first.next() != nil {}
    #expect(session.tokens.count == 34)
    try session.replace(with: ids)
    #expect(session.cachedCount == 30)
    var second = Generator(session, GenerationOptions(maxTokens: 8, stopsAtStopTokens: false))
    var answer: [Int32] = []
    while let token = try second.next() { answer += [token.id].compactMap { $0 } }

    let fresh = try Session(model, SessionOptions(kvType: kvType, threads: 1))
    try fresh.append(ids)
    var generator = Generator(fresh, GenerationOptions(maxTokens: 8, stopsAtStopTokens: false))
    var expected: [Int32] = []
    while let token = try generator.next() { expected += [token.id].compactMap { $0 } }
    #expect(answer == expected)
  }

  /// However an answer ends, the conversation is the prompt and the tokens that were handed out, each once.
  @Test func theAnswerJoinsTheConversation() throws {
    let model = try model("llama-gqa", .f32)
    let ids = try promptIDs("llama-gqa")
    func answer(_ options: GenerationOptions, cancelAt: Int = .max) throws -> (
      tokens: [Int32], session: Session, reason: FinishReason?
    ) {
      let session = try Session(model, SessionOptions(kvType: .f32, threads: 1))
      try session.append(ids)
      var generator = Generator(session, options)
      var tokens: [Int32] = []
      while let token = try generator.next() {
        tokens += [token.id].compactMap { $0 }
        if tokens.count == cancelAt { session.cancellation.cancel() }
      }
      return (tokens, session, generator.finishReason)
    }
    for options in [
      GenerationOptions(maxTokens: 0), GenerationOptions(maxTokens: 1, stopsAtStopTokens: false),
      GenerationOptions(maxTokens: 9, stopsAtStopTokens: false),
    ] {
      let (tokens, session, _) = try answer(options)
      #expect(tokens.count == options.maxTokens)
      #expect(session.tokens == ids + tokens)
    }
    let cancelled = try answer(GenerationOptions(stopsAtStopTokens: false), cancelAt: 3)
    #expect(cancelled.session.tokens == ids + cancelled.tokens)
    // So hot that all tokens are about equally probable: in some of these answers the stop token comes.
    let hot = try (0..<8).map { seed in
      try answer(GenerationOptions(sampling: SamplingOptions(temperature: 1000, seed: seed), maxTokens: 60))
    }
    #expect(hot.contains { $0.reason == .stop && $0.tokens.count > 0 })
    for (tokens, session, _) in hot { #expect(session.tokens == ids + tokens) }
  }

  @Test func anAnswerIsAnAsyncSequenceThatCancels() async throws {
    let model = try model("llama-gqa", .int4)
    let session = try Session(model, SessionOptions(threads: 1))
    try session.append(promptIDs("llama-gqa"))
    var count = 0
    for try await _ in session.generate(GenerationOptions(maxTokens: 20, stopsAtStopTokens: false)) {
      count += 1
      if count == 5 { session.cancellation.cancel() }
    }
    #expect(count == 5)
  }

  @Test func theContextEndsTheAnswer() throws {
    let model = try model("llama-gqa", .int8)
    let ids = try promptIDs("llama-gqa")
    let session = try Session(model, SessionOptions(context: ids.count + 3, threads: 1))
    try session.append(ids)
    var generator = Generator(session, GenerationOptions(stopsAtStopTokens: false))
    var count = 0
    while try generator.next() != nil { count += 1 }
    #expect(count == 3)
    #expect(session.tokens.count == session.context)
    #expect(generator.finishReason == .length)
    #expect(caught { try session.append(ids) }?.kind == .usage)
  }

  @Test func anEmptyPromptIsRefused() throws {
    let session = try Session(model("llama-gqa", .int8), SessionOptions(threads: 1))
    var generator = Generator(session)
    #expect(caught { _ = try generator.next() }?.kind == .usage)
  }

  @Test func stopTextsAreFoundAcrossPieces() {
    func run(_ pieces: [String], stop: [String]) -> (String, Bool) {
      var stops = StopTexts(stop)
      var text = ""
      for piece in pieces { text += stops.add(piece) }
      let isFound = stops.isFound
      return (text + stops.finish(), isFound)
    }
    #expect(run(["Hello", " wor", "ld"], stop: ["xyz"]) == ("Hello world", false))
    #expect(run(["Hello", " wor", "ld"], stop: ["o w"]) == ("Hell", true))
    #expect(run(["a", "a", "a", "b", "c"], stop: ["aab"]) == ("a", true))
    #expect(run(["ab", "ab", "x"], stop: ["abc"]) == ("ababx", false))
    #expect(run(["one\n\nUs", "er:"], stop: ["\n\nUser:", "er"]) == ("one", true))
    #expect(run(["grü", "ße"], stop: ["ß"]) == ("grü", true))
    #expect(run([], stop: ["a"]) == ("", false))
    // The beginning of one holds nothing up that is the whole of another.
    #expect(run(["xab", "c"], stop: ["abcd", "bc"]) == ("xa", true))
    #expect(run(["ab"], stop: ["abc", "b"]) == ("a", true))
  }
}
