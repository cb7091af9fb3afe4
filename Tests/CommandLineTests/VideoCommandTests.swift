import Foundation
import SquintFile
import Testing

/// Videos on the command line: what is written, and what is refused.
@Suite struct VideoCommandTests {
  private static let frames = fixtures.appendingPathComponent("videos/frames").path
  private static let clip = fixtures.appendingPathComponent("videos/lossless.webp").path
  private let folder: TemporaryFolder
  private let model: String

  /// SmolVLM's fixture, with frames of one tile of its size.
  init() throws {
    folder = try TemporaryFolder()
    model = "\(folder.path)/video.squint"
    let file = try ModelFile(path: folder.seeingModel("smolvlm"))
    var plan = try ModelFilePlan(file)
    plan.metadata["video.size"] = .ints([48])
    plan.metadata["video.tile"] = .int(24)
    try CommandLineTests.write(plan, from: file, to: model)
  }

  @Test func ask() throws {
    for (video, frames) in [(Self.frames, 5), (Self.clip, 1)] {
      let outcome = try squint("ask", model, "--video", video, "What?", "--max-tokens", "2", "--json")
      #expect(outcome.status == 0 && outcome.error.isEmpty, "\(outcome.error)")
      let answer = try outcome.json()
      #expect((answer["timings"] as? [String: Any])?["tiles"] as? Int == frames)
      let memory = try #require(answer["memory"] as? [String: Int])
      #expect(memory["peak"]! <= memory["planned"]!)
    }
    let some = try squint(
      "ask", model, "--video", Self.frames, "--image", fixtures.appendingPathComponent("vision/pictures/tiny.png").path,
      "Is <image> in <video>?", "--max-frames", "2", "--max-tiles", "1", "--max-tokens", "1", "--json")
    #expect((try some.json()["timings"] as? [String: Any])?["tiles"] as? Int == 3)
    #expect(try squint("ask", model, "--video", Self.clip, "--fps", "8", "What?", "--max-tokens", "1").status == 0)
  }

  /// More frames take no more memory before the encoder, and each its rows of the context.
  @Test func plan() throws {
    func pictures(_ frames: Int) throws -> Int {
      let plan = try squint("plan", model, "--video", Self.frames, "--max-frames", "\(frames)", "--json").json()
      let phases = try #require(plan["phases"] as? [[String: Any]])
      let encode = try #require(phases.first { $0["name"] as? String == "encode" })
      return try #require((encode["items"] as? [String: Int])?["pictures"])
    }
    #expect(try pictures(5) - pictures(1) == 4 * 8)
    #expect(try squint("plan", model, "--video", Self.frames).text.contains("1 video of 5 frames, 20 tokens"))
    let chat = try squint("plan", model, "--chat", "--video", Self.frames)
    #expect(chat.text.contains("images at any time, videos of at most 20 tokens"))
  }

  @Test func chat() throws {
    let said = "What?\n/video \(Self.clip)\nAnd this?\n/save \(folder.path)/said.txt\n"
    let talk = try squint("chat", model, "--video", Self.frames, "--max-tokens", "2", input: said)
    #expect(talk.status == 0 && talk.error.isEmpty, "\(talk.error)")
    let text = try String(contentsOfFile: "\(folder.path)/said.txt", encoding: .utf8)
    #expect(text.contains("[video \(Self.frames)] What?") && text.contains("[video \(Self.clip)] And this?"))
    // One that was not thought of, and a longer one than was.
    let late = try squint("chat", model, "--max-tokens", "2", input: "/video \(Self.clip)\n")
    #expect(late.error.contains("begin it with --video FILE"))
  }

  @Test func pixels() throws {
    let output = "\(folder.path)/pixels.npy"
    let outcome = try squint(
      "embed", model, "--video", Self.frames, "--max-frames", "2", "--stage", "pixels", "-o", output)
    #expect(outcome.status == 0, "\(outcome.error)")
    let start = try Data(contentsOf: URL(fileURLWithPath: output)).prefix(128)
    #expect(String(decoding: start, as: UTF8.self).contains("(2, 3, 24, 24)"))
  }

  // MARK: What is refused

  @Test func errors() throws {
    let none = ["PATH": folder.path]
    let clip = try folder.write("clip.mp4", "not a video".utf8)
    func ask(_ options: String..., environment: [String: String] = [:]) throws -> Outcome {
      try squint(["ask", model, "What?"] + options, environment: environment)
    }
    expectError(try ask("--video", "nothing.mp4"), 66, "nothing.mp4: No such file")
    expectError(try ask("--video", clip, environment: none), 66, clip, "ffmpeg", "install it")
    expectError(try ask("--video", folder.path), 66, "no image in this folder")
    expectError(try ask("--video", Self.frames, "--fps", "0"), 64, "--fps")
    expectError(try ask("--video", Self.frames, "--max-frames", "0"), 64, "--max-frames")
    for option in [["--fps", "2"], ["--max-frames", "2"], ["--no-video-sound"]] {
      expectError(try squint(["ask", model, "What?"] + option), 64, "\(option[0]) is about videos, and there is none")
    }
    expectError(try ask("--video", Self.frames, "--series-rate", "2"), 64, "--series-rate is about series")
    expectError(try ask("--video", Self.frames, "--max-tiles", "2"), 64, "--max-tiles is about images")
    expectError(try ask("--image", Self.frames), 66, "this is a folder")
    expectError(try ask("--video", try folder.write("empty.gif", [])), 65, "empty")
    let blind = try folder.seeingModel("llava-clip")
    expectError(try squint("ask", blind, "What?", "--video", Self.frames), 64, "takes images, and no videos")
    expectError(try squint("ask", model, "Is <video> like <video>?", "--video", Self.frames), 64, "2 places for videos")
  }

  /// A signal ends the program, and the one that it waits for when that writes again.
  @Test func interrupted() throws {
    let script = """
      #!/bin/sh
      case "$*" in
        *-version*) exit 0 ;;
        *framecrc*) printf '#tb 0: 1/10\\n0, 0, 0, 1, 9, 0\\n0, 1, 1, 1, 9, 0\\n'; exit 0 ;;
        *"frames:v 1 "*) printf 'P6\\n2 1\\n255\\nabcdef'; exit 0 ;;
      esac
      echo $$ > '\(folder.path)/process'
      while :; do printf P; sleep 0.2; done
      """
    let bin = folder.path + "/bin"
    try FileManager.default.createDirectory(atPath: bin, withIntermediateDirectories: true)
    chmod(try folder.write("bin/ffmpeg", script.utf8), 0o755)
    let clip = try folder.write("slow.mp4", "a video".utf8)
    let path = "\(bin):\(ProcessInfo.processInfo.environment["PATH"] ?? "")"
    let program = try RunningProgram(
      ["ask", model, "What?", "--video", clip, "--fps", "10"], environment: ["PATH": path], signals: [SIGINT])
    var waiting: pid_t?
    for _ in 0..<200 where waiting == nil {
      usleep(50_000)
      waiting = (try? String(contentsOfFile: "\(folder.path)/process", encoding: .utf8)).flatMap {
        pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines))
      }
    }
    let child = try #require(waiting)
    kill(program.process.processIdentifier, SIGINT)
    let outcome = program.finish()
    #expect(outcome.status == 130)
    // One that has ended may still be known, where nobody asks how.
    func isRunning() -> Bool {
      let state = try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8)
      return kill(child, 0) == 0 && state?.contains(") Z ") != true
    }
    for _ in 0..<40 where isRunning() { usleep(50_000) }
    #expect(!isRunning(), "it was left behind")
  }

  /// Each place of a saved conversation has the file of its kind, in whatever order they were given.
  @Test func savedPlacesAreOfTheirKind() throws {
    let image = fixtures.appendingPathComponent("vision/pictures/tiny.png").path
    let saved = "\(folder.path)/said.txt"
    let chat = try squint(
      "chat", model, "--image", image, "--video", Self.clip, "--max-tokens", "1", "--max-tiles", "1",
      input: "look <video> and <image>?\n/save \(saved)\n/load \(saved)\n")
    #expect(chat.status == 0 && chat.error.isEmpty, "\(chat.error)")
    #expect(
      try String(contentsOfFile: saved, encoding: .utf8).contains("look [video \(Self.clip)] and [picture \(image)]?"))
  }
}
