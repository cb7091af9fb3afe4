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

  /// A model in a larger file is what it is as a file of its own, whatever pages are, and messages call it by its name.
  @Test(arguments: [0, 64, 4096, 65_536, 65_536 + 192]) func aPartOfAFile(offset: Int) throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let whole = try ModelFile(path: path)
      var bytes = [UInt8](repeating: 0xAA, count: offset)
      bytes += try Data(contentsOf: URL(fileURLWithPath: path))
      let range = offset..<bytes.count
      bytes += [UInt8](repeating: 0xAA, count: 10_000)
      let program = folder + "/program"
      try Data(bytes).write(to: URL(fileURLWithPath: program))

      let part = try ModelFile(path: program, range: range, name: "nano")
      #expect(part.path == "nano")
      #expect(part.byteCount == whole.byteCount)
      #expect(part.tensors == whole.tensors)
      #expect(try part.bulkMetadata()["b.bytes"] == whole.bulkMetadata()["b.bytes"])
      try part.verify()
      // What the process does not need any more comes back from the right place.
      part.advise(0..<part.byteCount, .done)
      let reader = DirectReader(part)
      for tensor in whole.tensors {
        #expect(part.bytes(of: tensor).elementsEqual(whole.bytes(of: tensor)))
        let aligned = DirectReader.aligned(tensor.range)
        let memory = UnsafeMutableRawBufferPointer.allocate(
          byteCount: aligned.count, alignment: DirectReader.alignment)
        defer { memory.deallocate() }
        try reader.read(aligned, into: memory.baseAddress!)
        let found = UnsafeRawBufferPointer(rebasing: memory[(tensor.range.lowerBound - aligned.lowerBound)...])
        #expect(found.prefix(tensor.range.count).elementsEqual(whole.bytes(of: tensor)))
      }

      for place in [0, 60, 200, whole.tensors[3].range.lowerBound + 7, whole.byteCount - 1] {
        var damaged = bytes
        damaged[offset + place] ^= 1
        try Data(damaged).write(to: URL(fileURLWithPath: program))
        let error = caught { try ModelFile(path: program, range: range, name: "nano").verify() }
        #expect(error?.kind == .badData && error?.message.hasPrefix("nano: ") == true, "offset \(place)")
      }
    }
  }

  @Test func partsThatAreNotThere() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try writeSample(to: path)
      let count = try ModelFile(path: path).byteCount
      func error(_ range: Range<Int>, path: String = path) -> SquintError? {
        caught { _ = try ModelFile(path: path, range: range, name: "nano") }
      }
      for range in [0..<count + 1, 64..<Int.max, 64..<count + 1, Int.max - 63..<Int.max, -64..<count - 64, 64..<64] {
        #expect(error(range)?.kind == .badData, "\(range)")
        #expect(error(range)?.message.hasPrefix("nano: ") == true, "\(range)")
      }
      // The panels would not be aligned as the kernels need them.
      #expect(error(1..<count)?.kind == .usage)
      #expect(error(0..<count - 1)?.message.contains("incomplete") == true)
      #expect(error(0..<count, path: folder + "/none")?.kind == .noInput)
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

@Suite struct ErrorTests {
  /// A file may be called as a message begins; only a message that begins with its name and a colon has named it.
  @Test func errorsNameTheirFileOnce() {
    let error = SquintError(.badData, "metadata decoder.width is missing")
    for path in ["m", "metadata", "model.squint"] {
      #expect(error.naming(path).message == "\(path): metadata decoder.width is missing")
      #expect(error.naming(path).naming(path) == error.naming(path))
    }
  }
}
