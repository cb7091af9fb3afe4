import SquintFile

/// Text from a GGUF file: bytes, which ought to be UTF-8 but, in a vocabulary, need not be.
package struct ByteString: Hashable, Sendable {
  package let bytes: [UInt8]

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The text; nil where the bytes are not UTF-8.
  package var text: String? { String(validating: bytes, as: UTF8.self) }
}

/// A metadata value of a GGUF file.
package enum GGUFValue: Sendable, Equatable {
  /// Any of the integer types, where the value fits.
  case integer(Int64)
  /// A UINT64 above the largest Int64.
  case unsigned(UInt64)
  /// FLOAT32 or FLOAT64.
  case float(Double)
  case bool(Bool)
  case string(ByteString)
  /// An array of any of the integer types.
  case integers([Int64])
  /// An array of FLOAT32 or FLOAT64.
  case floats([Double])
  case bools([Bool])
  case strings([ByteString])
  case arrays([GGUFValue])

  package var int: Int? {
    if case .integer(let value) = self { Int(exactly: value) } else { nil }
  }

  /// The number, also where it was written as an integer.
  package var double: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .unsigned(let value): Double(value)
    case .float(let value): value
    default: nil
    }
  }

  package var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The text; nil where this is no string or not UTF-8.
  package var string: String? {
    if case .string(let value) = self { value.text } else { nil }
  }

  package var integers: [Int64]? {
    if case .integers(let values) = self { values } else { nil }
  }

  package var floats: [Double]? {
    if case .floats(let values) = self { values } else { nil }
  }

  package var bools: [Bool]? {
    if case .bools(let values) = self { values } else { nil }
  }

  package var strings: [ByteString]? {
    if case .strings(let values) = self { values } else { nil }
  }
}

/// A model in GGUF, version 2 or 3, little-endian; a split one is read as a whole.
///
/// The layout: ggml-org/ggml, docs/gguf.md.
package struct GGUFSource: FileTensorSource {
  package let table: TensorTable
  /// The metadata of the file, or of the first part.
  package let metadata: [String: GGUFValue]
  /// The version that the file says it has.
  package let version: Int

  /// Opens the file at `path`; where it is one part of a split model (`NAME-00001-of-00003.gguf`), all parts.
  ///
  /// - Throws: `SquintError.noInput` where it or a part of it does not exist, `.badData` where one is broken.
  package init(path: String) throws(SquintError) {
    let first = try Self.readHeader(of: SourceFile(path: path), part: 0)
    let count = try Self.splitCount(first)
    guard count > 1 else {
      var table = TensorTable(files: [first.file])
      for tensor in first.tensors { try table.add(tensor) }
      self.table = table
      metadata = first.metadata
      version = first.version
      return
    }
    let paths = try Self.partPaths(of: path, count: count)
    var files: [SourceFile] = []
    for path in paths { files.append(try SourceFile(path: path)) }
    var table = TensorTable(files: files)
    var metadata: [String: GGUFValue] = [:]
    var tensorCount: Int?
    for (part, file) in files.enumerated() {
      let header = try Self.readHeader(of: file, part: part)
      let otherCount = try Self.splitCount(header)
      guard otherCount == count, header.metadata["split.no"]?.int == part else {
        throw .badData(
          file.path, "it does not say that it is part \(part + 1) of \(count); its name is wrong or it is corrupt")
      }
      for tensor in header.tensors { try table.add(tensor) }
      if part == 0 {
        metadata = header.metadata
        tensorCount = header.metadata["split.tensors.count"]?.int
      }
    }
    if let tensorCount, tensorCount != table.tensors.count {
      throw .badData(
        paths[0],
        "its parts have \(table.tensors.count) tensors together, not \(tensorCount); one of them is another model's")
    }
    self.table = table
    self.metadata = metadata
    version = first.version
  }
}

// MARK: - Parts

extension GGUFSource {
  /// As many as a file name has digits for, within the usual limit of 1,024 open files.
  private static let maximumParts = 800

  private static func splitCount(_ header: Header) throws(SquintError) -> Int {
    guard let value = header.metadata["split.count"] else { return 1 }
    guard let count = value.int, (0...maximumParts).contains(count) else {
      throw .badData(header.file.path, "metadata split.count: this is not a number from 0 to \(maximumParts)")
    }
    return count
  }

  /// The paths of all parts of the model that `path` is one part of.
  private static func partPaths(of path: String, count: Int) throws(SquintError) -> [String] {
    func number(_ value: Int) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, 5 - digits.utf8.count)) + digits
    }
    let ending = "-of-\(number(count)).gguf"
    let digits = path.utf8.dropLast(ending.utf8.count).suffix(6)
    guard path.hasSuffix(ending), digits.count == 6, digits.first == UInt8(ascii: "-"),
      digits.dropFirst().allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else {
      throw .badData(
        path, "this is one of \(count) parts of a model; to find the others, name it as it was: NAME-00001\(ending)")
    }
    let prefix = String(decoding: path.utf8.dropLast(ending.utf8.count + 6), as: UTF8.self)
    return (1...count).map { "\(prefix)-\(number($0))\(ending)" }
  }
}

// MARK: - The header

extension GGUFSource {
  private struct Header {
    let file: SourceFile
    let version: Int
    let metadata: [String: GGUFValue]
    let tensors: [SourceTensor]
  }

  private static let magic: UInt32 = 0x4655_4747  // "GGUF"
  private static let maximumKeyBytes = 65_535  // the specification's limit
  private static let maximumNameBytes = 1_024  // the specification's is 64
  private static let maximumDimensions = 4
  /// Ten times what the largest published models have; a bound on memory.
  private static let maximumTensors = 1 << 20
  private static let maximumPairs = 1 << 16
  /// The smallest an entry can be: an empty name and a byte of value, or no dimensions.
  private static let minimumPairBytes = 8 + 4 + 1
  private static let minimumTensorBytes = 8 + 4 + 4 + 8

  private static func readHeader(of file: SourceFile, part: Int) throws(SquintError) -> Header {
    try file.refuseForeign()
    var reader = GGUFReader(file: file)
    let path = file.path
    guard file.byteCount >= 24 else {
      throw .badData(path, "\(file.byteCount) bytes are too few for a GGUF file; the download is incomplete")
    }
    guard try reader.integer(UInt32.self) == magic else {
      throw .badData(path, "this is not a GGUF file: it does not start with \"GGUF\"")
    }
    let version = try reader.integer(UInt32.self)
    guard version & 0xFFFF != 0 else {
      throw .badData(path, "this GGUF file is big-endian; convert it with gguf-py's gguf_convert_endian.py")
    }
    guard version != 1 else {
      throw .badData(path, "GGUF version 1 is not supported; convert the model again with a current llama.cpp")
    }
    guard version == 2 || version == 3 else {
      throw .badData(path, "GGUF version \(version) is newer than this program knows (3); update squint-convert")
    }
    let tensorCount = try reader.count(of: "tensors", minimumBytes: minimumTensorBytes, maximum: maximumTensors)
    let pairCount = try reader.count(of: "metadata entries", minimumBytes: minimumPairBytes, maximum: maximumPairs)

    var metadata: [String: GGUFValue] = [:]
    for index in 0..<pairCount {
      reader.place = "metadata entry \(index)"
      let key = try reader.text(maximumBytes: maximumKeyBytes)
      reader.place = "metadata \(printable(key))"
      let value = try reader.value()
      guard metadata.updateValue(value, forKey: key) == nil else { throw reader.error("it is there twice") }
    }
    reader.place = "metadata general.alignment"
    var alignment = 32
    if let value = metadata["general.alignment"] {
      guard let size = value.int, size > 0, size <= 1 << 20, size & (size - 1) == 0 else {
        throw reader.error("this is not a power of two of at most 1,048,576")
      }
      alignment = size
    }

    var entries: [TensorEntry] = []
    for index in 0..<tensorCount {
      reader.place = "tensor \(index)"
      entries.append(try tensorEntry(&reader))
    }
    // Where the header ends is known only now; all of it is within the file, so the sum cannot overflow.
    let dataStart = (reader.position + alignment - 1) / alignment * alignment
    var tensors: [SourceTensor] = []
    for entry in entries {
      let name = printable(entry.name)
      guard entry.offset % UInt64(alignment) == 0 else {
        throw .badData(path, "tensor \(name): offset \(grouped(entry.offset)) is no multiple of \(alignment)")
      }
      let offset = entry.offset.addingReportingOverflow(UInt64(dataStart))
      guard !offset.overflow, let offset = Int(exactly: offset.partialValue), offset <= file.byteCount else {
        throw .badData(
          path,
          "tensor \(name): offset \(grouped(entry.offset)) runs past the end of the file (\(grouped(file.byteCount)) bytes); the "
            + "download is incomplete")
      }
      guard
        let tensor = SourceTensor(name: entry.name, shape: entry.shape, type: entry.type, part: part, offset: offset)
      else {
        throw .badData(
          path,
          "tensor \(name): a shape of \(entry.shape) is too large or its last dimension is no multiple of the "
            + "\(entry.type.elementsPerBlock) numbers of a \(entry.type.name) block")
      }
      tensors.append(tensor)
    }
    var end = dataStart
    for tensor in tensors.sorted(by: { ($0.offset, $0.byteCount) < ($1.offset, $1.byteCount) }) {
      guard tensor.offset >= end else {
        throw .badData(
          path, "tensor \(printable(tensor.name)): it overlaps the one before it at offset \(grouped(tensor.offset))")
      }
      end = tensor.offset.addingReportingOverflow(tensor.byteCount).partialValue
      guard end >= tensor.offset else { break }  // refused when the tensor is added to the table
    }
    return Header(file: file, version: Int(version), metadata: metadata, tensors: tensors)
  }

  private struct TensorEntry {
    let name: String
    let shape: [Int]
    let type: SourceType
    let offset: UInt64
  }

  private static func tensorEntry(_ reader: inout GGUFReader) throws(SquintError) -> TensorEntry {
    let name = try reader.text(maximumBytes: maximumNameBytes)
    reader.place = "tensor \(printable(name))"
    let dimensions = try reader.integer(UInt32.self)
    guard dimensions <= maximumDimensions else {
      throw reader.error("\(grouped(dimensions)) dimensions are more than \(maximumDimensions)")
    }
    var shape: [Int] = []
    for _ in 0..<dimensions {
      let size = try reader.integer(UInt64.self)
      guard let size = Int(exactly: size) else { throw reader.error("a dimension of \(grouped(size)) is too large") }
      shape.append(size)
    }
    let typeNumber = try reader.integer(UInt32.self)
    guard let type = SourceType(ggmlType: typeNumber) else {
      throw reader.error("type \(typeNumber) is unknown; requantize the model to Q4_K or Q8_0")
    }
    // GGUF has the innermost dimension first.
    return TensorEntry(
      name: name, shape: shape.reversed(), type: type, offset: try reader.integer(UInt64.self))
  }
}

extension SourceType {
  /// The type that has the number `number` in `enum ggml_type` (ggml.h); nil where there is none (any more).
  package init?(ggmlType number: UInt32) {
    switch number {
    case 0: self = .f32
    case 1: self = .f16
    case 2: self = .q40
    case 3: self = .q41
    case 6: self = .q50
    case 7: self = .q51
    case 8: self = .q80
    case 9: self = .q81
    case 10: self = .q2k
    case 11: self = .q3k
    case 12: self = .q4k
    case 13: self = .q5k
    case 14: self = .q6k
    case 15: self = .q8k
    case 16: self = .iq2xxs
    case 17: self = .iq2xs
    case 18: self = .iq3xxs
    case 19: self = .iq1s
    case 20: self = .iq4nl
    case 21: self = .iq3s
    case 22: self = .iq2s
    case 23: self = .iq4xs
    case 24: self = .i8
    case 25: self = .i16
    case 26: self = .i32
    case 27: self = .i64
    case 28: self = .f64
    case 29: self = .iq1m
    case 30: self = .bf16
    case 34: self = .tq10
    case 35: self = .tq20
    case 39: self = .mxfp4
    case 40: self = .nvfp4
    case 41: self = .q10
    default: return nil
    }
  }
}

// MARK: - Reading

/// Reads a GGUF header from start to end, through a window so that only that much of it is in memory at once.
private struct GGUFReader {
  /// What is being read, for messages.
  var place = "header"
  /// Where the next byte is in the file.
  var position: Int { window.position }

  private var file: SourceFile { window.file }
  private var window: FileWindow
  /// How many array elements and bytes of text there may still be.
  private var elementsLeft = 4 << 20
  private var textBytesLeft = 64 << 20

  private static let maximumDepth = 4

  init(file: SourceFile) { window = FileWindow(file: file) }

  func error(_ message: String) -> SquintError { .badData(file.path, "\(place): \(message)") }

  private func pastTheEnd(_ count: some BinaryInteger) -> SquintError {
    error(
      "\(grouped(count)) bytes at offset \(grouped(position)) run past the end of the file (\(grouped(file.byteCount)) bytes); "
        + "the download is incomplete")
  }

  mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) throws(SquintError) -> Value {
    let size = MemoryLayout<Value>.size
    guard window.bytesLeft >= size else { throw pastTheEnd(size) }
    return try window.integer(type)
  }

  /// A number of things of which each takes at least `minimumBytes`.
  mutating func count(of things: String, minimumBytes: Int, maximum: Int) throws(SquintError) -> Int {
    let count = try integer(UInt64.self)
    guard count <= UInt64((file.byteCount - position) / minimumBytes) else {
      throw error(
        "\(grouped(count)) \(things) do not fit in the file (\(grouped(file.byteCount)) bytes); it is corrupt")
    }
    guard count <= UInt64(maximum) else { throw error("\(grouped(count)) \(things) are too many") }
    return Int(count)
  }

  mutating func byteString(maximumBytes: Int) throws(SquintError) -> ByteString {
    let length = try integer(UInt64.self)
    guard length <= UInt64(file.byteCount - position) else { throw pastTheEnd(length) }
    guard length <= UInt64(min(maximumBytes, textBytesLeft)) else {
      throw error("a string of \(grouped(length)) bytes is too long")
    }
    textBytesLeft -= Int(length)
    return ByteString(try window.bytes(Int(length)))
  }

  mutating func text(maximumBytes: Int) throws(SquintError) -> String {
    guard let text = try byteString(maximumBytes: maximumBytes).text else { throw error("the name is not UTF-8") }
    return text
  }

  mutating func value() throws(SquintError) -> GGUFValue {
    let kind = try kind()
    return kind == .array ? try array(depth: 1) : try scalar(kind)
  }

  private enum Kind: UInt32 {
    case uint8 = 0
    case int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// The least an element takes in the file, in bytes.
    var minimumBytes: Int {
      switch self {
      case .uint8, .int8, .bool: 1
      case .uint16, .int16: 2
      case .uint32, .int32, .float32: 4
      case .string, .uint64, .int64, .float64: 8
      case .array: 12
      }
    }
  }

  private mutating func kind() throws(SquintError) -> Kind {
    let number = try integer(UInt32.self)
    guard let kind = Kind(rawValue: number) else { throw error("value type \(number) is unknown") }
    return kind
  }

  private mutating func scalar(_ kind: Kind) throws(SquintError) -> GGUFValue {
    switch kind {
    case .float32, .float64: .float(try float(kind))
    case .bool: .bool(try integer(UInt8.self) != 0)
    case .string: .string(try byteString(maximumBytes: .max))
    case .uint64:
      try unsigned()
    default: .integer(try signed(kind))
    }
  }

  private mutating func unsigned() throws(SquintError) -> GGUFValue {
    let value = try integer(UInt64.self)
    return Int64(exactly: value).map { .integer($0) } ?? .unsigned(value)
  }

  private mutating func signed(_ kind: Kind) throws(SquintError) -> Int64 {
    switch kind {
    case .uint8: return Int64(try integer(UInt8.self))
    case .int8: return Int64(try integer(Int8.self))
    case .uint16: return Int64(try integer(UInt16.self))
    case .int16: return Int64(try integer(Int16.self))
    case .uint32: return Int64(try integer(UInt32.self))
    case .int32: return Int64(try integer(Int32.self))
    case .int64: return try integer(Int64.self)
    default:
      let value = try integer(UInt64.self)
      guard let value = Int64(exactly: value) else { throw error("\(grouped(value)) in an array is too large") }
      return value
    }
  }

  private mutating func float(_ kind: Kind) throws(SquintError) -> Double {
    kind == .float32
      ? Double(Float(bitPattern: try integer(UInt32.self))) : Double(bitPattern: try integer(UInt64.self))
  }

  private mutating func array(depth: Int) throws(SquintError) -> GGUFValue {
    guard depth <= Self.maximumDepth else {
      throw error("arrays are nested deeper than \(Self.maximumDepth) levels")
    }
    let kind = try kind()
    let count = try count(of: "array elements", minimumBytes: kind.minimumBytes, maximum: elementsLeft)
    elementsLeft -= count
    switch kind {
    case .float32, .float64:
      var values: [Double] = []
      values.reserveCapacity(count)
      for _ in 0..<count { values.append(try float(kind)) }
      return .floats(values)
    case .bool:
      var values: [Bool] = []
      values.reserveCapacity(count)
      for _ in 0..<count { values.append(try integer(UInt8.self) != 0) }
      return .bools(values)
    case .string:
      var values: [ByteString] = []
      values.reserveCapacity(count)
      for _ in 0..<count { values.append(try byteString(maximumBytes: .max)) }
      return .strings(values)
    case .array:
      var values: [GGUFValue] = []
      for _ in 0..<count { values.append(try array(depth: depth + 1)) }
      return .arrays(values)
    default:
      var values: [Int64] = []
      values.reserveCapacity(count)
      for _ in 0..<count { values.append(try signed(kind)) }
      return .integers(values)
    }
  }
}
