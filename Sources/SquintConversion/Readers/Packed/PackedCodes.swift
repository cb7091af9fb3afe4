import SquintFile

/// A matrix of whole numbers of 1 to 8 bits, packed into words of 32.
///
/// The numbers of a line, a row or a column of the matrix, follow one another from the lowest bit of its first word on; one may
/// begin in a word and end in the next.
struct PackedCodes: Sendable {
  /// Words, two axes: the lines and the words of one.
  let tensor: SourceTensor
  let bits: Int
  let rows: Int
  let columns: Int
  /// Whether the numbers of a word are of one row; else they are of one column.
  let packsRows: Bool
  /// Whether the words of a line lie beneath each other, [words, lines]; else side by side, [lines, words].
  let isWordsFirst: Bool
  /// Whether eight numbers of 4 bits are in AWQ's order.
  let isAWQOrder: Bool

  /// - Parameter isPadded: whether more words may follow those of a line.
  /// - Returns: nil where the tensor has another shape or no words of 32 bits.
  init?(
    _ tensor: SourceTensor, bits: Int, rows: Int, columns: Int, packsRows: Bool, isWordsFirst: Bool = false,
    isAWQOrder: Bool = false, isPadded: Bool = false
  ) {
    precondition((1...8).contains(bits) && (!isAWQOrder || bits == 4))
    let (lines, length) = packsRows ? (rows, columns) : (columns, rows)
    guard rows > 0, columns > 0, length <= Self.longestLine, tensor.type == .i32 || tensor.type == .u32 else {
      return nil
    }
    let words = (length * bits + 31) / 32
    guard
      tensor.shape == (isWordsFirst ? [words, lines] : [lines, words])
        || isPadded && !isWordsFirst && tensor.shape.count == 2 && tensor.shape[0] == lines && tensor.shape[1] >= words
    else { return nil }
    self.tensor = tensor
    self.bits = bits
    self.rows = rows
    self.columns = columns
    self.packsRows = packsRows
    self.isWordsFirst = isWordsFirst
    self.isAWQOrder = isAWQOrder
  }

  /// Far beyond any matrix, and its bits fit an Int.
  static let longestLine = 1 << 40

  /// Where AWQ has number `index` of a word: awq/utils/packing_utils.py, `AWQ_REVERSE_ORDER`.
  private static let awqPlaces = [0, 4, 1, 5, 2, 6, 3, 7]

  /// Reads numbers [rows, columns].
  ///
  /// - Throws: as `TensorSource.readBlocks`.
  func read(
    _ rows: Range<Int>, from source: any TensorSource, into codes: UnsafeMutablePointer<UInt8>
  ) throws(SquintError) {
    // The words that hold the rows: all of some lines, or some of all lines.
    let lines = packsRows ? rows : 0..<columns
    let words =
      packsRows
      ? 0..<(columns * bits + 31) / 32 : rows.lowerBound * bits / 32..<(rows.upperBound * bits + 31) / 32
    let strip = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: lines.count * words.count)
    defer { strip.deallocate() }
    try source.readPart(
      tensor, rows: isWordsFirst ? words : lines, columns: isWordsFirst ? lines : words,
      into: UnsafeMutableRawBufferPointer(strip))
    let (lineStride, wordStride) = isWordsFirst ? (1, lines.count) : (words.count, 1)
    let firstBit = words.lowerBound * 32
    for row in rows {
      let output = codes + (row - rows.lowerBound) * columns
      if packsRows {
        let line = strip.baseAddress! + (row - rows.lowerBound) * lineStride
        for column in 0..<columns { output[column] = code(at: column * bits, of: line, stride: wordStride) }
      } else {
        let place = isAWQOrder ? row & ~7 | Self.awqPlaces[row & 7] : row
        let bit = place * bits - firstBit
        for column in 0..<columns {
          output[column] = code(at: bit, of: strip.baseAddress! + column * lineStride, stride: wordStride)
        }
      }
    }
  }

  /// The number that begins at `bit` of a line whose words are `stride` apart.
  @inline(__always)
  private func code(at bit: Int, of line: UnsafePointer<UInt32>, stride: Int) -> UInt8 {
    let word = (bit &>> 5) &* stride
    let shift = UInt32(truncatingIfNeeded: bit & 31)
    var value = UInt32(littleEndian: line[word]) &>> shift
    if shift &+ UInt32(truncatingIfNeeded: bits) > 32 {
      value |= UInt32(littleEndian: line[word &+ stride]) &<< (32 &- shift)
    }
    return UInt8(truncatingIfNeeded: value & (1 &<< UInt32(truncatingIfNeeded: bits) &- 1))
  }
}

/// A number for each group of columns of each row: scales, or what is added.
struct GroupNumbers: Sendable {
  let tensor: SourceTensor
  let rows: Int
  let groups: Int
  /// Whether it is stored [groups, rows]; else [rows, groups], groups that pad a row behind the others.
  let isGroupsFirst: Bool

  /// - Returns: nil where the tensor has another shape.
  init?(_ tensor: SourceTensor, rows: Int, groups: Int, isGroupsFirst: Bool = false, isPadded: Bool = false) {
    let isVector = tensor.shape == [rows] && groups == 1
    let fits =
      isGroupsFirst
      ? tensor.shape == [groups, rows]
      : tensor.shape == [rows, groups]
        || isPadded && tensor.shape.count == 2 && tensor.shape[0] == rows
          && tensor.shape[1] >= groups
    guard rows > 0, groups > 0, isVector || fits, tensor.type.isReadable else { return nil }
    self.tensor = tensor
    self.rows = rows
    self.groups = groups
    self.isGroupsFirst = isGroupsFirst && !isVector
  }

  /// The numbers of `rows` [rows, groups].
  ///
  /// - Throws: as `TensorSource.readBlocks`, and `SquintError.badData` which names the tensor and the number that is not finite.
  func read(_ rows: Range<Int>, from source: any TensorSource) throws(SquintError) -> [Float] {
    let count = rows.count * groups
    let raw = UnsafeMutableRawBufferPointer.allocate(byteCount: count * tensor.type.bytesPerBlock, alignment: 16)
    defer { raw.deallocate() }
    try source.readPart(
      tensor, rows: isGroupsFirst ? 0..<groups : rows, columns: isGroupsFirst ? rows : 0..<groups, into: raw)
    let stored = [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
      dequantize(tensor.type, blocks: count, from: UnsafeRawPointer(raw.baseAddress!), into: buffer.baseAddress!)
      initialized = count
    }
    if let bad = stored.firstIndex(where: { !$0.isFinite }) {
      let (row, group) =
        isGroupsFirst
        ? (rows.lowerBound + bad % rows.count, bad / rows.count) : (rows.lowerBound + bad / groups, bad % groups)
      throw .badData(
        source.path(of: tensor),
        "tensor \(printable(tensor.name)): the number of row \(grouped(row)), group \(grouped(group)) is \(stored[bad]), not a "
          + "finite number; the checkpoint is damaged")
    }
    guard isGroupsFirst else { return stored }
    return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
      for group in 0..<groups {
        for row in 0..<rows.count { buffer[row * groups + group] = stored[group * rows.count + row] }
      }
      initialized = count
    }
  }
}

extension TensorSource {
  /// Reads a part of the tensor seen as a matrix [shape[0], product of the rest], as it is stored; of a plain type.
  ///
  /// - Parameter buffer: takes `rows.count * columns.count` numbers.
  /// - Throws: as `readBlocks`.
  func readPart(
    _ tensor: SourceTensor, rows: Range<Int>, columns: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    guard columns != 0..<tensor.columns else {
      return try readBlocks(
        of: tensor, blocks: rows.lowerBound * tensor.columns..<rows.upperBound * tensor.columns, into: buffer)
    }
    let bytes = columns.count * tensor.type.bytesPerBlock
    for (index, row) in rows.enumerated() {
      let first = row * tensor.columns + columns.lowerBound
      try readBlocks(
        of: tensor, blocks: first..<first + columns.count,
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[index * bytes..<(index + 1) * bytes]))
    }
  }
}
