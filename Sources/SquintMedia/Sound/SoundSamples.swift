import CSoxr
import SquintFile

/// The samples of a sound as an extractor of features takes them: one channel, the mean of all, at one rate.
///
/// This is what librosa's `load(path, sr=rate)` does: f32 throughout; the mean first, then libsoxr's recipe HQ.
final class SoundSamples {
  /// How many samples there are.
  let count: Int
  private let file: MediaFile
  private let decoder: any SoundDecoder
  private let frames: Int
  /// nil where the rate is the sound's own.
  private let resampler: OpaquePointer?
  /// What the decoder gives: [blockFrames, channels].
  private let block: UnsafeMutablePointer<Float>
  /// Of these the mean: [blockFrames].
  private let mono: UnsafeMutablePointer<Float>
  /// Those of `mono` that are not read.
  private var unread = 0..<0
  private var framesDone = 0
  private var samplesDone = 0
  private var isFlushed = false

  static let blockFrames = 4096

  /// - Parameters:
  ///   - header: of the sound, which must not have changed.
  ///   - rate: of the samples.
  init(_ file: MediaFile, _ header: SoundHeader, rate: Int) throws(SquintError) {
    self.file = file
    decoder = try openSound(file)
    guard decoder.rate == header.rate, decoder.channels == header.channels else { throw Self.changed(file) }
    frames = header.frames
    count = Self.count(header, rate: rate)
    if rate == header.rate {
      resampler = nil
    } else {
      var message: UnsafePointer<CChar>?
      var format = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I)
      var quality = soxr_quality_spec(UInt(SOXR_20_BITQ), 0)
      guard let resampler = soxr_create(Double(header.rate), Double(rate), 1, &message, &format, &quality, nil) else {
        let reason = message.map { String(cString: $0) } ?? "no reason is given"
        throw file.error(
          "\(grouped(header.rate)) samples a second cannot become \(grouped(rate)): \(reason); convert it")
      }
      self.resampler = resampler
    }
    block = .allocate(capacity: Self.blockFrames * header.channels)
    mono = .allocate(capacity: Self.blockFrames)
  }

  deinit {
    if let resampler { soxr_delete(resampler) }
    block.deallocate()
    mono.deallocate()
  }

  /// The samples of a sound that becomes of `rate`.
  static func count(_ header: SoundHeader, rate: Int) -> Int {
    guard rate != header.rate else { return header.frames }
    return Int((Double(header.frames) * (Double(rate) / Double(header.rate))).rounded(.up))
  }

  /// At most what is held beside the decoder, in bytes.
  static func bytes(_ header: SoundHeader) -> Int { 4 * blockFrames * (header.channels + 1) + resamplerBytes }
  /// The filters of libsoxr and what it holds between them.
  private static let resamplerBytes = 2 << 20

  /// Writes the next samples to `buffer`.
  ///
  /// - Returns: how many there were, 0 at the end; nil where `shouldContinue` said no.
  func read(
    into buffer: UnsafeMutableBufferPointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Int? {
    let wanted = min(buffer.count, count - samplesDone)
    guard wanted > 0, let target = buffer.baseAddress else { return 0 }
    var done = 0
    while done < wanted {
      if unread.isEmpty, framesDone < frames {
        guard try fill(while: shouldContinue) else { return nil }
      }
      guard let resampler else {
        let step = min(wanted - done, unread.count)
        (target + done).update(from: mono + unread.lowerBound, count: step)
        unread = unread.lowerBound + step..<unread.upperBound
        done += step
        continue
      }
      var (taken, given) = (0, 0)
      // Without an input it gives what it still has.
      let isOver = unread.isEmpty
      let message = soxr_process(
        resampler, isOver ? nil : mono + unread.lowerBound, unread.count, &taken, target + done, wanted - done, &given)
      guard message == nil else {
        throw SquintError(
          .internalError, "\(file.path): libsoxr gives up: \(message.map { String(cString: $0) } ?? "")")
      }
      unread = unread.lowerBound + taken..<unread.upperBound
      done += given
      if isOver, given == 0 {
        (target + done).update(repeating: 0, count: wanted - done)
        done = wanted
      }
    }
    samplesDone += done
    return done
  }

  /// Decodes a block; false where `shouldContinue` said no.
  private func fill(while shouldContinue: () -> Bool) throws(SquintError) -> Bool {
    let wanted = min(Self.blockFrames, frames - framesDone)
    guard let read = try decoder.read(wanted, into: block, while: shouldContinue) else { return false }
    guard read > 0 else {
      throw file.error(
        "the sound is damaged: it ends after \(duration(Double(framesDone) / Double(decoder.rate))) of "
          + "\(duration(Double(frames) / Double(decoder.rate))); copy or download it again")
    }
    let channels = decoder.channels
    for frame in 0..<read {
      var sum = 0.0
      for channel in 0..<channels { sum += Double(block[frame * channels + channel]) }
      let mean = Float(sum / Double(channels))
      guard mean.isFinite else {
        let seconds = duration(Double(framesDone + frame) / Double(decoder.rate))
        throw file.error("a sample at \(seconds) is infinite or not a number; export the sound again")
      }
      mono[frame] = mean
    }
    framesDone += read
    unread = 0..<read
    return true
  }

  static func changed(_ file: MediaFile) -> SquintError {
    file.error("the sound was changed while it was looked at; ask again")
  }
}
