import Foundation
import SquintFile
import Testing

/// A file with every kind of metadata, every element type, and two modules.
private func writeSample(to path: String) throws {
  var plan = ModelFilePlan()
  plan.metadata["a.bool"] = .bool(true)
  plan.metadata["a.int"] = .int(-7)
  plan.metadata["a.float"] = .float(0.5)
  plan.metadata["a.text"] = .string("grüße")
  plan.metadata["a.bytes"] = .bytes([0, 255])
  plan.metadata["a.ints"] = .ints([1, -2])
  plan.metadata["a.floats"] = .floats([1.5])
  plan.metadata["a.texts"] = .strings(["", "x"])
  plan.bulkMetadata["b.bytes"] = .bytes([UInt8](repeating: 7, count: 5000))
  plan.modules = [
    .init(
      name: "decoder",
      tensors: ElementType.allCases.map { .init(name: "decoder.\($0.name)", type: $0, shape: [18, 40]) }),
    .init(name: "encoder.image", tensors: [.init(name: "encoder.image.norm", type: .f32, shape: [3])]),
  ]
  let writer = try ModelFileWriter(path: path, plan: plan)
  for (index, tensor) in plan.modules.flatMap(\.tensors).enumerated() {
    let count = tensor.type.byteCount(shape: tensor.shape)!
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ index) }
    // In two pieces, to exercise the running checksum.
    try bytes.withUnsafeBytes {
      try writer.append(UnsafeRawBufferPointer(rebasing: $0[..<5]), toTensor: index)
      try writer.append(UnsafeRawBufferPointer(rebasing: $0[5...]), toTensor: index)
    }
  }
  try writer.finish()
}

private func withTemporaryFolder<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}

/// The error that `body` throws, or nil.
private func caught(_ body: () throws -> Void) -> SquintError? {
  do {
    try body()
    return nil
  } catch { return error as? SquintError }
}

@Suite struct ModelFileTests {
  @Test func roundTrip() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let file = try ModelFile(path: path)
      #expect(file.metadata["a.int"] == .int(-7))
      #expect(file.metadata["a.text"] == .string("grüße"))
      #expect(file.metadata["a.texts"] == .strings(["", "x"]))
      #expect(file.metadata.entries.count == 8)
      #expect(try file.bulkMetadata()["b.bytes"] == .bytes([UInt8](repeating: 7, count: 5000)))
      #expect(file.modules.map(\.name) == ["decoder", "encoder.image"])
      #expect(file.modules.allSatisfy { $0.range.lowerBound % 65_536 == 0 })
      #expect(file.tensors.allSatisfy { $0.range.lowerBound % 64 == 0 })
      let tensor = try #require(file.tensor("decoder.int4"))
      #expect(file.bytes(of: tensor)[100] == UInt8(truncatingIfNeeded: 100 * 31 + 4))
      try file.verify()
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["a.squint"])
    }
  }

  @Test func anUnfinishedFileLeavesNothing() throws {
    try withTemporaryFolder { folder in
      var plan = ModelFilePlan()
      plan.modules = [.init(name: "decoder", tensors: [.init(name: "t", type: .f32, shape: [4])])]
      do { _ = try ModelFileWriter(path: folder + "/a.squint", plan: plan) }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
    }
  }

  /// Any flipped bit is found: in the header and tables at opening, elsewhere by `verify`.
  @Test func everyFlippedByteIsFound() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let original = try Data(contentsOf: URL(fileURLWithPath: path))
      let damaged = folder + "/b.squint"
      // Every byte of the header, tables and bulk metadata; a sample of the rest, which is long.
      for offset in Array(0..<2000) + Array(stride(from: 2000, to: original.count, by: 997)) {
        var bytes = original
        bytes[offset] ^= 1
        try bytes.write(to: URL(fileURLWithPath: damaged))
        let error = caught { try ModelFile(path: damaged).verify() }
        #expect(error?.kind == .badData, "offset \(offset)")
        #expect(error?.message.hasPrefix(damaged) == true, "offset \(offset)")
      }
    }
  }

  @Test func everyTruncationIsFound() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let original = try Data(contentsOf: URL(fileURLWithPath: path))
      let cut = folder + "/b.squint"
      for count in Array(0..<1500) + [original.count - 1] {
        try original.prefix(count).write(to: URL(fileURLWithPath: cut))
        let error = caught { _ = try ModelFile(path: cut) }
        #expect(error?.kind == .badData, "\(count) bytes")
      }
    }
  }

  /// Damage behind a valid checksum: a hostile file, not a broken one.
  @Test func tablesThatLieAreRefused() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let original = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
      let frontBytes = Int(original[24]) | Int(original[25]) << 8
      let hostile = folder + "/b.squint"
      var generator = SystemRandomNumberGenerator()
      var refused = 0
      for offset in 8..<(128 + frontBytes) where !(120..<128).contains(offset) {
        var bytes = original
        bytes[offset] = [0, 0x7F, 0xFF, UInt8.random(in: 0...255, using: &generator)].randomElement(using: &generator)!
        let covered = Array(bytes[0..<120] + bytes[128..<128 + frontBytes])
        let sum = covered.withUnsafeBytes { checksum($0) }
        withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(120..<128, with: $0) }
        try Data(bytes).write(to: URL(fileURLWithPath: hostile))
        // Whatever was changed, the reader answers with a model or an error, and never reads outside the file.
        do {
          let file = try ModelFile(path: hostile)
          for tensor in file.tensors { _ = checksum(file.bytes(of: tensor)) }
        } catch let error as SquintError {
          #expect(error.kind == .badData)
          refused += 1
        }
      }
      #expect(refused > frontBytes / 3)
    }
  }

  @Test func opensQuicklyWhateverTheSize() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let clock = ContinuousClock()
      let best = try (0..<5).map { _ in try clock.measure { _ = try ModelFile(path: path) } }.min()!
      #expect(best < .milliseconds(20))
    }
  }

  @Test func notAModel() throws {
    try withTemporaryFolder { folder in
      #expect(caught { _ = try ModelFile(path: folder) }?.kind == .noInput)
      let missing = caught { _ = try ModelFile(path: folder + "/none.squint") }
      #expect(missing?.kind == .noInput)
      try Data("GGUF and more".utf8).write(to: URL(fileURLWithPath: folder + "/x"))
      let wrong = caught { _ = try ModelFile(path: folder + "/x") }
      #expect(wrong?.kind == .badData)
    }
  }
}
