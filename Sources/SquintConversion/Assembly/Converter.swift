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
      try parts.base?.text(usual: parts.others.lazy.compactMap(\.template).first, notes: &notes)
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

    var others: [OtherModality] = []
    for modality in parts.others {
      others.append(
        try OtherModality(modality, decoder: decoder, tokens: { tokenizer?.addedToken($0) }, notes: &notes))
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
          "projector.\(name)", projector.configuration.tensors(name: name),
          projector.tensors(scaledBy: decoder?.inputScale ?? 1, name: name), projectorTypes)
      }
    }
    for modality in others {
      try add("encoder.\(modality.name)", modality.encoder.expected, modality.encoder.tensors, encoderTypes)
      if let projector = modality.projector {
        try add(
          "projector.\(modality.name)", projector.configuration.tensors(name: modality.name),
          projector.tensors(scaledBy: decoder?.inputScale ?? 1, name: modality.name), projectorTypes)
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
    if !modalities.isEmpty || !others.isEmpty { settings.append("encoder \(encoderTypes.matrices.name)") }
    if modalities.contains(where: { $0.projector != nil }) || others.contains(where: { $0.projector != nil }) {
      settings.append("projector \(projectorTypes.matrices.name)")
    }
    plan.metadata["general.settings"] = .string(settings.joined(separator: ", "))
    if let decoder {
      decoder.write(to: &plan.metadata)
      // As it will be read: what a file cannot hold is said before a weight is converted.
      _ = try type(of: decoder.blueprint).init(plan.metadata)
    }
    for modality in modalities { modality.write(to: &plan.metadata) }
    for modality in others { modality.write(to: &plan.metadata) }
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
