/// Threads that are started together and awaited together.
package struct ThreadGroup {
  private var threads: [pthread_t] = []

  package init() {}

  /// How many have been started.
  package var count: Int { threads.count }

  private final class Body {
    let run: () -> Void

    init(_ run: @escaping () -> Void) { self.run = run }
  }

  /// Starts a thread that runs `body` on a stack of `stackBytes` bytes; the default of 8 MiB would be counted against small
  /// boards.
  ///
  /// - Throws: `doesNotFit` where the system gives none.
  package mutating func start(stackBytes: Int, _ body: @escaping () -> Void) throws(SquintError) {
    let reference = Unmanaged.passRetained(Body(body)).toOpaque()
    // A pointer in Darwin and Musl, a number in Glibc.
    #if canImport(Glibc)
      var thread = pthread_t()
    #else
      var thread: pthread_t?
    #endif
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, stackBytes)
    let code = pthread_create(
      &thread, &attributes,
      { reference in
        // Not every C library says that it may be nil.
        Unmanaged<Body>.fromOpaque((reference as UnsafeMutableRawPointer?)!).takeRetainedValue().run()
        return nil
      }, reference)
    pthread_attr_destroy(&attributes)
    guard code == 0 else {
      Unmanaged<Body>.fromOpaque(reference).release()
      throw SquintError(
        .doesNotFit,
        "thread \(threads.count + 1) cannot be started: \(systemMessage(code))", remedies: [.raiseLimits, .oneThread])
    }
    #if canImport(Glibc)
      threads.append(thread)
    #else
      threads.append(thread!)
    #endif
  }

  /// Lets them go on by themselves: nobody will wait for them.
  package mutating func detach() {
    for thread in threads { pthread_detach(thread) }
    threads = []
  }

  /// Waits until all have ended.
  package mutating func join() {
    for thread in threads { pthread_join(thread, nil) }
    threads = []
  }
}

/// A mutex and a condition, at a fixed address.
package final class Monitor: @unchecked Sendable {  // POSIX synchronizes it
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  package init() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  package func lock() { pthread_mutex_lock(mutex) }

  package func unlock() { pthread_mutex_unlock(mutex) }

  /// Sleeps until someone wakes it; the mutex is held before and after.
  package func wait() { pthread_cond_wait(condition, mutex) }

  /// Wakes all that sleep; the mutex must be held, which orders the wake-up after a sleeper's last look.
  package func wakeAll() { pthread_cond_broadcast(condition) }

  /// Runs `body` with the mutex held.
  package func locked<Result>(_ body: () -> Result) -> Result {
    lock()
    defer { unlock() }
    return body()
  }
}

/// Runs `body`, which ends the program: here, or on a thread with a stack of its own where `ulimit -s` leaves less than any
/// program expects.
package func withSufficientStack(_ body: @escaping () -> Void) throws(SquintError) {
  let sufficientBytes = 1 << 20
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  // What a thread gets by default is what the first one has.
  var size = 0
  pthread_attr_getstacksize(&attributes, &size)
  pthread_attr_destroy(&attributes)
  guard size < sufficientBytes else { return body() }
  var threads = ThreadGroup()
  try threads.start(stackBytes: 8 * sufficientBytes, body)
  // Signals are for the thread that works: it may wait for input.
  var all = sigset_t()
  sigfillset(&all)
  pthread_sigmask(SIG_BLOCK, &all, nil)
  threads.join()
}
