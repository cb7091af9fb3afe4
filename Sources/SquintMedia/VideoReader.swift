import SquintFile

/// What there is to know of a video before its frames are decoded.
package struct VideoHeader: Sendable, Equatable {
  /// The size of a frame as it is displayed, in pixels.
  package let width: Int
  package let height: Int
  /// How many frames there are, at least 1.
  package let frames: Int
  /// On average; nil where they have no time: single files.
  package let framesPerSecond: Double?
  /// At most what is held for the whole video, beside what decoding one frame takes, in bytes.
  package let heldBytes: Int

  /// Reads the header of the video in `file`.
  package static func read(_ file: MediaFile) throws(SquintError) -> VideoHeader { try openVideo(file).header }
}

/// The frames of a video, one after the other.
protocol VideoReader: AnyObject {
  var header: VideoHeader { get }

  /// Says which frames will be read: their numbers, ascending, at least one.
  ///
  /// - Returns: at most what decoding one of them takes beside `header.heldBytes`, in bytes.
  /// - Throws: `badData` where one can be seen to be broken, or of another size.
  func choose(_ frames: [Int]) throws(SquintError) -> Int

  /// The next of the frames that were chosen. It is valid until the next is asked for.
  ///
  /// - Parameter shouldContinue: asked now and then.
  /// - Returns: nil where `shouldContinue` said no.
  func next(while shouldContinue: () -> Bool) throws(SquintError) -> (any ImageDecoder)?
}

/// A reader of the video in `file`: a folder of images, an animation, Y4M, or what the program ffmpeg understands.
///
/// - Throws: `badData` where it is damaged, or no video; `noInput` where ffmpeg is needed, and not there.
func openVideo(_ file: MediaFile) throws(SquintError) -> any VideoReader {
  if file.isFolder { return try FolderVideo(file) }
  guard file.byteCount > 0 else { throw file.error("the file is empty; copy or download it again") }
  let start = try file.bytes(at: 0, count: 64)
  if start.starts(with: "YUV4MPEG2 ".utf8) { return try Y4MVideo(file) }
  if start.starts(with: "GIF87a".utf8) || start.starts(with: "GIF89a".utf8) { return try GIFVideo(file) }
  if start.starts(with: "RIFF".utf8), start.dropFirst(8).starts(with: "WEBP".utf8) { return try WebPVideo(file) }
  if let remark = ForeignFile.remark(start: start) { throw file.error(remark) }
  let images: [[UInt8]] = [[0xFF, 0xD8, 0xFF], [0x89, 0x50, 0x4E, 0x47], [0x42, 0x4D]]
  guard !images.contains(where: { start.starts(with: $0) }) else {
    throw file.error("this is an image, and no video; give it as an image")
  }
  return try FFmpegVideo(file)
}

extension VideoHeader {
  /// No camera, and no animation, makes as many.
  static let mostFrames = 1 << 22

  /// The frames of a second that there may be: from one a day to what no camera takes.
  static let rates = 1e-5...1e5

  /// The rate of `frames` frames in so many seconds; ten a second where they have none, as browsers show them.
  static func rate(frames: Int, seconds: Double) -> Double {
    let rate = Double(frames) / seconds
    return rates.contains(rate) ? rate : 10
  }
}

/// A frame that lies in memory, row after row: [height, width, 3 or 4].
final class StoredFrame: ImageDecoder {
  let header: ImageHeader
  private let width: Int
  private let channels: Int
  private let pixels: UnsafePointer<UInt8>
  private var nextRow = 0

  /// - Parameters:
  ///   - pixels: red, green, blue and, of four, opacity, which lies over white; must stay where they are.
  ///   - decoderBytes: what holding it takes.
  init(_ pixels: UnsafePointer<UInt8>, width: Int, height: Int, channels: Int, decoderBytes: Int) {
    self.pixels = pixels
    self.width = width
    self.channels = channels
    header = ImageHeader(
      format: .bmp, storedWidth: width, storedHeight: height, orientation: .upright, decoderBytes: decoderBytes)
  }

  func start() {}

  func readRow(into row: UnsafeMutablePointer<UInt8>) {
    let source = pixels + nextRow * width * channels
    nextRow += 1
    guard channels == 4 else {
      for x in 0..<width { setPixel(row, x, source[3 * x], source[3 * x + 1], source[3 * x + 2]) }
      return
    }
    for x in 0..<width {
      let alpha = source[4 * x + 3]
      setPixel(
        row, x, overWhite(source[4 * x], alpha: alpha), overWhite(source[4 * x + 1], alpha: alpha),
        overWhite(source[4 * x + 2], alpha: alpha))
    }
  }
}

/// Memory for frames.
final class FrameMemory {
  let bytes: UnsafeMutablePointer<UInt8>
  let count: Int

  /// `count` zeros.
  init(_ count: Int, _ file: MediaFile) throws(SquintError) {
    guard let memory = calloc(max(count, 1), 1) else { throw file.noMemory(count) }
    bytes = memory.assumingMemoryBound(to: UInt8.self)
    self.count = count
  }

  deinit { free(bytes) }
}
