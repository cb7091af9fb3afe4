import SquintFile

// MoleculeSTM's graph network for molecules (arXiv 2212.10789; the reference is InstructMol's moleculeSTM_gnn_model.py).

extension OtherEncoderFamily {
  static let moleculeSTM = OtherEncoderFamily(
    modelTypes: [InstructMol.modelType],
    open: { (folder, config) throws(SquintError) in
      var notes: [String] = []
      let source = try folder.tensors(config: config, spelling: .model, notes: &notes)
      var encoder = try OtherEncoder(
        moleculeSTM: source, sizes: MoleculeSTMSizes(config, place: folder.file("config.json")), place: folder.path,
        beside: NameMap(module: "", stems: [], ignoredPrefixes: [""]))
      encoder.notes = notes
      return encoder
    },
    openFile: { (path) throws(SquintError) in
      var notes: [String] = []
      let source = try SpelledTensors(
        SafetensorsSource(path: path), spelling: .molecule, place: path, notes: &notes)
      var encoder = try OtherEncoder(
        moleculeSTM: source, sizes: MoleculeSTMSizes(), place: path, beside: .moleculeHeads)
      encoder.notes = notes
      return encoder
    })
}

/// What a configuration says of the graph network; the tensors say the rest.
struct MoleculeSTMSizes {
  var layers: Int?
  var width: Int?
  /// The configuration's file, for messages.
  var place = ""

  init() {}

  /// - Throws: `SquintError.badData` where the network is another.
  init(_ config: JSONValue, place: String) throws(SquintError) {
    let reader = ConfigurationReader(json: config, place: place)
    if let tower = either(try reader.text("mm_graph_tower"), try reader.text("graph_tower")) {
      guard tower.hasPrefix("moleculestm") else {
        throw .badData(
          place, "mm_graph_tower \"\(printable(tower))\" is not supported; the graph network of moleculestm is")
      }
    }
    layers = try reader.size("gin_num_layers", atMost: DecoderConfiguration.mostLayers)
    width = try reader.size("gin_hidden_dim")
    self.place = place
  }
}

extension OtherEncoder {
  /// PyTorch's default for BatchNorm1d.
  private static let batchNormEpsilon = 1e-5

  /// OGB has nine tables for atoms and three for bonds; the others have no numbers in what InstructMol feeds.
  private static let mostTables = 16

  /// - Parameters:
  ///   - source: the names as `NameSpelling.molecule` has them, or with `graph_tower.` in front.
  ///   - place: how messages call the source.
  ///   - beside: what is known of tensors that are not the network's.
  /// - Throws: `SquintError.badData` where the tensors are none of such a network.
  init(
    moleculeSTM source: any TensorSource, sizes: MoleculeSTMSizes, place: String, beside: NameMap? = nil
  ) throws(SquintError) {
    let module = "encoder.molecule"
    let root = "molecule_node_model."
    let (atoms, bonds) = (root + "atom_encoder.atom_embedding_list.", "bond_encoder.bond_embedding_list.")
    let (gnns, norms) = (root + "gnns.", root + "batch_norms.")
    func names(ignoring prefixes: [String]) -> NameMap {
      let unused = 2..<Self.mostTables
      return NameMap(
        module: module,
        stems: [
          (atoms + "0", "element"), (atoms + "1", "chirality"), (gnns + "*." + bonds + "0", "*.bond_type"),
          (gnns + "*." + bonds + "1", "*.bond_direction"), (gnns + "*.mlp.0", "*.ffn.up"),
          (gnns + "*.mlp.1", "*.ffn.norm"), (gnns + "*.mlp.3", "*.ffn.down"), (norms + "*", "*.norm"),
        ],
        names: [
          (gnns + "*.eps", "*.epsilon"),
          (gnns + "*.mlp.1.running_mean", "*.ffn.norm.mean"), (gnns + "*.mlp.1.running_var", "*.ffn.norm.variance"),
          (norms + "*.running_mean", "*.norm.mean"), (norms + "*.running_var", "*.norm.variance"),
        ],
        ignored: unused.map { atoms + "\($0).weight" } + unused.map { gnns + "*." + bonds + "\($0).weight" }
          + [gnns + "*.mlp.1.num_batches_tracked", norms + "*.num_batches_tracked"],
        ignoredPrefixes: prefixes, prefixes: ["graph_tower."])
    }
    let stored = StoredTensors(
      MappedTensors(source: source, maps: [names(ignoring: [])], place: place), module: module)
    guard let elements = stored.matrix("element"), let chiralities = stored.matrix("chirality"),
      let types = stored.matrix("0.bond_type"), let directions = stored.matrix("0.bond_direction"),
      let up = stored.matrix("0.ffn.up")
    else {
      throw .badData(
        place,
        "there is no graph network of MoleculeSTM in it: it has \(atoms)0.weight and 1.weight, \(gnns)0.\(bonds)0.weight and "
          + "1.weight, \(gnns)0.mlp.0.weight")
    }
    guard stored.layers <= DecoderConfiguration.mostLayers else {
      throw .badData(place, "\(grouped(stored.layers)) layers are more than a graph network may have")
    }
    var settlement = Settlement(place: sizes.place)
    let layers = sizes.layers ?? stored.layers
    guard layers <= stored.layers else {
      throw .badData(
        sizes.place,
        "gin_num_layers is \(grouped(layers)), but \(grouped(stored.layers)) are in \(place); the checkpoint is incomplete"
      )
    }
    if layers < stored.layers {
      settlement.notes.append(
        "\(sizes.place): gin_num_layers is \(grouped(layers)); those that are stored beyond are left out")
    }
    var blueprint = GINBlueprint(module: module)
    blueprint.architecture = "moleculestm"
    blueprint.layers = layers
    blueprint.width = settlement.settle(
      "gin_hidden_dim", said: sizes.width ?? elements.columns, stored: elements.columns)
    blueprint.ffnWidth = up.rows
    blueprint.elements = elements.rows
    blueprint.chiralities = chiralities.rows
    blueprint.bondTypes = types.rows
    blueprint.bondDirections = directions.rows
    // As it will be read.
    var metadata = Metadata()
    blueprint.write(to: &metadata)
    var reader = KeyReader(metadata)
    var copy = blueprint
    do throws(SquintError) {
      try copy.code(&reader)
    } catch {
      throw .badData(place, error.message)
    }

    let beyond = (layers..<max(stored.layers, layers)).flatMap { [gnns + "\($0).", norms + "\($0)."] }
    var expected: [ExpectedTensor] = []
    for tensor in blueprint.tensors {
      var wanted = ExpectedTensor(tensor, .required)
      // PyTorch saves a single number with or without an axis.
      if tensor.name.hasSuffix(".epsilon") { wanted.otherShapes = [[]] }
      let stem = tensor.name.hasSuffix(".bias") ? String(tensor.name.dropLast(".bias".count)) : tensor.name
      for (matrix, norm) in [(".ffn.up", ".ffn.norm"), (".ffn.down", ".norm")] where stem.hasSuffix(matrix) {
        wanted.batchNorm = ExpectedTensor.BatchNorm(
          stem.dropLast(matrix.count) + norm, epsilon: Self.batchNormEpsilon)
      }
      expected.append(wanted)
    }
    self.init(
      blueprint: blueprint, featureWidth: blueprint.width, expected: expected,
      tensors: MappedTensors(
        source: source,
        maps: [names(ignoring: beyond + beyond.map { "graph_tower." + $0 })] + [beside].compactMap { $0 },
        place: place),
      processor: MoleculeSettings())
    notes = settlement.notes
  }
}

extension NameMap {
  /// MoleculeSTM's heads beside its graph network, which are for its own training.
  static let moleculeHeads = NameMap(module: "", stems: [], ignoredPrefixes: ["graph_pred_linear.", "projector."])
}

/// What is done to molecules before the graph network: InstructMol's numbers, element and chirality, type and direction.
struct MoleculeSettings: ProcessorSettings {
  func write(to metadata: inout Metadata) { metadata["molecule.features"] = .string("chirality") }
}
