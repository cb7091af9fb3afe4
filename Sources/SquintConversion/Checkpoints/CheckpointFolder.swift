import SquintFile

/// The small files of a checkpoint folder.
struct CheckpointFolder: Sendable {
  /// Without slashes at its end.
  let path: String

  init(path: String) {
    var path = path
    while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
    self.path = path
  }

  func file(_ name: String) -> String { "\(path)/\(name)" }

  func has(_ name: String) -> Bool { access(file(name), F_OK) == 0 }

  /// config.json, which every checkpoint has.
  ///
  /// - Throws: `SquintError.noInput` where there is none.
  func configuration() throws(SquintError) -> JSONValue {
    let path = file("config.json")
    guard has("config.json") || !has(LoRAAdapter.configurationFile) else {
      throw .badData(
        self.path, "this is an adapter; give the model that it is for as the source, and this with --adapter")
    }
    guard access(path, F_OK) == 0 else {
      throw SquintError(.noInput, "\(path): \(systemMessage(errno)); a checkpoint folder has a config.json\(elsewhere)")
    }
    let config = try JSONValue.read(path: path)
    guard config.object != nil else {
      throw .badData(path, "this is not a JSON object; download it again")
    }
    return config
  }

  /// Where a folder without config.json has something that is a source.
  private var elsewhere: String {
    guard let names = try? fileNames(inFolder: path) else { return "" }
    if let model = names.first(where: { $0.lowercased().hasSuffix(".gguf") && !$0.lowercased().contains("mmproj") }) {
      return "; there is a GGUF file: give \(printable(file(model)))"
    }
    // The hub's cache keeps revisions apart, and training programs checkpoints.
    let folders = names + (((try? fileNames(inFolder: file("snapshots"))) ?? []).map { "snapshots/\($0)" })
    if let folder = folders.last(where: { has("\($0)/config.json") }) {
      return "; there is one below: give \(printable(file(folder)))"
    }
    if has("params.json") {
      return "; this is a checkpoint as its makers publish it: take the one in transformers' format"
    }
    return ""
  }

  /// The tensors of the checkpoint, as numbers and under names that the tables know.
  ///
  /// - Parameters:
  ///   - config: its config.json.
  ///   - notes: takes what the user should know.
  func tensors(
    config: JSONValue, spelling: NameSpelling, notes: inout [String]
  ) throws(SquintError) -> any TensorSource {
    let stored = try SafetensorsSource(path: path)
    notes += stored.notes
    let ties = [config, config["text_config"] ?? .null].flatMap { part in
      ["tie_word_embeddings", "lm_tie_weights"].compactMap { part[$0]?.bool }
    }
    let spelled = try SpelledTensors(
      stored, spelling: spelling, isTied: ties.isEmpty ? nil : ties.contains(true), place: path, notes: &notes)
    return try QuantizationScheme.dequantized(spelled, config: config, place: path, notes: &notes)
  }

  /// The JSON file `name`; nil where there is none.
  func json(_ name: String) throws(SquintError) -> JSONValue? {
    has(name) ? try JSONValue.read(path: file(name)) : nil
  }

  /// The text file `name`, its first `limit` bytes; nil where there is none.
  func text(_ name: String, limit: Int) throws(SquintError) -> String? {
    guard has(name) else { return nil }
    return String(decoding: try SourceFile(path: file(name)).start(limit), as: UTF8.self)
  }
}
