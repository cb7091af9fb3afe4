import SquintFile

/// What a checkpoint does with a video before its encoder (formats/video.md).
///
/// A unit is a frame, [height, width], or a temporal patch, [frames, height, width], of 8-bit levels of red, green and blue. Frames
/// are decoded when the encoder asks for them; never are all in memory.
package struct VideoProcessor: Sendable, Equatable {
  package var sampling: VideoSampling
  package let sizing: VideoSizing
  package let filter: ResamplingFilter
  package let rescale: Double
  /// Of each channel: [3].
  package let mean: [Double]
  package let std: [Double]
  /// Whether a unit takes the time that the rate says, and not the mean of those that are taken.
  package var isNominal = false
  /// What the user says: of single files, how many there are in a second; of other videos, how many frames of a second are taken.
  private var askedRate: Double?
  /// Of all of them at most so many, where that is fewer than the checkpoint says.
  private var mostFrames: Int?
  /// At most so many units.
  private var mostUnits: Int?

  /// The frames of a second of a folder of files, where nobody says.
  package static let usualRate = 2.0

  package init(
    sampling: VideoSampling, sizing: VideoSizing, filter: ResamplingFilter = .bicubic, rescale: Double = 1.0 / 255,
    mean: [Double], std: [Double]
  ) {
    self.sampling = sampling
    self.sizing = sizing
    self.filter = filter
    self.rescale = rescale
    self.mean = mean
    self.std = std
  }

  /// Reads the keys `video.*` that say which frames are taken, and what is done to them.
  ///
  /// - Throws: `badData` where one is missing, of another kind, or of a value that makes no sense.
  package init(_ metadata: Metadata) throws(SquintError) {
    let frames = 1...1 << 16
    let ruleName = try metadata.string("video.sampling")
    guard let rule = VideoSampling.Rule(rawValue: ruleName) else {
      throw Self.bad("video.sampling is \(ruleName), which is not known")
    }
    sampling = VideoSampling(
      rule: rule, least: try metadata.int("video.least_frames", in: frames, default: 1),
      most: try metadata.int("video.most_frames", in: frames),
      temporalPatch: try metadata.int("video.temporal_patch", in: 1...16, default: 1))
    if metadata["video.frames_per_second"] != nil {
      let rate = try metadata.float("video.frames_per_second")
      guard rate > 0, rate <= 1000 else { throw Self.bad("video.frames_per_second is \(rate), outside 0…1000") }
      sampling.framesPerSecond = rate
    }
    let clock = try metadata.string("video.clock", default: "mean")
    guard clock == "mean" || clock == "nominal" else {
      throw Self.bad("video.clock is \(clock), which is not known")
    }
    isNominal = clock == "nominal"
    if metadata["video.frames"] != nil { sampling.frames = try metadata.int("video.frames", in: frames) }
    guard sampling.least <= sampling.most else { throw Self.bad("video.least_frames is more than video.most_frames") }

    let side = 1...16384
    func sides(_ count: Int) throws(SquintError) -> [Int] {
      let values = try metadata.ints("video.size")
      guard values.count == count, values.allSatisfy({ side.contains(Int(clamping: $0)) }) else {
        throw Self.bad("video.size is \(values), not \(count) of 1 to \(grouped(side.upperBound))")
      }
      return values.map { Int($0) }
    }
    switch try metadata.string("video.resize") {
    case "exact":
      let size = try sides(2)
      sizing = .exact(ImageProcessor.Size(height: size[0], width: size[1]))
    case "longest_edge":
      sizing = .longestEdge(try sides(1)[0], side: try metadata.int("video.tile", in: side))
    case let kind where kind == "area" || kind == "total_area":
      let areas = 1...1 << 40
      let (least, most) = (
        try metadata.int("video.least_pixels", in: areas), try metadata.int("video.most_pixels", in: areas)
      )
      guard least <= most else { throw Self.bad("video.least_pixels is more than video.most_pixels") }
      let rows = metadata["video.most_rows"] == nil ? nil : try metadata.int("video.most_rows", in: 1...1 << 24)
      sizing = .area(
        factor: try metadata.int("video.factor", in: 1...1024), least: least, most: most, isTotal: kind == "total_area",
        mostRows: rows)
    case let kind: throw Self.bad("video.resize is \(kind), which is not known")
    }
    let filterName = try metadata.string("video.filter")
    guard let filter = ResamplingFilter(rawValue: filterName) else {
      throw Self.bad("video.filter is \(filterName), which is not known")
    }
    self.filter = filter
    rescale = try metadata.float("video.rescale")
    mean = try metadata.floats("video.mean")
    std = try metadata.floats("video.std")
    // Whatever is wrong with these is found before a video is.
    _ = try frameProcessor(size: ImageProcessor.Size(height: 1, width: 1))
  }

  private static func bad(_ what: String) -> SquintError {
    SquintError(.badData, "metadata \(what); convert the model again")
  }

  /// The same processor where the user says how many frames of a second are taken, or at most in all.
  ///
  /// - Parameter rate: of single files, how many there are in a second, all of which are taken.
  /// - Throws: `usage` where one of them makes no sense.
  package func choosing(rate: Double?, mostFrames: Int?) throws(SquintError) -> VideoProcessor {
    var processor = self
    if let rate {
      guard rate > 0, rate <= 1000 else {
        throw SquintError(.usage, "\(rate) frames a second; choose more than 0, at most 1000")
      }
      processor.askedRate = rate
    }
    if let mostFrames {
      guard mostFrames >= 1 else { throw SquintError(.usage, "at most \(mostFrames) frames; choose 1 or more") }
      if mostFrames < sampling.most { processor.mostFrames = mostFrames }
      processor.sampling.most = min(sampling.most, mostFrames)
    }
    return processor
  }

  /// What is done to each frame, which becomes of `size` in the end.
  private func frameProcessor(size: ImageProcessor.Size) throws(SquintError) -> ImageProcessor {
    let cutting: ImageProcessor.Cutting
    let resize: ImageProcessor.Resize
    if case .longestEdge(let longest, let side) = sizing {
      (cutting, resize) = (.tiles(side: side, split: false), .longestEdge(longest))
    } else {
      (cutting, resize) = (.whole(background: nil, crop: nil), .exact(size))
    }
    var processor = try ImageProcessor(
      cutting: cutting, resize: resize, filter: filter, rescale: rescale, mean: mean, std: std)
    processor.arithmetic = .torchvision
    return processor
  }
}

extension VideoProcessor: MediaProcessor {
  package var levels: [Float] { (try? frameProcessor(size: ImageProcessor.Size(height: 1, width: 1)).levels) ?? [] }

  /// None: how large a video is nobody knows before it is there.
  package func costs() -> [MediaCost] { [] }

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost { try choice(of: file).cost }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> VideoProcessor {
    guard most >= 1 else { throw SquintError(.usage, "at most \(most) units; choose 1 or more") }
    var processor = self
    processor.mostUnits = min(mostUnits ?? most, most)
    return processor
  }

  package func resizing(toSide side: Int) throws(SquintError) -> VideoProcessor {
    throw SquintError(.usage, "the size of a video's frames cannot be chosen")
  }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? {
    guard shouldContinue() else { return nil }
    let choice = try choice(of: file)
    let processor = choice.processor
    let patch = sampling.temporalPatch
    return MediaUnits(layout: choice.cost.layout) { () throws(SquintError) in
      let reader = try openVideo(file)
      guard reader.header == choice.header else {
        throw file.error("the video was changed while it was looked at; ask again")
      }
      _ = try reader.choose(choice.frames)
      return FrameStream(file, reader, processor, frames: choice.frames.count, temporalPatch: patch)
    }
  }

  /// [3, height, width], normalized; of a temporal patch [frames, 3, height, width].
  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    let (frames, size) = (shape.count == 3 ? shape[0] : 1, shape.suffix(2))
    let bytes = unit.count / frames
    let numbers = (0..<frames).flatMap { frame in
      ImageProcessor.planes(
        of: UnsafeRawBufferPointer(rebasing: unit[frame * bytes..<(frame + 1) * bytes]), levels: levels)
    }
    return (shape.dropLast(2) + [3] + size, numbers)
  }

  /// Which frames are taken of a video, and what becomes of them.
  private struct Choice {
    let header: VideoHeader
    let frames: [Int]
    let processor: ImageProcessor
    let cost: MediaCost
  }

  private func choice(of file: MediaFile) throws(SquintError) -> Choice {
    let reader = try openVideo(file)
    let header = reader.header
    do throws(SquintError) {
      return try choice(header, reader)
    } catch {
      throw error.naming(file.path)
    }
  }

  private func choice(_ header: VideoHeader, _ reader: any VideoReader) throws(SquintError) -> Choice {
    let patch = sampling.temporalPatch
    var sampling = sampling
    if let mostUnits { sampling.most = min(sampling.most, mostUnits * patch) }
    let rate: Double
    let frames: [Int]
    if let own = header.framesPerSecond {
      rate = own
      if let askedRate {
        sampling.framesPerSecond = askedRate
        // How many there are at most is then another matter.
        if sampling.rule != .trimmed { sampling.frames = nil }
      }
      frames = sampling.indices(of: header.frames, rate: rate)
    } else {
      rate = askedRate ?? Self.usualRate
      frames = sampling.all(of: header.frames)
    }
    let size = try sizing.size(
      of: ImageProcessor.Size(height: header.height, width: header.width), frames: frames.count, temporalPatch: patch)
    let processor = try frameProcessor(size: size)
    let frameBytes = 3 * size.height * size.width
    let units = (frames.count + patch - 1) / patch
    let frameHeader = ImageHeader(
      format: .bmp, storedWidth: header.width, storedHeight: header.height, orientation: .upright,
      decoderBytes: try reader.choose(frames))
    let layout = MediaLayout(runs: [
      MediaLayout.Run(
        shape: (patch > 1 ? [patch] : []) + [size.height, size.width], count: units, unitBytes: patch * frameBytes)
    ])
    let times = (0..<units).map { unit in
      (0..<patch).map { Double(frames[min(unit * patch + $0, frames.count - 1)]) / rate }
    }
    let duration = Double(header.frames) / rate
    var secondsPerUnit = Double(patch) * duration / Double(frames.count)
    // Where the user wants fewer frames than the rate gives they are further apart.
    if isNominal, mostUnits == nil, mostFrames == nil || frames.count < sampling.most {
      secondsPerUnit =
        Double(patch) / (header.framesPerSecond == nil ? rate : sampling.framesPerSecond ?? Self.usualRate)
    }
    let timing = MediaTiming(
      seconds: times, duration: duration, frames: frames.count, secondsPerUnit: secondsPerUnit)
    return Choice(
      header: header, frames: frames, processor: processor,
      cost: MediaCost(
        layout: layout,
        decodingBytes: header.heldBytes + 8 * frames.count + processor.peakBytes(for: frameHeader) + patch * frameBytes,
        timing: timing, isStreamed: true))
  }
}

/// Decodes the frames that were chosen, and makes units of them.
private final class FrameStream: MediaUnitStream {
  private let file: MediaFile
  private let reader: any VideoReader
  private let processor: ImageProcessor
  private let temporalPatch: Int
  private var left: Int

  init(_ file: MediaFile, _ reader: any VideoReader, _ processor: ImageProcessor, frames: Int, temporalPatch: Int) {
    self.file = file
    self.reader = reader
    self.processor = processor
    self.temporalPatch = temporalPatch
    left = frames
  }

  func next(into unit: UnsafeMutableRawBufferPointer, while shouldContinue: () -> Bool) throws(SquintError) -> Bool {
    let frameBytes = unit.count / temporalPatch
    for frame in 0..<temporalPatch {
      let place = unit.baseAddress! + frame * frameBytes
      guard left > 0 else {
        // The last frame again, where they are odd.
        memcpy(place, place - frameBytes, frameBytes)
        continue
      }
      guard let decoder = try reader.next(while: shouldContinue) else { return false }
      let steps: ImageSteps
      do throws(SquintError) {
        steps = try ImageSteps(processor, decoder.header)
      } catch {
        throw error.naming(file.path)
      }
      guard steps.geometry.layout.byteCount == frameBytes else {
        throw file.error("the video was changed while it was looked at; ask again")
      }
      memset(place, 0, frameBytes)
      let pixels = place.assumingMemoryBound(to: UInt8.self)
      guard try steps.run(decoder, into: pixels, while: shouldContinue) else { return false }
      left -= 1
    }
    return true
  }
}
