import SquintFile

/// The scalars of all sets of an expression in classes: two scalars are of one class where no set tells them apart.
struct ScalarClasses {
  /// How many there are; one more number, `count` itself, stands for a text's edge.
  private(set) var count = 0
  /// Whether a set has a class.
  private(set) var members: [[Bool]]
  /// The class of every scalar of a page of 256, pages that are alike once.
  private(set) var pool: [UInt8] = []
  /// Where the page of a scalar starts in `pool`.
  private(set) var pages: [UInt16] = []

  static let pageCount = Int(ScalarSet.limit + 1) / 256

  /// Nil where there are more than 250, or more than 64 sets.
  init?(_ sets: [ScalarSet]) {
    guard sets.count <= 64 else { return nil }
    members = Array(repeating: [], count: sets.count)
    // `scalar << 8 | set` where a scalar enters or leaves a set, in order.
    var changes: [UInt32] = []
    for (place, set) in sets.enumerated() {
      for range in set.ranges {
        changes.append(range.lowerBound << 8 | UInt32(place))
        if range.upperBound < ScalarSet.limit { changes.append((range.upperBound + 1) << 8 | UInt32(place)) }
      }
    }
    changes.sort()
    /// The sets that hold the scalars from here on, as bits.
    var current: UInt64 = 0
    var known: [UInt64: UInt8] = [:]
    var runs: [(first: UInt32, value: UInt8)] = []
    var index = 0
    var first: UInt32 = 0
    while first <= ScalarSet.limit {
      while index < changes.count && changes[index] >> 8 == first {
        current ^= 1 << UInt64(changes[index] & 255)
        index += 1
      }
      if let value = known[current] {
        runs.append((first, value))
      } else {
        guard count < 250 else { return nil }
        known[current] = UInt8(count)
        runs.append((first, UInt8(count)))
        for place in sets.indices { members[place].append(current >> UInt64(place) & 1 == 1) }
        count += 1
      }
      first = index < changes.count ? changes[index] >> 8 : ScalarSet.limit + 1
    }
    fill(runs)
  }

  private mutating func fill(_ runs: [(first: UInt32, value: UInt8)]) {
    var uniform = [UInt16?](repeating: nil, count: 256)
    var known: [[UInt8]: UInt16] = [:]
    var page = [UInt8](repeating: 0, count: 256)
    pages.reserveCapacity(Self.pageCount)
    var run = 0
    for number in 0..<Self.pageCount {
      let first = UInt32(number) << 8
      while run + 1 < runs.count && runs[run + 1].first <= first { run += 1 }
      let isUniform = run + 1 == runs.count || runs[run + 1].first >= first + 256
      if isUniform, let start = uniform[Int(runs[run].value)] {
        pages.append(start)
        continue
      }
      var inner = run
      for offset in 0..<256 {
        while inner + 1 < runs.count && runs[inner + 1].first <= first + UInt32(offset) { inner += 1 }
        page[offset] = runs[inner].value
      }
      // At most as many pages differ as sets have ends, fewer than 65,536 / 256 in any script.
      let start = known[page] ?? UInt16(pool.count / 256)
      if known[page] == nil {
        known[page] = start
        pool += page
      }
      if isUniform { uniform[Int(runs[run].value)] = start }
      pages.append(start)
    }
  }

  subscript(scalar: UInt32) -> Int { Int(pool[Int(pages[Int(scalar >> 8)]) * 256 + Int(scalar & 255)]) }
}

/// An automaton as a table: a row for each state, a column for each class of scalars and the text's edge, all of them
/// again for each set of looks that hold.
struct ExpressionTable {
  /// `row << 1 | whether a match ends before the scalar`. Row 0 is dead: nothing follows.
  private(set) var entries: [UInt32] = []
  /// Where to start behind a scalar of each class or the edge: first where the search starts here, then elsewhere.
  private(set) var starts: [UInt32] = []
  /// Whether the starts differ.
  var startsDiffer: Bool { starts.contains { $0 != starts[0] } }
  /// Columns of a row.
  let width: Int
  /// Of each state, a bit by which it is known where a text may lead through it without end and without a match; 0 of
  /// all others. Empty where no state is such.
  private(set) var endless: [UInt64] = []

  private static let mostStates = 4096
  private static let mostEntries = 1 << 20
  private static let mostWork = 1 << 25

  private struct State: Hashable {
    var threads: [Int32]
    /// Which of the conditions on what is behind hold.
    var behind: UInt64
    var isSearchStart: Bool
  }

  /// - Parameter isExistence: the table says at each place whether a match ends there that started anywhere before,
  ///   instead of where the first alternative's match ends.
  /// - Throws: `SquintError.badData`, without the expression, where the table would be too large.
  init(
    _ part: ExpressionProgram.Part, _ classes: ScalarClasses, lookCount: Int, isExistence: Bool
  ) throws(SquintError) {
    let symbols = classes.count + 1
    width = symbols << lookCount
    var builder = Builder(part, classes, isExistence: isExistence)
    guard builder.conditions.count <= 64 else { throw SquintError(.badData, "more than 64 looks behind") }
    var rows: [State: Int] = [:]
    var states: [State] = []
    func row(_ state: State) -> Int {
      if let row = rows[state] { return row }
      rows[state] = states.count
      states.append(state)
      return states.count - 1
    }
    // The dead state comes first; where matches may start anywhere there is none.
    if !isExistence { _ = row(State(threads: [], behind: 0, isSearchStart: false)) }
    for isSearchStart in [true, false] {
      for symbol in 0..<symbols {
        let state = State(
          threads: [Int32(part.start)], behind: builder.behind(symbol),
          isSearchStart: isSearchStart && builder.usesSearchStart)
        starts.append(UInt32(row(state) * width))
      }
    }
    var index = 0
    while index < states.count {
      for column in 0..<width {
        let (next, matched) = builder.step(states[index], symbol: column % symbols, looks: column / symbols)
        let isDead = next.threads.isEmpty && !isExistence
        entries.append(UInt32((isDead ? 0 : row(next)) * width) << 1 | (matched ? 1 : 0))
      }
      guard states.count <= Self.mostStates, states.count * width <= Self.mostEntries, builder.work <= Self.mostWork
      else {
        throw SquintError(.badData, "more than \(grouped(Self.mostStates)) states, or too much work to make them,")
      }
      index += 1
    }
    if !isExistence { try findEndless(states.count) }
  }

  /// Numbers the states on a way from a circle without a match to another or itself.
  private mutating func findEndless(_ count: Int) throws(SquintError) {
    var outgoing = [Set<Int>](repeating: [], count: count)
    var incoming = outgoing
    for state in 1..<count {
      for entry in entries[state * width..<(state + 1) * width] where entry & 1 == 0 && entry >> 1 != 0 {
        let next = Int(entry >> 1) / width
        outgoing[state].insert(next)
        incoming[next].insert(state)
      }
    }
    var isLeft = [Bool](repeating: true, count: count)
    var waiting = Array(0..<count)
    while let state = waiting.popLast() {
      guard isLeft[state], outgoing[state].isEmpty || incoming[state].isEmpty else { continue }
      isLeft[state] = false
      for next in outgoing[state] { incoming[next].remove(state) }
      for previous in incoming[state] { outgoing[previous].remove(state) }
      waiting += outgoing[state]
      waiting += incoming[state]
    }
    let left = isLeft.indices.filter { isLeft[$0] }
    guard !left.isEmpty else { return }
    guard left.count <= 64 else { throw SquintError(.badData, "more than 64 states that may read on without a match") }
    endless = [UInt64](repeating: 0, count: count)
    for (bit, state) in left.enumerated() { endless[state] = 1 << UInt64(bit) }
  }

  /// Steps a set of threads over a class of scalars.
  private struct Builder {
    private let nodes: [ExpressionProgram.Node]
    private let start: Int
    private let classes: ScalarClasses
    private let isExistence: Bool
    /// The conditions on what is behind, by their bits.
    private(set) var conditions: [(set: Int, orEdge: Bool)] = []
    private var conditionOfNode: [Int: Int] = [:]
    private(set) var usesSearchStart = false
    private(set) var work = 0
    private var marks: [Int]
    private var mark = 0

    init(_ part: ExpressionProgram.Part, _ classes: ScalarClasses, isExistence: Bool) {
      nodes = part.nodes
      start = part.start
      self.classes = classes
      self.isExistence = isExistence
      marks = Array(repeating: 0, count: nodes.count)
      for (place, node) in nodes.enumerated() {
        if case .searchStart = node { usesSearchStart = true }
        guard case .beside(let set, true, let orEdge, _) = node else { continue }
        let known = conditions.firstIndex { $0.set == set && $0.orEdge == orEdge }
        conditionOfNode[place] = known ?? conditions.count
        if known == nil { conditions.append((set, orEdge)) }
      }
    }

    private func holds(_ set: Int, _ orEdge: Bool, _ symbol: Int) -> Bool {
      symbol == classes.count ? orEdge : classes.members[set][symbol]
    }

    /// The conditions that hold behind a scalar of class `symbol`.
    func behind(_ symbol: Int) -> UInt64 {
      var bits: UInt64 = 0
      for (bit, condition) in conditions.enumerated() where holds(condition.set, condition.orEdge, symbol) {
        bits |= 1 << UInt64(bit)
      }
      return bits
    }

    mutating func step(_ state: State, symbol: Int, looks: Int) -> (State, matched: Bool) {
      mark += 1
      var threads: [Int32] = []
      var isKnown = Set<Int32>()
      var matched = false
      var stack: [Int] = []
      scan: for thread in state.threads {
        stack.append(Int(thread))
        while let place = stack.popLast() {
          guard marks[place] != mark else { continue }
          marks[place] = mark
          work += 1
          switch nodes[place] {
          case .match:
            matched = true
            // Whatever comes later would be another, less preferred match.
            if !isExistence { break scan }
          case .set(let set, let next):
            if holds(set, false, symbol), isKnown.insert(Int32(next)).inserted { threads.append(Int32(next)) }
          case .split(let targets): stack += targets.reversed()
          case .beside(let set, let isBehind, let orEdge, let next):
            let isTrue =
              isBehind ? state.behind >> UInt64(conditionOfNode[place]!) & 1 == 1 : holds(set, orEdge, symbol)
            if isTrue { stack.append(next) }
          case .searchStart(let next): if state.isSearchStart { stack.append(next) }
          case .look(let index, let isNegative, let next):
            if (looks >> index & 1 == 1) != isNegative { stack.append(next) }
          }
        }
      }
      work += threads.count + 1
      if isExistence {
        if isKnown.insert(Int32(start)).inserted { threads.append(Int32(start)) }
        threads.sort()
      }
      let behind = threads.isEmpty ? 0 : behind(symbol)
      return (State(threads: threads, behind: behind, isSearchStart: false), matched)
    }
  }
}
