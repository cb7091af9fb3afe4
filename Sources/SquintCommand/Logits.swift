import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Logits: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes the logits of every position of a prompt as f32 [positions, vocabulary].",
    discussion: "No chat template; special tokens as the checkpoint's tokenizer adds them by default.")

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions

  @Option(help: .init("The prompt, or - for what stdin has.", valueName: "text"), transform: \.repaired)
  var prompt: String?

  @Option(
    parsing: .upToNextOption,
    help: .init(
      "The prompt as tokens, the token of a kind of media as often as a medium takes places.", valueName: "id"))
  var ids: [Int32] = []

  @Option(
    name: .shortAndLong, help: .init("The NumPy file to write.", valueName: "file"),
    completion: .file(extensions: ["npy"]))
  var output: String

  @OptionGroup var machine: MachineOptions

  func run() throws {
    guard (prompt == nil) != ids.isEmpty else {
      throw SquintError(.usage, "give the prompt either as --prompt TEXT or as --ids ID…")
    }
    let model = try Model(model.open(memory: machine.compute.memory))
    let media = try machine.media(media, for: model)
    let prompt =
      try prompt.map { (text) throws(SquintError) in
        try model.prompt(text: StandardInput.text(or: text), media: media)
      }
      ?? model.prompt(tokens: ids, media: media)
    guard prompt.count > 0 else { throw SquintError(.usage, "the prompt is empty; say something") }
    var options = machine.session(media: .init(media))
    (options.prompt, options.answer) = (prompt.count, 0)
    let session = try Session(model, options)
    let progress = Progress()
    session.show(progress)
    try session.append(prompt)
    let file = try OutputFile(path: output)
    try file.write(numpyHeader([prompt.count, model.vocabularySize]))
    try session.forEachLogits { (_, logits) throws(SquintError) in try file.write(UnsafeRawBufferPointer(logits)) }
    try file.finish()
  }
}
