import SquintFile

/// The normalizers of a definition, ready to be applied to texts.
struct TextNormalizer: Sendable {
  private enum Step: Sendable {
    case nfc
    case nfd
    case prepend([UInt8])
    case replace([UInt8], [UInt8])
    case replaceMatches(ExpressionMatcher, [UInt8])
    case strip(left: Bool, right: Bool)
  }

  private let steps: [Step]

  var isEmpty: Bool { steps.isEmpty }

  /// - Throws: `SquintError.badData` where an expression cannot be compiled.
  init(_ normalizers: [TokenizerDefinition.Normalizer]) throws(SquintError) {
    var steps: [Step] = []
    for normalizer in normalizers {
      switch normalizer {
      case .nfc: steps.append(.nfc)
      case .nfd: steps.append(.nfd)
      case .prepend(let content): steps.append(.prepend(Array(content.utf8)))
      case .replace(let pattern, let content): steps.append(.replace(Array(pattern.utf8), Array(content.utf8)))
      case .replaceMatches(let expression, let content):
        steps.append(.replaceMatches(try ExpressionMatcher(expression), Array(content.utf8)))
      case .strip(let left, let right): steps.append(.strip(left: left, right: right))
      }
    }
    self.steps = steps
  }

  /// What applying the steps needs.
  struct Memory: ~Copyable {
    fileprivate(set) var text = ByteBuffer()
    private var spare = ByteBuffer()
    fileprivate let scratch = ExpressionMatcher.Scratch()

    fileprivate mutating func withSpare(
      _ body: (borrowing ByteBuffer, inout ByteBuffer, ExpressionMatcher.Scratch) -> Void
    ) {
      spare.count = 0
      body(text, &spare, scratch)
      swap(&text, &spare)
    }

    mutating func trim(to limit: Int) {
      text.trim(to: limit)
      spare.trim(to: limit)
      scratch.trim(to: limit)
    }
  }

  /// Leaves the normalized form of `text` in `memory.text`.
  func normalize(_ text: TextView, _ memory: inout Memory) {
    memory.text.count = 0
    guard let first = steps.first else { return memory.text.append(text.base, text.end) }
    Self.apply(first, to: text, into: &memory.text, memory.scratch)
    for step in steps.dropFirst() {
      memory.withSpare { source, target, scratch in
        let view = TextView(base: UnsafePointer(source.base), end: source.count, categories: text.categories)
        Self.apply(step, to: view, into: &target, scratch)
      }
    }
  }

  private init(steps: [Step]) { self.steps = steps }

  /// Where the ranges `own` of `text` are in its normalized form `whole`, or what of them can be told apart there.
  func ranges(_ own: ByteRanges, of text: TextView, in whole: UnsafeBufferPointer<UInt8>) -> ByteRanges {
    if let ranges = rangesIfApart(own, of: text, in: whole) { return ranges }
    // Something at a border is one character with what is beside it. Nothing is so before an ASCII character.
    var smaller = ByteRanges()
    for range in own.ranges {
      let inside = range.filter { text.base[$0] < 0x80 }
      if let first = inside.first, let last = inside.last { smaller.append(first..<last) }
    }
    return rangesIfApart(smaller, of: text, in: whole) ?? ByteRanges()
  }

  /// nil where a step has joined what is in one of the ranges with what is not.
  private func rangesIfApart(
    _ own: ByteRanges, of text: TextView, in whole: UnsafeBufferPointer<UInt8>
  ) -> ByteRanges? {
    // A text is put in front of the first part alone.
    let later = TextNormalizer(steps: steps.filter { if case .prepend = $0 { false } else { true } })
    var parts: [(range: Range<Int>, isOwn: Bool)] = []
    var end = 0
    for range in own.ranges {
      parts += [(end..<range.lowerBound, false), (range, true)]
      end = range.upperBound
    }
    parts.append((end..<text.end, false))
    var result = ByteRanges()
    var joined: [UInt8] = []
    var memory = Memory()
    for (range, isOwn) in parts where !range.isEmpty {
      let part = TextView(base: text.base + range.lowerBound, end: range.count, categories: text.categories)
      (range.lowerBound == 0 ? self : later).normalize(part, &memory)
      if isOwn { result.append(joined.count..<joined.count + memory.text.count) }
      joined += UnsafeBufferPointer(start: memory.text.base, count: memory.text.count)
    }
    return joined.elementsEqual(whole) ? result : nil
  }

  /// The normalized form of a short text.
  func normalized(_ text: String) -> [UInt8] {
    var memory = Memory()
    var text = text
    text.withUTF8 {
      guard let base = $0.baseAddress else { return }
      normalize(TextView(base: base, end: $0.count, categories: .shared), &memory)
    }
    return [UInt8](UnsafeBufferPointer(start: memory.text.base, count: memory.text.count))
  }

  private static func apply(
    _ step: Step, to text: TextView, into out: inout ByteBuffer, _ scratch: ExpressionMatcher.Scratch
  ) {
    switch step {
    case .nfc: NormalizationForms.shared.appendComposed(text, to: &out)
    case .nfd: NormalizationForms.shared.appendDecomposed(text, to: &out)
    case .prepend(let content):
      if text.end > 0 { out.append(content) }
      out.append(text.base, text.end)
    case .replace(let pattern, let content): replace(pattern, with: content, in: text, into: &out)
    case .replaceMatches(let matcher, let content):
      guard text.end > 0 else { return }
      // A buffer cannot be captured; parts are few.
      var parts: [(start: Int, end: Int, isMatch: Bool)] = []
      matcher.forEachPiece(of: text, isBytes: false, scratch) { parts.append(($0, $1, $2)) }
      for part in parts {
        if part.isMatch { out.append(content) } else { out.append(text.base + part.start, part.end - part.start) }
      }
    case .strip(let left, let right):
      var start = 0
      var end = text.end
      while left, start < end {
        let (bits, length) = text.category(at: start)
        guard bits & UnicodeCategories.space != 0 else { break }
        start += length
      }
      while right, start < end {
        let last = text.previous(end)
        guard text.category(at: last).bits & UnicodeCategories.space != 0 else { break }
        end = last
      }
      out.append(text.base + start, end - start)
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
    // Expressions that cannot be compiled are refused when the tokenizer is made.
    guard let normalizer = try? TextNormalizer(normalizers) else { return text }
    return String(decoding: normalizer.normalized(text), as: UTF8.self)
  }
}
