import Foundation
import Squint
import SquintFile
import Testing

/// Files that unpack to far more than they are: whatever a command does with them, it stays within the memory that it was given,
/// from the first byte that it reads on, or refuses.
@Suite struct BudgetTests {
  private static let budget = 60 << 20
  private let folder: TemporaryFolder
  private let source: ModelFile

  init() throws {
    folder = try TemporaryFolder()
    source = try ModelFile(path: folder.model("llama-llama3"))
  }

  /// The fixture's model with other metadata.
  private func model(_ change: (inout ModelFilePlan) -> Void) throws -> String {
    let path = "\(folder.path)/changed.squint"
    var plan = try ModelFilePlan(source)
    change(&plan)
    try write(plan, from: source, to: path)
    return path
  }

  private func expectWithinBudget(_ path: String, refuses: Bool, sourceLocation: SourceLocation = #_sourceLocation)
    throws
  {
    for arguments in [["ask", path, "--max-tokens", "2", "hi"], ["plan", path], ["chat", path, "--max-tokens", "2"]] {
      let outcome = try measured(arguments + ["--memory", "60M"])
      #expect(
        outcome.status == (refuses ? 69 : 0), "\(arguments[0]): \(outcome.status)", sourceLocation: sourceLocation)
      #expect(
        outcome.peak <= Self.budget, "\(arguments[0]): \(grouped(outcome.peak)) bytes", sourceLocation: sourceLocation)
    }
  }

  /// What nobody asks for is passed over.
  @Test(arguments: ["junk", "tokenizer.junk"]) func unknownTextsTakeNothing(_ key: String) throws {
    let path = try model { $0.bulkMetadata[key] = .strings([String](repeating: "", count: 4 << 20)) }
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)).count < 200_000)
    try expectWithinBudget(path, refuses: false)
    for arguments in [["inspect", path], ["verify", path], ["tokenize", path, "hi"]] {
      let outcome = try measured(arguments)
      #expect(outcome.status == 0, "\(arguments)")
      #expect(outcome.peak <= Self.budget, "\(arguments[0]): \(grouped(outcome.peak)) bytes")
    }
  }

  /// Millions of texts are no added tokens, whatever is allowed.
  @Test func manyTextsAreRefused() throws {
    let path = try model {
      $0.bulkMetadata["tokenizer.added.contents"] = .strings([String](repeating: "", count: 4 << 20))
    }
    for command in ["plan", "ask", "tokenize"] {
      let outcome = try measured([command, path] + (command == "plan" ? [] : ["hi"]))
      #expect(outcome.status == 65 && outcome.peak <= Self.budget, "\(command): \(outcome)")
    }
  }

  /// What is asked for is refused before it is there: the tables of a vocabulary.
  @Test func knownKeysAreRefusedInTime() throws {
    let tokens = try model {
      let more = 4 << 20
      guard case .bytes(let lengths)? = $0.bulkMetadata["tokenizer.token_lengths"],
        case .bytes(let kinds)? = $0.bulkMetadata["tokenizer.token_kinds"]
      else { return }
      $0.bulkMetadata["tokenizer.token_lengths"] = .bytes(lengths + [UInt8](repeating: 0, count: 2 * more))
      $0.bulkMetadata["tokenizer.token_kinds"] = .bytes(kinds + [UInt8](repeating: 2, count: more))
    }
    try expectWithinBudget(tokens, refuses: true)
    #expect(try squint("ask", tokens, "--memory", "60M", "hi").error.contains("--memory"))
  }

  /// Tables of the front, which is small, are not small.
  @Test func theFrontCounts() throws {
    let path = try model { $0.metadata["junk"] = .strings([String](repeating: "", count: 400_000)) }
    try expectWithinBudget(path, refuses: false)
    #expect(try measured(["inspect", path]).peak <= Self.budget)
    #expect(try squint("ask", path, "--memory", "12M", "hi").status == 69)
  }

  @Test func manyAddedTokens() throws {
    func tokens(_ count: Int, _ bytes: Int) throws -> String {
      try model {
        let contents = (0..<count).map { String(repeating: "x", count: bytes - 8) + String(format: "%08d", $0) }
        $0.bulkMetadata["tokenizer.added.ids"] = .ints([Int64](repeating: 5, count: count))
        $0.bulkMetadata["tokenizer.added.contents"] = .strings(contents)
        $0.bulkMetadata["tokenizer.added.flags"] = .bytes([UInt8](repeating: 0, count: count))
      }
    }
    let many = try measured(["tokenize", tokens(60_000, 32), "hi"])
    #expect(many.status == 0 && many.peak < 200 << 20)
    #expect(many.seconds < 10)
    expectError(try squint("tokenize", tokens(70_000, 16), "hi"), 65, "added tokens")
    expectError(try squint("tokenize", tokens(30_000, 200), "hi"), 65, "tokenizer.added.contents")
  }

  // MARK: Metadata that plans take long for

  /// An image of a million tiles is no image, and no tile has a page of text before it.
  @Test(arguments: [
    ("image.tile", MetadataValue.int(1)), ("image.tile_prefix", .string(String(repeating: "{row}", count: 200_000))),
    ("image.token_text", .string(String(repeating: "x", count: 1_000_000))),
  ])
  func plansEnd(_ key: String, _ value: MetadataValue) throws {
    let seeing = try ModelFile(path: folder.seeingModel("smolvlm"))
    var plan = try ModelFilePlan(seeing)
    plan.metadata[key] = value
    if key == "image.tile" { plan.metadata["image.size"] = .ints([4096]) }
    let path = "\(folder.path)/tiles.squint"
    try write(plan, from: seeing, to: path)
    for arguments in [
      ["plan", path, "--chat"], ["plan", path, "--memory", "20M"],
      ["ask", path, "--image", fixtures.path + "/vision/pictures/wide.png", "What?", "--fit", "--max-tokens", "1"],
    ] {
      let outcome = try measured(arguments)
      #expect([0, 65, 69].contains(outcome.status), "\(arguments)")
      #expect(outcome.seconds < 20 && outcome.peak < 300 << 20, "\(arguments): \(outcome)")
    }
  }
}

/// What `plan` says of an image, `ask` takes at most, whatever the image is.
@Suite struct ImageBudgetTests {
  private let model: String
  private let folder: TemporaryFolder

  init() throws {
    folder = try TemporaryFolder()
    model = try folder.seeingModel("smolvlm-single")
  }

  @Test func imagesTakeWhatWasPlanned() throws {
    var asked = 0
    for name in try FileManager.default.contentsOfDirectory(atPath: fixtures.path + "/pictures").sorted() {
      guard [".jpg", ".png", ".webp"].contains(where: name.hasSuffix), !name.hasPrefix("refused") else { continue }
      let arguments = ["--image", fixtures.path + "/pictures/" + name, "--json"]
      let outcome = try squint(["ask", model, "What?", "--max-tokens", "1"] + arguments)
      #expect(outcome.status == 0, "\(name): \(outcome.error)")
      let memory = try #require(try outcome.json()["memory"] as? [String: Int])
      #expect(memory["peak"]! <= memory["planned"]!, "\(name)")
      asked += 1
      guard asked % 10 == 1 || name.hasPrefix("codes") else { continue }
      let planned = try #require(try squint(["plan", model] + arguments).json()["peak"] as? Int)
      #expect(memory["peak"]! <= planned, "\(name)")
    }
    #expect(asked >= 100)
  }

  /// Codes that unpack to more than is allowed are refused before they are unpacked.
  @Test func codesAreRefusedInTime() throws {
    for name in ["codes-lossless.webp", "codes-alpha.webp", "codes-animated.webp"] {
      let outcome = try measured([
        "ask", model, "--image", fixtures.path + "/pictures/" + name, "--memory", "60M", "--max-tokens", "1", "What?",
      ])
      #expect(outcome.status == 69, "\(name)")
      #expect(outcome.peak <= 60 << 20, "\(name)")
    }
  }
}

/// What a program took.
private struct Measured {
  let status: Int32
  /// The most that it held, in bytes.
  let peak: Int
  let seconds: Double
}

/// Runs `squint` to its end, and measures it: by way of a small process, since one begins with the peak of the process that it was
/// started by.
private func measured(_ arguments: [String]) throws -> Measured {
  let script = """
    import os, sys, time
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.execv(sys.argv[1], sys.argv[1:])
    status, usage = os.wait4(process, 0)[1:]
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, time.monotonic() - start)
    """
  let outcome = try RunningProgram(
    program: URL(fileURLWithPath: "/usr/bin/env"), ["python3", "-c", script, RunningProgram.squint.path] + arguments
  ).finish()
  let numbers = outcome.text.split { $0.isWhitespace }
  try #require(numbers.count == 3, "\(outcome.error)")
  return Measured(status: Int32(numbers[0])!, peak: Int(numbers[1])!, seconds: Double(numbers[2])!)
}
