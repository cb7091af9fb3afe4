import CKernels
import SquintFile

/// Which rows a row of a sequence sees, where it does not see all.
package enum SequenceMask: Sendable {
  /// Those of its own sequence, of so many rows; they follow each other.
  case sequences(length: Int)
  /// Itself and those before it; the first query is row `first`.
  case backwards(first: Int)

  fileprivate func visible(from row: Int) -> squint_span {
    switch self {
    case .sequences(let length):
      let start = row / length * length
      return squint_span(first: UInt32(start), end: UInt32(start + length))
    case .backwards(let first): return squint_span(first: 0, end: UInt32(first + row + 1))
    }
  }
}

extension Compute {
  /// out = softmax(q · kᵀ / √head_width) · v in f32 for `count` rows, each of which sees what `mask` says of the `positions` rows of keys
  /// and values.
  ///
  /// q, out: [count, heads · head width]; keys, values: [positions, heads · head width].
  package func attend(
    q: Rows, keys: Rows, values: Rows, heads: Int, count: Int, positions: Int, _ mask: SequenceMask, into out: Rows
  ) {
    struct Job {
      let q: Rows
      let keys: Rows
      let values: Rows
      let heads: Int
      let count: Int
      let positions: Int
      let mask: SequenceMask
      let out: Rows
      let kernels: Kernels

      func run(_ piece: Int) {
        let (head, start) = (piece % heads, piece / heads * sequenceTile)
        let rows = min(sequenceTile, count - start)
        let headWidth = q.width / heads
        let column = head * headWidth
        withUnsafeTemporaryAllocation(of: squint_span.self, capacity: rows) { seen in
          for row in 0..<rows { seen[row] = mask.visible(from: start + row) }
          var call = squint_attention(
            q: q[start] + column, q_token_stride: q.width, q_head_stride: headWidth, heads: 1,
            head_dim: UInt32(headWidth),
            k: keys.data + column, v: values.data + column, k_scales: nil, v_scales: nil, kv_stride: keys.width,
            scale_stride: 0, kv_type: KVType.f32.code, positions: UInt32(positions), seen: seen.baseAddress,
            scale: 1 / Float(headWidth).squareRoot(), out: out[start] + column, out_token_stride: out.width,
            out_head_stride: headWidth, statistics: nil)
          let scratch = Compute.attentionScratch(headWidth: headWidth) * MemoryLayout<Float>.stride
          withUnsafeTemporaryAllocation(byteCount: scratch, alignment: 64) { scratch in
            kernels.attention(
              &call, 0, UInt32(rows), scratch.baseAddress!.bindMemory(to: Float.self, capacity: scratch.count / 4))
          }
        }
      }
    }
    var job = Job(
      q: q, keys: keys, values: values, heads: heads, count: count, positions: positions, mask: mask, out: out,
      kernels: kernels)
    workers.run(&job, pieces: (count + sequenceTile - 1) / sequenceTile * heads) { job, piece, _ in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece)
    }
  }
}

/// The query rows of a piece: what the kernel works on at a time.
private let sequenceTile = 64
