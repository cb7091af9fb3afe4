import SquintFile

// LLaVA-NeXT's images ("anyres"): in the middle of one of a few sizes, cut into tiles.

extension ImageFamily {
  /// image_processing_llava_next.py, whose own sizes are of tiles of 336, as its checkpoints' are.
  static let llavaNeXT = ImageFamily(
    className: "LlavaNextImageProcessor", size: .shortestEdge(224), crop: side224, centerCrops: true, mean: clipMean,
    std: clipStd, tile: 336, pinpoints: [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)].map(inTiles))

  static func inTiles(rows: Int, columns: Int) -> ImageConfiguration.Size {
    ImageConfiguration.Size(height: rows, width: columns)
  }
}
