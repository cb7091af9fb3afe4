import Squint
import SquintCompute
import SquintFile
import SquintMedia
import SquintModels
import Testing

/// Where the rows of media come to stand.
@Suite struct MediaRowsTests {
  /// Each place is made of places of the tiles, whose shares add up to one; what is padding is in none.
  @Test func packedRowsComeFromTheirTiles() throws {
    let tiles = MediaLayout.Grid(rows: 2, columns: 3, hasOverview: true)
    let tile = FeatureGrid(rows: 4, columns: 4)
    for (width, height) in [(300, 200), (300, 100), (90, 200), (299, 201), (1, 1), (16384, 1)] {
      for limit in [nil, 1, 2, 9] as [Int?] {
        let arrangement = RowArrangement(
          tiles: tiles, tile: tile, original: .init(width: width, height: height), limit: limit)
        let count = arrangement.count
        // Of an image that is nothing but a line all may be taken for padding, as the reference does it.
        #expect(count >= tile.count && count <= tile.count + 8 * 13)
        #expect(count > tile.count || min(width, height) == 1)
        // A row of ones stays one wherever it goes, and a newline is a two.
        var image = [Float](repeating: 0, count: count)
        let ones = [Float](repeating: 1, count: tile.count)
        image.withUnsafeMutableBufferPointer { image in
          var ones = ones
          ones.withUnsafeMutableBufferPointer { ones in
            let rows = Rows(data: image.baseAddress!, width: 1)
            [Float(2)].withUnsafeBufferPointer { arrangement.addNewlines($0.baseAddress!, width: 1, to: rows) }
            for unit in 0..<7 { arrangement.add(unit: unit, Rows(data: ones.baseAddress!, width: 1), to: rows) }
          }
        }
        #expect(image.allSatisfy { abs($0 - 1) < 1e-5 || $0 == 2 }, "\(width) × \(height), \(limit ?? 0)")
        #expect(image[..<tile.count].allSatisfy { $0 == 1 } && (image.last == 2 || count == tile.count))
      }
    }
  }

  /// An image that is one tile alone has one newline, behind all its rows.
  @Test func oneTileHasOneNewline() {
    let arrangement = RowArrangement(
      tiles: .init(rows: 1, columns: 1, hasOverview: false), tile: FeatureGrid(rows: 3, columns: 3),
      original: .init(width: 50, height: 20), limit: nil)
    #expect(arrangement.count == 10)
  }
}
