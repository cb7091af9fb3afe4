import SquintFile

// InternVL 2.5 to 3.5 (arXiv 2412.05271, 2504.10479, 2508.18265), as transformers keeps it and as OpenGVLab's own program does: InternViT,
// squares of patches side by side, a norm and two matrices, a decoder.

extension MediaFamily {
  /// transformers' InternVLForConditionalGeneration (configuration_internvl.py).
  static let internVL = MediaFamily(
    description: "internvl (transformers' and OpenGVLab's)", classes: ["internvl"],
    recognizes: { $0["model_type"]?.string == "internvl" },
    decoderType: { config in
      config["text_config"] != nil && config["text_config"]?["model_type"] == nil ? "qwen2" : nil
    },
    isTied: { _, _, outer in outer ?? true },
    parts: { (vision, notes) throws(SquintError) in try vision.internVL(notes: &notes) },
    gguf: GGUFFacts(
      projectorType: "internvl", encoder: { _ in .internViT }, setImages: setInternVLImages,
      projectorPrefix: "mm.model.mlp",
      setProjector: { (projector, metadata) throws(SquintError) in
        guard projector.layers == 2 else {
          throw .badData(
            metadata.place, "a projector of type internvl with \(projector.layers) matrices is not supported")
        }
        projector.shuffle =
          try metadata.size("clip.vision.projector.scale_factor", atMost: ProjectorConfiguration.largestShuffle) ?? 2
        projector.bias = .required
      }, features: { _, _ in nil }, finish: finishInternVL, projectorNormEpsilon: 1e-5,
      setEncoder: { (encoder, source, metadata) throws(SquintError) in
        try encoder.setInternViT(
          norm: source.tensor(named: "v.blk.0.ln1.bias") == nil ? "rms_norm" : "layer_norm",
          hasHeadNorms: source.tensor(named: "v.blk.0.attn_q_norm.weight") != nil,
          hasNorm: source.tensor(named: "v.post_ln.weight") != nil, place: metadata.place)
      },
      moreNames: { (module, _) throws(SquintError) in
        NameMap(
          module: module,
          stems: [
            ("v.blk.*.attn_q_norm", "*.attention.q_norm"), ("v.blk.*.attn_k_norm", "*.attention.k_norm"),
          ])
      }))

  /// Tiles and an overview; the numbers of tiles are llama.cpp's where the file has none (tools/mtmd/clip.cpp).
  @Sendable private static func setInternVLImages(
    _ images: inout ImageConfiguration, _ metadata: GGUFMetadata
  ) throws(SquintError) {
    let least = try metadata.size("clip.vision.preproc_min_tiles", atMost: 1024) ?? 1
    let most = try metadata.size("clip.vision.preproc_max_tiles", atMost: 1024) ?? 12
    guard least <= most, let side = try metadata.size("clip.vision.image_size", atMost: ImageConfiguration.largestSide)
    else {
      throw .badData(
        metadata.place, "metadata clip.vision.preproc_min_tiles \(least) is more than preproc_max_tiles \(most)")
    }
    images = .grid(side: side, tiles: least...most, overview: true, mean: images.mean, std: images.std)
  }

  @Sendable private static func finishInternVL(
    _ parts: inout ModalityParts, _ text: GGUFSource
  ) throws(SquintError) {
    parts.features = FeatureSelection()
    let (row, start, end) = ("<IMG_CONTEXT>", "<img>", "</img>")
    let vocabulary = text.metadata["tokenizer.ggml.tokens"]?.strings
    for word in [row, start, end] where vocabulary?.contains(ByteString(Array(word.utf8))) == false {
      throw .badData(
        parts.place,
        "this belongs to InternVL, but the text model's tokenizer has no \(word); give the text model that it was published with"
      )
    }
    // transformers' template has the token that stands for rows as an image's place; OpenGVLab's has none.
    let template = text.metadata["tokenizer.chat_template"]?.string ?? ""
    if template.contains(row) { parts.prompt.marker = row } else { parts.prompt.tokenText = row }
    parts.prompt.setInternVL(start: start, end: end)
    if let images = parts.encoder?.images {
      var videos = try VideoConfiguration(internVL: images)
      videos.setInternVL(token: nil, tokenText: row, start: start, end: end)
      parts.videos = videos
      parts.prompt.coordinates = .thousandths
    }
  }

  /// OpenGVLab's InternVLChatModel (configuration_internvl_chat.py and modeling_internvl_chat.py, which come with its checkpoints).
  static let internVLChat = MediaFamily(
    description: nil, classes: ["internvlchat"],
    recognizes: { $0["model_type"]?.string == "internvl_chat" },
    translated: { config in
      guard let whole = config.object, let text = config["llm_config"] else { return config }
      return .object(whole.setting("text_config", to: text))
    },
    isTied: { _, inner, outer in either(inner, outer) },
    parts: { (vision, notes) throws(SquintError) in try vision.internVLChat(notes: &notes) })
}

extension EncoderFamily {
  /// configuration_internvl.py: the tower of 300M, and with norm_type rms_norm that of 6B.
  static let internViT = EncoderFamily(
    architecture: "internvit", modelTypes: ["internvl_vision", "interns1_vision", "intern_s1_vision"], width: 1024,
    layers: 24, heads: 16, image: 448, patch: 14, activation: .gelu, normEpsilon: 1e-6, positions: .bicubic,
    hasClass: true, hasPreNorm: false, hasNorm: false, hasPatchBias: true, images: .gotOCR2,
    usualMean: ImageFamily.imageNetMean,
    usualStd: ImageFamily.imageNetStd,
    ffnWidth: { (reader, _) throws(SquintError) in try reader.size("intermediate_size") ?? 4096 },
    queryKeyValueBiasKey: "attention_bias", hasQueryKeyValueBias: false, names: NameMap.internViTEncoder
  ) { (encoder, reader) throws(SquintError) in
    for key in ["use_absolute_position_embeddings"] where try reader.flag(key) == false {
      throw .badData(reader.place, "\(key) false is not supported; InternVL's towers have positions")
    }
    try encoder.setInternViT(
      norm: reader.text("norm_type") ?? "layer_norm", hasHeadNorms: reader.flag("use_qk_norm") ?? false,
      hasNorm: !(reader.flag("use_mean_pooling") ?? true), place: reader.place)
  }

  /// configuration_intern_vit.py, whose defaults are the tower of 6B.
  static let internViT6B = EncoderFamily(
    architecture: "internvit", modelTypes: ["intern_vit_6b"], width: 3200, layers: 48, heads: 25, image: 224, patch: 14,
    activation: .gelu, normEpsilon: 1e-6, positions: .bicubic, hasClass: true, hasPreNorm: false, hasNorm: false,
    hasPatchBias: true, images: .gotOCR2, usualMean: ImageFamily.imageNetMean, usualStd: ImageFamily.imageNetStd,
    ffnWidth: { (reader, _) throws(SquintError) in try reader.size("intermediate_size") ?? 12800 },
    queryKeyValueBiasKey: "qkv_bias", hasQueryKeyValueBias: false, names: NameMap.internViTEncoder
  ) { (encoder, reader) throws(SquintError) in
    try encoder.setInternViT(
      norm: reader.text("norm_type") ?? "rms_norm", hasHeadNorms: reader.flag("qk_normalization") ?? true,
      hasNorm: false,
      place: reader.place)
  }
}

extension EncoderConfiguration {
  /// Chooses the graph: `vit`, or where norms have weights alone `internvit`.
  ///
  /// - Parameters:
  ///   - hasHeadNorms: whether queries and keys are normalized, over all heads together.
  ///   - hasNorm: whether a LayerNorm follows the last layer.
  fileprivate mutating func setInternViT(
    norm: String, hasHeadNorms: Bool, hasNorm: Bool, place: String
  ) throws(SquintError) {
    switch norm {
    case "layer_norm":
      guard !hasHeadNorms else {
        throw .badData(place, "norms of queries and keys beside norm_type layer_norm are not supported")
      }
      optionals.norm = hasNorm ? .required : .absent
    case "rms_norm":
      guard !hasNorm else {
        throw .badData(place, "use_mean_pooling false beside norm_type rms_norm is not supported")
      }
      // transformers has this number for norms of queries and keys, OpenGVLab's program that of the others.
      guard !hasHeadNorms || normEpsilon == 1e-6 else {
        throw .badData(place, "layer_norm_eps \(normEpsilon) with norms of queries and keys is not supported; 1e-6 is")
      }
      optionals.norm = .absent
      for name in ["attention.q_norm", "attention.k_norm"] {
        optionals.others[name] = hasHeadNorms ? .required : .absent
      }
      graph = InternViTGraph()
    default: throw .badData(place, "norm_type \"\(printable(norm))\" is not layer_norm or rms_norm")
    }
  }
}

/// The graph `internvit`.
package struct InternViTGraph: EncoderGraphSettings {
  package init() {}

  private func blueprint(of configuration: EncoderConfiguration, module: String) -> InternViTBlueprint {
    var blueprint = InternViTBlueprint(module: module)
    blueprint.architecture = configuration.architecture
    blueprint.layers = configuration.layers
    blueprint.width = configuration.width
    blueprint.ffnWidth = configuration.ffnWidth
    blueprint.heads = configuration.heads
    blueprint.patch = configuration.patch
    blueprint.grid = configuration.grid
    blueprint.positions = configuration.positions
    blueprint.normEpsilon = configuration.normEpsilon
    blueprint.activation = configuration.activation
    blueprint.dropsClass = configuration.features.dropsClass
    return blueprint
  }

  package func write(_ configuration: EncoderConfiguration, module: String, to metadata: inout Metadata) {
    blueprint(of: configuration, module: module).write(to: &metadata)
  }

  package func tensors(of configuration: EncoderConfiguration, module: String, layers: Int) -> [TensorSpecification] {
    var blueprint = blueprint(of: configuration, module: module)
    blueprint.layers = layers
    return blueprint.tensors
  }

  package func takesAnyGrid(_ configuration: EncoderConfiguration) -> Bool { configuration.positions != .fixed }
}

extension HuggingFaceVision {
  // MARK: transformers' checkpoints

  /// The parts of InternVL and Intern-S1.
  func internVL(notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    parts.encoder = try tower(usual: .internViT)
    parts.projector = try internVLProjector(
      "multi_modal_projector", activation: reader.text("projector_hidden_act") ?? "gelu", notes: &notes)
    let strategy = try reader.text("vision_feature_select_strategy") ?? "default"
    guard strategy == "default" else {
      throw .badData(place, "vision_feature_select_strategy \"\(printable(strategy))\" is not supported; default is")
    }
    parts.features = try internVLFeatures(reader.integers("vision_feature_layer") ?? [-1])
    let row = try word("context_image_token") ?? "<IMG_CONTEXT>"
    parts.prompt.marker = row
    // The first folders have a template with another word, which their processor replaces.
    if let fake = try word("fake_image_token"), try !templateHas(row) {
      parts.prompt.marker = fake
      parts.prompt.tokenText = row
    }
    parts.prompt.token = try reader.count("image_token_id") ?? 151_667
    parts.prompt.setInternVL(
      start: try word("start_image_token") ?? "<img>", end: try word("end_image_token") ?? "</img>")
    if let images = parts.encoder?.images {
      var videos = try folder.hasVideoProcessor ? folder.videos(.internVL) : VideoConfiguration(internVL: images)
      videos.setInternVL(
        token: parts.prompt.token, tokenText: parts.prompt.marker, start: parts.prompt.singlePrefix,
        end: parts.prompt.singleSuffix)
      videos.marker = try word("video_token") ?? videos.marker
      parts.videos = videos
      parts.prompt.coordinates = .thousandths
    }
    if let processor = try folder.json("processor_config.json") {
      let file = folder.file("processor_config.json")
      if let rows = try ConfigurationReader(json: processor, place: file).size("image_seq_length") {
        parts.tileRows = (rows, "image_seq_length of processor_config.json", true)
      }
    }
    return parts
  }

  /// Whether a chat template of the folder has `word` in it.
  private func templateHas(_ word: String) throws(SquintError) -> Bool {
    for file in ["chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json"]
    where folder.has(file) {
      let template =
        file.hasSuffix(".jinja")
        ? try folder.text(file, limit: JSONValue.maximumByteCount) : try folder.json(file)?["chat_template"]?.string
      if let template { return template.contains(word) }
    }
    return false
  }

  private func internVLFeatures(_ layers: [Int]) throws(SquintError) -> FeatureSelection {
    guard layers.count == 1 else {
      throw .badData(place, "features of the layers \(layers) are not supported; of one layer they are")
    }
    // What the tower gives in the end has its last norm, where there is one.
    return FeatureSelection(layers: layers == [-1] ? nil : layers)
  }

  private func internVLProjector(
    _ prefix: String, activation: String, notes: inout [String]
  ) throws(SquintError) -> ProjectorPart {
    let found = try ProjectorTensors(in: source, prefixes: [prefix], module: "projector.\(name)", place: folder.path)
    guard found.hasNorm, found.widths.count == 3 else {
      throw .badData(
        folder.path,
        "\(prefix) has \(found.widths.count - 1) matrices and \(found.hasNorm ? "a" : "no") norm, not 2 and a norm")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    // PyTorch's default for LayerNorm; the tower's is another.
    projector.normEpsilon = 1e-5
    let ratio = try reader.number("downsample_ratio") ?? 0.5
    let shuffle = ratio > 0 ? (1 / ratio).rounded(.down) : 0
    guard (1...Double(ProjectorConfiguration.largestShuffle)).contains(shuffle), shuffle * ratio == 1 else {
      throw .badData(place, "downsample_ratio \(ratio) is not 1 divided by a whole number")
    }
    projector.shuffle = Int(shuffle)
    guard let known = Activation(huggingFace: activation) else {
      throw .badData(place, "projector_hidden_act \"\(printable(activation))\" is not supported")
    }
    projector.activation = known
    projector.bias = .required
    return ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
  }

  // MARK: OpenGVLab's checkpoints

  fileprivate func internVLChat(notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    let version = try reader.text("ps_version") ?? "v1"
    guard version == "v2" else {
      throw .badData(
        place,
        "ps_version \"\(printable(version))\" is not supported: squares of patches column by column, as InternVL 1 has them; v2 is"
      )
    }
    guard try reader.flag("pad2square") != true else {
      throw .badData(place, "pad2square is not supported; InternVL 2 and later cut images into tiles")
    }
    var encoder = try tower(usual: .internViT6B)
    parts.projector = try internVLProjector("mlp1", activation: "gelu", notes: &notes)
    parts.features = try internVLFeatures([reader.integers("select_layer")?.first ?? -1])

    let side =
      try reader.side("force_image_size", atMost: ImageConfiguration.largestSide)
      ?? encoder.configuration.grid * encoder.configuration.patch
    let isCut = try reader.flag("dynamic_image_size") ?? false
    let least = try reader.size("min_dynamic_patch", atMost: 1024) ?? 1
    let most = isCut ? try reader.size("max_dynamic_patch", atMost: 1024) ?? 6 : 1
    guard !isCut || least <= most else {
      throw .badData(place, "min_dynamic_patch \(least) is more than max_dynamic_patch \(most)")
    }
    // Its own program reads none of the file but the mean and the deviation.
    let said = encoder.images
    parts.images = .grid(
      side: side, tiles: (isCut ? least : 1)...most, overview: try reader.flag("use_thumbnail") ?? false,
      mean: said?.mean ?? ImageFamily.imageNetMean, std: said?.std ?? ImageFamily.imageNetStd)
    encoder.images = nil
    parts.encoder = encoder
    parts.prompt.tokenText = "<IMG_CONTEXT>"
    parts.prompt.setInternVL(start: "<img>", end: "</img>")
    if let images = parts.images {
      var videos = try VideoConfiguration(internVL: images)
      videos.setInternVL(token: nil, tokenText: "<IMG_CONTEXT>", start: "<img>", end: "</img>")
      parts.videos = videos
      parts.prompt.coordinates = .thousandths
    }
    return parts
  }
}

extension MediaPrompt {
  /// Sets the text that InternVL has around all rows of an image.
  package mutating func setInternVL(start: String, end: String) {
    prefix = start
    suffix = end
    singlePrefix = start
    singleSuffix = end
  }
}

extension NameMap {
  /// InternViT in transformers' names (modeling_internvl.py) and in OpenGVLab's (modeling_intern_vit.py).
  package static func internViTEncoder(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("embeddings.patch_embeddings.projection", "patch"),
        ("encoder.layer.*.layernorm_before", "*.attention.norm"),
        ("encoder.layer.*.attention.q_proj", "*.attention.q"),
        ("encoder.layer.*.attention.k_proj", "*.attention.k"),
        ("encoder.layer.*.attention.v_proj", "*.attention.v"),
        ("encoder.layer.*.attention.q_norm", "*.attention.q_norm"),
        ("encoder.layer.*.attention.k_norm", "*.attention.k_norm"),
        ("encoder.layer.*.attention.projection_layer", "*.attention.o"),
        ("encoder.layer.*.layernorm_after", "*.ffn.norm"),
        ("encoder.layer.*.mlp.fc1", "*.ffn.up"),
        ("encoder.layer.*.mlp.fc2", "*.ffn.down"),
        ("layernorm", "norm"),
        ("embeddings.patch_embedding", "patch"),
        ("encoder.layers.*.norm1", "*.attention.norm"),
        ("encoder.layers.*.attn.qkv", "*.attention.qkv"),
        ("encoder.layers.*.attn.q_norm", "*.attention.q_norm"),
        ("encoder.layers.*.attn.k_norm", "*.attention.k_norm"),
        ("encoder.layers.*.attn.proj", "*.attention.o"),
        ("encoder.layers.*.norm2", "*.ffn.norm"),
        ("encoder.layers.*.mlp.fc1", "*.ffn.up"),
        ("encoder.layers.*.mlp.fc2", "*.ffn.down"),
      ],
      names: [
        ("embeddings.cls_token", "class"),
        ("embeddings.position_embeddings", "positions"),
        ("encoder.layer.*.lambda_1", "*.attention.scale"),
        ("encoder.layer.*.lambda_2", "*.ffn.scale"),
        ("embeddings.class_embedding", "class"),
        ("embeddings.position_embedding", "positions"),
        ("encoder.layers.*.ls1", "*.attention.scale"),
        ("encoder.layers.*.ls2", "*.ffn.scale"),
      ],
      // What images were masked with in training.
      ignored: ["embeddings.mask_token"],
      prefixes: towerPrefixes)
  }
}
