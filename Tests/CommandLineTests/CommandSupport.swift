import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// Where the fixtures are.
let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures")

/// A folder that is removed when its owner goes.
final class TemporaryFolder {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("squint-command-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  var contents: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() }

  /// Writes `bytes` to the file `name` here and returns its path.
  func write(_ name: String, _ bytes: some Sequence<UInt8>) throws -> String {
    let file = "\(path)/\(name)"
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    return file
  }

  /// The checkpoint `Tests/Fixtures/models/NAME`, converted into this folder.
  func model(_ name: String, _ type: ElementType = .f32) throws -> String {
    let file = "\(path)/\(name)-\(type.name).squint"
    var options = ConversionOptions()
    options.type = type
    options.jobs = 1
    _ = try convert(source: fixtures.appendingPathComponent("models/\(name)").path, to: file, options: options)
    return file
  }

  /// A model of random weights that never ends an answer by itself, and takes a while to read a long prompt.
  func talkativeModel() throws -> String {
    let file = try ModelFile(path: model("llama-llama3"))
    var plan = try ModelFilePlan(file)
    plan.metadata["decoder.context"] = .int(1 << 20)
    plan.metadata["generation.stop_tokens"] = nil
    // Tokens that end a turn by their text are never the most probable ones.
    let head = try #require(file.tensor("decoder.head") ?? file.tensor("decoder.embedding"))
    var rows = [UInt8](file.bytes(of: head))
    let stride = head.shape[1] * MemoryLayout<Float>.stride
    for token in try Model(path: file.path).stopTokens {
      for offset in Int(token) * stride..<(Int(token) + 1) * stride { rows[offset] = 0 }
    }
    let path = "\(path)/talkative.squint"
    try CommandLineTests.write(plan, from: file, contents: [head.name: rows], to: path)
    return path
  }
}

/// What a program left behind.
struct Outcome {
  let status: Int32
  let output: Data
  let error: String
  let seconds: Double

  var text: String { String(decoding: output, as: UTF8.self) }

  /// stdout as one JSON object.
  func json() throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: output) as? [String: Any])
  }
}

/// A program that runs as a process of its own.
final class RunningProgram {
  let process = Process()
  let input = Pipe()
  let output = Pipe()
  let error = Pipe()
  private let begin = Date()

  /// A program that ends before it has read its stdin must not end the tests.
  private static let ignoresClosedPipes: Void = { _ = signal(SIGPIPE, SIG_IGN) }()

  /// The program beside the tests.
  static let squint = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
    .deletingLastPathComponent().appendingPathComponent("squint")

  /// Starts `program`.
  ///
  /// - Parameter signals: what the program must not inherit as blocked; the threads that tests run on block signals.
  init(
    program: URL = RunningProgram.squint, _ arguments: [String], environment: [String: String] = [:],
    signals: [Int32] = []
  ) throws {
    _ = Self.ignoresClosedPipes
    process.executableURL = program
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = output
    process.standardError = error
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    var set = sigset_t()
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal) }
    var before = sigset_t()
    pthread_sigmask(SIG_UNBLOCK, &set, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    try process.run()
  }

  /// Hands it `text` on stdin, waits for its end, and collects what it wrote.
  func finish(_ text: String? = nil) -> Outcome {
    // Each pipe is read on a thread of its own, so that none fills up while another is waited for.
    let collected = Collected()
    let group = DispatchGroup()
    for (index, pipe) in [output, error].enumerated() {
      DispatchQueue.global().async(group: group) {
        collected.set(index, pipe.fileHandleForReading.readDataToEndOfFile())
      }
    }
    if let text { try? input.fileHandleForWriting.write(contentsOf: Data(text.utf8)) }
    try? input.fileHandleForWriting.close()
    group.wait()
    process.waitUntilExit()
    // As a shell tells it: 128 + the signal.
    let status = process.terminationStatus + (process.terminationReason == .exit ? 0 : 128)
    return Outcome(
      status: status, output: collected.data[0], error: String(decoding: collected.data[1], as: UTF8.self),
      seconds: Date().timeIntervalSince(begin))
  }

  private final class Collected: @unchecked Sendable {
    private let lock = NSLock()
    private(set) var data = [Data(), Data()]

    func set(_ index: Int, _ more: Data) { lock.withLock { data[index] = more } }
  }
}

/// Runs `squint` to its end.
func squint(
  _ arguments: String..., input: String? = nil, environment: [String: String] = [:]
) throws -> Outcome {
  try RunningProgram(arguments, environment: environment).finish(input)
}

func squint(
  _ arguments: [String], input: String? = nil, environment: [String: String] = [:]
) throws -> Outcome {
  try RunningProgram(arguments, environment: environment).finish(input)
}

/// Runs a line of shell, in which `$SQUINT` is the program.
func shell(_ line: String, _ arguments: [String] = []) throws -> Outcome {
  try RunningProgram(
    program: URL(fileURLWithPath: "/bin/sh"), ["-c", line, "sh"] + arguments,
    environment: ["SQUINT": RunningProgram.squint.path]
  ).finish()
}

/// Expects what the contract says of every error: its code, one line on stderr that holds `parts`, nothing on stdout.
func expectError(
  _ outcome: Outcome, _ status: Int32, _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(outcome.status == status, "\(outcome.error)", sourceLocation: sourceLocation)
  #expect(outcome.error.hasPrefix("squint: "), "\(outcome.error)", sourceLocation: sourceLocation)
  #expect(outcome.error.filter { $0 == "\n" }.count == 1, "\(outcome.error)", sourceLocation: sourceLocation)
  #expect(outcome.error.hasSuffix("\n"), sourceLocation: sourceLocation)
  #expect(outcome.output.isEmpty, "\(outcome.text)", sourceLocation: sourceLocation)
  for part in parts {
    #expect(outcome.error.contains(part), "\(part) in \(outcome.error)", sourceLocation: sourceLocation)
  }
}

extension ModelFilePlan {
  /// What `file` holds, to be written again with changes.
  init(_ file: ModelFile) throws(SquintError) {
    self.init()
    metadata = file.metadata
    bulkMetadata = try file.bulkMetadata()
    modules = file.modules.enumerated().map { index, module in
      Module(
        name: module.name,
        tensors: file.tensors.filter { $0.module == index }.map {
          Tensor(name: $0.name, type: $0.type, shape: $0.shape)
        })
    }
  }
}

/// Writes `plan` with sound checksums: the bytes of the tensors of `source` as far as they go, zeros behind them.
///
/// - Parameter contents: other bytes for some tensors.
func write(
  _ plan: ModelFilePlan, from source: ModelFile, contents: [String: [UInt8]] = [:], to path: String
) throws(SquintError) {
  let writer = try ModelFileWriter(path: path, plan: plan)
  for (index, tensor) in plan.modules.flatMap(\.tensors).enumerated() {
    var bytes = contents[tensor.name] ?? source.tensor(tensor.name).map { [UInt8](source.bytes(of: $0)) } ?? []
    let count = tensor.type.byteCount(shape: tensor.shape)!
    bytes = Array(bytes.prefix(count)) + [UInt8](repeating: 0, count: max(count - bytes.count, 0))
    try bytes.withBytes { (bytes) throws(SquintError) in try writer.append(bytes, toTensor: index) }
  }
  try writer.finish()
}
