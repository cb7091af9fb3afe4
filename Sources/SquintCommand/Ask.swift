import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Ask: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Answers one question.",
    discussion: """
      squint ask --image photo.jpg
      squint ask --image photo.jpg "Is there a cat in this picture?"
      squint ask model.squint "What is the capital of France?"
      squint ask model.squint --image photo.jpg "What is in this picture?"
      squint ask model.squint --video clip.mp4 --max-frames 16 "What happens?"
      squint ask model.squint --image a.jpg --image b.jpg "Is <image> darker than <image>?"
      squint ask model.squint --system "Answer in French." < question.txt
      squint ask model.squint --raw "Once upon a time" --temperature 0.8 --seed 7

      One argument is the question, unless it names a file: it exists, starts with /, ./ or ../, or ends in .squint or \
      another name of a model or an image. Then it is the model.

      \(Question.help)
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions

  @Argument(
    help: """
      The question. Default: what stdin has; with an image, and nothing there, "\(MediaSyntax.of(.image).usualQuestion)"
      """)
  var prompt: String?

  @OptionGroup var prompting: PromptOptions

  @Flag(help: "Continue the prompt as it stands, without the chat template; control tokens in it are control tokens.")
  var raw = false

  @OptionGroup var generation: GenerationArguments
  @OptionGroup var machine: MachineOptions

  @Flag(help: "Print what the answer took to stderr.")
  var stats = false

  @Flag(
    help: """
      Print one JSON object with text, tokens, finish_reason, timings, memory and, where the model names places in an \
      image, regions: boxes and points in pixels of the first image.
      """)
  var json = false

  struct Output: Encodable {
    let text: String
    let tokens: [Int32]
    let finishReason: String
    let timings: Statistics.Timings
    let memory: Statistics.Memory
    let regions: [Region]?

    /// A box or a point, in pixels of the first image.
    struct Region: Encodable {
      let label: String?
      /// Left, top, right, bottom.
      var box: [Double]?
      /// From the left, from the top.
      var point: [Double]?

      init(_ region: ImageRegion) {
        label = region.label
        switch region.shape {
        case .box(let left, let top, let right, let bottom): box = [left, top, right, bottom]
        case .point(let x, let y): point = [x, y]
        }
      }
    }

    enum CodingKeys: String, CodingKey {
      case text, tokens, timings, memory, regions
      case finishReason = "finish_reason"
    }
  }

  func run() throws {
    let arguments = arguments
    let model = try Model(open(arguments.model, isAlone: arguments.question == nil))
    let asked = Question(
      argument: arguments.question,
      usual: raw
        ? nil
        : media.files.first.map { model.usualQuestion(about: $0.kind) ?? MediaSyntax.of($0.kind).usualQuestion },
      mediumOnStandardInput: media.onStandardInput)
    let question = try asked.text()
    let media = try machine.media(media, for: model)
    let prompt =
      raw
      ? try model.prompt(text: question, media: media)
      : try prompting.prompt(
        prompting.beginning + [ChatMessage(role: "user", question, media: media)], media, for: model)
    for note in prompt.notes { Terminal.report(note) }
    let plan = try SessionPlan(
      model,
      machine.session(
        beams: generation.beams, media: .init(media), prompt: prompt.count, answer: generation.maxTokens))
    machine.report(plan, for: model)
    let session = try Session(model, plan, cancellation: Interrupt.cancellation)
    try session.append(prompt)

    let progress = Progress()
    session.show(progress)
    var clock = StatisticsClock(session)
    var answer = Generator(session, generation.options(SamplingOptions()))
    var text = ""
    var tokens: [Int32] = []
    while let piece = try answer.next() {
      if let id = piece.id {
        // Now there is something that a signal must not take away.
        if clock.isFirst { Interrupt.ask() }
        clock.token()
        tokens.append(id)
      }
      if json {
        text += piece.text
        progress.show("answering: \(tokens.count) tokens")
      } else {
        Terminal.write(piece.text)
      }
    }
    let statistics = clock.statistics(session)
    if json {
      let image = media.first { $0.kind == .image }
      let regions = try image.flatMap { (image) throws(SquintError) in try model.regions(tokens, in: image) }
      try printJSON(
        Output(
          text: text, tokens: tokens, finishReason: (answer.finishReason ?? .stop).rawValue,
          timings: statistics.timings, memory: statistics.memory, regions: regions?.map(Output.Region.init)))
    } else {
      Terminal.write("\n")
    }
    if answer.finishReason == .length, generation.maxTokens != answer.count {
      Terminal.report("the context of \(grouped(session.context)) tokens is full; a larger --context takes more")
    }
    if stats { Terminal.note(statistics.line) }
    if self.media.onStandardInput == nil { StandardInput.noteLateText() }
    if answer.finishReason == .cancelled { throw ExitCode(Interrupt.exitCode) }
  }

  // MARK: The question

  /// One argument alone is the model where it is meant as a file, and else the question.
  private var arguments: (model: String?, question: String?) {
    guard let first = model.model, prompt == nil, !Self.isMeantAsFile(first) else { return (model.model, prompt) }
    return (nil, first)
  }

  /// Whether `argument` names a file, perhaps one that does not exist: a mistyped model must not become a question, and a
  /// medium is not one either.
  private static func isMeantAsFile(_ argument: String) -> Bool {
    let name = argument.lowercased()
    guard argument != "-" else { return false }
    return argument == BuiltInModel.name || access(argument, F_OK) == 0
      || ["/", "./", "../"].contains { name.hasPrefix($0) }
      || [".squint", ".squint.zst", ".gguf"].contains { name.hasSuffix($0) }
      || MediaSyntax.all.flatMap(\.extensions).contains { name.hasSuffix("." + $0) }
  }

  private func open(_ model: String?, isAlone: Bool) throws(SquintError) -> ModelFile {
    do {
      return try ModelFile.open(model, memory: machine.compute.memory)
    } catch {
      guard !isAlone, let model, !Self.isMeantAsFile(model) else { throw error }
      throw SquintError(
        error.kind, "\(error.commandLine); of two arguments the first is the model: put a question in quotes")
    }
  }
}
