import CImages
import SquintFile

/// JPEG through libjpeg-turbo: baseline row by row, progressive from all its coefficients.
///
/// The settings are Pillow's (the integer DCT, smooth upsampling of colour), so that the pixels are the same.
final class JPEGDecoder: ImageDecoder {
  let header: ImageHeader
  private let file: MediaFile
  private let codec: OpaquePointer
  private let isCMYK: Bool
  private let storedWidth: Int

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    guard let codec = squint_jpeg_open(file.descriptor) else { throw file.noMemory(1 << 18) }
    self.codec = codec
    var found = squint_image_header()
    let status = squint_jpeg_read_header(codec, &found)
    do throws(SquintError) {
      try checkCodec(status, squint_jpeg_message(codec), file, codecBytes: Int(found.codec_bytes))
      try ImageLimits.check(width: Int(found.width), height: Int(found.height), file)
      header = ImageHeader(
        format: .jpeg, storedWidth: Int(found.width), storedHeight: Int(found.height),
        orientation: try JPEGDecoder.orientation(file), decoderBytes: Int(found.codec_bytes))
    } catch {
      squint_jpeg_close(codec)
      throw error
    }
    isCMYK = found.is_cmyk
    storedWidth = Int(found.width)
  }

  deinit { squint_jpeg_close(codec) }

  func start() throws(SquintError) {
    let status = squint_jpeg_start(codec)
    try checkCodec(status, squint_jpeg_message(codec), file, codecBytes: header.decoderBytes)
  }

  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError) {
    let status = squint_jpeg_read_row(codec, row)
    try checkCodec(status, squint_jpeg_message(codec), file, codecBytes: header.decoderBytes)
    if isCMYK { JPEGDecoder.convertCMYK(row, count: storedWidth) }
  }

  /// Turns inverted CMYK into red, green and blue as Pillow's `cmyk2rgb` (Convert.c) does: white is what is neither ink
  /// nor black. All writers of CMYK invert it, as Adobe's first did.
  private static func convertCMYK(_ row: UnsafeMutablePointer<UInt8>, count: Int) {
    for x in 0..<count {
      let pixel = row + 4 * x
      let white = Int32(pixel[3])
      for channel in 0..<3 {
        let ink = (255 - Int32(pixel[channel])) * white + 128
        pixel[channel] = UInt8(clamping: white - (ink + ink >> 8) >> 8)
      }
    }
  }

  /// The orientation in the first EXIF segment before the image's data.
  ///
  /// libjpeg can keep these segments, but would keep any number of them.
  private static func orientation(_ file: MediaFile) throws(SquintError) -> Orientation {
    var offset = 2
    for _ in 0..<1000 {
      let start = try file.bytes(at: offset, count: 10)
      guard start.count == 10, start[0] == 0xFF else { return .upright }
      if start[1] == 0xFF {  // filling between segments
        offset += 1
        continue
      }
      guard start[1] != 0xDA, start[1] != 0xD9 else { return .upright }
      let length = Int(start[2]) << 8 | Int(start[3])
      guard length >= 2 else { return .upright }
      if start[1] == 0xE1, start[4...].starts(with: Array("Exif\0\0".utf8)) {
        return Orientation(exif: try file.bytes(at: offset + 4, count: length - 2))
      }
      offset += 2 + length
    }
    return .upright
  }
}

/// Turns a status of the C codecs into the error that it is.
func checkCodec(
  _ status: squint_image_status, _ message: UnsafePointer<CChar>, _ file: MediaFile, codecBytes: Int
) throws(SquintError) {
  switch status {
  case SQUINT_PICTURE_OK: return
  case SQUINT_PICTURE_TRUNCATED: throw file.truncated
  case SQUINT_PICTURE_UNREADABLE: throw file.unreadable(String(cString: message))
  case SQUINT_PICTURE_NO_MEMORY: throw file.noMemory(codecBytes)
  default:
    throw file.error(
      "the image is damaged or of a kind that is not understood (\(String(cString: message))); export it again")
  }
}
