import Foundation
import SquintFile
import Testing

/// tools/squint_reader.py was written from formats/squint.md without a look at the Swift sources: what both say of the
/// same file is what the specification says.
@Suite(.enabled(if: Python.path != nil, "needs a Python with numpy, zstandard and xxhash (tools/requirements.txt)"))
struct PythonReaderTests {
  /// Every element type, to the bit; metadata of every kind; tables and checksums.
  @Test func readsWhatSwiftWrites() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      let contents = try Sample.write(to: path)
      let file = try ModelFile(path: path)

      let verified = try Python.run(Python.reader, path, "--verify", "--all", folder + "/tensors")
      #expect(verified.status == 0, "\(verified.errors)")
      for (tensor, bytes) in zip(file.tensors, contents) {
        let expected = Sample.values(of: tensor, bytes: bytes)
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/tensors/\(tensor.name).f32"))
        let found = data.withUnsafeBytes { raw in
          (0..<raw.count / 4).map {
            Float(bitPattern: UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
          }
        }
        try #require(found.count == expected.count, "\(tensor.name)")
        // Which NaN comes of a NaN is left to the machine; all else is equal to the bit, the sign of zero included.
        let different = expected.indices.first { index in
          found[index].bitPattern != expected[index].bitPattern && !(found[index].isNaN && expected[index].isNaN)
        }
        #expect(different == nil, "\(tensor.name): number \(different ?? 0)")
      }

      let listed = try Python.run(Python.reader, path, "--json")
      try #require(listed.status == 0, "\(listed.errors)")
      let listing = try JSONDecoder().decode(Listing.self, from: listed.output)
      #expect(listing.size == file.byteCount)
      #expect(listing.metadata.mapValues(\.value) == dictionary(file.metadata))
      #expect(try listing.bulkMetadata.mapValues(\.value) == dictionary(file.bulkMetadata()))
      #expect(
        listing.modules == file.modules.map { .init(name: $0.name, offset: $0.range.lowerBound, size: $0.range.count) })
      #expect(
        listing.tensors
          == file.tensors.map {
            .init(
              name: $0.name, type: $0.type.name, shape: $0.shape, module: file.modules[$0.module].name,
              offset: $0.range.lowerBound, size: $0.range.count,
              checksum: String(repeating: "0", count: 16 - String($0.checksum, radix: 16).count)
                + String($0.checksum, radix: 16))
          })
    }
  }

  @Test func writesNumpyArrays() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try Sample.write(to: path)
      let result = try Python.run(Python.reader, path, "--tensor", "decoder.int4.17x33", "-o", folder + "/a.npy")
      #expect(result.status == 0, "\(result.errors)")
      let data = try Data(contentsOf: URL(fileURLWithPath: folder + "/a.npy"))
      let headerBytes = Int(data[8]) | Int(data[9]) << 8
      #expect(String(decoding: data[10..<10 + headerBytes], as: UTF8.self).contains("'shape': (17, 33)"))
      #expect(data.count == 10 + headerBytes + 4 * 17 * 33)
      #expect(try Python.run(Python.reader, path, "--tensor", "none", "-o", folder + "/b.npy").status == 64)
      #expect(try Python.run(Python.reader, folder + "/none.squint").status == 66)
    }
  }

  /// A file with neither modules nor bulk metadata is a file, too.
  @Test func readsAnEmptyModel() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try ModelFileWriter(path: path, plan: ModelFilePlan()).finish()
      try ModelFile(path: path).verify()
      let result = try Python.run(Python.reader, path, "--verify")
      #expect(result.status == 0, "\(result.errors)")
    }
  }

  /// Bad data is one line and exit code 65.
  @Test func refusesDamage() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try Sample.write(to: path)
      let original = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
      let file = try ModelFile(path: path)
      let damaged = folder + "/b.squint"
      func expectRefusal(_ bytes: [UInt8], _ what: String, _ options: String...) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: damaged))
        let result = try Python.run([Python.reader, damaged] + options)
        #expect(result.status == 65, "\(what): \(result.errors)")
        #expect(result.errors.split(separator: "\n").count == 1, "\(what): \(result.errors)")
        #expect(result.errors.hasPrefix(damaged), "\(what): \(result.errors)")
        #expect(result.output.isEmpty, "\(what)")
      }
      func flipped(_ offset: Int) -> [UInt8] {
        var bytes = original
        bytes[offset] ^= 0x10
        return bytes
      }
      try expectRefusal([], "an empty file")
      try expectRefusal(Array(original.prefix(100)), "half a header")
      try expectRefusal(Array(original.dropLast()), "a truncated file")
      try expectRefusal(original + [0], "a longer file")
      try expectRefusal(flipped(0), "the magic")
      try expectRefusal(flipped(8), "the version")
      try expectRefusal(flipped(12), "a required feature")
      try expectRefusal(flipped(200), "the front")
      let frontBytes = Int(original[24]) | Int(original[25]) << 8
      func lying(_ offset: Int, _ byte: UInt8) -> [UInt8] {
        var bytes = original
        bytes[offset] = byte
        let sum = (bytes[..<120] + bytes[128..<128 + frontBytes]).withUnsafeBytes { checksum($0) }
        withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(120..<128, with: $0) }
        return bytes
      }
      try expectRefusal(lying(100, 1), "a reserved field")
      try expectRefusal(lying(32, original[32] + 8), "bulk metadata that is not aligned")
      try expectRefusal(lying(128 + 8 + "a.true".utf8.count, 2), "a boolean of 2")
      let bulk = original[32..<40].enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
      try expectRefusal(flipped(bulk + 20), "the bulk metadata", "--verify")
      try expectRefusal(flipped(file.tensors[3].range.upperBound - 1), "a tensor", "--verify")
      try expectRefusal(flipped(file.modules[0].range.lowerBound - 1), "the padding before a module", "--verify")
    }
  }

  /// Tables that lie behind a valid checksum: what the Swift reader refuses, the Python reader refuses, and neither
  /// stumbles.
  @Test func refusesWhatSwiftRefuses() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      try Sample.write(to: path, small: true)
      let original = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
      let frontBytes = Int(original[24]) | Int(original[25]) << 8
      // A fixed sequence, so that a failure can be repeated.
      var random = SplitMix(state: 1)
      var changes: [(offset: Int, byte: UInt8)] = []
      for offset in 8..<128 + frontBytes where !(120..<128).contains(offset) {
        for byte in [1, original[offset] ^ 0x80, UInt8(truncatingIfNeeded: random.next())] {
          changes.append((offset, byte))
        }
      }
      // Changed in place: a file written anew each time waits for the disk.
      let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
      func put(_ bytes: [UInt8], at offset: Int) throws {
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: bytes)
      }
      let verdicts = try changes.map { change in
        var bytes = Array(original[..<(128 + frontBytes)])
        bytes[change.offset] = change.byte
        let sum = (bytes[..<120] + bytes[128...]).withUnsafeBytes { checksum($0) }
        withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(120..<128, with: $0) }
        try put(bytes, at: 0)
        do {
          // Not `verify`, which would find by the checksums of the tensors what opening must find.
          _ = try ModelFile(path: path).bulkMetadata()
          return true
        } catch is SquintError { return false }
      }
      try put(Array(original[..<(128 + frontBytes)]), at: 0)
      let script = folder + "/changes.py"
      try """
      import sys
      sys.path.insert(0, sys.argv[1])
      import squint_reader, xxhash
      original = open(sys.argv[2], "rb").read()
      original = original[: 128 + int.from_bytes(original[24:32], "little")]
      with open(sys.argv[2], "r+b", buffering=0) as file:
          for line in sys.stdin:
              offset, byte = map(int, line.split())
              data = bytearray(original)
              data[offset] = byte
              data[120:128] = xxhash.xxh3_64_intdigest(data[:120] + data[128:]).to_bytes(8, "little")
              file.seek(0)
              file.write(data)
              try:
                  with squint_reader.SquintFile(sys.argv[2]) as model:
                      model.bulk_metadata
                  print(1)
              except squint_reader.SquintError as error:
                  print(0, error)
      """.write(toFile: script, atomically: true, encoding: .utf8)
      let result = try Python.run(
        [script, URL(fileURLWithPath: Python.reader).deletingLastPathComponent().path, path],
        input: changes.map { "\($0.offset) \($0.byte)\n" }.joined())
      try #require(result.status == 0, "\(result.errors)")
      let answers = String(decoding: result.output, as: UTF8.self).split(separator: "\n")
      try #require(answers.count == changes.count)
      for (index, answer) in answers.enumerated() where !verdicts[index] {
        #expect(answer.hasPrefix("0"), "byte \(changes[index].offset) is \(changes[index].byte)")
      }
      #expect(verdicts.contains(false) && verdicts.contains(true))
    }
  }
}

// MARK: The file

private enum Sample {
  static let rows = [1, 15, 16, 17, 40]
  static let columns = [1, 31, 32, 33, 100, 256, 288, 520, 576]
  static let plainShapes = [[1], [3, 5], [2, 3, 5], [2, 1, 3, 4]]

  /// Writes a file with every element type and every kind of metadata, and returns the tensors' bytes.
  @discardableResult
  static func write(to path: String, small: Bool = false) throws -> [[UInt8]] {
    var plan = ModelFilePlan()
    plan.metadata["a.true"] = .bool(true)
    plan.metadata["a.false"] = .bool(false)
    plan.metadata["a.int"] = .int(.min)
    plan.metadata["a.float"] = .float(0.1)
    plan.metadata["a.nan"] = .float(.nan)
    plan.metadata["a.text"] = .string("grüße 👩‍👩‍👧 \u{0}\n\"")
    plan.metadata["a.no_text"] = .string("")
    plan.metadata["a.bytes"] = .bytes([0, 255, 10])
    plan.metadata["a.ints"] = .ints([1, -2, .max])
    plan.metadata["a.floats"] = .floats([1.5, -0.0, .leastNonzeroMagnitude, .greatestFiniteMagnitude, .infinity])
    plan.metadata["a.texts"] = .strings(["", "x", "é"])
    plan.metadata["a.no_texts"] = .strings([])
    plan.bulkMetadata["b.texts"] = .strings((0..<(small ? 2 : 5000)).map { "token \($0)" })
    plan.bulkMetadata["b.bytes"] = .bytes([UInt8](repeating: 7, count: 5000))

    let quantized = ElementType.allCases.filter(\.isQuantized)
    let plain = ElementType.allCases.filter { !$0.isQuantized }
    var decoder: [ModelFilePlan.Tensor] = []
    for type in quantized {
      for rows in small ? [17] : rows {
        for columns in small ? [33] : columns {
          decoder.append(.init(name: "decoder.\(type.name).\(rows)x\(columns)", type: type, shape: [rows, columns]))
        }
      }
    }
    var encoder: [ModelFilePlan.Tensor] = []
    for type in plain {
      // [256, 256]: every f16 and every bf16 there is.
      for shape in small ? [[2, 3, 5]] : plainShapes + [[256, 256]] {
        let name = "encoder.image.\(type.name).\(shape.map(String.init).joined(separator: "x"))"
        encoder.append(.init(name: name, type: type, shape: shape))
      }
    }
    plan.modules = [.init(name: "decoder", tensors: decoder), .init(name: "encoder.image", tensors: encoder)]

    let writer = try ModelFileWriter(path: path, plan: plan)
    var random = SplitMix(state: 7)
    var contents: [[UInt8]] = []
    for (index, tensor) in plan.modules.flatMap(\.tensors).enumerated() {
      let count = try #require(tensor.type.byteCount(shape: tensor.shape))
      let bytes: [UInt8]
      if tensor.shape == [256, 256] && tensor.type.bytesPerPlainElement == 2 {
        bytes = (0..<65536).flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }
      } else {
        // Anything at all, in the padding too: a reader must leave it out.
        bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      }
      try bytes.withUnsafeBytes { try writer.append($0, toTensor: index) }
      contents.append(bytes)
    }
    try writer.finish()
    return contents
  }

  /// What the Swift decoders make of a tensor's bytes, row after row.
  static func values(of tensor: ModelFile.Tensor, bytes: [UInt8]) -> [Float] {
    bytes.withUnsafeBytes { bytes in
      func load<T: FixedWidthInteger>(_ index: Int, as type: T.Type) -> T {
        T(littleEndian: bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<T>.size, as: type))
      }
      switch tensor.type {
      case .f32: return (0..<tensor.elementCount).map { Float(bitPattern: load($0, as: UInt32.self)) }
      case .f16: return (0..<tensor.elementCount).map { HalfPrecision.float(load($0, as: UInt16.self)) }
      case .bf16:
        return (0..<tensor.elementCount).map { Float(bitPattern: UInt32(load($0, as: UInt16.self)) << 16) }
      case .int8, .int4, .int4F16:
        let codec = PanelCodec(PanelLayout(type: tensor.type, rows: tensor.shape[0], columns: tensor.shape[1])!)
        var values = [Float](repeating: 0, count: tensor.elementCount)
        values.withUnsafeMutableBufferPointer { values in
          for row in 0..<tensor.shape[0] {
            let start = row * tensor.shape[1]
            codec.dequantizeRow(
              row, of: bytes, into: UnsafeMutableBufferPointer(rebasing: values[start..<start + tensor.shape[1]]))
          }
        }
        return values
      }
    }
  }
}

/// The SplitMix64 generator (Steele, Lea, Flood 2014).
private struct SplitMix {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}

// MARK: What Python says

/// The reader's `--json`.
private struct Listing: Decodable {
  struct Module: Decodable, Equatable {
    let name: String
    let offset, size: Int
  }
  struct Tensor: Decodable, Equatable {
    let name, type: String
    let shape: [Int]
    let module: String
    let offset, size: Int
    let checksum: String
  }
  struct Entry: Decodable {
    let value: Exact

    private enum CodingKeys: CodingKey { case kind, value }
    /// JSON has no NaN and no infinity; the reader writes them as texts.
    private struct Number: Decodable {
      let value: Double
      init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        value = try (try? container.decode(Double.self)) ?? Double(container.decode(String.self)) ?? 0
      }
    }

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      func get<T: Decodable>(_ type: T.Type) throws -> T { try container.decode(type, forKey: .value) }
      switch try container.decode(String.self, forKey: .kind) {
      case "boolean": value = Exact(.bool(try get(Bool.self)))
      case "integer": value = Exact(.int(try get(Int64.self)))
      case "number": value = Exact(.float(try get(Number.self).value))
      case "text": value = Exact(.string(try get(String.self)))
      case "bytes":
        let digits = Array(try get(String.self))
        value = Exact(
          .bytes(stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...$0 + 1]), radix: 16)! }))
      case "integers": value = Exact(.ints(try get([Int64].self)))
      case "numbers": value = Exact(.floats(try get([Number].self).map(\.value)))
      case "texts": value = Exact(.strings(try get([String].self)))
      case let kind: throw DecodingError.dataCorruptedError(forKey: .kind, in: container, debugDescription: kind)
      }
    }
  }

  let size: Int
  let metadata, bulkMetadata: [String: Entry]
  let modules: [Module]
  let tensors: [Tensor]

  private enum CodingKeys: String, CodingKey {
    case size, metadata, modules, tensors
    case bulkMetadata = "bulk_metadata"
  }
}

/// A value as its entry's bytes, so that NaN equals NaN, 0 does not equal -0, and texts are equal byte for byte.
private struct Exact: Equatable {
  let bytes: [UInt8]

  init(_ value: MetadataValue) {
    var metadata = Metadata()
    metadata["value"] = value
    bytes = metadata.encoded()
  }
}

private func dictionary(_ metadata: Metadata) -> [String: Exact] {
  Dictionary(uniqueKeysWithValues: metadata.entries.map { ($0.key, Exact($0.value)) })
}

private func withTemporaryFolder<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}

private enum Python {
  private static let repository = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let reader = repository.appendingPathComponent("tools/squint_reader.py").path

  /// The first Python that has the packages: `SQUINT_PYTHON`, the one that tools/test makes, the system's.
  static let path: String? = [
    ProcessInfo.processInfo.environment["SQUINT_PYTHON"],
    repository.appendingPathComponent(".tools/venv/bin/python3").path,
    "python3",
  ].compactMap(\.self).first { candidate in
    (try? run(["-c", "import numpy, xxhash, zstandard"], with: candidate).status) == 0
  }

  struct Result {
    let status: Int32
    let output: Data
    let errors: String
  }

  static func run(_ arguments: String...) throws -> Result { try run(arguments) }

  static func run(_ arguments: [String], input: String = "") throws -> Result {
    try run(arguments, input: input, with: try #require(path))
  }

  private static func run(_ arguments: [String], input: String = "", with python: String) throws -> Result {
    // Files instead of pipes: nothing waits for a full buffer.
    let place = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)").path
    let names = ["in", "out", "err"].map { "\(place).\($0)" }
    defer { for name in names { try? FileManager.default.removeItem(atPath: name) } }
    for name in names { try Data(name.hasSuffix("in") ? input.utf8 : "".utf8).write(to: URL(fileURLWithPath: name)) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [python] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(["PYTHONDONTWRITEBYTECODE": "1"]) { $1 }
    process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: names[0]))
    process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: names[1]))
    process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: names[2]))
    try process.run()
    process.waitUntilExit()
    return Result(
      status: process.terminationStatus, output: try Data(contentsOf: URL(fileURLWithPath: names[1])),
      errors: String(decoding: try Data(contentsOf: URL(fileURLWithPath: names[2])), as: UTF8.self))
  }
}
