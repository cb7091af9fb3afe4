import SquintFile

// InternVL's and Intern-S1's images, which transformers reads with the processor of GOT-OCR 2.

extension ImageFamily {
  /// IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD (image_utils.py), which InternVL's checkpoints use.
  static let imageNetMean = [0.485, 0.456, 0.406]
  static let imageNetStd = [0.229, 0.224, 0.225]

  /// image_processing_got_ocr2.py. The tiles are what InternVLProcessor asks it for, whatever its file says of
  /// crop_to_patches.
  static let gotOCR2 = ImageFamily(
    className: "GotOcr2ImageProcessor", size: .exact(height: 384, width: 384), isSquareByDefault: true, mean: clipMean,
    std: clipStd, tile: 384, tiles: 1...12)
}
