import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct QuantizerTests {
  static let types = [ElementType.int8, .int4, .int4F16]

  // MARK: - Quality

  /// No row may be worse than what ggml's quantizers make of it at the same or more bits.
  @Test func leavesNoMoreErrorThanGGML() throws {
    let weights = try QuantizerFixtures.floats("weights.f32")
    let ggml = try QuantizerFixtures.ggmlErrors()
    for row in 0..<8 {
      let values = Array(weights[512 * row..<512 * (row + 1)])
      func error(_ type: ElementType) throws -> Double {
        try QuantizedMatrix(values, rows: 1, columns: 512, type: type).relativeError
      }
      #expect(try error(.int8) < ggml["q8_0"]![row] * 0.95)
      #expect(try error(.int4) < min(ggml["q4_0"]![row], ggml["q4_k"]![row]))
      #expect(try error(.int4F16) < min(ggml["q4_1"]![row], ggml["q4_k"]![row]))
    }
  }

  /// An adapter's change of weights that were of 4 bits before is less than a step: rounded to the nearest it is lost, by chance it
  /// is there on the average, which is what a product of many columns sees.
  @Test(arguments: [ElementType.int4, .int4F16]) func keepsASmallChangeOnTheAverage(_ type: ElementType) throws {
    let (rows, columns) = (64, 512)
    var generator = WeightGenerator(seed: 11)
    let coarse = generator.normal(rows * columns)
    let steps = try QuantizedMatrix(coarse, rows: rows, columns: columns, type: type).dequantized()
    let change = generator.normal(rows * columns, scale: 0.02)
    let weights = zip(steps, change).map { $0 + $1 }
    func share(byChance: Bool) throws -> Double {
      let matrix = try QuantizedMatrix(weights, rows: rows, columns: columns, type: type, byChance: byChance)
      let again = try QuantizedMatrix(weights, rows: rows, columns: columns, type: type, byChance: byChance)
      #expect(matrix.bytes == again.bytes)
      var product = 0.0
      var square = 0.0
      for (index, stored) in matrix.dequantized().enumerated() {
        product += Double(stored - steps[index]) * Double(change[index])
        square += Double(change[index]) * Double(change[index])
      }
      return product / square
    }
    // Of 32,768 changes of a 15th of a step the mean share is known to about 0.03.
    #expect(try share(byChance: false) < 0.3)
    #expect(try abs(share(byChance: true) - 1) < 0.15)
  }

  /// A group alone, quantized by its range: what the search must beat or equal, row by row.
  private func rangeError(_ values: ArraySlice<Float>, type: ElementType) -> Double {
    var sum = 0.0
    if type == .int8 {
      let largest = values.map(\.magnitude).max()!
      let scale = HalfPrecision.float(HalfPrecision.bits(largest / 127))
      for value in values {
        let q = scale == 0 ? 0 : min(max((value / scale).rounded(.toNearestOrEven), -128), 127)
        sum += Double(value - scale * q) * Double(value - scale * q)
      }
    } else {
      let low = values.min()!
      let scale = HalfPrecision.float(HalfPrecision.bits((values.max()! - low) / 15))
      let minimum = HalfPrecision.float(HalfPrecision.bits(low))
      for value in values {
        let u = scale == 0 ? 0 : min(max(((value - minimum) / scale).rounded(.toNearestOrEven), 0), 15)
        sum += Double(value - (scale * u + minimum)) * Double(value - (scale * u + minimum))
      }
    }
    return sum
  }

  @Test(arguments: [ElementType.int8, .int4F16]) func neverWorseThanTheRange(type: ElementType) throws {
    var random = WeightGenerator(seed: 11)
    for scale: Float in [1e-8, 1e-6, 1e-4, 0.02, 1, 300] {
      for mean: Float in [0, 3, -50] where type == .int8 || scale * (abs(mean) + 4) < 60000 {
        let columns = 70
        let weights = random.normal(16 * columns, scale: scale, mean: mean * scale)
        let output = try QuantizedMatrix(weights, rows: 16, columns: columns, type: type).dequantized()
        for row in 0..<16 {
          for first in [0, 32, 64] {
            let range = row * columns + first..<row * columns + min(first + 32, columns)
            let error = squaredError(Array(weights[range]), Array(output[range]))
            // The quantizer sums in f32: its choice is the best but for that rounding.
            #expect(error <= rangeError(weights[range], type: type) * (1 + 1e-5))
          }
        }
      }
    }
  }

  /// 6-bit scales round twice, so the bound is of the whole matrix: the error of the range with exact scales.
  @Test func int4BeatsTheRange() throws {
    var random = WeightGenerator(seed: 12)
    for columns in [32, 100, 256, 384, 512, 1000] {
      let weights = random.normal(16 * columns, scale: 0.05)
      let matrix = try QuantizedMatrix(weights, rows: 16, columns: columns, type: .int4)
      var range = 0.0
      for row in 0..<16 {
        for first in stride(from: 0, to: columns, by: 32) {
          range += rangeError(weights[row * columns + first..<row * columns + min(first + 32, columns)], type: .int4)
        }
      }
      #expect(matrix.squaredError < range)
    }
  }

  /// Groups of one sign: the minimum of an all-positive group is positive, and of a negative one far from zero.
  @Test func groupsOfOneSign() throws {
    var random = WeightGenerator(seed: 13)
    for mean: Float in [-3, -1, 1, 3] {
      let weights = random.normal(4 * 512, scale: 0.1, mean: mean)
      let matrix = try QuantizedMatrix(weights, rows: 4, columns: 512, type: .int4)
      // Sixteen levels over ±3 σ leave about σ/9; the 6-bit minimum moves the range by up to 1/126 of the mean.
      #expect((matrix.squaredError / Double(weights.count)).squareRoot() < 0.1 / 6 + Double(abs(mean)) / 126)
    }
  }

  /// What counts a thousand times more is kept better, at the others' expense.
  @Test(arguments: types) func importanceMovesTheError(type: ElementType) throws {
    var random = WeightGenerator(seed: 14)
    let columns = 256
    let weights = random.normal(16 * columns)
    let importance = (0..<columns).map { $0 % 4 == 0 ? Float(1000) : 1 }
    let plain = try QuantizedMatrix(weights, rows: 16, columns: columns, type: type)
    let weighted = try QuantizedMatrix(weights, rows: 16, columns: columns, type: type, importance: importance)
    func error(_ matrix: QuantizedMatrix) -> Double {
      let output = matrix.dequantized()
      return (0..<weights.count).reduce(0) { sum, index in
        let difference = Double(weights[index] - output[index])
        return sum + Double(importance[index % columns]) * difference * difference
      }
    }
    #expect(error(weighted) < 0.9 * error(plain))
    // No importance, and the same for all, are the same.
    let uniform = try QuantizedMatrix(
      weights, rows: 16, columns: columns, type: type, importance: [Float](repeating: 7, count: columns))
    #expect(uniform.bytes == plain.bytes)
    let none = try QuantizedMatrix(
      weights, rows: 16, columns: columns, type: type, importance: [Float](repeating: 0, count: columns))
    #expect(none.relativeError < 0.2)
  }

  // MARK: - Consistency

  /// The error that the quantizer reports is that of what the codec reads.
  @Test(arguments: types) func reportsItsError(type: ElementType) throws {
    var random = WeightGenerator(seed: 15)
    for (rows, columns) in [(1, 1), (5, 31), (16, 33), (17, 64), (40, 255), (3, 256), (16, 480), (2, 700)] {
      let weights = random.normal(rows * columns, scale: 0.03)
      let matrix = try QuantizedMatrix(weights, rows: rows, columns: columns, type: type)
      let output = matrix.dequantized()
      let error = squaredError(weights, output)
      // Differences are taken in f32 by the quantizer, in f64 here; on one or two weights they can be all rounding.
      #expect(abs(matrix.squaredError - error) <= 1e-5 * error + 1e-14 * matrix.squaredNorm)
      let norm = weights.reduce(0) { $0 + Double($1) * Double($1) }
      #expect(abs(matrix.squaredNorm - norm) <= 1e-12 * norm)
    }
  }

  /// Rows and columns that the matrix does not have are zero bytes, and the others do not depend on them.
  @Test(arguments: types) func paddingIsZero(type: ElementType) throws {
    var random = WeightGenerator(seed: 16)
    for (rows, columns) in [(1, 1), (5, 31), (9, 40), (16, 65), (7, 300)] {
      let weights = random.normal(rows * columns, mean: 1)
      let matrix = try QuantizedMatrix(weights, rows: rows, columns: columns, type: type)
      let layout = matrix.layout
      // Every number that exists is turned to zero; nothing may be left over.
      var bytes = matrix.bytes
      bytes.withUnsafeMutableBytes { bytes in
        for block in 0..<layout.blocks {
          let start = layout.blockOffset(panel: 0, block: block)
          let groups = layout.groups(inBlock: block)
          let first = 8 * block
          for row in 0..<rows {
            switch type {
            case .int8: for group in 0..<groups { zero(bytes, start + 32 * group + 2 * row, 2) }
            case .int4F16:
              for group in 0..<groups {
                zero(bytes, start + 64 * group + 2 * row, 2)
                zero(bytes, start + 64 * group + 32 + 2 * row, 2)
              }
            default:
              zero(bytes, start + 2 * row, 2)
              zero(bytes, start + 32 + 2 * row, 2)
              for group in 0..<groups {
                zero(bytes, start + 64 + 24 * group + row, 1)
                bytes[start + 64 + 24 * group + 16 + row % 8] &= row < 8 ? 0xf0 : 0x0f
              }
            }
            for column in 32 * first..<min(32 * (first + groups), columns) {
              let weights = start + layout.headerBytes(groups: groups) + (column / 32 - first) * layout.groupBytes
              let k = column % 32
              if type == .int8 {
                bytes[weights + 64 * (k / 4) + 4 * row + k % 4] = 0
              } else {
                bytes[weights + 64 * (k / 8) + 4 * row + k % 4] &= k % 8 < 4 ? 0xf0 : 0x0f
              }
            }
          }
        }
      }
      #expect(bytes.allSatisfy { $0 == 0 }, "\(rows) × \(columns)")
      // The first columns in a wider matrix of one block more are quantized alike (int8: groups stand alone).
      if type == .int8, columns > 32 {
        let narrow = (0..<rows).flatMap { weights[$0 * columns..<$0 * columns + 32] }
        let output = try QuantizedMatrix(narrow, rows: rows, columns: 32, type: type).dequantized()
        let wide = matrix.dequantized()
        for row in 0..<rows {
          #expect(Array(output[32 * row..<32 * (row + 1)]) == Array(wide[row * columns..<row * columns + 32]))
        }
      }
    }
  }

  private func zero(_ bytes: UnsafeMutableRawBufferPointer, _ offset: Int, _ count: Int) {
    for index in offset..<offset + count { bytes[index] = 0 }
  }

  /// A row's result does not depend on its neighbours, nor on its place in the panel.
  @Test(arguments: types) func rowsAreIndependent(type: ElementType) throws {
    var random = WeightGenerator(seed: 17)
    let columns = 300
    let weights = random.normal(16 * columns)
    let output = try QuantizedMatrix(weights, rows: 16, columns: columns, type: type).dequantized()
    let reversed = (0..<13).reversed().flatMap { weights[$0 * columns..<($0 + 1) * columns] }
    let other = try QuantizedMatrix(reversed, rows: 13, columns: columns, type: type).dequantized()
    for row in 0..<13 {
      #expect(
        Array(output[row * columns..<(row + 1) * columns])
          == Array(other[(12 - row) * columns..<(13 - row) * columns]))
    }
  }

  @Test func quantizingAgainChangesNothing() throws {
    var random = WeightGenerator(seed: 18)
    for scale: Float in [1e-5, 0.02, 1, 1000] {
      let weights = random.normal(32 * 200, scale: scale)
      let once = try QuantizedMatrix(weights, rows: 32, columns: 200, type: .int8).dequantized()
      let again = try QuantizedMatrix(once, rows: 32, columns: 200, type: .int8)
      #expect(again.dequantized() == once)
      #expect(again.squaredError == 0)
    }
    // ggml's Q8_0 blocks: the values of a range of ±127 steps are found again.
    let columns = 64
    var values = [Float]()
    for row in 0..<16 {
      let scale = HalfPrecision.float(UInt16(0x1c00 + 37 * row))
      for column in 0..<columns {
        values.append(scale * (column % 32 == 5 ? 127 : Float(Int((random.uniform() - 0.5) * 254))))
      }
    }
    #expect(try QuantizedMatrix(values, rows: 16, columns: columns, type: .int8).dequantized() == values)
  }

  // MARK: - Edge values

  @Test(arguments: types) func zerosAndConstants(type: ElementType) throws {
    for columns in [20, 256, 290] {
      let zeros = try QuantizedMatrix(
        [Float](repeating: 0, count: 3 * columns), rows: 3, columns: columns, type: type)
      #expect(zeros.dequantized().allSatisfy { $0 == 0 })
      #expect(zeros.squaredError == 0 && zeros.squaredNorm == 0)
      for value: Float in [1, -1, 0.37, -0.0123, 1000, -60000] {
        let matrix = try QuantizedMatrix(
          [Float](repeating: value, count: 3 * columns), rows: 3, columns: columns, type: type)
        // One f16 number (half a unit in its 11th bit) or two of them.
        #expect(matrix.relativeError < 0x1p-10, "\(value)")
      }
      // Zero groups among others, and a single weight.
      var sparse = [Float](repeating: 0, count: columns)
      sparse[columns - 1] = 2
      let output = try QuantizedMatrix(sparse, rows: 1, columns: columns, type: type).dequantized()
      #expect(output.dropLast().allSatisfy { $0 == 0 })
      #expect(abs(output[columns - 1] - 2) < 0.01)
    }
  }

  /// From the smallest number to the largest that the type reaches: nothing traps, everything stays finite.
  @Test(arguments: types) func extremeSizes(type: ElementType) throws {
    let largest: Float = type == .int8 ? 127 * 65504 : type == .int4 ? 63 * 65504 : 65504
    var random = WeightGenerator(seed: 19)
    for size: Float in [Float.leastNonzeroMagnitude, 1e-38, 1e-20, 6e-8, 1e-6, largest / 4, largest] {
      var weights = random.normal(4 * 64).map { max(min($0 / 3.5, 1), -1) * size }
      weights[0] = size
      weights[64] = -size
      let matrix = try QuantizedMatrix(weights, rows: 4, columns: 64, type: type)
      #expect(matrix.dequantized().allSatisfy { $0.isFinite })
      if size >= 1e-6 { #expect(matrix.relativeError < 0.2, "\(size)") }
      #expect(matrix.squaredError <= matrix.squaredNorm * 1.01)
    }
    // One outlier of the largest size among ordinary weights.
    var weights = random.normal(512)
    weights[300] = largest
    #expect(try QuantizedMatrix(weights, rows: 2, columns: 256, type: type).relativeError < 0.01)
  }

  @Test(arguments: types) func refusesWhatItCannotHold(type: ElementType) throws {
    let largest: Float = type == .int8 ? 127 * 65504 : type == .int4 ? 63 * 65504 : 65504
    for (value, text) in [
      (Float.nan, "not a finite number"), (.infinity, "not a finite number"), (-.infinity, "not a finite number"),
      (largest.nextUp, "beyond"), (-3e38, "beyond"),
    ] {
      var weights = [Float](repeating: 1, count: 20 * 40)
      weights[18 * 40 + 7] = value
      let error = squintError {
        _ = try QuantizedMatrix(weights, rows: 20, columns: 40, type: type)
      }
      #expect(error?.kind == .badData)
      #expect(error?.message.contains("row 18, column 7: ") == true)
      #expect(error?.message.contains(text) == true)
    }
    let weights = [Float](repeating: 1, count: 40)
    for value: Float in [.nan, .infinity, -1] {
      var importance = [Float](repeating: 1, count: 40)
      importance[9] = value
      let error = squintError {
        _ = try QuantizedMatrix(weights, rows: 1, columns: 40, type: type, importance: importance)
      }
      #expect(error?.message.contains("column 9") == true)
    }
    for value: Float in [Float.leastNonzeroMagnitude, 1e-30, 3e38] {
      var importance = [Float](repeating: value, count: 40)
      importance[9] = 0
      #expect(
        try QuantizedMatrix(weights, rows: 1, columns: 40, type: type, importance: importance).relativeError < 0.001)
    }
  }

  // MARK: - Speed

  @Test(arguments: types) func speed(type: ElementType) throws {
    var random = WeightGenerator(seed: 20)
    let weights = random.normal(256 * 4096)
    let matrix = try QuantizedMatrix(weights, rows: 256, columns: 4096, type: type)
    let rate = Double(weights.count) / matrix.seconds / 1e6
    print("\(type.name): \(String(format: "%.1f", rate)) M weights/s on one thread")
    // Far below what any optimized build reaches (over 20); it fails where a loop stops being vectorized.
    #expect(rate > 0.05)
  }
}

@Suite struct PlainConversionTests {
  private func convert(_ values: [Float], _ type: ElementType, columns: Int = 4) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xa5, count: values.count * type.bytesPerPlainElement!)
    try values.withUnsafeBufferPointer { values in
      try bytes.withUnsafeMutableBytes { bytes in
        _ = try convertPlain(values, columns: columns, to: type, into: bytes, firstRow: 100)
      }
    }
    return bytes
  }

  @Test func knownBits() throws {
    #expect(try convert([1, -2.5], .f32) == [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0])
    #expect(try convert([1, 65504, 0x1p-24], .f16) == [0x00, 0x3c, 0xff, 0x7b, 0x01, 0x00])
    // Ties go to the even neighbour: 1 + 2⁻⁸ down to 1, 1 + 3·2⁻⁸ up to 1 + 2⁻⁶.
    #expect(
      try convert([1, 0x1.01p0, 0x1.03p0, -3], .bf16) == [0x80, 0x3f, 0x80, 0x3f, 0x82, 0x3f, 0x40, 0xc0])
  }

  @Test func refusesWhatTheTypeCannotHold() throws {
    for (type, value) in [
      (ElementType.f32, Float.nan), (.f16, .infinity), (.bf16, .nan), (.f16, 65520), (.bf16, .greatestFiniteMagnitude),
    ] {
      let error = squintError { _ = try convert([1, 2, 3, 4, 5, value], type) }
      #expect(error?.kind == .badData)
      #expect(error?.message.contains("row 101, column 1: ") == true)
    }
    #expect(try convert([65519.9], .f16) == [0xff, 0x7b])
  }
}
