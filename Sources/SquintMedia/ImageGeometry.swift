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
  /// Whether the overview is made of the image as it came, not of the one that lies in the tiles.
  var overviewIsOfImage = false
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
      case .grid(let side, let tiles, let overview):
        Self.gridGeometry(Size(height: height, width: width), side: side, tiles: tiles, overview: overview)
      case .anyres(let side, let pinpoints):
        Self.anyresGeometry(Size(height: height, width: width), side: side, pinpoints: pinpoints)
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
    case .smart(let multiple, let pixels, let most):
      return Self.smart(size, multiple: multiple, pixels: pixels, most: most)
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

  // MARK: Grids of nearest proportions

  private static func gridGeometry(
    _ size: Size, side: Int, tiles: ClosedRange<Int>, overview: Bool
  ) -> ImageGeometry {
    let (rows, columns) = nearestGrid(to: size, side: side, tiles: tiles)
    let whole = Size(height: rows * side, width: columns * side)
    return ImageGeometry(
      resizes: [whole], columns: 0..<whole.width, rows: 0..<whole.height,
      layout: TileLayout(
        rows: rows, columns: columns, hasOverview: overview && rows * columns > 1, height: side, width: side),
      overviewIsOfImage: true)
  }

  /// `get_optimal_tiled_canvas` of image_processing_pil_got_ocr2.py: of all grids, the smallest first and of equal ones the
  /// narrowest, that whose proportions differ least; of equal differences the later one, unless it has more than twice the image's
  /// pixels.
  private static func nearestGrid(
    to size: Size, side: Int, tiles: ClosedRange<Int>
  ) -> (rows: Int, columns: Int) {
    let aspect = Double(size.width) / Double(size.height)
    let area = Double(size.width * size.height)
    var best = (rows: 1, columns: 1)
    var least = Double.infinity
    for count in tiles {
      for columns in 1...count where count % columns == 0 {
        let rows = count / columns
        let difference = abs(aspect - Double(columns) / Double(rows))
        if difference < least || difference == least && area > 0.5 * Double(side * side * count) {
          least = difference
          best = (rows, columns)
        }
      }
    }
    return best
  }

  // MARK: Any resolution

  private static func anyresGeometry(_ size: Size, side: Int, pinpoints: [Size]) -> ImageGeometry {
    guard let canvas = bestPinpoint(for: size, of: pinpoints) else {
      return ImageGeometry(
        resizes: [Size(height: side, width: side)], columns: 0..<side, rows: 0..<side,
        layout: TileLayout(rows: 1, columns: 1, hasOverview: false, height: side, width: side, original: size))
    }
    let inner = fitted(size, in: canvas)
    return ImageGeometry(
      resizes: [inner], columns: 0..<inner.width, rows: 0..<inner.height, left: (canvas.width - inner.width) / 2,
      top: (canvas.height - inner.height) / 2,
      layout: TileLayout(
        rows: canvas.height / side, columns: canvas.width / side, hasOverview: true, height: side, width: side,
        original: size),
      overviewIsOfImage: true)
  }

  /// `select_best_resolution` of image_processing_utils.py: the one with most pixels of the image, and of these with least padding;
  /// nil only where there are none.
  private static func bestPinpoint(for size: Size, of pinpoints: [Size]) -> Size? {
    var best: (size: Size, effective: Int, wasted: Int)?
    for pinpoint in pinpoints {
      let scale = min(
        Double(pinpoint.width) / Double(size.width), Double(pinpoint.height) / Double(size.height))
      let reduced = Int(Double(size.width) * scale) * Int(Double(size.height) * scale)
      let effective = min(reduced, size.width * size.height)
      let wasted = pinpoint.width * pinpoint.height - effective
      if let best, effective < best.effective || effective == best.effective && wasted >= best.wasted { continue }
      best = (pinpoint, effective, wasted)
    }
    return best?.size
  }

  /// `get_patch_output_size` of image_processing_utils.py: as large as goes into `canvas`, the proportions kept.
  private static func fitted(_ size: Size, in canvas: Size) -> Size {
    let horizontal = Double(canvas.width) / Double(size.width)
    let vertical = Double(canvas.height) / Double(size.height)
    if horizontal < vertical {
      let height = Int((Double(size.height) * horizontal).rounded(.up))
      return Size(height: min(height, canvas.height), width: canvas.width)
    }
    let width = Int((Double(size.width) * vertical).rounded(.up))
    return Size(height: canvas.height, width: min(width, canvas.width))
  }

  // MARK: Smart

  /// `smart_resize` of image_processing_pil_qwen2_vl.py, and then no more than `most` squares.
  static func smart(_ size: Size, multiple: Int, pixels: ClosedRange<Int>, most: Int?) -> Size {
    let (height, width) = (Double(size.height), Double(size.width))
    let factor = Double(multiple)
    func squares(_ side: Double) -> Int { Int((side / factor).rounded(.toNearestOrEven)) }
    var (rows, columns) = (squares(height), squares(width))
    let area = rows * columns * multiple * multiple
    if area > pixels.upperBound {
      let beta = (height * width / Double(pixels.upperBound)).squareRoot()
      rows = max(1, Int((height / beta / factor).rounded(.down)))
      columns = max(1, Int((width / beta / factor).rounded(.down)))
    } else if area < pixels.lowerBound {
      let beta = (Double(pixels.lowerBound) / (height * width)).squareRoot()
      rows = Int((height * beta / factor).rounded(.up))
      columns = Int((width * beta / factor).rounded(.up))
    }
    if let most, rows * columns > most {
      if columns >= rows {
        rows = min(rows, most)
        columns = most / rows
      } else {
        columns = min(columns, most)
        rows = most / columns
      }
    }
    return Size(height: rows * multiple, width: columns * multiple)
  }
}
