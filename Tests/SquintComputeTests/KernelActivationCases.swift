import Foundation
import SquintCompute
import SquintFile

/// Cases of the functions that take activations alone: conversions, norms, rotary embedding, activation functions.

/// A case whose only output is `written` numbers, each compared with its expected value, then a few canaries.
private func vectorCase(
  _ name: String, _ operation: KernelCase.Operation, parameters: [UInt32], inputs: [[UInt8]] = [],
  before: [Float]? = nil, expected: [(value: Double, tolerance: Double)]
) -> KernelCase {
  let after = [Float](repeating: canary, count: 20)
  let start = (before ?? [Float](repeating: canary, count: expected.count)) + after
  return KernelCase(
    name: name, operation: operation, parameters: parameters, inputs: inputs, outputs: [bytes(start)]
  ) { outputs in
    let table = Dictionary(uniqueKeysWithValues: expected.enumerated().map { ($0.offset, $0.element) })
    return firstDifference(values(outputs[0]), start, table)
  }
}

func exponentialCase() -> KernelCase {
  var x = (0...40_000).map { -87 + Float($0) * (175.0 / 40_000) }
  x += [0, -0.0, 1e-30, -1e-10, 0.34657, -0.34658]
  let exact = x.map { value in
    // The error that kernels.h promises.
    (exp(Double(value)), exp(Double(value)) * 0x1p-22)
  }
  return vectorCase(
    "exponential", .exponential, parameters: [UInt32(x.count)], inputs: [bytes(x)], expected: exact)
}

func exponentialBeyondRangeCase() -> KernelCase {
  let x: [Float] = [-1e30, -.infinity, -200, 100, 3e38, .infinity]
  // Clamped: neither zero nor infinity, but below every number and above every number that a softmax meets.
  let low = (1.0e-38, 0.3e-38)
  let high = (2.4e38, 0.1e38)
  return vectorCase(
    "exponential beyond its range", .exponential, parameters: [UInt32(x.count)], inputs: [bytes(x)],
    expected: [low, low, low, high, high, high])
}

func rmsNormCase(_ count: Int, epsilon: Float, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let (x, weight) = (random.normals(count), random.normals(count))
  let mean = x.reduce(0) { $0 + Double($1) * Double($1) } / Double(count)
  let scale = 1 / (mean + Double(epsilon)).squareRoot()
  // The sum of squares rounds at most twice per number, which the root halves; then six operations.
  let relative = Double(count + 6) * 0x1p-24
  return vectorCase(
    "rms norm of \(count)", .rmsNorm, parameters: [UInt32(count), epsilon.bitPattern],
    inputs: [bytes(x), bytes(weight)],
    expected: zip(x, weight).map { x, weight in
      let value = Double(x) * scale * Double(weight)
      return (value, relative * abs(value))
    })
}

/// - Parameter mean: what is added to the numbers: far from zero, a sloppy variance is all rounding error.
func layerNormCase(_ count: Int, mean: Float = 0, epsilon: Float, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let x = random.normals(count).map { $0 + mean }
  let (weight, bias) = (random.normals(count), random.normals(count))
  let average = x.reduce(0) { $0 + Double($1) } / Double(count)
  let variance = x.reduce(0) { $0 + (Double($1) - average) * (Double($1) - average) } / Double(count)
  let scale = 1 / (variance + Double(epsilon)).squareRoot()
  // The sum of squares rounds at most twice per number, which the root halves; then six operations. A deviation is
  // rounded against the largest number.
  let relative = Double(count + 8) * 0x1p-24
  let deviation = 2 * (abs(Double(mean)) + 4) * 0x1p-24
  return vectorCase(
    "layer norm of \(count), mean \(mean)", .layerNorm, parameters: [UInt32(count), epsilon.bitPattern],
    inputs: [bytes(x), bytes(weight), bytes(bias)],
    expected: zip(x, zip(weight, bias)).map { x, parameters in
      let (weight, bias) = (Double(parameters.0), Double(parameters.1))
      let normal = (Double(x) - average) * scale
      return (
        normal * weight + bias,
        relative * (abs(normal * weight) + abs(bias)) + deviation * scale * abs(weight)
      )
    })
}

/// An activation function of `count` numbers between -12 and 12, and some far beyond; the error that kernels.h promises.
func activationCase(_ operation: KernelCase.Operation, _ count: Int, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let far: [Float] = [0, -0.0, 1e-30, -1e-30, 30.5, -30.5, 100, -100, 1e4, -1e4]
  let x = (0..<count).map {
    $0 % 7 == 5 ? far[$0 / 7 % far.count] : Float.random(in: -12...12, using: &random)
  }
  return vectorCase(
    "\(operation) of \(count)", operation, parameters: [UInt32(count)], before: x,
    expected: x.map { x in
      let x = Double(x)
      let value: Double
      switch operation {
      case .gelu: value = x / 2 * erfc(-x / 2.0.squareRoot())
      case .geluTanh: value = x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
      case .quickGELU: value = x / (1 + exp(-1.702 * x))
      case .relu: value = max(x, 0)
      default: value = x / (1 + exp(-x))
      }
      return (value, operation == .relu ? 0 : max(1, abs(x)) * 0x1p-22)
    })
}

func rotaryCase(heads: Int, stride: Int, pairs: Int, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let x = random.normals(heads * stride)
  let angles = (0..<pairs).map { _ in Float.random(in: -4...4, using: &random) }
  let (cosines, sines) = (angles.map { cos($0) }, angles.map { sin($0) })
  var expected = x.map { (Double($0), 0.0) }
  for head in 0..<heads {
    for i in 0..<pairs {
      let (a, b) = (Double(x[head * stride + i]), Double(x[head * stride + pairs + i]))
      let (c, s) = (Double(cosines[i]), Double(sines[i]))
      // Two products and a sum, each rounded.
      expected[head * stride + i] = (a * c - b * s, 3 * 0x1p-24 * (abs(a * c) + abs(b * s)))
      expected[head * stride + pairs + i] = (b * c + a * s, 3 * 0x1p-24 * (abs(b * c) + abs(a * s)))
    }
  }
  return vectorCase(
    "rotary, \(heads) heads, \(pairs) pairs", .rotary, parameters: [UInt32(heads), UInt32(stride), UInt32(pairs)],
    inputs: [bytes(cosines), bytes(sines)], before: x, expected: expected)
}

func hadamardCase(heads: Int, stride: Int, width: Int, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let x = random.normals(heads * stride)
  let n = width & -width
  var expected = x.map { (Double($0), 0.0) }
  for head in 0..<heads {
    for i in 0..<width where n > 1 {
      let start = head * stride + i / n * n
      let terms = (0..<n).map { j in
        Double(x[start + j]) * ((i % n & j).nonzeroBitCount % 2 == 1 ? -1 : 1) / Double(n).squareRoot()
      }
      // Each number times the scale, which is rounded too, and at most 16 sums in a row, then one for each doubling.
      expected[head * stride + i] = (terms.reduce(0, +), 32 * 0x1p-24 * terms.reduce(0) { $0 + abs($1) })
    }
  }
  return vectorCase(
    "hadamard, \(heads) heads, \(width) wide", .hadamard, parameters: [UInt32(heads), UInt32(stride), UInt32(width)],
    before: x, expected: expected)
}

func siluMultiplyCase(_ count: Int, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let gate = (0..<count).map { $0 % 17 == 3 ? Float.random(in: -300...300, using: &random) : 4 * random.normal() }
  let up = random.normals(count)
  return vectorCase(
    "silu of \(count)", .siluMultiply, parameters: [UInt32(count)], inputs: [bytes(gate), bytes(up)],
    expected: zip(gate, up).map { gate, up in
      let value = Double(gate) / (1 + exp(-Double(gate))) * Double(up)
      // The exponential's error and three roundings; beyond -88 the exponential is clamped, and the value negligible.
      return (value, abs(value) * 0x1p-21 + 1e-35)
    })
}

func addCase(_ count: Int, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let (a, b) = (random.normals(count), random.normals(count))
  return vectorCase(
    "add \(count)", .add, parameters: [UInt32(count)], inputs: [bytes(a), bytes(b)],
    expected: zip(a, b).map { (Double($0 + $1), 0) })
}

func multiplyCase(_ count: Int, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let (a, b) = (random.normals(count), random.normals(count))
  return vectorCase(
    "multiply \(count)", .multiply, parameters: [UInt32(count)], inputs: [bytes(a), bytes(b)],
    expected: zip(a, b).map { (Double($0 * $1), 0) })
}

/// Weights of attention as two numbers in int8 each, and their sums.
///
/// - Parameter spread: how far the scores are apart; of far ones most weights are zero.
func softmaxCase(_ count: Int, scale: Float, spread: Float = 5, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let x = random.normals(count).map { $0 * spread }
  let logits = x.map { Double($0) * Double(scale) }
  let largest = logits.max()!
  let sum = logits.reduce(0) { $0 + exp($1 - largest) }
  // Rounding of the arguments, the exponential's error twice, the sum's rounding.
  let relative = 4 * logits.map(abs).max()! * 0x1p-24 + 0x1p-21 + Double(count + 4) * 0x1p-24
  let groups = (count + 31) / 32
  let canaries: [UInt8] = bytes([canary])
  let words = bytes([Float](repeating: canary, count: groups))
  let part = [[UInt8](repeating: 99, count: 32 * groups) + canaries, words + canaries, words + canaries]
  return KernelCase(
    name: "softmax of \(count), scale \(scale), spread \(spread)", operation: .softmax,
    parameters: [UInt32(count), scale.bitPattern], inputs: [bytes(x)], outputs: part + part
  ) { outputs in
    guard outputs.allSatisfy({ $0.suffix(4).elementsEqual(canaries) }) else { return "what is behind was overwritten" }
    let (high, low): ([Int8], [Int8]) = (values(outputs[0]), values(outputs[3]))
    let (scales, lowScales): ([Float], [Float]) = (values(outputs[1]), values(outputs[4]))
    let (sums, lowSums): ([Int32], [Int32]) = (values(outputs[2]), values(outputs[5]))
    for group in 0..<groups {
      let columns = group * 32..<group * 32 + 32
      guard columns.reduce(0, { $0 + Int32(high[$1]) }) == sums[group],
        columns.reduce(0, { $0 + Int32(low[$1]) }) == lowSums[group]
      else { return "the sums of group \(group) are \(sums[group]) and \(lowSums[group])" }
      for column in columns {
        let found =
          Double(scales[group]) * Double(high[column]) + Double(lowScales[group]) * Double(low[column])
        let exact = column < count ? exp(logits[column] - largest) / sum : 0
        // Half a step of the low part.
        let tolerance = (0x1p-16 * 1.05 + relative) / sum
        guard abs(found - exact) <= tolerance else {
          return "weight \(column) is \(found), should be \(exact) ± \(tolerance)"
        }
      }
    }
    return nil
  }
}

/// Scores that are no numbers give no numbers.
func softmaxOfNaNCase() -> KernelCase {
  let x: [Float] = [1, .nan, 2] + [Float](repeating: 0, count: 61)
  let part = [[UInt8](repeating: 0, count: 64), bytes([Float](repeating: 0, count: 2)), bytes([0, 0] as [Int32])]
  return KernelCase(
    name: "softmax of what is no number", operation: .softmax, parameters: [64, Float(1).bitPattern],
    inputs: [bytes(x)], outputs: part + part
  ) { outputs in
    let scales: [Float] = values(outputs[1]) + values(outputs[4])
    return scales.allSatisfy(\.isNaN) ? nil : "the scales are \(scales)"
  }
}

/// Conversions of `pattern` numbers: equal to the bit, but for the payload of a NaN.
func halfToFloatCase(_ operation: KernelCase.Operation, count: Int = 65_536) -> KernelCase {
  let bits = (0..<count).map { UInt16($0) }
  let before = [Float](repeating: canary, count: count + 20)
  return KernelCase(
    name: "\(operation) of \(count)", operation: operation, parameters: [UInt32(count)], inputs: [bytes(bits)],
    outputs: [bytes(before)]
  ) { outputs in
    let results: [Float] = values(outputs[0])
    for (index, bits) in bits.enumerated() {
      let exact = operation == .f16ToF32 ? half(bits) : bfloat(bits)
      if exact.isNaN ? !results[index].isNaN : Float(exact).bitPattern != results[index].bitPattern {
        return "\(bits) became \(results[index]), not \(exact)"
      }
    }
    return results[count...].allSatisfy { $0.bitPattern == canary.bitPattern } ? nil : "wrote beyond the last"
  }
}

func floatToHalfCase(_ x: [Float]) -> KernelCase {
  let before = [UInt16](repeating: 0x5555, count: x.count + 20)
  return KernelCase(
    name: "f32 to f16 of \(x.count)", operation: .f32ToF16, parameters: [UInt32(x.count)], inputs: [bytes(x)],
    outputs: [bytes(before)]
  ) { outputs in
    let results: [UInt16] = values(outputs[0])
    for (index, value) in x.enumerated() {
      if value.isNaN ? !half(results[index]).isNaN : results[index] != halfBits(value) {
        return "\(value) became \(half(results[index]))"
      }
    }
    return results[x.count...].allSatisfy { $0 == 0x5555 } ? nil : "wrote beyond the last"
  }
}

func activationCases() -> [KernelCase] {
  var cases = [exponentialCase(), exponentialBeyondRangeCase(), softmaxOfNaNCase()]
  for count in [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 576] {
    let seed = UInt64(count)
    cases.append(rmsNormCase(count, epsilon: 1e-5, seed: seed))
    cases.append(layerNormCase(count, epsilon: 1e-6, seed: seed))
    cases.append(layerNormCase(count, mean: 300, epsilon: 1e-5, seed: seed))
    for operation in [KernelCase.Operation.gelu, .geluTanh, .quickGELU, .relu, .silu] {
      cases.append(activationCase(operation, count, seed: seed))
    }
    cases.append(siluMultiplyCase(count, seed: seed))
    cases.append(addCase(count, seed: seed))
    cases.append(multiplyCase(count, seed: seed))
    cases.append(softmaxCase(count, scale: 1, seed: seed))
    cases.append(softmaxCase(count, scale: 0.125, seed: seed))
    cases.append(softmaxCase(count, scale: 0.125, spread: 400, seed: seed))
    cases.append(rotaryCase(heads: 3, stride: 2 * count + 5, pairs: count, seed: seed))
    cases.append(rotaryCase(heads: 1, stride: 2 * count, pairs: count, seed: seed))
    cases.append(halfToFloatCase(.f16ToF32, count: count))
    cases.append(halfToFloatCase(.bf16ToF32, count: count))
    var random = Random(seed)
    cases.append(floatToHalfCase(random.normals(count)))
  }
  for width in [1, 2, 4, 6, 8, 16, 20, 32, 48, 64, 80, 96, 128, 256, 512] {
    cases.append(hadamardCase(heads: 1, stride: width, width: width, seed: UInt64(width)))
    cases.append(hadamardCase(heads: 3, stride: width + 3, width: width, seed: UInt64(width)))
  }
  for operation in [KernelCase.Operation.gelu, .geluTanh, .quickGELU, .silu] {
    cases.append(activationCase(operation, 40_000, seed: 1))
  }
  cases.append(halfToFloatCase(.f16ToF32))
  cases.append(halfToFloatCase(.bf16ToF32))
  // Every f16 (but the infinities) and its surroundings: ties, and the numbers next to them.
  var numbers: [Float] = [.infinity, -.infinity, .nan, 65519.99, 65520, 65536, 1e30, -1e30, 0x1p-25, 0x1.000002p-25]
  for bits in stride(from: UInt16(0), to: 0x7c00, by: 7) {
    let value = Float(half(bits))
    let tie = Float((half(bits) + half(bits + 1)) / 2)
    numbers += [value, value.nextUp, tie, tie.nextUp, -tie.nextDown]
  }
  cases.append(floatToHalfCase(numbers))
  return cases
}
