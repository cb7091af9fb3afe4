import SquintFile

/// What a LoRA adapter adds to a matrix W [rows, columns] (arXiv 2106.09685): `scale · B · A`.
package struct LowRankUpdate: Sendable {
  let source: any TensorSource
  /// A [rank, columns]
  let down: SourceTensor
  /// B [rows, rank]
  let up: SourceTensor
  let scale: Float
  /// W, where the adapter has it stored beside: it is then taken from there.
  let base: SourceTensor?

  package var rank: Int { down.rows }

  /// The origin of a matrix with the update.
  ///
  /// - Parameters:
  ///   - origin: the matrix without it.
  ///   - shape: [rows, columns].
  /// - Throws: `SquintError.badData` which names the tensor that does not fit.
  func applied(to origin: TensorOrigin, shape: [Int]) throws(SquintError) -> TensorOrigin {
    var wanted = [(down, [rank, shape[1]]), (up, [shape[0], rank])]
    if let base { wanted.append((base, shape)) }
    for (tensor, wanted) in wanted where tensor.shape != wanted {
      throw .badData(
        source.path(of: tensor),
        "tensor \(printable(tensor.name)) has shape \(tensor.shape), but \(printable(origin.tensor.name)) of shape \(shape) "
          + "takes \(wanted); the adapter is for another model")
    }
    // The adapter's own W is in the order of the output.
    var updated = base.map { TensorOrigin(source: source, tensor: $0) } ?? origin
    updated.fold = origin.fold
    updated.update = self
    return updated
  }

  /// Adds rows of the update to `numbers` [rows, columns]: B · A is summed up in f32, then scaled, then added, as PEFT does it
  /// (peft/tuners/lora/layer.py, `Linear.get_delta_weight`).
  ///
  /// It holds `rows` of B, a piece of A and as many numbers more as there are in `numbers`.
  ///
  /// - Throws: `SquintError.badData` which names the tensor with a number that is not finite.
  func add(_ rows: Range<Int>, to numbers: UnsafeMutableBufferPointer<Float>) throws(SquintError) {
    let columns = down.columns
    let pieceRows = max(1, min(rank, Self.pieceNumbers / columns))
    let sums = UnsafeMutableBufferPointer<Float>.allocate(capacity: rows.count * columns)
    let up = UnsafeMutableBufferPointer<Float>.allocate(capacity: rows.count * rank)
    let down = UnsafeMutableBufferPointer<Float>.allocate(capacity: pieceRows * columns)
    defer {
      sums.deallocate()
      up.deallocate()
      down.deallocate()
    }
    sums.initialize(repeating: 0)
    try read(self.up, rows, into: up)
    for first in stride(from: 0, to: rank, by: pieceRows) {
      let piece = first..<min(first + pieceRows, rank)
      try read(self.down, piece, into: UnsafeMutableBufferPointer(rebasing: down[..<(piece.count * columns)]))
      for row in 0..<rows.count {
        let sum = sums.baseAddress! + row * columns
        for (index, inner) in piece.enumerated() {
          let factor = up[row * rank + inner]
          let line = down.baseAddress! + index * columns
          for column in 0..<columns { sum[column] += factor * line[column] }
        }
      }
    }
    for (index, sum) in sums.enumerated() {
      let added = scale * sum
      guard added.isFinite else {
        throw .badData(
          source.path(of: self.up),
          "tensor \(printable(self.up.name)): row \(grouped(rows.lowerBound + index / columns)) gives numbers that are not "
            + "finite; the adapter is broken")
      }
      numbers[index] += added
    }
  }

  /// As many numbers of A as are in memory at once, unless a single row has more.
  private static let pieceNumbers = TensorEncoder.chunkBytes / 4

  private func read(
    _ tensor: SourceTensor, _ rows: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>
  ) throws(SquintError) {
    try source.read(tensor, rows: rows, into: buffer)
    guard let bad = buffer.firstIndex(where: { !$0.isFinite }) else { return }
    throw .badData(
      source.path(of: tensor),
      "tensor \(printable(tensor.name)): row \(grouped(rows.lowerBound + bad / tensor.columns)), column "
        + "\(grouped(bad % tensor.columns)) is \(buffer[bad]), not a finite number; the adapter is broken")
  }
}
