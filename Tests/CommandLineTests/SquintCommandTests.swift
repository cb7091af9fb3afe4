import Foundation
import Squint
import SquintFile
import Testing

/// `squint` as a script meets it: what each command writes to stdout, and what to stderr.
@Suite struct SquintCommandTests {
  private let folder: TemporaryFolder
  private let model: String

  init() throws {
    folder = try TemporaryFolder()
    model = try folder.model("llama-llama3")
  }

  private struct Expected: Decodable {
    struct Text: Decodable {
      let text: String
      let ids: [Int32]
    }

    let texts: [Text]
  }

  private func expected(_ name: String) throws -> Expected {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(
      Expected.self, from: Data(contentsOf: fixtures.appendingPathComponent("models/\(name)/expected.json")))
  }

  private func ids(_ name: String) throws -> [Int32] {
    try JSONDecoder().decode(
      [Int32].self, from: Data(contentsOf: fixtures.appendingPathComponent("models/\(name)/ids.json")))
  }

  // MARK: ask

  @Test func askStreamsTheAnswer() throws {
    let outcome = try squint("ask", model, "The capital", "--max-tokens", "12")
    #expect(outcome.status == 0)
    #expect(outcome.error.isEmpty)
    #expect(outcome.text.hasSuffix("\n"))
    let json = try squint("ask", model, "The capital", "--max-tokens", "12", "--json")
    #expect(json.error.isEmpty)
    #expect(try json.json()["text"] as? String == String(outcome.text.dropLast()))
  }

  @Test func askJSON() throws {
    let object = try squint("ask", model, "The capital", "--max-tokens", "5", "--json").json()
    #expect(Set(object.keys) == ["text", "tokens", "finish_reason", "timings", "memory"])
    #expect((object["tokens"] as? [Int])?.count == 5)
    #expect(object["finish_reason"] as? String == "length")
    let timings = try #require(object["timings"] as? [String: Any])
    #expect(timings["generated_tokens"] as? Int == 5)
    for key in ["prompt_tokens", "prompt_tokens_per_second", "seconds_to_first_token", "generated_tokens_per_second"] {
      #expect((timings[key] as? Double ?? 0) > 0, "\(key)")
    }
    let memory = try #require(object["memory"] as? [String: Any])
    #expect((memory["planned"] as? Int ?? 0) > 0)
    #expect((memory["peak"] as? Int ?? 0) > 0)
  }

  /// A raw answer begins with the most probable token behind the prompt as it stands.
  @Test(arguments: ["llama-llama3", "qwen2-tied"]) func rawGreedy(_ name: String) throws {
    let model = try folder.model(name)
    let output = "\(folder.path)/last.npy"
    let vocabulary = try Model(path: model).vocabularySize
    for test in try expected(name).texts {
      #expect(try squint(["logits", model, "--kv", "f32", "-o", output, "--prompt=\(test.text)"]).status == 0)
      let last = floats(try Data(contentsOf: URL(fileURLWithPath: output)).suffix(4 * vocabulary))
      let answer = try squint("ask", model, "--raw", "--json", "--kv", "f32", "--max-tokens", "1", "--", test.text)
      let best = try #require(last.indices.max { last[$0] < last[$1] })
      #expect(try answer.json()["tokens"] as? [Int] == [best])
    }
  }

  private func promptTokens(_ arguments: String...) throws -> Int {
    let object = try squint(arguments).json()
    return try #require((object["timings"] as? [String: Any])?["prompt_tokens"] as? Int)
  }

  @Test func rawAndSystemChangeThePrompt() throws {
    let raw = try promptTokens("ask", model, "What is it?", "--raw", "--json", "--max-tokens", "1")
    let plain = try promptTokens("ask", model, "What is it?", "--json", "--max-tokens", "1")
    let system = try promptTokens("ask", model, "What is it?", "--system", "Be brief.", "--json", "--max-tokens", "1")
    let tokenized = try squint("tokenize", model, "What is it?").text.split(separator: " ").count
    #expect(raw == tokenized)
    #expect(raw < plain && plain < system)
  }

  @Test func thePromptMayComeFromStandardInput() throws {
    let argument = try squint("ask", model, "Hello\nthere", "--max-tokens", "8")
    for input in ["Hello\nthere", "Hello\nthere\n", "Hello\nthere\r\n"] {
      let outcome = try squint("ask", model, "--max-tokens", "8", input: input)
      #expect(outcome.status == 0)
      #expect(outcome.text == argument.text)
    }
  }

  @Test func noTokens() throws {
    let outcome = try squint("ask", model, "Hello", "--max-tokens", "0")
    #expect(outcome.status == 0)
    #expect(outcome.text == "\n")
    let object = try squint("ask", model, "Hello", "--max-tokens", "0", "--json").json()
    #expect(object["finish_reason"] as? String == "length")
    #expect((object["tokens"] as? [Int])?.isEmpty == true)
  }

  @Test func aStopTextEndsTheAnswer() throws {
    let whole = try squint("ask", model, "The capital", "--max-tokens", "24", "--json").json()
    let text = try #require(whole["text"] as? String)
    let characters = Array(text)
    let stop = String(characters[characters.count / 2..<characters.count / 2 + 2])
    let end = try #require(text.range(of: stop)).lowerBound
    let object = try squint(
      "ask", model, "The capital", "--max-tokens", "24", "--stop", "never said", "--stop", stop, "--json"
    ).json()
    #expect(object["text"] as? String == String(text[..<end]))
    #expect(object["finish_reason"] as? String == "stop")
  }

  @Test func theSeedDecides() throws {
    func answer(_ seed: String) throws -> String {
      try squint("ask", model, "Hello", "--temperature", "1.5", "--max-tokens", "30", "--seed", seed).text
    }
    #expect(try answer("3") == answer("3"))
    #expect(try answer("3") != answer("4"))
  }

  @Test func samplingOptionsAndBeams() throws {
    let greedy = try squint("ask", model, "Hello", "--max-tokens", "16").text
    let narrow = try squint("ask", model, "Hello", "--max-tokens", "16", "--temperature", "2", "--top-k", "1").text
    #expect(narrow == greedy)
    // So cold that only the most probable token is left.
    #expect(try squint("ask", model, "Hello", "--max-tokens", "16", "--temperature", "1e-40").text == greedy)
    #expect(try squint("ask", model, "Hello", "--max-tokens", "16", "--temperature", "1e-30").text == greedy)
    let penalized = try squint("ask", model, "Hello", "--max-tokens", "16", "--repeat-penalty", "5").text
    #expect(penalized != greedy)
    for options in [
      ["--top-p", "0.1"], ["--min-p", "0.5"], ["--threads", "3"], ["--kv", "f16"], ["--context", "64"],
    ] {
      let outcome = try squint(["ask", model, "Hello", "--max-tokens", "4"] + options)
      #expect(outcome.status == 0, "\(options)")
    }
    let beams = try squint("ask", model, "Hello", "--max-tokens", "8", "--beams", "4")
    #expect(beams.status == 0)
    #expect(try beams.text == squint("ask", model, "Hello", "--max-tokens", "8", "--beams", "4").text)
  }

  @Test func statisticsGoToStandardError() throws {
    let outcome = try squint("ask", model, "Hello", "--max-tokens", "4", "--stats")
    #expect(outcome.error.contains("tokens"))
    #expect(outcome.error.contains("peak memory"))
    #expect(outcome.error.filter { $0 == "\n" }.count == 1)
    #expect(try outcome.text == squint("ask", model, "Hello", "--max-tokens", "4").text)
  }

  @Test func theInstructionSetCanBeChosen() throws {
    let outcome = try squint(
      "ask", model, "Hello", "--max-tokens", "4", environment: ["SQUINT_ISA": "generic"])
    #expect(outcome.status == 0)
    #expect(outcome.text.count > 1)
    expectError(
      try squint("ask", model, "Hello", environment: ["SQUINT_ISA": "nonsense"]), 64, "SQUINT_ISA=nonsense", "generic")
  }

  // MARK: chat

  @Test func chatOverAPipe() throws {
    let saved = "\(folder.path)/conversation.txt"
    let outcome = try squint(
      "chat", model, "--temperature", "0", "--max-tokens", "6",
      input: """
        /stats
        Hello

        /stats
        /save \(saved)
        /save
        /save \(folder.path)/no/such/folder
        /nonsense
        /reset
        Hello
        /quit
        Never asked
        """)
    #expect(outcome.status == 0)
    let answer = try squint("ask", model, "Hello", "--max-tokens", "6").text
    #expect(outcome.text == answer + answer)
    let lines = outcome.error.split(separator: "\n").map(String.init)
    #expect(lines.count == 5, "\(outcome.error)")
    #expect(lines.first == "no answer yet")
    #expect(lines[1].contains("tokens at"))
    #expect(lines[2].hasPrefix("squint: /save"))
    #expect(lines[3].hasPrefix("squint: \(folder.path)/no/such/folder"))
    #expect(lines[4].hasPrefix("squint: there is no /nonsense"))
    let text = try String(contentsOf: URL(fileURLWithPath: saved), encoding: .utf8)
    #expect(text == "user: Hello\nassistant: \(answer)")
  }

  @Test func chatRemembersAndGoesOnAfterAnError() throws {
    let outcome = try squint(
      "chat", model, "--temperature", "0", "--max-tokens", "4", "--context", "64",
      input: "Hello\n\(String(repeating: "a very long question ", count: 20))\n/stats\n")
    #expect(outcome.status == 0)
    #expect(outcome.error.contains("squint: the prompt has"))
    #expect(try outcome.text == squint("ask", model, "Hello", "--max-tokens", "4").text)
    // What was said before is part of the prompt, and is not computed again.
    let second = try squint(
      "chat", model, "--temperature", "0", "--max-tokens", "4", "--stats", "--system", "Be brief.", input: "Hi\nHi\n")
    #expect(second.error.split(separator: "\n").count { $0.contains("tokens at") } == 2)
  }

  // MARK: The file

  @Test func inspect() throws {
    let outcome = try squint("inspect", model, "--tensors")
    #expect(outcome.status == 0)
    #expect(outcome.error.isEmpty)
    for part in ["decoder.layers = 2", "decoder.0.attention.q", "bits per weight", "f32 × "] {
      #expect(outcome.text.contains(part), "\(part)")
    }
    let object = try squint("inspect", model, "--tensors", "--json").json()
    let file = try ModelFile(path: model)
    #expect(object["bytes"] as? Int == file.byteCount)
    #expect((object["tensors"] as? [[String: Any]])?.count == file.tensors.count)
    #expect((object["metadata"] as? [String: Any])?["decoder.layers"] as? Int == 2)
    let module = try #require((object["modules"] as? [[String: Any]])?.first)
    #expect(module["parameters"] as? Int == file.tensors.reduce(0) { $0 + $1.elementCount })
    #expect(try squint("inspect", model, "--json").json()["tensors"] == nil)
  }

  @Test func verify() throws {
    let outcome = try squint("verify", model)
    #expect(outcome.status == 0)
    #expect(outcome.error.isEmpty)
    #expect(outcome.text.hasSuffix("all right\n"))
  }

  @Test func plan() throws {
    let drawing = "\(folder.path)/plan.svg"
    let outcome = try squint("plan", model, "--context", "200", "--memory", "1G", "--svg", drawing)
    #expect(outcome.status == 0)
    #expect(outcome.error.isEmpty)
    for part in ["context of 200", "KV cache", "prefill", "decode", "fits: at most", "1024.0 MiB that are allowed"] {
      #expect(outcome.text.contains(part), "\(part)")
    }
    let svg = try String(contentsOf: URL(fileURLWithPath: drawing), encoding: .utf8)
    #expect(svg.hasPrefix("<svg") && svg.hasSuffix("</svg>\n"))
    #expect(isClosed(svg))
    let object = try squint("plan", model, "--context", "200", "--memory", "64M", "--json").json()
    #expect(object["context"] as? Int == 200)
    #expect(object["budget"] as? Int == 64 << 20)
    let phases = try #require(object["phases"] as? [[String: Any]])
    #expect(phases.map { $0["name"] as? String } == ["load", "prefill", "decode"])
    for phase in phases {
      let items = try #require(phase["items"] as? [String: Int])
      #expect(phase["bytes"] as? Int == items.values.reduce(0, +))
    }
    #expect(object["peak"] as? Int == phases.compactMap { $0["bytes"] as? Int }.max())
    #expect((object["arena"] as? [[String: Any]])?.isEmpty == false)
  }

  /// Whether every element that is opened is closed.
  private func isClosed(_ text: String) -> Bool {
    var open: [Substring] = []
    for tag in text.split(separator: "<").map({ $0.prefix { $0 != ">" } }) {
      if tag.hasPrefix("/") {
        guard open.popLast() == tag.dropFirst() else { return false }
      } else if !tag.hasSuffix("/") {
        open.append(tag.prefix { $0 != " " && $0 != "\n" })
      }
    }
    return open.isEmpty
  }

  @Test func bench() throws {
    let outcome = try squint("bench", model, "-p", "16", "-n", "4", "--rounds", "2", "--json", "--threads", "1")
    #expect(outcome.status == 0)
    #expect(outcome.error.isEmpty)
    let object = try outcome.json()
    for key in [
      "threads", "prompt_tokens", "generated_tokens", "prefill_tokens_per_second", "decode_tokens_per_second",
      "read_bytes_per_second", "decode_share_of_read_bandwidth", "int8_operations_per_second",
      "prefill_share_of_int8_rate", "peak_memory",
    ] { #expect((object[key] as? Double ?? 0) > 0, "\(key)") }
    #expect(object["isa"] is String)
    #expect(object["model"] is String)
  }

  // MARK: Tokens and logits

  @Test(arguments: ["llama-llama3", "qwen2-tied"]) func tokens(_ name: String) throws {
    let model = try folder.model(name)
    for test in try expected(name).texts {
      let ids = try squint("tokenize", model, "--", test.text)
      #expect(ids.text == test.ids.map(String.init).joined(separator: " ") + "\n", "\(test.text)")
      let object = try squint("tokenize", model, "--json", "--", test.text).json()
      #expect(object["ids"] as? [Int] == test.ids.map(Int.init))
      #expect((object["pieces"] as? [String])?.count == test.ids.count)
      let text = try squint(["detokenize", model] + test.ids.map(String.init))
      #expect(text.text == test.text + "\n")
    }
  }

  @Test(arguments: ["llama-llama3", "qwen2-tied"]) func logits(_ name: String) throws {
    let model = try folder.model(name)
    let output = "\(folder.path)/logits.npy"
    let outcome = try squint(["logits", model, "--kv", "f32", "-o", output, "--ids"] + ids(name).map(String.init))
    #expect(outcome.status == 0, "\(outcome.error)")
    #expect(outcome.output.isEmpty && outcome.error.isEmpty)
    let ours = try Data(contentsOf: URL(fileURLWithPath: output))
    let theirs = try Data(contentsOf: fixtures.appendingPathComponent("models/\(name)/logits.npy"))
    let headerBytes = 10 + Int(theirs[8]) + Int(theirs[9]) << 8
    #expect(ours.prefix(headerBytes) == theirs.prefix(headerBytes))
    #expect(ours.count == theirs.count)
    let difference = zip(floats(ours.dropFirst(headerBytes)), floats(theirs.dropFirst(headerBytes)))
      .map { abs($0 - $1) }.max()
    // The rounding of f32 alone, as in ParityTests.
    #expect(try #require(difference) < 1e-4)
  }

  @Test func logitsOfATextAreThoseOfItsTokens() throws {
    let test = try #require(try expected("llama-llama3").texts.first)
    let (a, b) = ("\(folder.path)/a.npy", "\(folder.path)/b.npy")
    #expect(try squint("logits", model, "--prompt", test.text, "-o", a).status == 0)
    #expect(try squint(["logits", model, "-o", b, "--ids"] + test.ids.map(String.init)).status == 0)
    #expect(try Data(contentsOf: URL(fileURLWithPath: a)) == Data(contentsOf: URL(fileURLWithPath: b)))
  }

  private func floats(_ data: Data) -> [Float] {
    [UInt8](data).withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) }
    }
  }

  // MARK: Help

  @Test func helpIsOnStandardOutput() throws {
    for arguments in [[], ["--help"], ["help"]] {
      let outcome = try squint(arguments)
      #expect(outcome.status == 0)
      #expect(outcome.error.isEmpty)
      for command in ["ask", "chat", "inspect", "verify", "plan", "bench", "tokenize", "detokenize", "logits", "trace"]
      {
        #expect(outcome.text.contains("\n  \(command) "), "\(command)")
      }
    }
    for command in ["ask", "chat", "inspect", "verify", "plan", "bench", "tokenize", "detokenize", "logits", "trace"] {
      let outcome = try squint(command, "--help")
      #expect(outcome.status == 0)
      #expect(outcome.text.contains("USAGE: squint \(command)"))
    }
    #expect(try squint("--version").text.hasPrefix("squint "))
  }
}
