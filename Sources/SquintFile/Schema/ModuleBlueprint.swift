/// The sizes and settings of a module: its keys, and the tensors that follow from them. Each key and each shape is declared here,
/// once; the converter writes them, the runtime reads them.
package protocol ModuleBlueprint: Equatable, Sendable {
  /// Goes through the keys in the order in which they are written.
  mutating func code(_ coder: inout some KeyCoder) throws(SquintError)

  /// Checks what no key tells alone.
  ///
  /// - Throws: `badData` naming the key.
  func check() throws(SquintError)

  /// All tensors that the module has or may have, in the order in which they are written.
  var tensors: [TensorSpecification] { get }
}

/// The names of graphs that compute one kind of module: what the key `MODULE.graph` may say.
package protocol GraphName: RawRepresentable<String>, CaseIterable, Sendable {
  /// The graph of files without the key, which are from before there was another.
  static var usual: Self { get }
}

extension GraphName {
  /// The graph that a file names for `module`.
  ///
  /// - Throws: `badData` naming a graph that is not known.
  package init(_ metadata: Metadata, module: String) throws(SquintError) {
    let name = try metadata.string("\(module).graph", default: Self.usual.rawValue)
    guard let graph = Self(rawValue: name) else {
      let known = Self.allCases.map(\.rawValue).joined(separator: ", ")
      throw SquintError(
        .badData,
        "metadata \(module).graph is \"\(name)\", which this version cannot compute (it knows \(known)); update squint")
    }
    self = graph
  }
}

extension ModuleBlueprint {
  /// The names of the keys that this module has or may have, but for its graph.
  package var keys: Set<String> {
    var lister = KeyLister()
    var copy = self
    try? copy.code(&lister)
    return lister.keys
  }
}

/// The blueprint of an encoder or a projector, of which a file may have several.
package protocol NamedBlueprint: ModuleBlueprint {
  associatedtype Graph: GraphName
  static var graph: Graph { get }
  /// What its keys and tensors begin with: `encoder.image`.
  var module: String { get }

  /// All sizes are zero.
  init(module: String)

  /// Notes what only the tensors of `file` say.
  mutating func note(_ file: ModelFile)
}

extension NamedBlueprint {
  package mutating func note(_ file: ModelFile) {}

  /// Reads the keys of `module`.
  ///
  /// - Throws: `badData` where one is missing or impossible.
  package init(_ file: ModelFile, module: String) throws(SquintError) {
    self.init(module: module)
    note(file)
    var reader = KeyReader(file.metadata)
    try code(&reader)
    try check()
  }

  /// Writes the keys of the module.
  package func write(to metadata: inout Metadata) {
    metadata["\(module).graph"] = .string(Self.graph.rawValue)
    var writer = KeyWriter(metadata)
    var copy = self
    // Writing throws nothing.
    try? copy.code(&writer)
    metadata = writer.metadata
  }
}
