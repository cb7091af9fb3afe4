import ArgumentParser
import Squint

struct Ask: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Answers one question.")

  @OptionGroup var model: ModelArgument

  @Argument(help: "The question. Default: what stdin holds.")
  var prompt: String?

  @Option(help: "What the model is told before the question.")
  var system: String?

  @Flag(help: "Continue the prompt as it stands, without the chat template.")
  var raw = false

  @OptionGroup var generation: GenerationArguments
  @OptionGroup var machine: MachineOptions

  @Flag(help: "Print what the answer took to stderr.")
  var stats = false

  @Flag(help: "Print one JSON object with text, tokens, finish_reason, timings and memory.")
  var json = false

  struct Output: Encodable {
    let text: String
    let tokens: [Int32]
    let finishReason: String
    let timings: Statistics.Timings
    let memory: Statistics.Memory

    enum CodingKeys: String, CodingKey {
      case text, tokens, timings, memory
      case finishReason = "finish_reason"
    }
  }

  func run() throws {
    let cancellation = Interrupt.install()
    let model = try Model(path: model.model)
    let question = try prompt ?? standardInput()
    guard !question.isEmpty else { throw SquintError(.usage, "the prompt is empty; say something") }
    let session = try Session(model, machine.session(beams: generation.beams), cancellation: cancellation)
    if raw {
      try session.append(question)
    } else {
      var messages = [ChatMessage(role: "user", question)]
      if let system { messages.insert(ChatMessage(role: "system", system), at: 0) }
      try session.append(model.prompt(messages))
    }

    var clock = StatisticsClock(promptTokens: session.tokens.count)
    var answer = Generator(session, generation.options(SamplingOptions()))
    var text = ""
    var tokens: [Int32] = []
    while let piece = try answer.next() {
      if let id = piece.id {
        clock.token()
        tokens.append(id)
      }
      if json { text += piece.text } else { Terminal.write(piece.text) }
    }
    let statistics = clock.statistics(session.plan)
    if json {
      try printJSON(
        Output(
          text: text, tokens: tokens, finishReason: (answer.finishReason ?? .stop).rawValue,
          timings: statistics.timings, memory: statistics.memory))
    } else {
      Terminal.write("\n")
    }
    if stats { Terminal.note(statistics.line) }
    if answer.finishReason == .cancelled { throw ExitCode(Interrupt.exitCode) }
  }

  private func standardInput() throws(SquintError) -> String {
    guard isatty(STDIN_FILENO) == 0 else {
      throw SquintError(.usage, "no prompt: give one behind the model, or on stdin")
    }
    var lines: [String] = []
    while let line = readLine(strippingNewline: false) { lines.append(line) }
    var text = lines.joined()
    while text.last?.isNewline == true { text.removeLast() }
    return text
  }
}
