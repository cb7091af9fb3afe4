import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct TraceSteps: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Writes what each step of each layer gives, an array each.",
    discussion: """
      squint trace model.squint --prompt "Hello" -o steps

      The folder gets decoder.0.attention.norm.npy, decoder.0.attention.npy and so on, f32 [positions, width], and ids.json \
      with the tokens. tools/oracle/trace.py says at which of them the model first leaves transformers.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions

  @Option(help: .init("The prompt, or - for what stdin has.", valueName: "text"), transform: \.repaired)
  var prompt: String?

  @Option(
    parsing: .upToNextOption,
    help: .init("The prompt as tokens, the image token as often as an image takes places.", valueName: "id"))
  var ids: [Int32] = []

  @Option(
    name: .shortAndLong, help: .init("The folder to write to; it is made.", valueName: "folder"), completion: .directory
  )
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
    guard mkdir(output, 0o777) == 0 || errno == EEXIST && isFolder(output) else {
      let reason = errno == EEXIST ? "there is a file of this name" : systemMessage(errno)
      throw SquintError(.cannotCreate, "\(output): \(reason); name a folder that is there or can be made")
    }
    // One for each step of each layer is open at a time.
    allowMoreOpenFiles()
    var steps = StepFiles(folder: output)
    try session.trace { (name, numbers, width) throws(SquintError) in
      try steps.append(name, UnsafeRawBufferPointer(numbers), width: width)
    }
    try steps.finish()
    try writeFile("\(output)/ids.json", "\(prompt.tokens)\n")
  }
}

private func isFolder(_ path: String) -> Bool {
  var status = stat()
  return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

/// A NumPy file for each step; how many rows it has is known at the end.
private struct StepFiles {
  private struct Step {
    let file: OutputFile
    let width: Int
    var bytes = 0
  }

  private static let headerBytes = 128
  private let folder: String
  private var steps: [String: Step] = [:]

  init(folder: String) { self.folder = folder }

  mutating func append(_ name: String, _ bytes: UnsafeRawBufferPointer, width: Int) throws(SquintError) {
    if steps[name] == nil {
      let file = try OutputFile(path: "\(folder)/\(name).npy")
      try file.write(numpyHeader([0, width], byteCount: Self.headerBytes))
      steps[name] = Step(file: file, width: width)
    }
    try steps[name]?.file.write(bytes)
    steps[name]?.bytes += bytes.count
  }

  func finish() throws(SquintError) {
    for step in steps.values {
      let rows = step.bytes / (4 * step.width)
      try numpyHeader([rows, step.width], byteCount: Self.headerBytes).withBytes { (bytes) throws(SquintError) in
        try step.file.write(bytes, at: 0)
      }
      try step.file.finish()
    }
  }
}
