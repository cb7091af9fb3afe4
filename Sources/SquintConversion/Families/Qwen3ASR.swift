import SquintFile

// Qwen3-ASR (arXiv 2601.21337), as transformers keeps it and as it is published, inside a "thinker": Qwen3-Omni's audio tower, two
// matrices, Qwen3.

extension MediaFamily {
  static let qwen3ASR = MediaFamily(
    description: "qwen3_asr", classes: ["qwen3asr"], recognizes: { $0["model_type"]?.string == Qwen3ASR.modelType },
    translated: Qwen3ASR.whole, decoderType: { _ in "qwen3" },
    // configuration_qwen3_asr.py; published checkpoints say it of the text alone.
    isTied: { _, inner, outer in either(outer, inner) ?? true },
    others: { (vision, notes) throws(SquintError) in [try vision.qwen3ASR()] })
}

/// What Qwen3-ASR's checkpoints have in common.
enum Qwen3ASR {
  static let modelType = "qwen3_asr"
  static let words = (start: "<|audio_start|>", sound: "<|audio_pad|>", end: "<|audio_end|>")
  static let token = 151_676
  /// Of all norms of the tower: PyTorch's default.
  static let normEpsilon = 1e-5
  /// The published program cuts longer sounds (MAX_ASR_INPUT_SECONDS).
  static let longestSeconds = 1_200

  /// What a configuration class assumes of the tower.
  struct Usual {
    let layers: Int
    let width: Int
    let heads: Int
    let ffnWidth: Int
    /// Half a chunk, and the frames that see each other.
    let window: Int
    let seen: Int

    /// configuration_qwen3_asr.py of transformers, and of the published program.
    static let transformers = Usual(layers: 24, width: 1024, heads: 16, ffnWidth: 4096, window: 50, seen: 800)
    static let published = Usual(layers: 32, width: 1280, heads: 20, ffnWidth: 5120, window: 100, seen: 400)
  }

  static let mels = 128
  static let channels = 480
  /// The frames of a chunk. The rows of a sound are counted with 13 for each whole one, whatever its length is.
  static let chunk = 100
  /// A bound that no checkpoint comes near.
  static let mostChunks = 1 << 8

  /// The published class around the thinker (configuration_qwen3_asr.py of the package qwen-asr), in transformers' words.
  static func whole(_ config: JSONValue) -> JSONValue {
    guard config["model_type"]?.string == modelType, let published = config.object,
      let thinker = config["thinker_config"]?.object
    else { return config }
    var whole = JSONObject()
    for member in thinker.members { whole = whole.setting(member.key, to: member.value) }
    for member in published.members where member.key != "thinker_config" {
      whole = whole.setting(member.key, to: member.value)
    }
    if let kind = thinker["model_type"] { whole = whole.setting("thinker_type", to: kind) }
    // What its class of the text's configuration assumes, other than transformers' of Qwen3.
    var text = thinker["text_config"]?.object ?? JSONObject()
    for (key, usual) in [("rope_theta", 5e6), ("max_position_embeddings", 128_000)] where text[key] == nil {
      text = text.setting(key, to: .double(usual))
    }
    return .object(whole.setting("text_config", to: .object(text)).setting("is_published", to: .bool(true)))
  }
}

extension HuggingFaceVision {
  fileprivate func qwen3ASR() throws(SquintError) -> OtherParts {
    // The head of the model that finds when words are said has a class for each time.
    if config["thinker_type"]?.string == "qwen3_forced_aligner" || config["classify_num"] != nil {
      throw .badData(place, "this is Qwen3-ForcedAligner, which finds when words are said and writes no text; Qwen3-ASR does")
    }
    var parts = OtherParts(name: "audio", place: folder.path)
    let audio = config["audio_config"] ?? .object(JSONObject())
    guard audio.object != nil else { throw .badData(place, "audio_config is not an object") }
    let usual = config["is_published"] == nil ? Qwen3ASR.Usual.transformers : .published
    let encoder = try qwen3AudioTower(audio, usual: usual)
    parts.encoder = encoder
    parts.projector = try qwen3ASRProjector(audio)
    let words = Qwen3ASR.words
    parts.prompt.marker = words.start + words.sound + words.end
    parts.prompt.token = try reader.count("audio_token_id") ?? Qwen3ASR.token
    parts.prompt.tokenText = words.sound
    (parts.prompt.singlePrefix, parts.prompt.singleSuffix) = (words.start, words.end)
    // The chat template has no place for a question.
    parts.prompt.question = ""
    return parts
  }

  /// The tower (modeling_qwen3_asr.py, `Qwen3ASREncoder`), and what is done to sounds before it.
  private func qwen3AudioTower(_ audio: JSONValue, usual: Qwen3ASR.Usual) throws(SquintError) -> OtherEncoder {
    let place = "\(place): audio_config"
    let reader = ConfigurationReader(json: audio, place: place)
    var blueprint = Qwen3ASRBlueprint(module: "encoder.audio")
    blueprint.architecture = Qwen3ASR.modelType
    blueprint.layers =
      try either(
        reader.size("encoder_layers", atMost: DecoderConfiguration.mostLayers),
        reader.size("num_hidden_layers", atMost: DecoderConfiguration.mostLayers)) ?? usual.layers
    blueprint.width = try either(reader.size("d_model"), reader.size("hidden_size")) ?? usual.width
    blueprint.ffnWidth =
      try either(reader.size("encoder_ffn_dim"), reader.size("intermediate_size")) ?? usual.ffnWidth
    blueprint.heads =
      try either(reader.size("encoder_attention_heads"), reader.size("num_attention_heads")) ?? usual.heads
    blueprint.mels = try reader.size("num_mel_bins", atMost: 1024) ?? Qwen3ASR.mels
    blueprint.channels = try reader.size("downsample_hidden_size", atMost: 1 << 14) ?? Qwen3ASR.channels
    blueprint.normEpsilon = Qwen3ASR.normEpsilon
    let activation = try reader.text("activation_function") ?? "gelu"
    guard let known = Activation(huggingFace: activation) else {
      throw .badData(place, "activation_function \"\(printable(activation))\" is not supported")
    }
    blueprint.activation = known
    let window = try reader.size("n_window") ?? usual.window
    guard 2 * window == Qwen3ASR.chunk else {
      throw .badData(
        place, "n_window \(window) is not supported; \(Qwen3ASR.chunk / 2) is, for which transformers counts a sound's rows")
    }
    blueprint.chunk = Qwen3ASR.chunk
    let seen = try reader.size("n_window_infer") ?? usual.seen
    blueprint.chunks = seen / Qwen3ASR.chunk
    guard (1...Qwen3ASR.mostChunks).contains(blueprint.chunks) else {
      throw .badData(
        place,
        "n_window_infer \(seen) is not supported; \(Qwen3ASR.chunk) to \(grouped(Qwen3ASR.chunk * Qwen3ASR.mostChunks)) is")
    }
    do throws(SquintError) { try blueprint.check() } catch { throw .badData(place, error.message) }
    var sounds = try qwen3Sounds(mels: blueprint.mels)
    guard sounds.mels == blueprint.mels else {
      throw .badData(
        place, "num_mel_bins is \(blueprint.mels), and the feature extractor's feature_size \(sounds.mels)")
    }
    sounds.unit = blueprint.unit
    return OtherEncoder(
      blueprint: blueprint, featureWidth: blueprint.width, expected: Self.expected(blueprint),
      tensors: MappedTensors(source: source, maps: [.qwen3AudioTower], place: folder.path), processor: sounds)
  }

  /// A sound is not padded but for the shortest (feature_extraction_qwen3_asr.py, and processing_qwen3_asr.py for the published
  /// folders' `WhisperFeatureExtractor`, whose length of 30 seconds has no effect).
  private func qwen3Sounds(mels: Int) throws(SquintError) -> SoundConfiguration {
    var usual = SoundConfiguration()
    usual.mels = mels
    var sounds = usual
    var least = 8_000
    if let (json, place) = try folder.soundSettings(classes: ["Qwen3ASRFeatureExtractor", "WhisperFeatureExtractor"]) {
      sounds = try SoundConfiguration(huggingFace: json, usual: usual, place: place)
      least = try ConfigurationReader(json: json, place: place).count("min_length") ?? least
    }
    sounds.padSamples = nil
    sounds.keepsPadding = false
    sounds.leastSamples = max(least, 1)
    sounds.mostSamples = max(Qwen3ASR.longestSeconds * sounds.rate, sounds.leastSamples)
    return sounds
  }

  private static func expected(_ blueprint: Qwen3ASRBlueprint) -> [ExpectedTensor] {
    let convolutions = blueprint.convolutions.map(\.name)
    let first = blueprint.firstConvolution.name
    return blueprint.tensors.map { tensor in
      // All matrices have a bias but the one behind the convolutions.
      let isOutput = tensor.name == blueprint.output.name + ".bias"
      var expected = ExpectedTensor(tensor, isOutput ? .absent : .required)
      let (rows, channels) = (tensor.shape[0], blueprint.channels)
      if tensor.name == first {
        expected.otherShapes = [[rows, 1, 3, 3], [rows, 3, 3, 1]]
      } else if convolutions.contains(tensor.name) {
        expected.otherShapes = [[rows, channels, 3, 3]]
        expected.channelsLastShape = [rows, 3, 3, channels]
        expected.channels = channels
      } else if tensor.name == blueprint.output.name {
        expected.channels = channels
      }
      return expected
    }.filter { $0.presence != .absent }
  }

  /// Two matrices, in transformers beside the tower, in published checkpoints in it.
  private func qwen3ASRProjector(_ audio: JSONValue) throws(SquintError) -> ProjectorPart {
    let inside = source.tensor(named: "audio_tower.proj1.weight") != nil
    let found = try ProjectorTensors(
      in: source, prefixes: inside ? ["audio_tower.proj1", "audio_tower.proj2"] : ["multi_modal_projector"],
      module: "projector.audio", place: folder.path)
    guard found.widths.count == 3, !found.hasNorm else {
      throw .badData(
        folder.path,
        "\(inside ? "audio_tower.proj" : "multi_modal_projector") has \(found.widths.count - 1) matrices, not 2")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    projector.bias = .required
    projector.activation =
      Activation(
        huggingFace: try ConfigurationReader(json: audio, place: place).text("activation_function") ?? "gelu") ?? .gelu
    return ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
  }
}

extension NameMap {
  fileprivate static let qwen3AudioTower = NameMap(
    module: "encoder.audio",
    stems: [
      ("conv2d1", "conv1"), ("conv2d2", "conv2"), ("conv2d3", "conv3"), ("conv_out", "conv_out"),
      ("layers.*.self_attn_layer_norm", "*.attention.norm"), ("layers.*.self_attn.q_proj", "*.attention.q"),
      ("layers.*.self_attn.k_proj", "*.attention.k"), ("layers.*.self_attn.v_proj", "*.attention.v"),
      ("layers.*.self_attn.out_proj", "*.attention.o"), ("layers.*.final_layer_norm", "*.ffn.norm"),
      ("layers.*.fc1", "*.ffn.up"), ("layers.*.fc2", "*.ffn.down"), ("ln_post", "norm"),
    ].map { ("audio_tower." + $0.0, $0.1) })
}
