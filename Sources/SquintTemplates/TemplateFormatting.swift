import SquintFile

// Python's "%" formatting, str.format, round, and json.dumps.
extension TemplateInterpreter {
  /// The widest field and the highest precision that a format may ask for.
  private var maximumWidth: Int { 4096 }

  /// One formatted field: what the two format languages share.
  private struct Field {
    var fill: Unicode.Scalar = " "
    var alignment: Unicode.Scalar?
    var sign: Unicode.Scalar?
    var isAlternate = false
    var groups: Unicode.Scalar?
    var width = 0
    var precision: Int?
    var type: Unicode.Scalar?
  }

  // MARK: "%"

  /// `format % value`.
  func formatted(_ format: PythonText, with value: PythonValue) throws(SquintError) -> PythonText {
    try charge(format.bytes.count)
    var arguments: [PythonValue] = [value]
    if case .tuple(let sequence) = value { arguments = sequence.items }
    var next = 0
    var usesNames = false
    func take() throws(SquintError) -> PythonValue {
      guard next < arguments.count else { throw fail("a format asks for more values than there are") }
      next += 1
      return arguments[next - 1]
    }
    var result = PythonText()
    let scalars = format.scalars
    var index = 0
    while index < scalars.count {
      let scalar = scalars[index]
      index += 1
      guard scalar == "%" else {
        result.append(PythonText(CollectionOfOne(scalar)).inheriting(from: format))
        continue
      }
      var field = Field()
      var operand: PythonValue?
      if index < scalars.count, scalars[index] == "(" {
        guard let close = scalars[index...].firstIndex(of: ")"), case .dictionary(let dictionary) = value else {
          throw fail("a format names a value, and none of that name is given")
        }
        let name = PythonText(scalars[(index + 1)..<close])
        guard let found = dictionary.value(name) else {
          throw fail("a format names the value '\(templateExcerpt(name.string))', which is not given")
        }
        operand = found
        usesNames = true
        index = close + 1
      }
      while index < scalars.count, "-+ #0".unicodeScalars.contains(scalars[index]) {
        switch scalars[index] {
        case "-": field.alignment = "<"
        case "0": field.fill = "0"
        case "#": field.isAlternate = true
        case "+": field.sign = "+"
        default: field.sign = field.sign ?? " "
        }
        index += 1
      }
      field.width = try width(scalars, &index, take)
      if index < scalars.count, scalars[index] == "." {
        index += 1
        field.precision = try width(scalars, &index, take)
      }
      guard index < scalars.count else { throw fail("a format ends after '%'") }
      let type = scalars[index]
      index += 1
      if type == "%" {
        result.append("%" as PythonText)
        continue
      }
      let argument: PythonValue
      if let operand { argument = operand } else { argument = try take() }
      if field.fill == "0" { field.alignment = field.alignment == "<" ? "<" : "=" }
      if field.alignment == "<" { field.fill = " " }
      switch type {
      case "s", "r", "a":
        var text = PythonText()
        if type == "s" { text = try self.text(of: argument) } else { try represent(argument, into: &text) }
        if let precision = field.precision { text = text[0..<text.offset(of: precision)] }
        field.fill = " "
        result.append(try aligned(text, field, defaultAlignment: ">"))
      case "c":
        if case .text(let text) = argument, text.count == 1 {
          result.append(try aligned(text, field, defaultAlignment: ">"))
        } else if let code = integer(argument), let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) {
          result.append(try aligned(PythonText(CollectionOfOne(scalar)), field, defaultAlignment: ">"))
        } else {
          throw fail("'%c' takes a character")
        }
      case "d", "i", "u":
        guard let whole = integer(argument) ?? number(argument).flatMap({ Int(exactly: $0.rounded(.towardZero)) })
        else { throw fail("'%\(type)' takes a number, not a value of type \(argument.typeName)") }
        field.type = "d"
        result.append(try formatted(whole: whole, field, defaultAlignment: ">"))
      case "x", "X", "o":
        guard let whole = integer(argument) else {
          throw fail("'%\(type)' takes an integer, not a value of type \(argument.typeName)")
        }
        field.type = type
        result.append(try formatted(whole: whole, field, defaultAlignment: ">"))
      case "f", "F", "e", "E", "g", "G":
        guard let value = number(argument) else {
          throw fail("'%\(type)' takes a number, not a value of type \(argument.typeName)")
        }
        field.type = type
        result.append(try formatted(fraction: value, field))
      default:
        throw fail("the format '%\(templateExcerpt(String(type)))' is not supported")
      }
      guard result.bytes.count <= limits.output else { throw fail("a formatted text grows too long") }
    }
    if next < arguments.count && !usesNames {
      if case .dictionary = value { return result }
      throw fail("not all values are used by the format")
    }
    return result
  }

  private func width(
    _ scalars: [Unicode.Scalar], _ index: inout Int, _ take: () throws(SquintError) -> PythonValue
  ) throws(SquintError) -> Int {
    if index < scalars.count, scalars[index] == "*" {
      index += 1
      guard let value = integer(try take()), value >= 0, value <= maximumWidth else {
        throw fail("a format's width is not between 0 and \(maximumWidth)")
      }
      return value
    }
    return try digits(scalars, &index) ?? 0
  }

  private func digits(_ scalars: [Unicode.Scalar], _ index: inout Int) throws(SquintError) -> Int? {
    var value: Int?
    while index < scalars.count, (0x30...0x39).contains(scalars[index].value) {
      value = (value ?? 0) * 10 + Int(scalars[index].value - 0x30)
      guard value! <= maximumWidth else { throw fail("a format's width is over \(maximumWidth)") }
      index += 1
    }
    return value
  }

  // MARK: str.format

  func formatted(_ format: PythonText, _ call: TemplateCall) throws(SquintError) -> PythonText {
    try charge(format.bytes.count)
    var result = PythonText()
    let scalars = format.scalars
    var index = 0
    var automatic = 0
    while index < scalars.count {
      let scalar = scalars[index]
      index += 1
      let literal = PythonText(CollectionOfOne(scalar)).inheriting(from: format)
      if scalar == "{" || scalar == "}", index < scalars.count, scalars[index] == scalar {
        result.append(literal)
        index += 1
        continue
      }
      guard scalar != "}" else { throw fail("a format has a single '}'") }
      guard scalar == "{" else {
        result.append(literal)
        continue
      }
      let start = index
      while index < scalars.count, scalars[index] != "}" {
        guard scalars[index] != "{" else { throw fail("a format nested in a format is not supported") }
        index += 1
      }
      guard index < scalars.count else { throw fail("a format has a single '{'") }
      let content = scalars[start..<index]
      index += 1
      let nameEnd = content.firstIndex { $0 == "!" || $0 == ":" } ?? content.endIndex
      var value = try formatValue(content[..<nameEnd], call, &automatic)
      var rest = content[nameEnd...]
      if rest.first == "!" {
        rest = rest.dropFirst()
        switch rest.popFirst() {
        case "s": value = .text(try text(of: value))
        case "r":
          var text = PythonText()
          try represent(value, into: &text)
          value = .text(text)
        default: throw fail("a format's conversion has to be '!s' or '!r'")
        }
      }
      let specification = rest.first == ":" ? Array(rest.dropFirst()) : []
      result.append(try formatted(value, specification))
      guard result.bytes.count <= limits.output else { throw fail("a formatted text grows too long") }
    }
    return result
  }

  private func formatValue(
    _ path: ArraySlice<Unicode.Scalar>, _ call: TemplateCall, _ automatic: inout Int
  ) throws(SquintError) -> PythonValue {
    let nameEnd = path.firstIndex { $0 == "." || $0 == "[" } ?? path.endIndex
    let name = PythonText(path[..<nameEnd])
    var value: PythonValue
    if name.isEmpty || name.allScalars({ (0x30...0x39).contains($0.value) }) {
      let place = name.isEmpty ? automatic : Int(name.string) ?? .max
      if name.isEmpty { automatic += 1 }
      guard place < call.positional.count else { throw fail("a format asks for more values than there are") }
      value = call.positional[place]
    } else {
      guard let found = call.named.first(where: { $0.name == name }) else {
        throw fail("a format names the value '\(templateExcerpt(name.string))', which is not given")
      }
      value = found.value
    }
    var rest = path[nameEnd...]
    while let separator = rest.popFirst() {
      let end: Int
      if separator == "[" {
        guard let close = rest.firstIndex(of: "]") else { throw fail("a format misses a ']'") }
        let key = PythonText(rest[..<close])
        value = try item(Int(key.string).map { .int($0) } ?? .text(key), of: value)
        rest = rest[(close + 1)...]
        continue
      }
      end = rest.firstIndex { $0 == "." || $0 == "[" } ?? rest.endIndex
      value = try attribute(PythonText(rest[..<end]), of: value)
      rest = rest[end...]
    }
    return value
  }

  private func formatted(
    _ value: PythonValue, _ specification: [Unicode.Scalar]
  ) throws(SquintError) -> PythonText {
    if specification.isEmpty { return try text(of: value) }
    var field = Field()
    var index = 0
    let alignments: [Unicode.Scalar] = ["<", ">", "=", "^"]
    if specification.count > 1, alignments.contains(specification[1]) {
      field.fill = specification[0]
      field.alignment = specification[1]
      index = 2
    } else if alignments.contains(specification[0]) {
      field.alignment = specification[0]
      index = 1
    }
    func current() -> Unicode.Scalar? { index < specification.count ? specification[index] : nil }
    if let scalar = current(), ["+", "-", " "].contains(scalar) {
      field.sign = scalar == "-" ? nil : scalar
      index += 1
    }
    if current() == "#" {
      field.isAlternate = true
      index += 1
    }
    if current() == "0" {
      if field.alignment == nil {
        field.fill = "0"
        field.alignment = "="
      }
      index += 1
    }
    field.width = try digits(specification, &index) ?? 0
    if let scalar = current(), scalar == "," || scalar == "_" {
      field.groups = scalar
      index += 1
    }
    if current() == "." {
      index += 1
      guard let precision = try digits(specification, &index) else { throw fail("a format misses its precision") }
      field.precision = precision
    }
    field.type = current()
    if field.type != nil { index += 1 }
    guard index == specification.count else { throw fail("a format's specification is not supported") }
    switch (value, field.type) {
    case (.text(var text), nil), (.text(var text), "s"):
      if let precision = field.precision { text = text[0..<text.offset(of: precision)] }
      if field.alignment == "=" { field.alignment = "<" }
      return try aligned(text, field, defaultAlignment: "<")
    case (.int, nil), (.int, "d"), (.int, "x"), (.int, "X"), (.int, "o"), (.int, "b"), (.bool, "d"):
      field.type = field.type ?? "d"
      return try formatted(whole: integer(value) ?? 0, field, defaultAlignment: ">")
    case (.int, _), (.double, _), (.bool, "f"):
      guard let type = field.type else {
        guard field.precision == nil else {
          field.type = "g"
          return try formatted(fraction: number(value) ?? 0, field)
        }
        return try aligned(try text(of: value), field, defaultAlignment: ">")
      }
      guard ["f", "F", "e", "E", "g", "G", "%"].contains(type) else { break }
      return try formatted(fraction: number(value) ?? 0, field)
    case (.bool, nil): return try aligned(try text(of: value), field, defaultAlignment: "<")
    default: break
    }
    throw fail("a format's specification does not work on a value of type \(value.typeName)")
  }

  private func formatted(
    whole: Int, _ field: Field, defaultAlignment: Unicode.Scalar
  ) throws(SquintError) -> PythonText {
    let (radix, prefix): (Int, String) =
      switch field.type {
      case "x": (16, "0x")
      case "X": (16, "0X")
      case "o": (8, "0o")
      case "b": (2, "0b")
      default: (10, "")
      }
    var digits = String(whole.magnitude, radix: radix, uppercase: field.type == "X")
    if let precision = field.precision, digits.utf8.count < precision {
      digits = String(repeating: "0", count: precision - digits.utf8.count) + digits
    }
    digits = grouped(digits, field, every: radix == 10 ? 3 : 4)
    let sign = whole < 0 ? "-" : field.sign.map { String($0) } ?? ""
    return try aligned(
      PythonText(digits), field, defaultAlignment: defaultAlignment,
      prefix: PythonText(sign + (field.isAlternate ? prefix : "")))
  }

  private func grouped(_ digits: String, _ field: Field, every size: Int) -> String {
    guard let separator = field.groups else { return digits }
    var result = ""
    for (index, digit) in digits.enumerated() {
      if index > 0 && (digits.count - index) % size == 0 { result.unicodeScalars.append(separator) }
      result.append(digit)
    }
    return result
  }

  private func formatted(fraction: Double, _ field: Field) throws(SquintError) -> PythonText {
    let isPercent = field.type == "%"
    let type = isPercent ? "f" : String(field.type ?? "g")
    let value = isPercent ? fraction * 100 : fraction
    var digits: String
    if value.isFinite {
      digits = printed(value.magnitude, precision: field.precision ?? 6, type: type)
      if field.groups != nil, let point = digits.firstIndex(of: ".") {
        digits = grouped(String(digits[..<point]), field, every: 3) + digits[point...]
      } else {
        digits = grouped(digits, field, every: 3)
      }
    } else {
      digits = value.isNaN ? "nan" : "inf"
      if type == type.uppercased() { digits = digits.uppercased() }
    }
    let isNegative = value.sign == .minus && !value.isNaN
    let sign = isNegative ? "-" : field.sign.map { String($0) } ?? ""
    return try aligned(
      PythonText(digits + (isPercent ? "%" : "")), field, defaultAlignment: ">", prefix: PythonText(sign))
  }

  private func aligned(
    _ text: PythonText, _ field: Field, defaultAlignment: Unicode.Scalar, prefix: PythonText = PythonText()
  ) throws(SquintError) -> PythonText {
    let missing = max(0, field.width - text.count - prefix.count)
    if missing == 0 { return prefix + text }
    func pad(_ count: Int) -> PythonText { PythonText(repeatElement(field.fill, count: count)) }
    switch field.alignment ?? defaultAlignment {
    case "<": return prefix + text + pad(missing)
    case "=": return prefix + pad(missing) + text
    case "^": return pad(missing / 2) + prefix + text + pad(missing - missing / 2)
    default: return pad(missing) + prefix + text
    }
  }

  /// The C library's rendering, which rounds the exact value half to even, as Python does.
  private func printed(_ value: Double, precision: Int, type: String) -> String {
    var buffer = [CChar](repeating: 0, count: 400 + precision)
    let count = withVaList([Int32(truncatingIfNeeded: precision), value]) {
      vsnprintf(&buffer, buffer.count, "%.*" + type, $0)
    }
    return String(decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Python's `round(value, digits)` of a float.
  func rounded(_ value: Double, digits: Int) -> Double {
    guard value.isFinite, digits <= 323 else { return value }
    if digits < -308 { return Double(signOf: value, magnitudeOf: 0) }
    if digits >= 0 { return Double(printed(value, precision: digits, type: "f")) ?? value }
    let unit = pow(10, Double(-digits))
    return (value / unit).rounded(.toNearestOrEven) * unit
  }

  // MARK: JSON

  struct JSONStyle {
    var isASCII = false
    var indent: PythonText?
    var itemSeparator: PythonText = ", "
    var keySeparator: PythonText = ": "
    var sortsKeys = false
  }

  /// Python's `json.dumps`, which is what transformers' `tojson` calls.
  func writeJSON(
    _ value: PythonValue, _ style: JSONStyle, level: Int = 0, into result: inout PythonText
  ) throws(SquintError) {
    try charge(1)
    guard result.bytes.count <= limits.output else { throw fail("the JSON text grows too long") }
    switch value {
    case .none: result.append("null" as PythonText)
    case .bool(let value): result.append(value ? "true" as PythonText : "false")
    case .int(let value): result.append(PythonText(String(value)))
    case .double(let value): result.append(jsonNumber(value))
    case .text(let text):
      try chargeText(text.bytes.count)
      writeJSON(text, style, into: &result)
    case .list(let sequence), .tuple(let sequence):
      try writeJSON(count: sequence.items.count, "[", "]", style, level, into: &result) {
        (index, result) throws(SquintError) in
        try self.writeJSON(sequence.items[index], style, level: level + 1, into: &result)
      }
    case .dictionary(let dictionary):
      var order = Array(0..<dictionary.count)
      if style.sortsKeys {
        order = try sorted(order.map { .int($0) }, by: dictionary.keys, descending: false)
          .map { integer($0) ?? 0 }
      }
      try writeJSON(count: order.count, "{", "}", style, level, into: &result) {
        (index, result) throws(SquintError) in
        self.writeJSON(try self.jsonKey(dictionary.keys[order[index]]), style, into: &result)
        result.append(style.keySeparator)
        try self.writeJSON(dictionary.values[order[index]], style, level: level + 1, into: &result)
      }
    default: throw fail("a value of type \(value.typeName) cannot be written as JSON")
    }
  }

  private func writeJSON(
    count: Int, _ open: PythonText, _ close: PythonText, _ style: JSONStyle, _ level: Int,
    into result: inout PythonText, item: (Int, inout PythonText) throws(SquintError) -> Void
  ) throws(SquintError) {
    result.append(open)
    func lineBreak(_ level: Int, _ result: inout PythonText) throws(SquintError) {
      guard let indent = style.indent else { return }
      try chargeText(indent.bytes.count * level)
      result.append("\n" as PythonText)
      for _ in 0..<level { result.append(indent) }
    }
    for index in 0..<count {
      if index > 0 { result.append(style.itemSeparator) }
      try lineBreak(level + 1, &result)
      try item(index, &result)
    }
    if count > 0 { try lineBreak(level, &result) }
    result.append(close)
  }

  private func jsonNumber(_ value: Double) -> PythonText {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Infinity" : "Infinity" }
    return PythonText(pythonDescription(of: value))
  }

  private func jsonKey(_ key: PythonValue) throws(SquintError) -> PythonText {
    switch key {
    case .text(let text): return text
    case .none: return "null"
    case .bool(let value): return value ? "true" : "false"
    case .int(let value): return PythonText(String(value))
    case .double(let value): return jsonNumber(value)
    default: throw fail("a key of type \(key.typeName) cannot be written as JSON")
    }
  }

  private func writeJSON(_ text: PythonText, _ style: JSONStyle, into result: inout PythonText) {
    result.append(byte: UInt8(ascii: "\""))
    for scalar in text.scalars {
      switch scalar {
      case "\"": result.append("\\\"" as PythonText)
      case "\\": result.append("\\\\" as PythonText)
      case "\n": result.append("\\n" as PythonText)
      case "\r": result.append("\\r" as PythonText)
      case "\t": result.append("\\t" as PythonText)
      case "\u{8}": result.append("\\b" as PythonText)
      case "\u{C}": result.append("\\f" as PythonText)
      default:
        if scalar.value >= 0x20 && (scalar.value < 0x7F || !style.isASCII) {
          result.append(scalar)
        } else {
          for unit in UTF16.encode(scalar)! {
            result.append(PythonText("\\u" + hexadecimal(UInt32(unit), digits: 4)))
          }
        }
      }
    }
    result.append(byte: UInt8(ascii: "\""))
  }
}
