import SquintFile

/// An encoder as some source has it.
package struct EncoderPart: Sendable {
  package var configuration: EncoderConfiguration
  package let tensors: MappedTensors
  /// What its folder says of images; nil: nothing.
  package var images: ImageConfiguration?
  /// What images are like where nothing says so.
  package let usualImages: ImageConfiguration
  /// What the user should know of it, a line each.
  package var notes: [String] = []

  package init(
    configuration: EncoderConfiguration, tensors: MappedTensors, images: ImageConfiguration?,
    usualImages: ImageConfiguration
  ) {
    self.configuration = configuration
    self.tensors = tensors
    self.images = images
    self.usualImages = usualImages
  }
}

/// A projector as some source has it.
package struct ProjectorPart: Sendable {
  package var configuration: ProjectorConfiguration
  package let tensors: MappedTensors
  /// Which features it was trained on, where its source says so.
  package var features: FeatureSelection?
  /// Whether the shuffle is what makes the encoder's features as wide as the first matrix.
  package var infersShuffle: Bool

  package init(
    configuration: ProjectorConfiguration, tensors: MappedTensors, features: FeatureSelection? = nil,
    infersShuffle: Bool = false
  ) {
    self.configuration = configuration
    self.tensors = tensors
    self.features = features
    self.infersShuffle = infersShuffle
  }

  /// The same with the row that its source calls `name` behind each row of a grid of tiles.
  func withNewline(_ name: String) -> ProjectorPart {
    var configuration = configuration
    configuration.hasNewline = true
    let module = tensors.maps.first?.module ?? ""
    let newline = NameMap(module: module, stems: [], names: [(name, "newline")])
    return ProjectorPart(
      configuration: configuration,
      tensors: MappedTensors(
        source: tensors.source, maps: tensors.maps + [newline], place: tensors.place, rowOrder: tensors.rowOrder,
        fold: tensors.fold), features: features, infersShuffle: infersShuffle)
  }

  /// Its tensors, the rows that it gives multiplied with `factor`.
  func tensors(scaledBy factor: Float, name: String) -> MappedTensors {
    guard factor != 1 else { return tensors }
    let last = "projector.\(name).\(configuration.layers - 1)"
    let scaled = [last, last + ".bias", "projector.\(name).newline"]
    return MappedTensors(
      source: tensors.source, maps: tensors.maps, place: tensors.place, rowOrder: tensors.rowOrder,
      fold: { scaled.contains($0) ? Fold(factor: factor) : Fold() })
  }

  /// Sets the shuffle where the widths alone say it: the side of a square of as many patches as go into the first matrix.
  mutating func inferShuffle(encoder: EncoderConfiguration) {
    guard infersShuffle, configuration.widths[0] % encoder.featureWidth == 0 else { return }
    let patches = configuration.widths[0] / encoder.featureWidth
    let side = (1...ProjectorConfiguration.largestShuffle).first { $0 * $0 >= patches }
    if let side, side * side == patches { configuration.shuffle = side }
  }
}

/// A way into the model beside text, as far as the sources have it.
package struct ModalityParts: Sendable {
  /// `image`
  package let name: String
  package var encoder: EncoderPart?
  package var projector: ProjectorPart?
  /// nil: what the encoder gives in the end, without the class token.
  package var features: FeatureSelection?
  /// What the model, not its encoder, says of images.
  package var images: ImageConfiguration?
  /// The sizes that images are brought to to be cut into tiles, whoever says what else is done to them; empty: they are not.
  package var pinpoints: [ImageConfiguration.Size] = []
  /// Whether images are padded to a square, whoever says what else is done to them.
  package var padsToSquare = false
  package var prompt: MediaPrompt
  /// What is done with videos, which go through the same encoder and projector; nil: the model takes none.
  package var videos: VideoConfiguration?
  /// The rows that the checkpoint says a tile has, and the key that says it. Where its own program depends on them another
  /// number is an error.
  package var tileRows: (count: Int, key: String, isBinding: Bool)?
  /// What to say where the source lacks its encoder or its projector and the user gives none.
  package var missingEncoder: String?
  package var missingProjector: String?
  /// Tensors that belong to the modality in the source but cannot be used.
  package var ignored: MappedTensors?
  /// The file that the features and the prompt are from, for messages.
  package let place: String

  package init(name: String, place: String) {
    self.name = name
    self.place = place
    prompt = MediaPrompt()
    prompt.marker = "<\(name)>"
  }
}

extension ModalityParts {
  /// The tensors of its parts.
  var tensors: [MappedTensors] { [encoder?.tensors, projector?.tensors, ignored].compactMap { $0 } }
}

/// An encoder and a projector that fit each other and the decoder.
struct Modality: Sendable {
  let name: String
  let encoder: EncoderPart
  /// nil only where there is no decoder either.
  let projector: ProjectorPart?
  let images: ImageConfiguration
  let prompt: MediaPrompt
  let videos: VideoConfiguration?

  /// Checks that the parts fit.
  ///
  /// - Parameters:
  ///   - decoder: nil for encoders alone.
  ///   - side: the side that images become, whatever the checkpoint says; nil: as it says.
  ///   - fit: how they become squares; nil: as the checkpoint says.
  ///   - tokens: the id of an added token of the tokenizer; nil where it has none with this text.
  ///   - notes: takes what the user should know.
  init(
    _ parts: ModalityParts, decoder: DecoderConfiguration?, side: Int?, fit: ConversionOptions.ImageFit?,
    tokens: (String) -> Int?, notes: inout [String]
  ) throws(SquintError) {
    name = parts.name
    guard var encoder = parts.encoder else {
      if let missing = parts.missingEncoder { throw .badData(parts.place, missing) }
      throw SquintError(
        .usage, "there is a projector for \(name), but no encoder; give it with --encoder \(name)=SOURCE")
    }
    var projector = parts.projector
    if projector == nil, decoder != nil {
      if let missing = parts.missingProjector { throw .badData(parts.place, missing) }
      throw SquintError(
        .usage, "there is an encoder for \(name), but no projector; give it with --projector \(name)=FILE.safetensors")
    }
    notes += encoder.notes
    try encoder.configuration.select(
      either(projector?.features, parts.features) ?? FeatureSelection(), place: parts.place)
    guard parts.prompt.packing == nil || !encoder.configuration.featuresHaveClass else {
      throw .badData(
        parts.place,
        "vision_feature_select_strategy \"full\" leaves the row of the class token among those of the patches, and images that "
          + "are cut into tiles have no place for it; default is supported")
    }
    projector?.inferShuffle(encoder: encoder.configuration)
    if let projector {
      try projector.configuration.check(
        encoder: encoder.configuration, decoder: decoder, place: projector.tensors.place)
    }

    var images: ImageConfiguration
    if let known = either(parts.images, encoder.images) {
      images = known
    } else {
      images = encoder.usualImages
      notes.append(
        "\(encoder.tensors.place) has no preprocessor_config.json; images are processed as is usual for "
          + encoder.configuration.architecture)
    }
    if parts.padsToSquare { images.padToSquare() }
    if !parts.pinpoints.isEmpty { try images.cut(to: parts.pinpoints, place: parts.place) }
    if let side { try images.resize(toSide: side) }
    if let fit { try images.fit(fit) }
    let rows = try Self.rows(of: images, encoder: encoder, projector: projector)
    if let stated = parts.tileRows, let rows, stated.count != rows {
      let message = "\(stated.key) is \(stated.count), but the encoder and the projector make \(rows) rows of a tile"
      guard !stated.isBinding else { throw .badData(parts.place, message) }
      notes.append("\(parts.place): \(message)")
    }

    var prompt = parts.prompt
    try prompt.findToken(name: name, decoder: decoder, place: parts.place, tokens: tokens)
    self.encoder = encoder
    self.projector = projector
    self.images = images
    self.prompt = prompt
    var videos = parts.videos
    if videos?.token == nil, let text = videos.map({ $0.tokenText ?? $0.marker }), let decoder {
      videos?.token = tokens(text).flatMap { $0 < decoder.vocabulary ? $0 : nil }
    }
    if let token = videos?.token, let decoder, token >= decoder.vocabulary {
      throw .badData(
        parts.place, "the token \(token) for video is not one of the decoder's \(grouped(decoder.vocabulary))")
    }
    self.videos = videos
  }

  /// The rows that a tile becomes; nil where it depends on the image.
  private static func rows(
    of images: ImageConfiguration, encoder: EncoderPart, projector: ProjectorPart?
  ) throws(SquintError) -> Int? {
    let configuration = encoder.configuration
    let shuffle = projector?.configuration.shuffle ?? 1
    let place = encoder.tensors.place
    guard let tile = images.tileSize else {
      if case .smart(let multiple, _) = images.resize, configuration.takesAnyGrid {
        let side = configuration.patch * shuffle
        guard multiple % side == 0 else {
          throw .badData(
            place,
            "images become multiples of \(multiple) pixels, but a square of \(shuffle) × \(shuffle) patches has \(side)"
          )
        }
        return nil
      }
      guard configuration.takesAnyGrid, shuffle == 1 else {
        throw .badData(
          place,
          "images keep their aspect (there is no crop_size), but the encoder takes squares of "
            + "\(configuration.grid * configuration.patch) pixels")
      }
      return nil
    }
    let (rows, columns) = (tile.height / configuration.patch, tile.width / configuration.patch)
    guard rows > 0, columns > 0 else {
      throw .badData(
        place,
        "images of \(tile.height) × \(tile.width) pixels are smaller than a patch of \(configuration.patch)")
    }
    guard configuration.takesAnyGrid || rows == configuration.grid && columns == configuration.grid else {
      throw .badData(
        place,
        "images of \(tile.height) × \(tile.width) pixels are \(rows) × \(columns) patches, but the encoder's positions are "
          + "for \(configuration.grid) × \(configuration.grid)")
    }
    guard rows % shuffle == 0, columns % shuffle == 0 else {
      throw .badData(
        place, "\(rows) × \(columns) patches are not cut into squares of \(shuffle) × \(shuffle) for the projector")
    }
    return rows / shuffle * (columns / shuffle) + (configuration.featuresHaveClass ? 1 : 0)
  }

  func write(to metadata: inout Metadata) {
    encoder.configuration.write(to: &metadata, name: name)
    projector?.configuration.write(to: &metadata, name: name)
    images.write(to: &metadata, name: name)
    prompt.write(to: &metadata, name: name)
    videos?.write(to: &metadata)
  }
}
