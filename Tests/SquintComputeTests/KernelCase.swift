import CKernels
import Foundation
import SquintCompute

/// One call of a kernel: its arguments as bytes, so that it can run in this process or, under an emulator, in another
/// (tools/kernels/harness.c), and a check of what it leaves in its outputs.
struct KernelCase {
  enum Operation: UInt32 {
    case product = 0
    case quantize, plainProduct, f16ToF32, bf16ToF32, f32ToF16, f32ToInt8, attention, rmsNorm, rotary, siluMultiply
    case add, softmax, exponential, layerNorm, gelu, geluTanh, quickGELU, relu, silu
    case packRows, packColumns, hadamard, multiply
  }

  let name: String
  let operation: Operation
  /// In the order of the harness.
  let parameters: [UInt32]
  let inputs: [[UInt8]]
  /// Before the call; a kernel must leave alone what it does not compute.
  let outputs: [[UInt8]]
  /// What is wrong with the outputs after the call, or nil.
  let check: @Sendable ([[UInt8]]) -> String?

  /// The outputs after the call.
  func run(_ kernels: Kernels) -> [[UInt8]] {
    // Each buffer starts at a multiple of 64, as panels must, and is not a byte longer than it should be, so that the
    // address sanitizer sees every access beyond.
    let buffers = (inputs + outputs).map { bytes in
      let buffer = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 64)
      buffer.copyMemory(from: bytes, byteCount: bytes.count)
      return buffer
    }
    defer { for buffer in buffers { buffer.deallocate() } }
    func input<T>(_ index: Int, _: T.Type) -> UnsafePointer<T> {
      UnsafePointer(buffers[index].assumingMemoryBound(to: T.self))
    }
    func output<T>(_ index: Int, _: T.Type) -> UnsafeMutablePointer<T> {
      buffers[inputs.count + index].assumingMemoryBound(to: T.self)
    }
    let p = parameters
    let f = Float.self
    switch operation {
    case .product:
      var product = squint_product(
        weights: input(0, UInt8.self), type: p[0], rows: p[1], groups: p[2], tokens: p[3], x: input(1, Int8.self),
        x_scales: input(2, f), x_sums: input(3, Int32.self), y: output(0, f), y_stride: Int(p[4]), accumulate: p[5] != 0
      )
      kernels.product(&product, p[6], p[7])
    case .quantize:
      kernels.quantize(input(0, f), Int(p[0]), output(0, Int8.self), output(1, f), output(2, Int32.self))
    case .plainProduct:
      var product = squint_plain_product(
        weights: input(0, UInt8.self), type: p[0], rows: p[1], columns: p[2], tokens: p[3], x: input(1, f),
        x_stride: Int(p[4]), y: output(0, f), y_stride: Int(p[5]), accumulate: p[6] != 0)
      kernels.plainProduct(&product, p[7], p[8])
    case .f16ToF32: kernels.f16ToF32(input(0, UInt16.self), output(0, f), Int(p[0]))
    case .bf16ToF32: kernels.bf16ToF32(input(0, UInt16.self), output(0, f), Int(p[0]))
    case .f32ToF16: kernels.f32ToF16(input(0, f), output(0, UInt16.self), Int(p[0]))
    case .f32ToInt8: kernels.f32ToInt8(input(0, f), Int(p[0]), output(0, Int8.self), output(1, UInt16.self))
    case .attention:
      var attention = squint_attention(
        q: input(0, f), q_token_stride: Int(p[0]), q_head_stride: Int(p[1]), heads: p[2], head_dim: p[3],
        k: input(1, UInt8.self), v: input(2, UInt8.self), k_scales: input(3, UInt16.self),
        v_scales: input(4, UInt16.self), kv_stride: Int(p[4]), scale_stride: Int(p[5]), kv_type: p[6],
        positions: p[7], seen: p[8] == 0 ? nil : UnsafePointer(input(5, squint_span.self)),
        scale: Float(bitPattern: p[11]),
        out: output(0, f), out_token_stride: Int(p[12]), out_head_stride: Int(p[13]), statistics: output(2, f))
      kernels.attention(&attention, p[14], p[15], output(1, f))
    case .rmsNorm: kernels.rmsNorm(input(0, f), input(1, f), output(0, f), Int(p[0]), Float(bitPattern: p[1]))
    case .rotary: kernels.rotary(output(0, f), Int(p[0]), Int(p[1]), Int(p[2]), input(0, f), input(1, f))
    case .siluMultiply: kernels.siluMultiply(input(0, f), input(1, f), output(0, f), Int(p[0]))
    case .add: kernels.add(input(0, f), input(1, f), output(0, f), Int(p[0]))
    case .softmax:
      func rounded(_ index: Int) -> squint_rounded {
        squint_rounded(q: output(index, Int8.self), scales: output(index + 1, f), sums: output(index + 2, Int32.self))
      }
      kernels.softmax(input(0, f), Int(p[0]), Float(bitPattern: p[1]), rounded(0), rounded(3))
    case .exponential: kernels.exponential(input(0, f), output(0, f), Int(p[0]))
    case .layerNorm:
      kernels.layerNorm(input(0, f), input(1, f), input(2, f), output(0, f), Int(p[0]), Float(bitPattern: p[1]))
    case .gelu: kernels.gelu(output(0, f), Int(p[0]))
    case .geluTanh: kernels.geluTanh(output(0, f), Int(p[0]))
    case .quickGELU: kernels.quickGELU(output(0, f), Int(p[0]))
    case .relu: kernels.relu(output(0, f), Int(p[0]))
    case .silu: kernels.silu(output(0, f), Int(p[0]))
    case .packRows: kernels.packRows(input(0, f), Int(p[0]), p[1], p[2], output(0, UInt8.self))
    case .packColumns: kernels.packColumns(input(0, f), Int(p[0]), p[1], p[2], p[3], output(0, UInt8.self))
    case .multiply: kernels.multiply(input(0, f), input(1, f), output(0, f), Int(p[0]))
    case .hadamard: kernels.hadamard(output(0, f), Int(p[0]), Int(p[1]), Int(p[2]))
    }
    return outputs.indices.map {
      [UInt8](UnsafeRawBufferPointer(start: buffers[inputs.count + $0], count: outputs[$0].count))
    }
  }

  /// What is wrong with the outputs, with the case's name, or nil.
  func verdict(_ outputs: [[UInt8]]) -> String? { check(outputs).map { "\(name): \($0)" } }

  /// The case as the harness reads it.
  var encoded: [UInt8] {
    let padded = parameters + [UInt32](repeating: 0, count: 16 - parameters.count)
    var result = bytes([operation.rawValue] + padded + [UInt32(inputs.count), UInt32(outputs.count)])
    for buffer in inputs + outputs { result += bytes([UInt64(buffer.count)]) + buffer }
    return result
  }
}

/// Runs all cases; the first few complaints.
func complaints(_ cases: [KernelCase], _ kernels: Kernels) -> [String] {
  Array(cases.lazy.compactMap { $0.verdict($0.run(kernels)) }.prefix(5))
}

// MARK: Bytes and numbers

func bytes<T: BitwiseCopyable>(_ values: [T]) -> [UInt8] { values.withUnsafeBytes { [UInt8]($0) } }

func values<T: BitwiseCopyable>(_ bytes: [UInt8], of type: T.Type = T.self) -> [T] {
  bytes.withUnsafeBytes { raw in
    (0..<raw.count / MemoryLayout<T>.stride).map {
      raw.loadUnaligned(fromByteOffset: $0 * MemoryLayout<T>.stride, as: T.self)
    }
  }
}

/// What stands where nothing may be written.
let canary = Float(bitPattern: 0x7fa1_b2c3)

/// Index of the first number that is not within its tolerance of what is expected; where nothing is expected, the number
/// before must still stand, to the bit.
func firstDifference(_ actual: [Float], _ before: [Float], _ expected: [Int: (value: Double, tolerance: Double)])
  -> String?
{
  for (index, number) in actual.enumerated() {
    if let (value, tolerance) = expected[index] {
      if !(abs(Double(number) - value) <= tolerance) {
        return "number \(index) is \(number), should be \(value) ± \(tolerance)"
      }
    } else if number.bitPattern != before[index].bitPattern {
      return "number \(index) was overwritten by \(number)"
    }
  }
  return nil
}

/// The value of an f16's bits.
func half(_ bits: UInt16) -> Double {
  let exponent = Int(bits >> 10 & 31)
  let fraction = Double(bits & 1023)
  let magnitude: Double
  switch exponent {
  case 0: magnitude = fraction * 0x1p-24
  case 31: magnitude = fraction == 0 ? .infinity : .nan
  default: magnitude = (1024 + fraction) * pow(2, Double(exponent - 25))
  }
  return bits & 0x8000 == 0 ? magnitude : -magnitude
}

func bfloat(_ bits: UInt16) -> Double { Double(Float(bitPattern: UInt32(bits) << 16)) }

/// The f16 nearest to `value`, ties to even, found by search rather than by shifting bits.
func halfBits(_ value: Float) -> UInt16 {
  if value.isNaN { return 0x7e00 }
  let sign: UInt16 = value.sign == .minus ? 0x8000 : 0
  let magnitude = Double(value.magnitude)
  if magnitude >= 65520 { return sign | 0x7c00 }
  var low: UInt16 = 0
  var high: UInt16 = 0x7bff
  while low < high {  // the largest whose value is not above
    let middle = (low + high + 1) / 2
    if half(middle) <= magnitude { low = middle } else { high = middle - 1 }
  }
  let below = magnitude - half(low)
  let above = (low == 0x7bff ? 65536 : half(low + 1)) - magnitude
  let up = above < below || (above == below && low % 2 == 1)
  return sign | (up ? low + 1 : low)
}

/// SplitMix64 (Steele, Lea & Flood 2014): the same numbers in every run.
struct Random: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }

  /// Roughly normal, of standard deviation 1.
  mutating func normal() -> Float {
    (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -0.866...0.866, using: &self) }
  }

  mutating func normals(_ count: Int) -> [Float] { (0..<count).map { _ in normal() } }
}
