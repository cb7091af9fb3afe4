import SquintFile

/// What decoding a lossless WebP image (VP8L) takes beside its pixels, found by reading it as far as to the codes of its pixels.
///
/// Each block of an image names one of up to 65,536 groups of prefix codes, and libwebp makes tables of kilobytes for each
/// group. How many there are is in the entropy image alone, which lies behind the images of the transforms, and is coded as
/// they are. All are at most a sixteenth of the image. (RFC 9649, section 3.)
struct WebPLossless {
  /// The groups of prefix codes.
  private(set) var groups = 1
  /// The colours that codes can refer to, as a power of two.
  private(set) var cacheBits = 0

  /// At most what libwebp holds for the tables of one group (vp8l_dec.c: kTableSize, of 4 bytes each, and HTreeGroup).
  static func tableBytes(cacheBits: Int) -> Int {
    let green = [654, 656, 658, 662, 670, 686, 718, 782, 912, 1168, 1680, 2704]
    return 4 * (3 * 630 + 410 + green[min(cacheBits, 11)]) + 600
  }

  /// At most what libwebp holds for the tables of all groups, in bytes.
  var byteCount: Int { groups * Self.tableBytes(cacheBits: cacheBits) }

  /// Reads the image of `width` × `height` pixels whose data are the bytes `range` of `file`.
  ///
  /// - Parameter isAlpha: whether it is the alpha of a lossy image, which has no header.
  /// - Throws: `badData` where that is damaged, as libwebp would find, or ends; `inputOutput` where it cannot be read.
  init(_ file: MediaFile, _ range: Range<Int>, width: Int, height: Int, isAlpha: Bool) throws(SquintError) {
    var reader = BitReader(file, range)
    do throws(Failure) {
      if !isAlpha {
        try reader.skip(8 + 14 + 14 + 1)
        guard try reader.bits(3) == 0 else { throw .damaged }
      }
      try read(&reader, width: width, height: height)
    } catch {
      switch error {
      case .damaged: throw file.error("the image's data is damaged; copy or download it again")
      case .truncated: throw file.truncated
      case .unreadable(let error): throw error
      }
    }
  }

  private enum Failure: Error {
    case damaged
    case truncated
    case unreadable(SquintError)
  }

  private mutating func read(_ reader: inout BitReader, width: Int, height: Int) throws(Failure) {
    var width = width
    func blocks(_ count: Int, _ bits: Int) -> Int { (count + (1 << bits) - 1) >> bits }
    var seen: Set<Int> = []
    while try reader.bits(1) == 1 {
      let transform = try reader.bits(2)
      guard seen.insert(transform).inserted else { throw .damaged }
      switch transform {
      case 0, 1:  // a predictor, or how colours depend on each other, for each block
        let bits = try reader.bits(3) + 2
        try readImage(&reader, width: blocks(width, bits), height: blocks(height, bits)) { _ in }
      case 2: break  // green is subtracted
      default:  // a table of colours, of which several indices share a pixel
        let colours = try reader.bits(8) + 1
        try readImage(&reader, width: colours, height: 1) { _ in }
        width = blocks(width, colours > 16 ? 0 : colours > 4 ? 1 : colours > 2 ? 2 : 3)
      }
    }
    cacheBits = try Self.cacheBits(&reader)
    guard try reader.bits(1) == 1 else { return }
    let bits = try reader.bits(3) + 2
    var last = 0
    try readImage(&reader, width: blocks(width, bits), height: blocks(height, bits)) { pixel in
      last = max(last, Int(pixel >> 8 & 0xFFFF))
    }
    groups = last + 1
  }

  private static func cacheBits(_ reader: inout BitReader) throws(Failure) -> Int {
    guard try reader.bits(1) == 1 else { return 0 }
    let bits = try reader.bits(4)
    guard (1...11).contains(bits) else { throw .damaged }
    return bits
  }

  /// Decodes an image that has one group of codes, and hands out each pixel.
  private func readImage(
    _ reader: inout BitReader, width: Int, height: Int, visit: (UInt32) -> Void
  ) throws(Failure) {
    let cacheBits = try Self.cacheBits(&reader)
    let cacheSize = cacheBits > 0 ? 1 << cacheBits : 0
    let green = try PrefixCode(&reader, symbols: 256 + 24 + cacheSize)
    let red = try PrefixCode(&reader, symbols: 256)
    let blue = try PrefixCode(&reader, symbols: 256)
    let alpha = try PrefixCode(&reader, symbols: 256)
    let distances = try PrefixCode(&reader, symbols: 40)
    let count = width * height
    // No distance is longer than this.
    let window = min(count, 1 << 20)
    var pixels = [UInt32](repeating: 0, count: window)
    var cache = [UInt32](repeating: 0, count: cacheSize)
    var done = 0
    func add(_ pixel: UInt32) {
      pixels[done % window] = pixel
      done += 1
      if cacheSize > 0 { cache[Int((pixel &* 0x1E35_A7BD) >> UInt32(32 - cacheBits))] = pixel }
      visit(pixel)
    }
    while done < count {
      let symbol = try green.next(&reader)
      switch symbol {
      case 0..<256:
        let level = try red.next(&reader)
        let blue = try blue.next(&reader)
        let alpha = try alpha.next(&reader)
        add(UInt32(alpha << 24 | level << 16 | symbol << 8 | blue))
      case 256..<280:
        let length = try Self.number(symbol - 256, &reader)
        let distance = Self.distance(try Self.number(try distances.next(&reader), &reader), width: width)
        guard distance <= done, length <= count - done else { throw .damaged }
        for _ in 0..<length { add(pixels[(done - distance) % window]) }
      default: add(cache[symbol - 280])
      }
    }
  }

  /// The length or distance that begins with the prefix `symbol`.
  private static func number(_ symbol: Int, _ reader: inout BitReader) throws(Failure) -> Int {
    guard symbol >= 4 else { return symbol + 1 }
    let extra = (symbol - 2) >> 1
    return (2 + symbol & 1) << extra + (try reader.bits(extra)) + 1
  }

  /// How many pixels back distance code `code` is: the first 120 are the nearest places in two dimensions.
  private static func distance(_ code: Int, width: Int) -> Int {
    guard code <= nearest.count else { return code - nearest.count }
    let place = nearest[code - 1]
    return max(Int(place >> 4) * width + 8 - Int(place & 15), 1)
  }

  /// Rows up, and 8 less the columns to the left, in four bits each.
  private static let nearest: [UInt8] = [
    0x18, 0x07, 0x17, 0x19, 0x28, 0x06, 0x27, 0x29, 0x16, 0x1A, 0x26, 0x2A, 0x38, 0x05, 0x37, 0x39, 0x15, 0x1B, 0x36,
    0x3A, 0x25, 0x2B, 0x48, 0x04, 0x47, 0x49, 0x14, 0x1C, 0x35, 0x3B, 0x46, 0x4A, 0x24, 0x2C, 0x58, 0x45, 0x4B, 0x34,
    0x3C, 0x03, 0x57, 0x59, 0x13, 0x1D, 0x56, 0x5A, 0x23, 0x2D, 0x44, 0x4C, 0x55, 0x5B, 0x33, 0x3D, 0x68, 0x02, 0x67,
    0x69, 0x12, 0x1E, 0x66, 0x6A, 0x22, 0x2E, 0x54, 0x5C, 0x43, 0x4D, 0x65, 0x6B, 0x32, 0x3E, 0x78, 0x01, 0x77, 0x79,
    0x53, 0x5D, 0x11, 0x1F, 0x64, 0x6C, 0x42, 0x4E, 0x76, 0x7A, 0x21, 0x2F, 0x75, 0x7B, 0x31, 0x3F, 0x63, 0x6D, 0x52,
    0x5E, 0x00, 0x74, 0x7C, 0x41, 0x4F, 0x10, 0x20, 0x62, 0x6E, 0x30, 0x73, 0x7D, 0x51, 0x5F, 0x40, 0x72, 0x7E, 0x61,
    0x6F, 0x50, 0x71, 0x7F, 0x60, 0x70,
  ]

  /// A canonical prefix code.
  private struct PrefixCode {
    /// Of each length: how many codes there are; and the symbols in the order of their codes.
    private var counts = [Int](repeating: 0, count: 16)
    private var symbols: [Int] = []

    init(_ reader: inout BitReader, symbols: Int) throws(Failure) {
      var lengths = [Int](repeating: 0, count: max(symbols, 256))
      if try reader.bits(1) == 1 {
        let isPair = try reader.bits(1) == 1
        lengths[try reader.bits(try reader.bits(1) == 1 ? 8 : 1)] = 1
        if isPair { lengths[try reader.bits(8)] = 1 }
      } else {
        try Self.read(&lengths, symbols, &reader)
      }
      // A pair may name symbols that there are not.
      try self.init(lengths[..<symbols])
    }

    private init(_ lengths: ArraySlice<Int>) throws(Failure) {
      for length in lengths where length > 0 { counts[length] += 1 }
      for length in 1..<16 where counts[length] > 0 {
        for (symbol, own) in lengths.enumerated() where own == length { symbols.append(symbol) }
      }
      guard symbols.count > 0 else { throw .damaged }
      guard symbols.count > 1 else { return }  // takes no bits
      // Every sequence of bits is a code.
      var open = 1
      for length in 1..<16 {
        open = 2 * open - counts[length]
        guard open >= 0 else { throw .damaged }
      }
      guard open == 0 else { throw .damaged }
    }

    /// Reads the lengths of the codes of `symbols` symbols, which are coded themselves.
    private static func read(_ lengths: inout [Int], _ symbols: Int, _ reader: inout BitReader) throws(Failure) {
      let order = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
      var own = [Int](repeating: 0, count: order.count)
      for index in 0..<(try reader.bits(4) + 4) {
        guard index < order.count else { throw .damaged }
        own[order[index]] = try reader.bits(3)
      }
      let code = try PrefixCode(own[...])
      var left = symbols
      if try reader.bits(1) == 1 {
        left = try reader.bits(try 2 + 2 * reader.bits(3)) + 2
        guard left <= symbols else { throw .damaged }
      }
      var (symbol, previous) = (0, 8)
      while symbol < symbols, left > 0 {
        left -= 1
        let length = try code.next(&reader)
        guard length >= 16 else {
          lengths[symbol] = length
          symbol += 1
          if length > 0 { previous = length }
          continue
        }
        let repeats = try length == 16 ? reader.bits(2) + 3 : length == 17 ? reader.bits(3) + 3 : reader.bits(7) + 11
        guard repeats <= symbols - symbol else { throw .damaged }
        if length == 16 { for index in 0..<repeats { lengths[symbol + index] = previous } }
        symbol += repeats
      }
    }

    /// The next symbol.
    @inline(__always)
    func next(_ reader: inout BitReader) throws(Failure) -> Int {
      guard symbols.count > 1 else { return symbols[0] }
      var (code, first, index) = (0, 0, 0)
      for length in 1..<16 {
        code |= try reader.bits(1)
        let count = counts[length]
        if code - first < count { return symbols[index + code - first] }
        index += count
        first = (first + count) << 1
        code <<= 1
      }
      throw .damaged
    }
  }

  /// Bits, the lowest of each byte first.
  private struct BitReader {
    private static let stepBytes = 16 << 10

    private let file: MediaFile
    private var range: Range<Int>
    private var bytes: [UInt8] = []
    private var position = 0
    private var held: UInt64 = 0
    private var heldBits = 0

    init(_ file: MediaFile, _ range: Range<Int>) {
      self.file = file
      self.range = range
    }

    /// The next `count` bits, at most 32.
    @inline(__always)
    mutating func bits(_ count: Int) throws(Failure) -> Int {
      while heldBits < count { try fill() }
      let value = Int(held & (1 << UInt64(count) - 1))
      held >>= UInt64(count)
      heldBits -= count
      return value
    }

    mutating func skip(_ count: Int) throws(Failure) {
      for _ in 0..<count { _ = try bits(1) }
    }

    private mutating func fill() throws(Failure) {
      if position == bytes.count {
        do throws(SquintError) {
          bytes = try file.bytes(at: range.lowerBound, count: min(range.count, Self.stepBytes))
        } catch {
          throw .unreadable(error)
        }
        guard !bytes.isEmpty else { throw .truncated }
        range = range.lowerBound + bytes.count..<range.upperBound
        position = 0
      }
      held |= UInt64(bytes[position]) << UInt64(heldBits)
      position += 1
      heldBits += 8
    }
  }
}
