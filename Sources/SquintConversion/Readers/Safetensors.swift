import SquintFile

/// A checkpoint in safetensors: one file, or a folder with one or more.
///
/// The layout (huggingface/safetensors, README and `Metadata::validate`): a 64-bit length N, N bytes of JSON that give
/// each tensor's type, shape and bytes, then the bytes, without holes and in the order of the offsets.
package struct SafetensorsSource: FileTensorSource {
  package let table: TensorTable
  /// The `__metadata__` of all files; of the same key in several files, the first.
  package let metadata: [String: String]
  /// What the user should know, a line each.
  package var notes: [String] = []

  /// The reference allows 100 MB; this is as long as any JSON we read, and ten times what is published.
  package static let maximumHeaderBytes = JSONValue.maximumByteCount

  /// Opens the file at `path`, or the safetensors files of the folder there (`SafetensorsFolder`).
  ///
  /// - Throws: `SquintError.noInput` where there is none, `.badData` where one is broken or a file that the index names is
  ///   missing.
  package init(path: String) throws(SquintError) {
    var status = stat()
    guard stat(path, &status) == 0 else { throw .cannotOpen(path, errno) }
    if status.st_mode & S_IFMT == S_IFDIR {
      self = try SafetensorsFolder(path: path).open()
    } else {
      try self.init(paths: [path])
    }
  }

  /// Opens all of the files at `paths`, as one checkpoint.
  ///
  /// - Parameter placed: the names of the files that tensors are taken from where others hold one, too.
  package init(paths: [String], placed: [ExactString: String] = [:]) throws(SquintError) {
    var files: [SourceFile] = []
    for path in paths { files.append(try SourceFile(path: path)) }
    var table = TensorTable(files: files)
    var metadata: [String: String] = [:]
    var twice: [SourceTensor] = []
    for part in files.indices {
      let file = lastComponent(files[part].path)
      for tensor in try Self.tensors(of: files[part], part: part, &metadata) {
        if let place = placed[ExactString(tensor.name)], place != file {
          twice.append(tensor)
        } else if let other = table.tensor(named: tensor.name), try Self.areEqual(tensor, other, files: files) {
          twice.append(tensor)
        } else {
          try table.add(tensor)
        }
      }
    }
    // Where an index is wrong about a file, what is there counts.
    var spare: [SourceTensor] = []
    for tensor in twice {
      if table.tensor(named: tensor.name) == nil { try table.add(tensor) } else { spare.append(tensor) }
    }
    twice = spare
    self.table = table
    self.metadata = metadata
    if let first = twice.first {
      notes.append(
        "\(files[first.part].path): \(grouped(twice.count)) tensors are in another file, too (\(printable(first.name))); "
          + "each is used once")
    }
  }

  /// Whether two tensors of two files have the same bytes.
  private static func areEqual(
    _ a: SourceTensor, _ b: SourceTensor, files: [SourceFile]
  ) throws(SquintError) -> Bool {
    var pair = TensorTable(files: files)
    try pair.add(a.named("a"))
    try pair.add(b.named("b"))
    return try SafetensorsSource(table: pair).areEqual(pair.tensors[0], pair.tensors[1])
  }

  private init(table: TensorTable) {
    self.table = table
    metadata = [:]
  }

  /// The tensors of a file, in the order of their bytes.
  private static func tensors(
    of file: SourceFile, part: Int, _ metadata: inout [String: String]
  ) throws(SquintError) -> [SourceTensor] {
    let path = file.path
    var length: UInt64 = 0
    // The length may look like the mark of another kind of file, but what follows is an object.
    if try file.start(9).last != UInt8(ascii: "{") || file.byteCount < 9 { try file.refuseForeign() }
    guard file.byteCount >= 8 else {
      throw .badData(path, "\(file.byteCount) bytes are too few for a safetensors file; the download is incomplete")
    }
    try withBytes(of: &length) { (bytes) throws(SquintError) in try file.read(at: 0, into: bytes) }
    length = UInt64(littleEndian: length)
    guard length <= UInt64(maximumHeaderBytes) else {
      throw .badData(
        path, "this is not a safetensors file: its header would be \(grouped(length)) bytes, which is too long")
    }
    let headerBytes = Int(length)
    guard headerBytes <= file.byteCount - 8 else {
      throw .badData(
        path,
        "the header of \(grouped(headerBytes)) bytes runs past the end of the file (\(grouped(file.byteCount)) bytes); the "
          + "download is incomplete")
    }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: headerBytes, alignment: 16)
    defer { buffer.deallocate() }
    try file.read(at: 8, into: buffer)
    let header = try JSONValue(parsing: UnsafeRawBufferPointer(buffer), name: "\(path): header")
    guard let object = header.object else { throw .badData(path, "the header is not a JSON object") }
    let tensors = try tensors(object, file: file, part: part, dataStart: 8 + headerBytes)
    if let value = object["__metadata__"] {
      guard let members = value.object?.members else { throw .badData(path, "__metadata__ is not a JSON object") }
      for member in members {
        guard let text = member.value.string else {
          throw .badData(path, "__metadata__: the value of \(printable(member.key)) is not a string")
        }
        metadata[member.key] = metadata[member.key] ?? text
      }
    }
    return tensors
  }

  private static func tensors(
    _ header: JSONObject, file: SourceFile, part: Int, dataStart: Int
  ) throws(SquintError) -> [SourceTensor] {
    let path = file.path
    let dataBytes = file.byteCount - dataStart
    var tensors: [SourceTensor] = []
    for member in header.members where member.key != "__metadata__" {
      let tensor = try tensor(
        member.key, member.value, path: path, part: part, dataStart: dataStart, dataBytes: dataBytes)
      tensors.append(tensor)
    }
    tensors.sort { ($0.offset, $0.byteCount) < ($1.offset, $1.byteCount) }
    var end = dataStart
    for tensor in tensors {
      guard tensor.offset == end else {
        let what = tensor.offset < end ? "overlaps the one before it" : "leaves a hole before it"
        throw .badData(
          path,
          "tensor \(printable(tensor.name)): it starts at offset \(grouped(tensor.offset)) and \(what), the file is corrupt"
        )
      }
      end += tensor.byteCount
    }
    guard end == file.byteCount else {
      throw .badData(
        path,
        "the tensors end at offset \(grouped(end)) but the file at \(grouped(file.byteCount)); the file is corrupt")
    }
    return tensors
  }

  private static func tensor(
    _ name: String, _ entry: JSONValue, path: String, part: Int, dataStart: Int, dataBytes: Int
  ) throws(SquintError) -> SourceTensor {
    let place = "tensor \(printable(name))"
    guard let typeName = entry["dtype"]?.string, let dimensions = entry["shape"]?.array,
      let offsets = entry["data_offsets"]?.array, offsets.count == 2, let begin = offsets[0].int,
      let end = offsets[1].int
    else { throw .badData(path, "\(place): the header gives it no dtype, shape or data_offsets") }
    guard let type = SourceType(rawValue: typeName), !type.isQuantized else {
      throw .badData(path, "\(place): unknown type \(printable(typeName))")
    }
    guard dimensions.count <= maximumDimensions else {
      throw .badData(path, "\(place): \(dimensions.count) dimensions are more than \(maximumDimensions)")
    }
    var shape: [Int] = []
    for dimension in dimensions {
      guard let size = dimension.int, size >= 0 else { throw .badData(path, "\(place): its shape is not valid") }
      shape.append(size)
    }
    guard begin >= 0, begin <= end, end <= dataBytes else {
      throw .badData(
        path,
        "\(place): its bytes \(grouped(begin)) to \(grouped(end)) are not within the \(grouped(dataBytes)) bytes of data; the "
          + "download is incomplete")
    }
    guard let tensor = SourceTensor(name: name, shape: shape, type: type, part: part, offset: dataStart + begin) else {
      throw .badData(path, "\(place): its shape \(shape) is too large")
    }
    guard tensor.byteCount == end - begin else {
      throw .badData(
        path,
        "\(place): a shape of \(shape) in \(type.name) takes \(grouped(tensor.byteCount)) bytes, not \(grouped(end - begin))"
      )
    }
    return tensor
  }

  private static let maximumDimensions = 16
}

extension SafetensorsSource {
  /// How many files it has.
  var fileCount: Int { table.files.count }
}

/// Calls `body` with the bytes of `value`.
func withBytes<Value: BitwiseCopyable>(
  of value: inout Value, _ body: (UnsafeMutableRawBufferPointer) throws(SquintError) -> Void
) throws(SquintError) {
  let result = withUnsafeMutableBytes(of: &value) { bytes in
    Result { () throws(SquintError) in try body(bytes) }
  }
  try result.get()
}
