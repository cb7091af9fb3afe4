import SquintFile

/// What this machine can do at most: the yardstick for the program's own speed.
package struct Roofline: Sendable {
  /// How fast all threads together read memory, the best of several passes over more than any cache holds.
  package let bytesPerSecond: Double
  /// int8 multiplications and additions of all threads together: the product's inner loop from the first-level cache.
  package let int8OperationsPerSecond: Double

  /// Measures for about half a second.
  ///
  /// - Parameter memory: the bytes that the measurement may take; it takes 256 MiB at most.
  package init(threads: Int, memory: Int) throws(SquintError) {
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: threads))
    bytesPerSecond = try Self.readRate(compute, memory: memory)
    int8OperationsPerSecond = try Self.int8Rate(compute)
  }

  /// Reads a matrix that no cache holds once from end to end, by multiplying it with one row: its loads are the widest that
  /// the CPU has, and its arithmetic hides behind them.
  private static func readRate(_ compute: Compute, memory: Int) throws(SquintError) -> Double {
    let columns = 1 << 10
    let rows = min(max(memory / (columns * MemoryLayout<Float>.size), 1 << 10), 1 << 16)
    var plan = ArenaPlan()
    let weights = try plan.reserve("read buffer", Float.self, count: rows * columns, phases: .decode)
    let x = try plan.reserve("input", Float.self, count: columns, phases: .decode)
    let y = try plan.reserve("output", Float.self, count: rows, phases: .decode)
    let quantized = try QuantizedRows.Regions(rows: 1, columns: columns, phases: .decode, in: &plan)
    let arena = try Arena(plan)
    // Written once, since pages that never were are all the same page.
    arena[weights].update(repeating: 1)
    let matrix = Matrix(
      type: .f32, rows: rows, columns: columns, data: UnsafeRawPointer(arena[weights].baseAddress!))
    let input = Rows(x, width: columns, in: arena)
    let output = Rows(y, width: rows, in: arena)
    let scratch = QuantizedRows(quantized, in: arena)
    // Views do not keep their arena.
    return withExtendedLifetime(arena) {
      best(5) {
        compute.multiply(input, count: 1, scratch: scratch, .init(matrix, into: output))
        return Double(rows * columns * MemoryLayout<Float>.size)
      }
    }
  }

  /// How many int8 operations of a second `threads` threads do together; measures for some hundredths of a second.
  package static func int8OperationsPerSecond(threads: Int) throws(SquintError) -> Double {
    try int8Rate(Compute(kernels: try Kernels.best(), workers: try Workers(count: threads)))
  }

  private static func int8Rate(_ compute: Compute) throws(SquintError) -> Double {
    struct Job {
      let weights: UnsafePointer<UInt8>
      let x: UnsafePointer<Int8>
      let kernels: Kernels
      let operations: UnsafeMutablePointer<UInt64>
    }
    let pieces = compute.workers.count * 8
    var plan = ArenaPlan()
    let weights = try plan.reserve("weights", UInt8.self, count: 512, phases: .decode)
    let x = try plan.reserve("activations", Int8.self, count: 256, phases: .decode)
    let operations = try plan.reserve("operations", UInt64.self, count: pieces, phases: .decode)
    let arena = try Arena(plan)
    var job = Job(
      weights: UnsafePointer(arena[weights].baseAddress!), x: UnsafePointer(arena[x].baseAddress!),
      kernels: compute.kernels, operations: arena[operations].baseAddress!)
    return best(5) {
      compute.workers.run(&job, pieces: pieces) { job, piece, _ in
        let job = job.assumingMemoryBound(to: Job.self)
        job.pointee.operations[piece] = job.pointee.kernels.repeatDots(job.pointee.weights, job.pointee.x, 50_000)
      }
      return Double(arena[operations].reduce(0, +))
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
