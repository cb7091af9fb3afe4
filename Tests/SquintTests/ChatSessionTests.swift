import Squint
import SquintFile
import SquintText
import Testing

/// Conversations for programs that do not wait: their answers are those of the synchronous session.
@Suite struct ChatSessionTests {
  private let square = VisionFixture.image("square.png")

  private func chat(_ name: String = "llama-llama3", maxTokens: Int = 12, context: Int = 512) throws -> ChatSession {
    try ChatSession(
      model(name, .int8), SessionOptions(context: context, threads: 1),
      generation: GenerationOptions(maxTokens: maxTokens, stopsAtStopTokens: false))
  }

  /// The answer of a session that is asked everything anew.
  private func answer(_ messages: [ChatMessage], media: [Medium] = [], by chat: ChatSession) throws -> String {
    let session = try Session(
      chat.model,
      SessionOptions(context: 512, threads: 1, media: media.isEmpty ? .none : .once(media.map(\.size))))
    try session.append(chat.model.prompt(messages, media: media))
    var generator = Generator(session, GenerationOptions(maxTokens: 12, stopsAtStopTokens: false))
    var text = ""
    while let token = try generator.next() { text += token.text }
    return text
  }

  @Test func theStreamIsTheAnswer() async throws {
    let chat = try chat()
    var pieces: [String] = []
    for try await piece in chat.streamResponse(to: "Hello there") { pieces.append(piece) }
    #expect(pieces.count > 1)
    await chat.reset()
    #expect(try await chat.respond(to: "Hello there") == pieces.joined())
    #expect(await chat.messages.map(\.text) == ["Hello there", pieces.joined()])
  }

  @Test func turnsKeepTheHistory() async throws {
    let chat = try chat()
    let first = try await chat.respond(to: "Hello")
    let second = try await chat.respond(to: "And now?")
    var messages = [ChatMessage(role: "user", "Hello")]
    #expect(try answer(messages, by: chat) == first)
    messages += [ChatMessage(role: "assistant", first), ChatMessage(role: "user", "And now?")]
    #expect(try answer(messages, by: chat) == second)
    await chat.reset()
    #expect(try await chat.respond(to: "Hello") == first)
  }

  @Test func images() async throws {
    let model = try VisionFixture.named("llava-clip").model(.f32)
    let chat = try ChatSession(
      model, SessionOptions(context: 512, threads: 1, media: .always),
      generation: GenerationOptions(maxTokens: 12, stopsAtStopTokens: false))
    let image = try model.image(square)
    let first = try await chat.respond(to: "What is it?", images: [image])
    #expect(try answer([ChatMessage(role: "user", "What is it?", images: 1)], media: [image], by: chat) == first)
    // More places than images.
    await #expect(throws: SquintError.self) { try await chat.respond(to: "<image> or <image>?", images: [image]) }
    #expect(await chat.messages.count == 2)
  }

  /// A consumer that is cancelled ends the generation long before the context is full, and the turn leaves no trace.
  @Test func cancellationIsPrompt() async throws {
    let chat = try chat(maxTokens: 100_000, context: 4096)
    let consumer = Task {
      var count = 0
      for try await _ in chat.streamResponse(to: "Tell me everything") {
        count += 1
        if count == 3 { withUnsafeCurrentTask { $0?.cancel() } }
      }
      return count
    }
    #expect(try await consumer.value < 2000)
    // Waits for the turn to end.
    #expect(await chat.messages.isEmpty)

    let asked = Task { try await chat.respond(to: "Tell me everything") }
    asked.cancel()
    await #expect(throws: CancellationError.self) { try await asked.value }
    #expect(await chat.messages.isEmpty)
  }

  /// While an answer is computed, the main actor goes on.
  @MainActor @Test func theMainActorIsFree() async throws {
    let chat = try chat(maxTokens: 200)
    var count = 0
    // One answer takes milliseconds, in which a busy machine may have given the main actor no turn.
    for _ in 0..<100 where count <= 100 {
      await chat.reset()
      let answer = Task { try await chat.respond(to: "Hello") }
      var isDone = false
      let waiting = Task {
        _ = try await answer.value
        isDone = true
      }
      var turns = 0
      while !isDone {
        turns += 1
        // Not Task.yield(): that waits for a thread of those that tasks share, which other tests hold.
        await Task { @MainActor in }.value
      }
      try await waiting.value
      // The first and the last turn there would be anyway.
      count += max(turns - 2, 0)
    }
    #expect(count > 100)
  }
}
