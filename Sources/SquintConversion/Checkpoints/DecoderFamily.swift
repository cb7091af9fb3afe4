import SquintFile

/// A family of decoders: all that tells its checkpoints from others', in transformers' words and in llama.cpp's.
package struct DecoderFamily: Sendable {
  /// What files call it (`decoder.architecture`).
  package let name: String
  let huggingFace: HuggingFaceFacts
  /// nil: its GGUF files are those of another family.
  let gguf: GGUFFacts?
}

extension DecoderFamily {
  /// What the family's configuration class in transformers assumes where config.json is silent, and what its model has.
  struct HuggingFaceFacts: Sendable {
    /// `model_type` in config.json.
    let modelType: String
    /// `model_type` of wholes made of this decoder and other parts, which are converted where they have the decoder alone.
    var wholes: [String] = []
    var vocabulary: Int
    var width = 4096
    var ffnWidth: Int
    var layers = 32
    var heads = 32
    /// nil: as many as query heads.
    var keyValueHeads: Int?
    /// nil: width / heads.
    var headWidth: Int?
    var context: Int
    var normEpsilon = 1e-6
    var normEpsilonKey = "rms_norm_eps"
    var isTied = false
    var activation = ActivationRule(key: "hidden_act", usual: "silu", names: ["silu", "swish"])
    /// Which layers have a bias whatever the configuration says; nil: `attention_bias` decides for all four matrices.
    var queryKeyValueBias: Bool?
    var hasFFNBias = false
    var hasHeadNorm = false
    /// The width of the feed-forward network, where the configuration says it.
    var statedFFNWidth: @Sendable (ConfigurationReader) throws(SquintError) -> Int? = {
      (reader) throws(SquintError) in try reader.size("intermediate_size")
    }
    /// How the family's tensors are called, in `NameSpelling.model`.
    let names: NameMap
    /// Stems that lead elsewhere in a certain decoder, where that depends on the kind of a layer.
    var layerStems: @Sendable (DecoderConfiguration) -> [(source: String, target: String)] = { _ in [] }
    /// Reads the rotary embedding, windows and what only this family has.
    ///
    /// The notes take what is not as the file says.
    let finish:
      @Sendable (inout DecoderConfiguration, ConfigurationReader, _ notes: inout [String]) throws(SquintError) -> Void
  }

  /// What the activation must be: all families have one, which their graphs compute.
  struct ActivationRule: Sendable {
    let key: String
    let usual: String
    /// Names of this one function.
    let names: [String]
  }

  /// How llama.cpp keeps the family.
  struct GGUFFacts: Sendable {
    /// `general.architecture`, which the family's keys begin with.
    let architecture: String
    /// Whether q and k are interleaved for ggml's rotary embedding of neighbours (`GGML_ROPE_TYPE_NORMAL`).
    var interleavesPairs = false
    var hasHeadNorm = false
    /// Whether some layers have no attention, so that their entries in lists of heads are 0.
    var hasLayersWithoutAttention = false
    /// Whether layers may have experts.
    var hasExperts = false
    let names: NameMap
    /// Stems that lead elsewhere in a certain decoder, where that depends on the kind of a layer.
    var layerStems: @Sendable (DecoderConfiguration) -> [(source: String, target: String)] = { _ in [] }
    /// Reads the rotary embedding, windows and what only this family has.
    let finish: @Sendable (inout DecoderConfiguration, GGUFDecoderReader) throws(SquintError) -> Void
    /// Changes what is otherwise inside a model that sees.
    var enter: @Sendable (inout DecoderConfiguration) -> Void = { _ in }
  }

  /// The family of the decoder in a config.json, which may be one of several parts (`text_config`).
  ///
  /// - Parameter known: its model_type, where the file's is that of a whole made of a decoder and other parts.
  /// - Throws: `SquintError.badData` where there is none.
  init(huggingFace json: JSONValue, known: String?, place: String) throws(SquintError) {
    let said = try ConfigurationReader(json: json["text_config"] ?? json, place: place).text("model_type")
    // A text_config without a model_type is of the family that the class around it has: a Llama's, where it may be any
    // (configuration_llava.py, configuration_idefics3.py).
    let whole = json["model_type"]?.string.flatMap { Self.inside(huggingFace: $0) }
    let usual = json["text_config"] == nil ? "" : whole?.huggingFace.modelType ?? "llama"
    let modelType = either(known, said) ?? usual
    guard let family = Self.named(huggingFace: modelType) else {
      let all = Families.decoders.map(\.huggingFace.modelType).joined(separator: ", ")
      throw .badData(place, "model_type \"\(printable(modelType))\" is not supported; known are \(all)")
    }
    self = family
  }

  /// The family whose decoders have this `model_type`.
  static func named(huggingFace modelType: String) -> DecoderFamily? {
    Families.decoders.first { $0.huggingFace.modelType == modelType }
  }

  /// The family that is the decoder of wholes with this `model_type`.
  static func inside(huggingFace modelType: String) -> DecoderFamily? {
    Families.decoders.first { $0.huggingFace.wholes.contains(modelType) }
  }

  /// The family of GGUF files with this `general.architecture`.
  static func named(gguf architecture: String) -> DecoderFamily? {
    Families.decoders.first { $0.gguf?.architecture == architecture }
  }
}
