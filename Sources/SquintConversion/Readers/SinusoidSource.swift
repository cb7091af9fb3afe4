import SquintFile

/// A source with one tensor more: a table of sinusoidal positions, which checkpoints do not hold.
package struct SinusoidSource: TensorSource {
  package let tensors: [SourceTensor]
  private let base: any TensorSource
  private let table: SourceTensor?
  private let width: Int
  private let place: String

  /// - Parameters:
  ///   - name: of the tensor [rows, width].
  ///   - width: an even number, 4 at least.
  ///   - place: the file that asks for it, for messages.
  package init(_ base: any TensorSource, name: String, rows: Int, width: Int, place: String) {
    precondition(width >= 4 && width % 2 == 0)
    self.base = base
    self.width = width
    self.place = place
    table = SourceTensor(name: name, shape: [rows, width], type: .f32, part: 0, offset: 0)
    tensors = base.tensors.filter { $0.name != name } + (table.map { [$0] } ?? [])
  }

  package func tensor(named name: String) -> SourceTensor? {
    name == table?.name ? table : base.tensor(named: name)
  }

  package func path(of tensor: SourceTensor) -> String { tensor.name == table?.name ? place : base.path(of: tensor) }

  package func typeName(of tensor: SourceTensor) -> String {
    tensor.name == table?.name ? tensor.type.name : base.typeName(of: tensor)
  }

  package func bitsPerWeight(of tensor: SourceTensor) -> Double? {
    tensor.name == table?.name ? nil : base.bitsPerWeight(of: tensor)
  }

  package func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    guard tensor.name == table?.name else { return try base.readBlocks(of: tensor, blocks: blocks, into: buffer) }
    for (index, block) in blocks.enumerated() {
      buffer.storeBytes(
        of: Self.position(block / width, column: block % width, width: width), toByteOffset: 4 * index, as: Float.self)
    }
  }

  /// sin(row · f), then for the other half of the columns cos(row · f), where f falls from 1 to 1/10000 geometrically; each step rounded
  /// to f32 (`SinusoidsPositionEmbedding` of modeling_qwen2_5_omni.py, `sinusoids` of modeling_whisper.py).
  package static func position(_ row: Int, column: Int, width: Int) -> Float {
    let half = width / 2
    let step = Float(-log(10_000.0) / Double(half - 1))
    let angle = Float(row) * Float(exp(Double(step * Float(column % half))))
    return Float(column < half ? sin(Double(angle)) : cos(Double(angle)))
  }
}
