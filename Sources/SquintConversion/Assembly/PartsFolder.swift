import SquintFile

extension ConversionSources {
  /// These sources, with the parts that are in `source` in its place where it is a folder of parts: `decoder/` or
  /// `decoder.gguf`, `encoder/` or `encoder.onnx`, `projector.safetensors`, `adapter/`, and preprocessor_config.json, which is
  /// for the encoder. What is given beside the folder is taken instead of what is in it.
  ///
  /// The encoder and the projector are those of the modality whose encoders have the `model_type` in `encoder/config.json`, and of `image`
  /// where none has, or there is no such file. A folder as InstructMol's program saves it has parts, too, and so
  /// has one with MoleculeSTM's `molecule_model.safetensors`: there a projector without an encoder is that of molecules.
  ///
  /// - Throws: `SquintError.badData` where a part is there twice, or is not for the encoder, `.noInput` where there are parts but no decoder.
  func withPartsOfFolder() throws(SquintError) -> ConversionSources {
    guard let source else { return self }
    let folder = CheckpointFolder(path: source)
    let decoders = ["decoder", "decoder.gguf"].filter(folder.has)
    let encoders = ["encoder", "encoder.onnx"].filter(folder.has)
    let projectors = ["projector.safetensors"].filter(folder.has)
    let isForMolecules = encoders.isEmpty && !projectors.isEmpty
    let molecules = try InstructMolFolder(
      folder, tower: self.encoders[InstructMol.kind],
      hasProjector: self.projectors[InstructMol.kind] != nil || isForMolecules)
    guard molecules != nil || !folder.has("config.json"),
      let first = (decoders + encoders + projectors).first ?? molecules?.first
    else { return self }

    func one(of names: [String], option: String) throws(SquintError) -> String? {
      guard names.count < 2 else {
        throw .badData(
          folder.path, "there is \(names.joined(separator: " and ")); remove one, or choose with \(option)")
      }
      return names.first.map(folder.file)
    }
    let modality = folder.modalityOfEncoder
    var parts = self
    parts.source = nil
    parts.name = name ?? lastComponent(absolute(folder.path))
    if decoder == nil { parts.decoder = try one(of: decoders, option: "--decoder") }
    guard parts.decoder != nil else {
      throw SquintError(
        .noInput,
        "\(folder.path): there is \(first), but no decoder; put it beside as decoder/ or decoder.gguf, or give --decoder"
      )
    }
    if let molecules {
      parts.instructMol = molecules
      parts.encoders[InstructMol.kind] = nil
      parts.adapter = adapter ?? molecules.adapter
      if isForMolecules {
        parts.projectors[InstructMol.kind] = self.projectors[InstructMol.kind] ?? folder.file(projectors[0])
      }
    }
    // A file with both belongs to the decoder that is given.
    if mmproj == nil, molecules == nil || !encoders.isEmpty {
      if self.encoders[modality] == nil, let encoder = try one(of: encoders, option: "--encoder") {
        parts.encoders[modality] = encoder
        let images = "preprocessor_config.json"
        if folder.has(images), modality != "image" {
          throw .badData(
            folder.file(images),
            "this is for images, and encoder/ is one for \(modality); remove it, or put it into encoder/")
        }
        if folder.has(images) { parts.images[modality] = self.images[modality] ?? folder.file(images) }
      }
      parts.projectors[modality] = self.projectors[modality] ?? projectors.first.map(folder.file)
    }
    if parts.adapter == nil, folder.has("adapter") { parts.adapter = folder.file("adapter") }
    return parts
  }
}

extension CheckpointFolder {
  /// What the encoder of a folder of parts is for. An encoder that cannot be read is refused where it is opened.
  fileprivate var modalityOfEncoder: String {
    guard let config = try? CheckpointFolder(path: file("encoder")).json("config.json"),
      let modelType = config["model_type"]?.string
    else { return "image" }
    return Families.otherEncoders.first { $0.value.contains { $0.modelTypes.contains(modelType) } }?.key ?? "image"
  }
}

/// `path` with all of its folders; `path` itself where it cannot be resolved.
func absolute(_ path: String) -> String {
  guard let resolved = realpath(path, nil) else { return path }
  defer { free(resolved) }
  return String(fileName: resolved)
}
