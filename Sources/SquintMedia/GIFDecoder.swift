import CGIF
import SquintFile

/// GIF through giflib: the first frame, row by row or, where it is interlaced, from the whole frame.
///
/// The pixels are Pillow's (GifImagePlugin.py): a frame that is larger than the canvas makes it larger; beside one that is smaller
/// lies the transparent colour or, without one, the first of the palette.
final class GIFDecoder: ImageDecoder {
  let header: ImageHeader
  private let file: MediaFile
  private let codec: UnsafeMutablePointer<GifFileType>
  private let source: Source
  /// Where the frame lies in the canvas.
  private let left: Int
  private let top: Int
  private let width: Int
  private let height: Int
  private let isInterlaced: Bool
  private let canvasWidth: Int
  /// What each index stands for, over white.
  private let colours: [Colour]
  /// The index beside the frame.
  private let background: Int
  /// Indices: the next row or, where it is interlaced, all rows: [rows, width].
  private var indices: UnsafeMutablePointer<GifPixelType>?
  private var nextRow = 0

  typealias Colour = (red: UInt8, green: UInt8, blue: UInt8)

  /// At most what giflib holds, and the buffer that it reads from: tables of 4096 codes, palettes, one extension.
  static let codecBytes = 65_536 + Source.bufferBytes

  /// Every 8th row, those in the middle between, every 4th, every 2nd (GIF89a, appendix E).
  static let interlacing = [(first: 0, step: 8), (first: 4, step: 8), (first: 2, step: 4), (first: 1, step: 2)]

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let source = Source(file)
    let codec = try Self.open(source, file)
    let transparent: Int?
    do throws(SquintError) {
      transparent = try Self.findFrame(codec, source, file)
      let frame = codec.pointee.Image
      (left, top) = (Int(frame.Left), Int(frame.Top))
      (width, height) = (Int(frame.Width), Int(frame.Height))
      isInterlaced = frame.Interlace
      try ImageLimits.check(width: width, height: height, file)
      canvasWidth = max(Int(codec.pointee.SWidth), left + width)
      let canvasHeight = max(Int(codec.pointee.SHeight), top + height)
      try ImageLimits.check(width: canvasWidth, height: canvasHeight, file)
      header = ImageHeader(
        format: .gif, storedWidth: canvasWidth, storedHeight: canvasHeight, orientation: .upright,
        decoderBytes: Self.codecBytes + width * (isInterlaced ? height : 1))
    } catch {
      DGifCloseFile(codec, nil)
      throw error
    }
    self.codec = codec
    self.source = source
    colours = Self.colours(codec.pointee.Image.ColorMap ?? codec.pointee.SColorMap, transparent: transparent)
    background = transparent ?? 0
  }

  deinit {
    free(indices)
    DGifCloseFile(codec, nil)
  }

  /// giflib for the file that `source`, which must stay, reads.
  static func open(_ source: Source, _ file: MediaFile) throws(SquintError) -> UnsafeMutablePointer<GifFileType> {
    var code: Int32 = 0
    let codec = DGifOpen(
      Unmanaged.passUnretained(source).toOpaque(),
      { codec, bytes, count in
        Unmanaged<Source>.fromOpaque(codec!.pointee.UserData).takeUnretainedValue().read(into: bytes!, count: count)
      }, &code)
    guard let codec else { throw source.failure ?? Self.error(code, file) }
    return codec
  }

  func start() throws(SquintError) {
    let heldRows = isInterlaced ? height : 1
    indices = malloc(heldRows * width)?.assumingMemoryBound(to: GifPixelType.self)
    guard let indices else { throw file.noMemory(heldRows * width) }
    guard isInterlaced else { return }
    for (first, step) in Self.interlacing {
      for row in stride(from: first, to: height, by: step) { try readLine(indices + row * width) }
    }
  }

  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError) {
    guard let indices else { throw SquintError(.internalError, "a GIF row was read before the decoder was started") }
    defer { nextRow += 1 }
    let beside = colours[background]
    let isInside = (top..<top + height).contains(nextRow)
    for x in 0..<canvasWidth where !isInside || x < left || x >= left + width {
      setPixel(row, x, beside.red, beside.green, beside.blue)
    }
    guard isInside else { return }
    if !isInterlaced { try readLine(indices) }
    let line = isInterlaced ? indices + (nextRow - top) * width : indices
    for x in 0..<width {
      let colour = colours[Int(line[x])]
      setPixel(row, left + x, colour.red, colour.green, colour.blue)
    }
  }

  private func readLine(_ line: UnsafeMutablePointer<GifPixelType>) throws(SquintError) {
    guard DGifGetLine(codec, line, Int32(width)) != GIF_OK else { return }
    throw source.failure ?? Self.error(codec.pointee.Error, file)
  }

  /// Goes to the first frame.
  ///
  /// - Returns: the index that is transparent in it.
  private static func findFrame(
    _ codec: UnsafeMutablePointer<GifFileType>, _ source: Source, _ file: MediaFile
  ) throws(SquintError) -> Int? {
    func check(_ status: Int32) throws(SquintError) {
      if status != GIF_OK { throw source.failure ?? error(codec.pointee.Error, file) }
    }
    var transparent: Int?
    while true {
      var kind = UNDEFINED_RECORD_TYPE
      try check(DGifGetRecordType(codec, &kind))
      switch kind {
      case IMAGE_DESC_RECORD_TYPE:
        try check(DGifGetImageDesc(codec))
        return transparent
      case EXTENSION_RECORD_TYPE:
        var function: Int32 = 0
        // The first byte of a block is its length.
        var block: UnsafeMutablePointer<GifByteType>?
        try check(DGifGetExtension(codec, &function, &block))
        if function == GRAPHICS_EXT_FUNC_CODE, let block, block[0] >= 4, block[1] & 1 == 1 {
          transparent = Int(block[4])
        }
        while block != nil { try check(DGifGetExtensionNext(codec, &block)) }
      default: throw file.error("the GIF file has no image in it; export it again")
      }
    }
  }

  /// [256]: without a palette indices are grey levels; an index behind its end is black.
  static func colours(_ map: UnsafeMutablePointer<ColorMapObject>?, transparent: Int?) -> [Colour] {
    (0..<256).map { index in
      if index == transparent { return (255, 255, 255) }
      guard let map else { return (UInt8(index), UInt8(index), UInt8(index)) }
      guard index < Int(map.pointee.ColorCount) else { return (0, 0, 0) }
      let colour = map.pointee.Colors[index]
      return (colour.Red, colour.Green, colour.Blue)
    }
  }

  static func error(_ code: Int32, _ file: MediaFile) -> SquintError {
    switch code {
    case D_GIF_ERR_READ_FAILED, D_GIF_ERR_EOF_TOO_SOON: return file.truncated
    case D_GIF_ERR_NOT_ENOUGH_MEM: return file.noMemory(codecBytes)
    default:
      let reason = GifErrorString(code).map { String(cString: $0) } ?? "error \(code)"
      return file.error("the image is damaged or of a kind that is not understood (\(reason)); export it again")
    }
  }

  /// What giflib reads, in pieces.
  final class Source {
    static let bufferBytes = 65_536

    private let file: MediaFile
    private var buffer = [UInt8](repeating: 0, count: bufferBytes)
    private var unread = 0..<0
    private var offset = 0
    /// Why nothing could be read, where it is not the end.
    private(set) var failure: SquintError?

    init(_ file: MediaFile) { self.file = file }

    /// Copies the next `count` bytes, or those that there are, to `target`; returns how many.
    func read(into target: UnsafeMutablePointer<GifByteType>, count: Int32) -> Int32 {
      var done = 0
      while done < Int(count) {
        if unread.isEmpty, !fill() { break }
        let step = min(Int(count) - done, unread.count)
        buffer.withUnsafeBufferPointer {
          (target + done).update(from: $0.baseAddress! + unread.lowerBound, count: step)
        }
        unread = unread.lowerBound + step..<unread.upperBound
        done += step
      }
      return Int32(done)
    }

    private func fill() -> Bool {
      let (file, offset) = (file, offset)
      let result = buffer.withUnsafeMutableBytes { buffer in
        Result { () throws(SquintError) in try file.read(at: offset, into: buffer) }
      }
      switch result {
      case .success(let count):
        unread = 0..<count
        self.offset += count
        return count > 0
      case .failure(let error):
        failure = error
        return false
      }
    }
  }
}
