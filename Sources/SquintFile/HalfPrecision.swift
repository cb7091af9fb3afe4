/// IEEE 754 binary16 as its 16 bits.
///
/// Written out in integers so that every machine gives the same bits, whatever its instruction set, its rounding mode
/// for subnormals or the flags of its compiler.
package enum HalfPrecision {
  /// The largest finite number of the type.
  package static let largest: Float = 65504

  /// The value of `bits`, exactly. Without branches, so that loops of it become vectors.
  @inline(__always)
  package static func float(_ bits: UInt16) -> Float {
    let shifted = UInt32(bits & 0x7FFF) << 13
    let exponent = shifted & 0x0F80_0000
    // binary32's exponent is 112 larger; that of infinities and NaNs 224.
    let rebased = shifted &+ (exponent == 0x0F80_0000 ? 224 << 23 : 112 << 23)
    // A subnormal has no implicit leading 1: with one, it is 2^-14 too large.
    let subnormal = Float(bitPattern: rebased &+ 1 << 23) - 0x1p-14
    let magnitude = exponent == 0 ? subnormal.bitPattern : rebased
    return Float(bitPattern: magnitude | UInt32(bits & 0x8000) << 16)
  }

  /// `value` rounded to the nearest, ties to even; numbers from 65520 up become infinite.
  @inline(__always)
  package static func bits(_ value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
    let magnitude = value.bitPattern & 0x7fff_ffff
    if magnitude > 0x7f80_0000 { return sign | 0x7e00 }
    if magnitude >= 0x477f_f000 { return sign | 0x7c00 }
    if magnitude < 0x3880_0000 {
      // One unit in the last place of 0.5 is the smallest subnormal: the addition rounds.
      let rounded = Float(bitPattern: magnitude) + 0.5
      return sign | UInt16(truncatingIfNeeded: rounded.bitPattern &- 0x3f00_0000)
    }
    let rounded = magnitude &+ 0xfff &+ (magnitude >> 13 & 1)
    return sign | UInt16(truncatingIfNeeded: (rounded &- 0x3800_0000) >> 13)
  }
}
