import SquintFile

/// What a library reads of a sound, by position, through callbacks.
final class SoundSource {
  let file: MediaFile
  private(set) var offset = 0
  /// Why something could not be read.
  private(set) var failure: SquintError?

  init(_ file: MediaFile) { self.file = file }

  static func of(_ pointer: UnsafeMutableRawPointer?) -> SoundSource {
    Unmanaged<SoundSource>.fromOpaque(pointer!).takeUnretainedValue()
  }

  /// lseek: the new offset, or −1.
  func seek(_ distance: Int, _ whence: Int32) -> Int {
    let base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? offset : file.byteCount
    let (place, overflows) = base.addingReportingOverflow(distance)
    guard !overflows, place >= 0 else { return -1 }
    offset = place
    return offset
  }

  /// read: how many bytes there were.
  func read(into bytes: UnsafeMutableRawPointer?, count: Int) -> Int {
    guard let bytes, count > 0, failure == nil, offset < file.byteCount else { return 0 }
    let buffer = UnsafeMutableRawBufferPointer(start: bytes, count: min(count, file.byteCount - offset))
    do throws(SquintError) {
      let done = try file.read(at: offset, into: buffer)
      offset += done
      return done
    } catch {
      failure = error
      return 0
    }
  }
}

/// Whether a file whose samples are counted by what is there was longer once.
enum SoundEnd {
  /// Files of chunks, one behind the other: a name, a size in bytes, as many of them.
  private struct Chunks {
    let start: Int
    let nameBytes: Int
    let sizeBytes: Int
    let isLittle: Bool
    /// That which has the samples.
    let name: String
    /// Whether a size counts the name and itself.
    let countsHead: Bool
    /// Sizes are rounded up to a multiple.
    let alignment: Int
  }

  static func isMissing(_ file: MediaFile) throws(SquintError) -> Bool {
    let start = try file.bytes(at: 0, count: 16)
    func has(_ word: String, at offset: Int = 0) -> Bool { start.dropFirst(offset).starts(with: word.utf8) }
    if has("OggS") { return try lacksOggEnd(file) }
    if has("RIFF"), has("WAVE", at: 8) {
      return try isCut(
        Chunks(
          start: 12, nameBytes: 4, sizeBytes: 4, isLittle: true, name: "data", countsHead: false, alignment: 2), file)
    }
    if has("FORM"), has("AIF", at: 8) {
      return try isCut(
        Chunks(
          start: 12, nameBytes: 4, sizeBytes: 4, isLittle: false, name: "SSND", countsHead: false, alignment: 2), file)
    }
    if has("caff") {
      return try isCut(
        Chunks(
          start: 8, nameBytes: 4, sizeBytes: 8, isLittle: false, name: "data", countsHead: false, alignment: 1), file)
    }
    if has("riff") {  // Sony's W64: names are GUIDs that begin with a word.
      return try isCut(
        Chunks(
          start: 40, nameBytes: 16, sizeBytes: 8, isLittle: true, name: "data", countsHead: true, alignment: 8), file)
    }
    if has(".snd") {
      let (first, size) = (number(start[4..<8], isLittle: false), number(start[8..<12], isLittle: false))
      return size < unknownSize && first + size > file.byteCount
    }
    return false
  }

  private static func isCut(_ chunks: Chunks, _ file: MediaFile) throws(SquintError) -> Bool {
    let headBytes = chunks.nameBytes + chunks.sizeBytes
    var offset = chunks.start
    for _ in 0..<mostChunks {
      let head = try file.bytes(at: offset, count: headBytes)
      guard head.count == headBytes else { return false }
      let size = number(head[chunks.nameBytes...], isLittle: chunks.isLittle)
      let end = offset + (chunks.countsHead ? max(size, headBytes) : headBytes + size)
      if head.starts(with: chunks.name.utf8) {
        // Who writes into a pipe does not know the size, and says the most.
        return size < (chunks.sizeBytes == 4 ? unknownSize : mostSize) && end > file.byteCount
      }
      guard size < mostSize else { return false }
      offset = (end + chunks.alignment - 1) / chunks.alignment * chunks.alignment
    }
    return false
  }

  private static let mostChunks = 1000
  private static let unknownSize = 0x7FFF_0000
  private static let mostSize = 1 << 60

  /// No more than `mostSize`.
  private static func number(_ bytes: ArraySlice<UInt8>, isLittle: Bool) -> Int {
    let value = (isLittle ? Array(bytes.reversed()) : Array(bytes)).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return Int(min(value, UInt64(mostSize)))
  }

  /// Whether the last page does not say that it is, or is not whole.
  private static func lacksOggEnd(_ file: MediaFile) throws(SquintError) -> Bool {
    // "OggS", version, flags, 20 bytes, how many sizes follow, the sizes of segments, and the segments.
    let (headBytes, longest) = (27, 65_307)
    let end = try file.bytes(at: max(0, file.byteCount - longest), count: longest)
    for start in stride(from: end.count - headBytes, through: 0, by: -1) {
      guard end[start] == 0x4F, end[start...].starts(with: "OggS".utf8) else { continue }
      let sizes = end[(start + headBytes)...].prefix(Int(end[start + headBytes - 1]))
      let size = headBytes + Int(end[start + headBytes - 1]) + sizes.reduce(0) { $0 + Int($1) }
      return end[start + 5] & 4 == 0 || start + size > end.count
    }
    return true
  }
}
