import SquintFile

// Qwen3-MoE (arXiv 2505.09388), the decoder of Intern-S1, too: Qwen3 whose layers have a choice of experts.

extension DecoderFamily {
  /// configuration_qwen3_moe.py, modeling_qwen3_moe.py; llama.cpp's LLM_ARCH_QWEN3MOE
  static let qwen3MoE = DecoderFamily(
    name: "qwen3_moe",
    huggingFace: HuggingFaceFacts(
      modelType: "qwen3_moe", vocabulary: 151_936, width: 2048, ffnWidth: 6144, layers: 24, keyValueHeads: 4,
      context: 32768, hasHeadNorm: true, names: .huggingFaceQwen3MoE
    ) { (decoder, reader, notes) throws(SquintError) in
      let isWindowed = try reader.flag("use_sliding_window") ?? false
      let window = try reader.size("sliding_window") ?? (reader.isAbsent("sliding_window") ? 4096 : 0)
      try decoder.finishLlama(reader, window: (isWindowed ? window : 0, nil), notes: &notes)
      try decoder.setExperts(reader, usual: usualExperts)
    },
    gguf: GGUFFacts(architecture: "qwen3moe", hasHeadNorm: true, hasExperts: true, names: .ggufQwen3MoE) {
      (decoder, reader) throws(SquintError) in
      try decoder.finishLlama(reader)
      try decoder.setExperts(reader)
    })

  private static let usualExperts: ExpertsBlueprint = {
    var experts = ExpertsBlueprint()
    (experts.count, experts.chosen, experts.width) = (128, 8, 768)
    return experts
  }()
}

/// The graph `qwen3moe`.
package struct Qwen3MoEGraph: GraphSettings {
  package var experts: ExpertsBlueprint
  /// Ascending; the others have experts.
  package var denseLayers: [Int]
  /// [rope_width / 2]: the axis that each pair turns by; nil: all by the first.
  package var ropeAxes: [Int]?
  /// Whether tensors of all experts have rows and columns the other way round, where their shape does not tell.
  package var isTransposed = false

  package init(experts: ExpertsBlueprint, denseLayers: [Int]) {
    self.experts = experts
    self.denseLayers = denseLayers
  }

  package func blueprint(of configuration: DecoderConfiguration) -> any DecoderBlueprint {
    var blueprint = Qwen3MoEBlueprint(configuration)
    blueprint.attention = AttentionBlueprint(configuration)
    blueprint.experts = experts
    if !denseLayers.isEmpty {
      blueprint.denseLayers = denseLayers
      blueprint.ffnWidth = configuration.ffnWidth
    }
    blueprint.normEpsilon = configuration.normEpsilon
    blueprint.window = configuration.window
    blueprint.ropeFrequencies = configuration.rotary.frequencies
    blueprint.ropeMagnitude = configuration.rotary.magnitude
    blueprint.ropeAxes = ropeAxes
    return blueprint
  }

  /// The experts of each layer, as a tensor for each matrix, as one for the gates and ups of all experts and one for their downs
  /// (transformers 5), or as one for each of the three (GGUF).
  package func stacks(of configuration: DecoderConfiguration) -> [String: MatrixStack] {
    let (width, inner, count) = (configuration.width, experts.width, experts.count)
    let (innerRows, outerRows) = (ExpertsTensors.rows(inner), ExpertsTensors.rows(width))
    var stacks: [String: MatrixStack] = [:]
    for layer in 0..<configuration.layers where !denseLayers.contains(layer) {
      let prefix = "decoder.\(layer).ffn"
      let tensors = ExpertsTensors(prefix, width: width, experts)
      func gate(_ expert: Int) -> Range<Int> { rows(2 * expert * innerRows, inner) }
      func up(_ expert: Int) -> Range<Int> { rows((2 * expert + 1) * innerRows, inner) }
      func rows(_ first: Int, _ count: Int) -> Range<Int> { first..<first + count }
      let all = 0..<count
      stacks[tensors.gateUp.name] = MatrixStack(
        [
          all.flatMap { expert in
            [
              .init("\(prefix).expert.\(expert).gate", rows: gate(expert), shape: [inner, width]),
              .init("\(prefix).expert.\(expert).up", rows: up(expert), shape: [inner, width]),
            ]
          },
          all.flatMap { expert in
            [gate(expert), up(expert)].enumerated().map { half, rows in
              .init(
                "\(prefix).all.gate_up", rows: rows, matrix: expert, firstRow: half * inner,
                shape: [count, 2 * inner, width])
            }
          },
          all.flatMap { expert in
            [
              .init("\(prefix).all.gate", rows: gate(expert), matrix: expert, shape: [count, inner, width]),
              .init("\(prefix).all.up", rows: up(expert), matrix: expert, shape: [count, inner, width]),
            ]
          },
        ], isTransposed: isTransposed)
      stacks[tensors.down.name] = MatrixStack(
        [
          all.map { expert in
            .init("\(prefix).expert.\(expert).down", rows: rows(expert * outerRows, width), shape: [width, inner])
          },
          all.map { expert in
            .init(
              "\(prefix).all.down", rows: rows(expert * outerRows, width), matrix: expert,
              shape: [count, width, inner])
          },
        ], isTransposed: isTransposed)
    }
    return stacks
  }
}

extension DecoderConfiguration {
  /// Reads which layers have experts, and what these are.
  ///
  /// - Parameters:
  ///   - usual: what the configuration's class assumes where it is silent.
  ///   - axes: by which each pair turns; nil: all by the first.
  ///   - isTransposed: whether the family keeps the experts of a layer in two tensors with rows and columns the other way round
  ///     (Qwen3-VL-MoE, whose weights are always normalized).
  mutating func setExperts(
    _ reader: ConfigurationReader, usual: ExpertsBlueprint, axes: [Int]? = nil, isTransposed: Bool = false
  ) throws(SquintError) {
    var experts = usual
    // transformers 5 calls them by another name, too.
    experts.count = try either(reader.count("num_experts"), reader.count("num_local_experts")) ?? usual.count
    experts.chosen = try reader.size("num_experts_per_tok") ?? usual.chosen
    experts.width = try reader.size("moe_intermediate_size") ?? usual.width
    let normalizes = try reader.flag("norm_topk_prob") ?? usual.areNormalized
    experts.areNormalized = isTransposed || normalizes
    let step = try reader.size("decoder_sparse_step") ?? 1
    let chosen = Set(try reader.integers("mlp_only_layers") ?? [])
    let isSparse = experts.count > 0
    try setExperts(
      experts,
      denseLayers: (0..<layers).filter { !isSparse || chosen.contains($0) || ($0 + 1) % step != 0 },
      axes: axes, isTransposed: isTransposed, place: reader.place)
  }

  /// The same of a GGUF file, whose tensors say which layers have experts.
  mutating func setExperts(_ reader: GGUFDecoderReader, axes: [Int]? = nil) throws(SquintError) {
    func size(_ name: String) throws(SquintError) -> Int {
      guard let value = try reader.metadata.size(reader.key(name)) else {
        throw .badData(reader.metadata.place, "metadata \(reader.key(name)) is missing")
      }
      return value
    }
    var experts = ExpertsBlueprint()
    experts.count = try size("expert_count")
    experts.chosen = try size("expert_used_count")
    experts.width = try size("expert_feed_forward_length")
    // llama.cpp's qwen3moe always divides by the sum.
    experts.areNormalized = try reader.metadata.flag(reader.key("expert_weights_norm")) ?? true
    let scale = try reader.metadata.number(reader.key("expert_weights_scale")) ?? 1
    guard scale == 0 || scale == 1 else {
      throw .badData(reader.metadata.place, "metadata \(reader.key("expert_weights_scale")) is \(scale); only 1 is supported")
    }
    try setExperts(
      experts, denseLayers: (0..<layers).filter { reader.source.tensor(named: "blk.\($0).ffn_gate.weight") != nil },
      axes: axes, isTransposed: false, place: reader.metadata.place)
  }

  private mutating func setExperts(
    _ experts: ExpertsBlueprint, denseLayers: [Int], axes: [Int]?, isTransposed: Bool, place: String
  ) throws(SquintError) {
    var experts = experts
    // Then the other numbers are of no use, and nothing has that many.
    if denseLayers.count == layers { (experts.count, experts.chosen) = (max(experts.count, 1), 1) }
    guard (1...4096).contains(experts.count), (1...experts.count).contains(experts.chosen) else {
      throw .badData(
        place,
        "\(grouped(experts.chosen)) of \(grouped(experts.count)) experts for a token are not supported; 1 to all of up to 4,096 are")
    }
    guard experts.width <= 1 << 24 else {
      throw .badData(place, "experts \(grouped(experts.width)) wide are not supported")
    }
    var graph = Qwen3MoEGraph(experts: experts, denseLayers: denseLayers)
    graph.ropeAxes = axes
    graph.isTransposed = isTransposed
    self.graph = graph
  }
}

extension NameMap {
  /// modeling_qwen3_moe.py, and as its tensors were called before transformers 5.
  static let huggingFaceQwen3MoE = NameMap.huggingFaceDecoder(
    layer: [
      ("input_layernorm", "attention.norm"),
      ("self_attn.q_proj", "attention.q"),
      ("self_attn.k_proj", "attention.k"),
      ("self_attn.v_proj", "attention.v"),
      ("self_attn.q_norm", "attention.q_norm"),
      ("self_attn.k_norm", "attention.k_norm"),
      ("self_attn.o_proj", "attention.o"),
      ("post_attention_layernorm", "ffn.norm"),
      ("mlp.experts.*.gate_proj", "ffn.expert.*.gate"),
      ("mlp.experts.*.up_proj", "ffn.expert.*.up"),
      ("mlp.experts.*.down_proj", "ffn.expert.*.down"),
      ("mlp.experts.gate_up_proj", "ffn.all.gate_up"),
      ("mlp.experts.down_proj", "ffn.all.down"),
      ("mlp.gate", "ffn.router"),
      ("mlp.gate_proj", "ffn.gate"),
      ("mlp.up_proj", "ffn.up"),
      ("mlp.down_proj", "ffn.down"),
    ],
    names: [
      ("mlp.experts.gate_up_proj", "ffn.all.gate_up"),
      ("mlp.experts.down_proj", "ffn.all.down"),
    ], norm: "norm")

  /// The same in GGUF.
  static let ggufQwen3MoE = NameMap.ggufDecoder(layer: [
    ("ffn_gate_inp", "ffn.router"),
    ("ffn_gate_exps", "ffn.all.gate"),
    ("ffn_up_exps", "ffn.all.up"),
    ("ffn_gate_up_exps", "ffn.all.gate_up"),
    ("ffn_down_exps", "ffn.all.down"),
  ])
}
