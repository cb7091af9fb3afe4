/// Where each byte of a quantized matrix `W[rows, columns]` is (formats/squint.md, "Panels").
///
/// The matrix is cut into panels of 16 rows; a panel into blocks of 8 groups; a group is 32 columns. A block is a
/// header with the scales of its groups, then the groups' weights:
///
///     panel p:  block 0 │ block 1 │ …                     blocks = max(1, groups / 8); the last takes the rest
///     block:    header, a multiple of 64 bytes │ group 0 │ group 1 │ …
///     group:    k-quad 0: r0[k0 k1 k2 k3] r1[k0…k3] … r15[k0…k3] │ k-quad 1 │ … │ k-quad 7
///
/// Every part starts at a multiple of 64 bytes. Rows are padded to a multiple of 16 and columns to a multiple of 32
/// with zero bytes; a product must not depend on the padding (padded activations are zero).
///
/// Headers, for a block of `k` groups (`[16]` is the row within the panel):
///
///     int8      f16 scale[k][16]                                        padded to a multiple of 64
///     int4_f16  k × { f16 scale[16], f16 minimum[16] }
///     int4      f16 d[16], f16 dmin[16], k × { low[16], high[8] }       padded to a multiple of 64
///               scale6 = low[r] & 15 | (high[r % 8] >> (r < 8 ? 0 : 4) & 3) << 4
///               min6   = low[r] >> 4 | (high[r % 8] >> (r < 8 ? 2 : 6) & 3) << 4
///
/// Weights, from the stored unsigned number `u`:
///
///     int8      w = scale * (u - 128)                 u: a byte
///     int4_f16  w = scale * u + minimum               u: a nibble; byte i of the group's quarter h holds k-quad 2h in
///     int4      w = (d * scale6) * u - (dmin * min6)  its low nibble and k-quad 2h + 1 in its high nibble
package struct PanelLayout: Equatable, Sendable {
  package static let rowsPerPanel = 16
  package static let columnsPerGroup = 32
  package static let groupsPerBlock = 8
  /// Every header and every group starts at a multiple of this many bytes from the start of the matrix.
  package static let alignment = 64

  package let panelType: PanelType
  package let rows: Int
  package let columns: Int

  /// The layout of `W[rows, columns]`, or nil where `type` has no panels, a dimension is not positive, or the size in
  /// bytes does not fit an Int.
  package init?(type: ElementType, rows: Int, columns: Int) {
    guard let panelType = type.panelType, rows > 0, columns > 0, rows <= Int.max / 32, columns <= Int.max / 64 else {
      return nil
    }
    self.panelType = panelType
    self.rows = rows
    self.columns = columns
    // The sizes below are products of these; they are checked once, here.
    guard !panels.multipliedReportingOverflow(by: groups).overflow,
      !(panels * groups).multipliedReportingOverflow(by: 1024).overflow
    else { return nil }
  }

  package var type: ElementType { panelType.elementType }

  package var panels: Int { (rows + Self.rowsPerPanel - 1) / Self.rowsPerPanel }
  package var groups: Int { (columns + Self.columnsPerGroup - 1) / Self.columnsPerGroup }
  package var blocks: Int { max(1, groups / Self.groupsPerBlock) }

  /// The groups of block `block`: 8, or what is left (1 to 15) for the last.
  package func groups(inBlock block: Int) -> Int {
    block < blocks - 1 ? Self.groupsPerBlock : groups - Self.groupsPerBlock * (blocks - 1)
  }

  /// The block that holds group `group`.
  package func block(ofGroup group: Int) -> Int { min(group / Self.groupsPerBlock, blocks - 1) }

  /// The size of the header of a block of `groups` groups, in bytes.
  package func headerBytes(groups: Int) -> Int { panelType.headerBytes(groups: groups) }

  /// The weights of one group of 16 rows × 32 columns, in bytes.
  package var groupBytes: Int { panelType.groupBytes }

  /// The size of a block of `groups` groups, in bytes.
  package func blockBytes(groups: Int) -> Int { headerBytes(groups: groups) + groups * groupBytes }

  package var panelBytes: Int {
    (blocks - 1) * blockBytes(groups: Self.groupsPerBlock) + blockBytes(groups: groups(inBlock: blocks - 1))
  }

  /// The size of the whole matrix, in bytes.
  package var byteCount: Int { panels * panelBytes }

  /// Where block `block` of panel `panel` starts, in bytes from the start of the matrix.
  package func blockOffset(panel: Int, block: Int) -> Int {
    panel * panelBytes + block * blockBytes(groups: Self.groupsPerBlock)
  }

  static func aligned(_ bytes: Int) -> Int { (bytes + alignment - 1) / alignment * alignment }
}
