import SquintFile

// LLaVA-OneVision's images: as LLaVA-NeXT's, up to 6 × 6 tiles.

extension ImageFamily {
  /// image_processing_llava_onevision.py
  static let llavaOneVision = ImageFamily(
    className: "LlavaOnevisionImageProcessor", size: .exact(height: 384, width: 384), mean: clipMean, std: clipStd,
    tile: 384, pinpoints: (1...6).flatMap { rows in (1...6).map { inTiles(rows: rows, columns: $0) } },
    squaresSeveral: true)
}
