/// All families that can be converted. A new one gets a file of its own in this folder and its line here.
package enum Families {
  package static let decoders: [DecoderFamily] = [
    .llama, .mistral, .qwen2, .qwen3, .qwen3MoE, .gemma3, .lfm2, .qwen2VL, .qwen25VL, .qwen25Omni, .qwen3VL,
    .qwen3VLMoE, .granite,
    .internLM2,
  ]

  static let encoders: [EncoderFamily] = [.clip, .siglip, .dinov2, .idefics3, .internViT, .internViT6B]

  /// Image processors of transformers, which many families share.
  static let images: [ImageFamily] = [
    .clip, .llava, .siglip, .vit, .bit, .idefics3, .smolvlm, .gotOCR2, .qwen2VL, .qwen25VL, .llavaNeXT, .llavaOneVision,
  ]

  /// Encoders of media that are not images, which models are put together from, by modality.
  static let otherEncoders: [String: [OtherEncoderFamily]] = [
    "audio": [.whisper], "molecule": [.moleculeSTM], "series": [.internS1ProSeries],
  ]

  /// The first that recognizes a checkpoint has it.
  static let media: [MediaFamily] = [
    .nanoVLM, .originalLLaVA, .llava, .llavaNeXT, .llavaOneVision, .idefics3, .internVL, .internVLChat, .internS1,
    .qwen2VL, .qwen25VL, .qwen3VL, .qwen25Omni, .qwen2Audio, .qwen3ASR, .instructMol, .chatTS,
  ]
}
