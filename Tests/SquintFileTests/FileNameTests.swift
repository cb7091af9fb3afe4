import Foundation
import SquintFile
import Testing

/// No byte of a file's name is lost on its way through a String.
@Suite struct FileNameTests {
  @Test(
    arguments: [
      Array("plain name.txt".utf8), Array("Grüße 你好 🙂".utf8), [0x63, 0x61, 0x66, 0xE9], [0xFF],
      [0x80, 0x81, 0xBF, 0xC0, 0xC1],
      [0xE2, 0x82], [0xE2, 0x82, 0x41], [0xF0, 0x9F, 0x99], [0xED, 0xA0, 0x80], [0xF5, 0x80, 0x80, 0x80], [],
      // What is the scalar of a byte, as a name has it.
      [0xF4, 0x8F, 0xBE, 0x80], [0xF4, 0x8F, 0xBF, 0xBF], [0x41, 0xF4, 0x8F, 0xBF, 0xA9, 0xE9, 0xF4, 0x8F, 0xBD, 0xBF],
    ] as [[UInt8]]) func bytes(_ name: [UInt8])
  {
    let text = String(fileName: name)
    #expect(text.fileNameBytes == name)
    #expect(text.repaired == String(decoding: name, as: UTF8.self))
    if let valid = String(validating: name, as: UTF8.self),
      !text.unicodeScalars.contains(where: { $0.value > 0x10FF7F })
    {
      #expect(text == valid && text.withVisibleBytes == valid)
    }
  }

  @Test func anyBytes() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      let name = (0..<Int.random(in: 0...12, using: &random)).map { _ in
        Bool.random(using: &random) ? UInt8.random(in: 0x80...0xFF, using: &random) : 0x61
      }
      #expect(String(fileName: name).fileNameBytes == name)
    }
  }

  @Test func visibleBytes() {
    #expect(String(fileName: [0x63, 0x61, 0x66, 0xE9] + Array(".jpg".utf8)).withVisibleBytes == "caf\\xE9.jpg")
  }

  @Test func theCLibraryGetsThem() throws {
    let folder = try TemporaryPlace()
    let path = folder.path + "/" + String(fileName: [0x63, 0x61, 0x66, 0xE9])
    let file = try OutputFile(path: path)
    try [UInt8]([1, 2, 3]).withBytes { (bytes) throws(SquintError) in try file.write(bytes) }
    try file.finish()
    var status = stat()
    #expect(stat(path, &status) == 0 && status.st_size == 3 && access(path, R_OK) == 0)
    let names = try fileNames(inFolder: folder.path)
    #expect(names.map(\.fileNameBytes) == [[0x63, 0x61, 0x66, 0xE9]])
    #expect(rename(path, path + "2") == 0 && unlink(path + "2") == 0)
  }

  /// What the program was called with, from the C library: the same as Swift reads from /proc.
  @Test func arguments() throws {
    #expect(try programArguments().map(\.repaired) == Array(CommandLine.arguments.dropFirst()))
    #if os(Linux)
      let path = try #require(programPath)
      #expect(path.hasSuffix(CommandLine.arguments[0].split(separator: "/").last ?? "?"))
    #endif
  }
}

/// A folder that is removed when its owner goes.
final class TemporaryPlace {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("squint-file-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes `text` to the file `name`, whose folders are made.
  func write(_ name: String, _ text: String = "") throws {
    let url = URL(fileURLWithPath: "\(path)/\(name)")
    try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: url)
  }
}
