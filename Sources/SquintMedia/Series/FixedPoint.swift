/// Doubles as C's `%.4f` writes them, and Python's `:.4f`: exact, rounded to the nearest, halves to even, whatever the locale.
package enum FixedPoint {
  package static func four(_ value: Double) -> String {
    guard value.isFinite else { return value.isNaN ? "nan" : value < 0 ? "-inf" : "inf" }
    let sign = value.sign == .minus ? "-" : ""
    let magnitude = value.magnitude
    guard magnitude < 0x1p53 else { return "\(sign)\(digits(of: magnitude)).0000" }
    var whole = UInt64(magnitude)
    let fraction = magnitude - Double(whole)  // exact
    let product = fraction * 10_000
    var rounded = product.rounded(.toNearestOrEven)
    // What the product lacks decides where it seems to lie in the middle.
    let error = (-product).addingProduct(fraction, 10_000)
    if (product - rounded).magnitude == 0.5, error != 0 { rounded = error > 0 ? product + 0.5 : product - 0.5 }
    var tail = UInt64(rounded)
    if tail == 10_000 { (whole, tail) = (whole + 1, 0) }
    let text = String(tail)
    return "\(sign)\(whole)." + String(repeating: "0", count: 4 - text.count) + text
  }

  /// All digits of a double that is an integer.
  private static func digits(of value: Double) -> String {
    // In base 10⁹, the lowest first.
    let base: UInt64 = 1_000_000_000
    var parts: [UInt64] = []
    var mantissa = UInt64(value.significandBitPattern) | 1 << 52
    while mantissa > 0 {
      parts.append(mantissa % base)
      mantissa /= base
    }
    var shift = Int(value.exponent) - 52
    while shift > 0 {
      let bits = min(shift, 29)
      var carry: UInt64 = 0
      for index in parts.indices {
        let next = parts[index] << UInt64(bits) + carry
        parts[index] = next % base
        carry = next / base
      }
      if carry > 0 { parts.append(carry) }
      shift -= bits
    }
    var text = String(parts.last ?? 0)
    for part in parts.dropLast().reversed() {
      let digits = String(part)
      text += String(repeating: "0", count: 9 - digits.count) + digits
    }
    return text
  }
}
