import Foundation
import SquintConversion
import SquintFile
import Testing

/// Whatever a file holds, reading it ends with tensors or with a SquintError.
@Suite struct ReaderHostileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Opens `bytes` as a file called `name` and reads every tensor of it.
  ///
  /// - Returns: whether there was an error.
  @discardableResult
  private func read(_ bytes: some Sequence<UInt8>, as name: String) throws -> Bool {
    let path = try folder.write(name, bytes)
    let error = squintError {
      let source: any TensorSource =
        name.hasSuffix(".gguf") ? try GGUFSource(path: path) : try SafetensorsSource(path: path)
      for tensor in source.tensors where tensor.type.isReadable { _ = try source.read(tensor) }
    }
    if let error {
      // A part of a split model, or a file of an index, that is missing is no input; all else is bad data.
      #expect(error.kind == .badData || error.kind == .noInput, "\(error)")
      #expect(!error.message.contains("\n"), "\(error)")
    }
    return error != nil
  }

  @Test(arguments: ["kinds.gguf", "types.gguf", "split-00001-of-00003.gguf", "plain/model.safetensors"])
  func truncated(_ fixture: String) throws {
    let bytes = try ReaderFixtures.bytes(fixture)
    let name = fixture.hasSuffix(".gguf") ? "x.gguf" : "x.safetensors"
    // Every length through the header, then some beyond.
    let lengths = Array(0..<min(bytes.count, 2200)) + stride(from: 2200, to: bytes.count, by: 501)
    for length in lengths {
      // What is missing at the end of kinds.gguf and types.gguf may be padding after the last tensor.
      let isPadding = bytes.count - length < 64
      #expect(try read(bytes[..<length], as: name) || isPadding, "\(fixture) cut to \(length) bytes")
    }
  }

  @Test(arguments: ["kinds.gguf", "split-00001-of-00003.gguf", "plain/model.safetensors"])
  func flippedBytes(_ fixture: String) throws {
    var random = FixtureRandom(seed: 7)
    let bytes = try ReaderFixtures.bytes(fixture)
    let name = fixture.hasSuffix(".gguf") ? "x.gguf" : "x.safetensors"
    for _ in 0..<3000 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        changed[place] = random.next() & 1 == 0 ? UInt8.random(in: 0...255, using: &random) : changed[place] ^ 0x80
      }
      try read(changed, as: name)
    }
  }

  /// Every 8-byte field in turn replaced by numbers that overflow something.
  @Test func extremeNumbers() throws {
    let bytes = try ReaderFixtures.bytes("kinds.gguf")
    let extremes: [UInt64] = [0, 1, 1 << 31, 1 << 32, 1 << 60, 1 << 62, 1 << 63, UInt64.max - 31, UInt64.max]
    for place in 8..<min(bytes.count - 8, 1900) {
      let extreme = extremes[place % extremes.count]
      var changed = bytes
      changed.replaceSubrange(place..<place + 8, with: littleEndian(extreme))
      try read(changed, as: "x.gguf")
    }
  }

  @Test func randomBytes() throws {
    var random = FixtureRandom(seed: 11)
    for _ in 0..<500 {
      let length = Int.random(in: 0...600, using: &random)
      let tail = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
      let prefix = Array("GGUF".utf8) + littleEndian(UInt32(3)) + littleEndian(UInt64(1)) + littleEndian(UInt64(1))
      #expect(try read(prefix + tail, as: "x.gguf"))
      #expect(try read(tail, as: "x.safetensors"))
      #expect(try read(littleEndian(UInt64(length)) + tail, as: "x.safetensors"))
    }
  }

  /// A file that shrinks after it was opened.
  @Test func shrunk() throws {
    let bytes = try ReaderFixtures.bytes("plain/model.safetensors")
    let path = try folder.write("x.safetensors", bytes)
    let source = try SafetensorsSource(path: path)
    truncate(path, 700)
    let tensor = try #require(source.tensor(named: "ü.name"))
    let error = squintError { try source.read(tensor) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("run past the end of the file") == true)
  }
}
