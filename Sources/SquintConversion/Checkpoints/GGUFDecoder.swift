import SquintFile

extension DecoderConfiguration {
  /// Reads the metadata of a GGUF text model (llama.cpp, gguf-py/gguf/constants.py; defaults as in
  /// llama-model.cpp, `load_hparams`).
  ///
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  package init(gguf source: GGUFSource, place: String) throws(SquintError) {
    let metadata = GGUFMetadata(values: source.metadata, place: place)
    let architecture = try metadata.text("general.architecture") ?? ""
    guard let family = DecoderFamily.named(gguf: architecture), let facts = family.gguf else {
      let known = Families.decoders.compactMap(\.gguf?.architecture).joined(separator: ", ")
      throw .badData(
        place, "general.architecture \"\(printable(architecture))\" is not supported; known are \(known)")
    }
    self.architecture = family.name
    rotary = RotaryFrequencies(width: 0, base: 1)
    func key(_ name: String) -> String { "\(architecture).\(name)" }
    func size(_ name: String, atMost most: Int = largest) throws(SquintError) -> Int {
      guard let value = try metadata.size(key(name), atMost: most) else {
        throw .badData(place, "metadata \(key(name)) is missing")
      }
      return value
    }
    let largest = Self.largestDimension

    let experts = try metadata.count(key("expert_count")) ?? 0
    guard experts == 0 || facts.hasExperts else {
      throw .badData(place, "a mixture of experts is not supported")
    }
    layers = try size("block_count", atMost: Self.mostLayers)
    context = try size("context_length")
    width = try size("embedding_length")
    func uniformSize(_ name: String) throws(SquintError) -> Int {
      guard let value = try metadata.uniformSize(key(name)) else {
        throw .badData(place, "metadata \(key(name)) is missing")
      }
      return value
    }
    // Where all layers have experts, it may be missing.
    ffnWidth =
      facts.hasExperts
      ? try metadata.uniformSize(key("feed_forward_length")) ?? 0 : try uniformSize("feed_forward_length")
    heads = try uniformSize("attention.head_count")
    keyValueHeads =
      try metadata.uniformSize(
        key("attention.head_count_kv"), skipsZeros: facts.hasLayersWithoutAttention) ?? heads
    headWidth = try metadata.size(key("attention.key_length")) ?? width / heads
    guard headWidth > 0 else { throw .badData(place, "embedding_length \(width) is too small for \(heads) heads") }
    let valueWidth = try metadata.size(key("attention.value_length")) ?? width / heads
    guard valueWidth == headWidth else {
      throw .badData(place, "keys are \(headWidth) wide and values \(valueWidth); only equal widths are supported")
    }
    guard let epsilon = try metadata.number(key("attention.layer_norm_rms_epsilon")) else {
      throw .badData(place, "metadata \(key("attention.layer_norm_rms_epsilon")) is missing")
    }
    normEpsilon = epsilon

    // The embedding itself says how many tokens there are; `vocab_size` is optional and some files have it wrong.
    guard let embedding = source.tensor(named: "token_embd.weight"), embedding.shape.count == 2,
      (1...largest).contains(embedding.shape[0])
    else { throw .badData(place, "the matrix token_embd.weight is missing") }
    vocabulary = embedding.shape[0]
    isTied = source.tensor(named: "output.weight") == nil
    optionals.queryKeyValueBias = .ifPresent
    optionals.outputBias = .ifPresent
    optionals.ffnBias = .ifPresent
    let hasHeadNorm = facts.hasHeadNorm || source.tensor(named: "blk.0.attn_q_norm.weight") != nil
    optionals.headNorm = hasHeadNorm ? .required : .absent

    try facts.finish(&self, GGUFDecoderReader(metadata: metadata, source: source, architecture: architecture))
    try check(place: place)
  }
}

/// Reads what families of decoders have of their own in GGUF files.
struct GGUFDecoderReader {
  let metadata: GGUFMetadata
  let source: GGUFSource
  let architecture: String

  func key(_ name: String) -> String { "\(architecture).\(name)" }

  /// The layers that have the window, where a list says so; nil: there is none.
  func windowPattern(layers: Int) throws(SquintError) -> [Int]? {
    let key = key("attention.sliding_window_pattern")
    guard let pattern = metadata.values[key] else { return nil }
    guard let chosen = pattern.bools, chosen.count == layers else {
      throw .badData(metadata.place, "metadata \(key) is no list of \(layers) booleans")
    }
    return chosen.indices.filter { chosen[$0] }
  }

  /// The rules of llama.cpp: `rope.scaling.*` (llama-model.cpp), ggml's `rope_yarn`, and the divisors in
  /// `rope_freqs.weight`, which hold Llama 3.1's rule.
  func rotary(headWidth: Int, context: Int) throws(SquintError) -> RotaryFrequencies {
    let place = metadata.place
    func key(_ name: String) -> String { self.key("rope.\(name)") }
    let width = try metadata.size(key("dimension_count")) ?? headWidth
    guard width % 2 == 0, width <= headWidth else {
      throw .badData(place, "metadata \(key("dimension_count")): \(width) is odd or more than a head (\(headWidth))")
    }
    let base = try metadata.number(key("freq_base")) ?? 10_000
    guard base > 1 else { throw .badData(place, "metadata \(key("freq_base")) is \(base)") }
    let rule = try metadata.text(key("scaling.type")) ?? "linear"
    var factor =
      either(try metadata.number(key("scaling.factor")), try metadata.number(key("scale_linear"))) ?? 1
    // llama.cpp writes and reads a factor of zero as none.
    if factor == 0 { factor = 1 }
    guard factor > 0 else { throw .badData(place, "metadata \(key("scaling.factor")) is \(factor)") }

    var rotary: RotaryFrequencies
    switch rule {
    case "none": rotary = RotaryFrequencies(width: width, base: base)
    case "linear":
      rotary =
        factor == 1
        ? RotaryFrequencies(width: width, base: base) : RotaryFrequencies(linear: factor, width: width, base: base)
    case "yarn":
      let original = try metadata.size(key("scaling.original_context_length")) ?? context
      rotary = RotaryFrequencies(
        yarn: factor, attentionFactor: RotaryFrequencies.attentionFactor(factor), originalContext: Double(original),
        betaFast: try metadata.number(key("scaling.yarn_beta_fast")) ?? 32,
        betaSlow: try metadata.number(key("scaling.yarn_beta_slow")) ?? 1, truncate: true, width: width, base: base)
    default:
      throw .badData(
        place,
        "metadata \(key("scaling.type")) \"\(printable(rule))\" is not supported; known are none, linear, yarn")
    }
    rotary.magnitude *= try metadata.number(key("scaling.attn_factor")) ?? 1

    if let tensor = source.tensor(named: "rope_freqs.weight") {
      guard tensor.shape == [width / 2] else {
        throw .badData(place, "tensor rope_freqs.weight has shape \(tensor.shape), not [\(width / 2)]")
      }
      guard rule != "yarn" else {
        throw .badData(place, "rope_freqs.weight together with yarn is not supported")
      }
      for (j, divisor) in try source.read(tensor).enumerated() {
        guard divisor.isFinite, divisor > 0 else {
          throw .badData(place, "tensor rope_freqs.weight: number \(j) is \(divisor)")
        }
        rotary.frequencies[j] /= divisor
      }
      rotary.description += ", divided by the checkpoint's rope_freqs"
    }
    return rotary
  }
}
