import Foundation
import Testing

/// What `ask` takes from stdin, whatever that is: the question, text behind one, or nothing of what is somebody else's.
@Suite struct QuestionTests {
  private static let image = fixtures.appendingPathComponent("vision/pictures/square.png").path
  private static let usual = "What is in this picture?"
  private static let seconds = 60.0
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// What was asked, as far as an answer tells.
  private struct Asked: Equatable {
    let tokens: [Int]
    let promptTokens: Int

    init(_ json: [String: Any]) throws {
      tokens = try #require(json["tokens"] as? [Int])
      promptTokens = try #require((json["timings"] as? [String: Any])?["prompt_tokens"] as? Int)
    }
  }

  private static let options = #"--json --max-tokens 6 --threads 1"#

  /// What the built-in model is asked where `line` is run, in which `ASK` is `squint ask` about the image.
  private func asked(_ line: String) throws -> (Asked, error: String) {
    let command = #""$SQUINT" ask --image "$1" \#(Self.options)"#
    let outcome = try shell(line.replacingOccurrences(of: "ASK", with: command), [Self.image, folder.path])
    #expect(outcome.status == 0, "\(line): \(outcome.error)")
    #expect(outcome.seconds < Self.seconds)
    return (try Asked(outcome.json()), outcome.error)
  }

  /// What it is asked where `question` is the argument.
  private func asked(question: String) throws -> Asked {
    let outcome = try shell(
      #""$SQUINT" ask --image "$1" "$2" \#(Self.options) < /dev/null"#, [Self.image, question])
    return try Asked(outcome.json())
  }

  // MARK: Nothing on stdin

  @Test(arguments: [
    "ASK < /dev/null", "ASK <&-", ": | ASK", "printf '\\n\\n' | ASK", "ASK < /dev/zero",
    ": > \"$2/empty\"; ASK < \"$2/empty\"",
    // Open, and silent, as under another program; a shell in between shares it.
    "ASK", "ASK; true",
  ]) func theUsualQuestion(_ line: String) throws {
    let expected = try asked(question: Self.usual)
    let (found, error) = try asked(line)
    #expect(found == expected)
    #expect(error.isEmpty, "\(error)")
    // With a question it is that one.
    let question = "Is it green?"
    #expect(try asked(line.replacingOccurrences(of: "ASK", with: "ASK '\(question)'")).0 == asked(question: question))
  }

  /// The program's own pipe stays open all the time.
  @Test func aPipeThatStaysOpen() throws {
    for question in [[], ["Is it green?"]] {
      let program = try RunningProgram(
        ["ask", "--image", Self.image, "--json", "--max-tokens", "6", "--threads", "1"] + question)
      let output = program.output.fileHandleForReading.readDataToEndOfFile()
      program.process.waitUntilExit()
      #expect(program.process.terminationStatus == 0)
      let json = try #require(try JSONSerialization.jsonObject(with: output) as? [String: Any])
      #expect(try Asked(json) == asked(question: question.first ?? Self.usual))
      _ = program.finish()
    }
  }

  /// One before it in a pipeline is waited for, not without end and not without a word.
  @Test func aSilentPipeline() throws {
    let (found, error) = try asked("sleep 11 | ASK")
    #expect(try found == asked(question: Self.usual))
    #expect(error.contains("waiting for stdin") && error.contains("nothing came"), "\(error)")
  }

  // MARK: Text on stdin

  @Test func textIsTheQuestion() throws {
    let question = "Is there a cat?"
    try Data("\(question)\n".utf8).write(to: URL(fileURLWithPath: "\(folder.path)/question"))
    let expected = try asked(question: question)
    #expect(try expected != asked(question: Self.usual))
    for line in [
      "echo '\(question)' | ASK", "ASK < \"$2/question\"", "{ sleep 1.5; echo '\(question)'; } | ASK",
      "echo '\(question)' | ASK -", "ASK - < \"$2/question\"", "echo '\(question)' | { ASK -; }",
    ] { #expect(try asked(line).0 == expected, "\(line)") }
  }

  @Test func textBesideAQuestionIsPutBehindIt() throws {
    try Data("one\ntwo\n".utf8).write(to: URL(fileURLWithPath: "\(folder.path)/text"))
    let expected = try asked(question: "Which?\n\none\ntwo")
    for line in ["printf 'one\\ntwo\\n' | ASK 'Which?'", "ASK 'Which?' < \"$2/text\""] {
      #expect(try asked(line).0 == expected, "\(line)")
    }
    let program = try RunningProgram(
      ["ask", "--image", Self.image, "Which?", "--json", "--max-tokens", "6", "--threads", "1"])
    #expect(try Asked(program.finish("one\ntwo\n").json()) == expected)
  }

  @Test func sockets() throws {
    var ends: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    #expect(write(ends[0], "Is there a cat?", 15) == 15)
    close(ends[0])
    let process = Process()
    process.executableURL = RunningProgram.squint
    process.arguments = ["ask", "--image", Self.image, "--json", "--max-tokens", "6", "--threads", "1"]
    process.standardInput = FileHandle(fileDescriptor: ends[1], closeOnDealloc: true)
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    let json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(try Asked(json) == asked(question: "Is there a cat?"))
  }

  // MARK: What is not ours

  /// The list of a loop: each of its lines is seen by the loop, whatever is asked and whatever runs the loop.
  @Test(arguments: ["", "'Is it green?'"]) func listsOfLoops(_ question: String) throws {
    for (name, contents) in [("list", "a\nb\nc\n")] {
      try Data(contents.utf8).write(to: URL(fileURLWithPath: "\(folder.path)/\(name)"))
    }
    let ask = #""$SQUINT" ask --image "$1" \#(question) --max-tokens 1 --threads 1 > /dev/null"#
    for shellName in ["sh", "bash"] {
      for line in [
        #"while read -r f; do \#(ask); echo "$f"; done < "$2/list""#,
        #"cat "$2/list" | while read -r f; do \#(ask); echo "$f"; done"#,
        #"cat "$2/list" | while read -r f; do timeout 50 \#(ask); echo "$f"; done"#,
      ] {
        let outcome = try shell(#"exec \#(shellName) -c "$3" sh "$1" "$2""#, [Self.image, folder.path, line])
        #expect(outcome.text == "a\nb\nc\n", "\(line)")
        #expect(outcome.error.isEmpty, "\(outcome.error)")
      }
    }
    // A script that comes through a pipe, and holds the program.
    let script = "\(ask)\necho after\n"
    let outcome = try shell(#"printf '%s' "$2" | sh -s "$1""#, [Self.image, script])
    #expect(outcome.text == "after\n" && outcome.error.isEmpty)
  }

  /// With nothing else to ask, what is not ours is not taken either, but for `-`.
  @Test func nothingToAsk() throws {
    try Data("title\nIs there a cat?\n".utf8).write(to: URL(fileURLWithPath: "\(folder.path)/text"))
    for line in [
      #"{ read -r title; "$SQUINT" ask; exit $?; } < "$1/text""#,
      #"cat "$1/text" | { read -r title; "$SQUINT" ask; exit $?; }"#,
    ] { expectError(try shell(line, [folder.path]), 64, "no question", "- for what stdin has") }
    let line = #"{ read -r title; "$SQUINT" ask - --max-tokens 1; exit $?; } < "$1/text""#
    #expect(try shell(line, [folder.path]).status == 0)
    expectError(try shell(#""$SQUINT" ask - < /dev/null"#), 64, "empty")
    expectError(try shell(#": | "$SQUINT" ask"#), 64, "empty")
    expectError(try shell(#""$SQUINT" ask < "$1""#, [folder.path]), 66, "stdin cannot be read")
  }

  // MARK: Images

  @Test func imagesThroughPipes() throws {
    let expected = try asked(question: "Is it green?")
    let options = "'Is it green?' \(Self.options)"
    for line in [
      #"cat "$1" | "$SQUINT" ask --image - \#(options)"#, #""$SQUINT" ask --image - \#(options) < "$1""#,
      #""$SQUINT" ask --image /dev/stdin \#(options) < "$1""#,
      #""$SQUINT" ask --image /dev/fd/9 \#(options) 9< "$1" < /dev/null"#,
      #"mkfifo "$2/pipe"; cat "$1" > "$2/pipe" & "$SQUINT" ask --image "$2/pipe" \#(options) < /dev/null"#,
      #"exec bash -c '"$SQUINT" ask --image <(cat "$1") "$2" \#(Self.options) < /dev/null' bash "$1" 'Is it green?'"#,
    ] {
      let outcome = try shell(line, [Self.image, folder.path])
      #expect(outcome.status == 0 && outcome.error.isEmpty, "\(line): \(outcome.error)")
      #expect(try Asked(outcome.json()) == expected, "\(line)")
    }
    #expect(try asked(#"cat "$1" | "$SQUINT" ask --image - \#(Self.options)"#).0 == asked(question: Self.usual))
    let plan = try shell(#"cat "$1" | "$SQUINT" plan --image - --json"#, [Self.image]).json()
    let phases = try #require(plan["phases"] as? [[String: Any]])
    let size = try Data(contentsOf: URL(fileURLWithPath: Self.image)).count
    #expect(phases.allSatisfy { ($0["items"] as? [String: Int])?["piped pictures"] == size })

    expectError(try shell(#": | "$SQUINT" ask --image -"#), 65, "stdin: the file is empty")
    expectError(try shell(#"echo text | "$SQUINT" ask --image -"#), 65, "stdin: this is a text")
    expectError(try shell(#""$SQUINT" ask --image - < /dev/null"#), 66, "stdin: this is a device")
    expectError(try shell(#""$SQUINT" ask --image - <&-"#), 66, "stdin")
    expectError(try shell(#""$SQUINT" ask - --image - < "$1""#, [Self.image]), 64, "stdin cannot be the question")
    expectError(try shell(#"yes 2> /dev/null | "$SQUINT" ask --image -"#), 65, "stdin: more than 67,108,864 bytes")
    expectError(try shell(#""$SQUINT" chat --image - < "$1""#, [Self.image]), 64, "stdin is the conversation")
    let chat = try shell(#"printf '/image -\nHi\n' | "$SQUINT" chat --max-tokens 1"#)
    #expect(chat.status == 0 && chat.error.contains("stdin is the conversation"))
  }
}
