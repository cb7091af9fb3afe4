import SquintFile

/// Y4M: the uncompressed frames that mjpegtools and ffmpeg exchange, of 8 bits: 4:2:0, 4:2:2, 4:4:4, or luma alone.
///
/// The matrix is that of BT.601; the levels are the limited ones (luma from 16 to 235, chroma from 16 to 240), unless the file
/// says XCOLORRANGE=FULL. A pixel takes the chroma of the sample that covers it, without interpolation.
final class Y4MVideo: VideoReader {
  let header: VideoHeader
  private let file: MediaFile
  private let layout: Layout
  private let colours: Colours
  /// Where each frame's samples begin.
  private var offset: Int
  private var chosen: [Int] = []
  private var position = 0
  private var number = 0
  private var samples: FrameMemory?

  private struct Layout {
    let width: Int
    let height: Int
    /// How many pixels share a sample of chroma; nil without chroma.
    let chroma: (x: Int, y: Int)?

    var chromaWidth: Int { chroma.map { (width + $0.x - 1) / $0.x } ?? 0 }
    var chromaHeight: Int { chroma.map { (height + $0.y - 1) / $0.y } ?? 0 }
    var frameBytes: Int { width * height + 2 * chromaWidth * chromaHeight }
  }

  /// No writer's line is longer.
  private static let longestLine = 1024

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let (words, end) = try Self.line(of: file, at: 0)
    var (width, height, rate) = (0, 0, 25.0)
    var chroma: (x: Int, y: Int)? = (2, 2)
    var isFull = false
    for word in words.dropFirst() {
      guard let key = word.first else { continue }
      let value = String(word.dropFirst())
      switch key {
      case "W": width = Int(value) ?? 0
      case "H": height = Int(value) ?? 0
      case "F":
        let parts = value.split(separator: ":").compactMap { Double($0) }
        if parts.count == 2, VideoHeader.rates.contains(parts[0] / parts[1]) { rate = parts[0] / parts[1] }
      case "C":
        switch value {
        case "420", "420jpeg", "420paldv", "420mpeg2": chroma = (2, 2)
        case "422": chroma = (2, 1)
        case "444": chroma = (1, 1)
        case "mono": chroma = nil
        default:
          throw file.error(
            "its samples are C\(value.prefix(32)); C420, C422, C444 and Cmono of 8 bits are understood, convert it")
        }
      case "X" where value == "COLORRANGE=FULL": isFull = true
      default: break
      }
    }
    try ImageLimits.check(width: width, height: height, file)
    layout = Layout(width: width, height: height, chroma: chroma)
    colours = Colours(isFull: isFull)
    offset = end
    var frames = 0
    var place = end
    while place < file.byteCount {
      place = try Self.frame(of: file, at: place) + layout.frameBytes
      frames += 1
      guard place <= file.byteCount else {
        throw file.error("the video is truncated in frame \(grouped(frames)); copy it again")
      }
      guard frames <= VideoHeader.mostFrames else {
        throw file.error("the video has more than \(grouped(VideoHeader.mostFrames)) frames; cut it")
      }
    }
    guard frames > 0 else { throw file.error("the video has no frame; record it again") }
    header = VideoHeader(width: width, height: height, frames: frames, framesPerSecond: rate, heldBytes: 0)
  }

  func choose(_ frames: [Int]) throws(SquintError) -> Int {
    chosen = frames
    return layout.frameBytes
  }

  func next(while shouldContinue: () -> Bool) throws(SquintError) -> (any ImageDecoder)? {
    while true {
      guard shouldContinue() else { return nil }
      let start = try Self.frame(of: file, at: offset)
      offset = start + layout.frameBytes
      number += 1
      guard number - 1 == chosen[position] else { continue }
      position += 1
      let memory: FrameMemory
      if let samples { memory = samples } else { memory = try FrameMemory(layout.frameBytes, file) }
      samples = memory
      let buffer = UnsafeMutableRawBufferPointer(start: memory.bytes, count: memory.count)
      guard try file.read(at: start, into: buffer) == memory.count else {
        throw file.error("the video is truncated in frame \(grouped(number)); copy it again")
      }
      return Frame(layout, colours, memory.bytes)
    }
  }

  /// Where the samples of the frame that begins at `offset` begin.
  private static func frame(of file: MediaFile, at offset: Int) throws(SquintError) -> Int {
    let (words, end) = try line(of: file, at: offset)
    guard words.first == "FRAME" else {
      throw file.error("there is no frame at byte \(grouped(offset)), where one should begin; copy it again")
    }
    return end
  }

  /// The words of the line at `offset`, and where the next begins.
  private static func line(of file: MediaFile, at offset: Int) throws(SquintError) -> (words: [Substring], end: Int) {
    // Nearly all frames' lines are six bytes long.
    for count in [16, longestLine] {
      let bytes = try file.bytes(at: offset, count: count)
      guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else { continue }
      return (String(decoding: bytes[..<end], as: UTF8.self).split(separator: " "), offset + end + 1)
    }
    throw file.error("there is no line of at most \(longestLine) bytes at byte \(grouped(offset)); copy it again")
  }

  private final class Frame: ImageDecoder {
    let header: ImageHeader
    private let layout: Layout
    private let colours: Colours
    private let samples: UnsafePointer<UInt8>
    private var nextRow = 0

    init(_ layout: Layout, _ colours: Colours, _ samples: UnsafePointer<UInt8>) {
      self.layout = layout
      self.colours = colours
      self.samples = samples
      header = ImageHeader(
        format: .bmp, storedWidth: layout.width, storedHeight: layout.height, orientation: .upright,
        decoderBytes: layout.frameBytes)
    }

    func start() {}

    func readRow(into row: UnsafeMutablePointer<UInt8>) {
      let y = nextRow
      nextRow += 1
      let luma = samples + y * layout.width
      guard let chroma = layout.chroma else {
        for x in 0..<layout.width { colours.set(row, x, luma: luma[x], blue: 128, red: 128) }
        return
      }
      let blue = samples + layout.width * layout.height + y / chroma.y * layout.chromaWidth
      let red = blue + layout.chromaWidth * layout.chromaHeight
      for x in 0..<layout.width {
        colours.set(row, x, luma: luma[x], blue: blue[x / chroma.x], red: red[x / chroma.x])
      }
    }
  }

  /// From luma and chroma to red, green and blue (ITU-R BT.601), rounded to the nearest level from sums of 1/65,536.
  private struct Colours {
    private let lumaZero: Int32
    private let luma: Int32
    private let redRed: Int32
    private let greenBlue: Int32
    private let greenRed: Int32
    private let blueBlue: Int32

    init(isFull: Bool) {
      let (lumaScale, chromaScale) = isFull ? (1, 1) : (255.0 / 219, 255.0 / 224)
      func fixed(_ value: Double) -> Int32 { Int32((value * 65_536).rounded()) }
      lumaZero = isFull ? 0 : 16
      luma = fixed(lumaScale)
      redRed = fixed(1.402 * chromaScale)
      greenBlue = fixed(1.772 * 0.114 / 0.587 * chromaScale)
      greenRed = fixed(1.402 * 0.299 / 0.587 * chromaScale)
      blueBlue = fixed(1.772 * chromaScale)
    }

    @inline(__always)
    func set(_ row: UnsafeMutablePointer<UInt8>, _ x: Int, luma level: UInt8, blue: UInt8, red: UInt8) {
      let base = (Int32(level) - lumaZero) * luma + 32_768
      let (u, v) = (Int32(blue) - 128, Int32(red) - 128)
      setPixel(
        row, x, UInt8(clamping: (base + redRed * v) >> 16),
        UInt8(clamping: (base - greenBlue * u - greenRed * v) >> 16),
        UInt8(clamping: (base + blueBlue * u) >> 16))
    }
  }
}
