/// The quantizers work on eight rows at once, one row a lane: every sum runs down the columns, none across lanes, so
/// results do not depend on the width of the machine's registers.
typealias Lanes = SIMD8<Float>

extension SIMD8<Float> {
  /// `a` where `mask` holds, else `b`. In bits, which the compiler turns into blends and min/max.
  @inline(__always)
  static func select(_ mask: SIMDMask<SIMD8<Int32>>, _ a: Self, _ b: Self) -> Self {
    let bits = unsafeBitCast(mask, to: SIMD8<Int32>.self)
    return unsafeBitCast(
      (unsafeBitCast(a, to: SIMD8<Int32>.self) & bits) | (unsafeBitCast(b, to: SIMD8<Int32>.self) & ~bits), to: Self.self)
  }

  @inline(__always)
  static func minimum(_ a: Self, _ b: Self) -> Self { select(a .< b, a, b) }

  @inline(__always)
  static func maximum(_ a: Self, _ b: Self) -> Self { select(a .> b, a, b) }

  @inline(__always)
  var magnitude: Self { Self.maximum(self, -self) }

  /// Rounded to the nearest integer, ties to even, for magnitudes up to 2²²: the addition rounds.
  @inline(__always)
  var nearestInteger: Self {
    let shift = Self(repeating: 12_582_912)
    return (self + shift) - shift
  }

  /// 1 / self, and 0 where self is so small that its inverse times a weight might be infinite. (No stored scale is: the
  /// smallest is 2⁻²⁴.)
  @inline(__always)
  var inverseOrZero: Self {
    Self.select(magnitude .< Self(repeating: 0x1p-80), Self(repeating: 0), Self(repeating: 1) / self)
  }

  /// Rounded to a number that binary16 holds; the largest of them for what is larger.
  ///
  /// Normal numbers by Veltkamp's splitting at 11 bits, subnormal ones by adding a number whose last place is 2⁻²⁴.
  @inline(__always)
  var nearestHalf: Self {
    let largest = Self(repeating: 65504)
    let value = Self.minimum(Self.maximum(self, -largest), largest)
    let scaled = value * Self(repeating: 8193)
    let normal = scaled - (scaled - value)
    let shift = Self(repeating: 0.75)
    let subnormal = (value + shift) - shift
    return Self.select(magnitude .< Self(repeating: 0x1p-14), subnormal, normal)
  }
}
