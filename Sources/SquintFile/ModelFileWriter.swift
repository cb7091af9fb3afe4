/// What a model file will hold, known before its first byte is written.
package struct ModelFilePlan: Sendable {
  package struct Tensor: Sendable {
    package let name: String
    package let type: ElementType
    /// The outermost axis first; a matrix is [rows, columns].
    package let shape: [Int]

    package init(name: String, type: ElementType, shape: [Int]) {
      self.name = name
      self.type = type
      self.shape = shape
    }
  }

  package struct Module: Sendable {
    package let name: String
    package var tensors: [Tensor]

    package init(name: String, tensors: [Tensor]) {
      self.name = name
      self.tensors = tensors
    }
  }

  /// Whether `module` has a graph that readers from before there were names of graphs cannot know.
  func namesNewGraph(_ module: String) -> Bool {
    guard case .string(let graph)? = metadata["\(module).graph"] else { return false }
    let usual = [DecoderGraph.usual.rawValue, EncoderGraph.usual.rawValue, ProjectorGraph.usual.rawValue]
    return !usual.contains(graph)
  }

  package var metadata = Metadata()
  /// Read only when needed, and compressed: vocabulary, merges.
  package var bulkMetadata = Metadata()
  /// In file order. Tensors are numbered from 0 through all modules.
  package var modules: [Module] = []

  package init() {}
}

/// Writes a model file: under a temporary name, in bounded memory, renamed when it is complete and synced.
///
/// Each tensor's bytes are appended in order; tensors themselves may come in any order. When the writer is destroyed
/// before `finish()`, nothing is left behind.
package final class ModelFileWriter {
  private struct Slot {
    let offset: Int
    let byteCount: Int
    var written = 0
    var checksum: UInt64?
  }

  private let file: OutputFile
  private let plan: ModelFilePlan
  private let bulk: [UInt8]
  private var header = FileHeader()
  private var slots: [Slot] = []
  private var moduleRanges: [Range<Int>] = []
  private var running: [Int: RunningChecksum] = [:]

  /// The size that the finished file will have, in bytes.
  package var byteCount: Int { header.fileBytes }

  /// Lays the file out and creates it under a temporary name beside `path`.
  ///
  /// - Throws: `cannotCreate` when it cannot be created there, `usage` when the plan has an impossible tensor.
  package init(path: String, plan: ModelFilePlan) throws(SquintError) {
    self.plan = plan
    try Self.check(plan)
    let bulkMetadata = plan.bulkMetadata.encoded()
    guard bulkMetadata.count <= FileHeader.largestBulk else {
      throw SquintError(
        .usage,
        "the tokenizer's metadata takes \(grouped(bulkMetadata.count)) bytes; at most "
          + "\(grouped(FileHeader.largestBulk)) are allowed")
    }
    bulk = plan.bulkMetadata.entries.isEmpty ? [] : try compress(bulkMetadata)
    header.bulkBytes = bulk.count
    header.bulkDecodedBytes = bulk.isEmpty ? 0 : bulkMetadata.count
    header.bulkChecksum = bulk.withUnsafeBytes { checksum($0) }
    header.metadataCount = plan.metadata.entries.count
    header.bulkMetadataCount = plan.bulkMetadata.entries.count
    header.moduleCount = plan.modules.count
    if plan.modules.contains(where: { plan.namesNewGraph($0.name) }) { header.features |= FileHeader.namesGraphs }
    header.tensorCount = plan.modules.reduce(0) { $0 + $1.tensors.count }
    // The size of the tables does not depend on the offsets in them, so they are encoded twice: for their size here,
    // with the checksums at the end.
    header.frontBytes = Self.front(plan, modules: [], slots: []).count
    guard header.frontBytes <= FileHeader.largestFront else {
      throw SquintError(
        .usage,
        "the tables take \(grouped(header.frontBytes)) bytes; at most \(grouped(FileHeader.largestFront)) are allowed")
    }
    header.bulkOffset = Self.aligned(FileHeader.byteCount + header.frontBytes, to: PanelLayout.alignment)

    var end = header.metadataEnd
    for module in plan.modules {
      let start = Self.aligned(end, to: FileHeader.moduleAlignment)
      end = start
      for tensor in module.tensors {
        guard let bytes = tensor.type.byteCount(shape: tensor.shape),
          // Room for the alignment of what follows.
          bytes <= Int.max - end - 2 * FileHeader.moduleAlignment
        else {
          throw SquintError(.usage, "tensor \(tensor.name): with it the file is larger than any can be")
        }
        slots.append(Slot(offset: Self.aligned(end, to: PanelLayout.alignment), byteCount: bytes))
        end = slots[slots.count - 1].offset + bytes
      }
      moduleRanges.append(start..<end)
    }
    header.fileBytes = end

    file = try OutputFile(path: path)
    try file.reserve(header.fileBytes)
  }

  /// Appends `bytes` to tensor number `index`.
  package func append(_ bytes: UnsafeRawBufferPointer, toTensor index: Int) throws(SquintError) {
    guard !bytes.isEmpty else { return }
    let slot = slots[index]
    precondition(bytes.count <= slot.byteCount - slot.written, "more bytes than the tensor has")
    try file.write(bytes, at: slot.offset + slot.written)
    slots[index].written += bytes.count
    if bytes.count == slot.byteCount {
      slots[index].checksum = checksum(bytes)
      return
    }
    let sum = running[index] ?? RunningChecksum()
    sum.state.update(bytes)
    running[index] = sum
    if slots[index].written == slot.byteCount {
      slots[index].checksum = sum.state.value
      running[index] = nil
    }
  }

  /// Writes the header and the tables, syncs, and gives the file its name.
  package func finish() throws(SquintError) {
    precondition(slots.allSatisfy { $0.written == $0.byteCount }, "a tensor is incomplete")
    let front = Self.front(plan, modules: moduleRanges, slots: slots)
    var start = header.encoded()
    var sum = StreamingChecksum()
    start.withUnsafeBytes { sum.update($0) }
    front.withUnsafeBytes { sum.update($0) }
    withUnsafeBytes(of: sum.value.littleEndian) { start.append(contentsOf: $0) }
    start += front
    try start.withBytes { (bytes) throws(SquintError) in try file.write(bytes, at: 0) }
    try bulk.withBytes { (bytes) throws(SquintError) in try file.write(bytes, at: header.bulkOffset) }
    try file.finish()
  }

  /// Refuses what no file can hold, or what no reader would accept.
  private static func check(_ plan: ModelFilePlan) throws(SquintError) {
    func checkName(_ name: String, of what: String, in names: inout Set<String>) throws(SquintError) {
      guard isName(name.utf8) else {
        throw SquintError(.usage, "a \(what) has a name that is empty, too long or not visible ASCII without a slash")
      }
      guard names.insert(name).inserted else { throw SquintError(.usage, "\(what) \(name) appears twice") }
    }
    for metadata in [plan.metadata, plan.bulkMetadata] {
      var keys: Set<String> = []
      for (key, _) in metadata.entries { try checkName(key, of: "metadata entry", in: &keys) }
    }
    var moduleNames: Set<String> = []
    var tensorNames: Set<String> = []
    for module in plan.modules {
      try checkName(module.name, of: "module", in: &moduleNames)
      for tensor in module.tensors {
        try checkName(tensor.name, of: "tensor", in: &tensorNames)
        guard (1...4).contains(tensor.shape.count), tensor.type.byteCount(shape: tensor.shape) != nil else {
          throw SquintError(
            .usage, "tensor \(tensor.name): the shape \(tensor.shape) is impossible for \(tensor.type.name)")
        }
      }
    }
  }

  private static func front(_ plan: ModelFilePlan, modules: [Range<Int>], slots: [Slot]) -> [UInt8] {
    var out = ByteWriter()
    out.append(bytes: plan.metadata.encoded())
    for (index, module) in plan.modules.enumerated() {
      out.append(UInt16(module.name.utf8.count))
      out.append(UInt16(0))
      out.append(UInt32(0))
      out.append(UInt64(modules.isEmpty ? 0 : modules[index].lowerBound))
      out.append(UInt64(modules.isEmpty ? 0 : modules[index].count))
      out.append(bytes: module.name.utf8)
    }
    var index = 0
    for (moduleIndex, module) in plan.modules.enumerated() {
      for tensor in module.tensors {
        out.append(UInt16(tensor.name.utf8.count))
        out.append(tensor.type.rawValue)
        out.append(UInt8(tensor.shape.count))
        out.append(UInt32(moduleIndex))
        out.append(UInt64(slots.isEmpty ? 0 : slots[index].offset))
        out.append(UInt64(slots.isEmpty ? 0 : slots[index].byteCount))
        out.append(slots.isEmpty ? 0 : slots[index].checksum ?? 0)
        for dimension in tensor.shape { out.append(UInt64(dimension)) }
        out.append(bytes: tensor.name.utf8)
        index += 1
      }
    }
    return out.bytes
  }

  private static func aligned(_ offset: Int, to alignment: Int) -> Int {
    (offset + alignment - 1) / alignment * alignment
  }
}

/// A reference to a checksum in progress, so that a dictionary can hold it.
private final class RunningChecksum {
  var state = StreamingChecksum()
}
