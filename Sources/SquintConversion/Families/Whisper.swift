import SquintFile

// Whisper's encoder (arXiv 2212.04356), which other models' towers are, too: its folder, and what it has in theirs.

extension OtherEncoderFamily {
  /// The folder of a whole Whisper, whose decoder is left out, or of its encoder alone.
  static let whisper = OtherEncoderFamily(modelTypes: ["whisper"]) { (folder, config) throws(SquintError) in
    var notes: [String] = []
    let stored = try SafetensorsSource(path: folder.path)
    notes += stored.notes
    let source = try QuantizationScheme.dequantized(stored, config: config, place: folder.path, notes: &notes)
    var encoder = try WhisperTower.whisper.encoder(
      config, source: source, others: [.whisperDecoder], processor: folder.sounds(), place: folder.file("config.json"),
      tensorPlace: folder.path)
    encoder.notes = notes + encoder.notes
    return encoder
  }
}

extension NameMap {
  /// What a Whisper holds beside its encoder.
  fileprivate static let whisperDecoder = NameMap(
    module: "", stems: [], ignored: ["proj_out.weight"], ignoredPrefixes: ["model.decoder.", "decoder."])
}

/// What tells the towers that are Whisper's encoder from one another.
struct WhisperTower: Sendable {
  /// What files call the tower.
  let architecture: String
  /// What stands before its names.
  let prefixes: [String]
  /// What checkpoints call the last norm.
  var norm = "layer_norm"
  let pool: Int
  let padding: PaddingRule
  /// What the configuration class assumes where config.json is silent.
  let width: Int
  let layers: Int
  let heads: Int
  let ffnWidth: Int
  let mels: Int
  /// Whether positions are computed, not stored; then so many as a unit has.
  var computesPositions = false

  /// Of PyTorch's LayerNorm, which no configuration says.
  static let normEpsilon = 1e-5
  static let positions = 1_500

  /// configuration_whisper.py, modeling_whisper.py
  static let whisper = WhisperTower(
    architecture: "whisper", prefixes: ["model.encoder.", "encoder."], pool: 1, padding: .seen, width: 384, layers: 4,
    heads: 6, ffnWidth: 1536, mels: 80)

  /// The sizes in a config.json, or the part of it that is the tower's.
  ///
  /// - Parameters:
  ///   - unit: the frames that go in at most at a time; nil: twice the positions.
  ///   - place: for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  func blueprint(_ json: JSONValue, unit: Int?, module: String, place: String) throws(SquintError) -> WhisperBlueprint {
    let reader = ConfigurationReader(json: json, place: place)
    var blueprint = WhisperBlueprint(module: module)
    blueprint.architecture = architecture
    blueprint.layers = try reader.size("encoder_layers", atMost: DecoderConfiguration.mostLayers) ?? layers
    blueprint.width = try reader.size("d_model") ?? width
    blueprint.ffnWidth = try reader.size("encoder_ffn_dim") ?? ffnWidth
    blueprint.heads = try reader.size("encoder_attention_heads") ?? heads
    blueprint.mels = try reader.size("num_mel_bins", atMost: 1 << 12) ?? mels
    blueprint.positions = try reader.size("max_source_positions", atMost: 1 << 20) ?? Self.positions
    blueprint.normEpsilon = Self.normEpsilon
    let activation = try reader.text("activation_function") ?? "gelu"
    guard let known = Activation(huggingFace: activation) else {
      throw .badData(place, "activation_function \"\(printable(activation))\" is not supported")
    }
    blueprint.activation = known
    blueprint.pool = pool
    blueprint.padding = padding
    guard blueprint.width % blueprint.heads == 0 else {
      throw .badData(
        place, "the encoder's width \(blueprint.width) is no multiple of its \(blueprint.heads) heads")
    }
    if let unit {
      let rows = WhisperBlueprint.rows(ofFrames: unit)
      guard rows <= blueprint.positions else {
        throw .badData(
          place,
          "\(grouped(unit)) frames go into the encoder at a time, which become \(grouped(rows)) rows, more than "
            + "max_source_positions \(grouped(blueprint.positions))")
      }
      if computesPositions { blueprint.positions = rows }
    }
    guard !computesPositions || blueprint.width >= 4 && blueprint.width % 2 == 0 else {
      throw .badData(
        place, "d_model \(blueprint.width) is not supported; the positions need an even number, 4 at least")
    }
    return blueprint
  }

  /// The tower in `source`, whose names are those of transformers.
  ///
  /// - Parameters:
  ///   - json: config.json, or the part of it that is the tower's.
  ///   - others: names of tensors beside the tower's, which are known.
  ///   - processor: what is done to a sound; nil: it is not known.
  ///   - place: the configuration, for messages.
  ///   - tensorPlace: how messages call the source.
  /// - Throws: `SquintError.badData` where the configuration, or what is done to a sound, does not make an encoder.
  func encoder(
    _ json: JSONValue, name: String = "audio", source: any TensorSource, others: [NameMap] = [],
    processor: SoundConfiguration?, place: String, tensorPlace: String
  ) throws(SquintError) -> OtherEncoder {
    let module = "encoder.\(name)"
    let blueprint = try blueprint(json, unit: processor?.unit, module: module, place: place)
    if let processor, processor.mels != blueprint.mels {
      throw .badData(
        place,
        "num_mel_bins is \(blueprint.mels), but sounds become frames of \(processor.mels) (feature_size)")
    }
    var names = names(module)
    let stored = StoredTensors(
      MappedTensors(source: source, maps: [names], place: tensorPlace), module: module)
    names = names.ignoringLayers(from: blueprint.layers)
    var source = source
    if computesPositions {
      source = SinusoidSource(
        source, name: "\(prefixes[0])embed_positions.weight", rows: blueprint.positions, width: blueprint.width,
        place: place)
    }
    var encoder = OtherEncoder(
      blueprint: blueprint, featureWidth: blueprint.width, expected: expected(blueprint),
      tensors: MappedTensors(source: source, maps: [names] + others, place: tensorPlace), processor: processor)
    if stored.layers > blueprint.layers {
      encoder.notes.append(
        "\(place): the encoder's configuration has \(grouped(blueprint.layers)) layers; those that are stored beyond are left "
          + "out")
    }
    return encoder
  }

  private func names(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("conv1", "convolution.0"),
        ("conv2", "convolution.1"),
        ("embed_positions", "positions"),
        ("layers.*.self_attn_layer_norm", "*.attention.norm"),
        ("layers.*.self_attn.q_proj", "*.attention.q"),
        ("layers.*.self_attn.k_proj", "*.attention.k"),
        ("layers.*.self_attn.v_proj", "*.attention.v"),
        ("layers.*.self_attn.out_proj", "*.attention.o"),
        ("layers.*.final_layer_norm", "*.ffn.norm"),
        ("layers.*.fc1", "*.ffn.up"),
        ("layers.*.fc2", "*.ffn.down"),
        (norm, "norm"),
      ], prefixes: prefixes)
  }

  /// The convolutions are [rows, channels, 3] in checkpoints; their columns here are three neighbours, of each its channels.
  private func expected(_ blueprint: WhisperBlueprint) -> [ExpectedTensor] {
    let channels = [blueprint.firstConvolution.name: blueprint.mels, blueprint.secondConvolution.name: blueprint.width]
    return blueprint.tensors.map { tensor in
      // Keys have no bias.
      let isKeyBias = tensor.name.hasSuffix(".attention.k.bias")
      var expected = ExpectedTensor(tensor, isKeyBias ? .ifPresent : .required)
      if let channels = channels[tensor.name] { expected.channelsLastShape = [tensor.shape[0], channels, 3] }
      return expected
    }
  }
}
