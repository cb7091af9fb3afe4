/// The graph `interns1_series`: Intern-S1-Pro's encoder of series, which cuts them by their rate (formats/series.md).
package struct InternSeriesBlueprint: PreNormBlueprint {
  package static var graph: EncoderGraph { .internSeries }
  /// What its keys and tensors begin with: `encoder.series`.
  package let module: String
  /// The family in the checkpoint's words; for people.
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  /// Of the layer that makes a row of each patch.
  package var patchWidth = 0
  package var patchFFNWidth = 0
  package var patchHeads = 0
  /// What the first convolution takes.
  package var inputWidth = 0
  /// The rows that the table of positions is for; those behind them have none.
  package var positions = 0
  /// The width of the features.
  package var outputWidth = 0
  package var normEpsilon = 0.0
  package var activation = Activation.gelu

  /// Points whose numbers go into one number of the patches' convolution, and of the others.
  package static let patchTaps = 5
  package static let taps = 3
  /// The longest patch.
  package static let longestPatch = 320

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 0...4096)
    try coder.int("\(module).width", &width, in: 1...1 << 16)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).heads", &heads, in: 1...max(width, 1))
    try coder.int("\(module).patch_width", &patchWidth, in: 1...1 << 12)
    try coder.int("\(module).patch_ffn_width", &patchFFNWidth, in: 1...1 << 16)
    try coder.int("\(module).patch_heads", &patchHeads, in: 1...max(patchWidth, 1))
    try coder.int("\(module).input_width", &inputWidth, in: 1...1 << 12)
    try coder.int("\(module).points", &positions, in: 1...1 << 20)
    try coder.int("\(module).output_width", &outputWidth, in: 1...1 << 16)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.choice("\(module).activation", &activation)
  }

  package func check() throws(SquintError) {
    try checkHeads(heads, width: width, module: module)
    try checkHeads(patchHeads, width: patchWidth, module: "\(module).patch")
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
  }

  // MARK: Tensors

  /// Of each patch: [patch width, 5]
  package var patchConvolution: TensorSpecification {
    TensorSpecification("\(module).patch.convolution", [patchWidth, Self.patchTaps], .vector)
  }

  package var patchConvolutionBias: TensorSpecification { .vector("\(module).patch.convolution.bias", patchWidth) }

  /// The norms are behind attention and behind the feed-forward network.
  package var patchLayer: PreNormLayerTensors {
    PreNormLayerTensors("\(module).patch", width: patchWidth, ffnWidth: patchFFNWidth)
  }

  /// Two patches side by side become what the convolutions take.
  package var input: MatrixSpecification {
    MatrixSpecification("\(module).input", rows: inputWidth, columns: 2 * patchWidth)
  }

  /// Columns: input, then tap.
  package var convolutions: [MatrixSpecification] {
    [
      MatrixSpecification("\(module).convolution.0", rows: width, columns: Self.taps * inputWidth),
      MatrixSpecification("\(module).convolution.1", rows: width, columns: Self.taps * width),
    ]
  }

  package var positionTable: TensorSpecification {
    TensorSpecification("\(module).positions", [positions, width], .vector)
  }

  package var norm: NormSpecification { NormSpecification("\(module).norm", width) }

  package var output: MatrixSpecification {
    MatrixSpecification("\(module).output", rows: outputWidth, columns: width)
  }

  package var tensors: [TensorSpecification] {
    var tensors = [patchConvolution, patchConvolutionBias] + patchLayer.tensors + input.tensors
    tensors += convolutions.flatMap(\.tensors)
    tensors.append(positionTable)
    tensors += (0..<layers).flatMap { layer($0).tensors }
    return tensors + norm.tensors + output.tensors
  }
}
