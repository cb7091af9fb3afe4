import Foundation
import SquintFile
import Testing

/// Exit codes, and that an error is one line that says what, where and what to do.
@Suite struct ExitCodeTests {
  private let folder: TemporaryFolder
  private let model: String
  private let bytes: [UInt8]

  init() throws {
    folder = try TemporaryFolder()
    model = try folder.model("llama-llama3")
    bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: model)))
  }

  // MARK: Usage, 64

  @Test(arguments: [
    ["nonsense"], ["ask"], ["ask", "MODEL", "Hi", "--no-such-option"], ["ask", "MODEL", "Hi", "--max-tokens"],
    ["ask", "MODEL", "Hi", "--max-tokens=-1"], ["ask", "MODEL", "Hi", "--max-tokens", "many"],
    ["ask", "MODEL", "Hi", "--memory", "12X"], ["ask", "MODEL", "Hi", "--memory", "0"],
    ["ask", "MODEL", "Hi", "--memory", ""], ["ask", "MODEL", "Hi", "--memory=-5M"],
    ["ask", "MODEL", "Hi", "--memory", "1e9"], ["ask", "MODEL", "Hi", "--memory", "9999999999999G"],
    ["ask", "MODEL", "Hi", "--context", "0"], ["ask", "MODEL", "Hi", "--context=-1"],
    ["ask", "MODEL", "Hi", "--context", "9223372036854775807"], ["ask", "MODEL", "Hi", "--threads", "0"],
    ["ask", "MODEL", "Hi", "--threads=-5"], ["ask", "MODEL", "Hi", "--threads", "9223372036854775807"],
    ["ask", "MODEL", "Hi", "--beams", "0"], ["ask", "MODEL", "Hi", "--beams", "9223372036854775807"],
    ["ask", "MODEL", "Hi", "--beams", "2", "--temperature", "1"], ["ask", "MODEL", "Hi", "--kv", "int3"],
    ["ask", "MODEL", "Hi", "--temperature=-1"], ["ask", "MODEL", "Hi", "--temperature", "nan"],
    ["ask", "MODEL", "Hi", "--temperature", "inf"], ["ask", "MODEL", "Hi", "--top-p", "1.5"],
    ["ask", "MODEL", "Hi", "--top-k=-1"], ["ask", "MODEL", "Hi", "--min-p", "1.5"],
    ["ask", "MODEL", "Hi", "--repeat-penalty", "0"], ["ask", "MODEL", "Hi", "--seed=-1"],
    ["ask", "MODEL", "Hi", "--stop", ""], ["ask", "MODEL", ""], ["ask", "MODEL", "", "--raw"], ["ask", "MODEL"],
    ["bench", "MODEL", "-p", "0"], ["bench", "MODEL", "-n", "0"], ["bench", "MODEL", "--rounds", "0"],
    ["bench", "MODEL", "-p", "9223372036854775807", "-n", "9223372036854775807"],
    ["bench", "MODEL", "-p", "512", "--context", "16"], ["plan", "MODEL", "--threads", "0"],
    ["detokenize", "MODEL"], ["detokenize", "MODEL", "300"], ["detokenize", "MODEL", "2147483648"],
    ["detokenize", "MODEL", "x"], ["logits", "MODEL", "--prompt", "Hi"], ["logits", "MODEL", "-o", "OUT"],
    ["logits", "MODEL", "--prompt", "Hi", "--ids", "1", "-o", "OUT"], ["logits", "MODEL", "--prompt", "", "-o", "OUT"],
    ["logits", "MODEL", "--ids", "300", "-o", "OUT"],
    ["logits", "MODEL", "--prompt", "Hi", "--context", "1", "-o", "OUT"],
  ])
  func usage(_ arguments: [String]) throws {
    let out = "\(folder.path)/out.npy"
    expectError(
      try squint(arguments.map { $0 == "MODEL" ? model : $0 == "OUT" ? out : $0 }), 64)
    #expect(!folder.contents.contains { $0.hasPrefix("out.npy") })
  }

  @Test func usageErrorsSayWhereHelpIs() throws {
    expectError(try squint("ask", model, "Hi", "--nonsense"), 64, "--nonsense", "squint ask --help")
    expectError(try squint("nonsense"), 64, "nonsense", "squint --help")
  }

  @Test func prompts() throws {
    let long = String(repeating: "word ", count: 2000)
    expectError(try squint("ask", model, long), 64, "the context holds 256", "--context")
    expectError(try squint("ask", model, input: ""), 64, "empty")
    expectError(try squint("ask", model, input: "\n\n"), 64, "empty")
    expectError(try squint("ask", model, input: long), 64, "the context holds 256")
    // An endless stdin fills neither the memory nor the day.
    expectError(try shell(#"yes 2> /dev/null | "$SQUINT" ask "$1""#, [model]), 64, "stdin")
  }

  // MARK: Bad data, 65

  private static let commands = [
    ["ask", "MODEL", "Hi"], ["chat", "MODEL"], ["inspect", "MODEL"], ["verify", "MODEL"], ["plan", "MODEL"],
    ["bench", "MODEL"], ["tokenize", "MODEL", "Hi"], ["detokenize", "MODEL", "1"],
    ["logits", "MODEL", "--prompt", "Hi", "-o", "/nowhere/x.npy"],
  ]

  private func expectBad(_ path: String, _ status: Int32, _ part: String, commands: [[String]] = commands) throws {
    for command in commands {
      expectError(try squint(command.map { $0 == "MODEL" ? path : $0 }), status, path, part)
    }
  }

  @Test func missingModels() throws {
    try expectBad("\(folder.path)/none.squint", 66, "No such file")
    try expectBad(folder.path, 66, "folder")
    #expect(try shell(#"mkfifo "$1"; "$SQUINT" inspect "$1""#, ["\(folder.path)/pipe"]).status == 66)
  }

  @Test func whatIsNoModel() throws {
    try expectBad(folder.write("empty.squint", []), 65, "the file is empty")
    try expectBad(folder.write("text.squint", "Once upon a time\n".utf8), 65, "squint-convert")
    try expectBad(
      fixtures.appendingPathComponent("conversion/quantized.gguf").path, 65,
      "GGUF model; convert it with squint-convert")
    var magic = bytes
    magic[0] ^= 1
    try expectBad(folder.write("magic.squint", magic), 65, "squint-convert")
    var version = bytes
    version[8] = 2
    try expectBad(folder.write("newer.squint", version), 65, "update squint")
  }

  @Test func truncatedModels() throws {
    var lengths = Array(stride(from: 1, to: bytes.count, by: 2003))
    lengths += [8, 127, 128, bytes.count - 1]
    for length in lengths {
      let path = try folder.write("truncated.squint", bytes[..<length])
      do {
        _ = try ModelFile(path: path)
        Issue.record("\(length) bytes were accepted")
      } catch let error {
        #expect(error.kind == .badData, "\(length): \(error)")
        #expect(error.message.hasPrefix(path))
      }
    }
    for length in [1, 100, 1000, bytes.count / 2, bytes.count - 1] {
      try expectBad(
        folder.write("truncated.squint", bytes[..<length]), 65, ";", commands: [Self.commands[0], ["verify", "MODEL"]])
    }
    try expectBad(folder.write("appended.squint", bytes + [0]), 65, "appended", commands: [Self.commands[0]])
  }

  @Test func verifyNamesTheDamagedPart() throws {
    let file = try ModelFile(path: model)
    for tensor in file.tensors {
      var damaged = bytes
      damaged[tensor.range.lowerBound + tensor.range.count / 2] ^= 0x10
      let path = try folder.write("damaged.squint", damaged)
      expectError(try squint("verify", path), 65, path, "tensor \(tensor.name):", "fetch it again")
    }
    // The header, the tables, the compressed metadata, the padding before the first tensor.
    for offset in [60, 200, file.tensors[0].range.lowerBound - 1] {
      var damaged = bytes
      damaged[offset] ^= 0x10
      expectError(try squint("verify", folder.write("damaged.squint", damaged)), 65)
    }
  }

  @Test func metadataAndTensorsThatContradictEachOther() throws {
    let file = try ModelFile(path: model)
    func expectRejected(_ part: String, _ change: (inout ModelFilePlan) -> Void) throws {
      var plan = try ModelFilePlan(file)
      change(&plan)
      let path = "\(folder.path)/changed.squint"
      try write(plan, from: file, to: path)
      try expectBad(path, 65, part, commands: [Self.commands[0], ["plan", "MODEL"]])
      #expect(try squint("inspect", path).status == 0)
      #expect(try squint("verify", path).status == 0)
    }
    for name in ["decoder.embedding", "decoder.1.ffn.down", "decoder.norm"] {
      try expectRejected("tensor \(name) is missing") { plan in
        plan.modules[0].tensors.removeAll { $0.name == name }
      }
    }
    try expectRejected("decoder.0.attention.q") { $0.metadata["decoder.heads"] = .int(4) }
    try expectRejected("decoder.embedding") { $0.metadata["decoder.vocabulary"] = .int(299) }
    try expectRejected("decoder.2.attention.norm") { $0.metadata["decoder.layers"] = .int(3) }
    try expectRejected("metadata decoder.width") { $0.metadata["decoder.width"] = nil }
    try expectRejected("metadata decoder.width") { $0.metadata["decoder.width"] = .string("32") }
    try expectRejected("no text decoder") { plan in
      plan.modules = [.init(name: "encoder.image", tensors: plan.modules[0].tensors)]
    }
    try expectRejected("temperature") { $0.metadata["generation.temperature"] = .float(-1) }
    try expectRejected("tokenizer.model") { $0.bulkMetadata["tokenizer.model"] = .string("two\nlines\u{1B}[31m") }
  }

  @Test func templatesThatFail() throws {
    let file = try ModelFile(path: model)
    var plan = try ModelFilePlan(file)
    let path = "\(folder.path)/template.squint"
    for template in [
      "{{ raise_exception('no\\nsuch\\x1b role') }}", "{% for %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{{ 'a' * 1000000000 }}",
    ] {
      plan.metadata["chat.template"] = .string(template)
      try write(plan, from: file, to: path)
      expectError(try squint("ask", path, "Hi"), 65, path, "line 1")
      // A conversation tells it and goes on.
      let chat = try squint("chat", path, input: "Hi\nHi\n")
      #expect(chat.status == 0)
      #expect(chat.error.split(separator: "\n").count == 2)
      #expect(try squint("ask", path, "Hi", "--raw", "--max-tokens", "1").status == 0)
    }
  }

  /// What a file says about itself cannot write to the terminal.
  @Test func namesFromTheFileArePrintedWithoutControlCharacters() throws {
    let file = try ModelFile(path: model)
    var plan = try ModelFilePlan(file)
    plan.metadata["general.name"] = .string("two\nlines \u{1B}]0;title\u{7} \u{9B}31m <&\"> \u{202E}txt")
    let path = "\(folder.path)/named.squint"
    let drawing = "\(folder.path)/named.svg"
    try write(plan, from: file, to: path)
    for command in [["inspect", path], ["plan", path, "--svg", drawing]] {
      let outcome = try squint(command)
      #expect(outcome.status == 0)
      #expect(
        !outcome.text.unicodeScalars.contains { $0 == "\u{1B}" || $0 == "\u{7}" || $0 == "\u{9B}" || $0 == "\u{202E}" })
    }
    #expect(!(try String(contentsOf: URL(fileURLWithPath: drawing), encoding: .utf8)).contains("\u{1B}"))
  }

  // MARK: What does not fit, 69

  @Test func tooLittleMemory() throws {
    var (least, start) = (Double.infinity, Double.infinity)
    for _ in 0..<5 {
      let outcome = try squint("ask", model, "Hi", "--memory", "1M")
      expectError(outcome, 69, model, "--memory ", "would do")
      least = min(least, outcome.seconds)
      start = min(start, try squint("--version").seconds)
    }
    #expect(least - start < 0.05)
    // What it names does fit.
    let message = try squint("ask", model, "Hi", "--memory", "1M", "--threads", "1").error
    let named = try #require(message.components(separatedBy: "--memory ").last)
    let size = try #require(named.components(separatedBy: " ").first)
    #expect(
      try squint("ask", model, "Hi", "--memory", size, "--threads", "1", "--max-tokens", "1").status == 0, "\(message)")
  }

  @Test func tooLongAContext() throws {
    let outcome = try squint("plan", model, "--context", "16000000", "--memory", "64M")
    expectError(outcome, 69, "--context ", "would fit")
    let context = try #require(
      outcome.error.components(separatedBy: "--context ").last?.components(separatedBy: " ").first.flatMap { Int($0) })
    #expect(context > 256 && context < 16_000_000)
    // The process itself is a few pages larger or smaller from one run to the next.
    #expect(try squint("plan", model, "--context", "\(context * 9 / 10)", "--memory", "64M").status == 0)
    expectError(try squint("plan", model, "--context", "\(context * 11 / 10)", "--memory", "64M"), 69)
  }

  // MARK: Output, 73 and 74

  @Test func outputsThatCannotBeCreated() throws {
    let pipe = "\(folder.path)/pipe"
    #expect(mkfifo(pipe, 0o600) == 0)
    for path in ["\(folder.path)/no/such/out", folder.path, pipe] {
      expectError(try squint("logits", model, "--prompt", "Hi", "-o", path), 73, path)
      expectError(try squint("plan", model, "--svg", path), 73, path)
    }
    // A pipe or a device is not replaced by a file.
    var status = stat()
    #expect(stat(pipe, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
    #expect(folder.contents.count == 2)
  }

  @Test func aFullDisk() throws {
    #if os(Linux)
      for command in [
        #""$SQUINT" tokenize "$1" Hi"#, #""$SQUINT" ask "$1" Hi --max-tokens 3"#, #""$SQUINT" inspect "$1""#,
      ] {
        expectError(try shell("\(command) > /dev/full", [model]), 74, "stdout", "No space left")
      }
      // A small disk of our own, where this system lets us have one.
      let disk = "\(folder.path)/disk"
      try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
      guard try shell(#"mount -t tmpfs -o size=16k none "$1" 2>/dev/null"#, [disk]).status == 0 else { return }
      defer { _ = try? shell(#"umount "$1""#, [disk]) }
      let outcome = try squint(
        ["logits", model, "-o", "\(disk)/out.npy", "--ids"] + Array(repeating: "5", count: 100))
      expectError(outcome, 74, "\(disk)/out.npy", "No space left")
      #expect(try FileManager.default.contentsOfDirectory(atPath: disk).isEmpty)
    #endif
  }

  @Test func aClosedStandardOutput() throws {
    // Nothing that is opened later takes the place of what was closed.
    let out = "\(folder.path)/out.npy"
    #expect(try shell(#""$SQUINT" logits "$1" --prompt Hi -o "$2" <&- >&- 2>&-"#, [model, out]).status == 0)
    #expect([UInt8](try Data(contentsOf: URL(fileURLWithPath: out)).prefix(6)) == [0x93] + Array("NUMPY".utf8))
    expectError(try shell(#""$SQUINT" tokenize "$1" Hi >&-"#, [model]), 74, "stdout")
    // A reader that is gone ends the program without a word, as it ends others.
    let gone = try shell(#"{ sleep 0.3; "$SQUINT" inspect "$1" --tensors; echo $? >&2; } | true"#, [model])
    #expect(gone.error == "141\n")
  }

  @Test func invalidUTF8() throws {
    let outcome = try shell(#""$SQUINT" ask "$1" "$(printf 'caf\351 \377\300\257')" --raw --max-tokens 3"#, [model])
    #expect(outcome.status == 0)
    #expect(outcome.error.isEmpty)
    let input = try shell(#"printf 'caf\351 \377\300\257' | "$SQUINT" ask "$1" --raw --max-tokens 3"#, [model])
    #expect(input.status == 0)
    #expect(input.text == outcome.text)
    expectError(try shell(#""$SQUINT" inspect "$(printf '/nowhere/\377')""#), 66)
    expectError(try shell(#""$SQUINT" ask "$1" Hi "$(printf -- '--\377')""#, [model]), 64)
  }

  // MARK: Signals

  /// A copy of the model that answers for a long time.
  private func talkative() throws -> String { try folder.talkativeModel() }

  @Test(arguments: [SIGINT, SIGTERM]) func aSignalEndsTheAnswer(signal: Int32) throws {
    let program = try RunningProgram(
      ["ask", talkative(), "Hello", "--context", "1000000", "--json"], signals: [signal])
    usleep(300_000)
    #expect(program.process.isRunning)
    kill(program.process.processIdentifier, signal)
    let sent = Date()
    let outcome = program.finish()
    #expect(Date().timeIntervalSince(sent) < 2)
    #expect(outcome.status == 128 + signal)
    #expect(outcome.error.isEmpty, "\(outcome.error)")
    // What was generated so far is there.
    let object = try outcome.json()
    #expect(object["finish_reason"] as? String == "cancelled")
    #expect((object["tokens"] as? [Int])?.isEmpty == false)
  }

  @Test func aSignalWhileWaitingForThePrompt() throws {
    let program = try RunningProgram(["ask", model], signals: [SIGINT])
    usleep(300_000)
    kill(program.process.processIdentifier, SIGINT)
    program.process.waitUntilExit()
    let outcome = program.finish()
    #expect(outcome.status == 130)
    #expect(outcome.error.isEmpty && outcome.output.isEmpty)
  }

  @Test func aSignalEndsAnIdleConversation() throws {
    let program = try RunningProgram(["chat", model], signals: [SIGINT])
    usleep(300_000)
    #expect(program.process.isRunning)
    kill(program.process.processIdentifier, SIGINT)
    program.process.waitUntilExit()
    #expect(program.finish().status == 130)
  }

  @Test func theSecondSignalEndsTheProgram() throws {
    let program = try RunningProgram(
      ["ask", talkative(), "Hello", "--context", "1000000", "--json"], signals: [SIGINT, SIGTERM])
    usleep(300_000)
    // While it is stopped both signals queue up; then they arrive before it has the time to look at the first.
    let process = program.process.processIdentifier
    for signal in [SIGSTOP, SIGINT, SIGTERM, SIGCONT] { kill(process, signal) }
    let outcome = program.finish()
    #expect([128 + SIGINT, 128 + SIGTERM].contains(outcome.status))
    #expect(outcome.output.isEmpty && outcome.error.isEmpty)
  }

  @Test(arguments: [SIGINT, SIGHUP, SIGPIPE, SIGQUIT]) func aSignalLeavesNothingHalfWritten(signal: Int32) throws {
    let program = try RunningProgram(
      ["logits", talkative(), "--context", "100000", "-o", "\(folder.path)/out.npy", "--ids"]
        + Array(repeating: "5", count: 30_000), signals: [signal])
    let deadline = Date().addingTimeInterval(30)
    while !folder.contents.contains(where: { $0.hasPrefix("out.npy.partial") }), Date() < deadline { usleep(2_000) }
    kill(program.process.processIdentifier, signal)
    #expect(program.finish().status == 128 + signal)
    #expect(!folder.contents.contains { $0.hasPrefix("out.npy") })
  }

  /// A file that shrinks under a running program is an error, not a crash.
  @Test func aModelThatShrinksMeanwhile() throws {
    let path = try talkative()
    let program = try RunningProgram(["ask", path, "Hello", "--context", "1000000", "--json"])
    usleep(300_000)
    #expect(truncate(path, 4096) == 0)
    expectError(program.finish(), 74, "model file")
  }
}
