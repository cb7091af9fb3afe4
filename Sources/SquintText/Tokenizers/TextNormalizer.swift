import SquintFile

/// The normalizers of a definition, applied to a text.
enum TextNormalizer {
  /// - Parameters:
  ///   - out: takes the result in place of what it held.
  ///   - spare: working memory; what it held is lost.
  static func normalize(
    _ text: TextView, by steps: [TokenizerDefinition.Normalizer], into out: inout ByteBuffer,
    _ spare: inout ByteBuffer
  ) {
    out.count = 0
    guard let first = steps.first else {
      out.append(text.base, text.end)
      return
    }
    apply(first, to: text, into: &out)
    for step in steps.dropFirst() {
      spare.count = 0
      let view = TextView(base: UnsafePointer(out.base), end: out.count, categories: text.categories)
      apply(step, to: view, into: &spare)
      swap(&out, &spare)
    }
  }

  /// Where the ranges `own` of `text` are in its normalized form `whole`, or what of them can be told apart there.
  static func ranges(
    _ own: ByteRanges, of text: TextView, by steps: [TokenizerDefinition.Normalizer],
    in whole: UnsafeBufferPointer<UInt8>
  ) -> ByteRanges {
    if let ranges = rangesIfApart(own, of: text, by: steps, in: whole) { return ranges }
    // Something at a border is one character with what is beside it. Nothing is so before an ASCII character.
    var smaller = ByteRanges()
    for range in own.ranges {
      let inside = range.filter { text.base[$0] < 0x80 }
      if let first = inside.first, let last = inside.last { smaller.append(first..<last) }
    }
    return rangesIfApart(smaller, of: text, by: steps, in: whole) ?? ByteRanges()
  }

  /// nil where a step has joined what is in one of the ranges with what is not.
  private static func rangesIfApart(
    _ own: ByteRanges, of text: TextView, by steps: [TokenizerDefinition.Normalizer],
    in whole: UnsafeBufferPointer<UInt8>
  ) -> ByteRanges? {
    // A text is put in front of the first part alone.
    let laterSteps = steps.filter { if case .prepend = $0 { false } else { true } }
    var parts: [(range: Range<Int>, isOwn: Bool)] = []
    var end = 0
    for range in own.ranges {
      parts += [(end..<range.lowerBound, false), (range, true)]
      end = range.upperBound
    }
    parts.append((end..<text.end, false))
    var result = ByteRanges()
    var joined: [UInt8] = []
    var out = ByteBuffer()
    var spare = ByteBuffer()
    for (range, isOwn) in parts where !range.isEmpty {
      let part = TextView(base: text.base + range.lowerBound, end: range.count, categories: text.categories)
      normalize(part, by: range.lowerBound == 0 ? steps : laterSteps, into: &out, &spare)
      if isOwn { result.append(joined.count..<joined.count + out.count) }
      joined += UnsafeBufferPointer(start: out.base, count: out.count)
    }
    return joined.elementsEqual(whole) ? result : nil
  }

  /// The normalized form of a short text.
  static func normalized(_ text: String, by steps: [TokenizerDefinition.Normalizer]) -> [UInt8] {
    var out = ByteBuffer()
    var spare = ByteBuffer()
    var text = text
    text.withUTF8 {
      guard let base = $0.baseAddress else { return }
      normalize(TextView(base: base, end: $0.count, categories: .shared), by: steps, into: &out, &spare)
    }
    return [UInt8](UnsafeBufferPointer(start: out.base, count: out.count))
  }

  private static func apply(_ step: TokenizerDefinition.Normalizer, to text: TextView, into out: inout ByteBuffer) {
    switch step {
    case .nfc: NormalizationFormC.shared.append(text, to: &out)
    case .prepend(let content):
      if text.end > 0 { out.append(Array(content.utf8)) }
      out.append(text.base, text.end)
    case .replace(let pattern, let content):
      replace(Array(pattern.utf8), with: Array(content.utf8), in: text, into: &out)
    }
  }

  /// Appends `text` with `content` in place of each `pattern`, from left to right.
  static func replace(_ pattern: [UInt8], with content: [UInt8], in text: TextView, into out: inout ByteBuffer) {
    guard let first = pattern.first else { return out.append(text.base, text.end) }
    var copied = 0
    var index = 0
    while index + pattern.count <= text.end {
      guard let found = memchr(text.base + index, Int32(first), text.end - pattern.count + 1 - index) else { break }
      let place = UnsafeRawPointer(found) - UnsafeRawPointer(text.base)
      guard memcmp(text.base + place, pattern, pattern.count) == 0 else {
        index = place + 1
        continue
      }
      out.append(text.base + copied, place - copied)
      out.append(content)
      index = place + pattern.count
      copied = index
    }
    out.append(text.base + copied, text.end - copied)
  }
}

extension TokenizerDefinition {
  /// `text` as the normalizers leave it.
  package func normalized(_ text: String) -> String {
    String(decoding: TextNormalizer.normalized(text, by: normalizers), as: UTF8.self)
  }
}
