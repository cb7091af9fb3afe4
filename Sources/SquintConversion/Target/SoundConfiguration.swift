import SquintFile

/// What is done to a sound before its encoder (formats/audio.md).
package struct SoundConfiguration: Equatable, ProcessorSettings {
  /// Samples a second.
  package var rate = 16_000
  package var fft = 400
  package var hop = 160
  package var mels = 80
  /// What the filters reach from and to; nil: 0 and rate / 2.
  package var lowHertz: Double?
  package var highHertz: Double?
  /// The frames that the encoder sees at a time.
  package var unit = 3_000
  /// Shorter sounds get zeros, which count as theirs.
  package var leastSamples = 1
  /// Shorter sounds are followed by zeros; nil: by nothing.
  package var padSamples: Int?
  /// What is behind is dropped; nil: nothing is.
  package var mostSamples: Int?
  /// Whether the encoder gets the frames of that padding, too.
  package var keepsPadding = false

  /// Frames of 80 mels, 100 a second; of sounds of any length.
  package init() {}

  /// What `WhisperFeatureExtractor` assumes (feature_extraction_whisper.py): sounds of 30 seconds, shorter ones padded.
  package static var whisper: SoundConfiguration {
    var sounds = SoundConfiguration()
    sounds.setWindow(seconds: whisperSeconds)
    return sounds
  }

  package static let whisperSeconds = 30
  /// A bound that no checkpoint comes near.
  package static let longestWindow = 1 << 20

  /// Sounds of exactly so many seconds, shorter ones padded, longer ones cut off; the encoder sees all of it at a time.
  package mutating func setWindow(seconds: Int) {
    padSamples = seconds * rate
    mostSamples = padSamples
    unit = max(seconds * rate / hop, 1)
    keepsPadding = true
  }

  /// Reads preprocessor_config.json, or `feature_extractor` of processor_config.json: as `whisper`, with what is said there.
  ///
  /// - Parameters:
  ///   - usual: what holds where it is silent, but for the padding, which the window says.
  ///   - seconds: the window where it is silent.
  ///   - place: the file, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  package init(
    huggingFace json: JSONValue, usual: SoundConfiguration = .whisper, seconds: Int = Self.whisperSeconds, place: String
  ) throws(SquintError) {
    self = usual
    let reader = ConfigurationReader(json: json, place: place)
    rate = try reader.size("sampling_rate", atMost: 192_000) ?? rate
    fft = try reader.size("n_fft", atMost: 1 << 16) ?? fft
    hop = try reader.size("hop_length", atMost: fft) ?? hop
    mels = try reader.size("feature_size", atMost: 1024) ?? mels
    guard rate >= 1_000, rate % 2 == 0, fft % 2 == 0, fft >= 4 else {
      throw .badData(
        place, "sampling_rate \(rate) with n_fft \(fft) is not supported; even numbers are, from 1000 and 4 on")
    }
    guard fft <= 16 * hop else {
      throw .badData(place, "n_fft \(fft) is more than 16 times hop_length, \(hop); that is not supported")
    }
    // The class has this number, whatever the rate (`max_frequency`).
    highHertz = rate == 16_000 ? nil : 8_000
    guard rate >= 16_000 else {
      throw .badData(
        place, "sampling_rate \(rate) is not supported; the filters reach to 8000 Hz, so that it is 16000 at least")
    }
    guard try reader.number("padding_value") ?? 0 == 0 else {
      throw .badData(place, "a padding_value other than 0 is not supported")
    }
    setWindow(seconds: try reader.size("chunk_length", atMost: Self.longestWindow) ?? seconds)
  }

  package func write(to metadata: inout Metadata) {
    metadata["audio.features"] = .string("log_mel")
    metadata["audio.rate"] = .int(Int64(rate))
    metadata["audio.fft"] = .int(Int64(fft))
    metadata["audio.hop"] = .int(Int64(hop))
    metadata["audio.mels"] = .int(Int64(mels))
    if let lowHertz { metadata["audio.low_hertz"] = .float(lowHertz) }
    if let highHertz { metadata["audio.high_hertz"] = .float(highHertz) }
    metadata["audio.unit"] = .int(Int64(unit))
    if leastSamples != 1 { metadata["audio.least_samples"] = .int(Int64(leastSamples)) }
    if let padSamples { metadata["audio.pad_samples"] = .int(Int64(padSamples)) }
    if let mostSamples { metadata["audio.most_samples"] = .int(Int64(mostSamples)) }
    if keepsPadding { metadata["audio.keeps_padding"] = .bool(true) }
  }
}

extension CheckpointFolder {
  /// What the folder says of sounds, and the file that says it; nil: nothing.
  ///
  /// - Throws: `SquintError.badData` where it is of another class than those that `classes` names.
  func soundSettings(classes: [String]) throws(SquintError) -> (json: JSONValue, place: String)? {
    var found: (json: JSONValue, place: String)?
    // transformers 5 keeps the feature extractor in the processor's file, and looks there first.
    if let nested = try json("processor_config.json")?["feature_extractor"] {
      found = (nested, "\(file("processor_config.json")): feature_extractor")
    } else if let json = try json("preprocessor_config.json") {
      found = (json, file("preprocessor_config.json"))
    }
    guard let found else { return nil }
    if let name = found.json["feature_extractor_type"]?.string, !classes.contains(name) {
      throw .badData(
        found.place,
        "feature_extractor_type \(printable(name)) is not supported; known are \(classes.joined(separator: ", "))")
    }
    return found
  }

  /// What the folder says of sounds, as `WhisperFeatureExtractor` has it; nil: nothing.
  ///
  /// - Parameter usual: what holds where its file is silent.
  func sounds(
    usual: SoundConfiguration = .whisper, seconds: Int = SoundConfiguration.whisperSeconds
  ) throws(SquintError) -> SoundConfiguration? {
    try soundSettings(classes: ["WhisperFeatureExtractor"]).map { (json, place) throws(SquintError) in
      try SoundConfiguration(huggingFace: json, usual: usual, seconds: seconds, place: place)
    }
  }
}
