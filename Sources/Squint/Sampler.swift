import SquintCompute
import SquintFile

/// How the next token is chosen from the logits. The order of the steps is transformers' (generation/logits_process.py):
/// repetition penalty, temperature, top-k, top-p, min-p.
public struct SamplingOptions: Equatable, Sendable {
  /// 0: always the most probable token (greedy).
  public var temperature: Float
  /// Only the k most probable tokens; 0: all.
  public var topK: Int
  /// Only the fewest most probable tokens whose probabilities add up to p, at least one; 1: all.
  public var topP: Float
  /// Only tokens at least this many times as probable as the most probable one; 0: all.
  public var minP: Float
  /// Divides the positive and multiplies the negative logits of tokens that were there already (arXiv 1909.05858); 1: none.
  public var repetitionPenalty: Float
  /// The seed of the random numbers: the same seed gives the same answer.
  public var seed: UInt64

  public init(
    temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0, repetitionPenalty: Float = 1,
    seed: UInt64 = 0
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.seed = seed
  }

  /// - Throws: `usage` where a number is outside its range.
  func check() throws(SquintError) {
    guard temperature >= 0, temperature.isFinite else {
      throw SquintError(.usage, "a temperature of \(temperature); choose 0 (greedy) or more")
    }
    guard topK >= 0 else { throw SquintError(.usage, "a top-k of \(topK); choose 0 (all) or more") }
    guard topP >= 0, topP <= 1 else { throw SquintError(.usage, "a top-p of \(topP); choose 0 to 1 (all)") }
    guard minP >= 0, minP <= 1 else { throw SquintError(.usage, "a min-p of \(minP); choose 0 (all) to 1") }
    guard repetitionPenalty > 0, repetitionPenalty.isFinite else {
      throw SquintError(.usage, "a repetition penalty of \(repetitionPenalty); choose more than 0")
    }
  }
}

/// Chooses tokens. Works in the arena and allocates nothing.
struct Sampler {
  /// A token that may still be chosen.
  struct Candidate: BitwiseCopyable {
    var logit: Float
    var token: Int32
  }

  private let options: SamplingOptions
  private let candidates: UnsafeMutableBufferPointer<Candidate>
  /// One bit a token: whether it was there already.
  private let seen: UnsafeMutableBufferPointer<UInt64>
  private var random: RandomNumbers

  struct Regions {
    let candidates: Region<Candidate>
    let seen: Region<UInt64>

    init(vocabulary: Int, in plan: inout ArenaPlan) throws(SquintError) {
      candidates = try plan.reserve("sampling candidates", count: vocabulary, phases: .decode)
      seen = try plan.reserve("tokens seen", count: (vocabulary + 63) / 64, phases: .decode)
    }
  }

  init(_ options: SamplingOptions, _ regions: Regions, in arena: Arena) {
    self.options = options
    candidates = arena[regions.candidates]
    seen = arena[regions.seen]
    random = RandomNumbers(seed: options.seed)
  }

  /// Notes that `tokens` were there, and no others: what an answer begins with. Rows of images are no tokens.
  func begin(after tokens: [Int32]) {
    seen.update(repeating: 0)
    for token in tokens where token >= 0 { note(token) }
  }

  /// Notes that `token` was there, for the repetition penalty.
  func note(_ token: Int32) { seen[Int(token) >> 6] |= 1 << UInt64(token & 63) }

  /// The next token, from logits[vocabulary], which the repetition penalty changes in place.
  mutating func choose(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    if options.repetitionPenalty != 1 { penalize(logits) }
    return options.temperature == 0 ? Self.mostProbable(logits) : sample(logits)
  }

  /// The token with the greatest logit; the first of equals. Not-a-number never wins.
  static func mostProbable(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    var best = 0
    var greatest = -Float.infinity
    for token in 0..<logits.count where logits[token] > greatest {
      greatest = logits[token]
      best = token
    }
    return Int32(best)
  }

  private func penalize(_ logits: UnsafeMutableBufferPointer<Float>) {
    for word in 0..<seen.count {
      var bits = seen[word]
      while bits != 0 {
        let token = word << 6 | bits.trailingZeroBitCount
        bits &= bits - 1
        let logit = logits[token]
        logits[token] = logit < 0 ? logit * options.repetitionPenalty : logit / options.repetitionPenalty
      }
    }
  }

  private mutating func sample(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    let greatest = logits[Int(Self.mostProbable(logits))]
    var total: Double = 0
    for token in 0..<logits.count {
      // The difference first: it is 0 for the greatest at any temperature, however close to 0.
      let logit = (logits[token] - greatest) / options.temperature
      candidates[token] = Candidate(logit: logit.isNaN ? -.infinity : logit, token: Int32(token))
      total += Double(expf(candidates[token].logit))
    }
    let kept = keep(total: total)
    // The kept candidates are candidates[kept]; their probabilities are exp(logit) over their own sum.
    var sum: Double = 0
    for index in kept { sum += Double(expf(candidates[index].logit)) }
    var rest = random.unit() * sum
    for index in kept {
      rest -= Double(expf(candidates[index].logit))
      if rest < 0 { return candidates[index].token }
    }
    return candidates[kept.last!].token
  }

  /// Reorders the candidates and returns those that top-k, top-p and min-p leave.
  ///
  /// A heap gives them in falling order one by one, so that only as many are sorted as are kept.
  private func keep(total: Double) -> Range<Int> {
    let count = candidates.count
    guard options.topK > 0 || options.topP < 1 || options.minP > 0 else { return 0..<count }
    for parent in stride(from: count / 2 - 1, through: 0, by: -1) { siftDown(from: parent, count: count) }
    // Each pop moves the greatest candidate behind the shrinking heap: the kept ones are the last, in rising order.
    var heap = count
    let limit = options.topK > 0 ? min(options.topK, count) : count
    func pop() {
      heap -= 1
      candidates.swapAt(0, heap)
      siftDown(from: 0, count: heap)
    }
    var total = total
    if options.topK > 0 && options.topP < 1 {
      // top-p counts within what top-k left.
      total = 0
      for _ in 0..<limit {
        pop()
        total += Double(expf(candidates[heap].logit))
      }
    }
    var cumulative: Double = 0
    var first = count
    while count - first < limit {
      if first == heap { pop() }
      let probability = Double(expf(candidates[first - 1].logit))
      if first < count && (probability < Double(options.minP) || cumulative >= Double(options.topP) * total) { break }
      cumulative += probability
      first -= 1
    }
    return first..<count
  }

  private func siftDown(from start: Int, count: Int) {
    var parent = start
    while true {
      var child = 2 * parent + 1
      guard child < count else { return }
      if child + 1 < count && comesBefore(child + 1, child) { child += 1 }
      guard comesBefore(child, parent) else { return }
      candidates.swapAt(child, parent)
      parent = child
    }
  }

  /// Falling by logit; equal logits by token, so that the order does not depend on the heap.
  private func comesBefore(_ a: Int, _ b: Int) -> Bool {
    let (a, b) = (candidates[a], candidates[b])
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token
  }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct RandomNumbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Uniform in 0 ..< 1.
  mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }
}
