import Foundation
import SquintFile
import SquintMedia
import Testing

@Suite struct ImageTests {
  @Test func theFixturesAreThere() {
    #expect(ImageCase.all.count == 410)
    #expect(RefusedImage.all.count == 42)
  }

  /// To the bit for what is stored without loss. The libraries that decode the rest may round a few levels otherwise in
  /// other versions.
  @Test("pixels of Pillow and transformers", arguments: ImageCase.all)
  func pixels(_ image: ImageCase) throws {
    let processor = try image.processor
    let header = try ImageHeader.read(path: image.path)
    let tiled = try processor.process(path: image.path)
    #expect(tiled.layout == image.tileLayout)
    #expect(try processor.layout(width: header.width, height: header.height) == tiled.layout)
    let expected = image.expected
    try #require(tiled.pixels.count == expected.count)
    let differences = zip(tiled.pixels, expected).map { abs(Int($0) - Int($1)) }
    let largest = differences.max() ?? 0
    let isLossless = [.png, .gif, .bmp].contains(header.format)
    #expect(largest <= (isLossless ? 0 : 1), "levels differ by up to \(largest)")
    #expect(differences.reduce(0, +) * 50 <= differences.count)
    #expect(processor.peakBytes(for: header) >= header.decoderBytes + tiled.pixels.count)
  }

  @Test(
    arguments: [
      ("jpeg-baseline.jpg", ImageFormat.jpeg, 45, 33), ("png-named.jpg", .png, 45, 33),
      ("webp-animated.webp", .webp, 45, 33), ("orientation-5.jpg", .jpeg, 33, 45),
      ("orientation-6.webp", .webp, 33, 45),
      ("orientation-2.png", .png, 45, 33), ("orientation-behind.png", .png, 33, 45),
      ("gif-offset.gif", .gif, 60, 50), ("gif-larger.gif", .gif, 48, 50), ("bmp-top-down.bmp", .bmp, 45, 33),
    ])
  func header(_ file: String, _ format: ImageFormat, _ width: Int, _ height: Int) throws {
    let header = try ImageHeader.read(path: imagesFolder.appendingPathComponent(file).path)
    #expect(header.format == format && header.width == width && header.height == height)
  }

  /// It is decoded reduced, which a model that does not resize must not see.
  @Test func aLargeWebP() throws {
    let path = imagesFolder.appendingPathComponent("webp-large.webp").path
    let header = try ImageHeader.read(path: path)
    #expect(header.width == 4100 && header.height == 4000)
    #expect(header.decoderBytes < 150_000_000)
    let error = caught { _ = try asItIs().process(path: path) }
    #expect(error?.kind == .badData && error?.message.contains("reduced") == true)
  }

  /// An image that is held as a whole costs its pixels, one that is not does not.
  @Test func whatDecodingTakes() throws {
    func bytes(_ file: String) throws -> Int {
      try ImageHeader.read(path: imagesFolder.appendingPathComponent(file).path).decoderBytes
    }
    #expect(try bytes("jpeg-progressive.jpg") >= bytes("jpeg-baseline.jpg") + 45 * 33 * 3)
    #expect(try bytes("png-rgba-interlaced.png") >= bytes("png-rgba.png") + 45 * 32 * 4)
    #expect(try bytes("webp-lossless-alpha.webp") >= 45 * 33 * 8)
    #expect(try bytes("gif-interlaced.gif") == bytes("gif-local.gif") + 45 * 32)
    #expect(try bytes("bmp-rle8.bmp") >= bytes("bmp-8.bmp") + 45 * 32)
  }
}

@Suite struct RefusedImageTests {
  @Test("what is no image, or a bad one, is refused at once", arguments: RefusedImage.all)
  func refused(_ image: RefusedImage) throws {
    let clock = ContinuousClock()
    let processor = try asItIs()
    let time = clock.measure {
      let error = caught { _ = try processor.process(path: image.path) }
      #expect(error?.kind == .badData)
      #expect(error?.message.hasPrefix(image.path + ": ") == true)
      #expect(
        error?.message.dropFirst(image.path.count).contains(image.word) == true, "\(error?.message ?? "no error")")
      #expect(error?.message.contains("\n") == false)
    }
    #expect(time < .seconds(1))
  }

  @Test func noFile() throws {
    for path in ["/nowhere/image.jpg", imagesFolder.path, "/dev/null", "/dev/zero", "/dev/fd/999"] {
      let error = caught { _ = try ImageHeader.read(path: path) }
      #expect(error?.kind == .noInput, "\(path): \(error?.message ?? "no error")")
    }
  }

  /// A named pipe is an image where someone writes one; where nobody does, it is not waited for without end.
  @Test func namedPipes() throws {
    let source = imagesFolder.appendingPathComponent("gif-noise.gif")
    let bytes = try Data(contentsOf: source)
    let processor = try asItIs()
    let expected = try processor.process(path: source.path)
    try withTemporaryFile([]) { path in
      unlink(path)
      mkfifo(path, 0o600)
      #expect(caught { _ = try ImageHeader.read(path: path) }?.kind == .noInput)
      let writer = Thread {
        let pipe = fopen(path, "w")!
        bytes.withUnsafeBytes { _ = fwrite($0.baseAddress, 1, $0.count, pipe) }
        fclose(pipe)
      }
      writer.start()
      let file = try MediaFile(path: path)
      #expect(file.isReadOnce && file.heldBytes == bytes.count)
      #expect(try ImageHeader.read(file).format == .gif)
      for _ in 0..<2 { #expect(try processor.process(file).pixels == expected.pixels) }
    }
  }

  /// Descriptors that a caller hands over: pipes, sockets, files; also where /proc does not show them.
  @Test func inheritedDescriptors() throws {
    let source = imagesFolder.appendingPathComponent("bmp-24-40.bmp").path
    let bytes = try Data(contentsOf: URL(fileURLWithPath: source))
    let processor = try asItIs()
    let expected = try processor.process(path: source).pixels
    var ends: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    bytes.withUnsafeBytes { #expect(write(ends[0], $0.baseAddress, $0.count) == $0.count) }
    close(ends[0])
    #expect(try processor.process(path: "/dev/fd/\(ends[1])").pixels == expected)
    // It is empty now, and that is said.
    #expect(caught { _ = try processor.process(path: "/dev/fd/\(ends[1])") }?.message.contains("empty") == true)
    close(ends[1])
    let descriptor = open(source, O_RDONLY)
    defer { close(descriptor) }
    for _ in 0..<2 { #expect(try processor.process(path: "/dev/fd/\(descriptor)").pixels == expected) }
  }

  /// A few bytes of GIF stand for many pixels: they are decoded row by row, and what is planned is what is taken.
  @Test func manyPixelsInFewBytes() throws {
    let header = try ImageHeader.read(path: imagesFolder.appendingPathComponent("gif-plain.gif").path)
    #expect(header.decoderBytes < 200_000)
  }

  /// All formats, those that are decoded row by row and those that are not.
  private static let whole = [
    "jpeg-baseline-420.jpg", "jpeg-progressive.jpg", "jpeg-cmyk.jpg", "png-rgb.png", "png-palette-clear-interlaced.png",
    "webp-lossy-alpha.webp", "webp-lossless.webp", "webp-animated.webp", "orientation-6.jpg", "gif-noise.gif",
    "gif-offset-interlaced.gif", "bmp-24-40.bmp", "bmp-masks-bgra-56.bmp", "bmp-4.bmp", "bmp-rle8.bmp", "bmp-rle4.bmp",
  ]

  @Test("wherever an image is cut off, it is refused", arguments: whole)
  func truncated(_ file: String) throws {
    let bytes = [UInt8](try Data(contentsOf: imagesFolder.appendingPathComponent(file)))
    let processor = try asItIs()
    // What follows the data: the end marker, IEND, EXIF, other frames.
    let end = file.contains("animated") ? bytes.count / 4 : bytes.count - 17
    for count in stride(from: 1, to: end, by: 7) {
      try withTemporaryFile(Array(bytes[..<count])) { path in
        let error = caught { _ = try processor.process(path: path) }
        #expect(error?.kind == .badData, "\(count) bytes: \(error?.message ?? "accepted")")
      }
    }
    try withTemporaryFile(Array(bytes[..<(bytes.count / 2)])) { path in
      guard !file.contains("animated") else { return }
      #expect(caught { _ = try processor.process(path: path) }?.message.contains("truncated") == true)
    }
  }

  /// Nothing but an image or an error of bad data, whatever the bytes are.
  @Test("damaged images do no harm", arguments: whole)
  func damaged(_ file: String) throws {
    let bytes = [UInt8](try Data(contentsOf: imagesFolder.appendingPathComponent(file)))
    let processor = try ImageProcessor(
      cutting: .tiles(side: 16, split: true), resize: .longestEdge(48), filter: .bicubic, mean: [0, 0, 0],
      std: [1, 1, 1])
    var random = SystemRandomNumberGenerator()
    for _ in 0..<100 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        changed[Int.random(in: 2..<changed.count, using: &random)] = .random(in: 0...255, using: &random)
      }
      try withTemporaryFile(changed) { path in
        // A header that claims a large image is believed; its memory is the caller's to refuse.
        if let header = try? ImageHeader.read(path: path), processor.peakBytes(for: header) > 100_000_000 { return }
        let error = caught { _ = try processor.process(path: path) }
        #expect(error == nil || error?.kind == .badData, "\(error?.message ?? "")")
      }
    }
  }
}

private func withTemporaryFile<R>(_ bytes: [UInt8], _ body: (String) throws -> R) throws -> R {
  let path = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)").path
  try Data(bytes).write(to: URL(fileURLWithPath: path))
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try body(path)
}
