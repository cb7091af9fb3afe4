import SquintFile

/// What the tensors of a checkpoint say of one of its modules, whatever its configuration says.
struct StoredTensors: Sendable {
  /// `decoder`, `encoder.NAME`
  let module: String
  /// By their names in the module: `0.attention.q`.
  private let tensors: [String: SourceTensor]
  /// One more than the largest number of a layer.
  let layers: Int
  private let place: String

  init(_ mapped: MappedTensors, module: String) {
    self.module = module
    place = mapped.place
    var tensors: [String: SourceTensor] = [:]
    var layers = 0
    for tensor in mapped.source.tensors {
      guard case .tensor(let name) = mapped.target(of: tensor.name), name.hasPrefix(module + ".") else { continue }
      let inside = name.dropFirst(module.count + 1)
      tensors[String(inside)] = tensor
      let number = inside.prefix { $0 != "." }.utf8
      if let layer = Int(String(Substring(number))), layer < Int.max { layers = max(layers, layer + 1) }
    }
    self.tensors = tensors
    self.layers = layers
  }

  subscript(name: String) -> SourceTensor? { tensors[name] }

  /// The shape of a matrix; nil where it is not there, or no matrix of a size that a model may have.
  func matrix(_ name: String) -> (rows: Int, columns: Int)? {
    guard let shape = tensors[name]?.shape, shape.count == 2,
      shape.allSatisfy({ (1...DecoderConfiguration.largestDimension).contains($0) })
    else { return nil }
    return (shape[0], shape[1])
  }

  /// The numbers of a vector.
  func count(_ name: String) -> Int? {
    guard let shape = tensors[name]?.shape, shape.count == 1, shape[0] > 0 else { return nil }
    return shape[0]
  }

  /// In how many of the first `layers` layers there is a tensor that is called `name` in each.
  func count(of name: String, layers: Int) -> Int {
    (0..<min(layers, self.layers)).reduce(0) { tensors["\($1).\(name)"] == nil ? $0 : $0 + 1 }
  }

  /// Whether a projector's matrices have biases: all or none.
  func projectorBiases(
    layers: Int, said: Bool, place: String, notes: inout [String]
  ) throws(SquintError) -> TensorPresence {
    let stored = (0..<layers).filter { tensors["\($0).bias"] != nil }.count
    // Of some that are missing the first is named where the tensors are found.
    guard stored == 0 || stored == layers else { return .required }
    if (stored > 0) != said {
      notes.append(
        "\(place): the projector's biases are \(said ? "not " : "")stored, other than multimodal_projector_bias says; "
          + "\(said ? "it has none" : "they are used")")
    }
    return stored > 0 ? .required : .absent
  }

  /// Whether the matrices `names` have biases: in all layers or in none.
  ///
  /// - Parameters:
  ///   - said: whether the configuration has them.
  ///   - key: what in the configuration says so, for notes.
  /// - Throws: `SquintError.badData` where some layers lack what others have.
  func biases(
    of names: [String], said: Bool, key: String, layers: Int, notes: inout [String]
  ) throws(SquintError) -> TensorPresence {
    var stored: [String] = []
    for name in names {
      let count = count(of: name + ".bias", layers: layers)
      guard count > 0 else { continue }
      let all = self.count(of: name, layers: layers)
      guard count == all else {
        throw .badData(
          place, "\(count) of \(all) layers have a bias for \(module).*.\(name); the checkpoint is incomplete")
      }
      stored.append(name)
    }
    guard !stored.isEmpty else {
      if said { notes.append("\(place): \(key) says that \(module) has biases, but none are stored; it has none") }
      return .absent
    }
    if !said {
      notes.append(
        "\(place): biases of \(stored.joined(separator: ", ")) are stored, which the configuration (\(key)) does not have; "
          + "they are used")
    }
    return stored.count == names.count ? .required : .ifPresent
  }
}

/// Takes what is stored where something else is said, and notes it.
struct Settlement {
  /// The configuration's file, for notes.
  let place: String
  var notes: [String] = []

  init(place: String) { self.place = place }

  mutating func settle(_ key: String, said: Int, stored: Int?) -> Int {
    guard let stored, stored != said else { return said }
    notes.append(
      "\(place): \(key) is \(grouped(said)), but the tensors are of \(grouped(stored)), which is taken")
    return stored
  }
}

/// How many heads there are, and how wide they are.
struct HeadShape: Equatable {
  var heads: Int
  var keyValueHeads: Int
  var width: Int
}

extension StoredTensors {
  /// The heads that the matrices of queries and keys have room for; `said` where they do not tell.
  ///
  /// The matrices give two numbers and heads are three, so that two must be right as they are said.
  ///
  /// - Parameter isWidthSaid: whether the configuration gives the width, which is otherwise what others make it.
  func heads(said: HeadShape, isWidthSaid: Bool) -> HeadShape {
    guard let queries = matrix("0.attention.q")?.rows, let keys = matrix("0.attention.k")?.rows else { return said }
    func fits(_ shape: HeadShape) -> Bool {
      shape.heads * shape.width == queries && shape.keyValueHeads * shape.width == keys
    }
    guard !fits(said) else { return said }
    var others: [HeadShape] = []
    // The norm of a head is as wide as a head.
    if let norm = count("0.attention.q_norm") {
      others.append(HeadShape(heads: queries / norm, keyValueHeads: keys / norm, width: norm))
    }
    let width = queries / said.heads
    others += [
      HeadShape(heads: said.heads, keyValueHeads: said.keyValueHeads, width: width),
      HeadShape(heads: said.heads, keyValueHeads: keys / said.width, width: said.width),
      HeadShape(heads: queries / said.width, keyValueHeads: said.keyValueHeads, width: said.width),
    ]
    if !isWidthSaid, width > 0 {
      others.append(HeadShape(heads: said.heads, keyValueHeads: keys / width, width: width))
    }
    return others.first { fits($0) && $0.heads > 0 && $0.keyValueHeads > 0 } ?? said
  }
}

extension DecoderConfiguration {
  /// Takes biases and norms as they are stored, whatever the configuration says.
  ///
  /// - Parameters:
  ///   - place: the configuration's file, for messages.
  ///   - notes: takes what was taken.
  /// - Throws: `SquintError.badData` where some layers lack what others have.
  mutating func follow(_ stored: StoredTensors, place: String, notes: inout [String]) throws(SquintError) {
    func bias(_ presence: inout TensorPresence, of names: [String], key: String) throws(SquintError) {
      presence = try stored.biases(of: names, said: presence == .required, key: key, layers: layers, notes: &notes)
    }
    try bias(
      &optionals.queryKeyValueBias,
      of: packsAttention ? ["attention.qkv"] : ["attention.q", "attention.k", "attention.v"],
      key: "\(architecture), attention_bias")
    try bias(&optionals.outputBias, of: ["attention.o"], key: "\(architecture), attention_bias")
    try bias(&optionals.ffnBias, of: ["ffn.gate", "ffn.up", "ffn.down"], key: "\(architecture), mlp_bias")
    // A norm that is not there would be one of ones, not none: where the family has it, it is required.
    if optionals.headNorm == .absent, stored.count("0.attention.q_norm") != nil {
      optionals.headNorm = .required
      notes.append("\(place): norms of queries and keys are stored, which \(architecture) does not have; they are used")
    }
    if stored.layers > layers {
      notes.append(
        "\(place): the configuration has \(grouped(layers)) layers; those that are stored beyond are left out")
    }
  }
}

extension DecoderConfiguration {
  /// Lets the embedding serve as the head where no other head is stored, whatever the configuration says.
  ///
  /// - Parameter key: what in the configuration speaks of it.
  mutating func shareEmbedding(
    _ stored: StoredTensors, source: any TensorSource, key: String, place: String, notes: inout [String]
  ) throws(SquintError) {
    let said = isTied
    guard let head = stored["head"], let embedding = stored["embedding"] else {
      // Without an embedding nothing can serve.
      guard stored["embedding"] != nil else { return }
      isTied = true
      if !said {
        notes.append("\(place): no head is stored, so the embedding serves as one, which \(key) does not say")
      }
      return
    }
    guard said else { return }
    isTied = try source.areEqual(head, embedding)
    if !isTied {
      notes.append(
        "\(place): \(key) says that the embedding serves as the head, but another head is stored (\(printable(head.name))); "
          + "it is used")
    }
  }
}

extension EncoderConfiguration {
  /// Takes what the tensors say where the configuration says something else.
  ///
  /// - Parameters:
  ///   - place: the configuration's file, for messages.
  ///   - notes: takes what was taken.
  /// - Throws: `SquintError.badData` where neither makes an encoder.
  mutating func follow(_ stored: StoredTensors, place: String, notes: inout [String]) throws(SquintError) {
    var settlement = Settlement(place: place)
    let patches = either(stored["patch"], stored["frames"])?.shape
    if let patches, let side = Self.patchSide(patches) {
      patch = settlement.settle("patch_size", said: patch, stored: side)
    }
    width = settlement.settle("hidden_size", said: width, stored: patches?.first)
    ffnWidth = settlement.settle("intermediate_size", said: ffnWidth, stored: stored.matrix("0.ffn.up")?.rows)
    try followPositions(stored, place: place, &settlement)
    notes += settlement.notes

    func bias(_ presence: inout TensorPresence, of names: [String]) throws(SquintError) {
      presence = try stored.biases(
        of: names, said: presence == .required, key: architecture, layers: sourceLayers, notes: &notes)
    }
    let isFused = stored["0.attention.qkv"] != nil
    try bias(
      &optionals.queryKeyValueBias, of: isFused ? ["attention.qkv"] : ["attention.q", "attention.k", "attention.v"])
    try bias(&optionals.outputBias, of: ["attention.o"])
    try bias(
      &optionals.ffnBias,
      of: stored["0.ffn.gate"] == nil ? ["ffn.up", "ffn.down"] : ["ffn.gate", "ffn.up", "ffn.down"])
    func follow(_ presence: inout TensorPresence, _ name: String, what: String) {
      guard (presence == .absent) == (stored[name] != nil) else { return }
      // A norm that is not there would be one of ones, not none.
      guard presence == .absent || name.hasSuffix(".bias") else { return }
      notes.append(
        "\(place): \(what) is \(presence == .absent ? "" : "not ")stored, which \(architecture) "
          + "\(presence == .absent ? "does not have; it is used" : "has; there is none")")
      presence = presence == .absent ? .required : .absent
    }
    follow(&optionals.patchBias, "patch.bias", what: "a bias of the patches")
    follow(&optionals.preNorm, "pre_norm", what: "a norm before the first layer")
    if stored.layers > sourceLayers {
      notes.append(
        "\(place): the encoder's configuration has \(grouped(sourceLayers)) layers; those that are stored beyond are left out"
      )
    }
    try check(place: place)
  }

  /// The side of the patches of a convolution [width, 3, side, side], in whatever layout; nil where it is none.
  private static func patchSide(_ shape: [Int]) -> Int? {
    switch shape.count {
    case 4 where shape[1] == 3 && shape[2] == shape[3]: return shape[3]
    case 4 where shape[3] == 3 && shape[1] == shape[2]: return shape[1]
    // Over two frames.
    case 5 where shape[1] == 3 && shape[2] == 2 && shape[3] == shape[4]: return shape[3]
    case 5 where shape[4] == 3 && shape[1] == 2 && shape[2] == shape[3]: return shape[2]
    case 2: return root(shape[1] / 3).flatMap { shape[1] % 3 == 0 ? $0 : nil }
    default: return nil
    }
  }

  /// The number whose square is `square`; nil where there is none, or it is larger than any side.
  private static func root(_ square: Int) -> Int? {
    guard square > 0, square <= largestGrid * largestGrid else { return nil }
    let root = Int(Double(square).squareRoot().rounded())
    return root * root == square ? root : nil
  }

  /// The class token is there where it is stored; the rows of positions that are not its are a square.
  private mutating func followPositions(
    _ stored: StoredTensors, place: String, _ settlement: inout Settlement
  ) throws(SquintError) {
    guard let shape = stored["positions"]?.shape, shape.count >= 2 else { return }
    let rows = shape[shape.count - 2]
    let isStored = stored["class"] != nil
    if isStored != hasClass, Self.root(rows - (isStored ? 1 : 0)) != nil {
      settlement.notes.append(
        isStored
          ? "\(place): a class token is stored, which \(architecture) does not have; it is used"
          : "\(place): \(architecture) has a class token, but none is stored, nor a position for it; there is none")
      hasClass = isStored
    } else if isStored, !hasClass {
      throw .badData(
        place,
        "a class token is stored, but the \(grouped(rows)) positions are not a square and one; the checkpoint is broken"
      )
    }
    // What does not fit is refused by its shape.
    grid = settlement.settle(
      "image_size / patch_size", said: grid, stored: Self.root(rows - (hasClass ? 1 : 0)))
  }
}
