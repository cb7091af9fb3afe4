/// Refuses what a newer version wrote and this one would silently leave out of what it computes.
extension ModelFile {
  /// Refuses graphs that are not known, tensors that their graphs have no use for, and keys that the file says are needed and
  /// that are not known. Reads no weight.
  ///
  /// - Throws: `badData` naming the first.
  package func refuseUnknown() throws(SquintError) {
    var keys: Set<String> = []
    for module in modules {
      let name = module.name
      let blueprint: any ModuleBlueprint
      if name == "decoder" {
        blueprint = try DecoderGraph(metadata).blueprint.init(metadata)
      } else if name.hasPrefix("encoder.") {
        blueprint = try EncoderGraph(metadata, module: name).blueprint(self, module: name)
      } else if name.hasPrefix("projector.") {
        blueprint = try ProjectorGraph(metadata, module: name).blueprint(self, module: name)
      } else {
        throw SquintError(
          .badData,
          "module \(name) is none of decoder, encoder.NAME, projector.NAME, which are all that this version knows; "
            + "update squint")
      }
      keys.formUnion(blueprint.keys)
      keys.insert("\(name).graph")
      try refuseUnclaimed(module: name, claimed: blueprint.tensors)
    }
    try metadata.refuseUnknownNeeds(known: keys)
  }

  /// Refuses tensors of the module that are none of `claimed`.
  ///
  /// - Throws: `badData` naming the first in the file.
  package func refuseUnclaimed(
    module name: String, claimed: some Sequence<TensorSpecification>
  ) throws(SquintError) {
    guard let index = modules.firstIndex(where: { $0.name == name }) else { return }
    let names = Set(claimed.lazy.map(\.name))
    guard let stranger = tensors.first(where: { $0.module == index && !names.contains($0.name) }) else { return }
    throw SquintError(
      .badData,
      "tensor \(stranger.name) is in module \(name), whose graph this version computes without it; update squint")
  }
}

extension Metadata {
  /// The key that lists keys which a reader must know.
  package static let needsKey = "general.needs"

  /// Refuses keys that the file says are needed and that are none of `known`.
  ///
  /// - Throws: `badData` naming the first.
  package func refuseUnknownNeeds(known: Set<String>) throws(SquintError) {
    let needs: [String]
    switch self[Self.needsKey] {
    case nil: return
    case .strings(let names)?: needs = names
    default: throw SquintError(.badData, "metadata \(Self.needsKey) is no list of texts; convert the model again")
    }
    guard let stranger = needs.first(where: { !known.contains($0) }) else { return }
    throw SquintError(
      .badData, "metadata \(Self.needsKey) names \"\(stranger)\", which this version does not know; update squint")
  }
}
