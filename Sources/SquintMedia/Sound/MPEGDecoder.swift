import CMpg123
import SquintFile

/// MP3, and the other layers of MPEG's sound, through libmpg123. libsndfile has it, too, and lets it print warnings.
final class MPEGDecoder: SoundDecoder {
  let rate: Int
  let channels: Int
  private let file: MediaFile
  private let handle: OpaquePointer
  private let source: SoundSource
  private var isOver = false

  /// What libmpg123 holds.
  let decoderBytes = 1 << 20

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    guard let handle = mpg123_new(nil, nil) else {
      throw SquintError(.doesNotFit, "\(file.path): there is no memory for decoding MP3; close other programs")
    }
    let source = SoundSource(file)
    do throws(SquintError) {
      (rate, channels) = try Self.open(handle, source)
    } catch {
      // It may read from the source until it is gone.
      withExtendedLifetime(source) { mpg123_delete(handle) }
      throw error
    }
    self.handle = handle
    self.source = source
  }

  deinit { mpg123_delete(handle) }

  /// Whether a file is MPEG's, as far as its first bytes tell.
  static func recognizes(_ file: MediaFile) throws(SquintError) -> Bool { try firstFrame(of: file) != nil }

  /// Where the first frame of a file begins; nil where there is none.
  private static func firstFrame(of file: MediaFile) throws(SquintError) -> Int? {
    var offset = 0
    // Tags may stand in front: "ID3", version, flags, and a size of four times seven bits.
    for _ in 0..<8 {
      let tag = try file.bytes(at: offset, count: 10)
      guard tag.count == 10, tag.starts(with: "ID3".utf8) else { break }
      offset += 10 + tag[6...].reduce(0) { $0 << 7 | Int($1 & 0x7F) } + (tag[5] & 0x10 != 0 ? 10 : 0)
    }
    // Eleven ones; a version, a layer, a bit rate and a rate that there are.
    let head = try file.bytes(at: offset, count: 4)
    let isFrame =
      head.count == 4 && head[0] == 0xFF && head[1] & 0xE0 == 0xE0 && head[1] & 0x18 != 0x08 && head[1] & 0x06 != 0
      && head[2] & 0xF0 != 0xF0 && head[2] & 0x0C != 0x0C
    return isFrame ? offset : nil
  }

  private static func open(_ handle: OpaquePointer, _ source: SoundSource) throws(SquintError) -> (
    rate: Int, channels: Int
  ) {
    let file = source.file
    func check(_ code: Int32) throws(SquintError) {
      guard code != MPG123_OK.rawValue else { return }
      throw source.failure
        ?? file.error(
          "it is not understood as MP3 (\(String(cString: mpg123_plain_strerror(code)))); record or convert it again")
    }
    // As libsndfile: f32, without the encoder's padding, and only as long as rate and channels stay.
    try check(mpg123_param2(handle, Int32(MPG123_REMOVE_FLAGS.rawValue), Int(MPG123_AUTO_RESAMPLE.rawValue), 0))
    let flags = [MPG123_QUIET, MPG123_FORCE_FLOAT, MPG123_GAPLESS, MPG123_NO_FRANKENSTEIN].reduce(0) {
      $0 | $1.rawValue
    }
    try check(mpg123_param2(handle, Int32(MPG123_ADD_FLAGS.rawValue), Int(flags), 0))
    try check(
      mpg123_replace_reader_handle(
        handle, { source, bytes, count in SoundSource.of(source).read(into: bytes, count: count) },
        { source, distance, whence in off_t(SoundSource.of(source).seek(Int(distance), whence)) }, nil))
    try check(mpg123_open_handle(handle, Unmanaged.passUnretained(source).toOpaque()))
    var (rate, channels, encoding) = (0, Int32(0), Int32(0))
    try check(mpg123_getformat(handle, &rate, &channels, &encoding))
    guard encoding == Int32(MPG123_ENC_FLOAT_32.rawValue) else {
      throw SquintError(.internalError, "\(file.path): libmpg123 gives no 32-bit numbers; convert it to WAV or FLAC")
    }
    try SoundLimits.check(rate: rate, channels: Int(channels), file)
    return (rate, Int(channels))
  }

  func measure() throws(SquintError) -> SoundHeader {
    let claimed = try claimedFrames()
    let frames = try countFrames(file)
    return try header(frames, claimed: nil, endsEarly: claimed.map { frames < $0 } ?? false, file)
  }

  /// How many frames there are at least, as an encoder's note in the first frame says; nil where there is none.
  private func claimedFrames() throws(SquintError) -> Int? {
    guard let start = try Self.firstFrame(of: file) else { return nil }
    let head = try file.bytes(at: start, count: 4)
    guard head.count == 4, head[1] & 0x06 == 0x02 else { return nil }  // layer 3
    let isFirst = head[1] & 0x18 == 0x18  // MPEG 1
    let isMono = head[3] & 0xC0 == 0xC0
    // Behind the head and what tells of both channels.
    let side = isMono ? (isFirst ? 17 : 9) : (isFirst ? 32 : 17)
    let note = try file.bytes(at: start + 4 + side, count: 12)
    guard note.count == 12, note.starts(with: "Xing".utf8) || note.starts(with: "Info".utf8), note[7] & 1 == 1 else {
      return nil
    }
    let count = note[8...].reduce(0) { $0 << 8 | Int($1) }
    // Three may be the encoder's and the decoder's delay.
    return count > 3 ? (count - 3) * (isFirst ? 1152 : 576) : nil
  }

  func read(
    _ frames: Int, into buffer: UnsafeMutablePointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Int? {
    guard shouldContinue() else { return nil }
    let frameBytes = 4 * channels
    var done = 0
    while !isOver, done < frames * frameBytes {
      var count = 0
      let code = UnsafeMutableRawPointer(buffer).withMemoryRebound(to: UInt8.self, capacity: frames * frameBytes) {
        mpg123_read(handle, $0 + done, frames * frameBytes - done, &count)
      }
      done += count
      if let failure = source.failure { throw failure }
      switch code {
      case MPG123_OK.rawValue, MPG123_NEW_FORMAT.rawValue: continue
      // The end, or what cannot be decoded: what is there is read.
      default: isOver = true
      }
    }
    return done / frameBytes
  }
}
