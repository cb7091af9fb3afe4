import CEdit
import Squint
import SquintFile
import SquintTerminal
import Synchronization

/// Where a conversation's lines come from: a person at a terminal, who edits them and brings back earlier ones, or a pipe.
///
/// The editor is libedit, which draws on the screen of stderr: stdout is for answers. Where lines cannot be rewritten there,
/// the terminal's own editing has to do.
enum LineEditor {
  enum Line: Equatable {
    case text(String)
    /// Ctrl-C dropped it.
    case interrupted
    case end
  }

  /// The next line, without its line end.
  static func next(_ prompt: String) -> Line {
    guard isatty(STDIN_FILENO) == 1 else { return plainLine() }
    guard Terminal.canEdit, let editor else { return Terminal.asking(prompt) { plainLine() } }
    return Terminal.asking {
      Terminal.emit(Terminal.beginPasteMarks)
      defer { Terminal.emit(Terminal.endPasteMarks) }
      return edited(editor, prompt)
    }
  }

  // MARK: Bytes

  private nonisolated(unsafe) static var bytes: ArraySlice<UInt8> = []
  private nonisolated(unsafe) static var prompt = UnsafeMutablePointer<CChar>(mutating: strdup(""))

  /// The next byte of stdin; nil at its end, or where Ctrl-C came.
  private static func byte() -> UInt8? {
    while bytes.isEmpty {
      if Interrupt.cancellation.isCancelled { return nil }
      // Not read: that would go on after a signal. Now and then without one, since one may come just before.
      var waiting = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
      let count = poll(&waiting, 1, 1000)
      attend()
      guard count > 0 else { continue }
      var chunk = [UInt8](repeating: 0, count: 4096)
      let read = read(STDIN_FILENO, &chunk, chunk.count)
      if read < 0, errno == EINTR || errno == EAGAIN { continue }
      guard read > 0 else { return nil }
      bytes = chunk[..<read]
    }
    return bytes.removeFirst()
  }

  private static func plainLine() -> Line {
    var line: [UInt8] = []
    var isWhole = false
    while let byte = byte() {
      isWhole = byte == UInt8(ascii: "\n")
      if isWhole { break }
      line.append(byte)
      guard line.count <= longestText else {
        Terminal.fail(SquintError(.usage, "stdin: a line is longer than \(grouped(longestText)) bytes; break it up"))
      }
    }
    guard isWhole || !line.isEmpty else { return Interrupt.cancellation.isCancelled ? .interrupted : .end }
    if line.last == UInt8(ascii: "\r") { line.removeLast() }
    return .text(String(fileName: line))  // it may hold a name
  }

  // MARK: Editing

  private nonisolated(unsafe) static let editor: OpaquePointer? = {
    // libedit knows characters from bytes by the locale; our text is UTF-8, whatever that says.
    setlocale(LC_CTYPE, "")
    if String(cString: nl_langinfo(Int32(CODESET))) != "UTF-8" { setlocale(LC_CTYPE, "C.UTF-8") }
    guard let input = fdopen(STDIN_FILENO, "r"), let screen = fdopen(STDERR_FILENO, "w"),
      let editor = el_init("squint", input, screen, screen)
    else { return nil }
    _ = edit_set_prompt(editor) { _ in LineEditor.prompt }
    _ = edit_set_input(editor, readCharacter)
    _ = edit_set_editor(editor, "emacs")
    past = edit_remember(editor, 1000)
    _ = edit_add(editor, "squint-paste", paste)
    _ = edit_add(editor, "squint-complete") { editor, key in _el_fn_complete(editor, key) }
    for (keys, function) in [
      ("\\e[200~", "squint-paste"), ("^I", "squint-complete"), ("^R", "em-inc-search-prev"),
      ("\\e[1~", "ed-move-to-beg"), ("\\e[7~", "ed-move-to-beg"), ("\\e[H", "ed-move-to-beg"),
      ("\\e[4~", "ed-move-to-end"), ("\\e[8~", "ed-move-to-end"), ("\\e[F", "ed-move-to-end"),
      ("\\e[3~", "ed-delete-next-char"), ("\\e[1;5C", "em-next-word"), ("\\e[1;5D", "ed-prev-word"),
    ] {
      _ = edit_bind(editor, keys, function)
    }
    el_source(editor, nil)  // the person's own keys, ~/.editrc
    return editor
  }()

  private nonisolated(unsafe) static var past: OpaquePointer?

  private static func edited(_ editor: OpaquePointer, _ text: String) -> Line {
    free(prompt)
    prompt = strdup(text)
    _ = (isResized.load(ordering: .relaxed), isToStop.load(ordering: .relaxed), isBack.load(ordering: .relaxed))
    let before = signals.map { number in
      signal(number) { number in
        switch number {
        case SIGWINCH: LineEditor.isResized.store(true, ordering: .relaxed)
        case SIGTSTP: LineEditor.isToStop.store(true, ordering: .relaxed)
        default: LineEditor.isBack.store(true, ordering: .relaxed)
        }
      }
    }
    defer { for (number, handler) in zip(signals, before) { signal(number, handler) } }
    // Before the prompt is shown: libedit does it behind it, and what is typed between would be echoed twice.
    _ = edit_set_raw(editor, 1)
    var count: Int32 = 0
    guard let read = el_gets(editor, &count), count > 0 else {
      return Interrupt.cancellation.isCancelled ? .interrupted : .end
    }
    var line = String(fileName: read)
    if line.last == "\n" { line.removeLast() }
    if !line.isEmpty { edit_enter(past, line) }
    return .text(line)
  }

  /// What libedit calls for each character.
  private static let readCharacter: @convention(c) (OpaquePointer?, UnsafeMutablePointer<wchar_t>?) -> Int32 = {
    guard let scalar = LineEditor.scalar() else { return Interrupt.cancellation.isCancelled ? -1 : 0 }
    $1?.pointee = wchar_t(scalar.value)
    return 1
  }

  /// The next character; U+FFFD for bytes that are none.
  private static func scalar() -> Unicode.Scalar? {
    guard let first = byte() else { return nil }
    var sequence = [first]
    let length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
    while sequence.count < length {
      guard let next = byte() else { return nil }
      guard next & 0xC0 == 0x80 else {
        bytes = [next] + bytes
        break
      }
      sequence.append(next)
    }
    return String(decoding: sequence, as: UTF8.self).unicodeScalars.first
  }

  /// Takes what is pasted as it is: its line ends are part of the text, and do not send it.
  private static let paste: @convention(c) (OpaquePointer?, Int32) -> UInt8 = { editor, _ in
    var text: [UInt8] = []
    let end = Array("\u{1B}[201~".utf8)
    while !text.suffix(end.count).elementsEqual(end) {
      guard let byte = LineEditor.byte() else { return UInt8(CC_EOF) }
      // What is too much is read, and left out.
      if text.count == longestText { text.remove(at: longestText - end.count) }
      text.append(byte)
    }
    text.removeLast(end.count)
    // In the editor's modes the terminal swaps \r and \n, and a line end may be one of them or both.
    var lines: [UInt8] = []
    var last: UInt8 = 0
    for byte in text where byte != 0 {
      let isSecond = byte == UInt8(ascii: "\r") && last == UInt8(ascii: "\n")
      last = isSecond ? 0 : byte
      if !isSecond { lines.append(byte == UInt8(ascii: "\r") ? UInt8(ascii: "\n") : byte) }
    }
    while lines.last == UInt8(ascii: "\n") { lines.removeLast() }
    let pasted = String(decoding: lines, as: UTF8.self)
    return UInt8(el_insertstr(editor, pasted) == 0 ? CC_REFRESH : CC_ERROR)
  }

  // MARK: Signals

  private static let signals = [SIGWINCH, SIGTSTP, SIGCONT]
  private static let isResized = Atomic<Bool>(false)
  private static let isToStop = Atomic<Bool>(false)
  private static let isBack = Atomic<Bool>(false)

  /// Does what signals asked for while a line is edited.
  private static func attend() {
    guard Terminal.canEdit, let editor else { return }
    if isToStop.exchange(false, ordering: .relaxed) {
      // The shell gets its terminal as it was.
      _ = edit_set_raw(editor, 0)
      Terminal.emit(Terminal.endPasteMarks)
      let handler = signal(SIGTSTP, SIG_DFL)
      raise(SIGTSTP)
      signal(SIGTSTP, handler)
      isBack.store(true, ordering: .relaxed)
    }
    let isBack = isBack.exchange(false, ordering: .relaxed)
    if isBack {
      _ = edit_set_raw(editor, 1)
      Terminal.emit(Terminal.beginPasteMarks)
    }
    let isResized = isResized.exchange(false, ordering: .relaxed)
    if isResized { el_resize(editor) }
    if isBack || isResized {
      // libedit draws where the cursor is.
      Terminal.emit("\r\u{1B}[J")
      _ = edit_refresh(editor)
    }
  }
}
