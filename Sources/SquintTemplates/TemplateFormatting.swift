import SquintFile

// str.format, and json.dumps.
extension TemplateInterpreter {
  // MARK: str.format

  /// Puts arguments where `format` has `{}`, `{0}` or `{name}`.
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
      result.append(try text(of: try formatValue(PythonText(content), call, &automatic)))
      guard result.bytes.count <= limits.output else { throw fail("a formatted text grows too long") }
    }
    return result
  }

  private func formatValue(
    _ name: PythonText, _ call: TemplateCall, _ automatic: inout Int
  ) throws(SquintError) -> PythonValue {
    if name.isEmpty || name.allScalars({ (0x30...0x39).contains($0.value) }) {
      let place = name.isEmpty ? automatic : Int(name.string) ?? .max
      if name.isEmpty { automatic += 1 }
      guard place < call.positional.count else { throw fail("a format asks for more values than there are") }
      return call.positional[place]
    }
    guard let found = call.named.first(where: { $0.name == name }) else {
      throw fail(
        "a format has '{\(templateExcerpt(name.string, limit: 60))}', which is not supported or not given; only names and numbers are"
      )
    }
    return found.value
  }

  // MARK: JSON

  struct JSONStyle {
    var isASCII = false
    var indent: PythonText?
    var itemSeparator: PythonText = ", "
    var keySeparator: PythonText = ": "
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
      try writeJSON(count: dictionary.count, "{", "}", style, level, into: &result) {
        (index, result) throws(SquintError) in
        self.writeJSON(try self.jsonKey(dictionary.keys[index]), style, into: &result)
        result.append(style.keySeparator)
        try self.writeJSON(dictionary.values[index], style, level: level + 1, into: &result)
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
