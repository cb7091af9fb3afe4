import SquintMedia

// How videos stand in a prompt (formats/video.md, "In the prompt").

extension MediaMarkup {
  /// What a video of `size` becomes: text around all units, around each, and between two.
  func pieces(_ size: MediumSize, _ timing: MediaTiming) -> [Piece] {
    func filled(_ text: String) -> String {
      text.replacing("{frames}", with: "\(timing.frames)")
        .replacing("{frames_word}", with: Self.words(timing.frames))
        .replacing("{duration}", with: Self.clock(timing.duration))
    }
    var pieces: [Piece] = []
    func append(_ text: String) {
      guard !text.isEmpty else { return }
      guard case .text(let before) = pieces.last else { return pieces.append(.text(text)) }
      pieces[pieces.count - 1] = .text(before + text)
    }
    func append(_ rows: Range<Int>) {
      guard case .rows(let before) = pieces.last else { return pieces.append(.rows(rows)) }
      pieces[pieces.count - 1] = .rows(before.lowerBound..<rows.upperBound)
    }
    append(filled(prefix))
    for (unit, seconds) in timing.seconds.enumerated() {
      if unit > 0 { append(separator) }
      let (first, last) = (seconds.first ?? 0, seconds.last ?? 0)
      append(
        unitPrefix.replacing("{frame}", with: "\(unit + 1)")
          .replacing("{seconds}", with: Self.tenths((first + last) / 2))
          .replacing("{minutes_seconds}", with: Self.minutes(first)))
      append(size.firstRow(ofUnit: unit)..<size.firstRow(ofUnit: unit + 1))
      append(unitSuffix)
    }
    append(filled(suffix))
    return pieces
  }

  /// `seconds` with one digit behind the point, as C's `%.1f` rounds it.
  static func tenths(_ seconds: Double) -> String {
    guard seconds.isFinite else { return "0.0" }
    let product = seconds * 10
    // What the product lacks decides where it seems to lie in the middle.
    let error = (-product).addingProduct(seconds, 10)
    var tenths = product.rounded(.toNearestOrEven)
    if abs(product - tenths) == 0.5, error != 0 { tenths = error > 0 ? product + 0.5 : product - 0.5 }
    let whole = Int(min(tenths, 1e15))
    return "\(whole / 10).\(whole % 10)"
  }

  private static func padded(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }

  /// Minutes and seconds, rounded down: 01:05.
  static func minutes(_ seconds: Double) -> String {
    let whole = seconds.isFinite ? Int(min(seconds, 1e15)) : 0
    return "\(padded(whole / 60)):\(padded(whole % 60))"
  }

  /// Hours, minutes and seconds, rounded down, and days before them: 0:01:05.
  static func clock(_ seconds: Double) -> String {
    let whole = seconds.isFinite ? Int(min(seconds, 1e15)) : 0
    let (days, hours) = (whole / 86_400, whole / 3600 % 24)
    let time = "\(hours):\(padded(whole / 60 % 60)):\(padded(whole % 60))"
    return days == 0 ? time : "\(days) day\(days == 1 ? "" : "s"), \(time)"
  }

  /// A number below a million in English words: sixty-four; one thousand, two hundred and five.
  static func words(_ number: Int) -> String {
    let small = [
      "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
      "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    ]
    let tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    switch number {
    case 0..<20: return small[number]
    case 20..<100: return tens[number / 10 - 2] + (number % 10 == 0 ? "" : "-" + small[number % 10])
    case 100..<1000:
      return small[number / 100] + " hundred" + (number % 100 == 0 ? "" : " and " + words(number % 100))
    case 1000..<1_000_000:
      let rest = number % 1000
      return words(number / 1000) + " thousand" + (rest == 0 ? "" : (rest < 100 ? " and " : ", ") + words(rest))
    default: return "\(number)"
    }
  }
}
