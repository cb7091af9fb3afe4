import SquintFile
import SquintText

/// A folder with config.json and safetensors, as transformers saves it.
struct HuggingFaceCheckpoint: Checkpoint {
  let place: String
  private let tensors: SafetensorsSource
  let decoder: DecoderConfiguration
  private let config: JSONValue

  /// - Throws: `SquintError.noInput` where a file is missing, `.badData` where one is broken or not supported.
  init(folder: String) throws(SquintError) {
    var folder = folder
    while folder.count > 1 && folder.hasSuffix("/") { folder.removeLast() }
    place = folder
    let path = "\(folder)/config.json"
    guard access(path, F_OK) == 0 else {
      throw SquintError(.noInput, "\(path): \(systemMessage(errno)); a checkpoint folder has a config.json")
    }
    config = try JSONValue.read(path: path)
    decoder = try DecoderConfiguration(huggingFace: config, place: path)
    tensors = try SafetensorsSource(path: folder)
  }

  var decoderTensors: MappedTensors {
    MappedTensors(source: tensors, maps: [.huggingFaceDecoder, .huggingFaceInnerDecoder], place: place)
  }

  func write(to plan: inout ModelFilePlan, notes: inout [String]) throws(SquintError) {
    let published = config["_name_or_path"]?.string.map(lastComponent)
    let folderName = lastComponent(absolute(place))
    plan.metadata["general.name"] = .string(published.flatMap { $0.isEmpty ? nil : $0 } ?? folderName)
    let types = Set(tensors.tensors.map(\.type.name)).sorted().joined(separator: " ")
    plan.metadata["general.source"] = .string("\(folderName): Hugging Face checkpoint, \(types)")
    if let license = try license() { plan.metadata["general.license"] = .string(license) }
    let tokenizer = try tokenizer(notes: &notes)
    var defaults = try generation()
    if let eos = tokenizer?.eosToken { defaults.stopTokens.append(Int64(eos)) }
    try defaults.write(
      to: &plan.metadata, vocabulary: decoder.vocabulary, place: "\(place)/generation_config.json")
    if let template = try chatTemplate() { plan.metadata["chat.template"] = .string(template) }
    tokenizer?.write(to: &plan.bulkMetadata, for: decoder, notes: &notes)
  }

  private func absolute(_ path: String) -> String {
    guard let resolved = realpath(path, nil) else { return path }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// The JSON file `name` of the folder; nil where there is none.
  private func json(_ name: String) throws(SquintError) -> JSONValue? {
    let path = "\(place)/\(name)"
    return access(path, F_OK) == 0 ? try JSONValue.read(path: path) : nil
  }

  /// The text file `name` of the folder, its first `limit` bytes; nil where there is none.
  private func text(_ name: String, limit: Int) throws(SquintError) -> String? {
    let path = "\(place)/\(name)"
    guard access(path, F_OK) == 0 else { return nil }
    let file = try SourceFile(path: path)
    var bytes = [UInt8](repeating: 0, count: min(file.byteCount, limit))
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(SquintError) in try file.read(at: 0, into: buffer) }
    }
    try result.get()
    return String(decoding: bytes, as: UTF8.self)
  }

  // MARK: Generation

  private func generation() throws(SquintError) -> GenerationDefaults {
    let json = try json("generation_config.json") ?? .null
    let reader = ConfigurationReader(json: json, place: "\(place)/generation_config.json")
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
    if let template = try text("chat_template.jinja", limit: JSONValue.maximumByteCount) { return template }
    for name in ["chat_template.json", "tokenizer_config.json"] {
      guard let value = try json(name)?["chat_template"] else { continue }
      if let template = value.string { return template }
      // Several by name; the one called "default" is used unless another is asked for.
      let named = value.array ?? []
      let chosen = named.first { $0["name"]?.string == "default" } ?? named.first
      if let template = chosen?["template"]?.string { return template }
    }
    return nil
  }

  // MARK: Licence

  /// The licence that the model card's front matter names.
  private func license() throws(SquintError) -> String? {
    guard let card = try text("README.md", limit: 1 << 16) else { return nil }
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
    func has(_ name: String) -> Bool { access("\(place)/\(name)", F_OK) == 0 }
    guard has("tokenizer.json") || has("tokenizer.model") || has("vocab.json") && has("merges.txt") else {
      notes.append("\(place) has no tokenizer; the model takes token ids only")
      return nil
    }
    return try HuggingFaceTokenizer.definition(folder: place)
  }
}
