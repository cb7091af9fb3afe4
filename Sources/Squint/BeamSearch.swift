import SquintCompute
import SquintFile
import SquintModels

/// Follows the most probable sequences together and returns the best one.
///
/// What transformers does (generation/utils.py, `_beam_search`, with length_penalty 1 and early_stopping false): the score
/// of a finished sequence is its log-probability divided by its length, and the search ends when the best running
/// sequence cannot beat the worst finished one.
struct BeamSearch {
  struct Regions {
    let beams: Int
    let length: Int
    let running: Region<Int32>
    let next: Region<Int32>
    let finished: Region<Int32>

    /// Room for `beams` sequences of at most `context` tokens.
    init(beams: Int, context: Int, vocabulary: Int, in plan: inout ArenaPlan) throws(SquintError) {
      guard vocabulary >= 2 * beams else {
        throw SquintError(.usage, "\(beams) beams over a vocabulary of \(vocabulary); choose fewer")
      }
      self.beams = beams
      length = context
      running = try plan.reserve("running sequences", count: beams * context, phases: .decode)
      next = try plan.reserve("next sequences", count: beams * context, phases: .decode)
      finished = try plan.reserve("finished sequences", count: beams * context, phases: .decode)
    }
  }

  /// A sequence that the search may go on with: beam `parent` with `token` behind it.
  private struct Continuation {
    var parent: Int
    var token: Int32
    var score: Float  // sum of log-probabilities
  }

  private struct Finished {
    var slot: Int
    var length: Int
    var score: Float  // log-probability divided by length
  }

  private let decoder: any Decoder
  private let stopTokens: Set<Int32>
  private let beams: Int
  private let width: Int
  /// [beams, length]: the tokens behind the prompt of the sequence in each slot. A slot is a sequence of the KV cache and a
  /// row of a step.
  private var running: UnsafeMutablePointer<Int32>
  private var next: UnsafeMutablePointer<Int32>
  private let finishedTokens: UnsafeMutablePointer<Int32>
  private var scores: [Float?]
  private var finished: [Finished] = []

  init(_ decoder: any Decoder, stopTokens: Set<Int32>, _ regions: Regions, in arena: Arena) {
    self.decoder = decoder
    self.stopTokens = stopTokens
    beams = regions.beams
    width = regions.length
    running = arena[regions.running].baseAddress!
    next = arena[regions.next].baseAddress!
    finishedTokens = arena[regions.finished].baseAddress!
    scores = Array(repeating: nil, count: beams)
    scores[0] = 0
  }

  /// The best sequence behind a prompt of `promptLength` tokens, which is in sequence 0 of the cache and whose last
  /// logits are in row 0. It has at most `limit` tokens, the stop token among them.
  ///
  /// - Parameter rotary: where token `index` behind the prompt stands for the rotary embedding.
  /// - Throws: `inputOutput` where weights have to be read and cannot be.
  mutating func search(
    promptLength: Int, limit: Int, rotary: (_ index: Int) -> RotaryPosition, isCancelled: () -> Bool
  ) throws(SquintError) -> [Int32] {
    for slot in 1..<beams { decoder.copyState(0..<promptLength, from: 0, to: slot) }
    var length = 0  // of the running sequences
    while true {
      // So many that beams are left when all stop tokens are among them; a file may claim any number of those.
      let continuations = best(count: max(2, 1 + min(stopTokens.count, 64)) * beams)
      let ends = continuations.map { length + 1 == limit || stopTokens.contains($0.token) }
      for (rank, continuation) in continuations.enumerated() where rank < beams && ends[rank] {
        finish(continuation, length: length + 1)
      }
      if ends.allSatisfy({ $0 }) { break }
      let open = zip(continuations, ends).filter { !$0.1 }.prefix(beams).map(\.0)
      advance(open, length: length, promptLength: promptLength)
      length += 1
      let bestPossible = open[0].score / Float(length)
      if finished.count == beams, let worst = finished.last, bestPossible <= worst.score { break }
      if isCancelled() { break }
      for (slot, score) in scores.enumerated() {
        try decoder.embed(score == nil ? 0 : Int(running[slot * width + length - 1]), row: slot)
        decoder.place(slot, at: rotary(length - 1))
      }
      decoder.forward(count: beams, .parallel(position: promptLength + length - 1))
      decoder.project(first: 0, count: beams)
      try decoder.stream.check()
    }
    guard let best = finished.first else {
      let slot = scores.indices.max { (scores[$0] ?? -.infinity) < (scores[$1] ?? -.infinity) }!
      return Array(UnsafeBufferPointer(start: running + slot * width, count: length))
    }
    return Array(UnsafeBufferPointer(start: finishedTokens + best.slot * width, count: best.length))
  }

  /// The `count` best continuations of all running sequences, the best first.
  private func best(count: Int) -> [Continuation] {
    let vocabulary = decoder.logits.width
    var list: [Continuation] = []
    list.reserveCapacity(count + 1)
    for (slot, score) in scores.enumerated() {
      guard let score else { continue }
      let logits = UnsafeMutableBufferPointer(start: decoder.logits[slot], count: vocabulary)
      let greatest = logits[Int(Sampler.mostProbable(logits))]
      var sum: Double = 0
      for logit in logits { sum += Double(expf(logit - greatest)) }
      let normalizer = greatest + Float(log(sum))
      for token in 0..<vocabulary {
        let total = score + (logits[token] - normalizer)
        if list.count == count, let worst = list.last, total <= worst.score { continue }
        let position = list.firstIndex { total > $0.score } ?? list.count
        list.insert(Continuation(parent: slot, token: Int32(token), score: total), at: position)
        if list.count > count { list.removeLast() }
      }
    }
    return list
  }

  /// Keeps `continuation` if it is among the best finished sequences.
  private mutating func finish(_ continuation: Continuation, length: Int) {
    let score = continuation.score / Float(length)
    var slot = finished.count
    if finished.count == beams {
      guard score > finished[beams - 1].score else { return }
      slot = finished.removeLast().slot
    }
    let tokens = finishedTokens + slot * width
    tokens.update(from: running + continuation.parent * width, count: length - 1)
    tokens[length - 1] = continuation.token
    let position = finished.firstIndex { score > $0.score } ?? finished.count
    finished.insert(Finished(slot: slot, length: length, score: score), at: position)
  }

  /// Makes `continuations` the running sequences.
  ///
  /// The first continuation of a sequence stays in its slot; the others take the slots of sequences that ended, with a copy
  /// of the cache. A copy's source is therefore never overwritten.
  private mutating func advance(_ continuations: [Continuation], length: Int, promptLength: Int) {
    let parents = Set(continuations.map(\.parent))
    var free = (0..<beams).filter { !parents.contains($0) }
    var placed = Set<Int>()
    scores = Array(repeating: nil, count: beams)
    for continuation in continuations {
      let parent = continuation.parent
      var slot = parent
      if !placed.insert(parent).inserted {
        slot = free.removeLast()
        decoder.copyState(promptLength..<promptLength + length, from: parent, to: slot)
      }
      let tokens = next + slot * width
      tokens.update(from: running + parent * width, count: length)
      tokens[length] = continuation.token
      scores[slot] = continuation.score
    }
    swap(&running, &next)
  }
}
