import SquintFile

/// What there is to know of a picture before its pixels are decoded.
public struct PictureHeader: Sendable, Equatable {
  public let format: PictureFormat
  /// The width as displayed, which is after the EXIF orientation, in pixels.
  public let width: Int
  /// The height as displayed, in pixels.
  public let height: Int
  /// At most what decoding takes beside the tiles, in bytes: the codec's state, rows, and, for progressive JPEG, interlaced
  /// PNG and WebP, the whole picture.
  public let decoderBytes: Int

  /// How the stored picture, which the rows of the decoder have, lies in the displayed one.
  let orientation: Orientation
  /// The size of the picture that the decoder gives, as displayed: smaller than `width` × `height` for a large WebP.
  let decodedWidth: Int
  let decodedHeight: Int

  /// A header of a picture that is stored as rows of `storedWidth` pixels.
  init(
    format: PictureFormat, storedWidth: Int, storedHeight: Int, orientation: Orientation, decoderBytes: Int,
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

  /// Reads the header of the picture at `path`, which is recognized by its bytes, not by its name.
  ///
  /// - Throws: `noInput` where there is no file, `badData` where it is no picture of a format that is known, or one of a size that is
  ///   refused: without pixels, of more than 256 megapixels, or more than 200 times as long as wide. The data behind the
  ///   header is not looked at.
  public static func read(path: String) throws(SquintError) -> PictureHeader {
    try read(PictureFile(path: path))
  }

  /// The same of a file that is open.
  public static func read(_ file: PictureFile) throws(SquintError) -> PictureHeader { try openPicture(file).header }
}

/// The rows of a picture as it is stored, from the first to the last.
protocol PictureDecoder: AnyObject {
  var header: PictureHeader { get }

  /// Decodes what must be decoded before the first row can be.
  func start() throws(SquintError)

  /// Writes the next row to `row`: [stored width, 4], red, green, blue and a byte of no meaning; transparency lies over
  /// white.
  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError)
}

/// A decoder for `file`, which has read its header.
func openPicture(_ file: PictureFile) throws(SquintError) -> any PictureDecoder {
  let decoder: any PictureDecoder
  switch try PictureFormat.recognize(file) {
  case .jpeg: decoder = try JPEGDecoder(file)
  case .png: decoder = try PNGDecoder(file)
  case .webp: decoder = try WebPDecoder(file)
  case .gif: decoder = try GIFDecoder(file)
  case .bmp: decoder = try BMPDecoder(file)
  }
  return decoder
}

/// What a picture's sides may be.
enum PictureLimits {
  /// The largest sensors have 150 megapixels; a file of a few bytes can claim four thousand.
  static let pixels = 256_000_000
  /// A panorama has 20:1. What an encoder sees of a picture beyond this is a line, and its proportional resize can be
  /// of any size.
  static let aspect = 200

  /// What is wrong with a picture of this size, or nil.
  static func objection(width: Int, height: Int) -> String? {
    guard width > 0, height > 0 else { return "the picture has no pixels (\(width) × \(height)); export it again" }
    let (area, overflow) = width.multipliedReportingOverflow(by: height)
    guard !overflow, area <= pixels else {
      return
        "the picture claims \(grouped(width)) × \(grouped(height)) pixels, more than the \(grouped(pixels)) that are accepted; reduce it"
    }
    guard max(width, height) <= aspect * min(width, height) else {
      return
        "the picture has \(grouped(width)) × \(grouped(height)) pixels, more than \(aspect) times as long as wide; cut it into pieces"
    }
    return nil
  }

  static func check(width: Int, height: Int, _ file: PictureFile) throws(SquintError) {
    if let objection = objection(width: width, height: height) { throw file.error(objection) }
  }
}
