import Squint
import Synchronization

/// Where output goes: answers and data to stdout, everything else to stderr.
enum Terminal {
  private static let isEnding = Atomic<Bool>(false)

  /// Writes `text` to stdout at once, so that a streamed answer appears while it is made.
  ///
  /// Where stdout takes no more (a full disk), the program ends here: there is nothing left that it could do.
  static func write(_ text: String) {
    if let code = write(text, to: STDOUT_FILENO) {
      fail(SquintError(.inputOutput, "stdout cannot be written: \(String(cString: strerror(code)))"))
    }
  }

  /// Writes a line to stderr. Where that fails, nobody is left to tell.
  static func note(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

  /// Writes the one line that an error is.
  static func report(_ error: SquintError) { note("squint: \(printable(error.message))") }

  /// Writes the one line that an error is, and exits with its code.
  static func fail(_ error: SquintError) -> Never {
    report(error)
    exit(error.exitCode)
  }

  /// The error's number where `text` could not be written.
  @discardableResult
  private static func write(_ text: String, to descriptor: Int32) -> Int32? {
    var text = text
    return text.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        let count = Glue.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
        if count < 0 && errno == EINTR { continue }
        if count <= 0 { return errno }
        done += count
      }
      return nil
    }
  }

  static var isInteractive: Bool { isatty(STDERR_FILENO) == 1 }

  /// A line that is overwritten in place; shown only where stderr is a terminal.
  static func progress(_ text: String) {
    guard isInteractive else { return }
    lastProgress.withLock { last in
      guard last != text else { return }
      last = text
      write("\r\u{1B}[K" + text, to: STDERR_FILENO)
    }
  }

  private static let lastProgress = Mutex("")

  static func endProgress() {
    if isInteractive { write("\r\u{1B}[K", to: STDERR_FILENO) }
  }

  /// `text` on one line, without what would make a terminal do things: names and messages may come from a model file.
  static func printable(_ text: String, limit: Int = 1000) -> String {
    var line = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      guard line.count < limit else { return String(line) + "…" }
      switch scalar.properties.generalCategory {
      case .control, .lineSeparator, .paragraphSeparator, .format: line.append(" ")
      default: line.append(scalar)
      }
    }
    return String(line)
  }

  /// Makes the program's descriptors sound before anything is opened.
  ///
  /// Where a caller closed stdin, stdout or stderr, the next file to be opened would take its number, and messages would
  /// be written into it. The stand-ins cannot be read or written, so that using them is an error as it should be.
  static func prepare() {
    for (descriptor, mode) in [(STDIN_FILENO, O_WRONLY), (STDOUT_FILENO, O_RDONLY), (STDERR_FILENO, O_RDONLY)]
    where fcntl(descriptor, F_GETFD) == -1 {
      _ = open("/dev/null", mode)
    }
    // A reader that went away, as `head` does, ends the program quietly, also where the parent ignores the signal.
    signal(SIGPIPE, SIG_DFL)
    // The model file is mapped: a card that cannot read a page, or a file that shrinks, arrives as a signal.
    _ = isEnding.load(ordering: .relaxed)  // made before the handler can run
    signal(SIGBUS) { _ in
      // Several threads may meet the page: the first one speaks, and ends all.
      if Terminal.isEnding.exchange(true, ordering: .relaxed) { while true { pause() } }
      let message: StaticString =
        "squint: the model file cannot be read any more: it was changed meanwhile, or the disk is failing; run squint verify\n"
      _ = Glue.write(STDERR_FILENO, message.utf8Start, message.utf8CodeUnitCount)
      _exit(SquintError.Kind.inputOutput.rawValue)
    }
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

/// Ctrl-C and `kill`: the first ends the answer, the second the program.
enum Interrupt {
  /// What the handler, which may not allocate or lock, can reach.
  private static let cancellation = Cancellation()
  private static let received = Atomic<Int32>(0)
  private static let isWaiting = Atomic<Bool>(false)

  /// From now on `signals` switch the returned cancellation.
  static func install(_ signals: [Int32] = [SIGINT, SIGTERM]) -> Cancellation {
    // Made before the handler can run: a global is made at its first use, under a lock.
    let cancellation = cancellation
    received.store(0, ordering: .relaxed)
    isWaiting.store(false, ordering: .relaxed)
    for number in signals {
      signal(number) { number in
        if Interrupt.cancellation.isCancelled || Interrupt.isWaiting.load(ordering: .relaxed) { _exit(128 + number) }
        Interrupt.received.store(number, ordering: .relaxed)
        Interrupt.cancellation.cancel()
      }
    }
    return cancellation
  }

  /// Calls `body`, which waits for input: there is no answer to end, so that the first signal ends the program.
  static func waiting<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    isWaiting.store(true, ordering: .relaxed)
    defer { isWaiting.store(false, ordering: .relaxed) }
    return try body()
  }

  /// What shells expect of a program that a signal ended.
  static var exitCode: Int32 { 128 + received.load(ordering: .relaxed) }
}
