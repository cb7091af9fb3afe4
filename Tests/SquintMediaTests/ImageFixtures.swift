import Foundation
import SquintFile
import SquintMedia
import Testing

/// The folder that tools/fixtures/images.py writes; SQUINT_PICTURES names one with its random images.
let imagesFolder =
  ProcessInfo.processInfo.environment["SQUINT_PICTURES"].map { URL(fileURLWithPath: $0) }
  ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures/pictures")

/// An image and the pixels that Pillow and transformers make of it.
struct ImageCase: Decodable, Sendable, CustomTestStringConvertible {
  struct Keys: Decodable, Sendable {
    let layout: String
    let resize: String
    let filter: String
    let size: [Int64]?
    let crop: [Int64]?
    let padToSquare: Bool?
    let background: [Int64]?
    let tile: Int64?
    let split: Bool?
    let tiles: [Int64]?
    let overview: Bool?
    let pinpoints: [Int64]?
    let multiple: Int64?
    let pixels: [Int64]?
    let several: String?
    /// Not of the metadata: whether it is one of several images.
    let among: Bool?

    enum CodingKeys: String, CodingKey {
      case layout, resize, filter, size, crop, background, tile, split, tiles, overview, pinpoints, multiple, pixels,
        several, among
      case padToSquare = "pad_to_square"
    }
  }

  let name: String
  let file: String
  let metadata: Keys
  /// Rows, columns, 1 with an overview, height, width.
  let layout: [Int]
  /// Width and height of the image itself, where they are part of the layout.
  let original: [Int]?
  let offset: Int

  var path: String { imagesFolder.appendingPathComponent(file).path }
  var testDescription: String { name }

  var tileLayout: TileLayout {
    TileLayout(
      rows: layout[0], columns: layout[1], hasOverview: layout[2] == 1, height: layout[3], width: layout[4],
      original: original.map { ImageProcessor.Size(height: $0[1], width: $0[0]) })
  }

  var expected: ArraySlice<UInt8> { Self.pixels[offset..<offset + tileLayout.byteCount] }

  var processor: ImageProcessor {
    get throws {
      var values = Metadata()
      values["image.layout"] = .string(metadata.layout)
      values["image.resize"] = .string(metadata.resize)
      values["image.filter"] = .string(metadata.filter)
      values["image.size"] = metadata.size.map { .ints($0) }
      values["image.crop"] = metadata.crop.map { .ints($0) }
      values["image.pad_to_square"] = metadata.padToSquare.map { .bool($0) }
      values["image.background"] = metadata.background.map { .ints($0) }
      values["image.tile"] = metadata.tile.map { .int($0) }
      values["image.split"] = metadata.split.map { .bool($0) }
      values["image.tiles"] = metadata.tiles.map { .ints($0) }
      values["image.overview"] = metadata.overview.map { .bool($0) }
      values["image.pinpoints"] = metadata.pinpoints.map { .ints($0) }
      values["image.multiple"] = metadata.multiple.map { .int($0) }
      values["image.pixels"] = metadata.pixels.map { .ints($0) }
      values["image.rescale"] = .float(1.0 / 255)
      values["image.mean"] = .floats([0.5, 0.5, 0.5])
      values["image.std"] = .floats([0.5, 0.5, 0.5])
      values["image.several"] = metadata.several.map { .string($0) }
      let processor = try ImageProcessor(values)
      return metadata.among == true ? processor.amongSeveral() : processor
    }
  }

  static let all: [ImageCase] = decoded("cases.json")
  private static let pixels = [UInt8](
    (try? Data(contentsOf: imagesFolder.appendingPathComponent("expected.bin"))) ?? Data())
}

/// A file that is refused, and a word that the message has.
struct RefusedImage: Decodable, Sendable, CustomTestStringConvertible {
  let file: String
  let word: String

  var path: String { imagesFolder.appendingPathComponent(file).path }
  var testDescription: String { file }

  static let all: [RefusedImage] = decoded("refused.json")
}

private func decoded<T: Decodable>(_ file: String) -> [T] {
  guard let data = try? Data(contentsOf: imagesFolder.appendingPathComponent(file)) else { return [] }
  return (try? JSONDecoder().decode([T].self, from: data)) ?? []
}

/// The error that `body` throws, or nil.
func caught(_ body: () throws -> Void) -> SquintError? {
  do {
    try body()
    return nil
  } catch { return error as? SquintError }
}

/// A processor that leaves the image as it is.
func asItIs() throws -> ImageProcessor {
  try ImageProcessor(
    cutting: .whole(background: nil, crop: nil), resize: .none, filter: .bicubic, mean: [0, 0, 0], std: [1, 1, 1])
}
