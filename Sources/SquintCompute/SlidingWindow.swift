/// Which positions the rows of buffers hold, where a buffer keeps the last positions only. A buffer has room for more than it keeps:
/// when that is used up, what is kept moves to the front. So the positions of a buffer always follow each other in memory, and a
/// move is rare.
package struct SlidingWindow: @unchecked Sendable {  // a view of the arena
  /// The position that row 0 of each buffer holds: [buffers].
  private let starts: UnsafeMutablePointer<Int>
  private let buffers: Int
  /// The positions before the next one that are never lost.
  package let kept: Int
  /// The rows of a buffer.
  package let capacity: Int

  package init(starts: UnsafeMutablePointer<Int>, buffers: Int, kept: Int, capacity: Int) {
    precondition(kept < capacity, "a buffer must have room for a position more than it keeps")
    self.starts = starts
    self.buffers = buffers
    self.kept = kept
    self.capacity = capacity
    forget()
  }

  package func start(of buffer: Int) -> Int { starts[buffer] }

  /// Makes row 0 of `buffer` hold `position`.
  package func setStart(of buffer: Int, to position: Int) { starts[buffer] = position }

  /// All buffers are empty.
  package func forget() { starts.update(repeating: 0, count: buffers) }

  /// Makes room in `buffer` for `positions`, at most `capacity - kept` of them, which follow those that it holds.
  ///
  /// - Returns: the rows that the caller has to move to the front; nil where there is room.
  package func makeRoom(for positions: Range<Int>, in buffer: Int) -> Range<Int>? {
    let start = starts[buffer]
    guard positions.upperBound - start > capacity else { return nil }
    let first = max(positions.lowerBound - kept, start)
    starts[buffer] = first
    return first - start..<positions.lowerBound - start
  }

  /// Whether buffers hold the `needed` positions before `position` (or all from 0 on, where those are fewer).
  ///
  /// - Parameter step: of every so many buffers the first is asked.
  package func reaches(_ position: Int, needed: Int, every step: Int = 1) -> Bool {
    for buffer in stride(from: 0, to: buffers, by: step) where starts[buffer] > max(position - needed, 0) {
      return false
    }
    return true
  }
}
