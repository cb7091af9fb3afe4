extension GroupWeights {
  /// Into how many steps the candidates cut the largest magnitude of a group. Each puts that weight on a whole number,
  /// and the others fall anew: over 32 weights the squared error scatters by a sixth between candidates, so the best of
  /// many beats the finest, until the steps have grown by more than the scatter. (128 needs the sign that puts the
  /// largest weight at −128, and is tried apart.)
  private static let int8Steps = (fewest: 109, most: 127)

  /// The scale with the least error for w ≈ scale · q, q from −128 to 127, as a number that binary16 holds.
  ///
  /// Negative where that lets the largest weight sit at −128.
  func bestInt8Scale() -> Lanes {
    let zero = Lanes(repeating: 0)
    var largest = zero
    for column in 0..<count {
      largest = Lanes.select(weights[column].magnitude .> largest.magnitude, weights[column], largest)
    }
    var scale = (largest / -128).nearestHalfScale
    var best = int8Error(scale: scale)
    let magnitude = largest.magnitude
    for steps in Self.int8Steps.fewest...Self.int8Steps.most {
      let candidate = (magnitude / Lanes(repeating: Float(steps))).nearestHalfScale
      let error = int8Error(scale: candidate)
      let better = error .< best
      best = Lanes.select(better, error, best)
      scale = Lanes.select(better, candidate, scale)
    }
    return scale
  }

  @inline(__always)
  private func int8Error(scale: Lanes) -> Lanes {
    let inverse = scale.inverseOrZero
    var error = Lanes(repeating: 0)
    for column in 0..<count {
      let difference = weights[column] - scale * int8Quant(column, inverse: inverse)
      error += difference * difference * importance[column]
    }
    return error
  }

  /// The number q of a column under the inverse of its group's scale.
  @inline(__always)
  func int8Quant(_ column: Int, inverse: Lanes) -> Lanes {
    (weights[column] * inverse).nearestInteger(from: -128, to: 127)
  }
}
