import SquintFile

/// The one spelling of names that the tables of a kind of checkpoint know, and how others become it.
///
/// Programs save the same tensor under many names: transformers moves parts from one version to the next, and what wraps a
/// model (DataParallel, FSDP, torch.compile, PEFT, a program's own class) puts its name in front or between. What a tensor is
/// stands behind all of that, in the first component that a model of the kind has.
enum NameSpelling: Sendable {
  /// transformers' models with a decoder: `model.layers.…`, `lm_head.…`, `vision_tower.…`, `multi_modal_projector.…`.
  case model
  /// A vision tower alone: `vision_tower.…`.
  case tower
  /// nanoVLM's: `decoder.…`, `vision_encoder.…`, `MP.…`.
  case nanoVLM
  /// A graph network for molecules alone, as MoleculeSTM saves it: `molecule_node_model.…`.
  case molecule

  /// `name` as the tables know it; nil where it has no component that they know.
  func spelled(_ name: String) -> String? { spelled(Self.unwrapped(name)[...]) }

  // MARK: Components

  /// What wraps modules anywhere in a model: DataParallel, torch.compile, FSDP, activation checkpointing, Lightning.
  static let wrappers: Set<Substring> = [
    "module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module",
    // PEFT's, around a matrix that an adapter was for. (Where the adapter is there, too, the checkpoint is refused.)
    "base_layer",
  ]

  /// What stands in front of a decoder's names: the attributes of the classes around it.
  private static let shells: Set<Substring> = [
    "model", "base_model", "language_model", "text_model", "transformer", "pretrained_model", "ema", "ema_model",
    "thinker",
  ]

  private static let towerShells: Set<Substring> = [
    "model", "base_model", "vision_tower", "vision_model", "dinov2", "ema", "ema_model",
  ]

  /// The components of `name` without wrappers.
  static func unwrapped(_ name: String) -> [Substring] {
    name.split(separator: ".", omittingEmptySubsequences: false).filter { !wrappers.contains($0) }
  }

  private static let moleculeShells: Set<Substring> = [
    "model", "base_model", "graph_tower", "molecule_model", "molecule_node_model", "ema", "ema_model",
  ]

  private var shells: Set<Substring> {
    switch self {
    case .tower: Self.towerShells
    case .molecule: Self.moleculeShells
    case .model, .nanoVLM: Self.shells
    }
  }

  /// The components that tell what a tensor is, and what comes before them in the tables.
  private var roots: [Substring: String] {
    switch self {
    case .model: Self.modelRoots
    case .tower:
      [
        "embeddings": "vision_tower.", "encoder": "vision_tower.", "pre_layrnorm": "vision_tower.",
        "post_layernorm": "vision_tower.", "layernorm": "vision_tower.", "head": "vision_tower.",
      ]
    case .nanoVLM: ["decoder": "", "vision_encoder": "", "MP": ""]
    case .molecule:
      [
        "atom_encoder": "molecule_node_model.", "gnns": "molecule_node_model.", "batch_norms": "molecule_node_model.",
      ]
    }
  }

  /// What the families' tables begin with, and the parts beside a decoder.
  private static let modelRoots: [Substring: String] = {
    var roots: [Substring: String] = [
      "rotary_emb": "model.", "multi_modal_projector": "", "mm_projector": "", "connector": "", "vision_tower": "",
      "vision_model": "", "visual": "", "audio_tower": "", "mlp1": "", "image_newline": "",
      "graph_tower": "",
      "ts_encoder": "",
    ]
    for family in Families.decoders {
      for (source, _) in family.huggingFace.names.stems {
        let components = source.split(separator: ".")
        if components[0] == "model" { roots[components[1]] = "model." } else { roots[components[0]] = "" }
      }
    }
    return roots
  }()

  private func spelled(_ components: ArraySlice<Substring>) -> String? {
    let rest = components.drop(while: shells.contains)
    guard let root = rest.first, let lead = roots[root] else { return nil }
    guard self == .model, root == "vision_tower" || root == "vision_model" else {
      return lead + rest.joined(separator: ".")
    }
    let inside = rest.drop(while: Self.towerShells.contains)
    return (["vision_tower"] + inside).joined(separator: ".")
  }

  // MARK: Other wrappers

  /// Components that every checkpoint of the kind has in a name, the first that is there.
  private var anchors: [Set<Substring>] {
    switch self {
    case .model: [["embed_tokens", "tok_embeddings"], ["lm_head"]]
    case .tower: [["embeddings"]]
    case .nanoVLM: [["decoder"]]
    case .molecule: [["atom_encoder"]]
    }
  }

  /// The components in front of all that is known, which some program has put there.
  ///
  /// They are found at the tensor that every model has. Where it is there without them, nothing is in front.
  private func unknownLead(_ names: [[Substring]], place: String) throws(SquintError) -> [Substring] {
    var found: [[Substring]] = []
    // A head may stand beside a body that was wrapped; the embedding is a part of that.
    let anchors = anchors.first { anchor in names.contains { $0.contains(where: anchor.contains) } } ?? []
    for name in names {
      guard var known = name.firstIndex(where: anchors.contains) else { continue }
      while known > 0, shells.contains(name[known - 1]) || roots[name[known - 1]] != nil { known -= 1 }
      let lead = Array(name[..<known])
      if lead.isEmpty { return [] }
      if !found.contains(lead) { found.append(lead) }
    }
    guard found.count < 2 else {
      let all = found.prefix(3).map { "\"\(printable($0.joined(separator: ".")))\"" }.joined(separator: " and ")
      throw .badData(
        place,
        "there is more than one model in this checkpoint, in front of whose names stand \(all); save one of them apart")
    }
    return found.first ?? []
  }

  /// The names that the tables know for `names`; what they do not know only loses its wrappers.
  ///
  /// - Parameters:
  ///   - place: the folder, for messages.
  ///   - notes: takes a line where wrappers were taken off.
  func spelled(_ names: [String], place: String, notes: inout [String]) throws(SquintError) -> [String] {
    try refuseTraining(names, place: place)
    let components = names.map(Self.unwrapped)
    let lead = try unknownLead(components, place: place)
    var wraps: Set<String> = []
    var spelled: [String] = []
    for (name, components) in zip(names, components) {
      var rest = components[...]
      if !lead.isEmpty, rest.starts(with: lead) { rest = rest.dropFirst(lead.count) }
      spelled.append(self.spelled(rest) ?? rest.joined(separator: "."))
      guard components.count < name.utf8.reduce(1, { $1 == UInt8(ascii: ".") ? $0 + 1 : $0 }) else { continue }
      wraps.formUnion(name.split(separator: ".").filter(Self.wrappers.contains).map(String.init))
    }
    if !lead.isEmpty { wraps.insert(lead.joined(separator: ".")) }
    if !wraps.isEmpty {
      let all = wraps.sorted().map { "\"\(printable($0))\"" }.joined(separator: ", ")
      notes.append("\(place): \(all) in the names of tensors, which a program for training put there, is taken off")
    }
    return spelled
  }

  /// Refuses what is not yet a model: adapters beside their matrices, parameters in one flat piece.
  private func refuseTraining(_ names: [String], place: String) throws(SquintError) {
    for name in names {
      for component in name.split(separator: ".") {
        if component.hasPrefix("lora_") || component == "modules_to_save" || component == "original_module" {
          throw .badData(
            place,
            "tensor \(printable(name)) is a part of an adapter that is not merged into its model; merge it with PEFT "
              + "(model.merge_and_unload(), save_pretrained), or save the adapter by itself and give it with --adapter")
        }
        if component == "_flat_param" || component.hasPrefix("flat_param") {
          throw .badData(
            place,
            "tensor \(printable(name)) holds the parameters of several modules in one piece (FSDP); save the model with "
              + "FULL_STATE_DICT, or with save_pretrained")
        }
      }
    }
  }
}

/// The tensors of a checkpoint under the names that the tables know.
struct SpelledTensors: TensorSource {
  private(set) var tensors: [SourceTensor] = []
  private let source: any TensorSource
  private var places: [ExactString: Int] = [:]

  /// - Parameters:
  ///   - isTied: whether the configuration says that the embedding serves as the head; nil: it does not speak of it.
  ///   - place: the folder, for messages.
  ///   - notes: takes what the user should know.
  /// - Throws: `SquintError.badData` where two tensors that differ would have one name.
  init(
    _ source: any TensorSource, spelling: NameSpelling, isTied: Bool? = nil, place: String, notes: inout [String]
  ) throws(SquintError) {
    self.source = source
    let stored = source.tensors
    let names = try spelling.spelled(stored.map(\.name), place: place, notes: &notes)
    var twice = 0
    var origins: [Int] = []
    for (index, name) in names.enumerated() {
      guard let other = places[ExactString(name)] else {
        places[ExactString(name)] = tensors.count
        tensors.append(stored[index].named(name))
        origins.append(index)
        continue
      }
      let (first, second) = (stored[origins[other]], stored[index])
      guard try source.areEqual(first, second) else {
        throw .badData(
          source.path(of: second),
          "tensors \(printable(first.name)) and \(printable(second.name)) are both \(printable(name)) and differ; save the "
            + "one that is meant without the other")
      }
      twice += 1
    }
    if twice > 0 {
      notes.append("\(place): \(grouped(twice)) tensors are stored twice under two names; each is used once")
    }
    // nanoVLM always leaves the embedding's name out.
    if isTied != false || spelling == .nanoVLM, let names = spelling.sharedNames { shareHead(names) }
  }

  /// Of two names of one tensor safetensors keeps the first in the alphabet: the head's, where the embedding serves as head.
  private mutating func shareHead(_ names: (embedding: String, head: String)) {
    guard places[ExactString(names.embedding)] == nil, let head = places.removeValue(forKey: ExactString(names.head))
    else { return }
    tensors[head] = tensors[head].named(names.embedding)
    places[ExactString(names.embedding)] = head
  }

  func tensor(named name: String) -> SourceTensor? { places[ExactString(name)].map { tensors[$0] } }

  func path(of tensor: SourceTensor) -> String { source.path(of: tensor) }

  func readBlocks(
    of tensor: SourceTensor, blocks: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SquintError) { try source.readBlocks(of: tensor, blocks: blocks, into: buffer) }
}

extension NameSpelling {
  /// The tensors that a model may have in common.
  fileprivate var sharedNames: (embedding: String, head: String)? {
    switch self {
    case .model: ("model.embed_tokens.weight", "lm_head.weight")
    case .nanoVLM: ("decoder.token_embedding.weight", "decoder.head.weight")
    case .tower, .molecule: nil
    }
  }
}

extension SourceTensor {
  /// The same tensor under another name.
  func named(_ name: String) -> SourceTensor {
    guard let tensor = SourceTensor(name: name, shape: shape, type: type, part: part, offset: offset) else {
      preconditionFailure("its shape was checked")
    }
    return tensor
  }
}

extension TensorSource {
  /// Whether two tensors have the same numbers, stored in the same way.
  func areEqual(_ a: SourceTensor, _ b: SourceTensor) throws(SquintError) -> Bool {
    guard a.type == b.type, a.shape == b.shape else { return false }
    let blocks = a.byteCount / a.type.bytesPerBlock
    let step = max(1, (1 << 20) / a.type.bytesPerBlock)
    let pieces = (0..<2).map { _ in
      UnsafeMutableRawBufferPointer.allocate(byteCount: min(blocks, step) * a.type.bytesPerBlock, alignment: 16)
    }
    defer { for piece in pieces { piece.deallocate() } }
    for first in stride(from: 0, to: blocks, by: step) {
      let range = first..<min(first + step, blocks)
      let count = range.count * a.type.bytesPerBlock
      for (piece, tensor) in zip(pieces, [a, b]) {
        try readBlocks(of: tensor, blocks: range, into: UnsafeMutableRawBufferPointer(rebasing: piece[..<count]))
      }
      guard memcmp(pieces[0].baseAddress!, pieces[1].baseAddress!, count) == 0 else { return false }
    }
    return true
  }
}
