import Foundation
import SquintCompute
import SquintFile
import SquintModels
import Testing

/// Parts of the encoder against PyTorch and transformers (tools/fixtures/vision_parts.py).
@Suite struct VisionPartsTests {
  struct Parts: Decodable {
    struct Bicubic: Decodable {
      let side: Int
      let rows: Int
      let columns: Int
      let table: [Float]
      let resized: [Float]
    }
    struct Activations: Decodable {
      let x: [Float]
      let y: [String: [Float]]
    }
    let bicubic: [Bicubic]
    let buckets: [String: [[Int]]]
    let activations: Activations
  }

  private func parts() throws -> Parts {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../Fixtures/vision-parts/parts.json").standardized
    return try JSONDecoder().decode(Parts.self, from: Data(contentsOf: file))
  }

  @Test func resizedPositionsEqualTorch() throws {
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: 1))
    for part in try parts().bicubic {
      var x = [Float](repeating: 0, count: part.resized.count)
      part.table.withUnsafeBufferPointer { table in
        x.withUnsafeMutableBufferPointer { x in
          compute.addPositions(
            PositionTable(rows: table.baseAddress!, width: 2, side: part.side, use: .bicubic),
            FeatureGrid(rows: part.rows, columns: part.columns), to: Rows(data: x.baseAddress!, width: 2))
        }
      }
      let worst = zip(x, part.resized).map { abs($0 - $1) }.max()!
      #expect(worst <= 1e-5, "\(part.side) to \(part.rows) × \(part.columns)")
    }
  }

  @Test func bucketsEqualTransformers() throws {
    for (side, lists) in try parts().buckets {
      for (index, expected) in lists.enumerated() {
        let found = (0...index).map { PositionTable.bucket($0, of: index + 1, side: Int(side)!) }
        #expect(found == expected, "side \(side), \(index + 1) patches")
      }
    }
  }

  @Test func activationsEqualTransformers() throws {
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: 1))
    let parts = try parts().activations
    for activation in Activation.allCases {
      var x = parts.x
      let count = x.count
      x.withUnsafeMutableBufferPointer {
        compute.activate(Rows(data: $0.baseAddress!, width: count), count: 1, activation)
      }
      let expected = try #require(parts.y[activation.rawValue])
      for (x, (found, expected)) in zip(parts.x, zip(x, expected)) {
        #expect(abs(found - expected) <= 0x1p-20 * max(1, abs(x)), "\(activation.rawValue)(\(x))")
      }
    }
  }
}
