import SquintCompute
import SquintFile

/// Intern-S1-Pro's encoder of series. Patches as long as the rate says, half a patch apart, each become a row: they go through a
/// convolution and a post-norm layer of attention, as many sequences as there are channels, and what comes out is averaged. Two patches side
/// by side are then what Whisper's encoder takes: two convolutions, of which the second makes one row of two, and pre-norm layers in which a
/// row sees itself and those before it (formats/series.md).
///
/// Source: Intern-S1-Pro; the reference is lmdeploy's interns1_pro_time_series.py.
package struct InternSeries: EncoderLayers, @unchecked Sendable {  // views of the arena
  package struct Layer: EncoderLayerWeights, @unchecked Sendable {  // views of the file
    let block: PreNormLayer<InternSeriesBlueprint>
  }

  package struct Weights: @unchecked Sendable {  // views of the file
    let patchConvolution: UnsafePointer<Float>  // [patch width, 5]
    let patchConvolutionBias: UnsafePointer<Float>  // [patch width]
    let patch: PreNormLayer<InternSeriesBlueprint>  // its norms are behind
    let input: Matrix  // [input width, 2 · patch width]
    let convolutions: [Matrix]  // [width, input width · 3], [width, width · 3]
    let positions: UnsafePointer<Float>  // [positions, width]
    let norm: Compute.LayerNorm  // [width]
    let output: Matrix  // [output width, width]
  }

  package struct Regions: Sendable {
    let keys: Region<Float>
    let values: Region<Float>
    let sequences: Region<Float>
    let sinusoids: Region<Float>
    let queries: Region<Float>
    let inner: Region<Float>
    let pairs: Region<Float>
    let inputs: Region<Float>
    let convolved: Region<Float>
    let quantized: QuantizedRows.Regions
  }

  /// The rows of patches that go through their layer at a time: one of the longest, or several that are shorter.
  static let sequenceRows = InternSeriesBlueprint.longestPatch

  private let blueprint: InternSeriesBlueprint
  private let weights: Weights
  private let buffers: EncoderBuffers
  private let compute: Compute
  /// [sequence rows, patch width]
  private let keys: Rows
  private let values: Rows
  /// The points of some patches: [sequence rows, patch width]
  private let sequences: Rows
  /// [longest patch, patch width]
  private let sinusoids: Rows
  /// [sequence rows, patch width]
  private let queries: Rows
  /// [sequence rows, patch ffn width]
  private let inner: Rows
  /// [2 · pairs, patch width], which is [pairs, 2 · patch width]
  private let pairs: Rows
  /// [pairs, input width]
  private let inputs: Rows
  /// [pairs, width]
  private let convolved: Rows
  private let quantized: QuantizedRows
  private var unit = Unit(points: 5, channels: 1, stride: 2)

  package init(
    _ blueprint: InternSeriesBlueprint, _ weights: Weights, levels: [Float], _ regions: Regions,
    _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    let c = blueprint
    self.blueprint = c
    self.weights = weights
    self.buffers = buffers
    self.compute = compute
    keys = Rows(regions.keys, width: c.patchWidth, in: arena)
    values = Rows(regions.values, width: c.patchWidth, in: arena)
    sequences = Rows(regions.sequences, width: c.patchWidth, in: arena)
    sinusoids = Rows(regions.sinusoids, width: c.patchWidth, in: arena)
    queries = Rows(regions.queries, width: c.patchWidth, in: arena)
    inner = Rows(regions.inner, width: c.patchFFNWidth, in: arena)
    pairs = Rows(regions.pairs, width: c.patchWidth, in: arena)
    inputs = Rows(regions.inputs, width: c.inputWidth, in: arena)
    convolved = Rows(regions.convolved, width: c.width, in: arena)
    quantized = QuantizedRows(regions.quantized, in: arena)
  }

  /// A series: [points, channels], and how far a patch is behind the one before it.
  struct Unit {
    let points: Int
    let channels: Int
    let stride: Int

    /// The points of a patch.
    var patch: Int { 2 * stride }
    /// The last has zeros behind the end.
    var patches: Int { points > patch ? (points - patch + stride - 1) / stride + 1 : 1 }
    var pairs: Int { patches / 2 }
    /// What the second convolution makes of the pairs.
    var rows: Int { (pairs + 1) / 2 }
  }
}

// MARK: Forward

extension InternSeries {
  package mutating func begin(shape: [Int], _ grid: FeatureGrid) {
    unit = Unit(points: shape[0], channels: shape[1], stride: shape[2])
    // Sine and cosine in turns.
    let width = blueprint.patchWidth
    for row in 0..<unit.patch {
      for column in stride(from: 0, to: width, by: 2) {
        let angle = Float(row) * expf(Float(column) * (-logf(10_000) / Float(width)))
        sinusoids[row][column] = sinf(angle)
        if column + 1 < width { sinusoids[row][column + 1] = cosf(angle) }
      }
    }
  }

  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) { _ = embed(numbers, into: x) { true } }

  /// x = gelu(convolution.1 · gelu(convolution.0 · input · pairs)) + positions.
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows, while shouldContinue: () -> Bool) -> Bool {
    guard subsample(numbers, while: shouldContinue) else { return false }
    let wide = Rows(data: pairs.data, width: 2 * pairs.width)
    compute.record("patches", wide, count: unit.pairs)
    forEachChunk(of: unit.pairs) { first, rows in
      compute.multiply(
        wide.from(first), count: rows, scratch: quantized, .init(weights.input, into: inputs.from(first)))
    }
    guard shouldContinue() else { return false }
    convolve(inputs, count: unit.pairs, step: 1, weights.convolutions[0], rows: unit.pairs, into: convolved)
    guard shouldContinue() else { return false }
    convolve(convolved, count: unit.pairs, step: 2, weights.convolutions[1], rows: unit.rows, into: x)
    compute.record("convolution", x, count: unit.rows)
    for row in 0..<min(unit.rows, blueprint.positions) {
      compute.kernels.add(x[row], weights.positions + row * x.width, x[row], x.width)
    }
    return true
  }

  /// output = gelu(matrix · three neighbours of x), of which the middle one is `step` further in each row; beyond the `count` rows of x are
  /// zeros.
  private func convolve(_ x: Rows, count: Int, step: Int, _ matrix: Matrix, rows: Int, into output: Rows) {
    let taps = InternSeriesBlueprint.taps
    // As wide as the convolution takes them.
    let gathered = Rows(data: buffers.pixels.data, width: taps * x.width)
    buffers.forEachChunk(of: rows) { first, rows in
      for row in 0..<rows {
        let line = gathered[row]
        for tap in 0..<taps {
          let index = (first + row) * step + tap - 1
          for column in 0..<x.width {
            line[column * taps + tap] = index >= 0 && index < count ? x[index][column] : 0
          }
        }
      }
      let output = output.from(first)
      compute.multiply(gathered, count: rows, scratch: buffers.quantized, .init(matrix, into: output))
      compute.activate(output, count: rows, .gelu)
    }
  }

  /// Makes a row of `pairs` of each patch; false where `shouldContinue`, which is asked before some of them, said no.
  private func subsample(_ numbers: UnsafeRawPointer, while shouldContinue: () -> Bool) -> Bool {
    let c = blueprint
    let (patches, channels, length) = (unit.patches, unit.channels, unit.patch)
    pairs.data.update(repeating: 0, count: patches * pairs.width)
    let most = Self.sequenceRows / length
    for first in stride(from: 0, to: patches * channels, by: most) {
      guard shouldContinue() else { return false }
      let count = min(most, patches * channels - first)
      let rows = count * length
      compute.convolvePatches(
        PatchNumbers(numbers: numbers, unit: unit), first: first, count: count, weights.patchConvolution,
        weights.patchConvolutionBias, sinusoids, into: sequences)
      let layer = weights.patch
      compute.multiply(
        sequences, count: rows, scratch: quantized, .init(layer.attention.q, into: queries),
        .init(layer.attention.k, into: keys), .init(layer.attention.v, into: values))
      // The heads' outputs take the place of what is normalized elsewhere.
      let heads = Rows(data: inner.data, width: c.patchWidth)
      compute.attend(
        q: queries, keys: keys, values: values, heads: c.patchHeads, count: rows, positions: rows,
        .sequences(length: length), into: heads)
      compute.multiply(
        heads, count: rows, scratch: quantized, .init(layer.attention.o, into: sequences, accumulate: true))
      compute.layerNorm(sequences, layer.attentionNorm, into: sequences, count: rows)
      compute.multiply(sequences, count: rows, scratch: quantized, .init(layer.ffn.up, into: inner))
      compute.activate(inner, count: rows, .relu)
      compute.multiply(inner, count: rows, scratch: quantized, .init(layer.ffn.down, into: sequences, accumulate: true))
      compute.layerNorm(sequences, layer.ffnNorm, into: sequences, count: rows)
      for index in 0..<count {
        let sum = pairs[(first + index) / channels]
        let share = 1 / Float(length * channels)
        for row in index * length..<(index + 1) * length {
          let x = sequences[row]
          for column in 0..<pairs.width { sum[column] += x[column] * share }
        }
      }
    }
    return true
  }

  private func forEachChunk(of count: Int, _ body: (_ first: Int, _ rows: Int) -> Void) {
    for first in stride(from: 0, to: count, by: Self.sequenceRows) {
      body(first, min(Self.sequenceRows, count - first))
    }
  }

  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    let (h, q, layer) = (buffers.h, buffers.q, layer.block)
    buffers.storeKeys(x, count: count, layer.attention, compute) { x, rows in
      compute.layerNorm(x, layer.attentionNorm, into: h, count: rows)
    }
    // All keys and values are there: from here on a row needs no other.
    buffers.forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.layerNorm(x, layer.attentionNorm, into: h, count: rows)
      compute.record("attention.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: buffers.quantized, .init(layer.attention.q, into: q))
      compute.attend(
        q: q, keys: buffers.attention.keys(from: 0), values: buffers.attention.values(from: 0), heads: blueprint.heads,
        count: rows, positions: count, .backwards(first: first), into: h)
      compute.record("attention.heads", h, count: rows)
      layer.addAttentionAndFFN(h, count: rows, blueprint.activation, buffers, compute, to: x)
    }
  }

  /// features = output · norm(x).
  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    buffers.forEachChunk(of: count) { first, rows in
      compute.layerNorm(x.from(first), weights.norm, into: buffers.h, count: rows)
      compute.multiply(
        buffers.h, count: rows, scratch: buffers.quantized, .init(weights.output, into: features.from(first)))
    }
  }
}

/// The numbers of a series, [points, channels], as sequences: of each patch as many as there are channels. The reference reshapes a
/// patch [points, channels] to [channels, points] without turning it, so that each sequence is a part of its points, whose channels
/// take turns; models were trained so.
private struct PatchNumbers: @unchecked Sendable {  // a view of the unit
  let numbers: UnsafeRawPointer
  let unit: InternSeries.Unit

  /// Number `index` of sequence `sequence`; 0 outside of it, and behind the end of the series.
  func value(_ sequence: Int, _ index: Int) -> Float {
    guard index >= 0, index < unit.patch else { return 0 }
    let first = sequence / unit.channels * unit.stride * unit.channels
    let number = first + sequence % unit.channels * unit.patch + index
    guard number < unit.points * unit.channels else { return 0 }
    return numbers.loadUnaligned(fromByteOffset: 4 * number, as: Float.self)
  }
}

extension Compute {
  /// output[row] = relu(weights · five neighbours + bias) + sinusoid, for the points of `count` patches from `first` on.
  fileprivate func convolvePatches(
    _ numbers: PatchNumbers, first: Int, count: Int, _ weights: UnsafePointer<Float>, _ bias: UnsafePointer<Float>,
    _ sinusoids: Rows, into output: Rows
  ) {
    struct Job {
      let numbers: PatchNumbers
      let first: Int
      let weights: UnsafePointer<Float>
      let bias: UnsafePointer<Float>
      let sinusoids: Rows
      let output: Rows

      func run(_ row: Int) {
        let taps = InternSeriesBlueprint.patchTaps
        let (sequence, index) = (first + row / numbers.unit.patch, row % numbers.unit.patch)
        let (line, sinusoid) = (output[row], sinusoids[index])
        for column in 0..<output.width {
          var sum = bias[column]
          for tap in 0..<taps { sum += weights[column * taps + tap] * numbers.value(sequence, index + tap - taps / 2) }
          line[column] = max(sum, 0) + sinusoid[column]
        }
      }
    }
    var job = Job(
      numbers: numbers, first: first, weights: weights, bias: bias, sinusoids: sinusoids, output: output)
    workers.run(&job, pieces: count * numbers.unit.patch) { job, row, _ in
      job.assumingMemoryBound(to: Job.self).pointee.run(row)
    }
  }
}

// MARK: Weights and sizes

extension InternSeries.Layer {
  package init(_ c: InternSeriesBlueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    block = try PreNormLayer(c, index, in: file)
  }

  package func moved(by distance: Int) -> Self { Self(block: block.moved(by: distance)) }

  /// Attention is not: there is none in int8 in which a row sees only what is before it.
  package var isQuantized: Bool { false }
}

extension InternSeries {
  package static func sizes(_ c: InternSeriesBlueprint) -> EncoderSizes {
    var sizes = EncoderSizes(
      module: c.module, layers: c.layers, width: c.width, heads: c.heads, innerWidth: c.ffnWidth,
      // The longest row that the convolutions take.
      patchWidth: InternSeriesBlueprint.taps * max(c.inputWidth, c.width), featureLayers: [c.layers])
    sizes.outputWidth = c.outputWidth
    return sizes
  }

  package static func grid(_ c: InternSeriesBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    guard shape.count == 3, shape.allSatisfy({ $0 > 0 }), 2 * shape[2] <= InternSeriesBlueprint.longestPatch else {
      throw SquintError(.badData, "\(c.module): it takes series with a rate; convert the model again")
    }
    let unit = Unit(points: shape[0], channels: shape[1], stride: shape[2])
    guard unit.pairs > 0 else {
      throw SquintError(
        .badData,
        "\(c.module): a series of \(grouped(unit.points)) points is too short for patches of \(unit.patch); it needs "
          + "\(unit.patch + 1) at this rate")
    }
    return FeatureGrid(rows: 1, columns: unit.rows)
  }

  package static func unitBytes(of shape: [Int]) -> Int { 4 * shape[0] * shape[1] }

  package static func weights(_ c: InternSeriesBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    var convolutions: [Matrix] = []
    for convolution in c.convolutions { convolutions.append(try Matrix(convolution, in: file)) }
    return Weights(
      patchConvolution: try file.vector(c.patchConvolution),
      patchConvolutionBias: try file.vector(c.patchConvolutionBias),
      patch: try PreNormLayer(c.patchLayer, epsilon: c.normEpsilon, in: file), input: try Matrix(c.input, in: file),
      convolutions: convolutions, positions: try file.vector(c.positionTable),
      norm: try Compute.LayerNorm(c.norm, epsilon: c.normEpsilon, in: file), output: try Matrix(c.output, in: file))
  }

  package static func reserve(
    _ c: InternSeriesBlueprint, patches: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let phases = Phases.encode
    let rows = sequenceRows
    // The second convolution makes one row of two pairs.
    let pairs = 2 * patches
    return Regions(
      keys: try plan.reserve("keys of patches", count: rows * c.patchWidth, phases: phases),
      values: try plan.reserve("values of patches", count: rows * c.patchWidth, phases: phases),
      sequences: try plan.reserve("points of patches", count: rows * c.patchWidth, phases: phases),
      sinusoids: try plan.reserve("positions of patches", count: rows * c.patchWidth, phases: phases),
      queries: try plan.reserve("queries of patches", count: rows * c.patchWidth, phases: phases),
      inner: try plan.reserve(
        "feed-forward of patches", count: rows * max(c.patchFFNWidth, c.patchWidth), phases: phases),
      // Of an odd number of patches the last is in no pair.
      pairs: try plan.reserve("rows of patches", count: (2 * pairs + 1) * c.patchWidth, phases: phases),
      inputs: try plan.reserve("pairs of patches", count: pairs * c.inputWidth, phases: phases),
      convolved: try plan.reserve("convolved pairs", count: pairs * c.width, phases: phases),
      quantized: try QuantizedRows.Regions(
        rows: rows, columns: max(c.patchFFNWidth, 2 * c.patchWidth), phases: phases, in: &plan))
  }
}
