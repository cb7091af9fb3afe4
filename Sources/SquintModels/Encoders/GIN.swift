import SquintCompute
import SquintFile

/// MoleculeSTM's graph network: atoms take what their neighbours send over bonds, layer by layer, and each atom is a row of features
/// (formats/molecule-encoders.md).
///
/// Source: GIN (arXiv 1810.00826) with embeddings of bonds (arXiv 1905.12265); the reference is InstructMol's moleculeSTM_gnn_model.py,
/// `GNN`. Its batch norms are folded into the matrices.
///
/// A unit is a molecule; its shape is [atoms, edges], and its numbers are Int32: [atoms, 2] = element, chirality, then
/// [edges, 4] = source, target, type, direction.
package struct GIN: @unchecked Sendable {  // views of the file
  package struct Layer: @unchecked Sendable {  // views of the file
    let bondType: UnsafePointer<Float>  // [bond types, width]
    let bondDirection: UnsafePointer<Float>  // [bond directions, width]
    let epsilon: UnsafePointer<Float>  // [1]
    let up: Matrix  // [ffn width, width]
    let down: Matrix  // [width, ffn width]
  }

  let element: UnsafePointer<Float>  // [elements, width]
  let chirality: UnsafePointer<Float>  // [chiralities, width]
  let layers: [Layer]
}

// MARK: Forward

extension GINEncoder {
  /// x[i] = element[i's] + chirality[i's].
  private func embed(_ molecule: PackedMolecule, into x: Rows) {
    for index in 0..<molecule.atoms {
      let atom = molecule.atom(index)
      compute.kernels.add(
        model.weights.element + Int(atom.element) * x.width, model.weights.chirality + Int(atom.chirality) * x.width,
        x[index], x.width)
    }
  }

  /// Sends the atoms `x` of a molecule through a layer, in place:
  /// x[i] = down · relu(up · ((1 + ε) x[i] + Σ relu(x[j] + bond)) + b) + b, the sum over the edges j → i in their order; behind it a
  /// relu, but in the last layer.
  private func forward(_ x: Rows, _ molecule: PackedMolecule, _ layer: GIN.Layer, isLast: Bool) {
    bonds.sort(molecule)
    compute.aggregate(x, molecule, bonds, layer, into: sums)
    compute.record("sum", sums, count: molecule.atoms)
    for first in stride(from: 0, to: molecule.atoms, by: chunk) {
      let rows = min(chunk, molecule.atoms - first)
      compute.multiply(sums.from(first), count: rows, scratch: quantized, .init(layer.up, into: inner))
      compute.activate(inner, count: rows, .relu)
      compute.record("ffn.inner", inner, count: rows)
      compute.multiply(inner, count: rows, scratch: quantized, .init(layer.down, into: x.from(first)))
    }
    if !isLast { compute.activate(x, count: molecule.atoms, .relu) }
    compute.record("ffn", x, count: molecule.atoms)
  }
}

extension Compute {
  /// output[i] = (1 + ε) x[i] + Σ relu(x[source] + (type + direction)) over the edges to i, in their order: so the bits are the same
  /// whatever the number of threads.
  fileprivate func aggregate(
    _ x: Rows, _ molecule: PackedMolecule, _ bonds: BondOrder, _ layer: GIN.Layer, into output: Rows
  ) {
    struct Job {
      let x: Rows
      let molecule: PackedMolecule
      let bonds: BondOrder
      let layer: GIN.Layer
      let output: Rows

      func run(_ atom: Int) {
        let width = x.width
        let (own, sum) = (x[atom], output[atom])
        for column in 0..<width { sum[column] = 0 }
        for index in bonds.edges(to: atom) {
          let edge = molecule.edge(index)
          let source = x[Int(edge.source)]
          let type = layer.bondType + Int(edge.type) * width
          let direction = layer.bondDirection + Int(edge.direction) * width
          for column in 0..<width {
            sum[column] += max(source[column] + (type[column] + direction[column]), 0)
          }
        }
        let factor = 1 + layer.epsilon[0]
        for column in 0..<width { sum[column] = factor * own[column] + sum[column] }
      }
    }
    var job = Job(x: x, molecule: molecule, bonds: bonds, layer: layer, output: output)
    workers.run(&job, pieces: molecule.atoms) { job, atom, _ in
      job.assumingMemoryBound(to: Job.self).pointee.run(atom)
    }
  }
}

// MARK: Molecules

/// A molecule's numbers.
private struct PackedMolecule: @unchecked Sendable {  // a view of the unit
  let numbers: UnsafeRawPointer
  let atoms: Int
  let edges: Int

  private static let atomBytes = 8
  private static let edgeBytes = 16

  init(_ numbers: UnsafeRawPointer, shape: [Int]) {
    self.numbers = numbers
    atoms = shape[0]
    edges = shape[1]
  }

  var byteCount: Int { atoms * Self.atomBytes + edges * Self.edgeBytes }

  func atom(_ index: Int) -> (element: Int32, chirality: Int32) {
    let place = index * Self.atomBytes
    return (number(place), number(place + 4))
  }

  func edge(_ index: Int) -> (source: Int32, target: Int32, type: Int32, direction: Int32) {
    let place = atoms * Self.atomBytes + index * Self.edgeBytes
    return (number(place), number(place + 4), number(place + 8), number(place + 12))
  }

  private func number(_ place: Int) -> Int32 { numbers.loadUnaligned(fromByteOffset: place, as: Int32.self) }

  /// Checks that all that atoms and edges name is there.
  ///
  /// - Throws: `badData` naming the atom or the edge.
  func check(_ c: GINBlueprint) throws(SquintError) {
    func check(_ value: Int32, below count: Int, _ what: String, of place: String) throws(SquintError) {
      guard value >= 0, value < count else {
        throw SquintError(
          .badData, "\(c.module): the \(what) of \(place) is \(value), and the model has 0 to \(count - 1)")
      }
    }
    for index in 0..<atoms {
      let atom = atom(index)
      try check(atom.element, below: c.elements, "element number", of: "atom \(index + 1)")
      try check(atom.chirality, below: c.chiralities, "chirality", of: "atom \(index + 1)")
    }
    for index in 0..<edges {
      let edge = edge(index)
      try check(edge.source, below: atoms, "source", of: "edge \(index + 1)")
      try check(edge.target, below: atoms, "target", of: "edge \(index + 1)")
      try check(edge.type, below: c.bondTypes, "type", of: "edge \(index + 1)")
      try check(edge.direction, below: c.bondDirections, "direction", of: "edge \(index + 1)")
    }
  }
}

/// The edges of a molecule by their targets, those to one atom in their order.
private struct BondOrder: @unchecked Sendable {  // views of the arena
  /// [atoms]: where the edges to an atom end.
  let ends: UnsafeMutablePointer<Int32>
  /// [edges]
  let order: UnsafeMutablePointer<Int32>

  func sort(_ molecule: PackedMolecule) {
    for atom in 0..<molecule.atoms { ends[atom] = 0 }
    // The count of each atom's edges becomes where they begin, and, edge by edge, where they end.
    for index in 0..<molecule.edges { ends[Int(molecule.edge(index).target)] += 1 }
    var next: Int32 = 0
    for atom in 0..<molecule.atoms {
      let count = ends[atom]
      ends[atom] = next
      next += count
    }
    for index in 0..<molecule.edges {
      let target = Int(molecule.edge(index).target)
      order[Int(ends[target])] = Int32(index)
      ends[target] += 1
    }
  }

  func edges(to atom: Int) -> some Sequence<Int> {
    let first = atom == 0 ? 0 : Int(ends[atom - 1])
    return (first..<Int(ends[atom])).lazy.map { Int(order[$0]) }
  }
}

// MARK: The model

/// The graph network in a file.
package struct GINModel: EncoderModel {
  package let blueprint: GINBlueprint
  let weights: GIN
  package let streamUnits: [Range<Int>]
  /// Keeps the file mapped for the views above.
  let file: ModelFile

  /// - Throws: `badData` where tensors of the module are missing or impossible.
  package init(_ file: ModelFile, _ blueprint: GINBlueprint) throws(SquintError) {
    self.file = file
    self.blueprint = blueprint
    weights = try GIN(blueprint, in: file)
    streamUnits = file.layerRanges(of: blueprint.module, count: blueprint.layers)
  }

  package var featureWidth: Int { blueprint.width }
  package var hasClassRow: Bool { false }

  /// No molecule has as many atoms, or edges.
  private static let most = 1 << 24
  /// The edges that there is room for beside an atom: a carbon's bonds.
  fileprivate static let edgesPerAtom = 4

  /// A row for each atom, in their order.
  package func grid(of shape: [Int]) throws(SquintError) -> FeatureGrid {
    guard shape.count == 2, shape[1] >= 0 else {
      throw SquintError(.badData, "\(blueprint.module): it takes molecules, not these")
    }
    guard shape[0] > 0 else {
      throw SquintError(.badData, "\(blueprint.module): a molecule without atoms has no features")
    }
    guard shape[0] < Self.most, shape[1] < Self.most else {
      throw SquintError(
        .doesNotFit,
        "\(blueprint.module): a molecule of \(grouped(shape[0])) atoms and \(grouped(shape[1])) edges is more than any machine "
          + "holds")
    }
    return FeatureGrid(rows: 1, columns: shape[0])
  }

  /// The rows that there must be room for, so that the edges have room, too.
  private func rooms(of shape: [Int]) throws(SquintError) -> Int {
    max(try grid(of: shape).count, (shape[1] + Self.edgesPerAtom - 1) / Self.edgesPerAtom)
  }

  package func holds(_ shape: [Int], patches: Int) -> Bool { ((try? rooms(of: shape)) ?? Int.max) <= patches }

  /// There is no attention.
  package func attentionOperations(rows: Int) -> Double { 0 }

  package func reserve(
    _ residency: Residency, shapes: [[Int]], units: Int, threads: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> EncoderMaker {
    var rows = 1
    for shape in shapes { rows = max(rows, try rooms(of: shape)) }
    let regions = try GINEncoder.Regions(self, residency, rows: rows, units: units, in: &plan)
    let model = self
    return { (reader, arena, compute) throws(SquintError) in
      try GINEncoder(model, regions, reader: reader, in: arena, compute)
    }
  }
}

extension GIN {
  fileprivate init(_ c: GINBlueprint, in file: ModelFile) throws(SquintError) {
    element = try file.vector(c.element)
    chirality = try file.vector(c.chirality)
    var layers: [Layer] = []
    layers.reserveCapacity(c.layers)
    for index in 0..<c.layers {
      let tensors = c.layer(index)
      layers.append(
        Layer(
          bondType: try file.vector(tensors.bondType), bondDirection: try file.vector(tensors.bondDirection),
          epsilon: try file.vector(tensors.epsilon), up: try Matrix(tensors.up, in: file),
          down: try Matrix(tensors.down, in: file)))
    }
    self.layers = layers
  }
}

extension GIN.Layer {
  /// The same layer, read `distance` bytes behind where it was.
  fileprivate func moved(by distance: Int) -> Self {
    Self(
      bondType: bondType.moved(by: distance), bondDirection: bondDirection.moved(by: distance),
      epsilon: epsilon.moved(by: distance), up: up.moved(by: distance), down: down.moved(by: distance))
  }
}

// MARK: The encoder

/// The graph network with its buffers.
package final class GINEncoder: Encoder {
  /// Every buffer there is, for passes over at most `units` molecules of at most `rows` atoms.
  struct Regions: Sendable {
    let rows: Int
    let units: Int
    let chunk: Int
    let stream: WeightStream.Regions
    let x: Region<Float>
    let sums: Region<Float>
    let inner: Region<Float>
    let quantized: QuantizedRows.Regions
    let ends: Region<Int32>
    let order: Region<Int32>

    init(
      _ model: GINModel, _ residency: Residency, rows: Int, units: Int, in plan: inout ArenaPlan
    ) throws(SquintError) {
      let c = model.blueprint
      let phases = Phases.encode
      self.rows = rows
      self.units = units
      chunk = min(rows, GINEncoder.chunkRows)
      stream = try WeightStream.Regions(residency, phases: phases, in: &plan)
      x = try plan.reserve("encoder rows", count: units * rows * c.width, phases: phases)
      sums = try plan.reserve("encoder sums over bonds", count: rows * c.width, phases: phases)
      inner = try plan.reserve("encoder feed-forward", count: chunk * c.ffnWidth, phases: phases)
      quantized = try QuantizedRows.Regions(
        rows: chunk, columns: max(c.width, c.ffnWidth), phases: phases, in: &plan)
      ends = try plan.reserve("encoder bonds of atoms", count: rows, phases: phases)
      order = try plan.reserve("encoder bonds", count: rows * GINModel.edgesPerAtom, phases: phases)
    }
  }

  /// The atoms that go through the wide buffer at a time: more than most molecules have.
  private static let chunkRows = 256

  private let model: GINModel
  private let compute: Compute
  package let patches: Int
  package let units: Int
  package let stream: WeightStream
  private let chunk: Int
  /// [units · atoms, width]
  private let x: Rows
  /// [atoms, width]
  private let sums: Rows
  /// [chunk, ffn width]
  private let inner: Rows
  private let quantized: QuantizedRows
  private let bonds: BondOrder

  /// - Throws: `internalError` where the system gives no threads to read weights.
  init(
    _ model: GINModel, _ regions: Regions, reader: DirectReader, in arena: Arena, _ compute: Compute
  ) throws(SquintError) {
    let c = model.blueprint
    self.model = model
    self.compute = compute
    patches = regions.rows
    units = regions.units
    chunk = regions.chunk
    let module = model.file.range(ofModule: c.module)
    stream = try WeightStream(
      regions.stream, others: regions.stream.residency.others(in: module), reader: reader, file: model.file, in: arena)
    x = Rows(regions.x, width: c.width, in: arena)
    sums = Rows(regions.sums, width: c.width, in: arena)
    inner = Rows(regions.inner, width: c.ffnWidth, in: arena)
    quantized = QuantizedRows(regions.quantized, in: arena)
    bonds = BondOrder(ends: arena[regions.ends].baseAddress!, order: arena[regions.order].baseAddress!)
  }

  package func encode(
    _ numbers: UnsafeRawPointer, count units: Int, shape: [Int], while shouldContinue: () -> Bool,
    visit: (_ unit: Int, _ features: Rows) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool {
    let c = model.blueprint
    _ = try model.grid(of: shape)
    precondition(model.holds(shape, patches: patches) && units <= self.units, "more or larger units than were planned")
    func molecule(_ unit: Int) -> PackedMolecule {
      let bytes = PackedMolecule(numbers, shape: shape).byteCount
      return PackedMolecule(numbers + unit * bytes, shape: shape)
    }
    for unit in 0..<units { try molecule(unit).check(c) }

    let atoms = shape[0]
    stream.begin(units: c.layers)
    defer { stream.end() }
    for unit in 0..<units {
      let x = x.from(unit * atoms)
      embed(molecule(unit), into: x)
      compute.trace.current?.place = c.module
      compute.record("input", x, count: atoms)
    }
    for index in 0..<c.layers {
      guard shouldContinue() else { return false }
      if let trace = compute.trace.current { trace.place = "\(c.module).\(index)" }
      let layer = model.weights.layers[index].moved(by: stream.use(index))
      for unit in 0..<units {
        forward(x.from(unit * atoms), molecule(unit), layer, isLast: index + 1 == c.layers)
      }
    }
    try stream.check()
    for unit in 0..<units { try visit(unit, x.from(unit * atoms)) }
    return true
  }
}
