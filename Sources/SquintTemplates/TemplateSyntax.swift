/// An expression of the template language, with the line on which it begins.
struct TemplateExpression: Sendable {
  let kind: Kind
  let line: Int
  /// How many levels of expressions are below this one, itself included.
  let depth: Int

  indirect enum Kind: Sendable {
    case none
    case bool(Bool)
    case integer(Int)
    case string(PythonText)
    case name(PythonText)
    case list([TemplateExpression])
    case tuple([TemplateExpression])
    case dictionary([(key: TemplateExpression, value: TemplateExpression)])
    case attribute(TemplateExpression, PythonText)
    case item(TemplateExpression, TemplateExpression)
    case slice(TemplateExpression, TemplateSlice)
    case call(TemplateExpression, TemplateArguments)
    case filter(TemplateExpression, TemplateFilter)
    case test(TemplateExpression, PythonText, TemplateArguments)
    case negate(TemplateExpression)
    case not(TemplateExpression)
    case and(TemplateExpression, TemplateExpression)
    case or(TemplateExpression, TemplateExpression)
    case binary(TemplateExpression, BinaryOperator, TemplateExpression)
    case concatenate([TemplateExpression])
    case compare(TemplateExpression, [(comparison: Comparison, operand: TemplateExpression)])
    case conditional(test: TemplateExpression, then: TemplateExpression, otherwise: TemplateExpression?)
  }

  enum BinaryOperator: String, Sendable {
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case modulo = "%"
  }

  enum Comparison: String, Sendable {
    case equal = "=="
    case notEqual = "!="
    case less = "<"
    case lessOrEqual = "<="
    case greater = ">"
    case greaterOrEqual = ">="
    case contained = "in"
    case notContained = "not in"
  }
}

struct TemplateSlice: Sendable {
  let start: TemplateExpression?
  let stop: TemplateExpression?
  let step: TemplateExpression?
}

struct TemplateArguments: Sendable {
  var positional: [TemplateExpression] = []
  var named: [(name: PythonText, value: TemplateExpression)] = []
  /// `*arguments`.
  var sequence: TemplateExpression?

  var depth: Int {
    var depth = sequence?.depth ?? 0
    for argument in positional { depth = max(depth, argument.depth) }
    for argument in named { depth = max(depth, argument.value.depth) }
    return depth
  }
}

struct TemplateFilter: Sendable {
  let name: PythonText
  let arguments: TemplateArguments
  let line: Int
}

/// What a value can be assigned to.
indirect enum TemplateTarget: Sendable {
  case name(PythonText)
  case namespaceAttribute(namespace: PythonText, attribute: PythonText)
  case tuple([TemplateTarget])
}

/// The part that macros and call blocks share: parameters and a body.
struct TemplateFunction: Sendable {
  let name: PythonText
  let parameters: [(name: PythonText, initial: TemplateExpression?)]
  let body: [TemplateStatement]
  /// Whether the body mentions `caller`: only then may a call block call it.
  let usesCaller: Bool
  let line: Int
}

struct TemplateLoop: Sendable {
  let target: TemplateTarget
  let sequence: TemplateExpression
  let condition: TemplateExpression?
  let body: [TemplateStatement]
  let line: Int
}

indirect enum TemplateStatement: Sendable {
  case text(PythonText)
  case output(TemplateExpression)
  case conditional([(test: TemplateExpression, body: [TemplateStatement])], otherwise: [TemplateStatement])
  case loop(TemplateLoop)
  case set(TemplateTarget, TemplateExpression)
  case setBlock(TemplateTarget, [TemplateFilter], [TemplateStatement], line: Int)
  case macro(TemplateFunction)
  case call(TemplateFunction, call: TemplateExpression)
  case filter([TemplateFilter], [TemplateStatement], line: Int)
  case scope([TemplateStatement])
  case `break`
  case `continue`
}
