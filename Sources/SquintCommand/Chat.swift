import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Chat: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Holds a conversation.",
    discussion: Chat.help)

  static let help = """
    \(MediaSyntax.all.map { "\($0.command) \($0.kind == .molecule ? "SMILES" : "FILE")".padded(to: 18) + $0.help + "\n" }.joined())\
    /reset            forget the conversation; so does /clear
    /save FILE        write the conversation to FILE
    /load FILE        go on with a conversation that was saved
    /stats            what the last answer took
    /quit             end; so does Ctrl-D
    \"""               begins and ends a question of several lines
    Ctrl-C ends an answer. The arrow keys edit the line and bring back earlier ones.
    """

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions

  @OptionGroup var prompting: PromptOptions
  @OptionGroup var generation: GenerationArguments
  @OptionGroup var machine: MachineOptions

  @Flag(help: "Print what each answer took to stderr.")
  var stats = false

  func run() throws {
    let cancellation = Interrupt.cancellation
    if let kind = media.onStandardInput { throw Self.notOnStandardInput(kind) }
    let model = try Model(model.open(memory: machine.compute.memory))
    // Of those whose length nothing bounds the first say how much memory there is.
    let first = try model.media(media.files.filter { $0.kind != .image }, media.limited(machine.limits))
    var planned = machine.session(beams: generation.beams, media: model.acceptsMedia ? .always : .none)
    planned.known = first.map(\.size)
    let plan = try SessionPlan(model, planned)
    machine.report(plan, for: model)
    let limits = media.limited(plan.options.limits)
    let media = try model.media(media.files.filter { $0.kind == .image }, limits) + first
    media.report()
    let session = try Session(model, plan, cancellation: cancellation)
    let options = generation.options(model.sampling)
    var conversation = Conversation(session: session, prompting: prompting, options: options)
    for medium in media { try conversation.show(medium) }
    let isTalking = isatty(STDIN_FILENO) == 1
    if isTalking { Terminal.note("\(printable(model.name)): /help for help, Ctrl-D to end") }
    var wasInterrupted = false
    while true {
      cancellation.reset()
      // `kill` ends a conversation at once, and so does Ctrl-C where nobody can say another line.
      Interrupt.ask(isTalking ? [SIGINT] : [])
      let said: (text: String, isCommand: Bool)
      switch Self.question() {
      case .said(let text, let isCommand): said = (text, isCommand)
      case .end:
        Terminal.endTypedLine()
        return
      case .interrupted:
        // Ctrl-C at the prompt drops the line; a second one with nothing said between ends the conversation.
        Terminal.endTypedLine()
        if wasInterrupted { throw ExitCode(Interrupt.exitCode) }
        wasInterrupted = true
        Terminal.note("Ctrl-C again, or Ctrl-D, to end")
        continue
      }
      wasInterrupted = false
      let words = said.text.split(separator: " ", maxSplits: 1).map(\.trimmed).filter { !$0.isEmpty }
      guard said.isCommand, let word = words.first, word.hasPrefix("/") else {
        guard !words.isEmpty else { continue }
        Interrupt.ask([SIGINT])
        let isAnswered = report { () throws(SquintError) in try conversation.ask(said.text.repaired) }
        if stats, isAnswered, let statistics = conversation.statistics { Terminal.note(statistics.line) }
        continue
      }
      switch word {
      case "/quit": return
      case "/help": Terminal.note(Chat.help)
      case "/reset", "/clear": conversation.reset()
      case "/stats": Terminal.note(conversation.statistics?.line ?? "no answer yet")
      case "/save" where words.count == 2:
        report { () throws(SquintError) in try conversation.save(to: Self.file(words[1])) }
      case "/load" where words.count == 2:
        report { () throws(SquintError) in
          try conversation.load(from: Self.file(words[1])) { (kind, path) throws(SquintError) in
            try model.medium(kind, path, limits)
          }
        }
      case "/save", "/load": Terminal.report(Self.needsFile(word))
      default:
        guard let syntax = MediaSyntax.all.first(where: { $0.command == word }) else {
          Terminal.report(SquintError(.usage, "there is no \(word); /help lists what there is"))
          continue
        }
        report { () throws(SquintError) in
          guard words.count == 2 else { throw Self.needsFile(word) }
          guard words[1] != "-" else { throw Self.notOnStandardInput(syntax.kind) }
          guard syntax.kind != .video || first.contains(where: { $0.kind == .video }) || !model.accepts(.video) else {
            throw SquintError(
              .usage,
              "this conversation has no memory for videos; begin it with --video FILE, and later ones may be as long")
          }
          let medium = try model.medium(syntax.kind, Self.file(words[1]), limits)
          [medium].report()
          try conversation.show(medium)
        }
      }
    }
  }

  private static func notOnStandardInput(_ kind: MediaKind) -> SquintError {
    SquintError(.usage, "stdin is the conversation, and cannot be \(kind.withArticle); give the file of one")
  }

  private static func needsFile(_ command: String) -> SquintError {
    let isMolecule = command == MediaSyntax.of(.molecule).command
    return SquintError(.usage, "\(command) needs \(isMolecule ? "SMILES, or " : "")the name of a file")
  }

  /// In a conversation an error is told, and the conversation goes on.
  ///
  /// - Returns: whether there was none.
  @discardableResult
  private func report(_ body: () throws(SquintError) -> Void) -> Bool {
    do {
      try body()
      return true
    } catch {
      Terminal.report(error)
      return false
    }
  }

  private enum Question {
    /// A line, which may be a command, or several, which are none.
    case said(String, isCommand: Bool)
    case interrupted
    case end
  }

  /// The next line or, between two `"""`, several.
  private static func question() -> Question {
    let mark = "\"\"\""
    var text: String
    switch LineEditor.next("> ") {
    case .text(let line) where line.hasPrefix(mark): text = String(line.dropFirst(mark.count))
    case .text(let line): return .said(line, isCommand: !line.contains("\n"))
    case .interrupted: return .interrupted
    case .end: return .end
    }
    while !text.trimmed.hasSuffix(mark) {
      switch LineEditor.next(". ") {
      case .text(let line): text += "\n" + line
      case .interrupted: return .interrupted
      case .end:
        Terminal.endTypedLine()
        return .said(text.trimmed, isCommand: false)
      }
    }
    return .said(String(text.trimmed.dropLast(mark.count)).trimmed, isCommand: false)
  }

  /// The file that `name` means: as shells take it, where there is none of just that name.
  private static func file(_ name: String) -> String {
    guard access(name, F_OK) != 0 else { return name }
    // What terminals write when a file is dropped on them: in quotes, or with backslashes.
    for quote in ["'", "\""] where name.count > 1 && name.hasPrefix(quote) && name.hasSuffix(quote) {
      return String(name.dropFirst().dropLast())
    }
    var path = ""
    var isEscaped = false
    for character in name {
      isEscaped = character == "\\" && !isEscaped
      if !isEscaped { path.append(character) }
    }
    if path.hasPrefix("~/"), let home = getenv("HOME") { path = String(fileName: home) + path.dropFirst() }
    return path
  }
}

extension String {
  /// With spaces behind it, `width` characters wide.
  fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(width - count, 0)) }
}

extension StringProtocol {
  /// Without the white space around it.
  fileprivate var trimmed: String {
    String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
  }
}

/// What has been said.
private struct Conversation {
  let session: Session
  let prompting: PromptOptions
  let options: GenerationOptions
  private var messages: [ChatMessage] = []
  /// The media of the messages, in order.
  private var media: [Medium] = []
  /// Those that come with the next question.
  private var waiting: [Medium] = []
  private(set) var statistics: Statistics?
  /// What has been said about prompts and answers.
  private var notes: Set<String> = []

  init(session: Session, prompting: PromptOptions, options: GenerationOptions) {
    self.session = session
    self.prompting = prompting
    self.options = options
    reset()
  }

  mutating func reset() {
    messages = prompting.beginning
    media = []
    waiting = []
    notes = []
    session.truncate(to: 0)
  }

  /// Shows `medium` with the next question.
  mutating func show(_ medium: Medium) throws(SquintError) {
    try session.check(medium)
    waiting.append(medium)
  }

  /// Streams the answer to `question`. A question that fails leaves no trace, and takes its media with it.
  mutating func ask(_ question: String) throws(SquintError) {
    let before = (messages, media)
    let shown = waiting
    waiting = []
    do throws(SquintError) {
      messages.append(try ChatMessage(role: "user", question, media: shown))
      media += shown
      let prompt = try prompting.prompt(messages, media, for: session.model)
      for note in prompt.notes { noteOnce(note) }
      guard prompt.count < session.context else {
        throw SquintError(
          .usage,
          "the prompt has \(grouped(prompt.count)) tokens with all that was said, and the context holds "
            + "\(grouped(session.context)); /reset forgets the conversation, a larger --context holds more")
      }
      // What the context holds already is not computed again.
      try session.replace(with: prompt)
      session.show(Progress())
      var clock = StatisticsClock(session)
      var answer = Generator(session, options)
      var text = ""
      while let piece = try answer.next() {
        if piece.id != nil { clock.token() }
        text += piece.text
        Terminal.write(piece.text)
      }
      Terminal.write("\n")
      statistics = clock.statistics(session)
      messages.append(ChatMessage(role: "assistant", text))
      if answer.finishReason == .length, options.maxTokens != answer.count {
        noteOnce(
          "the context of \(grouped(session.context)) tokens is full; /reset forgets the conversation, a larger --context "
            + "holds more")
      }
    } catch {
      (messages, media) = before
      guard !shown.isEmpty else { throw error }
      let names = shown.map(\.path).joined(separator: ", ")
      throw SquintError(error.kind, "\(error.commandLine); not shown any more: \(names)")
    }
  }

  private mutating func noteOnce(_ note: String) {
    if notes.insert(note).inserted { Terminal.report(note) }
  }

  func save(to path: String) throws(SquintError) {
    try writeFile(path, SavedConversation(messages, media: media.map { ($0.kind, $0.path) }).text)
  }

  /// Goes on with the conversation in the file `path`, whose media `open` opens. Where that fails, this one stays.
  mutating func load(
    from path: String, open: (MediaKind, String) throws(SquintError) -> Medium
  ) throws(SquintError) {
    let saved = try SavedConversation(readFile(path), path: path)
    var media: [Medium] = []
    for file in saved.media {
      let medium = try open(file.kind, file.path)
      try session.check(medium)
      media.append(medium)
    }
    reset()
    (messages, self.media) = (saved.messages, media)
  }
}
