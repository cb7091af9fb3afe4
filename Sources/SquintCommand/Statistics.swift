import Squint

/// What an answer took.
struct Statistics: Encodable {
  struct Timings: Encodable {
    var promptTokens: Int
    var promptTokensPerSecond: Double
    var secondsToFirstToken: Double
    var generatedTokens: Int
    var generatedTokensPerSecond: Double

    enum CodingKeys: String, CodingKey {
      case promptTokens = "prompt_tokens"
      case promptTokensPerSecond = "prompt_tokens_per_second"
      case secondsToFirstToken = "seconds_to_first_token"
      case generatedTokens = "generated_tokens"
      case generatedTokensPerSecond = "generated_tokens_per_second"
    }
  }

  struct Memory: Encodable {
    var planned: Int
    var peak: Int
  }

  var timings: Timings
  var memory: Memory

  /// One line for a person.
  var line: String {
    "\(timings.promptTokens) prompt tokens at \(fixed(timings.promptTokensPerSecond, 1))/s, first token after "
      + "\(fixed(timings.secondsToFirstToken * 1000, 0)) ms, \(timings.generatedTokens) tokens at "
      + "\(fixed(timings.generatedTokensPerSecond, 1))/s, peak memory \(readableSize(memory.peak))"
  }
}

/// Times an answer from the moment the prompt is complete.
struct StatisticsClock {
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant
  private let promptTokens: Int
  private var first: ContinuousClock.Instant?
  private var last: ContinuousClock.Instant?
  private var count = 0

  /// - Parameter promptTokens: the tokens that have to be computed before the first of the answer.
  init(promptTokens: Int) {
    self.promptTokens = promptTokens
    start = clock.now
  }

  mutating func token() {
    last = clock.now
    if first == nil { first = last }
    count += 1
  }

  func statistics(_ plan: SessionPlan) -> Statistics {
    let toFirst = seconds(from: start, to: first ?? clock.now)
    let decoding = first.flatMap { first in last.map { seconds(from: first, to: $0) } } ?? 0
    return Statistics(
      timings: .init(
        promptTokens: promptTokens, promptTokensPerSecond: rate(promptTokens, toFirst), secondsToFirstToken: toFirst,
        generatedTokens: count, generatedTokensPerSecond: rate(count - 1, decoding)),
      memory: .init(planned: plan.peak, peak: Machine.peakResidentBytes()))
  }

  private func rate(_ count: Int, _ seconds: Double) -> Double { seconds > 0 ? Double(max(count, 0)) / seconds : 0 }

  private func seconds(from: ContinuousClock.Instant, to: ContinuousClock.Instant) -> Double {
    (to - from) / .seconds(1)
  }
}

/// `value` with `digits` digits behind the point.
func fixed(_ value: Double, _ digits: Int) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "\(value)" }
  var factor = 1.0
  for _ in 0..<digits { factor *= 10 }
  let scaled = (value * factor).rounded()
  let whole = Int(abs(scaled) / factor)
  let fraction = Int(abs(scaled) - Double(whole) * factor)
  let sign = scaled < 0 ? "-" : ""
  guard digits > 0 else { return "\(sign)\(whole)" }
  let text = String(fraction)
  return "\(sign)\(whole)." + String(repeating: "0", count: digits - text.count) + text
}

/// A size for people: "103.4 MiB", "21.3 GiB".
func readableSize(_ bytes: Int) -> String {
  bytes < 10 << 30 ? fixed(Double(bytes) / 0x1p20, 1) + " MiB" : fixed(Double(bytes) / 0x1p30, 1) + " GiB"
}
