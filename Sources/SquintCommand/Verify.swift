import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Checks every checksum; names the first part that is damaged.")

  @OptionGroup var model: ModelArgument

  func run() throws {
    let file = try model.open()
    let progress = Progress()
    try file.verify { bytes in
      let share = bytes * 100 / max(file.byteCount, 1)
      progress.show(["verifying: \(share) % of \(readableSize(file.byteCount))", "verifying: \(share) %"])
    }
    Terminal.write(
      "\(printable(file.path)): \(file.tensors.count) tensors, \(grouped(file.byteCount)) bytes: all right\n")
  }
}
