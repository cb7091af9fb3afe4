import SquintFile

// InstructMol (arXiv 2311.16208): MoleculeSTM's graph network, one or two matrices, Vicuna. Its program saves what it trained in a
// folder, beside which it needs Vicuna and MoleculeSTM's checkpoint; merged, all is one checkpoint.

extension MediaFamily {
  /// A whole checkpoint, as InstructMol's merge_lora_weights.py saves it.
  static let instructMol = MediaFamily(
    description: "instructmol", classes: ["LlavaGraphLlama"], recognizes: InstructMol.recognizes,
    decoderType: { _ in "llama" },
    others: { (checkpoint, notes) throws(SquintError) in [try checkpoint.instructMol(notes: &notes)] })
}

enum InstructMol {
  static let modelType = "llava_graph"
  /// MoleculeSTM's checkpoint.
  static let towerName = "molecule_model"
  /// What was trained beside an adapter, or alone before it.
  static let trainedNames = ["non_lora_trainables", "mm_projector"]
  /// The modality.
  static let kind = "molecule"

  @Sendable static func recognizes(_ config: JSONValue) -> Bool {
    let architectures = config["architectures"]?.array?.compactMap(\.string) ?? []
    return config["model_type"]?.string == modelType || architectures.contains("LlavaGraphLlamaForCausalLM")
      || config["mm_graph_tower"]?.string != nil
  }

  /// Vicuna's conversation, with which it was trained (conversation.py, `conv_vicuna_v1`); the one molecule of a message goes before its
  /// text (preprocess.py, `preprocess_multimodal`), and of several each where it stands.
  static let template = ChatTemplates.Usual(
    name: "Vicuna v1",
    source: """
      {{- bos_token }}\
      {%- set system = "A chat between a curious user and an artificial intelligence assistant. \
      The assistant gives helpful, detailed, and polite answers to the user's questions." %}\
      {%- if messages[0]['role'] == 'system' %}\
      {%- set system = messages[0]['content'] if messages[0]['content'] is string else messages[0]['content'][0]['text'] %}\
      {%- set messages = messages[1:] %}\
      {%- endif %}\
      {{- system + ' ' }}\
      {%- for message in messages %}\
      {%- if message['role'] == 'user' %}\
      {{- 'USER: ' }}\
      {%- if message['content'] is string %}\
      {{- message['content'] }}\
      {%- else %}\
      {%- set molecules = message['content'] | selectattr('type', 'equalto', 'molecule') | list %}\
      {%- if molecules | length == 1 %}\
      {{- '<image>\\n' }}\
      {%- for part in message['content'] if part['type'] == 'text' %}{{- part['text'] | trim if loop.length == 1 else part['text'] }}\
      {%- endfor %}\
      {%- else %}\
      {%- set place = namespace(leads=true) %}\
      {%- for part in message['content'] %}\
      {%- if part['type'] == 'molecule' %}{{- '<image>' }}{%- if place.leads %}{{- '\\n' }}{%- endif %}\
      {%- else %}{%- set place.leads = false %}{{- part['text'] }}{%- endif %}\
      {%- endfor %}\
      {%- endif %}\
      {%- endif %}\
      {{- ' ' }}\
      {%- else %}\
      {{- 'ASSISTANT: ' + (message['content'] if message['content'] is string else message['content'][0]['text']) + eos_token }}\
      {%- endif %}\
      {%- endfor %}\
      {%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{%- endif %}
      """)

  /// The way into the model for molecules, without its parts.
  static func parts(_ config: JSONValue, place: String) throws(SquintError) -> OtherParts {
    var parts = OtherParts(name: kind, place: place)
    // The vocabulary has no word for a molecule: its place is found in the text (mm_utils.py, `tokenizer_image_token`).
    parts.prompt.marker = "<image>"
    parts.prompt.isWithoutToken = true
    if try ConfigurationReader(json: config, place: place).flag("mm_use_im_start_end") == true {
      parts.prompt.singlePrefix = "<im_start>"
      parts.prompt.singleSuffix = "<im_end>"
    }
    parts.template = template
    return parts
  }

  /// Opens MoleculeSTM's checkpoint.
  static func tower(_ path: String, notes: inout [String]) throws(SquintError) -> any TensorSource {
    try SpelledTensors(SafetensorsSource(path: path), spelling: .molecule, place: path, notes: &notes)
  }
}

extension HuggingFaceVision {
  /// What a merged checkpoint has for molecules.
  fileprivate func instructMol(notes: inout [String]) throws(SquintError) -> OtherParts {
    var parts = try InstructMol.parts(config, place: place)
    let sizes = try MoleculeSTMSizes(config, place: place)
    let file = InstructMol.towerName + ".safetensors"
    if source.tensors.contains(where: { $0.name.hasPrefix("graph_tower.") }) {
      parts.encoder = try OtherEncoder(
        moleculeSTM: source, sizes: sizes, place: folder.path,
        beside: NameMap(module: "", stems: [], ignoredPrefixes: ["graph_tower.projector."]))
    } else if folder.has(file) {
      parts.encoder = try OtherEncoder(
        moleculeSTM: InstructMol.tower(folder.file(file), notes: &notes), sizes: sizes, place: folder.file(file),
        beside: .moleculeHeads)
    } else {
      parts.missingEncoder =
        "the graph network is not in this checkpoint; convert MoleculeSTM's \(InstructMol.towerName).pth with "
        + "tools/pickle-to-safetensors, and give it with --encoder \(InstructMol.kind)=\(file)"
    }
    var own = self
    own.name = InstructMol.kind
    parts.projector = try own.originalProjector(notes: &notes)
    parts.missingProjector =
      "the projector (mm_projector) is not in this checkpoint; give it with --projector "
      + "\(InstructMol.kind)=FILE.safetensors"
    return parts
  }
}

// MARK: Parts

/// The files that InstructMol's program has beside Vicuna's: non_lora_trainables or mm_projector, MoleculeSTM's molecule_model, and an
/// adapter.
struct InstructMolFolder: Sendable {
  /// The folder that the user gave.
  let path: String
  /// The one in it with what was trained: the same, or `adapter/`.
  private let trained: CheckpointFolder
  private let config: JSONValue?
  /// The file of MoleculeSTM's checkpoint; nil where there is none.
  private let tower: String?
  /// The file with the projector; nil where there is none.
  private let weights: String?

  /// nil where the folder is something else.
  ///
  /// - Parameters:
  ///   - tower: a file that is taken for MoleculeSTM's checkpoint.
  ///   - hasProjector: whether the projector is elsewhere.
  /// - Throws: `SquintError.badData` where a file that it needs is a pickle.
  init?(_ folder: CheckpointFolder, tower: String?, hasProjector: Bool) throws(SquintError) {
    func configuration(_ folder: CheckpointFolder) throws(SquintError) -> JSONValue? {
      guard let config = try folder.json("config.json"), InstructMol.recognizes(config) else { return nil }
      return config
    }
    func file(_ stem: String, in folders: [CheckpointFolder]) throws(SquintError) -> String? {
      let safetensors = stem + ".safetensors"
      if let folder = folders.first(where: { $0.has(safetensors) }) { return folder.file(safetensors) }
      for folder in folders {
        for ending in [".bin", ".pth", ".pt"] where folder.has(stem + ending) {
          throw .badData(folder.file(stem + ending), ForeignFile.pickle)
        }
      }
      return nil
    }
    let adapter = CheckpointFolder(path: folder.file("adapter"))
    if folder.has("config.json") {
      // A merged checkpoint is none of parts.
      guard let config = try configuration(folder), !Self.isWhole(folder) else { return nil }
      (self.config, trained) = (config, folder)
    } else {
      let config = adapter.has("config.json") ? try configuration(adapter) : nil
      let hasTower = [".safetensors", ".pth"].contains { folder.has(InstructMol.towerName + $0) }
      guard config != nil || hasTower else { return nil }
      self.config = config
      trained =
        config != nil || InstructMol.trainedNames.contains { adapter.has($0 + ".safetensors") } ? adapter : folder
    }
    path = folder.path
    self.tower = if let tower { tower } else { try file(InstructMol.towerName, in: [folder, trained]) }
    guard !hasProjector else {
      weights = nil
      return
    }
    var weights: String?
    for name in InstructMol.trainedNames where weights == nil { weights = try file(name, in: [trained, folder]) }
    self.weights = weights
  }

  /// Whether a folder with the configuration of a model has all of it.
  private static func isWhole(_ folder: CheckpointFolder) -> Bool {
    let names = (try? fileNames(inFolder: folder.path)) ?? []
    return names.contains { name in
      name == "model.safetensors" || name.hasSuffix(".index.json") || name.contains("-of-")
        || name.hasPrefix("pytorch_model")
    }
  }

  /// A file of it, for messages.
  var first: String { lastComponent(either(weights, tower) ?? trained.file("config.json")) }

  /// The folder of the adapter; nil where there is none.
  var adapter: String? { trained.has(LoRAAdapter.configurationFile) ? trained.path : nil }

  /// - Parameter decoder: how messages call the decoder's source.
  /// - Throws: `SquintError.badData` where a part is none, or something was trained that is not read.
  func parts(decoder: String) throws(SquintError) -> OtherParts {
    let place = config == nil ? path : trained.file("config.json")
    var parts = try InstructMol.parts(config ?? .null, place: place)
    let sizes = try config.map { (config) throws(SquintError) in try MoleculeSTMSizes(config, place: place) }
    var notes: [String] = []
    parts.missingEncoder =
      "the graph network is not there; convert MoleculeSTM's \(InstructMol.towerName).pth with tools/pickle-to-safetensors, and "
      + "put \(InstructMol.towerName).safetensors into this folder or give it with --encoder \(InstructMol.kind)=FILE"
    parts.missingProjector =
      "the projector is not there (\(InstructMol.trainedNames.joined(separator: ".safetensors, ")).safetensors); put it into "
      + "this folder or give it with --projector \(InstructMol.kind)=FILE"

    var trainables: SpelledTensors?
    if let weights {
      let source = try SpelledTensors(SafetensorsSource(path: weights), spelling: .model, place: weights, notes: &notes)
      if let other = source.tensors.first(where: { !Self.isKnown($0.name) }) {
        throw .badData(
          weights,
          "tensor \(printable(other.name)) was trained beside the adapter, which is not supported; merge the model with "
            + "InstructMol's scripts/merge_lora_weights.py and convert the result")
      }
      trainables = source
      parts.projector = try projector(source, place: weights, notes: &notes)
    }
    if let tower {
      var source = try InstructMol.tower(tower, notes: &notes)
      // The program counts the network among what it trains; the statistics of its norms are in MoleculeSTM's checkpoint alone.
      if let trainables, trainables.tensors.contains(where: { $0.name.hasPrefix(Self.towerPrefix) }) {
        notes.append("\(weights ?? path): it holds the graph network, too; what it has of it is used before \(tower)")
        source = OverlaidTensors([
          (trainables, { $0.hasPrefix(Self.towerPrefix) ? String($0.dropFirst(Self.towerPrefix.count)) : nil }),
          (source, { $0 }),
        ])
      }
      var encoder = try OtherEncoder(
        moleculeSTM: source, sizes: sizes ?? MoleculeSTMSizes(), place: tower, beside: .moleculeHeads)
      encoder.notes = notes + encoder.notes
      parts.encoder = encoder
    }
    return parts
  }

  private static let towerPrefix = "graph_tower."

  private static func isKnown(_ name: String) -> Bool {
    name.hasPrefix(towerPrefix) || name.hasPrefix("mm_projector.")
  }

  private func projector(
    _ source: any TensorSource, place: String, notes: inout [String]
  ) throws(SquintError) -> ProjectorPart? {
    let found: ProjectorPart?
    if let config {
      var reader = HuggingFaceVision(folder: trained, config: config, source: source)
      reader.name = InstructMol.kind
      found = try reader.originalProjector(notes: &notes)
    } else {
      found = try ProjectorPart(trained: source, name: InstructMol.kind, place: place)
    }
    guard let found else { return nil }
    let others = NameMap(module: "", stems: [], ignoredPrefixes: [Self.towerPrefix])
    return ProjectorPart(
      configuration: found.configuration,
      tensors: MappedTensors(source: found.tensors.source, maps: found.tensors.maps + [others], place: place))
  }
}

extension ProjectorPart {
  /// The matrices `mm_projector` of what a program of LLaVA's kind trained.
  fileprivate init(trained source: any TensorSource, name: String, place: String) throws(SquintError) {
    let found = try ProjectorTensors(in: source, prefixes: ["mm_projector"], module: "projector.\(name)", place: place)
    self.init(
      configuration: ProjectorConfiguration(widths: found.widths),
      tensors: MappedTensors(source: source, maps: [found.map], place: place))
  }
}
