import SquintFile

/// The kinds of image files that are decoded.
package enum ImageFormat: String, Sendable, Equatable, CaseIterable {
  case jpeg, png, webp, gif, bmp

  package var name: String {
    switch self {
    case .jpeg: "JPEG"
    case .png: "PNG"
    case .webp: "WebP"
    case .gif: "GIF"
    case .bmp: "BMP"
    }
  }
}

extension ImageFormat {
  /// All of them, for messages: "JPEG, PNG, … and BMP".
  package static let list: String = {
    let names = allCases.map(\.name)
    return names.dropLast().joined(separator: ", ") + " and " + names[names.count - 1]
  }()

  /// The endings of their files' names.
  package static let extensions = ["jpg", "jpeg", "png", "webp", "gif", "bmp"]

  /// The format that the file's first bytes tell; its name may say anything.
  ///
  /// - Throws: `badData` that says what the file is instead, as far as its first bytes tell.
  static func recognize(_ file: MediaFile) throws(SquintError) -> ImageFormat {
    guard file.byteCount > 0 else { throw file.error("the file is empty; copy or download it again") }
    let start = try file.bytes(at: 0, count: 64)
    if start.starts(with: [0xFF, 0xD8, 0xFF]) { return .jpeg }
    if start.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) { return .png }
    if start.starts(with: "RIFF".utf8), start.dropFirst(8).starts(with: "WEBP".utf8) { return .webp }
    if start.starts(with: "GIF87a".utf8) || start.starts(with: "GIF89a".utf8) { return .gif }
    if start.starts(with: "BM".utf8), BMPHeader.isSize(Array(start.dropFirst(14).prefix(4))) { return .bmp }
    let kind = otherKind(start)
    if kind == text, let remark = ForeignFile.remark(start: start) { throw file.error(remark) }
    throw file.error("this is \(kind); \(ImageFormat.list) images are understood, convert it to one of them")
  }

  /// In words for a message, what a file is that starts with `start`.
  private static func otherKind(_ start: [UInt8]) -> String {
    for (offset, signature, kind) in signatures where start.dropFirst(offset).starts(with: signature.utf8) {
      return kind
    }
    for (signature, kind) in binarySignatures where start.starts(with: signature) { return kind }
    if start.allSatisfy({ $0 == 0 }) { return "a file of zeros" }
    let isText = start.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
    return isText ? text : "no image that is known"
  }

  private static let text = "a text"

  private static let signatures: [(offset: Int, signature: String, kind: String)] = [
    (0, "%PDF", "a PDF document"),
    (4, "ftypavif", "an AVIF image"), (4, "ftypavis", "an AVIF image"),
    (4, "ftyphei", "a HEIC image"), (4, "ftyphev", "a HEIC image"),
    (4, "ftypmif1", "a HEIF image"), (4, "ftypmsf1", "a HEIF image"),
    (4, "ftyp", "a video"),
    (4, "jP  ", "a JPEG 2000 image"),
    (4, "JXL ", "a JPEG XL image"),
    (0, "8BPS", "a Photoshop image"),
    (0, "RIFF", "a sound or a video"),
    (0, "OggS", "a sound or a video"),
    (0, "PK", "an archive or an office document"),
    (0, "<svg", "an SVG drawing"),
    (0, "<?xml", "an XML text, perhaps an SVG drawing"),
    (0, "<!DOCTYPE", "a web page"), (0, "<!doctype", "a web page"), (0, "<html", "a web page"),
    (1, "SQNT", "a model"),
  ]

  private static let binarySignatures: [(signature: [UInt8], kind: String)] = [
    ([0x49, 0x49, 0x2A, 0x00], "a TIFF image"), ([0x4D, 0x4D, 0x00, 0x2A], "a TIFF image"),
    ([0xFF, 0x0A], "a JPEG XL image"),
    ([0xFF, 0x4F, 0xFF, 0x51], "a JPEG 2000 image"),
    ([0x00, 0x00, 0x01, 0x00], "an icon"),
    ([0x1F, 0x8B], "a gzip archive"),
    ([0x28, 0xB5, 0x2F, 0xFD], "a zstd archive"),
    ([0x7F, 0x45, 0x4C, 0x46], "a program"),
  ]
}
