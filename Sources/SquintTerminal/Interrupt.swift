import SquintFile
import Synchronization

/// Ctrl-C and `kill`: they end the program at once, and nothing half-written is left; but where an answer is being written,
/// the first one asks it to end, and the second ends the program.
package enum Interrupt {
  /// What work looks at that may be asked to end.
  package static let cancellation = Cancellation()

  private static let signals = [SIGINT, SIGTERM, SIGHUP]
  private static let received = Atomic<Int32>(0)
  /// The signals that ask, as bits.
  private static let asking = Atomic<UInt64>(0)

  /// Takes the signals.
  static func prepare() {
    // Made before the handler can run: a global is made at its first use, under a lock.
    _ = (cancellation.isCancelled, received.load(ordering: .relaxed), asking.load(ordering: .relaxed))
    // Ctrl-\ is for those who want to see the program's memory; the terminal is theirs again all the same.
    signal(SIGQUIT) { number in
      Terminal.leave(echoes: true)
      UnfinishedFiles.removeAll()
      signal(number, SIG_DFL)
      raise(number)
    }
    for number in signals {
      let previous = signal(number) { number in
        if Interrupt.asking.load(ordering: .relaxed) & 1 << UInt64(number) != 0, !Interrupt.cancellation.isCancelled {
          Interrupt.received.store(number, ordering: .relaxed)
          Interrupt.cancellation.cancel()
        } else {
          Interrupt.end(number)
        }
      }
      // What the parent ignores (nohup, a job in a shell's background) stays ignored; but where someone sits, Ctrl-C counts.
      let isIgnored = unsafeBitCast(previous, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
      if isIgnored, isatty(STDIN_FILENO) == 0 { signal(number, SIG_IGN) }
    }
  }

  /// Ends the program because of the signal `number`, as shells expect it. Runs in signal handlers.
  private static func end(_ number: Int32) -> Never {
    Terminal.leave(echoes: number == SIGINT)
    UnfinishedFiles.removeAll()
    _exit(128 + number)
  }

  /// From now on the first of `signals` switches `cancellation`, and only the second ends the program.
  package static func ask(_ signals: [Int32] = [SIGINT, SIGTERM]) {
    asking.store(signals.reduce(0) { $0 | 1 << UInt64($1) }, ordering: .relaxed)
  }

  /// What shells expect of a program that a signal ended.
  package static var exitCode: Int32 { 128 + received.load(ordering: .relaxed) }
}
