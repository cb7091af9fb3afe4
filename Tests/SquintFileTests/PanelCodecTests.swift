import SquintFile
import Testing

@Suite struct HalfPrecisionTests {
  /// Every binary16 is a binary32, so the way there and back must give the same bits.
  @Test func everyNumberSurvivesARoundTrip() {
    for bits in UInt16.min...UInt16.max {
      let value = HalfPrecision.float(bits)
      if bits & 0x7c00 == 0x7c00 && bits & 0x3ff != 0 {
        #expect(value.isNaN)
        #expect(HalfPrecision.float(HalfPrecision.bits(value)).isNaN)
      } else {
        #expect(HalfPrecision.bits(value) == bits)
      }
    }
  }

  @Test func knownValues() {
    #expect(HalfPrecision.float(0x3c00) == 1)
    #expect(HalfPrecision.float(0xc000) == -2)
    #expect(HalfPrecision.float(0x0001) == 0x1p-24)
    #expect(HalfPrecision.float(0x7bff) == HalfPrecision.largest)
    #expect(HalfPrecision.float(0xfc00) == -.infinity)
  }

  /// Between two neighbours the nearer wins, and the even one at the midpoint.
  @Test func roundsToNearestEven() {
    for bits in UInt16(0)..<0x7bff {
      let low = HalfPrecision.float(bits)
      let high = HalfPrecision.float(bits + 1)
      let middle = low + (high - low) / 2
      #expect(HalfPrecision.bits(middle) == (bits % 2 == 0 ? bits : bits + 1))
      #expect(HalfPrecision.bits(middle.nextDown) == bits)
      #expect(HalfPrecision.bits(middle.nextUp) == bits + 1)
    }
    #expect(HalfPrecision.bits(65519.99) == 0x7bff)
    #expect(HalfPrecision.bits(65520) == 0x7c00)
    #expect(HalfPrecision.bits(-1e30) == 0xfc00)
    #expect(HalfPrecision.bits(1e-30) == 0)
  }
}

/// One panel with random scales and quants, as the numbers that were put in.
private struct RandomPanel {
  let layout: PanelLayout
  var scales: [[UInt16]] = []
  var minimums: [[UInt16]] = []
  var scales6: [[UInt8]] = []
  var minimums6: [[UInt8]] = []
  var d: [[UInt16]] = []
  var dmin: [[UInt16]] = []
  var quants: [[UInt8]] = []
  var bytes: [UInt8]

  init(_ type: ElementType, columns: Int, seed: UInt64) {
    layout = PanelLayout(type: type, rows: 16, columns: columns)!
    bytes = [UInt8](repeating: 0xee, count: layout.panelBytes)
    var random = Generator(state: seed)
    let codec = PanelCodec(layout)
    func halves() -> [UInt16] {
      (0..<16).map { _ in
        HalfPrecision.bits((Float(random.next() % 20001) / 10000 - 1) * (random.next() % 8 == 0 ? 1e-7 : 0.3))
      }
    }
    for _ in 0..<layout.groups {
      scales.append(halves())
      minimums.append(halves())
      scales6.append((0..<16).map { _ in UInt8(random.next() % 64) })
      minimums6.append((0..<16).map { _ in UInt8(random.next() % 64) })
      quants.append((0..<512).map { _ in UInt8(random.next() % (type == .int8 ? 256 : 16)) })
    }
    for _ in 0..<layout.blocks {
      d.append(halves())
      dmin.append(halves())
    }
    bytes.withUnsafeMutableBytes { panel in
      for group in 0..<layout.groups {
        codec.setWeights(group: group, quants: quants[group], panel: panel)
        switch type {
        case .int8: codec.setScales(group: group, scales: scales[group], panel: panel)
        case .int4F16:
          codec.setScales(group: group, scales: scales[group], minimums: minimums[group], panel: panel)
        default: codec.setScales6(group: group, scales: scales6[group], minimums: minimums6[group], panel: panel)
        }
      }
      if type == .int4 {
        for block in 0..<layout.blocks {
          codec.setBlockScales(block: block, d: d[block], dmin: dmin[block], panel: panel)
        }
      }
    }
  }

  func weight(row: Int, column: Int) -> Float {
    let group = column / 32
    let quant = Float(quants[group][column % 32 * 16 + row])
    switch layout.type {
    case .int8: return HalfPrecision.float(scales[group][row]) * (quant - 128)
    case .int4F16:
      let product = HalfPrecision.float(scales[group][row]) * quant
      return product + HalfPrecision.float(minimums[group][row])
    default:
      let block = layout.block(ofGroup: group)
      let scale = HalfPrecision.float(d[block][row]) * Float(scales6[group][row])
      let minimum = HalfPrecision.float(dmin[block][row]) * Float(minimums6[group][row])
      let product = scale * quant
      return product - minimum
    }
  }
}

/// SplitMix64.
private struct Generator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}

@Suite struct PanelCodecTests {
  /// Group counts on both sides of one block, two blocks and a long last block.
  private static let widths = [1, 31, 32, 33, 64, 200, 256, 257, 480, 512, 570, 1024]

  @Test(arguments: [ElementType.int8, .int4, .int4F16]) func readsWhatWasWritten(type: ElementType) {
    for columns in Self.widths {
      let panel = RandomPanel(type, columns: columns, seed: UInt64(columns))
      let codec = PanelCodec(panel.layout)
      var output = [Float](repeating: .nan, count: 16 * columns)
      panel.bytes.withUnsafeBytes { bytes in
        output.withUnsafeMutableBufferPointer { codec.dequantizePanel(bytes, rowsUsed: 16, into: $0) }
      }
      for row in 0..<16 {
        for column in 0..<columns {
          #expect(
            output[row * columns + column].bitPattern == panel.weight(row: row, column: column).bitPattern,
            "columns \(columns), row \(row), column \(column)")
        }
      }
    }
  }

  @Test(arguments: [ElementType.int8, .int4, .int4F16]) func readsRangesOfRows(type: ElementType) {
    let columns = 300
    let first = RandomPanel(type, columns: columns, seed: 1)
    let second = RandomPanel(type, columns: columns, seed: 2)
    let layout = PanelLayout(type: type, rows: 29, columns: columns)!
    let codec = PanelCodec(layout)
    let matrix = first.bytes + second.bytes
    for (row, range) in [(0, 0..<300), (5, 3..<4), (15, 30..<70), (16, 64..<96), (28, 290..<300), (20, 7..<7)] {
      var output = [Float](repeating: .nan, count: range.count)
      matrix.withUnsafeBytes { bytes in
        output.withUnsafeMutableBufferPointer { codec.dequantizeRow(row, columns: range, of: bytes, into: $0) }
      }
      let panel = row < 16 ? first : second
      #expect(output == range.map { panel.weight(row: row % 16, column: $0) })
    }
  }

  /// The offsets of the layout's definition, counted by hand for one small case of each type.
  @Test func knownPlaces() {
    var panel = RandomPanel(.int8, columns: 40, seed: 3)
    #expect(panel.bytes[2 * 16 + 2 * 5] == UInt8(truncatingIfNeeded: panel.scales[1][5]))
    #expect(panel.bytes[64 + 512 + 64 * 7 + 4 * 9 + 2] == panel.quants[1][30 * 16 + 9])
    panel = RandomPanel(.int4F16, columns: 40, seed: 4)
    #expect(panel.bytes[64 + 32 + 2 * 5 + 1] == UInt8(panel.minimums[1][5] >> 8))
    let nibbles = panel.quants[1][17 * 16 + 9] | panel.quants[1][21 * 16 + 9] << 4
    #expect(panel.bytes[128 + 256 + 64 * 2 + 4 * 9 + 1] == nibbles)
    panel = RandomPanel(.int4, columns: 40, seed: 5)
    #expect(panel.bytes[32 + 2 * 5] == UInt8(truncatingIfNeeded: panel.dmin[0][5]))
    #expect(panel.bytes[64 + 24 + 9] == panel.scales6[1][9] & 15 | panel.minimums6[1][9] << 4)
    #expect(panel.bytes[64 + 24 + 16 + 1] >> 4 & 3 == panel.scales6[1][9] >> 4)
    #expect(panel.bytes[64 + 24 + 16 + 1] >> 6 == panel.minimums6[1][9] >> 4)
    #expect(
      panel.bytes[64 + 64 + 256 + 4 * 3 + 0] == panel.quants[1][3] | panel.quants[1][4 * 16 + 3] << 4)
  }
}
