/// What frames that are padding, behind those of the sound itself, are to Whisper's encoder.
package enum PaddingRule: String, CaseIterable, Sendable {
  /// Rows see those of padding, and all rows are features.
  case kept
  /// Rows see those of padding, which are no features.
  case seen
  /// No row sees those of padding; the convolutions at the sound's end do.
  case unseen
}

/// The graph `whisper`: two convolutions over frames, and a pre-norm transformer (formats/audio-encoders.md).
package struct WhisperBlueprint: PreNormBlueprint {
  package static var graph: EncoderGraph { .whisper }
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
  /// How many rows the table of positions has.
  package var positions = 0
  package var normEpsilon = 0.0
  /// Of the layers; behind the convolutions there is GELU.
  package var activation = Activation.gelu
  /// How many neighbouring rows become one feature, their mean.
  package var pool = 1
  package var padding = PaddingRule.kept

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 0...4096)
    try coder.int("\(module).width", &width, in: 1...1 << 20)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).heads", &heads, in: 1...max(width, 1))
    try coder.int("\(module).mels", &mels, in: 1...1 << 12)
    try coder.int("\(module).positions", &positions, in: 1...1 << 20)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.choice("\(module).activation", &activation)
    try coder.int("\(module).pool", &pool, in: 1...2, default: 1)
    try coder.choice("\(module).padding", &padding)
  }

  package func check() throws(SquintError) {
    try checkHeads(heads, width: width, module: module)
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
  }

  // MARK: Rows

  /// The rows that `frames` frames, of which there is one at least, become: the second convolution makes one of two.
  package static func rows(ofFrames frames: Int) -> Int { (frames - 1) / 2 + 1 }

  // MARK: Tensors

  /// Columns: the frame before, the frame, the one behind it; of each its mels.
  package var firstConvolution: MatrixSpecification {
    MatrixSpecification("\(module).convolution.0", rows: width, columns: 3 * mels)
  }

  /// Columns: the row before, the row, the one behind it; of each its channels.
  package var secondConvolution: MatrixSpecification {
    MatrixSpecification("\(module).convolution.1", rows: width, columns: 3 * width)
  }

  package var positionTable: TensorSpecification {
    TensorSpecification("\(module).positions", [positions, width], .vector)
  }

  package var norm: NormSpecification { NormSpecification("\(module).norm", width) }

  package var tensors: [TensorSpecification] {
    firstConvolution.tensors + secondConvolution.tensors + [positionTable] + (0..<layers).flatMap { layer($0).tensors }
      + norm.tensors
  }
}
