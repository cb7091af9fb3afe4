import SquintFile

/// How a checkpoint folder keeps a model: which class of transformers, or which other program, it was written for.
enum HuggingFaceLayout: Sendable {
  /// A decoder alone.
  case text
  /// transformers' LlavaForConditionalGeneration.
  case llava
  /// Idefics3 and SmolVLM.
  case idefics3
  /// The original LLaVA's: a decoder's configuration with `mm_` keys among its own.
  case originalLLaVA
  /// huggingface/nanoVLM's.
  case nanoVLM

  /// - Throws: `SquintError.badData` where this is an encoder.
  init(config: JSONValue, place: String) throws(SquintError) {
    let modelType = config["model_type"]?.string ?? ""
    let architectures = config["architectures"]?.array?.compactMap(\.string) ?? []
    if NanoVLM.isNanoVLM(config) {
      self = .nanoVLM
    } else if ["llava_llama", "llava_mistral", "llava_qwen"].contains(modelType)
      || architectures.contains(where: Self.originalClasses.contains)
      || modelType == "llava" && config["text_config"] == nil && config["vision_config"] == nil
    {
      self = .originalLLaVA
    } else if modelType == "llava" {
      self = .llava
    } else if ["idefics3", "smolvlm"].contains(modelType) {
      self = .idefics3
    } else if ["clip", "siglip"].contains(modelType)
      || HuggingFaceEncoderFamily.all.contains(where: { $0.modelTypes.contains(modelType) })
    {
      throw .badData(
        place,
        "model_type \"\(modelType)\" is an encoder alone; give it with --encoder image=FOLDER, and the text model with "
          + "--decoder")
    } else if DecoderFamily.named(huggingFace: modelType) != nil && config["vision_config"] == nil
      || DecoderFamily.inside(huggingFace: modelType) != nil && config["text_config"] != nil
    {
      self = .text
    } else {
      throw Self.unsupported(modelType: modelType, architecture: architectures.first, place: place)
    }
    // The head of these says something else than the next token.
    let others = ["SequenceClassification", "TokenClassification", "QuestionAnswering", "RewardModel"]
    if let other = architectures.first(where: { name in others.contains { name.hasSuffix($0) } }) {
      throw .badData(
        place,
        "\(printable(other)) does not write text; only models that do are supported (…ForCausalLM, …ForConditionalGeneration)"
      )
    }
  }

  /// The original LLaVA's classes.
  private static let originalClasses = ["LlavaLlamaForCausalLM", "LlavaMistralForCausalLM", "LlavaQwenForCausalLM"]

  /// The class that config.json names, where it is none of those that are read here.
  static func unknownClass(config: JSONValue) -> String? {
    let names = config["architectures"]?.array?.compactMap(\.string) ?? []
    let families = Families.decoders.map(\.name) + ["llava", "idefics3", "smolvlm"]
    let endings = ["forcausallm", "model", "forconditionalgeneration"]
    let known = Set(
      families.flatMap { family in endings.map { family + $0 } } + originalClasses.map { $0.lowercased() })
    return names.contains { known.contains($0.lowercased()) } ? nil : names.first
  }

  private static func unsupported(modelType: String, architecture: String?, place: String) -> SquintError {
    let texts = Families.decoders.map(\.huggingFace.modelType).joined(separator: ", ")
    let type = "model_type \"\(printable(modelType))\""
    let what = architecture.map { "\(printable($0)) (\(type))" } ?? type
    return .badData(
      place,
      "\(what) is not supported; known are \(texts), and of models that see llava (transformers' and the original), idefics3, "
        + "smolvlm, nanoVLM")
  }

  /// The decoder's model_type where config.json does not give it as one.
  func decoderFamily(config: JSONValue) -> String? {
    guard self == .originalLLaVA else { return nil }
    let names = (config["architectures"]?.array?.compactMap(\.string) ?? []) + [config["model_type"]?.string ?? ""]
    let all = names.joined(separator: " ").lowercased()
    return all.contains("mistral") ? "mistral" : all.contains("qwen") ? "qwen2" : "llama"
  }
}

/// Reads what a checkpoint folder says of its vision tower and its projector.
struct HuggingFaceVision {
  let folder: CheckpointFolder
  let config: JSONValue
  let source: any TensorSource
  /// The modality.
  let name = "image"

  private var place: String { folder.file("config.json") }
  private var reader: ConfigurationReader { ConfigurationReader(json: config, place: place) }

  /// - Parameter notes: takes what the user should know.
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  func parts(_ layout: HuggingFaceLayout, notes: inout [String]) throws(SquintError) -> ModalityParts? {
    switch layout {
    case .text: nil
    case .nanoVLM: try NanoVLM(config: config, source: source, folder: folder).parts(notes: &notes)
    case .llava: try llava(notes: &notes)
    case .idefics3: try idefics3()
    case .originalLLaVA: try originalLLaVA(notes: &notes)
    }
  }

  // MARK: transformers' LLaVA

  private func llava(notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    parts.encoder = try tower()
    let found = try ProjectorTensors(
      in: source, prefixes: ["multi_modal_projector"], module: "projector.\(name)", place: folder.path)
    guard found.widths.count >= 3, !found.hasNorm else {
      throw .badData(folder.path, "multi_modal_projector has \(found.widths.count - 1) matrices, not 2")
    }
    if found.widths.count > 3 {
      notes.append(
        "\(folder.path): multi_modal_projector has \(found.widths.count - 1) matrices, not 2 as llava has; all are used"
      )
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    let stored = StoredTensors(
      MappedTensors(source: source, maps: [found.map], place: folder.path), module: "projector.\(name)")
    projector.bias = try stored.projectorBiases(
      layers: projector.layers, said: reader.flag("multimodal_projector_bias") ?? true, place: place, notes: &notes)
    let activation = try reader.text("projector_hidden_act") ?? "gelu"
    guard let known = Activation(huggingFace: activation) else {
      throw .badData(place, "projector_hidden_act \"\(printable(activation))\" is not supported")
    }
    projector.activation = known
    parts.projector = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))

    let strategy = try reader.text("vision_feature_select_strategy") ?? "default"
    guard ["default", "full"].contains(strategy) else {
      throw .badData(place, "vision_feature_select_strategy \"\(printable(strategy))\" is not default or full")
    }
    parts.features = FeatureSelection(
      layers: try reader.integers("vision_feature_layer") ?? [-2], classRow: strategy == "full" ? .keeps : .dropsFirst)
    // transformers writes its default, whatever the tower makes, and no longer reads it.
    if let rows = try reader.size("image_seq_length"), rows != 576 {
      parts.tileRows = (rows, "image_seq_length", false)
    }
    parts.prompt.marker = try word("image_token") ?? "<image>"
    parts.prompt.token = either(try reader.count("image_token_index"), try reader.count("image_token_id")) ?? 32_000
    return parts
  }

  /// The vision tower of `vision_config`.
  ///
  /// - Parameter known: its family; nil: what its model_type says.
  private func tower(family known: HuggingFaceEncoderFamily? = nil) throws(SquintError) -> EncoderPart {
    guard let vision = config["vision_config"], vision.object != nil else {
      throw .badData(place, "there is no vision_config")
    }
    let family = try HuggingFaceEncoderFamily(of: vision, known: known, place: "\(place): vision_config")
    return try EncoderPart(
      huggingFace: vision, family: family, name: name, source: source, place: "\(place): vision_config",
      tensorPlace: folder.path, images: try folder.images(fallback: family.images))
  }

  /// A text that the processor's file gives, or the tokenizer's, which comes first in transformers.
  private func word(_ key: String) throws(SquintError) -> String? {
    for file in ["tokenizer_config.json", "processor_config.json"] {
      guard let value = try folder.json(file)?[key] else { continue }
      // A token is written as a text or as an object with its text and flags.
      if let text = value.string ?? value["content"]?.string, !text.isEmpty { return text }
    }
    return nil
  }

  // MARK: Idefics3 and SmolVLM

  private func idefics3() throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    let isSmolVLM = config["model_type"]?.string == "smolvlm"
    var encoder = try tower(family: .idefics3)
    encoder.configuration.architecture = isSmolVLM ? "smolvlm" : "idefics3"
    parts.encoder = encoder
    let found = try ProjectorTensors(
      in: source, prefixes: ["connector"], module: "projector.\(name)", place: folder.path)
    guard found.widths.count == 2, !found.hasNorm else {
      throw .badData(folder.path, "the connector has \(found.widths.count - 1) matrices, not 1")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    projector.shuffle = try reader.size("scale_factor", atMost: ProjectorConfiguration.largestShuffle) ?? 2
    projector.bias = .absent
    parts.projector = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
    parts.features = FeatureSelection()

    // Idefics3's processor has these words built in; SmolVLM's asks the tokenizer first.
    func word(_ key: String, _ usual: String) throws(SquintError) -> String {
      guard isSmolVLM, let own = try self.word(key) else { return usual }
      return own
    }
    let fake = try word("fake_image_token", "<fake_token_around_image>")
    let global = try word("global_image_token", "<global-img>")
    parts.prompt.marker = try word("image_token", "<image>")
    parts.prompt.token = try reader.count("image_token_id") ?? 128_257
    parts.prompt.setIdefics3(fake: fake, global: global)
    if let processor = try folder.json("processor_config.json") {
      let file = folder.file("processor_config.json")
      if let rows = try ConfigurationReader(json: processor, place: file).size("image_seq_len") {
        parts.tileRows = (rows, "image_seq_len of processor_config.json", true)
      }
    }
    return parts
  }

  // MARK: The original LLaVA

  private func originalLLaVA(notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    let named = either(try reader.text("mm_vision_tower"), try reader.text("vision_tower"))
    let inside = "vision_tower."
    let hasTower = source.tensors.contains { $0.name.hasPrefix(inside) }
    if hasTower, config["vision_config"] != nil {
      parts.encoder = try tower()
    } else if hasTower {
      parts.missingEncoder =
        "the weights of the vision tower (mm_vision_tower: \(printable(named ?? "not named"))) are in this checkpoint, but "
        + "not their configuration; put the tower's config.json into this one as vision_config, or give the tower's folder "
        + "with --encoder \(name)=FOLDER"
      parts.ignored = MappedTensors(
        source: source, maps: [NameMap(module: "", stems: [], ignoredPrefixes: [inside])], place: folder.path)
    } else {
      parts.missingEncoder =
        "the vision tower is not in this checkpoint (mm_vision_tower: \(printable(named ?? "not named"))); download it "
        + "and give its folder with --encoder \(name)=FOLDER"
    }
    parts.images = try folder.images(fallback: .clip)
    switch try reader.text("image_aspect_ratio") ?? "square" {
    case "square": break
    case "pad": parts.padsToSquare = true
    case let other:
      throw .badData(
        place, "image_aspect_ratio \"\(printable(other))\" is not supported; pad is, and images that are cut (none)")
    }
    parts.projector = try originalProjector(notes: &notes)
    if parts.projector == nil, folder.has("mm_projector.bin") {
      parts.missingProjector =
        "the projector is a pickle (mm_projector.bin), which runs code when it is read; convert it with "
        + "safetensors.torch.save_file(torch.load(\"mm_projector.bin\", weights_only=True), \"projector.safetensors\") and "
        + "give it with --projector \(name)=projector.safetensors"
    }
    guard let layers = try reader.integers("mm_vision_select_layer") else {
      throw .badData(place, "there is no mm_vision_select_layer; LLaVA 1.5 has -2")
    }
    let rows = try reader.text("mm_vision_select_feature") ?? "patch"
    guard ["patch", "cls_patch"].contains(rows) else {
      throw .badData(place, "mm_vision_select_feature \"\(printable(rows))\" is not patch or cls_patch")
    }
    parts.features = FeatureSelection(layers: layers, classRow: rows == "patch" ? .drops : .keeps)
    if try reader.flag("mm_use_im_start_end") == true {
      parts.prompt.singlePrefix = "<im_start>"
      parts.prompt.singleSuffix = "<im_end>"
    }
    return parts
  }

  private func originalProjector(notes: inout [String]) throws(SquintError) -> ProjectorPart? {
    let prefix = "mm_projector"
    let isHere = source.tensors.contains { $0.name.hasPrefix(prefix + ".") }
    let kind = try reader.text("mm_projector_type") ?? "linear"
    if kind == "identity", !isHere {
      let width = try reader.size("hidden_size") ?? 4096
      return ProjectorPart(
        configuration: ProjectorConfiguration(widths: [width, width]),
        tensors: MappedTensors(
          source: IdentitySource(width: width, place: "\(place): mm_projector_type identity"),
          maps: [NameMap(module: "projector.\(name)", stems: [("identity", "0")])],
          place: "\(place): mm_projector_type identity"))
    }
    guard isHere else { return nil }
    let layers: Int
    if kind == "identity" {
      layers = 0
    } else if kind == "linear" {
      layers = 1
    } else if kind.hasPrefix("mlp"), kind.hasSuffix("x_gelu"), let count = Int(kind.dropFirst(3).dropLast(6)), count > 0
    {
      layers = count
    } else {
      throw .badData(
        place,
        "mm_projector_type \"\(printable(kind))\" is not supported; known are linear, mlp2x_gelu and its kin, identity")
    }
    let found = try ProjectorTensors(in: source, prefixes: [prefix], module: "projector.\(name)", place: folder.path)
    let stored = found.widths.count - 1
    let difference = "mm_projector has \(stored) matrices, but mm_projector_type \(kind) makes it \(layers)"
    // Fewer may be all that was downloaded, unless it is the one that has no number: a linear projector.
    let isWhole = stored >= layers || stored == 1 && source.tensor(named: prefix + ".weight") != nil
    guard isWhole, !found.hasNorm else { throw .badData(folder.path, difference) }
    if stored != layers { notes.append("\(folder.path): \(difference); what is stored is used") }
    return ProjectorPart(
      configuration: ProjectorConfiguration(widths: found.widths),
      tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
  }
}
