import ArgumentParser
import CEdit
import Squint

struct Chat: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Holds a conversation.",
    discussion: Chat.help)

  static let help = """
    /image FILE   show a picture with the next question
    /reset        forget the conversation
    /save FILE    write the conversation to FILE
    /stats        what the last answer took
    /quit         end; so does Ctrl-D
    Ctrl-C ends an answer. The arrow keys edit the line and bring back earlier ones.
    """

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions

  @Option(help: .init("What the model is told before the conversation.", valueName: "text"))
  var system: String?

  @OptionGroup var generation: GenerationArguments
  @OptionGroup var machine: MachineOptions

  @Flag(help: "Print what each answer took to stderr.")
  var stats = false

  func run() throws {
    // `kill` ends a conversation at once.
    let cancellation = Interrupt.install([SIGINT])
    let model = try Model(model.open(memory: machine.compute.memory))
    let plan = try SessionPlan(
      model, machine.session(beams: generation.beams, vision: model.sees ? .always : .none))
    machine.report(plan)
    let tiles = plan.options.maximumTiles
    let pictures = try model.pictures(media.image, maximumTiles: tiles)
    let session = try Session(model, plan, cancellation: cancellation)
    session.showProgress()
    let options = generation.options(model.sampling)
    var conversation = Conversation(session: session, system: system, options: options)
    for picture in pictures { try conversation.show(picture) }
    if isatty(STDIN_FILENO) == 1 {
      setlocale(LC_ALL, "")  // so that the line editor knows characters from bytes
      Terminal.note("\(Terminal.printable(model.name)): /help for help, Ctrl-D to end")
    }
    var wasInterrupted = false
    while true {
      guard let line = readLine(from: "> ") else {
        guard cancellation.isCancelled else { return }
        // Ctrl-C at the prompt drops the line; a second one with nothing said between ends the conversation.
        if wasInterrupted { throw ExitCode(Interrupt.exitCode) }
        wasInterrupted = true
        cancellation.reset()
        Terminal.note("Ctrl-C again, or Ctrl-D, to end")
        continue
      }
      wasInterrupted = false
      let words = line.split(separator: " ", maxSplits: 1).map(String.init)
      switch words.first {
      case nil: continue
      case "/quit": return
      case "/help": Terminal.note(Chat.help)
      case "/reset": conversation.reset()
      case "/stats": Terminal.note(conversation.statistics?.line ?? "no answer yet")
      case "/image":
        guard words.count == 2 else {
          Terminal.report(SquintError(.usage, "/image needs the name of a file"))
          continue
        }
        report { () throws(SquintError) in try conversation.show(model.picture(words[1], maximumTiles: tiles)) }
      case "/save":
        guard words.count == 2 else {
          Terminal.report(SquintError(.usage, "/save needs the name of a file"))
          continue
        }
        report { () throws(SquintError) in try conversation.save(to: words[1]) }
      case let word? where word.hasPrefix("/"):
        Terminal.report(SquintError(.usage, "there is no \(word); /help lists what there is"))
      default:
        cancellation.reset()
        report { () throws(SquintError) in try conversation.ask(line) }
        if stats, let statistics = conversation.statistics { Terminal.note(statistics.line) }
      }
    }
  }

  /// In a conversation an error is told, and the conversation goes on.
  private func report(_ body: () throws(SquintError) -> Void) {
    do { try body() } catch { Terminal.report(error) }
  }

  /// A line from the terminal, edited and remembered, or from wherever stdin comes from; nil at its end.
  private func readLine(from prompt: String) -> String? {
    guard isatty(STDIN_FILENO) == 1 else { return Interrupt.waiting { Swift.readLine() } }
    guard let line = readline(prompt) else {
      Terminal.note("")
      return nil
    }
    defer { free(line) }
    if line.pointee != 0 { add_history(line) }
    return String(cString: line)
  }
}

/// What has been said.
private struct Conversation {
  let session: Session
  let system: String?
  let options: GenerationOptions
  private var messages: [ChatMessage] = []
  /// The pictures of the messages, in order.
  private var pictures: [Picture] = []
  /// Those that come with the next question.
  private var waiting: [Picture] = []
  private(set) var statistics: Statistics?

  init(session: Session, system: String?, options: GenerationOptions) {
    self.session = session
    self.system = system
    self.options = options
    reset()
  }

  mutating func reset() {
    messages = system.map { [ChatMessage(role: "system", $0)] } ?? []
    pictures = []
    waiting = []
    session.truncate(to: 0)
  }

  /// Shows `picture` with the next question.
  mutating func show(_ picture: Picture) throws(SquintError) {
    try session.check(picture)
    waiting.append(picture)
  }

  /// Streams the answer to `question`. A question that fails leaves no trace; its pictures wait for another one.
  mutating func ask(_ question: String) throws(SquintError) {
    let before = (messages, pictures)
    do {
      messages.append(try ChatMessage(role: "user", question, pictures: waiting.count))
      pictures += waiting
      // What the context holds already is not computed again.
      try session.replace(with: session.model.prompt(messages, pictures: pictures))
      var clock = StatisticsClock(session)
      var answer = Generator(session, options)
      var text = ""
      while let piece = try answer.next() {
        if clock.isFirst { Terminal.endProgress() }
        if piece.id != nil { clock.token() }
        text += piece.text
        Terminal.write(piece.text)
      }
      Terminal.endProgress()
      Terminal.write("\n")
      waiting = []
      statistics = clock.statistics(session)
      messages.append(ChatMessage(role: "assistant", text))
      if answer.finishReason == .length && options.maxTokens != answer.count {
        Terminal.note("squint: the context of \(session.context) tokens is full; /reset, or a larger --context")
      }
    } catch {
      Terminal.endProgress()
      (messages, pictures) = before
      throw error
    }
  }

  func save(to path: String) throws(SquintError) {
    var names = pictures.map(\.path)[...]
    let lines = messages.map { message in
      var text = ""
      if case .parts(let parts) = message.content {
        for part in parts where part == .image { text += "[picture \(names.popFirst() ?? "")] " }
      }
      return "\(message.role): \(text)\(message.text)\n"
    }
    try writeFile(path, lines.joined())
  }
}
