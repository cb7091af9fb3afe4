import SquintFile

/// The block types of GGUF whose numbers a panel holds bit for bit (ggml's `ggml-common.h`, `block_*`).
package enum RepackableBlock: Sendable, CaseIterable {
  case q80
  case q40
  case q41
  case q4K

  /// The type of panel that holds the block's numbers.
  package var elementType: ElementType {
    switch self {
    case .q80: .int8
    case .q40, .q41: .int4F16
    case .q4K: .int4
    }
  }

  /// The columns that one block covers.
  package var columns: Int { self == .q4K ? 256 : 32 }

  /// The size of one block, in bytes.
  package var bytes: Int {
    switch self {
    case .q80: 2 + 32
    case .q40: 2 + 16
    case .q41: 2 + 2 + 16
    case .q4K: 2 + 2 + 12 + 128
    }
  }
}

/// What became of a panel that was to be repacked.
package enum Repacking: Equatable, Sendable {
  /// The panel holds the blocks' numbers exactly.
  case exact
  /// A Q4_0 scale is too large for its minimum, −8 times as much, to be an f16: the tensor must be dequantized and
  /// quantized anew. The panel's bytes are unspecified.
  case scaleTooLarge(row: Int, column: Int)
}

/// Moves the numbers of GGUF blocks into one panel, bit for bit: no number is rounded, the panel's weights equal ggml's.
/// (One thing differs: where a Q4_0 scale is negative, ggml's weight for u = 8 is −0 and the panel's is +0.)
///
/// - Parameters:
///   - blocks: `[rowsUsed][layout.columns / block.columns]` blocks, row after row.
///   - block: Their type.
///   - rowsUsed: How many of the panel's 16 rows the matrix has: 1 to 16. The others are filled with zero bytes.
///   - layout: The layout of the whole matrix, of `block.elementType`.
///   - panel: Takes `layout.panelBytes` bytes; all are written.
///   - firstRow: The row of the matrix that `blocks` starts with, for messages.
/// - Throws: `SquintError` (badData) where the matrix's columns are not whole blocks, or a scale is not finite.
package func repackPanel(
  blocks: UnsafeRawBufferPointer, block: RepackableBlock, rowsUsed: Int, layout: PanelLayout,
  into panel: UnsafeMutableRawBufferPointer, firstRow: Int = 0
) throws(SquintError) -> Repacking {
  guard layout.columns % block.columns == 0 else {
    throw SquintError(
      .badData, "\(grouped(layout.columns)) columns are not whole blocks of \(block.columns); the source is damaged")
  }
  let blocksPerRow = layout.columns / block.columns
  precondition(
    layout.type == block.elementType && rowsUsed > 0 && rowsUsed <= PanelLayout.rowsPerPanel
      && blocks.count >= rowsUsed * blocksPerRow * block.bytes && panel.count >= layout.panelBytes)
  panel.baseAddress!.initializeMemory(as: UInt8.self, repeating: 0, count: layout.panelBytes)
  var repacker = BlockRepacker(codec: PanelCodec(layout), panel: panel, source: blocks.baseAddress!)
  for index in 0..<blocksPerRow {
    for row in 0..<rowsUsed {
      let offset = (row * blocksPerRow + index) * block.bytes
      repacker.take(block, at: offset, row: row)
    }
    if let row = repacker.rowNotFinite {
      throw SquintError(
        .badData,
        "row \(grouped(firstRow + row)), column \(grouped(index * block.columns)): the scale of the block is not a "
          + "finite number; the source is damaged")
    }
    if let row = repacker.rowTooLarge {
      return .scaleTooLarge(row: firstRow + row, column: index * block.columns)
    }
    repacker.write(block, index: index)
  }
  return .exact
}

/// Sixteen blocks, one under the other, on their way into a panel.
private struct BlockRepacker {
  let codec: PanelCodec
  let panel: UnsafeMutableRawBufferPointer
  let source: UnsafeRawPointer
  /// `[8 groups][32 columns][16 rows]`; of rows that were not taken, zeros.
  private var quants = [UInt8](repeating: 0, count: 8 * 512)
  /// f16: scales and minimums, or d and dmin.
  private var scales = [UInt16](repeating: 0, count: 16)
  private var minimums = [UInt16](repeating: 0, count: 16)
  /// `[8 groups][16 rows]`.
  private var scales6 = [UInt8](repeating: 0, count: 8 * 16)
  private var minimums6 = [UInt8](repeating: 0, count: 8 * 16)
  var rowNotFinite: Int?
  var rowTooLarge: Int?

  init(codec: PanelCodec, panel: UnsafeMutableRawBufferPointer, source: UnsafeRawPointer) {
    self.codec = codec
    self.panel = panel
    self.source = source
  }

  mutating func take(_ block: RepackableBlock, at offset: Int, row: Int) {
    let bytes = source + offset
    scales[row] = half(bytes, row: row)
    switch block {
    case .q80:
      for column in 0..<32 {
        quants[16 * column + row] = (bytes + 2 + column).load(as: UInt8.self) ^ 0x80
      }
    case .q40:
      // w = d·(u − 8) = d·u + (−8·d): exact in f16 unless it overflows.
      let minimum = -8 * HalfPrecision.float(scales[row])
      if minimum.magnitude > HalfPrecision.largest && rowTooLarge == nil { rowTooLarge = row }
      minimums[row] = HalfPrecision.bits(minimum)
      takeNibbles(bytes + 2, count: 16, firstColumn: 0, row: row)
    case .q41:
      minimums[row] = half(bytes + 2, row: row)
      takeNibbles(bytes + 4, count: 16, firstColumn: 0, row: row)
    case .q4K:
      minimums[row] = half(bytes + 2, row: row)
      // ggml's get_scale_min_k4: 12 bytes hold 8 scales and 8 minimums of 6 bits.
      let packed = bytes + 4
      func byte(_ index: Int) -> UInt8 { (packed + index).load(as: UInt8.self) }
      for group in 0..<4 {
        scales6[16 * group + row] = byte(group) & 63
        minimums6[16 * group + row] = byte(group + 4) & 63
        scales6[16 * (group + 4) + row] = byte(group + 8) & 15 | (byte(group) >> 6) << 4
        minimums6[16 * (group + 4) + row] = byte(group + 8) >> 4 | (byte(group + 4) >> 6) << 4
      }
      for pair in 0..<4 {
        takeNibbles(bytes + 16 + 32 * pair, count: 32, firstColumn: 64 * pair, row: row)
      }
    }
  }

  /// `count` bytes whose low nibbles are as many columns, their high nibbles the next as many.
  private mutating func takeNibbles(_ bytes: UnsafeRawPointer, count: Int, firstColumn: Int, row: Int) {
    for index in 0..<count {
      let pair = (bytes + index).load(as: UInt8.self)
      quants[16 * (firstColumn + index) + row] = pair & 15
      quants[16 * (firstColumn + count + index) + row] = pair >> 4
    }
  }

  private mutating func half(_ bytes: UnsafeRawPointer, row: Int) -> UInt16 {
    let bits = UInt16(littleEndian: bytes.loadUnaligned(as: UInt16.self))
    if bits & 0x7c00 == 0x7c00 && rowNotFinite == nil { rowNotFinite = row }
    return bits
  }

  func write(_ block: RepackableBlock, index: Int) {
    quants.withUnsafeBufferPointer { quants in
      let quants = quants.baseAddress!
      switch block {
      case .q80:
        codec.setScales(group: index, scales: scales, panel: panel)
        codec.setWeights(group: index, quants: quants, panel: panel)
      case .q40, .q41:
        codec.setScales(group: index, scales: scales, minimums: minimums, panel: panel)
        codec.setWeights(group: index, quants: quants, panel: panel)
      case .q4K:
        codec.setBlockScales(block: index, d: scales, dmin: minimums, panel: panel)
        for group in 0..<8 {
          scales6.withUnsafeBufferPointer { scales6 in
            minimums6.withUnsafeBufferPointer { minimums6 in
              codec.setScales6(
                group: 8 * index + group, scales: scales6.baseAddress! + 16 * group,
                minimums: minimums6.baseAddress! + 16 * group, panel: panel)
            }
          }
          codec.setWeights(group: 8 * index + group, quants: quants + 512 * group, panel: panel)
        }
      }
    }
  }
}
