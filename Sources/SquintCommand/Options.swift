import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

/// A number of bytes, written `256M`, `1.5G` or `268435456`.
struct ByteSize: ExpressibleByArgument, Sendable {
  let bytes: Int

  init?(argument: String) {
    let units: [Character: Double] = [
      "K": 0x1p10, "k": 0x1p10, "M": 0x1p20, "m": 0x1p20, "G": 0x1p30, "g": 0x1p30,
    ]
    var digits = argument[...]
    var factor = 1.0
    if let unit = digits.last.flatMap({ units[$0] }) {
      factor = unit
      digits = digits.dropLast()
    }
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == ".") }), let value = Double(digits),
      value * factor < 1e18
    else { return nil }
    bytes = Int(value * factor)
  }
}

extension KVType: ExpressibleByArgument {}

/// What every computation may take.
struct ComputeOptions: ParsableArguments {
  @Option(
    help: .init("The memory that the whole process may take, such as 256M. Default: what is free.", valueName: "size"))
  var memory: ByteSize?

  @Option(help: .init("The threads to compute on. Default: one for each processor.", valueName: "n"))
  var threads: Int?
}

/// The options that decide a session's memory and speed.
struct MachineOptions: ParsableArguments {
  @OptionGroup var compute: ComputeOptions

  @Option(
    help: .init(
      "The positions that prompt and answer may take together. Default: at most 4096, and what fits.", valueName: "n"))
  var context: Int?

  @Option(help: "How keys and values are kept.")
  var kv = KVType.int8

  @Option(
    help: .init(
      "Cut an image into this many tiles at most. Default: as the model was trained.", valueName: "n"))
  var maxTiles: Int?

  @Option(
    help: .init(
      "Make this many tokens of an image at most: a lower resolution, or fewer tiles. Default: as the model was trained.",
      valueName: "n"))
  var imageTokens: Int?

  @Flag(help: "Take what fits the memory: a shorter context, a smaller cache, fewer tiles. Says what it chose.")
  var fit = false

  func session(
    beams: Int = 1, media: SessionOptions.MediaUse = .none, prompt: Int? = nil, answer: Int? = nil
  ) -> SessionOptions {
    SessionOptions(
      context: context, kvType: kv, threads: compute.threads, beams: beams, memory: compute.memory?.bytes,
      media: media, maximumTiles: maxTiles, maximumMediumRows: imageTokens, prompt: prompt, answer: answer, fits: fit)
  }

  /// Of each medium.
  var limits: MediaLimits { MediaLimits(units: maxTiles, rows: imageTokens) }

  /// The media that `options` name.
  func media(_ options: MediaOptions, for model: Model) throws(SquintError) -> [Medium] {
    try options.checkUse()
    let files = options.files
    if !files.isEmpty, !files.contains(where: { $0.kind == .image }),
      let option = maxTiles != nil ? "--max-tiles" : imageTokens != nil ? "--image-tokens" : nil
    {
      throw SquintError(.usage, "\(option) is about images, and there is none; give --image, or leave it out")
    }
    let media =
      fit && !files.isEmpty
      ? try model.media(files, fitting: session(), options.limited(limits))
      : try model.media(files, options.limited(limits))
    media.report()
    return media
  }

  /// Says what `--fit` chose.
  func report(_ plan: SessionPlan) {
    guard fit else { return }
    Terminal.note("fit: \(plan.summary)\(plan.streaming.map { "; \($0)" } ?? "")")
  }

  /// Says what `--fit` chose, and that a conversation may grow longer than what `model` knows.
  func report(_ plan: SessionPlan, for model: Model) {
    report(plan)
    guard plan.context > model.trainedContext else { return }
    Terminal.report(
      "the model was trained for \(grouped(model.trainedContext)) tokens, and the context has "
        + "\(grouped(plan.context)): what comes later may be poor; --context \(model.trainedContext) keeps to them")
  }
}

/// How what people say becomes a prompt.
struct PromptOptions: ParsableArguments {
  @Option(help: .init("What the model is told before everything else.", valueName: "text"), transform: \.repaired)
  var system: String?

  @Flag(
    help: """
      Let control tokens that are spelled in a question, in --system or in an answer be control tokens. Otherwise they are text.
      """)
  var allowControlTokens = false

  /// A conversation that has only begun.
  var beginning: [ChatMessage] { system.map { [ChatMessage(role: "system", $0)] } ?? [] }

  func prompt(_ messages: [ChatMessage], _ media: [Medium], for model: Model) throws(SquintError) -> Prompt {
    try model.prompt(messages, media: media, allowsControlTokens: allowControlTokens)
  }
}

/// The options that decide an answer.
struct GenerationArguments: ParsableArguments {
  @Option(
    help: .init("The tokens that the answer may have at most. Default: until the context is full.", valueName: "n"))
  var maxTokens: Int?

  @Option(help: .init("How freely to choose; 0: always the most probable token.", valueName: "t"))
  var temperature: Float?

  @Option(help: .init("Choose from the k most probable tokens only; 0: from all.", valueName: "k"))
  var topK: Int?

  @Option(help: .init("Choose from the most probable tokens that make up this probability only.", valueName: "p"))
  var topP: Float?

  @Option(
    help: .init(
      "Choose from tokens at least this many times as probable as the most probable one only.", valueName: "p"))
  var minP: Float?

  @Option(help: .init("Make tokens that were there already less probable; 1: do not.", valueName: "r"))
  var repeatPenalty: Float?

  @Option(help: .init("Follow this many sequences and answer with the best (greedy only).", valueName: "n"))
  var beams = 1

  @Option(
    help: .init(
      "The seed of the random numbers: the same seed gives the same answer. Default: another one each time.",
      valueName: "n"))
  var seed: UInt64?

  @Option(help: .init("End the answer before this text. Repeatable.", valueName: "text"), transform: \.repaired)
  var stop: [String] = []

  /// The options over `defaults`.
  func options(_ defaults: SamplingOptions) -> GenerationOptions {
    GenerationOptions(
      sampling: SamplingOptions(
        temperature: temperature ?? defaults.temperature, topK: topK ?? defaults.topK,
        topP: topP ?? defaults.topP, minP: minP ?? defaults.minP,
        repetitionPenalty: repeatPenalty ?? defaults.repetitionPenalty,
        seed: seed ?? UInt64.random(in: 0...UInt64.max)),
      maxTokens: maxTokens, stop: stop)
  }
}

struct ModelArgument: ParsableArguments {
  @Argument(
    help: "The model: a .squint file. Default: squint-nano, which is in this program.",
    completion: .file(extensions: ["squint"]))
  var model: String?

  /// - Parameter memory: the option `--memory`, where the command has it.
  func open(memory: ByteSize? = nil) throws(SquintError) -> ModelFile { try ModelFile.open(model, memory: memory) }
}

/// The model where other arguments follow it, so that it cannot be left out.
struct RequiredModelArgument: ParsableArguments {
  @Argument(
    help: "The model: a .squint file, or squint-nano, which is in this program.",
    completion: .file(extensions: ["squint"]))
  var model: String

  func open() throws(SquintError) -> ModelFile { try ModelFile.open(model) }
}
