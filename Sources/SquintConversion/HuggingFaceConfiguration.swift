import SquintFile

/// What a family's configuration class in transformers assumes where config.json is silent, and what its model has.
package struct HuggingFaceFamily: Sendable {
  /// `model_type` in config.json.
  package let modelType: String
  var vocabulary: Int
  var width = 4096
  var ffnWidth: Int
  var layers = 32
  var heads = 32
  /// nil: as many as query heads.
  var keyValueHeads: Int?
  /// nil: width / heads.
  var headWidth: Int?
  var context: Int
  var normEpsilon = 1e-6
  var isTied = false
  var windowRule: WindowRule
  /// Which layers have a bias whatever the configuration says; nil: `attention_bias` decides for all four matrices.
  var queryKeyValueBias: Bool?
  var hasFFNBias = false
  var hasHeadNorm = false

  enum WindowRule: Sendable {
    case none
    /// `sliding_window`, this many where the key is absent, in all layers.
    case everyLayer(Int)
    /// `sliding_window` in the layers that `layer_types` names, or from `max_window_layers` on, if
    /// `use_sliding_window`.
    case chosenLayers(window: Int, firstLayer: Int)
  }

  /// configuration_llama.py, configuration_mistral.py, configuration_qwen2.py, configuration_qwen3.py
  package static let all = [
    HuggingFaceFamily(
      modelType: "llama", vocabulary: 32000, ffnWidth: 11008, context: 2048, windowRule: .none, hasFFNBias: true),
    HuggingFaceFamily(
      modelType: "mistral", vocabulary: 32000, ffnWidth: 14336, keyValueHeads: 8, context: 131_072,
      windowRule: .everyLayer(4096), queryKeyValueBias: false),
    HuggingFaceFamily(
      modelType: "qwen2", vocabulary: 151_936, ffnWidth: 22016, keyValueHeads: 32, context: 32768,
      windowRule: .chosenLayers(window: 4096, firstLayer: 28), queryKeyValueBias: true),
    HuggingFaceFamily(
      modelType: "qwen3", vocabulary: 151_936, ffnWidth: 22016, keyValueHeads: 32, headWidth: 128, context: 32768,
      windowRule: .chosenLayers(window: 4096, firstLayer: 28), hasHeadNorm: true),
  ]
}

extension DecoderConfiguration {
  /// Reads config.json of a Hugging Face checkpoint; that of the decoder where it is one of several parts
  /// (`text_config`).
  ///
  /// - Parameters:
  ///   - json: the file's contents.
  ///   - family: the decoder's model_type, where the file's is that of a whole made of a decoder and other parts.
  ///   - place: its path, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  package init(huggingFace json: JSONValue, family named: String? = nil, place: String) throws(SquintError) {
    var notes: [String] = []
    try self.init(huggingFace: json, family: named, stored: nil, place: place, notes: &notes)
  }

  /// The same of a checkpoint with these tensors, which count where the file says something else.
  ///
  /// - Parameter notes: takes what is not as the file says.
  init(
    huggingFace json: JSONValue, family named: String? = nil, stored: StoredTensors?, place: String,
    notes: inout [String]
  ) throws(SquintError) {
    let inner = json["text_config"] ?? json
    let reader = ConfigurationReader(json: inner, outer: json, place: place)
    // A text_config without a model_type is a Llama's (configuration_llava.py, configuration_idefics3.py).
    let fallback = json["text_config"] == nil ? "" : "llama"
    let modelType = try either(named, reader.text("model_type")) ?? fallback
    guard let family = HuggingFaceFamily.all.first(where: { $0.modelType == modelType }) else {
      let known = HuggingFaceFamily.all.map(\.modelType).joined(separator: ", ")
      throw .badData(place, "model_type \"\(printable(modelType))\" is not supported; known are \(known)")
    }
    let activation = try reader.text("hidden_act") ?? "silu"
    // Two names of one function.
    guard activation == "silu" || activation == "swish" else {
      throw .badData(place, "hidden_act \"\(printable(activation))\" is not supported; \(modelType) models have silu")
    }
    architecture = modelType
    var settlement = Settlement(place: place)
    let embedding = stored?.matrix("embedding")
    vocabulary = settlement.settle(
      "vocab_size", said: try reader.size("vocab_size") ?? family.vocabulary, stored: embedding?.rows)
    width = settlement.settle(
      "hidden_size", said: try reader.size("hidden_size") ?? family.width, stored: embedding?.columns)
    ffnWidth = settlement.settle(
      "intermediate_size", said: try reader.size("intermediate_size") ?? family.ffnWidth,
      stored: stored?.matrix("0.ffn.gate")?.rows)
    let storedLayers = stored.map(\.layers).flatMap { (1...Self.mostLayers).contains($0) ? $0 : nil }
    layers = try reader.size("num_hidden_layers", atMost: Self.mostLayers) ?? storedLayers ?? family.layers
    let heads = try reader.size("num_attention_heads") ?? family.heads
    // In Python an absent key means the class's default, null means as many as query heads.
    let keyValueHeads =
      try reader.size("num_key_value_heads")
      ?? (reader.isAbsent("num_key_value_heads") ? family.keyValueHeads ?? heads : heads)
    let derivedHeadWidth = width / heads
    let headWidth =
      try reader.size("head_dim") ?? (reader.isAbsent("head_dim") ? family.headWidth : nil) ?? derivedHeadWidth
    guard headWidth > 0 else { throw .badData(place, "hidden_size \(width) is too small for \(heads) heads") }
    let said = HeadShape(heads: heads, keyValueHeads: keyValueHeads, width: headWidth)
    let shape = stored?.heads(said: said, isWidthSaid: reader.json["head_dim"] != nil)
    self.heads = settlement.settle("num_attention_heads", said: heads, stored: shape?.heads)
    self.keyValueHeads = settlement.settle("num_key_value_heads", said: keyValueHeads, stored: shape?.keyValueHeads)
    self.headWidth = settlement.settle("head_dim", said: headWidth, stored: shape?.width)
    notes += settlement.notes
    context = try reader.size("max_position_embeddings") ?? family.context
    normEpsilon = try reader.number("rms_norm_eps") ?? family.normEpsilon
    isTied = try Self.isTied(reader) ?? family.isTied

    let attentionBias = try reader.flag("attention_bias") ?? false
    optionals.queryKeyValueBias = family.queryKeyValueBias ?? attentionBias ? .required : .absent
    optionals.outputBias = family.queryKeyValueBias == nil && attentionBias ? .required : .absent
    let ffnBias = try reader.flag("mlp_bias") ?? false
    optionals.ffnBias = family.hasFFNBias && ffnBias ? .required : .absent
    optionals.headNorm = family.hasHeadNorm ? .required : .absent

    (window, windowLayers) = try Self.window(reader, rule: family.windowRule, layers: layers)
    let layerTypes = try reader.texts("layer_types")
    rotary = try Self.rotary(
      reader, headWidth: self.headWidth, context: context, layerTypes: layerTypes, notes: &notes)
    if let stored { try follow(stored, place: place, notes: &notes) }
    try check(place: place)
  }

  /// Whether the embedding serves as the head; nil where nothing says so.
  private static func isTied(_ reader: ConfigurationReader) throws(SquintError) -> Bool? {
    let inner = try reader.flag("tie_word_embeddings")
    let outer = try reader.outerFlag("tie_word_embeddings")
    // The class around the decoder decides in its own way (configuration_llava.py, `__post_init__`).
    switch reader.outer["model_type"]?.string {
    case "llava" where reader.outer["text_config"] != nil: return inner ?? false || outer ?? false
    case "idefics3", "smolvlm": return outer ?? false
    default: return either(inner, outer)
    }
  }

  private static func window(
    _ reader: ConfigurationReader, rule: HuggingFaceFamily.WindowRule, layers: Int
  ) throws(SquintError) -> (window: Int, layers: [Int]?) {
    let given = try reader.size("sliding_window")
    switch rule {
    case .none: return (0, nil)
    case .everyLayer(let window):
      return (given ?? (reader.isAbsent("sliding_window") ? window : 0), nil)
    case .chosenLayers(let window, let firstLayer):
      guard try reader.flag("use_sliding_window") ?? false else { return (0, nil) }
      let window = given ?? (reader.isAbsent("sliding_window") ? window : 0)
      guard window > 0 else { return (0, nil) }
      guard let types = try reader.texts("layer_types") else {
        let first = try reader.count("max_window_layers") ?? firstLayer
        return (window, Array(min(first, layers)..<layers))
      }
      guard types.count == layers else {
        throw .badData(reader.place, "layer_types names \(types.count) layers of \(layers)")
      }
      var chosen: [Int] = []
      for (layer, type) in types.enumerated() {
        switch type {
        case "sliding_attention": chosen.append(layer)
        case "full_attention": break
        default: throw .badData(reader.place, "layer_types: \"\(printable(type))\" is not supported")
        }
      }
      return (window, chosen)
    }
  }

  private static func rotary(
    _ reader: ConfigurationReader, headWidth: Int, context: Int, layerTypes: [String]?, notes: inout [String]
  ) throws(SquintError) -> RotaryFrequencies {
    let place = reader.place
    // transformers takes rope_scaling for rope_parameters where both are there.
    let scaling = reader.json["rope_scaling"].flatMap { $0.object?.count == 0 ? nil : $0 }
    let outer = scaling ?? reader.json["rope_parameters"]
    var settings = ConfigurationReader(json: outer ?? .object(JSONObject()), outer: reader.json, place: place)
    guard settings.json.object != nil else { throw .badData(place, "rope_parameters is not an object") }
    // Settings per layer type: this decoder has one set of frequencies, so those in use must be the same.
    let used = Set(layerTypes ?? ["full_attention", "sliding_attention"])
    let nested = used.sorted().compactMap { type in settings.json[type] }.filter { $0.object != nil }
    if let first = nested.first {
      guard nested.allSatisfy({ $0 == first }) else {
        throw .badData(place, "rope_parameters that differ between layer types are not supported")
      }
      settings = ConfigurationReader(json: first, outer: reader.json, place: place)
    }
    let rule = either(try settings.text("rope_type"), try settings.text("type")) ?? "default"
    let base = either(try settings.number("rope_theta"), try reader.number("rope_theta")) ?? 10_000
    let saidPart = either(try settings.number("partial_rotary_factor"), try reader.number("partial_rotary_factor")) ?? 1
    // The decoders of these families turn the whole head where nothing scales the angles, whatever the configuration says
    // (modeling_llama.py and its siblings, `compute_default_rope_parameters`).
    let part = rule == "default" ? 1 : saidPart
    if part != saidPart {
      notes.append("\(place): partial_rotary_factor is not followed; without scaling transformers turns the whole head")
    }
    guard part > 0, part <= 1 else { throw .badData(place, "partial_rotary_factor \(part) is not between 0 and 1") }
    let width = Int(Double(headWidth) * part)
    guard width > 0, width % 2 == 0 else {
      throw .badData(place, "the rotary embedding is \(width) wide; only an even width makes pairs")
    }
    guard base > 0 else { throw .badData(place, "rope_theta \(base) is not positive") }

    func factor() throws(SquintError) -> Double {
      guard let factor = try settings.number("factor") else {
        throw .badData(place, "the rotary scaling \"\(rule)\" has no factor")
      }
      guard factor > 0 else { throw .badData(place, "the rotary scaling's factor \(factor) is not positive") }
      return factor
    }
    func required(_ key: String) throws(SquintError) -> Double {
      guard let value = try settings.number(key) else {
        throw .badData(place, "the rotary scaling \"\(rule)\" has no \(key)")
      }
      return value
    }
    func originalContext() throws(SquintError) -> Double {
      let key = "original_max_position_embeddings"
      let value = either(try reader.number(key), try settings.number(key)) ?? Double(context)
      guard value > 0 else { throw .badData(place, "\(key) \(value) is not positive") }
      return value
    }

    switch rule {
    case "default":
      return RotaryFrequencies(width: width, base: base)
    case "dynamic":
      // Grows with the context only beyond max_position_embeddings, where the decoder's context ends.
      var frequencies = RotaryFrequencies(width: width, base: base)
      frequencies.description = "dynamic, inside the trained context: " + frequencies.description
      return frequencies
    case "linear": return RotaryFrequencies(linear: try factor(), width: width, base: base)
    case "llama3":
      let low = try required("low_freq_factor")
      let high = try required("high_freq_factor")
      guard low > 0, high > low else {
        throw .badData(place, "low_freq_factor \(low) and high_freq_factor \(high) are not in order")
      }
      return RotaryFrequencies(
        llama3: try factor(), lowFrequencyFactor: low, highFrequencyFactor: high,
        originalContext: try originalContext(),
        width: width, base: base)
    case "yarn":
      let original = try originalContext()
      let factor = settings.json["factor"] == nil ? Double(context) / original : try factor()
      guard base > 1 else { throw .badData(place, "rope_theta \(base) is too small for yarn") }
      var attention = RotaryFrequencies.attentionFactor(factor)
      // A value of zero counts as absent in the reference, except for attention_factor.
      if let scale = try settings.number("mscale"), let all = try settings.number("mscale_all_dim"), scale != 0,
        all != 0
      {
        attention =
          RotaryFrequencies.attentionFactor(factor, scale: scale)
          / RotaryFrequencies.attentionFactor(factor, scale: all)
      }
      attention = try settings.number("attention_factor") ?? attention
      func beta(_ key: String, default fallback: Double) throws(SquintError) -> Double {
        let value = try settings.number(key) ?? 0
        guard value >= 0 else { throw .badData(place, "\(key) \(value) is negative") }
        return value == 0 ? fallback : value
      }
      return RotaryFrequencies(
        yarn: factor, attentionFactor: attention, originalContext: original,
        betaFast: try beta("beta_fast", default: 32), betaSlow: try beta("beta_slow", default: 1),
        truncate: try settings.flag("truncate") ?? true, width: width, base: base)
    default: break
    }
    throw .badData(
      place,
      "the rotary scaling \"\(printable(rule))\" is not supported; known are default, linear, dynamic, llama3, yarn")
  }
}
