import CSystem
import SquintFile

/// A program that was started to read what it writes; it ends, at the latest, with this object.
final class ChildProcess {
  private let process: pid_t
  private let output: Int32
  private let errors: Int32
  /// The last of what it wrote to stderr.
  private var complaint: [UInt8] = []
  private var isErrorsOpen = true
  /// How it ended, once it has.
  private var status: Int32?

  private static let longestComplaint = 4096
  /// How often whoever waits is asked, in milliseconds.
  private static let pace: Int32 = 50

  /// Starts the program at `path`.
  ///
  /// - Parameters:
  ///   - arguments: without its name.
  ///   - input: its stdin; nil: nothing.
  init(_ path: String, _ arguments: [String], input: Int32?) throws(SquintError) {
    var (out, err): ((Int32, Int32), (Int32, Int32)) = ((-1, -1), (-1, -1))
    func close(_ ends: (Int32, Int32)) {
      for end in [ends.0, ends.1] where end >= 0 { _ = SquintMedia.closeDescriptor(end) }
    }
    func failure(_ code: Int32) -> SquintError {
      SquintError(.inputOutput, "\(path) cannot be started: \(systemMessage(code))")
    }
    func pipe(_ ends: inout (Int32, Int32)) -> Bool {
      withUnsafeMutableBytes(of: &ends) { squint_pipe($0.bindMemory(to: Int32.self).baseAddress!) == 0 }
    }
    guard pipe(&out), pipe(&err) else {
      let code = errno
      close(out)
      throw failure(code)
    }
    let source = input.map { fcntl($0, F_DUPFD_CLOEXEC, 3) } ?? open("/dev/null", O_RDONLY | O_CLOEXEC)
    defer { if source >= 0 { _ = SquintMedia.closeDescriptor(source) } }
    var words = ([path] + arguments).map { word in
      (word.fileNameBytes + [0]).withUnsafeBytes { bytes in strdup(bytes.bindMemory(to: CChar.self).baseAddress!) }
    }
    defer { for word in words { free(word) } }
    words.append(nil)
    var process: pid_t = 0
    let code = source < 0 ? errno : squint_spawn(path, words, source, out.1, err.1, &process)
    guard code == 0 else {
      close(out)
      close(err)
      throw failure(code)
    }
    // What it alone writes to must end when it does.
    close((out.1, err.1))
    self.process = process
    (output, errors) = (out.0, err.0)
    for descriptor in [output, errors] { _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) }
  }

  deinit {
    if status == nil {
      kill(process, SIGKILL)
      _ = wait()
    }
    closeDescriptor(output)
    closeDescriptor(errors)
  }

  /// Fills `buffer` with what comes next.
  ///
  /// - Returns: how many bytes there were until it closed its output; nil where `shouldContinue` said no.
  func read(into buffer: UnsafeMutableRawBufferPointer, while shouldContinue: () -> Bool) -> Int? {
    var done = 0
    while done < buffer.count {
      let count = SquintMedia.readDescriptor(output, buffer.baseAddress! + done, buffer.count - done)
      if count > 0 {
        done += count
        continue
      }
      if count < 0, errno == EAGAIN || errno == EINTR {
        guard shouldContinue() else { return nil }
        // Both: a program that nobody listens to stops.
        var events = [
          pollfd(fd: output, events: Int16(POLLIN), revents: 0),
          pollfd(fd: isErrorsOpen ? errors : -1, events: Int16(POLLIN), revents: 0),
        ]
        _ = poll(&events, 2, Self.pace)
        listen()
        continue
      }
      break
    }
    return done
  }

  /// Reads what has come through stderr.
  private func listen() {
    var bytes = [UInt8](repeating: 0, count: 1024)
    while isErrorsOpen {
      let count = bytes.withUnsafeMutableBytes { SquintMedia.readDescriptor(errors, $0.baseAddress!, $0.count) }
      guard count > 0 else {
        if count == 0 { isErrorsOpen = false }
        return
      }
      complaint += bytes[..<count]
      complaint.removeFirst(max(complaint.count - Self.longestComplaint, 0))
    }
  }

  /// Waits for its end.
  ///
  /// - Returns: whether all went well.
  func wait() -> Bool {
    while status == nil {
      listen()
      var found: Int32 = 0
      let ended = waitpid(process, &found, isErrorsOpen ? WNOHANG : 0)
      if ended == process || ended < 0 && errno != EINTR { status = ended == process ? found : -1 }
      guard status == nil, isErrorsOpen else { continue }
      _ = waitForInput(errors, milliseconds: Int(Self.pace))
    }
    listen()
    return status == 0
  }

  /// What it complained of, on one line; nil where it did not.
  var message: String? {
    let lines = String(decoding: complaint, as: UTF8.self).split(whereSeparator: \.isNewline)
      .map(String.init)
    return lines.last
  }

  /// Whether it complained in these words.
  func hasSaid(_ words: String) -> Bool { String(decoding: complaint, as: UTF8.self).contains(words) }

  /// The program `name` in the folders of PATH; nil where there is none.
  static func find(_ name: String) -> String? {
    guard let folders = getenv("PATH").map({ String(fileName: UnsafePointer($0)) }) else { return nil }
    for folder in folders.split(separator: ":", omittingEmptySubsequences: true) {
      let path = "\(folder)/\(name)"
      var status = stat()
      if access(path, X_OK) == 0, stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG { return path }
    }
    return nil
  }
}

// The C library's functions, where a method is of the same name.

@discardableResult
private func closeDescriptor(_ descriptor: Int32) -> Int32 { close(descriptor) }

private func readDescriptor(_ descriptor: Int32, _ buffer: UnsafeMutableRawPointer, _ count: Int) -> Int {
  read(descriptor, buffer, count)
}
