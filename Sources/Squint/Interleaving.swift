import SquintCompute
import SquintMedia

/// How the rows of a video and of its sound stand in a prompt: by turns, each of so many steps of time, a turn of frames and a turn of
/// sound, until one of them is at its end; then the rest of the other follows (Qwen2.5-Omni's TMRoPE, arXiv 2503.20215).
///
/// Both begin at the same position, and a row's time is counted from there. A row of sound is one step behind the other, on all axes.
struct Interleaving: Equatable, Sendable {
  /// The steps of time of a turn.
  let stepsPerTurn: Int

  enum Part: Equatable, Sendable { case frames, sound }

  /// Rows of one part.
  struct Turn: Equatable, Sendable {
    let part: Part
    let rows: Range<Int>
  }

  /// The turns of `video` and of `sound`, in the order in which they stand.
  func turns(video: MediumSize, sound: MediumSize) -> [Turn] {
    let frames = pieces(of: video.rows) { Int(video.offset(ofRow: $0, from: 0)[0]) }
    let samples = pieces(of: sound.rows) { $0 }
    var turns: [Turn] = []
    for index in 0..<max(frames.count, samples.count) {
      if index < frames.count { turns.append(Turn(part: .frames, rows: frames[index])) }
      if index < samples.count { turns.append(Turn(part: .sound, rows: samples[index])) }
    }
    return turns.filter { !$0.rows.isEmpty }
  }

  /// The rows of each turn, by their steps of time, which do not fall. Where a step leaves turns out, each of the next rows is one by
  /// itself until they are caught up with, as `get_chunked_index` of processing_qwen2_5_omni.py has it.
  private func pieces(of rows: Int, step: (_ row: Int) -> Int) -> [Range<Int>] {
    var pieces: [Range<Int>] = []
    var first = 0
    for row in 0..<rows where step(row) >= (pieces.count + 1) * stepsPerTurn {
      pieces.append(first..<row)
      first = row
    }
    return pieces + [first..<rows]
  }
}

/// Spans of a prompt whose positions are counted from one beginning: parts of a medium that follow each other, or a video's and those of
/// its sound by turns.
struct SpanGroup {
  /// The spans.
  let spans: ArraySlice<Prompt.Span>
  /// Whether there is sound among them.
  let isInterleaved: Bool

  /// The group that begins with the first of `spans`, of which there is one at least.
  init(first spans: ArraySlice<Prompt.Span>) {
    let first = spans[spans.startIndex]
    let medium = first.medium
    // The video's own, or one that was given apart and stands among its rows.
    var sound = medium.sound
    let interleaves = medium.size.positions.interleaving != nil
    var next = spans.startIndex + 1
    var end = first.end
    // The next row of the medium, and of its sound.
    var (row, soundRow) = (first.rows.upperBound, 0)
    while next < spans.endIndex, spans[next].position == end {
      let span = spans[next]
      if span.medium === medium, span.rows.lowerBound == row {
        row = span.rows.upperBound
      } else if interleaves, span.medium.kind == .audio, sound.map({ $0 === span.medium }) ?? true,
        span.rows.lowerBound == soundRow
      {
        sound = span.medium
        soundRow = span.rows.upperBound
      } else {
        break
      }
      end = span.end
      next += 1
    }
    self.spans = spans[spans.startIndex..<next]
    isInterleaved = soundRow > 0
  }

  private var first: Prompt.Span { spans[spans.startIndex] }
  private var last: Prompt.Span { spans[spans.endIndex - 1] }

  var position: Int { first.position }
  var end: Int { last.end }

  /// Whether its rows stand elsewhere than tokens would.
  var isSpread: Bool { first.medium.size.positions.isSpread }

  /// Where the row at `position` is, from where the group begins.
  func offset(of position: Int) -> RotaryPosition {
    guard let span = spans.first(where: { $0.end > position }) else { preconditionFailure("it is one of the group's") }
    let row = span.rows.lowerBound + position - span.position
    guard span.medium === first.medium else { return RotaryPosition(repeating: Int32(clamping: row)) }
    return span.medium.size.offset(ofRow: row, from: first.rows.lowerBound)
  }

  /// How many steps behind the beginning what follows is: one behind the largest of all; behind turns one behind the largest of the
  /// last one, as `get_rope_index` of modeling_qwen2_5_omni.py has it.
  var advance: Int {
    guard last.medium === first.medium else { return last.rows.upperBound }
    return first.medium.size.advance(of: first.rows.lowerBound..<last.rows.upperBound)
  }
}
