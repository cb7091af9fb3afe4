import CKernels
import Foundation
import SquintCompute
import SquintFile

/// Cases of attention, against softmax(scale · q·Kᵀ)·V in double precision.
struct AttentionShape {
  var type = ElementType.f32
  var headDimension = 64
  var heads = 3
  var tokens = 1
  var positions = 1
  var firstPosition = 0
  var mask = AttentionMask.causal(window: 0)
  /// The tokens that are asked for.
  var range: Range<Int>?
  /// Numbers between what the strides span.
  var gap = 0
  /// Queries that int8 holds exactly.
  var wholeQueries = false
}

func attentionCase(_ shape: AttentionShape, largeScores: Bool = false, seed: UInt64) -> KernelCase {
  var random = Random(seed)
  let (dimension, heads, tokens, positions) = (shape.headDimension, shape.heads, shape.tokens, shape.positions)
  let headStride = dimension + shape.gap
  let tokenStride = heads * headStride + shape.gap
  let cacheStride = dimension + shape.gap
  let scaleStride = (dimension + 31) / 32 + shape.gap
  var q = random.normals(tokens * tokenStride).map { largeScores ? $0 * 30 : $0 }
  if shape.wholeQueries {  // steps of 1/64 with 127 of them in each group
    q = q.map { (max(-1, min($0 / 3, 1)) * 127).rounded() / 64 }
    for head in 0..<tokens * heads {
      let start = head / heads * tokenStride + head % heads * headStride
      for group in stride(from: 0, to: dimension, by: 32) { q[start + group] = 127 / 64 }
    }
  }

  /// A step of a query's first digit, of which 127 make the largest of a group, for element `d` of the head that starts
  /// at `start`; 0 where nothing is rounded.
  let queries = q
  @Sendable func queryStep(_ start: Int, _ d: Int) -> Double {
    guard shape.type == .int8, !shape.wholeQueries else { return 0 }
    let group = queries[start + d / 32 * 32..<start + min(d / 32 * 32 + 32, dimension)]
    return Double(group.map(\.magnitude).max()!) / 127
  }

  /// A cache as it is stored, its scales, and the numbers that it stands for.
  func cache() -> (stored: [UInt8], scales: [UInt16], exact: [Double]) {
    let numbers = random.normals(positions * cacheStride)
    switch shape.type {
    case .f16:
      let halves = numbers.map(halfBits)
      return (bytes(halves), [], halves.map(half))
    case .int8:
      let q = numbers.map { _ in Int8.random(in: -127...127, using: &random) }
      let scales = (0..<positions * scaleStride).map { _ in halfBits(Float.random(in: 0...0.02, using: &random)) }
      let exact = q.indices.map { index in
        let element = min(index % cacheStride, dimension - 1)
        return Double(q[index]) * half(scales[index / cacheStride * scaleStride + element / 32])
      }
      return (bytes(q), scales, exact)
    default: return (bytes(numbers), [], numbers.map(Double.init))
    }
  }
  let (keys, keyScales, k) = cache()
  let (values_, valueScales, v) = cache()
  let scale = 1 / Float(dimension).squareRoot()
  let range = shape.range ?? 0..<tokens
  // Nothing says that all is seen.
  let spans: [squint_span] =
    shape.mask == .all
    ? []
    : (0..<tokens).map {
      let seen = shape.mask.visible(from: shape.firstPosition + $0)
      return squint_span(first: UInt32(seen.lowerBound), end: UInt32(seen.upperBound))
    }
  let before = [Float](repeating: canary, count: tokens * tokenStride + 16)
  let scratch = [Float](repeating: canary, count: Kernels.attentionScratch(headDimension: dimension) + 16)
  return KernelCase(
    name: "attention \(shape)", operation: .attention,
    parameters: [
      UInt32(tokenStride), UInt32(headStride), UInt32(heads), UInt32(dimension), UInt32(cacheStride),
      UInt32(scaleStride), UInt32(shape.type.rawValue), UInt32(positions), spans.isEmpty ? 0 : 1, 0, 0,
      scale.bitPattern, UInt32(tokenStride), UInt32(headStride),
      UInt32(range.lowerBound), UInt32(range.count),
    ],
    inputs: [bytes(queries), keys, values_, bytes(keyScales), bytes(valueScales), bytes(spans)],
    outputs: [bytes(before), bytes(scratch), bytes([Float](repeating: canary, count: 2 * shape.tokens * heads))]
  ) { outputs in
    var expected: [Int: (value: Double, tolerance: Double)] = [:]
    var statistics: [Int: (value: Double, tolerance: Double)] = [:]
    for token in range {
      let position = shape.firstPosition + token
      let seen = (0..<positions).filter { shape.mask == .all || shape.mask.visible(from: position).contains($0) }
      for head in 0..<heads {
        let start = token * tokenStride + head * headStride
        let steps = (0..<dimension).map { queryStep(start, $0) * Double(scale) }
        var scores: [Double] = []
        var scoreError = 0.0
        var largestStep = 0.0
        for p in seen {
          var score = 0.0
          var magnitude = 0.0
          var rounding = 0.0
          for d in 0..<dimension {
            let term = Double(queries[start + d]) * Double(scale) * k[p * cacheStride + d]
            score += term
            magnitude += abs(term)
            rounding += steps[d] * abs(k[p * cacheStride + d])
          }
          scores.append(score)
          // The scaled query and the dequantized key are rounded, then each product and sum; in integers the second
          // digit of the query to half a 128th of a step, the scales, the factors between the powers of 2 and of e, and
          // each group's product and sum.
          scoreError = max(scoreError, rounding / 256 + Double(2 * dimension + 12) * 0x1p-24 * magnitude)
          largestStep = max(largestStep, rounding)
        }
        // Many rows do without the second digit in tiles in which none has more than a quarter of the weights before.
        if shape.type == .int8, range.count * heads >= 8, seen.count > 4 {
          scoreError = max(scoreError, expm1(largestStep / 2))
        }
        let largest = scores.max() ?? 0
        let weights = scores.map { exp($0 - largest) }
        let sum = weights.reduce(0, +)
        // An error e in a score changes its weight, and the sum, by a factor 1 ± e; besides the exponential's error
        // (in a weight, in the sum, and once more for each tile of 32 positions that the maximum rises in), the
        // rounding of the difference, and of each product and sum over the positions.
        let tiles = Double(seen.count) / 32 + 2
        let spread = (scores.map(abs).max() ?? 0) * 0x1p-22
        let relative =
          2 * (scoreError + spread) + 2 * tiles * 0x1p-22 + Double(4 * seen.count + 8) * 0x1p-24
        // Weights for values in int8 are rounded to half a step, of which 2^14 - 1 make the largest of a tile, or 2^7 -
        // 1 in such tiles of 32 positions.
        let most = 0.25 * exp(2 * scoreError)
        let weightErrors = weights.indices.map { index in
          let near = weights[max(index - 31, 0)..<min(index + 32, weights.count)].max()! / sum
          return 0.5 * max(1 / 16383 / sum, min(near, most) / 127)
        }
        if !seen.isEmpty {
          let place = 2 * (token * heads + head)
          statistics[place] = (largest, scoreError + 1e-35)
          statistics[place + 1] = (sum, relative * sum)
        }
        for d in 0..<dimension {
          var value = 0.0
          var magnitude = 0.0
          for (p, weight) in zip(seen, weights) {
            value += weight / sum * v[p * cacheStride + d]
            magnitude += weight / sum * abs(v[p * cacheStride + d])
          }
          var rounding = 0.0
          if shape.type == .int8 {
            for (index, p) in seen.enumerated() {
              rounding += weightErrors[index] * Double(Int8(bitPattern: values_[p * cacheStride + d]).magnitude)
            }
            // A tile has one step for the values of all its positions, seen or not.
            rounding *= (0..<positions).map { half(valueScales[$0 * scaleStride + d / 32]) }.max()!
          }
          expected[start + d] = (value, relative * magnitude + rounding + 1e-35)
        }
      }
    }
    let after: [Float] = values(outputs[1])
    guard after.suffix(16).allSatisfy({ $0.bitPattern == canary.bitPattern }) else { return "wrote beyond the scratch" }
    let own: [Float] = values(outputs[2])
    // Of a token that sees nothing, they mean nothing.
    for (index, (value, tolerance)) in statistics where !(abs(Double(own[index]) - value) <= tolerance) {
      return "statistic \(index) is \(own[index]), should be \(value) ± \(tolerance)"
    }
    return firstDifference(values(outputs[0]), before, expected)
  }
}

/// Spans that stay as long as the tests run.
private func spans(_ spans: [Range<Int>]) -> AttentionMask.Spans {
  let copy = UnsafeMutableBufferPointer<Range<Int>>.allocate(capacity: spans.count)
  _ = copy.initialize(from: spans)
  return AttentionMask.Spans(copy.baseAddress!, count: spans.count)
}

func attentionCases() -> [KernelCase] {
  var cases: [KernelCase] = []
  func add(_ shape: AttentionShape, largeScores: Bool = false) {
    cases.append(attentionCase(shape, largeScores: largeScores, seed: UInt64(cases.count)))
    if shape.type == .int8 {
      var shape = shape
      shape.wholeQueries = true
      cases.append(attentionCase(shape, seed: UInt64(cases.count)))
    }
  }
  for type in [ElementType.f32, .f16, .int8] {
    for dimension in [1, 5, 16, 31, 33, 48, 64, 80, 128] {
      // Decode: one token, which sees all that there is.
      for positions in [1, 2, 31, 33, 100] {
        add(
          AttentionShape(
            type: type, headDimension: dimension, heads: 1 + positions % 4, positions: positions,
            firstPosition: positions - 1, gap: positions % 2))
      }
      // Prefill, after nothing and after earlier positions, in several blocks of query rows.
      add(AttentionShape(type: type, headDimension: dimension, tokens: 33, positions: 33, gap: 3))
      add(AttentionShape(type: type, headDimension: dimension, tokens: 9, positions: 50, firstPosition: 41))
      for window in [1, 5, 40] {
        add(
          AttentionShape(
            type: type, headDimension: dimension, heads: 2, tokens: 20, positions: 90, firstPosition: 70,
            mask: .causal(window: window)))
      }
      add(AttentionShape(type: type, headDimension: dimension, heads: 1, tokens: 19, positions: 37, mask: .all))
      // Rows that see what comes behind them, in a span and in blocks of several sizes.
      for window in [0, 7] {
        add(
          AttentionShape(
            type: type, headDimension: dimension, heads: 2, tokens: 20, positions: 90, firstPosition: 70,
            mask: .causalWithSpans(window: window, spans([3..<9, 72..<80, 85..<90]))))
      }
      add(
        AttentionShape(
          type: type, headDimension: dimension, heads: 2, tokens: 40, positions: 40,
          mask: .blocks(spans([0..<4, 4..<5, 5..<21, 21..<40]))))
      add(AttentionShape(type: type, headDimension: dimension, tokens: 30, positions: 30, range: 7..<12))
    }
    // Row blocks that are full, and every number of vectors that may be left.
    for tokens in [16, 31, 48, 63, 64, 65, 84] {
      add(
        AttentionShape(type: type, headDimension: 24, heads: 1, tokens: tokens, positions: tokens + 3, firstPosition: 3)
      )
    }
    add(AttentionShape(type: type, headDimension: 512, heads: 2, tokens: 3, positions: 40, firstPosition: 37))
    add(AttentionShape(type: type, headDimension: 512, heads: 2, tokens: 4, positions: 40, firstPosition: 36))
    // Several tiles of few rows, of which the last is not full, and windows that begin in any.
    for window in [0, 3, 200, 520] {
      add(
        AttentionShape(
          type: type, headDimension: 96, heads: 2, tokens: 3, positions: 601, firstPosition: 598,
          mask: .causal(window: window)))
    }
    // Scores of hundreds: all weight on few positions, and the maximum rises from tile to tile.
    add(AttentionShape(type: type, tokens: 5, positions: 200, firstPosition: 195), largeScores: true)
    // Positions that the cache does not hold, and a token that sees none of those it holds.
    add(AttentionShape(type: type, tokens: 6, positions: 4, firstPosition: 2, mask: .causal(window: 3)))
    add(AttentionShape(type: type, tokens: 3, positions: 4, firstPosition: 1000))
  }
  // Encoders: rows of several heads, of which one is read, and every row sees all.
  for (dimension, positions) in [(32, 257), (64, 1025), (72, 729), (80, 1370), (88, 1025)] {
    add(
      AttentionShape(
        headDimension: dimension, heads: 1, tokens: 75, positions: positions, mask: .all, range: 5..<75,
        gap: dimension))
  }
  return cases
}
