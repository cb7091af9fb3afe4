import SquintFile

/// A GGUF text model, as llama.cpp's convert_hf_to_gguf.py writes it, with the file of its encoder and projector where
/// there is one.
struct GGUFCheckpoint: Checkpoint {
  let place: String
  let decoder: DecoderConfiguration
  private let family: DecoderFamily.GGUFFacts?
  private let source: GGUFSource
  private let metadata: GGUFMetadata
  let modalities: [ModalityParts]

  /// - Throws: `SquintError.noInput` where it cannot be read, `.badData` where it is broken or not supported.
  init(path: String, mmproj: String?) throws(SquintError) {
    place = path
    source = try GGUFSource(path: path)
    metadata = GGUFMetadata(values: source.metadata, place: path)
    guard try !metadata.holdsEncoder() else {
      throw .badData(
        path,
        "this is an encoder with its projector, not a text model; give the text model as the source and this with --mmproj"
      )
    }
    var decoder = try DecoderConfiguration(gguf: source, place: path)
    family = DecoderFamily.named(gguf: try metadata.text("general.architecture") ?? "")?.gguf
    if mmproj != nil { family?.enter(&decoder) }
    self.decoder = decoder
    guard let mmproj else {
      modalities = []
      return
    }
    modalities = [try GGUFVision(path: mmproj).parts(name: "image", text: source)]
  }

  var decoderTensors: MappedTensors {
    MappedTensors(
      source: source, maps: family.map { [$0.names.replacing($0.layerStems(decoder))] } ?? [], place: place,
      rowOrder: rowOrder, fold: decoder.fold)
  }

  private func rowOrder(of name: String) -> RowOrder {
    guard family?.interleavesPairs == true else { return .same }
    let isRotated = [".attention.q", ".attention.k", ".attention.q.bias", ".attention.k.bias"].contains {
      name.hasSuffix($0)
    }
    guard isRotated else { return .same }
    return .interleavedPairs(headWidth: decoder.headWidth, rotaryWidth: 2 * decoder.rotary.frequencies.count)
  }

  func text(usual: ChatTemplates.Usual?, notes: inout [String]) throws(SquintError) -> CheckpointText {
    let fileName = lastComponent(place)
    let types = Set(source.tensors.map(\.type.name)).sorted().joined(separator: " ")
    var text = CheckpointText(
      name: try metadata.text("general.name") ?? fileName, source: "\(fileName): GGUF, \(types)",
      license: try metadata.text("general.license"), defaultsPlace: place)
    for key in ["eos", "eot", "eom"] {
      if let token = source.metadata["tokenizer.ggml.\(key)_token_id"]?.int {
        text.defaults.stopTokens.append(Int64(token))
      }
    }
    text.defaults.temperature = try metadata.number("general.sampling.temp")
    text.defaults.topK = try metadata.count("general.sampling.top_k")
    text.defaults.topP = try metadata.number("general.sampling.top_p")
    text.defaults.minP = try metadata.number("general.sampling.min_p")
    text.defaults.repetitionPenalty = try metadata.number("general.sampling.penalty_repeat")
    text.template = try chatTemplates().chosen(of: place, usual: usual, notes: &notes)
    guard source.metadata["tokenizer.ggml.tokens"] != nil else {
      notes.append("\(place) has no tokenizer; the model takes token ids only")
      return text
    }
    text.tokenizer = try GGUFTokenizer.definition(metadata: source.metadata, name: place)
    let unmarked = GGUFTokenizer.unmarkedTurnEnds(metadata: source.metadata)
    if !unmarked.isEmpty {
      notes.append(
        "\(unmarked.joined(separator: ", ")): not marked as control tokens in the file, taken for such by their names")
    }
    return text
  }

  private static let templateKey = "tokenizer.chat_template"

  /// The template, and those with a name of their own behind its key.
  private func chatTemplates() throws(SquintError) -> ChatTemplates {
    var templates = ChatTemplates()
    if let template = try metadata.text(Self.templateKey) { templates.add(template) }
    let prefix = Self.templateKey + "."
    for key in source.metadata.keys.sorted() where key.hasPrefix(prefix) {
      if let template = try metadata.text(key) { templates.add(template, name: String(key.dropFirst(prefix.count))) }
    }
    return templates
  }
}
