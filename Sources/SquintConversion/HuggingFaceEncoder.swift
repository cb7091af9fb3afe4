import SquintFile

/// What a vision tower's configuration class in transformers assumes where config.json is silent, and what it has.
package struct HuggingFaceEncoderFamily: Sendable {
  let architecture: String
  /// `model_type` of the tower.
  let modelTypes: [String]
  let width: Int
  let layers: Int
  let heads: Int
  let image: Int
  let patch: Int
  let activation: Activation
  let normEpsilon: Double
  let positions: EncoderConfiguration.PositionRule
  let hasClass: Bool
  let hasPreNorm: Bool
  /// Whether the tower applies its last norm to its rows; CLIP's is for the class token's alone, which LLaVA never sees so.
  let hasNorm: Bool
  let hasPatchBias: Bool
  /// The image processor that folders of this family have, where theirs does not say.
  let images: HuggingFaceImageFamily
  let names: @Sendable (_ module: String) -> NameMap

  /// configuration_clip.py, configuration_siglip.py, configuration_dinov2.py, configuration_idefics3.py
  static let clip = HuggingFaceEncoderFamily(
    architecture: "clip", modelTypes: ["clip_vision_model"], width: 768, layers: 12, heads: 12, image: 224, patch: 32,
    activation: .quickGELU, normEpsilon: 1e-5, positions: .fixed, hasClass: true, hasPreNorm: true, hasNorm: false,
    hasPatchBias: false, images: .clip, names: NameMap.clipEncoder)
  static let siglip = HuggingFaceEncoderFamily(
    architecture: "siglip", modelTypes: ["siglip_vision_model"], width: 768, layers: 12, heads: 12, image: 224,
    patch: 16, activation: .geluTanh, normEpsilon: 1e-6, positions: .fixed, hasClass: false, hasPreNorm: false,
    hasNorm: true, hasPatchBias: true, images: .siglip, names: NameMap.clipEncoder)
  static let dinov2 = HuggingFaceEncoderFamily(
    architecture: "dinov2", modelTypes: ["dinov2"], width: 768, layers: 12, heads: 12, image: 224, patch: 14,
    activation: .gelu, normEpsilon: 1e-6, positions: .bicubic, hasClass: true, hasPreNorm: false, hasNorm: true,
    hasPatchBias: true, images: .bit, names: NameMap.dinov2Encoder)
  static let idefics3 = HuggingFaceEncoderFamily(
    architecture: "idefics3",
    modelTypes: ["idefics3_vision", "idefics3", "smolvlm_vision", "smolvlm"], width: 1152, layers: 12, heads: 16,
    image: 224, patch: 32, activation: .geluTanh, normEpsilon: 1e-6, positions: .buckets, hasClass: false,
    hasPreNorm: false, hasNorm: true, hasPatchBias: true, images: .idefics3, names: NameMap.clipEncoder)

  static let all = [clip, siglip, dinov2, idefics3]

  /// The images that this family takes, a square of `side`, where no file says so: as in the files of the published models.
  func usualImages(side: Int) -> ImageConfiguration {
    var images = images.images(side: side)
    if architecture == Self.dinov2.architecture {
      // All published DINOv2 have this mean, not the one that the class of their image processor assumes.
      images.mean = [0.485, 0.456, 0.406]
      images.std = [0.229, 0.224, 0.225]
    }
    return images
  }
}

extension HuggingFaceEncoderFamily {
  /// The family of the tower with this `model_type`.
  ///
  /// - Throws: `SquintError.badData` where there is none.
  static func named(_ modelType: String, place: String) throws(SquintError) -> HuggingFaceEncoderFamily {
    guard let family = all.first(where: { $0.modelTypes.contains(modelType) }) else {
      let known = all.map(\.modelTypes[0]).joined(separator: ", ")
      throw .badData(place, "the vision model_type \"\(printable(modelType))\" is not supported; known are \(known)")
    }
    return family
  }

  /// `known`, or the family that the tower's model_type names; CLIP where it names none, as in LLaVA's class.
  init(of json: JSONValue, known: HuggingFaceEncoderFamily? = nil, place: String) throws(SquintError) {
    if let known {
      self = known
    } else {
      let modelType = try ConfigurationReader(json: json, place: place).text("model_type")
      self = try Self.named(modelType ?? "clip_vision_model", place: place)
    }
  }

  /// The side of the images that the tower of this configuration was trained on.
  func image(_ json: JSONValue, place: String) throws(SquintError) -> Int {
    try ConfigurationReader(json: json, place: place).side("image_size", atMost: ImageConfiguration.largestSide)
      ?? image
  }
}

extension EncoderConfiguration {
  /// Reads the configuration of a vision tower in transformers' words.
  ///
  /// - Parameters:
  ///   - json: config.json of the tower, or `vision_config` of a larger one.
  ///   - family: nil: the one that its model_type names.
  ///   - place: the file, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong or not supported.
  package init(
    huggingFace json: JSONValue, family known: HuggingFaceEncoderFamily? = nil, place: String
  ) throws(SquintError) {
    let reader = ConfigurationReader(json: json, place: place)
    let family = try HuggingFaceEncoderFamily(of: json, known: known, place: place)
    let width = try reader.size("hidden_size") ?? family.width
    let isDINO = family.architecture == "dinov2"
    let ffnWidth: Int
    if isDINO {
      let ratio = try reader.number("mlp_ratio") ?? 4
      guard ratio > 0, ratio <= 1024 else { throw .badData(place, "mlp_ratio \(ratio) is not between 0 and 1,024") }
      ffnWidth = max(1, Int(Double(width) * ratio))
      guard try reader.flag("use_swiglu_ffn") != true else {
        throw .badData(place, "use_swiglu_ffn is not supported; the small, base and large DINOv2 do without")
      }
    } else {
      // CLIP and SigLIP have four times their default width; Idefics3's class keeps the number of the smaller tower.
      ffnWidth = try reader.size("intermediate_size") ?? 3072
    }
    let patch = try reader.side("patch_size", atMost: Self.largestPatch) ?? family.patch
    let image = try family.image(json, place: place)
    let channels = try reader.size("num_channels") ?? 3
    guard channels == 3 else {
      throw .badData(place, "num_channels is \(channels); only images with 3 are supported")
    }
    let activationName = try reader.text("hidden_act")
    let activation = activationName.map { Activation(huggingFace: $0) } ?? family.activation
    guard let activation else {
      throw .badData(
        place,
        "the encoder's hidden_act \"\(printable(activationName ?? ""))\" is not supported; known are gelu, "
          + "gelu_pytorch_tanh, quick_gelu, relu, silu")
    }
    self.init(
      architecture: family.architecture,
      layers: try reader.size("num_hidden_layers", atMost: DecoderConfiguration.mostLayers) ?? family.layers,
      width: width, ffnWidth: ffnWidth, heads: try reader.size("num_attention_heads") ?? family.heads, patch: patch,
      grid: image / patch, positions: family.positions,
      normEpsilon: try reader.number("layer_norm_eps") ?? family.normEpsilon, activation: activation,
      hasClass: family.hasClass)
    optionals.patchBias = family.hasPatchBias ? .required : .absent
    optionals.preNorm = family.hasPreNorm ? .required : .absent
    optionals.norm = family.hasNorm ? .required : .unused
    if isDINO, try reader.flag("qkv_bias") == false { optionals.queryKeyValueBias = .absent }
    try check(place: place)
  }
}
