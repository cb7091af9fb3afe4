import SquintFile

/// A family of vision towers: what its configuration class in transformers assumes where config.json is silent, and what it has.
package struct EncoderFamily: Sendable {
  /// What files call it (`encoder.NAME.architecture`).
  let architecture: String
  /// `model_type` of the tower.
  let modelTypes: [String]
  /// `model_type` of a tower and a text tower together.
  var pair: String?
  let width: Int
  let layers: Int
  let heads: Int
  let image: Int
  let patch: Int
  let activation: Activation
  let normEpsilon: Double
  let positions: PositionRule
  let hasClass: Bool
  let hasPreNorm: Bool
  /// Whether the tower applies its last norm to its rows; CLIP's is for the class token's alone, which LLaVA never sees so.
  let hasNorm: Bool
  let hasPatchBias: Bool
  /// The image processor that folders of this family have, where theirs does not say.
  let images: ImageFamily
  /// What the published models have, where it is not what the class of their image processor assumes.
  var usualMean: [Double]?
  var usualStd: [Double]?
  /// The width of the feed-forward network for a tower of a width.
  ///
  /// CLIP and SigLIP have four times their default width; Idefics3's class keeps the number of the smaller tower.
  var ffnWidth: @Sendable (ConfigurationReader, _ width: Int) throws(SquintError) -> Int = {
    (reader, _) throws(SquintError) in try reader.size("intermediate_size") ?? 3072
  }
  /// What says that queries, keys and values have biases, where they may have none.
  var queryKeyValueBiasKey: String?
  /// Whether queries, keys and values have biases where the configuration is silent.
  var hasQueryKeyValueBias = true
  let names: @Sendable (_ module: String) -> NameMap
  /// Reads what only this family has.
  var finish: @Sendable (inout EncoderConfiguration, ConfigurationReader) throws(SquintError) -> Void = {
    (_, _) throws(SquintError) in
  }
}

extension EncoderFamily {
  /// The images that this family takes, a square of `side`, where no file says so: as in the files of the published models.
  func usualImages(side: Int) -> ImageConfiguration {
    var images = images.images(side: side)
    images.mean = usualMean ?? images.mean
    images.std = usualStd ?? images.std
    return images
  }

  /// The family of the tower with this `model_type`.
  ///
  /// - Throws: `SquintError.badData` where there is none.
  static func named(_ modelType: String, place: String) throws(SquintError) -> EncoderFamily {
    guard let family = Families.encoders.first(where: { $0.modelTypes.contains(modelType) }) else {
      let known = Families.encoders.map(\.modelTypes[0]).joined(separator: ", ")
      throw .badData(place, "the vision model_type \"\(printable(modelType))\" is not supported; known are \(known)")
    }
    return family
  }

  /// `known`, or the family that the tower's model_type names; CLIP where it names none, as in LLaVA's class.
  init(of json: JSONValue, known: EncoderFamily? = nil, place: String) throws(SquintError) {
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
