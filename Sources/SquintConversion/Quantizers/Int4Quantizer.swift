/// Chooses the numbers of an int4 block: w ≈ (d · scale6) · u − (dmin · min6), up to 15 groups under one d and dmin.
///
/// The idea of ggml's `make_qkx2_quants` (candidate grids, refitted by least squares) taken further:
///
/// 1. each group alone: candidate grids over its range, each refitted by weighted least squares, the best kept;
/// 2. d and dmin: every pair of a few dozen, judged by how the groups' errors grow when their scale and minimum are
///    rounded to 6 bits (a quadratic form per group, so a pair costs a few operations a group);
/// 3. each group again, now with real reconstructed scales: neighbours of its 6-bit pair, u rounded anew for each;
/// 4. d and dmin refitted to those u by least squares, 3 again, and the better of the two kept.
struct Int4Block {
  /// At most: the last block of a panel takes what is left.
  static let largestGroupCount = 15

  var d = Lanes(repeating: 0)
  var dmin = Lanes(repeating: 0)
  /// `[groups]`, whole numbers from 0 to 63.
  let scales6: UnsafeMutablePointer<Lanes>
  let minimums6: UnsafeMutablePointer<Lanes>
  private let fits: UnsafeMutablePointer<GroupFit>
  private let errors: UnsafeMutablePointer<Lanes>
  private let otherScales6: UnsafeMutablePointer<Lanes>
  private let otherMinimums6: UnsafeMutablePointer<Lanes>
  private let otherErrors: UnsafeMutablePointer<Lanes>

  /// How many values of d, and of dmin, step 2 tries: those that put the largest 6-bit number at 63, 62, …
  private static let blockScaleSteps = 8
  /// What step 3 tries around a pair (scale6, min6). A larger scale with the same centre needs a larger minimum, so
  /// the valley runs along the diagonal; the other diagonal was measured to give nothing.
  private static let neighbours: [(scale6: Float, minimum6: Float)] = [
    (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1),
  ]
  /// The room of a block's arrays, in lanes.
  static let laneCount = 6 * largestGroupCount

  /// - Parameters:
  ///   - lanes: Room for `laneCount`.
  ///   - fits: Room for `largestGroupCount`.
  init(lanes: UnsafeMutablePointer<Lanes>, fits: UnsafeMutablePointer<GroupFit>) {
    let count = Self.largestGroupCount
    scales6 = lanes
    minimums6 = lanes + count
    errors = lanes + 2 * count
    otherScales6 = lanes + 3 * count
    otherMinimums6 = lanes + 4 * count
    otherErrors = lanes + 5 * count
    self.fits = fits
  }

  mutating func choose(_ groups: UnsafeBufferPointer<GroupWeights>) {
    let zero = Lanes(repeating: 0)
    let infinity = Lanes(repeating: .infinity)

    // A block whose weights are all positive takes a negative dmin; in others the minimum is at most zero.
    var lowest = infinity
    for group in groups { lowest = Lanes.minimum(lowest, group.range().low) }
    let positive = lowest .> zero
    let bounds = (Lanes.select(positive, zero, -infinity), Lanes.select(positive, infinity, zero))

    for (index, group) in groups.enumerated() { fits[index] = group.bestFit(bounds: bounds) }
    chooseBlockScales(groups.count)
    var best = zero
    for (index, group) in groups.enumerated() {
      refine(group, index)
      best += errors[index]
    }
    do {
      for index in 0..<groups.count {
        otherScales6[index] = scales6[index]
        otherMinimums6[index] = minimums6[index]
        otherErrors[index] = errors[index]
      }
      let otherD = d
      let otherDmin = dmin
      refitBlockScales(groups)
      var error = zero
      for (index, group) in groups.enumerated() {
        refine(group, index)
        error += errors[index]
      }
      let better = error .< best
      for index in 0..<groups.count {
        scales6[index] = Lanes.select(better, scales6[index], otherScales6[index])
        minimums6[index] = Lanes.select(better, minimums6[index], otherMinimums6[index])
        errors[index] = Lanes.select(better, errors[index], otherErrors[index])
      }
      d = Lanes.select(better, d, otherD)
      dmin = Lanes.select(better, dmin, otherDmin)
      best = Lanes.select(better, error, best)
    }
  }

  /// Step 2.
  private mutating func chooseBlockScales(_ count: Int) {
    var largestScale = Lanes(repeating: 0)
    var largestOffset = largestScale
    for index in 0..<count {
      largestScale = Lanes.maximum(largestScale, fits[index].scale)
      let offset = fits[index].offset
      largestOffset = Lanes.select(offset.magnitude .> largestOffset.magnitude, offset, largestOffset)
    }
    var best = Lanes(repeating: .infinity)
    let changes = otherScales6
    let shifts = otherMinimums6
    for dStep in 0..<Self.blockScaleSteps {
      let candidateD = (largestScale / Lanes(repeating: 63 - Float(dStep))).nearestHalfScale
      let inverseD = candidateD.inverseOrZero
      for index in 0..<count {
        let fit = fits[index]
        changes[index] = candidateD * (fit.scale * inverseD).nearestInteger(from: 0, to: 63) - fit.scale
        shifts[index] = fit.offsetShift(changes[index])
      }
      for dminStep in 0..<Self.blockScaleSteps {
        let candidateDmin = (-largestOffset / Lanes(repeating: 63 - Float(dminStep))).nearestHalfScale
        let inverseDmin = candidateDmin.inverseOrZero
        var growth = Lanes(repeating: 0)
        for index in 0..<count {
          let offset = fits[index].offset
          let minimum6 = ((shifts[index] - offset) * inverseDmin).nearestInteger(from: 0, to: 63)
          growth += fits[index].growth(changes[index], -(candidateDmin * minimum6) - offset)
        }
        let better = growth .< best
        best = Lanes.select(better, growth, best)
        d = Lanes.select(better, candidateD, d)
        dmin = Lanes.select(better, candidateDmin, dmin)
      }
    }
    let inverseD = d.inverseOrZero
    let inverseDmin = dmin.inverseOrZero
    for index in 0..<count {
      let fit = fits[index]
      let scale6 = (fit.scale * inverseD).nearestInteger(from: 0, to: 63)
      let shift = fit.offsetShift(d * scale6 - fit.scale)
      scales6[index] = scale6
      minimums6[index] = ((shift - fit.offset) * inverseDmin).nearestInteger(from: 0, to: 63)
    }
  }

  /// Step 3: the best neighbour of the group's 6-bit pair.
  private mutating func refine(_ group: GroupWeights, _ index: Int) {
    let zero = Lanes(repeating: 0)
    let top = Lanes(repeating: 63)
    var best = group.error(scale: d * scales6[index], offset: -(dmin * minimums6[index]))
    let scale6 = scales6[index]
    let minimum6 = minimums6[index]
    for step in Self.neighbours {
      let s = Lanes.minimum(Lanes.maximum(scale6 + step.scale6, zero), top)
      let m = Lanes.minimum(Lanes.maximum(minimum6 + step.minimum6, zero), top)
      let error = group.error(scale: d * s, offset: -(dmin * m))
      let better = error .< best
      best = Lanes.select(better, error, best)
      scales6[index] = Lanes.select(better, s, scales6[index])
      minimums6[index] = Lanes.select(better, m, minimums6[index])
    }
    errors[index] = best
  }

  /// Step 4: d and dmin by least squares under the present u.
  private mutating func refitBlockScales(_ groups: UnsafeBufferPointer<GroupWeights>) {
    let zero = Lanes(repeating: 0)
    // Σ v (w − d·a − dmin·b)² with a = scale6·u, b = −min6.
    var aa = zero
    var ab = zero
    var bb = zero
    var aw = zero
    var bw = zero
    for (index, group) in groups.enumerated() {
      let scale6 = scales6[index]
      let minimum6 = minimums6[index]
      let offset = -(dmin * minimum6)
      let inverse = (d * scale6).inverseOrZero
      var sumVU = zero
      var sumVUU = zero
      var sumVW = zero
      var sumVUW = zero
      var sumV: Float = 0
      for column in 0..<group.count {
        let u = group.quant(column, inverse: inverse, offset: offset)
        let v = group.importance[column]
        let vu = u * v
        sumV += v
        sumVU += vu
        sumVUU += vu * u
        sumVW += group.weights[column] * v
        sumVUW += vu * group.weights[column]
      }
      aa += scale6 * scale6 * sumVUU
      ab -= scale6 * minimum6 * sumVU
      bb += minimum6 * minimum6 * sumV
      aw += scale6 * sumVUW
      bw -= minimum6 * sumVW
    }
    let determinant = aa * bb - ab * ab
    let usable = determinant .> aa * bb * Lanes(repeating: 1e-4)
    let inverse = Lanes(repeating: 1) / determinant
    // Where the two cannot be told apart, or one has no weights: each by itself, the other kept.
    let newD = Lanes.select(usable, (aw * bb - bw * ab) * inverse, (aw - ab * dmin) * aa.inverseOrZero)
    let newDmin = Lanes.select(usable, (bw * aa - aw * ab) * inverse, dmin)
    // Too far from where the search began is a system that the rounding above did not describe.
    let sane = (newD - d).magnitude .< d.magnitude * 0.1
    let saneMinimum = (newDmin - dmin).magnitude .< dmin.magnitude * 0.1
    d = Lanes.select(sane, newD, d).nearestHalf
    dmin = Lanes.select(saneMinimum, newDmin, dmin).nearestHalf
  }
}
