/// Reads and writes the numbers inside panels (`PanelLayout`, formats/squint.md "Panels").
///
/// What a weight is, to the bit, each operation rounded to f32 by itself:
///
///     int8      f32(scale) · f32(u − 128)                            = ggml's Q8_0
///     int4_f16  f32(scale) · u, then + f32(minimum)                  = ggml's Q4_1
///     int4      (f32(d) · scale6) · u − (f32(dmin) · min6)           = ggml's Q4_K
package struct PanelCodec: Sendable {
  package let layout: PanelLayout
  private let panelBytes: Int
  private let blocks: Int
  private let blockBytes: Int
  private let groupBytes: Int

  package init(_ layout: PanelLayout) {
    self.layout = layout
    panelBytes = layout.panelBytes
    blocks = layout.blocks
    blockBytes = layout.blockBytes(groups: PanelLayout.groupsPerBlock)
    groupBytes = layout.groupBytes
  }

  // MARK: - Places

  /// Where a group's parts are, in bytes from the start of its panel.
  package struct GroupPlace {
    /// The header of the group's block.
    package let header: Int
    /// Which group of its block it is.
    package let indexInBlock: Int
    /// How many groups its block has.
    package let groupsInBlock: Int
    /// The group's weights.
    package let weights: Int
  }

  @inline(__always)
  package func place(ofGroup group: Int) -> GroupPlace {
    let block = min(group / PanelLayout.groupsPerBlock, blocks - 1)
    let groups = layout.groups(inBlock: block)
    let header = block * blockBytes
    let index = group - block * PanelLayout.groupsPerBlock
    return GroupPlace(
      header: header, indexInBlock: index, groupsInBlock: groups,
      weights: header + layout.headerBytes(groups: groups) + index * groupBytes)
  }

  // MARK: - Reading

  /// The weights `[columns]` of one row of a matrix.
  ///
  /// - Parameters:
  ///   - row: The row of the matrix, less than `layout.rows`.
  ///   - columns: Which of the row's columns; within `0 ..< layout.columns`.
  ///   - matrix: The matrix's panels, at least `layout.byteCount` bytes.
  ///   - output: Takes `columns.count` numbers.
  package func dequantizeRow(
    _ row: Int, columns: Range<Int>, of matrix: UnsafeRawBufferPointer, into output: UnsafeMutableBufferPointer<Float>
  ) {
    precondition(row >= 0 && row < layout.rows && matrix.count >= layout.byteCount)
    let panel = row / PanelLayout.rowsPerPanel
    dequantize(
      row: row % PanelLayout.rowsPerPanel, columns: columns,
      panel: UnsafeRawBufferPointer(rebasing: matrix[panel * panelBytes..<(panel + 1) * panelBytes]), into: output)
  }

  /// All weights `[columns]` of one row of a matrix.
  package func dequantizeRow(
    _ row: Int, of matrix: UnsafeRawBufferPointer, into output: UnsafeMutableBufferPointer<Float>
  ) {
    dequantizeRow(row, columns: 0..<layout.columns, of: matrix, into: output)
  }

  /// The weights `[rowsUsed, columns]` of one panel.
  ///
  /// - Parameters:
  ///   - panel: The panel, at least `layout.panelBytes` bytes.
  ///   - rowsUsed: How many of its 16 rows, from the first.
  ///   - output: Takes `rowsUsed * layout.columns` numbers, row after row.
  package func dequantizePanel(
    _ panel: UnsafeRawBufferPointer, rowsUsed: Int, into output: UnsafeMutableBufferPointer<Float>
  ) {
    precondition(rowsUsed >= 0 && output.count >= rowsUsed * layout.columns)
    for row in 0..<rowsUsed {
      let start = row * layout.columns
      dequantize(
        row: row, columns: 0..<layout.columns, panel: panel,
        into: UnsafeMutableBufferPointer(rebasing: output[start..<start + layout.columns]))
    }
  }

  /// The weights `[columns]` of row `row` (0 to 15) of one panel of `layout.panelBytes` bytes.
  package func dequantize(
    row: Int, columns: Range<Int>, panel: UnsafeRawBufferPointer, into output: UnsafeMutableBufferPointer<Float>
  ) {
    precondition(
      row >= 0 && row < PanelLayout.rowsPerPanel && columns.lowerBound >= 0 && columns.upperBound <= layout.columns
        && panel.count >= panelBytes && output.count >= columns.count)
    guard !columns.isEmpty, let bytes = panel.baseAddress, var target = output.baseAddress else { return }
    let width = PanelLayout.columnsPerGroup
    withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { partial in
      let whole = partial.baseAddress!
      var column = columns.lowerBound
      while column < columns.upperBound {
        let group = column / width
        let first = column - group * width
        let count = min(width - first, columns.upperBound - column)
        if count == width {
          dequantizeGroup(group, row: row, panel: bytes, into: target)
        } else {
          dequantizeGroup(group, row: row, panel: bytes, into: whole)
          target.update(from: whole + first, count: count)
        }
        target += count
        column += count
      }
    }
  }

  /// The 32 weights of row `row` of a group; padding columns too.
  @inline(__always)
  private func dequantizeGroup(
    _ group: Int, row: Int, panel: UnsafeRawPointer, into output: UnsafeMutablePointer<Float>
  ) {
    let place = place(ofGroup: group)
    layout.panelType.decode(
      group: place.indexInBlock, row: row, header: panel + place.header, weights: panel + place.weights, into: output)
  }

  // MARK: - Writing

  /// Writes the f16 scales `[16]` of a group of an int8 panel.
  package func setScales(group: Int, scales: UnsafePointer<UInt16>, panel: UnsafeMutableRawBufferPointer) {
    precondition(layout.panelType == .int8 && group < layout.groups && panel.count >= panelBytes)
    let place = place(ofGroup: group)
    Self.store(scales, count: 16, at: panel.baseAddress! + place.header + 32 * place.indexInBlock)
  }

  /// Writes the f16 scales `[16]` and minimums `[16]` of a group of an int4_f16 panel.
  package func setScales(
    group: Int, scales: UnsafePointer<UInt16>, minimums: UnsafePointer<UInt16>, panel: UnsafeMutableRawBufferPointer
  ) {
    precondition(layout.panelType == .int4F16 && group < layout.groups && panel.count >= panelBytes)
    let place = place(ofGroup: group)
    let target = panel.baseAddress! + place.header + 64 * place.indexInBlock
    Self.store(scales, count: 16, at: target)
    Self.store(minimums, count: 16, at: target + 32)
  }

  /// Writes the f16 pairs d `[16]`, dmin `[16]` of a block of an int4 panel.
  package func setBlockScales(
    block: Int, d: UnsafePointer<UInt16>, dmin: UnsafePointer<UInt16>, panel: UnsafeMutableRawBufferPointer
  ) {
    precondition(layout.panelType == .int4 && block < blocks && panel.count >= panelBytes)
    let target = panel.baseAddress! + block * blockBytes
    Self.store(d, count: 16, at: target)
    Self.store(dmin, count: 16, at: target + 32)
  }

  /// Writes the 6-bit scales `[16]` and minimums `[16]` of a group of an int4 panel; each at most 63.
  package func setScales6(
    group: Int, scales: UnsafePointer<UInt8>, minimums: UnsafePointer<UInt8>, panel: UnsafeMutableRawBufferPointer
  ) {
    precondition(layout.panelType == .int4 && group < layout.groups && panel.count >= panelBytes)
    let place = place(ofGroup: group)
    let target = panel.baseAddress! + place.header + 64 + 24 * place.indexInBlock
    for row in 0..<16 {
      target.storeBytes(of: scales[row] & 15 | minimums[row] << 4, toByteOffset: row, as: UInt8.self)
    }
    for row in 0..<8 {
      let first = scales[row] >> 4 & 3 | (minimums[row] >> 4 & 3) << 2
      let second = scales[row + 8] >> 4 & 3 | (minimums[row + 8] >> 4 & 3) << 2
      target.storeBytes(of: first | second << 4, toByteOffset: 16 + row, as: UInt8.self)
    }
  }

  /// Writes the stored numbers `[32 columns][16 rows]` of a group: bytes for int8, at most 15 for the others.
  package func setWeights(group: Int, quants: UnsafePointer<UInt8>, panel: UnsafeMutableRawBufferPointer) {
    precondition(group < layout.groups && panel.count >= panelBytes)
    layout.panelType.encode(quants: quants, into: panel.baseAddress! + place(ofGroup: group).weights)
  }

  @inline(__always)
  private static func store(_ values: UnsafePointer<UInt16>, count: Int, at target: UnsafeMutableRawPointer) {
    for index in 0..<count {
      target.storeBytes(of: values[index].littleEndian, toByteOffset: 2 * index, as: UInt16.self)
    }
  }
}
