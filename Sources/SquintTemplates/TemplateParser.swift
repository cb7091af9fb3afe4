import SquintFile

/// Turns a template's tokens into statements, with the grammar of jinja2's Parser (jinja2/parser.py), the
/// `loopcontrols` extension and transformers' `{% generation %}` block.
struct TemplateParser {
  /// Nesting of expressions and of blocks that the parser accepts. Published templates stay under 30; the bound keeps
  /// a hostile one from overflowing the stack.
  static let maximumExpressionDepth = 100
  static let maximumBlockDepth = 50

  private let tokens: [TemplateToken]
  private var index = 0
  private var expressionDepth = 0
  private var blockDepth = 0
  private var loopDepth = 0
  /// Whether each function being parsed mentions `caller`.
  private var mentionsCaller = [false]

  private init(tokens: [TemplateToken]) { self.tokens = tokens }

  static func parse(_ source: String) throws(SquintError) -> [TemplateStatement] {
    var parser = TemplateParser(tokens: try TemplateLexer.tokens(of: source))
    return try parser.statements(until: [])
  }

  // MARK: Tokens

  private var current: TemplateToken { tokens[index] }
  private var following: TemplateToken { tokens[min(index + 1, tokens.count - 1)] }

  private mutating func advance() {
    if index < tokens.count - 1 { index += 1 }
  }

  private func isSymbol(_ symbol: TemplateToken.Symbol) -> Bool { current.kind == .symbol(symbol) }
  private func isName(_ name: PythonText) -> Bool { current.kind == .name(name) }

  private mutating func skip(_ symbol: TemplateToken.Symbol) -> Bool {
    guard isSymbol(symbol) else { return false }
    advance()
    return true
  }

  private mutating func skip(_ name: PythonText) -> Bool {
    guard isName(name) else { return false }
    advance()
    return true
  }

  private func unexpected(_ expected: String) -> SquintError {
    templateError(current.line, "\(expected) is expected, not \(current.description)")
  }

  private mutating func expect(_ symbol: TemplateToken.Symbol) throws(SquintError) {
    guard skip(symbol) else { throw unexpected("'\(symbol.rawValue)'") }
  }

  private mutating func expect(_ kind: TemplateToken.Kind, _ description: String) throws(SquintError) {
    guard current.kind == kind else { throw unexpected(description) }
    advance()
  }

  private mutating func name() throws(SquintError) -> PythonText {
    guard case .name(let name) = current.kind else { throw unexpected("a name") }
    advance()
    return name
  }

  // MARK: Statements

  /// Parses up to a block whose tag is one of `ends`, and stops at that tag.
  private mutating func statements(until ends: [PythonText]) throws(SquintError) -> [TemplateStatement] {
    var body: [TemplateStatement] = []
    while true {
      switch current.kind {
      case .data(let text):
        body.append(.text(text))
        advance()
      case .variableBegin:
        advance()
        body.append(.output(try tuple()))
        try expect(.variableEnd, "'}}'")
      case .blockBegin:
        advance()
        if case .name(let tag) = current.kind, ends.contains(tag) { return body }
        try statement(into: &body)
        try expect(.blockEnd, "'%}'")
      default:
        if let end = ends.last {
          throw templateError(current.line, "the template ends before '{% \(end.string) %}'")
        }
        return body
      }
    }
  }

  /// Parses a block's body after its head: past "%}" and up to one of `ends`, whose name is taken and returned.
  private mutating func body(
    until ends: [PythonText]
  ) throws(SquintError) -> (statements: [TemplateStatement], end: PythonText) {
    _ = skip(.colon)
    try expect(.blockEnd, "'%}'")
    guard blockDepth < Self.maximumBlockDepth else {
      throw templateError(current.line, "blocks are nested more than \(Self.maximumBlockDepth) levels deep")
    }
    blockDepth += 1
    let statements = try statements(until: ends)
    blockDepth -= 1
    return (statements, try name())
  }

  private mutating func statement(into body: inout [TemplateStatement]) throws(SquintError) {
    guard case .name(let tag) = current.kind else { throw unexpected("a statement") }
    let line = current.line
    advance()
    switch tag.string {
    case "if": body.append(try conditional())
    case "for": body.append(try loop(line: line))
    case "set": body.append(try assignment(line: line))
    case "macro":
      let macroName = try name()
      body.append(.macro(try function(named: macroName, hasSignature: true, end: "endmacro", line: line).function))
    case "call":
      let parsed = try function(named: "caller", hasSignature: isSymbol(.leftParenthesis), end: "endcall", line: line)
      guard let call = parsed.call else { throw templateError(line, "a call block needs a call") }
      body.append(.call(parsed.function, call: call))
    case "filter":
      let filters = try filterChain(startsInline: true)
      body.append(.filter(filters, try self.body(until: ["endfilter"]).statements, line: line))
    case "generation":
      body.append(.scope(try self.body(until: ["endgeneration"]).statements))
    case "break", "continue":
      guard loopDepth > 0 else { throw templateError(line, "'\(tag.string)' is outside a loop") }
      body.append(tag == "break" ? .break : .continue)
    case "extends", "include", "import", "from", "autoescape", "block", "with", "print", "do", "raw", "endraw":
      throw templateError(
        line, "the statement '\(tag.string)' is not supported; the template has to do without it")
    default:
      throw templateError(
        line, "the statement '\(templateExcerpt(tag.string, limit: 60))' is not known or closes no block")
    }
  }

  private mutating func conditional() throws(SquintError) -> TemplateStatement {
    var branches: [(test: TemplateExpression, body: [TemplateStatement])] = []
    while true {
      let test = try tuple(allowsConditional: false)
      let (statements, end) = try body(until: ["elif", "else", "endif"])
      branches.append((test, statements))
      if end == "elif" { continue }
      let otherwise = end == "else" ? try body(until: ["endif"]).statements : []
      return .conditional(branches, otherwise: otherwise)
    }
  }

  private mutating func loop(line: Int) throws(SquintError) -> TemplateStatement {
    let target = try self.target()
    guard skip("in") else { throw unexpected("'in'") }
    let sequence = try tuple(allowsConditional: false, ends: ["recursive"])
    let condition = skip("if") ? try expression() : nil
    if isName("recursive") {
      throw templateError(line, "a loop that is 'recursive' is not supported; the template has to do without it")
    }
    loopDepth += 1
    let (statements, end) = try body(until: ["endfor", "else"])
    loopDepth -= 1
    guard end == "endfor" else {
      throw templateError(line, "a loop with '{% else %}' is not supported; the template has to do without it")
    }
    return .loop(
      TemplateLoop(
        target: target, sequence: sequence, condition: condition, body: statements, line: line))
  }

  private mutating func assignment(line: Int) throws(SquintError) -> TemplateStatement {
    let target = try self.target(allowsNamespace: true)
    if skip(.assign) { return .set(target, try tuple()) }
    let filters = try filterChain(startsInline: false)
    return .setBlock(target, filters, try body(until: ["endset"]).statements, line: line)
  }

  private mutating func function(
    named functionName: PythonText, hasSignature: Bool, end: PythonText, line: Int
  ) throws(SquintError) -> (function: TemplateFunction, call: TemplateExpression?) {
    var parameters: [(name: PythonText, initial: TemplateExpression?)] = []
    let outerLoops = loopDepth
    loopDepth = 0
    mentionsCaller.append(false)
    if hasSignature {
      try expect(.leftParenthesis)
      while !isSymbol(.rightParenthesis) {
        if !parameters.isEmpty { try expect(.comma) }
        let line = current.line
        let parameter = try name()
        if skip(.assign) {
          parameters.append((parameter, try expression()))
        } else if parameters.last?.initial != nil {
          throw templateError(line, "a parameter without a default follows one with a default")
        } else {
          parameters.append((parameter, nil))
        }
      }
      try expect(.rightParenthesis)
    }
    var call: TemplateExpression?
    if end == "endcall" {
      let expression = try self.expression()
      guard case .call = expression.kind else { throw templateError(line, "a call block needs a call") }
      call = expression
    }
    let statements = try body(until: [end]).statements
    loopDepth = outerLoops
    let function = TemplateFunction(
      name: functionName, parameters: parameters, body: statements, usesCaller: mentionsCaller.removeLast(), line: line)
    return (function, call)
  }

  // MARK: Targets

  private mutating func target(allowsNamespace: Bool = false) throws(SquintError) -> TemplateTarget {
    guard expressionDepth < Self.maximumExpressionDepth else {
      throw templateError(current.line, "an assignment is nested too deep")
    }
    expressionDepth += 1
    defer { expressionDepth -= 1 }
    var items: [TemplateTarget] = []
    var isTuple = false
    while true {
      if !items.isEmpty {
        guard skip(.comma) else { break }
        isTuple = true
      }
      if isSymbol(.assign) || isName("in") || isSymbol(.rightParenthesis) || current.kind == .blockEnd { break }
      if skip(.leftParenthesis) {
        items.append(try target(allowsNamespace: allowsNamespace))
        try expect(.rightParenthesis)
        continue
      }
      let line = current.line
      let targetName = try name()
      if ["true", "false", "none", "True", "False", "None"].contains(targetName) {
        throw templateError(line, "'\(targetName.string)' cannot be assigned to")
      }
      if allowsNamespace && skip(.dot) {
        items.append(.namespaceAttribute(namespace: targetName, attribute: try name()))
      } else {
        items.append(.name(targetName))
      }
    }
    guard let first = items.first else { throw unexpected("a name") }
    return isTuple ? .tuple(items) : first
  }

  // MARK: Expressions

  private func node(
    _ kind: TemplateExpression.Kind, line: Int, above depth: Int = 0
  ) throws(SquintError) -> TemplateExpression {
    guard depth < Self.maximumExpressionDepth else {
      throw templateError(
        line, "an expression is nested more than \(Self.maximumExpressionDepth) levels deep; split it with 'set'")
    }
    return TemplateExpression(kind: kind, line: line, depth: depth + 1)
  }

  private func depth(_ expressions: [TemplateExpression]) -> Int { expressions.reduce(0) { max($0, $1.depth) } }

  /// One expression, or a tuple where several are separated by commas.
  private mutating func tuple(
    allowsConditional: Bool = true, ends: [PythonText] = [], inParentheses: Bool = false
  ) throws(SquintError) -> TemplateExpression {
    let line = current.line
    var items: [TemplateExpression] = []
    var isTuple = false
    while true {
      if !items.isEmpty {
        guard skip(.comma) else { break }
        isTuple = true
      }
      if isSymbol(.rightParenthesis) || current.kind == .variableEnd || current.kind == .blockEnd { break }
      if case .name(let name) = current.kind, ends.contains(name) { break }
      items.append(try allowsConditional ? expression() : or())
    }
    if !isTuple {
      if let first = items.first { return first }
      guard inParentheses else { throw unexpected("an expression") }
    }
    return try node(.tuple(items), line: line, above: depth(items))
  }

  private mutating func expression() throws(SquintError) -> TemplateExpression {
    let line = current.line
    var result = try or()
    while skip("if") {
      let test = try or()
      let otherwise = skip("else") ? try expression() : nil
      let depth = max(result.depth, test.depth, otherwise?.depth ?? 0)
      result = try node(.conditional(test: test, then: result, otherwise: otherwise), line: line, above: depth)
    }
    return result
  }

  private mutating func or() throws(SquintError) -> TemplateExpression {
    guard expressionDepth < Self.maximumExpressionDepth else {
      throw templateError(
        current.line, "an expression is nested more than \(Self.maximumExpressionDepth) levels deep")
    }
    expressionDepth += 1
    defer { expressionDepth -= 1 }
    var left = try and()
    while isName("or") {
      let line = current.line
      advance()
      let right = try and()
      left = try node(.or(left, right), line: line, above: max(left.depth, right.depth))
    }
    return left
  }

  private mutating func and() throws(SquintError) -> TemplateExpression {
    var left = try not()
    while isName("and") {
      let line = current.line
      advance()
      let right = try not()
      left = try node(.and(left, right), line: line, above: max(left.depth, right.depth))
    }
    return left
  }

  private mutating func not() throws(SquintError) -> TemplateExpression {
    let line = current.line
    var count = 0
    while skip("not") { count += 1 }
    var result = try comparison()
    for _ in 0..<count { result = try node(.not(result), line: line, above: result.depth) }
    return result
  }

  private mutating func comparison() throws(SquintError) -> TemplateExpression {
    let line = current.line
    let first = try sum()
    var operands: [(comparison: TemplateExpression.Comparison, operand: TemplateExpression)] = []
    while true {
      if case .symbol(let symbol) = current.kind,
        let comparison = TemplateExpression.Comparison(rawValue: symbol.rawValue)
      {
        advance()
        operands.append((comparison, try sum()))
      } else if skip("in") {
        operands.append((.contained, try sum()))
      } else if isName("not") && following.kind == .name("in") {
        advance()
        advance()
        operands.append((.notContained, try sum()))
      } else {
        break
      }
    }
    if operands.isEmpty { return first }
    let depth = max(first.depth, self.depth(operands.map(\.operand)))
    return try node(.compare(first, operands), line: line, above: depth)
  }

  private mutating func sum() throws(SquintError) -> TemplateExpression {
    var left = try concatenation()
    while isSymbol(.add) || isSymbol(.subtract) {
      let operation: TemplateExpression.BinaryOperator = isSymbol(.add) ? .add : .subtract
      let line = current.line
      advance()
      let right = try concatenation()
      left = try node(.binary(left, operation, right), line: line, above: max(left.depth, right.depth))
    }
    return left
  }

  private mutating func concatenation() throws(SquintError) -> TemplateExpression {
    let line = current.line
    var items = [try product()]
    while skip(.tilde) { items.append(try product()) }
    return items.count == 1 ? items[0] : try node(.concatenate(items), line: line, above: depth(items))
  }

  private mutating func product() throws(SquintError) -> TemplateExpression {
    var left = try unary()
    while case .symbol(let symbol) = current.kind {
      let operation: TemplateExpression.BinaryOperator
      switch symbol {
      case .multiply: operation = .multiply
      case .modulo: operation = .modulo
      case .divide, .floorDivide, .power:
        throw templateError(
          current.line, "the operator '\(symbol.rawValue)' is not supported; the template has to do without it")
      default: return left
      }
      let line = current.line
      advance()
      let right = try unary()
      left = try node(.binary(left, operation, right), line: line, above: max(left.depth, right.depth))
    }
    return left
  }

  private mutating func unary() throws(SquintError) -> TemplateExpression {
    let line = current.line
    var signs = 0
    while skip(.subtract) { signs += 1 }
    // A sign binds tighter than a filter, and looser than a call or a subscript.
    var result = try postfix(try primary())
    for _ in 0..<signs { result = try node(.negate(result), line: line, above: result.depth) }
    return try filtered(result)
  }

  private mutating func primary() throws(SquintError) -> TemplateExpression {
    let line = current.line
    switch current.kind {
    case .name(let name):
      advance()
      switch name.string {
      case "true", "True": return try node(.bool(true), line: line)
      case "false", "False": return try node(.bool(false), line: line)
      case "none", "None": return try node(.none, line: line)
      case "varargs" where mentionsCaller.count > 1, "kwargs" where mentionsCaller.count > 1:
        throw templateError(line, "'\(name.string)' in a macro is not supported; the template has to do without it")
      case "caller": mentionsCaller[mentionsCaller.count - 1] = true
      default: break
      }
      return try node(.name(name), line: line)
    case .string(var text):
      advance()
      while case .string(let more) = current.kind {
        text.append(more)
        advance()
      }
      return try node(.string(text), line: line)
    case .integer(let value):
      advance()
      return try node(.integer(value), line: line)
    case .symbol(.leftParenthesis):
      advance()
      let result = try tuple(inParentheses: true)
      try expect(.rightParenthesis)
      return result
    case .symbol(.leftBracket):
      advance()
      var items: [TemplateExpression] = []
      while !isSymbol(.rightBracket) {
        items.append(try expression())
        guard skip(.comma) else { break }
      }
      try expect(.rightBracket)
      return try node(.list(items), line: line, above: depth(items))
    case .symbol(.leftBrace):
      advance()
      var pairs: [(key: TemplateExpression, value: TemplateExpression)] = []
      while !isSymbol(.rightBrace) {
        let key = try expression()
        try expect(.colon)
        pairs.append((key, try expression()))
        guard skip(.comma) else { break }
      }
      try expect(.rightBrace)
      let depth = max(self.depth(pairs.map(\.key)), self.depth(pairs.map(\.value)))
      return try node(.dictionary(pairs), line: line, above: depth)
    default: throw unexpected("an expression")
    }
  }

  private mutating func postfix(_ operand: TemplateExpression) throws(SquintError) -> TemplateExpression {
    var result = operand
    while true {
      if isSymbol(.dot) || isSymbol(.leftBracket) {
        result = try subscripted(result)
      } else if isSymbol(.leftParenthesis) {
        result = try called(result)
      } else {
        return result
      }
    }
  }

  private mutating func called(_ callee: TemplateExpression) throws(SquintError) -> TemplateExpression {
    let line = current.line
    let arguments = try self.arguments()
    return try node(.call(callee, arguments), line: line, above: max(callee.depth, arguments.depth))
  }

  private mutating func subscripted(_ operand: TemplateExpression) throws(SquintError) -> TemplateExpression {
    let line = current.line
    if skip(.dot) {
      if case .integer(let position) = current.kind {
        advance()
        let key = try node(.integer(position), line: line)
        return try node(.item(operand, key), line: line, above: operand.depth)
      }
      return try node(.attribute(operand, try name()), line: line, above: operand.depth)
    }
    try expect(.leftBracket)
    var start: TemplateExpression?
    if !isSymbol(.colon) {
      let key = try expression()
      if skip(.rightBracket) {
        return try node(.item(operand, key), line: line, above: max(operand.depth, key.depth))
      }
      start = key
    }
    try expect(.colon)
    let stop = isSymbol(.colon) || isSymbol(.rightBracket) ? nil : try expression()
    var step: TemplateExpression?
    if skip(.colon), !isSymbol(.rightBracket) { step = try expression() }
    try expect(.rightBracket)
    let depth = max(operand.depth, start?.depth ?? 0, max(stop?.depth ?? 0, step?.depth ?? 0))
    return try node(
      .slice(operand, TemplateSlice(start: start, stop: stop, step: step)), line: line, above: depth)
  }

  private mutating func arguments() throws(SquintError) -> TemplateArguments {
    let line = current.line
    try expect(.leftParenthesis)
    var arguments = TemplateArguments()
    while !isSymbol(.rightParenthesis) {
      if isSymbol(.multiply), arguments.sequence == nil {
        advance()
        arguments.sequence = try expression()
      } else if case .name(let name) = current.kind, following.kind == .symbol(.assign) {
        guard !arguments.named.contains(where: { $0.name == name }) else {
          throw templateError(line, "the argument '\(name.string)' is given twice")
        }
        advance()
        advance()
        arguments.named.append((name, try expression()))
      } else {
        guard arguments.sequence == nil, arguments.named.isEmpty else {
          throw templateError(line, "a positional argument follows a named one")
        }
        arguments.positional.append(try expression())
      }
      guard skip(.comma) else { break }
    }
    try expect(.rightParenthesis)
    return arguments
  }

  // MARK: Filters and tests

  private mutating func filtered(_ operand: TemplateExpression) throws(SquintError) -> TemplateExpression {
    var result = operand
    while true {
      if skip(.pipe) {
        let filter = try self.filter()
        let depth = max(result.depth, filter.arguments.depth)
        result = try node(.filter(result, filter), line: filter.line, above: depth)
      } else if isName("is") {
        result = try test(result)
      } else if isSymbol(.leftParenthesis) {
        result = try called(result)
      } else {
        return result
      }
    }
  }

  private mutating func filter() throws(SquintError) -> TemplateFilter {
    let line = current.line
    let name = try name()
    let arguments = isSymbol(.leftParenthesis) ? try self.arguments() : TemplateArguments()
    return TemplateFilter(name: name, arguments: arguments, line: line)
  }

  private mutating func filterChain(startsInline: Bool) throws(SquintError) -> [TemplateFilter] {
    var filters: [TemplateFilter] = []
    if startsInline { filters.append(try filter()) }
    while skip(.pipe) { filters.append(try filter()) }
    return filters
  }

  private mutating func test(_ operand: TemplateExpression) throws(SquintError) -> TemplateExpression {
    let line = current.line
    advance()
    let isNegated = skip("not")
    let name = try name()
    var arguments = TemplateArguments()
    if isSymbol(.leftParenthesis) {
      arguments = try self.arguments()
    } else if beginsTestArgument() {
      if isName("is") { throw templateError(line, "tests cannot be chained with 'is'") }
      arguments.positional = [try postfix(try primary())]
    }
    let depth = max(operand.depth, arguments.depth)
    let result = try node(.test(operand, name, arguments), line: line, above: depth)
    return isNegated ? try node(.not(result), line: line, above: result.depth) : result
  }

  private func beginsTestArgument() -> Bool {
    switch current.kind {
    case .name(let name): !["else", "or", "and"].contains(name)
    case .string, .integer, .symbol(.leftBracket), .symbol(.leftBrace): true
    default: false
    }
  }
}
