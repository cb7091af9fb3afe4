import SquintFile

// DINOv2 (arXiv 2304.07193): positions that are resized, and LayerScale, which is folded into the matrices before it.

extension EncoderFamily {
  /// configuration_dinov2.py
  static let dinov2 = EncoderFamily(
    architecture: "dinov2", modelTypes: ["dinov2"], width: 768, layers: 12, heads: 12, image: 224, patch: 14,
    activation: .gelu, normEpsilon: 1e-6, positions: .bicubic, hasClass: true, hasPreNorm: false, hasNorm: true,
    hasPatchBias: true, images: .bit, usualMean: [0.485, 0.456, 0.406], usualStd: [0.229, 0.224, 0.225],
    ffnWidth: { (reader, width) throws(SquintError) in
      let ratio = try reader.number("mlp_ratio") ?? 4
      guard ratio > 0, ratio <= 1024 else {
        throw .badData(reader.place, "mlp_ratio \(ratio) is not between 0 and 1,024")
      }
      guard try reader.flag("use_swiglu_ffn") != true else {
        throw .badData(
          reader.place, "use_swiglu_ffn is not supported; the small, base and large DINOv2 do without")
      }
      return max(1, Int(Double(width) * ratio))
    }, queryKeyValueBiasKey: "qkv_bias", names: NameMap.dinov2Encoder)
}

extension ImageFamily {
  /// image_processing_bit.py
  static let bit = ImageFamily(
    className: "BitImageProcessor", size: .shortestEdge(224), crop: side224, centerCrops: true, mean: clipMean,
    std: clipStd)
}

extension NameMap {
  /// modeling_dinov2.py, in the names of its checkpoints and of transformers' memory.
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
}
