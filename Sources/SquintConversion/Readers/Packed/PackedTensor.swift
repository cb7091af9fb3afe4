import SquintFile

/// A matrix that a checkpoint stores in few bits, beside what turns them into numbers.
protocol PackedTensor: Sendable {
  /// The tensor with the weights, which messages name.
  var weights: SourceTensor { get }
  var rows: Int { get }
  var columns: Int { get }
  /// The scheme, its bits and its groups, for people.
  var description: String { get }
  /// How many bits a weight has where it is one of few whole numbers; nil for floats.
  var bits: Int? { get }
  /// The blocks that `readRows` writes: f32, or a type in blocks that holds exactly the same numbers.
  var type: SourceType { get }

  /// Writes rows of the matrix as blocks of `type`.
  ///
  /// - Throws: as `TensorSource.readBlocks`, and `SquintError.badData` which names the tensor with a number that cannot be.
  func readRows(
    _ rows: Range<Int>, from source: any TensorSource, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError)
}

/// Whole numbers with a scale and a zero point, or a scale and a minimum, for each group of columns of each row.
struct PackedMatrix: PackedTensor {
  let scheme: String
  let codes: PackedCodes
  let scales: GroupNumbers
  let offsets: Offsets
  /// Columns of a group; the last may have fewer.
  let groupSize: Int
  /// The group of each column, where they are not in order.
  var groupIndex: [Int32]?
  /// What the scheme does beside, for people.
  var remark = ""
  private(set) var type = SourceType.f32

  enum Offsets: Sendable {
    /// w = scale · (q - zero)
    case zero(Int)
    /// w = scale · (q - zero), a zero for each group: the stored number and `adding`, within the bits.
    case zeros(PackedCodes, adding: Int)
    /// w = scale · q + minimum
    case minimums(GroupNumbers)
  }

  init(scheme: String, codes: PackedCodes, scales: GroupNumbers, offsets: Offsets, groupSize: Int) {
    self.scheme = scheme
    self.codes = codes
    self.scales = scales
    self.offsets = offsets
    self.groupSize = groupSize
  }

  var weights: SourceTensor { codes.tensor }
  var rows: Int { codes.rows }
  var columns: Int { codes.columns }
  var bits: Int? { codes.bits }

  var description: String {
    let groups = scales.groups == 1 ? "a scale for each row" : "groups of \(grouped(groupSize))"
    return "\(scheme) int\(codes.bits), \(groups)\(remark)"
  }

  // MARK: Numbers

  func readRows(
    _ rows: Range<Int>, from source: any TensorSource, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    let codes = UnsafeMutablePointer<UInt8>.allocate(capacity: rows.count * columns)
    defer { codes.deallocate() }
    try self.codes.read(rows, from: source, into: codes)
    let scales = try scales.read(rows, from: source)
    switch type {
    case .q41: writeQ41(rows.count, codes, scales, try minimums(rows, scales: scales, from: source), buffer)
    case .q80: writeQ80(rows.count, codes, scales, buffer)
    default:
      let output = buffer.bindMemory(to: Float.self)
      switch offsets {
      case .minimums(let numbers):
        let minimums = try numbers.read(rows, from: source)
        forEachRun(rows.count) { columns, group in
          for place in columns { output[place] = scales[group] * Float(codes[place]) + minimums[group] }
        }
      default:
        let zeros = try zeros(rows, from: source)
        forEachRun(rows.count) { columns, group in
          for place in columns { output[place] = scales[group] * Float(Int32(codes[place]) &- zeros[group]) }
        }
      }
    }
  }

  /// Calls `body` with runs of places in `rows` rows whose group is the same, and the place of that group.
  private func forEachRun(_ rows: Int, _ body: (Range<Int>, Int) -> Void) {
    let groups = scales.groups
    for row in 0..<rows {
      let start = row * columns
      if let groupIndex {
        for column in 0..<columns {
          body(start + column..<start + column + 1, row * groups + Int(groupIndex[column]))
        }
      } else {
        for group in 0..<groups {
          body(start + group * groupSize..<start + min((group + 1) * groupSize, columns), row * groups + group)
        }
      }
    }
  }

  /// The zero points of `rows` [rows, groups].
  private func zeros(_ rows: Range<Int>, from source: any TensorSource) throws(SquintError) -> [Int32] {
    let count = rows.count * scales.groups
    switch offsets {
    case .zero(let zero): return [Int32](repeating: Int32(zero), count: count)
    case .zeros(let stored, let added):
      let zeros = UnsafeMutablePointer<UInt8>.allocate(capacity: count)
      defer { zeros.deallocate() }
      try stored.read(rows, from: source, into: zeros)
      return (0..<count).map { (Int32(zeros[$0]) + Int32(added)) & (1 << Int32(stored.bits) - 1) }
    case .minimums: preconditionFailure("there are minimums")
    }
  }

  /// What is added to scale · q, [rows, groups].
  private func minimums(
    _ rows: Range<Int>, scales: [Float], from source: any TensorSource
  ) throws(SquintError) -> [Float] {
    if case .minimums(let numbers) = offsets { return try numbers.read(rows, from: source) }
    return zip(scales, try zeros(rows, from: source)).map { -Float($1) * $0 }
  }

  // MARK: Blocks

  /// Takes the type in blocks that holds every number exactly, where there is one: Q4_1, f16 d and m with w = d · q + m, or Q8_0,
  /// f16 d with w = d · (q - 128). It reads all scales and offsets.
  ///
  /// - Throws: as `readRows`.
  mutating func takeExactBlocks(from source: any TensorSource) throws(SquintError) {
    guard groupIndex == nil, columns % SourceType.q41.elementsPerBlock == 0,
      scales.groups == 1 || groupSize % SourceType.q41.elementsPerBlock == 0
    else { return }
    guard bits ?? 8 <= 4 || bits == 8 else { return }
    let step = max(1, Self.numbersAtOnce / scales.groups)
    for first in stride(from: 0, to: rows, by: step) {
      let rows = first..<min(first + step, rows)
      let scales = try scales.read(rows, from: source)
      guard scales.allSatisfy(isHalf) else { return }
      if bits == 8 {
        if case .minimums = offsets { return }
        guard try zeros(rows, from: source).allSatisfy({ $0 == 128 }) else { return }
      } else {
        guard try minimums(rows, scales: scales, from: source).allSatisfy(isHalf) else { return }
      }
    }
    type = bits == 8 ? .q80 : .q41
  }

  private static let numbersAtOnce = 1 << 16

  private func writeQ41(
    _ rows: Int, _ codes: UnsafePointer<UInt8>, _ scales: [Float], _ minimums: [Float],
    _ buffer: UnsafeMutableRawBufferPointer
  ) {
    forEachBlock(rows) { index, group in
      let block = buffer.baseAddress! + index * SourceType.q41.bytesPerBlock
      block.storeBytes(of: HalfPrecision.bits(scales[group]).littleEndian, as: UInt16.self)
      block.storeBytes(of: HalfPrecision.bits(minimums[group]).littleEndian, toByteOffset: 2, as: UInt16.self)
      let q = codes + 32 * index
      for j in 0..<16 { block.storeBytes(of: q[j] | q[j + 16] << 4, toByteOffset: 4 + j, as: UInt8.self) }
    }
  }

  private func writeQ80(
    _ rows: Int, _ codes: UnsafePointer<UInt8>, _ scales: [Float], _ buffer: UnsafeMutableRawBufferPointer
  ) {
    forEachBlock(rows) { index, group in
      let block = buffer.baseAddress! + index * SourceType.q80.bytesPerBlock
      block.storeBytes(of: HalfPrecision.bits(scales[group]).littleEndian, as: UInt16.self)
      for j in 0..<32 { block.storeBytes(of: codes[32 * index + j] ^ 0x80, toByteOffset: 2 + j, as: UInt8.self) }
    }
  }

  /// Calls `body` with the index of each block of 32 and the place of its group.
  private func forEachBlock(_ rows: Int, _ body: (Int, Int) -> Void) {
    let blocks = columns / 32
    for row in 0..<rows {
      for block in 0..<blocks { body(row * blocks + block, row * scales.groups + 32 * block / groupSize) }
    }
  }
}

/// Whether binary16 holds `number`, with the same sign.
private func isHalf(_ number: Float) -> Bool {
  HalfPrecision.float(HalfPrecision.bits(number)).bitPattern == number.bitPattern
}

/// Numbers of a byte, with a scale for blocks of rows and columns: w = scale · number.
struct ScaledMatrix: PackedTensor {
  let scheme: String
  /// F8_E4M3, F8_E5M2 or I8.
  let weights: SourceTensor
  /// A row for each block of rows.
  let scales: GroupNumbers
  let rowsPerScale: Int
  let columnsPerScale: Int

  var rows: Int { weights.rows }
  var columns: Int { weights.columns }
  var type: SourceType { .f32 }
  var bits: Int? { weights.type == .i8 ? 8 : nil }

  var description: String {
    let name = weights.type == .i8 ? "int8" : weights.type.name.dropFirst("F8_".count)
    let shape =
      columnsPerScale < columns || rowsPerScale > 1 && rowsPerScale < rows
      ? "blocks of \(rowsPerScale) × \(columnsPerScale)" : rowsPerScale == 1 ? "a scale for each row" : "one scale"
    return "\(scheme) \(name), \(shape)"
  }

  func readRows(
    _ rows: Range<Int>, from source: any TensorSource, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    let output = buffer.bindMemory(to: Float.self)
    if weights.type == .i8 {
      // In the last quarter of the numbers' room: each is read before it is written over.
      let count = rows.count * columns
      let raw = UnsafeMutableRawBufferPointer(rebasing: buffer[(3 * count)...])
      try source.readPart(weights, rows: rows, columns: 0..<columns, into: raw)
      for place in 0..<count { output[place] = Float(raw.load(fromByteOffset: place, as: Int8.self)) }
    } else {
      try source.read(weights, rows: rows, into: output)
    }
    let firstScale = rows.lowerBound / rowsPerScale
    let scales = try scales.read(firstScale..<(rows.upperBound - 1) / rowsPerScale + 1, from: source)
    let groups = self.scales.groups
    for row in rows {
      let start = (row - rows.lowerBound) * columns
      for group in 0..<groups {
        let scale = scales[(row / rowsPerScale - firstScale) * groups + group]
        for place in start + group * columnsPerScale..<start + min((group + 1) * columnsPerScale, columns) {
          output[place] *= scale
        }
      }
    }
  }
}
