import Synchronization

/// The temporary files of this process, where a signal handler, which can neither allocate nor lock, finds them.
package enum UnfinishedFiles {
  /// More outputs at a time than any command has (`squint trace` has one for each step of each layer); of further ones a signal leaves
  /// the temporary file to the next writer.
  private nonisolated(unsafe) static let slots: UnsafeMutablePointer<Atomic<Int>> = {
    let slots = UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: count)
    for index in 0..<count { (slots + index).initialize(to: Atomic(0)) }
    return slots
  }()
  private static let count = 4096

  /// Remembers the file at `path`; nil where there is no place for it.
  static func add(_ path: String) -> Int? {
    guard let name = path.withFileName({ strdup($0) }) else { return nil }
    for index in 0..<count {
      let isTaken = slots[index].compareExchange(
        expected: 0, desired: Int(bitPattern: name), ordering: .acquiringAndReleasing
      ).exchanged
      if isTaken { return index }
    }
    free(name)
    return nil
  }

  /// Forgets the file: it is finished, or removed.
  static func forget(_ index: Int) {
    // Whoever takes the name out of its slot has it alone.
    free(UnsafeMutableRawPointer(bitPattern: slots[index].exchange(0, ordering: .acquiringAndReleasing)))
  }

  /// Removes all of them. May be called from a signal handler, by which the program ends.
  package static func removeAll() {
    for index in 0..<count {
      let name = slots[index].exchange(0, ordering: .acquiringAndReleasing)
      if let name = UnsafePointer<CChar>(bitPattern: name) { unlink(name) }
    }
  }

  /// Called by a signal that ends the program: the program's screen is left as its next user wants it.
  package nonisolated(unsafe) static var leavesScreen: @convention(c) () -> Void = {}

  /// From now on no signal that ends the program leaves a temporary file behind, but for SIGKILL. Signals that are ignored, or
  /// have a handler, stay as they are; a handler that ends the program calls `removeAll`.
  package static func removeOnSignals() {
    _ = slots  // made before a handler can run
    // A file that grows beyond the limit of the process is an error of `write`, which says so and cleans up.
    signal(SIGXFSZ, SIG_IGN)
    for number in [
      SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU,
      SIGSYS,
      SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF,
    ] {
      let before = signal(number) { number in
        UnfinishedFiles.leavesScreen()
        UnfinishedFiles.removeAll()
        signal(number, SIG_DFL)
        // It is blocked while its handler runs, and ends the program when that returns.
        raise(number)
      }
      if unsafeBitCast(before, to: Int.self) != unsafeBitCast(SIG_DFL, to: Int.self) { signal(number, before) }
    }
  }
}
