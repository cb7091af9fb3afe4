/// A file, or a part of one, mapped read-only into memory, unmapped when its owner is destroyed.
///
/// The mapping costs address space, not memory: a page is read when it is first touched.
package struct MappedFile: ~Copyable, Sendable {
  /// What messages call it.
  package let path: String
  /// The open file. What is read through it does not enter the page cache where the filesystem allows that.
  let descriptor: Int32
  /// Where in the open file `bytes` begin.
  let offset: Int
  /// The whole file, or the part. Valid as long as this value lives.
  package nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

  /// Maps the file at `path`.
  ///
  /// - Parameters:
  ///   - range: the part that is mapped, in bytes from the start of the file; nil: all of it.
  ///   - name: what messages call it; nil: its path.
  /// - Throws: `SquintError.noInput` when it does not exist, is a folder or cannot be read; `badData` when it has no such part.
  package init(path: String, range: Range<Int>? = nil, name: String? = nil) throws(SquintError) {
    let shown = name ?? path
    // O_NONBLOCK: opening a named pipe would wait for a writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw .cannotOpen(shown, errno) }
    let bytes: UnsafeRawBufferPointer
    do throws(SquintError) {
      bytes = try Self.map(descriptor, range, shown)
    } catch {
      close(descriptor)
      throw error
    }
    // Together, at the end: Swift 6.0 takes no error out of an initializer that has set some of them.
    self.path = shown
    offset = range?.lowerBound ?? 0
    self.bytes = bytes
    self.descriptor = descriptor
  }

  private static func map(
    _ descriptor: Int32, _ range: Range<Int>?, _ path: String
  ) throws(SquintError) -> UnsafeRawBufferPointer {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw SquintError(.noInput, "\(path): \(systemMessage(errno))")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw SquintError(.noInput, "\(path): \(irregular(status))")
    }
    let size = Int(status.st_size)
    let range = range ?? 0..<size
    guard range.lowerBound >= 0, range.upperBound <= size else {
      throw .badData(
        path,
        "bytes \(grouped(range.lowerBound)) to \(grouped(range.upperBound)) are not in the file (\(grouped(size)) bytes); "
          + "fetch it again")
    }
    // mmap refuses a length of zero.
    guard !range.isEmpty else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    let lead = Self.lead(range.lowerBound)
    let count = lead + range.count
    guard let base = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, off_t(range.lowerBound - lead)),
      base != MAP_FAILED
    else {
      let code = errno
      throw SquintError(
        code == ENOMEM ? .doesNotFit : .noInput,
        "\(path): cannot map \(grouped(count)) bytes: \(systemMessage(code))")
    }
    return UnsafeRawBufferPointer(start: base + lead, count: range.count)
  }

  private static var pageBytes: Int { Int(sysconf(Int32(_SC_PAGESIZE))) }

  /// The bytes that are mapped before a part that begins at `offset`: mmap begins with a page.
  private static func lead(_ offset: Int) -> Int { offset % pageBytes }

  /// Tells the kernel what will become of the bytes `range`.
  func advise(_ range: Range<Int>, _ use: FileUse) {
    guard let base = bytes.baseAddress, !range.isEmpty else { return }
    // Another file's range would make the kernel drop memory that is not ours to drop.
    precondition(range.upperBound <= bytes.count, "a range of another file")
    // madvise takes whole pages; for their neighbours the advice does no harm.
    let start = UnsafeMutableRawPointer(mutating: base + range.lowerBound).alignedDown(toMultipleOf: Self.pageBytes)
    let advice =
      switch use {
      case .sparsely: MADV_RANDOM
      case .inOrder: MADV_SEQUENTIAL
      case .soon: MADV_WILLNEED
      case .done: MADV_DONTNEED
      }
    madvise(start, base + range.upperBound - UnsafeRawPointer(start), advice)
  }

  deinit {
    if let base = bytes.baseAddress {
      let lead = Self.lead(offset)
      munmap(UnsafeMutableRawPointer(mutating: base - lead), lead + bytes.count)
    }
    close(descriptor)
  }
}

/// What becomes of a part of a mapped file.
package enum FileUse: Sendable {
  /// Single pages will be read, and their neighbours not, unless advice says so.
  case sparsely
  /// All of it will be read from one end to the other.
  case inOrder
  /// It will be read soon: the disk may begin.
  case soon
  /// It will not be read any more: its pages leave this process, but may stay in the page cache.
  case done
}

/// What is wrong with an input of `status` that is read at any place, and so has to be a regular file.
package func irregular(_ status: stat) -> String {
  switch status.st_mode & S_IFMT {
  case S_IFDIR: "this is a folder, not a file"
  case S_IFIFO, S_IFSOCK:
    "this is a pipe, which can be read once only, and it is read at many places; save it as a file"
  default: "this is a device, not a file"
  }
}
