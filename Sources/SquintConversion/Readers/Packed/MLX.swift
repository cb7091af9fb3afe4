import SquintFile

extension PackedReading {
  /// What `weights`, a tensor `stem.weight`, is part of; nil where it is numbers as it stands.
  mutating func weight(_ weights: SourceTensor, stem: String) throws(SquintError) -> (any PackedTensor)? {
    switch weights.type {
    case .u32: try mlx(weights, stem: stem)
    case .f8e4m3, .f8e5m2: try float8(weights, stem: stem)
    case .i8: try bytes(weights, stem: stem)
    default: nil
    }
  }

  /// A matrix as MLX quantizes it (mlx.core.quantize, mode affine): `weight [out, in · bits / 32]`, a stream of bits for each row,
  /// `scales` and `biases [out, groups]`, w = scale · q + bias.
  private mutating func mlx(_ weights: SourceTensor, stem: String) throws(SquintError) -> PackedMatrix? {
    guard let scales = take(stem, "scales") else { return nil }
    let own = settings.mlx(of: stem)
    guard let biases = take(stem, "biases") else {
      let mode = either(own?["mode"]?.string, settings.mlx["mode"]?.string) ?? "affine"
      guard mode != "affine" else { throw missing("biases", weights) }
      throw wrong(
        weights,
        "it is quantized by MLX in the mode \(printable(mode)), of which only affine is supported; use the checkpoint that it was "
          + "made from")
    }
    guard isMatrix(weights), isMatrix(scales), scales.rows == weights.rows else { throw unfit(scales, weights) }
    let (rows, groups) = (weights.rows, scales.columns)
    let said = (
      bits: either(own?["bits"]?.int, settings.mlx["bits"]?.int),
      size: either(own?["group_size"]?.int, settings.mlx["group_size"]?.int)
    )
    // The shapes give the product of bits and group size alone.
    var choices: [(bits: Int, size: Int)] = []
    for size in [64, 32, 128] {
      for bits in [4, 8, 6, 5, 3, 2] where weights.columns % bits == 0 && weights.columns / bits * 32 == groups * size {
        choices.append((bits, size))
      }
    }
    let chosen =
      either(
        choices.first { $0.bits == said.bits && $0.size == said.size }, choices.first { $0.size == said.size },
        choices.first { $0.bits == said.bits }) ?? choices.first
    guard let (bits, size) = chosen,
      let codes = PackedCodes(weights, bits: bits, rows: rows, columns: groups * size, packsRows: true),
      let numbers = GroupNumbers(scales, rows: rows, groups: groups)
    else { throw unfit(scales, weights) }
    guard let minimums = GroupNumbers(biases, rows: rows, groups: groups) else { throw unfit(biases, weights) }
    if bits != said.bits || size != said.size {
      let what = said.bits.map { "\($0) bits in groups of \(said.size ?? 64)" } ?? "nothing of its bits"
      remark(
        "the configuration says \(what), what is stored is taken to have \(bits) bits in groups of \(size)", weights)
    }
    var matrix = PackedMatrix(
      scheme: "MLX", codes: codes, scales: numbers, offsets: .minimums(minimums), groupSize: size)
    try matrix.takeExactBlocks(from: source)
    return matrix
  }
}
