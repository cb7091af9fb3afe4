import SquintFile

extension ProjectorPart {
  /// Opens a projector that is stored by itself, in a safetensors file.
  ///
  /// Its matrices are found by `ProjectorTensors`. The file's `__metadata__` may hold `activation`, `shuffle` (or
  /// `scale_factor`), `stack`, `feature_layer` (a number or several with commas), `select` (`patch` or `full`) and `norm_epsilon`.
  ///
  /// - Parameter name: the modality.
  /// - Throws: `SquintError.noInput` where it cannot be read, `.badData` where it is no projector.
  init(path: String, name: String) throws(SquintError) {
    guard !path.hasSuffix(".bin"), !path.hasSuffix(".pt"), !path.hasSuffix(".pth") else {
      // It must exist for the advice to be right.
      _ = try SourceFile(path: path)
      throw .badData(path, ForeignFile.pickle)
    }
    let source = try SafetensorsSource(path: path)
    // What programs of LLaVA's kind trained beside an adapter holds more than the projector.
    let trained = "mm_projector"
    let lead = source.tensors.lazy.compactMap { tensor -> [Substring]? in
      let components = tensor.name.split(separator: ".")
      return components.firstIndex { $0 == trained }.map { Array(components[..<$0]) }
    }.first
    let stem = lead.map { ($0 + [trained[...]]).joined(separator: ".") }
    let found = try ProjectorTensors(
      in: source, prefixes: stem.map { [$0] }, module: "projector.\(name)", place: path)
    let towers = NameMap(
      module: "", stems: [],
      ignoredPrefixes: lead.map { lead in
        ["graph_tower", "vision_tower"].map { (lead + [$0]).joined(separator: ".") + "." }
      } ?? [])
    let settings = ProjectorFileSettings(values: source.metadata, place: path)
    var configuration = ProjectorConfiguration(widths: found.widths)
    configuration.activation = try settings.activation() ?? .gelu
    // PyTorch's default for LayerNorm.
    configuration.normEpsilon = found.hasNorm ? try settings.number("norm_epsilon") ?? 1e-5 : nil
    let shuffle = either(try settings.integers("shuffle"), try settings.integers("scale_factor"))
    if let shuffle {
      guard shuffle.count == 1, (1...ProjectorConfiguration.largestShuffle).contains(shuffle[0]) else {
        throw .badData(
          path, "__metadata__: shuffle is not an integer from 1 to \(ProjectorConfiguration.largestShuffle)")
      }
      configuration.shuffle = shuffle[0]
    }
    let stack = try settings.integers("stack")
    if let stack {
      guard stack.count == 1, (1...ProjectorConfiguration.largestStack).contains(stack[0]) else {
        throw .badData(path, "__metadata__: stack is not an integer from 1 to \(ProjectorConfiguration.largestStack)")
      }
      configuration.stack = stack[0]
    }
    self.init(
      configuration: configuration, tensors: MappedTensors(source: source, maps: [found.map, towers], place: path),
      features: try settings.features(), infersShuffle: shuffle == nil && stack == nil)
  }
}

/// The `__metadata__` of a projector's file: texts by name.
private struct ProjectorFileSettings {
  let values: [String: String]
  let place: String

  func activation() throws(SquintError) -> Activation? {
    guard let name = values["activation"] else { return nil }
    guard let activation = either(Activation(rawValue: name), Activation(huggingFace: name)) else {
      throw .badData(
        place,
        "__metadata__: activation \"\(printable(name))\" is not supported; known are "
          + Activation.allCases.map(\.rawValue).joined(separator: ", "))
    }
    return activation
  }

  func number(_ key: String) throws(SquintError) -> Double? {
    guard let text = values[key] else { return nil }
    guard let number = Double(text), number.isFinite, number >= 0 else {
      throw .badData(place, "__metadata__: \(key) \"\(printable(text))\" is not a number from 0 on")
    }
    return number
  }

  func integers(_ key: String) throws(SquintError) -> [Int]? {
    guard let text = values[key] else { return nil }
    let parts = text.split(separator: ",").map { $0.filter { !"[] ".contains($0) } }
    let integers = parts.compactMap { Int($0) }.filter { $0.magnitude <= DecoderConfiguration.largestDimension }
    guard !parts.isEmpty, integers.count == parts.count else {
      throw .badData(place, "__metadata__: \(key) \"\(printable(text))\" is not an integer or a list of them")
    }
    return integers
  }

  func features() throws(SquintError) -> FeatureSelection? {
    let layers = try integers("feature_layer")
    let classRow: FeatureSelection.ClassRow
    switch values["select"] {
    case nil where layers == nil: return nil
    case nil, "patch", "default": classRow = .drops
    case "full", "cls_patch": classRow = .keeps
    case let other?:
      throw .badData(place, "__metadata__: select \"\(printable(other))\" is not patch or full")
    }
    return FeatureSelection(layers: layers, classRow: classRow)
  }
}
