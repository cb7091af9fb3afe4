import CKernels
import SquintFile

/// Where the rows of a step stand: which sequence of the cache, and at which position.
package enum Placement: Sendable {
  /// The rows follow each other in one sequence, from position `first` on: a prompt.
  case consecutive(sequence: Int, first: Int)
  /// The one row is the position `position` of a sequence that is there up to it: a token of an answer.
  case step(sequence: Int, position: Int)
  /// Row r is the position `position` of sequence r: beams.
  case parallel(position: Int)

  /// The place of the rows from `row` on.
  package func from(_ row: Int) -> Placement {
    guard case .consecutive(let sequence, let first) = self else {
      precondition(row == 0, "only the rows of a prompt may be computed one after the other")
      return self
    }
    return .consecutive(sequence: sequence, first: first + row)
  }

  /// The first row that belongs to the same sequence as row `row`.
  package func firstRow(inSequenceOf row: Int) -> Int {
    switch self {
    case .consecutive, .step: 0
    case .parallel: row
    }
  }

  /// Calls `body` with each run of rows that follow each other in a sequence: the sequence, their positions, and the first of them.
  package func forEachRun(of count: Int, _ body: (_ sequence: Int, _ positions: Range<Int>, _ row: Int) -> Void) {
    switch self {
    case .consecutive(let sequence, let first): body(sequence, first..<first + count, 0)
    case .step(let sequence, let position): body(sequence, position..<position + 1, 0)
    case .parallel(let position): for row in 0..<count { body(row, position..<position + 1, row) }
    }
  }

  package func sequence(ofRow row: Int) -> Int {
    switch self {
    case .consecutive(let sequence, _), .step(let sequence, _): sequence
    case .parallel: row
    }
  }

  /// The position behind the last of `count` rows.
  func end(of count: Int) -> Int {
    switch self {
    case .consecutive(_, let first): first + count
    case .step(_, let position), .parallel(let position): position + 1
    }
  }

  package func position(ofRow row: Int) -> Int {
    switch self {
    case .consecutive(_, let first): first + row
    case .step(_, let position), .parallel(let position): position
    }
  }
}

/// Where a row stands for the rotary embedding, on up to three axes; a text's rows are at the same place on all of them. It need not
/// be the row's place in the cache.
package typealias RotaryPosition = SIMD3<Int32>

/// The cosines and sines [rows, pairs] that turn the heads of each row.
package struct RotaryAngles: @unchecked Sendable {  // a view of the arena
  package let cosines: Rows
  package let sines: Rows

  package init(cosines: Rows, sines: Rows) {
    self.cosines = cosines
    self.sines = sines
  }

  /// The angles of the rows from `row` on.
  package func from(_ row: Int) -> RotaryAngles { RotaryAngles(cosines: cosines.from(row), sines: sines.from(row)) }

  /// Fills the angles of `count` rows: `magnitude` · cos and sin of position · frequency[pair], the position of each row being on
  /// the axis that its pair is for.
  ///
  /// The products are rounded to f32 as transformers does it (LlamaRotaryEmbedding.forward), since the angle of a late
  /// position depends on that rounding.
  ///
  /// - Parameter axes: [pairs], each 0, 1 or 2; nil: all are of axis 0.
  package func fill(
    _ positions: UnsafePointer<RotaryPosition>, count: Int, frequencies: UnsafePointer<Float>,
    axes: UnsafePointer<UInt8>? = nil, magnitude: Float
  ) {
    for row in 0..<count {
      for pair in 0..<cosines.width {
        let angle = Float(positions[row][axes.map { Int($0[pair]) } ?? 0]) * frequencies[pair]
        cosines[row][pair] = cosf(angle) * magnitude
        sines[row][pair] = sinf(angle) * magnitude
      }
    }
  }

  /// Fills row 0 with the means of those cosines and sines over the positions 0..<`positions`: what turns a vector by them gives
  /// the mean of the vector turned at each position.
  package func fillMeans(positions: Int, frequencies: UnsafePointer<Float>, magnitude: Float) {
    for pair in 0..<cosines.width {
      let (length, angle) = Self.mean(of: frequencies[pair], positions: positions)
      cosines[0][pair] = Float(length * cos(angle)) * magnitude
      sines[0][pair] = Float(length * sin(angle)) * magnitude
    }
  }

  /// The mean of the vectors of length 1 at the angles position · frequency of the positions 0..<`positions`: a Dirichlet kernel at
  /// the middle angle.
  package static func mean(of frequency: Float, positions: Int) -> (length: Double, angle: Double) {
    let half = Double(frequency) / 2
    let length = abs(sin(half)) < 1e-12 ? 1 : sin(Double(positions) * half) / (Double(positions) * sin(half))
    return (length, Double(positions - 1) * half)
  }
}

extension Compute {
  /// The normalization of each head of queries and keys, w[head_width] (Qwen3).
  package struct HeadNorm: @unchecked Sendable {  // a view of the file
    package let weight: UnsafePointer<Float>
    package let epsilon: Float

    package init(weight: UnsafePointer<Float>, epsilon: Float) {
      self.weight = weight
      self.epsilon = epsilon
    }

    /// The same norm, read `distance` bytes behind where it was.
    package func moved(by distance: Int) -> HeadNorm {
      HeadNorm(weight: weight.moved(by: distance), epsilon: epsilon)
    }
  }

  /// Normalizes (where given) and turns the heads of q and k in place, and stores k and v in the cache.
  ///
  /// A cache that rounds gets keys less `center`, which the softmax does not see, as it is the same at all positions. One that rounds
  /// by groups gets both queries and keys multiplied by a Hadamard matrix, which leaves their products as they are: what few columns
  /// hold, all share. Otherwise the large columns of some models (Qwen2.5) leave the others little of their group's byte.
  ///
  /// q: [count, heads · head_width]; k, v: [count, kv_heads · head_width]; center: [kv_heads · head_width].
  package func rotateAndStore(
    q: Rows, k: Rows, v: Rows, count: Int, _ angles: RotaryAngles, qNorm: HeadNorm?, kNorm: HeadNorm?,
    center: UnsafePointer<Float>?, cache: KVCache, layer: Int, _ placement: Placement
  ) {
    struct Job {
      let q: Rows
      let k: Rows
      let v: Rows
      let angles: RotaryAngles
      let qNorm: HeadNorm?
      let kNorm: HeadNorm?
      let center: UnsafePointer<Float>?
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

      func prepare(_ row: Int) {
        let width = cache.shape.headWidth
        if let center {
          for index in 0..<k.width { k[row][index] -= center[index] }
        }
        guard cache.shape.type.spreadsKeys else { return }
        kernels.hadamard(q[row], q.width / width, width, width)
        kernels.hadamard(k[row], k.width / width, width, width)
      }
    }
    placement.forEachRun(of: count) { sequence, positions, _ in
      cache.makeRoom(for: positions, layer: layer, sequence: sequence)
    }
    var job = Job(
      q: q, k: k, v: v, angles: angles, qNorm: qNorm, kNorm: kNorm, center: center, cache: cache,
      layer: layer, placement: placement, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      job.pointee.turn(job.pointee.q, row, job.pointee.qNorm)
      job.pointee.turn(job.pointee.k, row, job.pointee.kNorm)
      job.pointee.prepare(row)
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

  /// out = softmax(q · kᵀ / √head_width) · v over the cached positions that each row sees.
  ///
  /// q, out: [count, heads · head_width]. `scratch` holds `attentionScratch(headWidth:)` floats for each thread, `partial`
  /// `PartialAttention.floats` of them.
  package func attend(
    q: Rows, into out: Rows, count: Int, cache: KVCache, layer: Int, _ mask: AttentionMask, _ placement: Placement,
    scratch: Rows, partial: PartialAttention
  ) {
    // Its few heads would leave threads idle. Not for the last row of a prompt that happens to be alone: what a prompt gives does
    // not depend on how it is cut.
    if case .step(let sequence, let position) = placement {
      let start = cache.start(layer: layer, sequence: sequence)
      let seen = mask.visible(from: position).clamped(to: start..<position + 1)
      attendPartially(
        q: q, into: out, cache.shape, cache.headsOf(layer: layer, sequence: sequence),
        rows: seen.lowerBound - start..<seen.upperBound - start, scratch: scratch, partial)
      return
    }
    struct Job {
      let q: Rows
      let out: Rows
      let count: Int
      let cache: KVCache
      let layer: Int
      let mask: AttentionMask
      let placement: Placement
      let scratch: Rows
      let rowsPerPiece: Int
      let kernels: Kernels

      func run(_ piece: Int, _ thread: Int) {
        let shape = cache.shape
        let head = piece % shape.heads
        let start = piece / shape.heads * rowsPerPiece
        let rows = start..<min(start + rowsPerPiece, count)
        let sequence = placement.sequence(ofRow: start)
        let kv = cache.head(head, layer: layer, sequence: sequence)
        let queryHeads = q.width / shape.headWidth / shape.heads
        let positions = cache.start(layer: layer, sequence: sequence)..<placement.end(of: count)
        withUnsafeTemporaryAllocation(of: squint_span.self, capacity: rows.count) { seen in
          for row in rows {
            let visible = mask.visible(from: placement.position(ofRow: row)).clamped(to: positions)
            seen[row - start] = squint_span(
              first: UInt32(visible.lowerBound - positions.lowerBound),
              end: UInt32(visible.upperBound - positions.lowerBound))
          }
          var call = squint_attention(
            q: q[start] + head * queryHeads * shape.headWidth, q_token_stride: q.width,
            q_head_stride: shape.headWidth, heads: UInt32(queryHeads), head_dim: UInt32(shape.headWidth),
            k: kv.keys, v: kv.values, k_scales: kv.keyScales, v_scales: kv.valueScales,
            kv_stride: shape.headWidth, scale_stride: shape.scalesPerPosition, kv_type: shape.type.code,
            positions: UInt32(positions.count), seen: seen.baseAddress, scale: 1 / Float(shape.headWidth).squareRoot(),
            out: out[start] + head * queryHeads * shape.headWidth, out_token_stride: out.width,
            out_head_stride: shape.headWidth, statistics: nil)
          kernels.attention(&call, 0, UInt32(rows.count), scratch[thread])
        }
      }
    }
    let rowsPerPiece: Int
    switch placement {
    case .consecutive: rowsPerPiece = Self.rowsPerPiece(queryHeads: q.width / cache.shape.headWidth / cache.shape.heads)
    case .step, .parallel: rowsPerPiece = 1
    }
    var job = Job(
      q: q, out: out, count: count, cache: cache, layer: layer, mask: mask, placement: placement,
      scratch: scratch, rowsPerPiece: rowsPerPiece, kernels: kernels)
    let tiles = (count + rowsPerPiece - 1) / rowsPerPiece
    workers.run(&job, pieces: tiles * cache.shape.heads) { job, piece, thread in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece, thread)
    }
  }

  /// The rows of a prompt whose query heads, so many for each KV head, are about what the kernel works on at a time, for it reads
  /// keys and values once for all of them: a power of two, which cuts chunks into equal pieces. Chunks of multiples of them
  /// give the same numbers.
  package static func rowsPerPiece(queryHeads: Int) -> Int {
    var rows = 64
    while rows > 8, rows * queryHeads > 64 { rows /= 2 }
    return rows
  }

  /// How many floats of scratch a thread needs for attention over heads of this width.
  package static func attentionScratch(headWidth: Int) -> Int { Kernels.attentionScratch(headDimension: headWidth) }
}

// MARK: One token

/// Room for the attention of one token over parts of the positions, which is put together afterwards.
package struct PartialAttention: Sendable {
  /// [parts, heads · head_width] and behind them [parts, heads, 2]
  let data: Rows
  private let heads: Int

  /// A part has as many positions as keep a core busy for some microseconds, and there are at most `most` parts. Both depend on
  /// the positions alone, so that an answer does not depend on the threads.
  static let positions = 256
  static let most = 64

  /// The positions of each part of `positions`.
  static func size(_ positions: Int) -> Int {
    let pieces = Self.positions * most
    return Self.positions * ((positions + pieces - 1) / pieces)
  }

  /// The floats for a context of so many positions, where a token has `heads` query heads.
  package static func floats(context: Int, heads: Int, headWidth: Int) -> Int {
    let parts = min((context + positions - 1) / positions, most)
    return parts * heads * (headWidth + 2)
  }

  package init(_ region: Region<Float>, heads: Int, headWidth: Int, in arena: Arena) {
    data = Rows(region, width: heads * headWidth, in: arena)
    self.heads = heads
  }

  /// The largest score and the sum of exponentials of each head in part `part` of `count`: [heads, 2].
  func statistics(_ part: Int, of count: Int) -> UnsafeMutablePointer<Float> { data[count] + part * heads * 2 }
}

extension Compute {
  private func attendPartially(
    q: Rows, into out: Rows, _ shape: KVShape, _ heads: KVCache.Heads, rows: Range<Int>, scratch: Rows,
    _ partial: PartialAttention
  ) {
    struct Job {
      let q: Rows
      let out: Rows
      let shape: KVShape
      let heads: KVCache.Heads
      let rows: Range<Int>
      let size: Int
      let count: Int
      let scratch: Rows
      let partial: PartialAttention
      let kernels: Kernels

      func run(_ piece: Int, _ thread: Int) {
        let (part, head) = (piece / shape.heads, piece % shape.heads)
        let first = rows.lowerBound + part * size
        let kv = heads[head].from(first, shape)
        let queryHeads = q.width / shape.headWidth / shape.heads
        let column = head * queryHeads * shape.headWidth
        let output = count == 1 ? out : partial.data.from(part)
        var call = squint_attention(
          q: q.data + column, q_token_stride: q.width, q_head_stride: shape.headWidth, heads: UInt32(queryHeads),
          head_dim: UInt32(shape.headWidth), k: kv.keys, v: kv.values, k_scales: kv.keyScales,
          v_scales: kv.valueScales, kv_stride: shape.headWidth, scale_stride: shape.scalesPerPosition,
          kv_type: shape.type.code, positions: UInt32(min(size, rows.upperBound - first)), seen: nil,
          scale: 1 / Float(shape.headWidth).squareRoot(), out: output.data + column,
          out_token_stride: output.width, out_head_stride: shape.headWidth,
          statistics: count == 1 ? nil : partial.statistics(part, of: count) + 2 * head * queryHeads)
        kernels.attention(&call, 0, 1, scratch[thread])
      }
    }
    let size = PartialAttention.size(rows.count)
    let count = (rows.count + size - 1) / size
    var job = Job(
      q: q, out: out, shape: shape, heads: heads, rows: rows, size: size, count: count, scratch: scratch,
      partial: partial, kernels: kernels)
    workers.run(&job, pieces: count * shape.heads) { job, piece, thread in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece, thread)
    }
    if count > 1 { Self.merge(partial, count: count, headWidth: shape.headWidth, into: out) }
  }

  /// out = Σ weight · part / Σ weight for each head, a part's weight being its sum of exponentials, brought to the largest score of
  /// all (Milakov & Gimelshein, arXiv 1805.02867).
  private static func merge(_ partial: PartialAttention, count: Int, headWidth: Int, into out: Rows) {
    for head in 0..<out.width / headWidth {
      var largest = -Float.infinity
      for part in 0..<count { largest = max(largest, partial.statistics(part, of: count)[2 * head]) }
      let target = out.data + head * headWidth
      target.update(repeating: 0, count: headWidth)
      var total: Float = 0
      for part in 0..<count {
        let statistics = partial.statistics(part, of: count) + 2 * head
        let weight = expf(statistics[0] - largest) * statistics[1]
        total += weight
        let source = partial.data[part] + head * headWidth
        for index in 0..<headWidth { target[index] += weight * source[index] }
      }
      for index in 0..<headWidth { target[index] /= total }
    }
  }
}
