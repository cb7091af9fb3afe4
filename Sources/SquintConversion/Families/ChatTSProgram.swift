import SquintFile

/// What a program of ChatTS (`processing_*.py`) writes in front of a series.
///
/// It is an f-string, or several behind each other or with `+` between them, which is given a name or returned, and ends with `<ts>`:
///
///     prompt = f"[offset={-mean:.4f}|scaling={scale_factor:.4f}]<ts>"
///
/// What looks like it and is not is refused with its line: another text in the prompt makes a model answer worse, and nobody sees why.
struct ChatTSProgram {
  private let path: String
  private let tokens: [PythonTokens.Token]
  private let lines: [Int]

  /// The text in front of a series in our words, and its line.
  struct Prefix {
    let text: String
    let line: Int
  }

  /// What the fields of the f-string are called in a model file.
  private static let words: KeyValuePairs = [
    "-mean:.4f": "offset", "scale_factor:.4f": "scaling", "len(timeseries)": "length", "max(timeseries):.4f": "max",
    "np.max(timeseries):.4f": "max", "min(timeseries):.4f": "min", "np.min(timeseries):.4f": "min",
    "timeseries[0]:.4f": "left", "timeseries[-1]:.4f": "right",
  ]

  /// No program has more; each is followed through its function.
  private static let mostTexts = 32

  /// With `{title}` in front it is still a text that a model file has (formats/series.md).
  private static let mostBytes = 240

  /// - Throws: `badData` where a text of the program is not closed.
  init(_ program: String, path: String) throws(SquintError) {
    do {
      let read = try PythonTokens(program)
      (tokens, lines) = (read.tokens, read.lines)
    } catch {
      throw .badData(path, "line \(error.line): a text is not closed; download the file again")
    }
    self.path = path
  }

  /// All that it may write, in the order of its lines; none where nothing looks like it.
  ///
  /// - Throws: `badData` with the line of what cannot be read.
  func prefixes() throws(SquintError) -> [Prefix] {
    var found: [Prefix] = []
    var index = 0
    while index < tokens.count {
      let end = tokens[index...].firstIndex(of: .end) ?? tokens.count
      let statement = index..<end
      index = end + 1
      // A text by itself is a comment, and a message of an error may have the same words in it.
      let isComment = statement.allSatisfy(isText)
      guard !isComment, !isMessage(statement) else { continue }
      var next = statement.lowerBound
      while let text = (next..<end).first(where: isText) {
        let group = group(around: text, in: statement)
        if isLikePrefix(group, in: statement) {
          guard found.count < Self.mostTexts else { throw refused(lines[text], "there are too many texts like it") }
          found.append(try prefix(group, in: statement))
        }
        next = group.upperBound
      }
    }
    return found
  }

  private func isMessage(_ statement: Range<Int>) -> Bool {
    tokens[statement].contains { if case .word(let word) = $0 { Self.messages.contains(word) } else { false } }
  }

  private static let messages: Set<String> = ["raise", "assert", "print", "warnings", "logging", "logger"]

  /// Whether texts that become one have one of the numbers in them, or the token and more than that, or something is added to the token.
  private func isLikePrefix(_ group: Range<Int>, in statement: Range<Int>) -> Bool {
    var hasFields = false
    for token in tokens[group] {
      for case .field(let field) in PythonTokens.pieces(of: token) {
        hasFields = true
        if ["mean", "scale_factor", "scaling", "offset"].contains(where: field.contains) { return true }
      }
    }
    let text = tokens[group].map(Self.literal).joined()
    guard text.contains("<ts>") else {
      // Of `format`, and of `%`.
      let isFormatted = text.contains("{") && text.contains("}") || text.contains("%")
      let lower = text.lowercased()
      return isFormatted && lower.contains("offset") && lower.contains("scal")
    }
    let added = PythonTokens.Token.word("+")
    return hasFields || !text.replacing("<ts>", with: "").replacing("<ts/>", with: "").isEmpty
      || tokens[group.upperBound] == added
      || group.lowerBound > statement.lowerBound && tokens[group.lowerBound - 1] == added
  }

  /// What is in a text outside of fields.
  private static func literal(_ token: PythonTokens.Token) -> String {
    PythonTokens.pieces(of: token).reduce(into: "") { if case .literal(let text) = $1 { $0 += text } }
  }

  private func isText(_ index: Int) -> Bool {
    switch tokens[index] {
    case .text, .otherText: true
    case .word, .end: false
    }
  }

  /// The texts that become one with that at `index`, with the brackets around them.
  private func group(around index: Int, in statement: Range<Int>) -> Range<Int> {
    var (first, end) = (index, index + 1)
    func isWord(_ index: Int, _ word: String) -> Bool { statement.contains(index) && tokens[index] == .word(word) }
    func isText(_ index: Int) -> Bool { statement.contains(index) && self.isText(index) }
    while true {
      if isText(end) {
        end += 1
      } else if isText(first - 1) {
        first -= 1
      } else if isWord(end, "+"), isText(end + 1) {
        end += 2
      } else if isWord(first - 1, "+"), isText(first - 2) {
        first -= 2
      } else if isWord(first - 1, "("), isWord(end, ")"), !isCall(first - 1, in: statement) {
        (first, end) = (first - 1, end + 1)
      } else if isWord(end, "+"), isWord(end + 1, "("),
        let close = (end + 2..<statement.upperBound).first(where: { !isText($0) && !isWord($0, "+") }),
        isWord(close, ")"), isText(end + 2)
      {
        end = close + 1
      } else {
        return first..<end
      }
    }
  }

  /// Whether the bracket at `index` is that of a call.
  private func isCall(_ index: Int, in statement: Range<Int>) -> Bool {
    guard statement.contains(index - 1), case .word(let word) = tokens[index - 1] else { return false }
    return word != "return" && word.utf8.contains { (0x30...0x39).contains($0) || $0 == 0x5F || $0 >= 0x41 }
  }

  // MARK: One text

  private func prefix(_ group: Range<Int>, in statement: Range<Int>) throws(SquintError) -> Prefix {
    let line = lines[group.lowerBound]
    try checkUse(of: group, in: statement)
    var text = ""
    var hasToken = false
    for (token, line) in zip(tokens[group], lines[group]) {
      if case .otherText = token { throw refused(line, "a part of it is no plain text") }
      for piece in PythonTokens.pieces(of: token) {
        switch piece {
        case .literal(let literal):
          guard !literal.contains("{"), !literal.contains("}") else {
            throw refused(line, "there are braces in it that are no field of an f-string")
          }
          text += literal
        case .field(let field): text += "{\(try word(field, line))}"
        }
      }
    }
    // The rows take the places of both tokens.
    if let token = text.firstRange(of: "<ts>") {
      guard ["", "<ts/>"].contains(text[token.upperBound...]) else {
        throw refused(line, "there is more behind <ts>, \(printable(String(text[token.upperBound...])))")
      }
      text = String(text[..<token.lowerBound])
      hasToken = true
    }
    guard hasToken else { throw refused(line, "it does not end with <ts>, and what comes behind it is not plain") }
    guard text.utf8.count <= Self.mostBytes else {
      throw refused(line, "it has \(text.utf8.count) bytes, and \(Self.mostBytes) is the most")
    }
    return Prefix(text: text, line: line)
  }

  /// Our word for a field.
  private func word(_ field: String, _ line: Int) throws(SquintError) -> String {
    // Blanks mean nothing in front of the format.
    let parts = field.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    let expression = parts[0].filter { !$0.isWhitespace } + (parts.count > 1 ? ":\(parts[1])" : "")
    guard let word = Self.words.first(where: { $0.key == expression })?.value else {
      let known = Self.words.map { "{\($0.key)}" }.joined(separator: ", ")
      throw refused(line, "{\(printable(field))} is not known in it; known are \(known)")
    }
    return word
  }

  private func refused(_ line: Int, _ reason: String) -> SquintError {
    .badData(
      path,
      "line \(line): what stands in front of a series cannot be read: \(reason). Write it as prompt = "
        + "f\"[Value Offset: {-mean:.4f}|Value Scaling: {scale_factor:.4f}]<ts>\", or remove the file, and the usual words are taken"
    )
  }

  // MARK: What becomes of it

  /// Checks that the text in `group` is what the program writes: it is given a name that nothing else becomes, or returned.
  private func checkUse(of group: Range<Int>, in statement: Range<Int>) throws(SquintError) {
    let line = lines[group.lowerBound]
    let right = tokens[group.upperBound]
    if case .word(let word) = right {
      switch word {
      case ".": throw refused(line, "a method is called on it, and programs are not run")
      case "%": throw refused(line, "it is formatted with %, and programs are not run")
      case "+": throw refused(line, "something is added to it that is no text")
      case "if": throw refused(line, "it depends on a condition")
      default: break
      }
    }
    let first = statement.lowerBound
    let left = group.lowerBound - 1
    if isReturned(group, in: statement) {
      return
    } else if left > first, tokens[left] == .word("="), right == .end, case .word(let name) = tokens[first],
      left == first + 1 || left == first + 3 && tokens[first + 1] == .word(":")
    {
      return try checkUse(of: name, except: first)
    } else if left >= first, tokens[left] == .word("+") {
      throw refused(line, "it is added to something that is no text")
    }
    throw refused(line, "what becomes of it is not plain")
  }

  /// Whether these tokens are what a function returns, or a part of it, which nothing is made of there.
  private func isReturned(_ part: Range<Int>, in statement: Range<Int>) -> Bool {
    let first = statement.lowerBound
    guard tokens[first] == .word("return"), part.lowerBound > first else { return false }
    var brackets: [Int] = []
    for index in first..<part.lowerBound {
      switch tokens[index] {
      case .word("("), .word("["), .word("{"): brackets.append(index)
      case .word(")"), .word("]"), .word("}"): _ = brackets.popLast()
      default: break
      }
    }
    let left: [PythonTokens.Token] = ["return", "(", "[", "{", ",", ":"].map { .word($0) }
    let right: [PythonTokens.Token] = [.end] + [")", "]", "}", ","].map { .word($0) }
    return left.contains(tokens[part.lowerBound - 1]) && right.contains(tokens[part.upperBound])
      && !brackets.contains { isCall($0, in: statement) }
  }

  /// Checks that in the function around token `index` the variable `name` is nothing else, and is returned as it is, or with the token that
  /// ends a series.
  private func checkUse(of name: String, except index: Int) throws(SquintError) {
    let borders: Set<String> = ["def", "class", "async"]
    func isBorder(_ index: Int) -> Bool {
      guard case .word(let word) = tokens[index], borders.contains(word) else { return false }
      return index == 0 || tokens[index - 1] == .end
    }
    let start = tokens[..<index].indices.last(where: isBorder) ?? 0
    let end = tokens[index...].indices.first(where: isBorder) ?? tokens.count
    // In front of that are the function's own name and parameters.
    let body = start == 0 && !isBorder(0) ? 0 : tokens[start..<index].firstIndex(of: .end) ?? start
    let closing = PythonTokens.Token.text([.literal("<ts/>")])
    for place in body..<end where place != index {
      switch tokens[place] {
      case .word(name):
        if place > 0, tokens[place - 1] == .word(".") { continue }
        let first = (tokens[..<place].lastIndex(of: .end) ?? -1) + 1
        let statement = first..<(tokens[place...].firstIndex(of: .end) ?? tokens.count)
        let isClosed = tokens[place + 1] == .word("+") && tokens[place + 2] == closing
        if isMessage(statement) || isReturned(place..<place + (isClosed ? 3 : 1), in: statement) { continue }
        // As published: if eots_token: prompt += '<ts/>'
        if tokens[place + 1] == .word("+="), tokens[place + 2] == closing, tokens[place + 3] == .end { continue }
      case .text(let pieces), .otherText(let pieces):
        let isIn = pieces.contains {
          guard case .field(let field) = $0 else { return false }
          return field.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.contains { $0 == name }
        }
        guard isIn else { continue }
      default: continue
      }
      throw refused(lines[index], "line \(lines[place]) makes something else of \(printable(name))")
    }
  }
}
