import SquintFile

// The images of Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni and Qwen3-VL: of any size that is a multiple of a merged patch.

extension ImageFamily {
  /// image_processing_qwen2_vl.py, which Qwen3-VL's checkpoints name, too.
  static let qwen2VL = qwenVL("Qwen2VLImageProcessor")
  /// The name in Qwen2.5-VL's first checkpoints; transformers reads it as the other.
  static let qwen25VL = qwenVL("Qwen2_5_VLImageProcessor")

  private static func qwenVL(_ className: String) -> ImageFamily {
    ImageFamily(
      className: className, size: .smart(multiple: 28, pixels: 56 * 56...28 * 28 * 1280), mean: clipMean, std: clipStd)
  }
}
