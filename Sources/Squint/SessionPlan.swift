import SquintCompute
import SquintFile
import SquintMedia
import SquintModels

/// What a session is to be able to do; decides its memory.
public struct SessionOptions: Equatable, Sendable {
  /// The positions that prompt and answer may take together; nil: as many as the model was trained for, at most 4096,
  /// and as many as fit the budget.
  public var context: Int?
  /// How keys and values are kept.
  public var kvType: KVType
  /// The threads to compute on; nil: one for each processor that this process may use.
  public var threads: Int?
  /// The sequences that beam search follows at a time.
  public var beams: Int
  /// The bytes that the whole process may take; nil: what the control group and the machine leave free.
  public var memory: Int?
  /// The rows of the prompt that are computed together, at most.
  public var chunk: Int
  /// The images that the session is to look at.
  public var vision: VisionUse
  /// The tiles that an image may have at most; nil: as many as the model takes.
  public var maximumTiles: Int?
  /// The tokens of the prompt, and those that the answer may have, where they are known: the context is not made shorter.
  public var prompt: Int?
  public var answer: Int?
  /// Whether, where the budget does not hold it, the context may be shorter, the cache smaller, and images may have fewer tiles
  /// than these options say.
  public var fits: Bool

  /// When a session looks at images.
  public enum VisionUse: Equatable, Sendable {
    /// Never: the encoder takes no memory, and is not read.
    case none
    /// At these, all before the first answer: the encoder works in the memory that the cache takes afterwards.
    case once([ImageSize])
    /// At any time, one after the other, also at the largest that the model (and `maximumTiles`) takes.
    case always
  }

  public init(
    context: Int? = nil, kvType: KVType = .int8, threads: Int? = nil, beams: Int = 1, memory: Int? = nil,
    chunk: Int = 256, vision: VisionUse = .none, maximumTiles: Int? = nil, prompt: Int? = nil, answer: Int? = nil,
    fits: Bool = false
  ) {
    self.context = context
    self.kvType = kvType
    self.threads = threads
    self.beams = beams
    self.memory = memory
    self.chunk = chunk
    self.vision = vision
    self.maximumTiles = maximumTiles
    self.prompt = prompt
    self.answer = answer
    self.fits = fits
  }
}

/// A session's memory, worked out before any of it is taken: the buffers of the arena, the weights that stay, and what each
/// phase holds.
///
/// `squint plan` prints it and `Session` executes it; there is no second description.
public struct SessionPlan: Sendable {
  /// Something that takes memory in some phases.
  public struct Item: Equatable, Sendable {
    public let name: String
    public let byteCount: Int
  }

  /// What is held in memory in one phase.
  public struct Phase: Equatable, Sendable {
    public let name: String
    public let items: [Item]
    public var byteCount: Int { items.reduce(0) { $0 + $1.byteCount } }
  }

  public let options: SessionOptions
  public let context: Int
  public let threads: Int
  package let arena: ArenaPlan
  public let phases: [Phase]
  /// The bytes that the whole process may take.
  public let budget: Int

  let weights: Weights
  let decoder: any DecoderRegions
  /// nil where the session never looks at an image.
  let vision: Vision.Regions?
  let sampler: Sampler.Regions
  let beams: BeamSearch.Regions?

  /// What the session holds at most, in bytes.
  public var peak: Int { phases.map(\.byteCount).max() ?? 0 }

  var fits: Bool { peak <= budget }

  /// What encoding an image of `size` holds, in bytes.
  func byteCount(decoding size: ImageSize) -> Int {
    guard let encode = phases.first(where: { $0.name == "encode" }) else { return 0 }
    let planned = encode.items.first { $0.name == "pictures" }?.byteCount ?? 0
    // A session for images at any time has no place for what came through a pipe.
    let held = options.vision == .always ? size.heldBytes : 0
    return encode.byteCount + max(size.decodingBytes - planned, 0) + held
  }

  /// Whether the KV cache has memory of its own while images are encoded.
  var keepsCacheWhileEncoding: Bool { options.vision == .always }

  /// Plans a session with `model`.
  ///
  /// - Throws: `usage` where an option is impossible; `doesNotFit` where the budget does not hold it, with what would fit.
  public init(_ model: Model, _ options: SessionOptions) throws(SquintError) {
    try Self.check(options)
    let planner = try Planner(model, options)
    do throws(SquintError) {
      self = try planner.plan()
    } catch {
      guard options.fits, error.kind == .doesNotFit, let plan = try planner.adapted() else { throw error }
      self = plan
    }
  }

  private static func check(_ options: SessionOptions) throws(SquintError) {
    guard (1...4096).contains(options.chunk) else {
      throw SquintError(.usage, "chunks of \(options.chunk) rows; choose 1 to 4096")
    }
    guard (1...64).contains(options.beams) else {
      throw SquintError(.usage, "\(options.beams) beams; choose 1 to 64")
    }
    if let threads = options.threads, !Workers.counts.contains(threads) {
      throw SquintError(.usage, "\(threads) threads; choose 1 to \(Workers.counts.upperBound)")
    }
    if let tiles = options.maximumTiles, tiles < 1 {
      throw SquintError(.usage, "at most \(tiles) tiles; choose 1 or more")
    }
    if let memory = options.memory, memory <= 0 { throw SquintError(.usage, "a memory budget of \(memory) bytes") }
    if let context = options.context, !(1...1 << 24).contains(context) {
      throw SquintError(.usage, "a context of \(context) positions; choose 1 to \(grouped(1 << 24))")
    }
  }
}

// MARK: Weights

extension SessionPlan {
  /// Which weights stay in memory, and what goes through those that do not while they are there.
  struct Weights: Sendable {
    var decoder: Residency
    /// The rows of a prompt that go through the decoder's layers together.
    var rows: Int
    /// nil where there is no encoder.
    var encoder: Residency?
    /// The tiles that go through the encoder's layers together.
    var tiles = 1
    /// Whether the decoder's weights leave memory while images are encoded in the midst of a conversation.
    var takesTurns = false
  }

  /// The rows of a prompt that go through the decoder's layers together.
  public var rows: Int { weights.rows }

  /// The weights that are read from the file for each token of an answer, in bytes.
  public var bytesReadPerToken: Int { weights.decoder.streamedBytes }

  /// The weights that are read from the file to look at the images, beside those that stay, in bytes.
  public var bytesReadToEncode: Int {
    guard let encoder = weights.encoder, case .once(let sizes) = options.vision else { return 0 }
    return sizes.reduce(0) { $0 + ($1.layout.count + weights.tiles - 1) / weights.tiles } * encoder.streamedBytes
  }

  /// Whether the budget is too small for all modules at a time: then one that is not needed any more leaves the page cache, too.
  var isTight: Bool {
    let modules = phases.map { phase in
      phase.items.filter { $0.name == "decoder" || $0.name.hasPrefix("encoder") }.reduce(0) { $0 + $1.byteCount }
    }
    return peak + (modules.max() ?? 0) > budget || bytesReadPerToken > 0
  }

  /// The plan for `context` positions in which the weights are as `weights` says.
  init(
    _ model: Model, _ options: SessionOptions, context: Int, _ weights: Weights, _ conditions: Planner.Conditions
  ) throws(SquintError) {
    self.options = options
    self.context = context
    self.weights = weights
    let (machine, images) = (conditions.machine, conditions.images)
    budget = conditions.budget
    threads = options.threads ?? machine.processors
    let vocabulary = model.vocabularySize
    let isAlways = options.vision == .always
    var arena = ArenaPlan()
    decoder = try model.decoder.reserve(
      weights.decoder,
      DecoderSize(
        context: context, sequences: options.beams, kvType: options.kvType, rows: weights.rows,
        chunk: max(min(options.chunk, weights.rows), options.beams), logitRows: options.beams, threads: threads,
        keepsStateWhileEncoding: isAlways),
      in: &arena)
    if let vision = model.vision, let images, let residency = weights.encoder {
      self.vision = try Vision.Regions(
        vision, residency, layouts: images.layouts, tiles: weights.tiles, rowCapacity: images.rows,
        threads: threads, in: &arena)
    } else {
      vision = nil
    }
    sampler = try Sampler.Regions(vocabulary: vocabulary, in: &arena)
    beams =
      options.beams > 1
      ? try BeamSearch.Regions(beams: options.beams, context: context, vocabulary: vocabulary, in: &arena) : nil
    self.arena = arena

    let readers = [weights.decoder, weights.encoder].reduce(0) { $0 + ($1?.streamsNothing == false ? 1 : 0) }
    let process =
      [
        // The process holds the tokenizer already.
        Item(
          name: "process", byteCount: max(machine.processBytes - model.tokenizerBytes, 0) + Machine.growthBytes),
        Item(name: "threads", byteCount: (threads - 1) * Workers.stackBytes + readers * WeightStream.stackBytes),
        Item(name: "tokenizer", byteCount: model.tokenizerBytes),
      ] + (images.map { $0.heldBytes > 0 ? [Item(name: "piped pictures", byteCount: $0.heldBytes)] : [] } ?? [])
    func module(_ name: String, _ residency: Residency?) -> Item? {
      guard let module = model.file.module(name) else { return nil }
      // Of an embedding that is not the head single rows are read.
      let hasHead = name == "decoder" && model.file.tensor("decoder.head") != nil
      let unused = hasHead ? model.file.tensor("decoder.embedding")?.range.count ?? 0 : 0
      return Item(
        name: name, byteCount: residency?.byteCount(of: module.range, unused: unused) ?? module.range.count)
    }
    let seeing = [
      module(Vision.modules.encoder, weights.encoder), module(Vision.modules.projector, nil),
      Item(name: "pictures", byteCount: images?.decodingBytes ?? 0),
    ].compactMap(\.self)
    let answering = [module("decoder", weights.decoder)].compactMap(\.self)
    // The arena's pages stay once they are written; what only the encoder needs is given back when it is done.
    func buffers(_ written: Phases) -> [Item] { [Item(name: "arena", byteCount: arena.byteCount(writtenIn: written))] }
    let opening = Item(name: "opening", byteCount: model.openingBytes)
    var phases = [Phase(name: "load", items: process + [opening])]
    if vision != nil {
      phases.append(
        Phase(
          name: "encode",
          items: process + seeing + (isAlways && !weights.takesTurns ? answering : [])
            + buffers(isAlways ? [.encode, .prefill, .decode] : .encode)))
    }
    phases.append(
      Phase(name: "prefill", items: process + answering + buffers(isAlways ? [.prefill, .decode] : .prefill)))
    phases.append(Phase(name: "decode", items: process + answering + buffers([.prefill, .decode])))
    self.phases = phases
  }
}
