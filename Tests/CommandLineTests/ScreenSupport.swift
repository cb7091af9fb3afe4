import Foundation
import Testing

/// What a person does at a terminal, one thing after the other.
enum Step {
  /// Waits until the text is on the screen.
  case wait(String)
  /// Waits until the line with the cursor is this text.
  case prompt(String)
  case type(String)
  case signal(Int32)
  case resize(Int, Int)
  case sleep(Double)
  /// Keeps the screen under a name.
  case look(String)

  static let enter = Step.type("\r")
  static let controlC = Step.type("\u{3}")
  static let controlD = Step.type("\u{4}")

  /// Types a line and sends it.
  static func line(_ text: String) -> Step { .type(text + "\r") }

  fileprivate var object: [String: Any] {
    switch self {
    case .wait(let text): ["wait": text]
    case .prompt(let text): ["prompt": text]
    case .type(let text): ["send": text]
    case .signal(let number): ["signal": Int(number)]
    case .resize(let columns, let rows): ["resize": [columns, rows]]
    case .sleep(let seconds): ["sleep": seconds]
    case .look(let name): ["look": name]
    }
  }
}

/// What a person saw of a program that ran in a terminal, from its beginning to its end (tools/screen.py).
struct Screen: Decodable {
  let status: Int32
  /// All that is on the screen or was scrolled away, without the spaces at the lines' ends.
  let lines: [String]
  /// The screen of a second terminal.
  let other: [String]
  let looks: [String: [String]]
  /// Every state in which the line with the cursor was.
  let statuses: [String]
  let cursor: [Int]
  let hidden: Bool
  /// Whether the terminal has the modes that it had before.
  let restored: Bool
  /// What was written to the terminal.
  let bytes: String
  /// Whether every wait came to its end.
  let waited: Bool
  let seconds: Double

  var text: String { lines.joined(separator: "\n") }

  /// The text without white space: where lines were wrapped does not matter.
  var squeezed: String { text.squeezed }

  /// Expects what every program leaves: modes and cursor as they were, and the next prompt on a line of its own.
  func expectClean(_ status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(self.status == status, "\(text)", sourceLocation: sourceLocation)
    #expect(waited, "\(text)", sourceLocation: sourceLocation)
    #expect(restored && !hidden, sourceLocation: sourceLocation)
    #expect(cursor == [0, lines.count], "\(text)", sourceLocation: sourceLocation)
  }

  /// Where the standard streams are.
  enum Place {
    case terminal
    /// A second terminal.
    case other
    case file(String)

    fileprivate var name: String {
      switch self {
      case .terminal: "terminal"
      case .other: "other"
      case .file(let path): path
      }
    }
  }

  /// Runs `program` in a terminal of its own.
  static func run(
    program: URL = RunningProgram.squint, _ arguments: [String], columns: Int = 80, rows: Int = 24,
    environment: [String: String?] = [:], stdin: Place = .terminal, stdout: Place = .terminal,
    stderr: Place = .terminal, _ steps: [Step] = []
  ) throws -> Screen {
    var variables: [String: Any] = ["TERM": "xterm", "NO_COLOR": NSNull(), "COLUMNS": NSNull(), "LC_ALL": "C.UTF-8"]
    for (name, value) in environment { variables[name] = value ?? NSNull() }
    let order: [String: Any] = [
      "arguments": [program.path] + arguments, "environment": variables, "columns": columns, "rows": rows,
      "stdin": stdin.name, "stdout": stdout.name, "stderr": stderr.name, "steps": steps.map(\.object), "seconds": 30,
    ]
    let python = try #require(Self.python, "tools/setup --tests installs what this needs")
    let outcome = try RunningProgram(program: URL(fileURLWithPath: "/usr/bin/env"), [python, Self.script])
      .finish(String(decoding: JSONSerialization.data(withJSONObject: order), as: UTF8.self))
    try #require(outcome.status == 0, "\(outcome.error)")
    return try JSONDecoder().decode(Screen.self, from: outcome.output)
  }

  private static let repository = fixtures.deletingLastPathComponent().deletingLastPathComponent()
  private static let script = repository.appendingPathComponent("tools/screen.py").path

  /// The first Python that has the packages: `SQUINT_PYTHON`, the one that tools/test makes, the system's.
  static let python: String? = [
    ProcessInfo.processInfo.environment["SQUINT_PYTHON"],
    repository.appendingPathComponent(".tools/venv/bin/python3").path,
    "python3",
  ].compactMap(\.self).first { candidate in
    let program = try? RunningProgram(program: URL(fileURLWithPath: "/usr/bin/env"), [candidate, "-c", "import pyte"])
    return program?.finish().status == 0
  }
}

extension String {
  /// Without white space.
  var squeezed: String { filter { !$0.isWhitespace } }
}

/// Makes a PNG in the folder `folder` that takes seconds to decode: 256 megapixels, all black.
func largeImage(in folder: String) throws -> String {
  let path = "\(folder)/large.png"
  let code = """
    import struct, sys, zlib
    side = 16000
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    with open(sys.argv[1], "wb") as file:
        file.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side), 1)) + chunk(b"IEND", b""))
    """
  let python = try #require(Screen.python)
  let outcome = try RunningProgram(program: URL(fileURLWithPath: "/usr/bin/env"), [python, "-c", code, path]).finish()
  try #require(outcome.status == 0, "\(outcome.error)")
  return path
}
