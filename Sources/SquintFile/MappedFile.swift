/// A file mapped read-only into memory, unmapped when its owner is destroyed.
///
/// The mapping costs address space, not memory: a page is read when it is first touched.
public struct MappedFile: ~Copyable, Sendable {
  public let path: String
  /// The open file. What is read through it does not enter the page cache where the filesystem allows that.
  let descriptor: Int32
  /// The whole file. Valid as long as this value lives.
  public nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

  /// Maps the file at `path`.
  ///
  /// - Throws: `SquintError.noInput` when it does not exist, is a folder or cannot be read.
  public init(path: String) throws(SquintError) {
    self.path = path
    // O_NONBLOCK: opening a named pipe would wait for a writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw SquintError(.noInput, "\(path): \(systemMessage(errno))")
    }
    do throws(SquintError) {
      bytes = try Self.map(descriptor, path)
    } catch {
      close(descriptor)
      throw error
    }
    self.descriptor = descriptor
  }

  private static func map(_ descriptor: Int32, _ path: String) throws(SquintError) -> UnsafeRawBufferPointer {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw SquintError(.noInput, "\(path): \(systemMessage(errno))")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      let isFolder = status.st_mode & S_IFMT == S_IFDIR
      throw SquintError(.noInput, "\(path): this is \(isFolder ? "a folder, not a file" : "not a regular file")")
    }
    let count = Int(status.st_size)
    guard count > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }  // mmap refuses a length of zero
    guard let base = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
      throw SquintError(.noInput, "\(path): cannot map \(grouped(count)) bytes: \(systemMessage(errno))")
    }
    return UnsafeRawBufferPointer(start: base, count: count)
  }

  /// Tells the kernel what will become of the bytes `range`.
  func advise(_ range: Range<Int>, _ use: FileUse) {
    guard let base = bytes.baseAddress, !range.isEmpty else { return }
    // Another file's range would make the kernel drop memory that is not ours to drop.
    precondition(range.upperBound <= bytes.count, "a range of another file")
    // madvise takes whole pages; for their neighbours the advice does no harm.
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let start = range.lowerBound / page * page
    let advice =
      switch use {
      case .sparsely: MADV_RANDOM
      case .inOrder: MADV_SEQUENTIAL
      case .soon: MADV_WILLNEED
      case .done: MADV_DONTNEED
      }
    madvise(UnsafeMutableRawPointer(mutating: base + start), range.upperBound - start, advice)
  }

  deinit {
    if let base = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: base), bytes.count) }
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
