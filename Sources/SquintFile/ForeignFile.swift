/// Files that are there in place of others, and inputs that are no files: what they are, and what to do.
package enum ForeignFile {
  /// As many bytes as it takes to recognize a file.
  package static let startBytes = 512

  /// In words for a message, what a file that begins with `start` is and what to do; nil where it is none of those known here.
  package static func remark(start: [UInt8]) -> String? {
    guard !start.isEmpty else { return "the file is empty; copy or download it again" }
    for (offset, signature, remark) in signatures where start.dropFirst(offset).starts(with: signature) {
      return remark
    }
    // What servers send in place of a file may begin with a byte order mark or empty lines.
    let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
    let text = (start.starts(with: mark) ? start.dropFirst(mark.count) : start[...]).drop { $0 <= 0x20 }
    let word = text.prefix(longestWord).map { $0 | 0x20 }  // in small letters
    for (beginning, remark) in texts where word.starts(with: beginning.utf8.map({ $0 | 0x20 })) { return remark }
    return nil
  }

  private static let pointer =
    "this is a Git LFS pointer, not the file that it stands for; fetch that with \"git lfs pull\" in the clone's folder, or "
    + "download the file from the web page"
  private static let page =
    "this is a web page, not the file; the download went to a page (to log in, to accept a licence, or of an error): download "
    + "the file itself"
  /// Of PyTorch's checkpoints, which are never read here.
  package static let pickle =
    "this is a pickle, which runs code when it is read; convert it with \(pickleTool), which runs none of it"
  package static let pickleTool = "tools/pickle-to-safetensors"

  private static let texts: [(beginning: String, remark: String)] = [
    ("version https://git-lfs.github.com/spec/", pointer), ("version https://hawser.github.com/spec/", pointer),
    (
      "# xet version ", "this is a Xet pointer, not the file that it stands for; download the file with \"hf download\""
    ),
    ("<!doctype html", page), ("<html", page), ("<?xml", page),
    ("invalid username or password", page), ("entry not found", page), ("repository not found", page),
    ("access to model ", page), ("{\"error\":", page),
  ]
  private static let longestWord = 64

  private static func archive(_ kind: String) -> String { "this is a \(kind) archive; unpack it first" }

  private static let signatures: [(offset: Int, signature: [UInt8], remark: String)] = [
    (0, [0x1F, 0x8B], archive("gzip")), (0, [0x28, 0xB5, 0x2F, 0xFD], archive("zstd")),
    (0, [0xFD] + Array("7zXZ".utf8), archive("xz")), (0, Array("BZh".utf8), archive("bzip2")),
    (0, Array("7z".utf8) + [0xBC, 0xAF], archive("7z")), (0, Array("Rar!".utf8), archive("RAR")),
    (257, Array("ustar".utf8), archive("tar")),
    // PyTorch's files are zip archives of a folder with a pickle.
    (
      0, Array("PK".utf8) + [3, 4],
      "this is a zip archive, perhaps a PyTorch checkpoint (a pickle); unpack it first, or, if it is one, convert it with "
        + pickleTool
    ),
    (0, [0x80, 0x02], pickle), (0, [0x80, 0x03], pickle), (0, [0x80, 0x04], pickle), (0, [0x80, 0x05], pickle),
    (
      0, [0x89] + Array("HDF".utf8),
      "this is a HDF5 file (Keras); load it with its own program and save it with safetensors"
    ),
    (0, [0x89] + Array("SQNT".utf8), "this is a model that is converted already; give it to squint"),
    (0, Array("tjgg".utf8), "this is a GGML file, GGUF's forerunner; convert the model again with a current llama.cpp"),
    (0, Array("lmgg".utf8), "this is a GGML file, GGUF's forerunner; convert the model again with a current llama.cpp"),
    (0, Array("fmgg".utf8), "this is a GGML file, GGUF's forerunner; convert the model again with a current llama.cpp"),
  ]

  // MARK: Inputs that are no files

  /// What `path` is where it is none, and what to do; nil where it may be one.
  static func remark(path: String) -> String? {
    let start = path.prefix(8).lowercased()
    if start.hasPrefix("data:") {
      return "this is a data URI, not a file; write what it holds to a file first (base64 -d)"
    }
    if start.hasPrefix("hf:") {
      return "names on the Hugging Face hub are not fetched; \(download(path.dropFirst(3).drop { $0 == "/" }))"
    }
    if start.hasPrefix("file:") { return "this is a URL; give the path of the file, which is behind file://" }
    // The page of a model, with or without the protocol.
    let place = path.hasPrefix("https://") ? path.dropFirst(8) : path[...]
    for hub in ["huggingface.co/", "hf.co/"] where place.hasPrefix(hub) {
      let words = place.dropFirst(hub.count).split(separator: "/")
      if words.count == 2 {
        return "this is a model on the Hugging Face hub; \(download(Substring(words.joined(separator: "/"))))"
      }
    }
    if path.prefix(32).contains("://") {
      return "this is a URL, not a file; download it first (curl -LO URL) and give the file"
    }
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    let isName =
      parts.count == 2
      && parts.allSatisfy { part in
        !part.isEmpty && part.first != "." && part.utf8.allSatisfy(isNameByte)
      }
    let isFile = fileEndings.contains { path.lowercased().hasSuffix($0) }
    // In a folder that exists it is a file that does not.
    guard isName, !isFile, access(String(parts[0]), F_OK) != 0 else { return nil }
    return "there is no such file; if this is a name on the Hugging Face hub, \(download(path[...]))"
  }

  /// Names on the hub have dots, too, but do not end like files.
  private static let fileEndings = [
    ".squint", ".zst", ".gguf", ".safetensors", ".onnx", ".bin", ".json", ".jpg", ".jpeg", ".png", ".webp", ".gif",
    ".bmp",
    ".txt", ".npy",
  ]

  private static func download(_ name: Substring) -> String {
    let folder = name.split(separator: "/").last.map(String.init) ?? "FOLDER"
    return "download it first (hf download \(name.prefix(100)) --local-dir \(folder.prefix(100))) and give the folder"
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }
}

extension SquintError {
  /// The error of an input at `path` that cannot be opened, because of `code` (errno).
  package static func cannotOpen(_ path: String, _ code: Int32) -> SquintError {
    guard code == ENOENT || code == ENOTDIR || code == ENAMETOOLONG, let remark = ForeignFile.remark(path: path) else {
      return SquintError(.noInput, "\(path): \(systemMessage(code))")
    }
    // A data URI may be as long as an image.
    let name = path.count > longestName ? path.prefix(longestName) + "…" : path
    return SquintError(.noInput, "\(name): \(remark)")
  }

  private static let longestName = 100
}
