import SquintFile

/// One tensor of the output, and what of the source it is made from.
package struct PlannedTensor: Sendable {
  package let name: String
  package let type: ElementType
  /// The outermost axis first.
  package let shape: [Int]
  package let origin: TensorOrigin
  /// Whether the source's blocks are taken over bit for bit.
  package let isKept: Bool

  package var rows: Int { shape[0] }
  package var columns: Int { shape.count == 2 ? shape[1] : 1 }
  package var elementCount: Int { rows * columns }
}

/// A module of the output, planned.
package struct PlannedModule: Sendable {
  package let name: String
  package var tensors: [PlannedTensor]
  /// The tensors of the source that this module uses, or knows and leaves out.
  package var claimed: Set<ExactString>
}

extension PlannedModule {
  /// Maps the tensors of a source to those that the module `name` has.
  ///
  /// - Parameter updates: what an adapter adds to matrices, by their names in the output.
  /// - Throws: `SquintError.badData` which names the tensor that is missing or has a wrong shape, or an adapter's tensor that
  ///   has no matrix here.
  package init(
    name: String, expected: [ExpectedTensor], mapped: MappedTensors, types: TypeChoice,
    updates: [String: LowRankUpdate] = [:]
  ) throws(SquintError) {
    let source = mapped.source
    var names: Set<String> = []
    for tensor in expected {
      names.insert(tensor.name)
      if let fused = tensor.fused { names.insert(fused.name) }
      if let stack = tensor.stack { names.formUnion(stack.names) }
      if let rowScale = tensor.rowScale { names.insert(rowScale) }
      if let norm = tensor.batchNorm { names.formUnion(norm.names) }
      if let frames = tensor.frames { names.formUnion([frames.both, frames.first, frames.second]) }
    }
    var found: [String: SourceTensor] = [:]
    var claimed: Set<ExactString> = []
    for tensor in source.tensors {
      switch mapped.target(of: tensor.name) {
      case .ignored: claimed.insert(ExactString(tensor.name))
      case .tensor(let name) where names.contains(name):
        if let other = found.updateValue(tensor, forKey: name) {
          throw .badData(
            source.path(of: tensor), "tensors \(printable(other.name)) and \(printable(tensor.name)) are both \(name)")
        }
        claimed.insert(ExactString(tensor.name))
      case .tensor, nil: break
      }
    }

    var tensors: [PlannedTensor] = []
    var updates = updates
    for wanted in expected where wanted.presence != .unused {
      guard var origin = try Self.origin(of: wanted, found: found, source: source) else {
        guard wanted.presence == .required else { continue }
        let name = wanted.stack?.missing(of: found) ?? wanted.name
        let sourceName = mapped.maps.first?.source(of: name) ?? name
        // Named as another program names it, or fused with others, it may be there all the same.
        let stranger = source.tensors.first { mapped.target(of: $0.name) == nil }?.name
        throw .badData(
          mapped.place,
          "tensor \(sourceName) (\(wanted.name)) is missing; "
            + (stranger.map { "there is \(printable($0)), which no rule maps" } ?? "the checkpoint is incomplete"))
      }
      origin.rowOrder = mapped.rowOrder(wanted.name)
      origin.fold = mapped.fold(wanted.name)
      if wanted.role == .weight || wanted.role == .head, let update = updates.removeValue(forKey: wanted.name) {
        origin = try update.applied(to: origin, shape: wanted.shape)
      }
      if let unreadable = origin.tensors.first(where: { !$0.type.isReadable }) {
        throw SquintError(
          .badData,
          "\(source.path(of: unreadable)): tensor \(printable(unreadable.name)): numbers of type \(unreadable.type.name) cannot be converted; use a checkpoint in F32, F16 "
            + "or BF16, or a GGUF file in Q2_K to Q8_0")
      }
      let (type, isKept) = types.type(role: wanted.role, origin: origin)
      guard type.byteCount(shape: wanted.shape) != nil else {
        throw SquintError(.badData, "\(origin.place): its shape \(origin.tensor.shape) is too large")
      }
      tensors.append(
        PlannedTensor(name: wanted.name, type: type, shape: wanted.shape, origin: origin, isKept: isKept))
    }
    if let (target, update) = updates.min(by: { $0.key < $1.key }) {
      // The head is then the embedding, which the adapter is not for.
      let isTied = expected.contains { $0.name == target && $0.presence == .unused }
      throw .badData(
        update.source.path(of: update.down),
        "tensor \(printable(update.down.name)) has no matrix in the \(name)"
          + (isTied ? ", whose head is its embedding (tie_word_embeddings); train without lm_head" : " (\(target))"))
    }
    self.name = name
    self.tensors = tensors
    self.claimed = claimed
  }

  /// What of the source becomes `wanted`; nil where there is nothing.
  private static func origin(
    of wanted: ExpectedTensor, found: [String: SourceTensor], source: any TensorSource
  ) throws(SquintError) -> TensorOrigin? {
    func seen(_ tensor: SourceTensor, as shape: [Int], otherShapes: [[Int]] = []) throws(SquintError) -> SourceTensor {
      guard tensor.shape == shape || otherShapes.contains(tensor.shape) else {
        throw .badData(
          source.path(of: tensor),
          "tensor \(printable(tensor.name)) has shape \(tensor.shape), but the configuration makes it \(shape)")
      }
      guard let reshaped = tensor.reshaped(shape) else {
        throw .badData(
          source.path(of: tensor),
          "tensor \(printable(tensor.name)): \(tensor.type.name) blocks do not fit the shape \(shape)")
      }
      return reshaped
    }
    if let stack = wanted.stack {
      guard let parts = try StackOrigin(stack, columns: wanted.shape[1], found: found, source: source) else {
        return nil
      }
      var origin = TensorOrigin(source: source, tensor: parts.pieces[0].tensor)
      origin.stack = parts
      return origin
    }
    var origin: TensorOrigin
    if let frames = wanted.frames {
      let (rows, side) = (wanted.shape[0], frames.side)
      let (channels, pixels) = (FrameKernels.channels, side * side)
      let whole = [rows, 2 * channels * pixels]
      if let tensor = found[frames.both] {
        let last = [rows, 2, side, side, channels]
        let first = [rows, channels, 2, side, side]
        origin = TensorOrigin(source: source, tensor: try seen(tensor, as: whole, otherShapes: [first, last]))
        if tensor.shape == last, last != first { origin.channelsLast = channels }
        if frames.areAdded { origin.frames = FrameKernels(pixels: pixels, areAdded: true) }
      } else if let first = found[frames.first], let second = found[frames.second] {
        let half = [rows, channels * pixels]
        let shape = [rows, channels, side, side]
        origin = TensorOrigin(source: source, tensor: try seen(first, as: half, otherShapes: [shape]))
        origin.frames = FrameKernels(
          pixels: pixels, second: try seen(second, as: half, otherShapes: [shape]), areAdded: frames.areAdded)
      } else {
        return nil
      }
    } else if let tensor = found[wanted.name] {
      var shapes = wanted.otherShapes
      if let shape = wanted.channelsLastShape { shapes.append(shape) }
      origin = TensorOrigin(source: source, tensor: try seen(tensor, as: wanted.shape, otherShapes: shapes))
      let isLast = wanted.channelsLastShape.map { $0 == tensor.shape && !wanted.otherShapes.contains($0) } ?? false
      if let channels = wanted.channels {
        if !isLast { origin.channelsFirst = channels }
      } else if isLast {
        origin.channelsLast = tensor.shape.last
      }
    } else if let fused = wanted.fused, let tensor = found[fused.name] {
      origin = TensorOrigin(
        source: source, tensor: try seen(tensor, as: [fused.rows] + wanted.shape.dropFirst()), firstRow: fused.firstRow)
    } else {
      return nil
    }
    if let scale = wanted.rowScale.flatMap({ found[$0] }) {
      origin.rowScale = try seen(scale, as: [wanted.shape[0]])
    }
    if let norm = wanted.batchNorm {
      var vectors: [SourceTensor] = []
      for name in norm.names {
        guard let vector = found[name] else {
          throw .badData(
            source.path(of: origin.tensor),
            "tensor \(printable(origin.tensor.name)) has a batch norm behind it, of which \(name) is missing; the checkpoint is "
              + "incomplete")
        }
        vectors.append(try seen(vector, as: [wanted.shape[0]]))
      }
      origin.batchNorm = BatchNormOrigin(
        weight: vectors[0], bias: vectors[1], mean: vectors[2], variance: vectors[3], epsilon: norm.epsilon)
    }
    return origin
  }
}

extension PlannedTensor {
  var byteCount: Int {
    guard let bytes = type.byteCount(shape: shape) else { preconditionFailure("the plan was checked") }
    return bytes
  }
}
