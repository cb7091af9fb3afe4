import Foundation
import SquintConversion
import SquintFile
import Testing

/// Of the files of a folder those are a checkpoint that are whole.
@Suite struct SafetensorsFolderTests {
  private static let model = "llama-gqa"
  private static let indexFile = "model.safetensors.index.json"

  private let variant: CheckpointVariant
  private let original: Converted

  init() throws {
    let variant = try CheckpointVariant(Self.model)
    self.variant = variant
    original = try Converted { try variant.write(to: $0) }
  }

  private var names: [String] { variant.tensors.keys.sorted() }

  /// Which tensor is in which of `count` files, called as transformers calls them, behind `stem`.
  private func places(_ count: Int, stem: String = "model") -> [String: String] {
    let padded = { (number: Int) in String(String(100_000 + number).dropFirst()) }
    return Dictionary(
      uniqueKeysWithValues: names.enumerated().map {
        ($1, "\(stem)-\(padded($0 % count + 1))-of-\(padded(count)).safetensors")
      })
  }

  private func writeShards(_ places: [String: String], to folder: String, but missing: Set<String> = []) throws {
    for file in Set(places.values).subtracting(missing) {
      try writeSafetensors(variant.tensors.filter { places[$0.key] == file }, to: "\(folder)/\(file)")
    }
  }

  private func writeIndex(_ places: [String: String], to folder: String) throws {
    try JSONSerialization.data(withJSONObject: ["weight_map": places])
      .write(to: URL(fileURLWithPath: "\(folder)/\(Self.indexFile)"))
  }

  private func expectWhole(
    noting parts: String?, sourceLocation: SourceLocation = #_sourceLocation, _ write: (String) throws -> Void
  ) throws {
    let converted = try Converted {
      try variant.writeRest(to: $0)
      try write($0)
    }
    #expect(converted == original, sourceLocation: sourceLocation)
    let notes = converted.notes.filter { $0.contains("safetensors") }
    if let parts {
      #expect(notes.contains { $0.contains(parts) }, "\(notes)", sourceLocation: sourceLocation)
    } else {
      #expect(notes.isEmpty, "\(notes)", sourceLocation: sourceLocation)
    }
  }

  private func expectRefusal(
    _ kind: SquintError.Kind, _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation,
    _ write: (String) throws -> Void
  ) throws {
    let error = try planError {
      try variant.writeRest(to: $0)
      try write($0)
    }
    #expect(error?.kind == kind, "\(error?.message ?? "accepted")", sourceLocation: sourceLocation)
    for part in parts {
      #expect(error?.message.contains(part) == true, "\(error?.message ?? "")", sourceLocation: sourceLocation)
    }
  }

  @Test func shards() throws {
    for count in [1, 3] {
      let places = places(count)
      try expectWhole(noting: nil) {
        try writeShards(places, to: $0)
        try writeIndex(places, to: $0)
      }
      // Without an index the names tell whether all are there.
      try expectWhole(noting: nil) { try writeShards(places, to: $0) }
    }
    try expectWhole(noting: nil) { folder in
      let places = places(2, stem: "model").mapValues { $0.replacingOccurrences(of: "-of-00002", with: "") }
      try writeShards(places, to: folder)
    }
  }

  @Test func aStaleIndexBesideAWholeFile() throws {
    for write in [{ _ in }, { folder in try writeShards(places(3), to: folder) }] as [(String) throws -> Void] {
      try expectWhole(noting: "\(Self.indexFile) is not followed; model.safetensors is used") { folder in
        try writeSafetensors(variant.tensors, to: "\(folder)/model.safetensors")
        try writeIndex(places(3), to: folder)
        try write(folder)
      }
    }
    // An index that names it is no other.
    try expectWhole(noting: nil) { folder in
      try writeSafetensors(variant.tensors, to: "\(folder)/model.safetensors")
      try writeIndex(places(1).mapValues { _ in "model.safetensors" }, to: folder)
    }
    // Not even JSON.
    try expectWhole(noting: "is not followed") { folder in
      try writeSafetensors(variant.tensors, to: "\(folder)/model.safetensors")
      try Data("version https://git-lfs.github.com/spec/v1\n".utf8).write(
        to: URL(fileURLWithPath: "\(folder)/\(Self.indexFile)"))
    }
  }

  @Test func aFileThatIsNotWholeBesideShards() throws {
    let places = places(2)
    for write in [
      { try Data("version https://git-lfs.github.com/spec/v1\noid".utf8).write(to: $0) },
      { try Data(count: 100).write(to: $0) },
      { try Data().write(to: $0) },
    ] as [(URL) throws -> Void] {
      try expectWhole(noting: "model.safetensors is not whole") { folder in
        try writeShards(places, to: folder)
        try writeIndex(places, to: folder)
        try write(URL(fileURLWithPath: "\(folder)/model.safetensors"))
      }
    }
    try expectWhole(noting: "model.safetensors lacks tensors") { folder in
      try writeShards(places, to: folder)
      try writeIndex(places, to: folder)
      try writeSafetensors(variant.tensors.filter { $0.key.contains("norm") }, to: "\(folder)/model.safetensors")
    }
  }

  @Test func aStaleIndexBesideOtherFiles() throws {
    try expectWhole(noting: "2 whole files of other names are used") { folder in
      try writeShards(places(2), to: folder)
      try writeIndex(places(3), to: folder)
    }
    try expectWhole(noting: "2 whole files of other names are used") { folder in
      try writeShards(places(2, stem: "weights"), to: folder)
      try writeIndex(places(3), to: folder)
    }
    try expectWhole(noting: "the whole file of other names is used") { folder in
      try writeSafetensors(variant.tensors, to: "\(folder)/all.safetensors")
      try writeIndex(places(3), to: folder)
    }
  }

  @Test func setsThatAreNotWhole() throws {
    let places = places(3)
    let missing: Set = ["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"]
    try expectRefusal(
      .noInput, "\(Self.indexFile): model-00001-of-00003.safetensors, model-00003-of-00003.safetensors are missing"
    ) {
      try writeShards(places, to: $0, but: missing)
      try writeIndex(places, to: $0)
    }
    try expectRefusal(.noInput, "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors are missing") {
      try writeShards(places, to: $0, but: missing)
    }
    try expectRefusal(
      .noInput, "model-00003-of-00003.safetensors is missing (the download of model-00003-of-00003.safetensors.part"
    ) {
      try writeShards(places, to: $0, but: ["model-00003-of-00003.safetensors"])
      try Data(count: 3).write(to: URL(fileURLWithPath: "\($0)/model-00003-of-00003.safetensors.part"))
      try writeIndex(places, to: $0)
    }
    // Other files that lack what the index lists.
    try expectRefusal(.noInput, "are missing") {
      try writeSafetensors(variant.tensors.filter { $0.key != "model.norm.weight" }, to: "\($0)/all.safetensors")
      try writeIndex(places, to: $0)
    }
    try expectRefusal(.badData, "model-*-of-00002 and model-*-of-00003 are whole checkpoints both") {
      try writeShards(places, to: $0)
      try writeShards(self.places(2), to: $0)
    }
  }

  @Test func tensorsOfTwoShards() throws {
    let places = places(2)
    let name = "model.norm.weight"
    let other = Set(places.values).first { $0 != places[name] } ?? ""
    /// Puts `name` into the other shard, too.
    func write(_ folder: String, changed: Bool) throws {
      try writeShards(places, to: folder)
      var tensors = variant.tensors.filter { places[$0.key] == other }
      tensors[name] = variant.tensors[name]
      if changed { tensors[name]?.bytes[3] ^= 0x80 }
      try writeSafetensors(tensors, to: "\(folder)/\(other)")
    }
    for changed in [false, true] {
      // The index tells which one counts.
      try expectWhole(noting: "1 tensors are in another file, too (\(name))") {
        try write($0, changed: changed)
        try writeIndex(places, to: $0)
      }
    }
    try expectWhole(noting: "1 tensors are in another file, too") { try write($0, changed: false) }
    try expectRefusal(.badData, "there are two tensors named \(name)") { try write($0, changed: true) }
  }

  /// An index that is wrong about files that are all there.
  @Test func anIndexThatIsWrong() throws {
    let places = places(3)
    let files = Set(places.values).sorted()
    try expectWhole(noting: "1 of its tensors are in none of its files (rotary.inv_freq)") {
      try writeShards(places, to: $0)
      try writeIndex(places.merging(["rotary.inv_freq": files[0]]) { $1 }, to: $0)
    }
    try expectWhole(noting: "1 of its tensors are in another file than it says (model.norm.weight)") {
      var wrong = places
      wrong["model.norm.weight"] = files.first { $0 != places["model.norm.weight"] }
      try writeShards(places, to: $0)
      try writeIndex(wrong, to: $0)
    }
    try expectWhole(noting: "it does not list \(files[1])") {
      try writeShards(places, to: $0)
      try writeIndex(places.filter { $0.value != files[1] }, to: $0)
    }
    // What a file system keeps beside files is none of them.
    try expectWhole(noting: nil) { folder in
      try writeShards(places, to: folder)
      for file in files { try Data(count: 120).write(to: URL(fileURLWithPath: "\(folder)/._\(file)")) }
    }
  }

  @Test func noWeightsAtAll() throws {
    for (file, kind, part) in [
      ("pytorch_model.bin", .badData, "a pickle (pytorch_model.bin)"), ("model.pth", .badData, "save_pretrained"),
      ("model.safetensors.incomplete", .noInput, "the download of the weights did not end"),
      ("training_args.bin", .noInput, "no *.safetensors file"),
    ] as [(String, SquintError.Kind, String)] {
      try expectRefusal(kind, part) { try Data(count: 10).write(to: URL(fileURLWithPath: "\($0)/\(file)")) }
    }
  }
}
