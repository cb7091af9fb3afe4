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
  /// Threads, at most as many as there are processors; nil: as many.
  public var jobs: Int?
  /// Leaves out tensors that no rule maps instead of refusing them.
  public var allowsUnmapped = false
  /// Asked between pieces of work; the conversion ends with an error when it is true.
  public var isCancelled: @Sendable () -> Bool = { false }

  public init() {}
}

/// How far a conversion is.
public struct ConversionProgress: Sendable {
  public let writtenBytes: Int
  public let totalBytes: Int
}

/// Converts the checkpoint at `source` into a model file at `path`.
///
/// Memory stays bounded whatever the model's size: tensors are read, quantized and written in pieces of a few megabytes.
/// The file appears under its name only when it is complete and synced.
///
/// - Parameters:
///   - source: a Hugging Face checkpoint folder or a GGUF file.
///   - path: the output; a file that is there is replaced.
///   - progress: called after each piece, from one thread at a time.
/// - Returns: what was converted, into what, and how well.
/// - Throws: `badData` which names what is wrong in the source, `noInput` where it cannot be read, `cannotCreate` and
///   `inputOutput` for the output.
@discardableResult
public func convert(
  source: String, to path: String, options: ConversionOptions = ConversionOptions(),
  progress: @escaping @Sendable (ConversionProgress) -> Void = { _ in }
) throws(SquintError) -> ConversionReport {
  try checkOutput(path, source: source)
  let conversion = try Conversion(source: source, options: options)
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

/// What `convert` would do, without reading a weight or writing anything.
public func planConversion(
  source: String, options: ConversionOptions = ConversionOptions()
) throws(SquintError) -> ConversionReport {
  try Conversion(source: source, options: options).report()
}

/// A checkpoint whose every tensor has its place in the output.
private struct Conversion {
  let checkpoint: any Checkpoint
  let modules: [PlannedModule]
  let unmapped: [String]
  let filePlan: ModelFilePlan
  let notes: [String]

  var tensors: [PlannedTensor] { modules.flatMap(\.tensors) }

  init(source: String, options: ConversionOptions) throws(SquintError) {
    let checkpoint = try openCheckpoint(source)
    let types = TypeChoice(decoder: options)
    let decoder = try PlannedModule(
      name: "decoder", expected: checkpoint.decoder.tensors, mapped: checkpoint.decoderTensors, types: types)
    modules = [decoder]

    let claimed = decoder.claimed
    unmapped = checkpoint.decoderTensors.source.tensors.map(\.name).filter { !claimed.contains(ExactString($0)) }
    if let first = unmapped.first, !options.allowsUnmapped {
      let others = unmapped.count > 1 ? " (and \(unmapped.count - 1) more)" : ""
      throw .badData(
        checkpoint.place,
        "no rule maps tensor \(printable(first))\(others); --dry-run --allow-unmapped lists them, --allow-unmapped leaves them out"
      )
    }

    var plan = ModelFilePlan()
    var notes: [String] = []
    try checkpoint.write(to: &plan, notes: &notes)
    plan.metadata["general.settings"] = .string(types.description)
    checkpoint.decoder.write(to: &plan.metadata)
    plan.modules = modules.map { module in
      ModelFilePlan.Module(
        name: module.name,
        tensors: module.tensors.map { ModelFilePlan.Tensor(name: $0.name, type: $0.type, shape: $0.shape) })
    }
    self.checkpoint = checkpoint
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
          sourceName: tensor.origin.tensor.name, sourceType: tensor.origin.tensor.type.name, isKept: tensor.isKept)
      },
      unmapped: unmapped, notes: notes, fileBytes: fileBytes, timings: timings)
  }
}

/// Opens the checkpoint at `path`, of whatever kind it is.
private func openCheckpoint(_ path: String) throws(SquintError) -> any Checkpoint {
  var status = stat()
  guard stat(path, &status) == 0 else { throw SquintError(.noInput, "\(path): \(systemMessage(errno))") }
  if status.st_mode & S_IFMT == S_IFDIR { return try HuggingFaceCheckpoint(folder: path) }
  let file = try SourceFile(path: path)
  var magic: [UInt8] = [0, 0, 0, 0]
  if file.byteCount >= magic.count {
    let result = magic.withUnsafeMutableBytes { bytes in
      Result { () throws(SquintError) in try file.read(at: 0, into: bytes) }
    }
    try result.get()
  }
  if magic == Array("GGUF".utf8) { return try GGUFCheckpoint(path: path) }
  if path.hasSuffix(".safetensors") || path.hasSuffix(".json") {
    throw .badData(path, "this is one file of a checkpoint; give the folder that it is in")
  }
  throw .badData(path, "this is neither a checkpoint folder nor a GGUF file")
}

/// Refuses an output that cannot be, before any work.
private func checkOutput(_ path: String, source: String) throws(SquintError) {
  var output = stat()
  guard stat(path, &output) == 0 else { return }
  guard output.st_mode & S_IFMT != S_IFDIR else {
    throw SquintError(.cannotCreate, "\(path): this is a folder; name a file in it")
  }
  guard output.st_mode & S_IFMT == S_IFREG else {
    throw SquintError(.cannotCreate, "\(path): this is not a regular file")
  }
  var inputs = [source]
  if let names = try? fileNames(inFolder: source) {
    inputs += names.filter { !$0.hasSuffix(".squint") }.map { "\(source)/\($0)" }
  }
  for input in inputs {
    var status = stat()
    if stat(input, &status) == 0, status.st_dev == output.st_dev, status.st_ino == output.st_ino {
      throw SquintError(.usage, "\(path): this is the source; write the model to another file")
    }
  }
}
