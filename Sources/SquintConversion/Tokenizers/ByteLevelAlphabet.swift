import SquintText

/// Bytes as GPT-2 style vocabularies write them: a character for each (`ByteAlphabet`).
enum ByteLevelAlphabet {
  /// The byte that each of the first 324 scalars stands for; -1 where it stands for none.
  private static let byteOfScalar: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x144)
    for byte in 0..<256 { table[Int(ByteAlphabet.scalar(of: UInt8(byte)))] = Int16(byte) }
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

  /// How `bytes` are written.
  static func text(_ bytes: [UInt8]) -> String {
    String(String.UnicodeScalarView(bytes.compactMap { UnicodeScalar(ByteAlphabet.scalar(of: $0)) }))
  }
}
