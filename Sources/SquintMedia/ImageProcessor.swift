import SquintFile

/// What a checkpoint does with an image before its encoder (formats/vision.md, "From the image to tiles").
///
/// The numbers are those of transformers' Pillow-backed image processors, such as `CLIPImageProcessorPil`,
/// `LlavaImageProcessorPil` and `Idefics3ImageProcessorPil`.
package struct ImageProcessor: Sendable, Equatable {
  package struct Size: Sendable, Equatable, Hashable {
    package var height: Int
    package var width: Int

    package init(height: Int, width: Int) {
      self.height = height
      self.width = width
    }
  }

  package enum Resize: Sendable, Equatable {
    case none
    case exact(Size)
    /// The shorter side becomes so many pixels, the longer one in proportion.
    case shortestEdge(Int)
    /// The longer side becomes so many pixels, the shorter one in proportion, and even.
    case longestEdge(Int)
    /// Both sides become multiples of `multiple`, with `pixels` in all, the proportions kept as far as that goes.
    ///
    /// `most`: no more than so many squares of `multiple`, whatever the proportions.
    case smart(multiple: Int, pixels: ClosedRange<Int>, most: Int? = nil)
  }

  package enum Cutting: Sendable, Equatable {
    /// One tile: the image, padded to a square with a background [3], where there is one, before it is resized, and cut
    /// to `crop` around the middle, where there is one, afterwards.
    case whole(background: [UInt8]?, crop: Size?)
    /// Squares of `side` and an overview or, without `split`, one square.
    case tiles(side: Int, split: Bool)
    /// The image squeezed into a grid of `tiles` squares of `side`, that whose proportions are nearest to its own; with
    /// `overview` behind them, where there are several, the whole image squeezed to one.
    case grid(side: Int, tiles: ClosedRange<Int>, overview: Bool)
    /// The image in the middle of that of `pinpoints` that shows most of it, the rest black, cut into squares of `side`; behind
    /// them the whole image squeezed to one, which stands alone where there are no pinpoints.
    case anyres(side: Int, pinpoints: [Size])
  }

  package let cutting: Cutting
  /// The colour [3] with which each image of a prompt with several is padded to a square, which becomes one tile; nil where images are
  /// cut alike however many there are. With `anyres`.
  package let severalBackground: [UInt8]?
  package let resize: Resize
  package let filter: ResamplingFilter
  /// Of every resize.
  package var arithmetic = ResamplingArithmetic.pillow
  package let rescale: Double
  /// Of each channel: [3].
  package let mean: [Double]
  package let std: [Double]

  package init(
    cutting: Cutting, resize: Resize, filter: ResamplingFilter, rescale: Double = 1.0 / 255, mean: [Double],
    std: [Double], severalBackground: [UInt8]? = nil
  ) throws(SquintError) {
    self.cutting = cutting
    self.severalBackground = severalBackground
    self.resize = resize
    self.filter = filter
    self.rescale = rescale
    self.mean = mean
    self.std = std
    try check()
  }

  /// Reads the keys `image.*` that say how an image becomes tiles.
  ///
  /// - Throws: `badData` where one is missing, of another kind, or of a value that makes no sense.
  package init(_ metadata: Metadata) throws(SquintError) {
    let layout = try metadata.string("image.layout")
    if layout != "whole" {
      for key in ["image.pad_to_square", "image.crop"] where metadata[key] != nil && metadata[key] != .bool(false) {
        throw ImageProcessor.bad("\(key) does not go with an image.layout of \(layout)")
      }
    }
    switch layout {
    case "whole":
      let isPadded = try metadata.bool("image.pad_to_square", default: false)
      let crop = try ImageProcessor.sides(metadata, "image.crop", count: 2)
      cutting = .whole(
        background: isPadded ? try ImageProcessor.background(metadata) : nil,
        crop: crop.map { Size(height: $0[0], width: $0[1]) })
    case "tiles":
      cutting = .tiles(
        side: try metadata.int("image.tile", in: ImageProcessor.side),
        split: try metadata.bool("image.split", default: true))
    case "grid": cutting = try ImageProcessor.grid(metadata)
    case "anyres": cutting = try ImageProcessor.anyres(metadata)
    case let other: throw ImageProcessor.bad("image.layout is \(other), which is none of whole, tiles, grid and anyres")
    }

    severalBackground = try ImageProcessor.isSquare(metadata) ? ImageProcessor.background(metadata) : nil

    let kind = try metadata.string("image.resize")
    let size = try ImageProcessor.sides(metadata, "image.size", count: kind == "exact" ? 2 : 1)
    switch (kind, size) {
    case ("none", _): resize = .none
    case ("exact", let size?): resize = .exact(Size(height: size[0], width: size[1]))
    case ("shortest_edge", let size?): resize = .shortestEdge(size[0])
    case ("longest_edge", let size?): resize = .longestEdge(size[0])
    case ("smart", _):
      let pixels = try ImageProcessor.range(metadata, "image.pixels", in: 1...ImageLimits.pixels)
      resize = .smart(multiple: try metadata.int("image.multiple", in: ImageProcessor.multiples), pixels: pixels)
    case ("exact", nil), ("shortest_edge", nil), ("longest_edge", nil):
      throw ImageProcessor.bad("image.size is missing, which goes with an image.resize of \(kind)")
    default: throw ImageProcessor.bad("image.resize is \(kind), which is not known")
    }

    let filterName = try metadata.string("image.filter")
    guard let filter = ResamplingFilter(rawValue: filterName) else {
      throw ImageProcessor.bad("image.filter is \(filterName), which is not known")
    }
    self.filter = filter
    rescale = try metadata.float("image.rescale")
    mean = try metadata.floats("image.mean")
    std = try metadata.floats("image.std")
    try check()
  }

  private static let side = 1...16384
  private static let multiples = 1...1024

  private static func bad(_ what: String) -> SquintError {
    SquintError(.badData, "metadata \(what); convert the model again")
  }

  /// The sides in pixels under `key`, or nil where there is none.
  private static func sides(_ metadata: Metadata, _ key: String, count: Int) throws(SquintError) -> [Int]? {
    guard metadata[key] != nil else { return nil }
    let values = try metadata.ints(key)
    guard values.count == count, values.allSatisfy({ side.contains(Int(clamping: $0)) }) else {
      throw bad("\(key) is \(values), not \(count) of 1 to \(grouped(side.upperBound))")
    }
    return values.map { Int($0) }
  }

  /// The smallest and the largest number that `key` allows.
  private static func range(
    _ metadata: Metadata, _ key: String, in range: ClosedRange<Int>
  ) throws(SquintError) -> ClosedRange<Int> {
    let values = try metadata.ints(key)
    guard values.count == 2, values[0] <= values[1], values.allSatisfy({ range.contains(Int(clamping: $0)) }) else {
      throw bad(
        "\(key) is \(values), not the smallest and the largest of \(grouped(range.lowerBound)) to \(grouped(range.upperBound))"
      )
    }
    return Int(values[0])...Int(values[1])
  }

  private static func grid(_ metadata: Metadata) throws(SquintError) -> Cutting {
    .grid(
      side: try metadata.int("image.tile", in: side),
      tiles: try range(metadata, "image.tiles", in: 1...mostTiles - 1),
      overview: try metadata.bool("image.overview", default: false))
  }

  private static func anyres(_ metadata: Metadata) throws(SquintError) -> Cutting {
    let sides = try metadata.ints("image.pinpoints")
    guard !sides.isEmpty, sides.count % 2 == 0, sides.count <= 2 * mostTiles,
      sides.allSatisfy({ side.contains(Int(clamping: $0)) })
    else { throw bad("image.pinpoints is not a list of heights and widths of 1 to \(grouped(side.upperBound))") }
    return .anyres(
      side: try metadata.int("image.tile", in: side),
      pinpoints: stride(from: 0, to: sides.count, by: 2).map {
        Size(height: Int(sides[$0]), width: Int(sides[$0 + 1]))
      })
  }

  /// Whether each of several images becomes a square.
  private static func isSquare(_ metadata: Metadata) throws(SquintError) -> Bool {
    guard metadata["image.several"] != nil else { return false }
    let word = try metadata.string("image.several")
    guard word == "square" else { throw bad("image.several is \(word), which is not square") }
    return true
  }

  private static func background(_ metadata: Metadata) throws(SquintError) -> [UInt8] {
    let levels = try metadata.ints("image.background")
    guard levels.count == 3, levels.allSatisfy({ (0...255).contains($0) }) else {
      throw bad("image.background is \(levels), not 3 of 0 to 255")
    }
    return levels.map { UInt8($0) }
  }

  private func check() throws(SquintError) {
    var sides: [Int] = []
    switch cutting {
    case .whole(let background, let crop):
      guard background?.count ?? 3 == 3 else { throw ImageProcessor.bad("image.background is not of 3 levels") }
      if let crop { sides += [crop.height, crop.width] }
    case .tiles(let side, _): sides.append(side)
    case .grid(let side, let tiles, _):
      sides.append(side)
      guard tiles.lowerBound >= 1, tiles.upperBound < Self.mostTiles else {
        throw ImageProcessor.bad("image.tiles is outside 1…\(grouped(Self.mostTiles - 1))")
      }
    case .anyres(let side, let pinpoints):
      sides += [side] + pinpoints.flatMap { [$0.height, $0.width] }
      guard side > 0, pinpoints.allSatisfy({ $0.height % side == 0 && $0.width % side == 0 }) else {
        throw ImageProcessor.bad("image.pinpoints has a side that is no multiple of image.tile")
      }
    }
    switch resize {
    case .none: break
    case .exact(let size): sides += [size.height, size.width]
    case .shortestEdge(let side), .longestEdge(let side): sides.append(side)
    case .smart(let multiple, let pixels, let most):
      guard Self.multiples.contains(multiple), (1...ImageLimits.pixels).contains(pixels.lowerBound),
        pixels.upperBound <= ImageLimits.pixels, most ?? 1 >= 1
      else { throw ImageProcessor.bad("image.multiple or image.pixels makes no sense") }
      guard cutting == .whole(background: nil, crop: nil) else {
        throw ImageProcessor.bad("an image.resize of smart goes with whole images that are neither padded nor cut")
      }
    }
    guard sides.allSatisfy({ ImageProcessor.side.contains($0) }) else {
      throw ImageProcessor.bad(
        "image.size, image.crop or image.tile is outside 1…\(grouped(ImageProcessor.side.upperBound))")
    }
    switch (cutting, resize) {
    case (.whole, _), (_, .none), (.tiles, .longestEdge): break
    default: throw ImageProcessor.bad("image.resize does not go with image.layout")
    }
    if severalBackground != nil {
      guard case .anyres = cutting, severalBackground?.count == 3 else {
        throw ImageProcessor.bad("image.several does not go with image.layout")
      }
    }
    guard mean.count == 3, std.count == 3 else {
      throw ImageProcessor.bad("image.mean or image.std has not 3 numbers")
    }
    guard levels.allSatisfy({ $0.isFinite }) else {
      throw ImageProcessor.bad("image.rescale, image.mean and image.std give no finite numbers")
    }
  }

  /// What an 8-bit level becomes: `(level · rescale − mean) / std`, [channel, level] of 3 × 256.
  ///
  /// Rounded to single precision after the product, the difference and the quotient, as transformers' `rescale` and
  /// `normalize` (image_transforms.py) do it.
  package var levels: [Float] {
    var levels: [Float] = []
    levels.reserveCapacity(3 * 256)
    for channel in 0..<3 {
      for level in 0..<256 {
        levels.append((Float(Double(level) * rescale) - Float(mean[channel])) / Float(std[channel]))
      }
    }
    return levels
  }
}
