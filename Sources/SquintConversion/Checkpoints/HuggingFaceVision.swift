import SquintFile

/// Reads what a checkpoint folder says of its vision tower and its projector.
struct HuggingFaceVision {
  let folder: CheckpointFolder
  let config: JSONValue
  let source: any TensorSource
  /// The modality.
  var name = "image"

  var place: String { folder.file("config.json") }
  var reader: ConfigurationReader { ConfigurationReader(json: config, place: place) }

  /// The vision tower of `vision_config`.
  ///
  /// - Parameters:
  ///   - known: its family; nil: what its model_type says.
  ///   - usual: its family where it has no model_type.
  func tower(family known: EncoderFamily? = nil, usual: EncoderFamily = .clip) throws(SquintError) -> EncoderPart {
    guard let vision = config["vision_config"], vision.object != nil else {
      throw .badData(place, "there is no vision_config")
    }
    let isSilent = vision["model_type"] == nil
    let family = try EncoderFamily(
      of: vision, known: isSilent ? either(known, usual) : known, place: "\(place): vision_config")
    return try EncoderPart(
      huggingFace: vision, family: family, name: name, source: source, place: "\(place): vision_config",
      tensorPlace: folder.path, images: try folder.images(fallback: family.images))
  }

  /// A text that the processor's file gives, or the tokenizer's, which comes first in transformers.
  func word(_ key: String) throws(SquintError) -> String? {
    for file in ["tokenizer_config.json", "processor_config.json"] {
      guard let value = try folder.json(file)?[key] else { continue }
      // A token is written as a text or as an object with its text and flags.
      if let text = value.string ?? value["content"]?.string, !text.isEmpty { return text }
    }
    return nil
  }
}
