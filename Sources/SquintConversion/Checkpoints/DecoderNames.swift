extension NameMap {
  /// A decoder as transformers names it.
  ///
  /// - Parameters:
  ///   - layer: what the stems inside `model.layers.N` lead to, inside the module's layer.
  ///   - names: the same of names that end in neither `.weight` nor `.bias`.
  ///   - norm: the norm before the head, inside `model`.
  static func huggingFaceDecoder(
    layer: [(source: String, target: String)], names: [(source: String, target: String)] = [], norm: String
  ) -> NameMap {
    NameMap(
      module: "decoder",
      stems: [("model.embed_tokens", "embedding")]
        + layer.map { ("model.layers.*.\($0.source)", "*.\($0.target)") }
        + [("model.\(norm)", "norm"), ("lm_head", "head")],
      names: names.map { ("model.layers.*.\($0.source)", "*.\($0.target)") },
      // Old checkpoints carry the rotary embedding's table and the causal mask.
      ignored: [
        "model.layers.*.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
        "model.layers.*.self_attn.bias", "model.layers.*.self_attn.masked_bias",
      ])
  }

  /// A decoder in GGUF (gguf-py/gguf/constants.py, `TENSOR_NAMES`).
  ///
  /// - Parameters:
  ///   - layer: the stems that a family has beside the usual ones, inside `blk.N`.
  ///   - norm: the norm before the head.
  static func ggufDecoder(layer: [(source: String, target: String)], norm: String = "output_norm") -> NameMap {
    let usual: [(source: String, target: String)] = [
      ("attn_norm", "attention.norm"),
      ("attn_q", "attention.q"),
      ("attn_k", "attention.k"),
      ("attn_v", "attention.v"),
      ("attn_q_norm", "attention.q_norm"),
      ("attn_k_norm", "attention.k_norm"),
      ("attn_output", "attention.o"),
      ("ffn_norm", "ffn.norm"),
      ("ffn_gate", "ffn.gate"),
      ("ffn_up", "ffn.up"),
      ("ffn_down", "ffn.down"),
    ]
    return NameMap(
      module: "decoder",
      stems: [("token_embd", "embedding")]
        + (usual + layer).map { ("blk.*.\($0.source)", "*.\($0.target)") }
        + [(norm, "norm"), ("output", "head")],
      // rope_freqs is part of the configuration; the others are tables that old converters wrote.
      ignored: ["rope_freqs.weight", "blk.*.attn_rot_embd", "blk.*.attn_rot_embd.weight"])
  }
}
