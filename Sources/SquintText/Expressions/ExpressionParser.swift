import SquintFile

/// What an expression is made of.
indirect enum Expression: Equatable {
  /// Matches nothing, anywhere.
  case empty
  /// Matches nowhere.
  case never
  /// One scalar of the set.
  case set(ScalarSet)
  /// Each after the other.
  case sequence([Expression])
  /// The first that leads to a match.
  case choice([Expression])
  /// As often as possible, or as seldom where `isLazy`. `most` nil: without end.
  case repetition(Expression, least: Int, most: Int?, isLazy: Bool)
  /// Whether the scalar beside this place is one of the set, or there is none where `orEdge`.
  case beside(Side, ScalarSet, orEdge: Bool)
  /// Whether this is the place where the search started: behind the match before.
  case searchStart
  /// Whether a text that matches starts (`.after`) or ends (`.before`) here.
  case look(Side, Expression, isNegative: Bool)
  /// What would be matched first, and nothing else.
  case atomic(Expression)

  enum Side { case before, after }

  /// A place that is no match of the expression at its front, or of its back.
  static func unless(_ set: ScalarSet) -> Expression { .beside(.after, set.complement, orEdge: true) }
}

/// Reads regular expressions as the reference's engine does: Oniguruma, ONIG_SYNTAX_ONIGURUMA (kkos/oniguruma, doc/RE).
///
/// What has no automaton (references to groups, calls, conditions) or what no published tokenizer needs is refused by
/// a line that shows it.
struct ExpressionParser {
  private let scalars: [UInt32]
  private var place = 0
  private var depth = 0
  private let text: String

  /// Bytes of an expression; DeepSeek's longest is 1,200.
  static let longest = 16 << 10
  private static let deepest = 48
  private static let mostRepeats = 1024

  private struct Options {
    var ignoresCase = false
    var dotMatchesNewline = false
    var isExtended = false
  }

  private init(_ text: String) {
    self.text = text
    scalars = text.unicodeScalars.map(\.value)
  }

  /// - Throws: `SquintError.badData`: what cannot be compiled, where it stands, and the expression.
  static func parse(_ text: String) throws(SquintError) -> Expression {
    guard text.utf8.count <= longest else {
      throw SquintError(.badData, "an expression of \(grouped(text.utf8.count)) bytes; \(grouped(longest)) at most")
    }
    var parser = ExpressionParser(text)
    let expression = try parser.alternatives(Options())
    guard parser.place == parser.scalars.count else { throw parser.bad("a ')' that closes nothing", 1) }
    return expression
  }

  // MARK: Errors

  /// An error that shows `length` scalars that end here.
  private func bad(_ what: String, _ length: Int = 0) -> SquintError {
    let start = max(0, place - length)
    let end = min(scalars.count, max(place, start + 1))
    let part = String(String.UnicodeScalarView(scalars[start..<end].compactMap(UnicodeScalar.init)))
    let shown = part.isEmpty ? "at its end" : "at '\(part)' (character \(start + 1))"
    return SquintError(.badData, "\(what) \(shown) in the expression \(text.prefix(400))")
  }

  // MARK: Reading

  private var next: UInt32? { place < scalars.count ? scalars[place] : nil }

  private func isNext(_ text: StaticString) -> Bool {
    var index = place
    return text.withUTF8Buffer { bytes in
      for byte in bytes {
        guard index < scalars.count, scalars[index] == UInt32(byte) else { return false }
        index += 1
      }
      return true
    }
  }

  private mutating func take(_ text: StaticString) -> Bool {
    guard isNext(text) else { return false }
    place += text.utf8CodeUnitCount
    return true
  }

  private mutating func alternatives(_ options: Options) throws(SquintError) -> Expression {
    depth += 1
    defer { depth -= 1 }
    guard depth <= Self.deepest else { throw bad("more than \(Self.deepest) groups within each other", 1) }
    var choices: [Expression] = []
    repeat { choices.append(try sequence(options)) } while take("|")
    return choices.count == 1 ? choices[0] : .choice(choices)
  }

  private mutating func sequence(_ options: Options) throws(SquintError) -> Expression {
    var items: [Expression] = []
    /// Scalars in a row, folded, to find those that one scalar equals where case does not matter.
    var run: [UInt32] = []
    while let scalar = next, scalar != 0x7C, scalar != 0x29 {  // | )
      if options.isExtended, try skipBlank() { continue }
      let start = place
      // (?i) holds to the end of the group, whatever bars follow.
      if let changed = try isolatedOptions(options) {
        items.append(try alternatives(changed))
        break
      }
      let (atom, literal) = try atom(options)
      let repeated = try repetitions(of: atom)
      if let literal, options.ignoresCase {
        run.append(ScalarSet.leastFolding(of: literal))
        try refuseLongFoldings(run, from: start)
      } else {
        run = []
      }
      items.append(repeated)
    }
    return items.isEmpty ? .empty : items.count == 1 ? items[0] : .sequence(items)
  }

  /// Skips white space or a comment of an expression with the option x.
  private mutating func skipBlank() throws(SquintError) -> Bool {
    guard let scalar = next else { return false }
    if scalar == 0x23 {  // #
      while let scalar = next, scalar != 0x0A { place += 1 }
      return true
    }
    guard scalar == 0x20 || (0x09...0x0D).contains(scalar) else { return false }
    place += 1
    return true
  }

  /// `(?i)` and the like, which is no group; nil where there is none.
  private mutating func isolatedOptions(_ options: Options) throws(SquintError) -> Options? {
    let start = place
    guard take("(?"), let changed = self.options(options), take(")") else {
      place = start
      return nil
    }
    return changed
  }

  /// Letters of options and what they make of `options`; nil where there are none.
  private mutating func options(_ options: Options) -> Options? {
    var changed = options
    var isOn = true
    let start = place
    while let scalar = next {
      switch scalar {
      case 0x69: changed.ignoresCase = isOn
      case 0x6D: changed.dotMatchesNewline = isOn
      case 0x78: changed.isExtended = isOn
      case 0x2D: isOn = false
      default: return place > start ? changed : nil
      }
      place += 1
    }
    return nil
  }

  // MARK: Atoms

  private mutating func atom(_ options: Options) throws(SquintError) -> (Expression, literal: UInt32?) {
    guard let scalar = next else { throw bad("nothing") }
    place += 1
    switch scalar {
    case 0x28: return (try group(options), nil)
    case 0x5B: return (.set(try bracket(options)), nil)
    case 0x2E: return (.set(options.dotMatchesNewline ? .all : ScalarSet.newline.complement), nil)
    case 0x5E:
      // The start of a line; not behind the text's last newline.
      return (
        .choice([
          .beside(.before, .none, orEdge: true),
          .sequence([.beside(.before, .newline, orEdge: false), .beside(.after, .all, orEdge: false)]),
        ]), nil
      )
    case 0x24: return (.beside(.after, .newline, orEdge: true), nil)
    case 0x2A, 0x2B, 0x3F: throw bad("nothing to repeat", 1)
    case 0x5C: return try escape(options)
    default: return (try literal(scalar, options), scalar)
    }
  }

  private func literal(_ scalar: UInt32, _ options: Options) throws(SquintError) -> Expression {
    guard options.ignoresCase else { return .set(ScalarSet(scalar: scalar)) }
    guard !UnicodeProperties.longFoldingScalars.contains(scalar) else {
      throw bad("a letter that equals several where case does not matter, which is not supported,", 1)
    }
    return .set(ScalarSet(scalar: scalar).folded)
  }

  private func refuseLongFoldings(_ run: [UInt32], from start: Int) throws(SquintError) {
    for row in UnicodeProperties.longFoldings {
      let letters = [42, 21, 0].map { (bits: UInt64) in UInt32(row >> bits & 0x1F_FFFF) }
      let parts = letters.filter { $0 != 0 }.map { ScalarSet.leastFolding(of: $0) }
      if run.suffix(parts.count) == parts[...] {
        throw bad("letters that equal one where case does not matter, which is not supported,", place - start + 1)
      }
    }
  }

  private mutating func group(_ options: Options) throws(SquintError) -> Expression {
    let start = place - 1
    func unsupported(_ what: String) -> SquintError { bad("\(what), which is not supported,", place - start) }
    var inner = options
    var wrap: (Expression) -> Expression = { $0 }
    if take("*") { throw unsupported("a callout") }
    if take("?#") {
      while let scalar = next, scalar != 0x29 { place += 1 }
      guard take(")") else { throw bad("a comment that is not closed") }
      return .empty
    }
    if take("?:") {
    } else if take("?=") {
      wrap = { .look(.after, $0, isNegative: false) }
    } else if take("?!") {
      wrap = { .look(.after, $0, isNegative: true) }
    } else if take("?<=") {
      wrap = { .look(.before, $0, isNegative: false) }
    } else if take("?<!") {
      wrap = { .look(.before, $0, isNegative: true) }
    } else if take("?>") {
      wrap = { .atomic($0) }
    } else if take("?<") || take("?'") {
      while let scalar = next, scalar != 0x3E, scalar != 0x27 {
        guard ScalarSet.word.contains(scalar) else { throw bad("a group's name that is none", 1) }
        place += 1
      }
      guard next != nil else { throw bad("a group's name that does not end") }
      place += 1
    } else if take("?") {
      guard let changed = self.options(options), take(":") else {
        place = min(place + 1, scalars.count)
        throw unsupported("a kind of group")
      }
      inner = changed
    }
    let body = try alternatives(inner)
    guard take(")") else { throw bad("a group that is not closed") }
    return wrap(body)
  }

  private mutating func escape(_ options: Options) throws(SquintError) -> (Expression, literal: UInt32?) {
    guard let scalar = next else { throw bad("a backslash") }
    if let set = try setEscape() { return (.set(Self.outsideBrackets(set)), nil) }
    place += 1
    switch scalar {
    case 0x41: return (.beside(.before, .none, orEdge: true), nil)  // \A
    case 0x7A: return (.beside(.after, .none, orEdge: true), nil)  // \z
    case 0x5A:  // \Z: the end, or a newline before it
      let end = Expression.beside(.after, .none, orEdge: true)
      return (.choice([end, .look(.after, .sequence([.set(.newline), end]), isNegative: false)]), nil)
    case 0x47: return (.searchStart, nil)  // \G
    case 0x62, 0x42: return (Self.wordBoundary(scalar == 0x62), nil)  // \b \B
    case 0x4F: return (.set(.all), nil)  // \O
    case 0x4E: return (.set(ScalarSet.newline.complement), nil)  // \N
    case 0x52:  // \R
      return (
        .atomic(
          .choice([
            .sequence([.set(ScalarSet(scalar: 0x0D)), .set(.newline)]),
            .set(ScalarSet([0x0A...0x0D, 0x85...0x85, 0x2028...0x2029])),
          ])), nil
      )
    case 0x4B, 0x58, 0x59, 0x79, 0x6B, 0x67, 0x31...0x39:
      throw bad("what no automaton can do or no tokenizer needs, which is not supported,", 2)
    default:
      place -= 1
      let value = try character()
      return (try literal(value, options), value)
    }
  }

  /// The engine's `\w` is another set outside brackets than within.
  private static func outsideBrackets(_ set: ScalarSet) -> ScalarSet {
    set == .wordInBrackets ? .word : set == ScalarSet.wordInBrackets.complement ? ScalarSet.word.complement : set
  }

  private static func wordBoundary(_ isBoundary: Bool) -> Expression {
    let other = ScalarSet.word.complement
    func both(_ before: ScalarSet, _ after: ScalarSet) -> Expression {
      .sequence([
        .beside(.before, before, orEdge: before != .word), .beside(.after, after, orEdge: after != .word),
      ])
    }
    return isBoundary
      ? .choice([both(.word, other), both(other, .word)]) : .choice([both(.word, .word), both(other, other)])
  }

  /// An escape that stands for a set, behind its backslash; nil, and nothing read, where it is none.
  private mutating func setEscape() throws(SquintError) -> ScalarSet? {
    let set: ScalarSet
    switch next {
    case 0x64: set = .digit
    case 0x44: set = ScalarSet.digit.complement
    case 0x77: set = .wordInBrackets
    case 0x57: set = ScalarSet.wordInBrackets.complement
    case 0x73: set = .space
    case 0x53: set = ScalarSet.space.complement
    case 0x68: set = .hexadecimalDigit
    case 0x48: set = ScalarSet.hexadecimalDigit.complement
    case 0x70, 0x50: return try property()
    default: return nil
    }
    place += 1
    return set
  }

  /// `p{Name}`, `p{^Name}` or `P{Name}`.
  private mutating func property() throws(SquintError) -> ScalarSet {
    let start = place
    var isNegative = next == 0x50
    place += 1
    guard take("{") else { throw bad("a property without a name in braces", 2) }
    if take("^") { isNegative.toggle() }
    var name = String.UnicodeScalarView()
    while let scalar = next, scalar != 0x7D {
      if let scalar = UnicodeScalar(scalar) { name.append(scalar) }
      place += 1
    }
    guard take("}") else { throw bad("a property's name that does not end") }
    guard let set = ScalarSet.named(String(name)) else {
      throw bad("a property that is not known", place - start + 1)
    }
    return isNegative ? set.complement : set
  }

  /// A character behind a backslash.
  private mutating func character() throws(SquintError) -> UInt32 {
    guard let scalar = next else { throw bad("a backslash") }
    place += 1
    switch scalar {
    case 0x74: return 0x09
    case 0x6E: return 0x0A
    case 0x76: return 0x0B
    case 0x66: return 0x0C
    case 0x72: return 0x0D
    case 0x61: return 0x07
    case 0x65: return 0x1B
    case 0x30...0x37:
      place -= 1
      return try number(radix: 8, digits: 1...3, limit: 0x7F)
    case 0x75: return try number(radix: 16, digits: 4...4, limit: ScalarSet.limit)
    case 0x78:
      guard take("{") else { return try number(radix: 16, digits: 1...2, limit: 0x7F) }
      let value = try number(radix: 16, digits: 1...8, limit: ScalarSet.limit)
      guard take("}") else { throw bad("a character's number that does not end", 1) }
      return value
    case 0x63, 0x43, 0x4D: throw bad("a control character's name, which is not supported,", 2)
    default: return scalar
    }
  }

  private mutating func number(
    radix: UInt32, digits: ClosedRange<Int>, limit: UInt32
  ) throws(SquintError) -> UInt32 {
    let start = place
    var value: UInt32 = 0
    while place - start < digits.upperBound, let digit = next.flatMap(Self.digit), digit < radix {
      value = value &* radix &+ digit
      place += 1
    }
    guard place - start >= digits.lowerBound, value <= limit, !(0xD800..<0xE000).contains(value) else {
      throw bad("a character's number that is none, or of a byte that is no character,", place - start + 2)
    }
    return value
  }

  private static func digit(_ scalar: UInt32) -> UInt32? {
    switch scalar {
    case 0x30...0x39: scalar - 0x30
    case 0x41...0x46: scalar - 0x41 + 10
    case 0x61...0x66: scalar - 0x61 + 10
    default: nil
    }
  }

  // MARK: Sets in brackets

  /// What stands behind a `[`, to its `]`.
  private mutating func bracket(_ options: Options) throws(SquintError) -> ScalarSet {
    depth += 1
    defer { depth -= 1 }
    guard depth <= Self.deepest else { throw bad("more than \(Self.deepest) groups within each other", 1) }
    let start = place
    let isNegative = take("^")
    var whole: ScalarSet?
    var ranges: [ClosedRange<UInt32>] = []
    /// The last character, while it may start a range.
    var low: UInt32?
    var isEmpty = true
    while true {
      guard let scalar = next else { throw bad("a bracket that is not closed", place - start + 1) }
      // The first ] of a set is one of its characters where another follows.
      if scalar == 0x5D && !(isEmpty && whole == nil && scalars[(place + 1)...].contains(0x5D)) {
        place += 1
        break
      }
      if take("&&") {
        let set = ScalarSet(ranges)
        whole = whole.map { $0.intersection(set) } ?? set
        (ranges, low, isEmpty) = ([], nil, false)
        continue
      }
      isEmpty = false
      if scalar == 0x5B {
        ranges += try nested(options).ranges
        low = nil
        continue
      }
      if scalar == 0x2D, let first = low, let after = scalars[(place + 1)...].first, after != 0x5D {
        place += 1
        guard !isNext("[") else { throw bad("a range that ends in a set", 1) }
        let last = try bracketCharacter()
        guard let last else { throw bad("a range that ends in a set", 2) }
        guard first <= last else { throw bad("a range that ends before it starts", 3) }
        ranges.append(first...last)
        low = nil
        continue
      }
      let before = place
      if let character = try bracketCharacter() {
        ranges.append(character...character)
        low = character
      } else {
        place = before + 1
        ranges += (try setEscape() ?? .none).ranges
        low = nil
        // A set, then - and a character, is an error of the engine.
        if isNext("-"), let after = scalars[(place + 1)...].first, after != 0x5D {
          throw bad("a range that starts with a set", 1)
        }
      }
    }
    guard !isEmpty else { throw bad("a bracket with nothing in it", 2) }
    var set = ScalarSet(ranges)
    if let whole { set = whole.intersection(set) }
    if options.ignoresCase {
      let isCased = !isNegative && UnicodeProperties.longFoldingScalars.contains(where: set.contains)
      guard !isCased else {
        throw bad(
          "a set with a letter that equals several where case does not matter, which is not supported,",
          place - start + 1)
      }
      set = set.folded
    }
    return isNegative ? set.complement : set
  }

  /// A set within a set: in brackets, or `[:name:]`.
  private mutating func nested(_ options: Options) throws(SquintError) -> ScalarSet {
    let start = place
    guard take("[:") else {
      place += 1
      return try bracket(options)
    }
    let isNegative = take("^")
    var name = String.UnicodeScalarView()
    while let scalar = next, scalar != 0x3A, let scalar = UnicodeScalar(scalar) {
      name.append(scalar)
      place += 1
    }
    // In brackets punctuation has the symbols, too; as a property it has not.
    let symbols = String(name) == "punct" ? ScalarSet.named("S") : nil
    guard take(":]"), let named = ScalarSet.named(String(name)) else {
      throw bad("a class of characters that is not known", place - start + 1)
    }
    let set = symbols.map(named.union) ?? named
    return isNegative ? set.complement : set
  }

  /// A character in brackets; nil, at its backslash, for an escape that stands for a set.
  private mutating func bracketCharacter() throws(SquintError) -> UInt32? {
    guard let scalar = next else { throw bad("a bracket that is not closed") }
    place += 1
    guard scalar == 0x5C else { return scalar }
    switch next {
    case 0x64, 0x44, 0x77, 0x57, 0x73, 0x53, 0x68, 0x48, 0x70, 0x50: return nil
    case 0x62:
      place += 1
      return 0x08
    default: return try character()
    }
  }

  // MARK: Repetition

  private mutating func repetitions(of atom: Expression) throws(SquintError) -> Expression {
    var expression = atom
    while true {
      let start = place
      var least = 0
      var most: Int?
      var isInterval = false
      if take("*") {
      } else if take("+") {
        least = 1
      } else if take("?") {
        most = 1
      } else if let interval = try interval() {
        (least, most) = interval
        isInterval = true
      } else {
        return expression
      }
      switch expression {
      case .beside, .look, .searchStart, .empty:
        throw bad("a repetition of what matches no character, which is not supported,", place - start)
      default: break
      }
      // a{2}? is an option of a{2}, a{2}+ a repetition of it; only a{1,2}? is lazy.
      let isLazy = !(isInterval && least == most) && take("?")
      let isAtomic = !isInterval && !isLazy && take("+")
      expression = .repetition(expression, least: least, most: most, isLazy: isLazy)
      if isAtomic { expression = .atomic(expression) }
    }
  }

  /// `{n}`, `{n,}`, `{,n}`, `{n,m}`; nil, and nothing read, where the brace is a character.
  private mutating func interval() throws(SquintError) -> (Int, Int?)? {
    let start = place
    guard take("{") else { return nil }
    func digits() -> Int? {
      var value: Int?
      while let scalar = next, (0x30...0x39).contains(scalar) {
        value = min((value ?? 0) * 10 + Int(scalar - 0x30), 1 << 20)
        place += 1
      }
      return value
    }
    let first = digits()
    var last = first
    let hasComma = take(",")
    if hasComma { last = digits() }
    guard first != nil || (hasComma && last != nil), take("}") else {
      place = start
      return nil
    }
    guard max(first ?? 0, last ?? 0) <= Self.mostRepeats else {
      throw bad("more than \(grouped(Self.mostRepeats)) repetitions", place - start)
    }
    if let first, let last, first > last {
      throw bad("a repetition whose bounds are in the wrong order", place - start)
    }
    return (first ?? 0, last)
  }
}
