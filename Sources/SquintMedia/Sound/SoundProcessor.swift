import SquintFile

/// What a checkpoint does with a sound before its encoder (formats/audio.md).
///
/// A unit is log-mel frames that follow each other: [frames, mels] of f32. Frames are computed when the encoder asks for them; never
/// are all samples, or all frames, in memory.
package struct SoundProcessor: Sendable, Equatable {
  package let mel: MelSpectrogram
  /// The frames of a unit; the last is what is left.
  package let unit: Int
  /// A shorter sound gets zeros, which count as its own.
  package let leastSamples: Int
  /// A shorter sound is followed by zeros; nil: by its reflection.
  package let padSamples: Int?
  /// What is behind is dropped; nil: nothing is.
  package let mostSamples: Int?
  /// Whether the frames of padding are in the units.
  package let keepsPadding: Bool

  package init(
    mel: MelSpectrogram, unit: Int, leastSamples: Int = 1, padSamples: Int? = nil, mostSamples: Int? = nil,
    keepsPadding: Bool = false
  ) {
    self.mel = mel
    self.unit = unit
    self.leastSamples = leastSamples
    self.padSamples = padSamples
    self.mostSamples = mostSamples ?? padSamples
    self.keepsPadding = keepsPadding
  }

  /// Reads the keys `audio.*` that say what is done to a sound.
  ///
  /// - Throws: `badData` where one is missing, of another kind, or of a value that makes no sense.
  package init(_ metadata: Metadata) throws(SquintError) {
    let features = try metadata.string("audio.features")
    guard features == "log_mel" else { throw Self.bad("audio.features is \(features), which is not known") }
    let rate = try metadata.int("audio.rate", in: 1_000...192_000)
    let fft = try metadata.int("audio.fft", in: 4...65_536)
    guard rate % 2 == 0, fft % 2 == 0 else { throw Self.bad("audio.rate or audio.fft is odd") }
    let low = try metadata.float("audio.low_hertz", default: 0)
    let high = try metadata.float("audio.high_hertz", default: Double(rate) / 2)
    guard low >= 0, low < high, high <= Double(rate) / 2 else {
      throw Self.bad("audio.low_hertz and audio.high_hertz are \(low) and \(high), outside 0…\(rate / 2)")
    }
    let hop = try metadata.int("audio.hop", in: 1...fft)
    guard fft <= 16 * hop else { throw Self.bad("audio.fft is \(fft), more than 16 times audio.hop, \(hop)") }
    func number(_ key: String, most: Int) throws(SquintError) -> Int? {
      metadata[key] == nil ? nil : try metadata.int(key, in: 1...most)
    }
    self.init(
      mel: MelSpectrogram(
        rate: rate, fft: fft, hop: hop, mels: try metadata.int("audio.mels", in: 1...1024), lowHertz: low,
        highHertz: high),
      unit: try metadata.int("audio.unit", in: 1...1 << 24),
      leastSamples: try metadata.int("audio.least_samples", in: 1...1 << 24, default: 1),
      padSamples: try number("audio.pad_samples", most: 1 << 32),
      mostSamples: try number("audio.most_samples", most: 1 << 40),
      keepsPadding: try metadata.bool("audio.keeps_padding", default: false))
    if let mostSamples {
      guard mostSamples >= max(leastSamples, padSamples ?? 1), mostSamples >= hop else {
        throw Self.bad("audio.most_samples is less than the samples that there are at least")
      }
    }
    guard unit * mel.mels <= 1 << 28 else { throw Self.bad("audio.unit is \(unit), which is too many frames") }
    guard !keepsPadding || padSamples != nil && padSamples == mostSamples && unit == mostSamples! / hop else {
      throw Self.bad("audio.keeps_padding needs one length for all: pad_samples, most_samples and unit")
    }
    // Even of a short sound no more is computed than takes a few seconds.
    let second = extent(samples: rate)
    let frames = keepsPadding ? second.frames : second.valid
    guard frames <= Self.mostSecondNumbers / (fft + mel.mels) else {
      throw Self.bad("audio.*: a second of sound becomes \(frames) frames, which are too many")
    }
  }

  /// What a sound of a second becomes at most: frames · (fft + mels).
  private static let mostSecondNumbers = 1 << 26

  private static func bad(_ what: String) -> SquintError {
    SquintError(.badData, "metadata \(what); convert the model again")
  }

  /// What becomes of a number of samples.
  private struct Extent {
    /// Those of the sound, and all.
    let own: Int
    let padded: Int
    /// The frames of the sound, and all.
    let valid: Int
    let frames: Int
  }

  private func extent(samples: Int) -> Extent {
    let own = max(leastSamples, min(samples, mostSamples ?? samples))
    let padded = max(own, padSamples ?? 0)
    let frames = padded / mel.hop
    return Extent(own: own, padded: padded, valid: min((own + mel.hop - 1) / mel.hop, frames), frames: frames)
  }

  private func layout(_ extent: Extent) -> MediaLayout {
    func run(_ frames: Int, count: Int, valid: Int? = nil) -> MediaLayout.Run {
      MediaLayout.Run(
        shape: [frames, mel.mels] + (valid.map { [$0] } ?? []), count: count,
        unitBytes: frames * mel.mels * MemoryLayout<Float>.stride)
    }
    if keepsPadding { return MediaLayout(runs: [run(extent.frames, count: 1, valid: extent.valid)]) }
    let (whole, rest) = extent.valid.quotientAndRemainder(dividingBy: unit)
    return MediaLayout(runs: (whole > 0 ? [run(unit, count: whole)] : []) + (rest > 0 ? [run(rest, count: 1)] : []))
  }

  private func cost(_ extent: Extent, source: Int) -> MediaCost {
    MediaCost(layout: layout(extent), decodingBytes: source + mel.heldBytes, isStreamed: true)
  }

  private func extent(of header: SoundHeader, _ file: MediaFile) throws(SquintError) -> Extent {
    let extent = extent(samples: SoundSamples.count(header, rate: mel.rate))
    guard extent.valid > 0 else {
      throw file.error(
        "the sound is too short: \(grouped(header.frames)) sample\(header.frames == 1 ? "" : "s"), "
          + "less than a frame of \(1000 * mel.hop / mel.rate) ms; record a longer one")
    }
    return extent
  }

  private func notes(_ header: SoundHeader) -> [String] {
    var notes = header.remark.map { [$0] } ?? []
    if let mostSamples, SoundSamples.count(header, rate: mel.rate) > mostSamples {
      let (all, heard) = (duration(header.seconds), duration(Double(mostSamples) / Double(mel.rate)))
      notes.append(
        all == heard
          ? "the model hears the first \(heard), which is less than a tenth of a second too little"
          : "of \(all) the model hears the first \(heard); cut it in parts to ask about the rest")
    }
    return notes
  }
}

extension SoundProcessor: MediaProcessor {
  package var levels: [Float] { [] }

  /// Of the usual sound alone: of 30 seconds, or the longest that the model takes where that is less; with `keepsPadding`, where all
  /// are one window, the longest. A longer one is planned for by its own cost.
  package func costs() -> [MediaCost] {
    let usual = max(
      min(Self.usualSeconds * mel.rate, mostSamples ?? Int.max), keepsPadding ? padSamples ?? 0 : 0)
    let source = SoundHeader(
      rate: mel.rate, channels: SoundLimits.channels.upperBound, frames: 1, decoderBytes: 2 << 20, remark: nil)
    let bytes = source.decoderBytes + SoundSamples.bytes(source)
    // A frame at least, however slow the rate.
    return [cost(extent(samples: max(usual, mel.hop)), source: bytes)]
  }

  private static let usualSeconds = 30

  /// What a sound of so many samples at the model's rate takes beside reading it.
  package func cost(ofSamples samples: Int) -> MediaCost { cost(extent(samples: samples), source: 0) }

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost {
    let header = try SoundHeader.read(file)
    var cost = cost(try extent(of: header, file), source: header.decoderBytes + SoundSamples.bytes(header))
    cost.notes = notes(header)
    return cost
  }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> SoundProcessor {
    throw SquintError(.usage, "how much of a sound is heard cannot be limited; cut the file")
  }

  package func resizing(toSide side: Int) throws(SquintError) -> SoundProcessor {
    throw SquintError(.usage, "a sound has no size that could be chosen")
  }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? {
    guard shouldContinue() else { return nil }
    let header = try SoundHeader.read(file)
    let extent = try extent(of: header, file)
    let processor = self
    guard let largest = try largestPower(file, header, extent, while: shouldContinue) else { return nil }
    return MediaUnits(layout: layout(extent)) { () throws(SquintError) in
      SoundStream(try processor.frames(file, header, extent), mels: processor.mel.mels, largest: largest)
    }
  }

  private func frames(_ file: MediaFile, _ header: SoundHeader, _ extent: Extent) throws(SquintError) -> MelFrames {
    try MelFrames(
      mel, try SoundSamples(file, header, rate: mel.rate), own: extent.own, padded: extent.padded, file)
  }

  /// The largest power of all frames and mels; nil where `shouldContinue` said no.
  private func largestPower(
    _ file: MediaFile, _ header: SoundHeader, _ extent: Extent, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Double? {
    let frames = try frames(file, header, extent)
    var largest = 0.0
    var isFinite = true
    // Behind them is nothing but zeros.
    for _ in 0..<min(extent.frames, (extent.own + mel.fft / 2) / mel.hop + 1) {
      let goesOn = try frames.next(while: shouldContinue) { _, power in
        largest = max(largest, power)
        isFinite = isFinite && power.isFinite
      }
      guard goesOn else { return nil }
    }
    guard isFinite else {
      throw file.error("the sound's samples are too large to compute with; export it again with samples of −1 to 1")
    }
    return largest
  }

  /// [frames, mels], as the encoder takes them.
  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    let numbers = (0..<unit.count / MemoryLayout<Float>.stride).map {
      unit.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Float>.stride, as: Float.self)
    }
    return (Array(shape.prefix(2)), numbers)
  }
}

/// Computes the frames of one unit after the other.
private final class SoundStream: MediaUnitStream {
  private let frames: MelFrames
  private let mels: Int
  private let largest: Double

  init(_ frames: MelFrames, mels: Int, largest: Double) {
    self.frames = frames
    self.mels = mels
    self.largest = largest
  }

  func next(into unit: UnsafeMutableRawBufferPointer, while shouldContinue: () -> Bool) throws(SquintError) -> Bool {
    let frameBytes = mels * MemoryLayout<Float>.stride
    for frame in 0..<unit.count / frameBytes {
      let place = unit.baseAddress! + frame * frameBytes
      let goesOn = try frames.next(while: shouldContinue) { mel, power in
        let level = MelSpectrogram.level(power, largest: largest)
        place.storeBytes(of: level, toByteOffset: mel * MemoryLayout<Float>.stride, as: Float.self)
      }
      guard goesOn else { return false }
    }
    return true
  }
}
