import ArgumentParser
import Squint
import SquintFile
import SquintTerminal

struct Tokenize: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Prints the tokens of a text.")

  @OptionGroup var model: RequiredModelArgument

  @Argument(help: "The text, or - for what stdin has.", transform: \.repaired)
  var text: String

  @Flag(help: "Leave out the special tokens that the checkpoint puts around a text.")
  var noSpecial = false

  @Flag(help: "Print one JSON object with ids and pieces.")
  var json = false

  struct Output: Encodable {
    let ids: [Int32]
    let pieces: [String]
  }

  func run() throws {
    let tokenizer = try Model.tokenizer(of: model.open())
    let text = try StandardInput.text(or: text)
    let ids = tokenizer.encode(text, addSpecialTokens: !noSpecial)
    if json {
      try printJSON(Output(ids: ids, pieces: ids.map { String(decoding: tokenizer.bytes(of: $0), as: UTF8.self) }))
    } else {
      Terminal.write(ids.map(String.init).joined(separator: " ") + "\n")
    }
  }
}

struct Detokenize: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Prints the text of tokens.")

  @OptionGroup var model: RequiredModelArgument

  @Argument(help: "The tokens' ids.")
  var ids: [Int32]

  @Flag(help: "Leave out special tokens.")
  var skipSpecial = false

  func run() throws {
    let tokenizer = try Model.tokenizer(of: model.open())
    if let stranger = ids.first(where: { $0 < 0 || Int($0) >= tokenizer.vocabularySize }) {
      throw SquintError(.usage, "token \(stranger) is not in the vocabulary (0 to \(tokenizer.vocabularySize - 1))")
    }
    Terminal.write(tokenizer.decode(ids, skipSpecialTokens: skipSpecial) + "\n")
  }
}
