import SquintCompute
import SquintFile
import SquintModels

/// A conversation with a model: what has been said so far, in the KV cache, and the memory to go on.
///
/// All memory is taken when the session is made. Use a session from one task or thread at a time.
public final class Session {
  public let model: Model
  public let plan: SessionPlan
  /// Stops the answer that is being generated.
  public let cancellation: Cancellation
  /// Every token of the conversation so far.
  public private(set) var tokens: [Int32] = []
  /// The first tokens of `tokens` that are in the KV cache.
  public private(set) var cachedCount = 0

  let arena: Arena
  let decoder: TransformerDecoder

  /// Takes the memory for a session with `model`.
  ///
  /// - Throws: `doesNotFit` where the budget does not hold it, `usage` where an option is impossible.
  public convenience init(
    _ model: Model, _ options: SessionOptions = SessionOptions(), cancellation: Cancellation = Cancellation()
  ) throws(SquintError) {
    try self.init(model, SessionPlan(model, options), cancellation: cancellation)
  }

  /// Takes the memory that `plan`, which was made for `model`, describes.
  public init(
    _ model: Model, _ plan: SessionPlan, cancellation: Cancellation = Cancellation()
  ) throws(SquintError) {
    self.model = model
    self.cancellation = cancellation
    self.plan = plan
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: plan.threads))
    arena = try Arena(plan.arena)
    decoder = TransformerDecoder(model.configuration, model.weights, plan.decoder, in: arena, compute)
    tokens.reserveCapacity(plan.context)
  }

  /// The positions that prompt and answer may take together.
  public var context: Int { plan.context }

  // MARK: The prompt

  /// Appends `text`, tokenized as the checkpoint does it, to the conversation.
  public func append(_ text: String) throws(SquintError) {
    try append(model.tokens(text, addSpecialTokens: tokens.isEmpty))
  }

  /// Appends `more` to the conversation; it is computed when an answer is asked for.
  ///
  /// - Throws: `usage` where the context does not hold it or a token is not in the vocabulary.
  public func append(_ more: [Int32]) throws(SquintError) {
    try check(more, behind: tokens.count)
    tokens += more
  }

  private func check(_ more: [Int32], behind count: Int) throws(SquintError) {
    guard count + more.count <= context else {
      throw SquintError(
        .usage,
        "the prompt has \(grouped(count + more.count)) tokens, and the context holds \(grouped(context)); "
          + "shorten it or use a larger --context")
    }
    if let stranger = more.first(where: { $0 < 0 || $0 >= model.vocabularySize }) {
      throw SquintError(.usage, "token \(stranger) is not in the vocabulary (0 to \(model.vocabularySize - 1))")
    }
  }

  /// Makes the conversation `prompt`. What it has in common with the conversation so far is not computed again.
  ///
  /// - Throws: as `append`; then the conversation is as it was.
  public func replace(with prompt: [Int32]) throws(SquintError) {
    try check(prompt, behind: 0)
    let common = zip(tokens, prompt).prefix { $0 == $1 }.count
    truncate(to: common)
    tokens += prompt[common...]
  }

  /// Forgets everything from position `count` on.
  public func truncate(to count: Int) {
    tokens.removeLast(max(tokens.count - max(count, 0), 0))
    cachedCount = min(cachedCount, tokens.count)
  }

  // MARK: Computing

  /// Sends the tokens that are not in the cache yet through the decoder, chunk by chunk.
  ///
  /// - Parameters:
  ///   - logitsOfAll: whether to compute the logits of every position, not of the last alone.
  ///   - visit: called with each position whose logits were computed, and the logits.
  /// - Returns: whether it was finished, and not cancelled.
  private func prefill(
    logitsOfAll: Bool = false, visit: (Int, UnsafeBufferPointer<Float>) throws(SquintError) -> Void = { _, _ in }
  ) throws(SquintError) -> Bool {
    while cachedCount < tokens.count {
      if cancellation.isCancelled || Task.isCancelled { return false }
      let first = cachedCount
      let count = min(plan.options.chunk, tokens.count - first)
      for row in 0..<count { decoder.embed(Int(tokens[first + row]), row: row) }
      decoder.forward(count: count, .consecutive(sequence: 0, first: first))
      cachedCount += count
      if logitsOfAll {
        for row in 0..<count {
          decoder.project(first: row, count: 1)
          try visit(first + row, UnsafeBufferPointer(logits))
        }
      } else if cachedCount == tokens.count {
        decoder.project(first: count - 1, count: 1)
      }
    }
    return true
  }

  /// The logits [vocabulary] of the last position that was computed.
  var logits: UnsafeMutableBufferPointer<Float> {
    UnsafeMutableBufferPointer(start: decoder.logits[0], count: model.vocabularySize)
  }

  /// Computes the logits of every position that is not in the cache yet.
  ///
  /// - Parameter visit: called for each position in turn with its logits [vocabulary].
  /// - Returns: whether it was finished, and not cancelled.
  @discardableResult public func forEachLogits(
    _ visit: (_ position: Int, _ logits: UnsafeBufferPointer<Float>) throws(SquintError) -> Void
  ) throws(SquintError) -> Bool {
    try prefill(logitsOfAll: true, visit: visit)
  }

  /// Computes the prompt; afterwards `step` may be called.
  ///
  /// A prompt that is in the cache whole has its last token computed again, since only its logits are missing.
  ///
  /// - Returns: false where it was cancelled.
  /// - Throws: `usage` where there is no prompt.
  func start() throws(SquintError) -> Bool {
    guard !tokens.isEmpty else {
      throw SquintError(.usage, "the prompt is empty; say something")
    }
    cachedCount = min(cachedCount, tokens.count - 1)
    return try prefill()
  }

  /// Appends `token`, which this session generated, without computing it; a full context has no room for it.
  func adopt(_ token: Int32) {
    if tokens.count < context { tokens.append(token) }
  }

  /// Appends `token` and computes the logits behind it. The context must have room. Allocates nothing.
  func step(_ token: Int32) {
    tokens.append(token)
    decoder.embed(Int(token), row: 0)
    decoder.forward(count: 1, .consecutive(sequence: 0, first: cachedCount))
    decoder.project(first: 0, count: 1)
    cachedCount += 1
  }
}
