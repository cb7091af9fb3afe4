import SquintFile

/// The steps of a definition that cut a text into words, ready to run.
enum PieceStep: Sendable {
  case split(ExpressionMatcher, TokenizerDefinition.SplitBehavior, isInverted: Bool, isBytes: Bool)
  /// A last split whose expression has a matcher written by hand: measured, it makes a tokenizer a sixth to a third
  /// faster than the same expression's automaton.
  case pattern(Pattern)
  case prefixSpace
  case metaspace(prepend: TokenizerDefinition.MetaspacePrepend, splits: Bool)

  enum Pattern {
    case gpt2, gpt2Digits, llama3, qwen2
  }

  /// - Throws: `SquintError.badData` where an expression cannot be compiled.
  static func steps(of definition: TokenizerDefinition) throws(SquintError) -> [PieceStep] {
    var steps: [PieceStep] = []
    var isBytes = false
    var rest = definition.preTokenizers[...]
    let pattern = definition.model == .byteLevel ? Self.takePattern(&rest) : nil
    for preTokenizer in rest {
      switch preTokenizer {
      case .split(let expression, let behavior, let isInverted):
        steps.append(.split(try ExpressionMatcher(expression), behavior, isInverted: isInverted, isBytes: isBytes))
      case .prefixSpace: steps.append(.prefixSpace)
      case .bytes: isBytes = true
      case .metaspace(let prepend, let splits): steps.append(.metaspace(prepend: prepend, splits: splits))
      }
    }
    if let pattern { steps.append(.pattern(pattern)) }
    return steps
  }

  /// Takes the steps that end the list and have a matcher of their own.
  private static func takePattern(_ steps: inout ArraySlice<TokenizerDefinition.PreTokenizer>) -> Pattern? {
    guard let last = steps.last, !steps.contains(.bytes) else { return nil }
    let pattern: Pattern
    switch last {
    case .gpt2: pattern = .gpt2
    case .llama3: pattern = .llama3
    case .qwen2: pattern = .qwen2
    default: return nil
    }
    steps.removeLast()
    guard pattern == .gpt2, steps.last == .digits else { return pattern }
    steps.removeLast()
    return .gpt2Digits
  }

  /// What a step needs to run on one text.
  final class Memory {
    let scratch = ExpressionMatcher.Scratch()
    /// The text that the step made.
    var text = ByteBuffer()

    func trim(to limit: Int) {
      scratch.trim(to: limit)
      text.trim(to: limit)
    }
  }
}

/// Puts the parts of a text, matches and what lies between, together as a behavior says (the reference's
/// `NormalizedString::split`).
struct PieceCutter {
  private let behavior: TokenizerDefinition.SplitBehavior
  private let isInverted: Bool
  /// The part that the next one may join.
  private var held: (start: Int, end: Int, isMatch: Bool)?
  private var lastWasMatch = false

  init(_ behavior: TokenizerDefinition.SplitBehavior, isInverted: Bool) {
    self.behavior = behavior
    self.isInverted = isInverted
  }

  mutating func add(_ start: Int, _ end: Int, isMatch: Bool, _ body: (_ start: Int, _ end: Int) -> Void) {
    let isMatch = isMatch != isInverted
    defer { lastWasMatch = isMatch }
    let joins: Bool
    switch behavior {
    case .isolated: joins = false
    case .removed:
      if !isMatch { body(start, end) }
      return
    case .mergedWithPrevious: joins = isMatch && !lastWasMatch
    // A match waits for what lies behind it.
    case .mergedWithNext: joins = !isMatch && lastWasMatch
    case .contiguous: joins = isMatch == lastWasMatch
    }
    if joins, let first = held {
      held = (first.start, end, isMatch)
    } else {
      finish(body)
      held = (start, end, isMatch)
    }
  }

  /// Gives out what is held.
  mutating func finish(_ body: (_ start: Int, _ end: Int) -> Void) {
    if let held, held.start < held.end { body(held.start, held.end) }
    held = nil
  }
}
