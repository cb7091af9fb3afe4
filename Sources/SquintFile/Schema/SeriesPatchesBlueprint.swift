/// What stands beside the numbers of a patch of a series.
package enum SeriesPositions: String, CaseIterable, Sendable {
  /// Nothing.
  case none
  /// The learned row of each point.
  case table
  /// Behind each number its point's place, 0 to 1; −1 behind the end.
  case index
}

/// What fills the last patch of a series behind its end.
package enum SeriesPadding: String, CaseIterable, Sendable {
  case last, zero
}

/// The graph `patches`: a series cut into patches, each of which is a row of features as it is, with what says where it stands
/// (formats/series.md).
package struct SeriesPatchesBlueprint: NamedBlueprint {
  package static var graph: EncoderGraph { .patches }
  /// What its keys and tensors begin with: `encoder.series`.
  package let module: String
  /// The family in the checkpoint's words; for people.
  package var architecture = ""
  /// The points of a patch.
  package var patch = 0
  package var padding = SeriesPadding.last
  package var positions = SeriesPositions.none
  /// The points that the table has rows for, and the width of a row; 0 where there is no table.
  package var points = 0
  package var positionWidth = 0

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).patch", &patch, in: 1...1 << 12)
    try coder.choice("\(module).padding", &padding)
    try coder.choice("\(module).positions", &positions)
    let hasTable = positions == .table
    try coder.int("\(module).points", &points, in: (hasTable ? 1 : 0)...1 << 20, default: 0)
    try coder.int("\(module).position_width", &positionWidth, in: (hasTable ? 1 : 0)...1 << 10, default: 0)
  }

  package func check() throws(SquintError) {}

  /// The numbers of a row.
  package var featureWidth: Int {
    switch positions {
    case .none: patch
    case .table: patch * (1 + positionWidth)
    case .index: 2 * patch
    }
  }

  /// A row for each point, and one for those behind the end.
  package var positionTable: TensorSpecification {
    TensorSpecification("\(module).positions", [points + 1, positionWidth], .vector)
  }

  package var tensors: [TensorSpecification] { positions == .table ? [positionTable] : [] }
}
