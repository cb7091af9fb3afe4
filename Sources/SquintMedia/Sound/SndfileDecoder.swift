import CSndfile
import SquintFile

/// Sounds through libsndfile, which reads by position through callbacks.
final class SndfileDecoder: SoundDecoder {
  let rate: Int
  let channels: Int
  private let file: MediaFile
  private let handle: OpaquePointer
  private let source: SoundSource
  private let info: SF_INFO

  /// What libsndfile and the libraries behind it hold: buffers, tables of codes (Vorbis has most).
  let decoderBytes = 2 << 20

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let source = SoundSource(file)
    var info = SF_INFO()
    var access = SF_VIRTUAL_IO(
      get_filelen: { sf_count_t(SoundSource.of($0).file.byteCount) },
      seek: { offset, whence, source in sf_count_t(SoundSource.of(source).seek(Int(offset), whence)) },
      read: { bytes, count, source in sf_count_t(SoundSource.of(source).read(into: bytes, count: Int(count))) },
      write: { _, _, _ in 0 },
      tell: { sf_count_t(SoundSource.of($0).offset) })
    guard let handle = sf_open_virtual(&access, Int32(SFM_READ), &info, Unmanaged.passUnretained(source).toOpaque())
    else {
      throw source.failure ?? Self.error(nil, file)
    }
    (rate, channels) = (Int(info.samplerate), Int(info.channels))
    do throws(SquintError) {
      try SoundLimits.check(rate: rate, channels: channels, file)
    } catch {
      // It reads from the source until it is closed.
      _ = withExtendedLifetime(source) { sf_close(handle) }
      throw error
    }
    self.handle = handle
    self.source = source
    self.info = info
  }

  deinit { sf_close(handle) }

  func measure() throws(SquintError) -> SoundHeader {
    let claimed = info.frames > 0 && info.frames <= SoundLimits.mostFrames ? Int(info.frames) : nil
    let isCut = try SoundEnd.isMissing(file)
    if let claimed, try hasFrame(claimed - 1) { return try header(claimed, claimed: nil, endsEarly: isCut, file) }
    let decoder = try SndfileDecoder(file)
    return try header(try decoder.countFrames(file), claimed: claimed, endsEarly: isCut, file)
  }

  /// Whether the last frame that the header tells of is there.
  private func hasFrame(_ frame: Int) throws(SquintError) -> Bool {
    guard info.seekable != 0, sf_seek(handle, sf_count_t(frame), Int32(SF_SEEK_SET)) == frame else { return false }
    return withUnsafeTemporaryAllocation(of: Float.self, capacity: channels) {
      sf_readf_float(handle, $0.baseAddress!, 1) == 1
    }
  }

  func read(
    _ frames: Int, into buffer: UnsafeMutablePointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Int? {
    guard shouldContinue() else { return nil }
    let count = sf_readf_float(handle, buffer, sf_count_t(frames))
    if let failure = source.failure { throw failure }
    return Int(max(count, 0))
  }

  private static func error(_ handle: OpaquePointer?, _ file: MediaFile) -> SquintError {
    let words = String(cString: sf_strerror(handle)).split(whereSeparator: \.isNewline).first.map(String.init) ?? ""
    let reason = words.hasSuffix(".") ? String(words.dropLast()) : words
    return file.error("it is not understood as a sound (\(reason)); record or convert it again, such as to WAV or FLAC")
  }
}
