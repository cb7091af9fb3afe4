import Foundation
import SquintFile
import Testing

/// The model that is part of the program answers as the same model does from a file of its own.
@Suite struct BuiltInModelTests {
  private static let file = fixtures.deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("models/squint-nano.squint").path
  private static let image = fixtures.appendingPathComponent("vision/pictures/square.png").path
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Where the model is in the program, in bytes.
  private func range() throws -> Range<Int> {
    let program = try Data(contentsOf: RunningProgram.squint, options: .alwaysMapped)
    let model = try Data(contentsOf: URL(fileURLWithPath: Self.file))
    return try #require(
      program.range(of: model),
      "the program holds another model; touch Sources/CSquintNano/CSquintNano.c and build again")
  }

  /// A copy of the program with the bit `bit` of the byte `offset` of its model flipped.
  private func damaged(_ offset: Int) throws -> URL {
    var program = try Data(contentsOf: RunningProgram.squint)
    program[try range().lowerBound + offset] ^= 0x10
    let copy = URL(fileURLWithPath: try folder.write("squint", program))
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: copy.path)
    return copy
  }

  private func tokens(_ arguments: String..., input: String? = nil) throws -> [Int] {
    let outcome = try squint(["ask", "--json", "--max-tokens", "12"] + arguments, input: input)
    #expect(outcome.status == 0, "\(outcome.error)")
    return try #require(try outcome.json()["tokens"] as? [Int])
  }

  // MARK: What it says

  /// The README's first example.
  @Test(arguments: [
    ("What is in this picture?", "A train on the left, a red circle in the middle and a yellow ring on the right.\n"),
    ("How many things are there?", "Three.\n"), ("What is on the left?", "A train.\n"),
    ("What colour is the ring?", "Yellow.\n"), ("Is there a cow?", "No.\n"),
  ]) func seesTheImageOfTheReadme(_ question: String, _ answer: String) throws {
    let image = URL(fileURLWithPath: Self.file).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("docs/samples/nano-2.png").path
    let outcome = try squint(["ask", "--image", image, question])
    #expect(outcome.status == 0, "\(outcome.error)")
    #expect(outcome.text == answer)
  }

  // MARK: The same as the file

  /// At a page of its own, however large pages are: it is mapped, advised and read as a file is.
  @Test func itIsTheFile() throws {
    #expect(try range().lowerBound % 65_536 == 0)
  }

  @Test(arguments: [
    ["inspect", "--tensors"], ["inspect", "--tensors", "--json"], ["verify"],
    ["logits", "--image", "PICTURE", "--prompt", "What?", "-o", "OUT"], ["logits", "--prompt", "What?", "-o", "OUT"],
    ["embed", "--image", "PICTURE", "-o", "OUT"], ["embed", "--image", "PICTURE", "--stage", "encoder", "-o", "OUT"],
    ["chat", "--image", "PICTURE", "--max-tokens", "6", "--temperature", "0"],
  ])
  func commands(_ arguments: [String]) throws {
    let out = "\(folder.path)/out.npy"
    func run(_ model: [String]) throws -> (text: String, file: Data?) {
      let arguments = arguments.map { $0 == "PICTURE" ? Self.image : $0 == "OUT" ? out : $0 }
      let outcome = try squint([arguments[0]] + model + arguments.dropFirst(), input: "What is this?\nAnd now?\n")
      #expect(outcome.status == 0 && outcome.error.isEmpty, "\(outcome.error)")
      defer { try? FileManager.default.removeItem(atPath: out) }
      return (
        outcome.text.replacingOccurrences(of: Self.file, with: "squint-nano"),
        try? Data(contentsOf: URL(fileURLWithPath: out))
      )
    }
    let (without, named, file) = (try run([]), try run(["squint-nano"]), try run([Self.file]))
    #expect(without == file && named == file)
    #expect(!file.text.isEmpty || file.file != nil)
    if arguments[0] == "inspect" || arguments[0] == "verify" { #expect(without.text.contains("squint-nano")) }
  }

  @Test func answers() throws {
    let question = "Is it green?"
    let expected = try tokens(Self.file, question, "--image", Self.image)
    #expect(expected.count > 0)
    #expect(try tokens(question, "--image", Self.image) == expected)
    #expect(try tokens("--image", Self.image, question) == expected)
    #expect(try tokens("squint-nano", question, "--image", Self.image) == expected)
    #expect(try tokens("--image", Self.image, input: question) == expected)
    #expect(try tokens("squint-nano", "--image", Self.image, input: question) == expected)
    let raw = try tokens(Self.file, question, "--raw")
    #expect(try tokens(question, "--raw") == raw)
    #expect(try squint("tokenize", "squint-nano", "Hi").text == squint("tokenize", Self.file, "Hi").text)
    #expect(try squint("detokenize", "squint-nano", "5", "6").text == squint("detokenize", Self.file, "5", "6").text)
    #expect(try squint("bench", "-p", "4", "-n", "2", "--rounds", "1", "--json").status == 0)
  }

  /// Budgets are planned as for a file, and weights that do not stay are read from the program: the answer is the same.
  @Test func budgets() throws {
    func plan(_ model: [String], _ memory: Int) throws -> [String: Any]? {
      let outcome = try squint(
        ["plan"] + model + ["--threads", "1", "--context", "256", "--memory", "\(memory)", "--json"])
      return outcome.status == 0 ? try outcome.json() : nil
    }
    expectError(try squint("plan", "--memory", "1M"), 69, "squint-nano: ", "--memory ", "would do")
    let (ours, theirs) = (try #require(try plan([], 1 << 30)), try #require(try plan([Self.file], 1 << 30)))
    #expect(ours["arena"] as? NSArray == theirs["arena"] as? NSArray)
    let peak = try #require(ours["peak"] as? Int)
    // The process itself is a few pages larger or smaller from one run to the next.
    #expect(abs(peak - (theirs["peak"] as? Int ?? 0)) < 1 << 20)

    var streamed = 0
    let arguments = ["--image", Self.image, "What?", "--threads", "1", "--context", "256"]
    let expected = try tokens(Self.file, "--image", Self.image, "What?", "--threads", "1", "--context", "256")
    // What the process itself takes differs from run to run, so the budgets that stream begin and end somewhere in here.
    for memory in stride(from: peak - 3 << 20, to: peak - 9 << 20, by: -128 << 10) {
      let outcome = try squint(["ask"] + arguments + ["--memory", "\(memory)", "--max-tokens", "12", "--json"])
      guard outcome.status == 0 else {
        expectError(outcome, 69, "squint-nano: ")
        continue
      }
      let answer = try outcome.json()
      #expect(answer["tokens"] as? [Int] == expected)
      let taken = try #require(answer["memory"] as? [String: Int])
      #expect(taken["peak"]! <= memory)
      streamed += taken["read"]!
    }
    // A model that is smaller than what a budget varies by always stays.
    let size = try ModelFile(path: Self.file).byteCount
    #expect(streamed > 0 || size < 2 << 20)
  }

  // MARK: Alone on a board

  /// One file is all that it takes, whatever its name; a copy that was damaged on its way is found.
  @Test func damagedPrograms() throws {
    let model = try ModelFile(path: Self.file)
    let tensor = try #require(model.tensors.last)
    let damagedWeights = try damaged(tensor.range.lowerBound)
    expectError(
      try RunningProgram(program: damagedWeights, ["verify"]).finish(), 65, "squint-nano: tensor \(tensor.name)")
    #expect(try RunningProgram(program: damagedWeights, ["inspect"]).finish().status == 0)
    let damagedTables = try damaged(140)
    for arguments in [["ask", "Hi"], ["plan"], ["inspect"], ["embed", "--image", Self.image, "-o", "/nowhere/x"]] {
      expectError(
        try RunningProgram(program: damagedTables, arguments).finish(), 65, "squint-nano: ", "corrupt")
    }
  }

  // MARK: What is meant

  @Test func theUsualQuestion() throws {
    let expected = try tokens("What is in this picture?", "--image", Self.image)
    for arguments in ["", "\"$2\""] {
      let line = #""$SQUINT" ask \#(arguments) --image "$1" --json --max-tokens 12 < /dev/null"#
      let outcome = try shell(line, [Self.image, Self.file])
      #expect(try outcome.json()["tokens"] as? [Int] == expected)
    }
    // What was to hold the question does not; or there is nothing to ask about.
    expectError(try shell(#""$SQUINT" ask < /dev/null"#), 64, "empty")
    expectError(try shell(#""$SQUINT" ask --raw --image "$1" < /dev/null"#, [Self.image]), 64, "empty")
  }

  /// One argument that is meant as a file is never asked as a question.
  @Test func oneArgument() throws {
    for name in [
      "missing.squint", "missing.SQUINT", "missing.squint.zst", "missing.gguf", "/nowhere/model", "./model",
      "../no/model",
      "missing.jpg", "What is in missing.png",
    ] {
      expectError(try squint("ask", name, input: "Hi"), 66, "\(name): No such file")
    }
    expectError(try squint("ask", folder.path, input: "Hi"), 66, "folder")
    expectError(try squint("ask", Self.image), 65, Self.image, "an image", "--image")
    expectError(try squint("ask", Self.image, "What is this?"), 65, "--image")
    let jpeg = fixtures.appendingPathComponent("vision/pictures/photo.jpg").path
    for command in ["chat", "inspect", "verify", "plan", "bench"] {
      expectError(try squint(command, jpeg), 65, "--image")
    }
    // A file here, whatever it is called, is the model, which it was before there was another.
    let copy = "\(folder.path)/What is it?"
    try FileManager.default.copyItem(atPath: Self.file, toPath: copy)
    let line = #"cd "$1" && echo Hi | "$SQUINT" ask "What is it?" --json --max-tokens 12"#
    #expect(try shell(line, [folder.path]).json()["tokens"] as? [Int] == tokens(Self.file, "Hi"))

    for question in ["Hi", "Cats and/or dogs?", "What is a .squint file?", "Why.", "-5 + 7?"] {
      #expect(try tokens("--", question) == tokens(Self.file, "--", question))
    }
    expectError(try squint("ask", "What", "is"), 66, "What: No such file", "quotes")
    expectError(try squint("ask", "What", "is", "this?"), 64)
    expectError(try squint("ask", "none.squint", "Hi"), 66, "none.squint: No such file")
    expectError(try squint("tokenize", "Hi"), 64)
    expectError(try squint("embed", "-o", "\(folder.path)/o.npy"), 64, "--image")
  }

  @Test func helpSaysIt() throws {
    #expect(try squint("--version").text.contains("squint-nano"))
    for command in [
      "", "ask", "chat", "inspect", "verify", "plan", "bench", "embed", "logits", "tokenize", "detokenize",
    ] {
      #expect(try squint([command, "--help"].filter { !$0.isEmpty }).text.contains("squint-nano"), "\(command)")
    }
    #expect(try squint("ask", "--help").text.contains("What is in this picture?"))
  }
}
