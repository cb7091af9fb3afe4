import SquintFile

/// A model in ONNX: its graph, and the tensors that are constant in it.
///
/// The layout: onnx/onnx, onnx/onnx.proto. What is kept of the graph is what says how the tensors are used; types,
/// documentation, functions and subgraphs are skipped.
package struct ONNXSource: FileTensorSource {
  package let table: TensorTable
  package let graph: ONNXGraph

  /// Opens the file at `path`, and those beside it that hold its tensors.
  ///
  /// - Throws: `SquintError.noInput` where it or one of them does not exist, `.badData` where one is broken.
  package init(path: String) throws(SquintError) {
    let file = try SourceFile(path: path)
    try file.refuseForeign()
    var parser = ONNXParser(file: file)
    try parser.readModel()
    var files = [file]
    var parts: [ExactString: Int] = [:]
    for case .external(let location, _) in parser.tensors.map(\.data) where parts[ExactString(location)] == nil {
      guard files.count < Self.maximumFiles else { throw .badData(path, "its tensors are in too many files") }
      parts[ExactString(location)] = files.count
      files.append(try SourceFile(path: Self.path(of: location, beside: path)))
    }
    var table = TensorTable(files: files)
    for tensor in parser.tensors {
      func described(part: Int, offset: Int) throws(SquintError) -> SourceTensor {
        guard
          let described = SourceTensor(
            name: tensor.name, shape: tensor.shape, type: tensor.type, part: part, offset: offset)
        else {
          throw .badData(path, "tensor \(printable(tensor.name)): a shape of \(tensor.shape) is too large")
        }
        return described
      }
      let added: SourceTensor
      var given: Int?
      switch tensor.data {
      case .file(let bytes):
        added = try described(part: 0, offset: bytes.lowerBound)
        given = bytes.count
      case .external(let location, let bytes):
        added = try described(part: parts[ExactString(location)]!, offset: bytes.offset)
        given = bytes.length
      case .decoded(let bytes):
        added = try described(part: 0, offset: 0)
        given = bytes.count
      }
      guard given ?? added.byteCount == added.byteCount else {
        throw .badData(
          path,
          "tensor \(printable(tensor.name)): \(grouped(given ?? 0)) bytes are not the \(grouped(added.byteCount)) that a "
            + "shape of \(tensor.shape) in \(tensor.type.name) takes; the file is corrupt")
      }
      if case .decoded(let bytes) = tensor.data {
        try table.add(added, decoded: bytes)
      } else {
        try table.add(added)
      }
    }
    self.table = table
    graph = parser.graph
  }

  /// Within the usual limit of 1,024 open files.
  private static let maximumFiles = 800

  /// The path of the file `location`, which must be below the folder of the model.
  private static func path(of location: String, beside model: String) throws(SquintError) -> String {
    let components = location.split(separator: "/", omittingEmptySubsequences: false)
    guard !location.isEmpty, !location.hasPrefix("/"), !components.contains(".."),
      !location.utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "\\") })
    else {
      throw .badData(
        model,
        "external data \"\(printable(location))\" is not below the model's folder; move it there and save the model again"
      )
    }
    guard let slash = model.lastIndex(of: "/") else { return location }
    return "\(model[...slash])\(location)"
  }
}

/// The computation of an ONNX model: nodes in an order in which each can be computed.
package struct ONNXGraph: Sendable {
  package var nodes: [ONNXNode] = []
  /// The inputs with their shapes, in which nil is a size that may vary.
  package var inputs: [(name: String, shape: [Int?])] = []
  package var outputs: [String] = []
}

/// A step of the computation: an operator of ONNX (onnx/onnx, docs/Operators.md) on named values.
package struct ONNXNode: Sendable {
  package var operation = ""
  package var name = ""
  /// An empty name is an optional input that is not there.
  package var inputs: [String] = []
  package var outputs: [String] = []
  /// Attributes that are a number, a list of numbers or a text; others are left out.
  package var integers: [String: [Int64]] = [:]
  package var floats: [String: [Float]] = [:]
  package var texts: [String: String] = [:]
}

// MARK: - Parsing

private struct ONNXParser {
  let file: SourceFile
  var graph = ONNXGraph()
  var tensors: [Tensor] = []
  private var reader: ProtobufFileReader
  private var hasGraph = false

  struct Tensor {
    var name = ""
    var shape: [Int] = []
    var type = SourceType.f32
    var data = TensorData.decoded([])
  }

  enum TensorData {
    /// A range of the model's own file.
    case file(Range<Int>)
    case external(location: String, bytes: (offset: Int, length: Int?))
    case decoded([UInt8])
  }

  /// Far more than a graph of the largest published models takes; tensors count only where they are not raw.
  private static let budget = 128 << 20
  private static let maximumDimensions = 16
  /// What a node and a tensor take in memory, roughly: empty ones are spent from the budget, too.
  private static let nodeBytes = 256
  private static let tensorBytes = 256

  init(file: SourceFile) {
    self.file = file
    reader = ProtobufFileReader(file: file, place: "model", budget: Self.budget)
  }

  mutating func readModel() throws(SquintError) {
    let end = file.byteCount
    while let field = try reader.field(until: end) {
      guard field.number == 7 else {
        try reader.skip(field, until: end)
        continue
      }
      try reader.expect(field, .bytes)
      guard !hasGraph else { throw reader.error("there are two graphs; the file is corrupt") }
      hasGraph = true
      try readGraph(until: reader.length(until: end))
      reader.place = "model"
    }
    guard hasGraph else { throw .badData(file.path, "this is not an ONNX model: there is no graph in it") }
  }

  private mutating func readGraph(until end: Int) throws(SquintError) {
    while let field = try reader.field(until: end) {
      guard [1, 5, 11, 12, 15].contains(field.number) else {
        try reader.skip(field, until: end)
        continue
      }
      try reader.expect(field, .bytes)
      let fieldEnd = try reader.length(until: end)
      switch field.number {
      case 1: try readNode(until: fieldEnd)
      case 5:
        reader.place = "tensor \(tensors.count)"
        tensors.append(try tensor(until: fieldEnd))
      case 11:
        reader.place = "input \(graph.inputs.count)"
        graph.inputs.append(try value(until: fieldEnd))
      case 12:
        reader.place = "output \(graph.outputs.count)"
        graph.outputs.append(try value(until: fieldEnd).name)
      default: throw reader.error("sparse tensors are not supported; save the model with dense ones")
      }
      reader.place = "graph"
    }
  }

  // MARK: Nodes

  private mutating func readNode(until end: Int) throws(SquintError) {
    reader.place = "node \(graph.nodes.count)"
    try reader.spend(Self.nodeBytes)
    var node = ONNXNode()
    var constant: Tensor?
    while let field = try reader.field(until: end) {
      switch field.number {
      case 1...4:
        try reader.expect(field, .bytes)
        let text = try reader.text(until: end)
        switch field.number {
        case 1:
          try reader.spend(MemoryLayout<String>.size)
          node.inputs.append(text)
        case 2:
          try reader.spend(MemoryLayout<String>.size)
          node.outputs.append(text)
        case 3: node.name = text
        default: node.operation = text
        }
      case 5:
        try reader.expect(field, .bytes)
        try readAttribute(until: reader.length(until: end), of: &node, constant: &constant)
      default: try reader.skip(field, until: end)
      }
    }
    if node.operation == "Constant", node.outputs.count == 1 {
      guard let tensor = constant ?? Self.constant(node) else { return graph.nodes.append(node) }
      var named = tensor
      named.name = node.outputs[0]
      tensors.append(named)
    } else {
      graph.nodes.append(node)
    }
  }

  /// The tensor of a Constant node that spells it as numbers.
  private static func constant(_ node: ONNXNode) -> Tensor? {
    for (key, isScalar) in [("value_int", true), ("value_ints", false)] {
      guard let numbers = node.integers[key] else { continue }
      return Tensor(
        shape: isScalar ? [] : [numbers.count], type: .i64, data: .decoded(littleEndianBytes(numbers, each: 8)))
    }
    for (key, isScalar) in [("value_float", true), ("value_floats", false)] {
      guard let numbers = node.floats[key] else { continue }
      return Tensor(
        shape: isScalar ? [] : [numbers.count], type: .f32,
        data: .decoded(littleEndianBytes(numbers.map { Int64($0.bitPattern) }, each: 4)))
    }
    return nil
  }

  private mutating func readAttribute(
    until end: Int, of node: inout ONNXNode, constant: inout Tensor?
  ) throws(SquintError) {
    var name = ""
    var integers: [Int64]?
    var floats: [Float]?
    var text: String?
    try reader.spend(MemoryLayout<String>.size)
    while let field = try reader.field(until: end) {
      switch field.number {
      case 1:
        try reader.expect(field, .bytes)
        name = try reader.text(until: end)
      case 2, 7:
        var numbers = floats ?? []
        try reader.forEach(field, until: end) { (reader, end) throws(SquintError) in
          if field.wire != .bytes { try reader.expect(field, .fixed32) }
          try reader.spend(4)
          numbers.append(Float(bitPattern: try reader.fixed32(until: end)))
        }
        floats = numbers
      case 3, 8:
        var numbers = integers ?? []
        try reader.forEach(field, until: end) { (reader, end) throws(SquintError) in
          if field.wire != .bytes { try reader.expect(field, .varint) }
          try reader.spend(8)
          numbers.append(Int64(bitPattern: try reader.varint(until: end)))
        }
        integers = numbers
      case 4:
        try reader.expect(field, .bytes)
        let bytes = try reader.bytes(until: reader.length(until: end))
        text = String(validating: bytes, as: UTF8.self)
      case 5:
        try reader.expect(field, .bytes)
        constant = try tensor(until: reader.length(until: end))
      default: try reader.skip(field, until: end)
      }
    }
    node.integers[name] = integers
    node.floats[name] = floats
    node.texts[name] = text
  }

  // MARK: Inputs and outputs

  /// ValueInfoProto: a name, and the shape where it is a tensor's.
  private mutating func value(until end: Int) throws(SquintError) -> (name: String, shape: [Int?]) {
    var name = ""
    var shape: [Int?] = []
    try reader.spend(Self.nodeBytes)
    while let field = try reader.field(until: end) {
      switch field.number {
      case 1:
        try reader.expect(field, .bytes)
        name = try reader.text(until: end)
      case 2:
        try reader.expect(field, .bytes)
        // TypeProto.tensor_type.shape.dim
        try forEach([1, 2, 1], until: reader.length(until: end)) { (reader, end) throws(SquintError) in
          var size: Int?
          while let field = try reader.field(until: end) {
            guard field.number == 1 else {
              try reader.skip(field, until: end)
              continue
            }
            try reader.expect(field, .varint)
            size = Int(exactly: Int64(bitPattern: try reader.varint(until: end))).flatMap { $0 > 0 ? $0 : nil }
          }
          guard shape.count < Self.maximumDimensions else { throw reader.error("it has too many dimensions") }
          shape.append(size)
        }
      default: try reader.skip(field, until: end)
      }
    }
    return (name, shape)
  }

  /// Calls `body` with the end of each message that is inside the others as `path` says.
  private mutating func forEach(
    _ path: ArraySlice<Int>, until end: Int, _ body: (inout ProtobufFileReader, Int) throws(SquintError) -> Void
  ) throws(SquintError) {
    guard let number = path.first else { return try body(&reader, end) }
    while let field = try reader.field(until: end) {
      guard field.number == number else {
        try reader.skip(field, until: end)
        continue
      }
      try reader.expect(field, .bytes)
      try forEach(path.dropFirst(), until: reader.length(until: end), body)
    }
  }

  // MARK: Tensors

  private mutating func tensor(until end: Int) throws(SquintError) -> Tensor {
    try reader.spend(Self.tensorBytes)
    var tensor = Tensor()
    var typeNumber: UInt64 = 0
    var raw: Range<Int>?
    var decoded: [UInt8] = []
    var integers: [Int64] = []
    var external: [(key: String, value: String)] = []
    var isExternal = false
    while let field = try reader.field(until: end) {
      switch field.number {
      case 1:
        try reader.forEach(field, until: end) { (reader, end) throws(SquintError) in
          if field.wire != .bytes { try reader.expect(field, .varint) }
          let size = Int64(bitPattern: try reader.varint(until: end))
          guard let size = Int(exactly: size), size >= 0 else {
            throw reader.error("a dimension of \(grouped(size)) is no size; the file is corrupt")
          }
          guard tensor.shape.count < Self.maximumDimensions else { throw reader.error("it has too many dimensions") }
          tensor.shape.append(size)
        }
      case 2:
        try reader.expect(field, .varint)
        typeNumber = try reader.varint(until: end)
      case 8:
        try reader.expect(field, .bytes)
        tensor.name = try reader.text(until: end)
        reader.place = "tensor \(printable(tensor.name))"
      case 4, 9, 10:
        // float_data and double_data in one piece have the bytes of raw_data.
        var start = reader.position
        var pieceEnd = start
        if field.wire == .bytes {
          pieceEnd = try reader.length(until: end)
          start = reader.position
          reader.move(to: pieceEnd)
        } else {
          try reader.expect(field, field.number == 4 ? .fixed32 : .fixed64)
          try reader.skip(field, until: end)
          pieceEnd = reader.position
        }
        if raw == nil, decoded.isEmpty {
          raw = start..<pieceEnd
        } else {
          for piece in [raw, start..<pieceEnd].compactMap({ $0 }) {
            reader.move(to: piece.lowerBound)
            decoded += try reader.bytes(until: piece.upperBound)
          }
          raw = nil
        }
      case 5, 7, 11:
        try reader.forEach(field, until: end) { (reader, end) throws(SquintError) in
          if field.wire != .bytes { try reader.expect(field, .varint) }
          try reader.spend(8)
          integers.append(Int64(bitPattern: try reader.varint(until: end)))
        }
      case 3: throw reader.error("tensors in segments are not supported; save the model with raw data")
      case 13:
        try reader.expect(field, .bytes)
        external.append(try entry(until: reader.length(until: end)))
      case 14:
        try reader.expect(field, .varint)
        isExternal = try reader.varint(until: end) == 1
      default: try reader.skip(field, until: end)
      }
    }
    guard let type = SourceType(onnxType: typeNumber) else {
      throw reader.error("numbers of type \(grouped(typeNumber)) are not known; save the model in f32 or f16")
    }
    tensor.type = type
    if isExternal {
      tensor.data = try Self.external(external, reader)
    } else if let raw {
      tensor.data = .file(raw)
    } else if !integers.isEmpty {
      tensor.data = .decoded(littleEndianBytes(integers, each: type.bytesPerBlock))
    } else {
      tensor.data = .decoded(decoded)
    }
    return tensor
  }

  /// StringStringEntryProto.
  private mutating func entry(until end: Int) throws(SquintError) -> (key: String, value: String) {
    var key = ""
    var value = ""
    while let field = try reader.field(until: end) {
      guard field.number == 1 || field.number == 2 else {
        try reader.skip(field, until: end)
        continue
      }
      try reader.expect(field, .bytes)
      let text = try reader.text(until: end)
      if field.number == 1 { key = text } else { value = text }
    }
    return (key, value)
  }

  private static func external(
    _ entries: [(key: String, value: String)], _ reader: ProtobufFileReader
  ) throws(SquintError) -> TensorData {
    var location = ""
    var offset = 0
    var length: Int?
    for (key, value) in entries {
      switch key {
      case "location": location = value
      case "offset", "length":
        guard let number = Int(value), number >= 0 else {
          throw reader.error("the \(key) of its external data is \"\(printable(value))\"; the file is corrupt")
        }
        if key == "offset" { offset = number } else { length = number }
      default: break
      }
    }
    return .external(location: location, bytes: (offset, length))
  }
}

/// The lowest `size` bytes of each of `numbers`, the lowest first.
private func littleEndianBytes(_ numbers: [Int64], each size: Int) -> [UInt8] {
  var bytes: [UInt8] = []
  bytes.reserveCapacity(numbers.count * size)
  for number in numbers {
    withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0.prefix(size)) }
  }
  return bytes
}

extension SourceType {
  /// The type that has the number `number` in `TensorProto.DataType`; nil for texts and for types that we do not know.
  package init?(onnxType number: UInt64) {
    switch number {
    case 1: self = .f32
    case 2: self = .u8
    case 3: self = .i8
    case 4: self = .u16
    case 5: self = .i16
    case 6: self = .i32
    case 7: self = .i64
    case 9: self = .bool
    case 10: self = .f16
    case 11: self = .f64
    case 12: self = .u32
    case 13: self = .u64
    case 14: self = .c64
    case 16: self = .bf16
    case 17: self = .f8e4m3
    case 19: self = .f8e5m2
    default: return nil
    }
  }
}
