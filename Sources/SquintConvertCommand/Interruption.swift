import SquintFile
import Synchronization

/// Ctrl-C and `kill`, noticed between two pieces of work, so that nothing half-written stays behind.
enum Interruption {
  private static let received = Atomic<Int32>(0)

  /// The signal that arrived, or nil.
  static var signal: Int32? {
    let number = received.load(ordering: .relaxed)
    return number == 0 ? nil : number
  }

  /// Starts to take the signals, but for those that the parent had ignored (nohup, a shell's background job).
  static func watch() {
    // The first access makes the global; a signal handler must not.
    received.store(0, ordering: .relaxed)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      let previous = setHandler(number) { Interruption.received.store($0, ordering: .relaxed) }
      if unsafeBitCast(previous, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) {
        _ = setHandler(number, SIG_IGN)
      }
    }
  }
}

/// The C library's `signal`, whose name the property above hides: returns the handler before.
private func setHandler(_ number: Int32, _ handler: Handler?) -> Handler? { signal(number, handler) }

private typealias Handler = @convention(c) (Int32) -> Void
