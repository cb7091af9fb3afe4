import SquintFile

/// Reads the rotary embedding's settings in transformers' words (modeling_rope_utils.py).
enum HuggingFaceRotary {
  /// The same frequencies in all layers.
  ///
  /// - Parameters:
  ///   - layerTypes: the types of layers that there are; nil: all that there may be.
  ///   - base: where none is given.
  ///   - notes: takes what is not as the file says.
  static func uniform(
    _ reader: ConfigurationReader, headWidth: Int, context: Int, layerTypes: [String]?, base: Double = 10_000,
    notes: inout [String]
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
    return try frequencies(
      settings, reader, base: either(try settings.number("rope_theta"), try reader.number("rope_theta")) ?? base,
      headWidth: headWidth, context: context, notes: &notes)
  }

  /// The frequencies of the layers of one type, where each may have its own (configuration_gemma3.py,
  /// `convert_rope_params_to_dict`).
  ///
  /// - Parameters:
  ///   - scaling: the key of the scaling in configurations that do not tell types apart; nil: there is none for this type.
  ///   - baseKey: the key of the base in those.
  ///   - base: where none is given.
  static func layerType(
    _ type: String, _ reader: ConfigurationReader, scaling: String?, baseKey: String, base: Double, headWidth: Int,
    context: Int, notes: inout [String]
  ) throws(SquintError) -> RotaryFrequencies {
    for key in ["rope_parameters", "rope_scaling"] {
      guard let value = reader.json[key] else { continue }
      guard value.object != nil else { throw .badData(reader.place, "\(key) is not an object") }
    }
    let nested = either(reader.json["rope_parameters"]?[type], reader.json["rope_scaling"]?[type])
    if let nested, nested.object == nil { throw .badData(reader.place, "rope_parameters.\(type) is not an object") }
    let scaled = scaling.flatMap { reader.json[$0] }.flatMap { $0[type] == nil ? $0 : nil }
    let settings = ConfigurationReader(
      json: either(scaled, nested) ?? .object(JSONObject()), outer: reader.json, place: reader.place)
    let own = ConfigurationReader(json: nested ?? .object(JSONObject()), place: reader.place)
    return try frequencies(
      settings, reader,
      base: either(try settings.number("rope_theta"), try own.number("rope_theta"), try reader.number(baseKey)) ?? base,
      headWidth: headWidth, context: context, notes: &notes)
  }

  /// The frequencies that `settings` make of `base`.
  private static func frequencies(
    _ settings: ConfigurationReader, _ reader: ConfigurationReader, base: Double, headWidth: Int, context: Int,
    notes: inout [String]
  ) throws(SquintError) -> RotaryFrequencies {
    let place = reader.place
    let named = either(try settings.text("rope_type"), try settings.text("type")) ?? "default"
    // What Qwen's configurations called pairs that turn by several axes (configuration_qwen2_vl.py).
    let rule = named == "mrope" && settings.json["mrope_section"] != nil ? "default" : named
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
