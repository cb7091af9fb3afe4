import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct ReaderGGUFTests {
  @Test func metadataOfEveryKind() throws {
    let source = try GGUFSource(path: ReaderFixtures.path("kinds.gguf"))
    let metadata = source.metadata
    #expect(source.version == 3)
    #expect(metadata["general.architecture"]?.string == "llama")
    #expect(metadata["general.alignment"]?.int == 64)
    #expect(metadata["kind.uint8"] == .integer(255))
    #expect(metadata["kind.int8"] == .integer(-128))
    #expect(metadata["kind.uint16"] == .integer(65535))
    #expect(metadata["kind.int16"] == .integer(-32768))
    #expect(metadata["kind.uint32"] == .integer(4_294_967_295))
    #expect(metadata["kind.int32"] == .integer(-2_147_483_648))
    #expect(metadata["kind.float32"] == .float(Double(Float(0.1))))
    #expect(metadata["kind.uint64"] == .unsigned(UInt64.max))
    #expect(metadata["kind.uint64"]?.int == nil)
    #expect(metadata["kind.int64"] == .integer(Int64.min))
    #expect(metadata["kind.float64"]?.double == 0.1)
    #expect(metadata["kind.bool"]?.bool == true)
    #expect(metadata["kind.string"]?.string == "Grüße 😀")
    #expect(metadata["kind.bytes"] == .string(ByteString([0xFF, 0, 0x80])))
    #expect(metadata["kind.bytes"]?.string == nil)
    #expect(metadata["array.uint8"]?.integers == [0, 255])
    #expect(metadata["array.int8"]?.integers == [-128, 127])
    #expect(metadata["array.uint16"]?.integers == [65535])
    #expect(metadata["array.int16"]?.integers == [-32768, 5])
    #expect(metadata["array.uint32"]?.integers == [4_294_967_295, 0])
    #expect(metadata["array.int32"]?.integers == [-2_147_483_648, 1, 2])
    #expect(metadata["array.float32"]?.floats == [0.5, -1.25])
    #expect(metadata["array.uint64"]?.integers == [1, 1 << 40])
    #expect(metadata["array.int64"]?.integers == [-1 << 40])
    #expect(metadata["array.float64"]?.floats == [0.1, 1e300])
    #expect(metadata["array.bool"]?.bools == [true, false, true])
    let strings = try #require(metadata["array.string"]?.strings)
    #expect(strings.map(\.text).prefix(2) == ["<s>", nil])
    #expect(strings[1].bytes == [0xF0, 0x9F])
    #expect(strings[2] != strings[3])  // precomposed and decomposed é
    #expect(metadata["array.array"] == .arrays([.integers([1, 2]), .integers([3])]))
    let letters = ["a", "b", "c"].map { ByteString(Array($0.utf8)) }
    #expect(
      metadata["array.array.array"]
        == .arrays([.arrays([.strings([letters[0]]), .strings([letters[1], letters[2]])])]))
  }

  @Test func shapesAreOutermostFirst() throws {
    let source = try GGUFSource(path: ReaderFixtures.path("kinds.gguf"))
    let shapes = ["rank1": [5], "rank2": [2, 3], "rank3": [2, 3, 4], "rank4": [2, 1, 3, 2]]
    for (name, shape) in shapes {
      let tensor = try #require(source.tensor(named: name))
      #expect(tensor.shape == shape)
      #expect(tensor.type == .f32)
      #expect(tensor.rows == shape[0])
      #expect(tensor.columns == shape.dropFirst().reduce(1, *))
      #expect(tensor.offset % 64 == 0)
      #expect(try source.read(tensor) == (0..<shape.reduce(1, *)).map { Float($0) - 1 })
    }
    #expect(source.tensor(named: "rank5") == nil)
  }

  @Test func rawBlocks() throws {
    let source = try GGUFSource(path: ReaderFixtures.path("kinds.gguf"))
    let tensor = try #require(source.tensor(named: "blocks"))
    #expect(tensor.type == .q80)
    #expect(tensor.shape == [3, 64])
    var bytes = [UInt8](repeating: 0, count: 2 * 68)
    try bytes.withUnsafeMutableBytes { try source.readRaw(tensor, rows: 1..<3, into: $0) }
    #expect(bytes == (68..<204).map { UInt8($0) })
    // What does not exist is our own error, not a trap.
    for rows in [2..<4, 0..<1, -1..<1] {
      #expect(
        squintError { try bytes.withUnsafeMutableBytes { try source.readRaw(tensor, rows: rows, into: $0) } }?.kind
          == .internalError)
    }
    try bytes.withUnsafeMutableBytes {
      try source.readRaw(tensor, rows: 1..<1, into: UnsafeMutableRawBufferPointer(rebasing: $0[..<0]))
    }
  }

  @Test func unreadableTypesAreNamed() throws {
    let source = try GGUFSource(path: ReaderFixtures.path("kinds.gguf"))
    let tensor = try #require(source.tensor(named: "integers"))
    #expect(tensor.type == .i32)
    let error = squintError { try source.read(tensor) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("kinds.gguf: tensor integers: numbers of type I32 cannot be converted") == true)
  }

  @Test func splitModels() throws {
    let names = (1...3).map { "split-0000\($0)-of-00003.gguf" }
    for name in names {  // from whichever part
      let source = try GGUFSource(path: ReaderFixtures.path(name))
      #expect(source.tensors.map(\.name) == (0..<5).map { "tensor.\($0)" })
      #expect(source.tensors.map(\.part) == [0, 0, 1, 1, 2])
      #expect(source.metadata["llama.block_count"]?.int == 5)
      for (index, tensor) in source.tensors.enumerated() {
        #expect(try source.read(tensor) == [Float](repeating: Float(index), count: 8))
        #expect(source.path(of: tensor) == ReaderFixtures.path(names[tensor.part]))
      }
    }
    let folder = try TemporaryFolder()
    let parts = try names.map { try ReaderFixtures.bytes($0) }
    let first = try folder.write("a-00001-of-00003.gguf", parts[0])
    try folder.write("a-00002-of-00003.gguf", parts[1])
    #expect(squintError { try GGUFSource(path: first) }?.kind == .noInput)
    try folder.write("a-00003-of-00003.gguf", parts[1])
    #expect(squintError { try GGUFSource(path: first) }?.message.contains("part 3 of 3") == true)
    let renamed = try folder.write("renamed.gguf", parts[0])
    #expect(squintError { try GGUFSource(path: renamed) }?.message.contains("NAME-00001-of-00003.gguf") == true)
    let short = try folder.write("-of-00003.gguf", parts[0])
    #expect(squintError { try GGUFSource(path: short) }?.kind == .badData)
  }

  @Test func otherVersions() throws {
    let folder = try TemporaryFolder()
    var bytes = try ReaderFixtures.bytes("kinds.gguf")
    bytes[4] = 2
    #expect(try GGUFSource(path: folder.write("v2.gguf", bytes)).version == 2)
    func message(_ bytes: [UInt8]) throws -> String {
      let path = try folder.write("x.gguf", bytes)
      let error = squintError { try GGUFSource(path: path) }
      #expect(error?.kind == .badData)
      return error?.message ?? ""
    }
    bytes[4] = 1
    #expect(try message(bytes).contains("version 1 is not supported"))
    bytes[4] = 4
    #expect(try message(bytes).contains("version 4 is newer"))
    bytes.replaceSubrange(4..<8, with: [0, 0, 0, 3])
    #expect(try message(bytes).contains("big-endian"))
    bytes[0] = 0
    #expect(try message(bytes).contains("not a GGUF file"))
    #expect(try message(Array("GGUF".utf8)).contains("too few"))
    #expect(try message([]).contains("the file is empty"))
  }

  /// A file with one metadata entry and one tensor, for inputs that no writer makes.
  private func file(
    value: [UInt8] = littleEndian(UInt32(0)) + [7], key: String = "k", name: String = "t", dimensions: [UInt64] = [8],
    type: UInt32 = 0, offset: UInt64 = 0, data: Int = 32, copies: Int = 1
  ) -> [UInt8] {
    func text(_ text: String) -> [UInt8] { littleEndian(UInt64(text.utf8.count)) + Array(text.utf8) }
    var bytes = Array("GGUF".utf8) + littleEndian(UInt32(3)) + littleEndian(UInt64(copies)) + littleEndian(UInt64(1))
    bytes += text(key) + value
    for _ in 0..<copies {
      bytes += text(name) + littleEndian(UInt32(dimensions.count)) + dimensions.flatMap { littleEndian($0) }
      bytes += littleEndian(type) + littleEndian(offset)
    }
    bytes += [UInt8](repeating: 0, count: (32 - bytes.count % 32) % 32)
    return bytes + [UInt8](repeating: 0, count: data)
  }

  private func message(_ bytes: [UInt8]) throws -> String {
    let folder = try TemporaryFolder()
    let path = try folder.write("x.gguf", bytes)
    let error = squintError { try GGUFSource(path: path) }
    #expect(error == nil || error?.kind == .badData)
    return error?.message ?? "no error"
  }

  @Test func badTensors() throws {
    #expect(try message(file()) == "no error")
    #expect(
      try message(file(data: 31)).contains("tensor t: 32 bytes at offset 96 run past the end of the file (127 bytes)"))
    #expect(try message(file(offset: 32)).contains("run past the end"))
    #expect(try message(file(offset: 1 << 40)).contains("offset 1,099,511,627,776 runs past the end"))
    #expect(try message(file(offset: UInt64.max - 31)).contains("runs past the end"))
    #expect(try message(file(offset: 4)).contains("offset 4 is no multiple of 32"))
    #expect(try message(file(dimensions: [1 << 63])).contains("too large"))
    #expect(try message(file(dimensions: [1 << 40, 1 << 40])).contains("too large"))
    #expect(try message(file(dimensions: [1 << 32, 1 << 32, 0])).contains("too large"))
    #expect(try message(file(dimensions: [1 << 61])).contains("too large"))
    #expect(try message(file(dimensions: [1 << 60])).contains("run past the end"))
    #expect(try message(file(dimensions: [1, 1, 1, 1, 8])).contains("5 dimensions are more than 4"))
    #expect(try message(file(dimensions: [0, 5])) == "no error")
    #expect(try message(file(dimensions: [])) == "no error")
    #expect(try message(file(dimensions: [16], type: 8)).contains("no multiple of the 32 numbers of a Q8_0 block"))
    #expect(try message(file(type: 4)).contains("type 4 is unknown"))
    #expect(try message(file(copies: 2)).contains("tensor t: it overlaps the one before it at offset 128"))
    #expect(try message(file(dimensions: [0], copies: 2)).contains("two tensors named t"))
    #expect(try message(file(name: "a\nb", offset: 1 << 40)).contains("tensor a\\nb:"))
    #expect(try message(file(name: String(repeating: "x", count: 1025))).contains("too long"))
  }

  @Test func badMetadata() throws {
    func array(_ kind: UInt32, _ count: UInt64, _ rest: [UInt8] = []) -> [UInt8] {
      littleEndian(UInt32(9)) + littleEndian(kind) + littleEndian(count) + rest
    }
    #expect(try message(file(value: littleEndian(UInt32(13)))).contains("metadata k: value type 13 is unknown"))
    #expect(try message(file(value: littleEndian(UInt32(8)) + littleEndian(UInt64.max))).contains("run past the end"))
    #expect(
      try message(file(value: littleEndian(UInt32(8)) + littleEndian(UInt64(1 << 60)))).contains("run past the end"))
    #expect(try message(file(value: array(5, 0))) == "no error")
    #expect(try message(file(value: array(5, 1 << 60))).contains("array elements do not fit"))
    #expect(try message(file(value: array(8, UInt64.max))).contains("array elements do not fit"))
    #expect(try message(file(value: array(0, 5_000_000), data: 6_000_000)).contains("array elements are too many"))
    let nested = { (depth: Int) in
      littleEndian(UInt32(9)) + (0..<depth).flatMap { _ in littleEndian(UInt32(9)) + littleEndian(UInt64(1)) }
        + littleEndian(UInt32(0)) + littleEndian(UInt64(0))
    }
    #expect(try message(file(value: nested(3))) == "no error")
    #expect(try message(file(value: nested(4))).contains("nested deeper than 4"))
    #expect(try message(file(value: nested(100_000))).contains("nested deeper than 4"))
    #expect(try message(file(key: String(repeating: "k", count: 65_536))).contains("too long"))
    for alignment: UInt32 in [0, 3, 48, 1 << 31] {
      #expect(
        try message(file(value: littleEndian(UInt32(4)) + littleEndian(alignment), key: "general.alignment"))
          .contains("power of two"))
    }
    for count: UInt32 in [801, UInt32.max] {
      #expect(
        try message(file(value: littleEndian(UInt32(4)) + littleEndian(count), key: "split.count"))
          .contains("metadata split.count"))
    }
    var bytes = file()
    bytes.replaceSubrange(8..<16, with: littleEndian(UInt64(1) << 60))
    #expect(try message(bytes).contains("tensors do not fit"))
    bytes = file()
    bytes.replaceSubrange(16..<24, with: littleEndian(UInt64.max))
    #expect(try message(bytes).contains("metadata entries do not fit"))
  }

  /// A vocabulary that is longer than the reader's window.
  @Test func longArrays() throws {
    var value = littleEndian(UInt32(9)) + littleEndian(UInt32(8)) + littleEndian(UInt64(60_001))
    for index in 0..<60_000 {
      let text = Array("token\(index)".utf8)
      value += littleEndian(UInt64(text.count)) + text
    }
    value += littleEndian(UInt64(700_000)) + [UInt8](repeating: 0x61, count: 700_000)
    let folder = try TemporaryFolder()
    let path = try folder.write("x.gguf", file(value: value))
    let strings = try #require(try GGUFSource(path: path).metadata["k"]?.strings)
    #expect(strings.count == 60_001)
    #expect((0..<60_000).allSatisfy { strings[$0].bytes == Array("token\($0)".utf8) })
    #expect(strings[60_000].bytes == [UInt8](repeating: 0x61, count: 700_000))
  }
}
