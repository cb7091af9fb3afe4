import Foundation
import SquintConversion
import Testing

/// Videos with their sound on the command line.
@Suite struct OmniCommandTests {
  private let folder: TemporaryFolder
  private let model: String
  private let video: String

  /// Ten frames, and a sound of a second beside them.
  init() throws {
    folder = try TemporaryFolder()
    model = "\(folder.path)/omni.squint"
    video = "\(folder.path)/video"
    var options = ConversionOptions()
    options.type = .f32
    options.jobs = 1
    _ = try convert(source: fixtures.appendingPathComponent("omni/checkpoint").path, to: model, options: options)
    try FileManager.default.copyItem(
      at: fixtures.appendingPathComponent("omni/frames"), to: URL(fileURLWithPath: video))
    // Sun's AU: 16,000 samples a second of 8 bits, 20,000 of them.
    let head: [UInt8] = [
      0x2E, 0x73, 0x6E, 0x64, 0, 0, 0, 24, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 2, 0, 0, 0x3E, 0x80, 0, 0, 0, 1,
    ]
    _ = try folder.write("video/sound.au", head + (0..<20_000).map { UInt8($0 * $0 / 50 % 200) })
  }

  private func tokens(_ options: String...) throws -> Int? {
    let outcome = try squint(
      ["ask", model, "--video", video, "What?", "--max-tokens", "2", "--threads", "1", "--json"] + options)
    #expect(outcome.status == 0 && outcome.error.isEmpty, "\(outcome.error)")
    let answer = try outcome.json()
    let memory = try #require(answer["memory"] as? [String: Int])
    #expect(memory["peak"]! <= memory["planned"]!)
    return (answer["timings"] as? [String: Any])?["prompt_tokens"] as? Int
  }

  /// 125 frames of sound are 31 tokens, and what begins and ends it two more.
  @Test func soundCanBeLeftOut() throws {
    let (heard, unheard) = (try tokens(), try tokens("--no-video-sound"))
    #expect(try #require(heard) - #require(unheard) == 31 + 2)
    #expect(try squint("plan", model, "--video", video).text.contains("1 video of 10 frames, 91 tokens with sound"))
  }

  /// A conversation that is loaded hears the video again.
  @Test func chat() throws {
    let said = "\(folder.path)/said.txt"
    let talk = try squint(
      "chat", model, "--video", video, "--max-tokens", "2", "--threads", "1", "--stats",
      input: "What?\nAnd?\n/save \(said)\n/reset\n/load \(said)\nMore?\n")
    #expect(talk.status == 0 && !talk.error.contains("error"), "\(talk.error)")
    #expect(try String(contentsOfFile: said, encoding: .utf8).contains("[video \(video)] What?"))
  }
}
