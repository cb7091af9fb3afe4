import SquintText

/// Bytes as GPT-2 style vocabularies write them: a character for each (`ByteAlphabet`).
enum ByteLevelAlphabet {
  /// The bytes that `text` writes; nil where one of its characters writes none.
  static func bytes(_ text: String) -> [UInt8]? { ByteAlphabet.bytes(text) }

  /// How `bytes` are written.
  static func text(_ bytes: [UInt8]) -> String {
    String(String.UnicodeScalarView(bytes.compactMap { UnicodeScalar(ByteAlphabet.scalar(of: $0)) }))
  }
}
