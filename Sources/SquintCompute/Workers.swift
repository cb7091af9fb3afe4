import CKernels
import SquintFile
import Synchronization

/// A pool of threads that run one job together and then wait for the next.
///
/// A waiting thread spins for some microseconds, so that the barrier between two matrices costs next to nothing, and
/// then sleeps, so that an idle program costs no CPU. Each thread begins with its own share of a job's pieces, the same in
/// every job with as many, so that rows stay in the cache of the core that wrote them; then it takes what others have left: a slow
/// core does less. A job is over when its pieces are done, whoever did them: a thread that the system does not let run holds
/// nobody up, unless it was in the middle of a piece. Nothing is allocated per job.
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
private final class Pool: @unchecked Sendable {  // all that threads share is atomic
  /// A job; written by the caller alone, in one cache line.
  private struct Announcement: ~Copyable {
    /// The `Workers.Body`, as bits.
    let body = Atomic<UInt>(0)
    let job = Atomic<UInt>(0)
    let pieces = Atomic<Int>(0)
    /// The number of the job; its change publishes the others.
    let generation = Atomic<UInt64>(0)
  }

  /// A job as a thread has read it.
  private struct Job {
    let body: Workers.Body
    let data: UnsafeMutableRawPointer
    let pieces: Int
    let generation: UInt64
  }

  /// A number of pieces, and of which job.
  private struct Progress {
    /// A job of fewer pieces than 2^24, and 2^40 jobs: years of them.
    static let bits = 24
    let value: UInt64

    init(value: UInt64) { self.value = value }

    init(_ count: Int, of generation: UInt64) { value = generation << Self.bits | UInt64(count) }

    var generation: UInt64 { value >> Self.bits }
    var count: Int { Int(value & (1 << Self.bits - 1)) }
  }

  let count: Int
  /// Two, which jobs use by turns: a thread that reads one late finds out from the other, see `job(of:)`.
  private let announcements: Spread<Announcement>
  /// The number of the last job; the caller's.
  private let generation = Atomic<UInt64>(0)
  /// [count]: the pieces of each thread's share that have been taken. No one has to set it back.
  private let taken: Spread<Atomic<UInt64>>
  /// [count]: the pieces that each thread has done, once it finds no more.
  private let done: Spread<Atomic<UInt64>>
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
    announcements = Spread(count: 2) { Announcement() }
    taken = Spread(count: count) { Atomic(0) }
    done = Spread(count: count) { Atomic(0) }
    spins = count > 1 ? Self.spins(for: .microseconds(50)) : 0
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
    // Whichever a thread waits for.
    for _ in 0..<2 {
      let next = generation.wrappingAdd(1, ordering: .relaxed).newValue
      announcements[Self.place(next)].generation.store(next, ordering: .releasing)
    }
    monitor.locked { monitor.wakeAll() }
    threads.join()
  }

  func run(_ job: UnsafeMutableRawPointer, pieces: Int, _ body: Workers.Body) {
    if count == 1 || pieces <= 1 {
      for piece in 0..<pieces { body(job, piece, 0) }
      return
    }
    precondition(pieces < 1 << Progress.bits, "a job of too many pieces")
    let generation = announce(job, pieces: pieces, body)
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { monitor.locked { monitor.wakeAll() } }
    let own = takePieces(of: Job(body: body, data: job, pieces: pieces, generation: generation), as: 0)
    // Those that others have taken. A thread that took none is not waited for.
    var spins = 0
    while own + piecesOfOthers(in: generation) < pieces {
      spins += 1
      if spins < self.spins { squint_spin_hint() } else { sched_yield() }
    }
  }

  /// Writes the job; returns its generation.
  private func announce(_ job: UnsafeMutableRawPointer, pieces: Int, _ body: Workers.Body) -> UInt64 {
    let generation = generation.wrappingAdd(1, ordering: .relaxed).newValue
    let place = Self.place(generation)
    // Whoever sees what follows sees that the job before has been announced, and this place is being written.
    atomicMemoryFence(ordering: .releasing)
    announcements[place].body.store(unsafeBitCast(body, to: UInt.self), ordering: .relaxed)
    announcements[place].job.store(UInt(bitPattern: job), ordering: .relaxed)
    announcements[place].pieces.store(pieces, ordering: .relaxed)
    announcements[place].generation.store(generation, ordering: .sequentiallyConsistent)
    return generation
  }

  private static func place(_ generation: UInt64) -> Int { Int(generation % 2) }

  /// The job of this generation, which has been announced; nil where the next one has been, too: then it is over, and what is read here
  /// may be of another.
  private func job(of generation: UInt64) -> Job? {
    let place = Self.place(generation)
    let body = announcements[place].body.load(ordering: .relaxed)
    let data = announcements[place].job.load(ordering: .relaxed)
    let pieces = announcements[place].pieces.load(ordering: .relaxed)
    atomicMemoryFence(ordering: .acquiring)
    guard announcements[1 - place].generation.load(ordering: .relaxed) < generation,
      let data = UnsafeMutableRawPointer(bitPattern: data)
    else { return nil }
    return Job(
      body: unsafeBitCast(body, to: Workers.Body.self), data: data, pieces: pieces, generation: generation)
  }

  private func piecesOfOthers(in generation: UInt64) -> Int {
    var sum = 0
    for thread in 1..<count {
      let progress = Progress(value: done[thread].load(ordering: .acquiring))
      if progress.generation == generation { sum += progress.count }
    }
    return sum
  }

  /// Takes the pieces of this thread's share, and then what others have left of theirs. Returns how many it did.
  private func takePieces(of job: Job, as thread: Int) -> Int {
    var count = 0
    for offset in 0..<self.count {
      let owner = (thread + offset) % self.count
      let share = job.pieces * owner / self.count..<job.pieces * (owner + 1) / self.count
      var taken = Progress(value: self.taken[owner].load(ordering: .relaxed))
      while true {
        // What is left of an earlier job counts as none; where a later one has begun, this one is over.
        let before = taken.generation < job.generation ? 0 : taken.count
        guard taken.generation <= job.generation, before < share.count else { break }
        // Where it succeeds the piece was nobody's, so that the job is not over, and its data is there.
        let exchange = self.taken[owner].compareExchange(
          expected: taken.value, desired: Progress(before + 1, of: job.generation).value, ordering: .relaxed)
        taken = Progress(value: exchange.original)
        guard exchange.exchanged else { continue }
        job.body(job.data, share.lowerBound + before, thread)
        count += 1
        taken = Progress(value: self.taken[owner].load(ordering: .relaxed))
      }
    }
    return count
  }

  /// The life of a thread of the pool.
  private func work() {
    let number = started.wrappingAdd(1, ordering: .relaxed).newValue
    var seen: UInt64 = 0
    while true {
      seen = waitForChange(of: seen)
      if isStopping.load(ordering: .acquiring) { return }
      guard let job = job(of: seen) else { continue }
      let count = takePieces(of: job, as: number)
      if count > 0 { done[number].store(Progress(count, of: seen).value, ordering: .releasing) }
    }
  }

  /// Waits for a job that comes after the one of generation `seen`; returns its generation.
  private func waitForChange(of seen: UInt64) -> UInt64 {
    let place = Self.place(seen + 1)
    for _ in 0..<spins {
      let current = announcements[place].generation.load(ordering: .acquiring)
      if current > seen { return current }
      squint_spin_hint()
    }
    sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
    defer { sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
    monitor.locked {
      while announcements[place].generation.load(ordering: .sequentiallyConsistent) <= seen { monitor.wait() }
    }
    return announcements[place].generation.load(ordering: .acquiring)
  }
}

/// Values that threads share, each in cache lines of its own.
private struct Spread<Value: ~Copyable>: ~Copyable, @unchecked Sendable {  // atomic
  /// Two lines, since some CPUs fetch them in pairs, in bytes.
  private static var spacing: Int { 128 }
  private let memory: UnsafeMutableRawPointer
  private let count: Int

  init(count: Int, _ value: () -> Value) {
    precondition(MemoryLayout<Value>.size <= Self.spacing)
    memory = UnsafeMutableRawPointer.allocate(byteCount: count * Self.spacing, alignment: Self.spacing)
    self.count = count
    for index in 0..<count { pointer(index).initialize(to: value()) }
  }

  deinit {
    for index in 0..<count { pointer(index).deinitialize(count: 1) }
    memory.deallocate()
  }

  private func pointer(_ index: Int) -> UnsafeMutablePointer<Value> {
    (memory + index * Self.spacing).bindMemory(to: Value.self, capacity: 1)
  }

  subscript(_ index: Int) -> Value {
    _read { yield pointer(index).pointee }
  }
}
