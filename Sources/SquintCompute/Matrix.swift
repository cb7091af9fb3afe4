import SquintFile

/// A weight matrix W[rows, columns], in place in the model file.
///
/// A view: whoever made it keeps the file open as long as the view is used.
package struct Matrix: @unchecked Sendable {  // the file's bytes never change
  package let type: ElementType
  package let rows: Int
  package let columns: Int
  package let data: UnsafeRawPointer
  /// b[rows], added to every product, or nil.
  package let bias: UnsafePointer<Float>?

  /// The groups of 32 columns of a row, the last one padded.
  package var groups: Int { (columns + PanelLayout.columnsPerGroup - 1) / PanelLayout.columnsPerGroup }

  init(type: ElementType, rows: Int, columns: Int, data: UnsafeRawPointer, bias: UnsafePointer<Float>? = nil) {
    self.type = type
    self.rows = rows
    self.columns = columns
    self.data = data
    self.bias = bias
  }

  /// The tensor `name` of `file` as a matrix, with the bias `name.bias` where there is one.
  ///
  /// - Throws: `badData` when it is not there or not of this shape.
  package init(_ name: String, rows: Int, columns: Int, in file: ModelFile) throws(SquintError) {
    let tensor = try file.tensor(name, shape: [rows, columns])
    self.init(
      type: tensor.type, rows: rows, columns: columns, data: file.bytes(of: tensor).baseAddress!,
      bias: file.tensor(name + ".bias") == nil ? nil : try file.vector(name + ".bias", count: rows))
  }

  /// The matrix that a blueprint describes.
  ///
  /// - Throws: `badData` when it is not there or not of this shape.
  package init(_ specification: MatrixSpecification, in file: ModelFile) throws(SquintError) {
    try self.init(specification.name, rows: specification.rows, columns: specification.columns, in: file)
  }

  /// The same matrix with the bias of `other`, which has as many rows.
  package func withBias(of other: Matrix) -> Matrix {
    Matrix(type: type, rows: rows, columns: columns, data: data, bias: other.bias)
  }

  /// Panels of 16 rows: what a matrix may be cut into.
  package var panels: Int { (rows + PanelLayout.rowsPerPanel - 1) / PanelLayout.rowsPerPanel }

  /// The size of a panel, in bytes.
  package var panelBytes: Int {
    type.bytesPerPlainElement.map { $0 * columns * PanelLayout.rowsPerPanel }
      ?? PanelLayout(type: type, rows: rows, columns: columns)!.panelBytes
  }

  /// The bytes of `panels`, counted from those of the matrix.
  package func bytes(ofPanels panels: Range<Int>) -> Range<Int> {
    let rowBytes = type.bytesPerPlainElement.map { $0 * columns }
    let end = rowBytes.map { min(panels.upperBound * panelBytes, rows * $0) } ?? panels.upperBound * panelBytes
    return panels.lowerBound * panelBytes..<end
  }

  /// The rows of `panels` as a matrix of their own, whose weights are `distance` bytes behind where they were.
  package func slice(panels: Range<Int>, movedBy distance: Int = 0) -> Matrix {
    let first = panels.lowerBound * PanelLayout.rowsPerPanel
    return Matrix(
      type: type, rows: min(panels.upperBound * PanelLayout.rowsPerPanel, rows) - first, columns: columns,
      data: data + panels.lowerBound * panelBytes + distance, bias: bias.map { $0 + first })
  }

  /// The matrix of `rows` rows that begins with panel `panel`, whose weights are `distance` bytes behind where they were: where
  /// several are one under the other.
  package func part(panel: Int, rows: Int, movedBy distance: Int) -> Matrix {
    Matrix(type: type, rows: rows, columns: columns, data: data + panel * panelBytes + distance)
  }

  /// The same matrix, read together with its bias `distance` bytes behind where they were.
  package func moved(by distance: Int) -> Matrix {
    Matrix(type: type, rows: rows, columns: columns, data: data + distance, bias: bias?.moved(by: distance))
  }

  /// Writes row `row` to `output` as f32.
  package func copyRow(_ row: Int, to output: UnsafeMutableBufferPointer<Float>, _ kernels: Kernels) {
    switch type {
    case .f32:
      let source = (data + row * columns * 4).assumingMemoryBound(to: Float.self)
      output.baseAddress!.update(from: source, count: columns)
    case .f16:
      kernels.f16ToF32((data + row * columns * 2).assumingMemoryBound(to: UInt16.self), output.baseAddress!, columns)
    case .bf16:
      kernels.bf16ToF32((data + row * columns * 2).assumingMemoryBound(to: UInt16.self), output.baseAddress!, columns)
    case .int8, .int4, .int4F16:
      let layout = PanelLayout(type: type, rows: rows, columns: columns)!
      PanelCodec(layout).dequantizeRow(
        row, of: UnsafeRawBufferPointer(start: data, count: layout.byteCount), into: output)
    }
  }
}

extension ModelFile {
  /// The tensor `name`, which must have the shape `shape`.
  package func tensor(_ name: String, shape: [Int]) throws(SquintError) -> Tensor {
    guard let tensor = tensor(name) else {
      throw .badData(path, "tensor \(name) is missing; convert the model again")
    }
    guard tensor.shape == shape else {
      throw .badData(path, "tensor \(name) has shape \(tensor.shape), and its configuration says \(shape)")
    }
    return tensor
  }

  /// The f32 vector `name`[count], in place.
  package func vector(_ name: String, count: Int) throws(SquintError) -> UnsafePointer<Float> {
    try floats(name, shape: [count])
  }

  /// The f32 vector that a blueprint describes, in place.
  package func vector(_ specification: TensorSpecification) throws(SquintError) -> UnsafePointer<Float> {
    try floats(specification.name, shape: specification.shape)
  }

  /// The f32 tensor `name` of shape `shape`, in place.
  package func floats(_ name: String, shape: [Int]) throws(SquintError) -> UnsafePointer<Float> {
    let tensor = try tensor(name, shape: shape)
    guard tensor.type == .f32 else {
      throw .badData(path, "tensor \(name) is \(tensor.type.name), and norms, biases and positions must be f32")
    }
    return bytes(of: tensor).baseAddress!.assumingMemoryBound(to: Float.self)
  }
}

extension UnsafePointer<Float> {
  /// The vector that is `distance` bytes behind this one.
  package func moved(by distance: Int) -> UnsafePointer<Float> {
    (UnsafeRawPointer(self) + distance).assumingMemoryBound(to: Float.self)
  }
}
