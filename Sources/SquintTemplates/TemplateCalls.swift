import SquintFile
import SquintText

// Calling: global functions, and the methods of str, dict, list and tuple.
extension TemplateInterpreter {
  // MARK: Arguments

  /// Sorts the arguments of a call into `names`; nil where one is not given.
  func bind(
    _ call: TemplateCall, _ names: [PythonText], required: Int = 0, of function: String
  ) throws(SquintError) -> [PythonValue?] {
    guard call.positional.count <= names.count else {
      throw fail("\(function) takes at most \(names.count) arguments, not \(call.positional.count)")
    }
    var values: [PythonValue?] = call.positional
    values += [PythonValue?](repeating: nil, count: names.count - call.positional.count)
    for argument in call.named {
      guard let place = names.firstIndex(of: argument.name), values[place] == nil else {
        throw fail("\(function) takes no argument '\(templateExcerpt(argument.name.string, limit: 60))'")
      }
      values[place] = argument.value
    }
    for (place, name) in names.prefix(required).enumerated() where values[place] == nil {
      throw fail("\(function) needs the argument '\(name.string)'")
    }
    return values
  }

  private func wholeNumber(_ value: PythonValue?, _ initial: Int, of function: String) throws(SquintError) -> Int {
    guard let value else { return initial }
    guard let number = integer(value) else {
      throw fail("\(function) takes an integer, not a value of type \(value.typeName)")
    }
    return number
  }

  private func string(_ value: PythonValue?, of function: String) throws(SquintError) -> PythonText {
    guard case .text(let text) = value else {
      throw fail("\(function) takes a string, not a value of type \(value?.typeName ?? "NoneType")")
    }
    return text
  }

  /// nil for an argument that is absent or None.
  func optionalString(_ value: PythonValue?, of function: String) throws(SquintError) -> PythonText? {
    if value == nil { return nil }
    if case .some(.none) = value { return nil }
    return try string(value, of: function)
  }

  // MARK: Calls

  func call(_ target: PythonValue, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    switch target {
    case .undefined(let reason): throw fail(reason.string)
    case .object(let object):
      switch object {
      case let macro as PythonMacro: return try self.call(macro, call)
      case let method as PythonMethod: return try self.call(method, call)
      case let function as PythonFunction: return try self.call(function.name, call)
      default: break
      }
    default: break
    }
    throw fail("a value of type \(target.typeName) cannot be called")
  }

  private func call(_ function: PythonFunction.Name, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    switch function {
    case .range: return try range(call)
    case .dict: return try dictionary(try pairs(call))
    case .namespace:
      let namespace = PythonNamespace()
      for (name, value) in try pairs(call) {
        try set(try string(name, of: "namespace"), to: value, in: namespace)
      }
      return .object(namespace)
    case .raiseException:
      let message = try bind(call, ["message"], required: 1, of: "raise_exception")[0]
      throw fail(templateExcerpt(try text(of: message ?? .none).string, limit: 2000))
    case .strftimeNow:
      let format = try string(try bind(call, ["format"], required: 1, of: "strftime_now")[0], of: "strftime_now")
      try charge(format.bytes.count * 4)
      let text: String
      do throws(TemplateDate.UnknownDirective) {
        text = try date.formatted(format.string)
      } catch {
        throw fail("strftime_now('\(templateExcerpt(error.text))') is not supported; the template has to do without it")
      }
      return try made(PythonText(text))
    }
  }

  private func range(_ call: TemplateCall) throws(SquintError) -> PythonValue {
    guard (1...3).contains(call.positional.count), call.named.isEmpty else {
      throw fail("range takes one to three integers")
    }
    var numbers: [Int] = []
    for value in call.positional { numbers.append(try wholeNumber(value, 0, of: "range")) }
    let start = numbers.count == 1 ? 0 : numbers[0]
    let stop = numbers.count == 1 ? numbers[0] : numbers[1]
    let step = numbers.count == 3 ? numbers[2] : 1
    guard step != 0 else { throw fail("the step of a range cannot be zero") }
    let (distance, overflow) =
      step > 0 ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
    // The bound is the sandbox's own (jinja2/sandbox.py, MAX_RANGE).
    let stride = Int(clamping: step.magnitude)
    let count = (step > 0 ? stop <= start : stop >= start) ? 0 : overflow ? .max : (distance - 1) / stride + 1
    guard count <= 100_000 else { throw fail("a range has more than 100,000 items") }
    return .object(PythonRange(start: start, stop: stop, step: step, count: count))
  }

  /// The entries that `dict(…)` makes of its arguments.
  private func pairs(_ call: TemplateCall) throws(SquintError) -> [(PythonValue, PythonValue)] {
    guard call.positional.count <= 1 else { throw fail("dict takes at most one positional argument") }
    var pairs: [(PythonValue, PythonValue)] = []
    switch call.positional.first {
    case nil: break
    case .dictionary(let dictionary): pairs = Array(zip(dictionary.keys, dictionary.values))
    case .some(let value):
      for item in try items(of: value) {
        let pair = try items(of: item)
        guard pair.count == 2 else { throw fail("dict takes pairs of a key and a value") }
        pairs.append((pair[0], pair[1]))
      }
    }
    for argument in call.named { pairs.append((.text(argument.name), argument.value)) }
    return pairs
  }

  // MARK: Members

  /// The methods of Python's str that published templates call, and those that they do not: an error names these.
  private static let textMethods: Set<PythonText> = [
    "capitalize", "endswith", "format", "join", "lower", "lstrip", "replace", "rstrip", "split", "startswith", "strip",
    "title", "upper",
  ]
  private static let otherTextMethods: Set<PythonText> = [
    "casefold", "center", "count", "encode", "expandtabs", "find", "format_map", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "ljust", "maketrans", "partition", "removeprefix", "removesuffix", "rfind", "rindex", "rjust",
    "rpartition", "rsplit", "splitlines", "swapcase", "translate", "zfill",
  ]
  private static let dictionaryMethods: Set<PythonText> = ["get", "items", "keys", "values"]
  private static let otherMethods: Set<PythonText> = ["copy", "count", "fromkeys", "index"]
  private static let unsafeDictionaryMethods: Set<PythonText> = ["clear", "pop", "popitem", "setdefault", "update"]
  private static let unsafeListMethods: Set<PythonText> = [
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
  ]

  /// A method or property of `value`, or nil where its type has none of this name.
  func member(_ name: PythonText, of value: PythonValue) throws(SquintError) -> PythonValue? {
    var isUnsafe = name.hasPrefix("__") && name.hasSuffix("__") && name.bytes.count > 4
    switch value {
    case .text:
      if Self.textMethods.contains(name) { return .object(PythonMethod(value, name)) }
      if Self.otherTextMethods.contains(name) { throw unsupported(name, of: value) }
    case .dictionary:
      if Self.dictionaryMethods.contains(name) { return .object(PythonMethod(value, name)) }
      // As a key of the dictionary, such a name is only found after its methods.
      if name == "copy" || name == "fromkeys" { throw unsupported(name, of: value) }
      isUnsafe = Self.unsafeDictionaryMethods.contains(name)
    case .list:
      if Self.otherMethods.contains(name) { throw unsupported(name, of: value) }
      isUnsafe = isUnsafe || Self.unsafeListMethods.contains(name)
    case .tuple:
      if name == "count" || name == "index" { throw unsupported(name, of: value) }
    case .object(let object):
      switch object {
      case let namespace as PythonNamespace: return namespace.values[name]
      case let loop as PythonLoop: return try attribute(name, of: loop)
      case is PythonMacro: throw unsupported(name, of: value)
      default: return nil
      }
    default: return nil
    }
    guard isUnsafe else { return nil }
    return .undefined(
      PythonText(
        "'\(templateExcerpt(name.string, limit: 60))' of a value of type \(value.typeName) is not allowed in a template"
      ))
  }

  private func unsupported(_ name: PythonText, of value: PythonValue) -> SquintError {
    fail("the method \(value.typeName).\(name.string) is not supported; the template has to do without it")
  }

  private func call(_ method: PythonMethod, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    switch method.receiver {
    case .text(let text):
      try chargeReading(method.receiver)
      return try self.call(text, method.name.string, call)
    case .dictionary(let dictionary): return try self.call(dictionary, method.name.string, call)
    default: throw fail("the method '\(method.name.string)' cannot be called")
    }
  }

  private func call(
    _ dictionary: PythonDictionary, _ name: String, _ call: TemplateCall
  ) throws(SquintError) -> PythonValue {
    if name == "get" {
      let values = try bind(call, ["key", "default"], required: 1, of: "dict.get")
      guard let key = try hash(values[0] ?? .none) else { throw fail("a list or dictionary cannot be a key") }
      return dictionary.value(key) ?? values[1] ?? .none
    }
    _ = try bind(call, [], of: "dict.\(name)")
    try charge(dictionary.count)
    switch name {
    case "keys": return .object(PythonView(name: "dict_keys", items: dictionary.keys, depth: dictionary.depth))
    case "values": return .object(PythonView(name: "dict_values", items: dictionary.values, depth: dictionary.depth))
    default:
      return .object(
        PythonView(
          name: "dict_items", items: try pairs(of: dictionary), depth: try checked(depth: dictionary.depth + 1)))
    }
  }

  func pairs(of dictionary: PythonDictionary) throws(SquintError) -> [PythonValue] {
    var pairs: [PythonValue] = []
    for (key, value) in zip(dictionary.keys, dictionary.values) { pairs.append(try tuple([key, value])) }
    return pairs
  }

  // MARK: Methods of str

  private func call(_ text: PythonText, _ name: String, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    let function = "str.\(name)"
    switch name {
    case "strip", "lstrip", "rstrip":
      let set = try optionalString(try bind(call, ["chars"], of: function)[0], of: function)
      return try made(text.stripped(set, left: name != "rstrip", right: name != "lstrip"))
    case "split":
      let values = try bind(call, ["sep", "maxsplit"], of: function)
      let maximum = try wholeNumber(values[1], -1, of: function)
      let limit = maximum < 0 ? Int.max : maximum
      return try split(text, try optionalString(values[0], of: function), limit)
    case "startswith", "endswith":
      var candidates = [try bind(call, ["prefix"], required: 1, of: function)[0] ?? .none]
      if case .tuple(let sequence) = candidates[0] { candidates = sequence.items }
      for candidate in candidates {
        let affix = try string(candidate, of: function)
        if name == "startswith" ? text.hasPrefix(affix) : text.hasSuffix(affix) { return .bool(true) }
      }
      return .bool(false)
    case "replace":
      let values = try bind(call, ["old", "new", "count"], required: 2, of: function)
      let limit = try wholeNumber(values[2], -1, of: function)
      return try replaced(
        text, try string(values[0], of: function), try string(values[1], of: function), limit)
    case "join":
      let items = try items(of: try bind(call, ["iterable"], required: 1, of: function)[0] ?? .none)
      var pieces: [PythonText] = []
      for item in items { pieces.append(try string(item, of: function)) }
      return try joined(pieces, separator: text)
    case "format": return try made(try formatted(text, call))
    default:
      _ = try bind(call, [], of: function)
      return try changedCase(text, name)
    }
  }

  /// `upper`, `lower`, `capitalize` and `title`, as methods of str.
  func changedCase(_ text: PythonText, _ name: String) throws(SquintError) -> PythonValue {
    try charge(text.bytes.count >> 4)
    switch name {
    case "upper": return try made(text.uppercased)
    case "lower": return try made(text.lowercased)
    case "capitalize": return try made(text.capitalized)
    default: return try made(text.titlecased)
    }
  }

  private func split(
    _ text: PythonText, _ separator: PythonText?, _ limit: Int
  ) throws(SquintError) -> PythonValue {
    guard let separator else {
      try charge(text.bytes.count)
      return try texts(text.splitWhitespace(limit: limit))
    }
    guard !separator.isEmpty else { throw fail("str.split needs a separator that is not empty") }
    try charge(min(limit, text.bytes.count / separator.bytes.count))
    return try texts(text.split(separator: separator, limit: limit))
  }

  func replaced(
    _ text: PythonText, _ old: PythonText, _ new: PythonText, _ limit: Int
  ) throws(SquintError) -> PythonValue {
    let limit = limit < 0 ? Int.max : limit
    let count = old.isEmpty ? min(text.count + 1, limit) : text.occurrences(of: old, limit: limit).count
    try charge(count)
    // What is put in may cut a range of the template's own in two.
    let cut = new.isOwn == text.isOwn ? 0 : ByteRanges(0..<1).byteCount
    let (growth, overflow) = count.multipliedReportingOverflow(by: new.byteCount + cut)
    guard !overflow else { throw fail("a text grows over \(grouped(limits.output)) bytes") }
    try chargeText(text.bytes.count - count * old.bytes.count + growth)
    return .text(text.replacing(old, with: new, limit: limit))
  }

  func joined(_ pieces: [PythonText], separator: PythonText) throws(SquintError) -> PythonValue {
    try charge(pieces.count)
    var size = 0
    for piece in pieces {
      size += piece.byteCount + separator.byteCount
      guard size - separator.byteCount <= limits.output else {
        throw fail("a text grows over \(grouped(limits.output)) bytes")
      }
    }
    var result = PythonText()
    for (index, piece) in pieces.enumerated() {
      if index > 0 { result.append(separator) }
      result.append(piece)
    }
    return try made(result)
  }
}
