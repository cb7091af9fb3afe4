import Foundation
import Testing

/// What models/squint-mini holds goes between the parts that tools/demo puts to it. The files are read; nothing is fetched.
@Suite struct TrainedProjectorTests {
  private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("models/squint-mini").path
  /// Rows of DINOv2-small and of Whisper tiny.en, and of SmolLM2-135M.
  private static let encoderWidth = 384
  private static let decoderWidth = 576

  private func metadata(_ path: String) throws -> [String: String] {
    let file = try Data(contentsOf: URL(fileURLWithPath: path))
    let headerBytes = file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try JSONSerialization.jsonObject(with: file[8..<8 + headerBytes]) as? [String: Any]
    return try #require(header?["__metadata__"] as? [String: String])
  }

  /// Rows of an encoder that go side by side into the first matrix; f16 that are numbers; small enough to be in the repository.
  @Test(arguments: [("projector", "shuffle", 2, 11_000_000), ("audio-projector", "stack", 1, 8_000_000)])
  func goesBetweenItsParts(_ name: String, _ key: String, _ power: Int, _ largest: Int) throws {
    let path = "\(Self.folder)/\(name).safetensors"
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)).count <= largest)
    let metadata = try metadata(path)
    #expect(metadata["activation"] == "gelu")
    let count = try #require(metadata[key].flatMap { Int($0) })
    #expect(count > 1)
    let tensors = try StoredTensor.read(path)
    let hidden = try #require(tensors["linear_1.weight"]?.shape.first)
    let columns = Self.encoderWidth * (power == 2 ? count * count : count)
    #expect(
      tensors.mapValues(\.shape) == [
        "linear_1.weight": [hidden, columns], "linear_1.bias": [hidden],
        "linear_2.weight": [Self.decoderWidth, hidden], "linear_2.bias": [Self.decoderWidth],
      ])
    for (name, tensor) in tensors {
      #expect(tensor.type == "F16")
      // Infinity and NaN have all bits of the exponent.
      let odd = stride(from: 1, to: tensor.bytes.count, by: 2).filter { tensor.bytes[$0] & 0x7C == 0x7C }
      #expect(odd.isEmpty, "\(name)")
    }
  }
}
