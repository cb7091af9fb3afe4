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
  /// How many tiles an image is cut into, where the grid has the proportions that are nearest to its own.
  var tiles: ClosedRange<Int>?
  /// The sizes that an image is brought to, heights and widths in tiles, where it is padded to one of them.
  var pinpoints: [ImageConfiguration.Size] = []
  /// Whether each image of a prompt with several is padded to a square with the mean colour, and is one tile.
  var squaresSeveral = false
  /// Whether do_pad means a square with the mean colour; otherwise it is for batches of images of several sizes.
  var padsToSquare = false

  /// The images that an encoder of this family takes where no file says so: its square.
  func images(side: Int) -> ImageConfiguration {
    var images = ImageConfiguration()
    switch size {
    case .smart: images.resize = size
    case .exact: images.resize = .exact(height: side, width: side)
    case .longestEdge: images.resize = .longestEdge(min(4 * side, ImageConfiguration.largestTiledSide))
    case .shortestEdge, .none: images.resize = .shortestEdge(side)
    }
    images.crop = centerCrops ? ImageConfiguration.Size(height: side, width: side) : nil
    images.filter = filter
    images.mean = mean
    images.std = std
    if tile != nil {
      images.layout = layout
      images.tile = side
    }
    switch layout {
    case .whole: break
    case .tiles: images.splits = true
    case .grid:
      images.resize = .none
      images.tiles = tiles ?? 1...1
      images.hasOverview = true
    case .anyres:
      images.resize = .none
      images.crop = nil
      images.pinpoints = pinpoints(side: side)
      images.severalBackground = squaresSeveral ? images.meanColor : nil
    }
    return images
  }

  var layout: ImageConfiguration.Layout {
    guard tile != nil else { return .whole }
    return tiles != nil ? .grid : pinpoints.isEmpty ? .tiles : .anyres
  }

  /// The sizes that an image is brought to, in pixels, with tiles of `side`.
  func pinpoints(side: Int) -> [ImageConfiguration.Size] {
    pinpoints.map { ImageConfiguration.Size(height: $0.height * side, width: $0.width * side) }
  }
}
