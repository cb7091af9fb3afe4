import SquintFile

/// What a vision encoder is (formats/vision.md, "The encoder").
package struct EncoderConfiguration: Equatable, Sendable {
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

  package enum PositionRule: String, Sendable { case fixed, bicubic, buckets }

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

  /// Writes the keys of `encoder.NAME`.
  package func write(to metadata: inout Metadata, name: String) {
    let prefix = "encoder.\(name)"
    metadata["\(prefix).architecture"] = .string(architecture)
    for (key, value) in [
      ("layers", layers), ("width", width), ("ffn_width", ffnWidth), ("heads", heads), ("patch", patch), ("grid", grid),
    ] { metadata["\(prefix).\(key)"] = .int(Int64(value)) }
    metadata["\(prefix).positions"] = .string(positions.rawValue)
    metadata["\(prefix).norm_epsilon"] = .float(normEpsilon)
    metadata["\(prefix).activation"] = .string(activation.rawValue)
    // The last layer alone is what an absent key means.
    if let taken = features.layers, taken != [layers] {
      metadata["\(prefix).feature_layers"] = .ints(taken.map { Int64($0) })
    }
    if hasClass && features.dropsClass { metadata["\(prefix).drops_class"] = .bool(true) }
  }

  /// All tensors that this encoder has or may have (formats/vision.md, "The encoder").
  ///
  /// Name maps may also lead to `N.attention.qkv`, the three matrices one below the other, and to the vectors
  /// `N.attention.scale` and `N.ffn.scale`, which multiply the rows of `attention.o` and `ffn.down` and their biases.
  package func tensors(name: String) -> [ExpectedTensor] {
    var tensors: [ExpectedTensor] = []
    let prefix = "encoder.\(name)."
    func add(_ tensor: ExpectedTensor) { if tensor.presence != .absent { tensors.append(tensor) } }
    func vector(_ name: String, _ count: Int, _ presence: TensorPresence = .required) -> ExpectedTensor {
      ExpectedTensor(prefix + name, [count], .vector, presence)
    }
    /// The layer that a checkpoint has behind those that the features need is `unused`.
    func addMatrix(
      _ name: String, rows: Int, columns: Int, bias: TensorPresence, isUsed: Bool, rowScale: String? = nil,
      fused: (name: String, index: Int)? = nil
    ) {
      func presence(_ presence: TensorPresence) -> TensorPresence {
        isUsed || presence == .absent ? presence : .unused
      }
      for ending in ["", ".bias"] {
        let isBias = !ending.isEmpty
        var tensor = ExpectedTensor(
          prefix + name + ending, isBias ? [rows] : [rows, columns], isBias ? .vector : .weight,
          presence(isBias ? bias : .required))
        tensor.rowScale = rowScale.map { prefix + $0 }
        tensor.fused = fused.map {
          ExpectedTensor.FusedRows(name: prefix + $0.name + ending, firstRow: $0.index * rows, rows: 3 * rows)
        }
        add(tensor)
      }
    }

    var patches = ExpectedTensor(prefix + "patch", [width, 3 * patch * patch])
    patches.otherShapes = [[width, 3, patch, patch]]
    patches.channelsLastShape = [width, patch, patch, 3]
    add(patches)
    add(vector("patch.bias", width, optionals.patchBias))
    var classToken = vector("class", width, hasClass ? .required : .absent)
    classToken.otherShapes = [[1, width], [1, 1, width]]
    add(classToken)
    let rows = grid * grid + (hasClass ? 1 : 0)
    var table = ExpectedTensor(prefix + "positions", [rows, width], .vector)
    table.otherShapes = [[1, rows, width]]
    add(table)
    add(vector("pre_norm", width, optionals.preNorm))
    add(vector("pre_norm.bias", width, optionals.preNorm))
    for layer in 0..<sourceLayers {
      let isUsed = layer < layers
      let presence = isUsed ? TensorPresence.required : .unused
      add(vector("\(layer).attention.norm", width, presence))
      add(vector("\(layer).attention.norm.bias", width, presence))
      for (index, part) in ["q", "k", "v"].enumerated() {
        addMatrix(
          "\(layer).attention.\(part)", rows: width, columns: width, bias: optionals.queryKeyValueBias, isUsed: isUsed,
          fused: ("\(layer).attention.qkv", index))
      }
      addMatrix(
        "\(layer).attention.o", rows: width, columns: width, bias: optionals.outputBias, isUsed: isUsed,
        rowScale: "\(layer).attention.scale")
      add(vector("\(layer).ffn.norm", width, presence))
      add(vector("\(layer).ffn.norm.bias", width, presence))
      addMatrix("\(layer).ffn.up", rows: ffnWidth, columns: width, bias: optionals.ffnBias, isUsed: isUsed)
      addMatrix(
        "\(layer).ffn.down", rows: width, columns: ffnWidth, bias: optionals.ffnBias, isUsed: isUsed,
        rowScale: "\(layer).ffn.scale")
    }
    let norm = features.isNormed || optionals.norm == .absent ? optionals.norm : .unused
    add(vector("norm", width, norm))
    add(vector("norm.bias", width, norm))
    return tensors
  }
}
