import SquintFile

/// What one rendering may cost. A template comes with a downloaded model: it is bounded like any other input.
package struct TemplateLimits: Sendable {
  /// Bytes of output, and of any one text on the way.
  package var output = 16 << 20
  /// Bytes of all texts that are made on the way.
  package var text = 64 << 20
  /// Evaluated expressions, loop iterations, list elements and the like.
  package var steps = 4_000_000
  /// Levels of nested expressions, blocks and macro calls. One takes up to 1.6 kB of stack on x86-64, so that all of
  /// them fit the 512 KiB of a macOS thread.
  package var depth = 240
  /// Levels of nested lists and dictionaries.
  package var valueDepth = 100

  package init() {}
}

/// Arguments of a call, evaluated.
struct TemplateCall {
  var positional: [PythonValue] = []
  var named: [(name: PythonText, value: PythonValue)] = []
}

/// Runs a parsed template. Semantics are those of the code that jinja2's compiler (jinja2/compiler.py) generates and
/// of its runtime (jinja2/runtime.py) in an ImmutableSandboxedEnvironment.
final class TemplateInterpreter {
  enum Flow { case normal, leave, next }

  let limits: TemplateLimits
  let date: TemplateDate
  let context: [PythonText: PythonValue]
  /// The line being run, for errors.
  var line = 1

  private var output = PythonText()
  private var depth = 0
  private var steps: Int
  private var text: Int
  /// Scopes that a macro refers to, which in turn refer to the macro: emptied at the end, to break the circle.
  private var closures: [TemplateScope] = []

  init(context: [PythonText: PythonValue], date: TemplateDate, limits: TemplateLimits) {
    self.context = context
    self.date = date
    self.limits = limits
    steps = limits.steps
    text = limits.text
  }

  func render(_ body: [TemplateStatement]) throws(SquintError) -> PythonText {
    defer { for scope in closures { scope.values.removeAll() } }
    _ = try execute(body, in: TemplateScope(parent: nil))
    return output
  }

  // MARK: Errors and budgets

  func fail(_ message: String) -> SquintError { templateError(line, message) }

  func charge(_ count: Int) throws(SquintError) {
    steps -= min(count, limits.steps + 1)
    if steps < 0 {
      throw fail("the template takes more than \(grouped(limits.steps)) steps; it may never end")
    }
  }

  /// Charges for reading `value` once from end to end.
  func chargeReading(_ value: PythonValue) throws(SquintError) {
    switch value {
    case .text(let text): try charge(text.bytes.count >> 6)
    case .list(let sequence), .tuple(let sequence): try charge(sequence.items.count)
    case .dictionary(let dictionary): try charge(dictionary.count)
    default: break
    }
  }

  /// Charges for a text of `bytes` bytes, before it is made.
  func chargeText(_ bytes: Int) throws(SquintError) {
    guard bytes <= limits.output else {
      throw fail("a text grows over \(grouped(limits.output)) bytes")
    }
    text -= bytes
    if text < 0 { throw fail("the texts grow over \(grouped(limits.text)) bytes in all") }
  }

  func made(_ text: PythonText) throws(SquintError) -> PythonValue {
    try chargeText(text.byteCount)
    return .text(text)
  }

  private func emit(_ text: PythonText) throws(SquintError) {
    guard text.byteCount <= limits.output - output.byteCount else {
      throw fail("the output grows over \(grouped(limits.output)) bytes")
    }
    output.append(text)
  }

  private func enter() throws(SquintError) {
    guard depth < limits.depth else {
      throw fail(
        "blocks, expressions and macro calls nest more than \(limits.depth) levels deep; a macro may call itself for ever"
      )
    }
    depth += 1
    try charge(1)
  }

  // MARK: Making containers

  func sequence(_ items: [PythonValue]) throws(SquintError) -> PythonSequence {
    PythonSequence(items: items, depth: try depth(of: items))
  }

  func list(_ items: [PythonValue]) throws(SquintError) -> PythonValue { .list(try sequence(items)) }
  func tuple(_ items: [PythonValue]) throws(SquintError) -> PythonValue { .tuple(try sequence(items)) }

  func iterator(_ items: [PythonValue]) throws(SquintError) -> PythonValue {
    .object(PythonIterator(items, depth: try depth(of: items)))
  }

  func texts(_ items: [PythonText]) throws(SquintError) -> PythonValue {
    try charge(items.count * 4)
    var bytes = 0
    for item in items { bytes += item.byteCount }
    try chargeText(bytes)
    return .list(PythonSequence(items: items.map { .text($0) }, depth: 1))
  }

  func depth(of items: [PythonValue]) throws(SquintError) -> Int {
    try charge(items.count)
    var depth = 0
    for item in items { depth = max(depth, item.depth) }
    return try checked(depth: depth + 1)
  }

  func checked(depth: Int) throws(SquintError) -> Int {
    guard depth <= limits.valueDepth else {
      throw fail("lists and dictionaries nest more than \(limits.valueDepth) levels deep")
    }
    return depth
  }

  func dictionary(_ pairs: [(PythonValue, PythonValue)]) throws(SquintError) -> PythonValue {
    let result = PythonDictionary()
    try charge(pairs.count)
    for (key, value) in pairs {
      guard let hashed = try hash(key) else { throw fail("a key of type \(key.typeName) is unhashable") }
      result.set(key, hashed, value)
    }
    _ = try checked(depth: result.depth)
    return .dictionary(result)
  }

  // MARK: Statements

  private func execute(_ body: [TemplateStatement], in scope: TemplateScope) throws(SquintError) -> Flow {
    try enter()
    defer { depth -= 1 }
    for statement in body {
      let flow = try execute(statement, in: scope)
      if flow != .normal { return flow }
    }
    return .normal
  }

  private func execute(_ statement: TemplateStatement, in scope: TemplateScope) throws(SquintError) -> Flow {
    switch statement {
    case .text(let text): try emit(text)
    case .output(let expression): try emit(try self.text(of: try evaluate(expression, in: scope)))
    case .conditional(let branches, let otherwise):
      for branch in branches where isTrue(try evaluate(branch.test, in: scope)) {
        return try execute(branch.body, in: scope)
      }
      return otherwise.isEmpty ? .normal : try execute(otherwise, in: scope)
    case .loop(let loop): return try execute(loop, in: scope)
    case .set(let target, let expression):
      try assign(try evaluate(expression, in: scope), to: target, in: scope)
    case .setBlock(let target, let filters, let body, let line):
      try assign(try captured(body, filters, line: line, in: scope), to: target, in: scope)
    case .macro(let function):
      scope.values[function.name] = .object(closure(function, scope: scope, isCaller: false))
    case .call(let function, let call): try emit(try self.text(of: try execute(function, call: call, in: scope)))
    case .filter(let filters, let body, let line):
      try emit(try self.text(of: try captured(body, filters, line: line, in: scope)))
    case .scope(let body): return try execute(body, in: TemplateScope(parent: scope))
    case .break: return .leave
    case .continue: return .next
    }
    return .normal
  }

  private func closure(_ function: TemplateFunction, scope: TemplateScope, isCaller: Bool) -> PythonMacro {
    if closures.last !== scope { closures.append(scope) }
    return PythonMacro(function, scope: scope, isCaller: isCaller)
  }

  /// Runs `body` and returns what it prints.
  private func capture(_ body: [TemplateStatement], in scope: TemplateScope) throws(SquintError) -> PythonText {
    try capture { () throws(SquintError) in _ = try self.execute(body, in: scope) }
  }

  private func capture(_ body: () throws(SquintError) -> Void) throws(SquintError) -> PythonText {
    let outer = output
    output = PythonText()
    defer { output = outer }
    try body()
    try chargeText(output.byteCount)
    return output
  }

  private func captured(
    _ body: [TemplateStatement], _ filters: [TemplateFilter], line: Int, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let inner = TemplateScope(parent: scope)
    var value = PythonValue.text(try capture(body, in: inner))
    for filter in filters {
      self.line = filter.line
      value = try apply(filter.name, to: value, try arguments(filter.arguments, in: inner))
    }
    return value
  }

  private func execute(
    _ function: TemplateFunction, call: TemplateExpression, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    guard case .call(let callee, let arguments) = call.kind else { return .none }
    let target = try evaluate(callee, in: scope)
    var evaluated = try self.arguments(arguments, in: scope)
    evaluated.named.append(("caller", .object(closure(function, scope: scope, isCaller: true))))
    line = call.line
    return try self.call(target, evaluated)
  }

  private func execute(_ loop: TemplateLoop, in scope: TemplateScope) throws(SquintError) -> Flow {
    let sequence = try evaluate(loop.sequence, in: scope)
    line = loop.line
    return try run(loop, over: sequence, in: scope)
  }

  private func run(
    _ loop: TemplateLoop, over sequence: PythonValue, in scope: TemplateScope
  ) throws(SquintError) -> Flow {
    let source = try items(of: sequence)
    let state = PythonLoop(loop, source: source, depth: try checked(depth: sequence.depth + 1), scope: scope)
    defer { state.scope = nil }
    while let item = try next(of: state) {
      let inner = TemplateScope(parent: scope)
      inner.values["loop"] = .object(state)
      line = loop.line
      try assign(item, to: loop.target, in: inner)
      let flow = try execute(loop.body, in: inner)
      if flow == .leave { break }
    }
    return .normal
  }

  private func next(of loop: PythonLoop) throws(SquintError) -> PythonValue? {
    let item = try loop.ahead.isEmpty ? fetch(for: loop) : loop.ahead.removeFirst()
    guard let item else { return nil }
    try charge(1)
    loop.index0 += 1
    loop.previous = loop.current
    loop.current = item
    return item
  }

  /// The next item that satisfies the loop's condition.
  private func fetch(for loop: PythonLoop) throws(SquintError) -> PythonValue? {
    guard let scope = loop.scope else { return nil }
    while loop.position < loop.source.count {
      let item = loop.source[loop.position]
      loop.position += 1
      guard let condition = loop.loop.condition else { return item }
      let inner = TemplateScope(parent: scope)
      try assign(item, to: loop.loop.target, in: inner)
      if isTrue(try evaluate(condition, in: inner)) { return item }
    }
    return nil
  }

  private func peek(_ loop: PythonLoop) throws(SquintError) -> PythonValue? {
    if let item = loop.ahead.first { return item }
    guard let item = try fetch(for: loop) else { return nil }
    loop.ahead.append(item)
    return item
  }

  private func length(of loop: PythonLoop) throws(SquintError) -> Int {
    if loop.loop.condition == nil { return loop.source.count }
    while let item = try fetch(for: loop) { loop.ahead.append(item) }
    return loop.index0 + 1 + loop.ahead.count
  }

  func attribute(_ name: PythonText, of loop: PythonLoop) throws(SquintError) -> PythonValue? {
    switch name.string {
    case "index": return .int(loop.index0 + 1)
    case "index0": return .int(loop.index0)
    case "first": return .bool(loop.index0 == 0)
    case "last": return .bool(try peek(loop) == nil)
    case "length": return .int(try length(of: loop))
    case "previtem": return loop.index0 == 0 ? .undefined("there is no previous item") : loop.previous
    case "nextitem": return try peek(loop) ?? .undefined("there is no next item")
    case "revindex", "revindex0", "depth", "depth0", "cycle", "changed":
      throw fail("loop.\(name.string) is not supported; the template has to do without it")
    default: return nil
    }
  }

  private func assign(
    _ value: PythonValue, to target: TemplateTarget, in scope: TemplateScope
  ) throws(SquintError) {
    switch target {
    case .name(let name): scope.values[name] = value
    case .namespaceAttribute(let name, let attribute):
      guard case .object(let object) = lookUp(name, in: scope), let namespace = object as? PythonNamespace else {
        throw fail("'\(name.string)' is not a namespace, so that '\(name.string).\(attribute.string)' cannot be set")
      }
      try set(attribute, to: value, in: namespace)
    case .tuple(let targets):
      let items = try self.items(of: value)
      guard items.count == targets.count else {
        throw fail("\(items.count) values cannot be unpacked into \(targets.count) names")
      }
      for (item, target) in zip(items, targets) { try assign(item, to: target, in: scope) }
    }
  }

  func set(_ name: PythonText, to value: PythonValue, in namespace: PythonNamespace) throws(SquintError) {
    guard !name.hasPrefix("_") else {
      throw fail("a namespace's attribute cannot begin with an underscore, as '\(templateExcerpt(name.string))' does")
    }
    guard value.depth < PythonNamespace.weight else {
      throw fail("a namespace cannot hold another one, or a value nested \(PythonNamespace.weight) levels deep")
    }
    if namespace.values.updateValue(value, forKey: name) == nil { namespace.names.append(name) }
  }

  // MARK: Expressions

  private func lookUp(_ name: PythonText, in scope: TemplateScope) -> PythonValue {
    var current: TemplateScope? = scope
    while let block = current {
      if let value = block.values[name] { return value }
      current = block.parent
    }
    if let value = context[name] { return value }
    if let function = PythonFunction.Name(rawValue: name.string) { return .object(PythonFunction(function)) }
    return .undefined(PythonText("'\(name.string)' is undefined"))
  }

  func evaluate(_ expression: TemplateExpression, in scope: TemplateScope) throws(SquintError) -> PythonValue {
    try enter()
    defer { depth -= 1 }
    line = expression.line
    switch expression.kind {
    case .none: return .none
    case .bool(let value): return .bool(value)
    case .integer(let value): return .int(value)
    case .string(let text): return .text(text)
    case .name(let name): return lookUp(name, in: scope)
    case .list(let items): return try list(try evaluate(items, in: scope))
    case .tuple(let items): return try tuple(try evaluate(items, in: scope))
    case .dictionary(let pairs): return try evaluate(pairs, in: scope)
    case .attribute(let operand, let name): return try evaluateAttribute(operand, name, expression, in: scope)
    case .item(let operand, let key): return try evaluateItem(operand, key, expression, in: scope)
    case .slice(let operand, let slice): return try evaluateSlice(operand, slice, expression, in: scope)
    case .call(let callee, let arguments): return try evaluateCall(callee, arguments, expression, in: scope)
    case .filter(let operand, let filter): return try evaluateFilter(operand, filter, in: scope)
    case .test(let operand, let name, let arguments):
      return try evaluateTest(operand, name, arguments, expression, in: scope)
    case .negate(let operand): return try evaluateSign(operand, in: scope)
    case .not(let operand): return .bool(!isTrue(try evaluate(operand, in: scope)))
    case .and(let left, let right):
      let value = try evaluate(left, in: scope)
      return isTrue(value) ? try evaluate(right, in: scope) : value
    case .or(let left, let right):
      let value = try evaluate(left, in: scope)
      return isTrue(value) ? value : try evaluate(right, in: scope)
    case .binary(let left, let operation, let right):
      return try evaluateBinary(left, operation, right, expression, in: scope)
    case .concatenate(let items): return try evaluateConcatenation(items, in: scope)
    case .compare(let first, let operands): return try evaluateComparison(first, operands, in: scope)
    case .conditional(let test, let then, let otherwise):
      if isTrue(try evaluate(test, in: scope)) { return try evaluate(then, in: scope) }
      guard let otherwise else {
        return .undefined("the inline if-expression evaluated to false and no else section was defined")
      }
      return try evaluate(otherwise, in: scope)
    }
  }

  private func evaluate(
    _ expressions: [TemplateExpression], in scope: TemplateScope
  ) throws(SquintError) -> [PythonValue] {
    var values: [PythonValue] = []
    values.reserveCapacity(expressions.count)
    for expression in expressions { values.append(try evaluate(expression, in: scope)) }
    return values
  }

  @inline(never)
  private func evaluate(
    _ pairs: [(key: TemplateExpression, value: TemplateExpression)], in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    var values: [(PythonValue, PythonValue)] = []
    for pair in pairs { values.append((try evaluate(pair.key, in: scope), try evaluate(pair.value, in: scope))) }
    return try dictionary(values)
  }

  @inline(never)
  private func evaluateAttribute(
    _ operand: TemplateExpression, _ name: PythonText, _ expression: TemplateExpression, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let value = try evaluate(operand, in: scope)
    line = expression.line
    return try attribute(name, of: value)
  }

  @inline(never)
  private func evaluateItem(
    _ operand: TemplateExpression, _ key: TemplateExpression, _ expression: TemplateExpression,
    in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let value = try evaluate(operand, in: scope)
    let key = try evaluate(key, in: scope)
    line = expression.line
    return try item(key, of: value)
  }

  @inline(never)
  private func evaluateSlice(
    _ operand: TemplateExpression, _ slice: TemplateSlice, _ expression: TemplateExpression, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let value = try evaluate(operand, in: scope)
    var bounds: [PythonValue] = []
    for bound in [slice.start, slice.stop, slice.step] {
      if let bound { bounds.append(try evaluate(bound, in: scope)) } else { bounds.append(.none) }
    }
    line = expression.line
    return try self.slice(value, start: bounds[0], stop: bounds[1], step: bounds[2])
  }

  private func arguments(
    _ arguments: TemplateArguments, in scope: TemplateScope
  ) throws(SquintError) -> TemplateCall {
    var call = TemplateCall(positional: try evaluate(arguments.positional, in: scope))
    for argument in arguments.named {
      call.named.append((argument.name, try evaluate(argument.value, in: scope)))
    }
    if let sequence = arguments.sequence {
      call.positional += try items(of: try evaluate(sequence, in: scope))
    }
    return call
  }

  @inline(never)
  private func evaluateCall(
    _ callee: TemplateExpression, _ arguments: TemplateArguments, _ expression: TemplateExpression,
    in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let target = try evaluate(callee, in: scope)
    let evaluated = try self.arguments(arguments, in: scope)
    line = expression.line
    return try call(target, evaluated)
  }

  @inline(never)
  private func evaluateFilter(
    _ operand: TemplateExpression, _ filter: TemplateFilter, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let value = try evaluate(operand, in: scope)
    let evaluated = try arguments(filter.arguments, in: scope)
    line = filter.line
    return try apply(filter.name, to: value, evaluated)
  }

  @inline(never)
  private func evaluateTest(
    _ operand: TemplateExpression, _ name: PythonText, _ arguments: TemplateArguments,
    _ expression: TemplateExpression, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let value = try evaluate(operand, in: scope)
    let evaluated = try self.arguments(arguments, in: scope)
    line = expression.line
    return .bool(try test(name, value, evaluated))
  }

  @inline(never)
  private func evaluateSign(
    _ operand: TemplateExpression, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    switch try evaluate(operand, in: scope) {
    case .double(let value): return .double(-value)
    case .undefined(let reason): throw fail(reason.string)
    case let value:
      guard let number = integer(value) else {
        throw fail("a sign cannot stand before a value of type \(value.typeName)")
      }
      return try arithmetic(.int(0), .subtract, .int(number))
    }
  }

  @inline(never)
  private func evaluateBinary(
    _ left: TemplateExpression, _ operation: TemplateExpression.BinaryOperator, _ right: TemplateExpression,
    _ expression: TemplateExpression, in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    let first = try evaluate(left, in: scope)
    let second = try evaluate(right, in: scope)
    line = expression.line
    return try arithmetic(first, operation, second)
  }

  @inline(never)
  private func evaluateConcatenation(
    _ items: [TemplateExpression], in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    var result = PythonText()
    for item in items {
      let piece = try text(of: try evaluate(item, in: scope))
      guard piece.byteCount <= limits.output - result.byteCount else {
        throw fail("a text grows over \(grouped(limits.output)) bytes")
      }
      result.append(piece)
    }
    return try made(result)
  }

  @inline(never)
  private func evaluateComparison(
    _ first: TemplateExpression,
    _ operands: [(comparison: TemplateExpression.Comparison, operand: TemplateExpression)],
    in scope: TemplateScope
  ) throws(SquintError) -> PythonValue {
    var left = try evaluate(first, in: scope)
    for (comparison, operand) in operands {
      let right = try evaluate(operand, in: scope)
      guard try compare(left, comparison, right) else { return .bool(false) }
      left = right
    }
    return .bool(true)
  }

  // MARK: Macros

  func call(_ macro: PythonMacro, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    let function = macro.function
    let callLine = line
    let name = macro.isCaller ? "the call block" : "the macro '\(function.name.string)'"
    let scope = TemplateScope(parent: macro.scope)
    var named = call.named
    for (index, parameter) in function.parameters.enumerated() {
      if index < call.positional.count {
        scope.values[parameter.name] = call.positional[index]
      } else if let place = named.firstIndex(where: { $0.name == parameter.name }) {
        scope.values[parameter.name] = named.remove(at: place).value
      }
    }
    if !scope.values.keys.contains("caller") && function.usesCaller && !macro.isCaller {
      let place = named.firstIndex { $0.name == "caller" }
      scope.values["caller"] = place.map { named.remove(at: $0).value } ?? .undefined("No caller defined")
    }
    guard call.positional.count <= function.parameters.count else {
      throw fail("\(name) takes \(function.parameters.count) arguments, not \(call.positional.count)")
    }
    if let extra = named.first {
      throw fail("\(name) takes no argument '\(templateExcerpt(extra.name.string))'")
    }
    for parameter in function.parameters where scope.values[parameter.name] == nil {
      if let initial = parameter.initial {
        scope.values[parameter.name] = try evaluate(initial, in: scope)
      } else {
        scope.values[parameter.name] = .undefined(
          PythonText("parameter '\(parameter.name.string)' was not provided"))
      }
    }
    let result = try capture(function.body, in: scope)
    line = callLine
    return .text(result)
  }
}
