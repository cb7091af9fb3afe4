import Foundation
import SquintConversion
import SquintFile
import Testing

/// Images on the command line: what is written, and what is refused.
@Suite struct ImageCommandTests {
  private static let vision = fixtures.appendingPathComponent("vision")
  private static let square = vision.appendingPathComponent("pictures/square.png").path
  private static let wide = vision.appendingPathComponent("pictures/wide.png").path
  private let folder: TemporaryFolder
  private let model: String

  init() throws {
    folder = try TemporaryFolder()
    model = try folder.seeingModel("smolvlm")
  }

  // MARK: What is written

  @Test func ask() throws {
    let outcome = try squint(
      "ask", model, "--image", Self.square, "--image", Self.wide, "Is <image> <image>?", "--max-tokens", "4", "--json")
    #expect(outcome.status == 0 && outcome.error.isEmpty)
    let answer = try outcome.json()
    let timings = try #require(answer["timings"] as? [String: Any])
    #expect(timings["pictures"] as? Int == 2)
    #expect(timings["tiles"] as? Int ?? 0 > 2)
    #expect(timings["seconds_to_encode_pictures"] as? Double ?? 0 > 0)
    let memory = try #require(answer["memory"] as? [String: Int])
    #expect(memory["peak"]! <= memory["planned"]!)

    let stats = try squint("ask", model, "--image", Self.square, "What?", "--max-tokens", "2", "--stats")
    #expect(stats.error.contains("1 image in "))
  }

  @Test func chat() throws {
    let conversation = try squint(
      "chat", model, "--image", Self.square, "--max-tokens", "3", "--stats",
      input:
        "What is it?\nAnd now?\n/image \(Self.wide)\nThis one?\n/save \(folder.path)/said.txt\n/image nothing.jpg\n")
    #expect(conversation.status == 0)
    let statistics = conversation.error.split(separator: "\n").filter { $0.contains("prompt tokens") }
    #expect(statistics.map { $0.contains("1 image in ") } == [true, false, true])
    #expect(conversation.error.contains("nothing.jpg: No such file"))
    let said = try String(contentsOfFile: "\(folder.path)/said.txt", encoding: .utf8)
    #expect(said.contains("[picture \(Self.square)] What is it?") && said.contains("[picture \(Self.wide)] This one?"))
  }

  /// A limit of tokens is kept by fewer tiles, or by a lower resolution; one that cannot be kept is refused.
  @Test(arguments: ["smolvlm", "qwen2-vl", "qwen25-vl", "qwen3-vl", "internvl", "llava-next"])
  func imageTokens(_ name: String) throws {
    let model = try folder.seeingModel(name)
    func tokens(_ options: String...) throws -> [Int] {
      let plan = try squint(["plan", model, "--image", Self.wide, "--json"] + options).json()
      let images = try #require(plan["pictures"] as? [[String: Any]])
      #expect(images.allSatisfy { $0["peak"] as? Int ?? 0 > 0 && $0["width"] as? Int ?? 0 > 0 })
      return images.compactMap { $0["tokens"] as? Int }
    }
    // Rising; the last is as the model was trained.
    let all = try tokens()
    #expect(all == all.sorted() && Set(all).count == all.count)
    let whole = try #require(all.last)
    for most in Set([whole - 1, (whole + all[0]) / 2, all[0]]) where most >= all[0] {
      let limited = try #require(try tokens("--image-tokens", "\(most)").last)
      #expect(limited <= most && limited >= all[0], "\(most) of \(whole)")
    }
    let answer = try squint(
      "ask", model, "--image", Self.wide, "--image-tokens", "\(all[0])", "What?", "--max-tokens", "1", "--json")
    #expect(answer.status == 0, "\(answer.error)")
    expectError(
      try squint("ask", model, "--image", Self.wide, "--image-tokens", "0", "What?"), 64, "tokens of this image")
  }

  /// LLaVA-OneVision cuts an image that stands alone; of several each is one tile, and a newline stands behind it.
  @Test func imagesAmongSeveral() throws {
    let model = try folder.seeingModel("llava-onevision")
    func timings(_ images: Int) throws -> (tiles: Int, tokens: Int) {
      let options = (0..<images).flatMap { _ in ["--image", Self.wide] } + ["--max-tokens", "1", "--json"]
      let prompt = String(repeating: "<image>", count: images)
      let answer = try squint(["ask", model, "--raw", prompt] + options).json()
      let timings = try #require(answer["timings"] as? [String: Any])
      return try (#require(timings["tiles"] as? Int), #require(timings["prompt_tokens"] as? Int))
    }
    let (two, three) = (try timings(2), try timings(3))
    #expect(try timings(1).tiles > 1)
    #expect(two.tiles == 2 && three.tiles == 3)
    #expect(three.tokens - two.tokens == 4 * 4 + 1)
  }

  /// Fewer tiles take fewer places, and `--fit` takes what there is and says so.
  @Test func imagesCanBeMadeCheaper() throws {
    func tiles(_ options: String...) throws -> Int? {
      let outcome = try squint(
        ["ask", model, "--image", Self.wide, "What?", "--max-tokens", "1", "--json"] + options)
      return try (outcome.json()["timings"] as? [String: Any])?["tiles"] as? Int
    }
    let all = try #require(try tiles())
    #expect(all > 2)
    let some = try #require(try tiles("--max-tiles", "\(all - 1)"))
    #expect(some < all)
    #expect(try tiles("--max-tiles", "1") == 1)
    expectError(try squint("ask", model, "--image", Self.wide, "What?", "--max-tiles", "0"), 64, "tiles")

    let fitted = try squint(
      "ask", model, "--image", Self.wide, "What?", "--max-tokens", "1", "--context", "900000", "--kv", "f32",
      "--memory",
      "64M", "--fit")
    #expect(fitted.status == 0)
    #expect(fitted.error.hasPrefix("fit: a context of ") && fitted.error.contains("KV cache int8"))
    let conversation = try squint("plan", model, "--chat", "--memory", "64M")
    #expect(conversation.text.contains("images at any time"))
  }

  @Test(arguments: ["pixels", "encoder", "projector"]) func embed(_ stage: String) throws {
    let out = "\(folder.path)/out.npy"
    let outcome = try squint("embed", model, "--image", Self.wide, "--stage", stage, "-o", out)
    #expect(outcome.status == 0 && outcome.error.isEmpty && outcome.output.isEmpty)
    let header = String(decoding: try Data(contentsOf: URL(fileURLWithPath: out)).prefix(128), as: UTF8.self)
    #expect(header.contains("'<f4'"))
    #expect(header.contains(stage == "pixels" ? ", 3, " : "32)") || stage == "encoder")
  }

  @Test func planSaysWhatAImageCosts() throws {
    let plan = try squint("plan", model, "--json").json()
    let images = try #require(plan["pictures"] as? [[String: Double]])
    #expect(images.count > 1 && images.map { $0["tiles"]! } == images.map { $0["tiles"]! }.sorted())
    #expect(images.allSatisfy { $0["tokens"]! > 0 && $0["bytes"]! > 0 && $0["peak"]! > 0 })
    #expect((plan["phases"] as? [[String: Any]])?.contains { $0["name"] as? String == "encode" } == true)
    #expect(try squint("plan", model).text.contains("an image of"))
    #expect(try squint("plan", model, "--image", Self.square).status == 0)
  }

  @Test func bench() throws {
    let outcome = try squint(
      "bench", model, "-p", "8", "-n", "2", "--rounds", "1", "--image", Self.square, "--json")
    let image = try #require(try outcome.json()["picture"] as? [String: Any])
    #expect(image["encode_ms"] as? Double ?? 0 > 0)
  }

  /// An encoder without a decoder is a file of its own, of which `embed` alone can make something.
  @Test func encodersAlone() throws {
    let file = "\(folder.path)/encoder.squint"
    let tower = Self.vision.appendingPathComponent("parts/tower").path
    try convert(ConversionSources(encoders: ["image": tower]), to: file)
    let out = "\(folder.path)/out.npy"
    #expect(try squint("embed", file, "--image", Self.wide, "--stage", "encoder", "-o", out).status == 0)
    #expect(try squint("inspect", file).text.contains("encoder.image"))
    #expect(try squint("verify", file).status == 0)
    expectError(try squint("embed", file, "--image", Self.wide, "-o", out), 64, "no projector")
    expectError(try squint("ask", file, "--image", Self.wide, "What?"), 65, "no text decoder")
  }

  /// What the converter is told of the size and the fit of images is what the model does, and `embed --size` too.
  @Test func sizesAndFits() throws {
    func pixels(_ model: String, _ arguments: String...) throws -> Data {
      let out = "\(folder.path)/out.npy"
      let outcome = try squint(["embed", model, "--image", Self.wide, "--stage", "pixels", "-o", out] + arguments)
      #expect(outcome.status == 0, "\(outcome.error)")
      return try Data(contentsOf: URL(fileURLWithPath: out))
    }
    func model(_ name: String, _ options: ConversionOptions) throws -> String {
      let file = "\(folder.path)/\(name).squint"
      try convert(source: Self.vision.appendingPathComponent("\(name)/checkpoint").path, to: file, options: options)
      return file
    }
    var padded = ConversionOptions()
    padded.imageFit = .pad
    let cut = try pixels(model("llava-clip", ConversionOptions()))
    #expect(try pixels(model("llava-clip", padded)) != cut)
    padded.imageFit = .crop
    #expect(try pixels(model("llava-clip", padded)) == cut)
    var stretched = ConversionOptions()
    stretched.imageFit = .stretch
    let stretchedPixels = try pixels(model("llava-clip", stretched))
    #expect(stretchedPixels != cut)
    #expect(stretchedPixels.count == cut.count)

    var larger = ConversionOptions()
    let small = try model("llava-dinov2", larger)
    let atOnce = try pixels(small, "--size", "60")
    larger.imageSize = 60
    #expect(try pixels(model("llava-dinov2", larger)) == atOnce)
    larger.imageSize = 0
    #expect(throws: SquintError.self) { try model("llava-dinov2", larger) }
    #expect(throws: SquintError.self) { try model("smolvlm", padded) }
    // CLIP's table of positions is for one size.
    larger.imageSize = 280
    #expect(throws: SquintError.self) { try model("llava-clip", larger) }
  }

  // MARK: What is refused

  @Test func usage() throws {
    let text = try folder.model("llama-llama3")
    expectError(try squint("ask", text, "--image", Self.square, "What?"), 64, "takes text alone")
    expectError(try squint("embed", text, "--image", Self.square, "-o", "\(folder.path)/o.npy"), 64, "text alone")
    expectError(try squint("ask", model, "--image", Self.square, "<image> or <image>?"), 64, "2 places", "1 image")
    expectError(try squint("ask", model, "What is <image>?"), 64, "1 place", "0 images")
    expectError(try squint("embed", model, "-o", "\(folder.path)/o.npy"), 64, "--image")
    expectError(
      try squint("embed", model, "--image", Self.square, "--size", "64", "-o", "\(folder.path)/o.npy"), 64, "tiles")
    expectError(
      try squint("ask", model, "--image", Self.square, "What?", "--context", "4"), 64, "--context")
    expectError(try squint("ask", model, "--image", Self.square, "What?", "--memory", "16M"), 69, "--memory")
    #expect(!folder.contents.contains { $0.hasPrefix("o.npy") })
  }

  /// What is no image is refused in a moment, with its name and the reason, whoever asks; nothing is left behind.
  @Test func whatIsNoImage() throws {
    let png = [UInt8](try Data(contentsOf: URL(fileURLWithPath: Self.wide)))
    let jpeg = [UInt8](
      try Data(contentsOf: Self.vision.appendingPathComponent("pictures/photo.jpg")))
    var cases: [(name: String, bytes: [UInt8], words: String)] = [
      ("empty.jpg", [], "empty"), ("text.png", Array("This is a text.\n".utf8), "text"),
      ("gif.jpg", Array("GIF89a".utf8) + [UInt8](repeating: 0, count: 50), "damaged"),
      ("half.png", Array(png.prefix(png.count / 2)), "truncated"),
      ("half.jpg", Array(jpeg.prefix(jpeg.count / 2)), "truncated"),
      ("head.jpg", Array(jpeg.prefix(20)), "truncated"), ("head.png", Array(png.prefix(20)), "truncated"),
      ("long.png", Self.pngHeader(width: 1, height: 100_000), "1 × 100,000"),
      ("huge.png", Self.pngHeader(width: 65_500, height: 65_500), "65,500"),
      ("none.png", Self.pngHeader(width: 0, height: 5), "none.png"),
    ]
    // A JPEG that claims to be huge: its frame header with other sides.
    if let frame = jpeg.indices.first(where: { jpeg[$0] == 0xFF && $0 + 1 < jpeg.count && jpeg[$0 + 1] == 0xC0 }) {
      var huge = jpeg
      for index in [frame + 5, frame + 7] {
        huge[index] = UInt8(65_500 >> 8)
        huge[index + 1] = UInt8(65_500 & 0xFF)
      }
      cases.append(("huge.jpg", huge, "65,500"))
    }
    for test in cases {
      let file = try folder.write(test.name, test.bytes)
      for arguments in [
        ["ask", model, "--image", file, "What?"], ["ask", model, "--image", Self.square, "--image", file, "What?"],
        ["embed", model, "--image", file, "-o", "\(folder.path)/o.npy"],
        ["embed", model, "--image", file, "--stage", "pixels", "-o", "\(folder.path)/o.npy"],
        ["logits", model, "--image", file, "--prompt", "What?", "-o", "\(folder.path)/o.npy"],
      ] {
        let outcome = try squint(arguments)
        expectError(outcome, 65, test.name, test.words)
        #expect(outcome.seconds < 5, "\(test.name)")  // much less, where nothing else runs
      }
      #expect(!folder.contents.contains { $0.hasPrefix("o.npy") })
    }
    expectError(try squint("ask", model, "--image", "\(folder.path)/nothing.jpg", "What?"), 66, "nothing.jpg")
    expectError(try squint("ask", model, "--image", folder.path, "What?"), 66)
    #expect(mkfifo("\(folder.path)/pipe.jpg", 0o600) == 0)
    expectError(try squint("ask", model, "--image", "\(folder.path)/pipe.jpg", "What?"), 66, "pipe.jpg")
  }

  /// A PNG that claims these sides, and has next to no data.
  private static func pngHeader(width: UInt32, height: UInt32) -> [UInt8] {
    func bigEndian(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }
    func chunk(_ name: String, _ data: [UInt8]) -> [UInt8] {
      let body = Array(name.utf8) + data
      var crc: UInt32 = 0xFFFF_FFFF
      for byte in body {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
      }
      return bigEndian(UInt32(data.count)) + body + bigEndian(~crc)
    }
    return [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
      + chunk("IHDR", bigEndian(width) + bigEndian(height) + [8, 2, 0, 0, 0]) + chunk("IDAT", [0x78, 0x9C])
  }

  /// Models whose metadata or tensors of what sees are impossible are refused at opening, with one line.
  @Test func impossibleModels() throws {
    let file = try ModelFile(path: model)
    let changes: [(String, MetadataValue?)] = [
      ("encoder.image.heads", .int(0)), ("encoder.image.heads", .int(7)), ("encoder.image.layers", .int(4000)),
      ("encoder.image.width", .int(1 << 40)), ("encoder.image.patch", .int(0)), ("encoder.image.patch", .int(1 << 40)),
      ("encoder.image.grid", .int(1 << 30)), ("encoder.image.positions", .string("nowhere")),
      ("encoder.image.activation", .string("none")), ("encoder.image.feature_layers", .ints([99])),
      ("encoder.image.feature_layers", .ints([-1])), ("encoder.image.norm_epsilon", .float(-1)),
      ("projector.image.widths", .ints([])), ("projector.image.widths", .ints([1, 2])),
      ("projector.image.shuffle", .int(1 << 40)), ("projector.image.shuffle", .int(5)),
      ("image.layout", .string("round")), ("image.tile", .int(0)), ("image.tile", .int(1 << 40)),
      ("image.size", .ints([-5])), ("image.size", .ints([1 << 50])), ("image.mean", .floats([0])),
      ("image.std", .floats([0, 0, 0])), ("image.filter", .int(3)), ("image.rescale", .float(.infinity)),
      ("image.token", .int(-1)), ("image.token", .string("x")), ("image.marker", .string("")),
      ("image.layout", nil), ("encoder.image.patch", nil), ("projector.image.widths", nil),
    ]
    for (key, value) in changes {
      let changed = "\(folder.path)/changed.squint"
      var plan = try ModelFilePlan(file)
      plan.metadata[key] = value
      try write(plan, from: file, to: changed)
      let outcome = try squint("ask", changed, "--image", Self.square, "What?")
      expectError(outcome, 65, "changed.squint")
    }
  }
}

extension TemporaryFolder {
  /// The checkpoint `Tests/Fixtures/vision/NAME`, converted into this folder.
  func seeingModel(_ name: String, _ type: ElementType = .int8) throws -> String {
    let file = "\(path)/\(name).squint"
    var options = ConversionOptions()
    options.type = type
    options.jobs = 1
    try convert(
      source: fixtures.appendingPathComponent("vision/\(name)/checkpoint").path, to: file, options: options)
    return file
  }
}
