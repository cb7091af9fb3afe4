import SquintFile

/// An expression as states that lead to each other (Thompson's construction), with everything that a table of
/// transitions needs: what is beside a place, what starts or ends there, which alternative comes first.
struct ExpressionProgram {
  enum Node {
    /// Consumes a scalar of the set.
    case set(Int, next: Int)
    /// Goes to each, the first first.
    case split([Int])
    /// Goes on where a scalar of the set is beside this place, or none where `orEdge`; `isBehind` where it has been
    /// read already.
    case beside(Int, isBehind: Bool, orEdge: Bool, next: Int)
    case searchStart(next: Int)
    /// Goes on where look `index` holds, or does not.
    case look(Int, isNegative: Bool, next: Int)
    case match
  }

  /// What one automaton is made of.
  struct Part {
    var nodes: [Node] = []
    var start = 0
    /// Reads the text from its end: looks ahead know what follows before the place itself is read.
    let isReversed: Bool
    let isLook: Bool
  }

  /// Looks at more than one scalar, inner ones first, and the expression last.
  private(set) var parts: [Part] = []
  private(set) var sets: [ScalarSet] = []
  var lookCount: Int { parts.count - 1 }

  private static let mostNodes = 16 << 10
  /// Each doubles the table's columns.
  private static let mostLooks = 4

  private let text: String

  /// - Throws: `SquintError.badData` with the expression where it cannot be compiled.
  init(_ text: String) throws(SquintError) {
    self.text = text
    let expression = try simplified(try ExpressionParser.parse(text))
    let part = try part(expression, isReversed: false, isLook: false)
    parts.append(part)
  }

  private func bad(_ what: String) -> SquintError {
    SquintError(.badData, "\(what) in the expression \(text.prefix(400))")
  }

  // MARK: Simpler expressions

  /// The same without atomic groups, and with looks at one scalar as conditions.
  private func simplified(_ expression: Expression) throws(SquintError) -> Expression {
    switch expression {
    case .empty, .never, .set, .beside, .searchStart: return expression
    case .sequence(let items): return .sequence(try simplified(items))
    case .choice(let items): return .choice(try simplified(items))
    case .repetition(let body, let least, let most, let isLazy):
      let body = try simplified(body)
      guard most == 1 || !Self.mayBeEmpty(body) else {
        throw bad("a repetition of what may be empty, which is not supported,")
      }
      return .repetition(body, least: least, most: most, isLazy: isLazy)
    case .look(let side, let body, let isNegative):
      let body = try simplified(body)
      guard case .set(let set) = body else { return .look(side, body, isNegative: isNegative) }
      return .beside(side, isNegative ? set.complement : set, orEdge: isNegative)
    case .atomic(let body): return try atomic(try simplified(body))
    }
  }

  private func simplified(_ items: [Expression]) throws(SquintError) -> [Expression] {
    var out: [Expression] = []
    for item in items { out.append(try simplified(item)) }
    return out
  }

  /// What `(?>body)` matches, by looks ahead: every alternative only where those before it do not match, a repetition
  /// only where it cannot go on.
  private func atomic(_ body: Expression) throws(SquintError) -> Expression {
    if Self.isFixed(body) { return body }
    switch body {
    case .choice(let items):
      var choices: [Expression] = []
      var earlier: [Expression] = []
      for item in items {
        choices.append(.sequence(earlier + [try atomic(item)]))
        earlier.append(try simplified(.look(.after, item, isNegative: true)))
      }
      return .choice(choices)
    case .sequence(let items):
      let fixed = items.prefix(while: Self.isFixed)
      guard fixed.count == items.count - 1, let last = items.last else { break }
      return .sequence(fixed + [try atomic(last)])
    case .repetition(let item, let least, let most, let isLazy):
      guard least <= 1 || Self.isFixed(item) else { break }
      let one = try atomic(item)
      if isLazy { return .repetition(one, least: least, most: least, isLazy: false) }
      let stop = try simplified(.look(.after, one, isNegative: true))
      guard let most else { return .sequence([.repetition(one, least: least, most: nil, isLazy: false), stop]) }
      guard least < most else { return .repetition(one, least: most, most: most, isLazy: false) }
      return .choice([
        .repetition(one, least: most, most: most, isLazy: false),
        .sequence([.repetition(one, least: least, most: most - 1, isLazy: false), stop]),
      ])
    default: break
    }
    throw bad("an atomic group or possessive repetition of more than one choice, which is not supported,")
  }

  /// Whether there is at most one way to match it at a place.
  private static func isFixed(_ expression: Expression) -> Bool {
    switch expression {
    case .empty, .never, .set, .beside, .searchStart, .look: true
    case .sequence(let items): items.allSatisfy(isFixed)
    case .choice, .atomic: false
    case .repetition(let body, let least, let most, _): least == most && isFixed(body)
    }
  }

  private static func mayBeEmpty(_ expression: Expression) -> Bool {
    switch expression {
    case .never, .set: false
    case .empty, .beside, .searchStart, .look: true
    case .sequence(let items): items.allSatisfy(mayBeEmpty)
    case .choice(let items): items.contains(where: mayBeEmpty)
    case .atomic(let body): mayBeEmpty(body)
    case .repetition(let body, let least, _, _): least == 0 || mayBeEmpty(body)
    }
  }

  // MARK: Nodes

  private mutating func part(
    _ expression: Expression, isReversed: Bool, isLook: Bool
  ) throws(SquintError) -> Part {
    var part = Part(isReversed: isReversed, isLook: isLook)
    let match = try append(.match, to: &part)
    part.start = try compile(expression, next: match, &part)
    return part
  }

  private func append(_ node: Node, to part: inout Part) throws(SquintError) -> Int {
    guard part.nodes.count < Self.mostNodes else { throw bad("more than \(grouped(Self.mostNodes)) steps") }
    part.nodes.append(node)
    return part.nodes.count - 1
  }

  private mutating func place(of set: ScalarSet) -> Int {
    if let place = sets.firstIndex(of: set) { return place }
    sets.append(set)
    return sets.count - 1
  }

  /// The node where `expression` starts, which goes on at `next`.
  private mutating func compile(
    _ expression: Expression, next: Int, _ part: inout Part
  ) throws(SquintError) -> Int {
    switch expression {
    case .empty: return next
    case .never: return try append(.split([]), to: &part)
    case .set(let set): return try append(.set(place(of: set), next: next), to: &part)
    case .atomic(let body): return try compile(body, next: next, &part)
    case .searchStart:
      guard !part.isLook else { throw bad("\\G within a look, which is not supported,") }
      return try append(.searchStart(next: next), to: &part)
    case .beside(let side, let set, let orEdge):
      let isBehind = (side == .before) != part.isReversed
      return try append(.beside(place(of: set), isBehind: isBehind, orEdge: orEdge, next: next), to: &part)
    case .look(let side, let body, let isNegative):
      let look = try self.part(body, isReversed: side == .after, isLook: true)
      guard parts.count < Self.mostLooks else {
        throw bad("more than \(Self.mostLooks) looks ahead or behind of several characters")
      }
      parts.append(look)
      return try append(.look(parts.count - 1, isNegative: isNegative, next: next), to: &part)
    case .sequence(let items):
      var next = next
      for item in part.isReversed ? items : items.reversed() { next = try compile(item, next: next, &part) }
      return next
    case .choice(let items):
      var starts: [Int] = []
      for item in items { starts.append(try compile(item, next: next, &part)) }
      return try append(.split(starts), to: &part)
    case .repetition(let body, let least, let most, let isLazy):
      func split(_ body: Int, _ exit: Int) -> Node { .split(isLazy ? [exit, body] : [body, exit]) }
      var start = next
      if let most {
        // body?, within which the next body?, …
        for _ in 0..<max(0, most - least) {
          let body = try compile(body, next: start, &part)
          start = try append(split(body, next), to: &part)
        }
      } else {
        let loop = try append(.split([]), to: &part)
        let body = try compile(body, next: loop, &part)
        part.nodes[loop] = split(body, next)
        start = loop
      }
      for _ in 0..<least { start = try compile(body, next: start, &part) }
      return start
    }
  }
}
