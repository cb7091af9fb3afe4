import SquintFile

// Idefics3 (arXiv 2408.12637) and SmolVLM: tiles, a tower whose positions are found by place, squares of patches side by side.

extension MediaFamily {
  static let idefics3 = MediaFamily(
    description: "idefics3, smolvlm", classes: ["idefics3", "smolvlm"],
    recognizes: { ["idefics3", "smolvlm"].contains($0["model_type"]?.string ?? "") },
    isTied: { _, _, outer in outer ?? false },
    parts: { (vision, _) throws(SquintError) in try vision.idefics3() },
    gguf: GGUFFacts(
      projectorType: "idefics3", encoder: { _ in .idefics3 },
      setImages: { (images, metadata) throws(SquintError) in
        let key = "clip.vision.preproc_image_size"
        if let longest = try metadata.size(key, atMost: ImageConfiguration.largestTiledSide) {
          images.resize = .longestEdge(longest)
        }
      },
      projectorPrefix: "mm.model.fc", setProjector: setIdefics3Projector, features: { _, _ in nil },
      finish: finishIdefics3))

  @Sendable private static func setIdefics3Projector(
    _ projector: inout ProjectorConfiguration, _ metadata: GGUFMetadata
  ) throws(SquintError) {
    guard projector.layers == 1 else {
      throw .badData(
        metadata.place, "a projector of type idefics3 with a norm or more matrices is not supported")
    }
    projector.shuffle =
      try metadata.size("clip.vision.projector.scale_factor", atMost: ProjectorConfiguration.largestShuffle) ?? 2
    projector.bias = .absent
  }

  @Sendable private static func finishIdefics3(
    _ parts: inout ModalityParts, _ text: GGUFSource
  ) throws(SquintError) {
    parts.features = FeatureSelection()
    let words = ["<fake_token_around_image>", "<global-img>"]
    let vocabulary = text.metadata["tokenizer.ggml.tokens"]?.strings
    for word in words where vocabulary?.contains(ByteString(Array(word.utf8))) == false {
      throw .badData(
        parts.place,
        "this belongs to Idefics3 or SmolVLM, but the text model's tokenizer has no \(word); give the text model that it "
          + "was published with")
    }
    parts.prompt.setIdefics3(fake: words[0], global: words[1])
  }
}

extension EncoderFamily {
  /// configuration_idefics3.py, configuration_smolvlm.py; its tensors are called as CLIP's
  static let idefics3 = EncoderFamily(
    architecture: "idefics3", modelTypes: ["idefics3_vision", "idefics3", "smolvlm_vision", "smolvlm"], width: 1152,
    layers: 12, heads: 16, image: 224, patch: 32, activation: .geluTanh, normEpsilon: 1e-6, positions: .buckets,
    hasClass: false, hasPreNorm: false, hasNorm: true, hasPatchBias: true, images: .idefics3,
    names: NameMap.clipEncoder)
}

extension ImageFamily {
  /// image_processing_idefics3.py
  static let idefics3 = ImageFamily(
    className: "Idefics3ImageProcessor", size: .longestEdge(4 * 364), filter: .lanczos, tile: 364)
  /// image_processing_smolvlm.py
  static let smolvlm = ImageFamily(
    className: "SmolVLMImageProcessor", size: .longestEdge(4 * 364), filter: .lanczos, tile: 364)
}

extension HuggingFaceVision {
  fileprivate func idefics3() throws(SquintError) -> ModalityParts {
    var parts = ModalityParts(name: name, place: place)
    let isSmolVLM = config["model_type"]?.string == "smolvlm"
    var encoder = try tower(family: .idefics3)
    encoder.configuration.architecture = isSmolVLM ? "smolvlm" : "idefics3"
    parts.encoder = encoder
    let found = try ProjectorTensors(
      in: source, prefixes: ["connector"], module: "projector.\(name)", place: folder.path)
    guard found.widths.count == 2, !found.hasNorm else {
      throw .badData(folder.path, "the connector has \(found.widths.count - 1) matrices, not 1")
    }
    var projector = ProjectorConfiguration(widths: found.widths)
    projector.shuffle = try reader.size("scale_factor", atMost: ProjectorConfiguration.largestShuffle) ?? 2
    projector.bias = .absent
    parts.projector = ProjectorPart(
      configuration: projector, tensors: MappedTensors(source: source, maps: [found.map], place: folder.path))
    parts.features = FeatureSelection()

    // Idefics3's processor has these words built in; SmolVLM's asks the tokenizer first.
    func word(_ key: String, _ usual: String) throws(SquintError) -> String {
      guard isSmolVLM, let own = try self.word(key) else { return usual }
      return own
    }
    let fake = try word("fake_image_token", "<fake_token_around_image>")
    let global = try word("global_image_token", "<global-img>")
    parts.prompt.marker = try word("image_token", "<image>")
    parts.prompt.token = try reader.count("image_token_id") ?? 128_257
    parts.prompt.setIdefics3(fake: fake, global: global)
    if isSmolVLM {
      var videos = try folder.videos(.smolVLM)
      if let images = encoder.images, try !folder.hasVideoProcessor, !folder.has("preprocessor_config.json"),
        case .longestEdge(let longest) = images.resize, let tile = images.tile
      {
        // Nothing speaks of videos: a frame is an image that is not cut.
        videos.resize = .longestEdge(longest, side: tile)
        (videos.filter, videos.rescale) = (images.filter, images.rescale)
        (videos.mean, videos.std) = (images.mean, images.std)
      }
      videos.setSmolVLM(token: parts.prompt.token, tokenText: parts.prompt.marker, fake: fake, global: global)
      videos.marker = try word("video_token", "<video>")
      parts.videos = videos
    }
    if let processor = try folder.json("processor_config.json") {
      let file = folder.file("processor_config.json")
      if let rows = try ConfigurationReader(json: processor, place: file).size("image_seq_len") {
        parts.tileRows = (rows, "image_seq_len of processor_config.json", true)
      }
    }
    return parts
  }
}

extension MediaPrompt {
  /// Sets the text that Idefics3 and SmolVLM have around tiles (transformers, processing_idefics3.py).
  package mutating func setIdefics3(fake: String, global: String) {
    singlePrefix = fake + global
    singleSuffix = fake
    tilePrefix = fake + "<row_{row}_col_{column}>"
    rowSuffix = "\n"
    overviewPrefix = "\n" + fake + global
    overviewSuffix = fake
  }
}
