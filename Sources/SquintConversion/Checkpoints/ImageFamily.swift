import SquintFile

/// What an image processor class of transformers assumes where its file is silent.
package struct ImageFamily: Sendable {
  /// Without the endings that name an implementation: Fast, Pil.
  let className: String
  var size: ImageConfiguration.Resize
  /// Whether a size of one number is a square; otherwise the shortest edge.
  var isSquareByDefault = false
  var crop: ImageConfiguration.Size?
  var centerCrops = false
  var filter = ImageConfiguration.Filter.bicubic
  var mean = [0.5, 0.5, 0.5]
  var std = [0.5, 0.5, 0.5]
  /// The side of a tile, where images are cut.
  var tile: Int?
  /// Whether do_pad means a square with the mean colour; otherwise it is for batches of images of several sizes.
  var padsToSquare = false

  /// The images that an encoder of this family takes where no file says so: its square.
  func images(side: Int) -> ImageConfiguration {
    var images = ImageConfiguration()
    switch size {
    case .exact: images.resize = .exact(height: side, width: side)
    case .longestEdge: images.resize = .longestEdge(min(4 * side, ImageConfiguration.largestTiledSide))
    case .shortestEdge, .none: images.resize = .shortestEdge(side)
    }
    images.crop = centerCrops ? ImageConfiguration.Size(height: side, width: side) : nil
    images.filter = filter
    images.mean = mean
    images.std = std
    if tile != nil {
      images.layout = .tiles
      images.tile = side
      images.splits = true
    }
    return images
  }
}
