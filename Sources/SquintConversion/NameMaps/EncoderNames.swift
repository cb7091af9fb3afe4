extension NameMap {
  /// What `NameSpelling` puts in front of a vision tower's names.
  private static let towerPrefixes = ["vision_tower."]

  /// CLIP, SigLIP and the towers of Idefics3 and SmolVLM (modeling_clip.py and its siblings).
  ///
  /// - Parameter module: `encoder.NAME`.
  package static func clipEncoder(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("embeddings.patch_embedding", "patch"),
        ("embeddings.position_embedding", "positions"),
        // transformers' own spelling.
        ("pre_layrnorm", "pre_norm"),
        ("encoder.layers.*.layer_norm1", "*.attention.norm"),
        ("encoder.layers.*.self_attn.q_proj", "*.attention.q"),
        ("encoder.layers.*.self_attn.k_proj", "*.attention.k"),
        ("encoder.layers.*.self_attn.v_proj", "*.attention.v"),
        ("encoder.layers.*.self_attn.out_proj", "*.attention.o"),
        ("encoder.layers.*.layer_norm2", "*.ffn.norm"),
        ("encoder.layers.*.mlp.fc1", "*.ffn.up"),
        ("encoder.layers.*.mlp.fc2", "*.ffn.down"),
        ("post_layernorm", "norm"),
      ],
      names: [("embeddings.class_embedding", "class")],
      ignored: ["embeddings.position_ids"],
      ignoredPrefixes: ["head."], prefixes: towerPrefixes)
  }

  /// DINOv2 (modeling_dinov2.py), in the names of its checkpoints and of transformers' memory.
  package static func dinov2Encoder(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("embeddings.patch_embeddings.projection", "patch"),
        ("encoder.layer.*.norm1", "*.attention.norm"),
        ("encoder.layer.*.attention.attention.query", "*.attention.q"),
        ("encoder.layer.*.attention.attention.key", "*.attention.k"),
        ("encoder.layer.*.attention.attention.value", "*.attention.v"),
        ("encoder.layer.*.attention.output.dense", "*.attention.o"),
        ("encoder.layer.*.attention.q_proj", "*.attention.q"),
        ("encoder.layer.*.attention.k_proj", "*.attention.k"),
        ("encoder.layer.*.attention.v_proj", "*.attention.v"),
        ("encoder.layer.*.attention.o_proj", "*.attention.o"),
        ("encoder.layer.*.norm2", "*.ffn.norm"),
        ("encoder.layer.*.mlp.fc1", "*.ffn.up"),
        ("encoder.layer.*.mlp.fc2", "*.ffn.down"),
        ("layernorm", "norm"),
      ],
      names: [
        ("embeddings.cls_token", "class"),
        ("embeddings.position_embeddings", "positions"),
        ("encoder.layer.*.layer_scale1.lambda1", "*.attention.scale"),
        ("encoder.layer.*.layer_scale2.lambda1", "*.ffn.scale"),
      ],
      // What images were masked with in training, and what classified them.
      ignored: ["embeddings.mask_token", "classifier.weight", "classifier.bias"],
      prefixes: towerPrefixes)
  }

  /// What CLIP and SigLIP folders hold beside the vision tower: the text tower and what compares the two.
  package static let contrastiveRest = NameMap(
    module: "", stems: [],
    ignored: [
      "logit_scale", "logit_bias", "text_projection.weight", "visual_projection.weight", "classifier.weight",
      "classifier.bias",
    ],
    ignoredPrefixes: ["text_model."])
}
