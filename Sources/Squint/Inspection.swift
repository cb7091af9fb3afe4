import SquintCompute
import SquintFile

// What the package's own tests look at.

extension Session {
  /// The tokens of the best beam behind the conversation, its stop token among them.
  package func bestBeam(length: Int, stops: Set<Int32>) throws(SquintError) -> [Int32] {
    guard try start(), let regions = plan.beams else { return [] }
    var search = BeamSearch(decoder, stopTokens: stops, regions, in: arena)
    return try search.search(promptLength: tokens.count, limit: length, rotary: rotary(behindPrompt:)) { false }
  }
}

/// How often each token is chosen from `logits` in `draws` draws, with the tokens `seen` there already.
package func sampleCounts(
  _ logits: [Float], seen: [Int32], _ options: SamplingOptions, draws: Int
) throws(SquintError) -> [Int32: Int] {
  var plan = ArenaPlan()
  let regions = try Sampler.Regions(vocabulary: logits.count, in: &plan)
  let scratch = try plan.reserve("logits", Float.self, count: logits.count, phases: .decode)
  let arena = try Arena(plan)
  var sampler = Sampler(options, regions, in: arena)
  sampler.begin(after: seen)
  var counts: [Int32: Int] = [:]
  withExtendedLifetime(arena) {
    for _ in 0..<draws {
      _ = arena[scratch].update(fromContentsOf: logits)
      counts[sampler.choose(arena[scratch]), default: 0] += 1
    }
  }
  return counts
}

extension SessionPlan {
  /// A plan in which of the decoder's and of each encoder's parts no more stay in memory than `bytes` hold, whatever the budget.
  ///
  /// - Parameters:
  ///   - rows: the rows of a prompt that go through the decoder together.
  ///   - units: the units, such as tiles, that go through an encoder together.
  package init(_ model: Model, _ options: SessionOptions, keeping bytes: Int, rows: Int, units: Int) throws(SquintError)
  {
    self = try Planner(model, options).plan(keeping: bytes, rows: rows, units: units)
  }
}
