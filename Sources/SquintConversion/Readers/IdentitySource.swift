import SquintFile

/// One matrix that leaves vectors as they are: what stands for a projector that does nothing.
struct IdentitySource: TensorSource {
  let tensors: [SourceTensor]
  let place: String
  private let width: Int

  /// - Parameter place: the file that asks for it, for messages.
  init(width: Int, place: String) {
    self.width = width
    self.place = place
    let tensor = SourceTensor(name: "identity.weight", shape: [width, width], type: .f32, part: 0, offset: 0)
    tensors = tensor.map { [$0] } ?? []
  }

  func tensor(named name: String) -> SourceTensor? { tensors.first { $0.name == name } }

  func path(of tensor: SourceTensor) -> String { place }

  func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    for (index, block) in blocks.enumerated() {
      buffer.storeBytes(of: block / width == block % width ? 1 : 0, toByteOffset: 4 * index, as: Float.self)
    }
  }
}
