import SquintFile

/// Writes the numbers of `blocks` blocks of type `type` as f32, bit for bit those of `gguf.quants.dequantize` in
/// PyPI's gguf (ggml-quants.c, `dequantize_row_*`).
///
/// - Parameters:
///   - type: must be `isReadable`.
///   - source: `blocks * type.bytesPerBlock` bytes, of any alignment.
///   - output: takes `blocks * type.elementsPerBlock` numbers; must not overlap the source.
package func dequantize(
  _ type: SourceType, blocks: Int, from source: UnsafeRawPointer, into output: UnsafeMutablePointer<Float>
) {
  switch type {
  case .f64: convertF64(blocks, source, output)
  case .f32: memcpy(output, source, blocks * 4)
  case .f16: convertF16(blocks, source, output)
  case .bf16: convertBF16(blocks, source, output)
  case .f8e4m3: convertBytes(blocks, source, output, float8E4M3)
  case .f8e5m2: convertBytes(blocks, source, output, float8E5M2)
  case .f8e8m0: convertBytes(blocks, source, output, float8E8M0)
  case .q40: dequantizeQ40(blocks, source, output)
  case .q41: dequantizeQ41(blocks, source, output)
  case .q50: dequantizeQ50(blocks, source, output)
  case .q51: dequantizeQ51(blocks, source, output)
  case .q80: dequantizeQ80(blocks, source, output)
  case .q2k: dequantizeQ2K(blocks, source, output)
  case .q3k: dequantizeQ3K(blocks, source, output)
  case .q4k: dequantizeQ4K(blocks, source, output)
  case .q5k: dequantizeQ5K(blocks, source, output)
  case .q6k: dequantizeQ6K(blocks, source, output)
  case .iq4nl: dequantizeIQ4NL(blocks, source, output)
  case .q81, .q8k, .iq1s, .iq1m, .iq2xxs, .iq2xs, .iq2s, .iq3xxs, .iq3s, .iq4xs, .tq10, .tq20, .mxfp4, .nvfp4, .q10,
    .bool, .u8, .i8, .u16, .i16, .u32, .i32, .u64, .i64, .c64, .f6e2m3, .f6e3m2, .f4:
    preconditionFailure("\(type.name) is not readable")
  }
}

/// `ggml`'s kvalues_iq4nl: what each nibble of an IQ4_NL block stands for.
private let iq4nlValues: [Float] = [
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
]

@inline(__always)
private func half(_ source: UnsafeRawPointer, at offset: Int) -> Float {
  HalfPrecision.float(UInt16(littleEndian: source.loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
}

@inline(__always)
private func bytes(_ source: UnsafeRawPointer, at offset: Int) -> UnsafePointer<UInt8> {
  (source + offset).assumingMemoryBound(to: UInt8.self)
}

// MARK: - Plain types

private func convertF64(_ count: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for i in 0..<count {
    let bits = UInt64(littleEndian: source.loadUnaligned(fromByteOffset: i &* 8, as: UInt64.self))
    output[i] = Float(Double(bitPattern: bits))
  }
}

private func convertF16(_ count: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for i in 0..<count { output[i] = half(source, at: i &* 2) }
}

private func convertBF16(_ count: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for i in 0..<count {
    let bits = UInt16(littleEndian: source.loadUnaligned(fromByteOffset: i &* 2, as: UInt16.self))
    output[i] = Float(bitPattern: UInt32(bits) << 16)
  }
}

@inline(__always)
private func convertBytes(
  _ count: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>, _ value: (UInt8) -> Float
) {
  let bytes = bytes(source, at: 0)
  for i in 0..<count { output[i] = value(bytes[i]) }
}

/// E4M3 without infinities (arXiv 2209.05433, PyTorch's float8_e4m3fn): the exponent 15 is one like others, but for the last
/// number, which is NaN.
@inline(__always)
private func float8E4M3(_ bits: UInt8) -> Float {
  let magnitude = bits & 0x7f
  if magnitude == 0x7f { return .nan }
  // As bits of binary32 the number is 2^-120 times what it is; so are subnormal ones.
  let value = Float(bitPattern: UInt32(magnitude) << 20) * 0x1p120
  return bits & 0x80 == 0 ? value : -value
}

/// E5M2, the upper half of binary16.
@inline(__always)
private func float8E5M2(_ bits: UInt8) -> Float { HalfPrecision.float(UInt16(bits) << 8) }

/// E8M0, a power of two (OCP Microscaling Formats 1.0).
@inline(__always)
private func float8E8M0(_ bits: UInt8) -> Float {
  bits == 255 ? .nan : bits == 0 ? 0x1p-127 : Float(bitPattern: UInt32(bits) << 23)
}

// MARK: - Blocks of 32
//
// Byte j of the nibbles holds weight j in its low half and weight j + 16 in its high half.

/// f16 d, nibbles[16]: d * (q - 8)
private func dequantizeQ40(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 18
    let y = output + block &* 32
    let d = half(base, at: 0)
    let q = bytes(base, at: 2)
    for j in 0..<16 {
      y[j] = d * Float(Int32(q[j] & 15) &- 8)
      y[j &+ 16] = d * Float(Int32(q[j] >> 4) &- 8)
    }
  }
}

/// f16 d, f16 m, nibbles[16]: d * q + m
private func dequantizeQ41(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 20
    let y = output + block &* 32
    let d = half(base, at: 0)
    let m = half(base, at: 2)
    let q = bytes(base, at: 4)
    for j in 0..<16 {
      y[j] = d * Float(Int32(q[j] & 15)) + m
      y[j &+ 16] = d * Float(Int32(q[j] >> 4)) + m
    }
  }
}

/// f16 d, u32 fifth bits, nibbles[16]: d * (q - 16)
private func dequantizeQ50(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 22
    let y = output + block &* 32
    let d = half(base, at: 0)
    let high = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 2, as: UInt32.self))
    let q = bytes(base, at: 6)
    for j in 0..<16 {
      let high0 = (high &>> UInt32(truncatingIfNeeded: j)) & 1
      let high1 = (high &>> UInt32(truncatingIfNeeded: j &+ 16)) & 1
      y[j] = d * Float(Int32(bitPattern: UInt32(q[j] & 15) | high0 << 4) &- 16)
      y[j &+ 16] = d * Float(Int32(bitPattern: UInt32(q[j] >> 4) | high1 << 4) &- 16)
    }
  }
}

/// f16 d, f16 m, u32 fifth bits, nibbles[16]: d * q + m
private func dequantizeQ51(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 24
    let y = output + block &* 32
    let d = half(base, at: 0)
    let m = half(base, at: 2)
    let high = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    let q = bytes(base, at: 8)
    for j in 0..<16 {
      let high0 = (high &>> UInt32(truncatingIfNeeded: j)) & 1
      let high1 = (high &>> UInt32(truncatingIfNeeded: j &+ 16)) & 1
      y[j] = d * Float(Int32(bitPattern: UInt32(q[j] & 15) | high0 << 4)) + m
      y[j &+ 16] = d * Float(Int32(bitPattern: UInt32(q[j] >> 4) | high1 << 4)) + m
    }
  }
}

/// f16 d, i8 q[32]: d * q
private func dequantizeQ80(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 34
    let y = output + block &* 32
    let d = half(base, at: 0)
    let q = bytes(base, at: 2)
    for j in 0..<32 { y[j] = d * Float(Int32(Int8(bitPattern: q[j]))) }
  }
}

/// f16 d, nibbles[16]: d * value[q]
private func dequantizeIQ4NL(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  iq4nlValues.withUnsafeBufferPointer { values in
    let values = values.baseAddress!
    for block in 0..<blocks {
      let base = source + block &* 18
      let y = output + block &* 32
      let d = half(base, at: 0)
      let q = bytes(base, at: 2)
      for j in 0..<16 {
        y[j] = d * values[Int(q[j] & 15)]
        y[j &+ 16] = d * values[Int(q[j] >> 4)]
      }
    }
  }
}

// MARK: - Blocks of 256

/// Writes d * q - m for the 16 weights whose two bits are at `shift`.
@inline(__always)
private func twoBits(
  _ q: UnsafePointer<UInt8>, shift: UInt8, d: Float, m: Float, _ y: UnsafeMutablePointer<Float>
) {
  for l in 0..<16 { y[l] = d * Float(Int32((q[l] &>> shift) & 3)) - m }
}

/// 4-bit scale and minimum[16], two bits[64], f16 d, f16 dmin: (d * scale) * q - dmin * minimum, groups of 16
private func dequantizeQ2K(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 84
    let scales = bytes(base, at: 0)
    let q = bytes(base, at: 16)
    let d = half(base, at: 80)
    let dmin = half(base, at: 82)
    for group in 0..<16 {
      let scale = d * Float(Int32(scales[group] & 15))
      let minimum = dmin * Float(Int32(scales[group] >> 4))
      // Groups 0 to 7 are in the first 32 bytes: two groups (of 16 bytes) at each of the four shifts.
      twoBits(
        q + ((group &>> 3) &* 32 &+ (group & 1) &* 16), shift: UInt8(truncatingIfNeeded: group & 6), d: scale,
        m: minimum, output + (block &* 256 &+ group &* 16))
    }
  }
}

/// third bits[32], two bits[64], 6-bit scales[12], f16 d: d * (scale - 32) * (q - 4), groups of 16
private func dequantizeQ3K(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 110
    let high = bytes(base, at: 0)
    let low = bytes(base, at: 32)
    let scales = bytes(base, at: 96)
    let d = half(base, at: 108)
    for group in 0..<16 {
      let lowScale = group < 8 ? scales[group] & 15 : scales[group &- 8] >> 4
      let highScale = (scales[8 &+ (group & 3)] &>> UInt8(truncatingIfNeeded: (group &>> 2) &* 2)) & 3
      let scale = d * Float(Int32(lowScale | highScale << 4) &- 32)
      let part = (group & 1) &* 16
      let l = low + ((group &>> 3) &* 32 &+ part)
      let h = high + part
      let shift = UInt8(truncatingIfNeeded: group & 6)
      let bit = UInt8(truncatingIfNeeded: group &>> 1)
      let y = output + (block &* 256 &+ group &* 16)
      for i in 0..<16 {
        let q = (l[i] &>> shift) & 3 | ((h[i] &>> bit) & 1) << 2
        y[i] = scale * Float(Int32(q) &- 4)
      }
    }
  }
}

/// The 6-bit scale and minimum of group `group` of 8 in the 12 bytes of Q4_K and Q5_K.
@inline(__always)
private func scaleAndMinimum(_ packed: UnsafePointer<UInt8>, _ group: Int) -> (scale: Float, minimum: Float) {
  let scale: UInt8
  let minimum: UInt8
  if group < 4 {
    scale = packed[group] & 63
    minimum = packed[group &+ 4] & 63
  } else {
    scale = packed[group &+ 4] & 15 | (packed[group &- 4] >> 6) << 4
    minimum = packed[group &+ 4] >> 4 | (packed[group] >> 6) << 4
  }
  return (Float(Int32(scale)), Float(Int32(minimum)))
}

/// f16 d, f16 dmin, 6-bit scales and minimums[12], nibbles[128]: (d * scale) * q - dmin * minimum, groups of 32
private func dequantizeQ4K(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 144
    let d = half(base, at: 0)
    let dmin = half(base, at: 2)
    let packed = bytes(base, at: 4)
    for pair in 0..<4 {
      let first = scaleAndMinimum(packed, 2 &* pair)
      let second = scaleAndMinimum(packed, 2 &* pair &+ 1)
      let (d0, m0) = (d * first.scale, dmin * first.minimum)
      let (d1, m1) = (d * second.scale, dmin * second.minimum)
      let q = bytes(base, at: 16 &+ 32 &* pair)
      let y = output + (block &* 256 &+ pair &* 64)
      for l in 0..<32 {
        y[l] = d0 * Float(Int32(q[l] & 15)) - m0
        y[l &+ 32] = d1 * Float(Int32(q[l] >> 4)) - m1
      }
    }
  }
}

/// f16 d, f16 dmin, 6-bit scales and minimums[12], fifth bits[32], nibbles[128]: as Q4_K, groups of 32
private func dequantizeQ5K(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 176
    let d = half(base, at: 0)
    let dmin = half(base, at: 2)
    let packed = bytes(base, at: 4)
    let high = bytes(base, at: 16)
    for pair in 0..<4 {
      let first = scaleAndMinimum(packed, 2 &* pair)
      let second = scaleAndMinimum(packed, 2 &* pair &+ 1)
      let (d0, m0) = (d * first.scale, dmin * first.minimum)
      let (d1, m1) = (d * second.scale, dmin * second.minimum)
      let q = bytes(base, at: 48 &+ 32 &* pair)
      let y = output + (block &* 256 &+ pair &* 64)
      let shift = UInt8(truncatingIfNeeded: 2 &* pair)
      for l in 0..<32 {
        let bits = high[l] &>> shift
        y[l] = d0 * Float(Int32(q[l] & 15 | (bits & 1) << 4)) - m0
        y[l &+ 32] = d1 * Float(Int32(q[l] >> 4 | (bits & 2) << 3)) - m1
      }
    }
  }
}

/// low nibbles[128], high two bits[64], i8 scale[16], f16 d: (d * scale) * (q - 32), groups of 16
private func dequantizeQ6K(_ blocks: Int, _ source: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for block in 0..<blocks {
    let base = source + block &* 210
    let scales = bytes(base, at: 192)
    let d = half(base, at: 208)
    for group in 0..<16 {
      let scale = d * Float(Int32(Int8(bitPattern: scales[group])))
      // Within a half of 128 weights: 32 at a time, first the low nibbles of 64 bytes, then the high ones.
      let part = group &>> 3
      let row = (group &>> 1) & 3
      let column = (group & 1) &* 16
      let low = bytes(base, at: part &* 64 &+ (row & 1) &* 32 &+ column)
      let high = bytes(base, at: 128 &+ part &* 32 &+ column)
      let lowShift = UInt8(truncatingIfNeeded: (row &>> 1) &* 4)
      let highShift = UInt8(truncatingIfNeeded: row &* 2)
      let y = output + (block &* 256 &+ group &* 16)
      for l in 0..<16 {
        let q = (low[l] &>> lowShift) & 15 | ((high[l] &>> highShift) & 3) << 4
        y[l] = scale * Float(Int32(q) &- 32)
      }
    }
  }
}
