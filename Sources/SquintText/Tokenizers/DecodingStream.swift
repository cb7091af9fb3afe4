/// Turns ids into text one at a time, for output that appears as it is generated.
///
/// It never gives out half a character: bytes that may become one are held back until they do, or until they cannot.
/// The pieces, one after the other, are exactly what `Tokenizer.decode` makes of all ids.
package struct DecodingStream: Sendable {
  private let tokenizer: Tokenizer
  private let skipSpecialTokens: Bool
  /// Byte-level: the start of a character. SentencePiece: a run of `<0xNN>` tokens, which is only known to be text
  /// when it ends.
  private var held: [UInt8] = []
  /// How many spaces at the start are still to be left out.
  private var strippedSpaces = 0

  package init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool) {
    self.tokenizer = tokenizer
    self.skipSpecialTokens = skipSpecialTokens
    if case .sentencePiece(_, let spaces) = tokenizer.decoder { strippedSpaces = spaces }
  }

  /// The text that is certain once `id` has been generated; often empty within a character of several tokens.
  package mutating func append(_ id: Int32) -> String {
    var out: [UInt8] = []
    append(id, to: &out)
    return String(decoding: out, as: UTF8.self)
  }

  /// What was held back, U+FFFD in place of characters that were not completed.
  package mutating func finish() -> String {
    var out: [UInt8] = []
    finish(to: &out)
    return String(decoding: out, as: UTF8.self)
  }

  mutating func append(_ id: Int32, to out: inout [UInt8]) {
    guard tokenizer.contains(id), !(skipSpecialTokens && tokenizer.isSpecial(id)) else { return }
    let token = UnsafeRawBufferPointer(tokenizer.tables.token(Int(id)))
    switch tokenizer.decoder {
    case .byteLevel:
      if held.isEmpty && UTF8Text.validPrefix(token) == token.count {
        out.append(contentsOf: token)
        return
      }
      held.append(contentsOf: token)
      let read = held.withUnsafeBytes { UTF8Text.appendRepaired($0, to: &out, holdsBack: true) }
      held.removeFirst(read)
    case .sentencePiece(let byteFallback, _):
      if byteFallback, let byte = Self.byte(token) {
        held.append(byte)
        return
      }
      releaseBytes(to: &out)
      var index = 0
      while index < token.count {
        if index + 3 <= token.count, token[index] == 0xE2, token[index + 1] == 0x96, token[index + 2] == 0x81 {
          appendStripping(UInt8(ascii: " "), to: &out)
          index += 3
        } else {
          appendStripping(token[index], to: &out)
          index += 1
        }
      }
    }
  }

  mutating func finish(to out: inout [UInt8]) {
    switch tokenizer.decoder {
    case .byteLevel: held.withUnsafeBytes { _ = UTF8Text.appendRepaired($0, to: &out) }
    case .sentencePiece: releaseBytes(to: &out)
    }
    held.removeAll()
  }

  /// A run of bytes is text as a whole or, as in the reference, U+FFFD for each byte.
  private mutating func releaseBytes(to out: inout [UInt8]) {
    guard !held.isEmpty else { return }
    if held.withUnsafeBytes({ UTF8Text.validPrefix($0) }) == held.count {
      for byte in held { appendStripping(byte, to: &out) }
    } else {
      strippedSpaces = 0
      for _ in held { out.append(contentsOf: UTF8Text.replacement) }
    }
    held.removeAll(keepingCapacity: true)
  }

  @inline(__always)
  private mutating func appendStripping(_ byte: UInt8, to out: inout [UInt8]) {
    if strippedSpaces > 0 {
      if byte == UInt8(ascii: " ") {
        strippedSpaces -= 1
        return
      }
      strippedSpaces = 0
    }
    out.append(byte)
  }

  /// The byte that a token `<0xNN>` stands for.
  private static func byte(_ token: UnsafeRawBufferPointer) -> UInt8? {
    guard token.count == 6, token[0] == UInt8(ascii: "<"), token[1] == UInt8(ascii: "0"),
      token[2] == UInt8(ascii: "x"), token[5] == UInt8(ascii: ">"),
      let high = digit(token[3]), let low = digit(token[4])
    else { return nil }
    return high << 4 | low
  }

  private static func digit(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
