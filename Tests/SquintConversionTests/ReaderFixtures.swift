import Foundation
import SquintConversion
import SquintFile
import Testing

/// The fixtures that tools/fixtures/readers_gguf.py and readers_safetensors.py write.
enum ReaderFixtures {
  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Fixtures/readers").path

  static func path(_ name: String) -> String { "\(folder)/\(name)" }

  static func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: path(name))))
  }

  /// The numbers in a file of little-endian f32.
  static func numbers(_ name: String) throws -> [Float] {
    let bytes = try bytes(name)
    return stride(from: 0, to: bytes.count, by: 4).map { offset in
      Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) })
    }
  }

  /// Whether both have the same bits.
  static func identical(_ left: some Sequence<Float>, _ right: some Sequence<Float>) -> Bool {
    left.map(\.bitPattern) == right.map(\.bitPattern)
  }
}

/// A folder that is removed with everything in it.
final class TemporaryFolder {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes a file into the folder and returns its path.
  @discardableResult
  func write(_ name: String, _ bytes: some Sequence<UInt8>) throws -> String {
    let path = "\(path)/\(name)"
    unlink(path)  // emptying a file instead makes ext4 wait for the disk
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
    guard descriptor >= 0 else { throw SquintError(.cannotCreate, path) }
    defer { close(descriptor) }
    let bytes = Array(bytes)
    guard SquintFile.write(descriptor, bytes, bytes.count) == bytes.count else { throw SquintError(.inputOutput, path) }
    return path
  }
}

/// The error that `body` throws; nil where it throws none. Anything but a SquintError fails the test.
func squintError<Value>(_ body: () throws -> Value) -> SquintError? {
  do {
    _ = try body()
    return nil
  } catch let error as SquintError {
    return error
  } catch {
    Issue.record("not a SquintError: \(error)")
    return nil
  }
}

/// Little-endian bytes of `value`.
func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

/// A generator with a fixed seed (SplitMix64), so that a failing case can be repeated.
struct FixtureRandom: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
