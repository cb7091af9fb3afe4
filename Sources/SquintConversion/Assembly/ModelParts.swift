import SquintFile

/// The parts of a model, from wherever they are.
struct ModelParts {
  /// What gives the decoder and the text; nil for encoders alone.
  let base: (any Checkpoint)?
  let modalities: [ModalityParts]
  /// The same for media that are not images.
  let others: [OtherParts]
  /// What the sources hold that something else replaces.
  let leftOut: [MappedTensors]
  /// What is not from the base, for people.
  let replacements: [String]
  /// What is merged into the decoder.
  let adapter: LoRAAdapter?

  /// - Throws: `SquintError.usage` where nothing gives a decoder or an encoder, and what opening the sources throws.
  init(_ sources: ConversionSources) throws(SquintError) {
    let basePath = either(sources.decoder, sources.source)
    guard basePath != nil || !sources.encoders.isEmpty else {
      throw SquintError(.usage, "there is no decoder; give a source or --decoder")
    }
    // The file belongs to the checkpoint that is more than a decoder, where there are two.
    let isBase = sources.decoder == nil || sources.source == nil
    let base = try basePath.map { (path) throws(SquintError) in
      try openCheckpoint(path, mmproj: isBase ? sources.mmproj : nil)
    }
    adapter = try sources.adapter.map { (path) throws(SquintError) in
      guard let base else {
        throw SquintError(.usage, "\(path): an adapter is merged into a decoder, and there is none; give --decoder")
      }
      return try LoRAAdapter(
        folder: path, maps: base.decoderTensors.maps, readsTrainables: sources.instructMol != nil)
    }
    var leftOut: [MappedTensors] = []
    var modalities = base?.modalities ?? []
    var others = base?.others ?? []
    var replacements: [String] = []
    if let folder = sources.instructMol {
      others.append(try folder.parts(decoder: base?.place ?? ""))
      replacements.append("molecules from \(lastComponent(folder.path))")
    }
    if sources.decoder != nil {
      // Of the checkpoint that gives the decoder only that is wanted where there is another.
      if let path = sources.source {
        leftOut += modalities.flatMap(\.tensors) + others.flatMap(\.tensors)
        let whole = try openCheckpoint(path, mmproj: sources.mmproj)
        modalities = whole.modalities
        others = whole.others
        leftOut.append(whole.decoderTensors)
        guard !modalities.isEmpty || !others.isEmpty || !sources.encoders.isEmpty else {
          throw SquintError(
            .usage, "\(path): a text model's decoder is replaced by --decoder, and nothing else is in it")
        }
        replacements.append("the rest from \(lastComponent(path))")
      }
    }
    for name in Set(sources.encoders.keys).union(sources.projectors.keys).sorted() {
      if let families = Families.otherEncoders[name] {
        let index = others.firstIndex { $0.name == name }
        var parts =
          index.map { others[$0] }
          ?? OtherParts(
            name: name, place: base?.place ?? sources.encoders[name] ?? sources.projectors[name] ?? "")
        if let path = sources.encoders[name] {
          leftOut += [parts.encoder?.tensors].compactMap { $0 }
          parts.encoder = try openOtherEncoder(path, name: name, families)
          parts.processor = nil
          replacements.append("encoder \(name) from \(lastComponent(path))")
        }
        if let path = sources.projectors[name] {
          leftOut += [parts.projector?.tensors].compactMap { $0 }
          parts.projector = try openProjector(path, name: name)
          replacements.append("projector \(name) from \(lastComponent(path))")
        }
        if let index { others[index] = parts } else { others.append(parts) }
        continue
      }
      let index = modalities.firstIndex { $0.name == name }
      var parts =
        index.map { modalities[$0] }
        ?? ModalityParts(
          name: name, place: base?.place ?? sources.encoders[name] ?? sources.projectors[name] ?? "")
      if let path = sources.encoders[name] {
        leftOut += [parts.encoder?.tensors].compactMap { $0 }
        var encoder = try openEncoder(path, name: name)
        if let path = sources.images[name] { try encoder.readImages(path) }
        if let own = encoder.images {
          // The model's own image settings are for the encoder that it had.
          parts.images = own
        } else {
          encoder.images = parts.encoder?.images
        }
        parts.encoder = encoder
        replacements.append("encoder \(name) from \(lastComponent(path))")
      }
      if let path = sources.projectors[name] {
        leftOut += [parts.projector?.tensors].compactMap { $0 }
        parts.projector = try openProjector(path, name: name)
        replacements.append("projector \(name) from \(lastComponent(path))")
      }
      if let index { modalities[index] = parts } else { modalities.append(parts) }
    }
    if let adapter { replacements.append(adapter.description) }
    self.base = base
    self.leftOut = leftOut + modalities.compactMap(\.ignored)
    self.modalities = modalities
    self.others = others
    self.replacements = replacements
  }
}

/// Opens the checkpoint at `path`, of whatever kind it is.
///
/// - Parameter mmproj: the GGUF file with the rest of a GGUF text model.
private func openCheckpoint(_ path: String, mmproj: String?) throws(SquintError) -> any Checkpoint {
  if try isFolder(path) {
    guard let mmproj else { return try HuggingFaceCheckpoint(folder: path) }
    throw SquintError(
      .usage,
      "\(path): --mmproj goes with a GGUF text model; for a folder give --encoder image=\(mmproj) and --projector "
        + "image=\(mmproj)")
  }
  if try isGGUF(path) { return try GGUFCheckpoint(path: path, mmproj: mmproj) }
  if path.hasSuffix(".safetensors") || path.hasSuffix(".json") {
    try SourceFile(path: path).refuseForeign()
    throw .badData(path, "this is one file of a checkpoint; give the folder that it is in")
  }
  try SourceFile(path: path).refuseForeign()
  throw .badData(path, "this is neither a checkpoint folder nor a GGUF file")
}

/// Opens the encoder at `path`, of whatever kind it is.
private func openEncoder(_ path: String, name: String) throws(SquintError) -> EncoderPart {
  if try isFolder(path) { return try EncoderPart(folder: path, name: name) }
  if try isGGUF(path) { return try GGUFVision(path: path).encoder(name: name) }
  // ONNX files have no mark that tells them from others.
  if path.hasSuffix(".onnx") { return try EncoderPart(onnx: path, name: name) }
  try SourceFile(path: path).refuseForeign()
  throw .badData(
    path,
    "this is no encoder; give the folder with its config.json and *.safetensors, an ONNX file (NAME.onnx) or a GGUF file (mmproj)"
  )
}

/// Opens the encoder at `path` of media that are not images.
private func openOtherEncoder(
  _ path: String, name: String, _ families: [OtherEncoderFamily]
) throws(SquintError) -> OtherEncoder {
  guard try isFolder(path) else {
    let openFile = families.lazy.compactMap(\.openFile).first
    if path.hasSuffix(".safetensors"), let openFile { return try openFile(path) }
    try SourceFile(path: path).refuseForeign()
    throw .badData(
      path,
      "this is no encoder for \(name); give the folder with its config.json and *.safetensors"
        + (openFile == nil ? "" : ", or its NAME.safetensors"))
  }
  let folder = CheckpointFolder(path: path)
  let config = try folder.configuration()
  let modelType = config["model_type"]?.string ?? ""
  guard let family = families.first(where: { $0.modelTypes.contains(modelType) }) else {
    let known = families.map(\.modelTypes[0]).joined(separator: ", ")
    throw .badData(
      folder.file("config.json"),
      "the model_type \"\(printable(modelType))\" is not supported as an encoder for \(name); known are \(known)")
  }
  return try family.open(folder, config)
}

/// Opens the projector at `path`, of whatever kind it is.
private func openProjector(_ path: String, name: String) throws(SquintError) -> ProjectorPart {
  guard try !isFolder(path), try isGGUF(path) else { return try ProjectorPart(path: path, name: name) }
  return try GGUFVision(path: path).projector(name: name)
}

private func isGGUF(_ path: String) throws(SquintError) -> Bool { try magic(of: path) == Array("GGUF".utf8) }

private func isFolder(_ path: String) throws(SquintError) -> Bool {
  var status = stat()
  guard stat(path, &status) == 0 else { throw .cannotOpen(path, errno) }
  return status.st_mode & S_IFMT == S_IFDIR
}

/// The first four bytes of a file, fewer where it is shorter.
private func magic(of path: String) throws(SquintError) -> [UInt8] { try SourceFile(path: path).start(4) }
