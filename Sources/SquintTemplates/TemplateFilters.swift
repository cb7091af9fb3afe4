import SquintFile

// Jinja's built-in filters (jinja2/filters.py) and tests (jinja2/tests.py), with transformers' own `tojson`.
extension TemplateInterpreter {
  func apply(
    _ name: PythonText, to value: PythonValue, _ call: TemplateCall
  ) throws(SquintError) -> PythonValue {
    try chargeReading(value)
    let filter = "the filter '\(templateExcerpt(name.string, limit: 60))'"
    switch name.string {
    case "default", "d":
      let values = try bind(call, ["default_value", "boolean"], of: filter)
      var isMissing = values[1].map(isTrue) == true && !isTrue(value)
      if case .undefined = value { isMissing = true }
      return isMissing ? values[0] ?? .text(PythonText()) : value
    case "trim":
      let set = try bind(call, ["chars"], of: filter)[0]
      return try made(try text(of: value).stripped(try optionalString(set, of: filter)))
    case "upper", "lower", "title", "capitalize":
      _ = try bind(call, [], of: filter)
      return name == "title" ? try titled(try text(of: value)) : try changedCase(try text(of: value), name.string)
    case "string", "safe":
      _ = try bind(call, [], of: filter)
      return .text(try text(of: value))
    case "replace":
      let values = try bind(call, ["old", "new", "count"], required: 2, of: filter)
      return try replaced(
        try text(of: value), try text(of: values[0] ?? .none), try text(of: values[1] ?? .none),
        try wholeNumber(values[2], -1, filter))
    case "length", "count":
      guard let count = try count(of: value) else {
        throw fail("a value of type \(value.typeName) has no length")
      }
      return .int(count)
    case "join": return try join(value, call, filter)
    case "first":
      if case .object(let iterator as PythonIterator) = value {
        return iterator.next() ?? .undefined("the sequence has no first item")
      }
      if case .text(let text) = value {
        return text.character(at: 0).map { .text($0) } ?? .undefined("the sequence has no first item")
      }
      return try items(of: value).first ?? .undefined("the sequence has no first item")
    case "last":
      if case .object(is PythonIterator) = value { throw fail("\(filter) needs a list; put '|list' before it") }
      return try items(of: value).last ?? .undefined("the sequence has no last item")
    case "list": return try list(try items(of: value))
    case "items":
      switch value {
      case .undefined: return try iterator([])
      case .dictionary(let dictionary): return try iterator(try pairs(of: dictionary))
      default: throw fail("\(filter) takes a mapping, not a value of type \(value.typeName)")
      }
    case "dictsort": return try sortedDictionary(value, call, filter)
    case "sort":
      let path = try self.path(try bind(call, ["attribute"], of: filter)[0])
      let items = try items(of: value)
      var keys: [PythonValue] = []
      for item in items { keys.append(ignoringCase(try follow(path, item))) }
      return try list(try sorted(items, by: keys))
    case "unique": return try unique(value, call, filter)
    case "min", "max": return try extreme(value, call, filter, isMaximum: name == "max")
    case "map": return try map(value, call, filter)
    case "select", "reject", "selectattr", "rejectattr":
      return try select(
        value, call, filter, keeps: name == "select" || name == "selectattr", byAttribute: name.hasSuffix("attr"))
    case "tojson": return try json(value, call, filter)
    case "int": return try int(value, call, filter)
    case "indent": return try indent(value, call, filter)
    default:
      throw fail("\(filter) is not supported; the template has to do without it")
    }
  }

  // MARK: Helpers

  private func wholeNumber(_ value: PythonValue?, _ initial: Int, _ filter: String) throws(SquintError) -> Int {
    guard let value else { return initial }
    if case .none = value { return initial }
    guard let number = integer(value) else {
      throw fail("\(filter) takes an integer, not a value of type \(value.typeName)")
    }
    return number
  }

  /// The filter `title`: words begin after white space, "-", "(", "{", "[" and "<", unlike those of str.title.
  private func titled(_ text: PythonText) throws(SquintError) -> PythonValue {
    try charge(text.bytes.count >> 4)
    var result = PythonText()
    var word = PythonText()
    func finish() {
      guard !word.isEmpty else { return }
      let (first, length) = word.scalar(at: 0)
      result.append(contentsOf: first.properties.uppercaseMapping.utf8)
      result.append(word[length..<word.bytes.count].lowercased)
      word = PythonText()
    }
    for scalar in text.scalars {
      if scalar.isPythonSpace || ["-", "(", "{", "[", "<"].contains(scalar) {
        finish()
        result.append(scalar)
      } else {
        word.append(scalar)
      }
    }
    finish()
    return try made(result.inheriting(from: text))
  }

  private func join(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let separator = try text(of: try bind(call, ["d"], of: filter)[0] ?? .text(PythonText()))
    var pieces: [PythonText] = []
    for item in try items(of: value) { pieces.append(try text(of: item)) }
    return try joined(pieces, separator: separator)
  }

  // MARK: Attribute paths

  /// The keys of "a.b.0"; no keys for None.
  private func path(_ attribute: PythonValue?) throws(SquintError) -> [PythonValue] {
    switch attribute {
    case nil, .some(.none): return []
    case .text(let text):
      return text.split(separator: ".").map { part in
        part.allScalars({ (0x30...0x39).contains($0.value) })
          ? Int(part.string).map { .int($0) } ?? .text(part) : .text(part)
      }
    case .some(let value): return [value]
    }
  }

  private func follow(_ path: [PythonValue], _ value: PythonValue) throws(SquintError) -> PythonValue {
    var result = value
    for key in path { result = try item(key, of: result) }
    return result
  }

  /// What a text is compared by where case does not count.
  private func ignoringCase(_ value: PythonValue) -> PythonValue {
    if case .text(let text) = value { return .text(text.lowercased) }
    return value
  }

  // MARK: Sequences

  private func sortedDictionary(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String
  ) throws(SquintError) -> PythonValue {
    _ = try bind(call, [], of: filter)
    guard case .dictionary(let dictionary) = value else {
      throw fail("\(filter) takes a mapping, not a value of type \(value.typeName)")
    }
    return try list(try sorted(try pairs(of: dictionary), by: dictionary.keys.map(ignoringCase)))
  }

  private func unique(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String
  ) throws(SquintError) -> PythonValue {
    _ = try bind(call, [], of: filter)
    var seen: Set<PythonKey> = []
    var result: [PythonValue] = []
    for item in try items(of: value) {
      guard let key = try hash(ignoringCase(item)) else {
        throw fail("\(filter) does not work on lists and dictionaries")
      }
      if seen.insert(key).inserted { result.append(item) }
    }
    return try iterator(result)
  }

  private func extreme(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String, isMaximum: Bool
  ) throws(SquintError) -> PythonValue {
    _ = try bind(call, [], of: filter)
    var best: (item: PythonValue, key: PythonValue)?
    for item in try items(of: value) {
      let key = ignoringCase(item)
      if let current = best {
        let isBetter = try isMaximum ? isLess(current.key, key) : isLess(key, current.key)
        if isBetter { best = (item, key) }
      } else {
        best = (item, key)
      }
    }
    return best?.item ?? .undefined("the sequence is empty and has no minimum or maximum")
  }

  private func map(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    guard isTrue(value) else { return try iterator([]) }
    var result: [PythonValue] = []
    if call.positional.isEmpty, call.named.contains(where: { $0.name == "attribute" }) {
      let path = try self.path(try bind(call, ["attribute"], of: filter)[0])
      for item in try items(of: value) { result.append(try follow(path, item)) }
      return try iterator(result)
    }
    guard case .text(let name) = call.positional.first else { throw fail("\(filter) needs a filter's name") }
    let rest = TemplateCall(positional: Array(call.positional.dropFirst()), named: call.named)
    for item in try items(of: value) {
      try charge(1)
      result.append(try apply(name, to: item, rest))
    }
    return try iterator(result)
  }

  private func select(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String, keeps: Bool, byAttribute: Bool
  ) throws(SquintError) -> PythonValue {
    guard isTrue(value) else { return try iterator([]) }
    var arguments = call.positional[...]
    var path: [PythonValue] = []
    if byAttribute {
      guard let attribute = arguments.popFirst() else { throw fail("\(filter) needs an attribute's name") }
      path = try self.path(attribute)
    }
    var testName: PythonText?
    if let name = arguments.popFirst() {
      guard case .text(let name) = name else { throw fail("\(filter) needs a test's name") }
      testName = name
    }
    let rest = TemplateCall(positional: Array(arguments), named: call.named)
    var result: [PythonValue] = []
    for item in try items(of: value) {
      let subject = try follow(path, item)
      let holds = try testName.map { (name) throws(SquintError) in try test(name, subject, rest) } ?? isTrue(subject)
      if holds == keeps { result.append(item) }
    }
    return try iterator(result)
  }

  // MARK: Numbers and texts

  private func json(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["ensure_ascii", "indent", "separators"], of: filter)
    var style = JSONStyle()
    style.isASCII = values[0].map(isTrue) == true
    switch values[1] {
    case nil, .some(.none): break
    case .text(let text): style.indent = text
    case .some(let value):
      let width = try wholeNumber(value, 0, filter)
      guard width <= 64 else { throw fail("\(filter) indents by at most 64") }
      style.indent = PythonText(bytes: [UInt8](repeating: 0x20, count: max(0, width)))
    }
    if style.indent != nil { style.itemSeparator = "," }
    switch values[2] {
    case nil, .some(.none): break
    case .some(let value):
      let separators = try items(of: value)
      guard separators.count == 2, case .text(let item) = separators[0], case .text(let key) = separators[1] else {
        throw fail("\(filter) takes two strings as separators")
      }
      style.itemSeparator = item
      style.keySeparator = key
    }
    var result = PythonText()
    try writeJSON(value, style, into: &result)
    return try made(result)
  }

  /// Python's `int(value)`; 0 where a text is no number.
  private func int(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    _ = try bind(call, [], of: filter)
    switch value {
    case .undefined(let reason): throw fail(reason.string)
    case .text(let text):
      let digits = text.stripped().string.filter { $0 != "_" }
      // Swift reads hexadecimal as well, Python does not.
      guard digits.utf8.allSatisfy({ "0123456789+-.eE".utf8.contains($0) }) else { return .int(0) }
      if let number = Int(digits) { return .int(number) }
      guard let fraction = Double(digits) else { return .int(0) }
      return try whole(fraction)
    case .double(let fraction): return try whole(fraction)
    default: return .int(integer(value) ?? 0)
    }
  }

  private func whole(_ value: Double) throws(SquintError) -> PythonValue {
    guard value.isFinite else { return .int(0) }
    guard let number = Int(exactly: value.rounded(.towardZero)) else {
      throw fail("the integer part of \(value) does not fit 64 bits")
    }
    return .int(number)
  }

  private func indent(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["width", "first"], of: filter)
    guard case .text(let text) = value else {
      throw fail("\(filter) takes a string, not a value of type \(value.typeName)")
    }
    var indentation: PythonText
    if case .text(let text) = values[0] {
      indentation = text
    } else {
      let width = try wholeNumber(values[0], 4, filter)
      guard width <= 4096 else { throw fail("\(filter) indents by at most 4,096") }
      indentation = PythonText(bytes: [UInt8](repeating: 0x20, count: max(0, width)))
    }
    try charge(text.bytes.count)
    let lines = (text + "\n").lines()
    let (growth, overflow) = lines.count.multipliedReportingOverflow(by: indentation.bytes.count + 1)
    guard !overflow else { throw fail("a text grows over \(grouped(limits.output)) bytes") }
    try chargeText(text.byteCount + growth)
    var result = values[1].map(isTrue) == true ? indentation : PythonText()
    for (index, line) in lines.enumerated() {
      if index > 0 {
        result.append("\n" as PythonText)
        if !line.isEmpty { result.append(indentation) }
      }
      result.append(line)
    }
    return .text(result)
  }

  // MARK: Tests

  func test(_ name: PythonText, _ value: PythonValue, _ call: TemplateCall) throws(SquintError) -> Bool {
    let test = "the test '\(templateExcerpt(name.string, limit: 60))'"
    func operand() throws(SquintError) -> PythonValue {
      try bind(call, ["other"], required: 1, of: test)[0] ?? .none
    }
    switch name.string {
    case "==", "eq", "equalto": return try areEqual(value, try operand())
    case "!=", "ne": return try !areEqual(value, try operand())
    case "<", "lt", "lessthan": return try isLess(value, try operand())
    case "<=", "le": return try isLess(value, try operand(), orEqual: true, sign: "<=")
    case ">", "gt", "greaterthan": return try isLess(try operand(), value, sign: ">")
    case ">=", "ge": return try isLess(try operand(), value, orEqual: true, sign: ">=")
    case "in": return try contains(try operand(), value)
    case "defined", "undefined", "none", "boolean", "string", "mapping", "float", "integer", "number", "true", "false",
      "sequence", "iterable":
      _ = try bind(call, [], of: test)
    default: throw fail("\(test) is not supported; the template has to do without it")
    }
    switch (name.string, value) {
    case ("defined", .undefined): return false
    case ("defined", _): return true
    case ("undefined", .undefined): return true
    case ("none", .none), ("boolean", .bool), ("string", .text), ("mapping", .dictionary), ("float", .double),
      ("integer", .int), ("number", .int), ("number", .double), ("number", .bool):
      return true
    case ("true", .bool(let flag)): return flag
    case ("false", .bool(let flag)): return !flag
    case ("undefined", _), ("none", _), ("boolean", _), ("string", _), ("mapping", _), ("float", _), ("integer", _),
      ("number", _), ("true", _), ("false", _):
      return false
    case ("sequence", .text), ("sequence", .list), ("sequence", .tuple), ("sequence", .dictionary),
      ("sequence", .undefined):
      return true
    case ("sequence", .object(let object)): return object is PythonRange
    case ("sequence", _): return false
    case ("iterable", .object(let object)):
      return object is PythonRange || object is PythonView || object is PythonIterator || object is PythonLoop
    case ("iterable", .none), ("iterable", .bool), ("iterable", .int), ("iterable", .double): return false
    // What is left is whether other values are iterable.
    default: return true
    }
  }
}
