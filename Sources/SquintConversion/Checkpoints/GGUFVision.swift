import SquintFile

/// A GGUF file with an encoder and its projector, which llama.cpp calls mmproj (tools/mtmd/clip.cpp, `load_hparams` and
/// `load_tensors`).
///
/// Where llama.cpp and the model that was converted differ, the model is right: features of LLaVA are those behind the last
/// layer that is in the file, for its converter leaves out the layers behind them. (llama.cpp leaves out another one.)
struct GGUFVision {
  private let place: String
  private let source: GGUFSource
  private let metadata: GGUFMetadata
  private let family: MediaFamily.GGUFFacts

  /// - Throws: `SquintError.noInput` where it cannot be read, `.badData` where it is broken or not supported.
  init(path: String) throws(SquintError) {
    place = path
    source = try GGUFSource(path: path)
    metadata = GGUFMetadata(values: source.metadata, place: path)
    guard try metadata.holdsEncoder() else {
      throw .badData(
        path,
        "this is no encoder with a projector (general.architecture is "
          + "\"\(printable(try metadata.text("general.architecture") ?? ""))\"); --mmproj takes the file whose name begins "
          + "with mmproj, the text model is the source")
    }
    guard try metadata.flag("clip.has_vision_encoder") == true else {
      throw .badData(path, "it has no vision encoder (clip.has_vision_encoder); others are not supported")
    }
    let type = either(try metadata.text("clip.projector_type"), try metadata.text("clip.vision.projector_type")) ?? ""
    let families = Families.media.compactMap(\.gguf)
    guard let family = families.first(where: { $0.projectorType == type }) else {
      let known = families.map(\.projectorType).joined(separator: ", ")
      throw .badData(
        path, "clip.projector_type \"\(printable(type))\" is not supported; known are \(known)")
    }
    self.family = family
    let pinpoints = source.metadata["clip.vision.image_grid_pinpoints"]?.integers ?? []
    guard pinpoints.isEmpty || type == "mlp" else {
      throw .badData(
        path,
        "it cuts images as LLaVA 1.6 does (clip.vision.image_grid_pinpoints), which is not supported for a projector of type "
          + type)
    }
  }

  /// All that the file gives for the modality `name` of a text model.
  ///
  /// - Throws: `SquintError.badData` where the text model is of another kind.
  func parts(name: String, text: GGUFSource) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    parts.encoder = try encoder(name: name)
    parts.projector = try projector(name: name)
    try family.finish(&parts, text)
    return parts
  }

  // MARK: The encoder

  func encoder(name: String) throws(SquintError) -> EncoderPart {
    func size(_ key: String, atMost most: Int = DecoderConfiguration.largestDimension) throws(SquintError) -> Int {
      guard let value = try metadata.size("clip.vision.\(key)", atMost: most) else {
        throw .badData(place, "metadata clip.vision.\(key) is missing")
      }
      return value
    }
    let width = try size("embedding_length")
    let ffn = try ffn(width: width)
    let patch = try size("patch_size", atMost: EncoderConfiguration.largestPatch)
    let image = try size("image_size", atMost: ImageConfiguration.largestSide)
    let hasClass = source.tensor(named: "v.class_embd") != nil
    guard let epsilon = try metadata.number("clip.vision.attention.layer_norm_epsilon") else {
      throw .badData(place, "metadata clip.vision.attention.layer_norm_epsilon is missing")
    }
    let heads = try size("attention.head_count")
    if let keyValueHeads = try metadata.size("clip.vision.attention.head_count_kv"), keyValueHeads != heads {
      throw .badData(place, "an encoder with fewer heads for keys and values than for queries is not supported")
    }
    let tower = family.encoder(hasClass)
    var configuration = EncoderConfiguration(
      architecture: tower.architecture, layers: try size("block_count", atMost: DecoderConfiguration.mostLayers),
      width: width, ffnWidth: ffn.width, heads: heads, patch: patch, grid: image / patch, positions: tower.positions,
      normEpsilon: Double(shortest: Float(epsilon)), activation: try activation(hasClass: hasClass),
      hasClass: hasClass)
    configuration.optionals.preNorm = source.tensor(named: "v.pre_ln.weight") == nil ? .absent : .required
    configuration.optionals.norm = source.tensor(named: "v.post_ln.weight") == nil ? .absent : .required
    configuration.optionals.queryKeyValueBias = .ifPresent
    configuration.optionals.outputBias = .ifPresent
    configuration.optionals.ffnBias = .ifPresent
    try family.setEncoder(&configuration, source, metadata)
    try configuration.check(place: place)
    let usual = NameMap.ggufEncoder("encoder.\(name)", swapsFFN: ffn.isSwapped)
    let more = try family.moreNames("encoder.\(name)", metadata)
    return EncoderPart(
      configuration: configuration,
      tensors: MappedTensors(
        source: source, maps: [more, usual].compactMap { $0 }, place: place),
      images: try images(tower: tower, side: image), usualImages: tower.usualImages(side: image))
  }

  /// The width between the feed-forward network's matrices, and whether the file calls them the wrong way round.
  ///
  /// The key for the width is wrong in some old files, so that the matrices tell.
  private func ffn(width: Int) throws(SquintError) -> (width: Int, isSwapped: Bool) {
    guard let up = source.tensor(named: "v.blk.0.ffn_up.weight"), up.shape.count == 2,
      let down = source.tensor(named: "v.blk.0.ffn_down.weight"), down.shape == up.shape.reversed(),
      up.shape.contains(width), up.shape.allSatisfy({ (1...DecoderConfiguration.largestDimension).contains($0) })
    else {
      throw .badData(
        place,
        "tensors v.blk.0.ffn_up.weight and v.blk.0.ffn_down.weight are not matrices from \(width) numbers and back")
    }
    // Where both ways fit, the age of the file tells: the old converter did not write what kind of file it is.
    if up.shape[0] == up.shape[1] { return (width, try metadata.text("general.type") == nil) }
    let isSwapped = up.shape[0] == width
    return (up.shape[isSwapped ? 1 : 0], isSwapped)
  }

  private func activation(hasClass: Bool) throws(SquintError) -> Activation {
    let usesGELU = try metadata.flag("clip.use_gelu") ?? false
    let usesSiLU = try metadata.flag("clip.use_silu") ?? false
    guard !usesGELU || !usesSiLU else { throw .badData(place, "clip.use_gelu and clip.use_silu are both true") }
    if usesSiLU { return .silu }
    // SigLIP's, and Idefics3's tower of its kind: LLaVA's converter has no word for it, Idefics3's calls it gelu.
    guard hasClass else { return .geluTanh }
    return usesGELU ? .gelu : .quickGELU
  }

  // MARK: Images

  /// What the file says of images, and for the rest what the models of its kind do.
  private func images(tower: EncoderFamily, side: Int) throws(SquintError) -> ImageConfiguration {
    var images = tower.usualImages(side: side)
    if let mean = try metadata.numbers("clip.vision.image_mean", count: 3) { images.mean = mean }
    if let std = try metadata.numbers("clip.vision.image_std", count: 3) { images.std = std }
    guard images.std.allSatisfy({ $0 > 0 }) else {
      throw .badData(place, "metadata clip.vision.image_std has a number that is not positive")
    }
    try family.setImages(&images, metadata)
    return images
  }

  // MARK: The projector

  func projector(name: String) throws(SquintError) -> ProjectorPart {
    let found = try ProjectorTensors(
      in: source, prefixes: [family.projectorPrefix], module: "projector.\(name)", place: place)
    guard found.hasNorm == (family.projectorNormEpsilon != nil) else {
      throw .badData(
        place,
        found.hasNorm
          ? "a projector of type \(family.projectorType) with a norm or more matrices is not supported"
          : "the norm of the projector is missing; the file is incomplete")
    }
    var configuration = ProjectorConfiguration(widths: found.widths)
    configuration.normEpsilon = family.projectorNormEpsilon
    try family.setProjector(&configuration, metadata)
    let newline = ["v.image_newline", "model.image_newline"].first { source.tensor(named: $0) != nil }
    configuration.hasNewline = newline != nil && source.metadata["clip.vision.image_grid_pinpoints"] != nil
    let newlineNames = NameMap(
      module: "projector.\(name)", stems: [], names: newline.map { [($0, "newline")] } ?? [])
    return ProjectorPart(
      configuration: configuration,
      tensors: MappedTensors(
        source: source,
        maps: [found.map, try family.moreNames("projector.\(name)", metadata), newlineNames].compactMap { $0 },
        place: place),
      features: try family.features(source, metadata))
  }
}

extension NameMap {
  /// An encoder in GGUF (llama.cpp, tools/mtmd/clip-impl.h, and gguf-py/gguf/constants.py).
  ///
  /// - Parameters:
  ///   - module: `encoder.NAME`.
  ///   - swapsFFN: whether the file calls up what is down, as old converters did.
  package static func ggufEncoder(_ module: String, swapsFFN: Bool) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("v.patch_embd", "patch"),
        ("v.position_embd", "positions"),
        ("v.pre_ln", "pre_norm"),
        ("v.blk.*.ln1", "*.attention.norm"),
        ("v.blk.*.attn_q", "*.attention.q"),
        ("v.blk.*.attn_k", "*.attention.k"),
        ("v.blk.*.attn_v", "*.attention.v"),
        ("v.blk.*.attn_qkv", "*.attention.qkv"),
        ("v.blk.*.attn_out", "*.attention.o"),
        ("v.blk.*.ln2", "*.ffn.norm"),
        ("v.blk.*.ffn_gate", "*.ffn.gate"),
        ("v.blk.*.ffn_up", swapsFFN ? "*.ffn.down" : "*.ffn.up"),
        ("v.blk.*.ffn_down", swapsFFN ? "*.ffn.up" : "*.ffn.down"),
        ("v.post_ln", "norm"),
      ],
      names: [
        ("v.class_embd", "class"),
        ("v.blk.*.ls1.weight", "*.attention.scale"),
        ("v.blk.*.ls2.weight", "*.ffn.scale"),
      ],
      // SigLIP's pooling head.
      ignored: ["v.position_ids"], ignoredPrefixes: ["v.head."])
  }
}
