import CKernels
import SquintCompute
import SquintFile
import Testing

/// Caches that keep a window: what is where after many positions, and how far they can be cut back.
struct SlidingWindowTests {
  @Test func keepsTheLastPositions() {
    let starts = UnsafeMutablePointer<Int>.allocate(capacity: 1)
    defer { starts.deallocate() }
    let window = SlidingWindow(starts: starts, buffers: 1, kept: 10, capacity: 16)
    var rows = [Int](repeating: -1, count: 16)
    var position = 0
    // Pieces of every size that fits.
    for count in [6, 6, 1, 2, 6, 3, 1, 1, 1, 5, 6, 6, 4] {
      if let moved = window.makeRoom(for: position..<position + count, in: 0) {
        for (to, from) in moved.enumerated() { rows[to] = rows[from] }
      }
      for added in position..<position + count { rows[added - window.start(of: 0)] = added }
      position += count
      for kept in max(position - 10, 0)..<position { #expect(rows[kept - window.start(of: 0)] == kept) }
    }
    #expect(window.reaches(position, needed: 10))
    #expect(!window.reaches(position - 7, needed: 10))
    #expect(window.reaches(0, needed: 10) == false)
    window.forget()
    #expect(window.reaches(0, needed: 10))
  }

  /// A cache has room for all positions where that is less than a window, what can be cut back, and a chunk.
  @Test func keepsNoMoreThanIsSeen() {
    let all = KVShape(layers: 1, sequences: 1, heads: 1, context: 4096, headWidth: 32, type: .int8)
    #expect(all.keeping(window: 0, chunk: 256).rows == 4096)
    #expect(all.keeping(window: 512, chunk: 256).rows == 511 + KVShape.history + 256)
    #expect(all.keeping(window: 4096, chunk: 256).rows == 4096)
    #expect(all.keeping(window: 512, chunk: 256).kept == 511 + KVShape.history)
  }

  /// What a file may say of a head's width is what the kernels have room for.
  @Test func headsAreNoWiderThanKernelsTake() { #expect(widestHead == Int(SQUINT_MAXIMUM_HEAD_DIM)) }

  @Test func masks() {
    let spans: [Range<Int>] = [3..<6, 8..<20]
    spans.withUnsafeBufferPointer { buffer in
      let view = AttentionMask.Spans(buffer.baseAddress!, count: buffer.count)
      #expect((0..<22).map { view.holding($0) } == (0..<22).map { p in spans.first { $0.contains(p) } })
      #expect(AttentionMask.causal(window: 0).visible(from: 7) == 0..<8)
      #expect(AttentionMask.causal(window: 3).visible(from: 7) == 5..<8)
      #expect(AttentionMask.causal(window: 3).visible(from: 1) == 0..<2)
      #expect(AttentionMask.causalWithSpans(window: 3, view).visible(from: 9) == 7..<20)
      #expect(AttentionMask.causalWithSpans(window: 3, view).visible(from: 12) == 8..<20)
      #expect(AttentionMask.causalWithSpans(window: 3, view).visible(from: 7) == 5..<8)
      #expect(AttentionMask.blocks(view).visible(from: 10) == 8..<20)
      #expect(AttentionMask.blocks(view).visible(from: 7).isEmpty)
    }
  }
}
