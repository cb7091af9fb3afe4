import SquintFile

extension EncoderConfiguration {
  /// Reads the configuration of a vision tower in transformers' words.
  ///
  /// - Parameters:
  ///   - json: config.json of the tower, or `vision_config` of a larger one.
  ///   - family: nil: the one that its model_type names.
  ///   - place: the file, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  package init(
    huggingFace json: JSONValue, family known: EncoderFamily? = nil, place: String
  ) throws(SquintError) {
    let reader = ConfigurationReader(json: json, place: place)
    let family = try EncoderFamily(of: json, known: known, place: place)
    let width = try reader.size("hidden_size") ?? family.width
    let ffnWidth = try family.ffnWidth(reader, width)
    let patch = try reader.side("patch_size", atMost: Self.largestPatch) ?? family.patch
    let image = try family.image(json, place: place)
    let channels = try reader.size("num_channels") ?? 3
    guard channels == 3 else {
      throw .badData(place, "num_channels is \(channels); only images with 3 are supported")
    }
    let activationName = try reader.text("hidden_act")
    let activation = activationName.map { Activation(huggingFace: $0) } ?? family.activation
    guard let activation else {
      throw .badData(
        place,
        "the encoder's hidden_act \"\(printable(activationName ?? ""))\" is not supported; known are gelu, "
          + "gelu_pytorch_tanh, quick_gelu, relu, silu")
    }
    self.init(
      architecture: family.architecture,
      layers: try reader.size("num_hidden_layers", atMost: DecoderConfiguration.mostLayers) ?? family.layers,
      width: width, ffnWidth: ffnWidth, heads: try reader.size("num_attention_heads") ?? family.heads, patch: patch,
      grid: image / patch, positions: family.positions,
      normEpsilon: try reader.number("layer_norm_eps") ?? family.normEpsilon, activation: activation,
      hasClass: family.hasClass)
    optionals.patchBias = family.hasPatchBias ? .required : .absent
    optionals.preNorm = family.hasPreNorm ? .required : .absent
    optionals.norm = family.hasNorm ? .required : .unused
    if let key = family.queryKeyValueBiasKey, try !(reader.flag(key) ?? family.hasQueryKeyValueBias) {
      optionals.queryKeyValueBias = .absent
    }
    try family.finish(&self, reader)
    try check(place: place)
  }
}
