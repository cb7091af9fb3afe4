import Foundation
import SquintFile
import SquintTerminal
import Testing

/// What a person sees of each command: in a pseudo-terminal, through the emulator of a screen.
@Suite struct ScreenTests {
  private static let image = fixtures.deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("docs/samples/nano-2.png").path
  private static let answer = "A train on the left, a red circle in the middle and a yellow ring on the right."
  private static let convert = RunningProgram.squint.deletingLastPathComponent()
    .appendingPathComponent("squint-convert")
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// A model of random weights that answers for a long time, and takes a while to read a long prompt.
  private func talkative() throws -> String { try folder.talkativeModel() }

  private let longPrompt = String(repeating: "a very long question ", count: 2000)

  // MARK: ask

  @Test(arguments: [20, 40, 80, 200]) func theAnswerStays(_ columns: Int) throws {
    let screen = try Screen.run(["ask", "--image", Self.image], columns: columns)
    screen.expectClean()
    #expect(screen.lines.joined() == Self.answer, "\(screen.text)")
    let stats = try Screen.run(["ask", "--image", Self.image, "--stats"], columns: columns, rows: 6)
    stats.expectClean()
    #expect(stats.squeezed.hasPrefix(Self.answer.squeezed + "1imagein1tiledecodedin"), "\(stats.text)")
  }

  @Test func json() throws {
    let screen = try Screen.run(["ask", "--image", Self.image, "--json"], columns: 200, rows: 60)
    screen.expectClean()
    let object = try JSONSerialization.jsonObject(with: Data(screen.text.utf8)) as? [String: Any]
    #expect(object?["text"] as? String == Self.answer)
  }

  /// The screen may be that of both, of one alone, or each may have its own.
  @Test func streamsApart() throws {
    let arguments = ["ask", "--image", Self.image, "--stats"]
    let file = "\(folder.path)/out"
    let apart = try Screen.run(arguments, columns: 200, stderr: .other)
    apart.expectClean()
    #expect(apart.lines == [Self.answer] && apart.other.count == 1 && apart.other[0].hasPrefix("1 image"))
    let answer = try Screen.run(arguments, columns: 200, stderr: .file(file))
    #expect(answer.lines == [Self.answer])
    #expect(!(try String(contentsOfFile: file, encoding: .utf8)).contains("\u{1B}"))
    let statistics = try Screen.run(arguments, columns: 200, stdout: .file(file))
    statistics.expectClean()
    #expect(statistics.lines.count == 1 && statistics.lines[0].hasPrefix("1 image"))
    #expect(try String(contentsOfFile: file, encoding: .utf8) == Self.answer + "\n")
  }

  /// A status line comes, fits the window, and goes.
  @Test(arguments: [20, 40, 200]) func statusLines(_ columns: Int) throws {
    let arguments = [
      "ask", try talkative(), longPrompt, "--context", "100000", "--max-tokens", "8", "--threads", "1",
    ]
    let screen = try Screen.run(arguments, columns: columns)
    screen.expectClean()
    #expect(screen.statuses.contains { $0.hasPrefix("reading: ") }, "\(screen.statuses)")
    #expect(screen.statuses.allSatisfy { $0.count <= columns })
    #expect(!screen.text.contains("reading"))
    guard columns == 40 else { return }
    let piped = try squint(arguments)
    #expect(piped.error.isEmpty)
    #expect(screen.squeezed == visible(piped.text).squeezed)
    // Where the answer goes elsewhere, and as an object.
    let file = "\(folder.path)/answer.json"
    let json = try Screen.run(arguments + ["--json"], columns: columns, stdout: .file(file))
    #expect(json.status == 0 && json.lines.isEmpty && json.statuses.contains { $0.hasPrefix("reading: ") })
  }

  /// Nothing but text, where the terminal knows no more, or is not to be used for more.
  @Test(arguments: [["TERM": "dumb"], ["TERM": ""], ["TERM": nil], ["NO_COLOR": "1"]] as [[String: String?]])
  func withoutEscapeSequences(_ environment: [String: String?]) throws {
    var commands = [["ask", "--image", Self.image, "--stats"]]
    if environment == ["TERM": "dumb"] {
      commands.append(["ask", try talkative(), longPrompt, "--context", "100000", "--max-tokens", "4"])
    }
    if environment == ["NO_COLOR": "1"] { commands.append(["bench", "-p", "8", "-n", "2", "--rounds", "1"]) }
    for arguments in commands {
      let screen = try Screen.run(arguments, environment: environment)
      screen.expectClean()
      let bytes = screen.bytes.replacingOccurrences(of: "\r\n", with: "\n")
      #expect(!bytes.contains("\u{1B}") && !bytes.contains("\r"), "\(bytes.debugDescription)")
    }
    let chat = try Screen.run(
      ["chat", "--temperature", "0"], environment: environment,
      [.prompt(">"), .line("Hello"), .prompt(">"), .controlC, .wait("Ctrl-C again"), .prompt(">"), .controlD])
    chat.expectClean()
    #expect(!chat.bytes.contains("\u{1B}") && chat.text.contains("> Hello"))
  }

  // MARK: What is in an answer

  /// Control characters are seen, not obeyed; pipes get them as they are.
  @Test func controlCharacters() throws {
    let model = try folder.model("llama-llama3")
    let text = "a\u{1B}[2J\u{1B}]0;title\u{7}b\u{8}\tc\u{7F}\u{9B}31m\u{202E}d\r\ne\rf é 漢"
    let ids = try squint("tokenize", model, text, "--no-special").text.split { $0.isWhitespace }.map(String.init)
    let piped = try squint(["detokenize", model] + ids).text
    #expect(piped.unicodeScalars.elementsEqual((text + "\n").unicodeScalars))
    let screen = try Screen.run(["detokenize", model] + ids)
    screen.expectClean()
    #expect(screen.lines == ["a^[[2J^[]0;title^Gb^H   c^?<U+009B>31m<U+202E>d", "e^Mf é 漢"], "\(screen.text)")
    // JSON says them by itself.
    var plan = try ModelFilePlan(try ModelFile(path: model))
    plan.metadata["general.name"] = .string(text)
    let named = "\(folder.path)/named.squint"
    try write(plan, from: try ModelFile(path: model), to: named)
    let json = try squint("inspect", named, "--json")
    #expect(!json.text.unicodeScalars.contains { $0 == "\u{7F}" || $0 == "\u{9B}" || $0 == "\u{202E}" })
    #expect((try json.json()["metadata"] as? [String: Any])?["general.name"] as? String == text)
    #expect(try Screen.run(["inspect", named, "--json"], columns: 200).squeezed == json.text.squeezed)
    #expect(try Screen.run(["inspect", named], columns: 200).text.contains("general.name = a^[[2J^[]0;title^Gb^H c^?"))
  }

  @Test func errors() throws {
    for columns in [40, 200] {
      let screen = try Screen.run(["ask", "no\u{1B}[31m漢字.squint", "Hi"], columns: columns)
      screen.expectClean(66)
      #expect(screen.lines.joined() == "squint: no^[[31m漢字.squint: No such file or directory", "\(screen.text)")
    }
  }

  // MARK: The other commands

  /// What is on the screen is what is in the pipe, as far as its lines go.
  @Test func tables() throws {
    let out = "\(folder.path)/out.npy"
    for arguments in [
      ["plan"], ["plan", "--json"], ["inspect", "--tensors"], ["inspect", "--json"], ["verify"],
      ["tokenize", "squint-nano", "Is it green?"], ["detokenize", "squint-nano", "5", "6", "7"],
      ["logits", "--prompt", "What?", "-o", out], ["embed", "--image", Self.image, "-o", out], ["--version"],
    ] {
      let screen = try Screen.run(arguments, columns: 40)
      screen.expectClean()
      // The memory that is free, and the process's, differ from run to run.
      let piped = try squint(arguments).text.squeezed.filter { arguments[0] != "plan" || !$0.isNumber }
      #expect(screen.squeezed.filter { arguments[0] != "plan" || !$0.isNumber } == piped, "\(arguments)")
      #expect(!screen.bytes.contains("\u{1B}"))
    }
    let plan = try Screen.run(["plan"], columns: 200)
    plan.expectClean()
    #expect(plan.lines.contains { $0.hasPrefix("prefill  ") && $0.hasSuffix("reading the prompt") }, "\(plan.text)")
  }

  @Test(arguments: [40, 200]) func bench(_ columns: Int) throws {
    let bench = try Screen.run(
      ["bench", "-p", "64", "-n", "32", "--rounds", "3", "--image", Self.image], columns: columns)
    bench.expectClean()
    #expect(bench.statuses.contains { $0.hasPrefix("round ") } && !bench.text.contains("round "))
    for part in ["decode32", "image,1tiles", "peakmemory"] { #expect(bench.squeezed.contains(part), "\(bench.text)") }
  }

  // MARK: chat

  @Test(arguments: [40, 200]) func chat(_ columns: Int) throws {
    let screen = try Screen.run(
      ["chat", "--temperature", "0"], columns: columns, rows: 50,
      [
        .prompt(">"), .line("/image \(Self.image)"), .prompt(">"), .line("What is in this picture?"), .wait("right."),
        .prompt(">"), .line("/stats"), .wait("tokens at"), .prompt(">"), .line("/help"), .wait("/quit"), .prompt(">"),
        .line("/nonsense"), .wait("there is no /nonsense"), .prompt(">"), .line("/reset"), .prompt(">"),
        .line("/quit"),
      ])
    screen.expectClean()
    let text = screen.squeezed
    #expect(
      text.contains(">Whatisinthispicture?\(Self.answer.squeezed)>/stats1imagein1tile"), "\(screen.text)")
    #expect(
      text.hasSuffix("squint:thereisno/nonsense;/helplistswhatthereis>/reset>/quit"), "\(screen.text)")
  }

  @Test func endsOfConversations() throws {
    let left = try Screen.run(["chat"], [.prompt(">"), .controlD])
    left.expectClean()
    #expect(left.lines.count == 2)
    let killed = try Screen.run(["chat"], [.prompt(">"), .type("half a li"), .wait("half a li"), .signal(SIGTERM)])
    killed.expectClean(143)
    let quit = try Screen.run(["chat"], [.prompt(">"), .type("half a li"), .wait("half a li"), .type("\u{1C}")])
    quit.expectClean(131)
    let interrupted = try Screen.run(
      ["chat"],
      [
        .prompt(">"), .type("half a line"), .wait("half a line"), .controlC, .wait("Ctrl-C again"), .prompt(">"),
        .controlC,
      ])
    interrupted.expectClean(130)
    #expect(interrupted.lines.dropFirst() == ["> half a line", "Ctrl-C again, or Ctrl-D, to end", ">"])
  }

  /// The line editor: arrows, history, wide characters, lines longer than the window.
  @Test func editing() throws {
    let saved = "\(folder.path)/said.txt"
    func said(_ columns: Int, _ steps: [Step]) throws -> (screen: Screen, questions: [String]) {
      let screen = try Screen.run(
        ["chat", "--max-tokens", "1", "--temperature", "0"], columns: columns,
        [.prompt(">")] + steps + [.sleep(0.1), .prompt(">"), .line("/save \(saved)"), .prompt(">"), .line("/quit")])
      screen.expectClean()
      let text = try String(contentsOfFile: saved, encoding: .utf8)
      return (
        screen, text.components(separatedBy: "\n").filter { $0.hasPrefix("user: ") }.map { String($0.dropFirst(6)) }
      )
    }
    let left = "\u{1B}[D"
    let up = "\u{1B}[A"
    for columns in [40, 200] {
      let edited = try said(
        columns,
        [
          .type("Is it gren?" + left + left), .type("e"), .enter, .sleep(0.3), .prompt(">"),
          .type(up), .prompt("> Is it green?"), .type("\u{1}\u{4}W"), .prompt("> Ws it green?"), .enter,
        ])
      #expect(edited.questions == ["Is it green?", "Ws it green?"])
      #expect(edited.screen.text.contains("> Is it green?\n") && edited.screen.text.contains("> Ws it green?\n"))
      let wide = try said(
        columns, [.type("漢字と🙂か" + left + left), .type("\u{7F}だ"), .prompt("> 漢字だ🙂か"), .enter])
      #expect(wide.questions == ["漢字だ🙂か"])
      // Also where the locale knows no characters.
      let long = String(repeating: "wörter ", count: 30) + "end"
      let longer = try said(columns, [.type(long + "\u{1}"), .type("X"), .sleep(0.2), .enter])
      #expect(longer.questions == ["X" + long])
      #expect(longer.screen.squeezed.contains(">X" + long.squeezed))
    }
    let plain = try Screen.run(
      ["chat", "--max-tokens", "1"], environment: ["LC_ALL": "C", "LANG": "C"],
      [
        .prompt(">"), .type("größe漢"), .prompt("> größe漢"), .type("\u{7F}\u{7F}"), .prompt("> größ"), .controlC,
        .wait("again"),
        .prompt(">"), .controlD,
      ])
    plain.expectClean()
  }

  /// What is pasted is one question, however many lines it has; so is what stands between two `"""`.
  @Test func severalLines() throws {
    let saved = "\(folder.path)/said.txt"
    let screen = try Screen.run(
      ["chat", "--max-tokens", "1", "--temperature", "0"],
      [
        .prompt(">"), .type("\u{1B}[200~one\rtwo 漢\r\n  three\r\u{1B}[201~"), .wait("three"), .type(" four"),
        .wait("four"), .enter, .sleep(0.3), .prompt(">"),
        .line("\"\"\"/five"), .prompt("."), .line("six"), .prompt("."), .line("\"\"\""), .sleep(0.3), .prompt(">"),
        .line("/save \(saved)"), .prompt(">"), .line("/quit"),
      ])
    screen.expectClean()
    let text = try String(contentsOfFile: saved, encoding: .utf8)
    #expect(text.hasPrefix("user: one\n  two 漢\n    three four\nassistant: "), "\(text)")
    #expect(text.contains("\nuser: /five\n  six\nassistant: "), "\(text)")
  }

  @Test func windowsThatChange() throws {
    let screen = try Screen.run(
      ["chat"], columns: 60,
      [
        .prompt(">"), .type(String(repeating: "word ", count: 10)), .wait("word word"), .resize(30, 24), .sleep(0.3),
        .type("end"), .sleep(0.3), .controlC, .prompt(">"), .controlD,
      ])
    #expect(screen.status == 0 && screen.restored)
    #expect(screen.text.contains("end"))
  }

  // MARK: Conversion

  @Test(arguments: [20, 40, 200]) func conversion(_ columns: Int) throws {
    let source = try sparseCheckpoint(in: folder.path, rows: 150_000)
    let name = "漢字 model \u{1B}[31m.squint"
    let output = "\(folder.path)/\(name)"
    let screen = try Screen.run(
      program: Self.convert, [source, "-o", output, "--embedding-type", "int4", "--jobs", "1"], columns: columns)
    screen.expectClean()
    let progress = screen.statuses.filter { $0.contains(" %") }
    #expect(!progress.isEmpty && progress.allSatisfy { !$0.contains("\u{1B}") }, "\(screen.statuses)")
    if columns == 200 {
      #expect(progress.contains { $0.hasPrefix("漢字 model ^[[31m.squint ") && $0.hasSuffix(" left") })
    }
    #expect(screen.lines.first?.hasPrefix("module") == true && !screen.text.contains("░"), "\(screen.text)")
    #expect(screen.squeezed.contains("boundedby"))
    let failed = try Screen.run(program: Self.convert, ["no/such\u{1B}[2J", "-o", output], columns: columns)
    failed.expectClean(66)
    #expect(failed.lines.joined().contains("no/such^[[2J"))
  }

  // MARK: Ctrl-C

  /// The first ends the work, the screen is clean, and nothing half-written is left.
  @Test(arguments: [(40, SIGINT), (200, SIGTERM)]) func interruptedWork(_ columns: Int, _ signal: Int32) throws {
    let model = try talkative()
    let out = "\(folder.path)/out.npy"
    let step = signal == SIGINT ? Step.controlC : .signal(signal)
    let long = [longPrompt, "--context", "400000", "--threads", "1"]
    let cases: [(arguments: [String], at: String)] = [
      (["ask", model] + long, "reading: token"),
      (["ask", model, "--json"] + long, "reading: token"),
      (
        ["logits", model, "--prompt", longPrompt, "--context", "400000", "--threads", "1", "-o", out], "reading: token"
      ),
      (["bench", "--rounds", "100000"], "round "),
    ]
    for (arguments, text) in cases {
      let screen = try Screen.run(arguments, columns: columns, [.wait(text), step])
      screen.expectClean(128 + signal)
      #expect(screen.lines.isEmpty, "\(arguments[0]): \(screen.text)")
      #expect(screen.seconds < 20)
    }
    #expect(!folder.contents.contains { $0.hasPrefix("out.npy") })

    // In the middle of an answer, what there is stays.
    let screen = try Screen.run(
      ["ask", model, "Hello", "--context", "1000000"], columns: columns, [.sleep(1), .look("before"), step])
    screen.expectClean(128 + signal)
    let before = try #require(screen.looks["before"]).dropLast()
    #expect(before.count > 1 && screen.lines.starts(with: before))
  }

  @Test func interruptedConversations() throws {
    let model = try talkative()
    let arguments = ["chat", model, "--context", "1000000", "--temperature", "0", "--threads", "1"]
    let answering = try Screen.run(
      arguments,
      [
        .prompt(">"), .line("Hello"), .sleep(0.7), .controlC, .prompt(">"), .line("/reset"), .prompt(">"),
        .line("/quit"),
      ])
    answering.expectClean()
    // A terminal that is busy with the answer may drop its echo of Ctrl-C.
    #expect(answering.lines.count > 3 && answering.squeezed.hasSuffix(">/reset>/quit"), "\(answering.text)")
    let reading = try Screen.run(
      arguments + ["--system", longPrompt],
      [.prompt(">"), .line("Hello"), .wait("reading: token"), .controlC, .prompt(">"), .line("/quit")])
    reading.expectClean()
    #expect(reading.lines.dropFirst() == ["> Hello", "", "> /quit"], "\(reading.text)")
  }

  /// An image that takes long to decode does not keep Ctrl-C waiting.
  @Test func interruptedImages() throws {
    let image = try largeImage(in: folder.path)
    for (arguments, text) in [
      (["ask", "--image", image], "opening: image 1 of 1"),
      (["logits", "--image", image, "--prompt", "What?", "-o", "\(folder.path)/o.npy"], "opening: "),
      (["embed", "--image", image, "-o", "\(folder.path)/o.npy"], "opening: "),
      (["bench", "--image", image, "--rounds", "1000"], "round 1"),
    ] {
      let screen = try Screen.run(arguments, [.wait(text), .controlC])
      screen.expectClean(130)
      #expect(screen.lines.isEmpty && screen.seconds < 3, "\(arguments[0]): \(screen.text)")
    }
    let chat = try Screen.run(
      ["chat", "--image", image],
      [.prompt(">"), .line("What?"), .wait("opening: "), .controlC, .prompt(">"), .controlD])
    chat.expectClean()
    #expect(chat.seconds < 4 && chat.lines.dropFirst() == ["> What?", "", "> ^D"], "\(chat.text)")
    #expect(folder.contents.allSatisfy { !$0.hasPrefix("o.npy") })
  }

  @Test(arguments: [40, 200]) func interruptedConversions(_ columns: Int) throws {
    let source = try sparseCheckpoint(in: folder.path)
    let output = "\(folder.path)/m.squint"
    let screen = try Screen.run(
      program: Self.convert, [source, "-o", output, "--embedding-type", "int4", "--jobs", "1"], columns: columns,
      [.wait(" %"), .controlC])
    screen.expectClean(130)
    #expect(screen.lines.filter { $0 != "^C" }.isEmpty)
    #expect(!folder.contents.contains { $0.hasPrefix("m.squint") })
  }
}
