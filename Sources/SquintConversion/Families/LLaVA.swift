import SquintFile

// LLaVA (arXiv 2304.08485, 2310.03744), as transformers keeps it and as its own program does: a vision tower, one or two matrices,
// a decoder.

extension MediaFamily {
  /// transformers' LlavaForConditionalGeneration.
  static let llava = MediaFamily(
    description: "llava (transformers' and the original)", classes: ["llava"],
    recognizes: { $0["model_type"]?.string == "llava" },
    // configuration_llava.py, `__post_init__`
    isTied: { config, inner, outer in
      config["text_config"] == nil ? either(inner, outer) : inner ?? false || outer ?? false
    },
    parts: { (vision, notes) throws(SquintError) in try vision.llava(notes: &notes) },
    gguf: GGUFFacts(
      // LLaVA's matrices with GELUs between; one alone is its first version's.
      projectorType: "mlp", encoder: { hasClass in hasClass ? .clip : .siglip }, setImages: setLLaVAImages,
      projectorPrefix: "mm", setProjector: { _, _ in }, features: llavaFeatures,
      finish: { (parts, _) throws(SquintError) in
        if parts.encoder?.images?.layout == .anyres { parts.prompt.packing = .anyres }
      }))

  /// The original LLaVA's: a decoder's configuration with `mm_` keys among its own.
  static let originalLLaVA = MediaFamily(
    description: nil, classes: originalClasses.map { String($0.dropLast("ForCausalLM".count)) },
    recognizes: { config in
      let modelType = config["model_type"]?.string ?? ""
      let architectures = config["architectures"]?.array?.compactMap(\.string) ?? []
      return ["llava_llama", "llava_mistral", "llava_qwen"].contains(modelType)
        || architectures.contains(where: originalClasses.contains)
        || modelType == "llava" && config["text_config"] == nil && config["vision_config"] == nil
    },
    decoderType: { config in
      let names = (config["architectures"]?.array?.compactMap(\.string) ?? []) + [config["model_type"]?.string ?? ""]
      let all = names.joined(separator: " ").lowercased()
      return all.contains("mistral") ? "mistral" : all.contains("qwen") ? "qwen2" : "llama"
    },
    parts: { (vision, notes) throws(SquintError) in try vision.originalLLaVA(notes: &notes) })

  private static let originalClasses = ["LlavaLlamaForCausalLM", "LlavaMistralForCausalLM", "LlavaQwenForCausalLM"]

  // MARK: GGUF

  @Sendable private static func setLLaVAImages(
    _ images: inout ImageConfiguration, _ metadata: GGUFMetadata
  ) throws(SquintError) {
    let ratio = try metadata.text("clip.vision.image_aspect_ratio")
    if let pinpoints = metadata.values["clip.vision.image_grid_pinpoints"], pinpoints.integers?.isEmpty != true {
      return try images.setPinpoints(pinpoints.integers ?? [], ratio: ratio, metadata)
    }
    switch ratio ?? "pad" {
    // LLaVA 1.5 was trained on padded images, and llama.cpp pads them; cutting would lose what is at the sides.
    case "pad": images.padToSquare()
    case "square": break
    case let other:
      throw .badData(
        metadata.place,
        "clip.vision.image_aspect_ratio \"\(printable(other))\" is not supported; known are pad, square")
    }
  }

  @Sendable private static func llavaFeatures(
    _ source: GGUFSource, _ metadata: GGUFMetadata
  ) throws(SquintError) -> FeatureSelection? {
    guard let value = source.metadata["clip.vision.feature_layer"] else {
      // The layers behind those that LLaVA needs are not in the file, and neither is the norm. Where it is, it has a use.
      let layers = try metadata.size("clip.vision.block_count", atMost: DecoderConfiguration.mostLayers)
      return FeatureSelection(layers: source.tensor(named: "v.post_ln.weight") == nil ? layers.map { [$0] } : nil)
    }
    guard let layers = value.integers, !layers.isEmpty,
      layers.allSatisfy({ (0...Int64(DecoderConfiguration.mostLayers)).contains($0) })
    else { throw .badData(metadata.place, "metadata clip.vision.feature_layer is not a list of layers") }
    return FeatureSelection(layers: layers.map { Int($0) })
  }
}

extension ImageFamily {
  /// image_processing_llava.py
  static let llava = ImageFamily(
    className: "LlavaImageProcessor", size: .shortestEdge(224), crop: side224, centerCrops: true, mean: clipMean,
    std: clipStd, padsToSquare: true)
}

/// What the configuration class of a LLaVA in transformers assumes (configuration_llava.py and its siblings).
struct LLaVAFacts {
  var tower = EncoderFamily.clip
  var layer = -2
  var strategy = "default"
  var token = 32_000
  /// Whether a row stands behind each row of a grid of tiles.
  var hasNewline = false
}

extension HuggingFaceVision {
  // MARK: transformers' checkpoints

  /// - Parameter usual: what the class of the configuration assumes.
  func llava(_ usual: LLaVAFacts = LLaVAFacts(), notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    parts.encoder = try tower(usual: usual.tower)
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
    let part = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
    parts.projector = usual.hasNewline ? part.withNewline("image_newline") : part

    let strategy = try reader.text("vision_feature_select_strategy") ?? usual.strategy
    guard ["default", "full"].contains(strategy) else {
      throw .badData(place, "vision_feature_select_strategy \"\(printable(strategy))\" is not default or full")
    }
    parts.features = FeatureSelection(
      layers: try reader.integers("vision_feature_layer") ?? [usual.layer],
      classRow: strategy == "full" ? .keeps : .dropsFirst)
    // transformers writes its default, whatever the tower makes, and no longer reads it.
    if let rows = try reader.size("image_seq_length"), rows != 576 {
      parts.tileRows = (rows, "image_seq_length", false)
    }
    parts.prompt.marker = try word("image_token") ?? "<image>"
    parts.prompt.token =
      either(try reader.count("image_token_index"), try reader.count("image_token_id")) ?? usual.token
    return parts
  }

  // MARK: The original checkpoints

  fileprivate func originalLLaVA(notes: inout [String]) throws(SquintError) -> ModalityParts {
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
    case "anyres":
      let merge = try reader.text("mm_patch_merge_type") ?? "flat"
      guard merge == "spatial_unpad" else {
        throw .badData(
          place, "mm_patch_merge_type \"\(printable(merge))\" is not supported with anyres; spatial_unpad is")
      }
      parts.pinpoints = try originalPinpoints()
      parts.prompt.packing = .anyres
    case let other:
      throw .badData(
        place, "image_aspect_ratio \"\(printable(other))\" is not supported; pad and anyres are, and square (none)")
    }
    parts.projector = try originalProjector(notes: &notes)
    if parts.prompt.packing != nil { parts.projector = parts.projector?.withNewline("image_newline") }
    if parts.projector == nil, folder.has("mm_projector.bin") {
      parts.missingProjector =
        "the projector is a pickle (mm_projector.bin), which runs code when it is read; convert it with "
        + "\(ForeignFile.pickleTool) and give it with --projector \(name)=mm_projector.safetensors"
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

  /// The sizes that LLaVA 1.6 brings images to, widths and heights.
  private func originalPinpoints() throws(SquintError) -> [ImageConfiguration.Size] {
    guard let list = config["image_grid_pinpoints"]?.array, (1...256).contains(list.count) else {
      throw .badData(place, "image_grid_pinpoints is not a list of sizes, which anyres needs")
    }
    var sizes: [ImageConfiguration.Size] = []
    for pair in list {
      guard let pair = pair.array, pair.count == 2, let width = pair[0].int, let height = pair[1].int,
        (1...ImageConfiguration.largestSide).contains(width), (1...ImageConfiguration.largestSide).contains(height)
      else { throw .badData(place, "image_grid_pinpoints is not a list of sizes") }
      sizes.append(ImageConfiguration.Size(height: height, width: width))
    }
    return sizes
  }

  func originalProjector(notes: inout [String]) throws(SquintError) -> ProjectorPart? {
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
