import Synchronization

/// Reads parts of a model file into memory of the caller's, past the page cache: what is read once and not soon again must
/// not push out what is.
///
/// Where the filesystem has no such reads (O_DIRECT), the pages are dropped behind each read.
package final class DirectReader: Sendable {
  private let file: ModelFile
  private let isDirect: Atomic<Bool>
  private let total = Atomic<Int>(0)

  /// Where reads start, and the memory that they fill: multiples of this many bytes. No disk has larger blocks.
  package static let alignment = 4096

  package init(_ file: ModelFile) {
    self.file = file
    isDirect = Atomic(setDirect(file.descriptor, true))
  }

  /// What has been read so far, in bytes.
  package var bytesRead: Int { total.load(ordering: .relaxed) }

  /// `range` with both ends moved outwards to multiples of `alignment`: what has to be read to have it.
  package static func aligned(_ range: Range<Int>) -> Range<Int> {
    let start = range.lowerBound / alignment * alignment
    return start..<max(start, (range.upperBound + alignment - 1) / alignment * alignment)
  }

  /// The most that `count` bytes of a file are when their ends are moved to multiples of `alignment`.
  package static func spaceBytes(_ count: Int) -> Int { count + 2 * alignment }

  /// Reads the bytes `range` of the model, whose ends are multiples of `alignment`, into as many bytes at `target`. The end may
  /// lie behind that of the model; then what is there is read.
  ///
  /// - Throws: `inputOutput` where the disk fails, or the file has become shorter.
  package func read(_ range: Range<Int>, into target: UnsafeMutableRawPointer) throws(SquintError) {
    let needed = min(range.upperBound, file.byteCount) - range.lowerBound
    var done = 0
    while done < needed {
      let offset = range.lowerBound + done
      let wasDirect = isDirect.load(ordering: .acquiring)
      let count = pread(file.descriptor, target + done, range.count - done, off_t(file.offset + offset))
      if count < 0 && errno == EINTR { continue }
      // Several threads may meet this at the same time. Each whose read was direct tries again, and who finds it written that
      // reads are not direct any more finds the file so.
      if count < 0 && errno == EINVAL && wasDirect {
        _ = setDirect(file.descriptor, false)
        isDirect.store(false, ordering: .releasing)
        continue
      }
      // A short read ends anywhere; the next has to start at a multiple again.
      let end = done + max(count, 0)
      let next = end < needed ? end / Self.alignment * Self.alignment : end
      guard next > done else {
        throw SquintError(
          .inputOutput,
          "\(file.path): cannot read \(grouped(needed - done)) bytes at offset \(grouped(offset)): "
            + (count < 0 ? systemMessage(errno) : "the file has become shorter") + "; check the disk and the file")
      }
      total.wrappingAdd(next - done, ordering: .relaxed)
      done = next
    }
    if !isDirect.load(ordering: .relaxed) { file.dropCached(range) }
  }
}

/// Makes reads of `descriptor` pass the page cache, or not; returns whether they do.
private func setDirect(_ descriptor: Int32, _ direct: Bool) -> Bool {
  #if os(Linux)
    return fcntl(descriptor, F_SETFL, direct ? __O_DIRECT : 0) == 0 && direct
  #else
    return false
  #endif
}
