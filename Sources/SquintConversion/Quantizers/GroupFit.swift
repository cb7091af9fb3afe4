/// A line w ≈ scale · u + offset through the weights of one group, eight rows at once, with whole u from 0 to 15; and
/// the sums that say how the squared error changes when scale and offset move while every u stays.
struct GroupFit {
  var scale: Lanes
  var offset: Lanes
  /// Σ v (w − scale·u − offset)², v the importance of the column.
  var error: Lanes
  /// Σ v, Σ v·u, Σ v·u².
  var sumV: Lanes
  var sumVU: Lanes
  var sumVUU: Lanes
  /// ∂error/∂offset at this fit; not zero where a bound holds the offset.
  var slope: Lanes

  @inline(__always)
  static func select(_ mask: SIMDMask<SIMD8<Int32>>, _ a: GroupFit, _ b: GroupFit) -> GroupFit {
    GroupFit(
      scale: Lanes.select(mask, a.scale, b.scale), offset: Lanes.select(mask, a.offset, b.offset),
      error: Lanes.select(mask, a.error, b.error), sumV: a.sumV,
      sumVU: Lanes.select(mask, a.sumVU, b.sumVU), sumVUU: Lanes.select(mask, a.sumVUU, b.sumVUU),
      slope: Lanes.select(mask, a.slope, b.slope))
  }

  /// How much the error grows when the line becomes `scale + ds`, `offset + dOffset` under the same u.
  @inline(__always)
  func growth(_ ds: Lanes, _ dOffset: Lanes) -> Lanes {
    let ofScale = (sumVUU * ds + (sumVU + sumVU) * dOffset) * ds
    return ofScale + (sumV * dOffset + slope) * dOffset
  }

  /// By how much less the offset should be once the scale has grown by `ds`, under the same u.
  @inline(__always)
  func offsetShift(_ ds: Lanes) -> Lanes { (sumVU * ds + slope * 0.5) / sumV }
}

/// One group's weights of eight rows and the importance of its columns.
struct GroupWeights {
  /// `[count]` columns of eight rows.
  let weights: UnsafePointer<Lanes>
  /// `[count]`, positive.
  let importance: UnsafePointer<Float>
  let count: Int

  /// The range of each row.
  @inline(__always)
  func range() -> (low: Lanes, high: Lanes) {
    var low = weights[0]
    var high = low
    for column in 1..<max(count, 1) {
      low = Lanes.minimum(low, weights[column])
      high = Lanes.maximum(high, weights[column])
    }
    return (low, high)
  }

  /// The squared error of `scale · u + offset` with the best whole u from 0 to 15, rounded as the codec rounds.
  @inline(__always)
  func error(scale: Lanes, offset: Lanes) -> Lanes {
    let inverse = scale.inverseOrZero
    var error = Lanes(repeating: 0)
    for column in 0..<count {
      let weight = weights[column]
      let u = ((weight - offset) * inverse).nearestInteger(from: 0, to: 15)
      let difference = weight - (scale * u + offset)
      error += difference * difference * importance[column]
    }
    return error
  }

  /// The stored number of a column under a group's final scale (its inverse, 0 for 0) and offset.
  @inline(__always)
  func quant(_ column: Int, inverse: Lanes, offset: Lanes) -> Lanes {
    ((weights[column] - offset) * inverse).nearestInteger(from: 0, to: 15)
  }

  /// The same, rounded as if the weights lay `chance` steps (-0.5 to 0.5) further on.
  @inline(__always)
  func quant(_ column: Int, inverse: Lanes, offset: Lanes, roundedFrom chance: Lanes) -> Lanes {
    ((weights[column] - offset) * inverse + chance).nearestInteger(from: 0, to: 15)
  }

  /// How far outside the range of 16 steps the lowest and the highest weight may lie, in steps: each pair of these is
  /// a candidate. A little clipping lets the other weights be finer; a little slack (the negative one) lets them fall
  /// on better places.
  private static let clips: [Float] = [-0.2, 0.2, 0.6, 1]

  /// The line with the least error among candidates over clipped ranges, the offset kept within `bounds`.
  func bestFit(bounds: (low: Lanes, high: Lanes)) -> GroupFit {
    var (low, high) = range()
    low = Lanes.minimum(Lanes.maximum(low, bounds.low), bounds.high)
    high = Lanes.maximum(high, low)
    var sumV: Float = 0
    var sumVW = Lanes(repeating: 0)
    var sumVWW = sumVW
    for column in 0..<count {
      let weight = weights[column] - low
      let product = weight * importance[column]
      sumV += importance[column]
      sumVW += product
      sumVWW += product * weight
    }
    let steps = (high - low).inverseOrZero
    var best = fit(
      base: low, inverse: steps * 15, shift: 0, bounds: bounds, sumV: sumV, sumVW: sumVW, sumVWW: sumVWW)
    for below in Self.clips {
      for above in Self.clips {
        let candidate = fit(
          base: low, inverse: steps * (15 + below + above), shift: -below, bounds: bounds, sumV: sumV, sumVW: sumVW,
          sumVWW: sumVWW)
        best = GroupFit.select(candidate.error .< best.error, candidate, best)
      }
    }
    return best
  }

  /// The best line for the u that `(w − base) · inverse + shift` rounds to, by weighted least squares, with the offset
  /// kept within `bounds`.
  @inline(__always)
  private func fit(
    base: Lanes, inverse: Lanes, shift: Float, bounds: (low: Lanes, high: Lanes), sumV: Float, sumVW: Lanes,
    sumVWW: Lanes
  ) -> GroupFit {
    // Sums are of w − base: near zero, so the differences of squares below keep their digits.
    let zero = Lanes(repeating: 0)
    let shift = Lanes(repeating: shift)
    var sumVU = zero
    var sumVUU = zero
    var sumVUW = zero
    for column in 0..<count {
      let weight = weights[column] - base
      let u = (weight * inverse + shift).nearestInteger(from: 0, to: 15)
      let vu = u * importance[column]
      sumVU += vu
      sumVUU += vu * u
      sumVUW += vu * weight
    }
    let sumV = Lanes(repeating: sumV)
    let determinant = sumV * sumVUU - sumVU * sumVU
    let inverseDeterminant = Lanes.select(
      determinant .> sumV * sumVUU * Lanes(repeating: 1e-5), Lanes(repeating: 1) / determinant, zero)
    var scale = Lanes.maximum((sumV * sumVUW - sumVU * sumVW) * inverseDeterminant, zero)
    let inverseV = Lanes(repeating: 1) / sumV
    var offset = (sumVW - scale * sumVU) * inverseV
    let bounded = Lanes.minimum(Lanes.maximum(offset, bounds.low - base), bounds.high - base)
    let free = bounded .== offset
    scale = Lanes.select(
      free, scale, Lanes.maximum((sumVUW - bounded * sumVU) * sumVUU.inverseOrZero, zero))
    offset = bounded
    let slope = Lanes.select(free, zero, 2 * (scale * sumVU + offset * sumV - sumVW))
    // Σ v (w − scale·u − offset)², multiplied out.
    let two = Lanes(repeating: 2)
    var error = sumVWW - two * (scale * sumVUW + offset * sumVW)
    error += scale * scale * sumVUU
    error += two * scale * offset * sumVU
    error += offset * offset * sumV
    return GroupFit(
      scale: scale, offset: offset + base, error: error, sumV: sumV, sumVU: sumVU, sumVUU: sumVUU, slope: slope)
  }
}
