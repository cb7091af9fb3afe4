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
  /// Constants that go into vectors, by the vector's name in its layer: `attention.q_norm`.
  package var folds: [String: Fold] = [:]
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
      expected.stack = stacks[tensor.name]
      return expected
    }
  }

  private func presence(of tensor: TensorSpecification) -> TensorPresence {
    guard tensor.isOptional else { return .required }
    // Where the checkpoint says that the embedding serves as the head, transformers uses that, whatever is there.
    if tensor.role == .head { return isTied ? .unused : .required }
    return optionals.presence(of: Self.nameInLayer(tensor.name))
  }

  /// What goes into the numbers of the vector `name`.
  package func fold(of name: String) -> Fold { folds[Self.nameInLayer(name)] ?? Fold() }

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
