import SquintFile

/// A file that the converter reads from, by position, from any number of threads at once.
///
/// Reads go through `pread`: the pages of a mapped file would count as the converter's own memory, which it promises
/// to bound.
package final class SourceFile: Sendable {
  package let path: String
  /// The size when the file was opened, in bytes.
  package let byteCount: Int
  private let descriptor: Int32

  /// Opens the file at `path`.
  ///
  /// - Throws: `SquintError.noInput` when it does not exist, is not a regular file or cannot be opened.
  package init(path: String) throws(SquintError) {
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
      throw SquintError(.noInput, "\(path): \(irregular(status))")
    }
    self.path = path
    self.descriptor = descriptor
    byteCount = Int(status.st_size)
  }

  deinit { close(descriptor) }

  /// The first bytes, at most `count`.
  package func start(_ count: Int = ForeignFile.startBytes) throws(SquintError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: min(count, byteCount))
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(SquintError) in try read(at: 0, into: buffer) }
    }
    try result.get()
    return bytes
  }

  /// Refuses a file that is there in place of the one that is meant: a pointer, a web page, an archive.
  ///
  /// - Throws: `SquintError.badData` that says what it is and what to do.
  package func refuseForeign() throws(SquintError) {
    if let remark = ForeignFile.remark(start: try start()) { throw .badData(path, remark) }
  }

  /// Fills `buffer` with the bytes from `offset` on.
  ///
  /// - Throws: `SquintError.badData` when the file ends before the buffer is full, `.inputOutput` when reading fails.
  package func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SquintError) {
    guard buffer.count > 0 else { return }
    let (end, overflow) = offset.addingReportingOverflow(buffer.count)
    guard offset >= 0, !overflow, end <= byteCount else { throw pastTheEnd(offset: offset, count: buffer.count) }
    var done = 0
    while done < buffer.count {
      let count = pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
      if count > 0 {
        done += count
      } else if count == 0 {  // the file shrank after it was opened
        throw pastTheEnd(offset: offset, count: buffer.count)
      } else if errno != EINTR {
        throw SquintError(
          .inputOutput, "\(path): reading \(grouped(buffer.count)) bytes at \(grouped(offset)): \(systemMessage(errno))"
        )
      }
    }
  }

  private func pastTheEnd(offset: Int, count: Int) -> SquintError {
    .badData(
      path,
      "\(grouped(count)) bytes at offset \(grouped(offset)) run past the end of the file (\(grouped(byteCount)) bytes); "
        + "the download is incomplete")
  }
}
