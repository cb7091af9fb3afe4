import Squint
import SquintFile
import SquintTerminal

/// What `ask` asks: the argument, what stdin has, or both.
///
/// A program cannot see what its stdin is for. What a loop reads (`while read file; do squint ask …; done < list`), or a shell reads
/// its script from, is not for the program, and reading it would take it away. Under cron, ssh or another program it may be open, and
/// nobody writes. So stdin is read where it is for this program alone, and waited for without end only where there is nothing else
/// to ask.
struct Question {
  /// The argument; nil where there is none. `-` is what stdin has, whatever that is.
  let argument: String?
  /// What is asked where stdin has nothing, empty where nothing need be; nil where there is nothing to fall back to.
  let usual: String?
  /// The kind of the medium that stdin is; nil where it is none.
  var mediumOnStandardInput: MediaKind?

  static let help = """
    Text on stdin is the question or, beside one, is put behind it, if stdin is for squint alone: a file from its \
    start, or a pipe that the calling program does not read itself and in which something comes within seconds. The \
    list of a loop (while read) stays the loop's. The question - is what stdin has, whatever it is.
    """

  /// The question, without the line ends behind it; bytes that are no UTF-8 become U+FFFD.
  ///
  /// - Throws: `usage` where there is none, `noInput` where stdin cannot be read.
  func text() throws(SquintError) -> String {
    if let kind = mediumOnStandardInput {
      guard argument != "-" else {
        throw SquintError(.usage, "stdin cannot be the question and \(kind.withArticle); give one as a file")
      }
      return try asked("")
    }
    guard argument != "-" else {
      guard isatty(STDIN_FILENO) == 0 else {
        throw SquintError(.usage, "the question - is what stdin has, and that is the terminal; give one in quotes")
      }
      return try asked(StandardInput.text(waits: .always))
    }
    switch StandardInput.use() {
    case .nothing:
      if argument == nil, usual == nil, isatty(STDIN_FILENO) == 1 {
        throw SquintError(.usage, "no question: give one in quotes, or on stdin")
      }
      return try asked("")
    case .others(let reason):
      guard argument == nil, usual == nil else { return try asked("") }
      throw SquintError(
        .usage, "no question: give one in quotes, or - for what stdin has, which is not taken unasked: \(reason)")
    case .ours:
      return try asked(StandardInput.text(waits: argument == nil && usual == nil ? .always : .briefly))
    }
  }

  /// The question where `input` is what stdin has.
  private func asked(_ input: String) throws(SquintError) -> String {
    let input = input.allSatisfy(\.isWhitespace) ? "" : input
    let argument = self.argument == "-" ? "" : self.argument?.repaired
    let parts = [argument ?? (input.isEmpty ? usual ?? "" : ""), input].filter { !$0.isEmpty }
    guard !parts.isEmpty || usual == "" else { throw SquintError(.usage, "the prompt is empty; say something") }
    return parts.joined(separator: "\n\n")
  }
}

/// What comes to this program from outside, beside its arguments.
enum StandardInput {
  enum Use: Equatable {
    /// A terminal, /dev/null or another device, or nothing at all.
    case nothing
    /// A file from its start, or a pipe or socket that this program has alone.
    case ours
    /// Something that others read, too, and how that shows.
    case others(String)
  }

  enum Waiting {
    /// Until something comes.
    case always
    /// As long as whoever has the other end may take to begin.
    case briefly
  }

  /// What stdin is for.
  static func use() -> Use {
    var status = stat()
    guard fstat(STDIN_FILENO, &status) == 0 else { return .nothing }
    switch status.st_mode & S_IFMT {
    case S_IFREG:
      // Whoever reads lines leaves the place behind the last one.
      return lseek(STDIN_FILENO, 0, SEEK_CUR) == 0 ? .ours : .others("another program has begun to read that file")
    case S_IFIFO, S_IFSOCK:
      return isStandardInput(status, of: getppid()) ? .others("the calling program reads it, too") : .ours
    case S_IFDIR: return .ours  // reading it is an error that says so
    default: return .nothing
    }
  }

  /// Whether the process `parent` has the same pipe as its stdin: a shell in whose loop this program runs. One that starts this program
  /// behind a pipe has another. Where that cannot be seen, it has not.
  private static func isStandardInput(_ own: stat, of parent: pid_t) -> Bool {
    var status = stat()
    return stat("/proc/\(parent)/fd/0", &status) == 0 && status.st_dev == own.st_dev && status.st_ino == own.st_ino
  }

  /// `argument` or, where that is `-`, what stdin has.
  static func text(or argument: String) throws(SquintError) -> String {
    guard argument == "-" else { return argument }
    return try text(waits: .always)
  }

  /// All that stdin has, without the line ends at its end.
  static func text(waits: Waiting) throws(SquintError) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      // Who has begun to write will come to an end.
      guard wait(bytes.isEmpty ? waits : .always) else { break }
      let count = read(STDIN_FILENO, &chunk, chunk.count)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else {
        throw SquintError(.noInput, "stdin cannot be read: \(systemMessage(errno))")
      }
      guard count > 0 else { break }
      bytes += chunk[..<count]
      guard bytes.count <= longestText else {
        throw SquintError(.usage, "the prompt on stdin is longer than \(grouped(longestText)) bytes; shorten it")
      }
    }
    while let last = bytes.last, last == UInt8(ascii: "\n") || last == UInt8(ascii: "\r") { bytes.removeLast() }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// How long something may take to come, in milliseconds. A program that starts this one has its text ready, or none; one before it
  /// in a pipeline may have to work for it. What takes longer than `silent` is spoken of.
  private static let patience = (caller: 150, silent: 1_000, pipeline: 10_000)

  /// Waits until stdin has something, or ends; false where a brief wait is over before.
  private static func wait(_ waiting: Waiting) -> Bool {
    if isReady(within: patience.caller) { return true }
    guard waiting == .always || isPipeline else { return false }
    if isReady(within: patience.silent - patience.caller) { return true }
    Terminal.report(
      "waiting for stdin\(waiting == .always ? "" : ", for \(patience.pipeline / 1000) seconds"); Ctrl-C ends")
    guard waiting == .briefly else {
      while !isReady(within: 3_600_000) {}
      return true
    }
    if isReady(within: patience.pipeline - patience.silent) { return true }
    Terminal.report(
      "note: nothing came on stdin; the question is asked without it (- as the question waits for it)")
    return false
  }

  private static func isReady(within milliseconds: Int) -> Bool {
    waitForInput(STDIN_FILENO, milliseconds: milliseconds)
  }

  /// Whether a program of the same job, but not the one that started this one, has stdin's pipe open: then it stands before this one
  /// in a pipeline.
  private static var isPipeline: Bool {
    var own = stat()
    guard fstat(STDIN_FILENO, &own) == 0, let processes = try? fileNames(inFolder: "/proc") else { return false }
    for process in processes.compactMap({ pid_t($0) })
    where process != getpid() && process != getppid() && getpgid(process) == getpgrp() {
      let folder = "/proc/\(process)/fd"
      for name in (try? fileNames(inFolder: folder)) ?? [] {
        var status = stat()
        if stat("\(folder)/\(name)", &status) == 0, status.st_dev == own.st_dev, status.st_ino == own.st_ino {
          return true
        }
      }
    }
    return false
  }

  /// Says so where text has come meanwhile, and was not waited for: through a pipe, since a file is read to its end.
  static func noteLateText() {
    var status = stat()
    guard fstat(STDIN_FILENO, &status) == 0, [S_IFIFO, S_IFSOCK].contains(status.st_mode & S_IFMT) else { return }
    var event = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
    if use() == .ours, poll(&event, 1, 0) > 0, event.revents & Int16(POLLIN) != 0 {
      Terminal.report("note: text came on stdin later than the question was asked; it was not read")
    }
  }
}
