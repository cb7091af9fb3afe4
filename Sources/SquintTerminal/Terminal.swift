import SquintFile
import Synchronization

/// The terminal, and where output goes without one: answers and data to stdout, everything else to stderr.
///
/// All that a program prints goes through here. stdout and stderr are mostly one screen, so one place has to know what stands
/// on its last line: a status line, which whatever is printed next takes away, or the beginning of an answer's line, which
/// nobody takes away.
package enum Terminal {
  /// What stands on the last line of the screen.
  private enum LastLine: UInt8 {
    case empty
    case status
    /// A part of an answer, or a prompt, without its line end.
    case text
  }

  private struct State {
    /// The status line that is shown.
    var status = ""
    /// A carriage return that ended a piece of an answer; a line feed behind it makes it a line end.
    var holdsReturn = false
  }

  private static let state = Mutex(State())
  // What signal handlers, which may not lock or allocate, can reach.
  private static let lastLine = Atomic<UInt8>(LastLine.empty.rawValue)
  private static let isEnding = Atomic<Bool>(false)
  private static let isAsking = Atomic<Bool>(false)
  /// The modes of the terminal on stdin as they were before a line was edited.
  ///
  /// On the heap: Swift 6.3 gives a global of this type 57 bytes, and `tcgetattr` writes its 60.
  private nonisolated(unsafe) static let modes: UnsafeMutablePointer<termios> = {
    let modes = UnsafeMutablePointer<termios>.allocate(capacity: 1)
    modes.initialize(to: termios())
    return modes
  }()
  private nonisolated(unsafe) static var program: StaticString = "squint"
  private nonisolated(unsafe) static var unreadable: StaticString = ""

  // MARK: What there is

  /// Whether stderr is a terminal on which lines can be rewritten: one that knows escape sequences, and is allowed to.
  package static let isRewritable: Bool = {
    func value(_ name: String) -> String { getenv(name).map { String(cString: $0) } ?? "" }
    return isatty(STDERR_FILENO) == 1 && !["", "dumb"].contains(value("TERM")) && value("NO_COLOR").isEmpty
  }()

  private static let isStdoutTerminal = isatty(STDOUT_FILENO) == 1
  private static let isStderrTerminal = isatty(STDERR_FILENO) == 1

  /// Whether stdout and stderr are one screen.
  private static let isShared: Bool = {
    guard isStdoutTerminal, isStderrTerminal else { return false }
    func device(_ descriptor: Int32) -> dev_t {
      var status = stat()
      return fstat(descriptor, &status) == 0 ? status.st_rdev : 0
    }
    // /dev/tty is another name of what mostly is the other one.
    var own = stat()
    let name = stat("/dev/tty", &own) == 0 ? own.st_rdev : 0
    let devices = [device(STDOUT_FILENO), device(STDERR_FILENO)]
    return devices[0] == devices[1] || devices.contains(name)
  }()

  /// Whether what is written to stdout is on the screen that we leave in the end: that of stderr, or else of stdout.
  private static let isAnswerOnScreen = isStdoutTerminal && (isShared || !isStderrTerminal)
  private static let screen = isStderrTerminal ? STDERR_FILENO : isStdoutTerminal ? STDOUT_FILENO : -1

  /// The columns of the window on stderr, asked for each time: people resize windows.
  package static var columns: Int {
    var size = winsize()
    if ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 { return Int(size.ws_col) }
    let named = getenv("COLUMNS").flatMap { Int(String(cString: $0)) } ?? 0
    return named > 0 ? named : 80
  }

  /// Makes the program's descriptors and signals sound; called before anything is opened.
  ///
  /// - Parameters:
  ///   - program: its name, which errors begin with.
  ///   - unreadable: the message, with a line end, for when a mapped file cannot be read any more.
  package static func prepare(_ program: StaticString, unreadable: StaticString) {
    // Where a caller closed stdin, stdout or stderr, the next file to be opened would take its number, and messages would
    // be written into it. The stand-ins cannot be read or written, so that using them is an error as it should be.
    for (descriptor, mode) in [(STDIN_FILENO, O_WRONLY), (STDOUT_FILENO, O_RDONLY), (STDERR_FILENO, O_RDONLY)]
    where fcntl(descriptor, F_GETFD) == -1 {
      _ = open("/dev/null", mode)
    }
    Terminal.program = program
    Terminal.unreadable = unreadable
    // Made before a handler can run: a global is made at its first use, under a lock.
    _ = (isRewritable, isAnswerOnScreen, screen, lastLine.load(ordering: .relaxed))
    _ = (isEnding.load(ordering: .relaxed), isAsking.load(ordering: .relaxed), modes)
    // A reader that went away, as `head` does, ends the program quietly, also where the parent ignores the signal.
    signal(SIGPIPE, SIG_DFL)
    // Files are mapped: a card that cannot read a page, or a file that shrinks, arrives as a signal.
    signal(SIGBUS) { _ in
      // Several threads may meet the page: the first one speaks, and ends all.
      if Terminal.isEnding.exchange(true, ordering: .relaxed) { while true { pause() } }
      Terminal.leave()
      Terminal.emit(Terminal.program)
      Terminal.emit(": ")
      Terminal.emit(Terminal.unreadable)
      UnfinishedFiles.removeAll()
      _exit(SquintError.Kind.inputOutput.rawValue)
    }
    Interrupt.prepare()
    UnfinishedFiles.leavesScreen = { Terminal.leave() }
    // All others that end the program.
    UnfinishedFiles.removeOnSignals()
  }

  // MARK: Answers and data

  /// Writes `text` to stdout at once, so that a streamed answer appears while it is made: as it is into files and pipes, with
  /// control characters made visible onto a terminal.
  ///
  /// Where stdout takes no more (a full disk), the program ends here: there is nothing left that it could do.
  package static func write(_ text: String) {
    let code = state.withLock { state in
      clear(&state)
      return isStdoutTerminal ? show(text, &state) : put(text, STDOUT_FILENO)
    }
    if let code { fail(SquintError(.inputOutput, "stdout cannot be written: \(systemMessage(code))")) }
  }

  private static func show(_ text: String, _ state: inout State) -> Int32? {
    var text = state.holdsReturn ? "\r" + text : text
    state.holdsReturn = text.unicodeScalars.last == "\r"
    if state.holdsReturn { text.unicodeScalars.removeLast() }
    guard !text.isEmpty else { return nil }
    guard isAnswerOnScreen else { return put(visible(text), STDOUT_FILENO) }
    let last: LastLine = text.unicodeScalars.last == "\n" ? .empty : .text
    // Before it is written: a signal that comes between ends a line too many rather than one too few.
    lastLine.store(LastLine.text.rawValue, ordering: .relaxed)
    defer { lastLine.store(last.rawValue, ordering: .relaxed) }
    return put(visible(text), STDOUT_FILENO)
  }

  // MARK: Everything else

  /// Writes a line to stderr. Where that fails, nobody is left to tell.
  package static func note(_ text: String) {
    state.withLock { state in
      clear(&state)
      endLine()
      _ = put((isStderrTerminal ? visible(text) : text) + "\n", STDERR_FILENO)
    }
  }

  /// Writes the one line that an error is.
  package static func report(_ error: SquintError) { report(error.commandLine) }

  /// Writes one line that begins with the program's name.
  package static func report(_ message: String) { note("\(program): \(printable(message))") }

  /// Writes the one line that an error is, and exits with its code.
  package static func fail(_ error: SquintError) -> Never {
    report(error)
    exit(error.exitCode)
  }

  /// Ends the line on which a person has typed, on the screen that there is; nothing where stdin is no terminal.
  package static func endTypedLine() {
    if screen >= 0, isatty(STDIN_FILENO) == 1 { _ = put("\n", screen) }
  }

  /// Begins a new line on stderr where an answer stands in the middle of one.
  private static func endLine() {
    guard isStderrTerminal, lastLine.load(ordering: .relaxed) == LastLine.text.rawValue else { return }
    _ = put("\n", STDERR_FILENO)
    lastLine.store(LastLine.empty.rawValue, ordering: .relaxed)
  }

  // MARK: The status line

  /// The columns of a status line. Behind it there is room for the terminal's echo of Ctrl-C, which must not begin another line;
  /// a character in the last column would make some terminals do so, too.
  static var statusColumns: Int { max(columns - 4, 1) }

  /// Shows `text` as the status line, cut to the window, where stderr is a terminal and we are in its foreground.
  static func showStatus(_ text: String) {
    guard isRewritable else { return }
    // A program in the background does not write across what its shell does; -1: it is not our shell's terminal.
    let foreground = tcgetpgrp(STDERR_FILENO)
    guard foreground == -1 || foreground == getpgrp() else { return }
    let line = cut(printable(text), columns: statusColumns)
    state.withLock { state in
      guard line != state.status, lastLine.load(ordering: .relaxed) != LastLine.text.rawValue else { return }
      state.status = line
      lastLine.store(LastLine.status.rawValue, ordering: .relaxed)
      _ = put(eraseLine + line, STDERR_FILENO)
    }
  }

  /// Takes the status line away, where there is one.
  package static func clearStatus() { state.withLock { clear(&$0) } }

  private static func clear(_ state: inout State) {
    guard !state.status.isEmpty else { return }
    state.status = ""
    _ = put(eraseLine, STDERR_FILENO)
    lastLine.store(LastLine.empty.rawValue, ordering: .relaxed)
  }

  private static let eraseLine = "\r\u{1B}[K"

  // MARK: Questions

  /// Whether a person can be asked with a line editor: it draws by escape sequences, on the screen of stderr.
  package static var canEdit: Bool { isatty(STDIN_FILENO) == 1 && isRewritable }

  /// Calls `body`, in which a person writes a line; afterwards the terminal has the modes that it had before.
  ///
  /// - Parameter prompt: written first, where someone sees it.
  package static func asking<Result>(_ prompt: String = "", _ body: () -> Result) -> Result {
    state.withLock { state in
      clear(&state)
      endLine()
      if screen >= 0, !prompt.isEmpty { _ = put(prompt, screen) }
    }
    let hasModes = tcgetattr(STDIN_FILENO, modes) == 0
    lastLine.store(LastLine.text.rawValue, ordering: .relaxed)
    isAsking.store(hasModes, ordering: .releasing)
    defer {
      isAsking.store(false, ordering: .releasing)
      lastLine.store(LastLine.empty.rawValue, ordering: .relaxed)
      if hasModes { tcsetattr(STDIN_FILENO, TCSADRAIN, modes) }
    }
    return body()
  }

  /// What makes a terminal put marks around what is pasted, and stop it.
  package static let beginPasteMarks: StaticString = "\u{1B}[?2004h"
  package static let endPasteMarks: StaticString = "\u{1B}[?2004l"

  // MARK: The end

  /// Leaves the screen as its next user wants it: the cursor at the beginning of an empty line. Fit for signal handlers.
  ///
  /// - Parameter echoes: whether the terminal has written `^C`.
  static func leave(echoes: Bool = false) {
    if isAsking.load(ordering: .acquiring) {
      tcsetattr(STDIN_FILENO, TCSANOW, modes)
      if isRewritable { emit(endPasteMarks, screen) }
    }
    switch LastLine(rawValue: lastLine.load(ordering: .relaxed)) {
    case .status: emit("\r\u{1B}[K", screen)
    case .text: emit("\n", screen)
    default: if echoes { emit("\n", screen) }
    }
  }

  // MARK: Writing

  /// The error's number where `text` could not be written.
  private static func put(_ text: String, _ descriptor: Int32) -> Int32? {
    var text = text
    return text.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        let count = Glue.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
        if count < 0 && errno == EINTR { continue }
        if count < 0 && errno == EAGAIN {
          // Another program has made the terminal that we share with it non-blocking.
          var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
          poll(&ready, 1, -1)
          continue
        }
        if count <= 0 { return errno }
        done += count
      }
      return nil
    }
  }

  /// Writes what needs no memory, from a signal handler; nowhere for a descriptor of -1.
  package static func emit(_ text: StaticString, _ descriptor: Int32 = STDERR_FILENO) {
    _ = Glue.write(descriptor, text.utf8Start, text.utf8CodeUnitCount)
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
