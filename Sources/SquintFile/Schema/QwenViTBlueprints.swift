/// What the towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL have in common: images of any size, patches that turn with their row and their
/// column (formats/vision.md).
package protocol QwenViTBlueprint: NamedBlueprint where Graph == EncoderGraph {
  /// The family in the checkpoint's words; for people.
  var architecture: String { get set }
  var layers: Int { get set }
  var width: Int { get set }
  var ffnWidth: Int { get set }
  var heads: Int { get set }
  /// The side of a patch in pixels.
  var patch: Int { get set }
  /// The side of the squares of patches that become one row behind the projector: both sides of an image are multiples of it.
  var merge: Int { get set }
  var normEpsilon: Double { get set }
  /// [head_width / 4], radians per row for the first half of a head's pairs, and per column for the second.
  var ropeFrequencies: [Float] { get set }
  /// Whether it can take two frames: whether there is the tensor `frames`.
  var hasFrames: Bool { get set }
}

extension QwenViTBlueprint {
  package mutating func note(_ file: ModelFile) { hasFrames = file.tensor(frames.name) != nil }

  /// The keys that all of them have.
  package mutating func codeSizes(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 0...4096)
    try coder.int("\(module).width", &width, in: 1...1 << 20)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).heads", &heads, in: 1...max(width, 1))
    try coder.int("\(module).patch", &patch, in: 1...1 << 12)
    try coder.int("\(module).merge", &merge, in: 1...64)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.numbers("\(module).rope_frequencies", &ropeFrequencies)
  }

  /// Checks those keys.
  package func checkSizes() throws(SquintError) {
    try checkHeads(heads, width: width, module: module)
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
    let headWidth = width / heads
    guard headWidth % 4 == 0, ropeFrequencies.count == headWidth / 4, ropeFrequencies.allSatisfy(\.isFinite) else {
      throw SquintError(
        .badData,
        "metadata \(module).rope_frequencies must be a finite number for each 4 of a head's \(headWidth); convert the model "
          + "again")
    }
  }

  /// Of a still picture, whose two frames are the same. Columns: channel, then row, then column of the pixel.
  package var patches: MatrixSpecification {
    MatrixSpecification("\(module).patch", rows: width, columns: 3 * patch * patch)
  }

  /// Of two frames of a video. Columns: channel, then frame, then row, then column of the pixel. Its bias is that of `patches`.
  package var frames: MatrixSpecification {
    MatrixSpecification(
      "\(module).frames", rows: width, columns: 6 * patch * patch, mayHaveBias: false, isOptional: true)
  }

  package func attention(_ layer: Int) -> EncoderAttentionTensors {
    EncoderAttentionTensors("\(module).\(layer).attention", width: width)
  }
}

/// Checks that `heads` heads cut `width`.
func checkHeads(_ heads: Int, width: Int, module: String) throws(SquintError) {
  guard width % heads == 0, (1...widestHead).contains(width / heads) else {
    throw SquintError(
      .badData,
      "metadata \(module).heads is \(heads); it must cut the width, \(width), into heads of 1 to \(widestHead); "
        + "convert the model again")
  }
}

// MARK: Qwen2-VL

/// The graph `qwen2vl`: LayerNorm, two matrices with an activation between them.
package struct Qwen2ViTBlueprint: QwenViTBlueprint, PreNormBlueprint {
  package static var graph: EncoderGraph { .qwen2vl }
  package let module: String
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  package var patch = 0
  package var merge = 0
  package var normEpsilon = 0.0
  package var ropeFrequencies: [Float] = []
  package var hasFrames = false
  package var activation = Activation.quickGELU

  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try coder.choice("\(module).activation", &activation)
  }

  package func check() throws(SquintError) { try checkSizes() }

  /// Of the rows that are the features: the merger's.
  package var norm: NormSpecification { NormSpecification("\(module).norm", width) }

  package var tensors: [TensorSpecification] {
    patches.tensors + frames.tensors + (0..<layers).flatMap { layer($0).tensors } + norm.tensors
  }
}

// MARK: Qwen2.5-VL

/// The graph `qwen2_5vl`: RMSNorm, SwiGLU, and in most layers attention within windows.
package struct Qwen25ViTBlueprint: QwenViTBlueprint {
  package static var graph: EncoderGraph { .qwen25vl }
  package let module: String
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  package var patch = 0
  package var merge = 0
  package var normEpsilon = 0.0
  package var ropeFrequencies: [Float] = []
  package var hasFrames = false
  /// The side of a window, in squares of `merge` × `merge` patches.
  package var window = 0
  /// The layers in which a patch sees all others, ascending.
  package var fullLayers: [Int]?

  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try coder.int("\(module).window", &window, in: 1...1 << 12)
    try coder.ints("\(module).full_layers", &fullLayers)
  }

  package func check() throws(SquintError) {
    try checkSizes()
    try checkLayers(fullLayers ?? [], layers: layers, key: "\(module).full_layers")
  }

  /// [layers]: whether a patch sees the patches of its window alone.
  package var isWindowed: [Bool] { layerMask(fullLayers ?? [], layers: layers).map { !$0 } }

  package struct Layer: Sendable {
    package let attentionNorm: TensorSpecification
    package let attention: EncoderAttentionTensors
    package let ffnNorm: TensorSpecification
    package let ffn: GatedFFNTensors

    package var tensors: [TensorSpecification] {
      [attentionNorm] + attention.tensors + [ffnNorm] + ffn.tensors
    }
  }

  package func layer(_ index: Int) -> Layer {
    Layer(
      attentionNorm: .vector("\(module).\(index).attention.norm", width), attention: attention(index),
      ffnNorm: .vector("\(module).\(index).ffn.norm", width),
      ffn: GatedFFNTensors("\(module).\(index).ffn", width: width, innerWidth: ffnWidth))
  }

  /// Of the rows that are the features: the merger's.
  package var norm: TensorSpecification { .vector("\(module).norm", width) }

  package var tensors: [TensorSpecification] {
    patches.tensors + frames.tensors + (0..<layers).flatMap { layer($0).tensors } + [norm]
  }
}

// MARK: Qwen3-VL

/// The graph `qwen3vl`: as Qwen2-VL's, with a table of positions that is resized beside the rotary ones, and features of earlier layers.
package struct Qwen3ViTBlueprint: QwenViTBlueprint, PreNormBlueprint {
  package static var graph: EncoderGraph { .qwen3vl }
  package let module: String
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  package var patch = 0
  package var merge = 0
  package var normEpsilon = 0.0
  package var ropeFrequencies: [Float] = []
  package var hasFrames = false
  package var activation = Activation.geluTanh
  /// The side of the grid that the table of positions is for.
  package var grid = 0
  /// After how many layers features are taken beside those behind the last layer, ascending; nil: none. They are not normalized, and
  /// come before those of the last layer in a row of features.
  package var deepLayers: [Int]?

  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try coder.choice("\(module).activation", &activation)
    try coder.int("\(module).grid", &grid, in: 1...1 << 12)
    try coder.ints("\(module).feature_layers", &deepLayers)
  }

  package func check() throws(SquintError) {
    try checkSizes()
    let taken = deepLayers ?? []
    guard taken.count < 64, taken.allSatisfy({ (1...max(layers, 1)).contains($0) }),
      zip(taken, taken.dropFirst()).allSatisfy({ $0 < $1 })
    else {
      throw SquintError(
        .badData,
        "metadata \(module).feature_layers must be at most 63 ascending numbers of 1 to \(layers); convert the model again"
      )
    }
  }

  /// [grid · grid, width]
  package var positionTable: TensorSpecification {
    TensorSpecification("\(module).positions", [grid * grid, width], .vector)
  }

  /// Of the rows that are the last features: the merger's.
  package var norm: NormSpecification { NormSpecification("\(module).norm", width) }

  package var tensors: [TensorSpecification] {
    patches.tensors + frames.tensors + [positionTable] + (0..<layers).flatMap { layer($0).tensors } + norm.tensors
  }
}
