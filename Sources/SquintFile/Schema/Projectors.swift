/// The graphs of projectors that there are: what `projector.NAME.graph` may say (formats/vision.md).
package enum ProjectorGraph: String, GraphName {
  /// Linear layers with an activation between two: LLaVA, Idefics3.
  case mlp
  /// One of them for each of several features: Qwen3-VL.
  case deepstack

  package static var usual: ProjectorGraph { .mlp }

  /// The blueprint of `module`, which has this graph.
  ///
  /// - Throws: `badData` where a key is missing or impossible.
  package func blueprint(_ file: ModelFile, module: String) throws(SquintError) -> any ModuleBlueprint {
    switch self {
    case .mlp: try MLPBlueprint(file, module: module)
    case .deepstack: try DeepstackBlueprint(file, module: module)
    }
  }
}

/// The graph `mlp`: linear layers, an activation between two, behind squares of patches side by side (formats/vision.md).
package struct MLPBlueprint: NamedBlueprint {
  package static var graph: ProjectorGraph { .mlp }
  /// What its keys and tensors begin with: `projector.image`.
  package let module: String
  /// What goes in, between the layers, and comes out.
  package var widths: [Int] = []
  /// The side of the squares of patches that become one row.
  package var shuffle = 1
  /// How many neighbouring rows of features become one row, side by side; what the last one lacks is zero.
  package var stack = 1
  /// Between two layers.
  package var activation = Activation.gelu
  /// Of the norm before the first layer.
  package var normEpsilon = 0.0
  /// Whether there is that norm: the tensor `norm`.
  package var hasNorm = false
  /// Whether there is the row that stands behind each row of a grid of tiles: the tensor `newline`.
  package var hasNewline = false

  package var layers: Int { max(widths.count - 1, 0) }

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func note(_ file: ModelFile) {
    hasNorm = file.tensor("\(module).norm") != nil
    hasNewline = file.tensor("\(module).newline") != nil
  }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    var all: [Int]? = widths
    try coder.ints("\(module).widths", &all)
    widths = all ?? []
    try coder.int("\(module).shuffle", &shuffle, in: 1...64, default: 1)
    try coder.int("\(module).stack", &stack, in: 1...64, default: 1)
    if layers > 1 { try coder.choice("\(module).activation", &activation) }
    if hasNorm { try coder.number("\(module).norm_epsilon", &normEpsilon) }
  }

  package func check() throws(SquintError) {
    guard (2...64).contains(widths.count), widths.allSatisfy({ (1...1 << 24).contains($0) }) else {
      throw SquintError(
        .badData,
        "metadata \(module).widths must be 2 to 64 numbers of 1 to \(grouped(1 << 24)); convert the model again")
    }
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
    guard shuffle == 1 || stack == 1 else {
      throw SquintError(
        .badData,
        "metadata \(module).shuffle is \(shuffle) and \(module).stack is \(stack), of which one must be 1; convert the model "
          + "again")
    }
  }

  // MARK: Tensors

  package var norm: NormSpecification { NormSpecification("\(module).norm", widths.first ?? 0, isOptional: true) }

  /// [the last of the widths]
  package var newline: TensorSpecification { .vector("\(module).newline", widths.last ?? 0, isOptional: true) }

  package func layer(_ index: Int) -> MatrixSpecification {
    MatrixSpecification("\(module).\(index)", rows: widths[index + 1], columns: widths[index])
  }

  package var tensors: [TensorSpecification] {
    (hasNorm ? norm.tensors : []) + (0..<layers).flatMap { layer($0).tensors } + (hasNewline ? [newline] : [])
  }
}
