import SquintFile

/// The angles that the rotary embedding turns by, after a checkpoint's scaling rule: what `decoder.rope_frequencies` and
/// `decoder.rope_magnitude` hold.
///
/// The rules are those of transformers' modeling_rope_utils.py, and are computed as there: in f32 after each operation
/// on a tensor, in f64 where Python computes with numbers.
package struct RotaryFrequencies: Equatable, Sendable {
  /// [width / 2], radians per position.
  package var frequencies: [Float]
  /// Multiplies cosine and sine.
  package var magnitude: Double = 1
  /// The rule and its parameters, for people.
  package var description: String

  /// `base^(-2j / width)` for j < width / 2 (RoFormer, arXiv 2104.09864; `compute_default_rope_parameters`).
  package init(width: Int, base: Double) {
    frequencies = Self.wavelengthFactors(width: width, base: base).map { 1 / $0 }
    description = "default, base \(shortest(base))"
  }

  /// Positional interpolation (arXiv 2306.15595; `_compute_linear_scaling_rope_parameters`).
  package init(linear factor: Double, width: Int, base: Double) {
    self.init(width: width, base: base)
    for j in frequencies.indices { frequencies[j] /= Float(factor) }
    description = "linear, factor \(shortest(factor)), base \(shortest(base))"
  }

  /// The frequency-dependent interpolation of Llama 3.1 (`_compute_llama3_parameters`).
  package init(
    llama3 factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalContext: Double,
    width: Int, base: Double
  ) {
    self.init(width: width, base: base)
    let longest = Float(originalContext / lowFrequencyFactor)
    let shortestScaled = Float(originalContext / highFrequencyFactor)
    for j in frequencies.indices {
      let frequency = frequencies[j]
      // PyTorch divides a number by a tensor as the reciprocal times the number.
      let wavelength = 1 / frequency * Float(2 * Double.pi)
      if wavelength > longest {
        frequencies[j] = frequency / Float(factor)
      } else if !(wavelength < shortestScaled) {
        let smooth =
          (1 / wavelength * Float(originalContext) - Float(lowFrequencyFactor))
          / Float(highFrequencyFactor - lowFrequencyFactor)
        frequencies[j] = (1 - smooth) * frequency / Float(factor) + smooth * frequency
      }
    }
    description =
      "llama3, factor \(shortest(factor)), low \(shortest(lowFrequencyFactor)), high \(shortest(highFrequencyFactor)), "
      + "original context \(shortest(originalContext)), base \(shortest(base))"
  }

  /// YaRN (arXiv 2309.00071; `_compute_yarn_parameters`).
  ///
  /// - Parameters:
  ///   - betaFast, betaSlow: turns within the original context above which a frequency is kept, below which it is
  ///     divided by `factor`.
  ///   - truncate: whether the ramp between the two starts and ends at whole pairs.
  package init(
    yarn factor: Double, attentionFactor: Double, originalContext: Double, betaFast: Double, betaSlow: Double,
    truncate: Bool, width: Int, base: Double
  ) {
    /// The pair that makes `turns` turns within the original context.
    func pair(turns: Double) -> Double {
      Double(width) * log(originalContext / (turns * 2 * Double.pi)) / (2 * log(base))
    }
    var low = pair(turns: betaFast)
    var high = pair(turns: betaSlow)
    if truncate {
      low = low.rounded(.down)
      high = high.rounded(.up)
    }
    low = max(low, 0)
    high = min(high, Double(width - 1))
    if low == high { high += 0.001 }
    let factors = Self.wavelengthFactors(width: width, base: base)
    frequencies = factors.indices.map { j in
      let ramp = min(max((Float(j) - Float(low)) / Float(high - low), 0), 1)
      let kept = 1 - ramp
      return 1 / (Float(factor) * factors[j]) * (1 - kept) + 1 / factors[j] * kept
    }
    magnitude = attentionFactor
    description =
      "yarn, factor \(shortest(factor)), original context \(shortest(originalContext)), beta \(shortest(betaFast)) to "
      + "\(shortest(betaSlow)), base \(shortest(base))"
  }

  /// The attention factor that YaRN's authors suggest for `factor` (`get_mscale`).
  package static func attentionFactor(_ factor: Double, scale: Double = 1) -> Double {
    factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1
  }

  /// `base^(2j / width)`.
  private static func wavelengthFactors(width: Int, base: Double) -> [Float] {
    (0..<width / 2).map { j in
      Float(pow(Double(Float(base)), Double(Float(2 * j) / Float(width))))
    }
  }
}

/// `value` without a fraction where it has none.
func shortest(_ value: Double) -> String {
  value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
}
