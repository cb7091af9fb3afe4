import SquintCompute
import SquintFile

/// What layers with a short causal convolution remember: of each, the last rows that went into it.
package struct ConvolutionState: @unchecked Sendable {  // a view of the arena
  /// The sizes: rows [layers, sequences, rows, width].
  package struct Shape: Equatable, Sendable {
    package var layers: Int
    package var sequences: Int
    package var width: Int
    /// The rows that go into one row of the output, itself among them.
    package var reach: Int

    package init(layers: Int, sequences: Int, width: Int, reach: Int) {
      self.layers = layers
      self.sequences = sequences
      self.width = width
      self.reach = reach
    }

    /// How far a conversation can be cut back without a snapshot, in positions.
    private static let history = 8

    /// The rows before the next one that are never lost.
    fileprivate var kept: Int { reach - 1 + Self.history }
    /// Twice as many: then what is kept moves seldom.
    fileprivate var capacity: Int { 2 * kept }
  }

  package struct Regions: Sendable {
    let shape: Shape
    let rows: Region<Float>
    let starts: Region<Int>
    let snapshot: Region<Float>

    package init(_ shape: Shape, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      self.shape = shape
      let buffers = shape.layers * shape.sequences
      rows = try plan.reserve(
        "convolution rows", count: buffers * shape.capacity * shape.width, purpose: .cache, phases: phases)
      // Also where the rows are not there while media are encoded: what they say must be true afterwards.
      starts = try plan.reserve(
        "convolution starts", count: buffers, purpose: .cache, phases: phases.union(.encode))
      snapshot = try plan.reserve(
        "convolution snapshot", count: shape.layers * (shape.reach - 1) * shape.width, purpose: .cache, phases: phases)
    }
  }

  package let shape: Shape
  private let rows: Rows
  private let window: SlidingWindow
  /// Of sequence 0: [layers, reach - 1, width]
  private let snapshot: Rows

  package init(_ regions: Regions, in arena: Arena) {
    shape = regions.shape
    rows = Rows(regions.rows, width: shape.width, in: arena)
    window = SlidingWindow(
      starts: arena[regions.starts].baseAddress!, buffers: shape.layers * shape.sequences, kept: shape.kept,
      capacity: shape.capacity)
    snapshot = Rows(regions.snapshot, width: shape.width, in: arena)
  }

  private func buffer(_ layer: Int, _ sequence: Int) -> Int { layer * shape.sequences + sequence }

  /// The row of a layer that went in at `position`, which must be one of the `reach - 1` before the next.
  func row(at position: Int, layer: Int, sequence: Int) -> UnsafeMutablePointer<Float> {
    let buffer = buffer(layer, sequence)
    return rows[buffer * shape.capacity + position - window.start(of: buffer)]
  }

  /// Adds the rows of `positions`, which follow those that are there; `source` gives each.
  func append(
    _ positions: Range<Int>, layer: Int, sequence: Int, from source: (_ position: Int) -> UnsafePointer<Float>
  ) {
    let buffer = buffer(layer, sequence)
    let first = buffer * shape.capacity
    // Of many rows only the last are kept.
    let last = max(positions.upperBound - shape.kept, positions.lowerBound)..<positions.upperBound
    if last.count == shape.kept {
      window.setStart(of: buffer, to: last.lowerBound)
    } else if let moved = window.makeRoom(for: last, in: buffer) {
      rows[first].update(from: rows[first + moved.lowerBound], count: moved.count * shape.width)
    }
    for position in last {
      row(at: position, layer: layer, sequence: sequence).update(from: source(position), count: shape.width)
    }
  }

  /// Makes sequence `target` remember what sequence `source` does.
  func copy(from source: Int, to target: Int) {
    guard source != target else { return }
    for layer in 0..<shape.layers {
      let (from, to) = (buffer(layer, source), buffer(layer, target))
      window.setStart(of: to, to: window.start(of: from))
      rows[to * shape.capacity].update(from: rows[from * shape.capacity], count: shape.capacity * shape.width)
    }
  }

  /// Whether sequence 0 can go on at `position`.
  func reaches(_ position: Int) -> Bool { window.reaches(position, needed: shape.reach - 1, every: shape.sequences) }

  func forget() { window.forget() }

  /// Keeps what sequence 0 needs to go on at `position`.
  func keepSnapshot(at position: Int) {
    let needed = max(position - (shape.reach - 1), 0)..<position
    for layer in 0..<shape.layers where !needed.isEmpty {
      snapshot[layer * (shape.reach - 1)].update(
        from: row(at: needed.lowerBound, layer: layer, sequence: 0), count: needed.count * shape.width)
    }
  }

  /// Makes sequence 0 go on at `position`, of which a snapshot was kept.
  func restore(_ position: Int) {
    let needed = max(position - (shape.reach - 1), 0)..<position
    for layer in 0..<shape.layers {
      window.setStart(of: buffer(layer, 0), to: needed.lowerBound)
      guard !needed.isEmpty else { continue }
      row(at: needed.lowerBound, layer: layer, sequence: 0).update(
        from: snapshot[layer * (shape.reach - 1)], count: needed.count * shape.width)
    }
  }
}
