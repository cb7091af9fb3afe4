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
