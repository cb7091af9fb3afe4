import Foundation
import SquintConversion
import SquintFile
import Testing

/// Writes `tensors`, in the order of their names.
func writeSafetensors(_ tensors: [String: StoredTensor], to path: String) throws {
  try StoredTensor.file(tensors).write(to: URL(fileURLWithPath: path))
}

/// A checkpoint of the fixtures, whose logits are transformers' (ParityTests, VisionParityTests), which a test saves in another
/// way.
struct CheckpointVariant {
  var tensors: [String: StoredTensor] = [:]
  var config: [String: Any]
  private let folder: String

  /// - Parameter name: a folder of Tests/Fixtures/models, or one of Tests/Fixtures/vision, whose checkpoint is meant.
  init(_ name: String) throws {
    let model = ConverterFixture.model(name)
    folder = FileManager.default.fileExists(atPath: model) ? model : "\(VisionFixture.folder)/\(name)/checkpoint"
    for file in try contents(of: folder) where file.hasSuffix(".safetensors") {
      tensors.merge(try StoredTensor.read("\(folder)/\(file)")) { $1 }
    }
    let data = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/config.json"))
    config = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
  }

  /// Gives every tensor the name that `change` makes of its own.
  mutating func rename(_ change: (String) -> String) {
    tensors = Dictionary(uniqueKeysWithValues: tensors.map { (change($0), $1) })
  }

  /// Sets a key of the object `object` of config.json.
  mutating func set(_ key: String, _ value: Any?, in object: String? = nil) {
    guard let object else {
      config[key] = value
      return
    }
    var inner = config[object] as? [String: Any] ?? [:]
    inner[key] = value
    config[object] = inner
  }

  /// Writes all files but the weights into `path`.
  func writeRest(to path: String) throws {
    for file in try contents(of: folder) where !file.contains(".safetensors") && file != "config.json" {
      try FileManager.default.copyItem(atPath: "\(folder)/\(file)", toPath: "\(path)/\(file)")
    }
    try JSONSerialization.data(withJSONObject: config).write(to: URL(fileURLWithPath: "\(path)/config.json"))
  }

  func write(to path: String) throws {
    try writeRest(to: path)
    try writeSafetensors(tensors, to: "\(path)/model.safetensors")
  }
}

/// What a conversion made: what computes, whatever the source was called.
struct Converted: Equatable {
  /// By name: shape, type and checksum.
  let tensors: [String: String]
  /// Keys of modules, without what they are called.
  let settings: [String: String]
  let notes: [String]

  static func == (left: Converted, right: Converted) -> Bool {
    left.tensors == right.tensors && left.settings == right.settings
  }

  /// Converts the checkpoint that `write` writes into a folder, in f32.
  init(options: ConversionOptions? = nil, _ write: (String) throws -> Void) throws {
    self = try withFolder { folder in
      let source = "\(folder)/source"
      try FileManager.default.createDirectory(atPath: source, withIntermediateDirectories: true)
      try write(source)
      let report = try convert(
        source: source, to: "\(folder)/model.squint", options: options ?? VisionFixture.f32())
      let model = try ModelFile(path: "\(folder)/model.squint")
      let tensors = model.tensors.map { ($0.name, "\($0.type) \($0.shape) \($0.checksum)") }
      let settings = model.metadata.entries.filter { key, _ in
        !key.hasPrefix("general.") && !key.hasSuffix(".architecture")
      }.map { ($0.0, "\($0.1)") }
      return Converted(
        tensors: Dictionary(uniqueKeysWithValues: tensors), settings: Dictionary(uniqueKeysWithValues: settings),
        notes: report.notes)
    }
  }

  private init(tensors: [String: String], settings: [String: String], notes: [String]) {
    self.tensors = tensors
    self.settings = settings
    self.notes = notes
  }

  func hasNote(_ parts: String...) -> Bool { notes.contains { note in parts.allSatisfy(note.contains) } }
}

/// The error of planning the conversion of what `write` writes into a folder.
func planError(
  options: ConversionOptions = ConversionOptions(), _ write: (String) throws -> Void
) throws -> SquintError? {
  try withFolder { folder in
    try write(folder)
    let error = squintError { try planConversion(source: folder, options: options) }
    #expect(error?.message.contains("\n") != true)
    return error
  }
}
