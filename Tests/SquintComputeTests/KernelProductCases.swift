import SquintCompute
import SquintFile

/// Cases of the quantized product, the plain product and the quantization of activations.

/// The matrix that panels hold, by PanelLayout's description, one weight after the other: w = scale · u + offset.
struct PanelMatrix {
  let layout: PanelLayout
  /// [rows][padded columns]
  var weights: [Double] = []
  /// |scale| · u + |offset|, or where it is larger what a kernel sums that takes the zero point out first.
  var magnitudes: [Double] = []

  init(_ layout: PanelLayout, _ panels: [UInt8]) {
    self.layout = layout
    weights.reserveCapacity(layout.rows * layout.groups * 32)
    magnitudes.reserveCapacity(layout.rows * layout.groups * 32)
    for row in 0..<layout.rows {
      let r = row % 16
      for group in 0..<layout.groups {
        let block = layout.block(ofGroup: group)
        let groups = layout.groups(inBlock: block)
        let g = group - block * 8
        let header = layout.blockOffset(panel: row / 16, block: block)
        let start = header + layout.headerBytes(groups: groups) + g * layout.groupBytes
        func half(at offset: Int) -> Double {
          SquintComputeTests.half(UInt16(panels[header + offset]) | UInt16(panels[header + offset + 1]) << 8)
        }
        let scale: Double
        let offset: Double
        switch layout.type {
        case .int8:
          scale = half(at: (g * 16 + r) * 2)
          offset = -128 * scale
        case .int4F16:
          scale = half(at: 64 * g + 2 * r)
          offset = half(at: 64 * g + 32 + 2 * r)
        default:
          let low = panels[header + 64 + 24 * g + r]
          let high = panels[header + 64 + 24 * g + 16 + r % 8]
          let scale6 = (low & 15) | ((high >> (r < 8 ? 0 : 4)) & 3) << 4
          let minimum6 = (low >> 4) | ((high >> (r < 8 ? 2 : 6)) & 3) << 4
          scale = half(at: 2 * r) * Double(scale6)
          offset = -half(at: 32 + 2 * r) * Double(minimum6)
        }
        for column in 0..<32 {
          let quad = column / 4
          let u: UInt8
          if layout.type == .int8 {
            u = panels[start + 64 * quad + 4 * r + column % 4]
          } else {
            let both = panels[start + 64 * (quad / 2) + 4 * r + column % 4]
            u = quad % 2 == 0 ? both & 15 : both >> 4
          }
          weights.append(scale * Double(u) + offset)
          magnitudes.append(abs(scale) * Double(u) + abs(offset))
        }
      }
    }
  }
}

struct ProductShape {
  var rows: Int
  var columns: Int
  var tokens: Int
}

enum Extremes: CaseIterable {
  case none
  /// The largest products there are: bytes 0 or 255, activations ±127.
  case largest
  /// Every weight byte 0, every activation -127: the most negative weight.
  case lowest
}

func productCase(
  _ type: ElementType, _ shape: ProductShape, extremes: Extremes = .none, accumulate: Bool = false,
  panels range: Range<Int>? = nil, seed: UInt64
) -> KernelCase {
  var random = Random(seed)
  let layout = PanelLayout(type: type, rows: shape.rows, columns: shape.columns)!
  var panels = random.bytes(layout.byteCount)
  switch extremes {
  case .none: break
  case .largest: panels = panels.map { $0 & 1 == 0 ? 0 : 255 }
  case .lowest: panels = [UInt8](repeating: 0, count: panels.count)
  }
  // The f16 numbers of the headers: finite, of both signs, from subnormal to 0.1.
  for panel in 0..<layout.panels {
    for block in 0..<layout.blocks {
      let groups = layout.groups(inBlock: block)
      let header = layout.blockOffset(panel: panel, block: block)
      let halves: Int
      switch type {
      case .int8: halves = 16 * groups
      case .int4F16: halves = 32 * groups
      default: halves = 32
      }
      for i in 0..<halves {
        let bits = UInt16.random(in: 0...0x2e66, using: &random) | (random.next() & 1 == 0 ? 0 : 0x8000)
        panels[header + 2 * i] = UInt8(truncatingIfNeeded: bits)
        panels[header + 2 * i + 1] = UInt8(bits >> 8)
      }
    }
  }
  let tokens = shape.tokens
  let groups = layout.groups
  var x = [Int8](repeating: 0, count: tokens * groups * 32)
  var scales: [Float] = []
  var sums: [Int32] = []
  for token in 0..<tokens {
    for group in 0..<groups {
      var sum = 0
      for column in group * 32..<min(group * 32 + 32, shape.columns) {
        let value: Int8
        switch extremes {
        case .none: value = Int8.random(in: -127...127, using: &random)
        case .largest: value = random.next() & 1 == 0 ? 127 : -127
        case .lowest: value = -127
        }
        x[token * groups * 32 + column] = value
        sum += Int(value)
      }
      scales.append(Float.random(in: 0...0.1, using: &random))
      sums.append(Int32(sum))
    }
  }
  let range = range ?? 0..<layout.panels
  let stride = shape.rows + 3
  let before: [Float] = (0..<tokens * stride + 16).map { index in
    let isOutput = index < tokens * stride && index % stride < shape.rows
    return accumulate && isOutput ? random.normal() : canary
  }
  return KernelCase(
    name: "\(type.name) \(shape.rows)×\(shape.columns), \(tokens) tokens, \(extremes), panels \(range)",
    operation: .product,
    parameters: [
      UInt32(type.rawValue), UInt32(shape.rows), UInt32(groups), UInt32(tokens), UInt32(stride), accumulate ? 1 : 0,
      UInt32(range.lowerBound), UInt32(range.count),
    ],
    inputs: [panels, bytes(x), bytes(scales), bytes(sums)], outputs: [bytes(before)]
  ) { [panels, x, scales] outputs in
    let matrix = PanelMatrix(layout, panels)
    let width = groups * 32
    var expected: [Int: (value: Double, tolerance: Double)] = [:]
    var scaled = [Double](repeating: 0, count: width)
    for token in 0..<tokens {
      for column in 0..<width {
        scaled[column] = Double(x[token * width + column]) * Double(scales[token * groups + column / 32])
      }
      for row in range.lowerBound * 16..<min(range.upperBound * 16, shape.rows) {
        var value = 0.0
        var magnitude = 0.0
        for column in 0..<width {
          value += matrix.weights[row * width + column] * scaled[column]
          magnitude += matrix.magnitudes[row * width + column] * abs(scaled[column])
        }
        let start = accumulate ? Double(before[token * stride + row]) : 0
        // Dot products are exact; scale · x_scale and x_sum are rounded once, each of the two additions per group
        // once more, every time by 2^-24 of at most the sum of magnitudes.
        let tolerance = Double(2 * groups + 4) * 0x1p-24 * (magnitude + abs(start))
        expected[token * stride + row] = (start + value, tolerance)
      }
    }
    return firstDifference(values(outputs[0]), before, expected)
  }
}

func plainProductCase(
  _ type: ElementType, _ shape: ProductShape, accumulate: Bool = false, rows range: Range<Int>? = nil, seed: UInt64
) -> KernelCase {
  var random = Random(seed)
  let (rows, columns, tokens) = (shape.rows, shape.columns, shape.tokens)
  let weights = random.normals(rows * columns)
  let stored: [UInt8]
  let exact: [Double]
  switch type {
  case .f16:
    let halves = weights.map(halfBits)
    (stored, exact) = (bytes(halves), halves.map(half))
  case .bf16:
    let halves = weights.map { UInt16($0.bitPattern >> 16) }
    (stored, exact) = (bytes(halves), halves.map(bfloat))
  default: (stored, exact) = (bytes(weights), weights.map(Double.init))
  }
  let xStride = columns + 2
  let x = random.normals((tokens - 1) * xStride + columns)
  let stride = rows + 3
  let before: [Float] = (0..<tokens * stride + 16).map { index in
    let isOutput = index < tokens * stride && index % stride < rows
    return accumulate && isOutput ? random.normal() : canary
  }
  let range = range ?? 0..<rows
  return KernelCase(
    name: "\(type.name) \(rows)×\(columns), \(tokens) tokens, rows \(range)", operation: .plainProduct,
    parameters: [
      UInt32(type.rawValue), UInt32(rows), UInt32(columns), UInt32(tokens), UInt32(xStride), UInt32(stride),
      accumulate ? 1 : 0, UInt32(range.lowerBound), UInt32(range.count),
    ],
    inputs: [stored, bytes(x)], outputs: [bytes(before)]
  ) { outputs in
    var expected: [Int: (value: Double, tolerance: Double)] = [:]
    for token in 0..<tokens {
      for row in range {
        var value = 0.0
        var magnitude = 0.0
        for column in 0..<columns {
          let term = exact[row * columns + column] * Double(x[token * xStride + column])
          value += term
          magnitude += abs(term)
        }
        let start = accumulate ? Double(before[token * stride + row]) : 0
        // At most one rounding of a product and one of a sum per column, 2^-24 each of at most the sum of magnitudes.
        let tolerance = Double(2 * columns + 2) * 0x1p-24 * (magnitude + abs(start))
        expected[token * stride + row] = (start + value, tolerance)
      }
    }
    return firstDifference(values(outputs[0]), before, expected)
  }
}

/// What `quantize` must give for one group: q, scale, Σ q.
private func quantized(_ group: [Float], isARM: Bool) -> (q: [Int8], scale: Float, sum: Int) {
  let zeros = [Int8](repeating: 0, count: 32)
  if group.contains(where: { !$0.isFinite }) { return (zeros, .nan, 0) }
  let largest = group.map(\.magnitude).max() ?? 0
  if largest < 1e-30 { return (zeros, 0, 0) }
  let scale = largest / 127
  let reciprocal = isARM ? 1 / scale : 127 / largest
  var q = group.map { Int8(($0 * reciprocal).rounded(.toNearestOrEven)) }
  q += [Int8](repeating: 0, count: 32 - q.count)
  return (q, scale, q.reduce(0) { $0 + Int($1) })
}

func quantizeCase(_ x: [Float], name: String, isARM: Bool) -> KernelCase {
  let groups = (x.count + 31) / 32
  let after = [Int8](repeating: 0x55, count: 16)
  let q = [Int8](repeating: 0x55, count: groups * 32) + after
  let numbers = [Float](repeating: canary, count: groups + 4)
  return KernelCase(
    name: "quantize \(name)", operation: .quantize, parameters: [UInt32(x.count)], inputs: [bytes(x)],
    outputs: [bytes(q), bytes(numbers), bytes(numbers)]
  ) { outputs in
    let results = stride(from: 0, to: x.count, by: 32).map {
      quantized(Array(x[$0..<min($0 + 32, x.count)]), isARM: isARM)
    }
    if values(outputs[0]) != results.flatMap(\.q) + after { return "q differs" }
    // To the bit, but for the sign and payload of a NaN.
    func same(_ a: Float, _ b: Float) -> Bool { a.bitPattern == b.bitPattern || (a.isNaN && b.isNaN) }
    let scales: [Float] = values(outputs[1])
    let sums: [Int32] = values(outputs[2])
    for (index, result) in results.enumerated() {
      if !same(scales[index], result.scale) { return "scale \(index) is \(scales[index]), not \(result.scale)" }
      if sums[index] != result.sum { return "sum \(index) is \(sums[index]), not \(result.sum)" }
    }
    for list in [outputs[1], outputs[2]] where list.suffix(16) != bytes(numbers.suffix(4)) {
      return "wrote beyond the last group"
    }
    return nil
  }
}

func int8StoreCase(_ x: [Float], name: String, isARM: Bool) -> KernelCase {
  let groups = (x.count + 31) / 32
  let after = [Int8](repeating: 0x55, count: 40)
  let q = [Int8](repeating: 0x55, count: x.count) + after
  let scales = [UInt16](repeating: 0x5555, count: groups + 4)
  return KernelCase(
    name: "store int8 \(name)", operation: .f32ToInt8, parameters: [UInt32(x.count)], inputs: [bytes(x)],
    outputs: [bytes(q), bytes(scales)]
  ) { outputs in
    let results = stride(from: 0, to: x.count, by: 32).map {
      quantized(Array(x[$0..<min($0 + 32, x.count)]), isARM: isARM)
    }
    if values(outputs[0]) != Array(results.flatMap(\.q).prefix(x.count)) + after { return "q differs" }
    let actual: [UInt16] = values(outputs[1])
    for (index, result) in results.enumerated() {
      if half(actual[index]).isNaN && result.scale.isNaN { continue }
      if actual[index] != halfBits(result.scale) { return "scale \(index) is \(half(actual[index]))" }
    }
    return actual[groups...].allSatisfy { $0 == 0x5555 } ? nil : "wrote beyond the last scale"
  }
}

/// A panel of a matrix from its rows or, group by group, from its columns: each number within half a step of the group's
/// scale, which is f16.
func packCase(_ operation: KernelCase.Operation, rows: Int, columns: Int, group: Int = 0, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let byRows = operation == .packRows
  let layout = PanelLayout(type: .int8, rows: rows, columns: columns)!
  let covered = byRows ? 0..<columns : group * 32..<min(group * 32 + 32, columns)
  let stride = (byRows ? columns : rows) + 3
  let count = byRows ? rows : covered.count
  var x = random.normals((count - 1) * stride + (byRows ? columns : rows))
  // A row of zeros, which has no scale.
  for index in x.indices where (byRows ? index / stride : index % stride) == 1 { x[index] = 0 }
  let before = random.bytes(layout.byteCount + 64)
  return KernelCase(
    name: "\(operation) \(rows)×\(columns), group \(group)", operation: operation,
    parameters: [UInt32(stride), UInt32(rows), UInt32(columns)] + (byRows ? [] : [UInt32(group)]), inputs: [bytes(x)],
    outputs: [bytes(before)]
  ) { [x] outputs in
    let panel = outputs[0]
    guard panel[layout.byteCount...] == before[layout.byteCount...] else { return "wrote beyond the panel" }
    if !byRows {
      // Other groups are others' business.
      let blocks = (0..<layout.groups).filter { $0 != group }
      for other in blocks {
        let block = layout.block(ofGroup: other)
        let start =
          layout.blockOffset(panel: 0, block: block) + layout.headerBytes(groups: layout.groups(inBlock: block))
          + (other - 8 * block) * 512
        guard panel[start..<start + 512] == before[start..<start + 512] else { return "wrote group \(other)" }
      }
    }
    let matrix = PanelMatrix(layout, panel)
    for row in 0..<rows {
      for start in Swift.stride(from: covered.lowerBound, to: covered.upperBound, by: 32) {
        let group = start..<min(start + 32, covered.upperBound)
        func number(_ column: Int) -> Double {
          Double(x[byRows ? row * stride + column : (column - covered.lowerBound) * stride + row])
        }
        let largest = group.map { abs(number($0)) }.max()!
        for column in group {
          let found = matrix.weights[row * layout.groups * 32 + column]
          // Half a step, and the rounding of the scale to f16 on as many as 127 steps.
          if !(abs(found - number(column)) <= largest * (0.5001 / 127 + 0x1p-11) + 1e-6) {
            return "row \(row), column \(column) is \(found), not \(number(column))"
          }
        }
      }
    }
    return nil
  }
}

func packCases() -> [KernelCase] {
  var cases: [KernelCase] = []
  for (rows, columns) in [(16, 64), (16, 32), (7, 64), (1, 1), (16, 80), (3, 500), (16, 256)] {
    cases.append(packCase(.packRows, rows: rows, columns: columns, seed: UInt64(columns)))
    for group in 0..<(columns + 31) / 32 {
      cases.append(packCase(.packColumns, rows: rows, columns: columns, group: group, seed: UInt64(group)))
    }
  }
  return cases
}

/// Activations that test the corners of quantization.
func quantizeCases(isARM: Bool) -> [KernelCase] {
  var random = Random(7)
  var cases: [KernelCase] = []
  func add(_ x: [Float], _ name: String) {
    cases.append(quantizeCase(x, name: name, isARM: isARM))
    cases.append(int8StoreCase(x, name: name, isARM: isARM))
  }
  for columns in [1, 31, 32, 33, 40, 64, 100, 576] {
    add(random.normals(columns), "\(columns) columns")
  }
  // Halves, which tell ties to even from ties away: the largest is 127, so that the reciprocal is 1.
  add([127] + (0..<31).map { Float($0) - 15.5 }, "ties")
  add([Float](repeating: 0, count: 33), "zeros")
  add([Float](repeating: 1e-38, count: 32) + [3e38, -3e38], "tiny and huge")
  add((0..<32).map { Float($0) * 0x1p-149 }, "subnormal")
  for bad in [Float.nan, .infinity, -.infinity] {
    add((0..<70).map { $0 == 40 ? bad : Float($0) }, "\(bad)")
  }
  return cases
}
