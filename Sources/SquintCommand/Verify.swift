import ArgumentParser
import Squint

struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Checks every checksum; names the first part that is damaged.")

  @OptionGroup var model: ModelArgument

  func run() throws {
    let file = try model.open()
    defer { Terminal.endProgress() }
    try file.verify { bytes in
      Terminal.progress("verifying: \(bytes * 100 / max(file.byteCount, 1)) % of \(readableSize(file.byteCount))")
    }
    Terminal.endProgress()
    Terminal.write("\(file.path): \(file.tensors.count) tensors, \(grouped(file.byteCount)) bytes: all right\n")
  }
}
