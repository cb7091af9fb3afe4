import SquintFile
import SquintMedia
import Testing

private func processor(
  _ cutting: ImageProcessor.Cutting, _ resize: ImageProcessor.Resize = .none
) throws -> ImageProcessor {
  try ImageProcessor(
    cutting: cutting, resize: resize, filter: .bicubic, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
}

private func smart(
  _ multiple: Int, _ pixels: ClosedRange<Int>, most: Int? = nil
) throws -> ImageProcessor {
  try processor(.whole(background: nil, crop: nil), .smart(multiple: multiple, pixels: pixels, most: most))
}

private let nextPinpoints = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)].map {
  ImageProcessor.Size(height: $0, width: $1)
}

/// Images of all proportions up to 200, the sides evenly spread over their logarithm.
private func shapes(_ count: Int) -> [(width: Int, height: Int)] {
  var state: UInt64 = 11
  func next(_ most: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    let exponent = Int(state >> 60) % 13
    return max(1, min(most, (1 << exponent) + Int(state >> 33) % (1 << exponent)))
  }
  return (0..<count).map { _ in
    let (width, height) = (next(6000), next(6000))
    return (max(width, (height + 199) / 200), max(height, (width + 199) / 200))
  }
}

@Suite struct TileRuleTests {
  /// `get_optimal_tiled_canvas` of transformers 5.24, tiles of 448, 1 to 12.
  @Test(
    arguments: [
      (800, 600, 3, 4), (600, 800, 4, 3), (448, 448, 1, 1), (640, 640, 2, 2), (950, 950, 2, 2), (10, 2000, 12, 1),
      (2000, 10, 1, 12), (1920, 1080, 2, 4), (449, 448, 1, 1), (896, 448, 1, 2), (1344, 448, 1, 3), (1000, 500, 1, 2),
    ])
  func gridsOfInternVL(_ width: Int, _ height: Int, _ rows: Int, _ columns: Int) throws {
    let layout = try processor(.grid(side: 448, tiles: 1...12, overview: true)).layout(width: width, height: height)
    #expect(layout.rows == rows && layout.columns == columns)
    #expect(layout.hasOverview == (rows * columns > 1))
    #expect(layout.original == nil && layout.height == 448 && layout.width == 448)
  }

  /// `smart_resize` of transformers 5.24 with a multiple of 28 and 3,136 to 1,003,520 pixels.
  @Test(
    arguments: [
      (1024, 768, 1036, 756), (70, 42, 56, 56), (42, 70, 56, 56), (1, 1, 56, 56), (14, 14, 56, 56),
      (4000, 3000, 1148, 840),
      (2800, 14, 812, 28), (14000, 70, 14000, 56), (98, 126, 112, 112),
    ])
  func sizesOfQwen(_ width: Int, _ height: Int, _ newWidth: Int, _ newHeight: Int) throws {
    let layout = try smart(28, 3136...1_003_520).layout(width: width, height: height)
    #expect(layout == TileLayout(rows: 1, columns: 1, hasOverview: false, height: newHeight, width: newWidth))
  }

  @Test func tooNarrowForQwen() throws {
    let error = caught { _ = try smart(28, 3136...1_003_520).layout(width: 201, height: 1) }
    #expect(error?.message.contains("200 times as long as wide") == true)
  }

  /// `select_best_resolution` of transformers 5.24 with LLaVA-NeXT's sizes.
  @Test(
    arguments: [
      (1000, 500, 336, 672), (500, 1000, 672, 336), (500, 500, 672, 672), (100, 100, 336, 672), (3000, 900, 336, 1008),
      (900, 3000, 1008, 336), (200, 1, 336, 672),
    ])
  func sizesOfLLaVANeXT(_ width: Int, _ height: Int, _ canvasHeight: Int, _ canvasWidth: Int) throws {
    let layout = try processor(.anyres(side: 336, pinpoints: nextPinpoints)).layout(width: width, height: height)
    #expect(layout.rows * 336 == canvasHeight && layout.columns * 336 == canvasWidth && layout.hasOverview)
    #expect(layout.original == ImageProcessor.Size(height: height, width: width))
    let media = MediaLayout(
      runs: [.init(shape: [336, 336], count: layout.count, unitBytes: 336 * 336 * 3)],
      grid: .init(rows: layout.rows, columns: layout.columns, hasOverview: true),
      original: .init(width: width, height: height))
    let fewer = media.limited(toUnits: 2)
    #expect(fewer.count == 2 && fewer.grid == .init(rows: 1, columns: 1, hasOverview: true))
    #expect(fewer.original == .init(width: 336, height: 336))
    #expect(media.limited(toUnits: 1).grid?.hasOverview == false)
  }

  /// What is planned for "any image" holds every image.
  @Test func noImageIsLargerThanTheLargest() throws {
    let shapes = shapes(3000)
    for (multiple, pixels) in [
      (28, 3136...1_003_520), (28, 3136...3136), (32, 65536...16_777_216), (28, 1...50_176), (8, 640...700),
      (14, 1...1),
      (28, 50_000...50_000),
    ] {
      for most in [nil, 1, 7, 64, 100] {
        let processor = try smart(multiple, pixels, most: most)
        let largest = try #require(processor.largestLayout())
        #expect(processor.layouts().count == 1)
        if let most { #expect(largest.height * largest.width <= most * multiple * multiple) }
        let larger = try shapes.first { (width, height) in
          let size = try processor.layout(width: width, height: height)
          return size.height < multiple || size.height % multiple != 0 || size.width % multiple != 0
            || size.width < multiple || size.height * size.width > largest.height * largest.width
        }
        #expect(larger == nil, "\(multiple), \(pixels), \(most ?? 0)")
      }
    }
    // Not beyond what the limit allows where images of usual proportions reach it.
    #expect(try smart(28, 3136...1_003_520).largestLayout().map { $0.height * $0.width } == 1_003_520)

    let grid = try processor(.grid(side: 16, tiles: 1...12, overview: true))
    let any = try processor(.anyres(side: 336, pinpoints: nextPinpoints))
    #expect(grid.layouts().map(\.count) == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
    #expect(any.layouts().map(\.count) == [3, 3, 4, 4, 5])
    let canvases = any.layouts().map { [$0.rows, $0.columns] }
    let stranger = try shapes.first { (width, height) in
      let layout = try any.layout(width: width, height: height)
      return try grid.layout(width: width, height: height).count > 13
        || !canvases.contains([layout.rows, layout.columns])
    }
    #expect(stranger == nil)
  }

  @Test func fewerTiles() throws {
    let grid = try processor(.grid(side: 16, tiles: 2...12, overview: true))
    let any = try processor(.anyres(side: 336, pinpoints: nextPinpoints))
    for (width, height) in shapes(40) {
      for most in 1...14 {
        let fewer = try grid.limited(toTiles: most, width: width, height: height).layout(width: width, height: height)
        #expect(fewer.count <= most)
        let full = try grid.layout(width: width, height: height)
        if full.count <= most { #expect(fewer == full) }
        let fewerOfAny = try any.limited(toTiles: most, width: width, height: height)
          .layout(width: width, height: height)
        #expect(fewerOfAny.count <= most && fewerOfAny.original?.width == width)
        if most < 3 { #expect(fewerOfAny.count == 1 && !fewerOfAny.hasOverview) }
      }
    }
    // The model's own rule with at most 6, of which 2 × 2 fit a square best.
    let limited = try grid.limited(toTiles: 6, width: 300, height: 300)
    #expect(limited.cutting == .grid(side: 16, tiles: 2...6, overview: true))
    #expect(try limited.layout(width: 300, height: 300).rows == 2)
    #expect(throws: SquintError.self) { try grid.limited(toTiles: 0, width: 9, height: 9) }
  }

  @Test func fewerPixels() throws {
    let processor = try smart(28, 3136...1_003_520)
    #expect(processor.multiple == 28)
    for squares in [1, 2, 3, 10, 64, 255, 1000] {
      let limited = try processor.limited(toPixels: squares * 784)
      for (width, height) in shapes(500) {
        let layout = try limited.layout(width: width, height: height)
        #expect(layout.height * layout.width <= squares * 784)
      }
    }
    #expect(try processor.limited(toPixels: 5) == processor.limited(toPixels: 784))
    #expect(try processor.limited(toPixels: .max) == processor)
    // The reference's rule where it gives no more than that.
    let limited = try processor.limited(toPixels: 256 * 784).layout(width: 1024, height: 768)
    #expect(limited.width == 504 && limited.height == 364)
    let tiles = try ImageProcessor(clipMetadata())
    #expect(caught { _ = try tiles.limited(toPixels: 1000) }?.kind == .usage)
    #expect(tiles.multiple == nil)
    #expect(caught { _ = try processor.resizing(toSide: 28) }?.kind == .usage)
  }

  @Test(
    "metadata that makes no sense is refused",
    arguments: [
      ("grid", "tiles", nil), ("grid", "tiles", .ints([2, 1])), ("grid", "tiles", .ints([0, 1])),
      ("grid", "tiles", .ints([1, 1025])), ("grid", "tiles", .ints([1])), ("grid", "tiles", .ints([.min, .max])),
      ("grid", "tile", nil), ("grid", "tile", .int(0)), ("grid", "overview", .int(1)),
      ("grid", "resize", .string("smart")),
      ("grid", "crop", .ints([8, 8])), ("anyres", "pinpoints", nil), ("anyres", "pinpoints", .ints([])),
      ("anyres", "pinpoints", .ints([8, 8, 8])), ("anyres", "pinpoints", .ints([8, 12])),
      ("anyres", "pinpoints", .ints([0, 8])), ("anyres", "pinpoints", .ints([.max, 8])), ("anyres", "tile", .int(3)),
      ("anyres", "pad_to_square", .bool(true)), ("anyres", "several", .string("round")),
      ("anyres", "several", .string("square")), ("grid", "several", .string("square")), ("whole", "pixels", nil),
      ("whole", "pixels", .ints([5, 4])),
      ("whole", "pixels", .ints([0, 4])), ("whole", "pixels", .ints([1, .max])), ("whole", "multiple", nil),
      ("whole", "multiple", .int(0)), ("whole", "multiple", .int(5000)), ("whole", "crop", .ints([8, 8])),
    ] as [(String, String, MetadataValue?)])
  func nonsense(_ layout: String, _ key: String, _ value: MetadataValue?) throws {
    var metadata = clipMetadata()
    for key in ["size", "crop"] { metadata["image." + key] = nil }
    metadata["image.layout"] = .string(layout)
    metadata["image.resize"] = .string(layout == "whole" ? "smart" : "none")
    if layout != "whole" { metadata["image.tile"] = .int(8) }
    switch layout {
    case "grid": metadata["image.tiles"] = .ints([1, 6])
    case "anyres": metadata["image.pinpoints"] = .ints([8, 16, 16, 8])
    default:
      metadata["image.multiple"] = .int(28)
      metadata["image.pixels"] = .ints([3136, 1_003_520])
    }
    _ = try ImageProcessor(metadata)
    metadata["image." + key] = value
    #expect(caught { _ = try ImageProcessor(metadata) }?.kind == .badData)
  }
}
