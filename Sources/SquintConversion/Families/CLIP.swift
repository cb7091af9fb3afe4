import SquintFile

// CLIP's vision tower (arXiv 2103.00020), with its image processor, which others have, too.

extension EncoderFamily {
  /// configuration_clip.py
  static let clip = EncoderFamily(
    architecture: "clip", modelTypes: ["clip_vision_model"], pair: "clip", width: 768, layers: 12, heads: 12,
    image: 224,
    patch: 32, activation: .quickGELU, normEpsilon: 1e-5, positions: .fixed, hasClass: true, hasPreNorm: true,
    hasNorm: false, hasPatchBias: false, images: .clip, names: NameMap.clipEncoder)
}

extension ImageFamily {
  /// OPENAI_CLIP_MEAN and OPENAI_CLIP_STD (image_utils.py)
  static let clipMean = [0.48145466, 0.4578275, 0.40821073]
  static let clipStd = [0.26862954, 0.26130258, 0.27577711]
  static let side224 = ImageConfiguration.Size(height: 224, width: 224)

  /// image_processing_clip.py
  package static let clip = ImageFamily(
    className: "CLIPImageProcessor", size: .shortestEdge(224), crop: side224, centerCrops: true, mean: clipMean,
    std: clipStd)
}

extension NameMap {
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

  /// What CLIP and SigLIP folders hold beside the vision tower: the text tower and what compares the two.
  package static let contrastiveRest = NameMap(
    module: "", stems: [],
    ignored: [
      "logit_scale", "logit_bias", "text_projection.weight", "visual_projection.weight", "classifier.weight",
      "classifier.bias",
    ],
    ignoredPrefixes: ["text_model."])
}
