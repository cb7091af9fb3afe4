import SquintFile

/// A value while a template runs, with Python's types. Everything but a namespace, a loop and an iterator is
/// immutable, as jinja2's ImmutableSandboxedEnvironment has it.
enum PythonValue {
  /// Jinja's Undefined; the text says what is missing, for the error that using it raises.
  case undefined(PythonText)
  case none
  case bool(Bool)
  case int(Int)
  case double(Double)
  case text(PythonText)
  case list(PythonSequence)
  case tuple(PythonSequence)
  case dictionary(PythonDictionary)
  case object(PythonObject)

  /// How many containers are nested in this value. Bounded, so that no walk over a value, its release included, can
  /// overflow the stack.
  var depth: Int {
    switch self {
    case .list(let sequence), .tuple(let sequence): sequence.depth
    case .dictionary(let dictionary): dictionary.depth
    case .object(let object): object.depth
    default: 0
    }
  }

  /// Python's name of the type, for messages.
  var typeName: String {
    switch self {
    case .undefined: "Undefined"
    case .none: "NoneType"
    case .bool: "bool"
    case .int: "int"
    case .double: "float"
    case .text: "str"
    case .list: "list"
    case .tuple: "tuple"
    case .dictionary: "dict"
    case .object(let object): object.typeName
    }
  }
}

struct PythonSequence {
  let items: [PythonValue]
  let depth: Int
}

final class PythonDictionary {
  private(set) var keys: [PythonValue] = []
  private(set) var values: [PythonValue] = []
  private var places: [PythonKey: Int] = [:]
  private(set) var depth = 1

  var count: Int { keys.count }

  func value(_ key: PythonKey) -> PythonValue? { places[key].map { values[$0] } }

  func value(_ key: PythonText) -> PythonValue? { value(.text(key)) }

  /// Used only while the dictionary is being built; nobody else holds it yet.
  func set(_ key: PythonValue, _ hashed: PythonKey, _ value: PythonValue) {
    depth = max(depth, key.depth + 1, value.depth + 1)
    if let place = places[hashed] {
      values[place] = value
    } else {
      places[hashed] = keys.count
      keys.append(key)
      values.append(value)
    }
  }

  func set(_ key: PythonText, _ value: PythonValue) { set(.text(key), .text(key), value) }
}

/// What makes two dictionary keys the same: 1, 1.0 and True are one key.
enum PythonKey: Hashable {
  case none
  case undefined
  case int(Int)
  case double(Double)
  case text(PythonText)
  case tuple([PythonKey])
  case identity(ObjectIdentifier)
}

/// Base of what is compared by identity.
class PythonObject {
  let depth: Int
  init(depth: Int = 0) { self.depth = depth }
  var typeName: String { "object" }
}

/// `range(start, stop, step)`.
final class PythonRange: PythonObject {
  let start: Int
  let stop: Int
  let step: Int
  let count: Int

  init(start: Int, stop: Int, step: Int, count: Int) {
    self.start = start
    self.stop = stop
    self.step = step
    self.count = count
  }

  override var typeName: String { "range" }
  /// `index` is below `count`, so that the sum stays between start and stop.
  func item(_ index: Int) -> Int { start &+ index &* step }
}

/// `dict.keys()`, `values()` and `items()`: can be iterated again and counted, not indexed.
final class PythonView: PythonObject {
  let name: String
  let items: [PythonValue]

  init(name: String, items: [PythonValue], depth: Int) {
    self.name = name
    self.items = items
    super.init(depth: depth)
  }

  override var typeName: String { name }
}

/// What the filters that Jinja writes as generators return: true, without a length, and used up once iterated.
final class PythonIterator: PythonObject {
  private var items: [PythonValue]
  private var position = 0

  init(_ items: [PythonValue], depth: Int) {
    self.items = items
    super.init(depth: depth)
  }

  override var typeName: String { "generator" }

  func next() -> PythonValue? {
    guard position < items.count else { return nil }
    position += 1
    return items[position - 1]
  }

  func rest() -> [PythonValue] {
    defer {
      items = []
      position = 0
    }
    return Array(items[position...])
  }
}

final class PythonNamespace: PythonObject {
  /// A namespace counts as a container of this depth, and what is stored in it must be shallower: then no namespace
  /// can come to hold itself, and no chain of them can grow long.
  static let weight = 50

  var names: [PythonText] = []
  var values: [PythonText: PythonValue] = [:]

  init() { super.init(depth: Self.weight) }

  override var typeName: String { "Namespace" }
}

/// A macro, or the body of a call block, with the scope in which it was defined.
final class PythonMacro: PythonObject {
  let function: TemplateFunction
  let scope: TemplateScope
  let isCaller: Bool

  init(_ function: TemplateFunction, scope: TemplateScope, isCaller: Bool) {
    self.function = function
    self.scope = scope
    self.isCaller = isCaller
    super.init()
  }

  override var typeName: String { "Macro" }
}

final class PythonMethod: PythonObject {
  let receiver: PythonValue
  let name: PythonText

  init(_ receiver: PythonValue, _ name: PythonText) {
    self.receiver = receiver
    self.name = name
    super.init(depth: receiver.depth + 1)
  }

  override var typeName: String { "builtin_function_or_method" }
}

final class PythonFunction: PythonObject {
  enum Name: String, CaseIterable {
    case range, dict, namespace
    case raiseException = "raise_exception"
    case strftimeNow = "strftime_now"
  }

  let name: Name

  init(_ name: Name) {
    self.name = name
    super.init()
  }

  override var typeName: String { "function" }
}

/// The `loop` variable. Items that the loop's condition filters are fetched one at a time, as Jinja does: the
/// condition may read what the body has just set.
final class PythonLoop: PythonObject {
  let loop: TemplateLoop
  let source: [PythonValue]
  /// Where the condition is evaluated; nil once the loop has ended.
  var scope: TemplateScope?
  var position = 0
  /// Items that were fetched ahead of the iteration.
  var ahead: [PythonValue] = []
  var index0 = -1
  var previous: PythonValue?
  var current: PythonValue?

  init(_ loop: TemplateLoop, source: [PythonValue], depth: Int, scope: TemplateScope) {
    self.loop = loop
    self.source = source
    self.scope = scope
    super.init(depth: depth)
  }

  override var typeName: String { "LoopContext" }
}

/// The variables of one block; names not found here are looked up in the enclosing one.
final class TemplateScope {
  var values: [PythonText: PythonValue] = [:]
  let parent: TemplateScope?

  init(parent: TemplateScope?) { self.parent = parent }
}
