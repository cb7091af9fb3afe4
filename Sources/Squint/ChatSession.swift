import SquintFile
import SquintTemplates
import SquintText

/// A conversation with a model, for programs that must not wait:
///
///     let chat = try ChatSession(Model(path: path))
///     let photo = try chat.model.image("photo.jpg")
///     print(try await chat.respond(to: "What is in this picture?", images: [photo]))
///
/// Everything is computed on a thread of its own, and on those of the session: neither the main actor nor the threads that tasks
/// share wait for it. One turn is answered after the other. A turn that fails, or is cancelled, leaves no trace in the
/// conversation.
public actor ChatSession {
  public nonisolated let model: Model
  /// What was said so far: the system's text, where there is one, questions and answers.
  public private(set) var messages: [ChatMessage]
  /// The media of the messages, in order.
  private var media: [Medium] = []
  private let beginning: [ChatMessage]
  private let options: GenerationOptions
  private let session: Session
  private let executor: ThreadExecutor

  public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  /// Plans a conversation and takes its memory. No weight is read yet.
  ///
  /// - Parameters:
  ///   - options: nil: those by default, with images at any time where the model takes them.
  ///   - generation: nil: as the checkpoint samples by its own choice.
  ///   - system: what the model is told before everything else.
  /// - Throws: `doesNotFit` where the memory does not hold it, `usage` where an option is impossible.
  public init(
    _ model: Model, _ options: SessionOptions? = nil, generation: GenerationOptions? = nil, system: String? = nil
  ) throws(SquintError) {
    let options = options ?? SessionOptions(media: model.acceptsMedia ? .always : .none)
    self.model = model
    self.options = generation ?? GenerationOptions(sampling: model.sampling)
    beginning = system.map { [ChatMessage(role: "system", $0)] } ?? []
    messages = beginning
    session = try Session(model, options)
    executor = try ThreadExecutor()
  }

  /// The answer to `text`, asked about `images`: these stand where the text has `<image>`, or come first.
  ///
  /// - Throws: `CancellationError` where the task was cancelled; `SquintError`: `usage` where the conversation has become too long, or
  ///   there are more or fewer images than places for them, `badData` where an image is damaged.
  @discardableResult
  public func respond(to text: String, images: [Image] = []) throws -> String {
    try answer(text, images) { _ in }
  }

  /// The same, piece by piece as it is computed; together the pieces are what `respond` returns.
  ///
  /// Generation ends soon after the loop over the stream is left, or its task cancelled.
  public nonisolated func streamResponse(
    to text: String, images: [Image] = []
  ) -> AsyncThrowingStream<String, any Error> {
    AsyncThrowingStream { continuation in
      let task = Task {
        do {
          _ = try await answer(text, images) { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in task.cancel() }
    }
  }

  /// Forgets all questions and answers.
  public func reset() {
    messages = beginning
    media = []
    session.truncate(to: 0)
  }

  private func answer(_ text: String, _ images: [Image], _ visit: @Sendable (String) -> Void) throws -> String {
    try Task.checkCancellation()
    let before = (messages, media)
    do {
      messages.append(try ChatMessage(role: "user", text, media: images))
      media += images
      let prompt = try model.prompt(messages, media: media)
      guard prompt.count < session.context else {
        throw SquintError(
          .usage,
          "the prompt has \(grouped(prompt.count)) tokens with all that was said, and the context holds "
            + "\(grouped(session.context)); reset the conversation, or plan a longer context")
      }
      // What the context holds already is not computed again.
      try session.replace(with: prompt)
      var generator = Generator(session, options)
      var answer = ""
      while let token = try generator.next() {
        answer += token.text
        if !token.text.isEmpty { visit(token.text) }
      }
      guard generator.finishReason != .cancelled else { throw CancellationError() }
      messages.append(ChatMessage(role: "assistant", answer))
      return answer
    } catch {
      (messages, media) = before
      throw error
    }
  }
}
