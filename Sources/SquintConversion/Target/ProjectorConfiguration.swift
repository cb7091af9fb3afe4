import SquintFile

/// What a projector is (formats/vision.md, "The projector").
package struct ProjectorConfiguration: Equatable, Sendable {
  /// What goes in (with the shuffle), between the layers, and comes out: one more than there are layers.
  package var widths: [Int]
  /// The side of the squares of patches that are laid side by side.
  package var shuffle = 1
  /// How many neighbouring rows of features are laid side by side.
  package var stack = 1
  /// Between two layers.
  package var activation = Activation.gelu
  /// Of the norm in front; nil where there is none.
  package var normEpsilon: Double?
  /// Whether the checkpoint has a row that stands behind each row of a grid of tiles.
  package var hasNewline = false
  package var bias = TensorPresence.ifPresent
  /// What it has for the encoder's earlier features; nil: there are none.
  package var deep: Deep?

  /// Projectors of the same widths for features behind earlier layers of the encoder, whose rows are added behind the decoder's first
  /// layers: the graph `deepstack`.
  package struct Deep: Equatable, Sendable {
    package var levels: Int
    /// Of the norm in front of each.
    package var normEpsilon: Double

    package init(levels: Int, normEpsilon: Double) {
      self.levels = levels
      self.normEpsilon = normEpsilon
    }
  }

  package init(widths: [Int]) { self.widths = widths }

  package var layers: Int { widths.count - 1 }

  /// A bound that no projector comes near.
  package static let mostLayers = 64
  package static let largestShuffle = 1 << 6
  package static let largestStack = 1 << 6

  /// Checks that the projector stands between its encoder and its decoder.
  ///
  /// - Parameter place: the file that the projector is from, for messages.
  package func check(encoder: EncoderConfiguration, decoder: DecoderConfiguration?, place: String) throws(SquintError) {
    try check(featureWidth: encoder.featureWidth, decoder: decoder, place: place)
    // What would go behind layers that the decoder does not have is not added, as in transformers.
    if let deep {
      guard (1...63).contains(deep.levels), normEpsilon == nil else {
        throw .badData(place, "features of \(deep.levels) earlier layers are not supported; of 1 to 63 are")
      }
    }
    guard stack == 1 || !encoder.featuresHaveClass else {
      throw .badData(place, "a stack of \(stack) does not go with features that have a row for the class token")
    }
    if shuffle > 1 {
      guard !encoder.featuresHaveClass else {
        throw .badData(place, "a shuffle of \(shuffle) does not go with features that have a row for the class token")
      }
      // Positions that can be resized are for tiles of other grids, too, which are checked when they are known.
      guard encoder.grid % shuffle == 0 || encoder.takesAnyGrid else {
        throw .badData(
          place,
          "a grid of \(encoder.grid) × \(encoder.grid) patches is not cut into squares of \(shuffle) × \(shuffle)")
      }
    }
  }

  /// The same for an encoder of whatever media, whose features have `featureWidth` columns.
  package func check(featureWidth: Int, decoder: DecoderConfiguration?, place: String) throws(SquintError) {
    guard (1...Self.mostLayers).contains(layers), (1...Self.largestShuffle).contains(shuffle) else {
      throw .badData(place, "a projector with \(layers) layers and a shuffle of \(shuffle) is not supported")
    }
    guard (1...Self.largestStack).contains(stack), stack == 1 || shuffle == 1 && deep == nil else {
      throw .badData(place, "a projector with a stack of \(stack) and a shuffle of \(shuffle) is not supported")
    }
    let features = featureWidth * shuffle * shuffle * stack
    guard widths[0] == features else {
      let squares =
        shuffle > 1 ? " in squares of \(shuffle) × \(shuffle)" : stack > 1 ? ", \(stack) rows side by side," : ""
      throw .badData(
        place,
        "the projector takes \(grouped(widths[0])) numbers, but the encoder's features\(squares) have \(grouped(features))"
      )
    }
    if let decoder, widths[layers] != decoder.width {
      throw .badData(
        place,
        "the projector gives \(grouped(widths[layers])) numbers, but the decoder's width is \(grouped(decoder.width))")
    }
    if let normEpsilon, !(normEpsilon.isFinite && normEpsilon >= 0) {
      throw .badData(place, "the projector's norm has the epsilon \(normEpsilon)")
    }
  }

  // MARK: What is written

  /// The sizes and settings of the graph that computes this projector.
  package func blueprint(name: String) -> MLPBlueprint {
    var blueprint = MLPBlueprint(module: "projector.\(name)")
    blueprint.widths = widths
    blueprint.shuffle = shuffle
    blueprint.stack = stack
    blueprint.activation = activation
    if let normEpsilon {
      blueprint.hasNorm = true
      blueprint.normEpsilon = normEpsilon
    }
    blueprint.hasNewline = hasNewline
    return blueprint
  }

  /// Writes the keys of `projector.NAME`.
  package func write(to metadata: inout Metadata, name: String) {
    if let blueprint = deepBlueprint(name: name) {
      blueprint.write(to: &metadata)
    } else {
      blueprint(name: name).write(to: &metadata)
    }
  }

  /// The same with earlier features; nil where there are none.
  private func deepBlueprint(name: String) -> DeepstackBlueprint? {
    guard let deep else { return nil }
    var blueprint = DeepstackBlueprint(module: "projector.\(name)")
    blueprint.widths = widths
    blueprint.shuffle = shuffle
    blueprint.activation = activation
    blueprint.normEpsilon = deep.normEpsilon
    blueprint.levels = deep.levels
    return blueprint
  }

  /// All tensors that this projector has or may have.
  package func tensors(name: String) -> [ExpectedTensor] {
    let blueprint = blueprint(name: name)
    let deep = deepBlueprint(name: name)
    let norms = [blueprint.norm] + (0..<(deep?.levels ?? 0)).compactMap { deep?.level($0).norm }
    // They are there where the configuration says so.
    let sure = Set((norms.flatMap(\.tensors) + [blueprint.newline]).map(\.name))
    return (deep?.tensors ?? blueprint.tensors).compactMap { tensor in
      let presence = tensor.isOptional && !sure.contains(tensor.name) ? bias : .required
      return presence == .absent ? nil : ExpectedTensor(tensor, presence)
    }
  }
}
