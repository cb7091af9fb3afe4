import Foundation
import Testing

/// What `/save` wrote, `/load` reads: the conversation goes on as if it had never ended.
@Suite struct SavedConversationTests {
  private let folder: TemporaryFolder
  private let model: String

  init() throws {
    folder = try TemporaryFolder()
    model = try folder.model("llama-llama3")
  }

  private func chat(_ lines: String, _ arguments: String...) throws -> Outcome {
    try squint(["chat", model, "--temperature", "0", "--max-tokens", "6"] + arguments, input: lines)
  }

  @Test func shouldContinue() throws {
    let saved = "\(folder.path)/said.txt"
    let again = "\(folder.path)/again.txt"
    let question = "\"\"\"\nuser: one\n\n  two [picture x] \\[picture y]\nassistant: three\n\"\"\"\n"
    let whole = try chat("\(question)And now?\n/save \(saved)\nWhat next?\n", "--system", "Be brief.\nVery.")
    let parts = try chat("Forget this.\n/load \(saved)\n/save \(again)\nWhat next?\n")
    #expect(whole.status == 0 && whole.error.isEmpty && parts.error.isEmpty, "\(whole.error)\(parts.error)")
    let text = try String(contentsOfFile: saved, encoding: .utf8)
    #expect(try String(contentsOfFile: again, encoding: .utf8) == text)
    #expect(
      text.hasPrefix("system: Be brief.\n  Very.\nuser: user: one\n  \n    two \\[picture x] \\\\\\[picture y]\n"))
    // The same prompt gives the same answer.
    let last = try chat("/load \(saved)\nWhat next?\n")
    #expect(!last.text.isEmpty && whole.text.hasSuffix(last.text) && parts.text.hasSuffix(last.text))
  }

  @Test func clearForgets() throws {
    let once = try chat("Hello\n").text
    for command in ["/clear", "/reset"] { #expect(try chat("Hello\n\(command)\nHello\n").text == once + once) }
  }

  /// Images are opened again, where they stood.
  @Test func images() throws {
    let image = "\(folder.path)/a ] [picture b.png"
    try FileManager.default.copyItem(
      atPath: fixtures.appendingPathComponent("vision/pictures/square.png").path, toPath: image)
    let seeing = try folder.seeingModel("smolvlm")
    let saved = "\(folder.path)/said.txt"
    func chat(_ lines: String) throws -> Outcome {
      try squint(["chat", seeing, "--temperature", "0", "--max-tokens", "6", "--stats"], input: lines)
    }
    let whole = try chat("/image \(image)\n/image '\(image)'\nIs <image> like <image>?\n/save \(saved)\nWhy?\n")
    let text = try String(contentsOfFile: saved, encoding: .utf8)
    let name = "[picture \(folder.path)/a \\] [picture b.png]"
    #expect(text.hasPrefix("user: Is \(name) like \(name)?\nassistant: "), "\(text)")
    let parts = try chat("/load \(saved)\nWhy?\n")
    #expect(parts.status == 0 && parts.error.contains("2 images"), "\(parts.error)")
    #expect(!parts.text.isEmpty && whole.text.hasSuffix(parts.text))
    try FileManager.default.removeItem(atPath: image)
    #expect(try chat("/load \(saved)\n").error == "squint: \(image): No such file or directory\n")
  }

  @Test func whatIsNoConversation() throws {
    for (text, words) in [
      ("", "no conversation"), ("Hello\n", "line 1"), ("  Hello\n", "line 1"), ("user: Hello\nHello\n", "line 2"),
    ] {
      let file = try folder.write("said.txt", text.utf8)
      let outcome = try chat("/load \(file)\n")
      #expect(outcome.status == 0 && outcome.error.hasPrefix("squint: \(file): ") && outcome.error.contains(words))
    }
    #expect(try chat("/load \(folder.path)/none\n").error == "squint: \(folder.path)/none: No such file or directory\n")
    #expect(try chat("/load\n").error == "squint: /load needs the name of a file\n")
  }
}
