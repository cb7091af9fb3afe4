import SquintFile

/// Where the numbers of an output tensor come from.
package struct TensorOrigin: Sendable {
  package let source: any TensorSource
  /// The source's tensor, seen as the matrix that the rows are taken from.
  package let tensor: SourceTensor
  package var rowOrder = RowOrder.same
  /// The source's row that is the first of the output, where several matrices are one tensor.
  package var firstRow = 0
  /// Whether the columns are [side, side, channels] in the source, so many channels, and [channels, side, side] here.
  package var channelsLast: Int?
  /// A vector of the source whose numbers multiply the rows.
  package var rowScale: SourceTensor?
  /// What goes into the numbers.
  package var fold = Fold()
  /// What an adapter adds, its rows in the order of the output.
  package var update: LowRankUpdate?
  /// Where the rows come from, if `tensor` is but the first of several.
  package var stack: StackOrigin?

  /// All that the numbers come from.
  package var tensors: [SourceTensor] { stack?.pieces.map(\.tensor) ?? [tensor] }

  /// The file and the tensor, for messages.
  package var place: String { "\(source.path(of: tensor)): tensor \(printable(tensor.name))" }

  /// Reads `rows` of the output as f32.
  ///
  /// - Parameter buffer: takes `rows.count * tensor.columns` numbers.
  /// - Throws: as `TensorSource.read`, and as `LowRankUpdate.add`.
  package func read(rows: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>) throws(SquintError) {
    if let stack { return try stack.read(rows: rows, from: source, into: buffer) }
    let columns = tensor.columns
    try forEachRun(of: rows) { (run, first) throws(SquintError) in
      let part = buffer[first * columns..<(first + run.count) * columns]
      try source.read(tensor, rows: run, into: UnsafeMutableBufferPointer(rebasing: part))
    }
    if let channelsLast { toPlanes(rows.count, of: buffer, channels: channelsLast) }
    if let rowScale { try multiply(rows, of: buffer, by: rowScale) }
    if fold != Fold() {
      for index in 0..<rows.count * columns { buffer[index] = (buffer[index] + fold.addend) * fold.factor }
    }
    try update?.add(rows, to: buffer)
  }

  private func toPlanes(_ rows: Int, of buffer: UnsafeMutableBufferPointer<Float>, channels: Int) {
    let columns = tensor.columns
    let pixels = columns / channels
    var planes = [Float](repeating: 0, count: columns)
    for row in 0..<rows {
      for pixel in 0..<pixels {
        for channel in 0..<channels {
          planes[channel * pixels + pixel] = buffer[row * columns + pixel * channels + channel]
        }
      }
      for column in 0..<columns { buffer[row * columns + column] = planes[column] }
    }
  }

  private func multiply(
    _ rows: Range<Int>, of buffer: UnsafeMutableBufferPointer<Float>, by rowScale: SourceTensor
  ) throws(SquintError) {
    let columns = tensor.columns
    let factors = UnsafeMutableBufferPointer<Float>.allocate(capacity: rows.count)
    defer { factors.deallocate() }
    try source.read(rowScale, rows: rows, into: factors)
    for row in 0..<rows.count {
      for place in row * columns..<(row + 1) * columns { buffer[place] *= factors[row] }
    }
  }

  /// Reads the blocks of `rows` of the output as they are stored, all of them if no number is changed.
  ///
  /// - Throws: as `TensorSource.readRaw`.
  package func readRaw(rows: Range<Int>, into buffer: UnsafeMutableRawBufferPointer) throws(SquintError) {
    if let stack { return try stack.readRaw(rows: rows, from: source, into: buffer) }
    let rowBytes = buffer.count / max(rows.count, 1)
    try forEachRun(of: rows) { (run, first) throws(SquintError) in
      let part = buffer[first * rowBytes..<(first + run.count) * rowBytes]
      try source.readRaw(tensor, rows: run, into: UnsafeMutableRawBufferPointer(rebasing: part))
    }
  }

  /// Calls `body` with runs of the source's rows that are `rows` of the output, and the place of each in the output,
  /// counted from the first of `rows`.
  package func forEachRun(
    of rows: Range<Int>, _ body: (Range<Int>, Int) throws(SquintError) -> Void
  ) throws(SquintError) {
    guard rowOrder != .same else { return try body(rows.lowerBound + firstRow..<rows.upperBound + firstRow, 0) }
    for (index, row) in rows.enumerated() {
      let from = firstRow + rowOrder.sourceRow(row)
      try body(from..<from + 1, index)
    }
  }
}

/// Which row of the source is which row of the output.
package enum RowOrder: Equatable, Sendable {
  case same
  /// The source has the rotary pairs of each head side by side, (2j, 2j + 1), where the output has them half the rotary
  /// width apart, (j, j + rotaryWidth / 2); rows from `rotaryWidth` on stay. llama.cpp's convert_hf_to_gguf.py,
  /// `LlamaModel.permute`, made it so.
  case interleavedPairs(headWidth: Int, rotaryWidth: Int)

  package func sourceRow(_ row: Int) -> Int {
    guard case .interleavedPairs(let headWidth, let rotaryWidth) = self else { return row }
    let inHead = row % headWidth
    guard inHead < rotaryWidth else { return row }
    let half = rotaryWidth / 2
    return row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1)
  }
}
