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
  /// The rows of the prompt that go through the decoder together.
  public var chunk: Int
  /// The pictures that the session is to look at.
  public var vision: VisionUse

  /// When a session looks at pictures.
  public enum VisionUse: Equatable, Sendable {
    /// Never: the encoder takes no memory, and is not read.
    case none
    /// At these, all before the first answer: the encoder works in the memory that the cache takes afterwards.
    case once([PictureSize])
    /// At any time, one after the other, also at the largest that the model takes.
    case always
  }

  public init(
    context: Int? = nil, kvType: KVType = .int8, threads: Int? = nil, beams: Int = 1, memory: Int? = nil,
    chunk: Int = 128, vision: VisionUse = .none
  ) {
    self.context = context
    self.kvType = kvType
    self.threads = threads
    self.beams = beams
    self.memory = memory
    self.chunk = chunk
    self.vision = vision
  }
}

/// A session's memory, worked out before any of it is taken: the buffers of the arena, and what each phase holds.
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
  public let arena: ArenaPlan
  public let phases: [Phase]
  /// The bytes that the whole process may take.
  public let budget: Int

  let decoder: TransformerDecoder.Regions
  /// nil where the session never looks at a picture.
  let vision: Vision.Regions?
  let sampler: Sampler.Regions
  let beams: BeamSearch.Regions?

  /// What the session holds at most, in bytes.
  public var peak: Int { phases.map(\.byteCount).max() ?? 0 }

  /// What encoding a picture of `size` holds, in bytes.
  func byteCount(decoding size: PictureSize) -> Int {
    guard let encode = phases.first(where: { $0.name == "encode" }) else { return 0 }
    let planned = encode.items.first { $0.name == "pictures" }?.byteCount ?? 0
    return encode.byteCount + max(size.decodingBytes - planned, 0)
  }

  /// Whether the KV cache has memory of its own while pictures are encoded.
  var keepsCacheWhileEncoding: Bool { options.vision == .always }

  /// The rows of the largest step.
  var rows: Int { max(options.chunk, options.beams) }

  /// Plans a session with `model`.
  ///
  /// - Throws: `usage` where an option is impossible; `doesNotFit` where the budget does not hold it, with what would fit.
  public init(_ model: Model, _ options: SessionOptions) throws(SquintError) {
    let configuration = model.configuration
    guard (1...4096).contains(options.chunk) else {
      throw SquintError(.usage, "chunks of \(options.chunk) rows; choose 1 to 4096")
    }
    guard (1...64).contains(options.beams) else {
      throw SquintError(.usage, "\(options.beams) beams; choose 1 to 64")
    }
    if let threads = options.threads, !Workers.counts.contains(threads) {
      throw SquintError(.usage, "\(threads) threads; choose 1 to \(Workers.counts.upperBound)")
    }
    if let memory = options.memory, memory <= 0 { throw SquintError(.usage, "a memory budget of \(memory) bytes") }
    let machine = Machine()
    let budget = options.memory ?? machine.availableBytes
    let conditions = Conditions(
      machine: machine, budget: budget, pictures: try Self.pictures(options.vision, model))
    if let context = options.context {
      guard (1...1 << 24).contains(context) else {
        throw SquintError(.usage, "a context of \(context) positions; choose 1 to \(grouped(1 << 24))")
      }
      let plan = try SessionPlan(model, options, context: context, conditions)
      guard plan.peak <= budget else {
        throw Self.doesNotFit(model, options, plan, conditions)
      }
      self = plan
      return
    }
    let pictureRows = conditions.pictures?.rows ?? 0
    let wanted = min(configuration.context, max(Self.defaultContext, pictureRows + Self.roomBesidePictures))
    guard let plan = try Self.largest(model, options, upTo: wanted, conditions) else {
      let least = try SessionPlan(
        model, options, context: min(wanted, Self.leastContext), conditions)
      throw Self.doesNotFit(model, options, least, conditions)
    }
    self = plan
  }

  /// What is the same for every context that is tried.
  private struct Conditions {
    let machine: Machine
    let budget: Int
    let pictures: (layouts: [TileLayout], rows: Int, decodingBytes: Int)?
  }

  /// Long enough for a picture and a conversation about it; more must be asked for.
  private static let defaultContext = 4096
  /// For the question and the answer, where the pictures take more than the default context.
  private static let roomBesidePictures = 1024
  /// A default context shorter than this would surprise more than an error does.
  private static let leastContext = 256

  /// The plan with the longest context up to `limit` that fits, in steps of 64 positions; nil where none does.
  private static func largest(
    _ model: Model, _ options: SessionOptions, upTo limit: Int, _ conditions: Conditions
  ) throws(SquintError) -> SessionPlan? {
    let least = min(limit, leastContext)
    var best: SessionPlan?
    var low = least
    var high = limit
    while low <= high {
      // The first try is the whole: nearly always it fits.
      let middle = best == nil && high == limit && low == least ? limit : (low + high) / 2
      let context = middle == limit ? limit : max(middle / 64 * 64, least)
      let plan = try SessionPlan(model, options, context: context, conditions)
      if plan.peak <= conditions.budget {
        best = plan
        low = middle + 1
      } else {
        high = middle - 1
      }
    }
    return best
  }

  private static func doesNotFit(
    _ model: Model, _ options: SessionOptions, _ plan: SessionPlan, _ conditions: Conditions
  ) -> SquintError {
    var remedies: [String] = []
    if options.context != nil,
      let shorter = try? largest(model, options, upTo: plan.context, conditions)
    {
      remedies.append("--context \(shorter.context) would fit")
    }
    if options.kvType != .int8 {
      var smaller = options
      smaller.kvType = .int8
      if let plan = try? SessionPlan(model, smaller, context: plan.context, conditions),
        plan.peak <= conditions.budget
      {
        remedies.append("--kv int8 would fit")
      }
    }
    if options.memory != nil {
      remedies.append("--memory \((plan.peak >> 20) + 1)M would do")
    } else if remedies.isEmpty {
      remedies.append("end other programs, or take a smaller model")
    }
    return SquintError(
      .doesNotFit,
      "\(model.file.path): a context of \(plan.context) takes \(grouped(plan.peak)) bytes, and \(grouped(conditions.budget)) are "
        + (options.memory == nil ? "free" : "allowed") + "; " + remedies.joined(separator: ", "))
  }

  private init(
    _ model: Model, _ options: SessionOptions, context: Int, _ conditions: Conditions
  ) throws(SquintError) {
    self.options = options
    self.context = context
    let (machine, pictures) = (conditions.machine, conditions.pictures)
    budget = conditions.budget
    threads = options.threads ?? machine.processors
    let c = model.configuration
    let shape = KVShape(
      layers: c.layers, sequences: options.beams, heads: c.kvHeads, context: context, headWidth: c.headWidth,
      type: options.kvType)
    var arena = ArenaPlan()
    decoder = try TransformerDecoder.Regions(
      c, cache: shape, rows: max(options.chunk, options.beams), logitRows: options.beams, threads: threads,
      keepsCacheWhileEncoding: options.vision == .always, in: &arena)
    if let vision = model.vision, let pictures {
      self.vision = try Vision.Regions(
        vision, layouts: pictures.layouts, rowCapacity: pictures.rows, threads: threads, in: &arena)
    } else {
      vision = nil
    }
    sampler = try Sampler.Regions(vocabulary: c.vocabulary, in: &arena)
    beams =
      options.beams > 1
      ? try BeamSearch.Regions(beams: options.beams, context: context, vocabulary: c.vocabulary, in: &arena) : nil
    self.arena = arena

    let process = [
      // The process holds the tokenizer already.
      Item(
        name: "process", byteCount: max(machine.processBytes - model.tokenizerBytes, 0) + Machine.growthBytes),
      Item(name: "threads", byteCount: (threads - 1) * Workers.stackBytes),
      Item(name: "tokenizer", byteCount: model.tokenizerBytes),
    ]
    func weights(_ names: String...) -> [Item] {
      names.compactMap { name in model.file.module(name).map { Item(name: name, byteCount: $0.range.count) } }
    }
    let looks = vision != nil
    // The arena's pages stay once they are written, so a later phase holds what an earlier one has written; where
    // pictures may come at any time, all may have been.
    var written: Phases = options.vision == .always ? [.encode, .prefill, .decode] : []
    phases =
      [Phase(name: "load", items: process)]
      + Phases.all.filter { arena.byteCount(in: $0.phase) > 0 && ($0.phase != .encode || looks) }.map { phase in
        let isEncode = phase.phase == .encode
        written.formUnion(phase.phase)
        return Phase(
          name: phase.name,
          items: process
            + (isEncode
              ? weights(Vision.modules.encoder, Vision.modules.projector) + [
                Item(name: "pictures", byteCount: pictures?.decodingBytes ?? 0)
              ] : weights("decoder"))
            + [Item(name: "arena", byteCount: arena.byteCount(writtenIn: written))])
      }
  }

  /// What the pictures of a session take: their layouts, the rows to keep at a time, the memory of their pixels.
  private static func pictures(
    _ use: SessionOptions.VisionUse, _ model: Model
  ) throws(SquintError) -> (layouts: [TileLayout], rows: Int, decodingBytes: Int)? {
    switch use {
    case .none: return nil
    case .once(let sizes):
      guard !sizes.isEmpty else { return nil }
      guard model.vision != nil else { throw model.blind }
      // All stay decoded until they are encoded, and one is being decoded.
      let waiting = sizes.reduce(0) { $0 + $1.pixelBytes }
      let decoding = sizes.map { $0.decodingBytes - $0.pixelBytes }.max() ?? 0
      return (sizes.map(\.layout), sizes.reduce(0) { $0 + $1.rows }, waiting + decoding)
    case .always:
      guard model.vision != nil else { return nil }
      let size = try model.largestPicture()
      return ([size.layout], size.rows, size.decodingBytes)
    }
  }
}
