import Foundation
import SquintFile
import Testing

/// Quantizes matrices that another program wrote, for tools/quantizers/compare.py.
///
/// SQUINT_QUANTIZER_CASES names a folder with `cases.txt`, one matrix a line: `name rows columns`. Reads `name.f32`,
/// writes `name.int8.f32`, `name.int4.f32`, `name.int4_f16.f32`: the weights after quantization; and `speed.txt`.
@Suite struct QuantizerCases {
  private static let folder = ProcessInfo.processInfo.environment["SQUINT_QUANTIZER_CASES"]

  @Test(.enabled(if: folder != nil)) func quantizeCases() throws {
    let folder = URL(fileURLWithPath: Self.folder!)
    let cases = try String(contentsOf: folder.appendingPathComponent("cases.txt"), encoding: .utf8)
    var weightCount = 0.0
    var seconds: [ElementType: Double] = [:]
    for line in cases.split(separator: "\n") {
      let fields = line.split(separator: " ").map(String.init)
      let (name, rows, columns) = (fields[0], Int(fields[1])!, Int(fields[2])!)
      let bytes = [UInt8](try Data(contentsOf: folder.appendingPathComponent("\(name).f32")))
      let weights = QuantizerFixtures.floats(of: bytes)
      weightCount += Double(weights.count)
      for type in [ElementType.int8, .int4, .int4F16] {
        let matrix = try QuantizedMatrix(weights, rows: rows, columns: columns, type: type)
        seconds[type, default: 0] += matrix.seconds
        let output = matrix.dequantized().withUnsafeBytes { Data($0) }
        try output.write(to: folder.appendingPathComponent("\(name).\(type.name).f32"))
      }
    }
    let speed = seconds.map { "\($0.key.name) \(weightCount / $0.value / 1e6)\n" }.sorted().joined()
    try speed.write(to: folder.appendingPathComponent("speed.txt"), atomically: true, encoding: .utf8)
  }
}
