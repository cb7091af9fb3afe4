import SquintFile

// InternLM2 (arXiv 2403.17297), which computes as Llama does, and has queries, keys and values in one matrix.

extension DecoderFamily {
  /// configuration_internlm2.py and modeling_internlm2.py, which come with its checkpoints; its GGUF files are of llama.cpp's architecture
  /// `internlm2`.
  static let internLM2 = DecoderFamily(
    name: "internlm2",
    huggingFace: HuggingFaceFacts(
      modelType: "internlm2", vocabulary: 103_168, ffnWidth: 11008, context: 2048, names: .huggingFaceInternLM2
    ) { (decoder, reader, notes) throws(SquintError) in
      decoder.packsAttention = true
      let hasBias = try reader.flag("bias") ?? true
      decoder.optionals.queryKeyValueBias = hasBias ? .required : .absent
      decoder.optionals.outputBias = hasBias ? .required : .absent
      try decoder.finishLlama(reader, window: (0, nil), notes: &notes)
    },
    gguf: GGUFFacts(architecture: "internlm2", interleavesPairs: true, names: .ggufLlama) {
      (decoder, reader) throws(SquintError) in try decoder.finishLlama(reader)
    })
}

extension NameMap {
  /// modeling_internlm2.py
  static let huggingFaceInternLM2 = NameMap(
    module: "decoder",
    stems: [
      ("model.tok_embeddings", "embedding"),
      ("model.layers.*.attention_norm", "*.attention.norm"),
      ("model.layers.*.attention.wqkv", "*.attention.qkv"),
      ("model.layers.*.attention.wo", "*.attention.o"),
      ("model.layers.*.ffn_norm", "*.ffn.norm"),
      ("model.layers.*.feed_forward.w1", "*.ffn.gate"),
      ("model.layers.*.feed_forward.w3", "*.ffn.up"),
      ("model.layers.*.feed_forward.w2", "*.ffn.down"),
      ("model.norm", "norm"),
      ("output", "head"),
    ],
    // Tables that are computed anew.
    ignored: ["model.layers.*.attention.rotary_emb.inv_freq"])
}
