import SquintFile

/// What a text decoder is (formats/decoder.md), read from a checkpoint's own words for it.
package struct DecoderConfiguration: Sendable {
  /// The name of the family.
  package var architecture: String
  package var vocabulary: Int
  package var context: Int
  package var layers: Int
  package var width: Int
  package var ffnWidth: Int
  package var heads: Int
  package var keyValueHeads: Int
  package var headWidth: Int
  package var normEpsilon: Double
  /// 0: a position attends to all before it.
  package var window = 0
  /// The layers that have the window; nil: all.
  package var windowLayers: [Int]?
  package var rotary: RotaryFrequencies
  package var isTied: Bool
  package var optionals = Optionals()
  /// Constants that go into tensors, by the tensor's name in its layer: `attention.q_norm`.
  package var folds: [String: Fold] = [:]
  /// What the rows of media are multiplied with, where it is folded into the embedding of tokens.
  package var inputScale: Float = 1
  /// Whether the checkpoint has queries, keys and values in one tensor, which name maps call `N.attention.qkv`: for each head of keys
  /// its queries, its key, its value.
  package var packsAttention = false
  /// The graph that computes it, with what only that has.
  package var graph: any GraphSettings = LlamaGraph()

  /// The tensors that some checkpoints have and others do not.
  package struct Optionals: Equatable, Sendable {
    package var queryKeyValueBias = TensorPresence.absent
    package var outputBias = TensorPresence.absent
    package var ffnBias = TensorPresence.absent
    package var headNorm = TensorPresence.absent
    /// Those that only some graphs have, by the name in their layer.
    package var others: [String: TensorPresence] = [:]

    package init() {}

    fileprivate func presence(of name: String) -> TensorPresence {
      switch name {
      case "attention.q.bias", "attention.k.bias", "attention.v.bias": queryKeyValueBias
      case "attention.o.bias": outputBias
      case "ffn.gate.bias", "ffn.up.bias", "ffn.down.bias": ffnBias
      case "attention.q_norm", "attention.k_norm": headNorm
      default: others[name] ?? .absent
      }
    }
  }

  /// Bounds that no model comes near, so that products of two of them fit an Int and lists of layers fit memory.
  package static let largestDimension = 1 << 26
  package static let mostLayers = 4096

  /// Checks what the readers of the configuration cannot see one by one.
  ///
  /// - Parameter place: the file that the configuration is from, for messages.
  package func check(place: String) throws(SquintError) {
    guard heads % keyValueHeads == 0 else {
      throw .badData(place, "\(heads) query heads are no multiple of \(keyValueHeads) key/value heads")
    }
    guard rotary.frequencies.count * 2 <= headWidth else {
      throw .badData(
        place, "the rotary embedding is \(rotary.frequencies.count * 2) wide, but a head is only \(headWidth)")
    }
    guard rotary.frequencies.allSatisfy(\.isFinite), rotary.magnitude.isFinite else {
      throw .badData(place, "the rotary embedding's settings give frequencies that are not finite")
    }
    guard normEpsilon.isFinite, normEpsilon >= 0 else {
      throw .badData(place, "the norm's epsilon is \(normEpsilon)")
    }
  }

  // MARK: What is written

  /// The sizes and settings of the graph that computes this decoder.
  package var blueprint: any DecoderBlueprint { graph.blueprint(of: self) }

  /// Writes the `decoder.*` keys.
  package func write(to metadata: inout Metadata) { blueprint.write(to: &metadata) }

  /// All tensors that this decoder has or may have (formats/decoder.md, "Tensors").
  package var tensors: [ExpectedTensor] {
    let stacks = graph.stacks(of: self)
    return blueprint.tensors.compactMap { tensor in
      let presence = presence(of: tensor)
      guard presence != .absent else { return nil }
      var expected = ExpectedTensor(tensor, presence)
      if let part = packedPart(of: tensor.name) {
        expected.fused = ExpectedTensor.FusedRows(
          name: part.name, firstRow: 0, rows: (heads + 2 * keyValueHeads) * headWidth)
      }
      expected.stack = stacks[tensor.name]
      return expected
    }
  }

  /// Where a tensor is in the one that the checkpoint has queries, keys and values in: what name maps call that, and which of its rows.
  private func packedPart(of name: String) -> (name: String, order: RowOrder)? {
    guard packsAttention else { return nil }
    let perGroup = heads / keyValueHeads
    let inGroup = ["q": (0, perGroup), "k": (perGroup, 1), "v": (perGroup + 1, 1)]
    for (part, (first, count)) in inGroup {
      for ending in ["", ".bias"] where name.hasSuffix(".attention.\(part)\(ending)") {
        return (
          String(name.dropLast(ending.count + 1)) + "qkv" + ending,
          .grouped(headWidth: headWidth, first: first, count: count, of: perGroup + 2)
        )
      }
    }
    return nil
  }

  /// Which rows of the checkpoint's tensor become the tensor `name`.
  func rowOrder(of name: String) -> RowOrder { packedPart(of: name)?.order ?? .same }

  private func presence(of tensor: TensorSpecification) -> TensorPresence {
    guard tensor.isOptional else { return .required }
    // Where the checkpoint says that the embedding serves as the head, transformers uses that, whatever is there.
    if tensor.role == .head { return isTied ? .unused : .required }
    return optionals.presence(of: Self.nameInLayer(tensor.name))
  }

  /// What goes into the numbers of the tensor `name`.
  package func fold(of name: String) -> Fold {
    let name = Self.nameInLayer(name)
    var fold = folds[name] ?? Fold()
    // An embedding that serves as the head has its factor there, too.
    if name == "norm", isTied { fold.factor /= inputScale }
    return fold
  }

  /// `attention.q` of `decoder.3.attention.q`, `norm` of `decoder.norm`.
  private static func nameInLayer(_ name: String) -> String {
    let parts = name.split(separator: ".").dropFirst()
    let isLayer = parts.first?.utf8.allSatisfy { (0x30...0x39).contains($0) } ?? false
    return parts.dropFirst(isLayer ? 1 : 0).joined(separator: ".")
  }
}

/// What a graph has beside the settings that all decoders share.
package protocol GraphSettings: Sendable {
  /// The blueprint of `configuration`, whose graph this is.
  func blueprint(of configuration: DecoderConfiguration) -> any DecoderBlueprint

  /// By their names the tensors that are made of several matrices of the checkpoint.
  func stacks(of configuration: DecoderConfiguration) -> [String: MatrixStack]
}

extension GraphSettings {
  package func stacks(of configuration: DecoderConfiguration) -> [String: MatrixStack] { [:] }
}

extension DecoderBlueprint {
  /// A blueprint with the settings that all graphs have.
  package init(_ configuration: DecoderConfiguration) {
    self.init()
    architecture = configuration.architecture
    vocabulary = configuration.vocabulary
    context = configuration.context
    layers = configuration.layers
    width = configuration.width
    ropeScaling = configuration.rotary.description
  }
}

extension AttentionBlueprint {
  package init(_ configuration: DecoderConfiguration) {
    self.init()
    heads = configuration.heads
    kvHeads = configuration.keyValueHeads
    headWidth = configuration.headWidth
  }
}

/// Constants that go into a tensor's numbers when they are stored: x becomes (x + addend) · factor, each operation in f32.
package struct Fold: Equatable, Sendable {
  package var addend: Float = 0
  package var factor: Float = 1

  package init(addend: Float = 0, factor: Float = 1) {
    self.addend = addend
    self.factor = factor
  }
}
