import SquintFile

/// A checkpoint in safetensors: one file, or a folder with one or more.
///
/// The layout (huggingface/safetensors, README and `Metadata::validate`): a 64-bit length N, N bytes of JSON that give
/// each tensor's type, shape and bytes, then the bytes, without holes and in the order of the offsets.
package struct SafetensorsSource: FileTensorSource {
  package let table: TensorTable
  /// The `__metadata__` of all files; of the same key in several files, the first.
  package let metadata: [String: String]

  /// The reference allows 100 MB; this is as long as any JSON we read, and ten times what is published.
  package static let maximumHeaderBytes = JSONValue.maximumByteCount

  /// Opens the file at `path`, or all safetensors files of the folder there: those that its index
  /// (`model.safetensors.index.json`) names; without an index `model.safetensors`; without that every `*.safetensors`.
  ///
  /// - Throws: `SquintError.noInput` where there is none, `.badData` where one is broken or a file that the index names is
  ///   missing.
  package init(path: String) throws(SquintError) {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw SquintError(.noInput, "\(path): \(systemMessage(errno))")
    }
    if status.st_mode & S_IFMT == S_IFDIR {
      try self.init(folder: path)
    } else {
      try self.init(paths: [path])
    }
  }

  /// Opens all of the files at `paths`, as one checkpoint.
  package init(paths: [String]) throws(SquintError) {
    var files: [SourceFile] = []
    for path in paths { files.append(try SourceFile(path: path)) }
    var table = TensorTable(files: files)
    var metadata: [String: String] = [:]
    for part in files.indices { try Self.readHeader(of: files[part], part: part, into: &table, &metadata) }
    self.table = table
    self.metadata = metadata
  }

  private init(folder: String) throws(SquintError) {
    let names = try fileNames(inFolder: folder)
    let indexSuffix = ".safetensors.index.json"
    let indexes = names.filter { $0.hasSuffix(indexSuffix) }
    if let index = indexes.first(where: { $0 == "model" + indexSuffix }) ?? (indexes.count == 1 ? indexes[0] : nil) {
      try self.init(folder: folder, index: "\(folder)/\(index)")
      return
    }
    let single = "model.safetensors"
    let all = names.contains(single) ? [single] : names.filter { $0.hasSuffix(".safetensors") }
    guard !all.isEmpty else {
      throw SquintError(
        .noInput, "\(folder): there is no *.safetensors file in this folder; save the checkpoint with safetensors")
    }
    try self.init(paths: all.map { "\(folder)/\($0)" })
  }

  /// Opens the files that the index at `index` names.
  private init(folder: String, index: String) throws(SquintError) {
    guard let map = try JSONValue.read(path: index)["weight_map"]?.object else {
      throw .badData(index, "it has no weight_map; download the checkpoint again")
    }
    var names: [String] = []
    var seen: Set<ExactString> = []
    for member in map.members {
      guard let name = member.value.string, !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")),
        !name.utf8.contains(0), name != "..", name != "."
      else {
        throw .badData(index, "tensor \(printable(member.key)): its file is not named by a file name of this folder")
      }
      if seen.insert(ExactString(name)).inserted { names.append(name) }
    }
    guard names.count <= Self.maximumFiles else {
      throw .badData(index, "\(grouped(names.count)) files are more than a checkpoint may have (\(Self.maximumFiles))")
    }
    try self.init(paths: names.sorted().map { "\(folder)/\($0)" })
    for member in map.members {
      guard let tensor = table.tensor(named: member.key), path(of: tensor) == "\(folder)/\(member.value.string ?? "")"
      else {
        throw .badData(
          "\(folder)/\(member.value.string ?? "")",
          "tensor \(printable(member.key)) is missing, which the index says is here; download the checkpoint again")
      }
    }
  }

  /// Every file is kept open: a bound well under the usual limit of 1,024.
  private static let maximumFiles = 800

  private static func readHeader(
    of file: SourceFile, part: Int, into table: inout TensorTable, _ metadata: inout [String: String]
  ) throws(SquintError) {
    let path = file.path
    var length: UInt64 = 0
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
    try addTensors(object, file: file, part: part, dataStart: 8 + headerBytes, into: &table)
    if let value = object["__metadata__"] {
      guard let members = value.object?.members else { throw .badData(path, "__metadata__ is not a JSON object") }
      for member in members {
        guard let text = member.value.string else {
          throw .badData(path, "__metadata__: the value of \(printable(member.key)) is not a string")
        }
        metadata[member.key] = metadata[member.key] ?? text
      }
    }
  }

  private static func addTensors(
    _ header: JSONObject, file: SourceFile, part: Int, dataStart: Int, into table: inout TensorTable
  ) throws(SquintError) {
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
      try table.add(tensor)
    }
    guard end == file.byteCount else {
      throw .badData(
        path,
        "the tensors end at offset \(grouped(end)) but the file at \(grouped(file.byteCount)); the file is corrupt")
    }
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

/// Calls `body` with the bytes of `value`.
func withBytes<Value: BitwiseCopyable>(
  of value: inout Value, _ body: (UnsafeMutableRawBufferPointer) throws(SquintError) -> Void
) throws(SquintError) {
  let result = withUnsafeMutableBytes(of: &value) { bytes in
    Result { () throws(SquintError) in try body(bytes) }
  }
  try result.get()
}
