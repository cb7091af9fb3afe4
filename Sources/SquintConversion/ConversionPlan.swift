import SquintFile

/// One tensor of the output, and the one of the source that it is made from.
package struct PlannedTensor: Sendable {
  package let name: String
  package let type: ElementType
  /// The outermost axis first.
  package let shape: [Int]
  package let source: SourceTensor
  package let rowOrder: RowOrder
  /// Whether the source's blocks are taken over bit for bit.
  package let isKept: Bool

  package var rows: Int { shape[0] }
  package var columns: Int { shape.count == 2 ? shape[1] : 1 }
  package var elementCount: Int { rows * columns }
}

/// Which row of the source is which row of the output.
package enum RowOrder: Equatable, Sendable {
  case same
  /// The source has the rotary pairs of each head side by side, (2j, 2j + 1), where the output has them half the rotary
  /// width apart, (j, j + rotaryWidth / 2); rows from `rotaryWidth` on stay. llama.cpp's convert_hf_to_gguf.py,
  /// `LlamaModel.permute`, made it so.
  case interleavedPairs(headWidth: Int, rotaryWidth: Int)

  package func sourceRow(_ row: Int) -> Int {
    guard case .interleavedPairs(let headWidth, let rotaryWidth) = self else { return row }
    let inHead = row % headWidth
    guard inHead < rotaryWidth else { return row }
    let half = rotaryWidth / 2
    return row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1)
  }
}

/// A module of the output, planned.
package struct PlannedModule: Sendable {
  package let name: String
  package var tensors: [PlannedTensor]
  /// The tensors of the source that this module uses, or knows and leaves out.
  package var claimed: Set<ExactString>
}

/// Types per part of the model.
package struct TypeChoice: Sendable {
  var matrices: ElementType
  var embedding: ElementType
  /// Whether blocks that a type of ours holds exactly are taken over, by role: an explicit type switches it off.
  var keepsMatrices: Bool
  var keepsEmbedding: Bool
  /// Whether the types above were asked for, so that they are not raised for sources of more bits.
  var isMatrixTypeExplicit: Bool
  var isEmbeddingTypeExplicit: Bool

  /// The type for a tensor of `role` stored as `source`, and whether its blocks are taken over.
  func type(role: TensorRole, source: SourceTensor) -> (type: ElementType, isKept: Bool) {
    guard role != .vector, source.shape.count == 2 else { return (.f32, false) }
    let isEmbedding = role != .weight
    let wanted = isEmbedding ? embedding : matrices
    guard isEmbedding ? keepsEmbedding : keepsMatrices, source.type.isQuantized else { return (wanted, false) }
    if let exact = source.type.exactType(columns: source.columns) { return (exact, true) }
    // A file of several types has the wider ones where they matter (Q6_K among Q4_K), so they must not lose bits.
    let isExplicit = isEmbedding ? isEmbeddingTypeExplicit : isMatrixTypeExplicit
    return (!isExplicit && source.type.bitsPerWeight > ElementType.bitsOfInt4F16 ? .int8 : wanted, false)
  }
}

extension SourceType {
  /// The type of ours that holds every block of this one exactly (formats/squint.md, "Panels"); nil where there is none.
  package func exactType(columns: Int) -> ElementType? {
    guard let repackable, columns % repackable.columns == 0 else { return nil }
    return repackable.elementType
  }

  /// The kind of block, where a panel can hold it.
  package var repackable: RepackableBlock? {
    switch self {
    case .q80: .q80
    case .q40: .q40
    case .q41: .q41
    case .q4k: .q4K
    default: nil
    }
  }

  package var bitsPerWeight: Double { Double(8 * bytesPerBlock) / Double(elementsPerBlock) }
}

extension ElementType {
  static let bitsOfInt4F16 = 5.0
}

extension PlannedModule {
  /// Maps the tensors of `source` to those of the decoder.
  ///
  /// - Throws: `SquintError.badData` which names the tensor that is missing or has a wrong shape.
  package init(
    decoder configuration: DecoderConfiguration, source: some TensorSource, maps: [NameMap],
    rowOrder: (_ name: String) -> RowOrder, types: TypeChoice, place: String
  ) throws(SquintError) {
    let expected = configuration.tensors
    let names = Set(expected.map(\.name))
    var found: [String: SourceTensor] = [:]
    var claimed: Set<ExactString> = []
    for tensor in source.tensors {
      guard let target = maps.lazy.compactMap({ $0.target(of: tensor.name) }).first else { continue }
      switch target {
      case .ignored: claimed.insert(ExactString(tensor.name))
      case .tensor(let name) where names.contains(name):
        if let other = found.updateValue(tensor, forKey: name) {
          throw .badData(
            source.path(of: tensor), "tensors \(printable(other.name)) and \(printable(tensor.name)) are both \(name)")
        }
        claimed.insert(ExactString(tensor.name))
      case .tensor("decoder.head") where configuration.isTied:
        // The checkpoint says that the embedding serves as the head, and transformers uses that, whatever is here.
        claimed.insert(ExactString(tensor.name))
      case .tensor: break
      }
    }

    var tensors: [PlannedTensor] = []
    for wanted in expected {
      guard let tensor = found[wanted.name] else {
        guard wanted.isRequired else { continue }
        let sourceName = maps[0].source(of: wanted.name)
        throw .badData(
          place, "tensor \(sourceName) (\(wanted.name)) is missing; the checkpoint is incomplete")
      }
      guard tensor.shape == wanted.shape else {
        throw .badData(
          source.path(of: tensor),
          "tensor \(printable(tensor.name)) has shape \(tensor.shape), but the configuration makes it \(wanted.shape)")
      }
      guard tensor.type.isReadable else {
        throw .badData(
          source.path(of: tensor),
          "tensor \(printable(tensor.name)): numbers of type \(tensor.type.name) cannot be converted; use a checkpoint "
            + "in F32, F16 or BF16, or a GGUF file in Q2_K to Q8_0")
      }
      let (type, isKept) = types.type(role: wanted.role, source: tensor)
      guard type.byteCount(shape: wanted.shape) != nil else {
        throw .badData(
          source.path(of: tensor), "tensor \(printable(tensor.name)): its shape \(tensor.shape) is too large")
      }
      tensors.append(
        PlannedTensor(
          name: wanted.name, type: type, shape: wanted.shape, source: tensor, rowOrder: rowOrder(wanted.name),
          isKept: isKept))
    }
    name = "decoder"
    self.tensors = tensors
    self.claimed = claimed
  }
}

extension PlannedTensor {
  var byteCount: Int {
    guard let bytes = type.byteCount(shape: shape) else { preconditionFailure("the plan was checked") }
    return bytes
  }
}

extension TypeChoice {
  /// The decoder's types.
  init(decoder options: ConversionOptions) {
    let matrices = options.decoderType ?? options.type
    let embedding = options.embeddingType ?? options.type
    self.init(
      matrices: matrices ?? .int4, embedding: embedding ?? .int8,
      keepsMatrices: options.keep ?? (matrices == nil), keepsEmbedding: options.keep ?? (embedding == nil),
      isMatrixTypeExplicit: matrices != nil, isEmbeddingTypeExplicit: embedding != nil)
  }

  /// For people.
  var description: String {
    let keeps = keepsMatrices && keepsEmbedding ? ", keep" : keepsMatrices || keepsEmbedding ? ", keep in part" : ""
    return "decoder \(matrices.name), embedding \(embedding.name)\(keeps)"
  }
}
