/// The graph `gin`: a graph isomorphism network whose messages carry embeddings of bonds, MoleculeSTM's (formats/molecule-encoders.md).
package struct GINBlueprint: NamedBlueprint {
  package static var graph: EncoderGraph { .gin }
  /// What its keys and tensors begin with: `encoder.molecule`.
  package let module: String
  /// The family in the checkpoint's words; for people.
  package var architecture = ""
  package var layers = 0
  package var width = 0
  /// The width between the two matrices of a layer.
  package var ffnWidth = 0
  /// The rows of the tables: how many numbers atoms and bonds may have there.
  package var elements = 0
  package var chiralities = 0
  package var bondTypes = 0
  package var bondDirections = 0

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 1...4096)
    try coder.int("\(module).width", &width, in: 1...1 << 20)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).elements", &elements, in: 1...1 << 16)
    try coder.int("\(module).chiralities", &chiralities, in: 1...1 << 16)
    try coder.int("\(module).bond_types", &bondTypes, in: 1...1 << 16)
    try coder.int("\(module).bond_directions", &bondDirections, in: 1...1 << 16)
  }

  package func check() throws(SquintError) {}

  // MARK: Tensors

  package struct Layer: Sendable {
    /// [bond types, width], [bond directions, width]
    package let bondType, bondDirection: TensorSpecification
    /// [1]
    package let epsilon: TensorSpecification
    package let up, down: MatrixSpecification

    package var tensors: [TensorSpecification] {
      [bondType, bondDirection, epsilon] + up.tensors + down.tensors
    }
  }

  package var element: TensorSpecification {
    TensorSpecification("\(module).element", [elements, width], .vector)
  }

  package var chirality: TensorSpecification {
    TensorSpecification("\(module).chirality", [chiralities, width], .vector)
  }

  package func layer(_ index: Int) -> Layer {
    let prefix = "\(module).\(index)"
    return Layer(
      bondType: TensorSpecification("\(prefix).bond_type", [bondTypes, width], .vector),
      bondDirection: TensorSpecification("\(prefix).bond_direction", [bondDirections, width], .vector),
      epsilon: .vector("\(prefix).epsilon", 1),
      up: MatrixSpecification("\(prefix).ffn.up", rows: ffnWidth, columns: width),
      down: MatrixSpecification("\(prefix).ffn.down", rows: width, columns: ffnWidth))
  }

  package var tensors: [TensorSpecification] {
    [element, chirality] + (0..<layers).flatMap { layer($0).tensors }
  }
}
