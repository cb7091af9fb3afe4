import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// How the rows that a projector makes of a medium's units come to stand in the decoder's input.
enum RowPacking: String, CaseIterable, Sendable {
  /// One unit behind the other.
  case plain
  /// Those of the overview, then those of the tiles as rows of the whole image, without those of the padding around it, and behind
  /// each row a newline (LLaVA-NeXT, `pack_image_features` of modeling_llava_next.py).
  case anyres
}

/// The places of a packed image's rows.
package struct RowArrangement: Equatable, Sendable {
  /// The tiles, and the rows that each becomes.
  let tiles: MediaLayout.Grid
  let tile: FeatureGrid
  /// The rows and columns of the tiles' features that the image covers.
  private let rows: Range<Int>
  private let columns: Range<Int>
  /// What these are reduced to: the same where they are not.
  private let reduced: FeatureGrid

  /// - Parameters:
  ///   - original: the image's size.
  ///   - limit: features of more tiles than so many are reduced; nil: they are not.
  package init(tiles: MediaLayout.Grid, tile: FeatureGrid, original: MediaLayout.Size, limit: Int?) {
    self.tiles = tiles
    self.tile = tile
    let (height, width) = (tiles.rows * tile.rows, tiles.columns * tile.columns)
    // `unpad_image` of modeling_llava_next.py
    func covered(_ side: Int, _ own: Int, scale: Double) -> Range<Int> {
      let scaled = Double(own) * scale
      let padding = max(side - Int((scaled * 1e7).rounded(.toNearestOrEven) / 1e7), 0) / 2
      return min(padding, side / 2)..<max(side - padding, side / 2 + side % 2)
    }
    if Double(original.width) / Double(original.height) > Double(width) / Double(height) {
      columns = 0..<width
      rows = covered(height, original.height, scale: Double(width) / Double(original.width))
    } else {
      rows = 0..<height
      columns = covered(width, original.width, scale: Double(height) / Double(original.height))
    }
    reduced = Self.reduced(rows.count, columns.count, tile: tile, limit: limit)
  }

  /// `pack_image_features` of modeling_llava_onevision.py: no more than about `limit` tiles of features.
  private static func reduced(_ rows: Int, _ columns: Int, tile: FeatureGrid, limit: Int?) -> FeatureGrid {
    guard let limit else { return FeatureGrid(rows: rows, columns: columns) }
    let ratio = (Double(rows * columns) / Double(limit * tile.rows * tile.rows)).squareRoot()
    guard ratio > 1.1 else { return FeatureGrid(rows: rows, columns: columns) }
    // Python's //, which rounds down what is left after the remainder is taken.
    func floored(_ side: Int) -> Int {
      max(Int(((Double(side) - Double(side).truncatingRemainder(dividingBy: ratio)) / ratio).rounded()), 1)
    }
    return FeatureGrid(rows: floored(rows), columns: floored(columns))
  }

  /// The rows of the overview, which come first.
  private var overview: Int { tiles.hasOverview ? tile.count : 0 }

  /// How many there are. Of an image that is one tile alone they are not taken apart: one newline stands behind all of them.
  package var count: Int { tiles.hasOverview ? overview + reduced.rows * (reduced.columns + 1) : tile.count + 1 }

  /// Adds what a unit's rows are in the image's, which are zero before the first.
  ///
  /// - Parameters:
  ///   - unit: the tiles row after row, then the overview.
  ///   - rows: [tile's rows, width]
  ///   - image: [count, width], which may be further apart
  package func add(unit: Int, _ rows: Rows, to image: Rows) {
    guard tiles.hasOverview, unit < tiles.rows * tiles.columns else {
      for row in 0..<tile.count { image[row].update(from: rows[row], count: rows.width) }
      return
    }
    let top = unit / tiles.columns * tile.rows
    let left = unit % tiles.columns * tile.columns
    let vertical = (0..<reduced.rows).map { Self.neighbours($0, of: reduced.rows, in: self.rows) }
    let horizontal = (0..<reduced.columns).map { Self.neighbours($0, of: reduced.columns, in: columns) }
    for (y, sources) in vertical.enumerated() {
      for (source, share) in sources where (top..<top + tile.rows).contains(source) && share > 0 {
        for (x, others) in horizontal.enumerated() {
          let output = image[overview + y * (reduced.columns + 1) + x]
          for (other, part) in others where (left..<left + tile.columns).contains(other) && part > 0 {
            let input = rows[(source - top) * tile.columns + other - left]
            let weight = share * part
            for index in 0..<rows.width { output[index] += weight * input[index] }
          }
        }
      }
    }
  }

  /// Writes what stands behind each row of the image.
  ///
  /// - Parameter newline: [width]
  package func addNewlines(_ newline: UnsafePointer<Float>, width: Int, to image: Rows) {
    guard tiles.hasOverview else { return image[tile.count].update(from: newline, count: width) }
    for row in 0..<reduced.rows {
      image[overview + row * (reduced.columns + 1) + reduced.columns].update(from: newline, count: width)
    }
  }

  /// The places of `covered` that place `index` of `count` is made of, and how much of each: PyTorch's bilinear interpolation with
  /// align_corners = false.
  private static func neighbours(_ index: Int, of count: Int, in covered: Range<Int>) -> [(place: Int, share: Float)] {
    guard count != covered.count else { return [(covered.lowerBound + index, 1)] }
    let place = max((Float(index) + 0.5) * (Float(covered.count) / Float(count)) - 0.5, 0)
    let below = min(Int(place), covered.count - 1)
    let above = min(below + 1, covered.count - 1)
    let part = place - Float(below)
    return [(covered.lowerBound + below, 1 - part), (covered.lowerBound + above, part)]
  }
}
