import SquintFile
import Synchronization

/// What there is to know of a sound before it is decoded.
package struct SoundHeader: Sendable, Equatable {
  /// Samples a second of each channel.
  package let rate: Int
  package let channels: Int
  /// The samples of a channel that there are, at least 1; each of all channels is a frame.
  package let frames: Int
  /// At most what decoding holds, in bytes.
  package let decoderBytes: Int
  /// What the user should know, in words behind the file's name: that the file ends before its header says.
  package let remark: String?

  package var seconds: Double { Double(frames) / Double(rate) }

  /// Reads the header of the sound in `file`. Where it does not say how long the sound is, or cannot be trusted, all of it is decoded
  /// once; that is remembered.
  ///
  /// - Throws: `badData` where it is damaged, no sound, or an empty one; `noInput` where ffmpeg is needed, and not there.
  package static func read(_ file: MediaFile) throws(SquintError) -> SoundHeader {
    let identity = FileIdentity(file)
    if let identity, let found = known.withLock({ $0.last { $0.file == identity } }) { return found.header }
    let header = try openSound(file).measure()
    if let identity {
      known.withLock {
        if $0.count == mostKnown { $0.removeFirst() }
        $0.append((identity, header))
      }
    }
    return header
  }

  private static let known = Mutex<[(file: FileIdentity, header: SoundHeader)]>([])
  /// A prompt has no more sounds at a time.
  private static let mostKnown = 16
}

/// What is accepted.
enum SoundLimits {
  static let rates = 1_000...768_000
  static let channels = 1...64
  /// A month at the highest rate.
  static let mostFrames = 1 << 41

  /// - Throws: `badData` where a sound has fewer, or more.
  static func check(rate: Int, channels: Int, _ file: MediaFile) throws(SquintError) {
    guard Self.channels.contains(channels) else {
      throw file.error(
        "the sound has \(grouped(channels)) channels; \(Self.channels.lowerBound) to \(Self.channels.upperBound) are understood"
      )
    }
    guard rates.contains(rate) else {
      throw file.error(
        "the sound has \(grouped(rate)) samples a second; \(grouped(rates.lowerBound)) to \(grouped(rates.upperBound)) are "
          + "understood: convert it")
    }
  }
}

/// The samples of a sound, one after the other.
protocol SoundDecoder: AnyObject {
  var rate: Int { get }
  var channels: Int { get }
  /// At most what decoding holds, in bytes.
  var decoderBytes: Int { get }

  /// Finds out how long the sound is. The decoder is of no use afterwards.
  ///
  /// - Throws: `badData` where the file is damaged, or has no sample.
  func measure() throws(SquintError) -> SoundHeader

  /// Writes the next frames to `buffer`: [frames, channels], f32, of −1 to 1 where the file has integers.
  ///
  /// - Parameter shouldContinue: asked now and then.
  /// - Returns: how many there were, 0 at the end; nil where `shouldContinue` said no.
  func read(
    _ frames: Int, into buffer: UnsafeMutablePointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Int?
}

extension SoundDecoder {
  /// How many frames there are, by decoding all of them.
  func countFrames(_ file: MediaFile) throws(SquintError) -> Int {
    let buffer = UnsafeMutablePointer<Float>.allocate(capacity: SoundSamples.blockFrames * channels)
    defer { buffer.deallocate() }
    var total = 0
    while let count = try read(SoundSamples.blockFrames, into: buffer, while: { true }), count > 0 {
      total += count
      guard total <= SoundLimits.mostFrames else { throw file.error("the sound is too long; cut it") }
    }
    return total
  }

  /// - Parameter claimed: how many frames the header says that there are; nil where it does not.
  func header(_ frames: Int, claimed: Int?, endsEarly: Bool = false, _ file: MediaFile) throws(SquintError)
    -> SoundHeader
  {
    guard frames > 0 else { throw file.error("there is no sound in it: it has no samples; record or export it again") }
    guard frames <= SoundLimits.mostFrames else { throw file.error("the sound is too long; cut it") }
    let isShort = endsEarly || claimed.map { frames < $0 } ?? false
    let remark =
      isShort ? "the file ends before its header says, after \(duration(Double(frames) / Double(rate)))" : nil
    return SoundHeader(rate: rate, channels: channels, frames: frames, decoderBytes: decoderBytes, remark: remark)
  }
}

/// So many seconds for people: "0.3 s", "1:05:10".
func duration(_ seconds: Double) -> String {
  guard seconds >= 60 else { return "\((seconds * 10).rounded() / 10) s" }
  let whole = Int(min(seconds, 1e12))
  func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
  let rest = "\(two(whole % 60))"
  return whole < 3600 ? "\(whole / 60):\(rest)" : "\(whole / 3600):\(two(whole / 60 % 60)):\(rest)"
}

/// A decoder of the sound in `file`: libmpg123, libsndfile, or else the program ffmpeg.
///
/// - Throws: `badData` where it is damaged, or no sound; `noInput` where ffmpeg is needed, and not there.
func openSound(_ file: MediaFile) throws(SquintError) -> any SoundDecoder {
  guard file.byteCount > 0 else { throw file.error("the file is empty; record, copy or download it again") }
  let start = try file.bytes(at: 0, count: ForeignFile.startBytes)
  if let remark = ForeignFile.remark(start: start) { throw file.error(remark) }
  if let kind = silentKind(start) { throw file.error("this is \(kind), and no sound") }
  let isMPEG = try MPEGDecoder.recognizes(file)
  let own: SquintError
  do throws(SquintError) {
    if isMPEG { return try MPEGDecoder(file) }
    return try SndfileDecoder(file)
  } catch {
    own = error
  }
  // What libsndfile names by its first bytes, it alone should explain.
  let isOwn =
    start.starts(with: "fLaC".utf8) || start.starts(with: "RIFF".utf8) && start.dropFirst(8).starts(with: "WAVE".utf8)
    || start.starts(with: "FORM".utf8) && start.dropFirst(8).starts(with: "AIF".utf8)
  guard own.kind == .badData else { throw own }
  let isOgg = start.starts(with: "OggS".utf8)
  /// The reason, where it is that nobody finds a sound in what is left of an Ogg file.
  func explained(_ error: SquintError) throws(SquintError) -> SquintError {
    guard isOgg, error.kind == .badData, try SoundEnd.isMissing(file) else { return error }
    return file.error("the file is truncated: too little is there to find a sound in it; copy or download it again")
  }
  if !FFmpegSound.isThere, isOwn || isMPEG || isOgg { throw try explained(own) }
  do throws(SquintError) {
    return try FFmpegSound(file)
  } catch {
    throw isOwn ? own : try explained(error)
  }
}

/// In words, what a file is that starts with `start`, where it is known to have no sound.
private func silentKind(_ start: [UInt8]) -> String? {
  let animations: [[UInt8]] = [Array("GIF87a".utf8), Array("GIF89a".utf8)]
  let images: [[UInt8]] = [[0xFF, 0xD8, 0xFF], [0x89, 0x50, 0x4E, 0x47], Array("8BPS".utf8)] + animations
  if images.contains(where: { start.starts(with: $0) }) { return "an image" }
  if start.starts(with: "RIFF".utf8), start.dropFirst(8).starts(with: "WEBP".utf8) { return "an image" }
  if start.starts(with: "YUV4MPEG2 ".utf8) { return "a video without a sound" }
  if start.starts(with: "%PDF".utf8) { return "a PDF document" }
  if start.dropFirst(1).starts(with: "SQNT".utf8) { return "a model" }
  if start.starts(with: "PK\u{3}\u{4}".utf8) { return "an archive or an office document" }
  let isText = start.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
  return isText ? "a text" : nil
}

extension MediaFile {
  /// Whether there is a sound in this file, which may be a video.
  ///
  /// - Throws: `badData` where it is damaged; `noInput` where ffmpeg is needed, and not there.
  package func hasSound() throws(SquintError) -> Bool {
    guard !isFolder, byteCount > 0 else { return false }
    if silentKind(try bytes(at: 0, count: ForeignFile.startBytes)) != nil { return false }
    if try MPEGDecoder.recognizes(self) || (try? SndfileDecoder(self)) != nil { return true }
    return try FFmpegSound.isIn(self)
  }
}
