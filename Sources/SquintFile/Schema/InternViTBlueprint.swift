/// The graph `internvit`: InternViT-6B, a vision transformer with RMSNorm, whose queries and keys are normalized over all heads together
/// (formats/vision.md).
package struct InternViTBlueprint: NamedBlueprint {
  package static var graph: EncoderGraph { .internvit }
  /// What its keys and tensors begin with: `encoder.image`.
  package let module: String
  /// The family in the checkpoint's words; for people.
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  /// The side of a patch in pixels.
  package var patch = 0
  /// The side of the grid that the table of positions is for.
  package var grid = 0
  package var positions = PositionRule.fixed
  package var normEpsilon = 0.0
  package var activation = Activation.gelu
  /// Whether the class token's row is left out of the features.
  package var dropsClass = false

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 0...4096)
    try coder.int("\(module).width", &width, in: 1...1 << 20)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).heads", &heads, in: 1...max(width, 1))
    try coder.int("\(module).patch", &patch, in: 1...1 << 12)
    try coder.int("\(module).grid", &grid, in: 1...1 << 12)
    try coder.choice("\(module).positions", &positions)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.choice("\(module).activation", &activation)
    try coder.flag("\(module).drops_class", &dropsClass)
  }

  package func check() throws(SquintError) {
    try checkHeads(heads, width: width, module: module)
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
  }

  // MARK: Tensors

  package struct Layer: Sendable {
    package let attentionNorm: TensorSpecification
    package let attention: EncoderAttentionTensors
    /// Over the whole width; absent where queries and keys are not normalized.
    package let qNorm, kNorm: TensorSpecification
    package let ffnNorm: TensorSpecification
    package let up, down: MatrixSpecification

    package var tensors: [TensorSpecification] {
      [attentionNorm] + attention.tensors + [qNorm, kNorm, ffnNorm] + up.tensors + down.tensors
    }
  }

  /// Columns: channel, then row, then column of the pixel.
  package var patches: MatrixSpecification {
    MatrixSpecification("\(module).patch", rows: width, columns: 3 * patch * patch)
  }

  package var classToken: TensorSpecification { .vector("\(module).class", width) }

  package var positionTable: TensorSpecification {
    TensorSpecification("\(module).positions", [grid * grid + 1, width], .vector)
  }

  package func layer(_ index: Int) -> Layer {
    let prefix = "\(module).\(index)"
    return Layer(
      attentionNorm: .vector("\(prefix).attention.norm", width),
      attention: EncoderAttentionTensors("\(prefix).attention", width: width),
      qNorm: .vector("\(prefix).attention.q_norm", width, isOptional: true),
      kNorm: .vector("\(prefix).attention.k_norm", width, isOptional: true),
      ffnNorm: .vector("\(prefix).ffn.norm", width),
      up: MatrixSpecification("\(prefix).ffn.up", rows: ffnWidth, columns: width),
      down: MatrixSpecification("\(prefix).ffn.down", rows: width, columns: ffnWidth))
  }

  /// Of the features; absent where they are not normalized.
  package var norm: TensorSpecification { .vector("\(module).norm", width, isOptional: true) }

  package var tensors: [TensorSpecification] {
    patches.tensors + [classToken, positionTable] + (0..<layers).flatMap { layer($0).tensors } + [norm]
  }
}
