import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Embed: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes what the encoder or the projector makes of a medium as f32 [tokens, width].",
    discussion: """
      squint embed --image photo.jpg -o features.npy
      squint embed model.squint --image photo.jpg --stage encoder -o features.npy

      The rows of an image's tiles stand one after the other, those of the overview last. --stage pixels writes the \
      numbers that the encoder takes: f32 [tiles, 3, height, width] of an image, [frames, mels] of a sound.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions

  @Option(help: "encoder, projector or pixels.")
  var stage = Embedder.Stage.projector

  @Option(
    help: .init("The side that images are resized and cut to. Default: as the checkpoint says.", valueName: "pixels"))
  var size: Int?

  @Option(
    name: .shortAndLong, help: .init("The NumPy file to write.", valueName: "file"),
    completion: .file(extensions: ["npy"]))
  var output: String

  @OptionGroup var compute: ComputeOptions

  func run() throws {
    let files = media.files
    guard files.count == 1 else {
      let syntaxes = MediaSyntax.all.map { "--\($0.option) \($0.kind == .molecule ? "SMILES" : "FILE")" }.joined(
        separator: " or ")
      throw SquintError(.usage, "give one medium: \(syntaxes) (there are \(files.count))")
    }
    try media.checkUse()
    let embedder = try Embedder(
      model.open(memory: compute.memory), files[0].kind, stage: stage, side: size, threads: compute.threads,
      memory: compute.memory?.bytes)
    let progress = Progress()
    var file: OutputFile?
    try embedder.embed(files[0].path, media.limited(MediaLimits()), note: { Terminal.report($0) }) {
      (shape) throws(SquintError) in
      // Not before: a medium that is none leaves no file behind.
      let opened = try OutputFile(path: output)
      try opened.write(numpyHeader(shape))
      file = opened
    } progress: { step in
      progress.show(step.lines)
    } visit: { (_, _, numbers) throws(SquintError) in
      try file?.write(UnsafeRawBufferPointer(numbers))
      return true
    }
    try file?.finish()
  }
}

extension Embedder.Stage: ExpressibleByArgument {}
