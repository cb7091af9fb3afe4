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

  /// A thread that is held up leaves the rest of its share to the others: the first piece waits until all others have run.
  @Test func sharesAreNoFetters() throws {
    let workers = try Workers(count: 3)
    final class Counter: Sendable { let finished = Atomic<Int>(0) }
    for pieces in [2, 3, 24] {
      let counter = Counter()
      var job = (counter: counter, pieces: pieces)
      workers.run(&job, pieces: pieces) { job, piece, _ in
        let (counter, pieces) = job.assumingMemoryBound(to: (counter: Counter, pieces: Int).self).pointee
        let deadline = ContinuousClock.now + .seconds(10)
        while piece == 0, counter.finished.load(ordering: .acquiring) < pieces - 1, ContinuousClock.now < deadline {}
        counter.finished.wrappingAdd(piece == 0 && ContinuousClock.now >= deadline ? 1000 : 1, ordering: .releasing)
      }
      #expect(counter.finished.load(ordering: .acquiring) == pieces)
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
