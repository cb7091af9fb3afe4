/// The first 128 bytes of a file (formats/squint.md, "Header").
struct FileHeader {
  static let magic: [UInt8] = [0x89, 0x53, 0x51, 0x4E, 0x54, 0x0D, 0x0A, 0x1A]  // \x89 S Q N T \r \n \x1A
  static let version: UInt32 = 1
  static let byteCount = 128
  /// Bounds what opening a file may cost, whatever the file says.
  static let largestFront = 2 << 20
  static let largestBulk = 64 << 20
  static let moduleAlignment = 64 << 10

  var fileBytes = 0
  var frontBytes = 0
  var bulkOffset = 0
  var bulkBytes = 0
  var bulkDecodedBytes = 0
  var bulkChecksum: UInt64 = 0
  var metadataCount = 0
  var moduleCount = 0
  var tensorCount = 0
  var bulkMetadataCount = 0
  /// What a reader must know to read on.
  var features: UInt32 = 0

  /// The feature of files with a graph that is not `llama`, `vit` or `mlp`: readers from before there were names of graphs would
  /// compute them as one of those.
  static let namesGraphs: UInt32 = 1

  /// At most what the tables and the metadata of the front take in memory, in bytes: rows of some hundred bytes, and texts, of which
  /// an empty one takes four times what it takes in the file.
  var tableBytes: Int { 160 * metadataCount + 128 * moduleCount + 384 * tensorCount + 5 * frontBytes }

  /// Where tables and metadata end; modules begin there or behind.
  var metadataEnd: Int { bulkOffset + bulkBytes }

  /// The bytes before the checksum, which covers them and the front.
  func encoded() -> [UInt8] {
    var out = ByteWriter()
    out.append(bytes: Self.magic)
    out.append(Self.version)
    out.append(features)
    for value in [fileBytes, frontBytes, bulkOffset, bulkBytes, bulkDecodedBytes] { out.append(UInt64(value)) }
    out.append(bulkChecksum)
    for value in [metadataCount, moduleCount, tensorCount, bulkMetadataCount] { out.append(UInt32(value)) }
    out.append(bytes: [UInt8](repeating: 0, count: Self.byteCount - 8 - out.bytes.count))
    return out.bytes
  }
}

extension FileHeader {
  /// Reads the header of the file `path`, and checks it and the front that follows it.
  init(path: String, file: UnsafeRawBufferPointer) throws(SquintError) {
    guard !file.prefix(4).elementsEqual("GGUF".utf8) else {
      throw .badData(path, "this is a GGUF model; convert it with squint-convert")
    }
    guard !Self.isImage(file) else {
      throw SquintError(.badData, "\(path): this is an image, not a model", remedies: [.imageBesideModel])
    }
    guard file.count >= Self.magic.count, file.prefix(Self.magic.count).elementsEqual(Self.magic) else {
      if let remark = ForeignFile.remark(start: Array(file.prefix(ForeignFile.startBytes))) {
        throw .badData(path, remark)
      }
      throw .badData(
        path, "this is not a Squint model (it does not start with \\x89SQNT); make one with squint-convert")
    }
    guard file.count >= Self.byteCount else { throw Self.truncated(path, expected: Self.byteCount, found: file.count) }
    var cursor = ByteCursor(file, place: "\(path): header")
    _ = try cursor.take(Self.magic.count)
    let version = try cursor.next(UInt32.self)
    guard version == Self.version else {
      throw .badData(
        path, "format version \(version), and this program reads version \(Self.version); update squint")
    }
    features = try cursor.next(UInt32.self)
    guard features & ~Self.namesGraphs == 0 else {
      throw .badData(path, "it needs features that this version does not have; update squint")
    }
    func size(_ value: UInt64) throws(SquintError) -> Int {
      guard let int = Int(exactly: value) else {
        throw .badData(path, "a size in the header is impossible (\(value)); fetch the file again")
      }
      return int
    }
    fileBytes = try size(try cursor.next(UInt64.self))
    frontBytes = try size(try cursor.next(UInt64.self))
    bulkOffset = try size(try cursor.next(UInt64.self))
    bulkBytes = try size(try cursor.next(UInt64.self))
    bulkDecodedBytes = try size(try cursor.next(UInt64.self))
    bulkChecksum = try cursor.next(UInt64.self)
    metadataCount = Int(try cursor.next(UInt32.self))
    moduleCount = Int(try cursor.next(UInt32.self))
    tensorCount = Int(try cursor.next(UInt32.self))
    bulkMetadataCount = Int(try cursor.next(UInt32.self))
    let reserved = try cursor.take(Self.byteCount - 8 - cursor.offset)

    guard file.count >= fileBytes else { throw Self.truncated(path, expected: fileBytes, found: file.count) }
    guard file.count == fileBytes else {
      throw .badData(
        path,
        "\(grouped(file.count)) bytes, but its header says \(grouped(fileBytes)): something was appended; "
          + "fetch the file again")
    }
    guard frontBytes <= Self.largestFront, frontBytes <= file.count - Self.byteCount else {
      throw .badData(path, "its tables claim \(grouped(frontBytes)) bytes, which cannot be; fetch the file again")
    }
    var sum = StreamingChecksum()
    sum.update(UnsafeRawBufferPointer(rebasing: file[0..<Self.byteCount - 8]))
    sum.update(UnsafeRawBufferPointer(rebasing: file[Self.byteCount..<Self.byteCount + frontBytes]))
    let stored = UInt64(littleEndian: file.loadUnaligned(fromByteOffset: Self.byteCount - 8, as: UInt64.self))
    guard sum.value == stored else {
      throw .badData(path, "the checksum of its header and tables does not match: the file is corrupt; fetch it again")
    }
    guard reserved.allSatisfy({ $0 == 0 }) else {
      throw .badData(path, "a reserved field of its header is set; update squint")
    }
    // No entry and no row is shorter than 8 bytes: with this, sizes that are made of these counts are sizes.
    guard [metadataCount, moduleCount, tensorCount].allSatisfy({ $0 <= frontBytes / 8 }) else {
      throw .badData(path, "its tables claim more rows than they have bytes for; fetch the file again")
    }
    guard bulkOffset >= Self.byteCount + frontBytes, bulkOffset % PanelLayout.alignment == 0,
      bulkOffset <= fileBytes, bulkBytes <= fileBytes - bulkOffset, bulkDecodedBytes <= Self.largestBulk,
      bulkBytes > 0 || (bulkDecodedBytes == 0 && bulkMetadataCount == 0)
    else { throw .badData(path, "its compressed metadata lies outside the file; fetch the file again") }
  }

  /// Whether `file` is an image: people give one where the model belongs.
  private static func isImage(_ file: UnsafeRawBufferPointer) -> Bool {
    file.starts(with: [0xFF, 0xD8, 0xFF]) || file.starts(with: [0x89, 0x50, 0x4E, 0x47])
      || file.starts(with: "RIFF".utf8) && file.dropFirst(8).starts(with: "WEBP".utf8) || file.starts(with: "GIF8".utf8)
      // The size of a BMP's header is small.
      || file.starts(with: "BM".utf8) && file.dropFirst(15).starts(with: [0, 0, 0])
  }

  private static func truncated(_ path: String, expected: Int, found: Int) -> SquintError {
    .badData(
      path, "\(grouped(found)) of \(grouped(expected)) bytes are here: the download is incomplete; fetch the rest")
  }
}
