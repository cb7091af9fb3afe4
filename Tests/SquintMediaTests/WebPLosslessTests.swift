import Foundation
import SquintMedia
import Testing

/// What the groups of prefix codes of lossless WebP take is known before libwebp makes them (tools/fixtures/images_codes.py).
@Suite struct WebPLosslessTests {
  private func header(_ file: String) throws -> ImageHeader {
    try ImageHeader.read(path: imagesFolder.appendingPathComponent(file).path)
  }

  /// 8,192 groups: libwebp holds 46 MB for them, whether they are an image, an alpha channel, or a frame.
  @Test(arguments: ["codes-lossless.webp", "codes-alpha.webp", "codes-animated.webp"])
  func everyGroupCounts(_ file: String) throws {
    let header = try header(file)
    #expect(header.width == 512 && header.height == 256)
    #expect(header.decoderBytes > 8192 * 5700)
  }

  /// And no more than there are: encoders make few.
  @Test func fewGroupsTakeLittle() throws {
    for file in ["webp-lossless.webp", "webp-lossless-alpha.webp", "webp-lossy-alpha.webp", "orientation-6.webp"] {
      #expect(try header(file).decoderBytes < 500_000, "\(file)")
    }
    #expect(try header("webp-large.webp").decoderBytes < 4100 * 4000 * 9)
  }
}
