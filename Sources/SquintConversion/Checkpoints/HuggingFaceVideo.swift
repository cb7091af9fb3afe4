import SquintFile

extension CheckpointFolder {
  /// Whether the folder has a file that is for videos alone.
  var hasVideoProcessor: Bool {
    get throws(SquintError) {
      if try json("processor_config.json")?["video_processor"] != nil { return true }
      return has("video_preprocessor_config.json")
    }
  }

  /// What the folder says of videos, in transformers' order: `video_processor` of processor_config.json,
  /// video_preprocessor_config.json, preprocessor_config.json; what none says is as `family` has it.
  ///
  /// - Throws: `SquintError.badData` which names the key that is wrong.
  package func videos(_ family: VideoFamily) throws(SquintError) -> VideoConfiguration {
    if let json = try json("processor_config.json")?["video_processor"], json.object != nil {
      return try VideoConfiguration(huggingFace: json, family, place: file("processor_config.json"))
    }
    for name in ["video_preprocessor_config.json", "preprocessor_config.json"] {
      if let json = try json(name) { return try VideoConfiguration(huggingFace: json, family, place: file(name)) }
    }
    return try VideoConfiguration(huggingFace: .null, family, place: path)
  }
}

extension VideoConfiguration {
  /// Reads the keys of a video processor's file.
  ///
  /// - Parameters:
  ///   - family: what holds where the file is silent.
  ///   - place: the file, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong, or asks for what the model file has no word for.
  package init(huggingFace json: JSONValue, _ family: VideoFamily, place: String) throws(SquintError) {
    let reader = ConfigurationReader(json: json, place: place)
    self.init()
    sampling = family.sampling
    temporalPatch = try reader.size("temporal_patch_size", atMost: 16) ?? family.temporalPatch
    leastFrames = try reader.size("min_frames", atMost: Self.largestCount) ?? family.leastFrames
    mostFrames = try reader.size("max_frames", atMost: Self.largestCount) ?? family.mostFrames
    guard leastFrames <= mostFrames else {
      throw .badData(place, "min_frames is \(leastFrames), which is more than max_frames, \(mostFrames)")
    }
    framesPerSecond = try Self.rate(reader)
    frames = try reader.size("num_frames", atMost: Self.largestCount)
    if sampling == .trimmed {
      // video_sampling overrides what stands beside it.
      if let own = json["video_sampling"], own.object != nil {
        let own = ConfigurationReader(json: own, place: "\(place): video_sampling")
        framesPerSecond = try Self.rate(own)
        frames = try own.size("max_frames", atMost: Self.largestCount)
      }
      framesPerSecond = framesPerSecond ?? family.framesPerSecond
      frames = frames ?? family.frames
    } else if framesPerSecond == nil, frames == nil {
      (framesPerSecond, frames) = (family.framesPerSecond, family.frames)
    }

    if let number = json["resample"] {
      guard let known = number.int.flatMap(ImageConfiguration.Filter.init(pillow:)) else {
        throw reader.wrong("resample", "one of Pillow's numbers 0 to 5")
      }
      filter = known
    } else {
      filter = family.filter
    }
    rescale = try reader.flag("do_rescale") == false ? 1 : try reader.number("rescale_factor") ?? 1.0 / 255
    guard rescale > 0 else { throw .badData(place, "rescale_factor \(rescale) is not positive") }
    if try reader.flag("do_normalize") != false {
      mean = try Self.channels(reader, "image_mean") ?? family.mean
      std = try Self.channels(reader, "image_std") ?? family.std
      guard std.allSatisfy({ $0 > 0 }) else { throw .badData(place, "image_std has a number that is not positive") }
    }
    guard try reader.flag("do_center_crop") != true else {
      throw .badData(place, "do_center_crop is not supported for videos")
    }
    guard try reader.flag("do_resize") != false else {
      throw .badData(place, "do_resize false is not supported for videos")
    }
    try readSize(reader, family)
  }

  /// No video has as many frames that a model sees.
  private static let largestCount = 1 << 16
  /// 268 megapixels; more is no frame's.
  private static let largestArea = 1 << 40

  private mutating func readSize(_ reader: ConfigurationReader, _ family: VideoFamily) throws(SquintError) {
    let size = ConfigurationReader(json: reader.json["size"] ?? .null, place: "\(reader.place): size")
    let most = ImageConfiguration.largestSide
    switch family.size {
    case .exact(let height, let width):
      if let side = reader.json["size"]?.int ?? reader.json["size"]?["shortest_edge"]?.int {
        guard (1...most).contains(side) else { throw reader.wrong("size", "an integer from 1 to \(grouped(most))") }
        resize = .exact(height: side, width: side)
      } else {
        resize = .exact(
          height: try size.size("height", atMost: most) ?? height, width: try size.size("width", atMost: most) ?? width)
      }
    case .longestEdge(let longest, let side):
      var edge = try size.size("longest_edge", atMost: most)
      if edge == nil, let own = reader.json["video_sampling"]?["video_size"] {
        edge = try ConfigurationReader(json: own, place: "\(reader.place): video_size").size(
          "longest_edge", atMost: most)
      }
      let square = ConfigurationReader(
        json: reader.json["max_image_size"] ?? .null, place: "\(reader.place): max_image_size")
      // At most as long as an image's longer side (video_processing_smolvlm.py, `MAX_IMAGE_SIZE`).
      resize = .longestEdge(
        min(edge ?? longest, ImageConfiguration.largestTiledSide),
        side: try square.size("longest_edge", atMost: ImageConfiguration.largestTiledSide) ?? side)
    case .area(let patch, let least, let most, let isTotal):
      let side = try reader.size("patch_size", atMost: 1024) ?? patch
      let merge = try reader.size("merge_size", atMost: 64) ?? 2
      let factor = side * merge
      let lower = try either(
        Self.area(reader, "min_pixels"), Self.area(size, "shortest_edge"), Self.area(size, "min_pixels"))
      let upper = try either(
        Self.area(reader, "max_pixels"), Self.area(size, "longest_edge"), Self.area(size, "max_pixels"))
      let (first, last) = (lower ?? least, upper ?? most)
      guard first <= last else {
        throw .badData(reader.place, "the least area of a frame, \(first), is more than the largest, \(last)")
      }
      resize = .area(factor: factor, least: first, most: last, isTotal: isTotal)
      if try reader.flag("cap_pixels_per_frame") == true {
        mostRows = try reader.size("max_video_tokens") ?? family.mostRows
      }
    }
  }

  private static func area(_ reader: ConfigurationReader, _ key: String) throws(SquintError) -> Int? {
    guard let value = reader.json[key] else { return nil }
    guard let area = value.int, (1...largestArea).contains(area) else { throw reader.wrong(key, "a number of pixels") }
    return area
  }

  private static func rate(_ reader: ConfigurationReader) throws(SquintError) -> Double? {
    guard let rate = try reader.number("fps") else { return nil }
    guard rate > 0, rate <= 1000 else { throw reader.wrong("fps", "a number of frames a second, up to 1000") }
    return rate
  }

  private static func channels(_ reader: ConfigurationReader, _ key: String) throws(SquintError) -> [Double]? {
    guard let value = reader.json[key] else { return nil }
    let numbers = value.double.map { [$0, $0, $0] } ?? value.array?.compactMap(\.double) ?? []
    guard numbers.count == 3, value.array?.count ?? 3 == 3, numbers.allSatisfy(\.isFinite) else {
      throw reader.wrong(key, "three numbers")
    }
    return numbers
  }
}

extension VideoConfiguration {
  /// Sets what Qwen2-VL and Qwen2.5-VL have around a video; the text of Qwen3-VL, whose units have their time, with `isTimed`
  /// (processing_qwen3_vl.py of transformers 4).
  package mutating func setQwen(token: Int?, isTimed: Bool) {
    let (start, pad, end) = ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>")
    marker = start + pad + end
    tokenText = pad
    self.token = token
    positions = .grid
    if isTimed {
      unitPrefix = "<{seconds} seconds>" + start
      unitSuffix = end
    } else {
      prefix = start
      suffix = end
    }
  }

  /// What InternVL does with videos where nothing speaks of them but what it does with `images`: a frame is one tile.
  package init(internVL images: ImageConfiguration) throws(SquintError) {
    try self.init(huggingFace: .null, .internVL, place: "")
    if let size = images.tileSize { resize = .exact(height: size.height, width: size.width) }
    (rescale, mean, std) = (images.rescale, images.mean, images.std)
  }

  /// Sets what InternVL has around each frame, whose rows take the places of an image's (processing_internvl.py).
  package mutating func setInternVL(token: Int?, tokenText: String, start: String, end: String) {
    self.token = token
    self.tokenText = tokenText
    unitPrefix = "Frame{frame}: " + start
    unitSuffix = end
    separator = "\n"
  }

  /// Sets what SmolVLM has around each frame, whose rows take the places of an image's (processing_smolvlm.py).
  package mutating func setSmolVLM(token: Int?, tokenText: String, fake: String, global: String) {
    self.token = token
    self.tokenText = tokenText
    prefix = "You are provided the following series of {frames_word} frames from a {duration} [H:MM:SS] video.\n"
    unitPrefix = "\nFrame from {minutes_seconds}:" + fake + global
    unitSuffix = fake
    suffix = "\n\n"
  }
}
