/// The graph `qwen3asr`: the audio tower of Qwen3-ASR and Qwen3-Omni. Three convolutions make a row of each 8 frames, chunk by chunk;
/// a unit's rows all see each other (formats/audio-encoders.md).
package struct Qwen3ASRBlueprint: PreNormBlueprint {
  package static var graph: EncoderGraph { .qwen3asr }
  /// What its keys and tensors begin with: `encoder.audio`.
  package let module: String
  /// The family in the checkpoint's words; for people.
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  /// The numbers of a frame.
  package var mels = 0
  /// The frames of a chunk: positions begin anew in each, and a convolution sees no other.
  package var chunk = 0
  /// The chunks of a unit, at most.
  package var chunks = 0
  /// The width of a row between the convolutions.
  package var channels = 0
  package var normEpsilon = 0.0
  package var activation = Activation.gelu

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 0...4096)
    try coder.int("\(module).width", &width, in: 4...1 << 20)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).heads", &heads, in: 1...max(width, 1))
    try coder.int("\(module).mels", &mels, in: 1...1 << 10)
    try coder.int("\(module).chunk", &chunk, in: 1...1 << 12)
    try coder.int("\(module).chunks", &chunks, in: 1...1 << 12)
    try coder.int("\(module).channels", &channels, in: 1...1 << 14)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.choice("\(module).activation", &activation)
  }

  package func check() throws(SquintError) {
    try checkHeads(heads, width: width, module: module)
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
    guard width % 2 == 0 else {
      throw SquintError(
        .badData,
        "metadata \(module).width is \(width); positions are sines and cosines, so it must be even; convert the model again"
      )
    }
  }

  // MARK: Sizes

  /// How many steps a convolution makes of `count`: one of width 3 that goes on by 2, with a zero at each end.
  package static func halved(_ count: Int) -> Int { (count + 1) / 2 }

  /// The rows that `frames` frames of a chunk become.
  package static func rows(ofFrames frames: Int) -> Int { halved(halved(halved(frames))) }

  /// The numbers of a frame behind the convolutions.
  package var frequencies: Int { Self.rows(ofFrames: mels) }

  /// The rows of a chunk.
  package var chunkRows: Int { Self.rows(ofFrames: chunk) }

  /// The rows of a unit of `frames` frames.
  package func rows(ofUnit frames: Int) -> Int {
    frames / chunk * chunkRows + Self.rows(ofFrames: frames % chunk)
  }

  /// The frames of the largest unit.
  package var unit: Int { chunk * chunks }

  // MARK: Tensors

  /// Columns: the mel's step of the kernel, then the frame's. Of few numbers, and so in f32.
  package var firstConvolution: MatrixSpecification {
    MatrixSpecification("\(module).conv1", rows: channels, columns: Self.taps, role: .vector)
  }

  /// The second and the third. Columns: the frequency's step of the kernel, then the time's, then the channel.
  package var convolutions: [MatrixSpecification] {
    (2...3).map { MatrixSpecification("\(module).conv\($0)", rows: channels, columns: Self.taps * channels) }
  }

  /// The numbers of a kernel.
  package static let taps = 9

  /// Columns: the frequency, then the channel.
  package var output: MatrixSpecification {
    MatrixSpecification("\(module).conv_out", rows: width, columns: frequencies * channels)
  }

  /// Of the rows that are the features.
  package var norm: NormSpecification { NormSpecification("\(module).norm", width) }

  package var tensors: [TensorSpecification] {
    firstConvolution.tensors + convolutions.flatMap(\.tensors) + output.tensors
      + (0..<layers).flatMap { layer($0).tensors } + norm.tensors
  }
}
