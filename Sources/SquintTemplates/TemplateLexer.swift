import SquintFile

/// One token of a template's source.
struct TemplateToken: Sendable {
  enum Kind: Sendable, Equatable {
    case data(PythonText)
    case variableBegin, variableEnd, blockBegin, blockEnd
    case name(PythonText)
    case string(PythonText)
    case integer(Int)
    case symbol(Symbol)
    case end
  }

  enum Symbol: String, Sendable {
    case floorDivide = "//"
    case power = "**"
    case equal = "=="
    case notEqual = "!="
    case greaterOrEqual = ">="
    case lessOrEqual = "<="
    case add = "+"
    case subtract = "-"
    case divide = "/"
    case multiply = "*"
    case modulo = "%"
    case tilde = "~"
    case leftBracket = "["
    case rightBracket = "]"
    case leftParenthesis = "("
    case rightParenthesis = ")"
    case leftBrace = "{"
    case rightBrace = "}"
    case greater = ">"
    case less = "<"
    case assign = "="
    case dot = "."
    case colon = ":"
    case pipe = "|"
    case comma = ","
    case semicolon = ";"
  }

  let kind: Kind
  let line: Int

  /// How an error message names the token.
  var description: String {
    switch kind {
    case .data: "text"
    case .variableBegin: "'{{'"
    case .variableEnd: "'}}'"
    case .blockBegin: "'{%'"
    case .blockEnd: "'%}'"
    case .name(let name): "'\(templateExcerpt(name.string))'"
    case .string(let text): "the string '\(templateExcerpt(text.string))'"
    case .integer(let value): "\(value)"
    case .symbol(let symbol): "'\(symbol.rawValue)'"
    case .end: "the end of the template"
    }
  }
}

/// An error in a chat template, with its line.
func templateError(_ line: Int, _ message: String) -> SquintError {
  SquintError(.badData, "chat template, line \(grouped(line)): \(message)")
}

/// `text` on one line and not too long, to be quoted in an error.
func templateExcerpt(_ text: String, limit: Int = 400) -> String {
  var result = ""
  for (count, scalar) in text.unicodeScalars.enumerated() {
    if count == limit { return result + "…" }
    result.unicodeScalars.append(scalar.properties.generalCategory == .control ? " " : scalar)
  }
  return result
}

/// Cuts a template's source into tokens, as jinja2's Lexer (jinja2/lexer.py) does with `trim_blocks` and
/// `lstrip_blocks` on, which is how transformers compiles chat templates (transformers/utils/chat_template_utils.py).
struct TemplateLexer {
  /// A chat template is a few kilobytes; the longest published ones are under 100.
  static let maximumSource = 4 << 20

  private let source: PythonText
  private var index = 0
  private var line = 1
  private var tokens: [TemplateToken] = []
  /// Whether the last piece of source ended with a line break, so that the next one begins a line.
  private var atLineStart = true

  private var bytes: [UInt8] { source.bytes }

  init(source: String) {
    // Line breaks become "\n", and one at the very end is dropped (keep_trailing_newline is off).
    var normalized: [UInt8] = []
    normalized.reserveCapacity(source.utf8.count)
    var afterReturn = false
    for byte in source.utf8 {
      if byte == 0x0D {
        normalized.append(0x0A)
      } else if byte != 0x0A || !afterReturn {
        normalized.append(byte)
      }
      afterReturn = byte == 0x0D
    }
    if normalized.last == 0x0A { normalized.removeLast() }
    self.source = PythonText(bytes: normalized).asOwn
  }

  static func tokens(of source: String) throws(SquintError) -> [TemplateToken] {
    guard source.utf8.count <= maximumSource else {
      throw SquintError(
        .badData,
        "chat template: \(grouped(source.utf8.count)) bytes; more than \(grouped(maximumSource)) is not supported")
    }
    var lexer = TemplateLexer(source: source)
    try lexer.run()
    return lexer.tokens
  }

  private mutating func run() throws(SquintError) {
    while index < bytes.count {
      guard let tag = nextTag() else {
        emit(.data(source[index..<bytes.count]))
        index = bytes.count
        break
      }
      let second = bytes[tag + 1]
      let sign: UInt8 = tag + 2 < bytes.count ? bytes[tag + 2] : 0
      emitData(from: index, to: tag, sign: sign, isVariable: second == UInt8(ascii: "{"))
      let hasSign = sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+")
      advance(to: tag + (hasSign ? 3 : 2))
      switch second {
      case UInt8(ascii: "#"): try comment()
      case UInt8(ascii: "%"):
        emit(.blockBegin)
        try inside(isBlock: true)
      default:
        emit(.variableBegin)
        try inside(isBlock: false)
      }
    }
    emit(.end)
  }

  private mutating func emit(_ kind: TemplateToken.Kind) {
    tokens.append(TemplateToken(kind: kind, line: line))
  }

  private mutating func advance(to end: Int) {
    for byte in bytes[index..<end] where byte == 0x0A { line += 1 }
    if end > index { atLineStart = bytes[end - 1] == 0x0A }
    index = end
  }

  private func byte(_ index: Int) -> UInt8 { index < bytes.count ? bytes[index] : 0 }

  private func nextTag() -> Int? {
    var position = index
    while position + 1 < bytes.count {
      if bytes[position] == UInt8(ascii: "{") {
        let next = bytes[position + 1]
        if next == UInt8(ascii: "{") || next == UInt8(ascii: "%") || next == UInt8(ascii: "#") { return position }
      }
      position += 1
    }
    return nil
  }

  private func skipSpace(from start: Int) -> Int {
    var position = start
    while position < bytes.count {
      let (scalar, length) = source.scalar(at: position)
      guard scalar.isPythonSpace else { break }
      position += length
    }
    return position
  }

  /// Emits the text before a tag: stripped at its end where the tag begins with "-", and without the blanks that
  /// indent the tag where it stands alone at the beginning of a line.
  private mutating func emitData(from start: Int, to end: Int, sign: UInt8, isVariable: Bool) {
    var text = source[start..<end]
    if sign == UInt8(ascii: "-") {
      text = text.stripped(left: false)
    } else if sign != UInt8(ascii: "+") && !isVariable {
      let lineStart = (text.bytes.lastIndex(of: 0x0A) ?? -1) + 1
      if lineStart > 0 || atLineStart {
        let indent = text[lineStart..<text.bytes.count]
        if indent.allScalars(\.isPythonSpace) { text = text[0..<lineStart] }
      }
    }
    if !text.isEmpty { emit(.data(text)) }
    advance(to: end)
  }

  /// Where the source goes on after a block's end that begins at `position`, if one does: "+%}" keeps what follows,
  /// "-%}" skips all white space, "%}" one line break.
  private func blockEnd(at position: Int, sign: StaticString = "%}") -> Int? {
    let end = PythonText(stringLiteral: sign)
    switch byte(position) {
    case UInt8(ascii: "+"): return source.matches(end, at: position + 1) ? position + 3 : nil
    case UInt8(ascii: "-"):
      return source.matches(end, at: position + 1) ? skipSpace(from: position + 3) : nil
    default:
      guard source.matches(end, at: position) else { return nil }
      return byte(position + 2) == 0x0A ? position + 3 : position + 2
    }
  }

  private mutating func comment() throws(SquintError) {
    var position = index
    while position + 1 < bytes.count {
      // The earliest end counts, and its sign belongs to it.
      if let end = blockEnd(at: position, sign: "#}") {
        advance(to: end)
        return
      }
      position += 1
    }
    throw templateError(line, "the comment is not closed; '#}' is missing")
  }

  private mutating func inside(isBlock: Bool) throws(SquintError) {
    var open: [UInt8] = []
    while true {
      guard index < bytes.count else {
        throw templateError(line, "the tag is not closed; '\(isBlock ? "%}" : "}}")' is missing")
      }
      if open.isEmpty {
        if isBlock, let end = blockEnd(at: index) {
          emit(.blockEnd)
          advance(to: end)
          return
        }
        if !isBlock && source.matches("-}}", at: index) {
          emit(.variableEnd)
          advance(to: skipSpace(from: index + 3))
          return
        }
        if !isBlock && source.matches("}}", at: index) {
          emit(.variableEnd)
          advance(to: index + 2)
          return
        }
      }
      let afterSpace = skipSpace(from: index)
      if afterSpace > index {
        advance(to: afterSpace)
        continue
      }
      if try number() { continue }
      if try name() { continue }
      let first = bytes[index]
      if first == UInt8(ascii: "'") || first == UInt8(ascii: "\"") {
        try string()
        continue
      }
      let symbol = try symbol()
      switch symbol {
      case .leftBrace: open.append(UInt8(ascii: "}"))
      case .leftBracket: open.append(UInt8(ascii: "]"))
      case .leftParenthesis: open.append(UInt8(ascii: ")"))
      case .rightBrace, .rightBracket, .rightParenthesis:
        guard open.popLast() == first else { throw templateError(line, "'\(symbol.rawValue)' closes nothing") }
      default: break
      }
      emit(.symbol(symbol))
      advance(to: index + symbol.rawValue.utf8.count)
    }
  }

  private func symbol() throws(SquintError) -> TemplateToken.Symbol {
    if index + 1 < bytes.count,
      let symbol = TemplateToken.Symbol(rawValue: String(decoding: bytes[index...index + 1], as: UTF8.self))
    {
      return symbol
    }
    let (scalar, _) = source.scalar(at: index)
    guard let symbol = TemplateToken.Symbol(rawValue: String(scalar)) else {
      throw templateError(line, "unexpected character '\(templateExcerpt(String(scalar)))'")
    }
    return symbol
  }

  private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

  private mutating func number() throws(SquintError) -> Bool {
    guard isDigit(bytes[index]) else { return false }
    var end = index
    while isDigit(byte(end)) { end += 1 }
    // What goes on as a number that Python writes in another way: 0.5, 1e3, 0xff, 1_000.
    let isKey = index > 0 && bytes[index - 1] == UInt8(ascii: ".")
    let isPart = !isKey && byte(end) == UInt8(ascii: ".") && isDigit(byte(end + 1))
    let text = String(decoding: bytes[index..<end], as: UTF8.self)
    guard !isPart, byte(end) != UInt8(ascii: "_"), !Unicode.Scalar(byte(end)).properties.isAlphabetic,
      let value = Int(text)
    else {
      throw templateError(
        line,
        "the number that begins with \(templateExcerpt(text, limit: 40)) is not supported; only whole ones of 64 bits")
    }
    emit(.integer(value))
    advance(to: end)
    return true
  }

  private mutating func name() throws(SquintError) -> Bool {
    var end = index
    while end < bytes.count {
      let (scalar, length) = source.scalar(at: end)
      guard scalar == "_" || scalar.properties.isXIDContinue else { break }
      end += length
    }
    guard end > index else { return false }
    let (first, _) = source.scalar(at: index)
    guard first == "_" || first.properties.isXIDStart else {
      throw templateError(line, "a name cannot begin with '\(first)'")
    }
    emit(.name(source[index..<end]))
    advance(to: end)
    return true
  }

  private mutating func string() throws(SquintError) {
    let quote = bytes[index]
    var position = index + 1
    var text = PythonText()
    while position < bytes.count {
      let byte = bytes[position]
      position += 1
      if byte == quote {
        emit(.string(text.asOwn))
        advance(to: position)
        return
      }
      guard byte == UInt8(ascii: "\\") else {
        text.append(byte: byte)
        continue
      }
      guard position < bytes.count else { break }
      let escape = bytes[position]
      position += 1
      switch escape {
      case 0x0A: break
      case UInt8(ascii: "\\"), UInt8(ascii: "'"), UInt8(ascii: "\""): text.append(byte: escape)
      case UInt8(ascii: "n"): text.append(byte: 0x0A)
      case UInt8(ascii: "r"): text.append(byte: 0x0D)
      case UInt8(ascii: "t"): text.append(byte: 0x09)
      case UInt8(ascii: "x"), UInt8(ascii: "u"):
        let count = escape == UInt8(ascii: "x") ? 2 : 4
        let digits = bytes[position..<min(position + count, bytes.count)]
        guard digits.count == count, digits.allSatisfy({ Unicode.Scalar($0).properties.isASCIIHexDigit }),
          let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16),
          let scalar = Unicode.Scalar(value)
        else {
          throw templateError(line, "a string has a '\\\(Unicode.Scalar(escape))' escape that names no character")
        }
        text.append(scalar)
        position += count
      case UInt8(ascii: "0")...UInt8(ascii: "7"), UInt8(ascii: "a"), UInt8(ascii: "b"), UInt8(ascii: "f"),
        UInt8(ascii: "v"), UInt8(ascii: "N"), UInt8(ascii: "U"):
        throw templateError(
          line,
          "the escape '\\\(Unicode.Scalar(escape))' in a string is not supported; write it as \\u with four digits")
      default:
        // Python keeps the backslash of an escape that it does not know.
        text.append(byte: UInt8(ascii: "\\"))
        position -= 1
      }
    }
    throw templateError(line, "a string is not closed")
  }
}
