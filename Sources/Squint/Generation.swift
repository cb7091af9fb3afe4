import SquintFile
import SquintText

/// How an answer is generated.
public struct GenerationOptions: Equatable, Sendable {
  public var sampling: SamplingOptions
  /// The tokens that an answer may have at most; nil: as many as the context holds.
  public var maxTokens: Int?
  /// Texts that end the answer; they are not part of it.
  public var stop: [String]
  /// Whether the model's stop tokens end the answer.
  public var stopsAtStopTokens: Bool

  public init(
    sampling: SamplingOptions = SamplingOptions(), maxTokens: Int? = nil, stop: [String] = [],
    stopsAtStopTokens: Bool = true
  ) {
    self.sampling = sampling
    self.maxTokens = maxTokens
    self.stop = stop
    self.stopsAtStopTokens = stopsAtStopTokens
  }
}

/// Why an answer ended.
public enum FinishReason: String, Sendable {
  /// The model said so, or a stop text came.
  case stop
  /// The limit of tokens was reached, or the context is full.
  case length
  case cancelled
}

/// A token of an answer and the text that is certain with it.
public struct GeneratedToken: Equatable, Sendable {
  /// nil for text that waited for more until the answer ended.
  public let id: Int32?
  /// Whole characters only: a token may complete none, or several that waited.
  public let text: String
}

extension Session {
  /// The answer to the conversation so far, token by token:
  ///
  ///     for try await token in session.generate() { print(token.text, terminator: "") }
  ///
  /// Each token is computed when it is asked for, on the caller's thread. The answer becomes part of the conversation.
  /// Cancelling the task, or `cancellation.cancel()`, ends it.
  public func generate(_ options: GenerationOptions = GenerationOptions()) -> Answer {
    Answer(session: self, options: options)
  }
}

/// An answer, generated while it is iterated.
public struct Answer: AsyncSequence {
  public typealias Element = GeneratedToken
  fileprivate let session: Session
  fileprivate let options: GenerationOptions

  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(generator: Generator(session, options)) }

  public struct AsyncIterator: AsyncIteratorProtocol {
    fileprivate var generator: Generator

    public mutating func next() async throws(SquintError) -> GeneratedToken? { try await next(isolation: nil) }

    public mutating func next(
      isolation actor: isolated (any Actor)?
    ) async throws(SquintError) -> GeneratedToken? {
      // Other tasks of this thread get their turn between two tokens.
      await Task.yield()
      return try generator.next()
    }
  }
}

/// Generates an answer token by token; what `Answer` iterates, for callers that are not asynchronous.
public struct Generator {
  private let session: Session
  private let options: GenerationOptions
  private let stopTokens: Set<Int32>
  private var sampler: Sampler
  /// nil where the model has no tokenizer: then tokens come without text.
  private var decoding: DecodingStream?
  private var stops: StopTexts
  private var state = State.notStarted
  /// The tokens of the answer so far, stop tokens not counted.
  public private(set) var count = 0
  /// Why the answer ended; nil until it has.
  public private(set) var finishReason: FinishReason?

  private enum State {
    case notStarted
    case running
    /// What beam search found, and how much of it has been handed out.
    case replaying([Int32], next: Int)
    /// The answer has ended; this text is still to be handed out with the last token.
    case ended
  }

  public init(_ session: Session, _ options: GenerationOptions = GenerationOptions()) {
    self.session = session
    self.options = options
    stopTokens = options.stopsAtStopTokens ? session.model.stopTokens : []
    sampler = Sampler(options.sampling, session.plan.sampler, in: session.arena)
    decoding = session.model.tokenizer.map { DecodingStream($0, skipSpecialTokens: true) }
    stops = StopTexts(options.stop)
  }

  /// The next token of the answer; nil when it has ended.
  ///
  /// - Throws: `usage` where an option is impossible or there is no prompt.
  public mutating func next() throws(SquintError) -> GeneratedToken? {
    switch state {
    case .notStarted:
      try start()
      return try next()
    case .running:
      guard let token = try chooseNext() else { return finishText() }
      return hand(token)
    case .replaying(let tokens, let position):
      guard position < tokens.count, !stopTokens.contains(tokens[position]) else {
        end(position < tokens.count ? .stop : finishReason ?? .length)
        return finishText()
      }
      state = .replaying(tokens, next: position + 1)
      try session.append([tokens[position]])
      return hand(tokens[position])
    case .ended: return nil
    }
  }

  private var limit: Int { min(options.maxTokens ?? Int.max, session.context - session.prompt.count) }

  private mutating func start() throws(SquintError) {
    try options.sampling.check()
    if let maxTokens = options.maxTokens, maxTokens < 0 {
      throw SquintError(.usage, "an answer of \(maxTokens) tokens; choose 0 or more")
    }
    guard options.stop.allSatisfy({ !$0.isEmpty }) else {
      throw SquintError(.usage, "an empty stop text would end every answer at once")
    }
    guard try session.start() else {
      end(.cancelled)
      return
    }
    if session.plan.options.beams > 1, limit > 0 {
      try searchBeams()
    } else {
      // After the prompt, not before: in a phase of its own the arena's memory may have served another buffer.
      sampler.begin(after: session.tokens)
      state = .running
    }
  }

  private mutating func searchBeams() throws(SquintError) {
    guard options.sampling.temperature == 0, options.sampling.repetitionPenalty == 1 else {
      throw SquintError(.usage, "beam search follows probabilities as they are: no temperature, no repetition penalty")
    }
    guard let regions = session.plan.beams else { return }
    var search = BeamSearch(session.decoder, stopTokens: stopTokens, regions, in: session.arena)
    let session = session
    let tokens = try search.search(
      promptLength: session.prompt.count, limit: limit, rotary: session.rotary(behindPrompt:)
    ) { session.isCancelled }
    if session.isCancelled { finishReason = .cancelled }
    state = .replaying(tokens, next: 0)
  }

  /// The next token, computed; nil when the answer ends before it.
  private mutating func chooseNext() throws(SquintError) -> Int32? {
    if session.isCancelled {
      end(.cancelled)
      return nil
    }
    // The token that is still to go through the decoder takes a position, too.
    let taken = session.prompt.count + (pending == nil ? 0 : 1)
    guard count < options.maxTokens ?? Int.max, taken < session.context else {
      end(.length)
      return nil
    }
    if let token = pending {
      try session.step(token)
      pending = nil
    }
    let token = sampler.choose(session.logits)
    sampler.note(token)
    guard !stopTokens.contains(token) else {
      end(.stop)
      return nil
    }
    pending = token
    return token
  }

  /// The token that was handed out last: it goes through the decoder only when another one is asked for.
  private var pending: Int32?

  private mutating func hand(_ token: Int32) -> GeneratedToken {
    count += 1
    let text = stops.add(decoding?.append(token) ?? "")
    if stops.isFound { end(.stop) }
    return GeneratedToken(id: token, text: text)
  }

  /// Ends the answer; its last token, which no other token made necessary to compute, joins the conversation uncomputed.
  private mutating func end(_ reason: FinishReason) {
    if let pending { session.adopt(pending) }
    pending = nil
    state = .ended
    finishReason = reason
  }

  /// The text that was held back, as a last element without a token.
  private mutating func finishText() -> GeneratedToken? {
    let rest = stops.add(decoding?.finish() ?? "") + stops.finish()
    return rest.isEmpty ? nil : GeneratedToken(id: nil, text: rest)
  }
}

/// Finds the texts that end an answer, and holds back what could be the beginning of one.
package struct StopTexts {
  private let texts: [[UInt8]]
  private var held: [UInt8] = []
  package private(set) var isFound = false

  package init(_ texts: [String]) { self.texts = texts.map { Array($0.utf8) } }

  /// The part of the answer that is certain after `more`.
  package mutating func add(_ more: String) -> String {
    guard !isFound else { return "" }
    guard !texts.isEmpty else { return more }
    held += more.utf8
    let found = held.indices.first { start in texts.contains { held[start...].starts(with: $0) } }
    isFound = found != nil
    // A stop text begins with a whole character, so what is before it ends with one.
    let certain =
      found ?? held.indices.first { start in texts.contains { $0.starts(with: held[start...]) } } ?? held.count
    defer { held.removeFirst(certain) }
    return String(decoding: held[..<certain], as: UTF8.self)
  }

  /// What was held back and turned out to be no stop text.
  package mutating func finish() -> String {
    defer { held = [] }
    return isFound ? "" : String(decoding: held, as: UTF8.self)
  }
}
