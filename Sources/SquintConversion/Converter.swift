import SquintFile

/// How a model is converted.
public struct ConversionOptions: Sendable {
  /// One type for all parts whose own is nil.
  public var type: ElementType?
  /// The matrices of the decoder's layers; nil: `type`, or int4.
  public var decoderType: ElementType?
  /// The matrices of encoders; nil: `type`, or int8.
  public var encoderType: ElementType?
  /// The matrices of projectors; nil: `type`, or int8.
  public var projectorType: ElementType?
  /// The table of token embeddings and, where it is a matrix of its own, the head; nil: `type`, or int8.
  public var embeddingType: ElementType?
  /// Whether quantized blocks that a type of ours holds exactly are taken over bit for bit; nil: in the parts for which no
  /// type is asked.
  public var keep: Bool?
  /// The side in pixels that images are resized and cut to; nil: as the checkpoint says.
  public var imageSize: Int?
  /// How images that are no squares become some; nil: as the checkpoint says.
  public var imageFit: ImageFit?
  /// Threads, at most as many as there are processors; nil: as many.
  public var jobs: Int?
  /// Leaves out tensors that no rule maps instead of refusing them.
  public var allowsUnmapped = false
  /// Asked between pieces of work; the conversion ends with an error when it is true.
  public var isCancelled: @Sendable () -> Bool = { false }

  public init() {}

  /// How an image becomes a square.
  public enum ImageFit: String, CaseIterable, Sendable {
    /// The sides of the longer edge are cut off, as transformers' CLIP and LLaVA do it.
    case crop
    /// The shorter edge is padded with the mean colour, as LLaVA 1.5 was trained and llama.cpp does it.
    case pad
    /// The image is resized to the square whatever its proportions, as SigLIP does it.
    case stretch
  }
}

/// How far a conversion is.
public struct ConversionProgress: Sendable {
  public let writtenBytes: Int
  public let totalBytes: Int
}

/// Converts a model into one file at `path`.
///
/// Memory stays bounded whatever the model's size: tensors are read, quantized and written in pieces of a few megabytes.
/// The file appears under its name only when it is complete and synced.
///
/// - Parameters:
///   - sources: what it is made of.
///   - path: the output; a file that is there is replaced.
///   - progress: called after each piece, from one thread at a time.
/// - Returns: what was converted, into what, and how well.
/// - Throws: `badData` which names what is wrong in the source, `noInput` where it cannot be read, `cannotCreate` and
///   `inputOutput` for the output.
@discardableResult
public func convert(
  _ sources: ConversionSources, to path: String, options: ConversionOptions = ConversionOptions(),
  progress: @escaping @Sendable (ConversionProgress) -> Void = { _ in }
) throws(SquintError) -> ConversionReport {
  let sources = try sources.withPartsOfFolder()
  try checkOutput(path, sources: sources.paths)
  let conversion = try Conversion(sources, options: options)
  let writer = try ModelFileWriter(path: path, plan: conversion.filePlan)
  let assembly = Assembly(
    tensors: conversion.tensors, writer: writer, options: options, progress: progress)
  try assembly.run()
  let start = nanoseconds()
  try writer.finish()
  var timings = assembly.timings
  let finishing = Double(nanoseconds() - start) / 1e9
  timings.writing += finishing
  timings.seconds += finishing
  return conversion.report(errors: assembly.errors, timings: timings, fileBytes: writer.byteCount)
}

/// Converts the checkpoint at `source`, a Hugging Face folder or a GGUF file.
@discardableResult
public func convert(
  source: String, to path: String, options: ConversionOptions = ConversionOptions(),
  progress: @escaping @Sendable (ConversionProgress) -> Void = { _ in }
) throws(SquintError) -> ConversionReport {
  try convert(ConversionSources(source), to: path, options: options, progress: progress)
}

/// What `convert` would do, without reading a weight or writing anything.
public func planConversion(
  _ sources: ConversionSources, options: ConversionOptions = ConversionOptions()
) throws(SquintError) -> ConversionReport {
  try Conversion(sources.withPartsOfFolder(), options: options).report()
}

/// What `convert` would do with the checkpoint at `source`.
public func planConversion(
  source: String, options: ConversionOptions = ConversionOptions()
) throws(SquintError) -> ConversionReport {
  try planConversion(ConversionSources(source), options: options)
}

/// A model whose every tensor has its place in the output.
private struct Conversion {
  let modules: [PlannedModule]
  let unmapped: [String]
  let filePlan: ModelFilePlan
  let notes: [String]

  var tensors: [PlannedTensor] { modules.flatMap(\.tensors) }

  init(_ sources: ConversionSources, options: ConversionOptions) throws(SquintError) {
    let parts = try ModelParts(sources)
    let decoder = parts.base?.decoder
    var notes: [String] = []
    var text =
      try parts.base?.text(notes: &notes)
      ?? CheckpointText(
        name: sources.encoders.values.sorted().map(lastComponent).joined(separator: ", "), source: "no decoder",
        defaultsPlace: "")
    if !parts.replacements.isEmpty { text.source += "; " + parts.replacements.joined(separator: ", ") }
    if let name = sources.name { text.name = name }
    notes += parts.adapter?.notes ?? []
    let tokenizer = text.tokenizer
    var modalities: [Modality] = []
    for modality in parts.modalities {
      modalities.append(
        try Modality(
          modality, decoder: decoder, side: options.imageSize, fit: options.imageFit,
          tokens: { tokenizer?.addedToken($0) }, notes: &notes))
    }

    let encoderTypes = TypeChoice(matrices: options.encoderType ?? options.type, keep: options.keep)
    let projectorTypes = TypeChoice(matrices: options.projectorType ?? options.type, keep: options.keep)
    let decoderTypes = TypeChoice(decoder: options)
    var modules: [PlannedModule] = []
    var use = SourceUse()
    func add(
      _ name: String, _ expected: [ExpectedTensor], _ mapped: MappedTensors, _ types: TypeChoice,
      updates: [String: LowRankUpdate] = [:]
    ) throws(SquintError) {
      let module = try PlannedModule(name: name, expected: expected, mapped: mapped, types: types, updates: updates)
      use.claim(module.claimed, of: mapped)
      modules.append(module)
    }
    // In the order in which an image runs through them.
    for modality in modalities {
      let name = modality.name
      try add(
        "encoder.\(name)", modality.encoder.configuration.tensors(name: name), modality.encoder.tensors, encoderTypes)
      if let projector = modality.projector {
        try add(
          "projector.\(name)", projector.configuration.tensors(name: name), projector.tensors, projectorTypes)
      }
    }
    if let base = parts.base {
      try add(
        "decoder", base.decoder.tensors, base.decoderTensors, decoderTypes, updates: parts.adapter?.updates ?? [:])
    }
    for mapped in parts.leftOut { use.claimAll(of: mapped) }
    unmapped = try use.unmapped(
      isAllowed: options.allowsUnmapped, modules: modules.map(\.name), unknownClass: parts.base?.unknownClass,
      decoder: parts.base?.decoder)

    var plan = ModelFilePlan()
    try text.write(to: &plan, for: decoder, notes: &notes)
    var settings = decoder == nil ? [] : [decoderTypes.description]
    if !modalities.isEmpty { settings.append("encoder \(encoderTypes.matrices.name)") }
    if modalities.contains(where: { $0.projector != nil }) {
      settings.append("projector \(projectorTypes.matrices.name)")
    }
    plan.metadata["general.settings"] = .string(settings.joined(separator: ", "))
    decoder?.write(to: &plan.metadata)
    for modality in modalities { modality.write(to: &plan.metadata) }
    plan.modules = modules.map { module in
      ModelFilePlan.Module(
        name: module.name,
        tensors: module.tensors.map { ModelFilePlan.Tensor(name: $0.name, type: $0.type, shape: $0.shape) })
    }
    self.modules = modules
    filePlan = plan
    self.notes = notes
  }

  /// - Parameter errors: as measured, or none before the conversion.
  func report(
    errors: [ElementType: ErrorSums] = [:], timings: ConversionReport.Timings = .init(), fileBytes: Int? = nil
  ) -> ConversionReport {
    var types: [ElementType: ConversionReport.TypeShare] = [:]
    var moduleShares: [ConversionReport.Module] = []
    for module in modules {
      var share = ConversionReport.Module(name: module.name)
      for tensor in module.tensors {
        share.parameters += tensor.elementCount
        share.bytes += tensor.byteCount
        var type = types[tensor.type] ?? ConversionReport.TypeShare(type: tensor.type)
        type.parameters += tensor.elementCount
        type.bytes += tensor.byteCount
        if tensor.isKept { type.keptParameters += tensor.elementCount }
        types[tensor.type] = type
      }
      moduleShares.append(share)
    }
    for (type, sums) in errors { types[type]?.relativeRMSE = sums.relativeRMSE }
    return ConversionReport(
      modules: moduleShares, types: types.values.sorted { $0.type.rawValue < $1.type.rawValue },
      tensors: tensors.map { tensor in
        ConversionReport.Tensor(
          name: tensor.name, type: tensor.type, shape: tensor.shape, bytes: tensor.byteCount,
          sourceName: tensor.origin.tensor.name, sourceType: tensor.origin.source.typeName(of: tensor.origin.tensor),
          isKept: tensor.isKept,
          adapterRank: tensor.origin.update?.rank)
      },
      unmapped: unmapped, notes: notes, fileBytes: fileBytes, timings: timings)
  }
}

/// Which tensors of which source have a use, or are known to have none.
private struct SourceUse {
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
            + "be blind or deaf; known are llava (transformers' and the original), idefics3, smolvlm, nanoVLM")
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
private enum UnmappedName {
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

/// Refuses an output that cannot be, before any work.
private func checkOutput(_ path: String, sources: [String]) throws(SquintError) {
  var output = stat()
  guard stat(path, &output) == 0 else { return }
  guard output.st_mode & S_IFMT != S_IFDIR else {
    throw SquintError(.cannotCreate, "\(path): this is a folder; name a file in it")
  }
  guard output.st_mode & S_IFMT == S_IFREG else {
    throw SquintError(.cannotCreate, "\(path): this is not a regular file")
  }
  var inputs = sources
  for source in sources {
    guard let names = try? fileNames(inFolder: source) else { continue }
    inputs += names.filter { !$0.hasSuffix(".squint") }.map { "\(source)/\($0)" }
  }
  for input in inputs {
    var status = stat()
    if stat(input, &status) == 0, status.st_dev == output.st_dev, status.st_ino == output.st_ino {
      throw SquintError(.usage, "\(path): this is the source; write the model to another file")
    }
  }
}
