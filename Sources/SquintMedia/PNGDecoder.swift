import CImages
import SquintFile

/// PNG through libpng: row by row, or, where it is interlaced, from the whole image.
///
/// Of 16 bits the upper 8 are kept, as viewers do. Pillow does so with colours; its conversion of 16-bit grey clips all
/// but the lowest 256 levels to white, which is no example to follow.
final class PNGDecoder: ImageDecoder {
  let header: ImageHeader
  private let file: MediaFile
  private let codec: OpaquePointer
  private let width: Int
  private let channels: Int
  private let passes: Int
  /// The next row as libpng gives it or, where it is interlaced, all rows: [rows, width, channels].
  private var rows: UnsafeMutablePointer<UInt8>?
  private var nextRow = 0

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    guard let codec = squint_png_open(file.descriptor) else { throw file.noMemory(1 << 18) }
    self.codec = codec
    var found = squint_image_header()
    let status = squint_png_read_header(codec, &found)
    width = Int(found.width)
    channels = Int(found.channels)
    passes = Int(found.passes)
    do throws(SquintError) {
      try checkCodec(status, squint_png_message(codec), file, codecBytes: Int(found.codec_bytes))
      try ImageLimits.check(width: width, height: Int(found.height), file)
      header = ImageHeader(
        format: .png, storedWidth: width, storedHeight: Int(found.height),
        orientation: try PNGDecoder.orientation(file),
        decoderBytes: Int(found.codec_bytes) + width * channels * (passes > 1 ? Int(found.height) : 1))
    } catch {
      squint_png_close(codec)
      throw error
    }
  }

  deinit {
    free(rows)
    squint_png_close(codec)
  }

  private var storedHeight: Int { header.orientation.swapsAxes ? header.width : header.height }

  func start() throws(SquintError) {
    try check(squint_png_start(codec))
    let heldRows = passes > 1 ? storedHeight : 1
    // Zeros: a pass combines its pixels with what the row holds.
    rows = calloc(heldRows, width * channels)?.assumingMemoryBound(to: UInt8.self)
    guard let rows else { throw file.noMemory(heldRows * width * channels) }
    guard passes > 1 else { return }
    for _ in 0..<passes {
      for row in 0..<heldRows { try check(squint_png_read_row(codec, rows + row * width * channels)) }
    }
  }

  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError) {
    guard let rows else { throw SquintError(.internalError, "a PNG row was read before the decoder was started") }
    if passes == 1 { try check(squint_png_read_row(codec, rows)) }
    let pixels = passes == 1 ? rows : rows + nextRow * width * channels
    nextRow += 1
    switch channels {
    case 1: for x in 0..<width { setPixel(row, x, pixels[x], pixels[x], pixels[x]) }
    case 2:
      for x in 0..<width {
        let grey = overWhite(pixels[2 * x], alpha: pixels[2 * x + 1])
        setPixel(row, x, grey, grey, grey)
      }
    case 3: for x in 0..<width { setPixel(row, x, pixels[3 * x], pixels[3 * x + 1], pixels[3 * x + 2]) }
    default:
      for x in 0..<width {
        let alpha = pixels[4 * x + 3]
        setPixel(
          row, x, overWhite(pixels[4 * x], alpha: alpha), overWhite(pixels[4 * x + 1], alpha: alpha),
          overWhite(pixels[4 * x + 2], alpha: alpha))
      }
    }
  }

  private func check(_ status: squint_image_status) throws(SquintError) {
    try checkCodec(status, squint_png_message(codec), file, codecBytes: header.decoderBytes)
  }

  /// The orientation in the chunk eXIf, which may come before or after the image's data.
  private static func orientation(_ file: MediaFile) throws(SquintError) -> Orientation {
    var offset = 8
    // No writer makes so many chunks of an image that is accepted.
    for _ in 0..<65536 {
      let start = try file.bytes(at: offset, count: 8)
      guard start.count == 8 else { return .upright }
      let length = start[..<4].reduce(0) { $0 << 8 | Int($1) }
      if start[4...].elementsEqual("eXIf".utf8) {
        return Orientation(exif: try file.bytes(at: offset + 8, count: min(length, 65536)))
      }
      offset += 12 + length
    }
    return .upright
  }
}

/// Writes the pixel at `x` of a row [width, 4].
@inline(__always)
func setPixel(_ row: UnsafeMutablePointer<UInt8>, _ x: Int, _ red: UInt8, _ green: UInt8, _ blue: UInt8) {
  row[4 * x] = red
  row[4 * x + 1] = green
  row[4 * x + 2] = blue
}

/// `value` of opacity `alpha` over white, rounded as Pillow's `alpha_composite` (AlphaComposite.c) rounds it.
@inline(__always)
func overWhite(_ value: UInt8, alpha: UInt8) -> UInt8 {
  let sum = (UInt32(value) * UInt32(alpha) + 255 * (255 - UInt32(alpha))) << 7 + 0x80 << 7
  return UInt8(truncatingIfNeeded: (sum >> 8 + sum) >> 15)
}
