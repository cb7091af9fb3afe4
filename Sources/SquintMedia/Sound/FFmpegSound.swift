import SquintFile

/// A sound that the program ffmpeg decodes, such as that of a video: to 16 bits, at its own rate and with its own channels, through a
/// pipe, as Sun's AU: its head says the rate and the channels. The program's own memory is not counted.
final class FFmpegSound: SoundDecoder {
  let rate: Int
  let channels: Int
  private let file: MediaFile
  private let process: ChildProcess
  private var bytes = [UInt8](repeating: 0, count: bufferBytes)
  private var unread = 0..<0
  private var isOver = false

  private static let bufferBytes = 65_536
  let decoderBytes = 2 * bufferBytes

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    process = try Self.start(file)
    guard let head = try Self.head(process, file) else {
      throw file.error("there is no sound in it; give a file that has one")
    }
    (rate, channels) = (head.rate, head.channels)
    try SoundLimits.check(rate: rate, channels: channels, file)
  }

  static var isThere: Bool { FFmpeg.path != nil }

  /// Whether there is a sound in `file`.
  static func isIn(_ file: MediaFile) throws(SquintError) -> Bool { try head(try start(file), file) != nil }

  func measure() throws(SquintError) -> SoundHeader { try header(try countFrames(file), claimed: nil, file) }

  func read(
    _ frames: Int, into buffer: UnsafeMutablePointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Int? {
    let frameBytes = 2 * channels
    var done = 0
    while done < frames {
      if unread.count < frameBytes {
        guard try fill(while: shouldContinue) else { return nil }
        if unread.count < frameBytes { break }
      }
      let count = min(frames - done, unread.count / frameBytes)
      for index in 0..<count * channels {
        let place = unread.lowerBound + 2 * index
        let level = Int16(bitPattern: UInt16(bytes[place]) << 8 | UInt16(bytes[place + 1]))
        buffer[done * channels + index] = Float(level) / 32_768
      }
      unread = unread.lowerBound + count * frameBytes..<unread.upperBound
      done += count
    }
    return done
  }

  /// Reads on; false where `shouldContinue` said no.
  private func fill(while shouldContinue: () -> Bool) throws(SquintError) -> Bool {
    let rest = Array(bytes[unread])
    bytes.replaceSubrange(0..<rest.count, with: rest)
    unread = 0..<rest.count
    guard !isOver else { return true }
    let read = bytes.withUnsafeMutableBytes {
      process.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[rest.count...]), while: shouldContinue)
    }
    guard let read else { return false }
    unread = 0..<rest.count + read
    if unread.count < bytes.count {
      isOver = true
      guard process.wait() else { throw Self.failure(file, process.message) }
    }
    return true
  }

  // MARK: Asking ffmpeg

  private static let formats =
    FFmpegVideo.formats
    + [
      "", "aac", "ac3", "eac3", "aiff", "amr", "amrnb", "amrwb", "ape", "au", "caf", "dts", "dtshd", "dsf", "flac",
      "loas",
      "mp2", "mp3", "mpc", "mpc8", "oma", "qcp", "shn", "spdif", "tak", "tta", "truehd", "voc", "w64", "wav", "wv",
      "wsaud",
      "xwma", "iff", "ast", "rso", "sox", "pva", "vqf",
    ].joined(separator: ",")

  private static func start(_ file: MediaFile) throws(SquintError) -> ChildProcess {
    try FFmpeg.start(
      FFmpeg.path(for: file, others: "WAV, FLAC, Ogg, MP3 or AIFF"), file, formats: formats,
      ["-vn", "-sn", "-dn", "-c:a", "pcm_s16be", "-f", "au", "pipe:1"])
  }

  /// Reads the head; nil where there is no sound.
  private static func head(
    _ process: ChildProcess, _ file: MediaFile
  ) throws(SquintError) -> (rate: Int, channels: Int)? {
    // ".snd", then four bytes each: where the samples begin, their size, their kind, the rate, the channels.
    var head = [UInt8](repeating: 0, count: 24)
    let count = head.withUnsafeMutableBytes { process.read(into: $0, while: { true }) } ?? 0
    guard count == head.count, head.starts(with: ".snd".utf8) else {
      _ = process.wait()
      if process.hasSaid("does not contain any stream") { return nil }
      throw failure(file, process.message)
    }
    func number(_ index: Int) -> Int { head[4 * index..<4 * index + 4].reduce(0) { $0 << 8 | Int($1) } }
    let start = number(1)
    var remark = [UInt8](repeating: 0, count: max(0, min(start, bufferBytes) - head.count))
    let read = remark.withUnsafeMutableBytes { process.read(into: $0, while: { true }) } ?? 0
    guard number(3) == 3, start >= head.count, read == start - head.count else {
      throw failure(file, "what it gives is no sound")
    }
    return (number(4), number(5))
  }

  private static func failure(_ file: MediaFile, _ message: String?) -> SquintError {
    FFmpeg.failure(file, message ?? "it gives no sound")
  }
}
