extension GroupWeights {
  /// What is tried around the least-squares line: a relative change of the scale about the middle of the range, and a
  /// shift of the offset in steps.
  private static let int4F16Neighbours: [(growth: Float, shift: Float)] = [
    (-0.02, 0), (-0.01, 0), (0.01, 0), (0.02, 0), (0, -0.12), (0, 0.12), (0, -0.06), (0, 0.06), (-0.01, -0.08),
    (-0.01, 0.08), (0.01, -0.08), (0.01, 0.08),
  ]

  /// The scale and the minimum with the least error for w ≈ scale · u + minimum, as numbers that binary16 holds.
  func bestInt4F16Line() -> (scale: Lanes, minimum: Lanes) {
    let infinity = Lanes(repeating: .infinity)
    let fit = bestFit(bounds: (-infinity, infinity))
    let (low, high) = range()
    // The unclipped range is a candidate of its own: on weights that were quantized before, it is exact.
    var scale = ((high - low) / 15).nearestHalfScale
    var minimum = low.nearestHalf
    var best = error(scale: scale, offset: minimum)
    func consider(_ newScale: Lanes, _ newMinimum: Lanes) {
      let newScale = newScale.nearestHalfScale
      let newMinimum = newMinimum.nearestHalf
      let error = error(scale: newScale, offset: newMinimum)
      let better = error .< best
      best = Lanes.select(better, error, best)
      scale = Lanes.select(better, newScale, scale)
      minimum = Lanes.select(better, newMinimum, minimum)
    }
    consider(fit.scale, fit.offset)
    for step in Self.int4F16Neighbours {
      let growth = fit.scale * step.growth
      consider(fit.scale + growth, fit.offset - growth * 7.5 + fit.scale * step.shift)
    }
    return (scale, minimum)
  }
}
