import SquintFile

/// Which node makes a value of an ONNX graph, and which ones take it: what it takes to walk the graph.
package struct ONNXDataflow {
  let source: ONNXSource
  let place: String
  let nodes: [ONNXNode]
  /// The node that makes a value.
  private var producers: [String: Int] = [:]
  /// The nodes that take a value, and as which input.
  private var consumers: [String: [Use]] = [:]

  struct Use: Hashable {
    let node: Int
    let input: Int
  }

  /// - Throws: `SquintError.badData` where a node takes what is made only later: walks would not end.
  package init(source: ONNXSource, place: String) throws(SquintError) {
    self.source = source
    self.place = place
    nodes = source.graph.nodes
    var made = Set(source.graph.inputs.map(\.name))
    for (index, node) in nodes.enumerated() {
      for (input, name) in node.inputs.enumerated() where !name.isEmpty {
        guard made.contains(name) || source.tensor(named: name) != nil else {
          throw .badData(
            place,
            "node \(printable(node.name)) takes \(printable(name)), which no node before it makes; the file is corrupt")
        }
        consumers[name, default: []].append(Use(node: index, input: input))
      }
      for name in node.outputs where !name.isEmpty {
        guard made.insert(name).inserted else {
          throw .badData(place, "two nodes make the value \(printable(name)); the file is corrupt")
        }
        producers[name] = index
      }
    }
  }

  /// How messages call a node.
  func described(_ node: Int) -> String {
    "node \(printable(nodes[node].name)) (\(printable(nodes[node].operation)))"
  }

  func producer(of value: String) -> ONNXNode? { producers[value].map { nodes[$0] } }

  /// The constants that nodes behind the one that makes `value` take.
  func constants(behind value: String) -> [SourceTensor] {
    guard let end = producers[value] else { return [] }
    return source.tensors.filter { tensor in consumers[tensor.name]?.contains { $0.node > end } ?? false }
  }

  /// Operators that change nothing but the shape, the order of axes or the type of their first input.
  private static let shaping: Set<String> = [
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Identity", "Dropout", "Expand",
  ]

  /// Operators that pass their first input on as it is.
  private static let passing: Set<String> = ["Identity", "Cast", "Dropout"]

  func isShaping(_ node: ONNXNode) -> Bool { Self.shaping.contains(node.operation) }

  /// No exporter writes more operators of one kind in a row; a bound on the time that a walk takes.
  static let longestChain = 64

  /// The value that `value` is a copy of.
  func resolved(_ value: String) -> String {
    var value = value
    for _ in 0..<Self.longestChain {
      guard let node = producer(of: value), Self.passing.contains(node.operation), let first = node.inputs.first
      else { break }
      value = first
    }
    return value
  }

  /// The nodes that compute with `value`, also behind others that only shape it.
  func uses(of value: String) -> [Use] {
    var found: [Use] = []
    forEachUse(of: value) { use in
      guard isShaping(nodes[use.node]) else {
        found.append(use)
        return false
      }
      return use.input == 0  // the others are a shape, axes
    }
    return found
  }

  /// Calls `body` with each node that takes `value`, and with those that take its first output where `body` says true,
  /// and so on. Nodes that take the shape only are left out.
  func forEachUse(of value: String, _ body: (Use) -> Bool) {
    var values = [value]
    var seen: Set<String> = [value]
    while let value = values.popLast() {
      for use in consumers[value] ?? [] {
        let node = nodes[use.node]
        guard node.operation != "Shape", node.operation != "Size", body(use) else { continue }
        for output in node.outputs where seen.insert(output).inserted { values.append(output) }
      }
    }
  }

  /// The tensor that `value` is, or is a copy of; nil where it is computed.
  func constant(_ value: String) -> SourceTensor? { source.tensor(named: resolved(value)) }

  /// The tensor whose numbers `value` has, in whatever shape.
  func constantOfAnyShape(_ value: String) -> SourceTensor? {
    var value = value
    for _ in 0..<Self.longestChain {
      if let tensor = source.tensor(named: value) { return tensor }
      guard let node = producer(of: value), isShaping(node), node.operation != "Transpose",
        let first = node.inputs.first
      else { break }
      value = first
    }
    return nil
  }

  /// The number that `value` is; nil where it is none or computed.
  func scalar(_ value: String) throws(SquintError) -> Double? {
    guard let tensor = constantOfAnyShape(value), tensor.elementCount == 1 else { return nil }
    guard tensor.type.isReadable else { return try integers(tensor)?.first.map { Double($0) } }
    return Double(try source.read(tensor)[0])
  }

  /// The integers of a small constant; nil where it is none of type I64 or I32.
  package func integers(_ tensor: SourceTensor) throws(SquintError) -> [Int]? {
    guard tensor.type == .i64 || tensor.type == .i32, tensor.elementCount <= 64 else { return nil }
    let size = tensor.type.bytesPerBlock
    var bytes = [UInt8](repeating: 0, count: tensor.byteCount)
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(SquintError) in
        try source.readBlocks(of: tensor, blocks: 0..<tensor.elementCount, into: buffer)
      }
    }
    try result.get()
    return bytes.withUnsafeBytes { bytes in
      (0..<tensor.elementCount).map { index in
        size == 8
          ? Int(Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * index, as: Int64.self)))
          : Int(Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * index, as: Int32.self)))
      }
    }
  }

  /// Whether `value` is one number: a constant, or computed of such and of shapes.
  func isScalar(_ value: String) -> Bool {
    let computing: Set<String> = [
      "Shape", "Gather", "Slice", "Cast", "Sqrt", "Div", "Mul", "Pow", "Identity", "Squeeze", "Unsqueeze", "Reciprocal",
    ]
    var values = [value]
    var seen: Set<String> = [value]
    while let value = values.popLast() {
      guard seen.count <= Self.longestChain else { return false }
      if let tensor = source.tensor(named: value) {
        guard tensor.elementCount == 1 else { return false }
        continue
      }
      guard let node = producer(of: value), computing.contains(node.operation) else { return false }
      guard node.operation != "Shape" else { continue }
      for input in node.inputs where !input.isEmpty && seen.insert(input).inserted { values.append(input) }
    }
    return true
  }

  /// The last `count` sizes that a Reshape gives its input, −1 for what is left to compute; nil where they are not in the
  /// file.
  func lastSizes(_ count: Int, of reshape: ONNXNode) throws(SquintError) -> [Int]? {
    guard reshape.inputs.count == 2 else { return nil }
    if let shape = constant(reshape.inputs[1]) {
      guard let sizes = try integers(shape), sizes.count >= count else { return nil }
      return Array(sizes.suffix(count))
    }
    guard let parts = producer(of: resolved(reshape.inputs[1])), parts.operation == "Concat",
      parts.inputs.count >= count
    else { return nil }
    var sizes: [Int] = []
    for part in parts.inputs.suffix(count) {
      guard let tensor = constantOfAnyShape(part), tensor.elementCount == 1, let size = try integers(tensor)?.first
      else { return nil }
      sizes.append(size)
    }
    return sizes
  }
}
