import SquintFile
import SquintMedia
import Testing

/// The metadata of a CLIP checkpoint's processor, to be changed by a test.
func clipMetadata() -> Metadata {
  var metadata = Metadata()
  metadata["image.layout"] = .string("whole")
  metadata["image.resize"] = .string("shortest_edge")
  metadata["image.size"] = .ints([224])
  metadata["image.crop"] = .ints([224, 224])
  metadata["image.filter"] = .string("bicubic")
  metadata["image.rescale"] = .float(1.0 / 255)
  metadata["image.mean"] = .floats([0.48145466, 0.4578275, 0.40821073])
  metadata["image.std"] = .floats([0.26862954, 0.26130258, 0.27577711])
  return metadata
}

private func tiles(_ longest: Int, side: Int, split: Bool = true) throws -> ImageProcessor {
  try ImageProcessor(
    cutting: .tiles(side: side, split: split), resize: .longestEdge(longest), filter: .lanczos,
    mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
}

@Suite struct ProcessorTests {
  @Test func metadataIsRead() throws {
    let processor = try ImageProcessor(clipMetadata())
    #expect(processor.cutting == .whole(background: nil, crop: .init(height: 224, width: 224)))
    #expect(processor.resize == .shortestEdge(224))
    #expect(processor.filter == .bicubic)
    #expect(
      processor.largestLayout() == TileLayout(rows: 1, columns: 1, hasOverview: false, height: 224, width: 224))
  }

  @Test(
    "metadata that makes no sense is refused",
    arguments: [
      ("layout", MetadataValue.string("square")), ("layout", .int(1)), ("layout", nil), ("layout", .string("tiles")),
      ("resize", .string("longer")), ("resize", nil), ("size", nil), ("size", .ints([0])), ("size", .ints([1 << 40])),
      ("size", .ints([1, 2])), ("size", .ints([.min])), ("crop", .ints([224])), ("crop", .ints([224, -1])),
      ("filter", .string("mitchell")), ("pad_to_square", .bool(true)), ("rescale", nil), ("rescale", .float(.infinity)),
      ("rescale", .float(1e300)), ("mean", .floats([0])), ("std", .floats([1, 0, 1])), ("std", nil),
      ("background", nil),
    ] as [(String, MetadataValue?)])
  func nonsense(_ key: String, _ value: MetadataValue?) {
    var metadata = clipMetadata()
    if key == "background" {
      metadata["image.pad_to_square"] = .bool(true)
      metadata["image.background"] = .ints([0, 256, 0])
    } else {
      metadata["image." + key] = value
    }
    #expect(throws: SquintError.self) { try ImageProcessor(metadata) }
  }

  /// Against transformers 5.24: `Idefics3ImageProcessorPil.get_number_of_image_patches` where it is right, and its
  /// `preprocess` otherwise.
  @Test(
    arguments: [
      (4032, 3024, 3, 4), (3024, 4032, 4, 3), (1000, 1000, 4, 4), (2000, 200, 1, 4), (10, 10, 4, 4), (2048, 2048, 4, 4),
    ])
  func tilesOfSmolVLM(_ width: Int, _ height: Int, _ rows: Int, _ columns: Int) throws {
    let layout = try tiles(2048, side: 512).layout(width: width, height: height)
    #expect(layout == TileLayout(rows: rows, columns: columns, hasOverview: true, height: 512, width: 512))
    #expect(layout.count == rows * columns + 1)
  }

  @Test func aImageOfOneTileHasNoOverview() throws {
    let one = TileLayout(rows: 1, columns: 1, hasOverview: false, height: 512, width: 512)
    #expect(try tiles(512, side: 512).layout(width: 100, height: 70) == one)
    #expect(try tiles(2048, side: 512, split: false).layout(width: 100, height: 70) == one)
  }

  /// A square image of an odd side becomes one pixel higher than wide, and so is cut as a tall one.
  @Test func anOddSide() throws {
    #expect(try tiles(365, side: 365).layout(width: 400, height: 400).rows == 2)
    #expect(try tiles(365, side: 365).largestLayout()?.rows == 2)
  }

  @Test func theLargestLayoutHoldsForAllShapes() throws {
    let processor = try tiles(1456, side: 364)
    let largest = try #require(processor.largestLayout())
    #expect(largest.rows == 4 && largest.columns == 4)
    for step in 2...300 {
      #expect(try processor.layout(width: 300, height: step).count <= largest.count)
      #expect(try processor.layout(width: step, height: 300).count <= largest.count)
    }
  }

  @Test func largeTilesAreRefused() throws {
    let processor = try ImageProcessor(
      cutting: .whole(background: nil, crop: nil), resize: .shortestEdge(16384), filter: .box, mean: [0, 0, 0],
      std: [1, 1, 1])
    #expect(processor.largestLayout() == nil)
    #expect(throws: SquintError.self) { try processor.layout(width: 200, height: 1) }
    #expect(throws: SquintError.self) { try processor.layout(width: 0, height: 1) }
    #expect(throws: SquintError.self) { try processor.layout(width: .max, height: .max) }
    #expect(throws: SquintError.self) { try processor.layout(width: 201, height: 1) }
  }

  @Test func levelsAreThoseOfTransformers() throws {
    let levels = try ImageProcessor(clipMetadata()).levels
    #expect(levels.count == 768)
    // numpy: ((p * (1 / 255)) as f32 - f32(mean)) / f32(std)
    #expect(levels[0].bitPattern == 0xBFE5_68DC)
    #expect(levels[256 + 127].bitPattern == 0x3E1D_9531)
    #expect(levels[512 + 255].bitPattern == 0x4009_5660)
  }
}
