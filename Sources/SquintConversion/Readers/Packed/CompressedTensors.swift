import SquintFile

extension PackedReading {
  /// A matrix as compressed-tensors packs it (pack-quantized): `weight_packed [out, in · bits / 32]`, a stream of bits for each row,
  /// `weight_shape`, `weight_scale [out, groups]`, and where there are `weight_zero_point [out · bits / 32, groups]` and
  /// `weight_g_idx [in]`.
  mutating func compressedTensors(_ weights: SourceTensor, stem: String) throws(SquintError) -> PackedMatrix {
    let format = settings.general["format"]?.string ?? "an unknown format"
    guard weights.type == .i32, let shapeTensor = take(stem, "weight_shape") else {
      throw wrong(
        weights,
        "it is packed by compressed-tensors in \(printable(format)), of which only pack-quantized is supported; use the "
          + "checkpoint that it was made from")
    }
    if let transforms = settings.general["transform_config"]?["config_groups"]?.object, !transforms.members.isEmpty {
      throw wrong(
        weights, "compressed-tensors with a transform_config is not supported; use the checkpoint that it was made from"
      )
    }
    guard let scales = take(stem, "weight_scale") else { throw missing("weight_scale", weights) }
    let zeros = take(stem, "weight_zero_point")
    guard isMatrix(weights), shapeTensor.elementCount == 2 else { throw unfit(shapeTensor, weights) }
    let shape = try integers(shapeTensor)
    guard shape.allSatisfy({ $0 > 0 && $0 <= Int64(PackedCodes.longestLine) }), shape[0] == Int64(weights.rows) else {
      throw wrong(
        shapeTensor,
        "the shape \(shape) does not fit \(printable(weights.name)) of shape \(weights.shape); the checkpoint is damaged"
      )
    }
    let (rows, columns) = (Int(shape[0]), Int(shape[1]))
    let said = saidBits
    let possible = said.isEmpty ? [4, 8, 2, 3, 5, 6, 7, 1] : said
    let codes = possible.lazy.compactMap {
      PackedCodes(weights, bits: $0, rows: rows, columns: columns, packsRows: true)
    }
    .first
    guard let codes else {
      throw wrong(
        weights,
        "shape \(weights.shape) does not hold \(columns) numbers a row in \(said.map(String.init).joined(separator: " or ")) "
          + "bits; it is damaged, or packed with holes by an old version of compressed-tensors")
    }
    let groups = scales.columns
    guard groups > 0, let numbers = GroupNumbers(scales, rows: rows, groups: groups), groups <= columns else {
      throw unfit(scales, weights)
    }
    let size = (columns + groups - 1) / groups
    guard (columns + size - 1) / size == groups else { throw unfit(scales, weights) }
    var offsets = PackedMatrix.Offsets.zero(1 << (codes.bits - 1))
    if let zeros {
      let stored = PackedCodes(
        zeros, bits: codes.bits, rows: rows, columns: groups, packsRows: false, isWordsFirst: true)
      guard let stored else { throw unfit(zeros, weights) }
      offsets = .zeros(stored, adding: 0)
    }
    var matrix = PackedMatrix(
      scheme: "compressed-tensors", codes: codes, scales: numbers, offsets: offsets, groupSize: size)
    if let index = take(stem, "weight_g_idx") {
      matrix.groupIndex = try groupIndex(index, columns: columns, groups: groups, size: size, weights: weights)
      if matrix.groupIndex != nil { matrix.remark = ", act-order" }
    }
    try matrix.takeExactBlocks(from: source)
    return matrix
  }

  /// The bits that the configuration's groups name.
  private var saidBits: [Int] {
    let groups = settings.general["config_groups"]?.object?.members.map(\.value) ?? []
    return groups.compactMap { $0["weights"]?["num_bits"]?.int }.filter { (1...8).contains($0) }
  }

  /// The group of each column; nil where they are in order.
  ///
  /// - Throws: `SquintError.badData` where there are not as many, or a group does not exist.
  func groupIndex(
    _ index: SourceTensor, columns: Int, groups: Int, size: Int?, weights: SourceTensor
  ) throws(SquintError) -> [Int32]? {
    guard index.shape == [columns] else { throw unfit(index, weights) }
    let values = try integers(index)
    if let bad = values.firstIndex(where: { $0 < 0 || $0 >= groups }) {
      throw wrong(
        index,
        "column \(grouped(bad)) is in group \(values[bad]), but there are \(grouped(groups)); the checkpoint is damaged"
      )
    }
    // In order they are as if they were not there.
    if let size, values.indices.allSatisfy({ values[$0] == Int64($0 / size) }) { return nil }
    return values.map { Int32($0) }
  }
}
