import Foundation
import SquintFile
import Testing

/// `squint-convert` as a script meets it: exit codes, what is on stdout, one line on stderr, no leftovers.
@Suite struct ConvertCommandTests {
  private struct Outcome {
    let status: Int32
    let output: String
    let error: String
  }

  private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Fixtures")
  private let model = fixtures.appendingPathComponent("models/llama-gqa").path
  private let quantized = fixtures.appendingPathComponent("conversion/quantized.gguf").path

  /// The program beside the tests.
  private static var program: URL {
    URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent()
      .appendingPathComponent("squint-convert")
  }

  private func start(_ arguments: [String]) throws -> (process: Process, output: Pipe, error: Pipe) {
    let process = Process()
    let output = Pipe()
    let error = Pipe()
    process.executableURL = Self.program
    process.arguments = arguments
    process.standardOutput = output
    process.standardError = error
    process.standardInput = FileHandle.nullDevice
    try process.run()
    return (process, output, error)
  }

  private func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

  private func run(_ arguments: [String]) throws -> Outcome {
    let (process, output, error) = try start(arguments)
    // Neither may fill its pipe while we wait for the other: the tables are small.
    let outputText = output.fileHandleForReading.readDataToEndOfFile()
    let errorText = error.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Outcome(
      status: process.terminationStatus, output: String(decoding: outputText, as: UTF8.self),
      error: String(decoding: errorText, as: UTF8.self))
  }

  private func withFolder(_ body: (String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-convert-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try body(folder.path)
  }

  private func contents(of folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
  }

  @Test func convertsAndEndsWithTheTable() throws {
    try withFolder { folder in
      let outcome = try run(quantized, "-o", "\(folder)/m.squint")
      #expect(outcome.status == 0)
      for part in [
        "module", "parameters", "bits/weight", "decoder", "int4_f16", "relative RMSE", "exact", "bounded by",
      ] {
        #expect(outcome.output.contains(part), "\(part)")
      }
      // The fixture has no tokenizer; a terminal's bar is not for pipes.
      #expect(outcome.error.hasPrefix("squint-convert: note: "))
      #expect(!outcome.error.contains("\u{1B}"))
      #expect(try contents(of: folder) == ["m.squint"])
      try ModelFile(path: "\(folder)/m.squint").verify()
    }
  }

  @Test func jsonIsTheTable() throws {
    try withFolder { folder in
      let outcome = try run(model, "-o", "\(folder)/m.squint", "--type", "int8", "--json")
      #expect(outcome.status == 0)
      let object = try #require(
        try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
      let file = try ModelFile(path: "\(folder)/m.squint")
      #expect(object["bytes"] as? Int == file.byteCount)
      let module = try #require((object["modules"] as? [[String: Any]])?.first)
      #expect(module["name"] as? String == "decoder")
      #expect(module["parameters"] as? Int == file.tensors.reduce(0) { $0 + $1.elementCount })
      let types = try #require(object["types"] as? [[String: Any]])
      let int8 = try #require(types.first { $0["type"] as? String == "int8" })
      let error = try #require(int8["relative_rmse"] as? Double)
      #expect(error > 0 && error < 0.01)
      #expect((object["timings"] as? [String: Any])?["bounded_by"] is String)
    }
  }

  @Test func aDryRunWritesNothing() throws {
    try withFolder { folder in
      let outcome = try run(quantized, "--dry-run", "-o", "\(folder)/m.squint")
      #expect(outcome.status == 0)
      #expect(outcome.output.contains("decoder.0.attention.q"))
      #expect(outcome.output.contains("blk.0.attn_q.weight Q4_K"))
      #expect(try contents(of: folder).isEmpty)
      let json = try run(model, "--dry-run", "--json")
      let object = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
      #expect((object["tensors"] as? [[String: Any]])?.count == 21)
    }
  }

  @Test func helpAndVersion() throws {
    let help = try run("--help")
    #expect(help.status == 0)
    for option in [
      "--type", "--decoder-type", "--encoder-type", "--projector-type", "--embedding-type", "--keep", "--no-keep",
      "--dry-run", "--jobs", "--allow-unmapped", "--json", "-o", "--decoder", "--encoder", "--projector",
      "--adapter", "--image-fit", "stretch",
    ] { #expect(help.output.contains(option), "\(option)") }
    let version = try run("--version")
    #expect(version.status == 0)
    #expect(version.output.hasPrefix("squint-convert 0."))
  }

  @Test func exitCodes() throws {
    try withFolder { folder in
      let out = "\(folder)/out.squint"
      #expect(try run().status == 64)
      #expect(try run(model).status == 64)
      #expect(try run(model, "-o", out, "--type", "int3").status == 64)
      #expect(try run(model, "-o", out, "--jobs", "0").status == 64)
      #expect(try run(model, "-o", out, "--no-such-option").status == 64)
      #expect(try run(quantized, "-o", quantized).status == 64)

      try Data("{".utf8).write(to: URL(fileURLWithPath: "\(folder)/config.json"))
      let broken = try run(folder, "-o", out)
      #expect(broken.status == 65)
      #expect(broken.error.hasPrefix("squint-convert: \(folder)/config.json: line 1, column 2"))
      #expect(broken.error.filter { $0 == "\n" }.count == 1)
      #expect(broken.output.isEmpty)

      let missing = try run("\(folder)/nothing", "-o", out)
      #expect(missing.status == 66)
      #expect(missing.error == "squint-convert: \(folder)/nothing: No such file or directory\n")

      #expect(try run(model, "-o", "\(folder)/no/such/out.squint").status == 73)
      #expect(try run(model, "-o", folder).status == 73)
      #expect(try contents(of: folder) == ["config.json"])
    }
  }

  @Test func partsOnTheCommandLine() throws {
    let parts = Self.fixtures.appendingPathComponent("vision/parts").path
    let original = Self.fixtures.appendingPathComponent("vision/original-linear").path
    try withFolder { folder in
      let out = "\(folder)/m.squint"
      let assembled = try run(
        "--decoder", "\(parts)/decoder", "--encoder", "image=\(parts)/tower", "--projector",
        "image=\(parts)/projector.safetensors", "-o", out, "--json")
      #expect(assembled.status == 0)
      let object = try #require(try JSONSerialization.jsonObject(with: Data(assembled.output.utf8)) as? [String: Any])
      let modules = try #require(object["modules"] as? [[String: Any]])
      #expect(modules.compactMap { $0["name"] as? String } == ["encoder.image", "projector.image", "decoder"])
      try ModelFile(path: out).verify()
      let plan = try run("\(original)/checkpoint", "--encoder", "image=\(original)/tower", "--dry-run")
      #expect(plan.status == 0)
      for part in ["encoder.image.positions", "projector.image.0", "decoder.0.ffn.up", "encoder.image  "] {
        #expect(plan.output.contains(part), "\(part)")
      }

      let missing = try run("\(original)/checkpoint", "-o", out)
      #expect(missing.status == 65)
      #expect(missing.error.contains("openai/clip-vit-large-patch14-336"))
      for arguments in [
        ["--dry-run"], [model, "--encoder", "image", "--dry-run"], [model, "--encoder", "image=", "--dry-run"],
        [model, "--projector", "=x", "--dry-run"], [model, "--projector", "Image=x", "--dry-run"],
        [model, "--encoder", "image=a", "--encoder", "image=b", "--dry-run"],
        [model, "--encoder", "image=\(parts)/tower", "--dry-run"],
        [model, "--projector", "image=\(parts)/projector.safetensors", "--dry-run"],
      ] {
        let outcome = try run(arguments)
        #expect(outcome.status == 64, "\(arguments)")
        #expect(outcome.error.filter { $0 == "\n" }.count == 1, "\(arguments)")
      }
      #expect(try run(model, "--encoder", "image=\(folder)/none", "--dry-run").status == 66)
      #expect(try run("--decoder", "\(folder)/none", "--dry-run").status == 66)
    }
  }

  @Test func adaptersOnTheCommandLine() throws {
    let adapters = Self.fixtures.appendingPathComponent("adapters").path
    let source = Self.fixtures.appendingPathComponent("conversion/llama-biases.gguf").path
    try withFolder { folder in
      let out = "\(folder)/m.squint"
      let plan = try run(source, "--adapter", "\(adapters)/patterns", "--dry-run")
      #expect(plan.status == 0)
      #expect(plan.output.contains("blk.1.ffn_down.weight F32"))
      #expect(plan.output.split(separator: "\n").filter { $0.hasSuffix("adapter of rank 2 merged") }.count == 2)
      #expect(plan.output.split(separator: "\n").filter { $0.hasSuffix("adapter of rank 6 merged") }.count == 1)
      let json = try run(source, "--adapter", "\(adapters)/patterns", "--dry-run", "--json")
      let object = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
      let ranks = try #require(object["tensors"] as? [[String: Any]]).compactMap { $0["adapter_rank"] as? Int }
      #expect(ranks.count == 15)

      #expect(try run(source, "--adapter", "\(adapters)/patterns", "-o", out).status == 0)
      #expect(
        try ModelFile(path: out).metadata.string("general.source").hasSuffix(
          "; adapter patterns merged (LoRA, rank 2 to 6, 15 matrices)"))
      // Over the source: an adapter's file is one.
      let weights = "\(folder)/a/adapter_model.safetensors"
      try FileManager.default.copyItem(atPath: "\(adapters)/patterns", toPath: "\(folder)/a")
      #expect(try run(source, "--adapter", "\(folder)/a", "-o", weights).status == 64)

      for (arguments, status) in [
        ([model, "--adapter", "\(adapters)/patterns", "-o", out], 65),
        ([source, "--adapter", "\(folder)/none", "-o", out], 66),
        ([source, "--adapter", folder, "-o", out], 66), ([source, "--adapter", model, "-o", out], 66),
        (["\(adapters)/patterns", "-o", out], 65),
      ] as [([String], Int32)] {
        let outcome = try run(arguments)
        #expect(outcome.status == status, "\(arguments)")
        #expect(outcome.error.filter { $0 == "\n" }.count == 1, "\(arguments)")
      }
    }
  }

  /// Whatever signal ends it: no half of a file stays. What SIGKILL leaves, the next conversion to the same file removes.
  @Test(arguments: [SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT, SIGXCPU, SIGKILL])
  func aSignalLeavesNothing(signal: Int32) throws {
    try withFolder { folder in
      let source = try sparseCheckpoint(in: folder)
      let output = "\(folder)/output"
      try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
      // The threads that tests run on block signals, which a child would inherit.
      var signals = sigset_t()
      sigemptyset(&signals)
      sigaddset(&signals, signal)
      var before = sigset_t()
      pthread_sigmask(SIG_UNBLOCK, &signals, &before)
      defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
      let (process, _, error) = try start([source, "-o", "\(output)/m.squint", "--embedding-type", "int4"])
      let deadline = Date().addingTimeInterval(60)
      while try contents(of: output).isEmpty && process.isRunning && Date() < deadline { usleep(2_000) }
      #expect(try contents(of: output).first?.hasPrefix("m.squint.partial-") == true)
      kill(process.processIdentifier, signal)
      process.waitUntilExit()
      // Those that people send are an exit as shells expect it; others end it as they do.
      let isExit = [SIGINT, SIGTERM, SIGHUP].contains(signal)
      #expect(process.terminationReason == (isExit ? .exit : .uncaughtSignal))
      #expect(process.terminationStatus == (isExit ? 128 + signal : signal))
      let left = try contents(of: output)
      #expect(left.count == (signal == SIGKILL ? 1 : 0), "\(left)")
      #expect(error.fileHandleForReading.readDataToEndOfFile().isEmpty)
      #expect(try run(model, "-o", "\(output)/m.squint").status == 0)
      #expect(try contents(of: output) == ["m.squint"])
    }
  }
}

/// Makes a checkpoint in the folder `folder` that takes seconds to quantize: zeros in a sparse file, which is quick to make.
func sparseCheckpoint(in folder: String, rows: Int = 400_000) throws -> String {
  let source = "\(folder)/source"
  try FileManager.default.createDirectory(atPath: source, withIntermediateDirectories: true)
  let width = 512
  try Data(
    #"{"model_type": "llama", "vocab_size": \#(rows), "hidden_size": \#(width), "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 8, "tie_word_embeddings": true}"#
      .utf8
  ).write(to: URL(fileURLWithPath: "\(source)/config.json"))
  var offset = 0
  var entries: [String] = []
  for (name, shape) in [
    ("embed_tokens", [rows, width]), ("norm", [width]), ("layers.0.input_layernorm", [width]),
    ("layers.0.post_attention_layernorm", [width]), ("layers.0.self_attn.q_proj", [width, width]),
    ("layers.0.self_attn.k_proj", [width, width]), ("layers.0.self_attn.v_proj", [width, width]),
    ("layers.0.self_attn.o_proj", [width, width]), ("layers.0.mlp.gate_proj", [32, width]),
    ("layers.0.mlp.up_proj", [32, width]), ("layers.0.mlp.down_proj", [width, 32]),
  ] {
    let bytes = 2 * shape.reduce(1, *)
    entries.append(
      #""model.\#(name).weight": {"dtype": "BF16", "shape": \#(shape), "data_offsets": [\#(offset), \#(offset + bytes)]}"#
    )
    offset += bytes
  }
  let header = Data("{\(entries.joined(separator: ", "))}".utf8)
  let path = "\(source)/model.safetensors"
  try (withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) } + header)
    .write(to: URL(fileURLWithPath: path))
  #expect(truncate(path, off_t(8 + header.count + offset)) == 0)
  return source
}
