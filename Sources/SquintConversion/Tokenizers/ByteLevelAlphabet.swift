/// The characters that GPT-2 style vocabularies write bytes as: printable Latin-1 characters stand for themselves, the
/// other 68 bytes for U+0100 to U+0143 in order (openai/gpt-2, encoder.py, `bytes_to_unicode`).
enum ByteLevelAlphabet {
  /// The byte that each of the first 324 scalars stands for; -1 where it stands for none.
  private static let byteOfScalar: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x144)
    var next = 0x100
    for byte in 0..<256 {
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: table[byte] = Int16(byte)
      default:
        table[next] = Int16(byte)
        next += 1
      }
    }
    return table
  }()

  /// The bytes that `text` writes; nil where one of its characters writes none.
  static func bytes(_ text: String) -> [UInt8]? {
    var out: [UInt8] = []
    out.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
      guard scalar.value < 0x144, byteOfScalar[Int(scalar.value)] >= 0 else { return nil }
      out.append(UInt8(byteOfScalar[Int(scalar.value)]))
    }
    return out
  }
}
