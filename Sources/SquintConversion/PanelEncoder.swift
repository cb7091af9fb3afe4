import SquintFile

extension TensorEncoder {
  /// Quantizes `numbers`, the rows `rows` of `tensor`, panel after panel.
  func quantize(
    _ tensor: PlannedTensor, rows: Range<Int>, _ numbers: UnsafeMutableBufferPointer<Float>, _ output: inout Output
  ) throws(SquintError) {
    guard let layout = PanelLayout(type: tensor.type, rows: tensor.rows, columns: tensor.columns) else {
      preconditionFailure("the plan was checked")
    }
    for (index, first) in stride(from: 0, to: rows.count, by: PanelLayout.rowsPerPanel).enumerated() {
      let used = min(PanelLayout.rowsPerPanel, rows.count - first)
      let weights = numbers[first * tensor.columns..<(first + used) * tensor.columns]
      let panel = output.bytes[index * layout.panelBytes..<(index + 1) * layout.panelBytes]
      do throws(SquintError) {
        let (squaredError, squaredNorm) = try quantizePanel(
          weights: UnsafeBufferPointer(rebasing: weights), rowsUsed: used, layout: layout, importance: nil,
          into: UnsafeMutableRawBufferPointer(rebasing: panel), firstRow: rows.lowerBound + first)
        output.error.squaredError += squaredError
        output.error.squaredWeight += squaredNorm
      } catch {
        throw SquintError(
          error.kind, "\(source.path(of: tensor.source)): tensor \(printable(tensor.source.name)): \(error.message)")
      }
    }
  }

  func keep(_ tensor: PlannedTensor, rows: Range<Int>, start: UInt64) throws(SquintError) -> Output {
    throw SquintError(.internalError, "tensor \(tensor.name)")
  }
}
