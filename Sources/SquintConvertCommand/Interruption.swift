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

  /// Starts to take the signals.
  static func watch() {
    // The first access makes the global; a signal handler must not.
    received.store(0, ordering: .relaxed)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      setHandler(number) { Interruption.received.store($0, ordering: .relaxed) }
    }
  }
}

/// The C library's `signal`, whose name the property above hides.
private func setHandler(_ number: Int32, _ handler: @escaping @convention(c) (Int32) -> Void) {
  signal(number, handler)
}
