import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// A conversation with a model: what has been said so far, in the KV cache, and the memory to go on.
///
/// All memory is taken when the session is made. Use a session from one task or thread at a time.
public final class Session {
  public let model: Model
  public let plan: SessionPlan
  /// Stops the answer that is being generated.
  public let cancellation: Cancellation
  /// The conversation so far.
  public private(set) var prompt = Prompt()
  /// The first positions of the conversation that are in the KV cache.
  public private(set) var cachedCount = 0
  /// What the session has encoded since it was made.
  public private(set) var encoded = EncodingStatistics()
  /// Called while a prompt is computed, on the thread that computes it.
  public var onProgress: ((SessionProgress) -> Void)?

  let arena: Arena
  let decoder: any Decoder
  private let engines: [Modality.Engine]
  /// [capacity, (1 + deep levels) · width]: the rows of media on their way to the decoder, and what is added to them behind its first
  /// layers; nil where the session takes text alone.
  private let mediaRows: Rows?
  /// The runs of positions whose rows are in `mediaRows`, and where there.
  private var visible: [(positions: Range<Int>, row: Int)] = []
  /// The position up to which the prompt can be computed with what is visible.
  private var visibleEnd = 0

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
    decoder = try model.decoder.decoder(plan.decoder, reader: model.reader, in: arena, compute)
    var engines: [Modality.Engine] = []
    for engine in plan.media?.engines ?? [] {
      engines.append(
        try Modality.Engine(model.modality(engine.kind), engine.regions, reader: model.reader, in: arena, compute))
    }
    self.engines = engines
    mediaRows = plan.media.map { [arena] in Rows($0.rows, width: $0.rowWidth, in: arena) }
    prompt.tokens.reserveCapacity(plan.context)
    // The tables and the tokenizer have been read.
    if plan.isTight { model.file.dropCached(0..<model.file.frontEnd) }
  }

  /// The tokens of the conversation so far; `Prompt.featureToken` where a row of a medium stands.
  public var tokens: [Int32] { prompt.tokens }

  /// What has been read of weights that do not stay in memory, in bytes.
  public var bytesRead: Int { engines.reduce(decoder.stream.bytesRead) { $0 + $1.bytesRead } }

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
    try append(Prompt(tokens: more))
  }

  /// Appends `more` to the conversation; it is computed when an answer is asked for.
  ///
  /// - Throws: `usage` where the context does not hold it, a token is not in the vocabulary, or the session was not planned
  ///   for its media.
  public func append(_ more: Prompt) throws(SquintError) {
    try check(more, behind: prompt.count)
    prompt.append(more)
  }

  private func check(_ more: Prompt, behind count: Int) throws(SquintError) {
    guard count + more.count <= context else {
      throw SquintError(
        .usage,
        "the prompt has \(grouped(count + more.count)) tokens, and the context holds \(grouped(context))",
        // Where the media alone are too much, no shorter text helps.
        remedies: [more.media.reduce(0) { $0 + $1.rows } < context ? .longerContext : .smallerMedia])
    }
    if let stranger = more.tokens.first(where: { $0 != Prompt.featureToken && ($0 < 0 || $0 >= model.vocabularySize) })
    {
      throw SquintError(.usage, "token \(stranger) is not in the vocabulary (0 to \(model.vocabularySize - 1))")
    }
    for medium in more.media { try check(medium) }
  }

  /// Checks that the session can encode `medium` within its plan.
  ///
  /// - Throws: `usage` where it was planned for none, or for smaller ones; `doesNotFit` where decoding it would take more
  ///   than the budget.
  public func check(_ medium: Medium) throws(SquintError) {
    guard let engine = engines.first(where: { $0.modality.kind == medium.kind }),
      medium.size.rowsWithSound <= mediaCapacity,
      engine.holds(medium.size)
    else {
      throw SquintError(
        .usage,
        "\(medium.name): the session was not planned for this \(medium.kind.noun) of \(grouped(medium.size.rowsWithSound)) tokens, but for "
          + "smaller ones or none", remedies: [.beginWith(kind: medium.kind.rawValue)])
    }
    let needed = plan.byteCount(decoding: medium.size, by: engine.modality.kind)
    guard needed <= plan.budget else {
      throw SquintError(
        .doesNotFit,
        "\(medium.name): decoding it takes \(grouped(medium.size.decodingBytes)) bytes, which with all else is "
          + "\(grouped(needed)), and \(grouped(plan.budget)) are "
          + (plan.options.memory == nil ? "free" : "allowed") + "; make the \(medium.kind.noun) smaller",
        needed: needed, available: plan.budget)
    }
    if let sound = medium.sound { try check(sound) }
  }

  /// The rows of media that there is room for at a time.
  private var mediaCapacity: Int { plan.media?.rowCapacity ?? 0 }

  /// Makes the conversation `tokens`, as `replace(with: Prompt)` does it.
  public func replace(with tokens: [Int32]) throws(SquintError) { try replace(with: Prompt(tokens: tokens)) }

  /// Makes the conversation `prompt`. What it has in common with the conversation so far is not computed again, and a medium
  /// in it not encoded again.
  ///
  /// - Throws: as `append`; then the conversation is as it was.
  public func replace(with prompt: Prompt) throws(SquintError) {
    try check(prompt, behind: 0)
    let common = self.prompt.commonPrefix(with: prompt)
    truncate(to: common)
    self.prompt.append(prompt, from: common)
  }

  /// Forgets everything from position `count` on.
  public func truncate(to count: Int) {
    prompt.truncate(to: count)
    cachedCount = min(cachedCount, prompt.count)
    // The rows in the buffer belong to positions that are not there any more, or will be others.
    visible = []
    visibleEnd = 0
  }

  // MARK: Media

  /// Encodes the media whose rows are needed next, as many as the buffer holds.
  ///
  /// All are decoded before the first is encoded, so that one that is broken is found at once. Those of one kind are encoded one
  /// after the other, so that each encoder's weights come once.
  ///
  /// - Returns: the position up to which the prompt can be computed; nil where it was cancelled.
  func encodePendingMedia() throws(SquintError) -> Int? {
    if cachedCount < visibleEnd { return visibleEnd }
    guard prompt.spans.last.map({ $0.end > cachedCount }) == true else { return prompt.count }
    guard let mediaRows else { preconditionFailure("append checks that there is an encoder") }
    // In a session that gives the encoders the cache's memory, the cache is lost, and everything is computed again.
    if !plan.keepsCacheWhileEncoding { cachedCount = decoder.cutBack(to: 0) }
    // Nothing is visible until all of it is: this may be cancelled, or a medium be broken.
    visible = []
    visibleEnd = 0
    var runs: [(positions: Range<Int>, row: Int)] = []
    var end = prompt.count
    var media: [(medium: Medium, row: Int)] = []
    var used = 0
    for span in prompt.spans where span.end > cachedCount {
      // The rows of a medium follow each other, those of a sound perhaps among its video's; the same medium again begins with its first.
      var index = span.rows.lowerBound > 0 ? media.lastIndex { $0.medium === span.medium } : nil
      if index == nil {
        guard used + span.medium.size.rowsWithSound <= mediaCapacity else {
          end = span.position
          break
        }
        index = media.count
        media.append((span.medium, used))
        used += span.medium.rows
      }
      if let index { runs.append((span.position..<span.end, media[index].row + span.rows.lowerBound)) }
    }
    guard !media.isEmpty, end == prompt.count || plan.keepsCacheWhileEncoding else {
      throw SquintError(
        .usage,
        "the session was planned for media of \(grouped(mediaCapacity)) tokens in all, and the prompt has more; give them in "
          + "SessionOptions.media")
    }

    let clock = ContinuousClock()
    let start = clock.now
    if plan.weights.takesTurns { decoder.stream.evict(uncached: true) } else { decoder.stream.pause() }
    var waiting = engines.filter { engine in media.contains { $0.medium.kind == engine.modality.kind } }
    defer { for engine in waiting { evict(engine) } }
    for engine in waiting { model.file.advise(model.file.range(ofModule: engine.modality.kind.projectorModule), .soon) }
    // Also where this is cancelled, or one is broken: their units are in the plan of this phase alone.
    defer { for (medium, _) in media { medium.forget() } }
    for (index, (medium, _)) in media.enumerated() {
      let units = try medium.units(while: {
        onProgress?(.decode(medium.kind, index, of: media.count))
        return !isCancelled
      })
      guard units != nil else { return nil }
    }
    let decoded = clock.now
    let count = media.reduce(0) { $0 + $1.medium.size.units }
    var done = 0
    while let engine = waiting.first {
      for (medium, row) in media where medium.kind == engine.modality.kind {
        guard let units = try medium.units(while: { true }) else { preconditionFailure("nobody cancelled it") }
        let isFinished = try engine.encode(
          units,
          while: { unit in
            onProgress?(.encode(medium.kind, unit: done + unit, of: count))
            return !isCancelled
          }
        ) { (unit, shape, features) throws(SquintError) in
          try engine.place(features, unit: unit, of: shape, medium.size, into: mediaRows.from(row))
        }
        guard isFinished else { return nil }
        medium.forget()
        done += medium.size.units
      }
      evict(engine)
      waiting.removeFirst()
    }
    for (medium, _) in media { encoded.add(medium.kind, media: 1, units: medium.size.units) }
    encoded.decodingSeconds += (decoded - start) / .seconds(1)
    encoded.encodingSeconds += (clock.now - decoded) / .seconds(1)
    visible = runs
    visibleEnd = end
    return end
  }

  /// What only this encoder needs leaves memory before the weights of what comes next.
  private func evict(_ engine: Modality.Engine) {
    engine.evict(uncached: plan.isTight)
    let projector = model.file.range(ofModule: engine.modality.kind.projectorModule)
    model.file.advise(projector, .done)
    if plan.isTight { model.file.dropCached(projector) }
    arena.release(keeping: [.prefill, .decode])
  }

  var isCancelled: Bool { cancellation.isCancelled || Task.isCancelled }

  /// Writes what stands at `position` to row `row` of the decoder's input.
  private func fill(row: Int, from position: Int) throws(SquintError) {
    decoder.place(row, at: prompt.rotaryPosition(position))
    let token = prompt.tokens[position]
    guard token == Prompt.featureToken else { return try decoder.embed(Int(token), row: row) }
    guard let mediaRows, let run = visible.first(where: { $0.positions.contains(position) }) else {
      preconditionFailure("encodePendingMedia() made the rows of every position that is computed")
    }
    decoder.embed(mediaRows[run.row + position - run.positions.lowerBound], row: row)
  }

  // MARK: Computing

  /// Sends the positions that are not in the cache yet through the decoder, chunk by chunk.
  ///
  /// - Parameters:
  ///   - logitsOfAll: whether to compute the logits of every position, not of the last alone.
  ///   - visit: called with each position whose logits were computed, and the logits.
  /// - Returns: whether it was finished, and not cancelled.
  private func prefill(
    logitsOfAll: Bool = false, visit: (Int, UnsafeBufferPointer<Float>) throws(SquintError) -> Void = { _, _ in }
  ) throws(SquintError) -> Bool {
    // What the layers remember may not reach back to where the conversation was cut off, or a pass was broken off.
    cachedCount = decoder.cutBack(to: cachedCount)
    while cachedCount < prompt.count {
      guard let end = try encodePendingMedia(), !isCancelled else { return false }
      let first = cachedCount
      let count = min(decoder.rows, end - first)
      for row in 0..<count { try fill(row: row, from: first + row) }
      let projects = logitsOfAll || first + count == prompt.count
      let isFinished = decoder.forward(
        count: count, .consecutive(sequence: 0, first: first), projects: projects,
        while: { layer in
          onProgress?(.prefill(position: first + count * layer / model.decoder.blueprint.layers, of: prompt.count))
          return !isCancelled
        })
      guard isFinished else { return false }
      try decoder.stream.check()
      if logitsOfAll {
        for row in 0..<count {
          decoder.project(first: row, count: 1)
          try decoder.stream.check()
          try visit(first + row, UnsafeBufferPointer(logits))
        }
      } else if first + count == prompt.count {
        decoder.project(first: count - 1, count: 1)
        try decoder.stream.check()
      }
      cachedCount += count
    }
    // Who asks for another answer has the last position computed again.
    decoder.keepSnapshot(at: max(cachedCount - 1, 0))
    // The answer may use the memory of what was visible.
    visible = []
    visibleEnd = 0
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
    guard prompt.count > 0 else {
      throw SquintError(.usage, "the prompt is empty; say something")
    }
    cachedCount = min(cachedCount, prompt.count - 1)
    return try prefill()
  }

  /// Where token `index` behind the conversation stands for the rotary embedding.
  func rotary(behindPrompt index: Int) -> RotaryPosition { prompt.rotaryPosition(prompt.count + index) }

  /// Appends `token`, which this session generated, without computing it; a full context has no room for it.
  func adopt(_ token: Int32) {
    if prompt.count < context { prompt.tokens.append(token) }
  }

  /// Appends `token` and computes the logits behind it. The context must have room. Allocates nothing.
  ///
  /// - Throws: `inputOutput` where weights have to be read and cannot be.
  func step(_ token: Int32) throws(SquintError) {
    try decoder.embed(Int(token), row: 0)
    decoder.place(0, at: prompt.rotaryPosition(prompt.count))
    prompt.tokens.append(token)
    decoder.forward(count: 1, .step(sequence: 0, position: cachedCount))
    decoder.project(first: 0, count: 1)
    try decoder.stream.check()
    cachedCount += 1
  }
}

/// How far a prompt is.
public enum SessionProgress: Sendable {
  /// A medium of so many, counted from 0, is being decoded.
  case decode(MediaKind, Int, of: Int)
  /// Unit `unit` of so many in all media, counted from 0, is being encoded.
  case encode(MediaKind, unit: Int, of: Int)
  /// The prompt from `position` on is being computed.
  case prefill(position: Int, of: Int)
}

/// What encoding media took.
public struct EncodingStatistics: Equatable, Sendable {
  public var media = 0
  /// Tiles of images, and what else is encoded by itself.
  public var units = 0
  /// The same of each kind that there was.
  public var kinds: [MediaKind: Count] = [:]
  /// From the files to units.
  public var decodingSeconds = 0.0
  /// From units to rows of the decoder.
  public var encodingSeconds = 0.0

  /// So many media, in so many units.
  public struct Count: Equatable, Sendable {
    public var media = 0
    public var units = 0
  }

  mutating func add(_ kind: MediaKind, media: Int, units: Int) {
    self.media += media
    self.units += units
    kinds[kind, default: Count()].media += media
    kinds[kind, default: Count()].units += units
  }

  /// What was encoded since `earlier`.
  public func since(_ earlier: EncodingStatistics) -> EncodingStatistics {
    EncodingStatistics(
      media: media - earlier.media, units: units - earlier.units,
      kinds: kinds.reduce(into: [:]) { result, entry in
        let before = earlier.kinds[entry.key] ?? Count()
        let more = Count(media: entry.value.media - before.media, units: entry.value.units - before.units)
        if more.media > 0 { result[entry.key] = more }
      },
      decodingSeconds: decodingSeconds - earlier.decodingSeconds,
      encodingSeconds: encodingSeconds - earlier.encodingSeconds)
  }
}
