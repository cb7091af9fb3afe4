import Squint
import SquintCompute
import SquintFile
import Testing

/// What layers remember, by kind: all positions, a window, the rows of a convolution. Whatever is cut off, replaced or followed in
/// beams, the numbers are those of a conversation that was computed from its first position on.
@Suite struct StateTests {
  /// So small a chunk that windows slide long before the context ends.
  private static let sliding = SessionOptions(context: 256, kvType: .f32, threads: 2, chunk: 16)
  private static let models = ["gemma3", "lfm2", "mistral-sliding", "llama-gqa"]

  private func tokens(_ name: String, _ count: Int) throws -> [Int32] {
    let ids = try promptIDs(name)
    return (0..<count).map { ids[$0 % ids.count] }
  }

  /// The logits behind the whole conversation, of which the last position is not computed yet.
  private func last(_ session: Session) throws -> [Float] {
    var last: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in last = Array(logits) }
    return last
  }

  /// A window's cache slides, one that keeps all does not, and both give the same numbers.
  @Test(arguments: models, [ElementType.f32, .int8]) func windowsSlide(_ name: String, _ type: ElementType) throws {
    let model = try model(name, type)
    let prompt = try tokens(name, 230)
    var options = Self.sliding
    options.kvType = type == .f32 ? .f32 : .int8
    options.chunk = 256
    let expected = try logits(model, prompt, options)
    let c = model.decoder.blueprint.attention
    let rows = Compute.rowsPerPiece(queryHeads: c.heads / c.kvHeads)
    for chunk in [rows, 2 * rows] {
      options.chunk = chunk
      let isEqual = try logits(model, prompt, options) == expected
      #expect(isEqual, "chunks of \(chunk)")
    }
  }

  /// A window's cache holds the window, what can be cut back, and a chunk: the plan counts no more.
  @Test func windowsTakeNoMore() throws {
    let model = try model("gemma3", .f32)
    func cache(_ context: Int) throws -> Int {
      var options = Self.sliding
      options.context = context
      return try SessionPlan(model, options).arena.buffers.reduce(0) { $0 + ($1.purpose == .cache ? $1.byteCount : 0) }
    }
    // Of the seven layers one sees all.
    let (short, long) = (try cache(256), try cache(1024))
    let c = model.decoder.blueprint.attention
    let perPosition = 2 * c.kvHeads * c.headWidth * 4
    let full = (long - short) / (768 * perPosition)
    #expect(full >= 1 && full < model.decoder.blueprint.layers / 2, "\(full) layers grow with the context")
  }

  /// Where the encoder works in the memory of the cache, what says which positions are kept is not in it.
  @Test(arguments: ["gemma3", "lfm2"]) func encodersLeaveTheBookkeepingAlone(_ name: String) throws {
    let plan = try SessionPlan(model(name, .f32), Self.sliding)
    let kept = plan.arena.buffers.filter { $0.name.hasSuffix(" starts") || $0.name == "snapshot's position" }
    #expect(kept.count == 2)
    #expect(kept.allSatisfy { $0.phases.contains(.encode) })
  }

  /// A conversation that is cut back by little, by much, or replaced, and goes on.
  @Test(arguments: models) func conversationsAreCutBack(_ name: String) throws {
    let model = try model(name, .f32)
    let all = try tokens(name, 220)
    for kept in [219, 212, 205, 190, 150, 100, 3, 0] {
      let session = try Session(model, Self.sliding)
      try session.append(Array(all[..<200]))
      _ = try last(session)
      try session.append(Array(all[200...]))
      _ = try last(session)
      session.truncate(to: kept)
      let others = all[..<10].reversed()
      try session.append(Array(others))
      let found = try last(session)

      let fresh = try Session(model, Self.sliding)
      try fresh.append(Array(all[..<kept]) + others)
      #expect(try largestDifference(last(fresh), found) < 1e-3, "cut back to \(kept)")
      #expect(session.cachedCount == kept + 10)
    }
  }

  /// The same where the answer came token by token, and a chat template writes it otherwise.
  @Test(arguments: models) func answersAreReplaced(_ name: String) throws {
    let model = try model(name, .f32)
    let prompt = try tokens(name, 150)
    let session = try Session(model, Self.sliding)
    try session.append(prompt)
    var generator = Generator(session, GenerationOptions(maxTokens: 40, stopsAtStopTokens: false))
    while try generator.next() != nil {}
    // All of it again, the answer cut in its midst, and the prompt alone.
    for count in [session.tokens.count, 170, 151, 150, 120] {
      let replaced = Array(session.tokens[..<count]) + prompt[..<5]
      try session.replace(with: replaced)
      let found = try last(session)
      let fresh = try Session(model, Self.sliding)
      try fresh.append(replaced)
      #expect(try largestDifference(last(fresh), found) < 1e-3, "\(count) tokens are the same")
    }
  }

  /// Beams copy what their parents remember: the best is the same whether windows slide or not.
  @Test(arguments: models) func beamsFollow(_ name: String) throws {
    let model = try model(name, .f32)
    let prompt = try tokens(name, 120)
    var options = SessionOptions(context: 256, kvType: .f32, threads: 1, beams: 3, chunk: 256)
    let whole = try Session(model, options)
    try whole.append(prompt)
    let expected = try whole.bestBeam(length: 60, stops: [])
    options.chunk = 16
    let session = try Session(model, options)
    try session.append(prompt)
    let found = try session.bestBeam(length: 60, stops: [])
    #expect(found == expected)
    // And the conversation goes on behind the prompt.
    try session.append(Array(prompt[..<3]))
    try whole.append(Array(prompt[..<3]))
    #expect(try largestDifference(last(session), last(whole)) < 1e-3)
  }

  /// A pass that is broken off leaves nothing that the next one would stumble over.
  @Test(arguments: models) func aPassIsBrokenOff(_ name: String) throws {
    let model = try model(name, .f32)
    let prompt = try tokens(name, 200)
    let session = try Session(model, Self.sliding)
    try session.append(prompt)
    var steps = 0
    session.onProgress = { _ in
      steps += 1
      if steps == 21 { session.cancellation.cancel() }
    }
    #expect(try !session.forEachLogits { _, _ in })
    session.onProgress = nil
    session.cancellation.reset()
    let found = try last(session)
    let fresh = try Session(model, Self.sliding)
    try fresh.append(prompt)
    #expect(try largestDifference(last(fresh), found) < 1e-3)
  }

  /// The snapshot of a conversation is not taken for that of another, of which a pass was broken off.
  @Test(arguments: models) func anOldSnapshotIsForgotten(_ name: String) throws {
    let model = try model(name, .f32)
    let all = try tokens(name, 250)
    let session = try Session(model, Self.sliding)
    try session.append(Array(all[..<105]))
    _ = try last(session)
    session.truncate(to: 100)
    let others = Array(all[3..<145])
    try session.append(others)
    session.onProgress = { _ in
      if session.cachedCount >= 180 { session.cancellation.cancel() }
    }
    #expect(try !session.forEachLogits { _, _ in })
    session.onProgress = nil
    session.cancellation.reset()
    session.truncate(to: 150)
    try session.append(Array(all[..<5]))
    let found = try last(session)
    let fresh = try Session(model, Self.sliding)
    try fresh.append(Array(all[..<100]) + others[..<50] + all[..<5])
    #expect(try largestDifference(last(fresh), found) < 1e-3)
  }
}
