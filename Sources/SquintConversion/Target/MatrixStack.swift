import SquintFile

/// Matrices one under the other, which are one tensor of the output, and how checkpoints may have them: as a tensor each, or some
/// of them in one. Rows of the output that none gives are zero.
package struct MatrixStack: Equatable, Sendable {
  /// Some rows of the output, which are those of one matrix of the checkpoint.
  package struct Part: Equatable, Sendable {
    /// What name maps call the tensor that the matrix is in.
    package let name: String
    /// The rows of the output.
    package let rows: Range<Int>
    /// The matrix of the tensor, and its row that is the first of these.
    package let matrix: Int
    package let firstRow: Int
    /// The shape of the tensor: [rows, columns], or [matrices, rows, columns]. Of one with several matrices rows and columns may be
    /// the other way round; where the shape does not tell, they are not.
    package let shape: [Int]

    package init(_ name: String, rows: Range<Int>, matrix: Int = 0, firstRow: Int = 0, shape: [Int]) {
      self.name = name
      self.rows = rows
      self.matrix = matrix
      self.firstRow = firstRow
      self.shape = shape
    }
  }

  /// All parts, ascending, in each of the ways; the first of which all tensors are there counts.
  package let ways: [[Part]]

  package init(_ ways: [[Part]]) { self.ways = ways }

  /// What name maps call the tensors.
  var names: Set<String> { Set(ways.flatMap { $0.map(\.name) }) }

  /// What is not there of the way of which something is; of the first where nothing is.
  func missing(of found: [String: SourceTensor]) -> String? {
    let begun = ways.first { way in way.contains { found[$0.name] != nil } } ?? ways[0]
    return begun.first { found[$0.name] == nil }?.name
  }
}

/// Where the rows of a tensor come from that is made of several.
package struct StackOrigin: Sendable {
  struct Piece: Sendable {
    let tensor: SourceTensor
    /// The rows of the output.
    let rows: Range<Int>
    /// Where their numbers begin in the tensor.
    let first: Int
    /// How far apart in the tensor a row's numbers are: 1, or where rows and columns are the other way round what a column has.
    let stride: Int
  }

  let pieces: [Piece]
  let columns: Int

  /// - Parameter found: the source's tensors by what name maps call them.
  /// - Returns: nil where none of the ways has all its tensors.
  /// - Throws: `SquintError.badData` naming a tensor of another shape.
  init?(
    _ stack: MatrixStack, columns: Int, found: [String: SourceTensor], source: any TensorSource
  ) throws(SquintError) {
    guard let way = stack.ways.first(where: { $0.allSatisfy { found[$0.name] != nil } }) else { return nil }
    var pieces: [Piece] = []
    for part in way {
      guard let tensor = found[part.name] else { return nil }
      var turned = part.shape
      turned.swapAt(turned.count - 1, turned.count - 2)
      let isTurned = part.shape.count == 3 && tensor.shape == turned && tensor.shape != part.shape
      guard isTurned || tensor.shape == part.shape else {
        throw .badData(
          source.path(of: tensor),
          "tensor \(printable(tensor.name)) has shape \(tensor.shape), but the configuration makes it \(part.shape)")
      }
      let rows = part.shape[part.shape.count - 2]
      guard !isTurned || tensor.type.elementsPerBlock == 1 else {
        throw .badData(
          source.path(of: tensor),
          "tensor \(printable(tensor.name)): \(tensor.type.name) blocks lie across the rows of its matrices; use a checkpoint in "
            + "F32, F16 or BF16")
      }
      let start = part.matrix * rows * columns
      pieces.append(
        Piece(
          tensor: tensor, rows: part.rows, first: start + part.firstRow * (isTurned ? 1 : columns),
          stride: isTurned ? rows : 1))
    }
    self.pieces = pieces
    self.columns = columns
  }

  /// Calls `body` with each piece that has some of `rows`: the rows of the output, and the place of their first number in the
  /// piece's tensor.
  private func forEachPiece(
    of rows: Range<Int>, _ body: (Piece, _ rows: Range<Int>, _ first: Int) throws(SquintError) -> Void
  ) throws(SquintError) {
    for piece in pieces where piece.rows.overlaps(rows) {
      let own = piece.rows.clamped(to: rows)
      let skipped = own.lowerBound - piece.rows.lowerBound
      try body(piece, own, piece.first + skipped * (piece.stride == 1 ? columns : 1))
    }
  }

  /// Reads `rows` of the output as f32 into `buffer`.
  func read(
    rows: Range<Int>, from source: any TensorSource, into buffer: UnsafeMutableBufferPointer<Float>
  ) throws(SquintError) {
    buffer.update(repeating: 0)
    try forEachPiece(of: rows) { (piece, own, first) throws(SquintError) in
      let output = (own.lowerBound - rows.lowerBound) * columns
      guard piece.stride > 1 else {
        let part = buffer[output..<output + own.count * columns]
        guard let matrix = piece.tensor.reshaped([piece.tensor.elementCount / columns, columns]) else {
          preconditionFailure("its shape was checked")
        }
        let row = first / columns
        return try source.read(
          matrix, rows: row..<row + own.count, into: UnsafeMutableBufferPointer(rebasing: part))
      }
      guard let numbers = piece.tensor.reshaped([piece.tensor.elementCount, 1]) else {
        preconditionFailure("its type is plain")
      }
      let column = UnsafeMutableBufferPointer<Float>.allocate(capacity: own.count)
      defer { column.deallocate() }
      for index in 0..<columns {
        let start = first + index * piece.stride
        try source.read(numbers, rows: start..<start + own.count, into: column)
        for row in 0..<own.count { buffer[output + row * columns + index] = column[row] }
      }
    }
  }

  /// Reads the blocks of `rows` of the output into `buffer`, as they are stored; rows that no tensor gives become zero bytes.
  func readRaw(
    rows: Range<Int>, from source: any TensorSource, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    let rowBytes = buffer.count / max(rows.count, 1)
    try forEachPiece(of: rows) { (piece, own, first) throws(SquintError) in
      guard let matrix = piece.tensor.reshaped([piece.tensor.elementCount / columns, columns]) else {
        preconditionFailure("its shape was checked")
      }
      let output = (own.lowerBound - rows.lowerBound) * rowBytes
      let row = first / columns
      try source.readRaw(
        matrix, rows: row..<row + own.count,
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[output..<output + own.count * rowBytes]))
    }
  }
}
