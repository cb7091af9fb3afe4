import SquintFile

// Qwen2.5-Omni (arXiv 2503.20215): its thinker, which sees with Qwen2.5-VL's tower, hears with one of Whisper's kind in chunks of two
// seconds, and writes text. The talker and token2wav, which speak, are left out.

extension MediaFamily {
  static let qwen25Omni = MediaFamily(
    description: "qwen2_5_omni", classes: ["qwen25omni", "qwen25omnithinker"],
    recognizes: { [Qwen25Omni.wholeType, Qwen25Omni.thinkerType].contains($0["model_type"]?.string ?? "") },
    translated: Qwen25Omni.thinker,
    dropped: ["talker", "token2wav"],
    decoderType: { _ in Qwen25Omni.textType },
    // configuration_qwen2_5_omni.py: what the text's configuration says has no effect.
    isTied: { _, _, outer in outer ?? false },
    parts: { (vision, notes) throws(SquintError) in try vision.qwen25Omni(notes: &notes) })
}

/// What Qwen2.5-Omni's checkpoints have in common.
enum Qwen25Omni {
  static let wholeType = "qwen2_5_omni"
  static let thinkerType = "qwen2_5_omni_thinker"
  static let textType = "qwen2_5_omni_text"
  static let words = (start: "<|vision_bos|>", image: "<|IMAGE|>", video: "<|VIDEO|>", end: "<|vision_eos|>")
  static let soundWords = (start: "<|audio_bos|>", sound: "<|AUDIO|>", end: "<|audio_eos|>")

  /// The positions of a second, and the seconds of a chunk of a video with its sound, where config.json is silent.
  static let positionsPerSecond = 25.0
  static let secondsPerChunk = 2.0

  static let vision = QwenVL.qwen25(textType: textType, positionsPerSecond: nil)

  /// The configuration of the thinker in that of the whole.
  static func thinker(_ config: JSONValue) -> JSONValue {
    guard config["model_type"]?.string == wholeType, let whole = config.object else { return config }
    var thinker = config["thinker_config"]?.object ?? JSONObject()
    for member in whole.members where !["thinker_config", "talker_config", "token2wav_config"].contains(member.key) {
      // The class is that of the whole.
      if thinker[member.key] == nil || member.key == "architectures" {
        thinker = thinker.setting(member.key, to: member.value)
      }
    }
    return .object(thinker.setting("model_type", to: .string(thinkerType)))
  }

  /// The token of media whose keys in config.json begin with `name`.
  static func token(_ name: String, _ reader: ConfigurationReader, usual: Int) throws(SquintError) -> Int {
    try either(reader.count("\(name)_token_index"), reader.count("\(name)_token_id")) ?? usual
  }
}

extension HuggingFaceVision {
  /// The parts of a folder with Qwen2.5-Omni's thinker that see.
  func qwen25Omni(notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = try qwenVL(Qwen25Omni.vision, notes: &notes)
    let words = Qwen25Omni.words
    parts.prompt.marker = words.start + words.image + words.end
    parts.prompt.token = try Qwen25Omni.token("image", reader, usual: 151_655)
    parts.prompt.tokenText = words.image
    (parts.prompt.singlePrefix, parts.prompt.singleSuffix) = (words.start, words.end)

    guard var videos = parts.videos else { return parts }
    videos.marker = words.start + words.video + words.end
    videos.token = try Qwen25Omni.token("video", reader, usual: 151_656)
    videos.tokenText = words.video
    (videos.prefix, videos.suffix) = (words.start, words.end)
    if try !speaksOfVideoSizes(beside: parts.encoder?.images) { videos.setOmniSizes() }
    videos.positionsPerSecond = try reader.number("position_id_per_seconds") ?? Qwen25Omni.positionsPerSecond
    videos.isNominal = true
    let seconds = try reader.number("seconds_per_chunk") ?? Qwen25Omni.secondsPerChunk
    guard (1e-3...1e6).contains(seconds), (1e-3...1e6).contains(videos.positionsPerSecond ?? 0) else {
      throw .badData(place, "position_id_per_seconds or seconds_per_chunk is no number of seconds or positions")
    }
    videos.sound = VideoConfiguration.Sound(
      prefix: Qwen25Omni.soundWords.start, suffix: Qwen25Omni.soundWords.end, seconds: seconds)
    parts.videos = videos
    return parts
  }

  /// Whether a file of the folder that is for videos alone says how large frames become. What is only the limits of images again,
  /// which transformers copies there, does not.
  private func speaksOfVideoSizes(beside images: ImageConfiguration?) throws(SquintError) -> Bool {
    guard try folder.hasVideoProcessor else { return false }
    let videos = try folder.videos(.qwen2VL)
    guard case .area(_, let least, let most, _) = videos.resize else { return false }
    if case .smart(_, let pixels) = images?.resize, pixels == least...most { return false }
    return true
  }
}

extension VideoConfiguration {
  /// The limits that the model's processor sets whatever the file of its images says (processing_qwen2_5_omni.py).
  fileprivate mutating func setOmniSizes() {
    guard case .area(let factor, _, _, let isTotal) = resize else { return }
    resize = .area(factor: factor, least: 128 * 28 * 28, most: 768 * 28 * 28, isTotal: isTotal)
  }
}

extension DecoderFamily {
  /// configuration_qwen2_5_omni.py, `Qwen2_5OmniTextConfig`
  static let qwen25Omni = DecoderFamily(
    name: "qwen2_5omni",
    huggingFace: HuggingFaceFacts(
      modelType: Qwen25Omni.textType, vocabulary: 152_064, width: 3584, ffnWidth: 18_944, layers: 28, heads: 28,
      keyValueHeads: 4, context: 32_768, normEpsilon: 1e-6, queryKeyValueBias: true, names: .huggingFaceLlama
    ) { (decoder, reader, notes) throws(SquintError) in
      try decoder.finishQwenVL(
        reader, base: 1_000_000, sections: [16, 24, 24], isInterleaved: false,
        window: DecoderFamily.qwenWindow(reader, layers: decoder.layers, usualFirst: 28), notes: &notes)
    }, gguf: nil)
}
