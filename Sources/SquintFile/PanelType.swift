/// A quantized type: how the panels of its matrices (`PanelLayout`) hold numbers. Whatever depends on the type alone is here, or in
/// a `switch` that the compiler lists where a type is added. Its twin for the kernels is `squint_panel_type`
/// (CKernels/include/kernels.h); a test holds the two together.
package enum PanelType: UInt8, Sendable, CaseIterable {
  case int8 = 16
  case int4 = 17
  case int4F16 = 18

  package var elementType: ElementType {
    switch self {
    case .int8: .int8
    case .int4: .int4
    case .int4F16: .int4F16
    }
  }

  /// The bits of one stored number, before the scales.
  package var bitsPerNumber: Int {
    switch self {
    case .int8: 8
    case .int4, .int4F16: 4
    }
  }

  /// The weights of one group of 16 rows × 32 columns, in bytes.
  package var groupBytes: Int { PanelLayout.rowsPerPanel * PanelLayout.columnsPerGroup * bitsPerNumber / 8 }

  /// The size of the header of a block of `groups` groups, in bytes.
  package func headerBytes(groups: Int) -> Int {
    switch self {
    case .int8: PanelLayout.aligned(32 * groups)
    case .int4F16: 64 * groups
    case .int4: 64 + PanelLayout.aligned(24 * groups)
    }
  }

  /// What a weight of a whole block takes, its share of the header included: 8.5, 4.5 or 5.
  package var bitsPerWeight: Double {
    let groups = PanelLayout.groupsPerBlock
    return Double(8 * (headerBytes(groups: groups) + groups * groupBytes))
      / Double(groups * PanelLayout.rowsPerPanel * PanelLayout.columnsPerGroup)
  }

  /// The largest magnitude of a weight that the f16 scales reach.
  package var largestWeight: Float {
    switch self {
    case .int8: 127 * HalfPrecision.largest
    case .int4: 63 * HalfPrecision.largest
    case .int4F16: HalfPrecision.largest
    }
  }

  // MARK: - Numbers

  /// The 32 weights of row `row` of a group, each operation rounded to f32 by itself.
  ///
  /// - Parameters:
  ///   - index: Which group of its block it is.
  ///   - row: 0 to 15.
  ///   - header: The header of the group's block.
  ///   - group: The group's weights, `groupBytes` bytes.
  @inline(__always)
  func decode(
    group index: Int, row: Int, header: UnsafeRawPointer, weights group: UnsafeRawPointer,
    into output: UnsafeMutablePointer<Float>
  ) {
    let weights = group + 4 * row
    switch self {
    case .int8:
      let scale = HalfPrecision.float(Self.half(header, 16 * index + row))
      for quad in 0..<8 {
        for k in 0..<4 {
          let quant = (weights + 64 * quad + k).load(as: UInt8.self)
          output[4 * quad + k] = scale * Float(Int32(quant) - 128)
        }
      }
    case .int4F16:
      let scale = HalfPrecision.float(Self.half(header, 32 * index + row))
      let minimum = HalfPrecision.float(Self.half(header, 32 * index + 16 + row))
      for half in 0..<4 {
        for k in 0..<4 {
          let pair = (weights + 64 * half + k).load(as: UInt8.self)
          output[8 * half + k] = scale * Float(pair & 15) + minimum
          output[8 * half + 4 + k] = scale * Float(pair >> 4) + minimum
        }
      }
    case .int4:
      let (scale6, minimum6) = Self.scaleAndMinimum6(header + 64 + 24 * index, row: row)
      let scale = HalfPrecision.float(Self.half(header, row)) * Float(scale6)
      let minimum = HalfPrecision.float(Self.half(header, 16 + row)) * Float(minimum6)
      for half in 0..<4 {
        for k in 0..<4 {
          let pair = (weights + 64 * half + k).load(as: UInt8.self)
          output[8 * half + k] = scale * Float(pair & 15) - minimum
          output[8 * half + 4 + k] = scale * Float(pair >> 4) - minimum
        }
      }
    }
  }

  /// Writes the stored numbers `[32 columns][16 rows]` of a group: bytes for int8, at most 15 for the others.
  func encode(quants: UnsafePointer<UInt8>, into target: UnsafeMutableRawPointer) {
    switch self {
    case .int8:
      for quad in 0..<8 {
        for row in 0..<16 {
          for k in 0..<4 {
            target.storeBytes(
              of: quants[(4 * quad + k) * 16 + row], toByteOffset: 64 * quad + 4 * row + k, as: UInt8.self)
          }
        }
      }
    case .int4, .int4F16:
      for half in 0..<4 {
        for row in 0..<16 {
          for k in 0..<4 {
            let low = quants[(8 * half + k) * 16 + row] & 15
            let high = quants[(8 * half + 4 + k) * 16 + row] << 4
            target.storeBytes(of: low | high, toByteOffset: 64 * half + 4 * row + k, as: UInt8.self)
          }
        }
      }
    }
  }

  @inline(__always)
  private static func half(_ header: UnsafeRawPointer, _ index: Int) -> UInt16 {
    UInt16(littleEndian: (header + 2 * index).loadUnaligned(as: UInt16.self))
  }

  /// The 6-bit scale and minimum of row `row` from a group's 24 bytes.
  @inline(__always)
  private static func scaleAndMinimum6(_ bytes: UnsafeRawPointer, row: Int) -> (scale: UInt8, minimum: UInt8) {
    let low = (bytes + row).load(as: UInt8.self)
    let high = (bytes + 16 + row % 8).load(as: UInt8.self) >> (row < 8 ? 0 : 4)
    return (low & 15 | (high & 3) << 4, low >> 4 | (high >> 2 & 3) << 4)
  }
}
