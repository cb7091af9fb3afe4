import Foundation
import Testing

/// What people give in place of a file, and files that stand in place of others: one line says what it is and what to do.
@Suite struct ForeignInputTests {
  private static let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 269060552\n"

  private func convert(_ arguments: String...) throws -> Outcome {
    let program = RunningProgram.squint.deletingLastPathComponent().appendingPathComponent("squint-convert")
    return try RunningProgram(program: program, arguments).finish()
  }

  @Test func inputsThatAreNoFiles() throws {
    let folder = try TemporaryFolder()
    let model = try folder.seeingModel("llava-clip")
    for (input, part) in [
      ("https://example.org/cat.jpg", "this is a URL, not a file; download it first"),
      ("data:image/png;base64," + String(repeating: "iVBORw0KGgo", count: 5_000), "this is a data URI, not a file"),
      ("hf:HuggingFaceTB/SmolVLM-256M-Instruct", "hf download"),
      ("HuggingFaceTB/SmolVLM-256M-Instruct", "hf download HuggingFaceTB/SmolVLM-256M-Instruct"),
    ] {
      expectError(try squint("ask", input, "Hi"), 66, part)
      expectError(try squint("inspect", input), 66, part)
      expectError(try squint("ask", model, "--image", input, "Hi"), 66, part)
      let outcome = try convert(input, "-o", "\(folder.path)/out.squint")
      #expect(outcome.status == 66 && outcome.error.contains(part), "\(outcome.error)")
      #expect(outcome.error.filter { $0 == "\n" }.count == 1 && outcome.error.utf8.count < 500)
    }
  }

  @Test func filesThatStandForOthers() throws {
    let folder = try TemporaryFolder()
    let model = try folder.seeingModel("llava-clip")
    for (bytes, part) in [
      (Self.pointer, "Git LFS pointer"), ("<!DOCTYPE html><html>", "web page"), ("Entry not found", "web page"),
    ] {
      let file = try folder.write("file", Array(bytes.utf8))
      expectError(try squint("ask", file, "Hi"), 65, "\(file): ", part)
      expectError(try squint("ask", model, "--image", file, "Hi"), 65, "\(file): ", part)
      let outcome = try convert(file, "-o", "\(folder.path)/out.squint")
      #expect(outcome.status == 65 && outcome.error.contains(part), "\(outcome.error)")
    }
  }
}
