import SquintCompute
import SquintFile

/// Whisper's encoder, which is Qwen2-Audio's and Qwen2.5-Omni's, too: the frames of a sound go through two convolutions, of which the
/// second makes one row of two, and then through a pre-norm transformer in which every row of a unit sees all of its rows. What
/// distinguishes the families is in `WhisperBlueprint` (formats/audio-encoders.md).
///
/// Sources: Whisper (arXiv 2212.04356), Qwen2-Audio (2407.10759), Qwen2.5-Omni (2503.20215); the reference is transformers'
/// modeling_whisper.py, modeling_qwen2_audio.py, modeling_qwen2_5_omni.py.
package struct Whisper: EncoderLayers, @unchecked Sendable {  // views of the arena
  package typealias Layer = PreNormLayer<WhisperBlueprint>

  package struct Weights: @unchecked Sendable {  // views of the file
    let first: Matrix  // [width, 3 · mels]
    let second: Matrix  // [width, 3 · width]
    let positions: UnsafePointer<Float>  // [positions, width]
    let norm: Compute.LayerNorm  // [width]
  }

  package struct Regions: Sendable {
    let frames: Region<Float>
    let convolved: Region<Float>
  }

  private let blueprint: WhisperBlueprint
  private let weights: Weights
  private let buffers: EncoderBuffers
  private let compute: Compute
  /// The frames that a chunk of rows is made of: [2 · chunk + 3, mels]
  private let frames: Rows
  /// What the first convolution makes of them: [2 · chunk + 1, width]
  private let convolved: Rows
  private var shape = UnitShape(frames: 1, valid: 1)

  package init(
    _ blueprint: WhisperBlueprint, _ weights: Weights, levels: [Float], _ regions: Regions, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    self.blueprint = blueprint
    self.weights = weights
    self.buffers = buffers
    self.compute = compute
    frames = Rows(regions.frames, width: blueprint.mels, in: arena)
    convolved = Rows(regions.convolved, width: blueprint.width, in: arena)
  }

  /// What the shape of a unit says: [frames, mels], or [frames, mels, those of the sound], behind which there is padding.
  private struct UnitShape {
    let frames: Int
    let valid: Int

    init(frames: Int, valid: Int) {
      self.frames = frames
      self.valid = valid
    }

    /// nil where no unit has this shape.
    init?(_ shape: [Int], mels: Int) {
      guard (2...3).contains(shape.count), shape[0] > 0, shape[1] == mels else { return nil }
      frames = shape[0]
      valid = shape.count == 3 ? shape[2] : shape[0]
      guard (1...frames).contains(valid) else { return nil }
    }

    /// The rows that go through the layers.
    func rows(_ padding: PaddingRule) -> Int {
      WhisperBlueprint.rows(ofFrames: padding == .unseen ? valid : frames)
    }

    /// Of those the first that become features.
    func kept(_ padding: PaddingRule) -> Int {
      WhisperBlueprint.rows(ofFrames: padding == .kept ? frames : valid)
    }
  }
}

// MARK: Forward

extension Whisper {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    layer.forward(x, count: count, blueprint.activation, buffers, compute)
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) {
    guard let shape = UnitShape(shape, mels: blueprint.mels) else { preconditionFailure("its grid was accepted") }
    self.shape = shape
  }

  /// x = gelu(convolution.1 · three of gelu(convolution.0 · three frames)) + positions.
  ///
  /// Neighbours lie side by side: three of them are a row of the product that begins where the first of them does, so that
  /// nothing is gathered.
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) {
    let input = Rows(
      data: UnsafeMutablePointer(mutating: numbers.assumingMemoryBound(to: Float.self)), width: blueprint.mels)
    buffers.forEachChunk(of: shape.rows(blueprint.padding)) { first, rows in
      // Those that the second convolution takes for these rows; the first takes one more on both sides.
      let taken = 2 * first - 1..<2 * (first + rows)
      frames.copy(input, count: shape.frames, from: taken.lowerBound - 1, to: taken.upperBound + 1)
      for part in stride(from: 0, to: taken.count, by: rows) {
        compute.multiply(
          frames.from(part), count: min(rows, taken.count - part), scratch: buffers.quantized,
          .init(weights.first, into: convolved.from(part)))
      }
      compute.activate(convolved, count: taken.count, .gelu)
      // What lies outside of the unit is zero for this convolution, too.
      for index in taken where !(0..<shape.frames).contains(index) {
        convolved[index - taken.lowerBound].update(repeating: 0, count: blueprint.width)
      }
      let x = x.from(first)
      compute.multiply(
        Rows(data: convolved.data, width: 2 * blueprint.width), count: rows, scratch: buffers.quantized,
        .init(weights.second, into: x))
      compute.activate(x, count: rows, .gelu)
      compute.record("convolution", x, count: rows)
      for row in 0..<rows {
        compute.kernels.add(x[row], weights.positions + (first + row) * x.width, x[row], x.width)
      }
    }
  }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    let kept = min(shape.kept(blueprint.padding), count)
    guard blueprint.pool > 1 else { return compute.layerNorm(x, weights.norm, into: features, count: kept) }
    buffers.forEachChunk(of: kept / 2) { first, rows in
      let h = buffers.h
      for row in 0..<rows {
        let (a, b) = (x[2 * (first + row)], x[2 * (first + row) + 1])
        let mean = h[row]
        for column in 0..<x.width { mean[column] = (a[column] + b[column]) / 2 }
      }
      compute.layerNorm(h, weights.norm, into: features.from(first), count: rows)
    }
  }
}

extension Rows {
  /// Copies the rows from `first` to before `end` of the `count` rows of `input` here; those that are none of them are zero.
  fileprivate func copy(_ input: Rows, count: Int, from first: Int, to end: Int) {
    let inside = max(first, 0)..<max(min(end, count), max(first, 0))
    self[0].update(repeating: 0, count: (inside.lowerBound - first) * width)
    self[inside.lowerBound - first].update(from: input[inside.lowerBound], count: inside.count * width)
    self[inside.upperBound - first].update(repeating: 0, count: (end - inside.upperBound) * width)
  }
}

// MARK: Weights and sizes

extension Whisper {
  package static func sizes(_ c: WhisperBlueprint) -> EncoderSizes {
    EncoderSizes(
      module: c.module, layers: c.layers, width: c.width, heads: c.heads, innerWidth: c.ffnWidth,
      // The longest row that the convolutions take.
      patchWidth: 3 * max(c.mels, c.width), featureLayers: [c.layers])
  }

  package static func grid(_ c: WhisperBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    guard let unit = UnitShape(shape, mels: c.mels) else {
      throw SquintError(
        .badData,
        "\(c.module): it takes frames of \(grouped(c.mels)) numbers, not units of \(shape.map(grouped).joined(separator: " × "))"
          + "; convert the model again")
    }
    guard unit.rows(c.padding) <= c.positions else {
      throw SquintError(
        .badData,
        "\(c.module): a unit of \(grouped(unit.frames)) frames has more rows than there are positions, "
          + "\(grouped(c.positions)); convert the model again")
    }
    return FeatureGrid(rows: 1, columns: unit.kept(c.padding) / c.pool)
  }

  package static func layerRows(_ c: WhisperBlueprint, of shape: [Int], _ grid: FeatureGrid) -> Int {
    UnitShape(shape, mels: c.mels)?.rows(c.padding) ?? 0
  }

  /// Of f32.
  package static func unitBytes(of shape: [Int]) -> Int { shape[0] * shape[1] * 4 }

  package static func weights(_ c: WhisperBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    Weights(
      first: try Matrix(c.firstConvolution, in: file), second: try Matrix(c.secondConvolution, in: file),
      positions: try file.vector(c.positionTable), norm: try Compute.LayerNorm(c.norm, epsilon: c.normEpsilon, in: file)
    )
  }

  package static func reserve(
    _ c: WhisperBlueprint, patches: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let rows = min(patches, sizes(c).chunk(patches))
    return Regions(
      frames: try plan.reserve("encoder frames", count: (2 * rows + 3) * c.mels, phases: .encode),
      convolved: try plan.reserve("encoder convolution", count: (2 * rows + 1) * c.width, phases: .encode))
  }
}
