import Foundation
import SquintConversion
import SquintFile

/// The adapters that PEFT saved (tools/fixtures/adapters.py).
enum AdapterFixture {
  static func folder(_ name: String) -> String {
    ConverterFixture.folder.appendingPathComponent("adapters/\(name)").path
  }

  static func model(_ path: String) -> String { ConverterFixture.folder.appendingPathComponent(path).path }
}

/// An adapter made on the spot, which a test then spoils.
struct SyntheticAdapter {
  /// By the names of modules: `model.layers.0.self_attn.q_proj`.
  struct Pair {
    let rows: Int
    let columns: Int
    let rank: Int
    var down: [Float]
    var up: [Float]

    /// B · A [rows, columns] in f64.
    var product: [Double] {
      var product = [Double](repeating: 0, count: rows * columns)
      for row in 0..<rows {
        for inner in 0..<rank {
          let factor = Double(up[row * rank + inner])
          for column in 0..<columns {
            product[row * columns + column] += factor * Double(down[inner * columns + column])
          }
        }
      }
      return product
    }
  }

  var config: [String: Any] = ["peft_type": "LORA", "r": 2, "lora_alpha": 3, "bias": "none", "use_dora": false]
  var tensors: [String: (shape: [Int], numbers: [Float])] = [:]
  private(set) var pairs: [String: Pair] = [:]
  private var state: UInt64 = 7

  /// The largest number of B is 0.2 in size, of A 0.2.
  mutating func adapt(_ module: String, rows: Int, columns: Int, rank: Int = 2) {
    let pair = Pair(
      rows: rows, columns: columns, rank: rank, down: numbers(rank * columns), up: numbers(rows * rank))
    pairs[module] = pair
    tensors["base_model.model.\(module).lora_A.weight"] = ([rank, columns], pair.down)
    tensors["base_model.model.\(module).lora_B.weight"] = ([rows, rank], pair.up)
  }

  private mutating func numbers(_ count: Int) -> [Float] {
    (0..<count).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return (Float(state >> 40) / 0x1p24 - 0.5) * 0.4
    }
  }

  func write(to folder: String) throws {
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try JSONSerialization.data(withJSONObject: config).write(to: URL(fileURLWithPath: "\(folder)/adapter_config.json"))
    try writeSafetensors(tensors, to: "\(folder)/adapter_model.safetensors")
  }
}
