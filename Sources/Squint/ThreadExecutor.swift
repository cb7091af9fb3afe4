import SquintFile

/// Runs an actor's jobs on a thread of its own, one after the other.
final class ThreadExecutor: SerialExecutor {
  private let queue: Queue

  /// - Throws: `doesNotFit` where the system gives no thread.
  init() throws(SquintError) {
    let queue = Queue()
    self.queue = queue
    var threads = ThreadGroup()
    // As much as programs have: templates are nested.
    try threads.start(stackBytes: 8 << 20) { queue.run() }
    threads.detach()
  }

  deinit { queue.end() }

  func enqueue(_ job: consuming ExecutorJob) {
    queue.add(UnownedJob(job), asUnownedSerialExecutor())
  }

  func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  /// What the thread and the executor share: the executor may go while the thread ends.
  private final class Queue: @unchecked Sendable {  // the monitor synchronizes it
    private let monitor = Monitor()
    private var jobs: [(job: UnownedJob, executor: UnownedSerialExecutor)] = []
    private var hasEnded = false

    func add(_ job: UnownedJob, _ executor: UnownedSerialExecutor) {
      monitor.locked {
        jobs.append((job, executor))
        monitor.wakeAll()
      }
    }

    func end() {
      monitor.locked {
        hasEnded = true
        monitor.wakeAll()
      }
    }

    func run() {
      while let next = next() { next.job.runSynchronously(on: next.executor) }
    }

    /// The next job; nil where none will come any more.
    private func next() -> (job: UnownedJob, executor: UnownedSerialExecutor)? {
      monitor.locked {
        while jobs.isEmpty {
          if hasEnded { return nil }
          monitor.wait()
        }
        return jobs.removeFirst()
      }
    }
  }
}
