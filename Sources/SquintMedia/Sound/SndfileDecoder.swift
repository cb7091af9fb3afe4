import CSndfile
import SquintFile

/// Sounds through libsndfile, which reads by position through callbacks.
final class SndfileDecoder: SoundDecoder {
  let rate: Int
  let channels: Int
  private let file: MediaFile
  private let handle: OpaquePointer
  private let source: Source
  private let info: SF_INFO

  /// What libsndfile and the libraries behind it hold: buffers, tables of codes (Vorbis has most).
  let decoderBytes = 2 << 20

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let source = Source(file)
    var info = SF_INFO()
    var access = SF_VIRTUAL_IO(
      get_filelen: { sf_count_t(Source.of($0).file.byteCount) },
      seek: { offset, whence, source in Source.of(source).seek(offset, whence) },
      read: { bytes, count, source in Source.of(source).read(into: bytes, count: count) },
      write: { _, _, _ in 0 },
      tell: { sf_count_t(Source.of($0).offset) })
    guard let handle = sf_open_virtual(&access, Int32(SFM_READ), &info, Unmanaged.passUnretained(source).toOpaque())
    else {
      throw source.failure ?? Self.error(nil, file)
    }
    (rate, channels) = (Int(info.samplerate), Int(info.channels))
    do throws(SquintError) {
      try SoundLimits.check(rate: rate, channels: channels, file)
    } catch {
      sf_close(handle)
      throw error
    }
    self.handle = handle
    self.source = source
    self.info = info
  }

  deinit { sf_close(handle) }

  func measure() throws(SquintError) -> SoundHeader {
    let claimed = info.frames > 0 && info.frames <= SoundLimits.mostFrames ? Int(info.frames) : nil
    if Int(info.format) & SF_FORMAT_TYPEMASK != SF_FORMAT_MPEG, let claimed, try hasFrame(claimed - 1) {
      return try header(claimed, claimed: nil, endsEarly: endsEarly(), file)
    }
    let decoder = try SndfileDecoder(file)
    return try header(try decoder.countFrames(file), claimed: claimed, file)
  }

  /// Whether the last frame that the header tells of is there.
  private func hasFrame(_ frame: Int) throws(SquintError) -> Bool {
    guard info.seekable != 0, sf_seek(handle, sf_count_t(frame), Int32(SF_SEEK_SET)) == frame else { return false }
    return withUnsafeTemporaryAllocation(of: Float.self, capacity: channels) {
      sf_readf_float(handle, $0.baseAddress!, 1) == 1
    }
  }

  /// Whether a file whose samples libsndfile counts by what is there was longer once.
  private func endsEarly() throws(SquintError) -> Bool {
    switch Int(info.format) & SF_FORMAT_TYPEMASK {
    case SF_FORMAT_WAV, SF_FORMAT_WAVEX: return try wavEndsEarly()
    case SF_FORMAT_OGG: return try oggEndsEarly()
    default: return false
    }
  }

  private func wavEndsEarly() throws(SquintError) -> Bool {
    var offset = 12
    // A chunk is its name, its size in bytes, and as many, of an even number.
    for _ in 0..<Self.mostChunks {
      let head = try file.bytes(at: offset, count: 8)
      guard head.count == 8 else { return false }
      let size = head[4...].reversed().reduce(0) { $0 << 8 | Int($1) }
      if head.starts(with: "data".utf8) {
        // Who writes into a pipe does not know the size, and says the most.
        return size < Self.unknownSize && offset + 8 + size > file.byteCount
      }
      offset += 8 + size + size % 2
    }
    return false
  }
  private static let mostChunks = 1000
  private static let unknownSize = 0x7FFF_0000

  private func oggEndsEarly() throws(SquintError) -> Bool {
    // The last page, which is no longer than this, says that it is.
    let longest = 65_307
    let end = try file.bytes(at: max(0, file.byteCount - longest), count: longest)
    for start in stride(from: end.count - 6, through: 0, by: -1) where end[start...].starts(with: "OggS".utf8) {
      return end[start + 5] & 4 == 0
    }
    return true
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

  /// What libsndfile reads.
  private final class Source {
    let file: MediaFile
    var offset = 0
    /// Why something could not be read.
    var failure: SquintError?

    init(_ file: MediaFile) { self.file = file }

    static func of(_ pointer: UnsafeMutableRawPointer?) -> Source {
      Unmanaged<Source>.fromOpaque(pointer!).takeUnretainedValue()
    }

    func seek(_ distance: sf_count_t, _ whence: Int32) -> sf_count_t {
      let base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? offset : file.byteCount
      let (place, overflows) = base.addingReportingOverflow(Int(distance))
      guard !overflows, place >= 0 else { return -1 }
      offset = place
      return sf_count_t(offset)
    }

    func read(into bytes: UnsafeMutableRawPointer?, count: sf_count_t) -> sf_count_t {
      guard let bytes, count > 0, failure == nil, offset < file.byteCount else { return 0 }
      let buffer = UnsafeMutableRawBufferPointer(start: bytes, count: min(Int(count), file.byteCount - offset))
      do throws(SquintError) {
        let done = try file.read(at: offset, into: buffer)
        offset += done
        return sf_count_t(done)
      } catch {
        failure = error
        return 0
      }
    }
  }
}
