import SquintFile

/// Makes a run of rows of an output tensor from the source: reads, reorders, quantizes, and measures the error.
struct TensorEncoder {
  /// Rows of a tensor that are made in one go, so that memory does not depend on the tensor's size.
  struct Chunk {
    let tensor: Int
    let rows: Range<Int>
  }

  /// What a chunk became.
  struct Output {
    var bytes: UnsafeMutableRawBufferPointer
    var error = ErrorSums()
    var readingNanoseconds: UInt64 = 0
    var quantizingNanoseconds: UInt64 = 0
  }

  /// As many f32 bytes as a chunk takes, unless a single panel is larger.
  static let chunkBytes = 2 << 20

  /// The chunks of `tensor`, in order.
  static func chunks(of tensor: PlannedTensor, index: Int) -> [Chunk] {
    let step = tensor.type.isQuantized ? PanelLayout.rowsPerPanel : 1
    let rows = max(1, chunkBytes / (4 * tensor.columns) / step) * step
    return stride(from: 0, to: tensor.rows, by: rows).map { first in
      Chunk(tensor: index, rows: first..<min(first + rows, tensor.rows))
    }
  }

  let source: any TensorSource

  /// Makes the bytes of `rows` of `tensor`; the caller deallocates them.
  func encode(_ tensor: PlannedTensor, rows: Range<Int>) throws(SquintError) -> Output {
    let start = nanoseconds()
    if tensor.isKept { return try keep(tensor, rows: rows, start: start) }
    let numbers = UnsafeMutableBufferPointer<Float>.allocate(capacity: rows.count * tensor.columns)
    defer { numbers.deallocate() }
    try read(tensor, rows: rows, into: numbers)
    // The quantizers look for themselves.
    guard tensor.type.isQuantized || Self.areFinite(numbers) else {
      throw .badData(
        source.path(of: tensor.source),
        "tensor \(printable(tensor.source.name)) has a number that is infinite or not a number; the checkpoint is broken"
      )
    }
    let read = nanoseconds()
    var output = Output(bytes: Self.allocate(tensor, rows: rows), readingNanoseconds: read - start)
    let result = Result { () throws(SquintError) in
      switch tensor.type {
      case .f32: memcpy(output.bytes.baseAddress!, numbers.baseAddress!, output.bytes.count)
      case .f16: try encodeF16(tensor, numbers, &output)
      case .bf16: encodeBF16(numbers, &output)
      case .int8, .int4, .int4F16: try quantize(tensor, rows: rows, numbers, &output)
      }
    }
    if case .failure(let error) = result {
      output.bytes.deallocate()
      throw error
    }
    output.error.count += numbers.count
    output.quantizingNanoseconds = nanoseconds() - read
    return output
  }

  /// Whether no number is infinite or not a number; without a branch per number, so that the loop becomes vectors.
  private static func areFinite(_ numbers: UnsafeMutableBufferPointer<Float>) -> Bool {
    var largestExponent: UInt32 = 0
    for number in numbers { largestExponent = max(largestExponent, number.bitPattern & 0x7F80_0000) }
    return largestExponent != 0x7F80_0000
  }

  private static func allocate(_ tensor: PlannedTensor, rows: Range<Int>) -> UnsafeMutableRawBufferPointer {
    let shape = tensor.shape.count == 2 ? [rows.count, tensor.columns] : [rows.count]
    guard let count = tensor.type.byteCount(shape: shape) else { preconditionFailure("the plan was checked") }
    return .allocate(byteCount: count, alignment: PanelLayout.alignment)
  }

  /// Reads `rows` of the output's order.
  private func read(
    _ tensor: PlannedTensor, rows: Range<Int>, into numbers: UnsafeMutableBufferPointer<Float>
  ) throws(SquintError) {
    guard tensor.rowOrder != .same else {
      try source.read(tensor.source, rows: rows, into: numbers)
      return
    }
    for (index, row) in rows.enumerated() {
      let from = tensor.rowOrder.sourceRow(row)
      let start = index * tensor.columns
      try source.read(
        tensor.source, rows: from..<from + 1,
        into: UnsafeMutableBufferPointer(rebasing: numbers[start..<start + tensor.columns]))
    }
  }

  // MARK: Plain types

  private func encodeF16(
    _ tensor: PlannedTensor, _ numbers: UnsafeMutableBufferPointer<Float>, _ output: inout Output
  ) throws(SquintError) {
    let halves = output.bytes.bindMemory(to: UInt16.self)
    for i in numbers.indices {
      let bits = HalfPrecision.bits(numbers[i])
      guard bits & 0x7FFF != 0x7C00 else {
        throw .badData(
          source.path(of: tensor.source),
          "tensor \(printable(tensor.source.name)) has the number \(numbers[i]), which is too large for f16; use bf16 or f32"
        )
      }
      halves[i] = bits.littleEndian
      output.error.add(numbers[i], HalfPrecision.float(bits))
    }
  }

  private func encodeBF16(_ numbers: UnsafeMutableBufferPointer<Float>, _ output: inout Output) {
    let halves = output.bytes.bindMemory(to: UInt16.self)
    for i in numbers.indices {
      let bits = numbers[i].bitPattern
      // To the nearest, ties to even; not beyond the largest finite number, which is no further away.
      let rounded = (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16
      let half = rounded & 0x7F80 == 0x7F80 ? bits >> 16 : rounded
      halves[i] = UInt16(truncatingIfNeeded: half).littleEndian
      output.error.add(numbers[i], Float(bitPattern: half << 16))
    }
  }
}

/// Sums from which the relative error of a type is computed.
struct ErrorSums {
  var count = 0
  var squaredError = 0.0
  var squaredWeight = 0.0

  @inline(__always)
  mutating func add(_ weight: Float, _ stored: Float) {
    let difference = Double(weight - stored)
    squaredError += difference * difference
    squaredWeight += Double(weight) * Double(weight)
  }

  static func += (left: inout ErrorSums, right: ErrorSums) {
    left.count += right.count
    left.squaredError += right.squaredError
    left.squaredWeight += right.squaredWeight
  }
}

/// A clock that only moves forward, in nanoseconds.
func nanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
