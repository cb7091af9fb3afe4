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
    layout = family.layout
    switch (layout, family.size) {
    case (.whole, .smart(let multiple, let pixels)):
      try readSmart(reader, family: family, resizes: resizes, multiple: multiple, pixels: pixels)
    case (.whole, _): try readWhole(reader, family: family, resizes: resizes)
    case (.tiles, _): try readTiles(reader, family: family, resizes: resizes)
    case (.grid, _): try readGrid(reader, family: family, resizes: resizes)
    case (.anyres, _): try readAnyResolution(reader, family: family)
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
  mutating func padToSquare() { squareBackground = meanColor }

  var meanColor: [Int] { mean.map { max(0, min(255, Int(max(0, min($0, 1)) * 255))) } }

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

  // MARK: Grids and any resolution

  /// The side of the square that each tile is resized to.
  private static func square(_ reader: ConfigurationReader, family: ImageFamily) throws(SquintError) -> Int {
    switch try resize(reader, family: family) {
    case .shortestEdge(let side): return side
    case .exact(let height, let width) where height == width: return height
    default: throw .badData(reader.place, "size of \(family.className) is not a square, which its tiles are")
    }
  }

  /// image_processing_got_ocr2.py: tiles are made whether or not do_resize says so, and do_center_crop and do_pad have no effect.
  private mutating func readGrid(
    _ reader: ConfigurationReader, family: ImageFamily, resizes: Bool
  ) throws(SquintError) {
    _ = try reader.flag("crop_to_patches")
    tile = try Self.square(reader, family: family)
    func count(_ key: String, default fallback: Int) throws(SquintError) -> Int {
      try Self.needed(reader, key, reader.size(key, atMost: Self.mostTiles), default: fallback)
    }
    let usual = family.tiles ?? 1...1
    let least = try count("min_patches", default: usual.lowerBound)
    let most = try count("max_patches", default: usual.upperBound)
    hasOverview = true
    // There is one tile then, whatever min_patches says.
    guard most > 1 else {
      guard resizes else {
        throw .badData(reader.place, "do_resize is false, but images are not cut into tiles (max_patches is 1)")
      }
      tiles = 1...1
      return
    }
    guard least <= most else {
      throw .badData(reader.place, "min_patches is \(least), more than max_patches, which is \(most)")
    }
    tiles = least...most
  }

  /// image_processing_llava_next.py and its siblings, as far as a tile is what the encoder sees: do_resize and do_center_crop change
  /// nothing of tiles that have the size, and do_pad is for batches.
  private mutating func readAnyResolution(
    _ reader: ConfigurationReader, family: ImageFamily
  ) throws(SquintError) {
    let side = try Self.square(reader, family: family)
    if let crop = try either(Self.cropSize(reader), reader.isAbsent("crop_size") ? family.crop : nil) {
      guard crop.height == side, crop.width == side else {
        throw .badData(
          reader.place,
          "size is \(side), but crop_size \(crop.height) × \(crop.width); \(family.className) with tiles that are resized "
            + "once more is not supported")
      }
    }
    tile = side
    pinpoints = try Self.needed(
      reader, "image_grid_pinpoints", Self.pinpoints(reader), default: family.pinpoints(side: family.tile ?? side))
    guard pinpoints.allSatisfy({ $0.height % side == 0 && $0.width % side == 0 }) else {
      throw .badData(reader.place, "image_grid_pinpoints has sides that are no multiples of the tile's, \(side)")
    }
    severalBackground = family.squaresSeveral ? meanColor : nil
    let count = pinpoints.map { $0.height / side * ($0.width / side) }.max() ?? 0
    guard count <= Self.mostTiles else {
      throw .badData(
        reader.place,
        "image_grid_pinpoints has \(grouped(count)) tiles; \(grouped(Self.mostTiles)) at most are supported")
    }
  }

  private static func pinpoints(_ reader: ConfigurationReader) throws(SquintError) -> [Size]? {
    let key = "image_grid_pinpoints"
    guard let value = reader.json[key] else { return nil }
    let sizes: [Size] = (value.array ?? []).compactMap { pair in
      guard let sides = pair.array, sides.count == 2, let height = sides[0].int, let width = sides[1].int,
        (1...largestSide).contains(height), (1...largestSide).contains(width)
      else { return nil }
      return Size(height: height, width: width)
    }
    guard !sizes.isEmpty, sizes.count == value.array?.count, sizes.count <= mostTiles else {
      throw reader.wrong(key, "a list of heights and widths in pixels")
    }
    return sizes
  }

  // MARK: Smart

  /// image_processing_qwen2_vl.py, with the limits in either spelling.
  private mutating func readSmart(
    _ reader: ConfigurationReader, family: ImageFamily, resizes: Bool, multiple: Int, pixels: ClosedRange<Int>
  ) throws(SquintError) {
    guard resizes else {
      throw .badData(reader.place, "do_resize is false, which \(family.className) is not supported with")
    }
    let frames = try reader.size("temporal_patch_size")
    guard frames ?? 2 == 2 else {
      throw .badData(reader.place, "temporal_patch_size is \(frames ?? 2); 2 is supported")
    }
    func count(_ key: String, default fallback: Int) throws(SquintError) -> Int {
      try Self.needed(reader, key, reader.size(key, atMost: 64), default: fallback)
    }
    let patch = try count("patch_size", default: 14)
    let merge = try count("merge_size", default: multiple / 14)
    func limit(_ key: String, _ edge: String, _ fallback: Int) throws(SquintError) -> Int {
      let size = reader.json["size"]
      for (place, value) in [(key, reader.json[key]), ("size.\(edge)", size?[edge]), ("size.\(key)", size?[key])] {
        guard let value else { continue }
        guard let number = value.int, number > 0 else { throw reader.wrong(place, "a number of pixels") }
        return min(number, Self.mostPixels)
      }
      // transformers takes both from its class, or both from the file.
      guard size == nil else {
        throw .badData(reader.place, "size of \(family.className) has no \(edge), and there is no \(key)")
      }
      return fallback
    }
    let least = try limit("min_pixels", "shortest_edge", pixels.lowerBound)
    let most = try limit("max_pixels", "longest_edge", pixels.upperBound)
    guard least <= most else {
      throw .badData(reader.place, "images have at least \(grouped(least)) pixels and at most \(grouped(most))")
    }
    resize = .smart(multiple: patch * merge, pixels: least...most)
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
