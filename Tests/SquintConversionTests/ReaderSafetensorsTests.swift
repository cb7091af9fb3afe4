import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct ReaderSafetensorsTests {
  @Test func everyType() throws {
    for path in [ReaderFixtures.path("plain"), ReaderFixtures.path("plain/model.safetensors")] {
      let source = try SafetensorsSource(path: path)
      let expected: [(String, SourceType, [Int])] = [
        ("a.f16", .f16, [5, 2]), ("b.bf16", .bf16, [2, 3]), ("c.f32", .f32, [2, 3, 4]), ("d.f64", .f64, [4]),
        ("e.scalar", .f32, []), ("f.empty", .f32, [0, 7]), ("g.i64", .i64, [3]), ("h.bool", .bool, [2]),
        ("ü.name", .f32, [1]),
      ]
      #expect(source.tensors.count == expected.count)
      var numbers: [Float] = []
      for (name, type, shape) in expected {
        let tensor = try #require(source.tensor(named: name))
        #expect(tensor.name == name)
        #expect(tensor.type == type)
        #expect(tensor.shape == shape)
        if type.isReadable {
          numbers += try source.read(tensor)
        } else {
          #expect(squintError { try source.read(tensor) }?.message.contains("type \(type.name) cannot") == true)
        }
      }
      #expect(ReaderFixtures.identical(numbers, try ReaderFixtures.numbers("plain/model.f32")))
      #expect(source.metadata == ["format": "pt", "maker": "Grüße"])
    }
  }

  @Test func rowsOfMatrices() throws {
    let source = try SafetensorsSource(path: ReaderFixtures.path("plain"))
    let tensor = try #require(source.tensor(named: "c.f32"))
    #expect(tensor.rows == 2)
    #expect(tensor.columns == 12)
    let whole = try source.read(tensor)
    var row = [Float](repeating: 0, count: 12)
    try row.withUnsafeMutableBufferPointer { try source.read(tensor, rows: 1..<2, into: $0) }
    #expect(row == Array(whole[12...]))
  }

  @Test func folders() throws {
    for name in ["sharded", "unindexed"] {
      let source = try SafetensorsSource(path: ReaderFixtures.path(name))
      #expect(source.tensors.map(\.name).sorted() == ["x", "y", "z"])
      #expect(try source.read(try #require(source.tensor(named: "x"))) == [0, 1, 2, 3, 4, 5])
      let last = try #require(source.tensor(named: "z"))
      #expect(try source.read(last) == [0, 1, 2, 3])
      #expect(source.path(of: last).hasSuffix("\(name)/model-00002-of-00002.safetensors"))
    }
    let folder = try TemporaryFolder()
    #expect(squintError { try SafetensorsSource(path: folder.path) }?.message.contains("no *.safetensors") == true)
    #expect(squintError { try SafetensorsSource(path: folder.path + "/x") }?.kind == .noInput)

    let shard = try ReaderFixtures.bytes("sharded/model-00001-of-00002.safetensors")
    try folder.write("a.safetensors", shard)
    try folder.write("b.safetensors", shard)
    // The same tensors twice are the same; others of their names are not.
    let twice = try SafetensorsSource(path: folder.path)
    #expect(twice.tensors.count == 2)
    #expect(twice.notes.count == 1)
    var other = shard
    other[other.count - 1] ^= 1
    try folder.write("b.safetensors", other)
    let differs = squintError { try SafetensorsSource(path: folder.path) }?.message
    #expect(differs?.contains("b.safetensors: there are two tensors named") == true)
    #expect(differs?.contains("a.safetensors)") == true)
    try folder.write("model.safetensors", shard)  // stands for the whole
    #expect(try SafetensorsSource(path: folder.path).tensors.count == 2)
  }

  @Test func badIndexes() throws {
    let folder = try TemporaryFolder()
    try folder.write("a.safetensors", ReaderFixtures.bytes("sharded/model-00001-of-00002.safetensors"))
    try folder.write("b.safetensors", ReaderFixtures.bytes("sharded/model-00002-of-00002.safetensors"))
    func message(_ index: String) throws -> String {
      try folder.write("model.safetensors.index.json", Array(index.utf8))
      return squintError { try SafetensorsSource(path: folder.path) }?.message ?? "no error"
    }
    #expect(
      try message(#"{"weight_map": {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}"#) == "no error")
    #expect(try message(#"{"weight_map": {"z": "a.safetensors"}}"#) == "no error")  // it is in the other one
    #expect(try message(#"{"weight_map": {"w": "a.safetensors"}}"#) == "no error")  // what needs it says so
    #expect(try message(#"{"weight_map": {"x": "c.safetensors"}}"#) == "no error")
    #expect(
      try message(#"{"weight_map": {"w": "c.safetensors", "v": "d.safetensors"}}"#)
        .contains("index.json: c.safetensors, d.safetensors are missing"))
    #expect(try message(#"{"weight_map": {}}"#).contains("weight_map is empty"))
    for name in ["../a.safetensors", "/etc/passwd", "..", "", "a\\u0000b"] {
      #expect(try message(#"{"weight_map": {"x": "\#(name)"}}"#).contains("not named by a file name"))
    }
    #expect(try message(#"{"weight_map": {"x": 1}}"#).contains("not named by a file name"))
    #expect(try message("{}").contains("no weight_map"))
    #expect(try message("[").contains("model.safetensors.index.json: line 1, column 2: not valid JSON"))
  }

  private func message(header: String, data: Int = 0) throws -> String {
    let folder = try TemporaryFolder()
    let bytes = littleEndian(UInt64(header.utf8.count)) + Array(header.utf8) + [UInt8](repeating: 0, count: data)
    let path = try folder.write("x.safetensors", bytes)
    let error = squintError { try SafetensorsSource(path: path) }
    #expect(error == nil || error?.kind == .badData)
    return error?.message ?? "no error"
  }

  private func entry(_ name: String, _ type: String, _ shape: String, _ begin: Int, _ end: Int) -> String {
    #""\#(name)":{"dtype":"\#(type)","shape":\#(shape),"data_offsets":[\#(begin),\#(end)]}"#
  }

  @Test func badHeaders() throws {
    #expect(try message(header: "{\(entry("a", "F32", "[2]", 0, 8))}  ", data: 8) == "no error")
    #expect(try message(header: "{}") == "no error")
    #expect(try message(header: "{\(entry("a", "F32", "[2]", 0, 8))}", data: 7).contains("download is incomplete"))
    #expect(try message(header: "{\(entry("a", "F32", "[2]", 0, 8))}", data: 9).contains("the tensors end at offset"))
    #expect(try message(header: "{\(entry("a", "F32", "[3]", 0, 8))}", data: 8).contains("takes 12 bytes, not 8"))
    #expect(
      try message(header: "{\(entry("a", "F32", "[2]", 0, 8)),\(entry("b", "F32", "[2]", 4, 12))}", data: 12)
        .contains("tensor b: it starts at offset"))
    #expect(
      try message(header: "{\(entry("a", "F32", "[1]", 0, 4)),\(entry("b", "F32", "[1]", 8, 12))}", data: 12)
        .contains("leaves a hole"))
    // Of two entries with one name the last counts, so the first one's bytes are a hole.
    #expect(
      try message(header: "{\(entry("a", "F32", "[1]", 0, 4)),\(entry("a", "F32", "[1]", 4, 8))}", data: 8)
        .contains("leaves a hole"))
    #expect(try message(header: "{\(entry("a", "F32", "[2]", 8, 0))}", data: 8).contains("not within"))
    #expect(try message(header: "{\(entry("a", "F32", "[2]", -8, 0))}", data: 8).contains("not within"))
    #expect(try message(header: "{\(entry("a", "F32", "[2]", 0, Int.max))}", data: 8).contains("not within"))
    #expect(try message(header: "{\(entry("a", "F32", "[-1]", 0, 8))}", data: 8).contains("shape is not valid"))
    #expect(try message(header: "{\(entry("a", "F32", "[1.5]", 0, 8))}", data: 8).contains("shape is not valid"))
    #expect(
      try message(header: "{\(entry("a", "F32", "[4294967296,4294967296]", 0, 8))}", data: 8).contains("too large"))
    #expect(try message(header: "{\(entry("a", "F32", "[4611686018427387904]", 0, 8))}", data: 8).contains("too large"))
    #expect(
      try message(
        header: "{\(entry("a", "F32", "[\(Array(repeating: "1", count: 17).joined(separator: ","))]", 0, 4))}"
      )
      .contains("17 dimensions"))
    #expect(try message(header: "{\(entry("a", "F99", "[2]", 0, 8))}", data: 8).contains("unknown type F99"))
    #expect(try message(header: "{\(entry("a", "Q4_0", "[32]", 0, 18))}", data: 18).contains("unknown type Q4_0"))
    #expect(try message(header: #"{"a":{"dtype":"F32","shape":[2]}}"#).contains("no dtype, shape or data_offsets"))
    #expect(try message(header: #"{"a":1}"#).contains("no dtype, shape or data_offsets"))
    #expect(try message(header: "[]").contains("not a JSON object"))
    #expect(try message(header: "{\"a\"").contains("x.safetensors: header: line 1, column 5: not valid JSON"))
    #expect(try message(header: #"{"__metadata__":[]}"#).contains("__metadata__ is not a JSON object"))
    #expect(try message(header: #"{"__metadata__":{"a":1}}"#).contains("the value of a is not a string"))
    #expect(
      try message(header: "{\(entry("a", "F4", "[3,2]", 0, 3)),\(entry("b", "F6_E2M3", "[4]", 3, 6))}", data: 6)
        == "no error")
  }

  @Test func badLengths() throws {
    let folder = try TemporaryFolder()
    func message(_ bytes: [UInt8]) throws -> String {
      let path = try folder.write("x.safetensors", bytes)
      return squintError { try SafetensorsSource(path: path) }?.message ?? "no error"
    }
    #expect(try message([]).contains("is empty"))
    #expect(try message([1, 2, 3]).contains("too few"))
    #expect(try message(littleEndian(UInt64(3)) + [0x7B]).contains("runs past the end of the file (9 bytes)"))
    #expect(try message(littleEndian(UInt64.max)).contains("too long"))
    #expect(try message(littleEndian(UInt64(1) << 60)).contains("too long"))
  }
}
