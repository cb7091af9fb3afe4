import SquintFile

/// BMP, row by row where the pixels are stored as they are, from the whole image where they are in runs.
///
/// There is no library for it that is kept well and small. The pixels are Pillow's (BmpImagePlugin.py) wherever Pillow reads them;
/// masks may be others than it knows.
final class BMPDecoder: ImageDecoder {
  let header: ImageHeader
  private let file: MediaFile
  private let bitmap: BMPHeader
  /// [256]: what each index stands for.
  private var palette: [UInt32] = []
  private var nextRow = 0
  /// A stored row or, where they are in runs, all indices from the lowest row on: [height, width].
  private var data: [UInt8] = []

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    bitmap = try BMPHeader(file)
    try ImageLimits.check(width: bitmap.width, height: bitmap.height, file)
    header = ImageHeader(
      format: .bmp, storedWidth: bitmap.width, storedHeight: bitmap.height, orientation: .upright,
      decoderBytes: 65_536 + (bitmap.isInRuns ? bitmap.width * bitmap.height + RunReader.bufferBytes : bitmap.rowBytes))
  }

  func start() throws(SquintError) {
    if bitmap.bits <= 8 { palette = try bitmap.palette(file) }
    guard bitmap.isInRuns else {
      // All rows are there, but perhaps not what fills up the last.
      let bytes = bitmap.rowBytes * (bitmap.height - 1) + (bitmap.width * bitmap.bits + 7) / 8
      guard bytes <= file.byteCount - bitmap.dataOffset else { throw file.truncated }
      data = [UInt8](repeating: 0, count: bitmap.rowBytes)
      return
    }
    var reader = RunReader(file, bitmap)
    data = try reader.indices()
  }

  func readRow(into row: UnsafeMutablePointer<UInt8>) throws(SquintError) {
    let stored = bitmap.isTopDown ? nextRow : bitmap.height - 1 - nextRow
    nextRow += 1
    let width = bitmap.width
    if bitmap.isInRuns {
      for x in 0..<width { setColour(row, x, palette[Int(data[stored * width + x])]) }
      return
    }
    let (file, offset) = (file, bitmap.dataOffset + stored * bitmap.rowBytes)
    let result = data.withUnsafeMutableBytes { buffer in
      Result { () throws(SquintError) in try file.read(at: offset, into: buffer) }
    }
    guard try result.get() >= (width * bitmap.bits + 7) / 8 else { throw file.truncated }
    data.withUnsafeBufferPointer { bytes in
      switch bitmap.bits {
      case 1, 2, 4, 8:
        let perByte = 8 / bitmap.bits
        let mask = UInt8(1 << bitmap.bits - 1)
        for x in 0..<width {
          // The first pixel of a byte is in its upper bits.
          let shift = bitmap.bits * (perByte - 1 - x % perByte)
          setColour(row, x, palette[Int(bytes[x / perByte] >> shift & mask)])
        }
      default:
        let count = bitmap.bits / 8
        for x in 0..<width {
          var value: UInt32 = 0
          for byte in 0..<count { value |= UInt32(bytes[count * x + byte]) << (8 * byte) }
          let alpha = bitmap.alpha.level(of: value, absent: 255)
          setPixel(
            row, x, overWhite(bitmap.red.level(of: value), alpha: alpha),
            overWhite(bitmap.green.level(of: value), alpha: alpha),
            overWhite(bitmap.blue.level(of: value), alpha: alpha))
        }
      }
    }
  }

  /// Writes the pixel at `x`: red, green and blue in the lower 24 bits of `colour`, blue lowest.
  @inline(__always)
  private func setColour(_ row: UnsafeMutablePointer<UInt8>, _ x: Int, _ colour: UInt32) {
    setPixel(
      row, x, UInt8(truncatingIfNeeded: colour >> 16), UInt8(truncatingIfNeeded: colour >> 8),
      UInt8(truncatingIfNeeded: colour))
  }
}

/// Where the pixels of a BMP file are, and what they mean ("Bitmap storage" of Microsoft's documentation of GDI).
struct BMPHeader {
  let width: Int
  let height: Int
  let isTopDown: Bool
  /// Of a pixel: 1, 2, 4, 8, 16, 24 or 32.
  let bits: Int
  /// Whether the indices are in runs: RLE8 or, with 4 bits, RLE4.
  let isInRuns: Bool
  let dataOffset: Int
  private(set) var red = Mask(0)
  private(set) var green = Mask(0)
  private(set) var blue = Mask(0)
  private(set) var alpha = Mask(0)
  private let paletteOffset: Int
  private let paletteCount: Int
  /// The bytes of a colour in the palette.
  private let colourBytes: Int

  /// The bytes of a stored row: a multiple of 4.
  var rowBytes: Int { (width * bits + 31) / 32 * 4 }

  /// Some bits of a pixel.
  struct Mask {
    private let bits: UInt32
    private let shift: Int

    init(_ bits: UInt32) {
      self.bits = bits
      shift = bits == 0 ? 0 : bits.trailingZeroBitCount
    }

    var isEmpty: Bool { bits == 0 }
    /// Whether the bits stand side by side.
    var isWhole: Bool { (UInt64(bits >> shift) + 1).nonzeroBitCount == 1 }

    /// The level from 0 to 255 in `value`, rounded down as Pillow does.
    @inline(__always)
    func level(of value: UInt32, absent: UInt8 = 0) -> UInt8 {
      guard bits != 0 else { return absent }
      return UInt8(UInt64((value & bits) >> shift) * 255 / UInt64(bits >> shift))
    }
  }

  private static let fileHeaderBytes = 14
  /// Of OS/2 1, Windows 3, its versions 2 and 3, OS/2 2, versions 4 and 5.
  private static let sizes = [12, 40, 52, 56, 64, 108, 124]
  private enum Compression {
    static let none = 0
    static let rle8 = 1
    static let rle4 = 2
    static let masks = 3
    static let jpeg = 4
    static let png = 5
  }

  /// Whether the little-endian number in `bytes` is the size of a header, which tells a BMP from a text that begins with BM.
  static func isSize(_ bytes: [UInt8]) -> Bool { bytes.count == 4 && sizes.contains(number(bytes[...])) }

  init(_ file: MediaFile) throws(SquintError) {
    let start = try file.bytes(at: 0, count: Self.fileHeaderBytes + 124)
    guard start.count >= Self.fileHeaderBytes + 12 else { throw file.truncated }
    func number(_ offset: Int, _ count: Int) -> Int { Self.number(start[offset..<offset + count]) }
    func fromHeader(_ offset: Int, _ count: Int) -> Int { number(Self.fileHeaderBytes + offset, count) }
    let size = fromHeader(0, 4)
    guard start.count >= Self.fileHeaderBytes + size else { throw file.truncated }
    let compression: Int
    var colours = 0
    if size == 12 {
      (width, height) = (fromHeader(4, 2), fromHeader(6, 2))
      isTopDown = false
      bits = fromHeader(10, 2)
      compression = Compression.none
      colourBytes = 3
    } else {
      // A negative height: the first row comes first.
      let signed = Int(Int32(truncatingIfNeeded: fromHeader(8, 4)))
      (width, height) = (Int(Int32(truncatingIfNeeded: fromHeader(4, 4))), abs(signed))
      isTopDown = signed < 0
      bits = fromHeader(14, 2)
      compression = fromHeader(16, 4)
      colours = fromHeader(32, 4)
      colourBytes = 4
    }
    guard width > 0, height > 0 else {
      throw file.error("the image has no pixels (\(width) × \(height)); export it again")
    }
    guard [1, 2, 4, 8, 16, 24, 32].contains(bits) else {
      throw file.error("the BMP image has \(bits) bits a pixel, which is damaged or not understood; export it again")
    }

    var end = Self.fileHeaderBytes + size
    switch (compression, bits) {
    case (Compression.none, _): isInRuns = false
    case (Compression.rle8, 8), (Compression.rle4, 4): isInRuns = true
    case (Compression.masks, 16...):
      isInRuns = false
      // The smallest header has none; three follow it.
      let offset = Self.fileHeaderBytes + 40
      if size < 52 { end = offset + 12 }
      guard start.count >= end else { throw file.truncated }
      (red, green) = (Mask(UInt32(number(offset, 4))), Mask(UInt32(number(offset + 4, 4))))
      blue = Mask(UInt32(number(offset + 8, 4)))
      if size >= 56 { alpha = Mask(UInt32(number(offset + 12, 4))) }
    default:
      let name = [Compression.jpeg: "JPEG", Compression.png: "PNG"][compression] ?? "compression \(compression)"
      throw file.error(
        "the BMP image holds \(name) with \(bits) bits a pixel, which is not understood; export it again")
    }
    guard [red, green, blue, alpha].allSatisfy({ $0.isEmpty || $0.isWhole }) else {
      throw file.error("the BMP image's masks of colours are damaged; export it again")
    }
    if red.isEmpty && green.isEmpty && blue.isEmpty {
      switch bits {
      case 16: (red, green, blue) = (Mask(0x7C00), Mask(0x3E0), Mask(0x1F))
      default: (red, green, blue) = (Mask(0xFF0000), Mask(0xFF00), Mask(0xFF))
      }
      // Masks that are all empty are taken for blue, green, red and alpha.
      if compression == Compression.masks && bits == 32 && alpha.isEmpty { alpha = Mask(0xFF00_0000) }
    }

    paletteOffset = end
    paletteCount = bits <= 8 ? (colours > 0 ? colours : 1 << bits) : 0
    guard paletteCount <= 65_536 else {
      throw file.error("the BMP image claims a palette of \(grouped(paletteCount)) colours; export it again")
    }
    let given = number(10, 4)
    // Some writers give the end of the header, and forget the palette.
    dataOffset =
      given == 0 || given == Self.fileHeaderBytes + size && bits <= 8 ? end + paletteCount * colourBytes : given
    guard dataOffset <= file.byteCount else { throw file.truncated }
  }

  /// [256]: what each index stands for; one behind the end of the palette is black.
  func palette(_ file: MediaFile) throws(SquintError) -> [UInt32] {
    let count = min(paletteCount, 256)
    let bytes = try file.bytes(at: paletteOffset, count: count * colourBytes)
    guard bytes.count == count * colourBytes else { throw file.truncated }
    let colours = (0..<count).map { UInt32(Self.number(bytes[$0 * colourBytes..<$0 * colourBytes + 3])) }
    return colours + [UInt32](repeating: 0, count: 256 - count)
  }

  /// The little-endian number in `bytes`.
  private static func number(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }
}

/// Reads indices that are stored in runs: RLE8 and RLE4.
private struct RunReader {
  static let bufferBytes = 65_536

  private let file: MediaFile
  private let width: Int
  private let count: Int
  private let isHalf: Bool
  /// Of the next byte in the file, and the piece of the file around it.
  private var offset: Int
  private var buffer: [UInt8] = []
  private var bufferStart = 0

  init(_ file: MediaFile, _ bitmap: BMPHeader) {
    self.file = file
    width = bitmap.width
    count = bitmap.width * bitmap.height
    isHalf = bitmap.bits == 4
    offset = bitmap.dataOffset
  }

  /// The indices of all pixels, from the row that is stored first on; what is left out is 0.
  ///
  /// - Throws: `badData` where the file ends before the image, or its end mark.
  mutating func indices() throws(SquintError) -> [UInt8] {
    var pixels = [UInt8](repeating: 0, count: count)
    var position = 0
    var column = 0
    while position < count {
      let (length, value) = (try byte(), try byte())
      if length > 0 {
        // What runs over the end of the row is dropped.
        let run = max(0, min(Int(length), width - column, count - position))
        for index in 0..<run {
          pixels[position + index] = isHalf ? (index % 2 == 0 ? value >> 4 : value & 15) : value
        }
        position += run
        column += run
        continue
      }
      switch value {
      case 0:  // the end of the row
        position = column == 0 ? position + width : (position + width - 1) / width * width
        column = 0
      case 1: return pixels  // the end of the image
      case 2:  // to another place
        let (right, up) = (Int(try byte()), Int(try byte()))
        position = min(position + right + up * width, count)
        column = position % width
      default:
        let run = min(Int(value), count - position)
        let byteCount = isHalf ? (run + 1) / 2 : run
        for index in 0..<byteCount {
          let stored = try byte()
          if !isHalf {
            pixels[position + index] = stored
          } else {
            pixels[position + 2 * index] = stored >> 4
            if 2 * index + 1 < run { pixels[position + 2 * index + 1] = stored & 15 }
          }
        }
        position += run
        column += Int(value)
        offset += offset % 2
      }
    }
    return pixels
  }

  private mutating func byte() throws(SquintError) -> UInt8 {
    if !(bufferStart..<bufferStart + buffer.count).contains(offset) {
      buffer = try file.bytes(at: offset, count: Self.bufferBytes)
      bufferStart = offset
      guard !buffer.isEmpty else { throw file.truncated }
    }
    defer { offset += 1 }
    return buffer[offset - bufferStart]
  }
}
