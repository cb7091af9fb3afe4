import SquintFile

/// The decoder of `file`, by the graph that it names (`decoder.graph`): one file for each graph, in Decoders/.
///
/// - Throws: `badData` for a graph that is not known, and for keys and tensors that are missing or impossible.
package func decoderModel(of file: ModelFile) throws(SquintError) -> any DecoderModel {
  switch try DecoderGraph(file.metadata) {
  case .llama: try LayeredDecoderModel<Llama>(file)
  case .gemma3: try LayeredDecoderModel<Gemma3>(file)
  case .lfm2: try LayeredDecoderModel<LFM2>(file)
  case .qwen3moe: try LayeredDecoderModel<Qwen3MoE>(file)
  }
}

/// The blueprint of the decoder of `file`; no tensor is looked at.
package func decoderBlueprint(of file: ModelFile) throws(SquintError) -> any DecoderBlueprint {
  try DecoderGraph(file.metadata).blueprint.init(file.metadata)
}

/// The encoder in `module` of `file`, by the graph that it names (`encoder.NAME.graph`): Encoders/.
///
/// - Parameter levels: what its processor's 8-bit levels are for it.
/// - Throws: `badData` for a graph that is not known, and for keys and tensors that are missing or impossible.
package func encoderModel(
  of file: ModelFile, module: String, levels: [Float]
) throws(SquintError) -> any EncoderModel {
  switch try EncoderGraph(file.metadata, module: module) {
  case .vit: try LayeredEncoderModel<ViT>(file, ViTBlueprint(file, module: module), levels: levels)
  case .internvit:
    try LayeredEncoderModel<InternViT>(file, InternViTBlueprint(file, module: module), levels: levels)
  case .qwen2vl: try LayeredEncoderModel<Qwen2ViT>(file, Qwen2ViTBlueprint(file, module: module), levels: levels)
  case .qwen25vl: try LayeredEncoderModel<Qwen25ViT>(file, Qwen25ViTBlueprint(file, module: module), levels: levels)
  case .qwen3vl: try LayeredEncoderModel<Qwen3ViT>(file, Qwen3ViTBlueprint(file, module: module), levels: levels)
  case .whisper: try LayeredEncoderModel<Whisper>(file, WhisperBlueprint(file, module: module), levels: levels)
  case .qwen3asr: try LayeredEncoderModel<Qwen3ASR>(file, Qwen3ASRBlueprint(file, module: module), levels: levels)
  case .gin: try GINModel(file, GINBlueprint(file, module: module))
  case .patches: try SeriesPatches(file, SeriesPatchesBlueprint(file, module: module))
  }
}

/// The projector in `module` of `file`, by the graph that it names (`projector.NAME.graph`): Projectors/.
///
/// - Throws: `badData` for a graph that is not known, and for keys that are missing or impossible or do not fit the widths.
package func projectorModel(
  of file: ModelFile, module: String, encoderWidth: Int, hasClassRow: Bool, decoderWidth: Int?
) throws(SquintError) -> any ProjectorModel {
  switch try ProjectorGraph(file.metadata, module: module) {
  case .mlp:
    try MLP.Graph(
      file,
      MLP.Configuration(
        file, name: module, encoderWidth: encoderWidth, hasClassRow: hasClassRow, decoderWidth: decoderWidth))
  case .deepstack:
    try Deepstack.Graph(
      file, module: module, encoderWidth: encoderWidth, hasClassRow: hasClassRow, decoderWidth: decoderWidth)
  }
}
