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
    } else if try programs("modeling_").contains(where: Self.padsWithZeros) {
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
    let written = try programs("processing_").compactMap(Self.prefix(in:)).first
    parts.prompt.unitPrefix = "{title}" + (written ?? ChatTSFacts(config).prefix)
    parts.prompt.separator = "; "
    return parts
  }

  /// The texts of the folder's programs whose names begin with `kind`. Nothing of them is run.
  private func programs(_ kind: String) throws(SquintError) -> [String] {
    var texts: [String] = []
    for name in try fileNames(inFolder: folder.path) where name.hasPrefix(kind) && name.hasSuffix(".py") {
      if let text = try folder.text(name, limit: 1 << 20) { texts.append(text) }
    }
    return texts
  }

  /// Whether the model's program fills the last patch with zeros, as those from before there were positions did.
  private static func padsWithZeros(_ program: String) -> Bool {
    let text = program.filter { $0 != " " }
    return text.contains("padding=torch.zeros(")
  }

  /// What a program writes in front of a series, in our words: the format string that has `{-mean:.4f}` in it. nil where there is none, or
  /// one that has other things in it.
  static func prefix(in program: String) -> String? {
    let words = [
      "-mean:.4f": "offset", "scale_factor:.4f": "scaling", "len(timeseries)": "length", "max(timeseries):.4f": "max",
      "min(timeseries):.4f": "min", "timeseries[0]:.4f": "left", "timeseries[-1]:.4f": "right",
    ]
    for line in program.split(whereSeparator: \.isNewline) {
      guard let start = line.firstRange(of: "f\"") ?? line.firstRange(of: "f'"), line.contains("{-mean:.4f}") else {
        continue
      }
      let quote = line[line.index(before: start.upperBound)]
      var rest = line[start.upperBound...]
      guard let end = rest.firstIndex(of: quote) else { continue }
      rest = rest[..<end]
      // The rows take the places of both tokens.
      if let token = rest.firstRange(of: "<ts>") { rest = rest[..<token.lowerBound] }
      var prefix = ""
      while let open = rest.firstIndex(of: "{") {
        guard let close = rest[open...].firstIndex(of: "}"),
          let word = words[String(rest[rest.index(after: open)..<close])]
        else { return nil }
        prefix += rest[..<open] + "{\(word)}"
        rest = rest[rest.index(after: close)...]
      }
      prefix += rest
      return prefix.utf8.count <= 240 ? prefix : nil
    }
    return nil
  }
}
