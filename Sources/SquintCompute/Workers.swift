import CKernels
import SquintFile
import Synchronization

/// A pool of threads that run one job together and then wait for the next.
///
/// A waiting thread spins for some microseconds, so that the barrier between two matrices costs next to nothing, and
/// then sleeps, so that an idle program costs no CPU. Each thread begins with its own share of a job's pieces, the same in
/// every job with as many, so that rows stay in the cache of the core that wrote them; then it takes what others have left: a slow
/// core does less. Nothing is allocated per job.
package final class Workers: Sendable {
  /// A piece of a job: the job's own data, the number of the piece, and which thread works on it (for scratch memory).
  package typealias Body = @convention(c) (_ job: UnsafeMutableRawPointer, _ piece: Int, _ thread: Int) -> Void

  /// The threads that work on a job, the caller's among them.
  package var count: Int { pool.count }

  // The threads hold the pool, not this object: so its last user can destroy it, which ends the threads.
  private let pool: Pool

  /// The stack of each thread of the pool, in bytes: kernels keep their tiles there, a few KiB.
  package static let stackBytes = 256 << 10

  /// How many threads there may be.
  package static let counts = 1...256

  /// Starts `count - 1` threads.
  ///
  /// - Throws: `usage` where `count` is outside `counts`; `doesNotFit` where the system gives no thread.
  package init(count: Int) throws(SquintError) {
    guard Self.counts.contains(count) else {
      throw SquintError(.usage, "\(count) threads; choose 1 to \(Self.counts.upperBound)")
    }
    pool = Pool(count: count)
    try pool.start()  // where it throws, deinit runs, since every field has its value
  }

  deinit { pool.stop() }

  /// Runs `body(job, piece)` for every piece in `0..<pieces`, on all threads, and returns when all are done.
  ///
  /// Pieces run in no particular order. Call it from one thread at a time.
  package func run<Job>(_ job: inout Job, pieces: Int, _ body: Body) {
    withUnsafeMutablePointer(to: &job) { pool.run(UnsafeMutableRawPointer($0), pieces: pieces, body) }
  }
}

/// What the threads of `Workers` share.
///
/// A cache line that one core has written costs another some tenths of a microsecond to read where the cores are far apart, and a
/// token takes hundreds of jobs: a job costs one line from the caller to each thread, and one back.
private final class Pool: @unchecked Sendable {  // what is not atomic is published by `generation`, see `run`
  /// A job; written by the caller alone, in one cache line.
  private struct Announcement: ~Copyable {
    var body: Workers.Body?
    var job: UnsafeMutableRawPointer?
    var pieces = 0
    /// Counts the jobs; its change publishes the others.
    let generation = Atomic<Int>(0)
  }

  let count: Int
  private let announcement: UnsafeMutablePointer<Announcement>
  /// [count]: how many pieces of each thread's share have been taken, and of which job, by its generation. No one has to set it
  /// back.
  private let taken: SpreadAtomics
  /// [count]: the job that each thread has done.
  private let done: SpreadAtomics
  private let isStopping = Atomic<Bool>(false)
  private let sleepers = Atomic<Int>(0)
  /// Numbers the threads of the pool from 1; the caller is thread 0.
  private let started = Atomic<Int>(0)
  private let monitor = Monitor()
  private var threads = ThreadGroup()

  /// How often a waiting thread looks before it sleeps.
  private let spins: Int

  init(count: Int) {
    self.count = count
    announcement = UnsafeMutableRawPointer.allocate(byteCount: SpreadAtomics.spacing, alignment: SpreadAtomics.spacing)
      .bindMemory(to: Announcement.self, capacity: 1)
    announcement.initialize(to: Announcement())
    taken = SpreadAtomics(count: count)
    done = SpreadAtomics(count: count)
    spins = count > 1 ? Self.spins(for: .microseconds(50)) : 0
  }

  deinit {
    announcement.deinitialize(count: 1)
    UnsafeMutableRawPointer(announcement).deallocate()
  }

  /// How many looks take `duration`, which is to be longer than the serial work between two matrices and shorter than anyone
  /// notices. Measured, since the hint between two looks takes from one cycle (Arm) to 140 (Skylake).
  private static func spins(for duration: Duration) -> Int {
    let clock = ContinuousClock()
    let value = Atomic<Int>(0)
    let looks = 1000
    // The fastest of some rounds: a thread that was interrupted is slow, never fast.
    var fastest = Duration.seconds(1)
    for _ in 0..<5 {
      let start = clock.now
      for _ in 0..<looks where value.load(ordering: .acquiring) == 0 { squint_spin_hint() }
      fastest = min(fastest, clock.now - start)
    }
    // A clock may be too coarse to see them.
    return min(max(Int(duration / max(fastest, .nanoseconds(1)) * Double(looks)), 100), 1_000_000)
  }

  /// Starts the threads.
  func start() throws(SquintError) {
    for _ in 1..<count { try threads.start(stackBytes: Workers.stackBytes) { self.work() } }
  }

  /// Ends the threads; none is left when it returns.
  func stop() {
    isStopping.store(true, ordering: .releasing)
    announcement.pointee.generation.wrappingAdd(1, ordering: .releasing)
    monitor.locked { monitor.wakeAll() }
    threads.join()
  }

  func run(_ job: UnsafeMutableRawPointer, pieces: Int, _ body: Workers.Body) {
    if count == 1 || pieces <= 1 {
      for piece in 0..<pieces { body(job, piece, 0) }
      return
    }
    announcement.pointee.body = body
    announcement.pointee.job = job
    announcement.pointee.pieces = pieces
    let generation = announcement.pointee.generation.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { monitor.locked { monitor.wakeAll() } }
    takePieces(of: generation, as: 0)
    // Every thread has to report, also one that came too late for a piece: only then may the announcement change again.
    var spins = 0
    for thread in 1..<count {
      while done[thread].load(ordering: .acquiring) != UInt64(truncatingIfNeeded: generation) {
        spins += 1
        if spins < self.spins { squint_spin_hint() } else { sched_yield() }
      }
    }
  }

  /// Takes the pieces of this thread's share, and then what others have left of theirs.
  private func takePieces(of generation: Int, as thread: Int) {
    guard let body = announcement.pointee.body, let job = announcement.pointee.job else { return }
    let pieces = announcement.pointee.pieces
    let tag = UInt64(truncatingIfNeeded: generation) << 32
    for offset in 0..<count {
      let owner = (thread + offset) % count
      let share = pieces * owner / count..<pieces * (owner + 1) / count
      var value = taken[owner].load(ordering: .relaxed)
      while true {
        // What is left of an earlier job counts as none.
        let before = value >> 32 == tag >> 32 ? Int(value & 0xffff_ffff) : 0
        guard before < share.count else { break }
        let exchange = taken[owner].compareExchange(
          expected: value, desired: tag | UInt64(before + 1), ordering: .relaxed)
        value = exchange.original
        guard exchange.exchanged else { continue }
        body(job, share.lowerBound + before, thread)
        value = taken[owner].load(ordering: .relaxed)
      }
    }
  }

  /// The life of a thread of the pool.
  private func work() {
    let number = started.wrappingAdd(1, ordering: .relaxed).newValue
    var seen = 0
    while true {
      seen = waitForChange(of: seen)
      if isStopping.load(ordering: .acquiring) { return }
      takePieces(of: seen, as: number)
      done[number].store(UInt64(truncatingIfNeeded: seen), ordering: .releasing)
    }
  }

  private func waitForChange(of seen: Int) -> Int {
    for _ in 0..<spins {
      let current = announcement.pointee.generation.load(ordering: .acquiring)
      if current != seen { return current }
      squint_spin_hint()
    }
    sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
    defer { sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
    monitor.locked {
      while announcement.pointee.generation.load(ordering: .sequentiallyConsistent) == seen { monitor.wait() }
    }
    return announcement.pointee.generation.load(ordering: .acquiring)
  }
}

/// Atomic numbers, each in cache lines of its own.
private struct SpreadAtomics: ~Copyable, @unchecked Sendable {  // atomic
  /// Two lines, since some CPUs fetch them in pairs, in bytes.
  static let spacing = 128
  private static let stride = spacing / MemoryLayout<Atomic<UInt64>>.stride
  private let numbers: UnsafeMutablePointer<Atomic<UInt64>>
  private let count: Int

  init(count: Int) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: count * Self.spacing, alignment: Self.spacing)
    numbers = memory.bindMemory(to: Atomic<UInt64>.self, capacity: count * Self.stride)
    for index in 0..<count * Self.stride { (numbers + index).initialize(to: Atomic(0)) }
    self.count = count
  }

  deinit {
    numbers.deinitialize(count: count * Self.stride)
    UnsafeMutableRawPointer(numbers).deallocate()
  }

  subscript(_ index: Int) -> Atomic<UInt64> {
    _read { yield numbers[index * Self.stride] }
  }
}
