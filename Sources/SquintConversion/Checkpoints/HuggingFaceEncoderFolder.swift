import SquintFile

extension EncoderPart {
  /// Opens the folder of a vision tower: CLIP, SigLIP (with or without their text towers) or DINOv2.
  ///
  /// - Parameter name: the modality.
  /// - Throws: `SquintError.noInput` where a file is missing, `.badData` where one is broken or not supported.
  init(folder path: String, name: String) throws(SquintError) {
    let folder = CheckpointFolder(path: path)
    let config = try folder.configuration()
    let place = folder.file("config.json")
    let reader = ConfigurationReader(json: config, place: place)
    let modelType = try reader.text("model_type") ?? ""
    // A pair of towers keeps the vision tower's configuration inside, sometimes without its model_type.
    let pair = Families.encoders.first { $0.pair == modelType }
    guard config["vision_config"] == nil || pair != nil else {
      throw .badData(
        place,
        "this is a model of several parts (\(printable(modelType))), not a vision tower's folder; give it as the source"
      )
    }
    // Where both are there, transformers takes the older one (configuration_clip.py, `__post_init__`).
    let inner = pair == nil ? config : either(config["vision_config_dict"], config["vision_config"]) ?? .null
    guard inner.object != nil, pair != nil || !modelType.isEmpty else {
      throw .badData(place, "there is no \(pair == nil ? "model_type" : "vision_config")")
    }
    let family = try EncoderFamily(of: inner, known: pair, place: place)
    var notes: [String] = []
    let source = try folder.tensors(config: config, spelling: .tower, notes: &notes)
    try self.init(
      huggingFace: inner, family: family, name: name, source: source, place: place,
      tensorPlace: folder.path, images: try folder.images(fallback: family.images), isAlone: true)
    self.notes = notes + self.notes
  }

  /// - Parameters:
  ///   - isAlone: whether the source is a tower's own, which may hold a text tower beside it.
  ///   - tensorPlace: how messages call the source.
  init(
    huggingFace json: JSONValue, family: EncoderFamily, name: String, source: any TensorSource,
    place: String,
    tensorPlace: String, images: ImageConfiguration?, isAlone: Bool = false
  ) throws(SquintError) {
    var configuration = try EncoderConfiguration(huggingFace: json, family: family, place: place)
    let saidGrid = configuration.grid
    var names = family.names("encoder.\(name)")
    let stored = StoredTensors(
      MappedTensors(source: source, maps: [names], place: tensorPlace), module: "encoder.\(name)")
    var notes: [String] = []
    try configuration.follow(stored, place: place, notes: &notes)
    names = names.ignoringLayers(from: configuration.sourceLayers)
    let side =
      configuration.grid == saidGrid
      ? try family.image(json, place: place) : configuration.grid * configuration.patch
    self.init(
      configuration: configuration,
      tensors: MappedTensors(source: source, maps: isAlone ? [names, .contrastiveRest] : [names], place: tensorPlace),
      images: images, usualImages: family.usualImages(side: side))
    self.notes = notes
  }
}

extension EncoderPart {
  /// Takes what the file at `path`, one like preprocessor_config.json, says of images.
  mutating func readImages(_ path: String) throws(SquintError) {
    let family = Families.encoders.first { $0.architecture == configuration.architecture }
    images = try ImageConfiguration(
      huggingFace: JSONValue.read(path: path), fallback: family?.images ?? .clip, place: path)
  }
}

extension CheckpointFolder {
  /// What the folder says of images; nil: nothing.
  ///
  /// - Parameter fallback: the image processor's class where the file does not name it.
  func images(fallback: ImageFamily) throws(SquintError) -> ImageConfiguration? {
    // transformers 5 keeps the image processor in the processor's file, and looks there first.
    if let nested = try json("processor_config.json")?["image_processor"] {
      return try ImageConfiguration(
        huggingFace: nested, fallback: fallback, place: "\(file("processor_config.json")): image_processor")
    }
    guard let json = try json("preprocessor_config.json") else { return nil }
    return try ImageConfiguration(huggingFace: json, fallback: fallback, place: file("preprocessor_config.json"))
  }
}
