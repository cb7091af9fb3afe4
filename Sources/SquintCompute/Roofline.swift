import SquintFile

/// What this machine can do at most: the yardstick for the program's own speed.
public struct Roofline: Sendable {
  /// How fast all threads together read memory, the best of several passes over 256 MiB.
  public let bytesPerSecond: Double
  /// int8 multiplications and additions of all threads together, on operands that stay in the first-level cache.
  public let int8OperationsPerSecond: Double

  /// Measures for about half a second.
  public init(threads: Int) throws(SquintError) {
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: threads))
    bytesPerSecond = try Self.readRate(compute)
    int8OperationsPerSecond = try Self.int8Rate(compute)
  }

  private static func readRate(_ compute: Compute) throws(SquintError) -> Double {
    struct Job {
      let base: UnsafePointer<SIMD64<UInt8>>
      let countPerPiece: Int
      let sums: UnsafeMutablePointer<SIMD64<UInt8>>
    }
    let pieces = 64
    let count = (256 << 20) / 64
    var plan = ArenaPlan()
    let data = try plan.reserve("read buffer", SIMD64<UInt8>.self, count: count, phases: .decode)
    let sums = try plan.reserve("sums", SIMD64<UInt8>.self, count: pieces, phases: .decode)
    let arena = try Arena(plan)
    arena[data].update(repeating: SIMD64(repeating: 1))
    var job = Job(
      base: UnsafePointer(arena[data].baseAddress!), countPerPiece: count / pieces, sums: arena[sums].baseAddress!)
    // The job holds pointers into the arena, which do not keep it.
    return withExtendedLifetime(arena) {
      best(5) {
        compute.workers.run(&job, pieces: pieces) { job, piece, _ in
          let job = job.assumingMemoryBound(to: Job.self)
          let part = job.pointee.base + piece * job.pointee.countPerPiece
          var sum = SIMD64<UInt8>()
          for index in 0..<job.pointee.countPerPiece { sum ^= part[index] }
          job.pointee.sums[piece] = sum
        }
        return Double(count * 64)
      }
    }
  }

  /// The product kernel at its best: 32 rows × 512 columns of int8 and 32 tokens, which a first-level cache holds.
  private static func int8Rate(_ compute: Compute) throws(SquintError) -> Double {
    let (rows, columns, tokens, repeats) = (32, 512, 32, 2000)
    let layout = PanelLayout(type: .int8, rows: rows, columns: columns)!
    var plan = ArenaPlan()
    let weights = try plan.reserve("weights", UInt8.self, count: layout.byteCount, phases: .decode)
    let quantized = try QuantizedRows.Regions(rows: tokens, columns: columns, phases: .decode, in: &plan)
    let outputs = try plan.reserve(
      "outputs", Float.self, count: compute.workers.count * rows * tokens, phases: .decode)
    let arena = try Arena(plan)
    let matrix = Matrix(type: .int8, rows: rows, columns: columns, data: UnsafeRawPointer(arena[weights].baseAddress!))
    struct Job {
      let matrix: Matrix
      let x: QuantizedRows
      let tokens: Int
      let repeats: Int
      let base: UnsafeMutablePointer<Float>
      let kernels: Kernels
    }
    var job = Job(
      matrix: matrix, x: QuantizedRows(quantized, in: arena), tokens: tokens, repeats: repeats,
      base: arena[outputs].baseAddress!, kernels: compute.kernels)
    return withExtendedLifetime(arena) {
      best(3) {
        compute.workers.run(&job, pieces: compute.workers.count) { job, piece, _ in
          let job = job.assumingMemoryBound(to: Job.self)
          let size = job.pointee.matrix.rows * job.pointee.tokens
          let y = Rows(data: job.pointee.base + piece * size, width: job.pointee.matrix.rows)
          for _ in 0..<job.pointee.repeats {
            Compute.multiplyPanels(
              job.pointee.matrix, job.pointee.x, count: job.pointee.tokens, into: y, job.pointee.kernels)
          }
        }
        return Double(compute.workers.count * repeats * 2 * rows * columns * tokens)
      }
    }
  }

  /// The best rate of `rounds` calls of `body`, which returns how much it did.
  private static func best(_ rounds: Int, _ body: () -> Double) -> Double {
    let clock = ContinuousClock()
    var best = 0.0
    for _ in 0..<rounds {
      let begin = clock.now
      let amount = body()
      best = max(best, amount / ((clock.now - begin) / .seconds(1)))
    }
    return best
  }
}
