/// The quantizers work on eight rows at once, one row a lane: every sum runs down the columns, none across lanes, so
/// results do not depend on the width of the machine's registers.
typealias Lanes = SIMD8<Float>

extension SIMD8<Float> {
  /// `a` where `mask` holds, else `b`. In bits, which every compiler turns into blends or min and max.
  @inline(__always)
  static func select(_ mask: SIMDMask<SIMD8<Int32>>, _ a: Self, _ b: Self) -> Self {
    let bits = unsafeBitCast(mask, to: SIMD8<Int32>.self)
    return unsafeBitCast(
      (unsafeBitCast(a, to: SIMD8<Int32>.self) & bits) | (unsafeBitCast(b, to: SIMD8<Int32>.self) & ~bits),
      to: Self.self)
  }

  @inline(__always)
  static func minimum(_ a: Self, _ b: Self) -> Self { select(a .< b, a, b) }

  @inline(__always)
  static func maximum(_ a: Self, _ b: Self) -> Self { select(a .> b, a, b) }

  @inline(__always)
  var magnitude: Self { Self.maximum(self, -self) }

  /// Rounded to the nearest integer, ties to even, for magnitudes up to 2²² (larger ones stay large): the addition
  /// rounds.
  @inline(__always)
  var nearestInteger: Self {
    let shift = Self(repeating: 12_582_912)
    return (self + shift) - shift
  }

  /// Rounded to the nearest integer within `low...high`. (In this order: the compiler turns a limit that comes before
  /// the addition of a constant into a longer sequence.)
  @inline(__always)
  func nearestInteger(from low: Float, to high: Float) -> Self {
    Self.minimum(Self.maximum(nearestInteger, Self(repeating: low)), Self(repeating: high))
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

  /// The same for a scale of weights: one that is not zero does not become zero, since a coarse scale beats none.
  @inline(__always)
  var nearestHalfScale: Self {
    let half = nearestHalf
    let zero = Self(repeating: 0)
    let smallest = Self.select(self .< zero, Self(repeating: -0x1p-24), Self(repeating: 0x1p-24))
    return Self.select(self .== zero, zero, Self.select(half .== zero, smallest, half))
  }
}
