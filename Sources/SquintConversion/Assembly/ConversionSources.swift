/// Where a model comes from: a whole checkpoint, parts, or a checkpoint some of whose parts are replaced.
public struct ConversionSources: Sendable {
  /// A Hugging Face checkpoint folder, a GGUF text model or a folder of parts (README.md, "Convert a model"); nil where
  /// `decoder` is given.
  public var source: String?
  /// The GGUF file with the encoder and the projector of a GGUF text model, which is `source`, or else `decoder`.
  public var mmproj: String?
  /// What the decoder is from, where not `source`: a folder or a GGUF text model. Its tokenizer and chat template go along.
  public var decoder: String?
  /// The folders, ONNX files or GGUF files of encoders by modality (`image`).
  public var encoders: [String: String]
  /// The safetensors or GGUF files of projectors by modality.
  public var projectors: [String: String]
  /// The files like preprocessor_config.json that replace what encoders say of images, by modality.
  public var images: [String: String] = [:]
  /// The folder of a LoRA adapter, as PEFT saves it, that is merged into the decoder.
  public var adapter: String?
  /// What InstructMol trained beside the decoder.
  var instructMol: InstructMolFolder?
  /// What the model is called; nil: as its decoder is.
  public var name: String?

  public init(
    _ source: String? = nil, mmproj: String? = nil, decoder: String? = nil, encoders: [String: String] = [:],
    projectors: [String: String] = [:]
  ) {
    self.source = source
    self.mmproj = mmproj
    self.decoder = decoder
    self.encoders = encoders
    self.projectors = projectors
  }

  /// All of the above.
  var paths: [String] {
    [source, mmproj, decoder, adapter, instructMol?.path].compactMap { $0 }
      + [encoders, projectors, images].flatMap { $0.values.sorted() }
  }

  /// The kinds of media that encoders are of; a video goes through the image's.
  public static let modalities = ["image", "audio", "molecule", "series"]
}
