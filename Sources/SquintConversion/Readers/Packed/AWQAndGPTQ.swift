import SquintFile

// AWQ (arXiv 2306.00978) and GPTQ (arXiv 2210.17323) call their tensors alike: `qweight`, `qzeros`, `scales`; the shapes tell
// them apart, and the layouts of each.
//
//            qweight                  qzeros                   scales
//   AWQ      [in, out / 8]            [groups, out / 8]        [groups, out]      numbers of a word in AWQ's order
//   GEMV     [out, in / 8]            [out, words]             [out, 8 · words]   AWQ's other layout, padded
//   GPTQ     [in · bits / 32, out]    [groups, out · bits/32]  [groups, out]      and g_idx [in], the group of each input
extension PackedReading {
  /// The matrix whose words are `weights`.
  mutating func wordsBesideScales(_ weights: SourceTensor, stem: String) throws(SquintError) -> any PackedTensor {
    guard let scales = take(stem, "scales") else { throw missing("scales", weights) }
    let zeros = take(stem, "qzeros")
    let index = take(stem, "g_idx")
    guard isMatrix(weights), weights.type == .i32 || weights.type == .u32 else {
      throw wrong(
        weights,
        "shape \(weights.shape) in \(weights.type.name) is not supported; AWQ and GPTQ have matrices of 32-bit words")
    }
    guard isMatrix(scales), scales.type.isReadable else { throw unfit(scales, weights) }
    var matrix: PackedMatrix
    if index == nil, scales.rows == weights.rows {
      matrix = try gemv(weights, scales: scales, zeros: zeros)
    } else if index == nil, scales.columns == 8 * weights.columns {
      matrix = try awq(weights, scales: scales, zeros: zeros)
    } else if scales.columns == weights.columns {
      matrix = try gptq(weights, scales: scales, zeros: zeros, index: index)
    } else {
      throw unfit(scales, weights)
    }
    if let bits = settings.bits, bits != matrix.codes.bits, settings.general["dynamic"] == nil {
      remark("the configuration says \(bits) bits, what is stored has \(matrix.codes.bits)", weights)
    }
    if let size = settings.groupSize, size > 0, size != matrix.groupSize, size < matrix.columns,
      settings.general["dynamic"] == nil
    {
      remark("the configuration says groups of \(size), what is stored has groups of \(matrix.groupSize)", weights)
    }
    try matrix.takeExactBlocks(from: source)
    return matrix
  }

  /// The columns of a group where `groups` groups are `columns`; nil where they are no groups of one size.
  private func groupSize(columns: Int, groups: Int) -> Int? {
    guard groups > 0, groups <= columns else { return nil }
    // The last group may be shorter, so that sizes are not unique: what is said comes first.
    let said = settings.groupSize.map { $0 > 0 ? min($0, columns) : columns }
    for size in [said, (columns + groups - 1) / groups].compactMap({ $0 })
    where size > 0 && (columns + size - 1) / size == groups {
      return size
    }
    return nil
  }

  // MARK: AWQ

  private func awq(
    _ weights: SourceTensor, scales: SourceTensor, zeros: SourceTensor?
  ) throws(SquintError) -> PackedMatrix {
    let (columns, rows, groups) = (weights.rows, scales.columns, scales.rows)
    guard let size = groupSize(columns: columns, groups: groups), columns % size == 0,
      let codes = PackedCodes(weights, bits: 4, rows: rows, columns: columns, packsRows: false, isAWQOrder: true),
      let numbers = GroupNumbers(scales, rows: rows, groups: groups, isGroupsFirst: true)
    else { throw unfit(scales, weights) }
    var offsets = PackedMatrix.Offsets.zero(8)
    if let zeros {
      guard let stored = PackedCodes(zeros, bits: 4, rows: rows, columns: groups, packsRows: false, isAWQOrder: true)
      else {
        throw unfit(zeros, weights)
      }
      offsets = .zeros(stored, adding: 0)
    }
    return PackedMatrix(scheme: "AWQ", codes: codes, scales: numbers, offsets: offsets, groupSize: size)
  }

  /// AWQ's layout for products with one vector (awq/modules/linear/gemv.py): the words of a group's scales are padded, so that
  /// only the configuration tells how many columns a group has.
  private func gemv(
    _ weights: SourceTensor, scales: SourceTensor, zeros: SourceTensor?
  ) throws(SquintError) -> PackedMatrix {
    let rows = weights.rows
    guard let zeros else { throw missing("qzeros", weights) }
    let (columns, overflow) = weights.columns.multipliedReportingOverflow(by: 8)
    let said = settings.groupSize ?? 128
    let size = said > 0 ? said : columns
    guard !overflow, columns % size == 0,
      let codes = PackedCodes(weights, bits: 4, rows: rows, columns: columns, packsRows: true)
    else { throw unfit(scales, weights) }
    let groups = columns / size
    // `calculate_zeros_width`: whole words, and a whole number of several for smaller groups.
    let several = size >= 128 ? 1 : size == 64 ? 2 : 4
    let words = ((groups + 7) / 8 + several - 1) / several * several
    guard let numbers = GroupNumbers(scales, rows: rows, groups: groups, isPadded: true), scales.columns == 8 * words
    else {
      throw unfit(scales, weights)
    }
    guard let stored = PackedCodes(zeros, bits: 4, rows: rows, columns: groups, packsRows: true, isPadded: true) else {
      throw unfit(zeros, weights)
    }
    return PackedMatrix(
      scheme: "AWQ", codes: codes, scales: numbers, offsets: .zeros(stored, adding: 0), groupSize: size)
  }

  // MARK: GPTQ

  private mutating func gptq(
    _ weights: SourceTensor, scales: SourceTensor, zeros: SourceTensor?, index: SourceTensor?
  ) throws(SquintError) -> PackedMatrix {
    let (rows, groups) = (weights.columns, scales.rows)
    // The zero points have as many bits as the weights, and their number is known.
    let possible = ([settings.bits].compactMap { $0 } + [4, 8, 3, 2]).filter { [2, 3, 4, 8].contains($0) }
    guard let bits = possible.first(where: { zeros == nil || zeros?.shape == [groups, (rows * $0 + 31) / 32] }) else {
      throw unfit(zeros ?? scales, weights)
    }
    let (wordBits, overflow) = weights.rows.multipliedReportingOverflow(by: 32)
    guard !overflow else { throw unfit(scales, weights) }
    // The last word may not be full; g_idx has a number for each column.
    let columns = index?.elementCount ?? wordBits / bits
    guard columns > 0, columns <= PackedCodes.longestLine,
      let codes = PackedCodes(weights, bits: bits, rows: rows, columns: columns, packsRows: true, isWordsFirst: true),
      let numbers = GroupNumbers(scales, rows: rows, groups: groups, isGroupsFirst: true)
    else { throw unfit(index ?? scales, weights) }
    var size = groupSize(columns: columns, groups: groups)
    let groupIndex = try index.flatMap { (index) throws(SquintError) in
      try self.groupIndex(index, columns: columns, groups: groups, size: size, weights: weights)
    }
    if groupIndex != nil { size = size ?? (columns + groups - 1) / groups }
    guard let size else { throw unfit(scales, weights) }
    // With act-order the columns are in groups that only the index tells.
    if index == nil, groups > 1, settings.general["desc_act"]?.bool == true {
      throw missing("g_idx", weights)
    }
    var offsets = PackedMatrix.Offsets.zero(1 << (bits - 1))
    if let zeros {
      guard let stored = PackedCodes(zeros, bits: bits, rows: rows, columns: groups, packsRows: false) else {
        throw unfit(zeros, weights)
      }
      offsets = .zeros(stored, adding: try storesZerosLessOne(stored) ? 1 : 0)
    }
    var matrix = PackedMatrix(scheme: "GPTQ", codes: codes, scales: numbers, offsets: offsets, groupSize: size)
    matrix.groupIndex = groupIndex
    if groupIndex != nil { matrix.remark = ", act-order" }
    return matrix
  }

  /// Whether each zero point is stored as one less: the first format, `gptq`, does so, `gptq_v2` does not.
  ///
  /// Tensors show it only where all zero points are the middle, which is 2^(bits - 1): a symmetric matrix.
  private mutating func storesZerosLessOne(_ zeros: PackedCodes) throws(SquintError) -> Bool {
    let format = either(settings.general["checkpoint_format"]?.string, settings.general["format"]?.string)
    // AutoRound's own kernels take them as they are; its formats with GPTQ in the name, as GPTQ has them.
    let backend = settings.general["backend"]?.string ?? ""
    let isSecond =
      format?.lowercased() == "gptq_v2" || backend.hasPrefix("auto_round") && !backend.contains("gptq")
    let middle = UInt8(1 << (zeros.bits - 1))
    guard settings.general["sym"]?.bool != false, let only = try onlyNumber(zeros),
      only == middle || only == middle - 1
    else { return !isSecond }
    if (only == middle) != isSecond {
      remark(
        "the zero points are stored as in \(isSecond ? "gptq" : "gptq_v2"), not \(isSecond ? "gptq_v2" : "gptq") as the "
          + "configuration has it", zeros.tensor)
    }
    return only != middle
  }

  /// The number that all of `codes` are; nil where they differ.
  private func onlyNumber(_ codes: PackedCodes) throws(SquintError) -> UInt8? {
    let step = max(1, (1 << 16) / codes.columns)
    var only: UInt8?
    for first in stride(from: 0, to: codes.rows, by: step) {
      let rows = first..<min(first + step, codes.rows)
      let numbers = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: rows.count * codes.columns)
      defer { numbers.deallocate() }
      try codes.read(rows, from: source, into: numbers.baseAddress!)
      let wanted = only ?? numbers[0]
      guard numbers.allSatisfy({ $0 == wanted }) else { return nil }
      only = wanted
    }
    return only
  }
}
