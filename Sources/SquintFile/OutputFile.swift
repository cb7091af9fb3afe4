/// A file that appears under its name only when it is complete.
///
/// It is written under a temporary name beside it, synced, and renamed by `finish()`. When it is destroyed before that,
/// nothing is left behind.
package final class OutputFile {
  package let path: String
  private let temporaryPath: String
  private let descriptor: Int32
  private var end = 0
  private var isFinished = false

  /// - Throws: `cannotCreate` when the folder does not let it be created.
  package init(path: String) throws(SquintError) {
    self.path = path
    // The file is renamed to `path` in the end: that must not replace a device such as /dev/null, and cannot replace a
    // folder.
    var status = stat()
    if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
      let kind = status.st_mode & S_IFMT == S_IFDIR ? "a folder" : "not a regular file"
      throw SquintError(.cannotCreate, "\(path): cannot be created: it is \(kind); give the name of a file")
    }
    // Random, not the process id, which in a container is the same at every start: two writers of one path must not
    // write into, or publish, each other's file, and what a killed one left behind must not stop the next.
    temporaryPath = "\(path).partial-\(String(UInt64.random(in: 0...UInt64.max), radix: 36))"
    descriptor = open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw SquintError(.cannotCreate, "\(path): cannot be created: \(systemMessage(errno))")
    }
  }

  deinit {
    guard descriptor >= 0 else { return }  // it was not created: what has its name is not ours
    close(descriptor)
    if !isFinished { unlink(temporaryPath) }
  }

  /// Reserves `byteCount` bytes on the disk: a full disk is an error now, not after minutes of work.
  package func reserve(_ byteCount: Int) throws(SquintError) {
    var code: Int32
    repeat { code = posix_fallocate(descriptor, 0, off_t(byteCount)) } while code == EINTR
    // Not every filesystem can; then the error comes with the writing.
    guard code == 0 || code == EOPNOTSUPP || code == EINVAL else {
      throw SquintError(.cannotCreate, "\(path): cannot reserve \(grouped(byteCount)) bytes: \(systemMessage(code))")
    }
    // Where nothing was reserved, the length is still set, so that the file ends where it should.
    guard ftruncate(descriptor, off_t(byteCount)) == 0 else {
      throw SquintError(.cannotCreate, "\(path): cannot take \(grouped(byteCount)) bytes: \(systemMessage(errno))")
    }
  }

  /// Appends `bytes` behind the last byte written.
  package func write(_ bytes: UnsafeRawBufferPointer) throws(SquintError) { try write(bytes, at: end) }

  /// Writes `bytes` at `offset`.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(SquintError) {
    var done = 0
    while done < bytes.count {
      let count = pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw SquintError(.inputOutput, "\(path): cannot be written: \(systemMessage(errno))") }
      done += count
    }
    end = max(end, offset + bytes.count)
  }

  /// Syncs the file and gives it its name.
  package func finish() throws(SquintError) {
    guard fsync(descriptor) == 0, rename(temporaryPath, path) == 0 else {
      throw SquintError(.inputOutput, "\(path): cannot be completed: \(systemMessage(errno))")
    }
    isFinished = true
    syncFolder()
  }

  /// Makes the rename itself durable; a filesystem that cannot sync a folder has nothing more to offer.
  private func syncFolder() {
    let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    let descriptor = open(folder, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    fsync(descriptor)
    close(descriptor)
  }
}
