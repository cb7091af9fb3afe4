import ArgumentParser
import Squint

struct Logits: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes the logits of every position of a prompt as f32 [positions, vocabulary].",
    discussion: "No chat template; special tokens as the checkpoint's tokenizer adds them by default.")

  @OptionGroup var model: ModelArgument

  @Option(help: .init("The prompt.", valueName: "text"))
  var prompt: String?

  @Option(parsing: .upToNextOption, help: .init("The prompt as tokens.", valueName: "id"))
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
    // A signal that ended the program at once would leave the half-written file behind.
    let cancellation = Interrupt.install()
    let model = try Model(path: model.model)
    let tokens = try prompt.map { (text) throws(SquintError) in try model.tokens(text) } ?? ids
    guard !tokens.isEmpty else { throw SquintError(.usage, "the prompt is empty; say something") }
    let session = try Session(model, machine.session(), cancellation: cancellation)
    try session.append(tokens)
    let file = try OutputFile(path: output)
    try file.write(numpyHeader(rows: tokens.count, columns: model.vocabularySize))
    try session.forEachLogits { (position, logits) throws(SquintError) in
      Terminal.progress("\(position + 1) of \(tokens.count) positions")
      try file.write(UnsafeRawBufferPointer(logits))
    }
    Terminal.endProgress()
    if cancellation.isCancelled { throw ExitCode(Interrupt.exitCode) }
    try file.finish()
  }
}

extension OutputFile {
  func write(_ bytes: [UInt8]) throws(SquintError) {
    try bytes.withBytes { (bytes) throws(SquintError) in try write(bytes) }
  }
}

/// The header of a NumPy file (format 1.0) with little-endian f32 [rows, columns].
private func numpyHeader(rows: Int, columns: Int) -> [UInt8] {
  var text = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(rows), \(columns)), }"
  // Magic, version, length and text together are a multiple of 64 bytes, and the text ends with a newline.
  while (10 + text.utf8.count + 1) % 64 != 0 { text += " " }
  text += "\n"
  let count = UInt16(text.utf8.count)
  return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(count & 0xFF), UInt8(count >> 8)] + Array(text.utf8)
}
