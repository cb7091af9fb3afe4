import SquintCompute
import SquintFile
import Synchronization
import Testing

@Suite struct WorkersTests {
  /// Every piece of every job runs once, also where the threads sleep between two jobs.
  @Test func everyPieceRunsOnce() throws {
    let workers = try Workers(count: 4)
    for round in 0..<400 {
      var job = UnsafeMutableBufferPointer<Int32>.allocate(capacity: 37)
      defer { job.deallocate() }
      job.initialize(repeating: 0)
      workers.run(&job, pieces: 37) { job, piece, _ in
        job.assumingMemoryBound(to: UnsafeMutableBufferPointer<Int32>.self).pointee[piece] += 1
      }
      #expect(job.allSatisfy { $0 == 1 })
      if round % 100 == 0 { usleep(2000) }
    }
  }

  /// The threads hold nothing that keeps the workers alive, and end with them.
  @Test func theThreadsEndWithTheirOwner() throws {
    weak var workers: Workers?
    do {
      let owner = try Workers(count: 3)
      var job = 0
      owner.run(&job, pieces: 8) { _, _, _ in }
      workers = owner
      #expect(workers != nil)
    }
    #expect(workers == nil)
  }
}
