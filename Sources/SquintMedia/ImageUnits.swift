import SquintFile

/// An image's units are its tiles: 8-bit levels, [height, width, 3] each.
extension ImageProcessor: MediaProcessor {
  /// What decoding an image takes beside its tiles where nothing is known of it: enough for a photograph of 50 megapixels,
  /// unless it is a progressive JPEG, an interlaced PNG or a WebP, which are held whole.
  private static let usualDecoderBytes = 8 << 20

  package func costs() -> [MediaCost] {
    layouts().map {
      MediaCost(layout: MediaLayout($0), decodingBytes: $0.byteCount + Self.usualDecoderBytes)
    }
  }

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost {
    let header = try ImageHeader.read(file)
    return MediaCost(
      layout: MediaLayout(try layout(width: header.width, height: header.height)),
      decodingBytes: peakBytes(for: header),
      source: .init(width: header.width, height: header.height))
  }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> ImageProcessor {
    let header = try ImageHeader.read(file)
    return try limited(toTiles: most, width: header.width, height: header.height)
  }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? {
    try process(file, while: shouldContinue).map { MediaUnits(layout: MediaLayout($0.layout), bytes: $0.pixels) }
  }

  /// [3, height, width], normalized.
  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    ([3, shape[0], shape[1]], Self.planes(of: unit, levels: levels))
  }

  /// The planes of red, green and blue, normalized, of pixels [pixel, 3].
  static func planes(of pixels: UnsafeRawBufferPointer, levels: [Float]) -> [Float] {
    let plane = pixels.count / 3
    return [Float](unsafeUninitializedCapacity: 3 * plane) { planes, count in
      for channel in 0..<3 {
        for pixel in 0..<plane {
          planes[channel * plane + pixel] = levels[channel * 256 + Int(pixels[3 * pixel + channel])]
        }
      }
      count = 3 * plane
    }
  }
}

extension MediaLayout {
  init(_ tiles: TileLayout) {
    self.init(
      runs: [Run(shape: [tiles.height, tiles.width], count: tiles.count, unitBytes: tiles.tileBytes)],
      grid: Grid(rows: tiles.rows, columns: tiles.columns, hasOverview: tiles.hasOverview),
      original: tiles.original.map { Size(width: $0.width, height: $0.height) })
  }
}
