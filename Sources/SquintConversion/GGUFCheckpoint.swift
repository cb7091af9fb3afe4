import SquintFile

/// A GGUF text model, as llama.cpp's convert_hf_to_gguf.py writes it.
struct GGUFCheckpoint: Checkpoint {
  let place: String
  let decoder: DecoderConfiguration
  private let source: GGUFSource
  private let metadata: GGUFMetadata

  /// - Throws: `SquintError.noInput` where it cannot be read, `.badData` where it is broken or not supported.
  init(path: String) throws(SquintError) {
    place = path
    source = try GGUFSource(path: path)
    metadata = GGUFMetadata(values: source.metadata, place: path)
    decoder = try DecoderConfiguration(gguf: source, place: path)
  }

  var decoderTensors: MappedTensors {
    MappedTensors(source: source, maps: [.ggufDecoder], place: place, rowOrder: rowOrder)
  }

  private func rowOrder(of name: String) -> RowOrder {
    guard DecoderConfiguration.interleavesPairs(ggufArchitecture: decoder.architecture) else { return .same }
    let isRotated = [".attention.q", ".attention.k", ".attention.q.bias", ".attention.k.bias"].contains {
      name.hasSuffix($0)
    }
    guard isRotated else { return .same }
    return .interleavedPairs(headWidth: decoder.headWidth, rotaryWidth: 2 * decoder.rotary.frequencies.count)
  }

  func write(to plan: inout ModelFilePlan, notes: inout [String]) throws(SquintError) {
    let fileName = lastComponent(place)
    plan.metadata["general.name"] = .string(try metadata.text("general.name") ?? fileName)
    let types = Set(source.tensors.map(\.type.name)).sorted().joined(separator: " ")
    plan.metadata["general.source"] = .string("\(fileName): GGUF, \(types)")
    if let license = try metadata.text("general.license") { plan.metadata["general.license"] = .string(license) }

    var defaults = GenerationDefaults()
    for key in ["eos", "eot", "eom"] {
      if let token = source.metadata["tokenizer.ggml.\(key)_token_id"]?.int { defaults.stopTokens.append(Int64(token)) }
    }
    defaults.temperature = try metadata.number("general.sampling.temp")
    defaults.topK = try metadata.count("general.sampling.top_k")
    defaults.topP = try metadata.number("general.sampling.top_p")
    defaults.minP = try metadata.number("general.sampling.min_p")
    defaults.repetitionPenalty = try metadata.number("general.sampling.penalty_repeat")
    try defaults.write(to: &plan.metadata, vocabulary: decoder.vocabulary, place: place)

    if let template = try metadata.text("tokenizer.chat_template") {
      plan.metadata["chat.template"] = .string(template)
    }
    guard source.metadata["tokenizer.ggml.tokens"] != nil else {
      notes.append("\(place) has no tokenizer; the model takes token ids only")
      return
    }
    try GGUFTokenizer.definition(metadata: source.metadata, name: place)
      .write(to: &plan.bulkMetadata, for: decoder, notes: &notes)
  }
}
