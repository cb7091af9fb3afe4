import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

@main
struct SquintCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "squint",
    abstract: "Runs a model that sees, hears or reads, from one .squint file.",
    discussion: """
      squint ask --image photo.jpg "What is in this picture?"
      squint ask model.squint --image photo.jpg "What is in this picture?"

      Without a model, the one that is in this program answers: squint-nano. squint inspect shows it.
      Answers and data go to stdout, everything else to stderr. Sizes are written 256M, 1.5G or 268435456.
      Make a model file with squint-convert.
      """,
    version: "squint \(SquintVersion.program) (file format \(SquintVersion.format), with \(BuiltInModel.name))",
    subcommands: [
      Ask.self, Chat.self, Inspect.self, Verify.self, Plan.self, Bench.self, Tokenize.self, Detokenize.self,
      Logits.self, Embed.self, TraceSteps.self,
    ])

  static func main() {
    Terminal.prepare(
      "squint",
      unreadable:
        "the model file cannot be read any more: it was changed meanwhile, or the disk is failing; run squint verify\n")
    do { try withSufficientStack(runCommand) } catch { Terminal.fail(error) }
  }

  private static func runCommand() {
    do {
      var command = try parseAsRoot(programArguments())
      try command.run()
    } catch let error as SquintError {
      Terminal.fail(error)
    } catch {
      // Help and version are what was asked for; a bare exit code has nothing to say.
      if error is ExitCode || exitCode(for: error).isSuccess { exit(withError: error) }
      Terminal.fail(SquintError(.usage, "\(message(for: error)); \(helpCommand) says how"))
    }
  }

  /// `squint COMMAND --help` for the command that was called.
  private static var helpCommand: String {
    let names = configuration.subcommands.map { $0._commandName }
    let called = (try? programArguments())?.first.flatMap { names.contains($0) ? " " + $0 : nil }
    return "squint\(called ?? "") --help"
  }
}
