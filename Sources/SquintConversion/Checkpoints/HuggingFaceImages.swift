import SquintFile

extension ImageConfiguration {
  /// The longest side of an image that is cut into tiles (image_processing_idefics3.py, `MAX_IMAGE_SIZE`).
  static let largestTiledSide = 4096

  /// Reads preprocessor_config.json, or `image_processor` of processor_config.json.
  ///
  /// - Parameters:
  ///   - fallback: the class where the file names none.
  ///   - place: the file, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong, or asks for what the model file has no word for.
  package init(
    huggingFace json: JSONValue, fallback: ImageFamily = .clip, place: String
  ) throws(SquintError) {
    let reader = ConfigurationReader(json: json, place: place)
    let family = try Self.family(reader, fallback: fallback)
    self.init()
    if let number = json["resample"] {
      guard let known = number.int.flatMap(Filter.init(pillow:)) else {
        throw reader.wrong("resample", "one of Pillow's numbers 0 to 5")
      }
      filter = known
    } else {
      filter = reader.isAbsent("resample") ? family.filter : .bilinear
    }
    rescale = 1
    if try Self.does("do_rescale", reader, default: true) {
      rescale = try Self.needed(reader, "rescale_factor", reader.number("rescale_factor"), default: 1.0 / 255)
    }
    guard rescale > 0 else { throw .badData(place, "rescale_factor \(rescale) is not positive") }
    if try Self.does("do_normalize", reader, default: true) {
      mean = try Self.needed(reader, "image_mean", Self.channels(reader, "image_mean"), default: family.mean)
      std = try Self.needed(reader, "image_std", Self.channels(reader, "image_std"), default: family.std)
      guard std.allSatisfy({ $0 > 0 }) else { throw .badData(place, "image_std has a number that is not positive") }
    }
    let resizes = try Self.does("do_resize", reader, default: true)
    if family.tile != nil {
      try readTiles(reader, family: family, resizes: resizes)
    } else {
      try readWhole(reader, family: family, resizes: resizes)
    }
  }

  private static func family(
    _ reader: ConfigurationReader, fallback: ImageFamily
  ) throws(SquintError) -> ImageFamily {
    guard
      let given = either(try reader.text("image_processor_type"), try reader.text("feature_extractor_type"))
    else { return fallback }
    var name = given
    for ending in ["Fast", "Pil"] where name.hasSuffix(ending) { name.removeLast(ending.count) }
    if name.hasSuffix("FeatureExtractor") { name = name.dropLast("FeatureExtractor".count) + "ImageProcessor" }
    guard let family = Families.images.first(where: { $0.className == name }) else {
      let known = Families.images.map(\.className).joined(separator: ", ")
      throw .badData(
        reader.place, "image_processor_type \"\(printable(given))\" is not supported; known are \(known)")
    }
    return family
  }

  // MARK: One tile

  private mutating func readWhole(
    _ reader: ConfigurationReader, family: ImageFamily, resizes: Bool
  ) throws(SquintError) {
    if resizes { resize = try Self.resize(reader, family: family) }
    if try Self.does("do_center_crop", reader, default: family.centerCrops) {
      guard let size = try either(Self.cropSize(reader), reader.isAbsent("crop_size") ? family.crop : nil) else {
        throw .badData(reader.place, "do_center_crop is true, but there is no crop_size")
      }
      crop = size
    }
    guard try Self.does("do_pad", reader, default: false) else { return }
    if family.padsToSquare {
      padToSquare()
    } else if reader.json["pad_size"] != nil {
      throw .badData(reader.place, "pad_size is not supported")
    }
  }

  /// Pads images to a square with the mean colour, as LLaVA does it.
  mutating func padToSquare() {
    squareBackground = mean.map { max(0, min(255, Int(max(0, min($0, 1)) * 255))) }
  }

  private static func resize(
    _ reader: ConfigurationReader, family: ImageFamily
  ) throws(SquintError) -> Resize {
    guard let value = reader.json["size"] else {
      return try needed(reader, "size", nil, default: family.size)
    }
    func side(_ key: String) throws(SquintError) -> Int? {
      guard let number = value[key] else { return nil }
      guard let side = number.int, (1...largestSide).contains(side) else {
        throw reader.wrong("size.\(key)", "an integer from 1 to \(grouped(largestSide))")
      }
      return side
    }
    if value.object != nil {
      let shortest = try side("shortest_edge")
      let longest = try side("longest_edge")
      if let shortest, longest == nil { return .shortestEdge(shortest) }
      if let height = try side("height"), let width = try side("width") { return .exact(height: height, width: width) }
      throw .badData(
        reader.place,
        "size of \(family.className) with \(Self.keys(of: value)) is not supported; shortest_edge, or height and width, are"
      )
    }
    guard let list = try reader.integers("size"), list.allSatisfy({ (1...largestSide).contains($0) }) else {
      throw reader.wrong("size", "a size in pixels")
    }
    if list.count == 2 { return .exact(height: list[0], width: list[1]) }
    guard list.count == 1 else { throw reader.wrong("size", "a size in pixels") }
    return family.isSquareByDefault ? .exact(height: list[0], width: list[0]) : .shortestEdge(list[0])
  }

  private static func cropSize(_ reader: ConfigurationReader) throws(SquintError) -> Size? {
    guard let value = reader.json["crop_size"] else { return nil }
    let sides: [Int]
    if value.object != nil {
      sides = ["height", "width"].compactMap { value[$0]?.int }
    } else {
      sides = try reader.integers("crop_size") ?? []
    }
    guard let first = sides.first, let last = sides.last, sides.count <= 2,
      value.object == nil || sides.count == 2, sides.allSatisfy({ (1...largestSide).contains($0) })
    else { throw reader.wrong("crop_size", "a size in pixels (one integer, or height and width)") }
    return Size(height: first, width: last)
  }

  // MARK: Tiles

  private mutating func readTiles(
    _ reader: ConfigurationReader, family: ImageFamily, resizes: Bool
  ) throws(SquintError) {
    layout = .tiles
    func longestEdge(_ key: String, atMost most: Int) throws(SquintError) -> Int? {
      guard let value = reader.json[key] else { return nil }
      guard let edge = value["longest_edge"], value.object?.count == 1 else {
        throw .badData(
          reader.place, "\(key) of \(family.className) with \(Self.keys(of: value)) is not supported; longest_edge is")
      }
      guard let side = edge.int, (1...most).contains(side) else {
        throw reader.wrong("\(key).longest_edge", "an integer from 1 to \(grouped(most))")
      }
      return side
    }
    resize = family.size
    if let side = try longestEdge("size", atMost: Self.largestTiledSide) { resize = .longestEdge(side) }
    if !resizes { resize = .none }
    tile = try longestEdge("max_image_size", atMost: Self.largestTiledSide) ?? family.tile
    splits = try Self.does("do_image_splitting", reader, default: true)
    guard try reader.flag("do_center_crop") != true else {
      throw .badData(reader.place, "do_center_crop does not go with \(family.className)")
    }
  }

  // MARK: Parts

  /// A flag: in transformers an absent one is as its class has it, null is false.
  private static func does(
    _ key: String, _ reader: ConfigurationReader, default fallback: Bool
  ) throws(SquintError) -> Bool {
    reader.isAbsent(key) ? fallback : try reader.flag(key) ?? false
  }

  /// A setting that a step needs: in transformers an absent one is as its class has it, null makes the step fail.
  private static func needed<Value>(
    _ reader: ConfigurationReader, _ key: String, _ value: Value?, default fallback: Value
  ) throws(SquintError) -> Value {
    if let value { return value }
    guard reader.isAbsent(key) else { throw .badData(reader.place, "\(key) is null, but a step needs it") }
    return fallback
  }

  private static func keys(of value: JSONValue) -> String {
    let keys = value.object?.members.map { printable($0.key) } ?? []
    return keys.isEmpty ? "no edge" : keys.prefix(4).joined(separator: " and ")
  }

  /// A number for each channel; one stands for all.
  private static func channels(_ reader: ConfigurationReader, _ key: String) throws(SquintError) -> [Double]? {
    guard let value = reader.json[key] else { return nil }
    let numbers = value.double.map { [$0, $0, $0] } ?? value.array?.compactMap(\.double) ?? []
    guard numbers.count == 3, value.array?.count ?? 3 == 3, numbers.allSatisfy(\.isFinite) else {
      throw reader.wrong(key, "three numbers")
    }
    return numbers
  }
}
