/// Takes what a graph computes, step by step, for `squint trace`.
package final class Trace {
  /// What names begin with: the module, and the layer in it.
  package var place = ""
  private let take: (_ name: String, _ rows: Rows, _ count: Int) -> Void

  /// - Parameter take: called with each step's name, its rows, and how many of them there are.
  package init(_ take: @escaping (_ name: String, _ rows: Rows, _ count: Int) -> Void) { self.take = take }

  fileprivate func record(_ step: StaticString, _ rows: Rows, _ count: Int) { take("\(place).\(step)", rows, count) }
}

/// Where graphs look for who wants to see what they compute.
package final class TraceHolder: @unchecked Sendable {  // set before anything is computed, read by who computes
  package var current: Trace?

  package init() {}
}

extension Compute {
  /// Hands `count` rows over, where somebody asked for them.
  package func record(_ step: StaticString, _ rows: Rows, count: Int) { trace.current?.record(step, rows, count) }
}
