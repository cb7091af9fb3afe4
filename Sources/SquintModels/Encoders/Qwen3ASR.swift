import SquintCompute
import SquintFile

/// The audio tower of Qwen3-ASR and Qwen3-Omni: log-mel frames in chunks of a second, each of which three convolutions make 13 rows of;
/// then a pre-norm transformer in which the rows of a unit, some seconds, all see each other (formats/audio-encoders.md).
///
/// Sources: Qwen3-Omni (arXiv 2509.17765), Qwen3-ASR (arXiv 2601.21337); the reference is transformers' modeling_qwen3_asr.py,
/// `Qwen3ASREncoder`.
package struct Qwen3ASR: EncoderLayers, @unchecked Sendable {  // views of the arena
  package typealias Layer = PreNormLayer<Qwen3ASRBlueprint>

  package struct Weights: @unchecked Sendable {  // views of the file
    let first: Matrix  // [channels, 9]
    let second: Matrix  // [channels, 9 · channels]
    let third: Matrix  // [channels, 9 · channels]
    let output: Matrix  // [width, frequencies · channels]
    let norm: Compute.LayerNorm  // [width]
  }

  /// What the convolutions need.
  package struct Regions: Sendable {
    let positions: Region<Float>
    let gathered: Region<Float>
    let quantized: QuantizedRows.Regions
    let first: Region<Float>
    let second: Region<Float>
    let third: Region<Float>
  }

  private let blueprint: Qwen3ASRBlueprint
  private let weights: Weights
  private let buffers: EncoderBuffers
  private let compute: Compute
  /// [rows of a chunk, width]
  private let positions: Rows
  /// What a product of the convolutions reads: [steps of `gatheredSteps`, 9 · channels]
  private let gathered: Rows
  private let quantized: QuantizedRows
  /// Behind the first convolution, of a few steps of time: [time · frequency, channels]
  private let first: Rows
  /// Behind the second and the third one, of a chunk: [time · frequency, channels]
  private let second: Rows
  private let third: Rows
  private var frames = 0

  package init(
    _ blueprint: Qwen3ASRBlueprint, _ weights: Weights, levels: [Float], _ regions: Regions, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    let c = blueprint
    self.blueprint = c
    self.weights = weights
    self.buffers = buffers
    self.compute = compute
    positions = Rows(regions.positions, width: c.width, in: arena)
    gathered = Rows(regions.gathered, width: Qwen3ASRBlueprint.taps * c.channels, in: arena)
    quantized = QuantizedRows(regions.quantized, in: arena)
    first = Rows(regions.first, width: c.channels, in: arena)
    second = Rows(regions.second, width: c.channels, in: arena)
    third = Rows(regions.third, width: c.channels, in: arena)
  }
}

// MARK: Forward

extension Qwen3ASR {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    layer.forward(x, count: count, blueprint.activation, buffers, compute)
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) {
    frames = shape[0]
    // Few enough to be computed anew.
    let half = blueprint.width / 2
    let step = log(10_000.0) / Double(half - 1)
    for column in 0..<half {
      let frequency = exp(-step * Double(column))
      for row in 0..<blueprint.chunkRows {
        positions[row][column] = Float(sin(Double(row) * frequency))
        positions[row][half + column] = Float(cos(Double(row) * frequency))
      }
    }
  }

  /// x = conv_out · gelu(conv3(gelu(conv2(gelu(conv1(chunk)))))) + positions, chunk by chunk.
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) {
    let c = blueprint
    let mels = numbers.assumingMemoryBound(to: Float.self)
    for (index, start) in stride(from: 0, to: frames, by: c.chunk).enumerated() {
      let count = min(c.chunk, frames - start)
      let rows = Qwen3ASRBlueprint.rows(ofFrames: count)
      let x = x.from(index * c.chunkRows)
      convolve(mels + start * c.mels, frames: count, rows: rows)
      // The frequencies of a step of time lie one behind the other.
      let steps = Rows(data: third.data, width: c.frequencies * c.channels)
      compute.multiply(steps, count: rows, scratch: quantized, .init(weights.output, into: x))
      for row in 0..<rows { compute.kernels.add(x[row], positions[row], x[row], c.width) }
    }
  }

  /// The three convolutions of the `frames` frames of a chunk, as far as `rows` rows need them. A shorter chunk is followed by
  /// frames of zeros up to the length of all.
  private func convolve(_ mels: UnsafePointer<Float>, frames: Int, rows: Int) {
    let c = blueprint
    let halved = Qwen3ASRBlueprint.halved
    // The steps of time behind each convolution: of a whole chunk, and those that are computed.
    let (firstTimes, secondTimes) = (halved(c.chunk), halved(halved(c.chunk)))
    let needed = min(2 * rows, secondTimes)
    let (firstMels, secondMels) = (halved(c.mels), halved(halved(c.mels)))
    let frame = Plane(
      data: UnsafeMutablePointer(mutating: mels), channels: 1, frequencies: c.mels, times: 0..<frames)
    // What is behind the first convolution is large: it is there for a few steps of the second at a time.
    for start in stride(from: 0, to: needed, by: Self.stepsAtATime) {
      let steps = start..<min(start + Self.stepsAtATime, needed)
      let times = max(2 * steps.lowerBound - 1, 0)..<min(2 * steps.upperBound, firstTimes)
      convolve(frame, weights.first, times: times, frequencies: firstMels, into: first)
      let plane = Plane(data: first.data, channels: c.channels, frequencies: firstMels, times: times)
      convolve(
        plane, weights.second, times: steps, frequencies: secondMels, into: second.from(steps.lowerBound * secondMels))
    }
    let plane = Plane(data: second.data, channels: c.channels, frequencies: secondMels, times: 0..<needed)
    convolve(plane, weights.third, times: 0..<rows, frequencies: c.frequencies, into: third)
  }

  /// y = gelu(kernel · steps + bias) for the steps of time `times` and all frequencies.
  private func convolve(_ plane: Plane, _ kernel: Matrix, times: Range<Int>, frequencies: Int, into y: Rows) {
    let count = times.count * frequencies
    let input = Rows(data: gathered.data, width: Qwen3ASRBlueprint.taps * plane.channels)
    let most = Self.gatheredSteps
    for start in stride(from: 0, to: count, by: most) {
      let steps = min(most, count - start)
      compute.gatherKernels(
        plane, first: times.lowerBound * frequencies + start, count: steps, frequencies: frequencies, into: input)
      let output = y.from(start)
      compute.multiply(input, count: steps, scratch: quantized, .init(kernel, into: output))
      compute.activate(output, count: steps, .gelu)
    }
  }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    compute.layerNorm(x, weights.norm, into: features, count: count)
  }
}

/// What is before a convolution: [time, frequency, channel], zero outside.
struct Plane: @unchecked Sendable {  // a view of the arena
  /// Of the first of `times`.
  let data: UnsafeMutablePointer<Float>
  let channels: Int
  let frequencies: Int
  /// The steps of time that are there.
  let times: Range<Int>

  /// The channels at a step of time and a frequency; nil where that is outside.
  func at(time: Int, frequency: Int) -> UnsafePointer<Float>? {
    guard times.contains(time), (0..<frequencies).contains(frequency) else { return nil }
    return UnsafePointer(data + ((time - times.lowerBound) * frequencies + frequency) * channels)
  }
}

extension Compute {
  /// rows[step, frequency · time · channel] = what a kernel of 3 × 3 sees at `count` steps from step `first` on, which are
  /// [time, frequency] and go on by 2 in the plane.
  fileprivate func gatherKernels(_ plane: Plane, first: Int, count: Int, frequencies: Int, into rows: Rows) {
    struct Job {
      let plane: Plane
      let first: Int
      let frequencies: Int
      let rows: Rows

      func run(_ row: Int) {
        let (time, frequency) = ((first + row) / frequencies, (first + row) % frequencies)
        let channels = plane.channels
        var output = rows[row]
        for y in -1...1 {
          for x in -1...1 {
            if let source = plane.at(time: 2 * time + x, frequency: 2 * frequency + y) {
              output.update(from: source, count: channels)
            } else {
              output.update(repeating: 0, count: channels)
            }
            output += channels
          }
        }
      }
    }
    var job = Job(plane: plane, first: first, frequencies: frequencies, rows: rows)
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.run(row) }
  }
}

// MARK: Weights and sizes

extension Qwen3ASR {
  /// The steps of time of the second convolution that are computed from one stretch of the first.
  private static let stepsAtATime = 4
  /// The steps that go through a product of a convolution at a time: enough for the weights, which are read once for them.
  private static let gatheredSteps = 128

  package static func sizes(_ c: Qwen3ASRBlueprint) -> EncoderSizes {
    EncoderSizes(
      module: c.module, layers: c.layers, width: c.width, heads: c.heads, innerWidth: c.ffnWidth, patchWidth: 1,
      featureLayers: [c.layers])
  }

  package static func grid(_ c: Qwen3ASRBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    guard shape.count == 2, shape[1] == c.mels else {
      throw SquintError(
        .badData, "\(c.module): it takes frames of \(c.mels) mels, not units of \(shape); convert the model again")
    }
    guard (1...c.unit).contains(shape[0]) else {
      throw SquintError(
        .badData,
        "\(c.module): it takes 1 to \(grouped(c.unit)) frames at a time, not \(grouped(shape[0])); convert the model again"
      )
    }
    return FeatureGrid(rows: 1, columns: c.rows(ofUnit: shape[0]))
  }

  /// Of numbers in f32.
  package static func unitBytes(of shape: [Int]) -> Int { shape.reduce(MemoryLayout<Float>.size, *) }

  package static func weights(_ c: Qwen3ASRBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    Weights(
      first: try Matrix(c.firstConvolution, in: file), second: try Matrix(c.convolutions[0], in: file),
      third: try Matrix(c.convolutions[1], in: file), output: try Matrix(c.output, in: file),
      norm: try Compute.LayerNorm(c.norm, epsilon: c.normEpsilon, in: file))
  }

  package static func reserve(
    _ c: Qwen3ASRBlueprint, patches: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    let phases = Phases.encode
    let halved = Qwen3ASRBlueprint.halved
    let kernel = Qwen3ASRBlueprint.taps * c.channels
    let rows = min(patches, c.chunkRows)
    let (firstMels, secondMels) = (halved(c.mels), halved(halved(c.mels)))
    let firstTimes = min(2 * stepsAtATime + 1, halved(c.chunk))
    let secondTimes = min(2 * rows, halved(halved(c.chunk)))
    return Regions(
      positions: try plan.reserve("positions of a chunk", count: c.chunkRows * c.width, phases: phases),
      gathered: try plan.reserve("convolution inputs", count: gatheredSteps * kernel, phases: phases),
      quantized: try QuantizedRows.Regions(
        rows: max(gatheredSteps, rows), columns: max(kernel, c.frequencies * c.channels), phases: phases, in: &plan),
      first: try plan.reserve("first convolution", count: firstTimes * firstMels * c.channels, phases: phases),
      second: try plan.reserve("second convolution", count: secondTimes * secondMels * c.channels, phases: phases),
      third: try plan.reserve("third convolution", count: rows * c.frequencies * c.channels, phases: phases))
  }
}
