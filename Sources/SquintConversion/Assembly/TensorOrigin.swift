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
  /// Whether the columns are [channels, pixels] in the source, so many channels, and [pixels, channels] here.
  package var channelsFirst: Int?
  /// A vector of the source whose numbers multiply the rows.
  package var rowScale: SourceTensor?
  /// How the kernels of two frames become the columns; nil: they are no kernels of two frames, or as they are in the source.
  package var frames: FrameKernels?
  /// What goes into the numbers.
  package var fold = Fold()
  /// The batch norm that goes into a matrix, or into the bias behind one, which is a vector.
  package var batchNorm: BatchNormOrigin?
  /// What an adapter adds before that, its rows in the order of the output.
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
    if let frames {
      try read(frames, rows: rows, into: buffer)
    } else if let stack {
      try stack.read(rows: rows, from: source, into: buffer)
    } else {
      try readRows(rows, of: tensor, into: buffer)
    }
    if let rowScale { try multiply(rows, of: buffer, by: rowScale) }
    try update?.add(rows, to: buffer)
    try batchNorm?.fold(into: buffer, rows: rows, isBias: tensor.shape.count == 1, from: source)
    if fold != Fold() {
      for index in buffer.indices { buffer[index] = (buffer[index] + fold.addend) * fold.factor }
    }
  }

  /// Reads the rows of the source's `tensor` that are `rows` of the output.
  private func readRows(
    _ rows: Range<Int>, of tensor: SourceTensor, into buffer: UnsafeMutableBufferPointer<Float>
  ) throws(SquintError) {
    let columns = tensor.columns
    try forEachRun(of: rows) { (run, first) throws(SquintError) in
      let part = buffer[first * columns..<(first + run.count) * columns]
      try source.read(tensor, rows: run, into: UnsafeMutableBufferPointer(rebasing: part))
    }
    if let channelsLast { toPlanes(rows.count, of: buffer, channels: channelsLast) }
    // The same with the axes exchanged.
    if let channelsFirst { toPlanes(rows.count, of: buffer, channels: tensor.columns / channelsFirst) }
  }

  /// Reads the kernels of both frames, and adds or interleaves them.
  private func read(
    _ frames: FrameKernels, rows: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>
  ) throws(SquintError) {
    let (channels, pixels) = (FrameKernels.channels, frames.pixels)
    let whole = UnsafeMutableBufferPointer<Float>.allocate(capacity: rows.count * 2 * channels * pixels)
    defer { whole.deallocate() }
    /// The first pixel of a channel's kernel of a frame in `whole`.
    let place: (_ row: Int, _ channel: Int, _ frame: Int) -> Int
    if let second = frames.second {
      // One tensor behind the other.
      let half = rows.count * channels * pixels
      try readRows(rows, of: tensor, into: UnsafeMutableBufferPointer(rebasing: whole[..<half]))
      try readRows(rows, of: second, into: UnsafeMutableBufferPointer(rebasing: whole[half...]))
      place = { $2 * half + ($0 * channels + $1) * pixels }
    } else {
      try readRows(rows, of: tensor, into: whole)
      place = { (($0 * channels + $1) * 2 + $2) * pixels }
    }
    var next = 0
    for row in 0..<rows.count {
      for channel in 0..<channels {
        let (first, second) = (place(row, channel, 0), place(row, channel, 1))
        for pixel in 0..<pixels {
          if frames.areAdded {
            buffer[next + pixel] = whole[first + pixel] + whole[second + pixel]
          } else {
            buffer[next + pixel] = whole[first + pixel]
            buffer[next + pixels + pixel] = whole[second + pixel]
          }
        }
        next += frames.areAdded ? pixels : 2 * pixels
      }
    }
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

/// The vectors of a batch norm behind a matrix.
package struct BatchNormOrigin: Sendable {
  let weight: SourceTensor
  let bias: SourceTensor
  let mean: SourceTensor
  let variance: SourceTensor
  let epsilon: Double

  /// Lets `rows` of a matrix, or of its bias, give what they would behind the norm: a row of weights is multiplied with
  /// weight / √(variance + epsilon), and a bias b becomes (b − mean) · that + the norm's bias.
  ///
  /// - Throws: `SquintError.badData` where a variance is none.
  func fold(
    into buffer: UnsafeMutableBufferPointer<Float>, rows: Range<Int>, isBias: Bool, from source: any TensorSource
  ) throws(SquintError) {
    func numbers(_ tensor: SourceTensor) throws(SquintError) -> [Double] { try source.read(tensor).map { Double($0) } }
    let (weight, bias) = (try numbers(weight), try numbers(bias))
    let (mean, variances) = (try numbers(mean), try numbers(variance))
    let columns = isBias ? 1 : buffer.count / max(rows.count, 1)
    for (index, row) in rows.enumerated() {
      guard variances[row] >= 0, variances[row] + epsilon > 0 else {
        throw .badData(
          source.path(of: variance),
          "tensor \(printable(variance.name)): number \(grouped(row)) is \(variances[row]), which is no variance")
      }
      let scale = weight[row] / (variances[row] + epsilon).squareRoot()
      if isBias {
        buffer[index] = Float((Double(buffer[index]) - mean[row]) * scale + bias[row])
      } else {
        for place in index * columns..<(index + 1) * columns { buffer[place] = Float(Double(buffer[place]) * scale) }
      }
    }
  }
}

/// The kernels of a convolution over two frames of three channels: [rows, channels, frames, pixels] in one tensor, or
/// [rows, channels, pixels] in one for each frame.
package struct FrameKernels: Equatable, Sendable {
  package static let channels = 3
  /// Of a kernel.
  package let pixels: Int
  /// The second frame's kernels, where they are a tensor of their own.
  package var second: SourceTensor?
  /// Whether the output has their sum, which is for a picture that is both frames; otherwise one behind the other.
  package let areAdded: Bool
}

/// Which row of the source is which row of the output.
package enum RowOrder: Equatable, Sendable {
  case same
  /// The source has the rotary pairs of each head side by side, (2j, 2j + 1), where the output has them half the rotary
  /// width apart, (j, j + rotaryWidth / 2); rows from `rotaryWidth` on stay. llama.cpp's convert_hf_to_gguf.py,
  /// `LlamaModel.permute`, made it so.
  case interleavedPairs(headWidth: Int, rotaryWidth: Int)
  /// The source has groups of `total` heads, of which `count` from `first` on are here: InternLM2's queries, key and value of each
  /// head of keys (modeling_internlm2.py).
  case grouped(headWidth: Int, first: Int, count: Int, of: Int)

  package func sourceRow(_ row: Int) -> Int {
    if case .grouped(let headWidth, let first, let count, let total) = self {
      let head = row / headWidth
      return (head / count * total + first + head % count) * headWidth + row % headWidth
    }
    guard case .interleavedPairs(let headWidth, let rotaryWidth) = self else { return row }
    let inHead = row % headWidth
    guard inHead < rotaryWidth else { return row }
    let half = rotaryWidth / 2
    return row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1)
  }
}
