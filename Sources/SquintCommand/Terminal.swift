import Squint
import Synchronization

/// Where output goes: answers and data to stdout, everything else to stderr.
enum Terminal {
  /// Writes `text` to stdout at once, so that a streamed answer appears while it is made.
  static func write(_ text: String) { write(text, to: STDOUT_FILENO) }

  static func note(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

  private static func write(_ text: String, to descriptor: Int32) {
    var text = text
    text.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        let count = Glue.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
        if count < 0 && errno == EINTR { continue }
        // Whoever read the output is gone: nobody is left to tell.
        if count <= 0 { exit(SquintError.Kind.inputOutput.rawValue) }
        done += count
      }
    }
  }

  /// Prints the one line that an error is, and exits with its code.
  static func fail(_ error: SquintError) -> Never {
    note("squint: \(error.message)")
    exit(error.exitCode)
  }

  static var isInteractive: Bool { isatty(STDERR_FILENO) == 1 }

  /// A line that is overwritten in place; shown only where stderr is a terminal.
  static func progress(_ text: String) {
    if isInteractive { write("\r\u{1B}[K" + text, to: STDERR_FILENO) }
  }

  static func endProgress() {
    if isInteractive { write("\r\u{1B}[K", to: STDERR_FILENO) }
  }
}

/// The C function that `Terminal.write` hides by its name.
private enum Glue {
  static func write(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    #if canImport(Glibc)
      Glibc.write(descriptor, bytes, count)
    #elseif canImport(Musl)
      Musl.write(descriptor, bytes, count)
    #else
      Darwin.write(descriptor, bytes, count)
    #endif
  }
}

/// Ctrl-C: the first ends the answer, the second the program.
enum Interrupt {
  /// What the handler, which may not allocate or lock, can reach.
  private static let cancellation = Cancellation()

  /// From now on Ctrl-C switches the returned cancellation.
  static func install() -> Cancellation {
    // Made before the handler can run: a global is made at its first use, under a lock.
    let cancellation = cancellation
    signal(SIGINT) { _ in
      if Interrupt.cancellation.isCancelled { _exit(Interrupt.exitCode) }
      Interrupt.cancellation.cancel()
    }
    return cancellation
  }

  /// What shells expect of a program that SIGINT ended.
  static let exitCode: Int32 = 130
}
