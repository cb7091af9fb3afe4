import Foundation
import Testing

// The example of docs/swift.md: what stands below the next line up to the end of the function is there word for word.
import Squint

func describe(_ photo: String, with path: String) async throws {
  let model = try Model(path: path)
  let image = try model.image(photo)
  let session = try Session(model, SessionOptions(context: 2048, media: .once([image.size])))
  let question = try ChatMessage(role: "user", "What is in this picture?", images: 1)
  try session.append(model.prompt([question], media: [image]))
  for try await token in session.generate(GenerationOptions(maxTokens: 64)) {
    print(token.text, terminator: "")
  }
}

@Suite struct SwiftPageTests {
  private static let root = fixtures.deletingLastPathComponent().deletingLastPathComponent()

  @Test func thePageShowsWhatIsCompiledHere() throws {
    let page = try String(contentsOf: Self.root.appendingPathComponent("docs/swift.md"), encoding: .utf8)
    let source = try String(
      contentsOf: Self.root.appendingPathComponent("Tests/SquintTests/SwiftPageExample.swift"), encoding: .utf8)
    let blocks = page.components(separatedBy: "```swift\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
    #expect(blocks.count == 1)
    for block in blocks { #expect(source.contains(block)) }
  }
}
