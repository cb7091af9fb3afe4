/// Which positions a row of attention sees. Of each kind of mask a row sees positions that follow each other, so that this one
/// description is all that the kernels take.
package enum AttentionMask: Equatable, Sendable {
  /// Every row sees all.
  case all
  /// A row sees itself and those before it; where `window` is not 0, at most so many of them.
  case causal(window: Int)
  /// The same, but the rows of each span see the whole span, too (an image's in Gemma 3). The rows of a span must be computed together,
  /// and a cache that keeps a window must have room for it: a row sees no key that is not stored yet, or not kept.
  case causalWithSpans(window: Int, Spans)
  /// A row sees the rows of its own block, and those blocks may have different sizes (windows of an image's patches).
  case blocks(Spans)

  /// Runs of positions, ascending, none of which overlap. A view: who made it keeps the memory.
  package struct Spans: Equatable, @unchecked Sendable {
    package let first: UnsafePointer<Range<Int>>
    package let count: Int

    package init(_ first: UnsafePointer<Range<Int>>, count: Int) {
      self.first = first
      self.count = count
    }

    /// The span that holds `position`; nil where none does.
    package func holding(_ position: Int) -> Range<Int>? {
      var (low, high) = (0, count)
      while low < high {
        let middle = (low + high) / 2
        if first[middle].upperBound <= position { low = middle + 1 } else { high = middle }
      }
      return low < count && first[low].contains(position) ? first[low] : nil
    }
  }

  /// The positions that the row at `position` sees. Of `all` that is any.
  package func visible(from position: Int) -> Range<Int> {
    func before(_ window: Int) -> Range<Int> { (window > 0 ? max(position + 1 - window, 0) : 0)..<position + 1 }
    switch self {
    case .all: return 0..<Int.max
    case .causal(let window): return before(window)
    case .causalWithSpans(let window, let spans):
      let causal = before(window)
      guard let span = spans.holding(position) else { return causal }
      return min(causal.lowerBound, span.lowerBound)..<max(causal.upperBound, span.upperBound)
    case .blocks(let spans): return spans.holding(position) ?? position..<position
    }
  }
}
