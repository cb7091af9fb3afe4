import SquintFile
import Synchronization

/// A video that the program ffmpeg decodes: it hands over the frames that were chosen, one after the other, through a pipe.
///
/// Three runs: the first frame, which says the size as it is displayed; a list of the stored frames, which are not decoded for it; and
/// the frames. The program's own memory is not counted.
final class FFmpegVideo: VideoReader {
  let header: VideoHeader
  private let file: MediaFile
  private let program: String
  private var process: ChildProcess?
  private var chosen: [Int] = []
  private var position = 0
  /// The number of the next frame that comes through the pipe.
  private var number = 0
  private var picture: Picture
  /// Whether the frames ended before the list of them did.
  private var isOver = false

  private static let bufferBytes = 65_536

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    program = try FFmpeg.path(for: file, others: "a folder of frames, an animated GIF or WebP, or Y4M")
    let facts = try Self.facts(of: file, program)
    let frameBytes = 3 * facts.width * facts.height
    header = VideoHeader(
      width: facts.width, height: facts.height, frames: facts.frames, framesPerSecond: facts.rate,
      heldBytes: frameBytes + 2 * Self.bufferBytes)
    picture = Picture()
  }

  func choose(_ frames: [Int]) throws(SquintError) -> Int {
    chosen = frames
    return 0
  }

  func next(while shouldContinue: () -> Bool) throws(SquintError) -> (any ImageDecoder)? {
    let process: ChildProcess
    if let running = self.process { process = running } else { process = try start() }
    self.process = process
    while !isOver, number <= chosen[position] {
      switch try picture.read(from: process, file, while: shouldContinue) {
      case nil: return nil
      case false?:
        // The list counts what is stored; some of it is never shown, and the last frame stands for it.
        // A signal may have been for both.
        guard shouldContinue() else { return nil }
        let isFine = process.wait()
        guard isFine, picture.width > 0 else { throw Self.failure(file, process.message) }
        isOver = true
      case true?:
        guard picture.width == header.width, picture.height == header.height else {
          throw file.error("the video's frames are of more than one size; convert it to one")
        }
        number = selects ? chosen[min(passed, chosen.count - 1)] + 1 : number + 1
        passed += 1
      }
    }
    position += 1
    guard let pixels = picture.pixels else { throw Self.failure(file, nil) }
    return StoredFrame(pixels.bytes, width: header.width, height: header.height, channels: 3, decoderBytes: 0)
  }

  /// The frames that have come.
  private var passed = 0
  /// Whether ffmpeg leaves out what was not chosen. A list of thousands is longer than an argument may be.
  private var selects: Bool { chosen.count <= 2000 && chosen.count < (chosen.last ?? 0) + 1 }

  private func start() throws(SquintError) -> ChildProcess {
    let selection =
      selects ? ["-vf", "select='" + chosen.map { "eq(n,\($0))" }.joined(separator: "+") + "'"] : []
    return try Self.run(
      file, program,
      selection + Self.passing(program)
        + ["-frames:v", "\(selects ? chosen.count : (chosen.last ?? 0) + 1)"] + Self.pictures)
  }

  // MARK: Asking ffmpeg

  static let formats = [
    "mov", "mp4", "m4a", "3gp", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "live_flv", "ogg",
    "asf",
    "h264", "hevc", "av1", "obu", "ivf", "m4v", "mjpeg", "dv", "mxf", "rm", "swf", "wtv", "nut", "apng", "gif",
    "yuv4mpegpipe", "vc1", "nsv", "gxf", "dirac", "h263", "h261", "avs", "bink", "roq", "smk", "vivo", "mjpeg_2000",
  ].joined(separator: ",")

  private static let pictures = ["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]

  /// How ffmpeg is told to neither repeat nor leave out frames: another way before its version 5.1.
  private static func passing(_ program: String) -> [String] {
    hasNewWords.withLock { known in
      if let known, known.program == program { return known.words }
      let probe = try? ChildProcess(
        program, ["-v", "quiet", "-fps_mode", "passthrough", "-version"], input: nil)
      var bytes = [UInt8](repeating: 0, count: bufferBytes)
      let isNew =
        bytes.withUnsafeMutableBytes { probe?.read(into: $0, while: { true }) != nil } && probe?.wait() == true
      let words = isNew ? ["-fps_mode", "passthrough"] : ["-vsync", "0"]
      known = (program, words)
      return words
    }
  }
  private static let hasNewWords = Mutex<(program: String, words: [String])?>(nil)

  private static func run(
    _ file: MediaFile, _ program: String, _ arguments: [String]
  ) throws(SquintError) -> ChildProcess {
    try FFmpeg.start(program, file, formats: formats, ["-map", "0:V:0"] + arguments)
  }

  private static func failure(_ file: MediaFile, _ message: String?) -> SquintError {
    FFmpeg.failure(file, message ?? "it gives no frame")
  }

  private struct Facts {
    var width = 0
    var height = 0
    var frames = 0
    var rate: Double?
  }

  private static let known = Mutex<(file: FileIdentity, facts: Facts)?>(nil)

  private static func facts(of file: MediaFile, _ program: String) throws(SquintError) -> Facts {
    let identity = FileIdentity(file)
    if let found = known.withLock({ $0 }), found.file == identity { return found.facts }

    var facts = Facts()
    let first = try run(file, program, ["-frames:v", "1"] + pictures)
    var picture = Picture()
    guard try picture.read(from: first, file, while: { true }) == true else {
      _ = first.wait()
      throw failure(file, first.message)
    }
    (facts.width, facts.height) = (picture.width, picture.height)
    let list = try run(file, program, ["-c", "copy", "-f", "framecrc", "pipe:1"])
    try read(list, into: &facts, file)
    guard list.wait(), facts.frames > 0 else { throw failure(file, list.message) }
    if let identity { known.withLock { $0 = (identity, facts) } }
    return facts
  }

  /// Reads the list of frames: "#tb 0: 1/25" is the unit of time, and a line "0, dts, pts, duration, size, …" a frame.
  private static func read(_ list: ChildProcess, into facts: inout Facts, _ file: MediaFile) throws(SquintError) {
    var buffer = [UInt8](repeating: 0, count: bufferBytes)
    var line: [UInt8] = []
    var unit: Double?
    var (first, last, duration) = (Double.infinity, -Double.infinity, 0.0)
    func take() {
      let text = String(decoding: line, as: UTF8.self)
      line.removeAll(keepingCapacity: true)
      if text.hasPrefix("#tb 0:") {
        let parts = text.dropFirst(6).split(separator: "/").compactMap { Double($0.filter { !$0.isWhitespace }) }
        if parts.count == 2, parts[1] > 0 { unit = parts[0] / parts[1] }
      }
      guard !text.hasPrefix("#") else { return }
      let fields = text.split(separator: ",").map { $0.filter { !$0.isWhitespace } }
      guard fields.count >= 5 else { return }
      facts.frames += 1
      guard let decoded = Double(fields[1]), abs(decoded) < 9e18 else { return }
      first = min(first, decoded)
      last = max(last, decoded)
      duration = Double(fields[3]) ?? 0
    }
    while true {
      let count = buffer.withUnsafeMutableBytes { list.read(into: $0, while: { true }) } ?? 0
      guard count > 0 else { break }
      for byte in buffer[..<count] {
        if byte == UInt8(ascii: "\n") { take() } else if line.count < 1024 { line.append(byte) }
      }
      guard facts.frames <= VideoHeader.mostFrames else {
        throw file.error("the video has more than \(grouped(VideoHeader.mostFrames)) frames; cut it")
      }
    }
    let seconds = (last - first + duration) * (unit ?? 0)
    facts.rate = VideoHeader.rate(frames: facts.frames, seconds: seconds)
  }

  /// A frame as ffmpeg hands it over: a Netpbm image of three bytes a pixel.
  private struct Picture {
    private(set) var width = 0
    private(set) var height = 0
    private(set) var pixels: FrameMemory?

    /// Reads the next; false where there is none.
    mutating func read(
      from process: ChildProcess, _ file: MediaFile, while shouldContinue: () -> Bool
    ) throws(SquintError) -> Bool? {
      // "P6\nWIDTH HEIGHT\n255\n"
      var numbers: [Int] = []
      var word: [UInt8] = []
      var total = 0
      while numbers.count < 3 {
        var byte: UInt8 = 0
        guard let count = withUnsafeMutableBytes(of: &byte, { process.read(into: $0, while: shouldContinue) }) else {
          return nil
        }
        guard count == 1 else {
          guard total == 0 else { throw FFmpegVideo.failure(file, process.message) }
          return false
        }
        total += 1
        guard total < 64 else { throw FFmpegVideo.failure(file, "what it gives is no picture") }
        guard byte == UInt8(ascii: "\n") || byte == UInt8(ascii: " ") else {
          word.append(byte)
          continue
        }
        if total > 3 { numbers.append(Int(String(decoding: word, as: UTF8.self)) ?? 0) }
        guard total > 3 || word == Array("P6".utf8) else {
          throw FFmpegVideo.failure(file, "what it gives is no picture")
        }
        word = []
      }
      guard numbers[2] == 255 else { throw FFmpegVideo.failure(file, "what it gives is no picture") }
      try ImageLimits.check(width: numbers[0], height: numbers[1], file)
      if (width, height) != (numbers[0], numbers[1]) {
        (width, height) = (numbers[0], numbers[1])
        pixels = try FrameMemory(3 * width * height, file)
      }
      guard let pixels else { return false }
      let buffer = UnsafeMutableRawBufferPointer(start: pixels.bytes, count: pixels.count)
      guard let count = process.read(into: buffer, while: shouldContinue) else { return nil }
      guard count == pixels.count else { throw FFmpegVideo.failure(file, process.message ?? "it ended within a frame") }
      return true
    }
  }
}
