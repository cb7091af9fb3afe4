import CKernels
import SquintFile
import Synchronization

/// A pool of threads that run one job together and then wait for the next.
///
/// A waiting thread spins for some microseconds, so that the barrier between two matrices costs next to nothing, and
/// then sleeps, so that an idle program costs no CPU. The pieces of a job are handed out one by one: a slow core takes
/// fewer. Nothing is allocated per job.
public final class Workers: Sendable {
  /// A piece of a job: the job's own data, the number of the piece, and which thread works on it (for scratch memory).
  public typealias Body = @convention(c) (_ job: UnsafeMutableRawPointer, _ piece: Int, _ thread: Int) -> Void

  /// The threads that work on a job, the caller's among them.
  public var count: Int { pool.count }

  // The threads hold the pool, not this object: so its last user can destroy it, which ends the threads.
  private let pool: Pool

  /// The stack of each thread of the pool, in bytes: kernels keep their tiles there, a few KiB.
  public static let stackBytes = 256 << 10

  /// How many threads there may be.
  public static let counts = 1...256

  /// Starts `count - 1` threads.
  ///
  /// - Throws: `usage` where `count` is outside `counts`; `internalError` where the system gives no thread.
  public init(count: Int) throws(SquintError) {
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
  public func run<Job>(_ job: inout Job, pieces: Int, _ body: Body) {
    withUnsafeMutablePointer(to: &job) { pool.run(UnsafeMutableRawPointer($0), pieces: pieces, body) }
  }
}

/// What the threads of `Workers` share.
private final class Pool: @unchecked Sendable {  // the variables below are published by `generation`, see `run`
  let count: Int
  private var body: Workers.Body?
  private var job: UnsafeMutableRawPointer?
  private var pieces = 0
  private let nextPiece = Atomic<Int>(0)
  private let finished = Atomic<Int>(0)
  /// Counts the jobs; its change publishes the fields above.
  private let generation = Atomic<Int>(0)
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
    spins = count > 1 ? Self.spins(for: .microseconds(50)) : 0
  }

  /// How many looks take `duration`, which is to be longer than the serial work between two matrices and shorter than anyone
  /// notices. Measured, since the hint between two looks takes from one cycle (Arm) to 140 (Skylake).
  private static func spins(for duration: Duration) -> Int {
    let clock = ContinuousClock()
    let value = Atomic<Int>(0)
    let looks = 1000
    // The fastest of some rounds: a thread that was interrupted is slow, never fast.
    let fastest = (0..<5).map { _ in
      clock.measure {
        for _ in 0..<looks where value.load(ordering: .acquiring) == 0 { squint_spin_hint() }
      }
    }.min()!
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
    generation.wrappingAdd(1, ordering: .releasing)
    monitor.locked { monitor.wakeAll() }
    threads.join()
  }

  func run(_ job: UnsafeMutableRawPointer, pieces: Int, _ body: Workers.Body) {
    if count == 1 || pieces <= 1 {
      for piece in 0..<pieces { body(job, piece, 0) }
      return
    }
    self.body = body
    self.job = job
    self.pieces = pieces
    nextPiece.store(0, ordering: .relaxed)
    finished.store(0, ordering: .relaxed)
    generation.wrappingAdd(1, ordering: .sequentiallyConsistent)
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { monitor.locked { monitor.wakeAll() } }
    takePieces(as: 0)
    // Every thread has to report, also one that came too late for a piece: only then may the fields change again.
    var spins = 0
    while finished.load(ordering: .acquiring) < count - 1 {
      spins += 1
      if spins < self.spins { squint_spin_hint() } else { sched_yield() }
    }
  }

  private func takePieces(as thread: Int) {
    guard let body, let job else { return }
    while true {
      let piece = nextPiece.wrappingAdd(1, ordering: .relaxed).oldValue
      guard piece < pieces else { return }
      body(job, piece, thread)
    }
  }

  /// The life of a thread of the pool.
  private func work() {
    let number = started.wrappingAdd(1, ordering: .relaxed).newValue
    var seen = 0
    while true {
      seen = waitForChange(of: seen)
      if isStopping.load(ordering: .acquiring) { return }
      takePieces(as: number)
      finished.wrappingAdd(1, ordering: .releasing)
    }
  }

  private func waitForChange(of seen: Int) -> Int {
    for _ in 0..<spins {
      let current = generation.load(ordering: .acquiring)
      if current != seen { return current }
      squint_spin_hint()
    }
    sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
    defer { sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
    monitor.locked {
      while generation.load(ordering: .sequentiallyConsistent) == seen { monitor.wait() }
    }
    return generation.load(ordering: .acquiring)
  }
}
