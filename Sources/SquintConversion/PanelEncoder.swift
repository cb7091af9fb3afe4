import SquintFile

extension TensorEncoder {
  func keep(_ tensor: PlannedTensor, rows: Range<Int>, start: UInt64) throws(SquintError) -> Output {
    throw SquintError(.internalError, "tensor \(tensor.name)")
  }
  func quantize(
    _ tensor: PlannedTensor, rows: Range<Int>, _ numbers: UnsafeMutableBufferPointer<Float>, _ output: inout Output
  ) {}
}
