import CKernels
import SquintFile

/// Where the rows of a step stand: which sequence of the cache, and at which position.
public enum Placement: Sendable {
  /// The rows follow each other in one sequence, from position `first` on: a prompt.
  case consecutive(sequence: Int, first: Int)
  /// Row r is the position `position` of sequence r: beams.
  case parallel(position: Int)

  func sequence(ofRow row: Int) -> Int {
    switch self {
    case .consecutive(let sequence, _): sequence
    case .parallel: row
    }
  }

  func position(ofRow row: Int) -> Int {
    switch self {
    case .consecutive(_, let first): first + row
    case .parallel(let position): position
    }
  }
}

/// The cosines and sines [rows, pairs] that turn the heads of each row.
public struct RotaryAngles: @unchecked Sendable {  // a view of the arena
  public let cosines: Rows
  public let sines: Rows

  public init(cosines: Rows, sines: Rows) {
    self.cosines = cosines
    self.sines = sines
  }

  /// Fills the angles of `count` rows: `magnitude` · cos and sin of position · frequency[pair].
  ///
  /// The products are rounded to f32 as transformers does it (LlamaRotaryEmbedding.forward), since the angle of a late
  /// position depends on that rounding.
  public func fill(_ placement: Placement, count: Int, frequencies: UnsafePointer<Float>, magnitude: Float) {
    for row in 0..<count {
      let position = Float(placement.position(ofRow: row))
      for pair in 0..<cosines.width {
        let angle = position * frequencies[pair]
        cosines[row][pair] = cosf(angle) * magnitude
        sines[row][pair] = sinf(angle) * magnitude
      }
    }
  }
}

extension Compute {
  /// The normalization of each head of queries and keys, w[head_width] (Qwen3).
  public struct HeadNorm: @unchecked Sendable {  // a view of the file
    public let weight: UnsafePointer<Float>
    public let epsilon: Float

    public init(weight: UnsafePointer<Float>, epsilon: Float) {
      self.weight = weight
      self.epsilon = epsilon
    }
  }

  /// Normalizes (where given) and turns the heads of q and k in place, and stores k and v in the cache.
  ///
  /// q: [count, heads · head_width]; k, v: [count, kv_heads · head_width].
  public func rotateAndStore(
    q: Rows, k: Rows, v: Rows, count: Int, _ angles: RotaryAngles, qNorm: HeadNorm?, kNorm: HeadNorm?,
    cache: KVCache, layer: Int, _ placement: Placement
  ) {
    struct Job {
      let q: Rows
      let k: Rows
      let v: Rows
      let angles: RotaryAngles
      let qNorm: HeadNorm?
      let kNorm: HeadNorm?
      let cache: KVCache
      let layer: Int
      let placement: Placement
      let kernels: Kernels

      func turn(_ x: Rows, _ row: Int, _ norm: HeadNorm?) {
        let width = cache.shape.headWidth
        let heads = x.width / width
        if let norm {
          for head in 0..<heads {
            let x = x[row] + head * width
            kernels.rmsNorm(x, norm.weight, x, width, norm.epsilon)
          }
        }
        kernels.rotary(
          x[row], heads, width, angles.cosines.width, angles.cosines[row], angles.sines[row])
      }
    }
    var job = Job(
      q: q, k: k, v: v, angles: angles, qNorm: qNorm, kNorm: kNorm, cache: cache, layer: layer,
      placement: placement, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      job.pointee.turn(job.pointee.q, row, job.pointee.qNorm)
      job.pointee.turn(job.pointee.k, row, job.pointee.kNorm)
      let cache = job.pointee.cache
      for head in 0..<cache.shape.heads {
        cache.store(
          key: job.pointee.k[row] + head * cache.shape.headWidth,
          value: job.pointee.v[row] + head * cache.shape.headWidth, head: head, layer: job.pointee.layer,
          sequence: job.pointee.placement.sequence(ofRow: row),
          position: job.pointee.placement.position(ofRow: row), job.pointee.kernels)
      }
    }
  }

  /// out = softmax(q · kᵀ / √head_width) · v over the cached positions up to each row's own, of which at most the last
  /// `window` (0: all).
  ///
  /// q, out: [count, heads · head_width]. `scratch` holds `attentionScratch(headWidth:)` floats for each thread.
  public func attend(
    q: Rows, into out: Rows, count: Int, cache: KVCache, layer: Int, window: Int, _ placement: Placement,
    scratch: Rows
  ) {
    struct Job {
      let q: Rows
      let out: Rows
      let count: Int
      let cache: KVCache
      let layer: Int
      let window: Int
      let placement: Placement
      let scratch: Rows
      let rowsPerPiece: Int
      let kernels: Kernels

      func run(_ piece: Int, _ thread: Int) {
        let shape = cache.shape
        let head = piece % shape.heads
        let start = piece / shape.heads * rowsPerPiece
        let rows = start..<min(start + rowsPerPiece, count)
        let kv = cache.head(head, layer: layer, sequence: placement.sequence(ofRow: start))
        let queryHeads = q.width / shape.headWidth / shape.heads
        let first = placement.position(ofRow: start)
        var call = squint_attention(
          q: q[start] + head * queryHeads * shape.headWidth, q_token_stride: q.width,
          q_head_stride: shape.headWidth, heads: UInt32(queryHeads), head_dim: UInt32(shape.headWidth),
          k: kv.keys, v: kv.values, k_scales: kv.keyScales, v_scales: kv.valueScales,
          kv_stride: shape.headWidth, scale_stride: shape.scalesPerPosition, kv_type: shape.type.code,
          positions: UInt32(first + rows.count), first_position: UInt32(first), window: UInt32(window),
          causal: true, scale: 1 / Float(shape.headWidth).squareRoot(),
          out: out[start] + head * queryHeads * shape.headWidth, out_token_stride: out.width,
          out_head_stride: shape.headWidth)
        kernels.attention(&call, 0, UInt32(rows.count), scratch[thread])
      }
    }
    let rowsPerPiece: Int
    switch placement {
    case .consecutive: rowsPerPiece = 16
    case .parallel: rowsPerPiece = 1
    }
    var job = Job(
      q: q, out: out, count: count, cache: cache, layer: layer, window: window, placement: placement,
      scratch: scratch, rowsPerPiece: rowsPerPiece, kernels: kernels)
    let tiles = (count + rowsPerPiece - 1) / rowsPerPiece
    workers.run(&job, pieces: tiles * cache.shape.heads) { job, piece, thread in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece, thread)
    }
  }

  /// The widths of heads that attention takes.
  public static let headWidths = 1...Int(SQUINT_MAXIMUM_HEAD_DIM)

  /// How many floats of scratch a thread needs for attention over heads of this width.
  public static func attentionScratch(headWidth: Int) -> Int { Kernels.attentionScratch(headDimension: headWidth) }
}
