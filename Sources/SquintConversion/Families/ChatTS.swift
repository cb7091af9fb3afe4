import SquintFile

// ChatTS: Qwen2.5 or Qwen3, which take time series through an MLP over patches. The reference is its own code: chatts_vllm.py of
// NetManAIOps/ChatTS, and modeling_qwen3_ts.py and processing_qwen3_ts.py beside the published weights.

extension MediaFamily {
  static let chatTS = MediaFamily(
    description: "chatts", classes: ["Qwen2TS", "Qwen3TS"],
    recognizes: { config in
      let architectures = config["architectures"]?.array?.compactMap(\.string) ?? []
      return ["chatts", "qwen2ts", "qwen3ts"].contains(config["model_type"]?.string ?? "")
        || architectures.contains { ["Qwen2TSForCausalLM", "Qwen3TSForCausalLM"].contains($0) }
    },
    decoderType: { config in ChatTSFacts(config).isQwen3 ? "qwen3" : "qwen2" },
    others: { (vision, notes) throws(SquintError) in [try vision.chatTS(notes: &notes)] })
}

/// What config.json does not say by itself.
private struct ChatTSFacts {
  let isQwen3: Bool

  init(_ config: JSONValue) {
    let names = (config["architectures"]?.array?.compactMap(\.string) ?? []) + [config["model_type"]?.string ?? ""]
    isQwen3 = names.contains { $0.lowercased().hasPrefix("qwen3") }
  }

  /// What its processor writes in front of a series.
  var prefix: String {
    isQwen3
      ? "[offset={offset}|scaling={scaling}|length={length}|max={max}|min={min}|left={left}|right={right}]"
      : "[Value Offset: {offset}|Value Scaling: {scaling}]"
  }
}

extension HuggingFaceVision {
  fileprivate func chatTS(notes: inout [String]) throws(SquintError) -> OtherParts {
    let name = "series"
    guard let settings = config["ts"], settings.object != nil else {
      throw .badData(place, "there is no ts, which says how series are cut")
    }
    let ts = ConfigurationReader(json: settings, place: "\(place): ts")
    let features = try ts.size("num_features") ?? 2
    guard features == 2 else {
      throw .badData(ts.place, "num_features is \(features), not 2: a number and whether it is there")
    }
    guard try ts.flag("use_layer_norm") != true else {
      throw .badData(ts.place, "use_layer_norm is not supported: no published model has it")
    }
    guard let patch = try ts.size("patch_size", atMost: 1 << 12) else {
      throw .badData(ts.place, "there is no patch_size")
    }
    guard let most = either(try ts.size("max_sequence_length"), try ts.size("max_length")) else {
      throw .badData(ts.place, "there is neither max_sequence_length nor max_length")
    }

    var blueprint = SeriesPatchesBlueprint(module: "encoder.\(name)")
    blueprint.architecture = "chatts"
    blueprint.patch = patch
    blueprint.positions =
      try ts.flag("use_position_embedding") == true
      ? .table : try ts.flag("use_position_idx") == true ? .index : .none
    if blueprint.positions == .table {
      guard most <= SeriesConfiguration.largestPoints else {
        throw .badData(ts.place, "series of \(grouped(most)) points are not supported")
      }
      blueprint.points = most
      blueprint.positionWidth = try ts.size("embedding_dim", atMost: 1 << 10) ?? 16
    } else if try programs("modeling_").contains(where: { Self.padsWithZeros($0.text) }) {
      blueprint.padding = .zero
      notes.append(
        "\(folder.path): the last patch of a series is filled with zeros, as the model's own program does it")
    }
    let names = NameMap(
      module: "encoder.\(name)", stems: [("ts_encoder.position_embedding", "positions")],
      // Of a module that has it and does without.
      ignored: blueprint.positions == .table ? [] : ["ts_encoder.position_embedding.weight"])
    var parts = OtherParts(name: name, place: place)
    parts.encoder = OtherEncoder(
      blueprint: blueprint, featureWidth: blueprint.featureWidth,
      expected: blueprint.tensors.map { ExpectedTensor($0, .required) },
      tensors: MappedTensors(source: source, maps: [names], place: folder.path),
      processor: SeriesConfiguration(normalization: .valuePreserving, rounding: .f16, mostPoints: most))

    let found = try ProjectorTensors(
      in: source, prefixes: ["ts_encoder.mlp"], module: "projector.\(name)", place: folder.path)
    if let layers = try ts.size("num_layers"), layers != found.widths.count - 1 {
      throw .badData(
        folder.path, "ts_encoder.mlp has \(found.widths.count - 1) matrices, and num_layers makes it \(layers)")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    projector.bias = .required
    parts.projector = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))

    parts.prompt.marker = "<ts><ts/>"
    parts.prompt.token = try reader.count("ts_token_start_index")
    parts.prompt.tokenText = "<ts>"
    parts.prompt.unitPrefix = "{title}" + (try seriesPrefix(ChatTSFacts(config), notes: &notes))
    parts.prompt.separator = "; "
    return parts
  }

  /// What stands in front of a series: what the folder's program writes, or else what that of published models does.
  ///
  /// - Throws: `badData` where a program writes something that cannot be read, or two write different things.
  private func seriesPrefix(_ facts: ChatTSFacts, notes: inout [String]) throws(SquintError) -> String {
    let programs = try programs("processing_")
    var first: (text: String, place: String)?
    for program in programs {
      for found in try ChatTSProgram(program.text, path: program.path).prefixes() {
        let place = "\(program.path): line \(found.line)"
        guard let known = first else {
          first = (found.text, place)
          continue
        }
        guard known.text == found.text else {
          throw .badData(
            place,
            "this writes another text in front of a series than \(known.place); leave one of them in the file, that which is used"
          )
        }
      }
    }
    if let first { return first.text }
    let place = programs.first?.path ?? folder.path
    notes.append(
      "\(place): \(programs.isEmpty ? "there is no processing_*.py to say" : "it does not say") what stands in front of a series; taken is "
        + "\(facts.prefix)")
    return facts.prefix
  }

  /// The folder's programs whose names begin with `kind`. Nothing of them is run.
  private func programs(_ kind: String) throws(SquintError) -> [(path: String, text: String)] {
    let most = 1 << 18
    var programs: [(path: String, text: String)] = []
    for name in try fileNames(inFolder: folder.path) where name.hasPrefix(kind) && name.hasSuffix(".py") {
      guard let text = try folder.text(name, limit: most + 1) else { continue }
      guard text.utf8.count <= most else {
        throw .badData(
          folder.file(name), "a program of more than \(grouped(most)) bytes is not read; download it again")
      }
      programs.append((folder.file(name), text))
    }
    return programs
  }

  /// Whether the model's program fills the last patch with zeros, as those from before there were positions did.
  private static func padsWithZeros(_ program: String) -> Bool {
    let text = program.filter { $0 != " " }
    return text.contains("padding=torch.zeros(")
  }
}
