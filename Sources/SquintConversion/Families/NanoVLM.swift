import SquintFile

extension MediaFamily {
  static let nanoVLM = MediaFamily(
    description: "nanoVLM", classes: [], recognizes: NanoVLM.isNanoVLM, spelling: .nanoVLM,
    decoder: OwnDecoder(names: NanoVLM.decoderNames, tieKey: "lm_tie_weights") {
      (config, stored, place, notes) throws(SquintError) in
      try NanoVLM.decoder(config: config, stored: stored, place: place, notes: &notes)
    },
    parts: { (vision, notes) throws(SquintError) in
      try NanoVLM(config: vision.config, source: vision.source, folder: vision.folder).parts(notes: &notes)
    })
}

/// A checkpoint of huggingface/nanoVLM: SigLIP and Llama under names of their own (models/config.py, `VLMConfig`).
struct NanoVLM {
  let config: JSONValue
  let source: any TensorSource
  let folder: CheckpointFolder
  /// The modality.
  let name = "image"

  private var place: String { folder.file("config.json") }
  private var reader: ConfigurationReader { ConfigurationReader(json: config, place: place) }

  @Sendable static func isNanoVLM(_ config: JSONValue) -> Bool {
    config["vit_hidden_dim"] != nil && config["lm_hidden_dim"] != nil
  }

  // MARK: Decoder

  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  static func decoder(
    config: JSONValue, stored: StoredTensors, place: String, notes: inout [String]
  ) throws(SquintError) -> DecoderConfiguration {
    let reader = ConfigurationReader(json: config, place: place)
    var settlement = Settlement(place: place)
    let embedding = stored.matrix("embedding")
    let width = settlement.settle(
      "lm_hidden_dim", said: try reader.size("lm_hidden_dim") ?? 960, stored: embedding?.columns)
    let heads = try reader.size("lm_n_heads") ?? 15
    guard width % heads == 0 else { throw .badData(place, "lm_hidden_dim \(width) is no multiple of \(heads) heads") }
    let base = try reader.number("lm_re_base") ?? 100_000
    guard base > 0 else { throw .badData(place, "lm_re_base \(base) is not positive") }
    guard width / heads % 2 == 0 else { throw .badData(place, "a head of \(width / heads) numbers is not even") }
    var rotary = RotaryFrequencies(width: width / heads, base: base)
    rotary.magnitude = try reader.number("lm_attn_scaling") ?? 1
    let vocabulary = try reader.size("lm_vocab_size")
    guard let vocabulary else { throw .badData(place, "there is no lm_vocab_size") }
    let said = HeadShape(heads: heads, keyValueHeads: try reader.size("lm_n_kv_heads") ?? 5, width: width / heads)
    let shape = stored.heads(said: said, isWidthSaid: true)
    var configuration = DecoderConfiguration(
      architecture: "llama",
      vocabulary: settlement.settle("lm_vocab_size", said: vocabulary, stored: embedding?.rows),
      context: try reader.size("lm_max_position_embeddings") ?? 8192,
      layers: try reader.size("lm_n_blocks", atMost: DecoderConfiguration.mostLayers) ?? 32, width: width,
      ffnWidth: settlement.settle(
        "lm_inter_dim", said: try reader.size("lm_inter_dim") ?? 2560, stored: stored.matrix("0.ffn.gate")?.rows),
      heads: heads,
      // The heads of queries are as wide as the model makes them.
      keyValueHeads: settlement.settle(
        "lm_n_kv_heads", said: said.keyValueHeads, stored: shape.heads == heads ? shape.keyValueHeads : nil),
      headWidth: width / heads,
      normEpsilon: try reader.number("lm_rms_eps") ?? 1e-5, rotary: rotary,
      isTied: try reader.flag("lm_tie_weights") ?? true)
    notes += settlement.notes
    try configuration.follow(stored, place: place, notes: &notes)
    try configuration.check(place: place)
    return configuration
  }

  /// How the decoder's tensors are called.
  static let decoderNames = NameMap(
    module: "decoder",
    stems: [
      ("decoder.token_embedding", "embedding"),
      ("decoder.blocks.*.norm1", "*.attention.norm"),
      ("decoder.blocks.*.attn.q_proj", "*.attention.q"),
      ("decoder.blocks.*.attn.k_proj", "*.attention.k"),
      ("decoder.blocks.*.attn.v_proj", "*.attention.v"),
      ("decoder.blocks.*.attn.out_proj", "*.attention.o"),
      ("decoder.blocks.*.norm2", "*.ffn.norm"),
      ("decoder.blocks.*.mlp.gate_proj", "*.ffn.gate"),
      ("decoder.blocks.*.mlp.up_proj", "*.ffn.up"),
      ("decoder.blocks.*.mlp.down_proj", "*.ffn.down"),
      ("decoder.norm", "norm"),
      ("decoder.head", "head"),
    ],
    // Tables that are computed anew.
    ignored: ["decoder.rotary_embd.inv_freq"])

  // MARK: Vision

  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  func parts(notes: inout [String]) throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    var encoder = try encoder()
    let side = try reader.size("vit_img_size", atMost: ImageConfiguration.largestSide) ?? 512
    let names = NameMap.nanoVLMEncoder("encoder.\(name)")
    let stored = StoredTensors(
      MappedTensors(source: source, maps: [names], place: folder.path), module: "encoder.\(name)")
    try encoder.follow(stored, place: place, notes: &notes)
    parts.encoder = EncoderPart(
      configuration: encoder,
      tensors: MappedTensors(
        source: source, maps: [names.ignoringLayers(from: encoder.sourceLayers)], place: folder.path),
      images: try images(side: side), usualImages: try images(side: side))
    let found = try ProjectorTensors(
      in: source, prefixes: ["MP"], module: "projector.\(name)", place: folder.path)
    guard found.widths.count == 2, !found.hasNorm else {
      throw .badData(folder.path, "MP has \(found.widths.count - 1) matrices, not 1")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    projector.shuffle =
      try reader.size("mp_pixel_shuffle_factor", atMost: ProjectorConfiguration.largestShuffle) ?? 2
    parts.projector = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
    parts.features = FeatureSelection()

    let words = ConfigurationReader(json: config["vlm_extra_tokens"] ?? .null, place: "\(place): vlm_extra_tokens")
    parts.prompt.tokenText = try words.text("image_token")
    if let global = try words.text("global_image_token") {
      parts.prompt.singlePrefix = global
      notes.append("images are seen as one tile each; nanoVLM's own program cuts larger ones into several")
    }
    if let rows = try reader.size("mp_image_token_length") {
      parts.tileRows = (rows, "mp_image_token_length", true)
    }
    return parts
  }

  private func encoder() throws(SquintError) -> EncoderConfiguration {
    guard try reader.flag("vit_cls_flag") != true else {
      throw .badData(place, "vit_cls_flag is not supported; the features would be one row")
    }
    let width = try reader.size("vit_hidden_dim") ?? 768
    let patch = try reader.size("vit_patch_size", atMost: EncoderConfiguration.largestPatch) ?? 16
    let side = try reader.size("vit_img_size", atMost: ImageConfiguration.largestSide) ?? 512
    var encoder = EncoderConfiguration(
      architecture: "siglip",
      layers: try reader.size("vit_n_blocks", atMost: DecoderConfiguration.mostLayers) ?? 12, width: width,
      ffnWidth: try reader.size("vit_inter_dim") ?? 3072, heads: try reader.size("vit_n_heads") ?? 12, patch: patch,
      grid: side / patch, positions: .fixed, normEpsilon: try reader.number("vit_ln_eps") ?? 1e-6,
      activation: .geluTanh, hasClass: false)
    encoder.optionals.patchBias = .required
    try encoder.check(place: place)
    return encoder
  }

  /// A square of numbers from 0 to 1 (data/processors.py); versions that cut images resize with bicubic, those before with
  /// torchvision's default.
  private func images(side: Int) throws(SquintError) -> ImageConfiguration {
    var images = ImageConfiguration()
    images.resize = .exact(height: side, width: side)
    images.filter = config["max_img_size"] == nil ? .bilinear : .bicubic
    return images
  }
}

extension NameMap {
  /// nanoVLM's vision transformer (models/vision_transformer.py).
  static func nanoVLMEncoder(_ module: String) -> NameMap {
    NameMap(
      module: module,
      stems: [
        ("vision_encoder.patch_embedding.conv", "patch"),
        ("vision_encoder.blocks.*.ln1", "*.attention.norm"),
        ("vision_encoder.blocks.*.attn.qkv_proj", "*.attention.qkv"),
        ("vision_encoder.blocks.*.attn.out_proj", "*.attention.o"),
        ("vision_encoder.blocks.*.ln2", "*.ffn.norm"),
        ("vision_encoder.blocks.*.mlp.fc1", "*.ffn.up"),
        ("vision_encoder.blocks.*.mlp.fc2", "*.ffn.down"),
        ("vision_encoder.layer_norm", "norm"),
      ],
      names: [("vision_encoder.patch_embedding.position_embedding", "positions")])
  }
}
