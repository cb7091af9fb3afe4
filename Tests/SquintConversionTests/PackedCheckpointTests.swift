import Foundation
import SquintConversion
import SquintFile
import Testing

/// Checkpoints in few bits (tools/fixtures/quantized_checkpoints.py), beside the numbers that the packages of their schemes
/// give.
@Suite struct PackedCheckpointTests {
  static let folder = ConverterFixture.folder.appendingPathComponent("quantized-checkpoints")
  static let names = [
    "awq", "awq-gemv-32", "awq-gemv-64", "compressed-tensors", "fp8-blocks", "fp8-plain", "fp8-rows", "gptq",
    "gptq-symmetric", "gptq-v2", "mlx", "mlx-bf16",
  ]

  private func path(_ name: String) -> String { Self.folder.appendingPathComponent(name).path }

  private func expected(_ name: String) throws -> JSONValue { try JSONValue.read(path: "\(path(name))/expected.json") }

  private func hash(_ numbers: [Float]) -> String {
    let digits = String(numbers.map { $0 == 0 ? 0 : $0 }.withUnsafeBytes { checksum($0) }, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  /// The folder's tensors as the converter sees them, and what it says of them.
  private func open(_ folder: String) throws -> (source: any TensorSource, notes: [String]) {
    var notes: [String] = []
    let source = try QuantizationScheme.dequantized(
      SafetensorsSource(path: folder), config: JSONValue.read(path: "\(folder)/config.json"), place: folder,
      notes: &notes)
    return (source, notes)
  }

  @Test func allAreTested() throws {
    #expect(try contents(of: Self.folder.path) == Self.names)
  }

  // MARK: Numbers

  @Test(arguments: names) func f32IsWhatThePackagesGive(name: String) throws {
    try withFolder { folder in
      var options = ConversionOptions()
      options.type = .f32
      let report = try convert(source: path(name), to: "\(folder)/model.squint", options: options)
      let model = try ModelFile(path: "\(folder)/model.squint")
      let expected = try expected(name)
      for tensor in report.tensors {
        let wanted = try #require(expected[transformersName(tensor.name)], "\(tensor.name)")
        #expect(tensor.sourceType == wanted["type"]?.string, "\(tensor.name)")
        #expect(try hash(model.numbers(tensor.name)) == wanted["xxh3"]?.string, "\(tensor.name)")
      }
      #expect(report.tensors.count == expected.object?.members.count)
      #expect(report.unmapped.isEmpty)
      #expect(report.notes.contains { $0.hasPrefix("the weights were quantized before: ") } == (name != "fp8-plain"))
      // What is stored agrees with what is said, but for the one matrix that is to show the other.
      #expect(
        report.notes.contains { $0.contains("the configuration says") }
          == ["awq", "fp8-blocks", "gptq-symmetric", "gptq-v2"].contains(name))
    }
  }

  /// Where a type of ours holds the numbers exactly it does; the others are of few bits or of more than five.
  @Test(arguments: names) func whatCanBeIsKept(name: String) throws {
    try withFolder { folder in
      let report = try convert(source: path(name), to: "\(folder)/model.squint")
      let model = try ModelFile(path: "\(folder)/model.squint")
      let expected = try expected(name)
      var kept = 0
      for tensor in report.tensors where tensor.shape.count == 2 {
        let wanted = try #require(expected[transformersName(tensor.name)])
        let isInLayer = tensor.name.hasPrefix("decoder.0.")
        let exact = wanted["exact"]?.string
        #expect(tensor.isKept == (exact != nil), "\(tensor.name)")
        if let exact {
          kept += 1
          #expect(tensor.type.name == exact, "\(tensor.name)")
          #expect(try hash(model.numbers(tensor.name)) == wanted["xxh3"]?.string, "\(tensor.name)")
        } else if let bits = wanted["type"]?.string?.split(separator: "int").last?.first?.wholeNumberValue,
          wanted["type"]?.string?.contains("int") == true
        {
          #expect(tensor.type == (bits > 5 || !isInLayer ? .int8 : .int4), "\(tensor.name)")
        }
      }
      #expect((kept > 0) == ["awq", "compressed-tensors", "gptq-symmetric", "mlx", "mlx-bf16"].contains(name))
      var options = ConversionOptions()
      options.keep = false
      #expect(try planConversion(source: path(name), options: options).tensors.allSatisfy { !$0.isKept })
    }
  }

  /// Any rows, whole or in part, are those of the whole.
  @Test(arguments: names) func partsAreThoseOfTheWhole(name: String) throws {
    let source = try open(path(name)).source
    func isPart(_ tensor: SourceTensor, _ rows: Range<Int>, of whole: [Float]) throws -> Bool {
      var part = [Float](repeating: 0, count: rows.count * tensor.columns)
      try part.withUnsafeMutableBufferPointer { try source.read(tensor, rows: rows, into: $0) }
      return part == Array(whole[rows.lowerBound * tensor.columns..<rows.upperBound * tensor.columns])
    }
    for tensor in source.tensors where tensor.shape.count == 2 {
      let whole = try source.read(tensor)
      for rows in [0..<1, 3..<12, 7..<8, 17..<tensor.rows] {
        let isEqual = try isPart(tensor, rows, of: whole)
        #expect(isEqual, "\(tensor.name), \(rows)")
      }
      guard tensor.type == .f32, let narrow = tensor.reshaped([tensor.elementCount / 8, 8]) else { continue }
      let isEqual = try isPart(narrow, 5..<26, of: whole)
      #expect(isEqual, "\(tensor.name) in rows of 8")
    }
  }

  @Test func everyFloatOfAByte() throws {
    // PyTorch: torch.arange(256, dtype=torch.uint8).view(torch.float8_…).float()
    func numbers(_ type: SourceType) -> [Float] {
      [Float](unsafeUninitializedCapacity: 256) { buffer, count in
        dequantize(type, blocks: 256, from: Array(UInt8.min...UInt8.max), into: buffer.baseAddress!)
        count = 256
      }
    }
    let e4m3 = numbers(.f8e4m3)
    #expect(
      [0, 1, 7, 8, 0x38, 0x7e, 0x80, 0x81, 0xfe].map { e4m3[$0] } == [
        0, 0x1p-9, 0x7p-9, 0x1p-6, 1, 448, -0, -0x1p-9, -448,
      ])
    #expect(e4m3[0x80].sign == .minus && e4m3[0x7f].isNaN && e4m3[0xff].isNaN)
    #expect(e4m3.filter(\.isFinite).count == 254)
    let e5m2 = numbers(.f8e5m2)
    #expect([0, 1, 3, 4, 0x3c, 0x7b, 0xbc].map { e5m2[$0] } == [0, 0x1p-16, 0x3p-16, 0x1p-14, 1, 57344, -1])
    #expect(e5m2[0x7c] == .infinity && e5m2[0x7d].isNaN)
    let e8m0 = numbers(.f8e8m0)
    #expect([0, 1, 127, 128, 254].map { e8m0[$0] } == [0x1p-127, 0x1p-126, 1, 2, 0x1p127] && e8m0[255].isNaN)
  }

  // MARK: What is stored and what is said

  /// Reads `name` after `change` to its tensors and its config.
  private func changed(
    _ name: String, _ change: (inout [String: StoredTensor], inout [String: Any]) -> Void
  ) throws -> (source: any TensorSource, notes: [String]) {
    let folder = try TemporaryFolder()
    var tensors = try StoredTensor.read("\(path(name))/model.safetensors")
    let config = try Data(contentsOf: URL(fileURLWithPath: "\(path(name))/config.json"))
    var json = try #require(JSONSerialization.jsonObject(with: config) as? [String: Any])
    change(&tensors, &json)
    try folder.write("config.json", JSONSerialization.data(withJSONObject: json))
    try folder.write("model.safetensors", StoredTensor.file(tensors))
    let (source, notes) = try open(folder.path)
    // The files stay open without their folder.
    for tensor in source.tensors { _ = try source.read(tensor) }
    return (source, notes)
  }

  private func message(
    _ name: String, _ change: (inout [String: StoredTensor], inout [String: Any]) -> Void
  ) -> String {
    let error = squintError { try changed(name, change) }
    #expect(error == nil || error?.kind == .badData)
    return error?.message ?? "no error"
  }

  private let layer = "model.layers.0."

  private func isRead(_ name: String, _ source: any TensorSource) throws -> Bool {
    let expected = try expected(name)
    return try source.tensors.filter { $0.shape.count == 2 }.allSatisfy {
      try hash(source.read($0)) == expected[$0.name]?["xxh3"]?.string
    }
  }

  @Test func theTensorsDecide() throws {
    // Another method, other bits, other groups, or no word at all.
    for said: [String: Any] in [
      ["quant_method": "gptq", "bits": 3, "group_size": 16], ["quant_method": "awq", "bits": 8, "group_size": -1], [:],
    ] {
      let (source, notes) = try changed("awq") { $1["quantization_config"] = said.isEmpty ? nil : said }
      #expect(try isRead("awq", source))
      if let bits = said["bits"] {
        #expect(notes.contains { $0.contains("the configuration says \(bits) bits, what is stored has 4: \(layer)") })
      }
    }
    #expect(
      try isRead("gptq-symmetric", changed("gptq-symmetric") { $1["quantization_config"] = nil }.source))
    // MLX's shapes give bits times group size: one of the two must be said, or is the usual.
    let (source, notes) = try changed("mlx") {
      $1["quantization"] = ["group_size": 32, "bits": 8]
      $1["quantization_config"] = nil
      $0 = $0.filter { !$0.key.hasPrefix("model.layers") || $0.key.contains("v_proj") || $0.key.contains("up_proj") }
    }
    #expect(source.tensor(named: "\(layer)self_attn.v_proj.weight")?.shape == [32, 64])
    #expect(source.tensor(named: "\(layer)mlp.up_proj.weight")?.shape == [128, 64])
    #expect(
      notes.contains {
        $0.contains(
          "says 8 bits in groups of 32, what is stored is taken to have 4 bits in groups of 32: \(layer)self_attn.v_proj.weight"
        )
      })
  }

  /// A symmetric matrix shows whether its zero points are stored as one less.
  @Test func zeroPointsOfBothFormats() throws {
    let (source, notes) = try changed("gptq-symmetric") {
      $1["quantization_config"] = ["quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"]
    }
    #expect(try isRead("gptq-symmetric", source))
    #expect(notes.contains { $0.contains("the zero points are stored as in gptq, not gptq_v2") })
    // Where the configuration says that they differ it is followed.
    let other = try changed("gptq-symmetric") {
      $1["quantization_config"] = [
        "quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2", "sym": false,
      ]
    }
    #expect(try !isRead("gptq-symmetric", other.source))
  }

  @Test func scalesOfActivationsAreLeftOut() throws {
    let notes = try open(path("fp8-rows")).notes
    #expect(notes.contains { $0.hasPrefix("input_scale of 1 modules is for quantized activations") })
    #expect(notes.contains { $0.hasPrefix("k_scale of 1 modules") })
  }

  @Test func allZero() throws {
    let (source, _) = try changed("awq") { tensors, _ in
      for name in tensors.keys where !name.hasSuffix("norm.weight") {
        let count = tensors[name]?.bytes.count ?? 0
        tensors[name]?.bytes = Data(count: count)
      }
    }
    for tensor in source.tensors where tensor.shape.count == 2 {
      #expect(try source.read(tensor).allSatisfy { $0 == 0 })
    }
  }

  // MARK: Hostile

  @Test func partsThatDoNotFit() {
    let q = "\(layer)self_attn.q_proj"
    func wrong(_ name: String, _ tensor: String, _ change: @escaping (inout StoredTensor) -> Void) -> String {
      message(name) { tensors, _ in if var changed = tensors[tensor] { change(&changed); tensors[tensor] = changed } }
    }
    func reshape(_ shape: [Int], _ type: String? = nil) -> (inout StoredTensor) -> Void {
      {
        $0.shape = shape
        $0.type = type ?? $0.type
        $0.bytes = Data(count: shape.reduce(1, *) * (["I64": 8, "I32": 4, "F32": 4, "F16": 2][$0.type] ?? 1))
      }
    }
    for name in ["awq", "gptq"] {
      for shape in [[3, 64], [2, 65], [128], [0, 64], [64, 0], [1, 1, 2]] {
        #expect(wrong(name, "\(q).scales", reshape(shape)).contains("does not fit \(q).qweight"), "\(name) \(shape)")
      }
      #expect(wrong(name, "\(q).scales", reshape([2, 64], "I32")).contains("tensor \(q).scales: shape"))
      #expect(wrong(name, "\(q).qzeros", reshape([1, 8])).contains("tensor \(q).qzeros: shape"))
      #expect(wrong(name, "\(q).qzeros", reshape([2, 64], "I64")).contains("does not fit"))
      #expect(wrong(name, "\(q).qweight", reshape([32, 8], "I64")).contains("is not supported"))
      #expect(wrong(name, "\(q).qweight", reshape([64])).contains("is not supported"))
      #expect(message(name) { tensors, _ in tensors["\(q).scales"] = nil }.contains("there is no scales beside it"))
      #expect(
        message(name) { tensors, _ in tensors["\(q).weight"] = tensors["model.norm.weight"] }
          .contains("tensor \(q).qweight: there is \(q).weight beside it"))
      for (bits, text) in [(0x7c00, "inf"), (0xfc00, "-inf"), (0x7e00, "nan")] {
        #expect(
          wrong(name, "\(q).scales") { $0.bytes.replaceSubrange(6..<8, with: [UInt8(bits & 255), UInt8(bits >> 8)]) }
            .contains("tensor \(q).scales: the number of row 3, group 0 is \(text), not a finite number"))
      }
    }
    for (value, text) in [(UInt8(2), "2"), (255, "-1")] {
      #expect(
        wrong("gptq", "\(q).g_idx") {
          $0.bytes.replaceSubrange(20..<24, with: value == 255 ? [255, 255, 255, 255] : [value, 0, 0, 0])
        }
        .contains("tensor \(q).g_idx: column 5 is in group \(text), but there are 2"))
    }
    #expect(wrong("gptq", "\(q).g_idx", reshape([1 << 20])).contains("does not fit"))
    #expect(message("gptq") { tensors, _ in tensors["\(q).g_idx"] = nil }.contains("there is no g_idx beside it"))
    #expect(wrong("gptq", "\(q).g_idx", reshape([8, 8])).contains("tensor \(q).g_idx: shape"))
    #expect(wrong("gptq", "\(q).g_idx", reshape([64], "F32")).contains("tensor \(q).g_idx: numbers of type F32"))

    #expect(wrong("mlx", "\(q).scales", reshape([64, 5])).contains("tensor \(q).scales: shape"))
    #expect(wrong("mlx", "\(q).biases", reshape([64, 3])).contains("tensor \(q).biases: shape"))
    #expect(message("mlx") { tensors, _ in tensors["\(q).biases"] = nil }.contains("there is no biases beside it"))
    #expect(
      message("mlx") { tensors, config in
        tensors["\(q).biases"] = nil
        config["quantization"] = ["group_size": 32, "bits": 4, "mode": "mxfp4"]
      }.contains("tensor \(q).weight: it is quantized by MLX in the mode mxfp4"))
    #expect(message("mlx") { tensors, _ in tensors["\(q).scales"] = nil }.contains("MLX"))

    #expect(
      wrong("fp8-blocks", "\(q).weight_scale_inv", reshape([3, 5])).contains("tensor \(q).weight_scale_inv: shape"))
    #expect(
      message("fp8-blocks") { tensors, _ in tensors["\(q).weight_scale_inv"] = nil }.contains(
        "there is no weight_scale beside it"))

    #expect(
      wrong("compressed-tensors", "\(q).weight_shape") {
        $0.bytes.replaceSubrange(8..<16, with: [UInt8](repeating: 255, count: 8))
      }
      .contains("tensor \(q).weight_shape: the shape [64, -1]"))
    #expect(
      wrong("compressed-tensors", "\(q).weight_shape") {
        $0.bytes.replaceSubrange(8..<16, with: [0, 0, 0, 0, 0, 0, 0, 64])
      }
      .contains("tensor \(q).weight_shape: the shape [64, 46"))
    #expect(
      wrong("compressed-tensors", "\(q).weight_shape") { $0.bytes[8] = 65 }.contains(
        "tensor \(q).weight_packed: shape [64, 8]"))
    #expect(
      message("compressed-tensors") { tensors, _ in tensors["\(q).weight_shape"] = nil }.contains(
        "only pack-quantized is supported"))
    #expect(
      message("compressed-tensors") { _, config in
        config["quantization_config"] = [
          "quant_method": "compressed-tensors", "transform_config": ["config_groups": ["a": [:]]],
        ]
      }.contains("with a transform_config"))
    #expect(
      message("awq") { tensors, _ in tensors["\(layer)mlp.act.scales"] = tensors["model.norm.weight"] }
        .contains("tensor \(layer)mlp.act.scales: AWQ's scales of an activation"))
  }

  /// A weight that is not a number is found when it is read.
  @Test func weightsThatAreNoNumbers() throws {
    let folder = try TemporaryFolder()
    var tensors = try StoredTensor.read("\(path("fp8-rows"))/model.safetensors")
    tensors["\(layer)mlp.gate_proj.weight"]?.bytes[70] = 0x7f
    try folder.write("model.safetensors", StoredTensor.file(tensors))
    try folder.write("config.json", Data(contentsOf: URL(fileURLWithPath: "\(path("fp8-rows"))/config.json")))
    let error = squintError { try convert(source: folder.path, to: "\(folder.path)/model.squint") }
    #expect(error?.message.contains("tensor \(layer)mlp.gate_proj.weight: row 1, column 6: the weight is nan") == true)
  }
}

/// A tensor of a safetensors file as bytes, for tests that spoil it.
struct StoredTensor {
  var type: String
  var shape: [Int]
  var bytes: Data

  static func read(_ path: String) throws -> [String: StoredTensor] {
    let file = try Data(contentsOf: URL(fileURLWithPath: path))
    let headerBytes = file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try #require(
      JSONSerialization.jsonObject(with: file[8..<8 + headerBytes]) as? [String: [String: Any]])
    var tensors: [String: StoredTensor] = [:]
    for (name, entry) in header where name != "__metadata__" {
      let offsets = try #require(entry["data_offsets"] as? [Int])
      tensors[name] = StoredTensor(
        type: try #require(entry["dtype"] as? String), shape: try #require(entry["shape"] as? [Int]),
        bytes: Data(file[8 + headerBytes + offsets[0]..<8 + headerBytes + offsets[1]]))
    }
    return tensors
  }

  static func file(_ tensors: [String: StoredTensor]) throws -> Data {
    var header: [String: Any] = [:]
    var data = Data()
    for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
      let start = data.count
      data += tensor.bytes
      header[name] =
        ["dtype": tensor.type, "shape": tensor.shape, "data_offsets": [start, data.count]] as [String: Any]
    }
    let json = try JSONSerialization.data(withJSONObject: header)
    return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json + data
  }
}
