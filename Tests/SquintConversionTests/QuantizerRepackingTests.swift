import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct QuantizerRepackingTests {
  private static let rows = 5
  private static let columns = 512

  private func repack(
    _ blocks: [UInt8], _ block: RepackableBlock, columns: Int = Self.columns
  ) throws -> (Repacking, [UInt8], PanelLayout) {
    let layout = PanelLayout(type: block.elementType, rows: Self.rows, columns: columns)!
    var panel = [UInt8](repeating: 0xa5, count: layout.panelBytes)
    let result = try blocks.withUnsafeBytes { blocks in
      try panel.withUnsafeMutableBytes { panel in
        try repackPanel(
          blocks: blocks, block: block, rowsUsed: Self.rows, layout: layout, into: panel, firstRow: 32)
      }
    }
    return (result, panel, layout)
  }

  private func name(_ block: RepackableBlock) -> String {
    switch block {
    case .q80: "q8_0"
    case .q40: "q4_0"
    case .q41: "q4_1"
    case .q4K: "q4_k"
    }
  }

  /// What the panel means is what PyPI gguf makes of the blocks, to the bit.
  @Test(arguments: RepackableBlock.allCases) func meansWhatGGMLMeans(block: RepackableBlock) throws {
    let blocks = try QuantizerFixtures.bytes("\(name(block)).blocks")
    let expected = try QuantizerFixtures.floats("\(name(block)).f32")
    let (result, panel, layout) = try repack(blocks, block)
    #expect(result == .exact)
    var output = [Float](repeating: .nan, count: expected.count)
    panel.withUnsafeBytes { panel in
      output.withUnsafeMutableBufferPointer {
        PanelCodec(layout).dequantizePanel(panel, rowsUsed: Self.rows, into: $0)
      }
    }
    for index in 0..<expected.count {
      if block == .q40 && expected[index] == 0 {
        // ggml's zero has the sign of the scale; the panel's is +0.
        #expect(output[index].bitPattern == 0)
      } else {
        #expect(output[index].bitPattern == expected[index].bitPattern, "\(index)")
      }
    }
    // The rows that the matrix does not have mean zero too.
    var sixteen = [Float](repeating: .nan, count: 16 * Self.columns)
    panel.withUnsafeBytes { panel in
      sixteen.withUnsafeMutableBufferPointer { PanelCodec(layout).dequantizePanel(panel, rowsUsed: 16, into: $0) }
    }
    #expect(sixteen.dropFirst(expected.count).allSatisfy { $0 == 0 })
  }

  /// An odd number of groups: the last block of the panel is longer than eight.
  @Test(arguments: [RepackableBlock.q80, .q40, .q41]) func anyNumberOfGroups(block: RepackableBlock) throws {
    let all = try QuantizerFixtures.bytes("\(name(block)).blocks")
    let expected = try QuantizerFixtures.floats("\(name(block)).f32")
    for columns in [32, 96, 256, 352, 480] {
      let rowBytes = Self.columns / 32 * block.bytes
      let blocks = (0..<Self.rows).flatMap { all[$0 * rowBytes..<$0 * rowBytes + columns / 32 * block.bytes] }
      let (result, panel, layout) = try repack(blocks, block, columns: columns)
      #expect(result == .exact)
      var output = [Float](repeating: .nan, count: Self.rows * columns)
      panel.withUnsafeBytes { panel in
        output.withUnsafeMutableBufferPointer {
          PanelCodec(layout).dequantizePanel(panel, rowsUsed: Self.rows, into: $0)
        }
      }
      for row in 0..<Self.rows {
        #expect(
          Array(output[row * columns..<(row + 1) * columns])
            == Array(expected[row * Self.columns..<row * Self.columns + columns]))
      }
    }
  }

  @Test func reportsWhatF16CannotHold() throws {
    var blocks = try QuantizerFixtures.bytes("q4_0.blocks")
    // Row 2, block 3: 8192 · −8 is beyond f16; just below it is not.
    let offset = (2 * 16 + 3) * 18
    (blocks[offset], blocks[offset + 1]) = (0x00, 0x70)
    #expect(try repack(blocks, .q40).0 == .scaleTooLarge(row: 34, column: 96))
    (blocks[offset], blocks[offset + 1]) = (0xff, 0x6f)
    #expect(try repack(blocks, .q40).0 == .exact)
  }

  @Test(arguments: RepackableBlock.allCases) func refusesScalesThatAreNotFinite(block: RepackableBlock) throws {
    for bits: UInt16 in [0x7c00, 0xfc00, 0x7e01] {
      var blocks = try QuantizerFixtures.bytes("\(name(block)).blocks")
      let perRow = Self.columns / block.columns
      let offset = (3 * perRow + 1) * block.bytes
      blocks[offset] = UInt8(truncatingIfNeeded: bits)
      blocks[offset + 1] = UInt8(bits >> 8)
      let error = squintError { _ = try repack(blocks, block) }
      #expect(error?.kind == .badData)
      #expect(error?.message.hasPrefix("row 35, column \(block.columns): ") == true)
    }
  }

  @Test func refusesColumnsThatAreNotWholeBlocks() throws {
    let layout = PanelLayout(type: .int4, rows: 5, columns: 384)!
    var panel = [UInt8](repeating: 0, count: layout.panelBytes)
    let blocks = [UInt8](repeating: 0, count: 4096)
    #expect(throws: SquintError.self) {
      try blocks.withUnsafeBytes { blocks in
        try panel.withUnsafeMutableBytes { panel in
          try repackPanel(blocks: blocks, block: .q4K, rowsUsed: 5, layout: layout, into: panel)
        }
      }
    }
  }
}
