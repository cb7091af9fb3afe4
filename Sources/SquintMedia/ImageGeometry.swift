import SquintFile

/// The sizes that an image takes on its way to the tiles, as it is displayed.
struct ImageGeometry: Equatable {
  /// The resizes, in order; the first is from the (padded) image. None changes nothing.
  var resizes: [ImageProcessor.Size]
  /// The part of the last size that is kept.
  var columns: Range<Int>
  var rows: Range<Int>
  /// Where it comes to lie in the tiles; around it is zero.
  var left = 0
  var top = 0
  var layout: TileLayout
}

extension ImageProcessor {
  /// How the tiles of an image of this size, as it is displayed, are laid out.
  ///
  /// - Throws: `badData` where the image is of a size that is refused, or the model makes tiles of it that no board holds.
  package func layout(width: Int, height: Int) throws(SquintError) -> TileLayout {
    try geometry(width: width, height: height).layout
  }

  /// The layout with most tiles that an image can have, whatever its shape; nil where a tile can be of any size, since
  /// images are not, or only in proportion, resized.
  package func largestLayout() -> TileLayout? { layouts().last }

  func geometry(width: Int, height: Int) throws(SquintError) -> ImageGeometry {
    if let objection = ImageLimits.objection(width: width, height: height) { throw SquintError(.badData, objection) }
    let geometry =
      switch cutting {
      case .whole(let background, let crop):
        wholeGeometry(
          background == nil
            ? Size(height: height, width: width)
            : Size(height: max(height, width), width: max(height, width)), crop: crop)
      case .tiles(let side, let split): tilesGeometry(Size(height: height, width: width), side: side, split: split)
      }
    guard geometry.layout.count <= Self.mostTiles else {
      throw SquintError(
        .badData,
        "the model cuts an image of \(grouped(width)) × \(grouped(height)) pixels into \(grouped(geometry.layout.count)) "
          + "tiles; \(grouped(Self.mostTiles)) at most, give a smaller image or convert the model again")
    }
    let area = geometry.layout.count * geometry.layout.height * geometry.layout.width
    guard area <= ImageLimits.pixels else {
      throw SquintError(
        .badData,
        "the model makes \(grouped(area)) pixels of an image of \(grouped(width)) × \(grouped(height)); give a smaller or less narrow one"
      )
    }
    return geometry
  }

  /// Models cut an image into dozens of tiles. Each is planned for, and has its text in the prompt.
  static let mostTiles = 1025

  static func oneTile(_ size: Size) -> TileLayout {
    TileLayout(rows: 1, columns: 1, hasOverview: false, height: size.height, width: size.width)
  }

  private func wholeGeometry(_ size: Size, crop: Size?) -> ImageGeometry {
    let resized = resized(size)
    let tile = crop ?? resized
    let (columns, left) = Self.centered(resized.width, in: tile.width)
    let (rows, top) = Self.centered(resized.height, in: tile.height)
    return ImageGeometry(
      resizes: [resized], columns: columns, rows: rows, left: left, top: top, layout: Self.oneTile(tile))
  }

  /// What of `count` pixels is kept by a cut to `cut`, and where it comes to lie (`center_crop` of image_transforms.py).
  private static func centered(_ count: Int, in cut: Int) -> (kept: Range<Int>, position: Int) {
    guard count < cut else { return ((count - cut) / 2..<(count - cut) / 2 + cut, 0) }
    return (0..<count, (cut - count + 1) / 2)
  }

  /// As `Idefics3ImageProcessorPil` does it (image_processing_pil_idefics3.py).
  private func tilesGeometry(_ size: Size, side: Int, split: Bool) -> ImageGeometry {
    let first = resized(size)
    let whole = split ? Self.multiples(first, of: side) : Size(height: side, width: side)
    let (rows, columns) = (whole.height / side, whole.width / side)
    return ImageGeometry(
      resizes: [first, whole], columns: 0..<whole.width, rows: 0..<whole.height,
      layout: TileLayout(rows: rows, columns: columns, hasOverview: rows * columns > 1, height: side, width: side))
  }

  /// `resize_for_vision_encoder`: the longer side to the next multiple of `side`, the shorter one in proportion to that and
  /// to its next multiple. An image so narrow that nothing would be left keeps one row of tiles (transformers fails).
  private static func multiples(_ size: Size, of side: Int) -> Size {
    func multiple(_ value: Int) -> Int { max(1, (value + side - 1) / side) * side }
    let aspect = Double(size.width) / Double(size.height)
    if size.width >= size.height {
      let width = multiple(size.width)
      return Size(height: multiple(Int(Double(width) / aspect)), width: width)
    }
    let height = multiple(size.height)
    return Size(height: height, width: multiple(Int(Double(height) * aspect)))
  }

  /// The size that `resize` makes of `size`.
  private func resized(_ size: Size) -> Size {
    switch resize {
    case .none: return size
    case .exact(let exact): return exact
    case .shortestEdge(let shortest):  // get_resize_output_image_size of image_transforms.py
      let (shorter, longer) = (min(size.width, size.height), max(size.width, size.height))
      let long = Int(Double(shortest * longer) / Double(shorter))
      return size.width <= size.height ? Size(height: long, width: shortest) : Size(height: shortest, width: long)
    case .longestEdge(let longest): return Self.below(4096, Self.longest(longest, size))
    }
  }

  /// `_resize_output_size_rescale_to_max_len` of image_processing_pil_idefics3.py.
  private static func longest(_ longest: Int, _ size: Size) -> Size {
    let aspect = Double(size.width) / Double(size.height)
    func even(_ value: Int) -> Int { max(1, value + value % 2) }
    if size.width >= size.height { return Size(height: even(Int(Double(longest) / aspect)), width: longest) }
    return Size(height: longest, width: even(Int(Double(longest) * aspect)))
  }

  /// `_resize_output_size_scale_below_upper_bound` of image_processing_pil_idefics3.py, whose bound is always 4096.
  private static func below(_ bound: Int, _ size: Size) -> Size {
    let aspect = Double(size.width) / Double(size.height)
    if size.width >= size.height && size.width > bound {
      return Size(height: max(1, Int(Double(bound) / aspect)), width: bound)
    }
    if size.height > size.width && size.height > bound {
      return Size(height: bound, width: max(1, Int(Double(bound) * aspect)))
    }
    return size
  }
}
