import SquintFile

/// A filter that an image is resized with: Pillow's `Image.Resampling`.
package enum ResamplingFilter: String, Sendable, Equatable, CaseIterable {
  case nearest, box, bilinear, hamming, bicubic, lanczos

  /// How far from its middle the filter reaches, in pixels of the smaller image.
  var support: Double {
    switch self {
    case .nearest, .box: 0.5
    case .bilinear, .hamming: 1
    case .bicubic: 2
    case .lanczos: 3
    }
  }

  /// The weight at distance `x` from the middle (Pillow's Resample.c; the order of operations is that of its formulas,
  /// so that the weights are the same to the bit).
  func weight(_ x: Double) -> Double {
    let distance = x.magnitude
    switch self {
    case .nearest, .box: return x > -0.5 && x <= 0.5 ? 1 : 0
    case .bilinear: return distance < 1 ? 1 - distance : 0
    case .hamming:
      if distance == 0 { return 1 }
      if distance >= 1 { return 0 }
      let angle = distance * Double.pi
      // Pillow's constants are single precision.
      return sin(angle) / angle * (Double(Float(0.54)) + Double(Float(0.46)) * cos(angle))
    case .bicubic:
      let a = -0.5
      if distance < 1 { return ((a + 2) * distance - (a + 3)) * distance * distance + 1 }
      if distance < 2 { return (((distance - 5) * distance + 8) * distance - 4) * a }
      return 0
    case .lanczos: return -3 <= x && x < 3 ? Self.sinc(x) * Self.sinc(x / 3) : 0
    }
  }

  private static func sinc(_ x: Double) -> Double {
    if x == 0 { return 1 }
    let angle = x * Double.pi
    return sin(angle) / angle
  }
}

/// Whose numbers a resize has.
package enum ResamplingArithmetic: Sendable, Equatable {
  /// Pillow's, which transformers resizes images with: weights of 22 bits behind the point, and the pass that shrinks more first.
  case pillow
  /// torchvision's of 8-bit tensors, which transformers resizes videos with: weights of 16 bits, and the rows first.
  case torchvision
}

/// One axis of a resize: `inputs` pixels become `outputs`, of which those in `window` are wanted.
///
/// It is given in the image as displayed; `isFlipped` where the stored pixels run the other way. Then the outputs come in
/// the stored order too.
struct ResamplingAxis: Equatable {
  var inputs: Int
  var outputs: Int
  var window: Range<Int>
  var isFlipped = false
  var filter: ResamplingFilter
  var arithmetic = ResamplingArithmetic.pillow

  /// An axis that keeps its pixels, or those in `window`.
  static func unchanged(_ count: Int, window: Range<Int>? = nil, isFlipped: Bool = false) -> ResamplingAxis {
    ResamplingAxis(inputs: count, outputs: count, window: window ?? 0..<count, isFlipped: isFlipped, filter: .nearest)
  }

  /// Whether each wanted output is one input, as it stands.
  var isSelection: Bool { inputs == outputs || filter == .nearest }

  private var scale: Double { Double(inputs) / Double(outputs) }

  /// At most so many inputs make up an output.
  var largestCount: Int {
    isSelection ? 1 : min(inputs, 2 * Int((filter.support * max(scale, 1)).rounded(.up)) + 1)
  }

  /// What `ResamplingWeights` of this axis take, in bytes.
  var weightBytes: Int { window.count * (12 + 12 * largestCount) }
}

/// The weights of an axis: output i is Σ_k weights[offsets[i] + k] · input[starts[i] + k] over k < counts[i], in fixed point.
///
/// Inputs and outputs are in stored order. Starts ascend, and so do the ends.
struct ResamplingWeights {
  /// Pillow's precision: 32 bits less 8 of a pixel and 2 for weights whose sum is beyond 0 to 1 on the way.
  private static let pillowBits: Int32 = 22

  /// The bits of a weight behind the point.
  private(set) var fractionBits = pillowBits

  private(set) var starts: [Int32] = []
  private(set) var counts: [Int32] = []
  private(set) var offsets: [Int32] = []
  private(set) var weights: [Int32] = []

  /// Computes what Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` do (Resample.c).
  init(_ axis: ResamplingAxis) {
    let count = axis.window.count
    starts.reserveCapacity(count)
    counts.reserveCapacity(count)
    offsets.reserveCapacity(count)
    weights.reserveCapacity(count * axis.largestCount)
    if axis.isSelection {
      for position in ResamplingWeights.selection(axis) {
        starts.append(Int32(position))
        counts.append(1)
        offsets.append(Int32(weights.count))
        weights.append(1 << fractionBits)
      }
    } else {
      resample(axis)
    }
    if axis.isFlipped { flip(inputs: axis.inputs) }
  }

  /// Which input each wanted output is. Pillow's nearest neighbour (`ImagingScaleAffine` in Geometry.c) adds the step up,
  /// and so rounds otherwise than a product would.
  private static func selection(_ axis: ResamplingAxis) -> [Int] {
    guard axis.inputs != axis.outputs else { return Array(axis.window) }
    let step = Double(axis.inputs) / Double(axis.outputs)
    var position = step * 0.5
    var chosen: [Int] = []
    chosen.reserveCapacity(axis.window.count)
    for output in 0..<axis.window.upperBound {
      if output >= axis.window.lowerBound { chosen.append(min(Int(position), axis.inputs - 1)) }
      position += step
    }
    return chosen
  }

  private mutating func resample(_ axis: ResamplingAxis) {
    let scale = Double(axis.inputs) / Double(axis.outputs)
    let filterScale = max(scale, 1)
    let support = axis.filter.support * filterScale
    let inverse = 1 / filterScale
    var row = [Double](repeating: 0, count: axis.largestCount)
    var shares: [Double] = []
    shares.reserveCapacity(axis.window.count * axis.largestCount)
    for output in axis.window {
      let center = (Double(output) + 0.5) * scale
      let start = max(0, Int(center - support + 0.5))
      let count = min(axis.inputs, Int(center + support + 0.5)) - start
      var sum = 0.0
      for k in 0..<count {
        row[k] = axis.filter.weight((Double(k + start) - center + 0.5) * inverse)
        sum += row[k]
      }
      starts.append(Int32(start))
      counts.append(Int32(count))
      offsets.append(Int32(shares.count))
      for k in 0..<count { shares.append(sum == 0 ? row[k] : row[k] / sum) }
    }
    if axis.arithmetic == .torchvision {
      // As many as the largest weight has room for in 16 bits (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
      let largest = max(shares.max() ?? 1, 0)
      fractionBits = 0
      while fractionBits < Self.pillowBits, Int(0.5 + largest * Double(1 << (fractionBits + 1))) < 1 << 15 {
        fractionBits += 1
      }
    }
    let unit = Double(1 << fractionBits)
    for share in shares {
      let scaled = share * unit
      weights.append(Int32(scaled < 0 ? scaled - 0.5 : scaled + 0.5))
    }
  }

  /// Turns the axis around: the last output of the last inputs becomes the first of the first.
  private mutating func flip(inputs: Int) {
    for index in starts.indices {
      let offset = Int(offsets[index])
      weights[offset..<offset + Int(counts[index])].reverse()
      starts[index] = Int32(inputs) - starts[index] - counts[index]
    }
    starts.reverse()
    counts.reverse()
    offsets.reverse()
  }
}
