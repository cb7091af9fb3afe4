import SquintFile

/// A tensor that a module of the output has or may have, and how checkpoints may store it.
package struct ExpectedTensor: Equatable, Sendable {
  package let name: String
  /// The outermost axis first.
  package let shape: [Int]
  package let role: TensorRole
  package let presence: TensorPresence
  /// Other shapes in which checkpoints give the same numbers in the same order: a convolution's, or axes of one.
  package var otherShapes: [[Int]] = []
  /// The shape of a convolution [rows, side, side, channels], in which MLX has it; the columns are in another order then: the last axis
  /// is the outer one of them here.
  package var channelsLastShape: [Int]?
  /// The channels of columns that are [pixels, channels] here: checkpoints have [channels, pixels], but for `channelsLastShape`.
  package var channels: Int?
  /// The larger tensor that some checkpoints have it in.
  package var fused: FusedRows?
  /// The matrices that it is made of, where checkpoints have those.
  package var stack: MatrixStack?
  /// What name maps call the vector whose numbers multiply the rows, where the source has one.
  package var rowScale: String?
  /// The kernels of two frames that it is made of.
  package var frames: Frames?
  /// The batch norm behind the matrix whose weights or bias it is, which goes into them.
  package var batchNorm: BatchNorm?

  /// A batch norm with its statistics, as it computes when nothing is trained: (x − mean) · weight / √(variance + epsilon) + bias.
  package struct BatchNorm: Equatable, Sendable {
    /// What name maps call its vectors.
    package let weight: String
    package let bias: String
    package let mean: String
    package let variance: String
    package let epsilon: Double

    /// - Parameter name: what name maps call its weight; the others' names begin with it.
    package init(_ name: String, epsilon: Double) {
      weight = name
      bias = name + ".bias"
      mean = name + ".mean"
      variance = name + ".variance"
      self.epsilon = epsilon
    }

    var names: [String] { [weight, bias, mean, variance] }
  }

  /// What a matrix of patches is made of in towers that see two frames at a time.
  package struct Frames: Equatable, Sendable {
    /// What name maps call the kernels of both frames in one tensor, [rows, channels, frames, side, side].
    package let both: String
    /// What they call those of the first and of the second frame, [rows, channels, side, side], where these are two tensors.
    package let first: String
    package let second: String
    package let side: Int
    /// Whether this is the sum of the two.
    package let areAdded: Bool
  }

  /// The rows from `firstRow` on of a tensor that name maps call `name` and that has `rows` rows in all.
  package struct FusedRows: Equatable, Sendable {
    package let name: String
    package let firstRow: Int
    package let rows: Int
  }

  package init(_ name: String, _ shape: [Int], _ role: TensorRole = .weight, _ presence: TensorPresence = .required) {
    self.name = name
    self.shape = shape
    self.role = shape.count == 1 ? .vector : role
    self.presence = presence
  }

  /// A tensor of a blueprint.
  package init(_ tensor: TensorSpecification, _ presence: TensorPresence) {
    self.init(tensor.name, tensor.shape, tensor.role, presence)
    // The kernels of depthwise convolutions have an axis of one more, in PyTorch in the middle, in MLX at the end.
    if tensor.role == .vector, shape.count == 2 {
      otherShapes = [[shape[0], 1, shape[1]], [shape[0], shape[1], 1]]
    }
  }
}

/// Whether a checkpoint has a tensor.
package enum TensorPresence: Sendable {
  case required
  case absent
  case ifPresent
  /// The checkpoint may have it, the model does without: layers behind the features, a head that the embedding replaces.
  case unused
}

/// The tensors of a source under the names of modules.
package struct MappedTensors: Sendable {
  package let source: any TensorSource
  /// How the source calls the tensors; the first is the usual way.
  package let maps: [NameMap]
  /// How messages call the source, and what tells it from another: the folder or file.
  package let place: String
  /// The order of the rows of the tensor that becomes the output's `name`.
  package let rowOrder: @Sendable (_ name: String) -> RowOrder
  /// What goes into the numbers of the tensor that becomes the output's `name`.
  package let fold: @Sendable (_ name: String) -> Fold

  package init(
    source: any TensorSource, maps: [NameMap], place: String,
    rowOrder: @escaping @Sendable (_ name: String) -> RowOrder = { _ in .same },
    fold: @escaping @Sendable (_ name: String) -> Fold = { _ in Fold() }
  ) {
    self.source = source
    self.maps = maps
    self.place = place
    self.rowOrder = rowOrder
    self.fold = fold
  }

  /// What the source's tensor `name` is; nil where no rule maps it.
  package func target(of name: String) -> NameMap.Target? { maps.lazy.compactMap { $0.target(of: name) }.first }
}
