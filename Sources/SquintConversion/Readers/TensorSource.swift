import SquintFile

/// How a source file stores the numbers of a tensor. Names are those of safetensors for plain types and of GGUF for
/// types in blocks.
///
/// Every type of both formats is listed, so that a file's directory can be checked and shown; `isReadable` says which
/// ones `TensorSource.read` turns into numbers.
package enum SourceType: String, Sendable, CaseIterable {
  case f64 = "F64"
  case f32 = "F32"
  case f16 = "F16"
  case bf16 = "BF16"

  case q40 = "Q4_0"
  case q41 = "Q4_1"
  case q50 = "Q5_0"
  case q51 = "Q5_1"
  case q80 = "Q8_0"
  case q2k = "Q2_K"
  case q3k = "Q3_K"
  case q4k = "Q4_K"
  case q5k = "Q5_K"
  case q6k = "Q6_K"
  case iq4nl = "IQ4_NL"

  case q81 = "Q8_1"
  case q8k = "Q8_K"
  case iq1s = "IQ1_S"
  case iq1m = "IQ1_M"
  case iq2xxs = "IQ2_XXS"
  case iq2xs = "IQ2_XS"
  case iq2s = "IQ2_S"
  case iq3xxs = "IQ3_XXS"
  case iq3s = "IQ3_S"
  case iq4xs = "IQ4_XS"
  case tq10 = "TQ1_0"
  case tq20 = "TQ2_0"
  case mxfp4 = "MXFP4"
  case nvfp4 = "NVFP4"
  case q10 = "Q1_0"

  case bool = "BOOL"
  case u8 = "U8"
  case i8 = "I8"
  case u16 = "U16"
  case i16 = "I16"
  case u32 = "U32"
  case i32 = "I32"
  case u64 = "U64"
  case i64 = "I64"
  case c64 = "C64"
  case f8e4m3 = "F8_E4M3"
  case f8e5m2 = "F8_E5M2"
  case f8e8m0 = "F8_E8M0"
  case f6e2m3 = "F6_E2M3"
  case f6e3m2 = "F6_E3M2"
  case f4 = "F4"

  /// The name that messages and tables use.
  package var name: String { rawValue }

  /// How many numbers one block holds; 1 for plain types. The innermost dimension of a tensor is a multiple of it.
  package var elementsPerBlock: Int { layout.elements }

  /// The size of one block, in bytes.
  package var bytesPerBlock: Int { layout.bytes }

  /// Whether `TensorSource.read` can turn this type into numbers.
  package var isReadable: Bool {
    switch self {
    case .f64, .f32, .f16, .bf16, .f8e4m3, .f8e5m2, .f8e8m0: true
    case .q40, .q41, .q50, .q51, .q80, .q2k, .q3k, .q4k, .q5k, .q6k, .iq4nl: true
    default: false
    }
  }

  /// Whether the type is one of GGUF's with a scale per block.
  package var isQuantized: Bool {
    switch self {
    case .f6e2m3, .f6e3m2, .f4: false
    default: layout.elements > 1
    }
  }

  /// ggml's type sizes (ggml.c, `type_traits`) and safetensors' (`Dtype::bitsize`).
  private var layout: (elements: Int, bytes: Int) {
    switch self {
    case .f64, .u64, .i64, .c64: (1, 8)
    case .f32, .u32, .i32: (1, 4)
    case .f16, .bf16, .u16, .i16: (1, 2)
    case .bool, .u8, .i8, .f8e4m3, .f8e5m2, .f8e8m0: (1, 1)
    case .f6e2m3, .f6e3m2: (4, 3)
    case .f4: (2, 1)
    case .q40, .iq4nl: (32, 2 + 16)
    case .q41: (32, 4 + 16)
    case .q50: (32, 2 + 4 + 16)
    case .q51: (32, 4 + 4 + 16)
    case .q80: (32, 2 + 32)
    case .q81: (32, 4 + 32)
    case .mxfp4: (32, 1 + 16)
    case .nvfp4: (64, 4 + 32)
    case .q10: (128, 2 + 16)
    case .q2k: (256, 4 + 16 + 64)
    case .q3k: (256, 2 + 64 + 32 + 12)
    case .q4k: (256, 4 + 128 + 12)
    case .q5k: (256, 4 + 128 + 32 + 12)
    case .q6k: (256, 2 + 128 + 64 + 16)
    case .q8k: (256, 4 + 256 + 32)
    case .iq1s: (256, 2 + 32 + 16)
    case .iq1m: (256, 32 + 16 + 8)
    case .iq2xxs: (256, 2 + 64)
    case .iq2xs: (256, 2 + 64 + 8)
    case .iq2s: (256, 2 + 64 + 16)
    case .iq3xxs: (256, 2 + 64 + 32)
    case .iq3s: (256, 2 + 64 + 32 + 8 + 4)
    case .iq4xs: (256, 4 + 128 + 4)
    case .tq10: (256, 2 + 52)
    case .tq20: (256, 2 + 64)
    }
  }
}

/// A tensor of a source: what it is, and where its bytes are.
///
/// Its shape and size have been checked: the shape's product fits an Int, agrees with `byteCount`, and the bytes are
/// inside the file.
package struct SourceTensor: Sendable, Equatable {
  package let name: String
  /// Outermost dimension first, as in the checkpoint; empty for a scalar.
  package let shape: [Int]
  package let type: SourceType
  /// The product of the shape.
  package let elementCount: Int
  package let byteCount: Int
  /// Which of the source's files holds the bytes.
  package let part: Int
  /// Where they start in that file.
  package let offset: Int

  /// Checks `shape` against `type` and computes the sizes.
  ///
  /// - Returns: nil where a dimension is negative, the product overflows, or the innermost dimension is no multiple
  ///   of the type's block.
  package init?(name: String, shape: [Int], type: SourceType, part: Int, offset: Int) {
    // The product of the dimensions that are not zero must fit too: row sizes are products of some of them.
    var product = 1
    for dimension in shape {
      guard dimension >= 0 else { return nil }
      let (next, overflow) = product.multipliedReportingOverflow(by: max(dimension, 1))
      guard !overflow else { return nil }
      product = next
    }
    let count = shape.contains(0) ? 0 : product
    guard
      (shape.last ?? 1) % type.elementsPerBlock == 0 || Self.packsAcrossRows(type) && count % type.elementsPerBlock == 0
    else { return nil }
    let (bytes, overflow) = (product / type.elementsPerBlock).multipliedReportingOverflow(by: type.bytesPerBlock)
    guard !overflow else { return nil }
    self.name = name
    self.shape = shape
    self.type = type
    elementCount = count
    byteCount = count == 0 ? 0 : bytes
    self.part = part
    self.offset = offset
  }

  /// The same numbers in the same order in another shape; nil where its product is another, or blocks would cross rows.
  package func reshaped(_ shape: [Int]) -> SourceTensor? {
    guard shape != self.shape else { return self }
    let other = SourceTensor(name: name, shape: shape, type: type, part: part, offset: offset)
    return other?.elementCount == elementCount ? other : nil
  }

  /// The same bytes as numbers of another plain type of the same size.
  func seen(as type: SourceType) -> SourceTensor {
    precondition(type.elementsPerBlock == 1 && type.bytesPerBlock == self.type.bytesPerBlock)
    guard let tensor = SourceTensor(name: name, shape: shape, type: type, part: part, offset: offset) else {
      preconditionFailure("the shape was checked")
    }
    return tensor
  }

  /// safetensors packs its types of less than a byte without regard to rows.
  private static func packsAcrossRows(_ type: SourceType) -> Bool { !type.isQuantized && type.elementsPerBlock > 1 }

  /// The rows of the tensor seen as a matrix [shape[0], product of the rest]; 1 for a scalar.
  package var rows: Int { shape.first ?? 1 }

  /// The columns of the tensor seen as a matrix [shape[0], product of the rest]; 1 for a vector.
  package var columns: Int { shape.dropFirst().reduce(1, *) }
}

/// A checkpoint's tensors, by name, wherever they are stored. Any number of threads may read at once.
package protocol TensorSource: Sendable {
  /// All tensors, in the order of the file or files.
  var tensors: [SourceTensor] { get }

  /// The tensor whose name has exactly the bytes of `name`, in constant time.
  func tensor(named name: String) -> SourceTensor?

  /// How messages call the place where `tensor` is stored: the path of its file.
  func path(of tensor: SourceTensor) -> String

  /// How the numbers of `tensor` are stored, for people.
  func typeName(of tensor: SourceTensor) -> String

  /// The bits of a weight of `tensor` where it is quantized, nil where its numbers are as they were computed.
  func bitsPerWeight(of tensor: SourceTensor) -> Double?

  /// Reads blocks as they are stored. Block `i` holds the elements from `i * tensor.type.elementsPerBlock` on, in row-major
  /// order; a block of a plain type is one number.
  ///
  /// - Throws: `SquintError.badData` where the file ends too early, `.inputOutput` where reading fails.
  func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError)
}

extension TensorSource {
  package func typeName(of tensor: SourceTensor) -> String { tensor.type.name }

  package func bitsPerWeight(of tensor: SourceTensor) -> Double? {
    tensor.type.isQuantized ? tensor.type.bitsPerWeight : nil
  }

  /// Reads rows of the tensor seen as a matrix [shape[0], product of the rest], as they are stored.
  ///
  /// - Parameter buffer: takes `rows.count * tensor.columns` elements.
  /// - Throws: `SquintError.badData` where the file ends too early, `.inputOutput` where reading fails, `.internalError`
  ///   where the rows do not exist or are no whole blocks, or the buffer has another size.
  package func readRaw(
    _ tensor: SourceTensor, rows: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    let blocks = try blocks(of: tensor, rows: rows)
    guard buffer.count == blocks.count * tensor.type.bytesPerBlock else {
      throw SquintError(.internalError, "tensor \(tensor.name): the buffer for \(rows.count) rows has a wrong size")
    }
    guard !blocks.isEmpty else { return }
    try readBlocks(of: tensor, blocks: blocks, into: buffer)
  }

  /// Reads rows of the tensor seen as a matrix [shape[0], product of the rest], as f32. Numbers that are not finite are
  /// passed on.
  ///
  /// - Parameter buffer: takes `rows.count * tensor.columns` numbers.
  /// - Throws: as `readRaw`, and `SquintError.badData` where the type is not `isReadable`.
  package func read(
    _ tensor: SourceTensor, rows: Range<Int>, into buffer: UnsafeMutableBufferPointer<Float>
  ) throws(SquintError) {
    let type = tensor.type
    guard type.isReadable else {
      throw .badData(
        path(of: tensor),
        "tensor \(tensor.name): numbers of type \(type.name) cannot be converted; use a checkpoint in F32, F16 or BF16, "
          + "or a GGUF file in Q2_K to Q8_0")
    }
    let blocks = try blocks(of: tensor, rows: rows)
    guard buffer.count == blocks.count * type.elementsPerBlock else {
      throw SquintError(.internalError, "tensor \(tensor.name): the buffer for \(rows.count) rows has a wrong size")
    }
    guard !blocks.isEmpty else { return }
    if type == .f32 {
      try readBlocks(of: tensor, blocks: blocks, into: UnsafeMutableRawBufferPointer(buffer))
      return
    }
    // In pieces that stay in the processor's cache between reading and dequantizing.
    let blocksPerPiece = min(blocks.count, (128 << 10) / type.bytesPerBlock)
    let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: blocksPerPiece * type.bytesPerBlock, alignment: 64)
    defer { piece.deallocate() }
    var first = blocks.lowerBound
    var output = buffer.baseAddress!
    while first < blocks.upperBound {
      let count = min(blocksPerPiece, blocks.upperBound - first)
      try readBlocks(
        of: tensor, blocks: first..<first + count,
        into: UnsafeMutableRawBufferPointer(rebasing: piece[..<(count * type.bytesPerBlock)]))
      dequantize(type, blocks: count, from: UnsafeRawPointer(piece.baseAddress!), into: output)
      first += count
      output += count * type.elementsPerBlock
    }
  }

  /// The whole tensor as f32, in row-major order. For small tensors: norms, biases.
  package func read(_ tensor: SourceTensor) throws(SquintError) -> [Float] {
    var failure: SquintError?
    let numbers = [Float](unsafeUninitializedCapacity: tensor.elementCount) { buffer, count in
      do throws(SquintError) {
        try read(
          tensor, rows: 0..<tensor.rows, into: UnsafeMutableBufferPointer(rebasing: buffer[..<tensor.elementCount]))
        count = tensor.elementCount
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return numbers
  }

  /// The blocks that hold `rows`.
  private func blocks(of tensor: SourceTensor, rows: Range<Int>) throws(SquintError) -> Range<Int> {
    let elements = tensor.type.elementsPerBlock
    guard rows.lowerBound >= 0, rows.upperBound <= tensor.rows else {
      throw SquintError(.internalError, "tensor \(tensor.name): it has \(tensor.rows) rows, not \(rows)")
    }
    let first = rows.lowerBound * tensor.columns
    let end = rows.upperBound * tensor.columns
    guard first % elements == 0, end % elements == 0 else {
      throw SquintError(.internalError, "tensor \(tensor.name): rows \(rows) are no whole \(tensor.type.name) blocks")
    }
    return first / elements..<end / elements
  }
}

/// The tensors of one or more files: what the sources have in common.
package struct TensorTable: Sendable {
  package let files: [SourceFile]
  package private(set) var tensors: [SourceTensor] = []
  private var places: [ExactString: Int] = [:]
  /// The numbers of tensors that no file holds as they are read.
  private var decoded: [ExactString: [UInt8]] = [:]

  package init(files: [SourceFile]) { self.files = files }

  /// Adds a tensor, whose bytes must be inside its file.
  ///
  /// - Throws: `SquintError.badData` where they are not, or there is a tensor with this name already.
  package mutating func add(_ tensor: SourceTensor) throws(SquintError) {
    let file = files[tensor.part]
    let (end, overflow) = tensor.offset.addingReportingOverflow(tensor.byteCount)
    guard tensor.offset >= 0, !overflow, end <= file.byteCount else {
      throw .badData(
        file.path,
        "tensor \(printable(tensor.name)): \(grouped(tensor.byteCount)) bytes at offset \(grouped(tensor.offset)) run past the "
          + "end of the file (\(grouped(file.byteCount)) bytes); the download is incomplete")
    }
    try append(tensor)
  }

  /// Adds a tensor whose numbers the file spells in another way, decoded: `tensor.byteCount` bytes.
  ///
  /// - Throws: `SquintError.badData` where there is a tensor with this name already.
  package mutating func add(_ tensor: SourceTensor, decoded bytes: [UInt8]) throws(SquintError) {
    precondition(bytes.count == tensor.byteCount)
    try append(tensor)
    decoded[ExactString(tensor.name)] = bytes
  }

  private mutating func append(_ tensor: SourceTensor) throws(SquintError) {
    if let other = places.updateValue(tensors.count, forKey: ExactString(tensor.name)) {
      let place = tensors[other].part == tensor.part ? "" : " (the other is in \(files[tensors[other].part].path))"
      throw .badData(
        files[tensor.part].path, "there are two tensors named \(printable(tensor.name))\(place)")
    }
    tensors.append(tensor)
  }

  package func tensor(named name: String) -> SourceTensor? { places[ExactString(name)].map { tensors[$0] } }

  package func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    let bytesPerBlock = tensor.type.bytesPerBlock
    guard blocks.lowerBound >= 0, blocks.upperBound <= tensor.byteCount / bytesPerBlock,
      buffer.count == blocks.count * bytesPerBlock
    else { throw SquintError(.internalError, "tensor \(tensor.name): blocks \(blocks) do not exist or do not fit") }
    if let bytes = decoded[ExactString(tensor.name)] {
      buffer.copyBytes(from: bytes[blocks.lowerBound * bytesPerBlock..<blocks.upperBound * bytesPerBlock])
      return
    }
    try files[tensor.part].read(at: tensor.offset + blocks.lowerBound * bytesPerBlock, into: buffer)
  }
}

/// A source whose tensors are in files.
package protocol FileTensorSource: TensorSource {
  var table: TensorTable { get }
}

extension FileTensorSource {
  package var tensors: [SourceTensor] { table.tensors }

  package func tensor(named name: String) -> SourceTensor? { table.tensor(named: name) }

  package func path(of tensor: SourceTensor) -> String { table.files[tensor.part].path }

  package func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    try table.readBlocks(of: tensor, blocks: blocks, into: buffer)
  }
}

/// `name`, a name from a file, fit for one line of a message: cut to 100 characters, with invisible ones escaped.
func printable(_ name: String) -> String {
  var text = ""
  for scalar in name.unicodeScalars.prefix(100) {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator: text += scalar.escaped(asASCII: true)
    default: text.unicodeScalars.append(scalar)
    }
  }
  return name.unicodeScalars.count > 100 ? text + "…" : text
}
