import Foundation
import Squint
import SquintConversion
import SquintFile

/// Where the fixtures are.
let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures")

/// A folder that is removed when its owner goes.
final class TemporaryFolder {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Converts the checkpoint `Tests/Fixtures/models/NAME`.
func convertFixture(_ name: String, _ type: ElementType, to path: String) throws {
  var options = ConversionOptions()
  options.type = type
  options.jobs = 1
  try convert(source: fixtures.appendingPathComponent("models/\(name)").path, to: path, options: options)
}

/// The checkpoint `Tests/Fixtures/models/NAME`, converted and opened. The mapping outlives the file.
func model(_ name: String, _ type: ElementType) throws -> Model {
  let folder = try TemporaryFolder()
  let path = folder.path + "/model.squint"
  try convertFixture(name, type, to: path)
  return try Model(path: path)
}

/// The prompt that belongs to the checkpoint.
func promptIDs(_ name: String) throws -> [Int32] {
  try JSONDecoder().decode(
    [Int32].self, from: Data(contentsOf: fixtures.appendingPathComponent("models/\(name)/ids.json")))
}

/// The logits [positions, vocabulary] of all positions, one after the other.
func logits(_ model: Model, _ ids: [Int32], _ options: SessionOptions) throws -> [[Float]] {
  try logits(model, Prompt(tokens: ids), options)
}

/// The logits [positions, vocabulary] of all positions, one after the other.
func logits(_ model: Model, _ prompt: Prompt, _ options: SessionOptions) throws -> [[Float]] {
  let session = try Session(model, options)
  try session.append(prompt)
  var rows: [[Float]] = []
  try session.forEachLogits { (_, logits) throws(SquintError) in rows.append(Array(logits)) }
  return rows
}

/// The f32 matrix in the NumPy file at `path`, row by row.
func numpyRows(_ path: String) throws -> [[Float]] {
  let (shape, numbers) = try numpy(URL(fileURLWithPath: path))
  return (0..<shape[0]).map { Array(numbers[$0 * shape[1]..<($0 + 1) * shape[1]]) }
}

/// The f32 numbers in the NumPy file at `url`, the last axis innermost.
func numpyNumbers(_ url: URL) throws -> [Float] { try numpy(url).numbers }

/// A NumPy file (format 1.0, C order) of f32.
private func numpy(_ url: URL) throws -> (shape: [Int], numbers: [Float]) {
  let bytes = [UInt8](try Data(contentsOf: url))
  let headerBytes = Int(bytes[8]) | Int(bytes[9]) << 8
  let header = String(decoding: bytes[10..<10 + headerBytes], as: UTF8.self)
  let shape = header.components(separatedBy: "(")[1].components(separatedBy: ")")[0]
    .components(separatedBy: ",").compactMap { Int($0.trimmingCharacters(in: .whitespaces)) }
  let data = Array(bytes[(10 + headerBytes)...])
  let numbers = data.withUnsafeBytes { data in
    (0..<shape.reduce(1, *)).map { data.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) }
  }
  return (shape, numbers)
}

/// The error that `body` throws, or nil.
func caught(_ body: () throws -> Void) -> SquintError? {
  do {
    try body()
    return nil
  } catch { return error as? SquintError }
}

/// The cosine of the angle between `a` and `b`.
func cosine(_ a: [Float], _ b: [Float]) -> Double {
  var (ab, aa, bb) = (0.0, 0.0, 0.0)
  for (x, y) in zip(a, b) {
    ab += Double(x) * Double(y)
    aa += Double(x) * Double(x)
    bb += Double(y) * Double(y)
  }
  return ab / (aa * bb).squareRoot()
}

/// The largest difference between a number of `a` and the one of `b` in its place.
func largestDifference(_ a: [Float], _ b: [Float]) -> Float { zip(a, b).map { abs($0 - $1) }.max() ?? .infinity }
