import SquintFile

/// A file as it was when it was looked at, so that it is looked at once.
struct FileIdentity: Equatable, Sendable {
  private let device: UInt64
  private let number: UInt64
  private let byteCount: Int
  private let changed: [Int]

  /// nil where the system does not say.
  init?(_ file: MediaFile) {
    var status = stat()
    guard fstat(file.descriptor, &status) == 0 else { return nil }
    #if canImport(Darwin)
      let time = status.st_mtimespec
    #else
      let time = status.st_mtim
    #endif
    device = UInt64(truncatingIfNeeded: status.st_dev)
    number = UInt64(truncatingIfNeeded: status.st_ino)
    byteCount = Int(status.st_size)
    changed = [Int(time.tv_sec), Int(time.tv_nsec)]
  }
}
