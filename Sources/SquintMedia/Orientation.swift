/// How the stored rows and columns of an image lie in the image as it is displayed: EXIF's Orientation, 1 to 8.
enum Orientation: Int, Sendable {
  case upright = 1
  case mirrored, turnedAround, upsideDown, transposed, turnedRight, transverse, turnedLeft

  /// Whether a stored row is a displayed column.
  var swapsAxes: Bool { rawValue >= 5 }

  /// Whether the displayed image's x (and y) run against the stored axis that they lie on.
  var flipsX: Bool { [.mirrored, .turnedAround, .turnedRight, .transverse].contains(self) }
  var flipsY: Bool { [.turnedAround, .upsideDown, .transverse, .turnedLeft].contains(self) }
}

extension Orientation {
  /// The orientation in `exif`, a TIFF structure with or without the six bytes "Exif\0\0" before it; upright where there
  /// is none or the structure is damaged, as viewers have it.
  init(exif: [UInt8]) {
    self = Orientation.value(in: exif.starts(with: Array("Exif\0\0".utf8)) ? exif.dropFirst(6) : exif[...]) ?? .upright
  }

  /// Reads the first directory of a TIFF structure (TIFF 6.0, section 2).
  private static func value(in tiff: ArraySlice<UInt8>) -> Orientation? {
    let bytes = Array(tiff)
    guard bytes.count >= 8 else { return nil }
    let isLittleEndian: Bool
    switch (bytes[0], bytes[1]) {
    case (0x49, 0x49): isLittleEndian = true
    case (0x4D, 0x4D): isLittleEndian = false
    default: return nil
    }
    func number(at offset: Int, bytes count: Int) -> Int? {
      guard offset >= 0, offset <= bytes.count - count else { return nil }
      let part = bytes[offset..<offset + count]
      return (isLittleEndian ? Array(part.reversed()) : Array(part)).reduce(0) { $0 << 8 | Int($1) }
    }
    guard number(at: 2, bytes: 2) == 42, let directory = number(at: 4, bytes: 4),
      let entries = number(at: directory, bytes: 2)
    else { return nil }
    for index in 0..<entries {
      let entry = directory + 2 + 12 * index
      guard let tag = number(at: entry, bytes: 2), let kind = number(at: entry + 2, bytes: 2) else { return nil }
      guard tag == 0x0112 else { continue }
      // A SHORT by the standard; some writers use a BYTE or a LONG. All lie at the start of the four bytes of the value.
      guard let byteCount = [1: 1, 3: 2, 4: 4][kind], let value = number(at: entry + 8, bytes: byteCount) else {
        return nil
      }
      return Orientation(rawValue: value)
    }
    return nil
  }
}
