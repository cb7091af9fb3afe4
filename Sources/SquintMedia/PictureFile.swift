import SquintFile

/// A picture file that is read by position: in pieces, since the pages of a mapped file would count as our memory.
final class PictureFile {
  let path: String
  let descriptor: Int32
  /// The size when the file was opened, in bytes.
  let byteCount: Int

  /// - Throws: `noInput` when it does not exist, is not a regular file or cannot be opened.
  init(path: String) throws(SquintError) {
    // O_NONBLOCK: opening a named pipe would wait for a writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .cannotOpen(path, errno) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let code = errno
      close(descriptor)
      throw SquintError(.noInput, "\(path): \(systemMessage(code))")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      let isFolder = status.st_mode & S_IFMT == S_IFDIR
      throw SquintError(
        .noInput, "\(path): this is \(isFolder ? "a folder" : "not a regular file"); give the file of a picture")
    }
    self.path = path
    self.descriptor = descriptor
    byteCount = Int(status.st_size)
  }

  deinit { close(descriptor) }

  /// The `count` bytes from `offset` on, or those of them that the file has.
  func bytes(at offset: Int, count: Int) throws(SquintError) -> [UInt8] {
    let wanted = max(0, min(count, byteCount - offset))
    var bytes = [UInt8](repeating: 0, count: wanted)
    var done = 0
    while done < wanted {
      let result = bytes.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress! + done, wanted - done, off_t(offset + done))
      }
      if result < 0 && errno == EINTR { continue }
      guard result >= 0 else { throw unreadable(systemMessage(errno)) }
      if result == 0 { break }  // the file shrank after it was opened
      done += result
    }
    bytes.removeLast(wanted - done)
    return bytes
  }

  func unreadable(_ message: String) -> SquintError { SquintError(.inputOutput, "\(path): cannot be read: \(message)") }

  func error(_ message: String) -> SquintError { .badData(path, message) }

  var truncated: SquintError {
    error("the picture is truncated: its data ends before its last row; copy or download it again")
  }

  func noMemory(_ byteCount: Int) -> SquintError {
    SquintError(
      .doesNotFit,
      "\(path): there is no memory for the \(grouped(byteCount)) bytes that decoding takes; use a smaller picture")
  }
}
