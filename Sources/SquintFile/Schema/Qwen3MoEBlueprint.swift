/// The graph `qwen3moe`: as `llama` with normalized queries and keys, where the feed-forward network of most layers is a choice of a
/// few experts (formats/decoder.md).
package struct Qwen3MoEBlueprint: DecoderBlueprint {
  package static var graph: DecoderGraph { .qwen3moe }
  package var architecture = ""
  package var vocabulary = 0
  package var context = 0
  package var layers = 0
  package var width = 0
  package var attention = AttentionBlueprint()
  package var experts = ExpertsBlueprint()
  /// The layers that have one network instead of experts; nil: none.
  package var denseLayers: [Int]?
  /// The width of their network.
  package var ffnWidth = 0
  package var normEpsilon = 0.0
  /// A position attends to this many positions at most; 0 for all.
  package var window = 0
  /// [rope_width / 2], radians per position.
  package var ropeFrequencies: [Float] = []
  package var ropeMagnitude = 1.0
  /// [rope_width / 2]: the axis of a row's position that each pair turns by, 0, 1 or 2; nil: all by axis 0.
  package var ropeAxes: [Int]?
  package var ropeScaling = ""

  package init() {}

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try codeSizes(&coder)
    try attention.code(&coder)
    try experts.code(&coder)
    try coder.ints("decoder.dense_layers", &denseLayers)
    try coder.int("decoder.ffn_width", &ffnWidth, in: 0...1 << 24, default: 0)
    try coder.number("decoder.norm_epsilon", &normEpsilon)
    try coder.int("decoder.window", &window, in: 0...Int(Int32.max), default: 0)
    try coder.numbers("decoder.rope_frequencies", &ropeFrequencies)
    try coder.number("decoder.rope_magnitude", &ropeMagnitude, default: 1)
    try coder.ints("decoder.rope_axes", &ropeAxes)
    try coder.text("decoder.rope_scaling", &ropeScaling, default: "")
  }

  package func check() throws(SquintError) {
    try attention.check()
    try experts.check()
    try checkLayers(denseLayers ?? [], layers: layers, key: "decoder.dense_layers")
    guard ffnWidth > 0 || denseLayers?.isEmpty ?? true else {
      throw SquintError(
        .badData,
        "metadata decoder.ffn_width is missing, and decoder.dense_layers names layers; convert the model again")
    }
    try checkEpsilon(normEpsilon, key: "decoder.norm_epsilon")
    try attention.check(frequencies: ropeFrequencies, key: "decoder.rope_frequencies")
    try checkAxes(ropeAxes, pairs: ropeFrequencies.count, key: "decoder.rope_axes")
  }

  /// [layers]: whether a layer has one network instead of experts.
  package var isDense: [Bool] { layerMask(denseLayers ?? [], layers: layers) }

  // MARK: Tensors

  package enum Network: Sendable {
    case dense(GatedFFNTensors)
    case experts(ExpertsTensors)

    package var tensors: [TensorSpecification] {
      switch self {
      case .dense(let tensors): tensors.tensors
      case .experts(let tensors): tensors.tensors
      }
    }
  }

  package struct Layer: Sendable {
    package let attentionNorm: TensorSpecification
    package let attention: AttentionTensors
    package let ffnNorm: TensorSpecification
    package let network: Network

    package var tensors: [TensorSpecification] { [attentionNorm] + attention.tensors + [ffnNorm] + network.tensors }
  }

  package func layer(_ index: Int, isDense: Bool) -> Layer {
    let prefix = "decoder.\(index)"
    return Layer(
      attentionNorm: .vector("\(prefix).attention.norm", width),
      attention: AttentionTensors("\(prefix).attention", width: width, attention, isHeadNormOptional: false),
      ffnNorm: .vector("\(prefix).ffn.norm", width),
      network: isDense
        ? .dense(GatedFFNTensors("\(prefix).ffn", width: width, innerWidth: ffnWidth))
        : .experts(ExpertsTensors("\(prefix).ffn", width: width, experts)))
  }

  package var expertTensors: [ExpertsTensors] {
    isDense.enumerated().filter { !$0.element }.map {
      ExpertsTensors("decoder.\($0.offset).ffn", width: width, experts)
    }
  }

  package var tensors: [TensorSpecification] {
    embedding.tensors + isDense.enumerated().flatMap { layer($0, isDense: $1).tensors } + [norm] + head.tensors
  }
}

/// The experts of a layer: gated feed-forward networks, of which each row goes through a few.
package struct ExpertsBlueprint: Equatable, Sendable {
  package var count = 0
  /// How many of them a row goes through.
  package var chosen = 0
  /// The inner width of one.
  package var width = 0
  /// Whether the weights of the chosen ones are divided by their sum.
  package var areNormalized = false

  package init() {}

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.int("decoder.experts", &count, in: 1...4096)
    try coder.int("decoder.experts_per_token", &chosen, in: 1...4096)
    try coder.int("decoder.expert_width", &width, in: 1...1 << 24)
    try coder.flag("decoder.normalizes_experts", &areNormalized)
  }

  package func check() throws(SquintError) {
    guard chosen <= count else {
      throw SquintError(.badData, "metadata decoder.experts_per_token is \(chosen), and there are \(count) experts")
    }
  }
}

/// The tensors of a choice of experts in one layer, behind `prefix`. The matrices of all experts are in two tensors, one under the
/// other: each of a whole number of panels, the rows that this takes beyond its own being zero.
package struct ExpertsTensors: Sendable {
  /// [experts, width], in f32 whatever the matrices are in.
  package let router: TensorSpecification
  package let experts: ExpertsBlueprint
  /// Of each expert its gate [expert_width, width], and then its up [expert_width, width].
  package let gateUp: MatrixSpecification
  /// Of each expert its down [width, expert_width].
  package let down: MatrixSpecification

  package init(_ prefix: String, width: Int, _ experts: ExpertsBlueprint) {
    self.experts = experts
    router = TensorSpecification("\(prefix).router", [experts.count, width], .vector)
    gateUp = MatrixSpecification(
      "\(prefix).experts.gate_up", rows: experts.count * 2 * Self.rows(experts.width), columns: width,
      mayHaveBias: false)
    down = MatrixSpecification(
      "\(prefix).experts.down", rows: experts.count * Self.rows(width), columns: experts.width, mayHaveBias: false)
  }

  /// The rows that a matrix of `rows` rows takes.
  package static func rows(_ rows: Int) -> Int {
    (rows + PanelLayout.rowsPerPanel - 1) / PanelLayout.rowsPerPanel * PanelLayout.rowsPerPanel
  }

  // The experts come last, so that what every row needs of a layer lies together.
  package var tensors: [TensorSpecification] { [router] + gateUp.tensors + down.tensors }
}
