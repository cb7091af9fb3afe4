import Foundation
import Squint
import Testing

/// `squint trace`: what each step of each layer gives.
@Suite struct TraceCommandTests {
  private func npy(_ path: String) throws -> (header: String, numbers: [Float]) {
    let data = try Data(contentsOf: URL(fileURLWithPath: path))
    let length = 10 + Int(data[8]) + Int(data[9]) << 8
    let numbers = data[length...].withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }
    return (String(decoding: data[10..<length], as: UTF8.self), numbers)
  }

  /// Every graph: a file for each step, as long as the prompt, the last of which are the logits of `squint logits`.
  @Test(arguments: ["llama-gqa", "gemma3-linear", "lfm2-biases"]) func stepsOfEveryLayer(_ name: String) throws {
    let folder = try TemporaryFolder()
    let model = try folder.model(name)
    let ids = ["5", "17", "42", "9", "30"]
    let steps = "\(folder.path)/steps"
    #expect(try squint(["trace", model, "-o", steps, "--ids"] + ids).status == 0)
    #expect(try squint(["logits", model, "-o", "\(folder.path)/logits.npy", "--ids"] + ids).status == 0)
    let traced = try npy("\(steps)/decoder.logits.npy")
    #expect(try traced.numbers == npy("\(folder.path)/logits.npy").numbers)
    #expect(traced.header.contains("(5, "))
    let files = try FileManager.default.contentsOfDirectory(atPath: steps)
    for step in ["input", "0.ffn.norm", "0.ffn", "1.ffn", "norm"] { #expect(files.contains("decoder.\(step).npy")) }
    let isConvolution = files.contains("decoder.1.convolution.npy")
    #expect(isConvolution == (name == "lfm2-biases"))
    #expect(files.contains("decoder.0.attention.post_norm.npy") == (name == "gemma3-linear"))
    for file in files where file.hasSuffix(".npy") {
      let (header, numbers) = try npy("\(steps)/\(file)")
      #expect(header.contains("(5, "), "\(file): \(header)")
      #expect(numbers.count % 5 == 0 && !numbers.isEmpty)
    }
    #expect(try String(contentsOfFile: "\(steps)/ids.json", encoding: .utf8) == "[5, 17, 42, 9, 30]\n")
  }

  /// With an image, what its encoder and projector do as well.
  @Test func anEncoder() throws {
    let folder = try TemporaryFolder()
    let image = fixtures.appendingPathComponent("vision/pictures/square.png").path
    let steps = "\(folder.path)/steps"
    #expect(try squint("trace", "--image", image, "--prompt", "What?", "-o", steps).status == 0)
    let files = try FileManager.default.contentsOfDirectory(atPath: steps)
    for step in ["encoder.image.input", "encoder.image.0.attention", "projector.image.rows", "decoder.logits"] {
      #expect(files.contains("\(step).npy"))
    }
  }

  @Test func whatIsWrongIsSaid() throws {
    let folder = try TemporaryFolder()
    let model = try folder.model("llama-gqa")
    let file = try folder.write("file", [1])
    let outcome = try squint("trace", model, "--ids", "1", "-o", file)
    #expect(outcome.status == 73)
    #expect(outcome.error.contains("there is a file of this name"))
    #expect(try squint("trace", model, "-o", "\(folder.path)/x").status == 64)
  }

  /// Few files may be open at a time, and it is stopped: nothing half-written stays.
  @Test func nothingHalfWrittenStays() throws {
    let folder = try TemporaryFolder()
    let model = try folder.talkativeModel()
    let steps = "\(folder.path)/steps"
    let line = "ulimit -Sn 16; exec \"$1\" trace \"$2\" --context 60000 -o \"$3\" --ids $(seq 1 100 | tr '\\n' ' ')"
    #expect(try shell(line, [RunningProgram.squint.path, model, steps]).status == 0)
    try FileManager.default.removeItem(atPath: steps)
    let program = try RunningProgram(
      ["trace", model, "--context", "60000", "-o", steps, "--ids"] + (0..<20_000).map { "\($0 % 50)" },
      signals: [SIGINT])
    let deadline = Date().addingTimeInterval(60)
    func files() -> [String] { (try? FileManager.default.contentsOfDirectory(atPath: steps)) ?? [] }
    while files().count < 10, program.process.isRunning, Date() < deadline { usleep(2_000) }
    kill(program.process.processIdentifier, SIGINT)
    #expect(program.finish().status == 130)
    #expect(files().allSatisfy { !$0.contains("partial") })
  }
}
