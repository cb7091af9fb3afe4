/// What a tensor is for, which decides the type that it is stored in.
package enum TensorRole: Sendable {
  /// A matrix inside a layer.
  case weight
  /// The table of token embeddings.
  case embedding
  /// The matrix that computes the logits.
  case head
  /// Norms, biases and what is added to or multiplied with the activations as it stands: f32.
  case vector
}

/// A tensor that a module has or may have. The converter writes what the graphs' blueprints list, and their runtime reads the same.
package struct TensorSpecification: Equatable, Sendable {
  package let name: String
  /// The outermost axis first.
  package let shape: [Int]
  package let role: TensorRole
  /// Whether files of this graph may be without it.
  package let isOptional: Bool

  package init(_ name: String, _ shape: [Int], _ role: TensorRole, isOptional: Bool = false) {
    self.name = name
    self.shape = shape
    self.role = role
    self.isOptional = isOptional
  }

  /// A vector in f32: a norm's weights, a bias.
  package static func vector(_ name: String, _ count: Int, isOptional: Bool = false) -> TensorSpecification {
    TensorSpecification(name, [count], .vector, isOptional: isOptional)
  }
}

/// A matrix [rows, columns], and the bias [rows] behind it that it may have.
package struct MatrixSpecification: Equatable, Sendable {
  package let name: String
  package let rows: Int
  package let columns: Int
  package let role: TensorRole
  package let mayHaveBias: Bool
  package let isOptional: Bool

  package init(
    _ name: String, rows: Int, columns: Int, role: TensorRole = .weight, mayHaveBias: Bool = true,
    isOptional: Bool = false
  ) {
    self.name = name
    self.rows = rows
    self.columns = columns
    self.role = role
    self.mayHaveBias = mayHaveBias
    self.isOptional = isOptional
  }

  package var tensors: [TensorSpecification] {
    let weight = TensorSpecification(name, [rows, columns], role, isOptional: isOptional)
    return mayHaveBias ? [weight, .vector(name + ".bias", rows, isOptional: true)] : [weight]
  }
}

/// The weights of a LayerNorm and its bias, both [count].
package struct NormSpecification: Equatable, Sendable {
  package let name: String
  package let count: Int
  package let isOptional: Bool

  package init(_ name: String, _ count: Int, isOptional: Bool = false) {
    self.name = name
    self.count = count
    self.isOptional = isOptional
  }

  package var tensors: [TensorSpecification] {
    [.vector(name, count, isOptional: isOptional), .vector(name + ".bias", count, isOptional: isOptional)]
  }
}
