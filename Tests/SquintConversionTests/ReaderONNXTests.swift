import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct ReaderONNXTests {
  private static func source(_ name: String) throws -> ONNXSource {
    try ONNXSource(path: ReaderFixtures.path("onnx/\(name)"))
  }

  @Test(arguments: [
    "raw.f32", "raw.f16", "raw.bf16", "raw.f64", "list.f32", "list.f64", "list.f16", "list.bf16", "beside.f32",
    "beside.f16", "node.tensor",
  ])
  func everyStorage(_ name: String) throws {
    let source = try Self.source("storage.onnx")
    let tensor = try #require(source.tensor(named: name))
    #expect(tensor.shape == [2, 3])
    #expect(try source.read(tensor) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    // By position, too.
    var row = [Float](repeating: 0, count: 3)
    try row.withUnsafeMutableBufferPointer { try source.read(tensor, rows: 1..<2, into: $0) }
    #expect(row == [3.5, 4.5, 5.5])
    #expect(source.path(of: tensor).hasSuffix(name.hasPrefix("beside") ? "storage.data" : "storage.onnx"))
  }

  @Test func numbersOfNodes() throws {
    let source = try Self.source("storage.onnx")
    #expect(try source.read(#require(source.tensor(named: "node.scalar"))) == [0.5])
    #expect(try source.read(#require(source.tensor(named: "node.float"))) == [0.5])
    #expect(try source.read(#require(source.tensor(named: "node.floats"))) == [0.5, 1.5])
    #expect(source.tensor(named: "node.scalar")?.shape == [])
    #expect(source.tensor(named: "node.ints")?.type == .i64)
    let flow = try ONNXDataflow(source: source, place: "storage.onnx")
    #expect(try flow.integers(#require(source.tensor(named: "node.ints"))) == [0, 1, -2])
    #expect(try flow.integers(#require(source.tensor(named: "list.i32"))) == [-3, -2, -1, 0, 1, 2])
    #expect(try flow.integers(#require(source.tensor(named: "list.i64"))) == [-3, -2, -1, 0, 1, 2])
    #expect(try flow.integers(#require(source.tensor(named: "raw.i64"))) == [0, 1, 2, 3, 4, 5])
    #expect(source.tensor(named: "filled") == nil)
  }

  @Test func graph() throws {
    let graph = try Self.source("storage.onnx").graph
    #expect(graph.nodes.map(\.operation) == ["ConstantOfShape", "Add", "LeakyRelu", "Transpose", "Gelu"])
    #expect(graph.nodes[1].name == "sum")
    #expect(graph.nodes[1].inputs == ["x", "raw.f32"])
    #expect(graph.nodes[2].floats == ["alpha": [0.25]])
    #expect(graph.nodes[3].integers == ["perm": [1, 0]])
    #expect(graph.nodes[4].texts == ["approximate": "tanh"])
    #expect(graph.inputs.map(\.name) == ["x"])
    #expect(graph.inputs[0].shape == [nil, 3])
    #expect(graph.outputs == ["out"])
  }

  // MARK: Files that no writer makes

  private static func varint(_ value: UInt64) -> [UInt8] {
    var value = value
    var bytes: [UInt8] = []
    while value >= 0x80 {
      bytes.append(UInt8(value & 0x7F) | 0x80)
      value >>= 7
    }
    return bytes + [UInt8(value)]
  }

  private static func number(_ field: UInt64, _ value: UInt64) -> [UInt8] { varint(field << 3) + varint(value) }

  private static func message(_ field: UInt64, _ content: [UInt8]) -> [UInt8] {
    varint(field << 3 | 2) + varint(UInt64(content.count)) + content
  }

  private static func text(_ field: UInt64, _ text: String) -> [UInt8] { message(field, Array(text.utf8)) }

  /// A tensor "t" with dims, type and raw bytes.
  private static func tensor(
    dims: [UInt64] = [2], type: UInt64 = 1, raw: Int? = 8, more: [UInt8] = [], name: String = "t"
  ) -> [UInt8] {
    var bytes = dims.flatMap { number(1, $0) } + number(2, type) + text(8, name)
    if let raw { bytes += message(9, [UInt8](repeating: 0, count: raw)) }
    return message(5, bytes + more)
  }

  private static func model(_ graph: [UInt8]) -> [UInt8] { number(1, 8) + message(7, graph) }

  private func failure(_ bytes: [UInt8]) throws -> String {
    let folder = try TemporaryFolder()
    let path = try folder.write("x.onnx", bytes)
    let error = squintError { try ONNXSource(path: path) }
    #expect(error?.kind == .badData || error?.kind == .noInput)
    #expect(error?.message.contains("\n") == false)
    return error?.message ?? ""
  }

  @Test func smallestModel() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("x.onnx", Self.model(Self.tensor()))
    let source = try ONNXSource(path: path)
    #expect(try source.read(source.tensors[0]) == [0, 0])
    // Lists that are not packed, and lists in pieces.
    let unpacked = Self.varint(4 << 3 | 5) + littleEndian(Float(1.5).bitPattern)
    let pieces = Self.message(4, littleEndian(Float(2.5).bitPattern))
    for list in [unpacked + pieces, pieces + unpacked, unpacked + unpacked, pieces + pieces] {
      let bytes = Self.model(Self.tensor(raw: nil, more: list))
      let source = try ONNXSource(path: folder.write("y.onnx", bytes))
      let numbers = try source.read(source.tensors[0])
      #expect(numbers.count == 2 && numbers.allSatisfy { $0 == 1.5 || $0 == 2.5 })
    }
  }

  @Test func badTensors() throws {
    let model = Self.model
    #expect(try failure(model(Self.tensor(type: 8))).contains("tensor t: numbers of type 8 are not known"))
    #expect(try failure(model(Self.tensor(type: 0))).contains("numbers of type 0 are not known"))
    #expect(try failure(model(Self.tensor(raw: 4))).contains("4 bytes are not the 8 that a shape of [2] in F32 takes"))
    #expect(try failure(model(Self.tensor(raw: nil))).contains("0 bytes are not the 8"))
    let huge = UInt64(Int64.max)
    #expect(try failure(model(Self.tensor(dims: [huge, huge]))).contains("is too large"))
    #expect(try failure(model(Self.tensor(dims: [huge]))).contains("is too large"))
    #expect(try failure(model(Self.tensor(dims: [UInt64.max]))).contains("a dimension of -1 is no size"))
    #expect(try failure(model(Self.tensor(dims: Array(repeating: 1, count: 17)))).contains("too many dimensions"))
    #expect(try failure(model(Self.tensor() + Self.tensor())).contains("two tensors named t"))
    #expect(try failure(model(Self.message(15, []))).contains("sparse"))
    #expect(try failure(model(Self.tensor(more: Self.message(3, [])))).contains("segments"))
  }

  @Test func badMessages() throws {
    #expect(try failure([]).contains("the file is empty"))
    #expect(try failure(Self.number(1, 8)).contains("there is no graph"))
    #expect(try failure(Self.model([]) + Self.model([])).contains("two graphs"))
    #expect(try failure(Array("GGUF".utf8) + [3, 0, 0, 0]).contains("x.onnx: model: "))
    // A number of eleven bytes, and one of more than 64 bits.
    #expect(try failure([8] + [UInt8](repeating: 0xFF, count: 10) + [1]).contains("more than 64 bits"))
    #expect(try failure([8] + [UInt8](repeating: 0xFF, count: 9) + [2]).contains("more than 64 bits"))
    // A length past the end of the file, and one past the end of the message around it.
    #expect(try failure([7 << 3 | 2, 100]).contains("run past the end of the file"))
    #expect(try failure([7 << 3 | 2] + Self.varint(UInt64.max)).contains("run past the end of the file"))
    let inner = Self.message(7, [5 << 3 | 2, 9, 0]) + [UInt8](repeating: 0, count: 20)
    #expect(try failure(inner).contains("run past the end of the message"))
    // Groups, field 0, and a field of the wrong kind.
    #expect(try failure([7 << 3 | 3]).contains("there is no field at offset 0"))
    #expect(try failure([2, 0]).contains("there is no field at offset 0"))
    #expect(try failure(Self.number(7, 1)).contains("of a wrong kind"))
    #expect(
      try failure(Self.model(Self.text(5, "") + Self.message(1, Self.number(4, 1)))).contains("numbers of type 0"))
    #expect(try failure(Self.model(Self.message(1, Self.number(4, 1)))).contains("node 0: field 4"))
    #expect(try failure(Self.model(Self.message(1, Self.message(4, [0xFF])))).contains("not UTF-8"))
    let long = String(repeating: "x", count: 70_000)
    #expect(try failure(Self.model(Self.message(1, Self.text(4, long)))).contains("too long"))
  }

  @Test func externalData() throws {
    let folder = try TemporaryFolder()
    try FileManager.default.createDirectory(atPath: "\(folder.path)/model/weights", withIntermediateDirectories: true)
    try folder.write("outside.data", [UInt8](repeating: 1, count: 64))
    try folder.write("model/weights/inside.data", littleEndian(Float(2).bitPattern) + littleEndian(Float(3).bitPattern))
    func read(_ location: String, offset: String = "0", length: String = "8") throws -> [Float] {
      let entries = [("location", location), ("offset", offset), ("length", length)].flatMap {
        Self.message(13, Self.text(1, $0.0) + Self.text(2, $0.1))
      }
      let bytes = Self.model(Self.tensor(raw: nil, more: entries + Self.number(14, 1)))
      let source = try ONNXSource(path: folder.write("model/x.onnx", bytes))
      return try source.read(source.tensors[0])
    }
    #expect(try read("weights/inside.data") == [2, 3])
    for location in ["../outside.data", "\(folder.path)/outside.data", "weights/../../outside.data", "", ".."] {
      let error = squintError { try read(location) }
      #expect(error?.message.contains("is not below the model's folder") == true, "\(location): \(error as Any)")
    }
    #expect(squintError { try read("weights/absent.data") }?.kind == .noInput)
    #expect(squintError { try read("weights") }?.kind == .noInput)
    #expect(squintError { try read("weights/inside.data", offset: "1") }?.message.contains("run past the end") == true)
    #expect(squintError { try read("weights/inside.data", offset: "-1") }?.message.contains("the offset") == true)
    let most = String(Int.max)
    #expect(squintError { try read("weights/inside.data", offset: most) }?.message.contains("run past the end") == true)
    #expect(squintError { try read("weights/inside.data", length: most) }?.message.contains("are not the 8") == true)
    #expect(squintError { try read("weights/inside.data", length: "1e3") }?.message.contains("the length") == true)
  }

  /// Numbers that are not raw are held in memory, so a file must not make us hold any amount.
  @Test func boundedMemory() throws {
    let folder = try TemporaryFolder()
    // 20 million varints would be 160 MB.
    let graph = Self.tensor(
      dims: [20_000_000], type: 7, raw: nil, more: Self.message(7, [UInt8](repeating: 1, count: 20_000_000)))
    let path = try folder.write("x.onnx", Self.model(graph))
    #expect(squintError { try ONNXSource(path: path) }?.message.contains("raw data") == true)
    // A million empty nodes of two bytes each.
    let nodes = (0..<2_000_000).map { $0 % 2 == 0 ? UInt8(10) : 0 }
    let nodePath = try folder.write("y.onnx", Self.model(nodes))
    #expect(squintError { try ONNXSource(path: nodePath) }?.message.contains("more than is read of a graph") == true)
  }

  // MARK: Damaged files

  /// Opens and reads everything in a file of `bytes`, the encoder, too.
  @discardableResult
  private func read(_ bytes: some Sequence<UInt8>, in folder: TemporaryFolder) throws -> Bool {
    let path = try folder.write("x.onnx", bytes)
    let error = squintError {
      let source = try ONNXSource(path: path)
      for tensor in source.tensors where tensor.type.isReadable { _ = try source.read(tensor) }
      let encoder = try EncoderPart(onnx: path, name: "image")
      for tensor in encoder.tensors.source.tensors { _ = try encoder.tensors.source.read(tensor) }
    }
    if let error {
      #expect(error.kind == .badData || error.kind == .noInput, "\(error)")
      #expect(!error.message.contains("\n"), "\(error)")
    }
    return error != nil
  }

  @Test(arguments: ["storage.onnx", "dynamo.onnx"])
  func truncated(_ name: String) throws {
    let folder = try TemporaryFolder()
    let bytes = try ReaderFixtures.bytes("onnx/\(name)")
    try folder.write("storage.data", ReaderFixtures.bytes("onnx/storage.data"))
    let lengths = Array(0..<min(bytes.count, 1300)) + stride(from: 1300, to: bytes.count, by: 97)
    for length in lengths { #expect(try read(bytes[..<length], in: folder), "\(name) cut to \(length) bytes") }
  }

  @Test(arguments: ["storage.onnx", "dynamo.onnx", "original.onnx"])
  func flippedBytes(_ name: String) throws {
    let folder = try TemporaryFolder()
    var random = FixtureRandom(seed: 17)
    let bytes = try ReaderFixtures.bytes("onnx/\(name)")
    try folder.write("storage.data", ReaderFixtures.bytes("onnx/storage.data"))
    for _ in 0..<1500 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        changed[place] = random.next() & 1 == 0 ? UInt8.random(in: 0...255, using: &random) : changed[place] ^ 0x80
      }
      try read(changed, in: folder)
    }
  }
}
