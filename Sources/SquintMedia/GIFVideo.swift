import CGIF
import SquintFile

/// The frames of an animated GIF, laid over each other as Pillow does it (GifImagePlugin.py), through giflib.
///
/// Where the first frame has no transparent colour the canvas has none: what is disposed of then becomes the colour that stands
/// for transparency, or the background's.
final class GIFVideo: VideoReader {
  let header: VideoHeader
  private let file: MediaFile
  private var animation: Animation
  private let canvas: FrameMemory
  private let width: Int
  private let height: Int
  private var chosen: [Int] = []
  private var position = 0
  private var number = 0

  /// What becomes of a frame's place before the next one is drawn.
  private enum Disposal {
    case nothing
    case fill(Place, Pixel)
    case restore(Place)
  }
  private struct Place {
    let columns: Range<Int>
    let rows: Range<Int>
  }
  private typealias Pixel = SIMD4<UInt8>

  private var disposal = Disposal.nothing
  /// What a frame that is taken away again lies over: [rows, columns, 4].
  private var saved: [UInt8] = []
  /// The disposal method of the last frame that named one.
  private var method = 0
  /// Whether the canvas can be transparent: the first frame can.
  private var hasAlpha = false

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let scan = try Animation(file)
    // From its blocks' heads alone.
    let bounds = try Self.scan(scan, file)
    (width, height) = (bounds.width, bounds.height)
    header = VideoHeader(
      width: width, height: height, frames: bounds.frames,
      framesPerSecond: VideoHeader.rate(frames: bounds.frames, seconds: bounds.seconds),
      // The canvas, what lies under a frame, and a frame's own indices.
      heldBytes: GIFDecoder.codecBytes + 9 * width * height)
    canvas = try FrameMemory(4 * width * height, file)
    animation = try Animation(file)
  }

  func choose(_ frames: [Int]) throws(SquintError) -> Int {
    chosen = frames
    return 0
  }

  func next(while shouldContinue: () -> Bool) throws(SquintError) -> (any ImageDecoder)? {
    while number <= chosen[position] {
      guard shouldContinue() else { return nil }
      guard let frame = try animation.next() else { throw file.truncated }
      try draw(frame)
      number += 1
    }
    position += 1
    return StoredFrame(canvas.bytes, width: width, height: height, channels: 4, decoderBytes: 0)
  }

  /// How many frames there are, how long they are shown, and the size of the first one's canvas.
  private static func scan(
    _ animation: Animation, _ file: MediaFile
  ) throws(SquintError) -> (frames: Int, seconds: Double, width: Int, height: Int) {
    var (frames, hundredths) = (0, 0)
    var (width, height) = (0, 0)
    while let frame = try animation.next() {
      let (right, bottom) = (frame.left + frame.width, frame.top + frame.height)
      if frames == 0 {
        (width, height) = (max(frame.canvasWidth, right), max(frame.canvasHeight, bottom))
        try ImageLimits.check(width: width, height: height, file)
      }
      guard right <= width, bottom <= height else {
        throw file.error(
          "frame \(grouped(frames + 1)) is larger than the first, which makes the canvas larger; export it again")
      }
      try animation.skip()
      frames += 1
      hundredths += frame.hundredths
      guard frames <= VideoHeader.mostFrames else {
        throw file.error("the animation has more than \(grouped(VideoHeader.mostFrames)) frames; cut it")
      }
    }
    guard frames > 0 else { throw file.error("the GIF file has no image in it; export it again") }
    return (frames, Double(hundredths) / 100, width, height)
  }

  // MARK: Drawing

  private func draw(_ frame: Animation.Frame) throws(SquintError) {
    let place = Place(
      columns: frame.left..<frame.left + frame.width, rows: frame.top..<frame.top + frame.height)
    guard place.columns.upperBound <= width, place.rows.upperBound <= height else { throw file.truncated }
    dispose()
    let isFirst = number == 0
    if frame.disposal != 0 { method = frame.disposal }
    if isFirst {
      hasAlpha = frame.transparent != nil
      // Beside the first frame lies the transparent colour or, without one, the first.
      fill(Place(columns: 0..<width, rows: 0..<height), colour(frame, frame.transparent ?? 0))
    }
    switch method {
    case 2:
      let index = frame.transparent ?? frame.background
      disposal = .fill(place, colour(frame, index, isFirst: isFirst))
    case 3 where !isFirst:
      save(place)
      disposal = .restore(place)
    case 3: disposal = frame.transparent.map { .fill(place, colour(frame, $0)) } ?? .nothing
    default: disposal = .nothing
    }

    let pixels = canvas.bytes
    try animation.readRows { row, indices in
      var target = UnsafeMutableRawPointer(
        pixels + 4 * ((place.rows.lowerBound + row) * width + place.columns.lowerBound))
      for x in 0..<frame.width {
        let index = Int(indices[x])
        // In the first frame the transparent colour is one; in others it is nothing.
        if isFirst || index != frame.transparent {
          target.storeBytes(of: colour(frame, index), as: Pixel.self)
        }
        target += 4
      }
    }
  }

  /// The pixel of `index` in `frame`: transparent where that colour is, and the canvas can be.
  private func colour(_ frame: Animation.Frame, _ index: Int, isFirst: Bool = true) -> Pixel {
    // Of a colour that the palette does not have disposal takes the first.
    let known = isFirst || index < frame.colourCount ? index : 0
    let colour = frame.colours[known]
    let alpha: UInt8 = hasAlpha && index == frame.transparent ? 0 : 255
    return Pixel(colour.red, colour.green, colour.blue, alpha)
  }

  private func dispose() {
    switch disposal {
    case .nothing: break
    case .fill(let place, let pixel): fill(place, pixel)
    case .restore(let place):
      saved.withUnsafeBytes { source in
        for (index, row) in place.rows.enumerated() {
          memcpy(
            canvas.bytes + 4 * (row * width + place.columns.lowerBound),
            source.baseAddress! + 4 * index * place.columns.count, 4 * place.columns.count)
        }
      }
    }
  }

  private func fill(_ place: Place, _ pixel: Pixel) {
    for row in place.rows {
      var target = UnsafeMutableRawPointer(canvas.bytes + 4 * (row * width + place.columns.lowerBound))
      for _ in place.columns {
        target.storeBytes(of: pixel, as: Pixel.self)
        target += 4
      }
    }
  }

  private func save(_ place: Place) {
    saved.removeAll(keepingCapacity: true)
    // No more than was planned for.
    saved.reserveCapacity(4 * width * height)
    for row in place.rows {
      let start = 4 * (row * width + place.columns.lowerBound)
      saved += UnsafeBufferPointer(start: canvas.bytes + start, count: 4 * place.columns.count)
    }
  }

  // MARK: Reading

  /// The frames of a GIF file as they are stored.
  private final class Animation {
    struct Frame {
      let left: Int
      let top: Int
      let width: Int
      let height: Int
      let isInterlaced: Bool
      let canvasWidth: Int
      let canvasHeight: Int
      let transparent: Int?
      let disposal: Int
      let hundredths: Int
      /// The index of the background.
      let background: Int
      /// [256]; the transparent colour is as the palette has it.
      let colours: [GIFDecoder.Colour]
      let colourCount: Int
    }

    private let file: MediaFile
    private let source: GIFDecoder.Source
    private let codec: UnsafeMutablePointer<GifFileType>
    private var frame: Frame?
    private var indices: [GifPixelType] = []
    private var count = 0

    init(_ file: MediaFile) throws(SquintError) {
      self.file = file
      source = GIFDecoder.Source(file)
      codec = try GIFDecoder.open(source, file)
    }

    deinit { DGifCloseFile(codec, nil) }

    private func check(_ status: Int32) throws(SquintError) {
      if status != GIF_OK { throw source.failure ?? GIFDecoder.error(codec.pointee.Error, file) }
    }

    /// The head of the next frame, whose rows must then be read or skipped; nil at the end.
    func next() throws(SquintError) -> Frame? {
      var transparent: Int?
      var (disposal, hundredths) = (0, 0)
      while true {
        var kind = UNDEFINED_RECORD_TYPE
        if DGifGetRecordType(codec, &kind) != GIF_OK {
          // Some writers leave the end mark out, and some write something else there.
          let isOver = count > 0 && source.failure == nil
          let code = codec.pointee.Error
          if isOver, code == D_GIF_ERR_READ_FAILED || code == D_GIF_ERR_WRONG_RECORD { return nil }
          try check(GIF_ERROR)
        }
        switch kind {
        case IMAGE_DESC_RECORD_TYPE:
          // giflib keeps a copy of each frame's head.
          GifFreeSavedImages(codec)
          codec.pointee.SavedImages = nil
          codec.pointee.ImageCount = 0
          try check(DGifGetImageDesc(codec))
          count += 1
          return begin(transparent: transparent, disposal: disposal, hundredths: hundredths)
        case EXTENSION_RECORD_TYPE:
          var function: Int32 = 0
          // The first byte of a block is its length.
          var block: UnsafeMutablePointer<GifByteType>?
          try check(DGifGetExtension(codec, &function, &block))
          if function == GRAPHICS_EXT_FUNC_CODE, let block, block[0] >= 4 {
            if block[1] & 1 == 1 { transparent = Int(block[4]) }
            if block[1] >> 2 & 7 != 0 { disposal = Int(block[1] >> 2 & 7) }
            hundredths = Int(block[2]) | Int(block[3]) << 8
          }
          while block != nil { try check(DGifGetExtensionNext(codec, &block)) }
        default: return nil
        }
      }
    }

    private func begin(transparent: Int?, disposal: Int, hundredths: Int) -> Frame {
      let image = codec.pointee.Image
      let map = image.ColorMap ?? codec.pointee.SColorMap
      let frame = Frame(
        left: Int(image.Left), top: Int(image.Top), width: Int(image.Width), height: Int(image.Height),
        isInterlaced: image.Interlace, canvasWidth: Int(codec.pointee.SWidth), canvasHeight: Int(codec.pointee.SHeight),
        transparent: transparent, disposal: disposal, hundredths: hundredths,
        background: codec.pointee.SColorMap == nil ? 0 : Int(codec.pointee.SBackGroundColor),
        colours: GIFDecoder.colours(map, transparent: nil), colourCount: map.map { Int($0.pointee.ColorCount) } ?? 256)
      self.frame = frame
      return frame
    }

    /// Passes over the rows of the frame.
    func skip() throws(SquintError) {
      var size: Int32 = 0
      var block: UnsafeMutablePointer<GifByteType>?
      try check(DGifGetCode(codec, &size, &block))
      while block != nil { try check(DGifGetCodeNext(codec, &block)) }
    }

    /// Calls `body` with each row of the frame, and its indices.
    func readRows(_ body: (Int, UnsafePointer<GifPixelType>) -> Void) throws(SquintError) {
      guard let frame else { return }
      if indices.count < frame.width { indices = [GifPixelType](repeating: 0, count: frame.width) }
      let passes = frame.isInterlaced ? GIFDecoder.interlacing : [(first: 0, step: 1)]
      for (first, step) in passes {
        for row in stride(from: first, to: frame.height, by: step) {
          let status = indices.withUnsafeMutableBufferPointer { indices in
            let status = DGifGetLine(codec, indices.baseAddress!, Int32(frame.width))
            if status == GIF_OK { body(row, indices.baseAddress!) }
            return status
          }
          try check(status)
        }
      }
    }
  }
}
