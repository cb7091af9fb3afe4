import Foundation
import Testing

// The examples of docs/swift.md: the functions below are there word for word.
import Squint

func converse(about photo: String, with path: String) async throws {
  let chat = try ChatSession(Model(path: path))
  let image = try chat.model.image(photo)
  print(try await chat.respond(to: "What is in this picture?", images: [image]))
  for try await text in chat.streamResponse(to: "Where could that be?") { print(text, terminator: "") }
}

func describe(_ photo: String, with path: String) async throws {
  let model = try Model(path: path)
  let image = try model.image(photo)
  let session = try Session(model, SessionOptions(context: 2048, media: .once([image.size])))
  let question = try ChatMessage(role: "user", "What is in this picture?", media: [image])
  try session.append(model.prompt([question], media: [image]))
  for try await token in session.generate(GenerationOptions(maxTokens: 64)) {
    print(token.text, terminator: "")
  }
}

func session(_ model: Model, in bytes: Int) throws(SquintError) -> Session {
  do throws(SquintError) {
    return try Session(model, SessionOptions(context: 4096, memory: bytes))
  } catch {
    print(error.message)
    guard case .context(let positions) = error.remedies.first else { throw error }
    return try Session(model, SessionOptions(context: positions, memory: bytes))
  }
}

@Suite struct SwiftPageTests {
  private static let root = fixtures.deletingLastPathComponent().deletingLastPathComponent()

  @Test func thePageShowsWhatIsCompiledHere() throws {
    let page = try String(contentsOf: Self.root.appendingPathComponent("docs/swift.md"), encoding: .utf8)
    let source = try String(
      contentsOf: Self.root.appendingPathComponent("Tests/SquintTests/SwiftPageExample.swift"), encoding: .utf8)
    let blocks = page.components(separatedBy: "```swift\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
    #expect(blocks.count == 3)
    for block in blocks { #expect(source.contains(block.replacingOccurrences(of: "import Squint\n\n", with: ""))) }
  }
}
