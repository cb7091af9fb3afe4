import SquintFile
import SquintText

/// A folder with config.json and safetensors, as transformers saves it, or the original LLaVA.
struct HuggingFaceCheckpoint: Checkpoint {
  let decoder: DecoderConfiguration
  let modalities: [ModalityParts]
  private let folder: CheckpointFolder
  private let layout: HuggingFaceLayout
  private let tensors: any TensorSource
  private let config: JSONValue
  /// What opening it found.
  private let openingNotes: [String]

  /// - Throws: `SquintError.noInput` where a file is missing, `.badData` where one is broken or not supported.
  init(folder path: String) throws(SquintError) {
    folder = CheckpointFolder(path: path)
    config = try folder.configuration()
    let place = folder.file("config.json")
    layout = try HuggingFaceLayout(config: config, place: place)
    if layout == .nanoVLM {
      decoder = try NanoVLM.decoder(config: config, place: place)
    } else {
      decoder = try DecoderConfiguration(
        huggingFace: config, family: layout.decoderFamily(config: config), place: place)
    }
    var notes: [String] = []
    tensors = try QuantizationScheme.dequantized(
      SafetensorsSource(path: folder.path), config: config, place: folder.path, notes: &notes)
    let vision = try HuggingFaceVision(folder: folder, config: config, source: tensors).parts(layout, notes: &notes)
    modalities = vision.map { [$0] } ?? []
    openingNotes = notes
  }

  var place: String { folder.path }

  var decoderTensors: MappedTensors {
    let maps: [NameMap] =
      switch layout {
      case .text, .llava, .originalLLaVA: [.huggingFaceDecoder, .huggingFaceInnerDecoder]
      case .idefics3: [.huggingFaceTextModel]
      case .nanoVLM:
        [NanoVLM(config: config, source: tensors, folder: folder).decoderNames(isTied: decoder.isTied)]
      }
    return MappedTensors(source: tensors, maps: maps, place: place)
  }

  func text(notes: inout [String]) throws(SquintError) -> CheckpointText {
    let published = config["_name_or_path"]?.string.map(lastComponent)
    let folderName = lastComponent(absolute(place))
    let types = Set(tensors.tensors.map { tensors.typeName(of: $0) }).sorted()
    // What was quantized is called by several words.
    let list = types.joined(separator: types.contains { $0.contains(" ") } ? "; " : " ")
    var text = CheckpointText(
      name: published.flatMap { $0.isEmpty ? nil : $0 } ?? folderName,
      source: "\(folderName): Hugging Face checkpoint, \(list)", license: try license(),
      defaults: try generation(), defaultsPlace: folder.file("generation_config.json"), template: try chatTemplate(),
      tokenizer: try tokenizer(notes: &notes))
    notes += openingNotes
    if let eos = text.tokenizer?.eosToken { text.defaults.stopTokens.append(Int64(eos)) }
    return text
  }

  // MARK: Generation

  private func generation() throws(SquintError) -> GenerationDefaults {
    let json = try folder.json("generation_config.json") ?? .null
    let reader = ConfigurationReader(json: json, place: folder.file("generation_config.json"))
    var defaults = GenerationDefaults()
    let inner = config["text_config"]
    defaults.stopTokens =
      [json, config, inner ?? .null].lazy.map { tokens($0["eos_token_id"]) }.first { !$0.isEmpty } ?? []
    defaults.repetitionPenalty = try reader.number("repetition_penalty")
    // Where sampling is switched off its settings have no effect in transformers either.
    guard try reader.flag("do_sample") != false else {
      defaults.temperature = 0
      return defaults
    }
    defaults.temperature = try reader.number("temperature")
    defaults.topK = try reader.count("top_k")
    defaults.topP = try reader.number("top_p")
    defaults.minP = try reader.number("min_p")
    return defaults
  }

  /// One id or a list of them.
  private func tokens(_ value: JSONValue?) -> [Int64] {
    if let one = value?.int { return [Int64(one)] }
    return value?.array?.compactMap { $0.int.map(Int64.init) } ?? []
  }

  // MARK: Chat template

  /// The file of its own comes first, as in transformers (tokenization_utils_base.py).
  private func chatTemplate() throws(SquintError) -> String? {
    if let template = try folder.text("chat_template.jinja", limit: JSONValue.maximumByteCount) { return template }
    for name in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] {
      guard let value = try folder.json(name)?["chat_template"] else { continue }
      if let template = value.string { return template }
      // Several by name; the one called "default" is used unless another is asked for.
      let named = value.array ?? []
      let chosen = named.first { $0["name"]?.string == "default" } ?? named.first
      if let template = chosen?["template"]?.string { return template }
    }
    return config["lm_chat_template"]?.string
  }

  // MARK: Licence

  /// The licence that the model card's front matter names.
  private func license() throws(SquintError) -> String? {
    guard let card = try folder.text("README.md", limit: 1 << 16) else { return nil }
    let lines = card.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    guard lines.first == "---" else { return nil }
    var values: [Substring: String] = [:]
    for line in lines.dropFirst() {
      if line == "---" { break }
      guard let colon = line.firstIndex(of: ":") else { continue }
      let value = line[line.index(after: colon)...].filter { $0 != "\"" && $0 != "'" }
      let trimmed = String(value.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
      if !trimmed.isEmpty { values[line[..<colon]] = trimmed }
    }
    let license = values["license"]
    return license == "other" ? values["license_name"] ?? license : license
  }

  // MARK: Tokenizer

  /// The tokenizer, or nil with a note where the folder has none.
  private func tokenizer(notes: inout [String]) throws(SquintError) -> TokenizerDefinition? {
    guard
      folder.has("tokenizer.json") || folder.has("tokenizer.model")
        || folder.has("vocab.json") && folder.has("merges.txt")
    else {
      notes.append("\(place) has no tokenizer; the model takes token ids only")
      return nil
    }
    return try HuggingFaceTokenizer.definition(folder: place)
  }
}
