extension NameMap {
  /// An encoder in GGUF (llama.cpp, tools/mtmd/clip-impl.h, and gguf-py/gguf/constants.py).
  ///
  /// - Parameters:
  ///   - module: `encoder.NAME`.
  ///   - swapsFFN: whether the file calls up what is down, as old converters did.
  package static func ggufEncoder(_ module: String, swapsFFN: Bool) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("v.patch_embd", "patch"),
        ("v.position_embd", "positions"),
        ("v.pre_ln", "pre_norm"),
        ("v.blk.*.ln1", "*.attention.norm"),
        ("v.blk.*.attn_q", "*.attention.q"),
        ("v.blk.*.attn_k", "*.attention.k"),
        ("v.blk.*.attn_v", "*.attention.v"),
        ("v.blk.*.attn_qkv", "*.attention.qkv"),
        ("v.blk.*.attn_out", "*.attention.o"),
        ("v.blk.*.ln2", "*.ffn.norm"),
        ("v.blk.*.ffn_up", swapsFFN ? "*.ffn.down" : "*.ffn.up"),
        ("v.blk.*.ffn_down", swapsFFN ? "*.ffn.up" : "*.ffn.down"),
        ("v.post_ln", "norm"),
      ],
      names: [
        ("v.class_embd", "class"),
        ("v.blk.*.ls1.weight", "*.attention.scale"),
        ("v.blk.*.ls2.weight", "*.ffn.scale"),
      ],
      // SigLIP's pooling head.
      ignored: ["v.position_ids"], ignoredPrefixes: ["v.head."])
  }
}
