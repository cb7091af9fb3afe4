import SquintFile

/// A family of models that take media: how their checkpoints keep an encoder, a projector, and what stands around an image in a
/// prompt.
struct MediaFamily: Sendable {
  /// How messages list what is known of it; nil where another family's words hold for it.
  let description: String?
  /// The classes that config.json names, without their endings (ForConditionalGeneration).
  let classes: [String]
  /// Whether a folder with this config.json is of this family.
  let recognizes: @Sendable (JSONValue) -> Bool
  /// config.json in transformers' words, where the family has others.
  var translated: @Sendable (JSONValue) -> JSONValue = { $0 }
  var spelling = NameSpelling.model
  /// Modules beside the model in its checkpoints for which there is no use, by what their names begin with: one that speaks.
  var dropped: [String] = []
  /// The decoder's model_type where config.json does not give it as one.
  var decoderType: @Sendable (JSONValue) -> String? = { _ in nil }
  /// A decoder in the family's own words; nil: one of transformers'.
  var decoder: OwnDecoder?
  /// Whether the embedding serves as the head, by the config.json, what it says inside `text_config`, and what outside; nil:
  /// either.
  var isTied: (@Sendable (_ config: JSONValue, _ inner: Bool?, _ outer: Bool?) -> Bool?)?
  /// Reads the way into the model for images and videos; the notes take what the user should know. nil: there is none.
  var parts: (@Sendable (HuggingFaceVision, _ notes: inout [String]) throws(SquintError) -> ModalityParts)?
  /// Reads the ways into the model for media that are not images.
  var others: @Sendable (HuggingFaceVision, _ notes: inout [String]) throws(SquintError) -> [OtherParts] = { _, _ in []
  }
  /// nil: llama.cpp does not keep it.
  var gguf: GGUFFacts?

  /// How a family calls and describes its decoder.
  struct OwnDecoder: Sendable {
    let names: NameMap
    /// What says that the embedding serves as the head.
    let tieKey: String
    let read:
      @Sendable (_ config: JSONValue, StoredTensors, _ place: String, _ notes: inout [String]) throws(SquintError)
        -> DecoderConfiguration
  }

  /// How llama.cpp keeps the family's encoder and projector.
  struct GGUFFacts: Sendable {
    /// `clip.projector_type`
    let projectorType: String
    let encoder: @Sendable (_ hasClass: Bool) -> EncoderFamily
    /// Sets what the file says of images beside mean and deviation.
    let setImages: @Sendable (inout ImageConfiguration, GGUFMetadata) throws(SquintError) -> Void
    /// What the names of the projector's tensors begin with.
    let projectorPrefix: String
    /// Sets what the file says of the projector beside its widths.
    let setProjector: @Sendable (inout ProjectorConfiguration, GGUFMetadata) throws(SquintError) -> Void
    /// Which features the projector was trained on, where the file says so.
    let features: @Sendable (GGUFSource, GGUFMetadata) throws(SquintError) -> FeatureSelection?
    /// Sets the features and the prompt of a model with this text model.
    let finish: @Sendable (inout ModalityParts, _ text: GGUFSource) throws(SquintError) -> Void
    /// The epsilon of the norm in front of the projector's first matrix; nil: there is no such norm.
    var projectorNormEpsilon: Double?
    /// Sets what the encoder has beside the usual, its graph too.
    var setEncoder: @Sendable (inout EncoderConfiguration, GGUFSource, GGUFMetadata) throws(SquintError) -> Void = {
      _, _, _ in
    }
    /// The names of tensors beside the usual ones in a module, the encoder or the projector; they come first.
    var moreNames: @Sendable (_ module: String, GGUFMetadata) throws(SquintError) -> NameMap? = { _, _ in nil }
  }
}

extension MediaFamily {
  /// How messages list the families.
  static var known: String { Families.media.compactMap(\.description).joined(separator: ", ") }

  /// The family of a folder with this config.json; nil for a decoder alone.
  ///
  /// - Throws: `SquintError.badData` where this is an encoder, or nothing that is known.
  static func family(of config: JSONValue, place: String) throws(SquintError) -> MediaFamily? {
    let modelType = config["model_type"]?.string ?? ""
    let architectures = config["architectures"]?.array?.compactMap(\.string) ?? []
    let family = Families.media.first { $0.recognizes(config) }
    if family == nil {
      if Families.encoders.contains(where: { $0.pair == modelType || $0.modelTypes.contains(modelType) }) {
        throw .badData(
          place,
          "model_type \"\(modelType)\" is an encoder alone; give it with --encoder image=FOLDER, and the text model with "
            + "--decoder")
      }
      if let (kind, _) = Families.otherEncoders.first(where: { $1.contains { $0.modelTypes.contains(modelType) } }) {
        throw .badData(
          place,
          "model_type \"\(modelType)\" is taken as an encoder alone; give it with --encoder \(kind)=FOLDER, and the text model "
            + "with --decoder")
      }
      let isDecoder =
        DecoderFamily.named(huggingFace: modelType) != nil && config["vision_config"] == nil
        || DecoderFamily.inside(huggingFace: modelType) != nil && config["text_config"] != nil
      guard isDecoder else {
        throw unsupported(modelType: modelType, architecture: architectures.first, place: place)
      }
    }
    // The head of these says something else than the next token.
    let others = ["SequenceClassification", "TokenClassification", "QuestionAnswering", "RewardModel"]
    if let other = architectures.first(where: { name in others.contains { name.hasSuffix($0) } }) {
      throw .badData(
        place,
        "\(printable(other)) does not write text; only models that do are supported (…ForCausalLM, …ForConditionalGeneration)"
      )
    }
    return family
  }

  /// The class that config.json names, where it is none of those that are read here.
  static func unknownClass(config: JSONValue) -> String? {
    let names = config["architectures"]?.array?.compactMap(\.string) ?? []
    let families = Families.decoders.map(\.name) + Families.media.flatMap(\.classes)
    let endings = ["forcausallm", "model", "forconditionalgeneration"]
    func plain(_ name: String) -> String { name.lowercased().filter { $0 != "_" } }
    let known = Set(families.flatMap { family in endings.map { plain(family) + $0 } })
    return names.contains { known.contains(plain($0)) } ? nil : names.first
  }

  /// Refuses parts beside a decoder that is converted where it is alone.
  static func refuseParts(of source: any TensorSource, config: JSONValue, place: String) throws(SquintError) {
    let modelType = config["model_type"]?.string ?? ""
    guard DecoderFamily.inside(huggingFace: modelType) != nil,
      let part = source.tensors.first(where: { UnmappedName.isOfSense($0.name) })
    else { return }
    let architecture = config["architectures"]?.array?.first?.string
    let error = unsupported(modelType: modelType, architecture: architecture, place: place)
    throw SquintError(
      error.kind, "\(error.message); its text part alone is, without \(printable(part.name)) and the like")
  }

  private static func unsupported(modelType: String, architecture: String?, place: String) -> SquintError {
    let texts = Families.decoders.map(\.huggingFace.modelType).joined(separator: ", ")
    let type = "model_type \"\(printable(modelType))\""
    let what = architecture.map { "\(printable($0)) (\(type))" } ?? type
    return .badData(
      place, "\(what) is not supported; known are \(texts), and of models that see \(known)")
  }
}
