import SquintFile

// Qwen2-Audio (arXiv 2407.10759): Whisper's encoder with pairs of its rows as features, one matrix, Qwen2.

extension MediaFamily {
  /// transformers' Qwen2AudioForConditionalGeneration.
  static let qwen2Audio = MediaFamily(
    description: "qwen2_audio", classes: ["qwen2_audio"], recognizes: { $0["model_type"]?.string == "qwen2_audio" },
    decoderType: { $0["text_config"]?["model_type"]?.string ?? "qwen2" },
    // configuration_qwen2.py
    isTied: { _, inner, _ in inner ?? false },
    others: { (vision, notes) throws(SquintError) in [try vision.qwen2Audio(notes: &notes)] })
}

extension WhisperTower {
  /// configuration_qwen2_audio.py, modeling_qwen2_audio.py
  fileprivate static let qwen2Audio = WhisperTower(
    architecture: "qwen2_audio", prefixes: ["audio_tower."], pool: 2, padding: .unseen, width: 1280, layers: 32,
    heads: 20, ffnWidth: 5120, mels: 128)
}

extension HuggingFaceVision {
  fileprivate func qwen2Audio(notes: inout [String]) throws(SquintError) -> OtherParts {
    var parts = OtherParts(name: "audio", place: folder.path)
    let audio = config["audio_config"] ?? .object(JSONObject())
    guard audio.object != nil else { throw .badData(place, "audio_config is not an object") }
    var usual = SoundConfiguration.whisper
    usual.mels = WhisperTower.qwen2Audio.mels
    parts.encoder = try WhisperTower.qwen2Audio.encoder(
      audio, source: source, processor: folder.sounds(usual: usual) ?? usual, place: "\(place): audio_config",
      tensorPlace: folder.path)
    let found = try ProjectorTensors(
      in: source, prefixes: ["multi_modal_projector"], module: "projector.audio", place: folder.path)
    guard found.widths.count == 2, !found.hasNorm else {
      throw .badData(folder.path, "multi_modal_projector has \(found.widths.count - 1) matrices, not 1")
    }
    parts.projector = ProjectorPart(
      configuration: ProjectorConfiguration(widths: found.widths),
      tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
    let (start, token, end) = ("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
    parts.prompt.marker = start + token + end
    parts.prompt.token = either(try reader.count("audio_token_index"), try reader.count("audio_token_id")) ?? 151_646
    parts.prompt.tokenText = token
    parts.prompt.singlePrefix = start
    parts.prompt.singleSuffix = end
    return parts
  }
}
