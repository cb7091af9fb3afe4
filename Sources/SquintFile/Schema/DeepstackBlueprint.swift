/// The graph `deepstack`: an `mlp`, and one more for each of the encoder's earlier features, whose rows are added behind the decoder's
/// first layers (Qwen3-VL; formats/vision.md).
package struct DeepstackBlueprint: NamedBlueprint {
  package static var graph: ProjectorGraph { .deepstack }
  /// What its keys and tensors begin with: `projector.image`.
  package let module: String
  /// What goes in, between the layers, and comes out, of each of the MLPs.
  package var widths: [Int] = []
  /// The side of the squares of patches that become one row.
  package var shuffle = 1
  /// Between two layers.
  package var activation = Activation.gelu
  /// Of the norms before the first layers of those for earlier features.
  package var normEpsilon = 0.0
  /// How many earlier features there are; those of the first go behind the decoder's first layer.
  package var levels = 0

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    var all: [Int]? = widths
    try coder.ints("\(module).widths", &all)
    widths = all ?? []
    try coder.int("\(module).shuffle", &shuffle, in: 1...64, default: 1)
    try coder.choice("\(module).activation", &activation)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.int("\(module).levels", &levels, in: 1...63)
  }

  package func check() throws(SquintError) {
    try main.check()
    try level(0).check()
  }

  // MARK: Tensors

  /// The MLP for the features behind the encoder's last layer.
  package var main: MLPBlueprint {
    var mlp = MLPBlueprint(module: module)
    mlp.widths = widths
    mlp.shuffle = shuffle
    mlp.activation = activation
    return mlp
  }

  /// The MLP for the features that are added behind layer `index` of the decoder.
  package func level(_ index: Int) -> MLPBlueprint {
    var mlp = MLPBlueprint(module: "\(module).deep.\(index)")
    mlp.widths = widths
    mlp.shuffle = shuffle
    mlp.activation = activation
    mlp.normEpsilon = normEpsilon
    mlp.hasNorm = true
    return mlp
  }

  package var tensors: [TensorSpecification] {
    main.tensors + (0..<levels).flatMap { level($0).tensors }
  }
}
