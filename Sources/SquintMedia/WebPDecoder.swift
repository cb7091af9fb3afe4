import CWebP
import SquintFile

/// WebP through libwebp: lossy, lossless, with or without alpha, and the first frame of an animation.
///
/// libwebp gives an image as a whole. One of more than 16 megapixels is reduced to so many while it is decoded, which
/// bounds the memory; what is resized from it then differs slightly from what the whole image would give. A lossless
/// image is held once more inside libwebp, in full size.
final class WebPDecoder: ImageDecoder {
  let header: ImageHeader
  private let file: MediaFile
  private let frame: WebPFrame
  /// The sizes of the whole image as it is decoded, and where the frame lies in it: not everywhere in an animation.
  private let size: (width: Int, height: Int)
  private let frameColumns: Range<Int>
  private let frameRows: Range<Int>
  private let channels: Int
  private var pixels: UnsafeMutablePointer<UInt8>?  // [frame rows, frame columns, channels]
  private var nextRow = 0

  static let largestDecoded = 16_000_000

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let frame = try WebPFrame(file)
    self.frame = frame
    let canvas = frame.canvas
    try ImageLimits.check(width: canvas.width, height: canvas.height, file)

    let area = canvas.width * canvas.height
    let scale = area > WebPDecoder.largestDecoded ? (Double(WebPDecoder.largestDecoded) / Double(area)).squareRoot() : 1
    func scaled(_ position: Int) -> Int { scale == 1 ? position : Int((Double(position) * scale).rounded()) }
    size = (max(1, scaled(canvas.width)), max(1, scaled(canvas.height)))
    let left = min(scaled(frame.left), size.width - 1)
    let top = min(scaled(frame.top), size.height - 1)
    frameColumns = left..<max(left + 1, scaled(frame.left + frame.width))
    frameRows = top..<max(top + 1, scaled(frame.top + frame.height))
    channels = frame.hasAlpha ? 4 : 3

    let pixelBytes = frameColumns.count * frameRows.count * channels
    header = ImageHeader(
      format: .webp, storedWidth: canvas.width, storedHeight: canvas.height, orientation: frame.orientation,
      decoderBytes: frame.payload.count + pixelBytes + frame.codecBytes, decodedWidth: size.width,
      decodedHeight: size.height)
  }

  deinit { free(pixels) }

  func start() throws(SquintError) {
    let payload = try file.bytes(at: frame.payload.lowerBound, count: frame.payload.count)
    guard payload.count == frame.payload.count else { throw file.truncated }
    let stride = frameColumns.count * channels
    pixels = malloc(stride * frameRows.count)?.assumingMemoryBound(to: UInt8.self)
    guard let pixels else { throw file.noMemory(header.decoderBytes) }

    var configuration = WebPDecoderConfig()
    guard WebPInitDecoderConfig(&configuration) != 0 else {
      throw SquintError(.internalError, "libwebp is of another version than the one that squint was built with")
    }
    configuration.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB
    configuration.output.is_external_memory = 1
    configuration.output.u.RGBA.rgba = pixels
    configuration.output.u.RGBA.stride = Int32(stride)
    configuration.output.u.RGBA.size = stride * frameRows.count
    if frameColumns.count != frame.width || frameRows.count != frame.height {
      configuration.options.use_scaling = 1
      configuration.options.scaled_width = Int32(frameColumns.count)
      configuration.options.scaled_height = Int32(frameRows.count)
    }
    switch WebPDecode(payload, payload.count, &configuration) {
    case VP8_STATUS_OK: return
    case VP8_STATUS_SUSPENDED, VP8_STATUS_NOT_ENOUGH_DATA: throw file.truncated
    case VP8_STATUS_OUT_OF_MEMORY: throw file.noMemory(header.decoderBytes)
    default: throw file.error("the image's data is damaged; copy or download it again")
    }
  }

  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError) {
    guard let pixels else { throw SquintError(.internalError, "a WebP row was read before the decoder was started") }
    defer { nextRow += 1 }
    if frameColumns.count < size.width || !frameRows.contains(nextRow) {
      memset(row, 255, 4 * size.width)  // where an animation has no frame it is transparent
    }
    guard frameRows.contains(nextRow) else { return }
    let source = pixels + (nextRow - frameRows.lowerBound) * frameColumns.count * channels
    let target = row + 4 * frameColumns.lowerBound
    for x in 0..<frameColumns.count {
      let pixel = source + channels * x
      if channels == 3 {
        setPixel(target, x, pixel[0], pixel[1], pixel[2])
      } else {
        setPixel(
          target, x, overWhite(pixel[0], alpha: pixel[3]), overWhite(pixel[1], alpha: pixel[3]),
          overWhite(pixel[2], alpha: pixel[3]))
      }
    }
  }
}

/// Where a WebP file's image, or its first frame, lies in the file and in the canvas (the WebP container specification).
struct WebPFrame {
  private(set) var canvas = (width: 0, height: 0)
  private(set) var left = 0
  private(set) var top = 0
  private(set) var width = 0
  private(set) var height = 0
  private(set) var isLossless = false
  private(set) var hasAlpha = false
  /// The chunks of alpha and image, in bytes of the file.
  private(set) var payload = 0..<0
  private(set) var orientation = Orientation.upright

  /// What its codes take, where it, or its alpha, is an image of VP8L.
  private(set) var lossless: WebPLossless?

  /// At most what libwebp holds beside the pixels that it gives and the data that it gets.
  var codecBytes: Int {
    let pixels = width * height
    // VP8L: its pixels, two transforms and the choice of codes for at least each 4 × 4 of them, some rows, a table of colours.
    let losslessBytes = lossless.map { 5 * pixels + $0.byteCount + 160 * width + 16_384 } ?? 0
    let lossyBytes = isLossless ? 0 : 160 * width + (hasAlpha ? pixels : 0)
    return 262_144 + losslessBytes + lossyBytes
  }

  init(_ file: MediaFile) throws(SquintError) {
    try walk(file, from: 12, to: file.byteCount, isFrame: false)
    guard !payload.isEmpty else { throw file.error("the WebP file has no image in it; export it again") }
    if canvas.width == 0 { canvas = (width, height) }
    guard left + width <= canvas.width, top + height <= canvas.height else {
      throw file.error("the WebP image is larger than its canvas; export it again")
    }
    lossless = try findLossless(file)
    try checkPayload(file)
  }

  /// Larger data than raw pixels would be is no image's.
  private func checkPayload(_ file: MediaFile) throws(SquintError) {
    guard payload.count <= 8 * width * height + 1_000_000 else {
      throw file.error(
        "the WebP image has \(grouped(payload.count)) bytes for \(width) × \(height) pixels; export it again")
    }
  }

  /// The frame of an animation whose chunks are the bytes `range` of `file`, at the canvas's corner.
  init(_ file: MediaFile, frame range: Range<Int>) throws(SquintError) {
    try walk(file, from: range.lowerBound, to: range.upperBound, isFrame: true)
    guard !payload.isEmpty else { throw file.error("the WebP animation has a frame without an image; export it again") }
    canvas = (width, height)
    try ImageLimits.check(width: width, height: height, file)
    lossless = try findLossless(file)
    try checkPayload(file)
  }

  /// The same frame at another place.
  func at(left: Int, top: Int) -> WebPFrame {
    var frame = self
    (frame.left, frame.top) = (left, top)
    return frame
  }

  /// What is coded by VP8L: the image, or its alpha.
  private func findLossless(_ file: MediaFile) throws(SquintError) -> WebPLossless? {
    let chunk = try file.bytes(at: payload.lowerBound, count: 9)
    let data = payload.lowerBound + 8
    if isLossless {
      return try WebPLossless(file, data..<payload.upperBound, width: width, height: height, isAlpha: false)
    }
    // The first byte of the alpha says how it is compressed: not at all, or as an image of its own.
    guard chunk.count == 9, String(decoding: chunk[..<4], as: UTF8.self) == "ALPH", chunk[8] & 3 == 1 else {
      return nil
    }
    let end = min(data + WebPFrame.number(chunk[4..<8]), payload.upperBound)
    guard data + 1 < end else { return nil }
    return try WebPLossless(file, data + 1..<end, width: width, height: height, isAlpha: true)
  }

  private mutating func walk(_ file: MediaFile, from start: Int, to end: Int, isFrame: Bool) throws(SquintError) {
    var offset = start
    var alphaStart: Int?
    // The metadata come last, behind all frames of an animation.
    for _ in 0..<65536 where offset + 8 <= end {
      let chunk = try file.bytes(at: offset, count: 8 + 26)
      guard chunk.count >= 8 else { return }
      let count = WebPFrame.number(chunk[4..<8])
      let content = chunk[8...]
      switch String(decoding: chunk[..<4], as: UTF8.self) {
      case "VP8X" where !isFrame && content.count >= 10:
        canvas = (1 + WebPFrame.number(content[12..<15]), 1 + WebPFrame.number(content[15..<18]))
      case "ANMF" where !isFrame && payload.isEmpty && content.count >= 16:
        left = 2 * WebPFrame.number(content[8..<11])
        top = 2 * WebPFrame.number(content[11..<14])
        try walk(file, from: offset + 24, to: min(end, offset + 8 + count), isFrame: true)
      case "ALPH" where payload.isEmpty: alphaStart = offset
      case "VP8 " where payload.isEmpty, "VP8L" where payload.isEmpty:
        guard offset + 8 + count <= file.byteCount else { throw file.truncated }
        var features = WebPBitstreamFeatures()
        guard WebPGetFeatures(chunk, chunk.count, &features) == VP8_STATUS_OK else {
          throw file.error("the WebP image's header is damaged; copy or download it again")
        }
        (width, height) = (Int(features.width), Int(features.height))
        isLossless = features.format == 2
        hasAlpha = features.has_alpha != 0 || alphaStart != nil
        payload = (isLossless ? offset : alphaStart ?? offset)..<offset + 8 + count
      case "EXIF" where !isFrame:
        orientation = Orientation(exif: try file.bytes(at: offset + 8, count: min(count, 65536)))
      default: break
      }
      offset += 8 + count + count % 2
    }
    if isFrame && payload.isEmpty && end == file.byteCount { throw file.truncated }
  }

  /// The little-endian number in `bytes`.
  static func number(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }
}
