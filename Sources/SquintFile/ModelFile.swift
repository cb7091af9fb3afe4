/// A model file, opened: its metadata and tables in memory, everything else mapped and read when first touched.
///
/// Opening reads the header and the tables only, verifies their checksum, and checks every offset, length, shape and
/// count against the file's size (formats/squint.md, "What a reader must reject"). All offsets are from the start of the model,
/// which may be a part of a larger file.
package final class ModelFile: Sendable {
  /// A contiguous part of the file that is used, advised or dropped as a whole: `decoder`, `encoder.image`, ….
  package struct Module: Equatable, Sendable {
    package let name: String
    /// Where the module is, in bytes from the start of the file.
    package let range: Range<Int>
  }

  package struct Tensor: Equatable, Sendable {
    package let name: String
    package let type: ElementType
    /// The outermost axis first; a matrix is [rows, columns].
    package let shape: [Int]
    /// The index of the tensor's module.
    package let module: Int
    /// Where the tensor is, in bytes from the start of the file.
    package let range: Range<Int>
    /// XXH3-64 of its bytes.
    package let checksum: UInt64

    package var elementCount: Int { shape.reduce(1, *) }
  }

  private let mapping: MappedFile
  private let header: FileHeader
  /// What this process may hold while it reads the tables and the metadata.
  package let memory: MemoryLimit
  package let metadata: Metadata
  package let modules: [Module]
  package let tensors: [Tensor]
  private let indices: [String: Int]

  /// Where it is, or the name that it was given: what messages call it.
  package var path: String { mapping.path }
  package var byteCount: Int { mapping.bytes.count }
  var descriptor: Int32 { mapping.descriptor }
  /// Where in the open file the model begins.
  var offset: Int { mapping.offset }
  /// Where the tables and all metadata end, and the modules have not begun.
  package var frontEnd: Int { header.metadataEnd }

  /// Opens the model at `path`.
  ///
  /// - Parameters:
  ///   - range: where in the file the model is, in bytes from its start, such as a program that carries its model; nil: the file
  ///     is the model. Begins at a multiple of 64; at a multiple of the system's pages nothing is mapped beside it, and at one of
  ///     4,096 it can be read past the page cache.
  ///   - name: what messages call it; nil: its path.
  ///   - memory: what this process may hold while the tables are read, and later the bulk metadata.
  /// - Throws: `noInput` when it cannot be read, `badData` when it is not a sound model file, `usage` where `range` begins
  ///   elsewhere, `doesNotFit` where its tables take more memory than there is.
  package init(
    path: String, range: Range<Int>? = nil, name: String? = nil, memory: MemoryLimit = .none
  ) throws(SquintError) {
    let start = range?.lowerBound ?? 0
    guard start % PanelLayout.alignment == 0 else {
      throw SquintError(
        .usage,
        "\(name ?? path): a model at offset \(grouped(start)); place it at a multiple of \(PanelLayout.alignment)")
    }
    mapping = try MappedFile(path: path, range: range, name: name)
    let path = mapping.path
    let file = mapping.bytes
    // Without this, the kernel reads megabytes of weights behind every page that is touched.
    mapping.advise(0..<file.count, .sparsely)
    header = try FileHeader(path: path, file: file)
    self.memory = memory
    try memory.check(header.tableBytes, for: "\(path): reading its tables")
    mapping.advise(0..<header.metadataEnd, .soon)
    let front = UnsafeRawBufferPointer(
      rebasing: file[FileHeader.byteCount..<FileHeader.byteCount + header.frontBytes])
    var cursor = ByteCursor(front, place: "\(path): tables")
    metadata = try Metadata(reading: &cursor, count: header.metadataCount)

    var modules: [Module] = []
    var moduleNames: Set<String> = []
    for _ in 0..<header.moduleCount {
      let module = try Module(reading: &cursor, header: header, after: modules.last)
      guard moduleNames.insert(module.name).inserted else {
        throw cursor.error("module \(module.name) appears twice")
      }
      modules.append(module)
    }
    var tensors: [Tensor] = []
    var indices: [String: Int] = [:]
    for _ in 0..<header.tensorCount {
      let tensor = try Tensor(reading: &cursor, modules: modules, after: tensors.last)
      guard indices.updateValue(tensors.count, forKey: tensor.name) == nil else {
        throw cursor.error("tensor \(tensor.name) appears twice")
      }
      tensors.append(tensor)
    }
    guard cursor.remaining == 0 else { throw cursor.error("\(grouped(cursor.remaining)) bytes too many") }
    self.modules = modules
    self.tensors = tensors
    self.indices = indices
  }

  /// The tensor called `name`, or nil.
  package func tensor(_ name: String) -> Tensor? { indices[name].map { tensors[$0] } }

  /// The module called `name`, or nil.
  package func module(_ name: String) -> Module? { modules.first { $0.name == name } }

  /// The bytes of `tensor`, in place. Valid as long as this object lives.
  package func bytes(of tensor: Tensor) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: mapping.bytes[tensor.range])
  }

  /// The metadata that is too long to be read at every opening (vocabulary, merges), decompressed anew at each call.
  ///
  /// - Parameters:
  ///   - textBytes: the most bytes that a list of texts may have: millions of them take gigabytes.
  ///   - wanted: which keys; what is under others takes no memory.
  /// - Throws: `badData` where it is corrupt or a list is longer, `doesNotFit` where it takes more memory than this process may hold.
  package func bulkMetadata(
    textBytes: Int = .max, where wanted: (String) -> Bool = { _ in true }
  ) throws(SquintError) -> Metadata {
    let frame = self.frame
    guard checksum(frame) == header.bulkChecksum else {
      throw .badData(
        path, "the checksum of its compressed metadata does not match: the file is corrupt; fetch it again")
    }
    guard header.bulkBytes > 0 else { return Metadata() }
    try memory.check(
      FrameReader.byteCount(frame, decodedBytes: header.bulkDecodedBytes), for: "\(path): unpacking its metadata")
    do throws(SquintError) {
      return try Metadata(
        reading: FrameReader(frame, decodedBytes: header.bulkDecodedBytes), count: header.bulkMetadataCount, path: path,
        memory: memory, textBytes: textBytes, wanted: wanted)
    } catch {
      throw error.naming(path)
    }
  }

  private var frame: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: mapping.bytes[header.bulkOffset..<header.metadataEnd])
  }

  /// At most what `bulkMetadata` takes beside what it returns, in bytes.
  package var unpackingBytes: Int {
    header.bulkBytes == 0 ? 0 : FrameReader.byteCount(frame, decodedBytes: header.bulkDecodedBytes)
  }

  /// Checks everything that has a checksum, and that the bytes between are zero, so that any flipped bit is found.
  ///
  /// - Parameter progress: called after each tensor with the bytes checked so far.
  /// - Throws: `badData` which names the first part that does not match.
  package func verify(progress: (_ bytes: Int) -> Void = { _ in }) throws(SquintError) {
    _ = try bulkMetadata { _ in false }
    advise(0..<byteCount, .inOrder)
    var position = FileHeader.byteCount + header.frontBytes
    func checkPadding(to end: Int) throws(SquintError) {
      guard mapping.bytes[position..<end].allSatisfy({ $0 == 0 }) else {
        throw .badData(
          path,
          "the padding between offsets \(grouped(position)) and \(grouped(end)) is not zero: "
            + "the file is corrupt; fetch it again")
      }
    }
    try checkPadding(to: header.bulkOffset)
    position = header.metadataEnd
    for tensor in tensors {
      try checkPadding(to: tensor.range.lowerBound)
      guard checksum(bytes(of: tensor)) == tensor.checksum else {
        throw .badData(
          path,
          "tensor \(tensor.name): the checksum of its \(grouped(tensor.range.count)) bytes at offset "
            + "\(grouped(tensor.range.lowerBound)) does not match: the file is corrupt; fetch it again")
      }
      position = tensor.range.upperBound
      progress(position)
    }
    try checkPadding(to: byteCount)
  }

  /// Where the module called `name` is; empty where there is none.
  package func range(ofModule name: String) -> Range<Int> { module(name)?.range ?? 0..<0 }

  /// Of each layer of module `module`, from the first to the last byte of its tensors, `MODULE.LAYER.…`, those called in `others`
  /// left out.
  package func layerRanges(of module: String, count: Int, without others: Set<String> = []) -> [Range<Int>] {
    var ranges = [Range<Int>?](repeating: nil, count: count)
    let prefix = module + "."
    for tensor in tensors where tensor.name.hasPrefix(prefix) && !others.contains(tensor.name) {
      guard let layer = Int(tensor.name.dropFirst(prefix.count).prefix { $0 != "." }), ranges.indices.contains(layer)
      else { continue }
      let range = ranges[layer] ?? tensor.range
      ranges[layer] =
        min(range.lowerBound, tensor.range.lowerBound)..<max(range.upperBound, tensor.range.upperBound)
    }
    return ranges.map { $0 ?? 0..<0 }
  }

  /// Where the byte `offset` of the file is mapped.
  package func address(of offset: Int) -> UnsafeRawPointer { mapping.bytes.baseAddress! + offset }

  /// Tells the kernel what will become of the bytes `range`.
  package func advise(_ range: Range<Int>, _ use: FileUse) { mapping.advise(range, use) }

  /// Drops the bytes `range` from the page cache, where no one else uses them.
  package func dropCached(_ range: Range<Int>) {
    #if os(Linux)
      posix_fadvise(
        mapping.descriptor, off_t(mapping.offset + range.lowerBound), off_t(range.count), POSIX_FADV_DONTNEED)
    #endif
  }
}

// MARK: Tables

extension ModelFile.Module {
  fileprivate init(
    reading cursor: inout ByteCursor, header: FileHeader, after previous: Self?
  ) throws(SquintError) {
    let nameBytes = Int(try cursor.next(UInt16.self))
    guard try cursor.next(UInt16.self) == 0, try cursor.next(UInt32.self) == 0 else {
      throw cursor.error("a reserved field of a module is set")
    }
    let offset = try cursor.next(UInt64.self)
    let bytes = try cursor.next(UInt64.self)
    name = try cursor.name(nameBytes)
    let start = previous?.range.upperBound ?? header.metadataEnd
    guard let offset = Int(exactly: offset), let bytes = Int(exactly: bytes),
      offset % FileHeader.moduleAlignment == 0, offset >= start, offset <= header.fileBytes,
      bytes <= header.fileBytes - offset
    else {
      throw cursor.error(
        "module \(name): \(grouped(bytes)) bytes at offset \(grouped(offset)) do not fit the file "
          + "(\(grouped(header.fileBytes)) bytes); fetch the file again")
    }
    range = offset..<offset + bytes
  }
}

extension ModelFile.Tensor {
  fileprivate init(
    reading cursor: inout ByteCursor, modules: [ModelFile.Module], after previous: Self?
  ) throws(SquintError) {
    let nameBytes = Int(try cursor.next(UInt16.self))
    let typeCode = try cursor.next(UInt8.self)
    let rank = Int(try cursor.next(UInt8.self))
    module = Int(try cursor.next(UInt32.self))
    let offset = try cursor.next(UInt64.self)
    let bytes = try cursor.next(UInt64.self)
    checksum = try cursor.next(UInt64.self)
    guard (1...4).contains(rank) else { throw cursor.error("a tensor has \(rank) axes, not 1 to 4") }
    var shape: [Int] = []
    for _ in 0..<rank { shape.append(Int(clamping: try cursor.next(UInt64.self))) }
    name = try cursor.name(nameBytes)
    self.shape = shape
    guard let type = ElementType(rawValue: typeCode) else {
      throw cursor.error("tensor \(name) has element type \(typeCode), which this version does not know; update squint")
    }
    self.type = type
    guard let expected = type.byteCount(shape: shape) else {
      throw cursor.error("tensor \(name): the shape \(shape) is impossible for type \(type.name)")
    }
    guard module < modules.count else {
      throw cursor.error("tensor \(name) is in module \(module), which is not there")
    }
    let place = modules[module].range
    let isFirst = previous?.module != module
    let start = isFirst ? place.lowerBound : previous?.range.upperBound ?? place.lowerBound
    guard module >= previous?.module ?? 0 else { throw cursor.error("tensor \(name) is out of order") }
    guard let offset = Int(exactly: offset), let bytes = Int(exactly: bytes), offset >= start,
      offset % PanelLayout.alignment == 0, offset <= place.upperBound, bytes <= place.upperBound - offset
    else {
      throw cursor.error(
        "tensor \(name): \(grouped(bytes)) bytes at offset \(grouped(offset)) do not fit module "
          + "\(modules[module].name) (offsets \(grouped(place.lowerBound)) to \(grouped(place.upperBound)))")
    }
    guard bytes == expected else {
      throw cursor.error(
        "tensor \(name): \(grouped(bytes)) bytes, but shape \(shape) of type \(type.name) takes \(grouped(expected))")
    }
    range = offset..<offset + bytes
  }
}

extension ElementType {
  /// The bytes of a tensor of this type and shape; nil where a dimension is not positive, a quantized type is not a
  /// matrix, or the size does not fit an Int.
  package func byteCount(shape: [Int]) -> Int? {
    guard shape.allSatisfy({ $0 > 0 }) else { return nil }
    guard let elementBytes = bytesPerPlainElement else {
      return shape.count == 2 ? PanelLayout(type: self, rows: shape[0], columns: shape[1])?.byteCount : nil
    }
    var bytes = elementBytes
    for dimension in shape {
      let (product, overflow) = bytes.multipliedReportingOverflow(by: dimension)
      guard !overflow else { return nil }
      bytes = product
    }
    return bytes
  }
}
