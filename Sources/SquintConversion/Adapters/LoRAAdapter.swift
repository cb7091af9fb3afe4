import SquintFile

/// A LoRA adapter of a decoder (arXiv 2106.09685), in a folder as PEFT's `save_pretrained` writes it: adapter_config.json and
/// adapter_model.safetensors.
struct LoRAAdapter: Sendable {
  /// The folder's name.
  let name: String
  /// By the name of the matrix in the output: `decoder.0.attention.q`.
  let updates: [String: LowRankUpdate]
  /// What the user should know, a line each.
  let notes: [String]

  /// - Parameters:
  ///   - maps: how the decoder's source calls its tensors. transformers' own names are always understood, so that an
  ///     adapter goes with a GGUF file of its model, or with a larger model that has its model inside.
  ///   - readsTrainables: whether something else reads what was trained beside it.
  /// - Throws: `SquintError.noInput` where a file is missing, `.badData` where one is broken or not supported; it names the
  ///   tensor that is not half of a pair.
  init(folder path: String, maps: [NameMap], readsTrainables: Bool = false) throws(SquintError) {
    let folder = CheckpointFolder(path: path)
    guard folder.has(Self.configurationFile) else {
      throw SquintError(
        .noInput,
        "\(folder.file(Self.configurationFile)): \(systemMessage(errno)); an adapter is a folder as PEFT saves it, with "
          + "\(Self.configurationFile) and \(Self.weightsFile)")
    }
    let place = folder.file(Self.configurationFile)
    let configuration = try LoRAConfiguration(JSONValue.read(path: place), place: place)
    let weights = folder.file(Self.weightsFile)
    guard folder.has(Self.weightsFile) || !folder.has("adapter_model.bin") else {
      throw .badData(
        folder.file("adapter_model.bin"), ForeignFile.pickle)
    }
    let source = try SafetensorsSource(paths: [weights])
    let maps = maps + Families.decoders.map(\.huggingFace.names)
    var pairs: [String: Pair] = [:]
    var targets: [String] = []
    for tensor in source.tensors {
      let (module, part) = try Self.part(tensor, place: weights)
      guard let target = Self.target(of: module, maps: maps) else {
        throw .badData(
          weights,
          "tensor \(printable(tensor.name)) has no matrix in the decoder, the only part that an adapter is merged into; "
            + LoRAConfiguration.remedy)
      }
      if pairs[target] == nil { targets.append(target) }
      var pair = pairs[target] ?? Pair(module: module)
      if let other = pair[keyPath: part] {
        throw .badData(
          weights, "tensors \(printable(other.name)) and \(printable(tensor.name)) are for the same matrix, \(target)")
      }
      pair[keyPath: part] = tensor
      pairs[target] = pair
    }
    guard !pairs.isEmpty else { throw .badData(weights, "there are no tensors of an adapter") }
    var updates: [String: LowRankUpdate] = [:]
    for target in targets {
      updates[target] = try pairs[target]?.update(source: source, configuration: configuration, place: weights)
    }
    name = lastComponent(folder.path)
    self.updates = updates
    // The original LLaVA keeps there what it trained beside the adapter.
    notes =
      folder.has(Self.llavaFile) && !readsTrainables
      ? ["\(folder.file(Self.llavaFile)) is not read; give a projector that is in it with --projector"] : []
  }

  static let configurationFile = "adapter_config.json"
  private static let weightsFile = "adapter_model.safetensors"
  private static let llavaFile = "non_lora_trainables.bin"

  /// For people.
  var description: String {
    let ranks = updates.values.map(\.rank)
    let (least, most) = (ranks.min() ?? 0, ranks.max() ?? 0)
    let rank = least == most ? "\(least)" : "\(least) to \(most)"
    return "adapter \(name) merged (LoRA, rank \(rank), \(updates.count) matrices)"
  }

  // MARK: Names

  /// The tensors for a matrix, as far as they have been found.
  private struct Pair {
    /// As PEFT calls it.
    let module: String
    var down: SourceTensor?
    var up: SourceTensor?
    /// The matrix itself: PEFT stores a head that has an adapter (peft/utils/save_and_load.py, `get_peft_model_state_dict`).
    var base: SourceTensor?

    func update(
      source: SafetensorsSource, configuration: LoRAConfiguration, place: String
    ) throws(SquintError) -> LowRankUpdate {
      guard let down, let up else {
        let there = either(down, up, base)?.name ?? ""
        throw .badData(
          place,
          "tensor \(printable(there)) has no \(down == nil ? "lora_A" : "lora_B") beside it; the adapter is incomplete")
      }
      for tensor in [down, up, base ?? up] {
        guard tensor.shape.count == 2 else {
          throw .badData(place, "tensor \(printable(tensor.name)) has shape \(tensor.shape); it must be a matrix")
        }
        guard tensor.type.isReadable else {
          throw .badData(
            place,
            "tensor \(printable(tensor.name)): numbers of type \(tensor.type.name) cannot be converted; save the adapter in "
              + "F32, F16 or BF16")
        }
      }
      let rank = configuration.rank(of: module)
      for (tensor, axis) in [(down, 0), (up, 1)] where tensor.shape[axis] != rank {
        throw .badData(
          place,
          "tensor \(printable(tensor.name)) has shape \(tensor.shape) and so rank \(grouped(tensor.shape[axis])), but "
            + "\(LoRAAdapter.configurationFile) says \(grouped(rank))")
      }
      let scale = Float(configuration.scale(of: module))
      guard scale.isFinite else {
        throw .badData(place, "tensor \(printable(down.name)): its lora_alpha is too large for f32")
      }
      return LowRankUpdate(source: source, down: down, up: up, scale: scale, base: base)
    }
  }

  /// What a tensor is of the pair of which module.
  private static func part(
    _ tensor: SourceTensor, place: String
  ) throws(SquintError) -> (module: String, WritableKeyPath<Pair, SourceTensor?>) {
    let prefix = "base_model.model."
    let parts: [(suffix: String, WritableKeyPath<Pair, SourceTensor?>)] = [
      (".lora_A.weight", \.down), (".lora_B.weight", \.up), (".base_layer.weight", \.base),
    ]
    for (suffix, part) in parts {
      guard tensor.name.hasPrefix(prefix), tensor.name.hasSuffix(suffix) else { continue }
      let module = tensor.name.utf8.dropFirst(prefix.utf8.count).dropLast(suffix.utf8.count)
      return (String(module) ?? "", part)
    }
    let what =
      tensor.name.contains("lora_embedding_")
      ? "adapts the embedding, which is not supported"
      : tensor.name.contains("lora_magnitude_vector")
        ? "belongs to DoRA, which is not supported"
        : "is neither lora_A.weight nor lora_B.weight of a module as PEFT saves it"
    throw .badData(place, "tensor \(printable(tensor.name)) \(what); \(LoRAConfiguration.remedy)")
  }

  /// The output's name of the module's matrix; nil where no rule gives one.
  private static func target(of module: String, maps: [NameMap]) -> String? {
    // Adapters have names of whatever class they were trained in.
    let name = "\(module).weight"
    for name in [name, NameSpelling.model.spelled(name)].compactMap({ $0 }) {
      for map in maps {
        if case .tensor(let target) = map.target(of: name) { return target }
      }
    }
    return nil
  }
}
