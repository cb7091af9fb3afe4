import SquintFile

/// How an image becomes tiles of numbers (formats/vision.md, "From the image to tiles").
package struct ImageConfiguration: Equatable, Sendable {
  package enum Layout: String, Sendable { case whole, tiles, grid, anyres }

  package enum Resize: Equatable, Sendable {
    case none
    case exact(height: Int, width: Int)
    case shortestEdge(Int)
    case longestEdge(Int)
    /// Both sides become multiples of `multiple`, with `pixels` in all, the proportions kept as far as that goes.
    case smart(multiple: Int, pixels: ClosedRange<Int>)
  }

  package enum Filter: String, Sendable {
    case nearest, box, bilinear, hamming, bicubic, lanczos

    /// Pillow's number for the filter (PIL.Image.Resampling).
    package init?(pillow number: Int) {
      let order: [Filter] = [.nearest, .lanczos, .bilinear, .bicubic, .box, .hamming]
      guard order.indices.contains(number) else { return nil }
      self = order[number]
    }
  }

  package struct Size: Equatable, Sendable {
    package var height: Int
    package var width: Int

    package init(height: Int, width: Int) {
      self.height = height
      self.width = width
    }
  }

  /// What the numbers mean that a model gives for places in an image.
  package enum Coordinates: String, Sendable {
    /// 0 to 1,000 of each side.
    case thousandths
    /// Pixels of the image as the encoder sees it.
    case resized
  }

  package var layout = Layout.whole
  /// The colour, 0 to 255, with which an image is padded to a square; nil: it is not.
  package var squareBackground: [Int]?
  package var resize = Resize.none
  package var filter = Filter.bicubic
  /// What is cut out around the middle; nil: nothing.
  package var crop: Size?
  /// The side of a tile, with all layouts but `whole`.
  package var tile: Int?
  /// Whether the image is cut into tiles, with `tiles`.
  package var splits = false
  /// How many tiles an image is cut into, without the overview, with `grid`.
  package var tiles = 1...1
  /// Whether the whole image follows the tiles where there are several, with `grid`.
  package var hasOverview = false
  /// The sizes that images are brought to, multiples of the tile, with `anyres`.
  package var pinpoints: [Size] = []
  /// The colour, 0 to 255, with which each image of a prompt with several is padded to a square that becomes one tile, with
  /// `anyres`; nil: they are cut alike.
  package var severalBackground: [Int]?
  /// nil: the model names no places.
  package var coordinates: Coordinates?
  package var rescale = 1.0 / 255
  package var mean: [Double] = [0, 0, 0]
  package var std: [Double] = [1, 1, 1]

  package init() {}

  /// Images that are squeezed into the grid of `tiles` squares of `side` pixels whose proportions are nearest to theirs, behind
  /// which comes the whole image, squeezed to one square, where `overview` says so and there are several: InternVL's.
  package static func grid(
    side: Int, tiles: ClosedRange<Int>, overview: Bool, mean: [Double], std: [Double]
  ) -> ImageConfiguration {
    var images = ImageConfiguration()
    images.layout = .grid
    images.tile = side
    images.tiles = tiles
    images.hasOverview = overview
    images.mean = mean
    images.std = std
    return images
  }

  /// A bound on sides that no image processor comes near.
  package static let largestSide = 1 << 16
  /// How many tiles a reader accepts, without the overview.
  static let mostTiles = 1024
  /// How many pixels of an image a reader accepts.
  static let mostPixels = 256_000_000

  /// Makes images squares of `side` pixels: the image in more or less detail.
  ///
  /// - Throws: `SquintError.usage` where images are cut into tiles, whose side is the encoder's.
  package mutating func resize(toSide side: Int) throws(SquintError) {
    guard layout == .whole else {
      throw SquintError(.usage, "the size of this model's tiles cannot be chosen; leave --image-size out")
    }
    if case .smart = resize {
      throw SquintError(.usage, "this model's images keep their proportions; leave --image-size out")
    }
    guard (1...Self.largestSide).contains(side) else {
      throw SquintError(.usage, "an image size of \(side) pixels; choose 1 to \(grouped(Self.largestSide))")
    }
    resize = crop == nil ? .exact(height: side, width: side) : .shortestEdge(side)
    crop = crop.map { _ in Size(height: side, width: side) }
  }

  /// Chooses how images become squares.
  ///
  /// - Throws: `SquintError.usage` where images are cut into tiles, where they are stretched and shall not be, or where
  ///   nothing says how large the square is.
  package mutating func fit(_ fit: ConversionOptions.ImageFit) throws(SquintError) {
    guard layout == .whole, crop != nil || fit == .stretch else {
      throw SquintError(.usage, "this model's images are neither cut nor padded; leave --image-fit out")
    }
    switch fit {
    case .crop: squareBackground = nil
    case .pad: padToSquare()
    case .stretch: try stretch()
    }
  }

  /// Resizes images to what is cut out of them now.
  private mutating func stretch() throws(SquintError) {
    switch (crop, resize) {
    case (let crop?, _): resize = .exact(height: crop.height, width: crop.width)
    case (nil, .exact): break
    case (nil, .shortestEdge(let side)), (nil, .longestEdge(let side)): resize = .exact(height: side, width: side)
    case (nil, .smart): throw SquintError(.usage, "this model's images keep their proportions; leave --image-fit out")
    case (nil, .none):
      throw SquintError(.usage, "this model's images stay as they are; say with --image-size how large they become")
    }
    crop = nil
    squareBackground = nil
  }

  /// The size of the tiles; nil where it depends on the image.
  package var tileSize: Size? {
    if layout != .whole { return tile.map { Size(height: $0, width: $0) } }
    if let crop { return crop }
    switch resize {
    case .exact(let height, let width): return Size(height: height, width: width)
    case .shortestEdge(let side), .longestEdge(let side):
      return squareBackground == nil ? nil : Size(height: side, width: side)
    case .none, .smart: return nil
    }
  }

  /// Writes the processing keys of the modality `name`.
  package func write(to metadata: inout Metadata, name: String) {
    metadata["\(name).layout"] = .string(layout.rawValue)
    if let squareBackground {
      metadata["\(name).pad_to_square"] = .bool(true)
      metadata["\(name).background"] = .ints(squareBackground.map { Int64($0) })
    }
    let (rule, size): (String, [Int]) =
      switch resize {
      case .none: ("none", [])
      case .exact(let height, let width): ("exact", [height, width])
      case .shortestEdge(let side): ("shortest_edge", [side])
      case .longestEdge(let side): ("longest_edge", [side])
      case .smart: ("smart", [])
      }
    metadata["\(name).resize"] = .string(rule)
    if !size.isEmpty { metadata["\(name).size"] = .ints(size.map { Int64($0) }) }
    if let crop { metadata["\(name).crop"] = .ints([Int64(crop.height), Int64(crop.width)]) }
    metadata["\(name).filter"] = .string(filter.rawValue)
    if case .smart(let multiple, let pixels) = resize {
      metadata["\(name).multiple"] = .int(Int64(multiple))
      metadata["\(name).pixels"] = .ints([Int64(pixels.lowerBound), Int64(pixels.upperBound)])
    }
    if layout != .whole, let tile { metadata["\(name).tile"] = .int(Int64(tile)) }
    switch layout {
    case .whole: break
    case .tiles: metadata["\(name).split"] = .bool(splits)
    case .grid:
      metadata["\(name).tiles"] = .ints([Int64(tiles.lowerBound), Int64(tiles.upperBound)])
      metadata["\(name).overview"] = .bool(hasOverview)
    case .anyres:
      metadata["\(name).pinpoints"] = .ints(pinpoints.flatMap { [Int64($0.height), Int64($0.width)] })
      if let severalBackground {
        metadata["\(name).several"] = .string("square")
        metadata["\(name).background"] = .ints(severalBackground.map { Int64($0) })
      }
    }
    if let coordinates { metadata["\(name).coordinates"] = .string(coordinates.rawValue) }
    metadata["\(name).rescale"] = .float(rescale)
    metadata["\(name).mean"] = .floats(mean)
    metadata["\(name).std"] = .floats(std)
  }
}
