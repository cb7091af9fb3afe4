import SquintFile

/// Which frames of a video a model sees, what is done to each of them, and what stands around them in a prompt (formats/video.md).
package struct VideoConfiguration: Equatable, Sendable {
  /// Which of n frames are taken, so many as the rate and the bounds say.
  package enum Sampling: String, Sendable {
    /// From the first on, n / count apart (Qwen2-VL).
    case even
    /// From the first to the last (Qwen3-VL).
    case ends
    /// From the middle of each of count equal parts (InternVL).
    case middle
    /// From the first to the last, without a second at both ends of a long video (SmolVLM).
    case trimmed
  }

  package enum Resize: Equatable, Sendable {
    case exact(height: Int, width: Int)
    /// The longer side becomes `longest`, and then the frame a square of `side`.
    case longestEdge(Int, side: Int)
    /// Sides that are multiples of `factor`, an area from `least` to `most` pixels: of each frame, or of all frames together.
    case area(factor: Int, least: Int, most: Int, isTotal: Bool)
  }

  package var sampling = Sampling.even
  /// Frames a second that are taken; nil: `frames` says how many.
  package var framesPerSecond: Double?
  /// How many frames are taken where no rate is given, and at most where one is.
  package var frames: Int?
  package var leastFrames = 1
  package var mostFrames = 768
  /// The frames of a unit: what the encoder sees at a time.
  package var temporalPatch = 1
  package var resize = Resize.exact(height: 448, width: 448)
  /// The rows that bound a video's size further; nil: nothing does. With `area`: of all frames together where the area is each
  /// frame's, of each frame where it is that of all.
  package var mostRows: Int?
  package var filter = ImageConfiguration.Filter.bicubic
  package var rescale = 1.0 / 255
  package var mean: [Double] = [0, 0, 0]
  package var std: [Double] = [1, 1, 1]

  /// What stands for a video in a rendered prompt.
  package var marker = "<video>"
  /// The token whose places the features take, and its text; nil: the text around features is tokenized for itself.
  package var token: Int?
  /// nil: the marker.
  package var tokenText: String?
  /// Before and behind all units; {frames}, {frames_word}, {duration} stand for numbers.
  package var prefix = ""
  package var suffix = ""
  /// Around each unit; {frame}, {seconds}, {minutes_seconds} stand for numbers.
  package var unitPrefix = ""
  package var unitSuffix = ""
  /// Between two units.
  package var separator = ""
  /// Where rows stand for the rotary embedding; nil: each is one position further.
  package var positions: MediaPrompt.Positions?
  /// With three-axis positions: the positions of a second in time; nil: a unit is one position.
  package var positionsPerSecond: Double?
  /// Whether a unit takes the time that the rate says, and not the mean of those that are taken.
  package var isNominal = false
  /// How a video's own sound stands among its rows; nil: it is not heard.
  package var sound: Sound?

  /// The rows of a video and of its sound, by turns.
  package struct Sound: Equatable, Sendable {
    /// Before and behind all rows, inside the video's own prefix and suffix.
    package var prefix: String
    package var suffix: String
    /// The time of a turn, in seconds.
    package var seconds: Double

    package init(prefix: String, suffix: String, seconds: Double) {
      self.prefix = prefix
      self.suffix = suffix
      self.seconds = seconds
    }
  }

  package init() {}

  /// Writes the keys of the modality `name`.
  package func write(to metadata: inout Metadata, name: String = "video") {
    func set(_ key: String, _ value: MetadataValue?) {
      if let value { metadata["\(name).\(key)"] = value }
    }
    set("sampling", .string(sampling.rawValue))
    set("frames_per_second", framesPerSecond.map { .float($0) })
    set("frames", frames.map { .int(Int64($0)) })
    set("least_frames", .int(Int64(leastFrames)))
    set("most_frames", .int(Int64(mostFrames)))
    if temporalPatch != 1 { set("temporal_patch", .int(Int64(temporalPatch))) }
    switch resize {
    case .exact(let height, let width):
      set("resize", .string("exact"))
      set("size", .ints([Int64(height), Int64(width)]))
    case .longestEdge(let longest, let side):
      set("resize", .string("longest_edge"))
      set("size", .ints([Int64(longest)]))
      set("tile", .int(Int64(side)))
    case .area(let factor, let least, let most, let isTotal):
      set("resize", .string(isTotal ? "total_area" : "area"))
      set("factor", .int(Int64(factor)))
      set("least_pixels", .int(Int64(least)))
      set("most_pixels", .int(Int64(most)))
    }
    set("most_rows", mostRows.map { .int(Int64($0)) })
    set("filter", .string(filter.rawValue))
    set("rescale", .float(rescale))
    set("mean", .floats(mean))
    set("std", .floats(std))
    if marker != "<\(name)>" { set("marker", .string(marker)) }
    set("token", token.map { .int(Int64($0)) })
    if let tokenText, tokenText != marker { set("token_text", .string(tokenText)) }
    for (key, text) in [
      ("prefix", prefix), ("suffix", suffix), ("unit_prefix", unitPrefix), ("unit_suffix", unitSuffix),
      ("separator", separator),
    ] where !text.isEmpty { set(key, .string(text)) }
    set("positions", positions.map { .string($0.rawValue) })
    set("steps_per_second", positionsPerSecond.map { .float($0) })
    if isNominal { set("clock", .string("nominal")) }
    guard let sound else { return }
    set("sound", .string("interleaved"))
    set("sound_seconds", .float(sound.seconds))
    if !sound.prefix.isEmpty { set("sound_prefix", .string(sound.prefix)) }
    if !sound.suffix.isEmpty { set("sound_suffix", .string(sound.suffix)) }
  }
}

/// What a video processor class of transformers assumes where its file is silent.
package struct VideoFamily: Sendable {
  package enum Size: Sendable {
    /// `size` with `height` and `width`
    case exact(height: Int, width: Int)
    /// `size` with `longest_edge`, and `max_image_size`
    case longestEdge(Int, side: Int)
    /// `size` with `shortest_edge` and `longest_edge`, which are areas (or `min_pixels`, `max_pixels`).
    case area(patch: Int, least: Int, most: Int, isTotal: Bool)
  }

  package let sampling: VideoConfiguration.Sampling
  package let size: Size
  package var framesPerSecond: Double?
  package var frames: Int?
  package var leastFrames = 1
  package var mostFrames = 768
  package var temporalPatch = 1
  package var filter = ImageConfiguration.Filter.bicubic
  package var mean = [0.5, 0.5, 0.5]
  package var std = [0.5, 0.5, 0.5]
  /// `max_video_tokens`, with `cap_pixels_per_frame`
  package var mostRows: Int?

  private static let clip = (
    mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711]
  )

  /// video_processing_qwen2_vl.py, which Qwen2.5-VL has, too; two frames a second are qwen-vl-utils'.
  package static let qwen2VL = VideoFamily(
    sampling: .even, size: .area(patch: 14, least: 128 * 28 * 28, most: 768 * 28 * 28, isTotal: false),
    framesPerSecond: 2, leastFrames: 4, mostFrames: 768, temporalPatch: 2, mean: clip.mean, std: clip.std,
    mostRows: 128_000)
  /// video_processing_qwen3_vl.py
  package static let qwen3VL = VideoFamily(
    sampling: .ends, size: .area(patch: 16, least: 128 * 32 * 32, most: 768 * 32 * 32, isTotal: true),
    framesPerSecond: 2, leastFrames: 4, mostFrames: 768, temporalPatch: 2, mostRows: 768)
  /// video_processing_internvl.py; eight frames are those of the models' cards.
  package static let internVL = VideoFamily(
    sampling: .middle, size: .exact(height: 384, width: 384), frames: 8, mean: clip.mean, std: clip.std)
  /// video_processing_smolvlm.py; a frame a second, at most 64, are those of the published files.
  package static let smolVLM = VideoFamily(
    sampling: .trimmed, size: .longestEdge(4 * 364, side: 364), framesPerSecond: 1, frames: 64, filter: .lanczos)
}
