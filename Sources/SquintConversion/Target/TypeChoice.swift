import SquintFile

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

  /// The type for a tensor of `role` made from `origin`, and whether its blocks are taken over.
  func type(role: TensorRole, origin: TensorOrigin) -> (type: ElementType, isKept: Bool) {
    guard role != .vector else { return (.f32, false) }
    let source = origin.tensor
    let isEmbedding = role != .weight
    let wanted = isEmbedding ? embedding : matrices
    var bits = 0.0
    for tensor in origin.tensors {
      guard isEmbedding ? keepsEmbedding : keepsMatrices, let own = origin.source.bitsPerWeight(of: tensor) else {
        return (wanted, false)
      }
      bits = max(bits, own)
    }
    let isChanged =
      origin.rowScale != nil || origin.frames != nil || origin.update != nil || origin.fold != Fold()
      || origin.channelsFirst != nil || origin.channelsLast != nil || origin.batchNorm != nil
    let columns = origin.stack?.columns ?? source.columns
    if !isChanged, origin.tensors.allSatisfy({ $0.type == source.type }),
      let exact = source.type.exactType(columns: columns)
    {
      return (exact, true)
    }
    // A file of several types has the wider ones where they matter (Q6_K among Q4_K), so they must not lose bits.
    let isExplicit = isEmbedding ? isEmbeddingTypeExplicit : isMatrixTypeExplicit
    return (!isExplicit && bits > ElementType.bitsOfInt4F16 ? .int8 : wanted, false)
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

extension TypeChoice {
  /// The types of a module whose matrices are all alike: an encoder or a projector.
  ///
  /// - Parameter type: what was asked for; nil: int8.
  package init(matrices type: ElementType?, keep: Bool?) {
    let keeps = keep ?? (type == nil)
    self.init(
      matrices: type ?? .int8, embedding: type ?? .int8, keepsMatrices: keeps, keepsEmbedding: keeps,
      isMatrixTypeExplicit: type != nil, isEmbeddingTypeExplicit: type != nil)
  }

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
