import SquintFile

/// Which tensors of which source have a use, or are known to have none.
struct SourceUse {
  private var sources: [(mapped: MappedTensors, claimed: Set<ExactString>)] = []

  mutating func claim(_ names: Set<ExactString>, of mapped: MappedTensors) {
    if let index = sources.firstIndex(where: { $0.mapped.place == mapped.place }) {
      sources[index].claimed.formUnion(names)
    } else {
      sources.append((mapped, names))
    }
  }

  /// Claims all that the maps of a module lead anywhere, which something else replaces.
  mutating func claimAll(of mapped: MappedTensors) {
    let names = mapped.source.tensors.map(\.name).filter { mapped.target(of: $0) != nil }
    claim(Set(names.map(ExactString.init)), of: mapped)
  }

  /// The tensors that no rule maps.
  ///
  /// - Parameters:
  ///   - isAllowed: whether they may be left out.
  ///   - modules: what the output has.
  ///   - unknownClass: what the checkpoint calls itself, where that is not known.
  ///   - decoder: the decoder, where there is one.
  /// - Throws: `SquintError.badData` where they may not, or the model would lose a sense or its head with them.
  func unmapped(
    isAllowed: Bool, modules: [String], unknownClass: String?, decoder: DecoderConfiguration?
  ) throws(SquintError) -> [String] {
    var all: [String] = []
    for (mapped, claimed) in sources {
      let tensors = mapped.source.tensors.filter { !claimed.contains(ExactString($0.name)) }
      let names = tensors.map(\.name)
      guard let first = names.first else { continue }
      let seesNothing = !modules.contains { $0.hasPrefix("encoder.") }
      if seesNothing, let lost = tensors.first(where: { UnmappedName.isOfSense($0.name) || $0.shape.count > 3 })?.name {
        throw .badData(
          mapped.place,
          "tensor \(printable(lost)) belongs to an encoder or a projector that is not supported, without which the model would "
            + "be blind or deaf; known are \(MediaFamily.known)")
      }
      // Where the embedding serves as the head, another head would be lost without a word.
      if let decoder, decoder.isTied,
        let head = tensors.first(where: { $0.shape == [decoder.vocabulary, decoder.width] })
      {
        throw .badData(
          mapped.place,
          "tensor \(printable(head.name)) seems to be the head, under a name that no rule maps; without it the embedding would "
            + "serve as one: call it lm_head.weight, or leave it out of the checkpoint")
      }
      if let part = names.first(where: UnmappedName.isOfHead) {
        throw .badData(
          mapped.place,
          "tensor \(printable(part)) is a part of the head, without which the answers would be wrong; no rule maps it")
      }
      if !isAllowed {
        // Inside a layer it takes part in what the model computes.
        let inside = names.first(where: UnmappedName.isInside)
        let name = printable(inside ?? first)
        let others = names.count > 1 ? " (and \(names.count - 1) more)" : ""
        throw .badData(
          mapped.place,
          "no rule maps tensor \(name)\(others); "
            + (inside == nil
              ? "--dry-run --allow-unmapped lists them, --allow-unmapped leaves them out"
              : "\(unknownClass.map(printable) ?? "what the model computes with it") is not supported"))
      }
      all += names
    }
    return all
  }
}

/// What the name of a tensor that no rule maps tells.
enum UnmappedName {
  /// Components with which programs name encoders, projectors and what belongs to them.
  private static let senses: Set<Substring> = [
    "vpm", "resampler", "multi_modal_projector", "mm_projector", "connector", "perceiver", "perceiver_resampler",
    "qformer",
    "query_tokens", "aligner", "embed_audio", "encoder_projector", "graph_tower", "ts_encoder", "mlp1",
  ]
  /// GGUF's, which begin a name.
  private static let ggufSenses: Set<Substring> = ["v", "mm", "a"]

  /// What names of such components begin with, or have in them.
  private static let beginnings = ["vit", "clip", "siglip", "dino", "img_", "image", "audio", "speech", "whisper"]
  private static let parts = ["vision", "visual", "patch_emb", "_clip", "_vit"]

  static func isOfSense(_ name: String) -> Bool {
    let components = name.lowercased().split(separator: ".")
    return components.contains { component in
      senses.contains(component) || beginnings.contains { component.hasPrefix($0) }
        || parts.contains { component.contains($0) }
    } || components.first.map(ggufSenses.contains) == true
  }

  /// Whether the tensor is called as heads are.
  static func isOfHead(_ name: String) -> Bool {
    name.split(separator: ".").contains { ["lm_head", "embed_out", "output_projection"].contains($0) }
  }

  /// Whether the tensor is inside a layer, an encoder or a projector.
  static func isInside(_ name: String) -> Bool {
    isOfSense(name) || name.split(separator: ".").contains { $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }
  }
}
