import SquintFile

// SigLIP's vision tower (arXiv 2303.15343), whose tensors are called as CLIP's.

extension EncoderFamily {
  /// configuration_siglip.py
  static let siglip = EncoderFamily(
    architecture: "siglip", modelTypes: ["siglip_vision_model"], pair: "siglip", width: 768, layers: 12, heads: 12,
    image: 224, patch: 16, activation: .geluTanh, normEpsilon: 1e-6, positions: .fixed, hasClass: false,
    hasPreNorm: false, hasNorm: true, hasPatchBias: true, images: .siglip, names: NameMap.clipEncoder)
}

extension ImageFamily {
  /// image_processing_siglip.py
  static let siglip = ImageFamily(className: "SiglipImageProcessor", size: .exact(height: 224, width: 224))
  /// image_processing_vit.py
  static let vit = ImageFamily(
    className: "ViTImageProcessor", size: .exact(height: 224, width: 224), isSquareByDefault: true, filter: .bilinear)
}
