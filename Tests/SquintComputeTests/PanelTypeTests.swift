import CKernels
import SquintCompute
import SquintFile
import Testing

/// The two sides' descriptions of each quantized type: Swift's, and that of the kernels in C.
@Suite struct PanelTypeTests {
  private static var kernelTypes: [squint_panel_type] {
    (0...).lazy.map { squint_panel_types_at($0) }.prefix { $0 != nil }.compactMap { $0?.pointee }
  }

  @Test func everyTypeIsOnBothSides() {
    #expect(Set(Self.kernelTypes.map(\.type)) == Set(PanelType.allCases.map { UInt32($0.rawValue) }))
    #expect(Set(ElementType.allCases.compactMap(\.panelType)) == Set(PanelType.allCases))
    for type in PanelType.allCases {
      #expect(type.elementType.rawValue == type.rawValue && type.elementType.panelType == type)
    }
  }

  @Test(arguments: PanelType.allCases) func sizesAreThoseOfTheKernels(type: PanelType) throws {
    let twin = try #require(Self.kernelTypes.first { $0.type == UInt32(type.rawValue) })
    #expect(twin.group_bytes == type.groupBytes)
    for groups in 1...15 {
      #expect(twin.header_bytes(UInt32(groups)) == type.headerBytes(groups: groups), "\(groups) groups")
    }
  }

  @Test func bitsPerWeightAreThoseOfTheFormat() {
    #expect(PanelType.allCases.map(\.bitsPerWeight) == [8.5, 4.5, 5])
  }

  /// A product with one activation that is 1 and the others 0 is a weight: each, as the kernels read it, against the codec.
  @Test(arguments: Kernels.available.map(\.name), PanelType.allCases)
  func weightsAreThoseOfTheKernels(name: String, type: PanelType) throws {
    let kernels = try #require(Kernels.named(name))
    let layout = try #require(PanelLayout(type: type.elementType, rows: 33, columns: 9 * 32))
    var random = Random(UInt64(type.rawValue))
    var panels = random.bytes(layout.byteCount)
    for panel in 0..<layout.panels {
      for block in 0..<layout.blocks {
        let header = layout.blockOffset(panel: panel, block: block)
        // Without these bits no f16 number is an infinity or a NaN, wherever a type has them.
        for byte in 0..<layout.headerBytes(groups: layout.groups(inBlock: block)) { panels[header + byte] &= 0xBB }
      }
    }
    let codec = PanelCodec(layout)
    let weights: [[Float]] = (0..<layout.rows).map { row in
      [Float](unsafeUninitializedCapacity: layout.columns) { output, count in
        panels.withUnsafeBytes { codec.dequantizeRow(row, of: $0, into: output) }
        count = layout.columns
      }
    }
    let tokens = layout.columns
    var x = [Int8](repeating: 0, count: tokens * layout.columns)
    var sums = [Int32](repeating: 0, count: tokens * layout.groups)
    for token in 0..<tokens {
      x[token * layout.columns + token] = 1
      sums[token * layout.groups + token / 32] = 1
    }
    let scales = [Float](repeating: 1, count: tokens * layout.groups)
    var y = [Float](repeating: .nan, count: tokens * layout.rows)
    // The panels start at a multiple of 64 bytes.
    let aligned = UnsafeMutableRawBufferPointer.allocate(byteCount: panels.count, alignment: 64)
    defer { aligned.deallocate() }
    aligned.copyBytes(from: panels)
    y.withUnsafeMutableBufferPointer { y in
      x.withUnsafeBufferPointer { x in
        scales.withUnsafeBufferPointer { scales in
          sums.withUnsafeBufferPointer { sums in
            var product = squint_product(
              weights: aligned.baseAddress!.assumingMemoryBound(to: UInt8.self), type: UInt32(type.rawValue),
              rows: UInt32(layout.rows), groups: UInt32(layout.groups), tokens: UInt32(tokens), x: x.baseAddress,
              x_scales: scales.baseAddress, x_sums: sums.baseAddress, y: y.baseAddress, y_stride: layout.rows,
              accumulate: false)
            kernels.product(&product, 0, UInt32(layout.panels))
          }
        }
      }
    }
    var different = 0
    for row in 0..<layout.rows {
      // The kernels round scale · u + offset once, or offset by itself: never by more than the last places of its parts.
      let largest = weights[row].reduce(0) { max($0, $1.magnitude) }
      for column in 0..<layout.columns {
        let difference = (y[column * layout.rows + row] - weights[row][column]).magnitude
        if !(difference <= (type == .int8 ? 0 : 0x1p-18 * largest)) { different += 1 }
      }
    }
    #expect(different == 0)
  }
}
