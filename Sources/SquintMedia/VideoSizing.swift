import SquintFile

/// The size that the frames of a video become (formats/video.md, "The size of a frame").
package enum VideoSizing: Sendable, Equatable {
  case exact(ImageProcessor.Size)
  /// The longer side becomes `longest`, and then the frame a square of `side` (`SmolVLMVideoProcessor`).
  case longestEdge(Int, side: Int)
  /// Sides that are multiples of `factor`, an area from `least` to `most` pixels: of each frame (`Qwen2VLVideoProcessor`), or
  /// of all frames together (`Qwen3VLVideoProcessor`). `mostRows` bounds the rows further: those of the whole video, and those of
  /// each frame.
  case area(factor: Int, least: Int, most: Int, isTotal: Bool, mostRows: Int?)

  /// The size of the frames of a video of which `frames` are taken; for `longestEdge` that of the square.
  ///
  /// - Throws: `badData` where a frame is more than 200 times as long as wide.
  package func size(
    of size: ImageProcessor.Size, frames: Int, temporalPatch: Int
  ) throws(SquintError) -> ImageProcessor.Size {
    if let objection = ImageLimits.objection(width: size.width, height: size.height) {
      throw SquintError(.badData, objection)
    }
    switch self {
    case .exact(let exact): return exact
    case .longestEdge(_, let side): return ImageProcessor.Size(height: side, width: side)
    case .area(let factor, let least, let most, false, let mostRows):
      var bound = most
      if let mostRows {
        // Nine tenths of what a context holds, evenly.
        let total = Int(Double(mostRows) * Double(factor * factor) * 0.9)
        bound = max(min(most, total * temporalPatch / frames), Int(Double(least) * 1.05))
      }
      return Self.smart(size, factor: factor, times: (rounded: 1, exact: 1), least: least, most: bound)
    case .area(let factor, let least, let most, true, let mostRows):
      // One frame is repeated until it is a unit.
      let frames = max(frames, temporalPatch)
      var bound = most
      if let mostRows {
        bound = max(min(mostRows * factor * factor, most / frames), Int(Double(least) * 1.05)) * frames
      }
      var size = size
      if size.height < factor || size.width < factor {
        let scale = max(Double(factor) / Double(size.height), Double(factor) / Double(size.width))
        size = ImageProcessor.Size(
          height: Int(Double(size.height) * scale), width: Int(Double(size.width) * scale))
      }
      let units = Int((Double(frames) / Double(temporalPatch)).rounded(.toNearestOrEven))
      return Self.smart(
        size, factor: factor, times: (rounded: units * temporalPatch, exact: frames), least: least, most: bound)
    }
  }

  /// `smart_resize` of video_processing_qwen2_vl.py and video_processing_qwen3_vl.py.
  private static func smart(
    _ size: ImageProcessor.Size, factor: Int, times: (rounded: Int, exact: Int), least: Int, most: Int
  ) -> ImageProcessor.Size {
    let (height, width, step) = (Double(size.height), Double(size.width), Double(factor))
    func nearest(_ side: Double) -> Int { Int((side / step).rounded(.toNearestOrEven)) * factor }
    var new = ImageProcessor.Size(height: nearest(height), width: nearest(width))
    let area = Double(times.rounded) * Double(new.height) * Double(new.width)
    let exact = Double(times.exact) * height * width
    if area > Double(most) {
      let beta = (exact / Double(most)).squareRoot()
      new.height = max(factor, Int((height / beta / step).rounded(.down)) * factor)
      new.width = max(factor, Int((width / beta / step).rounded(.down)) * factor)
    } else if area < Double(least) {
      let beta = (Double(least) / exact).squareRoot()
      new.height = Int((height * beta / step).rounded(.up)) * factor
      new.width = Int((width * beta / step).rounded(.up)) * factor
    }
    return new
  }
}
