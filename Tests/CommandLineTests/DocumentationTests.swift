import Foundation
import SquintFile
import Testing

/// What the pages say is run: every command in a block of `sh` or `console` of the README and of the other pages.
///
/// The commands run in order in a folder where the names that the pages use are there: small models of the same kinds.
@Suite struct DocumentationTests {
  private static let root = fixtures.deletingLastPathComponent().deletingLastPathComponent()

  /// The names in the pages, and what stands for them here.
  private static let standIns = [
    "docs": "docs", "models": "models", "tools": "tools",
    "photo.jpg": "docs/samples/nano-2.png",
    "SmolVLM-256M-Instruct": "Tests/Fixtures/vision/smolvlm/checkpoint",
    "SmolVLM-256M-Instruct-Q8_0.gguf": "Tests/Fixtures/vision-gguf/smolvlm/model.gguf",
    "mmproj-SmolVLM-256M-Instruct-Q8_0.gguf": "Tests/Fixtures/vision-gguf/smolvlm/mmproj-q8_0.gguf",
    "llava-v1.5-7b": "Tests/Fixtures/vision/original-linear/checkpoint",
    "clip-vit-large-patch14-336": "Tests/Fixtures/vision/original-linear/tower",
    "SmolLM2-135M-Instruct": "Tests/Fixtures/vision/parts/decoder",
    "SmolLM2-135M-Instruct.Q4_1.gguf": "Tests/Fixtures/conversion/llama-llama3.gguf",
    "my-adapter": "Tests/Fixtures/adapters/rslora",
    "siglip-base-patch16-512": "Tests/Fixtures/vision/parts/tower",
    "gemma-3-tiny": "Tests/Fixtures/models/gemma3",
    "projector.safetensors": "Tests/Fixtures/vision/parts/projector.safetensors",
    "molcap-lora": "Tests/Fixtures/molecules/parts/adapter", "vicuna-7b-v1.3": "Tests/Fixtures/molecules/parts/decoder",
    "molecule_model.safetensors": "Tests/Fixtures/molecules/parts/molecule_model.safetensors",
  ]

  /// Those that are not run here: they build and install, and the tests are part of one of them.
  private static let notRun = ["swift build", "sudo install"]

  /// The blocks of `kind` in the page `name`.
  private static func blocks(_ kind: String, of name: String) throws -> [String] {
    try String(contentsOf: root.appendingPathComponent(name), encoding: .utf8).components(separatedBy: "```\(kind)\n")
      .dropFirst().map { $0.components(separatedBy: "```")[0] }
  }

  /// The commands of a block: a line each, without comments; a line that ends in a backslash goes on.
  private static func commands(_ block: String) -> [String] {
    block.replacing("\\\n", with: " ").split(separator: "\n").map { line in
      String(line.components(separatedBy: " #")[0].drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
  }

  private static let pages = [
    "README.md", "CONTRIBUTING.md", "models/README.md", "docs/converting.md", "docs/memory.md", "docs/benchmarks.md",
    "docs/exactness.md", "docs/adding-a-family.md",
  ]

  @Test(arguments: pages) func everyCommandWorks(_ page: String) throws {
    let folder = try TemporaryFolder()
    for (name, path) in Self.standIns {
      try FileManager.default.createSymbolicLink(
        atPath: "\(folder.path)/\(name)", withDestinationPath: Self.root.appendingPathComponent(path).path)
    }
    // A page may begin with a model that another page makes.
    let smolVLM = "squint-convert SmolVLM-256M-Instruct/ -o SmolVLM.squint"
    let programs = RunningProgram.squint.deletingLastPathComponent().path
    func run(_ command: String) throws -> Outcome {
      try shell("cd \"$1\" && export PATH=\"$2:$PATH\" && \(command)", [folder.path, programs])
    }
    #expect(try run(smolVLM).status == 0)
    let blocks = try Self.blocks("sh", of: page)
    #expect(try !blocks.isEmpty || page == "docs/exactness.md" || !Self.blocks("console", of: page).isEmpty)
    for command in blocks.flatMap(Self.commands) {
      let words = command.split(separator: " ").map(String.init).filter { $0 != "sudo" }
      if command.hasPrefix("squint") {
        let outcome = try run(command)
        #expect(outcome.status == 0, "\(page): \(command): \(outcome.error)")
      } else if let word = words.first, word.hasPrefix("tools/") {
        #expect(
          FileManager.default.isExecutableFile(atPath: Self.root.appendingPathComponent(word).path),
          "\(page): there is no \(word)")
      } else {
        #expect(Self.notRun.contains { command.hasPrefix($0) }, "\(page): \(command)")
      }
    }
    for block in try Self.blocks("console", of: page) {
      let lines = block.split(separator: "\n", maxSplits: 1)
      let command = try #require(lines.first.flatMap { $0.hasPrefix("$ ") ? $0.dropFirst(2) : nil })
      let outcome = try run(String(command))
      #expect(outcome.text == lines.last.map(String.init), "\(page): \(command): \(outcome.error)")
    }
  }

  /// Every link to a file leads to one.
  @Test(
    arguments: pages + [
      "ARCHITECTURE.md", "CHANGELOG.md", "docs/swift.md", "formats/squint.md", "tools/train/README.md",
    ])
  func everyLinkLeadsSomewhere(_ page: String) throws {
    let url = Self.root.appendingPathComponent(page)
    let text = try String(contentsOf: url, encoding: .utf8)
    for part in text.components(separatedBy: "](").dropFirst() {
      let link = part.components(separatedBy: ")")[0]
      guard !link.hasPrefix("http"), !link.hasPrefix("#"), let path = link.split(separator: "#").first else { continue }
      #expect(
        FileManager.default.fileExists(
          atPath: url.deletingLastPathComponent().appendingPathComponent(String(path)).path),
        "\(page) links to \(link)")
    }
  }

  /// The version is written once, in SquintFile; the newest entry of the changes is about it.
  @Test func theVersionIsThatOfTheChanges() throws {
    let changes = try String(contentsOf: Self.root.appendingPathComponent("CHANGELOG.md"), encoding: .utf8)
    let entry = try #require(changes.components(separatedBy: "\n## ").dropFirst().first)
    let newest = try #require(entry.split(whereSeparator: \.isWhitespace).first)
    for program in ["squint", "squint-convert"] {
      let outcome = try RunningProgram(
        program: RunningProgram.squint.deletingLastPathComponent().appendingPathComponent(program), ["--version"]
      ).finish()
      #expect(outcome.text.hasPrefix("\(program) \(newest) "), "\(outcome.text)")
    }
  }

  /// A newcomer reads it in two minutes.
  @Test func theReadmeIsShort() throws {
    let readme = try String(contentsOf: Self.root.appendingPathComponent("README.md"), encoding: .utf8)
    #expect(readme.split(separator: "\n", omittingEmptySubsequences: false).count <= 131)
  }
}
