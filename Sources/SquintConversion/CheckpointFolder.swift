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
      throw SquintError(.noInput, "\(path): \(systemMessage(errno)); a checkpoint folder has a config.json")
    }
    return try JSONValue.read(path: path)
  }

  /// The JSON file `name`; nil where there is none.
  func json(_ name: String) throws(SquintError) -> JSONValue? {
    has(name) ? try JSONValue.read(path: file(name)) : nil
  }

  /// The text file `name`, its first `limit` bytes; nil where there is none.
  func text(_ name: String, limit: Int) throws(SquintError) -> String? {
    guard has(name) else { return nil }
    let file = try SourceFile(path: file(name))
    var bytes = [UInt8](repeating: 0, count: min(file.byteCount, limit))
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(SquintError) in try file.read(at: 0, into: buffer) }
    }
    try result.get()
    return String(decoding: bytes, as: UTF8.self)
  }
}
