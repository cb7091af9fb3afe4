import CWebP
import SquintFile

/// The frames of an animated WebP, laid over each other as libwebp's own decoder of animations does it (anim_decode.c), which
/// Pillow uses; a WebP that is none has one frame.
final class WebPVideo: VideoReader {
  let header: VideoHeader
  private let file: MediaFile
  private let frames: [Frame]
  private let canvas: FrameMemory
  /// The pixels of a frame: [its height, its width, 4].
  private let own: FrameMemory
  private let width: Int
  private let height: Int
  private var chosen: [Int] = []
  private var position = 0
  private var number = 0
  private var wasKey = false

  private struct Frame {
    let image: WebPFrame
    let milliseconds: Int
    let blends: Bool
    let isDisposed: Bool
  }

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let (frames, canvas) = try Self.frames(of: file)
    self.frames = frames
    (width, height) = canvas
    try ImageLimits.check(width: width, height: height, file)
    var most = (payload: 0, pixels: 0, codec: 0)
    for frame in frames {
      let image = frame.image
      guard image.left + image.width <= width, image.top + image.height <= height else {
        throw file.error("a frame of the WebP animation is larger than its canvas; export it again")
      }
      most = (
        max(most.payload, image.payload.count), max(most.pixels, image.width * image.height),
        max(most.codec, image.codecBytes)
      )
    }
    let milliseconds = frames.reduce(0) { $0 + $1.milliseconds }
    header = VideoHeader(
      width: width, height: height, frames: frames.count,
      framesPerSecond: VideoHeader.rate(frames: frames.count, seconds: Double(milliseconds) / 1000),
      heldBytes: 4 * width * height + 4 * most.pixels + most.payload + most.codec
        + frames.count * MemoryLayout<Frame>.stride)
    self.canvas = try FrameMemory(4 * width * height, file)
    own = try FrameMemory(4 * most.pixels, file)
  }

  private static func frames(of file: MediaFile) throws(SquintError) -> ([Frame], canvas: (width: Int, height: Int)) {
    var frames: [Frame] = []
    var canvas: (width: Int, height: Int)?
    var offset = 12
    while offset + 8 <= file.byteCount {
      let chunk = try file.bytes(at: offset, count: 8 + 16)
      guard chunk.count >= 8 else { break }
      let count = WebPFrame.number(chunk[4..<8])
      switch String(decoding: chunk[..<4], as: UTF8.self) {
      case "VP8X" where chunk.count >= 18:
        canvas = (1 + WebPFrame.number(chunk[12..<15]), 1 + WebPFrame.number(chunk[15..<18]))
      case "ANMF" where chunk.count >= 24:
        guard count >= 16, offset + 8 + count <= file.byteCount else { throw file.truncated }
        let image = try WebPFrame(file, frame: offset + 24..<offset + 8 + count)
        frames.append(
          Frame(
            image: image.at(left: 2 * WebPFrame.number(chunk[8..<11]), top: 2 * WebPFrame.number(chunk[11..<14])),
            milliseconds: WebPFrame.number(chunk[20..<23]), blends: chunk[23] & 2 == 0, isDisposed: chunk[23] & 1 == 1))
        guard frames.count <= VideoHeader.mostFrames else {
          throw file.error("the animation has more than \(grouped(VideoHeader.mostFrames)) frames; cut it")
        }
      default: break
      }
      offset += 8 + count + count % 2
    }
    if frames.isEmpty {
      let image = try WebPFrame(file)
      return ([Frame(image: image, milliseconds: 0, blends: false, isDisposed: false)], image.canvas)
    }
    guard let canvas else { throw file.error("the WebP animation does not say its size; export it again") }
    return (frames, canvas)
  }

  func choose(_ frames: [Int]) throws(SquintError) -> Int {
    chosen = frames
    return 0
  }

  func next(while shouldContinue: () -> Bool) throws(SquintError) -> (any ImageDecoder)? {
    while number <= chosen[position] {
      guard shouldContinue() else { return nil }
      try draw(number)
      number += 1
    }
    position += 1
    return StoredFrame(canvas.bytes, width: width, height: height, channels: 4, decoderBytes: 0)
  }

  // MARK: Drawing

  private func draw(_ index: Int) throws(SquintError) {
    let frame = frames[index]
    let image = frame.image
    let previous = index > 0 ? frames[index - 1] : nil
    // A frame that covers all, or that follows one that was taken away whole, begins anew.
    let coversAll = image.width == width && image.height == height
    let isKey: Bool
    if let previous {
      let previousCoversAll = previous.image.width == width && previous.image.height == height
      isKey =
        coversAll && (!image.hasAlpha || !frame.blends)
        || previous.isDisposed && (previousCoversAll || wasKey)
    } else {
      isKey = true
    }
    if isKey {
      memset(canvas.bytes, 0, canvas.count)
    } else if let previous, previous.isDisposed {
      for row in 0..<previous.image.height {
        memset(
          canvas.bytes + 4 * ((previous.image.top + row) * width + previous.image.left), 0, 4 * previous.image.width)
      }
    }
    wasKey = isKey
    try decode(image)
    let blends = index > 0 && frame.blends && !isKey && image.hasAlpha
    for row in 0..<image.height {
      let source = own.bytes + 4 * row * image.width
      let target = canvas.bytes + 4 * ((image.top + row) * width + image.left)
      guard blends else {
        memcpy(target, source, 4 * image.width)
        continue
      }
      // Where the frame before was taken away nothing lies below, and the pixels stay as they are.
      var gone = 0..<0
      if let previous, previous.isDisposed,
        (previous.image.top..<previous.image.top + previous.image.height).contains(image.top + row)
      {
        let left = previous.image.left - image.left
        gone = (left..<left + previous.image.width).clamped(to: 0..<image.width)
      }
      for x in 0..<image.width {
        if gone.contains(x) {
          memcpy(target + 4 * x, source + 4 * x, 4)
        } else {
          Self.blend(source + 4 * x, over: target + 4 * x)
        }
      }
    }
  }

  /// `BlendPixelNonPremult` of anim_decode.c.
  @inline(__always)
  private static func blend(_ source: UnsafePointer<UInt8>, over target: UnsafeMutablePointer<UInt8>) {
    let alpha = UInt32(source[3])
    guard alpha != 0 else { return }
    guard alpha != 255 else {
      memcpy(target, source, 4)
      return
    }
    let below = UInt32(target[3]) * (256 - alpha) >> 8
    let both = alpha + below
    let scale = (1 << 24) / both
    for channel in 0..<3 {
      let sum = UInt32(source[channel]) * alpha + UInt32(target[channel]) * below
      target[channel] = UInt8(truncatingIfNeeded: sum &* scale >> 24)
    }
    target[3] = UInt8(truncatingIfNeeded: both)
  }

  private func decode(_ image: WebPFrame) throws(SquintError) {
    let payload = try file.bytes(at: image.payload.lowerBound, count: image.payload.count)
    guard payload.count == image.payload.count else { throw file.truncated }
    var configuration = WebPDecoderConfig()
    guard WebPInitDecoderConfig(&configuration) != 0 else {
      throw SquintError(.internalError, "libwebp is of another version than the one that squint was built with")
    }
    let stride = 4 * image.width
    configuration.output.colorspace = MODE_RGBA
    configuration.output.is_external_memory = 1
    configuration.output.u.RGBA.rgba = own.bytes
    configuration.output.u.RGBA.stride = Int32(stride)
    configuration.output.u.RGBA.size = stride * image.height
    switch WebPDecode(payload, payload.count, &configuration) {
    case VP8_STATUS_OK: return
    case VP8_STATUS_SUSPENDED, VP8_STATUS_NOT_ENOUGH_DATA: throw file.truncated
    case VP8_STATUS_OUT_OF_MEMORY: throw file.noMemory(header.heldBytes)
    default: throw file.error("a frame's data is damaged; copy or download it again")
    }
  }
}
