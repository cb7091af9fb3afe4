extension NameMap {
  /// Llama, Mistral, Qwen2 and Qwen3 as transformers names them (modeling_llama.py and its siblings), in `NameSpelling.model`.
  package static let huggingFaceDecoder = NameMap(
    module: "decoder",
    stems: [
      ("model.embed_tokens", "embedding"),
      ("model.layers.*.input_layernorm", "*.attention.norm"),
      ("model.layers.*.self_attn.q_proj", "*.attention.q"),
      ("model.layers.*.self_attn.k_proj", "*.attention.k"),
      ("model.layers.*.self_attn.v_proj", "*.attention.v"),
      ("model.layers.*.self_attn.q_norm", "*.attention.q_norm"),
      ("model.layers.*.self_attn.k_norm", "*.attention.k_norm"),
      ("model.layers.*.self_attn.o_proj", "*.attention.o"),
      ("model.layers.*.post_attention_layernorm", "*.ffn.norm"),
      ("model.layers.*.mlp.gate_proj", "*.ffn.gate"),
      ("model.layers.*.mlp.up_proj", "*.ffn.up"),
      ("model.layers.*.mlp.down_proj", "*.ffn.down"),
      ("model.norm", "norm"),
      ("lm_head", "head"),
    ],
    // Old checkpoints carry the rotary embedding's table and the causal mask.
    ignored: [
      "model.layers.*.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
      "model.layers.*.self_attn.bias", "model.layers.*.self_attn.masked_bias",
    ])

  /// The same in GGUF (gguf-py/gguf/constants.py, `TENSOR_NAMES`).
  package static let ggufDecoder = NameMap(
    module: "decoder",
    stems: [
      ("token_embd", "embedding"),
      ("blk.*.attn_norm", "*.attention.norm"),
      ("blk.*.attn_q", "*.attention.q"),
      ("blk.*.attn_k", "*.attention.k"),
      ("blk.*.attn_v", "*.attention.v"),
      ("blk.*.attn_q_norm", "*.attention.q_norm"),
      ("blk.*.attn_k_norm", "*.attention.k_norm"),
      ("blk.*.attn_output", "*.attention.o"),
      ("blk.*.ffn_norm", "*.ffn.norm"),
      ("blk.*.ffn_gate", "*.ffn.gate"),
      ("blk.*.ffn_up", "*.ffn.up"),
      ("blk.*.ffn_down", "*.ffn.down"),
      ("output_norm", "norm"),
      ("output", "head"),
    ],
    // rope_freqs is part of the configuration; the others are tables that old converters wrote.
    ignored: ["rope_freqs.weight", "blk.*.attn_rot_embd", "blk.*.attn_rot_embd.weight"])
}
