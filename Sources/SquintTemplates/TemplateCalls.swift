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
      case let joiner as PythonJoiner:
        defer { joiner.isUsed = true }
        return .text(joiner.isUsed ? joiner.separator : PythonText())
      case let loop as PythonLoop: return try self.call(loop, call)
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
      return try made(PythonText(date.formatted(format.string)))
    case .joiner:
      let separator = try bind(call, ["sep"], of: "joiner")[0]
      let text = try optionalString(separator, of: "joiner")
      return .object(PythonJoiner(separator: text ?? ", "))
    case .cycler:
      guard !call.positional.isEmpty, call.named.isEmpty else { throw fail("cycler needs at least one item") }
      return .object(PythonCycler(call.positional, depth: try depth(of: call.positional)))
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

  private static let textMethods: Set<PythonText> = [
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format", "index", "isalnum",
    "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace",
    "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip",
    "swapcase", "title", "upper", "zfill",
  ]
  /// Methods that exist and that Squint does not have: an error names them.
  private static let otherTextMethods: Set<PythonText> = ["encode", "format_map", "maketrans", "translate"]
  private static let dictionaryMethods: Set<PythonText> = ["copy", "fromkeys", "get", "items", "keys", "values"]
  private static let unsafeDictionaryMethods: Set<PythonText> = ["clear", "pop", "popitem", "setdefault", "update"]
  private static let sequenceMethods: Set<PythonText> = ["count", "index"]
  private static let unsafeListMethods: Set<PythonText> = [
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
  ]

  /// A method or property of `value`, or nil where its type has none of this name.
  func member(_ name: PythonText, of value: PythonValue) throws(SquintError) -> PythonValue? {
    var isUnsafe = name.hasPrefix("__") && name.hasSuffix("__") && name.bytes.count > 4
    switch value {
    case .text:
      if Self.textMethods.contains(name) { return .object(PythonMethod(value, name)) }
      if Self.otherTextMethods.contains(name) { throw fail("the method str.\(name.string) is not supported") }
    case .dictionary:
      if Self.dictionaryMethods.contains(name) { return .object(PythonMethod(value, name)) }
      isUnsafe = Self.unsafeDictionaryMethods.contains(name)
    case .list:
      if Self.sequenceMethods.contains(name) || name == "copy" { return .object(PythonMethod(value, name)) }
      isUnsafe = isUnsafe || Self.unsafeListMethods.contains(name)
    case .tuple:
      if Self.sequenceMethods.contains(name) { return .object(PythonMethod(value, name)) }
    case .object(let object):
      switch object {
      case let namespace as PythonNamespace: return namespace.values[name]
      case let loop as PythonLoop: return try attribute(name, of: loop)
      case let macro as PythonMacro where name == "name": return .text(macro.function.name)
      case let function as PythonFunction where function.name == .dict && name == "fromkeys":
        return .object(PythonMethod(value, name))
      case let cycler as PythonCycler where name == "current": return cycler.items[cycler.position]
      case is PythonCycler where name == "next" || name == "reset": return .object(PythonMethod(value, name))
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

  private func call(_ method: PythonMethod, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    switch method.receiver {
    case .text(let text):
      try chargeReading(method.receiver)
      return try self.call(text, method.name.string, call)
    case .dictionary(let dictionary): return try self.call(dictionary, method.name.string, call)
    case .list(let sequence), .tuple(let sequence):
      return try self.call(sequence.items, method.name.string, call)
    case .object(let loop as PythonLoop):
      guard method.name == "changed" else {
        guard !call.positional.isEmpty else { throw fail("loop.cycle needs at least one item") }
        return call.positional[loop.index0 % call.positional.count]
      }
      let isSame: Bool
      if let last = loop.lastChanged {
        isSame = try areEqual(try list(last), try list(call.positional))
      } else {
        isSame = false
      }
      guard try checked(depth: try depth(of: call.positional)) < PythonNamespace.weight else {
        throw fail("loop.changed takes no namespace, and no value nested \(PythonNamespace.weight) levels deep")
      }
      loop.lastChanged = call.positional
      return .bool(!isSame)
    case .object(let cycler as PythonCycler):
      let current = cycler.items[cycler.position]
      cycler.position = method.name == "reset" ? 0 : (cycler.position + 1) % cycler.items.count
      return method.name == "reset" ? .none : current
    case .object(is PythonFunction): return try fromKeys(call)
    default: throw fail("the method '\(method.name.string)' cannot be called")
    }
  }

  private func fromKeys(_ call: TemplateCall) throws(SquintError) -> PythonValue {
    let values = try bind(call, ["iterable", "value"], required: 1, of: "dict.fromkeys")
    var pairs: [(PythonValue, PythonValue)] = []
    for key in try items(of: values[0] ?? .none) { pairs.append((key, values[1] ?? .none)) }
    return try dictionary(pairs)
  }

  private func call(
    _ dictionary: PythonDictionary, _ name: String, _ call: TemplateCall
  ) throws(SquintError) -> PythonValue {
    if name == "fromkeys" { return try fromKeys(call) }
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
    case "items":
      return .object(
        PythonView(
          name: "dict_items", items: try pairs(of: dictionary), depth: try checked(depth: dictionary.depth + 1)))
    default: return .dictionary(dictionary)
    }
  }

  func pairs(of dictionary: PythonDictionary) throws(SquintError) -> [PythonValue] {
    var pairs: [PythonValue] = []
    for (key, value) in zip(dictionary.keys, dictionary.values) { pairs.append(try tuple([key, value])) }
    return pairs
  }

  private func call(_ items: [PythonValue], _ name: String, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    if name == "copy" { return try list(items) }
    let values = try bind(call, ["value"], required: 1, of: "list.\(name)")
    var total = 0
    for (index, item) in items.enumerated() where try areEqual(item, values[0] ?? .none) {
      if name == "index" { return .int(index) }
      total += 1
    }
    guard name == "count" else { throw fail("the value whose index is asked for is not in the list") }
    return .int(total)
  }

  // MARK: Methods of str

  private func call(_ text: PythonText, _ name: String, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    let function = "str.\(name)"
    switch name {
    case "strip", "lstrip", "rstrip":
      let set = try optionalString(try bind(call, ["chars"], of: function)[0], of: function)
      return try made(text.stripped(set, left: name != "rstrip", right: name != "lstrip"))
    case "split", "rsplit":
      let values = try bind(call, ["sep", "maxsplit"], of: function)
      let maximum = try wholeNumber(values[1], -1, of: function)
      let limit = maximum < 0 ? Int.max : maximum
      return try split(text, try optionalString(values[0], of: function), limit, fromRight: name == "rsplit")
    case "splitlines":
      let keeps = isTrue(try bind(call, ["keepends"], of: function)[0] ?? .none)
      try charge(text.bytes.count)
      return try texts(text.lines(keepingEnds: keeps))
    case "partition", "rpartition":
      let separator = try string(try bind(call, ["sep"], required: 1, of: function)[0], of: function)
      guard !separator.isEmpty else { throw fail("\(function) needs a separator that is not empty") }
      let pieces =
        name == "partition"
        ? text.split(separator: separator, limit: 1) : text.splitFromRight(separator: separator, limit: 1)
      if pieces.count == 2 { return try tuple([.text(pieces[0]), .text(separator), .text(pieces[1])]) }
      let empty = PythonValue.text(PythonText())
      return try tuple(name == "partition" ? [.text(text), empty, empty] : [empty, empty, .text(text)])
    case "startswith", "endswith":
      let values = try bind(call, ["prefix", "start", "end"], required: 1, of: function)
      let part = try self.part(text, values[1], values[2])
      var candidates = [values[0] ?? .none]
      if case .tuple(let sequence) = candidates[0] { candidates = sequence.items }
      for candidate in candidates {
        let affix = try string(candidate, of: function)
        if name == "startswith" ? part.hasPrefix(affix) : part.hasSuffix(affix) { return .bool(true) }
      }
      return .bool(false)
    case "removeprefix", "removesuffix":
      let affix = try string(try bind(call, ["affix"], required: 1, of: function)[0], of: function)
      let size = affix.bytes.count
      if name == "removeprefix" { return try made(text.hasPrefix(affix) ? text[size..<text.bytes.count] : text) }
      return try made(text.hasSuffix(affix) ? text[0..<text.bytes.count - size] : text)
    case "replace":
      let values = try bind(call, ["old", "new", "count"], required: 2, of: function)
      let limit = try wholeNumber(values[2], -1, of: function)
      return try replaced(
        text, try string(values[0], of: function), try string(values[1], of: function), limit)
    case "find", "rfind", "index", "rindex", "count":
      let values = try bind(call, ["sub", "start", "end"], required: 1, of: function)
      return try find(name, text, try string(values[0], of: function), values[1], values[2])
    case "join":
      let items = try items(of: try bind(call, ["iterable"], required: 1, of: function)[0] ?? .none)
      var pieces: [PythonText] = []
      for item in items { pieces.append(try string(item, of: function)) }
      return try joined(pieces, separator: text)
    case "format": return try made(try formatted(text, call))
    case "center", "ljust", "rjust", "zfill", "expandtabs": return try padded(text, name, call)
    default:
      _ = try bind(call, [], of: function)
      return try plain(text, name)
    }
  }

  /// The methods that take no argument.
  private func plain(_ text: PythonText, _ name: String) throws(SquintError) -> PythonValue {
    try charge(text.bytes.count >> 4)
    switch name {
    case "upper": return try made(text.uppercased)
    case "lower": return try made(text.lowercased)
    case "casefold": return try made(text.caseFolded)
    case "title": return try made(text.titlecased)
    case "capitalize": return try made(text.capitalized)
    case "swapcase": return try made(text.swappedCase)
    case "isalpha": return .bool(text.allScalars(\.isPythonAlphabetic))
    case "isdigit": return .bool(text.allScalars(\.isPythonDigit))
    case "isdecimal": return .bool(text.allScalars(\.isPythonDecimal))
    case "isnumeric": return .bool(text.allScalars(\.isPythonNumeric))
    case "isalnum": return .bool(text.allScalars { $0.isPythonAlphabetic || $0.isPythonNumeric })
    case "isspace": return .bool(text.allScalars(\.isPythonSpace))
    case "isprintable": return .bool(text.isEmpty || text.allScalars(\.isPythonPrintable))
    case "isascii": return .bool(text.bytes.allSatisfy { $0 < 0x80 })
    case "islower": return .bool(text.hasOnlyCase(upper: false))
    case "isupper": return .bool(text.hasOnlyCase(upper: true))
    case "istitle": return .bool(text.scalars.contains { $0.properties.isCased } && text.titlecased == text)
    case "isidentifier":
      let scalars = text.scalars
      let begins = scalars.first.map { $0 == "_" || $0.properties.isXIDStart } ?? false
      return .bool(begins && scalars.allSatisfy { $0.properties.isXIDContinue })
    default: throw fail("the method str.\(name) is not supported")
    }
  }

  private func split(
    _ text: PythonText, _ separator: PythonText?, _ limit: Int, fromRight: Bool
  ) throws(SquintError) -> PythonValue {
    guard let separator else {
      try charge(text.bytes.count)
      return try texts(text.splitWhitespace(limit: limit, fromRight: fromRight))
    }
    guard !separator.isEmpty else { throw fail("str.split needs a separator that is not empty") }
    try charge(min(limit, text.bytes.count / separator.bytes.count))
    return try texts(
      fromRight
        ? text.splitFromRight(separator: separator, limit: limit) : text.split(separator: separator, limit: limit))
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

  private func part(_ text: PythonText, _ start: PythonValue?, _ end: PythonValue?) throws(SquintError) -> PythonText {
    if start == nil && end == nil { return text }
    guard case .text(let part) = try slice(.text(text), start: start ?? .none, stop: end ?? .none, step: .none)
    else { return text }
    return part
  }

  private func find(
    _ name: String, _ text: PythonText, _ needle: PythonText, _ start: PythonValue?, _ end: PythonValue?
  ) throws(SquintError) -> PythonValue {
    let part = try self.part(text, start, end)
    if name == "count" {
      return .int(needle.isEmpty ? part.count + 1 : part.occurrences(of: needle).count)
    }
    let fromRight = name.first == "r"
    let offset: Int?
    if needle.isEmpty {
      offset = fromRight ? part.bytes.count : 0
    } else if fromRight {
      let mirrored = PythonText(bytes: part.bytes.reversed())
      offset = mirrored.occurrences(of: PythonText(bytes: needle.bytes.reversed()), limit: 1).first.map {
        part.bytes.count - $0 - needle.bytes.count
      }
    } else {
      offset = part.occurrences(of: needle, limit: 1).first
    }
    guard let offset else {
      if name.hasSuffix("index") { throw fail("the text that str.\(name) looks for is not found") }
      return .int(-1)
    }
    var first = try wholeNumber(start, 0, of: "str.\(name)")
    if first < 0 { first = max(0, first + text.count) }
    return .int(first + part.position(ofByte: offset))
  }

  private func padded(_ text: PythonText, _ name: String, _ call: TemplateCall) throws(SquintError) -> PythonValue {
    let function = "str.\(name)"
    let values = try bind(
      call, name == "zfill" || name == "expandtabs" ? ["width"] : ["width", "fillchar"],
      required: name == "expandtabs" ? 0 : 1, of: function)
    let width = try wholeNumber(values[0], name == "expandtabs" ? 8 : 0, of: function)
    if name == "expandtabs" { return try made(try expandedTabs(text, width)) }
    let (missing, overflow) = width.subtractingReportingOverflow(text.count)
    guard !overflow, missing > 0 else { return .text(text) }
    let fill = values.count > 1 && values[1] != nil ? try string(values[1], of: function) : name == "zfill" ? "0" : " "
    guard fill.count == 1 else { throw fail("\(function) fills with one character") }
    guard missing <= limits.output else { throw fail("a text grows over \(grouped(limits.output)) bytes") }
    try chargeText(text.byteCount + missing * fill.bytes.count)
    func pad(_ count: Int) -> PythonText {
      var result = PythonText()
      for _ in 0..<count { result.append(fill) }
      return result
    }
    switch name {
    case "ljust": return .text(text + pad(missing))
    case "rjust": return .text(pad(missing) + text)
    case "zfill":
      let hasSign = text.hasPrefix("-") || text.hasPrefix("+")
      let start = hasSign ? 1 : 0
      return .text(text[0..<start] + pad(missing) + text[start..<text.bytes.count])
    default:
      // Where the padding is odd, Python puts the larger part left if the width is odd too.
      let left = missing / 2 + (missing & width & 1)
      return .text(pad(left) + text + pad(missing - left))
    }
  }

  private func expandedTabs(_ text: PythonText, _ width: Int) throws(SquintError) -> PythonText {
    guard width <= 4096 else { throw fail("tabs of more than 4,096 columns are not supported") }
    try charge(text.bytes.count)
    var result = PythonText()
    var column = 0
    for scalar in text.scalars {
      if scalar == "\t" {
        let count = width > 0 ? width - column % width : 0
        result.append(contentsOf: repeatElement(0x20, count: count))
        column += count
        guard result.bytes.count <= limits.output else {
          throw fail("a text grows over \(grouped(limits.output)) bytes")
        }
      } else {
        result.append(scalar)
        column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
      }
    }
    return result
  }
}
