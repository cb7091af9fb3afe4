import SquintFile

/// Stores numbers as f32, f16 or bf16, little-endian, rounded to the nearest, ties to even.
///
/// - Parameters:
///   - values: `[rows, columns]`, row after row.
///   - columns: The length of a row, for messages.
///   - type: f32, f16 or bf16.
///   - output: Takes `values.count` numbers of `type`.
///   - firstRow: The row of the tensor that `values` starts with, for messages.
/// - Returns: Σ (w − ŵ)² and Σ w².
/// - Throws: `SquintError` (badData) that names row and column of a number that is not finite, or that the type cannot
///   hold: it is never saturated, since a model that needs such a number is wrong without it.
@discardableResult
package func convertPlain(
  _ values: UnsafeBufferPointer<Float>, columns: Int, to type: ElementType,
  into output: UnsafeMutableRawBufferPointer, firstRow: Int = 0
) throws(SquintError) -> (squaredError: Double, squaredNorm: Double) {
  guard let size = type.bytesPerPlainElement else { preconditionFailure("\(type.name) is stored in panels") }
  precondition(columns > 0 && output.count / size >= values.count)
  var squaredError = 0.0
  var squaredNorm = 0.0
  for index in 0..<values.count {
    let value = values[index]
    let stored: Float
    switch type {
    case .f16:
      let bits = HalfPrecision.bits(value)
      stored = HalfPrecision.float(bits)
      output.storeBytes(of: bits.littleEndian, toByteOffset: 2 * index, as: UInt16.self)
    case .bf16:
      let bits = brainFloatBits(value)
      stored = Float(bitPattern: UInt32(bits) << 16)
      output.storeBytes(of: bits.littleEndian, toByteOffset: 2 * index, as: UInt16.self)
    case .f32:
      stored = value
      output.storeBytes(of: value.bitPattern.littleEndian, toByteOffset: 4 * index, as: UInt32.self)
    case .int8, .int4, .int4F16: preconditionFailure("\(type.name) is stored in panels")
    }
    guard stored.isFinite else {
      let place = "row \(grouped(firstRow + index / columns)), column \(grouped(index % columns))"
      if !value.isFinite {
        throw SquintError(.badData, "\(place): the weight is \(value), not a finite number; the source is damaged")
      }
      throw SquintError(
        .badData, "\(place): the weight \(value) is beyond the reach of \(type.name); store this tensor as f32")
    }
    let error = Double(value) - Double(stored)
    squaredError += error * error
    squaredNorm += Double(value) * Double(value)
  }
  return (squaredError, squaredNorm)
}

/// The upper half of a binary32, rounded to the nearest, ties to even.
@inline(__always)
private func brainFloatBits(_ value: Float) -> UInt16 {
  let bits = value.bitPattern
  // What is not a number stays so: rounding could carry it to infinity.
  if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
  return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ (bits >> 16 & 1)) >> 16)
}
