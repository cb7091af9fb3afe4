/// A file that appears under its name only when it is complete.
///
/// It is written under a temporary name beside it, synced, and renamed by `finish()`. When it is destroyed before that,
/// nothing is left behind; what a killed process left, the next that writes the same file removes.
package final class OutputFile {
  package let path: String
  /// `path`, or what it leads to where it is a link: that is replaced, and the link stays.
  private let target: String
  private let temporaryPath: String
  private let descriptor: Int32
  private let slot: Int?
  private var end = 0
  private var isFinished = false

  /// - Throws: `cannotCreate` when the folder does not let it be created.
  package init(path: String) throws(SquintError) {
    self.path = path
    guard !path.isEmpty else { throw SquintError(.cannotCreate, "the output has no name; give the name of a file") }
    // The file is renamed to `path` in the end: that must not replace a device such as /dev/null, and cannot replace a
    // folder.
    var status = stat()
    guard stat(path, &status) == 0 || errno == ENOENT else {
      throw SquintError(.cannotCreate, "\(path): cannot be created: \(systemMessage(errno))")
    }
    if status.st_mode != 0, status.st_mode & S_IFMT != S_IFREG {
      let kind = status.st_mode & S_IFMT == S_IFDIR ? "a folder" : "not a regular file"
      throw SquintError(.cannotCreate, "\(path): cannot be created: it is \(kind); give the name of a file")
    }
    target = followed(path)
    TemporaryName.removeLeftovers(beside: target)
    guard let created = TemporaryName.create(beside: target) else {
      throw SquintError(.cannotCreate, "\(path): cannot be created: \(systemMessage(errno))")
    }
    (temporaryPath, descriptor, slot) = created
  }

  deinit {
    guard descriptor >= 0 else { return }  // it was not created: what has its name is not ours
    if !isFinished { unlink(temporaryPath) }
    if let slot { UnfinishedFiles.forget(slot) }
    close(descriptor)
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
    guard fsync(descriptor) == 0, rename(temporaryPath, target) == 0 else {
      throw SquintError(.inputOutput, "\(path): cannot be completed: \(systemMessage(errno))")
    }
    isFinished = true
    syncFolder()
  }

  /// Makes the rename itself durable; a filesystem that cannot sync a folder has nothing more to offer.
  private func syncFolder() {
    let descriptor = open(TemporaryName.parts(target).folder, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    fsync(descriptor)
    close(descriptor)
  }
}

/// Names such as model.squint.partial-1x0c5wz9k2m: random, not the process id, which in a container is the same at every start.
/// Two writers of one path must not write into, or publish, each other's file.
///
/// A file with such a name is locked as long as its writer lives, however it ends: what can be locked is nobody's.
private enum TemporaryName {
  private static let mark = ".partial-"
  /// The digits that a random number of 64 bits has at most, in base 36.
  private static let digits = 13
  /// The bytes that a name may have on Linux's filesystems.
  private static let longestName = 255

  /// The folder of `path` and, within it, the beginning of the temporary names for it.
  static func parts(_ path: String) -> (folder: String, stem: String) {
    let bytes = path.fileNameBytes
    let start = bytes.lastIndex(of: UInt8(ascii: "/")).map { $0 + 1 } ?? 0
    // A name that is as long as names may be still has room for the mark.
    let name = bytes[start...].prefix(longestName - mark.utf8.count - digits)
    let folder = start == 0 ? "." : start == 1 ? "/" : String(fileName: bytes[..<(start - 1)])
    return (folder, String(fileName: name) + mark)
  }

  /// A new file beside `path` that is locked; nil, with `errno`, where there can be none.
  static func create(beside path: String) -> (path: String, descriptor: Int32, slot: Int?)? {
    let (folder, stem) = parts(path)
    while true {
      let name = "\(folder)/\(stem)\(String(UInt64.random(in: 0...UInt64.max), radix: 36))"
      // A signal may come as soon as the file is there.
      let slot = UnfinishedFiles.add(name)
      let descriptor = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
      guard descriptor >= 0 else {
        let code = errno
        if let slot { UnfinishedFiles.forget(slot) }
        errno = code
        return nil
      }
      // Before it was locked, another writer may have taken it for a leftover. Where there are no locks, none is ever removed.
      var status = stat()
      let isLocked = flock(descriptor, LOCK_EX | LOCK_NB) == 0
      if !isLocked && errno == EWOULDBLOCK || fstat(descriptor, &status) == 0 && status.st_nlink == 0 {
        close(descriptor)
        unlink(name)
        if let slot { UnfinishedFiles.forget(slot) }
        continue
      }
      return (name, descriptor, slot)
    }
  }

  /// Removes what writers of `path` left behind that were killed.
  static func removeLeftovers(beside path: String) {
    let (folder, stem) = parts(path)
    guard let names = try? fileNames(inFolder: folder) else { return }
    for name in names where name.utf8.starts(with: stem.utf8) {
      let end = name.utf8.dropFirst(stem.utf8.count)
      guard (1...digits).contains(end.count), end.allSatisfy({ isDigit($0) }) else { continue }
      let file = "\(folder)/\(name)"
      let descriptor = open(file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
      guard descriptor >= 0 else { continue }
      defer { close(descriptor) }
      var status = stat()
      guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { unlink(file) }
    }
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
  }
}

/// `path`, or the end of the links that it begins.
private func followed(_ path: String) -> String {
  var path = path
  // As many as the kernel follows.
  for _ in 0..<40 {
    guard let link = linkTarget(path) else { return path }
    let folder = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[...$0]) } ?? ""
    path = link.hasPrefix("/") ? link : folder + link
  }
  return path
}

/// Where the link at `path` leads; nil where it is none.
private func linkTarget(_ path: String) -> String? {
  withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
    let count = path.withFileName { readlink($0, buffer.baseAddress!, buffer.count) }
    guard count > 0 else { return nil }
    return String(fileName: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count]))
  }
}
