import SquintFile

/// Makes a run of rows of an output tensor from the source: reads, reorders, converts, and measures the error.
struct TensorEncoder {
  /// Rows of a tensor that are made in one go, so that memory does not depend on the tensor's size.
  struct Chunk {
    let tensor: Int
    let rows: Range<Int>
  }

  /// What a chunk became.
  struct Output {
    let bytes: UnsafeMutableRawBufferPointer
    /// Empty where blocks were taken over.
    var error = ErrorSums()
    var readingNanoseconds: UInt64 = 0
    var quantizingNanoseconds: UInt64 = 0
  }

  /// As many f32 bytes as a chunk takes, unless a single panel is larger.
  static let chunkBytes = 2 << 20

  /// The chunks of `tensor`, in order.
  static func chunks(of tensor: PlannedTensor, index: Int) -> [Chunk] {
    let step = tensor.type.isQuantized ? PanelLayout.rowsPerPanel : 1
    // Beside each row lie the numbers of an adapter for it.
    let widest = max(tensor.columns, tensor.origin.update?.rank ?? 0)
    let rows = max(1, chunkBytes / 4 / widest / step) * step
    return stride(from: 0, to: tensor.rows, by: rows).map { first in
      Chunk(tensor: index, rows: first..<min(first + rows, tensor.rows))
    }
  }

  /// Makes the bytes of `rows` of `tensor`; the caller deallocates them.
  ///
  /// - Throws: `SquintError.badData` where the source has a number that is not finite or that the type cannot hold, or
  ///   ends too early; `.inputOutput` where reading fails.
  func encode(_ tensor: PlannedTensor, rows: Range<Int>) throws(SquintError) -> Output {
    let shape = tensor.shape.count == 2 ? [rows.count, tensor.columns] : [rows.count]
    guard let byteCount = tensor.type.byteCount(shape: shape) else { preconditionFailure("the plan was checked") }
    var output = Output(bytes: .allocate(byteCount: byteCount, alignment: PanelLayout.alignment))
    do throws(SquintError) {
      if tensor.isKept {
        try repack(tensor, rows: rows, into: &output)
      } else {
        try convert(tensor, rows: rows, into: &output)
      }
      return output
    } catch {
      output.bytes.deallocate()
      throw error
    }
  }

  // MARK: By way of f32

  private func convert(_ tensor: PlannedTensor, rows: Range<Int>, into output: inout Output) throws(SquintError) {
    let start = nanoseconds()
    let numbers = UnsafeMutableBufferPointer<Float>.allocate(capacity: rows.count * tensor.columns)
    defer { numbers.deallocate() }
    try tensor.origin.read(rows: rows, into: numbers)
    let read = nanoseconds()
    let weights = UnsafeBufferPointer(numbers)
    if tensor.type.isQuantized {
      try forEachPanel(of: tensor, rows: rows, output: output) { (layout, range, panel) throws(SquintError) in
        output.error += try quantizePanel(
          weights: UnsafeBufferPointer(
            rebasing: weights[range.lowerBound * tensor.columns..<range.upperBound * tensor.columns]),
          rowsUsed: range.count, layout: layout, importance: nil, into: panel,
          firstRow: rows.lowerBound + range.lowerBound, byChance: tensor.origin.update != nil)
      }
    } else {
      try named(tensor) { () throws(SquintError) in
        output.error += try convertPlain(
          weights, columns: tensor.columns, to: tensor.type, into: output.bytes, firstRow: rows.lowerBound)
      }
    }
    output.error.count += numbers.count
    output.readingNanoseconds = read - start
    output.quantizingNanoseconds = nanoseconds() - read
  }

  // MARK: Bit for bit

  private func repack(_ tensor: PlannedTensor, rows: Range<Int>, into output: inout Output) throws(SquintError) {
    guard let block = tensor.origin.tensor.type.repackable else {
      preconditionFailure("the plan keeps what can be kept")
    }
    let start = nanoseconds()
    let rowBytes = tensor.columns / block.columns * block.bytes
    let blocks = UnsafeMutableRawBufferPointer.allocate(byteCount: rows.count * rowBytes, alignment: 16)
    defer { blocks.deallocate() }
    try tensor.origin.readRaw(rows: rows, into: blocks)
    let read = nanoseconds()
    try forEachPanel(of: tensor, rows: rows, output: output) { (layout, range, panel) throws(SquintError) in
      let result = try repackPanel(
        blocks: UnsafeRawBufferPointer(rebasing: blocks[range.lowerBound * rowBytes..<range.upperBound * rowBytes]),
        block: block, rowsUsed: range.count, layout: layout, into: panel,
        firstRow: rows.lowerBound + range.lowerBound)
      if case .scaleTooLarge(let row, let column) = result {
        throw SquintError(
          .badData,
          "row \(grouped(row)), column \(grouped(column)): the scale of the block is too large to be kept; use --no-keep "
            + "with --type f32")
      }
    }
    output.readingNanoseconds = read - start
    output.quantizingNanoseconds = nanoseconds() - read
  }

  // MARK: Panels

  /// Calls `body` with each panel of `rows`: the matrix's layout, the rows counted from the first of `rows`, the bytes.
  private func forEachPanel(
    of tensor: PlannedTensor, rows: Range<Int>, output: Output,
    _ body: (PanelLayout, Range<Int>, UnsafeMutableRawBufferPointer) throws(SquintError) -> Void
  ) throws(SquintError) {
    guard let layout = PanelLayout(type: tensor.type, rows: tensor.rows, columns: tensor.columns) else {
      preconditionFailure("the plan was checked")
    }
    try named(tensor) { () throws(SquintError) in
      for (index, first) in stride(from: 0, to: rows.count, by: PanelLayout.rowsPerPanel).enumerated() {
        try body(
          layout, first..<min(first + PanelLayout.rowsPerPanel, rows.count),
          UnsafeMutableRawBufferPointer(
            rebasing: output.bytes[index * layout.panelBytes..<(index + 1) * layout.panelBytes]))
      }
    }
  }

  /// Adds the file and the tensor to the errors of `body`, which say only the row and column.
  private func named(_ tensor: PlannedTensor, _ body: () throws(SquintError) -> Void) throws(SquintError) {
    do throws(SquintError) {
      try body()
    } catch {
      throw SquintError(error.kind, "\(tensor.origin.place): \(error.message)")
    }
  }
}

/// Sums from which the relative error of a type is computed.
struct ErrorSums {
  var count = 0
  var squaredError = 0.0
  var squaredNorm = 0.0

  /// √(Σ(stored − source)² / Σ source²); nil where nothing was measured.
  var relativeRMSE: Double? {
    count == 0 ? nil : squaredNorm > 0 ? (squaredError / squaredNorm).squareRoot() : 0
  }

  static func += (left: inout ErrorSums, right: ErrorSums) {
    left.count += right.count
    left += (right.squaredError, right.squaredNorm)
  }

  static func += (left: inout ErrorSums, right: (squaredError: Double, squaredNorm: Double)) {
    left.squaredError += right.squaredError
    left.squaredNorm += right.squaredNorm
  }
}

/// A clock that only moves forward, in nanoseconds.
func nanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
