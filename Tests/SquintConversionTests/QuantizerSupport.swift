import Foundation
import SquintConversion
import SquintFile

/// The quantizers' fixtures, made by tools/fixtures/quantizers_blocks.py.
enum QuantizerFixtures {
  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../Fixtures/quantizers").standardized

  static func bytes(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))
  }

  static func floats(_ name: String) throws -> [Float] { floats(of: try bytes(name)) }

  static func floats(of bytes: [UInt8]) -> [Float] {
    bytes.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map {
        Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
      }
    }
  }

  /// The relative RMSE that ggml's quantizers leave on each row of weights.f32, by type.
  static func ggmlErrors() throws -> [String: [Double]] {
    let text = String(decoding: try bytes("ggml.txt"), as: UTF8.self)
    var errors: [String: [Double]] = [:]
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: " ")
      errors[String(fields[0])] = fields.dropFirst().map { Double($0)! }
    }
    return errors
  }
}

/// A quantized matrix: its panels and what they mean.
struct QuantizedMatrix {
  let layout: PanelLayout
  var bytes: [UInt8]
  var squaredError = 0.0
  var squaredNorm = 0.0
  /// Seconds in the quantizer, of this thread.
  var seconds = 0.0

  init(
    _ weights: [Float], rows: Int, columns: Int, type: ElementType, importance: [Float]? = nil, byChance: Bool = false
  ) throws {
    let layout = PanelLayout(type: type, rows: rows, columns: columns)!
    self.layout = layout
    bytes = [UInt8](repeating: 0xa5, count: layout.byteCount)
    let start = Self.threadSeconds()
    try weights.withUnsafeBufferPointer { weights in
      try bytes.withUnsafeMutableBytes { bytes in
        for panel in 0..<layout.panels {
          let used = min(16, rows - 16 * panel)
          let source = UnsafeBufferPointer(rebasing: weights[16 * panel * columns..<(16 * panel + used) * columns])
          let target = UnsafeMutableRawBufferPointer(
            rebasing: bytes[panel * layout.panelBytes..<(panel + 1) * layout.panelBytes])
          let result: (squaredError: Double, squaredNorm: Double)
          if let importance {
            result = try importance.withUnsafeBufferPointer { importance in
              try quantizePanel(
                weights: source, rowsUsed: used, layout: layout, importance: importance, into: target,
                firstRow: 16 * panel)
            }
          } else {
            result = try quantizePanel(
              weights: source, rowsUsed: used, layout: layout, importance: nil, into: target, firstRow: 16 * panel,
              byChance: byChance)
          }
          squaredError += result.squaredError
          squaredNorm += result.squaredNorm
        }
      }
    }
    seconds = Self.threadSeconds() - start
  }

  var relativeError: Double { (squaredError / squaredNorm).squareRoot() }

  func dequantized() -> [Float] {
    let codec = PanelCodec(layout)
    var output = [Float](repeating: .nan, count: layout.rows * layout.columns)
    output.withUnsafeMutableBufferPointer { output in
      bytes.withUnsafeBytes { bytes in
        for row in 0..<layout.rows {
          codec.dequantizeRow(
            row, of: bytes,
            into: UnsafeMutableBufferPointer(rebasing: output[row * layout.columns..<(row + 1) * layout.columns]))
        }
      }
    }
    return output
  }

  /// The processor time of the calling thread: other tests run beside this one.
  static func threadSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}

/// Reproducible weights (SplitMix64; the sum of four uniform numbers, less their mean, is near enough to normal).
struct WeightGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func uniform() -> Float {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return Float((z ^ z >> 31) >> 40) * 0x1p-24
  }

  mutating func normal(_ count: Int, scale: Float = 1, mean: Float = 0) -> [Float] {
    (0..<count).map { _ in (uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508 * scale + mean }
  }
}

func squaredError(_ a: [Float], _ b: [Float]) -> Double {
  zip(a, b).reduce(0) { sum, pair in
    let difference = Double(pair.0) - Double(pair.1)
    return sum + difference * difference
  }
}
