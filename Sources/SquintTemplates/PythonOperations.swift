import SquintFile

// Python's operators and conversions on the values of a running template.
extension TemplateInterpreter {
  // MARK: Truth and numbers

  func isTrue(_ value: PythonValue) -> Bool {
    switch value {
    case .undefined, .none: false
    case .bool(let value): value
    case .int(let value): value != 0
    case .double(let value): value != 0
    case .text(let text): !text.isEmpty
    case .list(let sequence), .tuple(let sequence): !sequence.items.isEmpty
    case .dictionary(let dictionary): dictionary.count > 0
    case .object(let object):
      switch object {
      case let range as PythonRange: range.count > 0
      case let view as PythonView: !view.items.isEmpty
      default: true
      }
    }
  }

  /// The value as an integer where Python takes it for one: int and bool.
  func integer(_ value: PythonValue) -> Int? {
    switch value {
    case .int(let value): value
    case .bool(let value): value ? 1 : 0
    default: nil
    }
  }

  func number(_ value: PythonValue) -> Double? {
    if case .double(let value) = value { return value }
    return integer(value).map(Double.init)
  }

  // MARK: Printing

  /// Python's `str(value)`; an undefined value prints nothing.
  func text(of value: PythonValue) throws(SquintError) -> PythonText {
    switch value {
    case .text(let text): return text
    case .undefined: return PythonText()
    case .list, .tuple, .dictionary, .object:
      var result = PythonText()
      try represent(value, into: &result)
      try chargeText(result.bytes.count)
      return result
    default: return scalarText(value)
    }
  }

  private func scalarText(_ value: PythonValue) -> PythonText {
    switch value {
    case .bool(let value): value ? "True" : "False"
    // Digits spell no control token: one around them is the template's.
    case .int(let value): PythonText(String(value)).asOwn
    case .double(let value): PythonText(pythonDescription(of: value))
    default: "None"
    }
  }

  /// Python's `repr(value)`.
  func represent(_ value: PythonValue, into result: inout PythonText) throws(SquintError) {
    try charge(1)
    guard result.bytes.count <= limits.output else {
      throw fail("a text grows over \(grouped(limits.output)) bytes")
    }
    switch value {
    case .undefined: result.append("Undefined" as PythonText)
    case .text(let text):
      try chargeText(text.bytes.count)
      result.append(text.quoted)
    case .list(let sequence): try represent(sequence.items, open: "[", close: "]", into: &result)
    case .tuple(let sequence):
      let close: PythonText = sequence.items.count == 1 ? ",)" : ")"
      try represent(sequence.items, open: "(", close: close, into: &result)
    case .dictionary(let dictionary):
      result.append("{" as PythonText)
      for index in 0..<dictionary.count {
        if index > 0 { result.append(", " as PythonText) }
        try represent(dictionary.keys[index], into: &result)
        result.append(": " as PythonText)
        try represent(dictionary.values[index], into: &result)
      }
      result.append("}" as PythonText)
    case .object(let view as PythonView):
      result.append(PythonText(view.name))
      try represent(view.items, open: "([", close: "])", into: &result)
    case .object(let object):
      throw fail("a value of type \(object.typeName) cannot be printed; the template has to do without it")
    default: result.append(scalarText(value))
    }
  }

  private func represent(
    _ items: [PythonValue], open: PythonText, close: PythonText, into result: inout PythonText
  ) throws(SquintError) {
    result.append(open)
    for (index, item) in items.enumerated() {
      if index > 0 { result.append(", " as PythonText) }
      try represent(item, into: &result)
    }
    result.append(close)
  }

  // MARK: Iteration

  /// The items over which `for` runs: characters of a text, keys of a dictionary.
  func items(of value: PythonValue) throws(SquintError) -> [PythonValue] {
    switch value {
    case .list(let sequence), .tuple(let sequence): return sequence.items
    case .undefined: return []
    case .dictionary(let dictionary): return dictionary.keys
    case .text(let text):
      try charge(text.bytes.count * 4)
      var characters: [PythonValue] = []
      characters.reserveCapacity(text.bytes.count)
      var index = 0
      while index < text.bytes.count {
        let length = text.scalar(at: index).1
        characters.append(.text(text[index..<index + length]))
        index += length
      }
      return characters
    case .object(let object):
      switch object {
      case let range as PythonRange:
        try charge(range.count)
        return (0..<range.count).map { .int(range.item($0)) }
      case let view as PythonView: return view.items
      case let iterator as PythonIterator: return iterator.rest()
      default: break
      }
    default: break
    }
    throw fail("a value of type \(value.typeName) cannot be iterated")
  }

  /// Python's `len`, or nil where the type has none.
  func count(of value: PythonValue) throws(SquintError) -> Int? {
    switch value {
    case .list(let sequence), .tuple(let sequence): return sequence.items.count
    case .undefined: return 0
    case .dictionary(let dictionary): return dictionary.count
    case .text(let text):
      try chargeReading(value)
      return text.count
    case .object(let object):
      switch object {
      case let range as PythonRange: return range.count
      case let view as PythonView: return view.items.count
      case let loop as PythonLoop:
        return integer(try attribute("length", of: loop) ?? .none)
      default: return nil
      }
    default: return nil
    }
  }

  // MARK: Comparison

  /// What identifies `value` as a key; nil where Python says that its type is unhashable.
  func hash(_ value: PythonValue) throws(SquintError) -> PythonKey? {
    try charge(1)
    switch value {
    case .none: return PythonKey.none
    case .undefined: return .undefined
    case .bool(let value): return .int(value ? 1 : 0)
    case .int(let value): return .int(value)
    case .double(let value): return Int(exactly: value).map { .int($0) } ?? .double(value)
    case .text(let text):
      try chargeReading(value)
      return .text(text)
    case .tuple(let sequence):
      var keys: [PythonKey] = []
      for item in sequence.items {
        guard let key = try hash(item) else { return nil }
        keys.append(key)
      }
      return .tuple(keys)
    case .list, .dictionary: return nil
    case .object(let object): return .identity(ObjectIdentifier(object))
    }
  }

  func areEqual(_ left: PythonValue, _ right: PythonValue) throws(SquintError) -> Bool {
    try charge(1)
    switch (left, right) {
    case (.none, .none), (.undefined, .undefined): return true
    case (.text(let left), .text(let right)):
      try charge(min(left.bytes.count, right.bytes.count) >> 8)
      return left == right
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
      guard left.items.count == right.items.count else { return false }
      for (first, second) in zip(left.items, right.items) {
        guard try areEqual(first, second) else { return false }
      }
      return true
    case (.dictionary(let left), .dictionary(let right)):
      guard left.count == right.count else { return false }
      for (key, value) in zip(left.keys, left.values) {
        guard let hashed = try hash(key), let other = right.value(hashed), try areEqual(value, other) else {
          return false
        }
      }
      return true
    case (.object(let left), .object(let right)):
      if let left = left as? PythonRange, let right = right as? PythonRange {
        return left.count == right.count
          && (left.count == 0
            || left.start == right.start && (left.count == 1 || left.step == right.step))
      }
      return left === right
    default:
      if let left = integer(left), let right = integer(right) { return left == right }
      if let left = number(left), let right = number(right) { return left == right }
      return false
    }
  }

  /// Python's `left < right`.
  func isLess(
    _ left: PythonValue, _ right: PythonValue, orEqual: Bool = false, sign: String = "<"
  ) throws(SquintError) -> Bool {
    try charge(1)
    switch (left, right) {
    case (.undefined(let reason), _), (_, .undefined(let reason)): throw fail(reason.string)
    case (.text(let left), .text(let right)):
      try charge(min(left.bytes.count, right.bytes.count) >> 6)
      return left < right || (orEqual && left == right)
    default:
      if let left = integer(left), let right = integer(right) { return orEqual ? left <= right : left < right }
      if let left = number(left), let right = number(right) { return orEqual ? left <= right : left < right }
      throw fail("'\(sign)' does not compare values of type \(left.typeName) and \(right.typeName)")
    }
  }

  func contains(_ container: PythonValue, _ element: PythonValue) throws(SquintError) -> Bool {
    switch container {
    case .text(let text):
      if case .undefined(let reason) = element { throw fail(reason.string) }
      guard case .text(let needle) = element else {
        throw fail("a string contains strings; a value of type \(element.typeName) cannot be looked for in it")
      }
      try chargeReading(container)
      return text.contains(needle)
    case .dictionary(let dictionary):
      guard let key = try hash(element) else {
        throw fail("a value of type \(element.typeName) is unhashable and cannot be a key")
      }
      return dictionary.value(key) != nil
    case .object(let object):
      if let range = object as? PythonRange {
        guard let value = number(element) else { return false }
        guard let whole = Int(exactly: value), range.count > 0 else { return false }
        let (distance, overflow) = whole.subtractingReportingOverflow(range.start)
        return !overflow && distance % range.step == 0 && (0..<range.count).contains(distance / range.step)
      }
    default: break
    }
    for item in try items(of: container) where try areEqual(item, element) { return true }
    return false
  }

  func compare(
    _ left: PythonValue, _ comparison: TemplateExpression.Comparison, _ right: PythonValue
  ) throws(SquintError) -> Bool {
    switch comparison {
    case .equal: return try areEqual(left, right)
    case .notEqual: return try !areEqual(left, right)
    case .less: return try isLess(left, right)
    case .lessOrEqual: return try isLess(left, right, orEqual: true, sign: "<=")
    case .greater: return try isLess(right, left, sign: ">")
    case .greaterOrEqual: return try isLess(right, left, orEqual: true, sign: ">=")
    case .contained: return try contains(right, left)
    case .notContained: return try !contains(right, left)
    }
  }

  /// A stable sort by keys, which may fail on keys that do not compare.
  func sorted(
    _ items: [PythonValue], by keys: [PythonValue]
  ) throws(SquintError) -> [PythonValue] {
    var order = Array(items.indices)
    var merged = order
    var width = 1
    while width < order.count {
      var start = 0
      while start < order.count {
        let middle = min(start + width, order.count)
        let end = min(start + 2 * width, order.count)
        var left = start
        var right = middle
        for place in start..<end {
          let takesRight: Bool
          if left == middle {
            takesRight = true
          } else if right == end {
            takesRight = false
          } else {
            takesRight = try isLess(keys[order[right]], keys[order[left]])
          }
          merged[place] = takesRight ? order[right] : order[left]
          if takesRight { right += 1 } else { left += 1 }
        }
        start = end
      }
      swap(&order, &merged)
      width *= 2
    }
    return order.map { items[$0] }
  }

  // MARK: Arithmetic

  func arithmetic(
    _ left: PythonValue, _ operation: TemplateExpression.BinaryOperator, _ right: PythonValue
  ) throws(SquintError) -> PythonValue {
    if case .undefined(let reason) = left { throw fail(reason.string) }
    if case .undefined(let reason) = right { throw fail(reason.string) }
    if let left = integer(left), let right = integer(right) { return try arithmetic(left, operation, right) }
    if let left = number(left), let right = number(right) { return try arithmetic(left, operation, right) }
    switch (left, operation, right) {
    case (.text(let left), .add, .text(let right)):
      try chargeText(left.byteCount + right.byteCount)
      return .text(left + right)
    case (.list(let left), .add, .list(let right)): return try list(left.items + right.items)
    case (.tuple(let left), .add, .tuple(let right)): return try tuple(left.items + right.items)
    case (.text(let text), .multiply, let times), (let times, .multiply, .text(let text)):
      guard let times = integer(times) else { break }
      try chargeText(try repeated(text.byteCount, times))
      var result = PythonText()
      for _ in 0..<(text.isEmpty ? 0 : max(times, 0)) { result.append(text) }
      return .text(result)
    default: break
    }
    throw fail(
      "'\(operation.rawValue)' does not work on values of type \(left.typeName) and \(right.typeName)")
  }

  private func repeated(_ size: Int, _ times: Int) throws(SquintError) -> Int {
    let (product, overflow) = size.multipliedReportingOverflow(by: max(times, 0))
    guard !overflow else { throw fail("a text or list is repeated \(grouped(times)) times; that is too long") }
    return product
  }

  private func arithmetic(
    _ left: Int, _ operation: TemplateExpression.BinaryOperator, _ right: Int
  ) throws(SquintError) -> PythonValue {
    var result: (partialValue: Int, overflow: Bool)
    switch operation {
    case .add: result = left.addingReportingOverflow(right)
    case .subtract: result = left.subtractingReportingOverflow(right)
    case .multiply: result = left.multipliedReportingOverflow(by: right)
    case .modulo:
      guard right != 0 else { throw fail("division by zero") }
      // Python's remainder takes the divisor's sign.
      let remainder = left.remainderReportingOverflow(dividingBy: right).partialValue
      return .int(remainder != 0 && (remainder < 0) != (right < 0) ? remainder + right : remainder)
    }
    guard !result.overflow else {
      throw fail("the result of \(left) \(operation.rawValue) \(right) does not fit 64 bits")
    }
    return .int(result.partialValue)
  }

  private func arithmetic(
    _ left: Double, _ operation: TemplateExpression.BinaryOperator, _ right: Double
  ) throws(SquintError) -> PythonValue {
    switch operation {
    case .add: return .double(left + right)
    case .subtract: return .double(left - right)
    case .multiply: return .double(left * right)
    case .modulo: throw fail("'%' of fractions is not supported; the template has to do without it")
    }
  }

  // MARK: Attributes, items, slices

  /// `value.name`: a method or property first, then a key, as jinja2's `getattr`.
  func attribute(_ name: PythonText, of value: PythonValue) throws(SquintError) -> PythonValue {
    if case .undefined(let reason) = value { throw fail(reason.string) }
    if let found = try member(name, of: value) { return found }
    if case .dictionary(let dictionary) = value, let found = dictionary.value(name) { return found }
    return missing(name, of: value)
  }

  /// `value[key]`: an item first, then a method or property, as jinja2's `getitem`.
  func item(_ key: PythonValue, of value: PythonValue) throws(SquintError) -> PythonValue {
    if case .undefined(let reason) = value { throw fail(reason.string) }
    switch value {
    case .dictionary(let dictionary):
      if let hashed = try hash(key), let found = dictionary.value(hashed) { return found }
    case .list(let sequence), .tuple(let sequence):
      if let index = integer(key), let place = position(index, count: sequence.items.count) {
        return sequence.items[place]
      }
    case .text(let text):
      if let index = integer(key) {
        try chargeReading(value)
        if let place = position(index, count: text.count), let character = text.character(at: place) {
          return .text(character)
        }
      }
    case .object(let object):
      if let range = object as? PythonRange, let index = integer(key),
        let place = position(index, count: range.count)
      {
        return .int(range.item(place))
      }
    default: break
    }
    if case .text(let name) = key {
      return try member(name, of: value) ?? missing(name, of: value)
    }
    return .undefined(PythonText("a value of type \(value.typeName) has no such element"))
  }

  private func missing(_ name: PythonText, of value: PythonValue) -> PythonValue {
    .undefined(
      PythonText("a value of type \(value.typeName) has no attribute '\(templateExcerpt(name.string, limit: 80))'"))
  }

  private func position(_ index: Int, count: Int) -> Int? {
    let place = index < 0 ? index + count : index
    return place >= 0 && place < count ? place : nil
  }

  /// `value[start:stop:step]`.
  func slice(
    _ value: PythonValue, start: PythonValue, stop: PythonValue, step: PythonValue
  ) throws(SquintError) -> PythonValue {
    if case .undefined(let reason) = value { throw fail(reason.string) }
    let count: Int
    switch value {
    case .list(let sequence), .tuple(let sequence): count = sequence.items.count
    case .text(let text):
      try chargeReading(value)
      count = text.count
    case .object(let object):
      guard let range = object as? PythonRange else { fallthrough }
      count = range.count
    default: throw fail("a value of type \(value.typeName) cannot be sliced")
    }
    let places = try slicePlaces(count: count, start: start, stop: stop, step: step)
    switch value {
    case .list(let sequence): return try list(places.map { sequence.items[$0] })
    case .tuple(let sequence): return try tuple(places.map { sequence.items[$0] })
    case .text(let text):
      guard let first = places.first, let last = places.last else { return .text(PythonText()) }
      if last - first == places.count - 1 {
        let start = text.offset(of: first)
        return try made(text[start..<start + text[start..<text.bytes.count].offset(of: places.count)])
      }
      let scalars = text.scalars
      return try made(PythonText(places.lazy.map { scalars[$0] }).inheriting(from: text))
    default:
      guard case .object(let object) = value, let range = object as? PythonRange else { return .none }
      return try list(places.map { .int(range.item($0)) })
    }
  }

  private func slicePlaces(
    count: Int, start: PythonValue, stop: PythonValue, step: PythonValue
  ) throws(SquintError) -> [Int] {
    var bounds: [Int?] = []
    for bound in [start, stop, step] {
      if case .none = bound {
        bounds.append(nil)
      } else if let bound = integer(bound) {
        bounds.append(bound)
      } else {
        throw fail("the bounds of a slice have to be integers, not of type \(bound.typeName)")
      }
    }
    let step = bounds[2] ?? 1
    guard step != 0 else { throw fail("the step of a slice cannot be zero") }
    let (low, high) = step > 0 ? (0, count) : (-1, count - 1)
    func clamped(_ bound: Int) -> Int {
      let place = bound < 0 ? bound + count : bound
      return min(max(place, low), high)
    }
    var place = bounds[0].map(clamped) ?? (step > 0 ? low : high)
    let end = bounds[1].map(clamped) ?? (step > 0 ? high : low)
    let distance = step > 0 ? end - place : place - end
    guard distance > 0 else { return [] }
    let size = (distance - 1) / Int(clamping: step.magnitude) + 1
    try charge(size >> 4)
    var places: [Int] = []
    places.reserveCapacity(size)
    for _ in 0..<size {
      places.append(place)
      place = place &+ step
    }
    return places
  }
}

/// Python's `repr` of a float: the shortest digits that read back as the same number, in scientific notation below
/// 1e-4 and from 1e16.
func pythonDescription(of value: Double) -> String {
  if value.isNaN { return "nan" }
  if value.isInfinite { return value < 0 ? "-inf" : "inf" }
  let sign = value.sign == .minus ? "-" : ""
  if value == 0 { return sign + "0.0" }
  // Swift prints the same shortest digits, with other rules for the notation.
  let parts = value.magnitude.description.split(separator: "e")
  let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
  var digits = Array(mantissa[0].utf8) + (mantissa.count > 1 ? Array(mantissa[1].utf8) : [])
  var point = mantissa[0].utf8.count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
  let zero = UInt8(ascii: "0")
  let leading = digits.prefix { $0 == zero }.count
  digits.removeFirst(leading)
  point -= leading
  while digits.count > 1 && digits.last == zero { digits.removeLast() }
  func text(_ digits: some Sequence<UInt8>) -> String { String(decoding: Array(digits), as: UTF8.self) }
  let exponent = point - 1
  if exponent < -4 || exponent >= 16 {
    let fraction = digits.count > 1 ? "." + text(digits[1...]) : ""
    let magnitude = String(abs(exponent))
    return sign + text(digits[..<1]) + fraction + (exponent < 0 ? "e-" : "e+")
      + (magnitude.utf8.count < 2 ? "0" : "") + magnitude
  }
  if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + text(digits) }
  if point >= digits.count {
    return sign + text(digits) + String(repeating: "0", count: point - digits.count) + ".0"
  }
  return sign + text(digits[..<point]) + "." + text(digits[point...])
}
