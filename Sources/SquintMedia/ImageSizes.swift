import SquintFile

extension ImageProcessor {
  /// A layout for each number of tiles that an image can be cut into, rising; none where a tile can be of any size, since
  /// images are not, or only in proportion, resized.
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
    default: return []
    }
  }

  /// The same for images that become squares of `side` pixels: what an encoder whose positions can be resized looks at
  /// in more or less detail.
  ///
  /// - Throws: `usage` where the side is none, or images are cut into tiles, whose side is the encoder's.
  package func resizing(toSide side: Int) throws(SquintError) -> ImageProcessor {
    guard case .whole(let background, let crop) = cutting else {
      throw SquintError(.usage, "the size of this model's tiles cannot be chosen")
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
    guard case .tiles(let side, split: true) = cutting, try layout(width: width, height: height).count > most else {
      return self
    }
    guard case .longestEdge(let longest) = resize else {
      throw SquintError(.usage, "the number of this model's tiles cannot be limited")
    }
    for tiles in stride(from: (longest - 1) / side, through: 1, by: -1) {
      let smaller = try cut(.tiles(side: side, split: true), .longestEdge(tiles * side))
      if try smaller.layout(width: width, height: height).count <= most { return smaller }
    }
    return try cut(.tiles(side: side, split: false), resize)
  }

  private func cut(_ cutting: Cutting, _ resize: Resize) throws(SquintError) -> ImageProcessor {
    try ImageProcessor(
      cutting: cutting, resize: resize, filter: filter, rescale: rescale, mean: mean, std: std)
  }
}
