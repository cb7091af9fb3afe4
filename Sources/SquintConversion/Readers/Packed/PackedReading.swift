import SquintFile

/// Finds the matrices of a checkpoint that are stored in few bits, by the tensors that belong together.
struct PackedReading {
  let source: any TensorSource
  let settings: PackedSettings
  /// By their names as ordinary matrices.
  private(set) var matrices: [(name: String, matrix: any PackedTensor)] = []
  /// Tensors that are part of a matrix, or have no use.
  private(set) var used: Set<ExactString> = []
  private(set) var notes: [String] = []
  private var remarks: [String: (first: String, count: Int)] = [:]
  private var unused: [String: Int] = [:]

  init(source: any TensorSource, settings: PackedSettings) {
    self.source = source
    self.settings = settings
  }

  /// - Throws: `SquintError.badData` which names the tensor that does not fit the others, or what is not read.
  mutating func readAll() throws(SquintError) {
    for tensor in source.tensors {
      guard let dot = tensor.name.utf8.lastIndex(of: UInt8(ascii: ".")) else { continue }
      let stem = String(tensor.name[..<dot])
      let matrix: (any PackedTensor)? =
        switch tensor.name[tensor.name.utf8.index(after: dot)...] {
        case "qweight": try wordsBesideScales(tensor, stem: stem)
        case "weight_packed": try compressedTensors(tensor, stem: stem)
        case "weight": try weight(tensor, stem: stem)
        default: nil
        }
      guard let matrix else { continue }
      used.insert(ExactString(tensor.name))
      matrices.append((stem + ".weight", matrix))
    }
    guard !matrices.isEmpty else { return }
    try leaveOutActivations()
    var kinds: [String: Int] = [:]
    for (_, matrix) in matrices { kinds[matrix.description, default: 0] += 1 }
    let list = kinds.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map {
      "\($0.key) (\($0.value == 1 ? "1 matrix" : "\(grouped($0.value)) matrices"))"
    }
    notes.append(
      "the weights were quantized before: \(list.joined(separator: "; ")); what they lost then does not come back")
    for (remark, tensors) in remarks.sorted(by: { $0.key < $1.key }) {
      let more = tensors.count == 1 ? "" : " and \(grouped(tensors.count - 1)) more"
      notes.append("\(remark): \(printable(tensors.first))\(more)")
    }
    for (ending, count) in unused.sorted(by: { $0.key < $1.key }) {
      notes.append(
        "\(ending) of \(grouped(count)) modules is for quantized activations or a quantized cache and is not used")
    }
  }

  // MARK: Tensors and errors

  /// The tensor `stem.ending`, which then has its use; nil where there is none.
  mutating func take(_ stem: String, _ ending: String) -> SourceTensor? {
    guard let tensor = source.tensor(named: "\(stem).\(ending)") else { return nil }
    use(tensor)
    return tensor
  }

  /// Says that `tensor` has its use.
  mutating func use(_ tensor: SourceTensor) { used.insert(ExactString(tensor.name)) }

  func wrong(_ tensor: SourceTensor, _ what: String) -> SquintError {
    .badData(source.path(of: tensor), "tensor \(printable(tensor.name)): \(what)")
  }

  /// An error about a tensor whose shape does not fit that of the weights.
  func unfit(_ tensor: SourceTensor, _ weights: SourceTensor) -> SquintError {
    wrong(
      tensor,
      "shape \(tensor.shape) in \(tensor.type.name) does not fit \(printable(weights.name)) of shape \(weights.shape) in "
        + "\(weights.type.name); the checkpoint is damaged")
  }

  func missing(_ ending: String, _ weights: SourceTensor) -> SquintError {
    wrong(weights, "there is no \(ending) beside it; the checkpoint is incomplete")
  }

  /// Keeps a remark about `tensor`; the same about others is printed once.
  mutating func remark(_ text: String, _ tensor: SourceTensor) { remarks[text, default: (tensor.name, 0)].count += 1 }

  /// Two positive axes that are no more than a matrix could have.
  func isMatrix(_ tensor: SourceTensor) -> Bool {
    tensor.shape.count == 2 && tensor.shape.allSatisfy { $0 > 0 && $0 <= PackedCodes.longestLine }
  }

  /// The whole numbers of a small tensor.
  func integers(_ tensor: SourceTensor) throws(SquintError) -> [Int64] {
    let raw = UnsafeMutableRawBufferPointer.allocate(byteCount: tensor.byteCount, alignment: 16)
    defer { raw.deallocate() }
    try source.readBlocks(of: tensor, blocks: 0..<tensor.elementCount, into: raw)
    switch tensor.type {
    case .i64:
      return (0..<tensor.elementCount).map { Int64(littleEndian: raw.load(fromByteOffset: 8 * $0, as: Int64.self)) }
    case .i32:
      return (0..<tensor.elementCount).map {
        Int64(Int32(littleEndian: raw.load(fromByteOffset: 4 * $0, as: Int32.self)))
      }
    default:
      throw wrong(tensor, "numbers of type \(tensor.type.name) where I32 or I64 is expected; the checkpoint is damaged")
    }
  }

  // MARK: Beside the weights

  /// Scales of activations and of the cache: the model here quantizes them by itself.
  private static let activationEndings = [
    "input_scale", "input_scale_ub", "input_zero_point", "input_global_scale", "activation_scale", "output_scale",
    "output_zero_point",
    "k_scale", "v_scale", "q_scale", "prob_scale", "k_zero_point", "v_zero_point",
  ]

  private mutating func leaveOutActivations() throws(SquintError) {
    for tensor in source.tensors where !used.contains(ExactString(tensor.name)) {
      if tensor.name.hasSuffix(".act.scales") {
        throw wrong(
          tensor, "AWQ's scales of an activation are not supported; use the checkpoint that it was made from")
      }
      guard let ending = Self.activationEndings.first(where: { tensor.name.hasSuffix("." + $0) }) else { continue }
      used.insert(ExactString(tensor.name))
      unused[ending, default: 0] += 1
    }
  }
}
