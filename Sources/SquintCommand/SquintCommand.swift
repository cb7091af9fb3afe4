import ArgumentParser
import Squint

@main
struct SquintCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "squint",
    abstract: "Asks a model in one .squint file.",
    discussion: """
      Answers and data go to stdout, everything else to stderr. Sizes are written 256M, 1.5G or 268435456.
      Make a model file with squint-convert.
      """,
    version: "squint 0.1.0 (file format 1)",
    subcommands: [
      Ask.self, Chat.self, Inspect.self, Verify.self, Plan.self, Bench.self, Tokenize.self, Detokenize.self,
      Logits.self,
    ])

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let error as SquintError {
      Terminal.fail(error)
    } catch {
      exit(withError: error)
    }
  }
}
