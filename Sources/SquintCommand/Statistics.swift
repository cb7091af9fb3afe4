import Squint
import SquintFile
import SquintTerminal

/// What an answer took.
struct Statistics: Encodable {
  struct Timings: Encodable {
    var media: Int
    var units: Int
    /// How many media of each kind, by its option's word.
    var kinds: [String: Int]
    var secondsToDecodeMedia: Double
    var secondsToEncodeMedia: Double
    var promptTokens: Int
    var promptTokensPerSecond: Double
    var secondsToFirstToken: Double
    var generatedTokens: Int
    var generatedTokensPerSecond: Double

    enum CodingKeys: String, CodingKey {
      case media = "pictures"
      case units = "tiles"
      case kinds = "media"
      case secondsToDecodeMedia = "seconds_to_decode_pictures"
      case secondsToEncodeMedia = "seconds_to_encode_pictures"
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
    /// Weights that do not stay in memory: what of them has been read, and what each token reads.
    var read: Int
    var readPerToken: Int

    enum CodingKeys: String, CodingKey {
      case planned, peak, read
      case readPerToken = "read_per_token"
    }
  }

  var timings: Timings
  var memory: Memory
  /// What media of each kind were encoded, for people.
  var media: [(kind: MediaKind, count: Int, units: Int)] = []

  enum CodingKeys: String, CodingKey {
    case timings, memory
  }

  /// One line for a person.
  var line: String {
    let media =
      timings.media == 0
      ? ""
      : media.map { kind, count, units in
        let parts = kind == .image ? "tile" : "part"
        return "\(count) \(count == 1 ? kind.noun : kind.plural) in \(units) \(parts)\(units == 1 ? "" : "s")"
      }.joined(separator: ", ")
        + " decoded in \(fixed(timings.secondsToDecodeMedia * 1000, 0)) ms and encoded in "
        + "\(fixed(timings.secondsToEncodeMedia * 1000, 0)) ms, "
    return media
      + "\(timings.promptTokens) prompt tokens at \(fixed(timings.promptTokensPerSecond, 1))/s, first token after "
      + "\(fixed(timings.secondsToFirstToken * 1000, 0)) ms, \(timings.generatedTokens) tokens at "
      + "\(fixed(timings.generatedTokensPerSecond, 1))/s, peak memory \(readableSize(memory.peak))"
      + (memory.read > 0 ? ", \(readableSize(memory.read)) of weights read" : "")
  }
}

/// Times an answer from the moment the prompt is complete.
struct StatisticsClock {
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant
  private let promptTokens: Int
  private let encoded: EncodingStatistics
  private var first: ContinuousClock.Instant?
  private var last: ContinuousClock.Instant?
  private var count = 0

  /// Starts when the prompt of `session` is complete, and nothing of it computed yet.
  init(_ session: Session) {
    promptTokens = session.prompt.count - session.cachedCount
    encoded = session.encoded
    start = clock.now
  }

  /// Whether no token has come yet.
  var isFirst: Bool { first == nil }

  mutating func token() {
    last = clock.now
    if first == nil { first = last }
    count += 1
  }

  func statistics(_ session: Session) -> Statistics {
    let toFirst = seconds(from: start, to: first ?? clock.now)
    let looked = session.encoded.since(encoded)
    let decoding = first.flatMap { first in last.map { seconds(from: first, to: $0) } } ?? 0
    return Statistics(
      timings: .init(
        media: looked.media, units: looked.units,
        kinds: Dictionary(uniqueKeysWithValues: looked.kinds.map { ($0.key.rawValue, $0.value.media) }),
        secondsToDecodeMedia: looked.decodingSeconds, secondsToEncodeMedia: looked.encodingSeconds,
        promptTokens: promptTokens,
        promptTokensPerSecond: rate(promptTokens, toFirst - looked.decodingSeconds - looked.encodingSeconds),
        secondsToFirstToken: toFirst,
        generatedTokens: count, generatedTokensPerSecond: rate(count - 1, decoding)),
      memory: .init(
        planned: session.plan.peak, peak: Machine.peakResidentBytes(), read: session.bytesRead,
        readPerToken: session.plan.bytesReadPerToken),
      media: MediaKind.allCases.compactMap { kind in looked.kinds[kind].map { (kind, $0.media, $0.units) } })
  }

  private func rate(_ count: Int, _ seconds: Double) -> Double { seconds > 0 ? Double(max(count, 0)) / seconds : 0 }

  private func seconds(from: ContinuousClock.Instant, to: ContinuousClock.Instant) -> Double {
    (to - from) / .seconds(1)
  }
}

extension Session {
  /// Shows by `progress` how far a long prompt is.
  func show(_ progress: Progress) {
    guard Terminal.isRewritable else { return }
    onProgress = { step in progress.show(step.lines) }
  }
}

extension SessionProgress {
  /// How far it is, for windows of less and less width.
  var lines: [String] {
    switch self {
    case .decode(let kind, let medium, let count): ["opening: \(kind.noun) \(medium + 1) of \(count)"]
    case .encode(.video, let unit, let count): ["looking: part \(unit + 1) of \(count)"]
    case .encode(.image, let unit, let count): ["looking: tile \(unit + 1) of \(count)"]
    case .encode(.audio, let unit, let count): ["listening: part \(unit + 1) of \(count)"]
    case .encode(let kind, let unit, let count): ["reading: \(kind.noun), part \(unit + 1) of \(count)"]
    case .prefill(let position, let count):
      ["reading: token \(position) of \(count)", "reading: \(position * 100 / max(count, 1)) %"]
    }
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
