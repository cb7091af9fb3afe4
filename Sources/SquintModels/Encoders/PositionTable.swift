import SquintCompute
import SquintFile

/// The learned positions of a square grid of patches, and how a patch of another grid finds its own among them.
package struct PositionTable: @unchecked Sendable {  // a view of the file
  /// [side · side, width]
  let rows: UnsafePointer<Float>
  let width: Int
  let side: Int
  let use: PositionRule

  package init(rows: UnsafePointer<Float>, width: Int, side: Int, use: PositionRule) {
    self.rows = rows
    self.width = width
    self.side = side
    self.use = use
  }

  /// Which of the table's rows or columns is at the place of patch `index` of `count`, by Idefics3's fractional coordinates:
  /// the number of j in 1 ..< side with j / side <= min(index · (1 / count), 1 − 10⁻⁶), each operation rounded to f32
  /// (Idefics3VisionEmbeddings.forward).
  ///
  /// The rounding matters: of the grid that the table is for, a patch may lie just below its own boundary.
  package static func bucket(_ index: Int, of count: Int, side: Int) -> Int {
    let place = min(Float(index) * (1 / Float(count)), Float(1 - 1e-6))
    var bucket = 0
    while bucket + 1 < side, Float(bucket + 1) / Float(side) <= place { bucket += 1 }
    return bucket
  }

  /// A patch's place along one axis of the table, between four neighbours, and what each counts.
  package struct Cubic {
    package let neighbours: SIMD4<Int32>
    package let weights: SIMD4<Float>

    /// As PyTorch's `interpolate(mode="bicubic", align_corners=False)` computes it: cubic convolution with a = −0.75,
    /// edges repeated (get_cubic_upsample_coefficients in ATen's UpSample.h).
    package init(_ index: Int, of count: Int, side: Int) {
      let place = Float(side) / Float(count) * (Float(index) + 0.5) - 0.5
      let below = place.rounded(.down)
      let t = place - below
      let a: Float = -0.75
      func near(_ x: Float) -> Float { ((a + 2) * x - (a + 3)) * x * x + 1 }
      func far(_ x: Float) -> Float { ((a * x - 5 * a) * x + 8 * a) * x - 4 * a }
      weights = SIMD4(far(t + 1), near(t), near(1 - t), far(2 - t))
      neighbours = (SIMD4(-1, 0, 1, 2) &+ Int32(below)).clamped(
        lowerBound: SIMD4(repeating: 0), upperBound: SIMD4(repeating: Int32(side - 1)))
    }
  }

  /// x[width] += the position of patch (row, column) of `grid`.
  func add(
    row: Int, column: Int, of grid: FeatureGrid, to x: UnsafeMutablePointer<Float>, _ kernels: Kernels
  ) {
    if use == .bicubic, grid.rows != side || grid.columns != side {
      let (vertical, horizontal) = (
        Cubic(row, of: grid.rows, side: side), Cubic(column, of: grid.columns, side: side)
      )
      for i in 0..<4 {
        for j in 0..<4 {
          let weight = vertical.weights[i] * horizontal.weights[j]
          let from = rows + (Int(vertical.neighbours[i]) * side + Int(horizontal.neighbours[j])) * width
          for column in 0..<width { x[column] += weight * from[column] }
        }
      }
      return
    }
    let (tableRow, tableColumn) =
      use == .buckets
      ? (Self.bucket(row, of: grid.rows, side: side), Self.bucket(column, of: grid.columns, side: side)) : (row, column)
    kernels.add(x, rows + (tableRow * side + tableColumn) * width, x, width)
  }
}

extension Compute {
  /// x[patch, width] += the position of each patch of `grid`.
  package func addPositions(_ table: PositionTable, _ grid: FeatureGrid, to x: Rows) {
    struct Job {
      let table: PositionTable
      let grid: FeatureGrid
      let x: Rows
      let kernels: Kernels
    }
    var job = Job(table: table, grid: grid, x: x, kernels: kernels)
    workers.run(&job, pieces: grid.count) { job, patch, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      let columns = job.pointee.grid.columns
      job.pointee.table.add(
        row: patch / columns, column: patch % columns, of: job.pointee.grid, to: job.pointee.x[patch],
        job.pointee.kernels)
    }
  }
}
