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
      return try changedCase(try text(of: value), name.string)
    case "string", "safe":
      _ = try bind(call, [], of: filter)
      return .text(try text(of: value))
    case "escape", "e", "forceescape": return try escaped(try text(of: value))
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
      let values = try bind(call, ["reverse", "case_sensitive", "attribute"], of: filter)
      let items = try items(of: value)
      var keys: [PythonValue] = []
      for item in items {
        var key: [PythonValue] = []
        for path in try paths(values[2]) { key.append(ignoringCase(try follow(path, item), unless: values[1])) }
        keys.append(try list(key))
      }
      return try list(try sorted(items, by: keys, descending: values[0].map(isTrue) == true))
    case "unique": return try unique(value, call, filter)
    case "min", "max": return try extreme(value, call, filter, isMaximum: name == "max")
    case "sum":
      let values = try bind(call, ["attribute", "start"], of: filter)
      var total = values[1] ?? .int(0)
      if case .text = total { throw fail("\(filter) does not add strings; use 'join'") }
      for item in try items(of: value) {
        total = try arithmetic(total, .add, try follow(try path(values[0]), item))
      }
      return total
    case "reverse":
      if case .text(let text) = value {
        return try made(PythonText(text.scalars.reversed()).inheriting(from: text))
      }
      return try iterator(try items(of: value).reversed())
    case "map": return try map(value, call, filter)
    case "select", "reject", "selectattr", "rejectattr":
      return try select(
        value, call, filter, keeps: name == "select" || name == "selectattr", byAttribute: name.hasSuffix("attr"))
    case "groupby": return try group(value, call, filter)
    case "batch", "slice": return try chunk(value, call, filter, isBatch: name == "batch")
    case "tojson": return try json(value, call, filter)
    case "int": return try int(value, call, filter)
    case "float":
      let initial = try bind(call, ["default"], of: filter)[0] ?? .double(0)
      if case .undefined(let reason) = value { throw fail(reason.string) }
      if case .text(let text) = value { return pythonDouble(text).map { .double($0) } ?? initial }
      return number(value).map { .double($0) } ?? initial
    case "abs":
      if case .double(let number) = value { return .double(number.magnitude) }
      guard let number = integer(value) else { throw fail("\(filter) takes a number, not a \(value.typeName)") }
      return number < 0 ? try arithmetic(.int(0), .subtract, .int(number)) : .int(number)
    case "round": return try round(value, call, filter)
    case "indent": return try indent(value, call, filter)
    case "center":
      let method = PythonValue.object(PythonMethod(.text(try text(of: value)), "center"))
      return try self.call(
        method, TemplateCall(positional: [try bind(call, ["width"], of: filter)[0] ?? .int(80)]))
    case "truncate": return try truncate(value, call, filter)
    case "wordcount":
      var total = 0
      var isInside = false
      for scalar in try text(of: value).scalars {
        let isWord = scalar == "_" || scalar.isPythonAlphabetic || scalar.isPythonNumeric
        if isWord && !isInside { total += 1 }
        isInside = isWord
      }
      return .int(total)
    case "format":
      guard call.positional.isEmpty || call.named.isEmpty else {
        throw fail("\(filter) takes positional or named arguments, not both")
      }
      var operand = try tuple(call.positional)
      if !call.named.isEmpty {
        var pairs: [(PythonValue, PythonValue)] = []
        for argument in call.named { pairs.append((.text(argument.name), argument.value)) }
        operand = try dictionary(pairs)
      }
      return try made(try formatted(try text(of: value), with: operand))
    case "attr":
      guard case .text(let name) = try bind(call, ["name"], required: 1, of: filter)[0] else {
        throw fail("\(filter) takes a name")
      }
      return try member(name, of: value) ?? .undefined(PythonText("there is no attribute '\(name.string)'"))
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

  private func changedCase(_ text: PythonText, _ name: String) throws(SquintError) -> PythonValue {
    try charge(text.bytes.count >> 4)
    switch name {
    case "upper": return try made(text.uppercased)
    case "lower": return try made(text.lowercased)
    case "capitalize": return try made(text.capitalized)
    default:
      // Words begin after white space, "-", "(", "{", "[" and "<", unlike those of str.title.
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
  }

  private func escaped(_ text: PythonText) throws(SquintError) -> PythonValue {
    var result = PythonText()
    for byte in text.bytes {
      switch byte {
      case UInt8(ascii: "&"): result.append("&amp;" as PythonText)
      case UInt8(ascii: "<"): result.append("&lt;" as PythonText)
      case UInt8(ascii: ">"): result.append("&gt;" as PythonText)
      case UInt8(ascii: "'"): result.append("&#39;" as PythonText)
      case UInt8(ascii: "\""): result.append("&#34;" as PythonText)
      default: result.append(byte: byte)
      }
    }
    return try made(result)
  }

  private func join(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["d", "attribute"], of: filter)
    let separator = try text(of: values[0] ?? .text(PythonText()))
    let path = try self.path(values[1])
    var pieces: [PythonText] = []
    for item in try items(of: value) { pieces.append(try text(of: try follow(path, item))) }
    return try joined(pieces, separator: separator)
  }

  // MARK: Attribute paths

  /// The keys of "a.b.0"; no keys for None.
  private func path(_ attribute: PythonValue?) throws(SquintError) -> [PythonValue] {
    switch attribute {
    case nil, .some(.none): return []
    case .text(let text):
      return text.split(separator: ".").map { part in
        part.allScalars(\.isPythonDigit) ? Int(part.string).map { .int($0) } ?? .text(part) : .text(part)
      }
    case .some(let value): return [value]
    }
  }

  /// The paths of "a.b,c".
  private func paths(_ attribute: PythonValue?) throws(SquintError) -> [[PythonValue]] {
    guard case .text(let text) = attribute else { return [try path(attribute)] }
    var paths: [[PythonValue]] = []
    for part in text.split(separator: ",") { paths.append(try path(.text(part))) }
    return paths
  }

  private func follow(
    _ path: [PythonValue], _ value: PythonValue, default initial: PythonValue? = nil
  ) throws(SquintError) -> PythonValue {
    var result = value
    for key in path {
      result = try item(key, of: result)
      if case .undefined = result, let initial { result = initial }
    }
    return result
  }

  private func ignoringCase(_ value: PythonValue, unless isSensitive: PythonValue?) -> PythonValue {
    if case .text(let text) = value, isSensitive.map(isTrue) != true { return .text(text.lowercased) }
    return value
  }

  // MARK: Sequences

  private func sortedDictionary(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String
  ) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["case_sensitive", "by", "reverse"], of: filter)
    guard case .dictionary(let dictionary) = value else {
      throw fail("\(filter) takes a mapping, not a value of type \(value.typeName)")
    }
    var source = dictionary.keys
    if case .text(let by) = values[1] {
      guard by == "key" || by == "value" else { throw fail("\(filter) sorts by 'key' or 'value'") }
      if by == "value" { source = dictionary.values }
    }
    let keys = source.map { ignoringCase($0, unless: values[0]) }
    return try list(
      try sorted(try pairs(of: dictionary), by: keys, descending: values[2].map(isTrue) == true))
  }

  private func unique(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String
  ) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["case_sensitive", "attribute"], of: filter)
    let path = try self.path(values[1])
    var seen: Set<PythonKey> = []
    var result: [PythonValue] = []
    for item in try items(of: value) {
      guard let key = try hash(ignoringCase(try follow(path, item), unless: values[0])) else {
        throw fail("\(filter) does not work on lists and dictionaries")
      }
      if seen.insert(key).inserted { result.append(item) }
    }
    return try iterator(result)
  }

  private func extreme(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String, isMaximum: Bool
  ) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["case_sensitive", "attribute"], of: filter)
    let path = try self.path(values[1])
    var best: (item: PythonValue, key: PythonValue)?
    for item in try items(of: value) {
      let key = ignoringCase(try follow(path, item), unless: values[0])
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
      let values = try bind(call, ["attribute", "default"], of: filter)
      let path = try self.path(values[0])
      for item in try items(of: value) {
        result.append(try follow(path, item, default: values[1]))
      }
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

  private func group(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["attribute", "default", "case_sensitive"], required: 1, of: filter)
    let path = try self.path(values[0])
    let items = try items(of: value)
    var keys: [PythonValue] = []
    for item in items {
      keys.append(ignoringCase(try follow(path, item, default: values[1]), unless: values[2]))
    }
    let order = try sorted(items.indices.map { .int($0) }, by: keys, descending: false)
    var groups: [(key: PythonValue, items: [PythonValue])] = []
    for place in order {
      let index = integer(place) ?? 0
      if let last = groups.last, try areEqual(last.key, keys[index]) {
        groups[groups.count - 1].items.append(items[index])
      } else {
        groups.append((keys[index], [items[index]]))
      }
    }
    var result: [PythonValue] = []
    for group in groups {
      // The key as the group's first item spells it.
      let key = try follow(path, group.items[0], default: values[1])
      result.append(try tuple([key, try list(group.items)]))
    }
    return try list(result)
  }

  private func chunk(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String, isBatch: Bool
  ) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["size", "fill_with"], required: 1, of: filter)
    let size = try wholeNumber(values[0], 0, filter)
    guard size > 0 else { throw fail("\(filter) needs a size above zero") }
    let items = try items(of: value)
    var fill = values[1]
    if case .some(.none) = fill { fill = nil }
    try charge(isBatch && fill == nil ? items.count : max(size, items.count))
    var chunks: [PythonValue] = []
    if isBatch {
      var start = 0
      while start < items.count {
        let end = size < items.count - start ? start + size : items.count
        var chunk = Array(items[start..<end])
        if let fill { chunk += Array(repeating: fill, count: size - chunk.count) }
        chunks.append(try list(chunk))
        start = end
      }
    } else {
      let (base, extra) = items.count.quotientAndRemainder(dividingBy: size)
      var start = 0
      for index in 0..<size {
        let end = start + base + (index < extra ? 1 : 0)
        var chunk = Array(items[start..<end])
        if let fill, index >= extra { chunk.append(fill) }
        chunks.append(try list(chunk))
        start = end
      }
    }
    return try iterator(chunks)
  }

  // MARK: Numbers and texts

  private func json(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["ensure_ascii", "indent", "separators", "sort_keys"], of: filter)
    var style = JSONStyle()
    style.isASCII = values[0].map(isTrue) == true
    style.sortsKeys = values[3].map(isTrue) == true
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

  /// Python's `float(text)`, or nil where it fails.
  private func pythonDouble(_ text: PythonText) -> Double? {
    let trimmed = text.stripped().string.lowercased()
    let bare = trimmed.hasPrefix("-") || trimmed.hasPrefix("+") ? String(trimmed.dropFirst()) : trimmed
    let sign = trimmed.hasPrefix("-") ? -1.0 : 1.0
    if ["inf", "infinity"].contains(bare) { return sign * .infinity }
    if bare == "nan" { return .nan }
    // Swift reads hexadecimal as well, Python does not.
    guard bare.utf8.allSatisfy({ $0 < 0x3A && $0 > 0x2A && $0 != 0x2C && $0 != 0x2F || $0 == 0x65 || $0 == 0x5F })
    else { return nil }
    guard !bare.hasPrefix("_"), !bare.hasSuffix("_") else { return nil }
    var plain = bare.filter { $0 != "_" }
    if plain.hasPrefix(".") { plain = "0" + plain }
    if plain.hasSuffix(".") { plain += "0" }
    return Double(plain.replacing(".e", with: ".0e")).map { sign * $0 }
  }

  private func int(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["default", "base"], of: filter)
    let initial = values[0] ?? .int(0)
    switch value {
    case .undefined(let reason): throw fail(reason.string)
    case .text(let text):
      let base = try wholeNumber(values[1], 10, filter)
      guard (2...36).contains(base) else { throw fail("\(filter) takes a base from 2 to 36") }
      var digits = text.stripped().string.lowercased()
      let isNegative = digits.hasPrefix("-")
      if isNegative || digits.hasPrefix("+") { digits.removeFirst() }
      for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] where base == radix && digits.hasPrefix(prefix) {
        digits.removeFirst(2)
      }
      let isWhole =
        !digits.isEmpty && digits.first != "+" && digits.first != "-" && digits.first != "_" && digits.last != "_"
      if isWhole, let magnitude = Int(digits.filter { $0 != "_" }, radix: base) {
        return .int(isNegative ? -magnitude : magnitude)
      }
      guard let fraction = pythonDouble(text) else { return initial }
      return try whole(fraction, initial)
    case .double(let fraction): return try whole(fraction, initial)
    default: return integer(value).map { .int($0) } ?? initial
    }
  }

  private func whole(_ value: Double, _ initial: PythonValue) throws(SquintError) -> PythonValue {
    guard value.isFinite else { return initial }
    guard let number = Int(exactly: value.rounded(.towardZero)) else {
      throw fail("the integer part of \(value) does not fit 64 bits")
    }
    return .int(number)
  }

  private func round(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["precision", "method"], of: filter)
    let precision = try wholeNumber(values[0], 0, filter)
    guard let number = number(value) else {
      throw fail("\(filter) takes a number, not a value of type \(value.typeName)")
    }
    var method: PythonText = "common"
    if case .text(let name) = values[1] { method = name }
    switch method {
    case "common":
      if let whole = integer(value) {
        guard precision < 0 else { return .int(whole) }
        return .int(Int(exactly: rounded(Double(whole), digits: precision)) ?? whole)
      }
      return .double(rounded(number, digits: precision))
    case "ceil", "floor":
      guard number.isFinite, abs(precision) <= 300 else { throw fail("\(filter) is given a number out of range") }
      let unit = pow(10, Double(precision))
      return .double((number * unit).rounded(method == "ceil" ? .up : .down) / unit)
    default: throw fail("\(filter) rounds by 'common', 'ceil' or 'floor'")
    }
  }

  private func indent(_ value: PythonValue, _ call: TemplateCall, _ filter: String) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["width", "first", "blank"], of: filter)
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
    let indentsBlank = values[2].map(isTrue) == true
    try charge(text.bytes.count)
    let lines = (text + "\n").lines()
    let (growth, overflow) = lines.count.multipliedReportingOverflow(by: indentation.bytes.count + 1)
    guard !overflow else { throw fail("a text grows over \(grouped(limits.output)) bytes") }
    try chargeText(text.byteCount + growth)
    var result = values[1].map(isTrue) == true ? indentation : PythonText()
    for (index, line) in lines.enumerated() {
      if index > 0 {
        result.append("\n" as PythonText)
        if indentsBlank || !line.isEmpty { result.append(indentation) }
      }
      result.append(line)
    }
    return .text(result)
  }

  private func truncate(
    _ value: PythonValue, _ call: TemplateCall, _ filter: String
  ) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["length", "killwords", "end", "leeway"], of: filter)
    let text = try text(of: value)
    let scalars = text.scalars
    let length = try wholeNumber(values[0], 255, filter)
    let leeway = try wholeNumber(values[3], 5, filter)
    let end = try self.text(of: values[2] ?? .text("..."))
    let room = length.subtractingReportingOverflow(end.count)
    guard !room.overflow, room.partialValue >= 0, leeway >= 0 else { throw fail("\(filter) is given bad lengths") }
    let (most, overflow) = length.addingReportingOverflow(leeway)
    if overflow || scalars.count <= most { return .text(text) }
    var kept = text[0..<text.offset(of: room.partialValue)]
    if values[1].map(isTrue) != true { kept = kept.splitFromRight(separator: " ", limit: 1)[0] }
    return try made(kept + end)
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
    case "sameas": return try isSame(value, try operand())
    case "divisibleby":
      let remainder = try arithmetic(value, .modulo, try operand())
      return try areEqual(remainder, .int(0))
    default: break
    }
    _ = try bind(call, [], of: test)
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
      ("number", _), ("true", _), ("false", _), ("escaped", _):
      return false
    case ("sequence", .text), ("sequence", .list), ("sequence", .tuple), ("sequence", .dictionary),
      ("sequence", .undefined):
      return true
    case ("sequence", .object(let object)): return object is PythonRange
    case ("sequence", _): return false
    case ("iterable", .object(let object)):
      return object is PythonRange || object is PythonView || object is PythonIterator || object is PythonLoop
    case ("iterable", .none), ("iterable", .bool), ("iterable", .int), ("iterable", .double): return false
    case ("iterable", _): return true
    case ("callable", .undefined): return true
    case ("callable", .object(let object)):
      return object is PythonMacro || object is PythonMethod || object is PythonFunction || object is PythonJoiner
        || object is PythonLoop
    case ("callable", _): return false
    case ("odd", _), ("even", _):
      let remainder = try arithmetic(value, .modulo, .int(2))
      return try areEqual(remainder, .int(name == "odd" ? 1 : 0))
    case ("lower", _): return try text(of: value).hasOnlyCase(upper: false)
    case ("upper", _): return try text(of: value).hasOnlyCase(upper: true)
    default: throw fail("\(test) is not supported; the template has to do without it")
    }
  }

  /// Python's `is`, as far as values can tell: equal, and of the same type.
  private func isSame(_ left: PythonValue, _ right: PythonValue) throws(SquintError) -> Bool {
    guard left.typeName == right.typeName else { return false }
    switch left {
    case .list, .tuple: return false
    case .dictionary(let first):
      if case .dictionary(let second) = right { return first === second }
      return false
    default: return try areEqual(left, right)
    }
  }
}
