/// Which frames of a video are taken (formats/video.md, "Which frames").
///
/// The rules are those of transformers' video processors; where one of them asks for more frames than there are, all are taken.
package struct VideoSampling: Sendable, Equatable {
  package enum Rule: String, Sendable, CaseIterable {
    /// From the first on, n / count apart (`Qwen2VLVideoProcessor`).
    case even
    /// From the first to the last (`Qwen3VLVideoProcessor`).
    case ends
    /// From the middle of each of count equal parts (`InternVLVideoProcessor`).
    case middle
    /// From the first to the last, without a second at both ends of a long video (`SmolVLMVideoProcessor`).
    case trimmed
  }

  package var rule: Rule
  /// The frames of a second that are taken; nil: `frames` says how many.
  package var framesPerSecond: Double?
  /// How many are taken; with `trimmed`, and `framesPerSecond`, how many at most.
  package var frames: Int?
  package var least: Int
  package var most: Int
  /// The frames of a unit; with `even` their number is a multiple of it.
  package var temporalPatch: Int

  package init(
    rule: Rule, framesPerSecond: Double? = nil, frames: Int? = nil, least: Int = 1, most: Int = 768,
    temporalPatch: Int = 1
  ) {
    self.rule = rule
    self.framesPerSecond = framesPerSecond
    self.frames = frames
    self.least = least
    self.most = most
    self.temporalPatch = temporalPatch
  }

  /// The frames that are taken of `count`, at least 1, of which a second has `rate`: their numbers from 0, ascending.
  package func indices(of count: Int, rate: Double) -> [Int] {
    switch rule {
    case .even, .ends, .middle: return place(wanted(of: count, rate: rate), of: count)
    case .trimmed:
      let duration = Double(count) / rate
      let limit = min(frames ?? most, most)
      let estimated = (framesPerSecond ?? rate) * duration
      // As an integer it must fit first.
      let wanted = max(1, min(Int(min(estimated, 1e9).rounded(.toNearestOrEven)), limit))
      var (first, last) = (0, count - 1)
      let skipped = 1.0  // second
      if duration - 2 * skipped > Double(limit) * (framesPerSecond ?? rate) {
        first = max(Int(skipped * rate), 0)
        last = min(Int(Double(count) - skipped * rate), count - 1)
        if first >= last { (first, last) = (0, count - 1) }
      }
      return Self.line(from: first, through: last, count: wanted) { $0.rounded(.down) }
    }
  }

  /// All of `count` frames which are a choice already, unless there are more than are taken of any video.
  package func all(of count: Int) -> [Int] {
    let limit = rule == .trimmed ? min(frames ?? most, most) : most
    guard count > limit else { return Array(0..<count) }
    switch rule {
    case .even, .ends, .middle: return place(limit, of: count)
    case .trimmed: return Self.line(from: 0, through: count - 1, count: limit) { $0.rounded(.down) }
    }
  }

  /// How many frames the rate and the bounds ask for.
  private func wanted(of count: Int, rate: Double) -> Int {
    let patch = temporalPatch
    func atRate(_ framesPerSecond: Double) -> Double { min(Double(count) / rate * framesPerSecond, 1e9) }
    var wanted: Int
    switch (rule, framesPerSecond) {
    case (.even, let framesPerSecond?):
      let most = min(most, count) / patch * patch
      wanted = Int(min(max(atRate(framesPerSecond), Double(least)), Double(most)) / Double(patch)) * patch
    case (.even, nil):
      guard let frames else { return min(count, most) }
      wanted = Int((Double(min(frames, most)) / Double(patch)).rounded(.toNearestOrEven)) * patch
      if wanted > most { wanted -= patch }
    case (.ends, let framesPerSecond?) where frames == nil:
      wanted = min(max(Int(atRate(framesPerSecond)), least), most)
    case (.ends, _): wanted = frames.map { min($0, most) } ?? min(max(count, least), most)
    case (_, let framesPerSecond?) where frames == nil: wanted = min(Int(atRate(framesPerSecond)), most)
    default: wanted = min(frames ?? most, most)
    }
    wanted = min(wanted, count)
    // A video of fewer frames than a unit has: one that is repeated.
    return wanted > 0 ? wanted : min(count, most, max(1, min(patch, count)))
  }

  private func place(_ wanted: Int, of count: Int) -> [Int] {
    let step = Double(count) / Double(wanted)
    switch rule {
    case .even: return Self.range(from: 0, to: count, step: step)
    case .middle: return Self.range(from: step / 2, to: count, step: step)
    case .ends, .trimmed:
      return Self.line(from: 0, through: count - 1, count: wanted) { $0.rounded(.toNearestOrEven) }
    }
  }

  /// `torch.arange(first, end, step).int()`: numbers of single precision, of which rounding may make one more, behind the last frame.
  private static func range(from first: Double, to end: Int, step: Double) -> [Int] {
    let count = Int(((Double(end) - first) / step).rounded(.up))
    return (0..<count).map { Int(Float(first + step * Double($0))) }.filter { $0 < end }
  }

  /// `numpy.linspace(first, last, count)`, rounded; each number once.
  private static func line(from first: Int, through last: Int, count: Int, rounded: (Double) -> Double) -> [Int] {
    guard count > 1 else { return [first] }
    let step = Double(last - first) / Double(count - 1)
    var numbers: [Int] = []
    for index in 0..<count {
      let number = index == count - 1 ? last : Int(rounded(Double(index) * step + Double(first)))
      if numbers.last != number { numbers.append(number) }
    }
    return numbers
  }
}
