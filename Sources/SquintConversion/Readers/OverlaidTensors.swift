import SquintFile

/// The tensors of several sources as one; of the same name in two, that of the first.
struct OverlaidTensors: TensorSource {
  private(set) var tensors: [SourceTensor] = []
  private let sources: [any TensorSource]
  private var places: [ExactString: (tensor: Int, source: Int)] = [:]

  /// - Parameter sources: each with the name that a tensor of it has here; nil where it is not wanted.
  init(_ sources: [(source: any TensorSource, name: (String) -> String?)]) {
    self.sources = sources.map(\.source)
    for (index, (source, name)) in sources.enumerated() {
      for tensor in source.tensors {
        guard let name = name(tensor.name), places[ExactString(name)] == nil else { continue }
        places[ExactString(name)] = (tensors.count, index)
        tensors.append(tensor.named(name))
      }
    }
  }

  private func source(of tensor: SourceTensor) -> any TensorSource {
    guard let place = places[ExactString(tensor.name)] else { preconditionFailure("a tensor of another source") }
    return sources[place.source]
  }

  func tensor(named name: String) -> SourceTensor? { places[ExactString(name)].map { tensors[$0.tensor] } }

  func path(of tensor: SourceTensor) -> String { source(of: tensor).path(of: tensor) }

  func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) { try source(of: tensor).readBlocks(of: tensor, blocks: blocks, into: buffer) }
}
