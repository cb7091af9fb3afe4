import SquintFile

/// Everything that is done with one image, in the space of its stored rows, and what it takes.
///
/// Rows are decoded, padded, resized and written to the tiles one at a time: no image is held on the way but the tiles.
struct ImageSteps {
  let header: ImageHeader
  let geometry: ImageGeometry
  /// The padding before and behind the stored rows and columns.
  private(set) var alongPadding = (before: 0, after: 0)
  private(set) var acrossPadding = (before: 0, after: 0)
  private(set) var background: [UInt8] = [0, 0, 0]
  private(set) var resizes: [ResizeStep] = []
  /// From the tiles, or from the image, to the overview behind them.
  private(set) var overview: ResizeStep?

  init(_ processor: ImageProcessor, _ header: ImageHeader) throws(SquintError) {
    self.header = header
    geometry = try processor.geometry(width: header.width, height: header.height)
    var size = ImageProcessor.Size(height: header.decodedHeight, width: header.decodedWidth)
    let isReduced = header.decodedWidth != header.width || header.decodedHeight != header.height
    if isReduced, case .whole = processor.cutting, processor.resize == .none {
      throw SquintError(
        .badData,
        "the model takes images as they are, and \(header.format.name) images of \(grouped(header.width)) × \(grouped(header.height)) pixels are decoded reduced; convert the image to JPEG or PNG"
      )
    }
    if case .whole(let background?, _) = processor.cutting { size = pad(size, background) }

    let orientation = header.orientation
    for (index, resized) in geometry.resizes.enumerated() {
      let isLast = index == geometry.resizes.count - 1
      let horizontal = ResamplingAxis(
        inputs: size.width, outputs: resized.width, window: isLast ? geometry.columns : 0..<resized.width,
        isFlipped: orientation.flipsX, filter: processor.filter, arithmetic: processor.arithmetic)
      let vertical = ResamplingAxis(
        inputs: size.height, outputs: resized.height, window: isLast ? geometry.rows : 0..<resized.height,
        isFlipped: orientation.flipsY, filter: processor.filter, arithmetic: processor.arithmetic)
      let changes = resized != size || horizontal.window.count < resized.width || vertical.window.count < resized.height
      size = resized
      guard changes else { continue }
      resizes.append(ResizeStep(horizontal: horizontal, vertical: vertical, swapsAxes: orientation.swapsAxes))
    }
    let layout = geometry.layout
    if layout.hasOverview {
      // What lies in the tiles is upright.
      let source =
        geometry.overviewIsOfImage
        ? ImageProcessor.Size(height: header.decodedHeight, width: header.decodedWidth) : size
      let turned = geometry.overviewIsOfImage ? orientation : .upright
      overview = ResizeStep(
        horizontal: ResamplingAxis(
          inputs: source.width, outputs: layout.width, window: 0..<layout.width, isFlipped: turned.flipsX,
          filter: processor.filter, arithmetic: processor.arithmetic),
        vertical: ResamplingAxis(
          inputs: source.height, outputs: layout.height, window: 0..<layout.height, isFlipped: turned.flipsY,
          filter: processor.filter, arithmetic: processor.arithmetic),
        swapsAxes: turned.swapsAxes)
    }
  }

  /// Pads to a square with the image in the middle (`pad_to_square` of image_processing_pil_llava.py).
  private mutating func pad(_ size: ImageProcessor.Size, _ background: [UInt8]) -> ImageProcessor.Size {
    let side = max(size.width, size.height)
    func padding(_ count: Int, isFlipped: Bool) -> (before: Int, after: Int) {
      let (before, after) = ((side - count) / 2, side - count - (side - count) / 2)
      return isFlipped ? (after, before) : (before, after)
    }
    let horizontal = padding(size.width, isFlipped: header.orientation.flipsX)
    let vertical = padding(size.height, isFlipped: header.orientation.flipsY)
    (alongPadding, acrossPadding) = header.orientation.swapsAxes ? (vertical, horizontal) : (horizontal, vertical)
    self.background = background
    return ImageProcessor.Size(height: side, width: side)
  }

  private var storedWidth: Int { header.orientation.swapsAxes ? header.decodedHeight : header.decodedWidth }
  private var storedHeight: Int { header.orientation.swapsAxes ? header.decodedWidth : header.decodedHeight }
  private var rowWidth: Int { alongPadding.before + storedWidth + alongPadding.after }

  /// At most what the process holds while the image is processed, in bytes.
  var byteCount: Int {
    let layout = geometry.layout
    var bytes = header.decoderBytes + layout.byteCount + 4 * rowWidth + resizes.reduce(0) { $0 + $1.byteCount }
    bytes += TileWriter.byteCount(width: geometry.columns.count, height: geometry.rows.count)
    if let overview {
      bytes += 4 * overview.along.inputs + overview.byteCount
      bytes += TileWriter.byteCount(width: layout.width, height: layout.height)
    }
    // What the allocator rounds up, and the pages of the codecs' code, which are read when they are first needed.
    return bytes + 1_048_576
  }

  /// Decodes the image and fills `pixels`, [tile, height, width, 3], which are zero.
  ///
  /// - Parameter shouldContinue: asked before each row.
  /// - Returns: whether it was finished.
  func run(
    _ decoder: any ImageDecoder, into pixels: UnsafeMutablePointer<UInt8>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Bool {
    let layout = geometry.layout
    var receiver: any RowReceiver = TileWriter(
      width: geometry.columns.count, height: geometry.rows.count, left: geometry.left, top: geometry.top,
      orientation: header.orientation, layout: layout, pixels: pixels)
    for step in resizes.reversed() { receiver = Resampler(step, next: receiver) }
    if let overview, geometry.overviewIsOfImage {
      let writer = overviewWriter(orientation: header.orientation, pixels)
      receiver = RowSplitter(receiver, Resampler(overview, next: writer))
    }

    let row = UnsafeMutablePointer<UInt8>.allocate(capacity: 4 * rowWidth)
    defer { row.deallocate() }
    func fillWithBackground() {
      for x in 0..<rowWidth { setPixel(row, x, background[0], background[1], background[2]) }
    }
    fillWithBackground()
    for _ in 0..<acrossPadding.before { receiver.take(row) }
    try decoder.start()
    for _ in 0..<storedHeight {
      guard shouldContinue() else { return false }
      try decoder.readRow(into: row + 4 * alongPadding.before)
      receiver.take(row)
    }
    fillWithBackground()
    for _ in 0..<acrossPadding.after { receiver.take(row) }
    if let overview, !geometry.overviewIsOfImage { makeOverview(overview, layout, pixels) }
    return true
  }

  /// Writes the rows of the overview behind the tiles.
  private func overviewWriter(orientation: Orientation, _ pixels: UnsafeMutablePointer<UInt8>) -> TileWriter {
    let layout = geometry.layout
    return TileWriter(
      width: layout.width, height: layout.height, left: 0, top: 0, orientation: orientation,
      layout: TileLayout(rows: 1, columns: 1, hasOverview: false, height: layout.height, width: layout.width),
      pixels: pixels + (layout.count - 1) * layout.tileBytes)
  }

  /// Resizes the image that lies in the tiles to the tile behind them.
  private func makeOverview(_ step: ResizeStep, _ layout: TileLayout, _ pixels: UnsafeMutablePointer<UInt8>) {
    let resampler = Resampler(step, next: overviewWriter(orientation: .upright, pixels))
    let row = UnsafeMutablePointer<UInt8>.allocate(capacity: 4 * step.along.inputs)
    defer { row.deallocate() }
    for y in 0..<step.across.inputs {
      for x in 0..<step.along.inputs {
        let pixel = pixels + layout.offset(x: x) + layout.offset(y: y)
        setPixel(row, x, pixel[0], pixel[1], pixel[2])
      }
      resampler.take(row)
    }
  }
}

extension ImageProcessor {
  /// Decodes the image at `path`, turns it as its EXIF orientation says, lays its transparency over white, and makes the
  /// tiles of it.
  ///
  /// - Throws: `noInput` where there is no file, `badData` where it is no image of a known format, is damaged or truncated,
  ///   or is of a size that is refused.
  package func process(path: String) throws(SquintError) -> TiledImage { try process(MediaFile(path: path)) }

  /// The same of a file that is open.
  package func process(_ file: MediaFile) throws(SquintError) -> TiledImage {
    guard let tiles = try process(file, while: { true }) else { preconditionFailure("nobody cancelled it") }
    return tiles
  }

  /// The same; nil where `shouldContinue`, which is asked before each row, said no.
  package func process(_ file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> TiledImage? {
    let decoder = try openImage(file)
    let steps: ImageSteps
    do throws(SquintError) {
      steps = try ImageSteps(self, decoder.header)
    } catch {
      throw error.adding(before: "\(file.path): ")
    }
    var pixels = [UInt8](repeating: 0, count: steps.geometry.layout.byteCount)
    var isFinished = false
    var failure: SquintError?
    pixels.withUnsafeMutableBufferPointer { buffer in
      do throws(SquintError) {
        isFinished = try steps.run(decoder, into: buffer.baseAddress!, while: shouldContinue)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return isFinished ? TiledImage(layout: steps.geometry.layout, pixels: pixels) : nil
  }

  /// At most what `process(path:)` holds at a time for an image with this header, in bytes: the codec, the rows that are
  /// resized, and the tiles. 0 beside the codec where the image is one that `process(path:)` refuses.
  package func peakBytes(for header: ImageHeader) -> Int {
    guard let steps = try? ImageSteps(self, header) else { return header.decoderBytes }
    return steps.byteCount
  }
}
