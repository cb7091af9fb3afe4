import CSystem
import SquintFile

/// The file of a medium, such as an image, that is read by position: in pieces, since the pages of a mapped file would count as our memory.
///
/// A pipe is read to its end first, into memory that has a descriptor as files have.
package final class MediaFile: Sendable {
  /// Where it is; the text of one that is given as text.
  package let path: String
  let descriptor: Int32
  /// The size when the file was opened, in bytes.
  let byteCount: Int
  /// The memory that it takes as long as it is open, in bytes: what came through a pipe.
  package let heldBytes: Int
  /// Whether it cannot be opened again by its path: a pipe, or a descriptor of this process.
  package let isReadOnce: Bool
  /// Whether it is a folder, whose files are the medium.
  let isFolder: Bool
  /// Whether it is no file but a text that was given in its place.
  let isText: Bool

  /// What messages call it: `path`, but a beginning of a long text.
  package var name: String {
    guard isText else { return path }
    if path.allSatisfy(\.isWhitespace) { return "the \(Self.textNoun)" }
    return path.utf8.count > 80 ? "\(path.prefix(40))…" : path
  }

  /// Opens the file at `path`; `-` is stdin.
  ///
  /// - Parameters:
  ///   - noun: what messages ask for.
  ///   - takesFolders: whether a folder will do.
  /// - Throws: `noInput` when it does not exist, is neither a regular file nor a pipe, or cannot be opened; `badData` where more
  ///   comes through a pipe than is accepted.
  package init(path: String, noun: String = "image", takesFolders: Bool = false) throws(SquintError) {
    let name = path == "-" ? "stdin" : path
    let inherited = Self.inherited(path)
    let descriptor =
      inherited.map { fcntl($0, F_DUPFD_CLOEXEC, 0) }
      // O_NONBLOCK: opening a named pipe would wait for a writer.
      ?? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .cannotOpen(name, errno) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let code = errno
      close(descriptor)
      throw SquintError(.noInput, "\(name): \(systemMessage(code))")
    }
    self.path = name
    isText = false
    isFolder = takesFolders && status.st_mode & S_IFMT == S_IFDIR
    switch status.st_mode & S_IFMT {
    case S_IFDIR where takesFolders:
      self.descriptor = descriptor
      byteCount = 0
      heldBytes = 0
      isReadOnce = false
    case S_IFREG:
      self.descriptor = descriptor
      byteCount = Int(status.st_size)
      heldBytes = 0
      isReadOnce = inherited != nil
    case S_IFIFO, S_IFSOCK:
      defer { close(descriptor) }
      (self.descriptor, byteCount) = try PipeReader(descriptor, name: name, noun: noun).memoryFile()
      heldBytes = byteCount
      isReadOnce = true
    default:
      let kind = status.st_mode & S_IFMT == S_IFDIR ? "a folder" : isatty(descriptor) == 1 ? "a terminal" : "a device"
      close(descriptor)
      throw SquintError(.noInput, "\(name): this is \(kind); give the file of \(noun == "image" ? "an" : "a") \(noun)")
    }
  }

  /// A medium that is given as text: a molecule.
  ///
  /// - Throws: `badData` where it is longer than any is, `doesNotFit` where there is no memory for it.
  package init(text: String) throws(SquintError) {
    path = text
    isText = true
    isFolder = false
    isReadOnce = true
    let bytes = Array(text.utf8)
    guard bytes.count <= Self.mostTextBytes else {
      throw .badData(
        "a \(Self.textNoun)",
        "\(grouped(bytes.count)) bytes; \(grouped(Self.mostTextBytes)) at most are taken as text, give a file")
    }
    byteCount = bytes.count
    heldBytes = bytes.count
    descriptor = squint_memory_file()
    guard descriptor >= 0, pwrite(descriptor, bytes, bytes.count, 0) == bytes.count else {
      let code = errno
      if descriptor >= 0 { close(descriptor) }
      throw SquintError(.doesNotFit, "\(path): there is no memory for it: \(systemMessage(code))")
    }
  }

  /// More is a file's.
  private static let mostTextBytes = 1 << 20
  private static let textNoun = "molecule"

  deinit { close(descriptor) }

  /// The descriptor of this process that `path` means: stdin, or one that a shell hands over as /dev/fd/63. Opened by its number it
  /// needs no /proc, and may be a socket.
  static func inherited(_ path: String) -> Int32? {
    if path == "-" || path == "/dev/stdin" { return STDIN_FILENO }
    for folder in ["/dev/fd/", "/proc/self/fd/"] where path.hasPrefix(folder) {
      return Int32(path.dropFirst(folder.count))
    }
    return nil
  }

  /// Whether `path` names stdin: by `-`, or as a file of the system's.
  package static func isStandardInput(_ path: String) -> Bool { inherited(path) == STDIN_FILENO }

  /// The `count` bytes from `offset` on, or those of them that the file has.
  func bytes(at offset: Int, count: Int) throws(SquintError) -> [UInt8] {
    let wanted = max(0, min(count, byteCount - offset))
    var bytes = [UInt8](repeating: 0, count: wanted)
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(SquintError) in try read(at: offset, into: buffer) }
    }
    bytes.removeLast(wanted - (try result.get()))
    return bytes
  }

  /// Fills `buffer` with the bytes from `offset` on; returns how many of them the file has.
  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SquintError) -> Int {
    var done = 0
    while done < buffer.count {
      let count = pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw unreadable(systemMessage(errno)) }
      if count == 0 { break }  // its end, or the file shrank after it was opened
      done += count
    }
    return done
  }

  func unreadable(_ message: String) -> SquintError { SquintError(.inputOutput, "\(path): cannot be read: \(message)") }

  func error(_ message: String) -> SquintError { .badData(path, message) }

  var truncated: SquintError {
    error("the image is truncated: its data ends before its last row; copy or download it again")
  }

  func noMemory(_ byteCount: Int) -> SquintError {
    SquintError(
      .doesNotFit,
      "\(path): there is no memory for the \(grouped(byteCount)) bytes that decoding takes; use a smaller image")
  }
}

/// Reads a pipe or a socket to its end.
private struct PipeReader {
  private let descriptor: Int32
  private let name: String
  private let noun: String

  /// A photograph of 150 megapixels as JPEG; more is a file's.
  private static let mostBytes = 64 << 20
  /// How long a named pipe waits for someone who writes, and any pipe for the next byte, in milliseconds. A camera takes seconds.
  private static let patience = (writer: 3_000, byte: 30_000)

  init(_ descriptor: Int32, name: String, noun: String) {
    self.descriptor = descriptor
    self.noun = noun
    self.name = name
  }

  /// A file in memory with all that comes, and its size.
  func memoryFile() throws(SquintError) -> (descriptor: Int32, byteCount: Int) {
    let file = squint_memory_file()
    guard file >= 0 else { throw unreadable(systemMessage(errno)) }
    do throws(SquintError) {
      return (file, try copy(to: file))
    } catch {
      close(file)
      throw error
    }
  }

  private func copy(to file: Int32) throws(SquintError) -> Int {
    // A named pipe, which was opened here, does not wait; others do, and are asked first.
    let isNamed = fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0
    var hasWriter = !isNamed
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    var total = 0
    while true {
      let patience = hasWriter ? Self.patience.byte : Self.patience.writer
      let isReady = waitForInput(descriptor, milliseconds: patience)
      guard isReady || !hasWriter else { throw silent(patience) }
      let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && errno == EAGAIN { hasWriter = true }
      if count < 0 && (errno == EINTR || errno == EAGAIN) { continue }
      guard count >= 0 else { throw unreadable(systemMessage(errno)) }
      guard count > 0 else {
        guard isReady else { throw silent(patience) }
        return total
      }
      hasWriter = true
      guard total + count <= Self.mostBytes else {
        throw .badData(
          name, "more than \(grouped(Self.mostBytes)) bytes come through the pipe; save the \(noun) as a file")
      }
      try append(buffer[..<count], to: file, at: total)
      total += count
    }
  }

  private func append(_ bytes: ArraySlice<UInt8>, to file: Int32, at offset: Int) throws(SquintError) {
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes {
        pwrite(file, $0.baseAddress! + done, bytes.count - done, off_t(offset + done))
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else {
        throw SquintError(.doesNotFit, "\(name): there is no memory for the \(noun): \(systemMessage(errno))")
      }
      done += count
    }
  }

  private func silent(_ patience: Int) -> SquintError {
    SquintError(
      .noInput, "\(name): nothing has come through the pipe for \(patience / 1000) seconds; is anyone writing into it?")
  }

  private func unreadable(_ message: String) -> SquintError {
    SquintError(.inputOutput, "\(name): cannot be read: \(message)")
  }
}
