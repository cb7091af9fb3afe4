import SquintFile

// Weights of a byte, with one scale (ModelOpt, compressed-tensors: tensor), one for each row (FBGEMM, compressed-tensors:
// channel) or one for each block of rows and columns (DeepSeek, Qwen3: 128 × 128). Whatever the scale is called, weights are
// multiplied by it.
extension PackedReading {
  private static let scaleEndings = ["weight_scale_inv", "weight_scale", "scale"]

  private func scale(of stem: String) -> SourceTensor? {
    Self.scaleEndings.lazy.compactMap { source.tensor(named: "\(stem).\($0)") }.first
  }

  /// Eight-bit floats. Without a scale they are numbers as they stand, unless others have one.
  mutating func float8(_ weights: SourceTensor, stem: String) throws(SquintError) -> ScaledMatrix? {
    guard let scales = scale(of: stem) else {
      let others = source.tensors.lazy.filter { $0.type == weights.type && $0.name.hasSuffix(".weight") }
      guard settings.general.isNull,
        !others.contains(where: { scale(of: String($0.name.dropLast(".weight".count))) != nil })
      else { throw missing("weight_scale", weights) }
      return nil
    }
    return try scaled(weights, scales, scheme: "FP8")
  }

  /// Whole numbers of a byte, as compressed-tensors stores them for products in int8.
  mutating func bytes(_ weights: SourceTensor, stem: String) throws(SquintError) -> ScaledMatrix? {
    guard let scales = source.tensor(named: "\(stem).weight_scale") else { return nil }
    if let zero = source.tensor(named: "\(stem).weight_zero_point") {
      throw wrong(zero, "zero points of 8-bit weights are not supported; use the checkpoint that it was made from")
    }
    return try scaled(weights, scales, scheme: "compressed-tensors")
  }

  private mutating func scaled(
    _ weights: SourceTensor, _ stored: SourceTensor, scheme: String
  ) throws(SquintError) -> ScaledMatrix {
    // MXFP8 has powers of two, as bytes without a type of their own.
    let scales = stored.type == .u8 ? stored.seen(as: .f8e8m0) : stored
    guard isMatrix(weights) else {
      throw wrong(weights, "shape \(weights.shape) is not supported; quantized weights are matrices")
    }
    use(scales)
    let (rows, columns) = (weights.rows, weights.columns)
    if scales.elementCount == 1, let one = scales.reshaped([1, 1]), let numbers = GroupNumbers(one, rows: 1, groups: 1)
    {
      return ScaledMatrix(
        scheme: scheme, weights: weights, scales: numbers, rowsPerScale: rows, columnsPerScale: columns)
    }
    if let numbers = GroupNumbers(scales, rows: rows, groups: 1) {
      return ScaledMatrix(
        scheme: scheme, weights: weights, scales: numbers, rowsPerScale: 1, columnsPerScale: columns)
    }
    // Blocks may be cut at the edges, so that their size does not follow from the shapes; the last choice is whole ones.
    guard isMatrix(scales) else { throw unfit(scales, weights) }
    for (height, width) in [saidBlock, (128, 128), (rows / scales.rows, columns / scales.columns)].compactMap({ $0 })
    where height > 0 && width > 0 && (rows - 1) / height + 1 == scales.rows
      && (columns - 1) / width + 1 == scales.columns
    {
      guard let numbers = GroupNumbers(scales, rows: scales.rows, groups: scales.columns) else { break }
      if let said = saidBlock, said != (height, width) {
        remark(
          "the configuration says blocks of \(said.0) × \(said.1), what is stored has blocks of \(height) × \(width)",
          weights
        )
      }
      return ScaledMatrix(
        scheme: scheme, weights: weights, scales: numbers, rowsPerScale: height, columnsPerScale: width)
    }
    throw unfit(scales, weights)
  }

  /// `weight_block_size`, or compressed-tensors' `block_structure`.
  private var saidBlock: (Int, Int)? {
    let groups = settings.general["config_groups"]?.object?.members.map(\.value) ?? []
    let sizes = [settings.general["weight_block_size"]] + groups.map { $0["weights"]?["block_structure"] }
    guard let size = sizes.lazy.compactMap({ $0?.array }).first, size.count == 2, let height = size[0].int,
      let width = size[1].int
    else { return nil }
    return (height, width)
  }
}
