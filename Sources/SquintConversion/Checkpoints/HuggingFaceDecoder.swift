import SquintFile

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
    let family = try DecoderFamily(huggingFace: json, known: named, place: place)
    let facts = family.huggingFace
    let activation = try reader.text(facts.activation.key) ?? facts.activation.usual
    guard facts.activation.names.contains(activation) else {
      throw .badData(
        place,
        "\(facts.activation.key) \"\(printable(activation))\" is not supported; \(facts.modelType) models have "
          + facts.activation.usual)
    }
    architecture = family.name
    rotary = RotaryFrequencies(width: 0, base: 1)
    var settlement = Settlement(place: place)
    let embedding = stored?.matrix("embedding")
    vocabulary = settlement.settle(
      "vocab_size", said: try reader.size("vocab_size") ?? facts.vocabulary, stored: embedding?.rows)
    width = settlement.settle(
      "hidden_size", said: try reader.size("hidden_size") ?? facts.width, stored: embedding?.columns)
    ffnWidth = settlement.settle(
      "intermediate_size", said: try facts.statedFFNWidth(reader) ?? facts.ffnWidth,
      stored: stored?.matrix("0.ffn.gate")?.rows)
    let storedLayers = stored.map(\.layers).flatMap { (1...Self.mostLayers).contains($0) ? $0 : nil }
    layers = try reader.size("num_hidden_layers", atMost: Self.mostLayers) ?? storedLayers ?? facts.layers
    let heads = try reader.size("num_attention_heads") ?? facts.heads
    // In Python an absent key means the class's default, null means as many as query heads.
    let keyValueHeads =
      try reader.size("num_key_value_heads")
      ?? (reader.isAbsent("num_key_value_heads") ? facts.keyValueHeads ?? heads : heads)
    let derivedHeadWidth = width / heads
    let headWidth =
      try reader.size("head_dim") ?? (reader.isAbsent("head_dim") ? facts.headWidth : nil) ?? derivedHeadWidth
    guard headWidth > 0 else { throw .badData(place, "hidden_size \(width) is too small for \(heads) heads") }
    let said = HeadShape(heads: heads, keyValueHeads: keyValueHeads, width: headWidth)
    let shape = stored?.heads(said: said, isWidthSaid: reader.json["head_dim"] != nil)
    self.heads = settlement.settle("num_attention_heads", said: heads, stored: shape?.heads)
    self.keyValueHeads = settlement.settle("num_key_value_heads", said: keyValueHeads, stored: shape?.keyValueHeads)
    self.headWidth = settlement.settle("head_dim", said: headWidth, stored: shape?.width)
    notes += settlement.notes
    context = try reader.size("max_position_embeddings") ?? facts.context
    normEpsilon = try reader.number(facts.normEpsilonKey) ?? facts.normEpsilon
    isTied = try Self.isTied(reader) ?? facts.isTied

    let attentionBias = try reader.flag("attention_bias") ?? false
    optionals.queryKeyValueBias = facts.queryKeyValueBias ?? attentionBias ? .required : .absent
    optionals.outputBias = facts.queryKeyValueBias == nil && attentionBias ? .required : .absent
    let ffnBias = try reader.flag("mlp_bias") ?? false
    optionals.ffnBias = facts.hasFFNBias && ffnBias ? .required : .absent
    optionals.headNorm = facts.hasHeadNorm ? .required : .absent

    try facts.finish(&self, reader, &notes)
    if let stored { try follow(stored, place: place, notes: &notes) }
    try check(place: place)
  }

  /// Whether the embedding serves as the head; nil where nothing says so.
  private static func isTied(_ reader: ConfigurationReader) throws(SquintError) -> Bool? {
    let inner = try reader.flag("tie_word_embeddings")
    let outer = try reader.outerFlag("tie_word_embeddings")
    // The class around the decoder may decide in its own way.
    if let rule = Families.media.first(where: { $0.recognizes(reader.outer) })?.isTied {
      return rule(reader.outer, inner, outer)
    }
    return either(inner, outer)
  }
}

extension ConfigurationReader {
  /// The layers of `layers` that `layer_types` gives a window; nil: it is not there.
  func windowLayers(of layers: Int) throws(SquintError) -> [Int]? {
    guard let types = try texts("layer_types") else { return nil }
    guard types.count == layers else {
      throw .badData(place, "layer_types names \(types.count) layers of \(layers)")
    }
    var chosen: [Int] = []
    for (layer, type) in types.enumerated() {
      switch type {
      case "sliding_attention": chosen.append(layer)
      case "full_attention": break
      default: throw .badData(place, "layer_types: \"\(printable(type))\" is not supported")
      }
    }
    return chosen
  }
}
