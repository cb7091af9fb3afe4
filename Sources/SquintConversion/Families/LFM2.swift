import SquintFile

// LFM2 (Liquid AI, arXiv 2511.23404): short convolutions, and attention in a few layers between them.

extension DecoderFamily {
  /// configuration_lfm2.py, modeling_lfm2.py; llama.cpp's LLM_ARCH_LFM2
  static let lfm2 = DecoderFamily(
    name: "lfm2",
    huggingFace: HuggingFaceFacts(
      modelType: "lfm2", wholes: ["lfm2_vl"], vocabulary: 65_536, width: 2560, ffnWidth: 12_288, heads: 32,
      keyValueHeads: 8, context: 128_000, normEpsilon: 1e-5, normEpsilonKey: "norm_eps", isTied: true,
      queryKeyValueBias: false, hasHeadNorm: true, statedFFNWidth: lfm2FFNWidth, names: .huggingFaceLFM2,
      layerStems: { convolutionNorms(of: $0, stem: { "model.layers.\($0).operator_norm" }) }, finish: finishLFM2),
    gguf: GGUFFacts(
      architecture: "lfm2", hasHeadNorm: true, hasLayersWithoutAttention: true, names: .ggufLFM2,
      layerStems: { convolutionNorms(of: $0, stem: { "blk.\($0).attn_norm" }) }, finish: finishLFM2))

  /// The norms of layers without attention, which are called as those with it.
  private static func convolutionNorms(
    of decoder: DecoderConfiguration, stem: (Int) -> String
  ) -> [(source: String, target: String)] {
    guard let graph = decoder.graph as? LFM2Graph else { return [] }
    return (0..<decoder.layers).filter { !graph.attentionLayers.contains($0) }.map {
      (stem($0), "\($0).convolution.norm")
    }
  }

  /// What `Lfm2MLP` makes of the width that the configuration says.
  @Sendable private static func lfm2FFNWidth(_ reader: ConfigurationReader) throws(SquintError) -> Int? {
    let stated = either(try reader.size("block_ff_dim"), try reader.size("intermediate_size")) ?? 12_288
    guard try reader.flag("block_auto_adjust_ff_dim") ?? true else { return stated }
    let adjusted = Int(2 * Double(stated) / 3)
    let key = "block_ffn_dim_multiplier"
    // In Python an absent key means the class's default, null means none.
    guard let factor = try reader.number(key) ?? (reader.isAbsent(key) ? 1 : nil) else { return adjusted }
    guard factor > 0, factor <= 1024 else {
      throw .badData(reader.place, "\(key) \(factor) is not between 0 and 1,024")
    }
    let multiple = try reader.size("block_multiple_of") ?? 256
    return (Int(factor * Double(adjusted)) + multiple - 1) / multiple * multiple
  }

  @Sendable private static func finishLFM2(
    _ decoder: inout DecoderConfiguration, _ reader: ConfigurationReader, _ notes: inout [String]
  ) throws(SquintError) {
    // The family's own word for it comes first.
    if let isTied = try reader.flag("tie_embedding") { decoder.isTied = isTied }
    let layers: [Int]
    if let types = try reader.texts("layer_types") {
      guard types.count == decoder.layers else {
        throw .badData(reader.place, "layer_types names \(types.count) layers of \(decoder.layers)")
      }
      if let other = types.first(where: { !["conv", "full_attention"].contains($0) }) {
        throw .badData(reader.place, "layer_types: \"\(printable(other))\" is not supported")
      }
      layers = types.indices.filter { types[$0] != "conv" }
    } else {
      layers = try reader.integers("full_attn_idxs").map(Set.init).map { $0.sorted() } ?? Array(0..<decoder.layers)
    }
    decoder.rotary = try HuggingFaceRotary.uniform(
      reader, headWidth: decoder.headWidth, context: decoder.context, layerTypes: nil, base: 1_000_000, notes: &notes)
    let bias: TensorPresence = try reader.flag("conv_bias") ?? false ? .required : .absent
    try decoder.setLFM2(
      attentionLayers: layers, convolutionWidth: reader.size("conv_L_cache") ?? 3, bias: bias, place: reader.place)
  }

  @Sendable private static func finishLFM2(
    _ decoder: inout DecoderConfiguration, _ reader: GGUFDecoderReader
  ) throws(SquintError) {
    let metadata = reader.metadata
    let key = reader.key("attention.head_count_kv")
    var layers = Array(0..<decoder.layers)
    if let counts = metadata.values[key]?.integers {
      guard counts.count == decoder.layers else {
        throw .badData(metadata.place, "metadata \(key) is no list of \(decoder.layers) numbers")
      }
      layers = layers.filter { counts[$0] != 0 }
    }
    guard try metadata.flag(reader.key("attention.causal")) != false else {
      throw .badData(metadata.place, "metadata \(reader.key("attention.causal")) is false: this model does not write")
    }
    guard let width = try metadata.size(reader.key("shortconv.l_cache")) else {
      throw .badData(metadata.place, "metadata \(reader.key("shortconv.l_cache")) is missing")
    }
    decoder.rotary = try reader.rotary(headWidth: decoder.headWidth, context: decoder.context)
    try decoder.setLFM2(
      attentionLayers: layers, convolutionWidth: width, bias: .ifPresent, place: metadata.place)
  }
}

/// The graph `lfm2`.
package struct LFM2Graph: GraphSettings {
  /// Ascending; the others have a convolution.
  package var attentionLayers: [Int]
  /// The positions that a convolution sees.
  package var convolutionWidth: Int

  package func blueprint(of configuration: DecoderConfiguration) -> any DecoderBlueprint {
    var blueprint = LFM2Blueprint(configuration)
    blueprint.ffnWidth = configuration.ffnWidth
    blueprint.attention = AttentionBlueprint(configuration)
    blueprint.normEpsilon = configuration.normEpsilon
    blueprint.attentionLayers = attentionLayers
    blueprint.convolutionWidth = convolutionWidth
    blueprint.ropeFrequencies = configuration.rotary.frequencies
    return blueprint
  }
}

extension DecoderConfiguration {
  /// Sets what the family has of its own, whichever words the configuration has.
  ///
  /// - Parameter bias: whether convolutions have biases.
  fileprivate mutating func setLFM2(
    attentionLayers: [Int], convolutionWidth: Int, bias: TensorPresence, place: String
  ) throws(SquintError) {
    guard attentionLayers.allSatisfy({ (0..<layers).contains($0) }) else {
      throw .badData(place, "attention in the layers \(attentionLayers) of \(layers) is not supported")
    }
    guard (1...64).contains(convolutionWidth) else {
      throw .badData(place, "convolutions over \(grouped(convolutionWidth)) positions are not supported; 1 to 64 are")
    }
    guard rotary.magnitude == 1 else {
      throw .badData(place, "a rotary scaling with an attention factor is not supported for LFM2")
    }
    for name in ["in", "kernel", "out"] { optionals.others["convolution.\(name).bias"] = bias }
    graph = LFM2Graph(attentionLayers: attentionLayers, convolutionWidth: convolutionWidth)
  }
}

extension NameMap {
  /// modeling_lfm2.py
  static let huggingFaceLFM2 = NameMap.huggingFaceDecoder(
    layer: [
      ("operator_norm", "attention.norm"),
      ("self_attn.q_proj", "attention.q"),
      ("self_attn.k_proj", "attention.k"),
      ("self_attn.v_proj", "attention.v"),
      ("self_attn.q_layernorm", "attention.q_norm"),
      ("self_attn.k_layernorm", "attention.k_norm"),
      ("self_attn.out_proj", "attention.o"),
      ("conv.in_proj", "convolution.in"),
      ("conv.conv", "convolution.kernel"),
      ("conv.out_proj", "convolution.out"),
      ("ffn_norm", "ffn.norm"),
      ("feed_forward.w1", "ffn.gate"),
      ("feed_forward.w3", "ffn.up"),
      ("feed_forward.w2", "ffn.down"),
    ], norm: "embedding_norm")

  /// The norm before the head is called as if it were behind the embedding.
  static let ggufLFM2 = NameMap.ggufDecoder(
    layer: [
      ("shortconv.in_proj", "convolution.in"),
      ("shortconv.conv", "convolution.kernel"),
      ("shortconv.out_proj", "convolution.out"),
    ], norm: "token_embd_norm")
}
