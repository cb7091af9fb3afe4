import SquintFile

/// What a vision encoder is (formats/vision.md, "The encoder").
package struct EncoderConfiguration: Sendable {
  /// In the checkpoint's words, for people: `clip`, `siglip`, `dinov2`, `idefics3`.
  package var architecture: String
  /// The layers that the checkpoint has.
  package var sourceLayers: Int
  package var width: Int
  package var ffnWidth: Int
  package var heads: Int
  /// The side of a patch, in pixels.
  package var patch: Int
  /// The side of the grid of patches that the positions are for.
  package var grid: Int
  package var positions: PositionRule
  package var normEpsilon: Double
  package var activation: Activation
  package var hasClass: Bool
  package var features = Features()
  package var optionals = Optionals()
  /// The graph that computes it, with what only that has.
  package var graph: any EncoderGraphSettings = ViTGraph()

  /// What of the encoder's output goes to the projector.
  package struct Features: Equatable, Sendable {
    /// After how many layers features are taken, ascending; nil: after the last one.
    package var layers: [Int]?
    /// Whether the row of the class token is left out, where there is one.
    package var dropsClass = false
    /// Whether the encoder's last norm is applied to them, where it has one.
    package var isNormed = true

    package init() {}
  }

  /// The tensors that some checkpoints have and others do not.
  package struct Optionals: Equatable, Sendable {
    package var patchBias = TensorPresence.ifPresent
    package var preNorm = TensorPresence.absent
    package var queryKeyValueBias = TensorPresence.required
    package var outputBias = TensorPresence.required
    package var ffnBias = TensorPresence.required
    /// The last norm.
    package var norm = TensorPresence.required
    /// Those that only some graphs have, by the name in their layer.
    package var others: [String: TensorPresence] = [:]

    package init() {}
  }

  package init(
    architecture: String, layers: Int, width: Int, ffnWidth: Int, heads: Int, patch: Int, grid: Int,
    positions: PositionRule, normEpsilon: Double, activation: Activation, hasClass: Bool
  ) {
    self.architecture = architecture
    sourceLayers = layers
    self.width = width
    self.ffnWidth = ffnWidth
    self.heads = heads
    self.patch = patch
    self.grid = grid
    self.positions = positions
    self.normEpsilon = normEpsilon
    self.activation = activation
    self.hasClass = hasClass
  }

  /// The layers that the features need: what comes behind them is not in the file.
  package var layers: Int { features.layers?.last ?? sourceLayers }

  /// The columns of the features.
  package var featureWidth: Int { width * (features.layers?.count ?? 1) }

  /// Whether the features begin with a row for the class token.
  package var featuresHaveClass: Bool { hasClass && !features.dropsClass }

  /// Whether tiles may have grids of any size.
  package var takesAnyGrid: Bool { graph.takesAnyGrid(self) }

  /// Bounds that no encoder comes near, so that products fit an Int: a patch has 3 · side² columns, a grid side² rows.
  package static let largestPatch = 1 << 10
  package static let largestGrid = 1 << 12

  /// Checks what the readers of the configuration cannot see one by one.
  ///
  /// - Parameter place: the file that the configuration is from, for messages.
  package func check(place: String) throws(SquintError) {
    guard width % heads == 0 else {
      throw .badData(place, "the encoder's width \(width) is no multiple of its \(heads) heads")
    }
    guard (1...Self.largestPatch).contains(patch), (1...Self.largestGrid).contains(grid) else {
      throw .badData(
        place,
        "an encoder with \(grid) × \(grid) patches of \(patch) pixels is not supported; patches have a side of 1 to "
          + "\(grouped(Self.largestPatch)) pixels, grids one of 1 to \(grouped(Self.largestGrid)) patches")
    }
    guard normEpsilon.isFinite, normEpsilon >= 0 else {
      throw .badData(place, "the encoder's norm has the epsilon \(normEpsilon)")
    }
    guard let taken = features.layers else { return }
    guard !taken.isEmpty, zip(taken, taken.dropFirst()).allSatisfy({ $0 < $1 }),
      taken.allSatisfy({ (0...sourceLayers).contains($0) })
    else {
      throw .badData(
        place,
        "features after the layers \(taken) of an encoder with \(sourceLayers) are not supported; they must ascend and be "
          + "in the encoder")
    }
  }

  // MARK: What is written

  /// Writes the keys of `encoder.NAME`.
  package func write(to metadata: inout Metadata, name: String) {
    graph.write(self, module: "encoder.\(name)", to: &metadata)
  }

  /// All tensors that this encoder has or may have (formats/vision.md, "The encoder").
  ///
  /// Name maps may also lead to `N.attention.qkv`, the three matrices one below the other, and to the vectors
  /// `N.attention.scale` and `N.ffn.scale`, which multiply the rows of `attention.o` and `ffn.down` and their biases. Where the graph
  /// sees two frames at a time, they lead to `frames`, or to `frame.0` and `frame.1`.
  package func tensors(name: String) -> [ExpectedTensor] {
    let module = "encoder.\(name)"
    // The layers that a checkpoint has behind those that the features need are known, and unused.
    return graph.tensors(of: self, module: module, layers: sourceLayers).compactMap { tensor in
      let parts = tensor.name.dropFirst(module.count + 1).split(separator: ".")
      let layer = parts.first.flatMap { Int($0) }
      let inLayer = parts.dropFirst(layer == nil ? 0 : 1).joined(separator: ".")
      let presence = tensor.isOptional ? optionals.presence(of: inLayer, isNormed: features.isNormed) : .required
      let isClass = inLayer == "class"
      guard isClass ? hasClass : presence != .absent else { return nil }
      let isUsed = layer.map { $0 < layers } ?? true
      var expected = ExpectedTensor(tensor, isClass ? .required : isUsed ? presence : .unused)
      expected.setForms(inLayer, prefix: layer.map { "\(module).\($0)." } ?? module, patch: patch)
      if graph.hasFrames, inLayer == "patch" || inLayer == "frames" {
        expected.frames = ExpectedTensor.Frames(
          both: "\(module).frames", first: "\(module).frame.0", second: "\(module).frame.1", side: patch,
          areAdded: inLayer == "patch")
      }
      return expected
    }
  }
}

/// What a graph of encoders has beside the settings that all encoders share.
package protocol EncoderGraphSettings: Sendable {
  /// Writes the keys of `module`, which is the encoder `configuration` of this graph.
  func write(_ configuration: EncoderConfiguration, module: String, to metadata: inout Metadata)

  /// All tensors that the module would have or might have with `layers` layers.
  func tensors(of configuration: EncoderConfiguration, module: String, layers: Int) -> [TensorSpecification]

  /// Whether tiles may have grids of any size.
  func takesAnyGrid(_ configuration: EncoderConfiguration) -> Bool

  /// Whether it sees two frames at a time, so that `patch` is the sum of the kernels of both, and `frames` is both.
  var hasFrames: Bool { get }
}

extension EncoderGraphSettings {
  package var hasFrames: Bool { false }
}

/// The graph `vit`, which has nothing that others do not.
package struct ViTGraph: EncoderGraphSettings {
  package init() {}

  private func blueprint(of configuration: EncoderConfiguration, module: String) -> ViTBlueprint {
    var blueprint = ViTBlueprint(module: module)
    blueprint.architecture = configuration.architecture
    blueprint.layers = configuration.layers
    blueprint.width = configuration.width
    blueprint.ffnWidth = configuration.ffnWidth
    blueprint.heads = configuration.heads
    blueprint.patch = configuration.patch
    blueprint.grid = configuration.grid
    blueprint.positions = configuration.positions
    blueprint.normEpsilon = configuration.normEpsilon
    blueprint.activation = configuration.activation
    // The last layer alone is what an absent key means.
    if let taken = configuration.features.layers, taken != [configuration.layers] { blueprint.featureLayers = taken }
    blueprint.dropsClass = configuration.hasClass && configuration.features.dropsClass
    blueprint.hasClass = configuration.hasClass
    return blueprint
  }

  package func write(_ configuration: EncoderConfiguration, module: String, to metadata: inout Metadata) {
    blueprint(of: configuration, module: module).write(to: &metadata)
  }

  package func tensors(of configuration: EncoderConfiguration, module: String, layers: Int) -> [TensorSpecification] {
    var blueprint = blueprint(of: configuration, module: module)
    blueprint.layers = layers
    return blueprint.tensors
  }

  package func takesAnyGrid(_ configuration: EncoderConfiguration) -> Bool { configuration.positions != .fixed }
}

extension EncoderConfiguration.Optionals {
  /// - Parameter isNormed: whether the last norm is applied to the features.
  fileprivate func presence(of name: String, isNormed: Bool) -> TensorPresence {
    switch name {
    case "patch.bias": patchBias
    case "pre_norm", "pre_norm.bias": preNorm
    case "attention.q.bias", "attention.k.bias", "attention.v.bias": queryKeyValueBias
    case "attention.o.bias": outputBias
    case "ffn.gate.bias", "ffn.up.bias", "ffn.down.bias": ffnBias
    case "norm", "norm.bias": isNormed || norm == .absent ? norm : .unused
    default: others[name] ?? .absent
    }
  }
}

extension ExpectedTensor {
  /// Sets the other ways in which checkpoints store a tensor of an encoder.
  fileprivate mutating func setForms(_ name: String, prefix: String, patch: Int) {
    switch name {
    case "patch":
      otherShapes = [[shape[0], 3, patch, patch]]
      channelsLastShape = [shape[0], patch, patch, 3]
    case "class": otherShapes = [[1, shape[0]], [1, 1, shape[0]]]
    case "positions": otherShapes = [[1, shape[0], shape[1]]]
    case "attention.o", "attention.o.bias": rowScale = prefix + "attention.scale"
    case "ffn.down", "ffn.down.bias": rowScale = prefix + "ffn.scale"
    default:
      for (index, part) in ["q", "k", "v"].enumerated() {
        for ending in ["", ".bias"] where name == "attention.\(part)\(ending)" {
          fused = FusedRows(
            name: "\(prefix)attention.qkv\(ending)", firstRow: index * shape[0], rows: 3 * shape[0])
        }
      }
    }
  }
}
