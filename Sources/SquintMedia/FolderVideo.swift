import SquintFile

/// A folder of images as a video: one frame each, in the order of the numbers in their names.
final class FolderVideo: VideoReader {
  let header: VideoHeader
  private let file: MediaFile
  private let names: [String]
  private var chosen: [Int] = []
  private var position = 0

  init(_ file: MediaFile) throws(SquintError) {
    self.file = file
    let names = try fileNames(inFolder: file.path).filter(Self.isImage)
    guard !names.isEmpty else {
      throw SquintError(
        .noInput,
        "\(file.path): there is no image in this folder; give one of frames, files whose names end in "
          + ImageFormat.extensions.joined(separator: ", "))
    }
    self.names = names.sorted(by: Self.isBefore)
    let first = try ImageHeader.read(path: Self.path(file, self.names[0]))
    header = VideoHeader(
      width: first.width, height: first.height, frames: names.count, framesPerSecond: nil,
      heldBytes: names.reduce(0) { $0 + 64 + $1.utf8.count })
  }

  func choose(_ frames: [Int]) throws(SquintError) -> Int {
    chosen = frames
    position = 0
    var bytes = 0
    for frame in frames { bytes = max(bytes, try check(frame, try ImageHeader.read(path: path(frame)))) }
    return bytes
  }

  func next(while shouldContinue: () -> Bool) throws(SquintError) -> (any ImageDecoder)? {
    guard shouldContinue() else { return nil }
    let frame = chosen[position]
    position += 1
    let decoder = try openImage(MediaFile(path: path(frame)))
    _ = try check(frame, decoder.header)
    return decoder
  }

  private func check(_ frame: Int, _ found: ImageHeader) throws(SquintError) -> Int {
    guard (found.width, found.height) == (header.width, header.height) else {
      throw .badData(
        path(frame),
        "this frame has \(grouped(found.width)) × \(grouped(found.height)) pixels, and \(names[0]) has "
          + "\(grouped(header.width)) × \(grouped(header.height)); give frames of one size")
    }
    return found.decoderBytes
  }

  private func path(_ frame: Int) -> String { Self.path(file, names[frame]) }

  private static func path(_ folder: MediaFile, _ name: String) -> String {
    folder.path.hasSuffix("/") ? folder.path + name : "\(folder.path)/\(name)"
  }

  private static func isImage(_ name: String) -> Bool {
    guard !name.hasPrefix("."), let dot = name.lastIndex(of: ".") else { return false }
    return ImageFormat.extensions.contains(name[name.index(after: dot)...].lowercased())
  }

  /// Whether `a` comes before `b`: digits that follow each other are a number, and of equal numbers the one with fewer zeros before
  /// it comes first.
  static func isBefore(_ a: String, _ b: String) -> Bool {
    let (first, second) = (Array(a.utf8), Array(b.utf8))
    var (i, j) = (0, 0)
    func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    func number(_ bytes: [UInt8], from start: Int) -> (digits: ArraySlice<UInt8>, end: Int) {
      let end = bytes[start...].firstIndex { !isDigit($0) } ?? bytes.count
      return (bytes[start..<end].drop { $0 == UInt8(ascii: "0") }, end)
    }
    while i < first.count, j < second.count {
      guard isDigit(first[i]), isDigit(second[j]) else {
        if first[i] != second[j] { return first[i] < second[j] }
        (i, j) = (i + 1, j + 1)
        continue
      }
      let (x, y) = (number(first, from: i), number(second, from: j))
      if x.digits.count != y.digits.count { return x.digits.count < y.digits.count }
      if !x.digits.elementsEqual(y.digits) { return x.digits.lexicographicallyPrecedes(y.digits) }
      (i, j) = (x.end, y.end)
    }
    guard first.count - i == second.count - j else { return first.count - i < second.count - j }
    return first.count == second.count ? first.lexicographicallyPrecedes(second) : first.count < second.count
  }
}
