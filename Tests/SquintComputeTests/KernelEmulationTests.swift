import Foundation
import SquintCompute
import SquintFile
import Testing

/// The AArch64 kernels on another machine: built with the cross compiler, run under qemu's user-mode emulation.
@Suite struct KernelEmulationTests {
  static let compiler = "aarch64-linux-gnu-gcc"
  static let emulator = "qemu-aarch64-static"
  static let hasTools = find(compiler) != nil && find(emulator) != nil
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// The path of a program, or nil where there is none.
  static func find(_ program: String) -> String? {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(program)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// Runs a program; its standard output. An exit code other than 0 is an error.
  static func run(_ program: String, _ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try #require(find(program)))
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(program) \(arguments)")
    return String(decoding: data, as: UTF8.self)
  }

  /// Calls `body` with the harness, built in a folder that is removed afterwards.
  static func withHarness(_ body: (_ folder: URL, _ harness: String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kernels-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let sources = root.appendingPathComponent("Sources/CKernels")
    let files = try FileManager.default.contentsOfDirectory(atPath: sources.path).filter { $0.hasSuffix(".c") }
    let harness = folder.appendingPathComponent("harness").path
    _ = try run(
      compiler,
      ["-std=c11", "-O2", "-static", "-I", sources.appendingPathComponent("include").path]
        + files.map { sources.appendingPathComponent($0).path }
        + [root.appendingPathComponent("tools/kernels/harness.c").path, "-lm", "-o", harness])
    try body(folder, harness)
  }

  static var cases: [KernelCase] {
    var cases: [KernelCase] = []
    for type in quantizedTypes {
      for (rows, columns) in [(1, 31), (15, 33), (17, 100), (40, 576), (16, 288)] {
        for tokens in [1, 2, 3, 4, 7, 17] {
          cases.append(
            productCase(
              type, ProductShape(rows: rows, columns: columns, tokens: tokens), accumulate: tokens % 2 == 0,
              seed: UInt64(rows * 1000 + tokens)))
        }
      }
      for extremes in [Extremes.largest, .lowest] {
        for tokens in [1, 2, 5] {
          let shape = ProductShape(rows: 33, columns: 320, tokens: tokens)
          cases.append(productCase(type, shape, extremes: extremes, seed: 3))
        }
      }
      cases.append(productCase(type, ProductShape(rows: 17, columns: 100, tokens: 300), panels: 1..<2, seed: 4))
    }
    for type in [ElementType.f32, .f16, .bf16] {
      for (rows, columns, tokens) in [(1, 1, 1), (17, 100, 1), (10, 33, 5), (9, 576, 35)] {
        cases.append(plainProductCase(type, ProductShape(rows: rows, columns: columns, tokens: tokens), seed: 2))
      }
    }
    return cases + quantizeCases(isARM: true) + packCases() + activationCases() + attentionCases()
  }

  @Test(
    .enabled(if: hasTools, "the AArch64 kernels need aarch64-linux-gnu-gcc and qemu-aarch64-static to run here"),
    .timeLimit(.minutes(5)))
  func emulatedKernelsEqualReference() throws {
    try Self.withHarness { folder, harness in
      let detected = [
        "max": ["i8mm", "dotprod", "neon", "generic"], "cortex-a76": ["dotprod", "neon", "generic"],
        "cortex-a72": ["neon", "generic"],
      ]
      for (cpu, names) in detected {
        let printed = try Self.run(Self.emulator, ["-cpu", cpu, harness])
        #expect(printed.split(separator: "\n").map(String.init) == names)
      }

      let cases = Self.cases
      let input = folder.appendingPathComponent("cases").path
      let output = folder.appendingPathComponent("outputs").path
      try Data(cases.flatMap(\.encoded)).write(to: URL(fileURLWithPath: input))
      for name in ["neon", "dotprod", "i8mm"] {
        _ = try Self.run(Self.emulator, ["-cpu", "max", harness, name, input, output])
        let results = [UInt8](try Data(contentsOf: URL(fileURLWithPath: output)))
        var offset = 0
        var found: [String] = []
        for kernelCase in cases {
          let outputs = kernelCase.outputs.map { buffer in
            defer { offset += buffer.count }
            return [UInt8](results[offset..<offset + buffer.count])
          }
          if let complaint = kernelCase.verdict(outputs) { found.append("\(name): \(complaint)") }
        }
        #expect(offset == results.count)
        #expect(found.prefix(5) == [])
      }
    }
  }
}
