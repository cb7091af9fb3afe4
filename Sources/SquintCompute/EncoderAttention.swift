import CKernels
import SquintFile

/// The keys and values of all rows of an encoder's layer, and the room that attention over them needs.
///
/// They come in chunks: products write a chunk's keys and values to `keys(from:)` and `values(from:)`, and `store` turns
/// them into what attention reads.
package struct EncoderAttention: @unchecked Sendable {  // a view of the arena
  /// How attention multiplies.
  package enum Arithmetic: Sendable {
    case f32
    /// As quantized matrices do: int8 with a scale per 32 numbers, of a head's width or, for values, of positions. The
    /// softmax's weights, of which many small ones stand beside a large one, are two such numbers each.
    case int8
  }

  /// The sizes that an encoder is planned for.
  package struct Shape: Sendable {
    /// The rows of the largest tile.
    package let positions: Int
    package let heads: Int
    package let headWidth: Int
    /// The rows that are stored at a time: a multiple of 32, or all positions.
    package let chunk: Int
    package let arithmetic: Arithmetic
    /// Whether rows of some layers see those of their block alone.
    package let hasBlocks: Bool

    package init(
      positions: Int, heads: Int, headWidth: Int, chunk: Int, arithmetic: Arithmetic, hasBlocks: Bool = false
    ) {
      precondition(chunk % PanelLayout.columnsPerGroup == 0 || chunk >= positions, "a chunk that cuts a group")
      self.positions = positions
      self.heads = heads
      self.headWidth = headWidth
      self.chunk = chunk
      self.arithmetic = arithmetic
      self.hasBlocks = hasBlocks
    }

    /// The floats that a thread needs.
    var scratch: Int {
      let f32 = Compute.attentionScratch(headWidth: headWidth)
      guard arithmetic == .int8 else { return f32 }
      return hasBlocks ? max(int8Tile * positions, f32) : int8Tile * positions
    }

    var width: Int { heads * headWidth }
  }

  package struct Regions: Sendable {
    let shape: Shape
    let keys: Region<Float>
    let values: Region<Float>
    let scratch: Region<Float>
    let panels: (keys: Region<UInt8>, values: Region<UInt8>)
    let quantized: QuantizedRows.Regions

    /// Reserves the room through `phases`.
    ///
    /// - Throws: `doesNotFit` where it would be larger than an address space.
    package init(_ shape: Shape, threads: Int, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      self.shape = shape
      let isInt8 = shape.arithmetic == .int8
      let rows = isInt8 ? min(shape.chunk, shape.positions) : shape.positions
      keys = try plan.reserve("encoder keys", count: rows * shape.width, phases: phases)
      values = try plan.reserve("encoder values", count: rows * shape.width, phases: phases)
      let layouts = EncoderAttention.layouts(shape, positions: shape.positions)
      guard let layouts else {
        throw SquintError(
          .doesNotFit, "an encoder of \(grouped(shape.positions)) positions is more than any machine holds")
      }
      panels = (
        try plan.reserve("encoder int8 keys", count: isInt8 ? shape.heads * layouts.keys.byteCount : 0, phases: phases),
        try plan.reserve(
          "encoder int8 values", count: isInt8 ? shape.heads * layouts.values.byteCount : 0, phases: phases)
      )
      scratch = try plan.reserve("encoder attention tiles", count: threads * shape.scratch, phases: phases)
      quantized = try QuantizedRows.Regions(
        rows: isInt8 ? 2 * threads * int8Tile : 0, columns: max(shape.headWidth, shape.positions), phases: phases,
        in: &plan
      )
    }
  }

  private let shape: Shape
  private let keyRows: Rows
  private let valueRows: Rows
  private let scratch: UnsafeMutablePointer<Float>
  private let keyPanels: UnsafeMutablePointer<UInt8>
  private let valuePanels: UnsafeMutablePointer<UInt8>
  private let quantized: QuantizedRows

  package init(_ regions: Regions, in arena: Arena) {
    shape = regions.shape
    keyRows = Rows(regions.keys, width: shape.width, in: arena)
    valueRows = Rows(regions.values, width: shape.width, in: arena)
    scratch = arena[regions.scratch].baseAddress!
    keyPanels = arena[regions.panels.keys].baseAddress!
    valuePanels = arena[regions.panels.values].baseAddress!
    quantized = QuantizedRows(regions.quantized, in: arena)
  }

  /// Where the keys [rows, heads · head_width] of a chunk that starts with row `first` belong.
  package func keys(from first: Int) -> Rows { shape.arithmetic == .int8 ? keyRows : keyRows.from(first) }

  /// Where the values [rows, heads · head_width] of a chunk that starts with row `first` belong.
  package func values(from first: Int) -> Rows { shape.arithmetic == .int8 ? valueRows : valueRows.from(first) }

  /// A head's keys [positions, head_width] and values, transposed [head_width, positions], as quantized matrices.
  private static func layouts(_ shape: Shape, positions: Int) -> (keys: PanelLayout, values: PanelLayout)? {
    guard let keys = PanelLayout(type: .int8, rows: positions, columns: shape.headWidth),
      let values = PanelLayout(type: .int8, rows: shape.headWidth, columns: positions)
    else { return nil }
    return (keys, values)
  }
}

/// The query rows of a piece of attention in f32: what the kernel works on at a time.
private let f32Tile = 64
/// The query rows of a piece in int8, whose scores against all positions are in memory: few enough for a second-level
/// cache, and a multiple of the tokens in every kernel's register tile.
private let int8Tile = 24

// MARK: Storing

extension EncoderAttention {
  /// Makes the `count` rows from `first` on, whose keys and values were written, ready for attention over `positions` rows.
  package func store(first: Int, count: Int, positions: Int, _ compute: Compute) {
    guard shape.arithmetic == .int8 else { return }
    struct Job {
      let attention: EncoderAttention
      let keys: PanelLayout
      let values: PanelLayout
      let first: Int
      let count: Int
      let kernels: Kernels

      /// Stores a group of 32 rows of one head.
      func run(_ piece: Int) {
        let shape = attention.shape
        let (head, row) = (piece % shape.heads, piece / shape.heads * PanelLayout.columnsPerGroup)
        let column = head * shape.headWidth
        let stride = shape.width
        let panels = attention.keyPanels + head * keys.byteCount
        for start in Swift.stride(
          from: row, to: min(row + PanelLayout.columnsPerGroup, count), by: PanelLayout.rowsPerPanel)
        {
          kernels.packRows(
            attention.keyRows[start] + column, stride, UInt32(min(PanelLayout.rowsPerPanel, count - start)),
            UInt32(shape.headWidth), panels + (first + start) / PanelLayout.rowsPerPanel * keys.panelBytes)
        }
        for panel in 0..<values.panels {
          let part = panel * PanelLayout.rowsPerPanel
          kernels.packColumns(
            attention.valueRows[row] + column + part, stride,
            UInt32(min(PanelLayout.rowsPerPanel, shape.headWidth - part)), UInt32(values.columns),
            UInt32((first + row) / PanelLayout.columnsPerGroup),
            attention.valuePanels + head * values.byteCount + panel * values.panelBytes)
        }
      }
    }
    // Planned for at least as many.
    let (keys, values) = Self.layouts(shape, positions: positions)!
    var job = Job(attention: self, keys: keys, values: values, first: first, count: count, kernels: compute.kernels)
    let groups = (count + PanelLayout.columnsPerGroup - 1) / PanelLayout.columnsPerGroup
    compute.workers.run(&job, pieces: groups * shape.heads) { job, piece, _ in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece)
    }
  }
}

// MARK: Attending

extension EncoderAttention {
  /// out = softmax(q · kᵀ / √head_width) · v for `count` rows, each of which sees all `positions`.
  ///
  /// q, out: [count, heads · head_width].
  package func attend(q: Rows, count: Int, positions: Int, into out: Rows, _ compute: Compute) {
    switch shape.arithmetic {
    case .f32: attendF32(q, count, positions, out, compute)
    case .int8: attendInt8(q, count, positions, out, compute)
    }
  }

  private func attendF32(_ q: Rows, _ count: Int, _ positions: Int, _ out: Rows, _ compute: Compute) {
    struct Job {
      let attention: EncoderAttention
      let q: Rows
      let count: Int
      let positions: Int
      let out: Rows
      let tiles: HeadTiles
      let kernels: Kernels

      func run(_ piece: Int, _ thread: Int) {
        let shape = attention.shape
        guard let (head, tile) = tiles[piece] else { return }
        let first = tile * f32Tile
        let column = head * shape.headWidth
        var call = squint_attention(
          q: q.data + column, q_token_stride: q.width, q_head_stride: shape.headWidth, heads: 1,
          head_dim: UInt32(shape.headWidth), k: attention.keyRows.data + column, v: attention.valueRows.data + column,
          k_scales: nil, v_scales: nil, kv_stride: shape.width, scale_stride: 0, kv_type: KVType.f32.code,
          positions: UInt32(positions), seen: nil,
          scale: 1 / Float(shape.headWidth).squareRoot(), out: out.data + column, out_token_stride: out.width,
          out_head_stride: shape.headWidth, statistics: nil)
        kernels.attention(
          &call, UInt32(first), UInt32(min(f32Tile, count - first)),
          attention.scratch + thread * shape.scratch)
      }
    }
    let tiles = HeadTiles((count + f32Tile - 1) / f32Tile, heads: shape.heads, threads: compute.workers.count)
    var job = Job(
      attention: self, q: q, count: count, positions: positions, out: out, tiles: tiles, kernels: compute.kernels)
    compute.workers.run(&job, pieces: tiles.pieces) { job, piece, thread in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece, thread)
    }
  }

  /// Both products as those of a quantized matrix: q · keys, and weights · transposed values.
  private func attendInt8(_ q: Rows, _ count: Int, _ positions: Int, _ out: Rows, _ compute: Compute) {
    struct Job {
      let attention: EncoderAttention
      let keys: PanelLayout
      let values: PanelLayout
      let q: Rows
      let count: Int
      let out: Rows
      let tiles: HeadTiles
      let kernels: Kernels

      func run(_ piece: Int, _ thread: Int) {
        let shape = attention.shape
        let positions = keys.rows
        guard let (head, tile) = tiles[piece] else { return }
        let first = tile * int8Tile
        let rows = min(int8Tile, count - first)
        let column = head * shape.headWidth
        let groups = max(keys.groups, values.groups)
        let x = attention.quantized.from(2 * thread * int8Tile, groups: groups)
        let low = x.from(int8Tile, groups: groups)
        let scores = Rows(data: attention.scratch + thread * shape.scratch, width: positions)
        for row in 0..<rows { x.quantize(q[first + row] + column, columns: shape.headWidth, row: row, kernels) }
        Compute.multiplyPanels(
          keys, attention.keyPanels + head * keys.byteCount, x, count: rows, into: scores, kernels)
        let scale = 1 / Float(shape.headWidth).squareRoot()
        for row in 0..<rows {
          kernels.softmax(
            scores[row], positions, scale, x.rounded(columns: positions, row: row),
            low.rounded(columns: positions, row: row))
        }
        let valuePanels = attention.valuePanels + head * values.byteCount
        let result = Rows(data: out[first] + column, width: out.width)
        Compute.multiplyPanels(values, valuePanels, x, count: rows, into: result, kernels)
        // Rounded once, weights cost most of what int8 costs: DINOv2 at 518 pixels 8 of 11 ten-thousandths of its cosine.
        Compute.multiplyPanels(values, valuePanels, low, count: rows, into: result, accumulate: true, kernels)
      }
    }
    // Planned for at least as many.
    let (keys, values) = Self.layouts(shape, positions: positions)!
    let tiles = HeadTiles((count + int8Tile - 1) / int8Tile, heads: shape.heads, threads: compute.workers.count)
    var job = Job(
      attention: self, keys: keys, values: values, q: q, count: count, out: out, tiles: tiles,
      kernels: compute.kernels)
    compute.workers.run(&job, pieces: tiles.pieces) { job, piece, thread in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece, thread)
    }
  }
}

// MARK: Blocks

/// Rows that follow each other and see each other alone.
package struct RowBlock: BitwiseCopyable, Sendable {
  package let first: Int
  package let end: Int

  package init(_ rows: Range<Int>) { (first, end) = (rows.lowerBound, rows.upperBound) }

  package var count: Int { end - first }
}

extension EncoderAttention {
  /// out = softmax(q · kᵀ / √head_width) · v for rows of which each sees those of its own block, in f32.
  ///
  /// The keys and values of all of them were written to `keys(from: first)` and `values(from: first)`; they are not stored.
  /// q, out: [blocks' rows, heads · head_width], from row `first` on, with which the first block begins.
  package func attend(
    q: Rows, blocks: UnsafeBufferPointer<RowBlock>, first: Int, into out: Rows, _ compute: Compute
  ) {
    struct Job {
      let attention: EncoderAttention
      let q: Rows
      let blocks: UnsafeBufferPointer<RowBlock>
      let first: Int
      let out: Rows
      let kernels: Kernels

      func run(_ piece: Int, _ thread: Int) {
        let shape = attention.shape
        let (head, block) = (piece % shape.heads, blocks[piece / shape.heads])
        let row = block.first - first
        let column = head * shape.headWidth
        var call = squint_attention(
          q: q[row] + column, q_token_stride: q.width, q_head_stride: shape.headWidth, heads: 1,
          head_dim: UInt32(shape.headWidth), k: attention.keys(from: first)[row] + column,
          v: attention.values(from: first)[row] + column, k_scales: nil, v_scales: nil, kv_stride: shape.width,
          scale_stride: 0, kv_type: KVType.f32.code, positions: UInt32(block.count), seen: nil,
          scale: 1 / Float(shape.headWidth).squareRoot(), out: out[row] + column, out_token_stride: out.width,
          out_head_stride: shape.headWidth, statistics: nil)
        for tile in stride(from: 0, to: block.count, by: f32Tile) {
          kernels.attention(
            &call, UInt32(tile), UInt32(min(f32Tile, block.count - tile)),
            attention.scratch + thread * shape.scratch)
        }
      }
    }
    precondition(shape.hasBlocks, "attention was not planned for blocks")
    var job = Job(attention: self, q: q, blocks: blocks, first: first, out: out, kernels: compute.kernels)
    compute.workers.run(&job, pieces: blocks.count * shape.heads) { job, piece, thread in
      job.assumingMemoryBound(to: Job.self).pointee.run(piece, thread)
    }
  }
}

extension Compute {
  /// Turns the heads of `count` rows, each `headWidth` wide, in place (arXiv 2104.09864).
  package func rotate(_ x: Rows, headWidth: Int, count: Int, _ angles: RotaryAngles) {
    struct Job {
      let x: Rows
      let headWidth: Int
      let angles: RotaryAngles
      let kernels: Kernels
    }
    var job = Job(x: x, headWidth: headWidth, angles: angles, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self).pointee
      job.kernels.rotary(
        job.x[row], job.x.width / job.headWidth, job.headWidth, job.angles.cosines.width, job.angles.cosines[row],
        job.angles.sines[row])
    }
  }
}

/// Tiles of rows of every head, in an order in which each thread has rows of its own, and goes through them head after head, so that
/// a head's keys and values stay in its cache.
private struct HeadTiles {
  private let tiles: Int
  private let heads: Int
  /// The tiles of each thread.
  private let share: Int
  let pieces: Int

  init(_ tiles: Int, heads: Int, threads: Int) {
    self.tiles = tiles
    self.heads = heads
    share = (tiles + threads - 1) / threads
    pieces = threads * heads * share
  }

  /// The head and the tile of a piece; nil where the last thread has fewer tiles.
  subscript(_ piece: Int) -> (head: Int, tile: Int)? {
    let tile = piece / (heads * share) * share + piece % share
    return tile < tiles ? (piece / share % heads, tile) : nil
  }
}

extension Compute {
  /// y = W · x for all panels of an int8 matrix that is in the arena, on the calling thread.
  fileprivate static func multiplyPanels(
    _ layout: PanelLayout, _ panels: UnsafeMutablePointer<UInt8>, _ x: QuantizedRows, count: Int, into y: Rows,
    accumulate: Bool = false, _ kernels: Kernels
  ) {
    let matrix = Matrix(type: .int8, rows: layout.rows, columns: layout.columns, data: UnsafeRawPointer(panels))
    multiplyPanels(matrix, panels: 0..<layout.panels, x, count: count, into: y, accumulate: accumulate, kernels)
  }
}
