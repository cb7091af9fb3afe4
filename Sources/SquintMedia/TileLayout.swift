/// How an image is cut: rows × columns tiles of height × width pixels, and perhaps the overview behind them.
package struct TileLayout: Sendable, Equatable, Hashable {
  package let rows: Int
  package let columns: Int
  /// Whether the whole image, reduced to one tile, follows the tiles.
  package let hasOverview: Bool
  /// The size of a tile in pixels.
  package let height: Int
  package let width: Int
  /// The size of the image itself, as it is displayed, where what is padding in the tiles follows from it; nil elsewhere.
  package let original: ImageProcessor.Size?

  package init(
    rows: Int, columns: Int, hasOverview: Bool, height: Int, width: Int, original: ImageProcessor.Size? = nil
  ) {
    self.rows = rows
    self.columns = columns
    self.hasOverview = hasOverview
    self.height = height
    self.width = width
    self.original = original
  }

  /// How many tiles there are, with the overview.
  package var count: Int { rows * columns + (hasOverview ? 1 : 0) }

  /// The bytes of the tiles' pixels: [count, height, width, 3].
  package var byteCount: Int { count * tileBytes }

  var tileBytes: Int { height * width * 3 }

  /// Where the pixel (x, y) of the image that is cut lies in the tiles, in bytes: the sum of one of these each.
  func offset(x: Int) -> Int { (x / width * height * width + x % width) * 3 }
  func offset(y: Int) -> Int { (y / height * columns * height * width + y % height * width) * 3 }
}

/// An image as the encoder takes it.
package struct TiledImage: Sendable {
  package let layout: TileLayout
  /// 8-bit levels of red, green and blue: [tile, height, width, 3]; tiles row after row, then the overview.
  package let pixels: [UInt8]

  package init(layout: TileLayout, pixels: [UInt8]) {
    self.layout = layout
    self.pixels = pixels
  }
}

/// Writes the rows of an image, as it is stored, into the tiles of the image as it is displayed.
final class TileWriter: RowReceiver {
  private let pixels: UnsafeMutablePointer<UInt8>
  /// Of each pixel of a stored row, and of each row, the part of its place in the tiles.
  private let alongOffsets: [Int]
  private let acrossOffsets: [Int]
  private var row = 0

  /// - Parameters:
  ///   - width, height: of the image as it is displayed.
  ///   - left, top: where its corner comes to lie among the tiles.
  ///   - pixels: [tile, height, width, 3], of which at least those that the image covers.
  init(
    width: Int, height: Int, left: Int, top: Int, orientation: Orientation, layout: TileLayout,
    pixels: UnsafeMutablePointer<UInt8>
  ) {
    self.pixels = pixels
    let xOffsets = (0..<width).map { layout.offset(x: left + (orientation.flipsX ? width - 1 - $0 : $0)) }
    let yOffsets = (0..<height).map { layout.offset(y: top + (orientation.flipsY ? height - 1 - $0 : $0)) }
    (alongOffsets, acrossOffsets) = orientation.swapsAxes ? (yOffsets, xOffsets) : (xOffsets, yOffsets)
  }

  static func byteCount(width: Int, height: Int) -> Int { 8 * (width + height) }

  func take(_ source: UnsafePointer<UInt8>) {
    let target = pixels + acrossOffsets[row]
    row += 1
    for x in 0..<alongOffsets.count {
      let pixel = target + alongOffsets[x]
      pixel[0] = source[4 * x]
      pixel[1] = source[4 * x + 1]
      pixel[2] = source[4 * x + 2]
    }
  }
}
