import SquintCompute
import SquintFile

/// ChatTS's way into the model, but for its matrices, which are a projector's: a series cut into patches, and beside each patch where
/// its points stand (formats/series.md).
///
/// Source: ChatTS (arXiv 2412.03104); the reference is its chatts_vllm.py, `TimeSeriesEmbedding`.
package struct SeriesPatches: EncoderModel, @unchecked Sendable {  // a view of the file
  package let blueprint: SeriesPatchesBlueprint
  /// [points + 1, position width]; the last row is that of points behind the end
  let table: UnsafePointer<Float>?
  /// Keeps the file mapped for the view above.
  let file: ModelFile

  /// - Throws: `badData` where the table is missing or has another shape.
  package init(_ file: ModelFile, _ blueprint: SeriesPatchesBlueprint) throws(SquintError) {
    self.file = file
    self.blueprint = blueprint
    table = blueprint.positions == .table ? try file.vector(blueprint.positionTable) : nil
  }

  package var featureWidth: Int { blueprint.featureWidth }
  package var hasClassRow: Bool { false }
  package var streamUnits: [Range<Int>] { [] }

  /// The patches of a series of [points].
  package func grid(of shape: [Int]) throws(SquintError) -> FeatureGrid {
    guard shape.count == 1, let points = shape.first, points > 0 else {
      throw SquintError(.badData, "\(blueprint.module): it takes single series; convert the model again")
    }
    guard blueprint.positions != .table || points <= blueprint.points else {
      throw SquintError(
        .badData,
        "\(blueprint.module): a series of \(grouped(points)) points, and there are positions for \(grouped(blueprint.points)); "
          + "give a part of it")
    }
    return FeatureGrid(rows: 1, columns: (points + blueprint.patch - 1) / blueprint.patch)
  }

  package func attentionOperations(rows: Int) -> Double { 0 }

  package func reserve(
    _ residency: Residency, shapes: [[Int]], units: Int, threads: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> EncoderMaker {
    var patches = 1
    for shape in shapes { patches = max(patches, try grid(of: shape).count) }
    let stream = try WeightStream.Regions(residency, phases: .encode, in: &plan)
    let features: Region<Float> = try plan.reserve("features", count: patches * featureWidth, phases: .encode)
    let (model, most) = (self, patches)
    return { (reader, arena, compute) throws(SquintError) in
      SeriesPatchesEncoder(
        model, units: units, patches: most,
        stream: try WeightStream(
          stream, others: [model.file.range(ofModule: model.blueprint.module)], reader: reader, file: model.file, in: arena),
        features: Rows(features, width: model.featureWidth, in: arena), compute)
    }
  }
}

/// The encoder with its buffers.
private final class SeriesPatchesEncoder: Encoder {
  private let model: SeriesPatches
  private let compute: Compute
  let units: Int
  let patches: Int
  let stream: WeightStream
  /// Of one unit: [patches, feature width]
  private let features: Rows

  init(
    _ model: SeriesPatches, units: Int, patches: Int, stream: WeightStream, features: Rows, _ compute: Compute
  ) {
    self.model = model
    self.units = units
    self.patches = patches
    self.stream = stream
    self.features = features
    self.compute = compute
  }

  func encode(
    _ numbers: UnsafeRawPointer, count: Int, shape: [Int], while shouldContinue: () -> Bool,
    visit: (_ unit: Int, _ features: Rows) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool {
    let patches = try model.grid(of: shape).count
    precondition(patches <= self.patches && count <= units, "more or larger units than were planned")
    stream.begin(units: 0)
    defer { stream.end() }
    for unit in 0..<count {
      guard shouldContinue() else { return false }
      cut(numbers + unit * 4 * shape[0], points: shape[0], patches: patches)
      compute.trace.current?.place = model.blueprint.module
      compute.record("input", features, count: patches)
      try visit(unit, features)
    }
    return true
  }

  /// features[patch] = its points, and what says where they are.
  private func cut(_ numbers: UnsafeRawPointer, points: Int, patches: Int) {
    let c = model.blueprint
    func value(_ point: Int) -> Float {
      if point < points { return numbers.loadUnaligned(fromByteOffset: 4 * point, as: Float.self) }
      return c.padding == .zero ? 0 : numbers.loadUnaligned(fromByteOffset: 4 * (points - 1), as: Float.self)
    }
    for patch in 0..<patches {
      let row = features[patch]
      for index in 0..<c.patch {
        let point = patch * c.patch + index
        switch c.positions {
        case .none: row[index] = value(point)
        case .table:
          row[index] = value(point)
          guard let table = model.table else { continue }
          let width = c.positionWidth
          (row + c.patch + index * width).update(
            from: table + (point < points ? point : c.points) * width, count: width)
        case .index:
          row[2 * index] = value(point)
          row[2 * index + 1] = point < points ? Float(point) / Float(max(1, points - 1)) : -1
        }
      }
    }
  }
}
