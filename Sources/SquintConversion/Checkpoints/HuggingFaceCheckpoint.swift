import SquintFile
import SquintText

/// A folder with config.json and safetensors, as transformers saves it, or the original LLaVA.
struct HuggingFaceCheckpoint: Checkpoint {
  let decoder: DecoderConfiguration
  let modalities: [ModalityParts]
  let others: [OtherParts]
  let unknownClass: String?
  private let folder: CheckpointFolder
  private let tensors: any TensorSource
  let decoderTensors: MappedTensors
  /// What it has for which there is no use.
  private let dropped: DroppedModules
  private let config: JSONValue
  /// What opening it found.
  private let openingNotes: [String]

  /// - Throws: `SquintError.noInput` where a file is missing, `.badData` where one is broken or not supported.
  init(folder path: String) throws(SquintError) {
    folder = CheckpointFolder(path: path)
    let stated = try folder.configuration()
    let place = folder.file("config.json")
    let family = try MediaFamily.family(of: stated, place: place)
    config = family?.translated(stated) ?? stated
    var notes: [String] = []
    // A decoder in other words than transformers' comes with a class of its own.
    unknownClass = family?.decoder == nil ? MediaFamily.unknownClass(config: config) : nil
    if let unknownClass {
      notes.append(
        "\(place): the class \(printable(unknownClass)) is not known; the model is read as its tensors and its model_type are"
      )
    }
    tensors = try folder.tensors(config: config, spelling: family?.spelling ?? .model, notes: &notes)
    if family == nil { try MediaFamily.refuseParts(of: tensors, config: config, place: place) }
    let decoderType = family?.decoderType(config)
    let own = family?.decoder
    let names: NameMap
    let layerStems: (DecoderConfiguration) -> [(source: String, target: String)]
    if let own {
      names = own.names
      layerStems = { _ in [] }
    } else {
      let facts = try DecoderFamily(huggingFace: config, known: decoderType, place: place).huggingFace
      names = facts.names
      layerStems = facts.layerStems
    }
    let stored = StoredTensors(
      MappedTensors(source: tensors, maps: [names], place: folder.path), module: "decoder")
    var decoder: DecoderConfiguration
    if let own {
      decoder = try own.read(config, stored, place, &notes)
    } else {
      decoder = try DecoderConfiguration(
        huggingFace: config, family: decoderType, stored: stored, place: place, notes: &notes)
    }
    try decoder.shareEmbedding(
      stored, source: tensors, key: own?.tieKey ?? "tie_word_embeddings", place: place, notes: &notes)
    self.decoder = decoder
    dropped = DroppedModules(family?.dropped ?? [], of: tensors)
    decoderTensors = MappedTensors(
      source: tensors,
      maps: [names.ignoringLayers(from: decoder.layers).replacing(layerStems(decoder)), dropped.names],
      place: folder.path, rowOrder: decoder.rowOrder, fold: decoder.fold)
    let vision = HuggingFaceVision(folder: folder, config: config, source: tensors)
    let images = try family?.parts.map { (parts) throws(SquintError) in try parts(vision, &notes) }
    modalities = images.map { [$0] } ?? []
    others = try family?.others(vision, &notes) ?? []
    if let note = dropped.note { notes.append("\(folder.path): \(note)") }
    openingNotes = notes
  }

  var place: String { folder.path }

  func text(usual: ChatTemplates.Usual?, notes: inout [String]) throws(SquintError) -> CheckpointText {
    let published = config["_name_or_path"]?.string.map(lastComponent)
    let folderName = lastComponent(absolute(place))
    let types = Set(tensors.tensors.map { tensors.typeName(of: $0) }).sorted()
    // What was quantized is called by several words.
    let list = types.joined(separator: types.contains { $0.contains(" ") } ? "; " : " ")
    var text = CheckpointText(
      name: published.flatMap { $0.isEmpty ? nil : $0 } ?? folderName,
      source: "\(folderName): Hugging Face checkpoint, \(list)", license: try license(),
      defaults: try generation(), defaultsPlace: folder.file("generation_config.json"),
      template: try chatTemplates().chosen(of: place, usual: usual, notes: &notes),
      tokenizer: try tokenizer(notes: &notes))
    text.dropped = dropped.modules.map(\.name)
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

  /// The file of its own comes first, as in transformers (tokenization_utils_base.py), with those in a folder beside it.
  private func chatTemplates() throws(SquintError) -> ChatTemplates {
    var templates = ChatTemplates()
    if let template = try template(in: "chat_template.jinja") { templates.add(template) }
    let more = "additional_chat_templates"
    let others = try folder.has(more) ? fileNames(inFolder: folder.file(more)) : []
    for name in others where name.hasSuffix(".jinja") {
      if let template = try template(in: "\(more)/\(name)") { templates.add(template, name: String(name.dropLast(6))) }
    }
    for name in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] where templates.isEmpty {
      templates = ChatTemplates(json: try folder.json(name)?["chat_template"])
    }
    return templates.isEmpty ? ChatTemplates(json: config["lm_chat_template"]) : templates
  }

  /// The template that the file `name` of the folder holds; nil where there is no such file.
  private func template(in name: String) throws(SquintError) -> String? {
    guard let template = try folder.text(name, limit: JSONValue.maximumByteCount) else { return nil }
    let start = Array(template.utf8.prefix(ForeignFile.startBytes))
    if !start.isEmpty, let remark = ForeignFile.remark(start: start) { throw .badData(folder.file(name), remark) }
    return template
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
