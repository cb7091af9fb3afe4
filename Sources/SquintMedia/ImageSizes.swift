import SquintFile

extension ImageProcessor {
  /// A layout for each number of tiles that an image can be cut into, rising, or for each shape of them; with `smart` the one
  /// with most pixels; none where a tile can be of any size, since images are not, or only in proportion, resized.
  package func layouts() -> [TileLayout] {
    switch (cutting, resize) {
    case (.whole(_, let crop?), _): return [Self.oneTile(crop)]
    case (.whole, .exact(let size)): return [Self.oneTile(size)]
    case (.tiles(let side, split: false), _): return [Self.oneTile(Size(height: side, width: side))]
    case (.tiles, .longestEdge(let longest)):
      var layouts: [Int: TileLayout] = [:]
      // Every image has one of these shapes after its first resize.
      for shorter in 1...longest {
        for (width, height) in [(longest, shorter), (shorter, longest)] {
          guard let layout = try? layout(width: width, height: height), layouts[layout.count] == nil else { continue }
          layouts[layout.count] = layout
        }
      }
      return layouts.values.sorted { $0.count < $1.count }
    case (.whole, .smart(let multiple, let pixels, let most)):
      return [Self.oneTile(Self.largestSmart(multiple: multiple, pixels: pixels, most: most))]
    case (.grid(let side, let tiles, let overview), _):
      return tiles.map { count in
        TileLayout(rows: 1, columns: count, hasOverview: overview && count > 1, height: side, width: side)
      }
    case (.anyres(let side, let pinpoints), _):
      // An image of a pinpoint's own size has no padding.
      let layouts = Set(pinpoints).map {
        TileLayout(
          rows: $0.height / side, columns: $0.width / side, hasOverview: true, height: side, width: side, original: $0)
      }
      guard layouts.isEmpty else { return layouts.sorted { ($0.count, $0.rows) < ($1.count, $1.rows) } }
      let square = Size(height: side, width: side)
      return [TileLayout(rows: 1, columns: 1, hasOverview: false, height: side, width: side, original: square)]
    case (.whole, .none), (.whole, .shortestEdge), (.whole, .longestEdge), (.tiles, _): return []
    }
  }

  /// The size with most squares that `smart` makes of an image of any proportions, or one with a few more.
  private static func largestSmart(multiple: Int, pixels: ClosedRange<Int>, most: Int?) -> Size {
    let square = multiple * multiple
    let aspect = Double(ImageLimits.aspect)
    var best = (rows: 1, columns: 1)
    func offer(_ rows: Int, _ columns: Int) {
      if rows * columns >= best.rows * best.columns, rows <= columns { best = (rows, columns) }
    }
    // Reduced to the largest area; of a narrow image a row of squares is left, whose number is the root of that and of the aspect.
    let largest = max(1, pixels.upperBound / square)
    let ofNarrow = Int((aspect * Double(pixels.upperBound)).squareRoot() / Double(multiple))
    offer(1, max(1, ofNarrow))
    for rows in 1...max(1, Int(Double(largest).squareRoot())) {
      offer(rows, min(largest / rows, ImageLimits.aspect * rows))
    }
    // Enlarged to the smallest area, where both sides are rounded up: the shorter one is more than rows − 1 squares.
    let smallest = Double(pixels.lowerBound)
    let longest = ((aspect * smallest).squareRoot() / Double(multiple)).rounded(.up)
    for rows in 1...max(1, Int((smallest.squareRoot() / Double(multiple)).rounded(.up))) {
      let columns = rows == 1 ? longest : min(longest, (smallest / Double((rows - 1) * square)).rounded(.up))
      offer(rows, Int(columns))
    }
    if let most, best.rows * best.columns > most {
      best = (1, 1)
      for rows in 1...max(1, Int(Double(most).squareRoot())) { offer(rows, most / rows) }
    }
    return Size(height: best.rows * multiple, width: best.columns * multiple)
  }

  /// The same for images that become squares of `side` pixels: what an encoder whose positions can be resized looks at
  /// in more or less detail.
  ///
  /// - Throws: `usage` where the side is none, or images are cut into tiles, whose side is the encoder's.
  package func resizing(toSide side: Int) throws(SquintError) -> ImageProcessor {
    guard case .whole(let background, let crop) = cutting else {
      throw SquintError(.usage, "the size of this model's tiles cannot be chosen")
    }
    if case .smart = resize {
      throw SquintError(.usage, "this model's images keep their proportions; their side cannot be chosen")
    }
    guard (1...16384).contains(side) else { throw SquintError(.usage, "a size of \(side) pixels; choose 1 to 16384") }
    let square = Size(height: side, width: side)
    return try ImageProcessor(
      cutting: .whole(background: background, crop: crop == nil ? nil : square),
      resize: crop == nil ? .exact(square) : .shortestEdge(side), filter: filter, rescale: rescale, mean: mean, std: std
    )
  }

  /// The same for images that become at most `most` tiles: they are reduced further before they are cut.
  ///
  /// - Parameters:
  ///   - most: at least 1.
  ///   - width, height: of the image, as it is displayed.
  /// - Throws: as `layout(width:height:)`; `usage` where no limit can be set.
  package func limited(toTiles most: Int, width: Int, height: Int) throws(SquintError) -> ImageProcessor {
    guard most >= 1 else { throw SquintError(.usage, "at most \(most) tiles; choose 1 or more") }
    guard try layout(width: width, height: height).count > most else { return self }
    switch cutting {
    case .whole: return self
    case .grid(let side, let tiles, let overview):
      // The overview is a tile, too, where there is one.
      for largest in stride(from: min(most, tiles.upperBound), through: 1, by: -1) {
        let fewer = min(tiles.lowerBound, largest)...largest
        let smaller = try cut(.grid(side: side, tiles: fewer, overview: overview), resize)
        if try smaller.layout(width: width, height: height).count <= most { return smaller }
      }
      return self
    case .anyres(let side, let pinpoints):
      let smaller = pinpoints.filter { $0.height / side * ($0.width / side) < most }
      return try cut(.anyres(side: side, pinpoints: smaller), resize)
    case .tiles(let side, _): return try limited(toTiles: most, of: side, width: width, height: height)
    }
  }

  private func limited(
    toTiles most: Int, of side: Int, width: Int, height: Int
  ) throws(SquintError) -> ImageProcessor {
    guard case .longestEdge(let longest) = resize else {
      throw SquintError(.usage, "the number of this model's tiles cannot be limited")
    }
    for tiles in stride(from: (longest - 1) / side, through: 1, by: -1) {
      let smaller = try cut(.tiles(side: side, split: true), .longestEdge(tiles * side))
      if try smaller.layout(width: width, height: height).count <= most { return smaller }
    }
    return try cut(.tiles(side: side, split: false), resize)
  }

  /// The same for images that become at most `most` pixels, and no more than so many squares of what their sides are multiples of.
  ///
  /// - Parameter most: less than a square counts as one.
  /// - Throws: `usage` where the size of images does not follow from theirs.
  package func limited(toPixels most: Int) throws(SquintError) -> ImageProcessor {
    guard case .smart(let multiple, let pixels, let squares) = resize else {
      throw SquintError(.usage, "the number of pixels of this model's images cannot be limited")
    }
    let square = multiple * multiple
    let limit = max(most, square)
    guard limit < pixels.upperBound else { return self }
    return try cut(
      cutting,
      .smart(
        multiple: multiple, pixels: min(pixels.lowerBound, limit)...limit, most: min(squares ?? Int.max, limit / square)
      ))
  }

  /// What the sides of images are multiples of, where their size follows from theirs; nil elsewhere.
  package var multiple: Int? {
    guard case .smart(let multiple, _, _) = resize else { return nil }
    return multiple
  }

  private func cut(_ cutting: Cutting, _ resize: Resize) throws(SquintError) -> ImageProcessor {
    try ImageProcessor(
      cutting: cutting, resize: resize, filter: filter, rescale: rescale, mean: mean, std: std,
      severalBackground: severalBackground)
  }

  /// The processor of an image that stands in a prompt with others; the same where that changes nothing.
  package func amongSeveral() -> ImageProcessor {
    guard let severalBackground, case .anyres(let side, _) = cutting,
      let square = try? ImageProcessor(
        cutting: .whole(background: severalBackground, crop: nil), resize: .exact(Size(height: side, width: side)),
        filter: filter, rescale: rescale, mean: mean, std: std)
    else { return self }
    return square
  }
}
