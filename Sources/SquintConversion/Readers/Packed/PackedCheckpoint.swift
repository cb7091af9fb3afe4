import SquintFile

/// A checkpoint whose matrices are stored in few bits, seen as an ordinary one: each is `NAME.weight` [rows, columns], whatever
/// tensors it is made from, and the others are as they are stored.
///
/// What is stored decides for each matrix by itself; the configuration is asked only where tensors do not tell.
struct PackedCheckpoint: TensorSource {
  let tensors: [SourceTensor]
  private let source: any TensorSource
  private let places: [ExactString: Int]
  private let packed: [ExactString: any PackedTensor]

  /// - Parameters:
  ///   - notes: takes what was read, and where stored and said differ.
  /// - Throws: `SquintError.badData` which names the tensor that does not fit the others, or the scheme that is not read.
  init(_ source: any TensorSource, settings: PackedSettings, notes: inout [String]) throws(SquintError) {
    var reading = PackedReading(source: source, settings: settings)
    try reading.readAll()
    notes += reading.notes
    var tensors: [SourceTensor] = []
    var places: [ExactString: Int] = [:]
    for tensor in source.tensors where !reading.used.contains(ExactString(tensor.name)) {
      places[ExactString(tensor.name)] = tensors.count
      tensors.append(tensor)
    }
    for (name, matrix) in reading.matrices {
      guard
        let tensor = SourceTensor(
          name: name, shape: [matrix.rows, matrix.columns], type: matrix.type, part: matrix.weights.part,
          offset: matrix.weights.offset)
      else {
        throw reading.wrong(matrix.weights, "a matrix of \(matrix.rows) × \(matrix.columns) numbers is too large")
      }
      if places.updateValue(tensors.count, forKey: ExactString(name)) != nil {
        throw reading.wrong(matrix.weights, "there is \(printable(name)) beside it, which would be the same matrix")
      }
      tensors.append(tensor)
    }
    self.tensors = tensors
    self.source = source
    self.places = places
    packed = Dictionary(uniqueKeysWithValues: reading.matrices.map { (ExactString($0.name), $0.matrix) })
  }

  /// Whether all tensors are as they are stored.
  var isPlain: Bool { packed.isEmpty }

  func tensor(named name: String) -> SourceTensor? { places[ExactString(name)].map { tensors[$0] } }

  func path(of tensor: SourceTensor) -> String { source.path(of: tensor) }

  func typeName(of tensor: SourceTensor) -> String {
    packed[ExactString(tensor.name)]?.description ?? source.typeName(of: tensor)
  }

  func bitsPerWeight(of tensor: SourceTensor) -> Double? {
    guard let matrix = packed[ExactString(tensor.name)] else { return source.bitsPerWeight(of: tensor) }
    return matrix.bits.map(Double.init)
  }

  func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) {
    guard let matrix = packed[ExactString(tensor.name)] else {
      return try source.readBlocks(of: tensor, blocks: blocks, into: buffer)
    }
    let (blockBytes, blocksPerRow) = (matrix.type.bytesPerBlock, matrix.columns / matrix.type.elementsPerBlock)
    guard blocks.lowerBound >= 0, blocks.upperBound <= matrix.rows * blocksPerRow,
      buffer.count == blocks.count * blockBytes
    else { throw SquintError(.internalError, "tensor \(tensor.name): blocks \(blocks) do not exist or do not fit") }
    let rowBytes = blocksPerRow * blockBytes
    let step = max(1, TensorEncoder.chunkBytes / rowBytes)
    var first = blocks.lowerBound
    while first < blocks.upperBound {
      // Whole rows go where they belong; a part of one is cut out of it.
      let row = first / blocksPerRow
      let whole = min(step, blocks.upperBound / blocksPerRow - row)
      let end: Int
      if first % blocksPerRow == 0, whole > 0 {
        end = first + whole * blocksPerRow
        let offset = (first - blocks.lowerBound) * blockBytes
        try matrix.readRows(
          row..<row + whole, from: source,
          into: UnsafeMutableRawBufferPointer(rebasing: buffer[offset..<offset + whole * rowBytes]))
      } else {
        end = min((row + 1) * blocksPerRow, blocks.upperBound)
        let numbers = UnsafeMutableRawBufferPointer.allocate(byteCount: rowBytes, alignment: 64)
        defer { numbers.deallocate() }
        try matrix.readRows(row..<row + 1, from: source, into: numbers)
        let start = (first - row * blocksPerRow) * blockBytes
        UnsafeMutableRawBufferPointer(rebasing: buffer[((first - blocks.lowerBound) * blockBytes)...])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: numbers[start..<start + (end - first) * blockBytes]))
      }
      first = end
    }
  }
}

/// What a configuration says of quantized weights.
struct PackedSettings {
  /// `quantization_config`, or the file that stood for it: AutoGPTQ's quantize_config.json, AutoAWQ's quant_config.json.
  let general: JSONValue
  /// MLX's `quantization`.
  let mlx: JSONValue

  /// - Parameter config: config.json of `folder`.
  /// - Throws: `SquintError.badData` where a file is no JSON.
  init(config: JSONValue, folder: CheckpointFolder) throws(SquintError) {
    let configs = [config, config["text_config"] ?? .null]
    func first(_ keys: [String]) -> JSONValue? {
      configs.lazy.flatMap { config in keys.lazy.compactMap { config[$0] } }.first
    }
    var general = first(["quantization_config", "compression_config"])
    for name in ["quantize_config.json", "quant_config.json"] where general == nil {
      general = try folder.json(name)
    }
    self.general = general ?? .null
    mlx = first(["quantization"]) ?? general ?? .null
  }

  /// What MLX says of the matrix `stem` alone; the names there may begin with more or less than those of the tensors.
  func mlx(of stem: String) -> JSONValue? {
    if let own = mlx[stem] { return own }
    return mlx.object?.members.first { stem.hasSuffix(".\($0.key)") || $0.key.hasSuffix(".\(stem)") }?.value
  }

  /// `bits` or AutoAWQ's `w_bit`.
  var bits: Int? { either(general["bits"]?.int, general["w_bit"]?.int) }

  /// `group_size` or AutoAWQ's `q_group_size`; -1 is a row.
  var groupSize: Int? { either(general["group_size"]?.int, general["q_group_size"]?.int) }
}
