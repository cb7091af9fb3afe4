import Foundation
import SquintFile
import Testing

/// An output appears whole or not at all, and what killed writers left goes with the next.
@Suite struct OutputFileTests {
  private let folder: TemporaryPlace

  init() throws { folder = try TemporaryPlace() }

  private var names: [String] { get throws { try fileNames(inFolder: folder.path) } }

  private func finish(_ path: String) throws {
    let file = try OutputFile(path: path)
    try Array("whole".utf8).withBytes { (bytes) throws(SquintError) in try file.write(bytes) }
    try file.finish()
  }

  @Test func leftoversAreRemoved() throws {
    for name in ["m.squint.partial-1x0c5wz9k2m", "m.squint.partial-0"] { try folder.write(name, "half") }
    // Of another output, by another program, of people.
    let others = [
      "a.squint.partial-1x0c5wz9k2m", "m.squint", "m.squint.partial", "m.squint.partial-", "m.squint.partial-ABC",
      "m.squint.partial-12345678901234", "m.squint.partial-1.txt", "xm.squint.partial-1",
    ]
    for name in others { try folder.write(name) }
    try FileManager.default.createDirectory(
      atPath: "\(folder.path)/m.squint.partial-folder", withIntermediateDirectories: false)
    #expect(symlink("/etc/passwd", "\(folder.path)/m.squint.partial-link") == 0)
    try finish("\(folder.path)/m.squint")
    #expect(try names == (others + ["m.squint.partial-folder", "m.squint.partial-link"]).sorted())
    #expect(try String(contentsOfFile: "\(folder.path)/m.squint", encoding: .utf8) == "whole")
  }

  @Test func whatIsBeingWrittenStays() throws {
    let path = "\(folder.path)/m.squint"
    let first = try OutputFile(path: path)
    let second = try OutputFile(path: path)
    #expect(try names.count == 2)
    try second.finish()
    try first.finish()
    #expect(try names == ["m.squint"])
    do { _ = try OutputFile(path: path) }
    #expect(try names == ["m.squint"])
  }

  @Test func aNameAsLongAsNamesMayBe() throws {
    let name = String(repeating: "é", count: 127) + "x"
    try finish("\(folder.path)/\(name)")
    #expect(try names == [name])
    #expect(throws: SquintError.self) { try finish("\(folder.path)/\(name)y") }
  }

  /// A link is followed, also one to what is not there yet: the file that it means is written, and it stays.
  @Test func links() throws {
    try folder.write("disk/old.squint", "old")
    for (link, target) in [
      ("a", "disk/old.squint"), ("b", "disk/new.squint"), ("c", "a"), ("d", "\(folder.path)/disk/absolute.squint"),
    ] {
      #expect(symlink(target, "\(folder.path)/\(link)") == 0)
      try finish("\(folder.path)/\(link)")
      #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "\(folder.path)/\(link)") == target)
      #expect(try String(contentsOfFile: "\(folder.path)/\(link)", encoding: .utf8) == "whole")
    }
    #expect(try fileNames(inFolder: "\(folder.path)/disk") == ["absolute.squint", "new.squint", "old.squint"])
    #expect(symlink("loop", "\(folder.path)/loop") == 0)
    #expect(throws: SquintError.self) { try finish("\(folder.path)/loop/x") }
  }

  @Test func noName() throws {
    #expect(throws: SquintError(.cannotCreate, "the output has no name; give the name of a file")) { try finish("") }
  }
}
