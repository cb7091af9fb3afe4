/// The tokens of a program in Python, as far as texts in it are looked for. Nothing is run.
struct PythonTokens {
  enum Token: Equatable {
    /// A literal, of which what stands in braces is apart where it is an f-string.
    case text([Piece])
    /// `b"…"`, or a text with a character by its name, `\N{…}`, or in octal.
    case otherText([Piece])
    /// A name, a number, an operator, a bracket.
    case word(String)
    /// The end of a statement.
    case end
  }

  /// What a text is made of; nothing where a token is none.
  static func pieces(of token: Token) -> [Piece] {
    switch token {
    case .text(let pieces), .otherText(let pieces): pieces
    case .word, .end: []
    }
  }

  enum Piece: Equatable {
    case literal(String)
    /// What is between the braces of an f-string.
    case field(String)
  }

  /// A text that is not closed, in this line.
  struct Unclosed: Error {
    let line: Int
  }

  private(set) var tokens: [Token] = []
  /// Of each token.
  private(set) var lines: [Int] = []

  private let bytes: [UInt8]
  private var position = 0
  private var line = 1

  init(_ program: String) throws(Unclosed) {
    bytes = Array(program.utf8)
    try read()
  }

  private mutating func read() throws(Unclosed) {
    var depth = 0
    while let byte = peek() {
      switch byte {
      case UInt8(ascii: "#"): while let byte = peek(), byte != UInt8(ascii: "\n") { position += 1 }
      case UInt8(ascii: "\n"):
        if depth == 0 { append(.end, line) }
        line += 1
        position += 1
      case UInt8(ascii: ";"):
        append(.end, line)
        position += 1
      case UInt8(ascii: "\\"):
        // It joins two lines.
        position += 1
        if peek() == UInt8(ascii: "\r") { position += 1 }
        if peek() == UInt8(ascii: "\n") { (line, position) = (line + 1, position + 1) }
      case 0...0x20: position += 1
      case UInt8(ascii: "\""), UInt8(ascii: "'"):
        let first = line
        append(try text(prefix: ""), first)
      case _ where Self.isWord(byte):
        let start = position
        while let byte = peek(), Self.isWord(byte) { position += 1 }
        let word = String(decoding: bytes[start..<position], as: UTF8.self)
        let first = line
        if let quote = peek(), quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'"),
          ["r", "u", "b", "f", "t", "br", "rb", "fr", "rf", "tr", "rt"].contains(word.lowercased())
        {
          append(try text(prefix: word.lowercased()), first)
        } else {
          append(.word(word), first)
        }
      default:
        if "([{".utf8.contains(byte) { depth += 1 }
        if ")]}".utf8.contains(byte) { depth = max(depth - 1, 0) }
        let isPair = peek(1) == UInt8(ascii: "=") && "+-*/%&|^<>=!:@".utf8.contains(byte)
        append(.word(String(decoding: bytes[position..<position + (isPair ? 2 : 1)], as: UTF8.self)), line)
        position += isPair ? 2 : 1
      }
    }
    append(.end, line)
  }

  private mutating func append(_ token: Token, _ line: Int) {
    tokens.append(token)
    lines.append(line)
  }

  private func peek(_ distance: Int = 0) -> UInt8? {
    position + distance < bytes.count ? bytes[position + distance] : nil
  }

  /// Letters, digits, and all that is not ASCII.
  private static func isWord(_ byte: UInt8) -> Bool {
    byte >= 0x80 || byte == UInt8(ascii: "_") || (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte)
      || (0x61...0x7A).contains(byte)
  }

  // MARK: Texts

  /// The literal whose quote comes next.
  private mutating func text(prefix: String) throws(Unclosed) -> Token {
    let first = line
    let quote = bytes[position]
    let isTriple = peek(1) == quote && peek(2) == quote
    position += isTriple ? 3 : 1
    let (isRaw, isFormat) = (prefix.contains("r"), prefix.contains("f"))
    var isOther = prefix.contains("b") || prefix.contains("t")
    var pieces: [Piece] = []
    var literal: [UInt8] = []
    func flush() {
      if !literal.isEmpty { pieces.append(.literal(String(decoding: literal, as: UTF8.self))) }
      literal = []
    }
    while true {
      guard let byte = peek(), isTriple || byte != UInt8(ascii: "\n") else { throw Unclosed(line: first) }
      switch byte {
      case quote where !isTriple || peek(1) == quote && peek(2) == quote:
        position += isTriple ? 3 : 1
        flush()
        return isOther ? .otherText(pieces) : .text(pieces)
      case UInt8(ascii: "\\"):
        position += 1
        guard let escaped = peek() else { throw Unclosed(line: first) }
        if escaped == UInt8(ascii: "\n") { line += 1 }
        if isRaw {
          literal += [byte, escaped]
          position += 1
        } else if let bytes = escape(&isOther) {
          literal += bytes
        }
      case UInt8(ascii: "{") where isFormat && peek(1) != byte:
        flush()
        pieces.append(.field(try field(quote: quote, isTriple: isTriple, first)))
      default:
        // Two braces are one.
        if isFormat, byte == UInt8(ascii: "{") || byte == UInt8(ascii: "}"), peek(1) == byte { position += 1 }
        if byte == UInt8(ascii: "\n") { line += 1 }
        literal.append(byte)
        position += 1
      }
    }
  }

  /// What is between the braces of an f-string, of which the first comes next.
  private mutating func field(quote: UInt8, isTriple: Bool, _ first: Int) throws(Unclosed) -> String {
    position += 1
    let start = position
    var depth = 0
    var isInFormat = false
    while let byte = peek() {
      if byte == UInt8(ascii: "}"), depth == 0 {
        defer { position += 1 }
        return String(decoding: bytes[start..<position], as: UTF8.self)
      }
      if !isInFormat, byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
        _ = try text(prefix: "")
        continue
      }
      if byte == quote, !isTriple { break }
      if "([{".utf8.contains(byte) { depth += 1 }
      if ")]}".utf8.contains(byte) { depth -= 1 }
      if byte == UInt8(ascii: ":"), depth == 0 { isInFormat = true }
      if byte == UInt8(ascii: "\n") { line += 1 }
      position += 1
    }
    throw Unclosed(line: first)
  }

  /// What the escape behind a backslash stands for.
  private mutating func escape(_ isOther: inout Bool) -> [UInt8]? {
    let letter = bytes[position]
    position += 1
    func digits(_ count: Int, base: Int) -> Int? {
      let digits = bytes[position...].prefix(count)
      guard digits.count == count else { return nil }
      return Int(String(decoding: digits, as: UTF8.self), radix: base)
    }
    switch letter {
    case UInt8(ascii: "\n"): return []
    case UInt8(ascii: "n"): return [0x0A]
    case UInt8(ascii: "t"): return [0x09]
    case UInt8(ascii: "r"): return [0x0D]
    case UInt8(ascii: "a"): return [0x07]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0C]
    case UInt8(ascii: "v"): return [0x0B]
    case UInt8(ascii: "\\"), UInt8(ascii: "'"), UInt8(ascii: "\""): return [letter]
    case UInt8(ascii: "x"), UInt8(ascii: "u"), UInt8(ascii: "U"):
      let count = letter == UInt8(ascii: "x") ? 2 : letter == UInt8(ascii: "u") ? 4 : 8
      guard let value = digits(count, base: 16), let scalar = Unicode.Scalar(UInt32(clamping: value)) else { break }
      position += count
      return Array(String(scalar).utf8)
    case UInt8(ascii: "N"), UInt8(ascii: "0")...UInt8(ascii: "7"): break
    // Python leaves the others as they are.
    default: return [UInt8(ascii: "\\"), letter]
    }
    isOther = true
    return nil
  }
}
