import SquintFile

// What Qwen2-VL (arXiv 2409.12191), Qwen2.5-VL (arXiv 2502.13923) and Qwen3-VL (arXiv 2511.21631) have in common: towers that take
// images of any size and turn patches by their row and their column, squares of 2 × 2 patches in a row, and a decoder that turns by
// three axes.

/// What tells the towers of Qwen's models that see from one another.
struct QwenVL: Sendable {
  /// What files call the tower.
  let architecture: String
  /// The decoder's model_type.
  let textType: String
  /// What the configuration class assumes where config.json is silent.
  let width: Int
  /// The key of the width.
  var widthKey = "hidden_size"
  let layers: Int
  let patch: Int
  let activation: Activation
  let hasPatchBias: Bool
  /// The width of the feed-forward network for a tower of a width.
  let ffnWidth: @Sendable (ConfigurationReader, _ width: Int) throws(SquintError) -> Int
  /// What only this tower has, for so many layers; sets the configuration's grid where it has a table of positions.
  let kind:
    @Sendable (ConfigurationReader, inout EncoderConfiguration, _ merge: Int) throws(SquintError) -> QwenViTGraph.Kind
  /// The names of the projector's matrices, without their numbers.
  let projector: [String]
  let coordinates: MediaPrompt.Coordinates
  let videoFamily: VideoFamily
  /// Whether each two frames of a video have their time before them, and places of their own.
  var hasTimes = false
  /// The positions of a second of a video, where config.json is silent; nil: two frames are one position, whatever time that is.
  var positionsPerSecond: Double?

  static let heads = 16
  static let merge = 2
  /// Of all norms of the towers and in front of the projectors, whatever the configuration says of the decoder's.
  static let normEpsilon = 1e-6
  static let rotaryBase = 10_000.0
  static let publishedPositionsPerSecond = 2.0

  // MARK: In prompts

  static let words = (start: "<|vision_start|>", image: "<|image_pad|>", video: "<|video_pad|>", end: "<|vision_end|>")

  /// The prompt that templates write, and what stands where in it.
  func prompt(token: Int?) -> MediaPrompt {
    var prompt = MediaPrompt()
    prompt.marker = Self.words.start + Self.words.image + Self.words.end
    prompt.token = token
    prompt.tokenText = Self.words.image
    prompt.singlePrefix = Self.words.start
    prompt.singleSuffix = Self.words.end
    prompt.positions = .grid
    prompt.coordinates = coordinates
    return prompt
  }

  /// What is around videos, which become a multiple of `side` pixels.
  ///
  /// - Throws: `SquintError.badData` where they would not.
  func setVideos(_ videos: inout VideoConfiguration, token: Int?, side: Int, place: String) throws(SquintError) {
    videos.setQwen(token: token, isTimed: hasTimes)
    guard case .area(let factor, _, _, _) = videos.resize, factor % side == 0, videos.temporalPatch == 2 else {
      throw .badData(
        place,
        "videos do not become multiples of \(side) pixels and two frames, which is what the encoder takes; patch_size, "
          + "merge_size and temporal_patch_size of the video processor are others")
    }
  }

  /// What models of this kind do with images where no file says so.
  static func usualImages(patch: Int, merge: Int, family: ImageFamily) -> ImageConfiguration {
    var images = family.images(side: patch)
    if case .smart(_, let pixels) = family.size { images.resize = .smart(multiple: patch * merge, pixels: pixels) }
    return images
  }
}

/// The graphs `qwen2vl`, `qwen2_5vl` and `qwen3vl`.
package struct QwenViTGraph: EncoderGraphSettings {
  package enum Kind: Equatable, Sendable {
    case qwen2
    /// - window: the side of a window in merged patches
    /// - fullLayers: in which a patch sees all, ascending
    case qwen25(window: Int, fullLayers: [Int])
    /// - deepLayers: after how many layers features are taken beside the last ones, ascending
    case qwen3(deepLayers: [Int])
  }

  package var kind: Kind
  package var merge: Int
  package var rotaryBase: Double

  private func blueprint(of configuration: EncoderConfiguration, module: String) -> any QwenViTBlueprint {
    var blueprint: any QwenViTBlueprint
    switch kind {
    case .qwen2:
      var own = Qwen2ViTBlueprint(module: module)
      own.activation = configuration.activation
      blueprint = own
    case .qwen25(let window, let fullLayers):
      var own = Qwen25ViTBlueprint(module: module)
      own.window = window
      own.fullLayers = fullLayers
      blueprint = own
    case .qwen3(let deepLayers):
      var own = Qwen3ViTBlueprint(module: module)
      own.activation = configuration.activation
      own.grid = configuration.grid
      own.deepLayers = deepLayers.isEmpty ? nil : deepLayers
      blueprint = own
    }
    blueprint.architecture = configuration.architecture
    blueprint.layers = configuration.layers
    blueprint.width = configuration.width
    blueprint.ffnWidth = configuration.ffnWidth
    blueprint.heads = configuration.heads
    blueprint.patch = configuration.patch
    blueprint.merge = merge
    blueprint.normEpsilon = configuration.normEpsilon
    let headWidth = configuration.width / configuration.heads
    blueprint.ropeFrequencies = RotaryFrequencies(width: headWidth / 2, base: rotaryBase).frequencies
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

  package func takesAnyGrid(_: EncoderConfiguration) -> Bool { true }

  package var hasFrames: Bool { true }
}

extension EncoderConfiguration {
  /// Sets what all of Qwen's towers have, and checks it.
  mutating func setQwenVL(
    _ kind: QwenViTGraph.Kind, merge: Int, rotaryBase: Double, place: String
  ) throws(SquintError) {
    graph = QwenViTGraph(kind: kind, merge: merge, rotaryBase: rotaryBase)
    optionals.norm = .required
    optionals.others["frames"] = .required
    try check(place: place)
    guard width / heads % 4 == 0 else {
      throw .badData(
        place,
        "the encoder's heads are \(width / heads) wide, which is not supported; rows and columns turn a quarter of them each, "
          + "in pairs"
      )
    }
  }
}

extension VideoConfiguration.Resize {
  /// The same areas with sides that are multiples of `side`.
  mutating func setFactor(_ side: Int) {
    guard case .area(_, let least, let most, let isTotal) = self else { return }
    self = .area(factor: side, least: least, most: most, isTotal: isTotal)
  }
}

// MARK: Hugging Face

extension CheckpointFolder {
  /// Whether there is a file that says what is done with videos.
  fileprivate var speaksOfVideos: Bool {
    get throws(SquintError) {
      if try json("processor_config.json")?["video_processor"] != nil { return true }
      return has("video_preprocessor_config.json") || has("preprocessor_config.json")
    }
  }
}

extension HuggingFaceVision {
  /// The parts of a folder of this family.
  func qwenVL(_ family: QwenVL, notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    let (encoder, graph) = try qwenVLTower(family, notes: &notes)
    parts.encoder = encoder
    let merge = graph.merge

    let found = try ProjectorTensors(
      in: source, prefixes: family.projector, module: "projector.\(name)", place: folder.path)
    guard found.widths.count == 3, !found.hasNorm else {
      throw .badData(folder.path, "visual.merger has \(found.widths.count - 1) matrices, not 2")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    projector.shuffle = merge
    var maps = [found.map]
    if case .qwen3(let layers) = graph.kind, !layers.isEmpty {
      projector.deep = ProjectorConfiguration.Deep(levels: layers.count, normEpsilon: QwenVL.normEpsilon)
      maps.append(.qwenVLDeepProjector("projector.\(name)"))
    }
    parts.projector = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: maps, place: folder.path))
    parts.features = FeatureSelection()
    parts.prompt = family.prompt(token: try reader.count("image_token_id") ?? 151_655)
    var videos = try folder.videos(family.videoFamily)
    let side = encoder.configuration.patch * merge
    // Where the folder does not speak of videos, the class is not one for other patches.
    if try !folder.speaksOfVideos { videos.resize.setFactor(side) }
    try family.setVideos(
      &videos, token: reader.count("video_token_id") ?? 151_656, side: side, place: folder.path)
    if let usual = family.positionsPerSecond {
      let vision = ConfigurationReader(json: config["vision_config"] ?? .null, place: "\(place): vision_config")
      videos.positionsPerSecond = try vision.number("tokens_per_second") ?? usual
    }
    parts.videos = videos
    return parts
  }

  private func qwenVLTower(
    _ family: QwenVL, notes: inout [String]
  ) throws(SquintError) -> (EncoderPart, QwenViTGraph) {
    let place = "\(place): vision_config"
    let module = "encoder.\(name)"
    let names = NameMap.qwenVLEncoder(module)
    let stored = StoredTensors(MappedTensors(source: source, maps: [names], place: folder.path), module: module)
    var (encoder, graph) = try family.encoder(
      config, storedWidth: stored["frames"]?.shape.first, storedLayers: stored.layers, place: place)
    try encoder.follow(stored, place: place, notes: &notes)
    let part = EncoderPart(
      configuration: encoder,
      tensors: MappedTensors(
        source: source, maps: [names.ignoringLayers(from: encoder.sourceLayers)], place: folder.path),
      images: try folder.images(fallback: .qwen2VL),
      usualImages: QwenVL.usualImages(patch: encoder.patch, merge: graph.merge, family: .qwen2VL))
    return (part, graph)
  }
}

extension QwenVL {
  /// The tower that `vision_config` of a config.json describes, with what the class assumes where it is silent.
  ///
  /// - Parameters:
  ///   - storedWidth: what the tensors say of it; nil: nothing.
  ///   - place: for messages.
  func encoder(
    _ config: JSONValue, storedWidth: Int?, storedLayers: Int, place: String
  ) throws(SquintError) -> (EncoderConfiguration, QwenViTGraph) {
    let vision = config["vision_config"] ?? .object(JSONObject())
    guard vision.object != nil else { throw .badData(place, "it is not an object") }
    let reader = ConfigurationReader(json: vision, outer: config, place: place)
    let channels = try reader.size("in_channels") ?? 3
    guard channels == 3 else {
      throw .badData(place, "in_channels is \(channels); only images with 3 are supported")
    }
    let frames = try reader.size("temporal_patch_size") ?? 2
    guard frames == 2 else {
      throw .badData(place, "temporal_patch_size is \(frames); only patches of 2 frames are supported")
    }
    let name = try reader.text("hidden_act")
    guard let activation = name.map({ Activation(huggingFace: $0) }) ?? activation else {
      throw .badData(place, "the encoder's hidden_act \"\(printable(name ?? ""))\" is not supported")
    }
    let width = try reader.size(widthKey) ?? storedWidth ?? width
    guard (1...DecoderConfiguration.largestDimension).contains(width) else {
      throw .badData(place, "\(widthKey) \(width) is not supported")
    }
    let most = DecoderConfiguration.mostLayers
    let saidLayers = either(try reader.size("depth", atMost: most), try reader.size("num_hidden_layers", atMost: most))
    let merge = try reader.size("spatial_merge_size", atMost: ProjectorConfiguration.largestShuffle) ?? Self.merge
    var encoder = EncoderConfiguration(
      architecture: architecture, layers: saidLayers ?? ((1...most).contains(storedLayers) ? storedLayers : layers),
      width: width, ffnWidth: try ffnWidth(reader, width),
      heads: try either(reader.size("num_heads"), reader.size("num_attention_heads")) ?? Self.heads,
      patch: try reader.side("patch_size", atMost: EncoderConfiguration.largestPatch) ?? patch, grid: 1,
      positions: .fixed, normEpsilon: Self.normEpsilon, activation: activation, hasClass: false)
    encoder.optionals.patchBias = hasPatchBias ? .required : .absent
    let kind = try kind(reader, &encoder, merge)
    let rotary = ConfigurationReader(
      json: vision["rope_parameters"] ?? .object(JSONObject()), place: "\(place): rope_parameters")
    let rule = try rotary.text("rope_type") ?? "axial"
    let base = try rotary.number("rope_theta") ?? Self.rotaryBase
    guard ["axial", "default"].contains(rule), base > 0 else {
      throw .badData(place, "rope_parameters \"\(printable(rule))\" with the base \(base) are not supported; axial is")
    }
    try encoder.setQwenVL(kind, merge: merge, rotaryBase: base, place: place)
    return (encoder, QwenViTGraph(kind: kind, merge: merge, rotaryBase: base))
  }
}

extension EncoderConfiguration {
  /// The tower of Qwen2-VL, Qwen2.5-VL or Qwen3-VL that a config.json describes.
  ///
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  package init(huggingFaceQwenVL config: JSONValue, place: String) throws(SquintError) {
    let families = ["qwen2_vl": QwenVL.qwen2, "qwen2_5_vl": .qwen25, "qwen3_vl": .qwen3]
    guard let family = config["model_type"]?.string.flatMap({ families[$0] }) else {
      throw .badData(place, "model_type is none of qwen2_vl, qwen2_5_vl, qwen3_vl")
    }
    self = try family.encoder(config, storedWidth: nil, storedLayers: 0, place: "\(place): vision_config").0
  }
}

extension DecoderConfiguration {
  /// Sets what the decoders of Qwen's models that see have of their own.
  ///
  /// - Parameters:
  ///   - base: of the rotary embedding, where none is given.
  ///   - sections: how many pairs turn by each axis, where the configuration does not say.
  mutating func finishQwenVL(
    _ reader: ConfigurationReader, base: Double, sections usual: [Int], isInterleaved: Bool,
    window: (positions: Int, layers: [Int]?), notes: inout [String]
  ) throws(SquintError) {
    self.window = window.positions
    windowLayers = window.layers
    rotary = try HuggingFaceRotary.uniform(
      reader, headWidth: headWidth, context: context, layerTypes: reader.texts("layer_types"), base: base,
      notes: &notes)
    // transformers takes rope_scaling for rope_parameters where both are there.
    let scaling = reader.json["rope_scaling"].flatMap { $0.object?.count == 0 ? nil : $0 }
    let settings = ConfigurationReader(
      json: either(scaling, reader.json["rope_parameters"]) ?? .object(JSONObject()), place: reader.place)
    try setAxes(
      settings.integers("mrope_section") ?? usual, key: "mrope_section", isInterleaved: isInterleaved,
      place: reader.place)
  }

  /// The same in GGUF (llama.cpp, `LLM_ARCH_QWEN2VL`, `LLM_ARCH_QWEN3VL`).
  mutating func finishQwenVL(_ reader: GGUFDecoderReader, isInterleaved: Bool) throws(SquintError) {
    try finishLlama(reader)
    let key = reader.key("rope.dimension_sections")
    guard let sections = reader.metadata.values[key]?.integers else {
      throw .badData(reader.metadata.place, "metadata \(key) is missing, or no list of integers")
    }
    try setAxes(
      sections.map { Int(clamping: $0) }, key: "metadata \(key)", isInterleaved: isInterleaved,
      place: reader.metadata.place)
  }

  /// Sets the axes that pairs turn by: `sections` of them by each (modeling_qwen2_vl.py and modeling_qwen3_vl.py,
  /// `recomposition_frequencies`).
  private mutating func setAxes(
    _ sections: [Int], key: String, isInterleaved: Bool, place: String
  ) throws(SquintError) {
    let pairs = rotary.frequencies.count
    // A fourth one is for what no model has. Interleaved ones may say more than there are, as the class's defaults do for small heads.
    guard sections.count == 3 || sections.count == 4 && sections[3] == 0,
      sections.allSatisfy({ (0...DecoderConfiguration.largestDimension).contains($0) }),
      isInterleaved || sections.reduce(0, +) == pairs
    else {
      throw .badData(
        place,
        "\(key) is \(sections.prefix(8)); it must be three numbers whose sum is that of the \(pairs) pairs of a head")
    }
    let axes: [Int]
    if isInterleaved {
      axes = (0..<pairs).map { pair in
        let axis = pair % 3
        return axis > 0 && pair < 3 * sections[axis] ? axis : 0
      }
    } else {
      axes = (0..<3).flatMap { Array(repeating: $0, count: sections[$0]) }
    }
    graph = LlamaGraph(ropeAxes: axes)
  }
}

extension NameMap {
  /// modeling_qwen2_vl.py, modeling_qwen2_5_vl.py, modeling_qwen3_vl.py; Qwen2.5-Omni has the matrices of attention apart.
  static func qwenVLEncoder(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("visual.blocks.*.norm1", "*.attention.norm"),
        ("visual.blocks.*.attn.qkv", "*.attention.qkv"),
        ("visual.blocks.*.attn.q", "*.attention.q"),
        ("visual.blocks.*.attn.k", "*.attention.k"),
        ("visual.blocks.*.attn.v", "*.attention.v"),
        ("visual.blocks.*.attn.proj", "*.attention.o"),
        ("visual.blocks.*.norm2", "*.ffn.norm"),
        ("visual.blocks.*.mlp.fc1", "*.ffn.up"),
        ("visual.blocks.*.mlp.fc2", "*.ffn.down"),
        ("visual.blocks.*.mlp.linear_fc1", "*.ffn.up"),
        ("visual.blocks.*.mlp.linear_fc2", "*.ffn.down"),
        ("visual.blocks.*.mlp.gate_proj", "*.ffn.gate"),
        ("visual.blocks.*.mlp.up_proj", "*.ffn.up"),
        ("visual.blocks.*.mlp.down_proj", "*.ffn.down"),
        ("visual.pos_embed", "positions"),
        ("visual.merger.ln_q", "norm"),
        ("visual.merger.norm", "norm"),
      ],
      names: [
        ("visual.patch_embed.proj.weight", "frames"),
        ("visual.patch_embed.proj.bias", "patch.bias"),
      ],
      // A table that is computed anew.
      ignored: ["visual.rotary_pos_emb.inv_freq"])
  }

  /// The projectors of Qwen3-VL's earlier features.
  static func qwenVLDeepProjector(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("visual.deepstack_merger_list.*.norm", "deep.*.norm"),
        ("visual.deepstack_merger_list.*.linear_fc1", "deep.*.0"),
        ("visual.deepstack_merger_list.*.linear_fc2", "deep.*.1"),
      ])
  }
}

// MARK: GGUF

extension MediaFamily.GGUFFacts {
  /// How llama.cpp keeps one of Qwen's models that see (tools/mtmd/clip.cpp, `PROJECTOR_TYPE_QWEN2VL` and its siblings).
  ///
  /// - Parameters:
  ///   - text: the architectures of text models that it may belong to.
  ///   - kind: what only this tower has.
  static func qwenVL(
    _ family: QwenVL, projectorType: String, text architectures: [String], images: ImageFamily,
    kind:
      @escaping @Sendable (inout EncoderConfiguration, GGUFSource, GGUFMetadata, _ merge: Int) throws(SquintError)
      -> QwenViTGraph.Kind
  ) -> MediaFamily.GGUFFacts {
    @Sendable func merge(_ metadata: GGUFMetadata) throws(SquintError) -> Int {
      try metadata.size("clip.vision.spatial_merge_size", atMost: ProjectorConfiguration.largestShuffle)
        ?? QwenVL.merge
    }
    return MediaFamily.GGUFFacts(
      projectorType: projectorType,
      encoder: { _ in
        EncoderFamily(
          architecture: family.architecture, modelTypes: [], width: family.width, layers: family.layers,
          heads: QwenVL.heads, image: 1, patch: family.patch, activation: family.activation,
          normEpsilon: QwenVL.normEpsilon, positions: .fixed, hasClass: false, hasPreNorm: false, hasNorm: true,
          hasPatchBias: family.hasPatchBias, images: images, names: NameMap.qwenVLEncoder)
      },
      setImages: { (images, metadata) throws(SquintError) in
        let patch = try metadata.size("clip.vision.patch_size", atMost: EncoderConfiguration.largestPatch)
        let side = (patch ?? family.patch) * (try merge(metadata))
        // The converter leaves the limits out: those of the published Qwen2-VL and Qwen2.5-VL, 4 to 16,384 rows.
        let least = try metadata.size("clip.vision.image_min_pixels") ?? 4 * side * side
        let most = try metadata.size("clip.vision.image_max_pixels") ?? 16_384 * side * side
        guard least <= most else {
          throw .badData(
            metadata.place, "metadata clip.vision.image_min_pixels \(least) is more than image_max_pixels \(most)")
        }
        images.resize = .smart(multiple: side, pixels: least...most)
      },
      projectorPrefix: "mm",
      setProjector: { (projector, metadata) throws(SquintError) in
        guard projector.layers == 2 else {
          throw .badData(
            metadata.place, "a projector of type \(projectorType) with \(projector.layers) matrices is not supported")
        }
        projector.shuffle = try merge(metadata)
        let levels = try metadata.qwenVLDeepLayers().count
        if levels > 0 {
          projector.deep = ProjectorConfiguration.Deep(levels: levels, normEpsilon: QwenVL.normEpsilon)
        }
      },
      features: { _, _ in nil },
      finish: { (parts, text) throws(SquintError) in
        let metadata = GGUFMetadata(values: text.metadata, place: parts.place)
        let found = try metadata.text("general.architecture") ?? ""
        guard architectures.contains(found) else {
          throw .badData(
            parts.place,
            "this belongs to a text model of the architecture \(architectures.joined(separator: " or ")), but that of the text model is "
              + "\"\(printable(found))\"; give the text model that it was published with")
        }
        let words = [QwenVL.words.start, QwenVL.words.image, QwenVL.words.end]
        let vocabulary = text.metadata["tokenizer.ggml.tokens"]?.strings
        for word in words where vocabulary?.contains(ByteString(Array(word.utf8))) == false {
          throw .badData(
            parts.place,
            "the text model's tokenizer has no \(word); give the text model that this was published with")
        }
        parts.features = FeatureSelection()
        parts.prompt = family.prompt(token: nil)
        guard let encoder = parts.encoder, let graph = encoder.configuration.graph as? QwenViTGraph else { return }
        // The file does not speak of videos: sizes as the class has them, for this patch.
        let side = encoder.configuration.patch * graph.merge
        var videos = try VideoConfiguration(huggingFace: .null, family.videoFamily, place: parts.place)
        videos.resize.setFactor(side)
        if let images = encoder.images { (videos.mean, videos.std) = (images.mean, images.std) }
        try family.setVideos(&videos, token: nil, side: side, place: parts.place)
        // As the published models have it, which llama.cpp's converter leaves out.
        videos.positionsPerSecond = family.positionsPerSecond.map { _ in QwenVL.publishedPositionsPerSecond }
        parts.videos = videos
      },
      setEncoder: { (encoder, source, metadata) throws(SquintError) in
        let merge = try merge(metadata)
        encoder.grid = 1
        encoder.normEpsilon = QwenVL.normEpsilon
        encoder.activation = family.activation
        let kind = try kind(&encoder, source, metadata, merge)
        try encoder.setQwenVL(kind, merge: merge, rotaryBase: QwenVL.rotaryBase, place: metadata.place)
      },
      moreNames: { (module, metadata) throws(SquintError) in
        let layers = try metadata.qwenVLDeepLayers()
        return NameMap(
          module: module,
          stems: layers.enumerated().flatMap { level, layer in
            [
              ("v.deepstack.\(layer).norm", "deep.\(level).norm"), ("v.deepstack.\(layer).fc1", "deep.\(level).0"),
              ("v.deepstack.\(layer).fc2", "deep.\(level).1"),
            ]
          },
          names: [("v.patch_embd.weight", "frame.0"), ("v.patch_embd.weight.1", "frame.1")])
      })
  }
}

extension GGUFMetadata {
  /// The layers of the tower whose features are taken, ascending, counted from 0.
  func qwenVLDeepLayers() throws(SquintError) -> [Int] {
    let key = "clip.vision.is_deepstack_layers"
    guard let value = values[key] else { return [] }
    guard let chosen = value.bools else { throw .badData(place, "metadata \(key) is no list of booleans") }
    return chosen.indices.filter { chosen[$0] }
  }
}
