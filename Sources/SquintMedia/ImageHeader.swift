import SquintFile

/// What there is to know of an image before its pixels are decoded.
package struct ImageHeader: Sendable, Equatable {
  package let format: ImageFormat
  /// The width as displayed, which is after the EXIF orientation, in pixels.
  package let width: Int
  /// The height as displayed, in pixels.
  package let height: Int
  /// At most what decoding takes beside the tiles, in bytes: the codec's state, rows, and, for progressive JPEG, interlaced
  /// PNG and WebP, the whole image.
  package let decoderBytes: Int

  /// How the stored image, which the rows of the decoder have, lies in the displayed one.
  let orientation: Orientation
  /// The size of the image that the decoder gives, as displayed: smaller than `width` × `height` for a large WebP.
  let decodedWidth: Int
  let decodedHeight: Int

  /// A header of an image that is stored as rows of `storedWidth` pixels.
  init(
    format: ImageFormat, storedWidth: Int, storedHeight: Int, orientation: Orientation, decoderBytes: Int,
    decodedWidth: Int? = nil, decodedHeight: Int? = nil
  ) {
    let swaps = orientation.swapsAxes
    self.format = format
    width = swaps ? storedHeight : storedWidth
    height = swaps ? storedWidth : storedHeight
    self.decoderBytes = decoderBytes
    self.orientation = orientation
    let decoded = (width: decodedWidth ?? storedWidth, height: decodedHeight ?? storedHeight)
    self.decodedWidth = swaps ? decoded.height : decoded.width
    self.decodedHeight = swaps ? decoded.width : decoded.height
  }

  /// Reads the header of the image at `path`, which is recognized by its bytes, not by its name.
  ///
  /// - Throws: `noInput` where there is no file, `badData` where it is no image of a format that is known, or one of a size that is
  ///   refused: without pixels, of more than 256 megapixels, or more than 200 times as long as wide. The data behind the
  ///   header is not looked at.
  package static func read(path: String) throws(SquintError) -> ImageHeader {
    try read(MediaFile(path: path))
  }

  /// The same of a file that is open.
  package static func read(_ file: MediaFile) throws(SquintError) -> ImageHeader { try openImage(file).header }
}

/// The rows of an image as it is stored, from the first to the last.
protocol ImageDecoder: AnyObject {
  var header: ImageHeader { get }

  /// Decodes what must be decoded before the first row can be.
  func start() throws(SquintError)

  /// Writes the next row to `row`: [stored width, 4], red, green, blue and a byte of no meaning; transparency lies over
  /// white.
  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError)
}

/// A decoder for `file`, which has read its header.
func openImage(_ file: MediaFile) throws(SquintError) -> any ImageDecoder {
  let decoder: any ImageDecoder
  switch try ImageFormat.recognize(file) {
  case .jpeg: decoder = try JPEGDecoder(file)
  case .png: decoder = try PNGDecoder(file)
  case .webp: decoder = try WebPDecoder(file)
  case .gif: decoder = try GIFDecoder(file)
  case .bmp: decoder = try BMPDecoder(file)
  }
  return decoder
}

/// What an image's sides may be.
enum ImageLimits {
  /// The largest sensors have 150 megapixels; a file of a few bytes can claim four thousand.
  static let pixels = 256_000_000
  /// A panorama has 20:1. What an encoder sees of an image beyond this is a line, and its proportional resize can be
  /// of any size.
  static let aspect = 200

  /// What is wrong with an image of this size, or nil.
  static func objection(width: Int, height: Int) -> String? {
    guard width > 0, height > 0 else { return "the image has no pixels (\(width) × \(height)); export it again" }
    let (area, overflow) = width.multipliedReportingOverflow(by: height)
    guard !overflow, area <= pixels else {
      return
        "the image claims \(grouped(width)) × \(grouped(height)) pixels, more than the \(grouped(pixels)) that are accepted; reduce it"
    }
    guard max(width, height) <= aspect * min(width, height) else {
      return
        "the image has \(grouped(width)) × \(grouped(height)) pixels, more than \(aspect) times as long as wide; cut it into pieces"
    }
    return nil
  }

  static func check(width: Int, height: Int, _ file: MediaFile) throws(SquintError) {
    if let objection = objection(width: width, height: height) { throw file.error(objection) }
  }
}
