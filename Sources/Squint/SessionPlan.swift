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
  /// The media that the session is to encode.
  public var media: MediaUse
  /// Media that a session for media at any time is for beside the usual ones, and for others that are no larger. Without a video it takes
  /// none.
  public var known: [MediumSize] = []
  /// The units, such as tiles, that a medium may have at most; nil: as many as the model takes.
  public var maximumTiles: Int?
  /// The rows of the decoder that a medium may take at most; nil: as many as the model makes of it.
  public var maximumMediumRows: Int?
  /// The tokens of the prompt, and those that the answer may have, where they are known: the context is not made shorter.
  public var prompt: Int?
  public var answer: Int?
  /// Whether, where the budget does not hold it, the context may be shorter, the cache smaller, and media may have fewer units
  /// than these options say.
  public var fits: Bool

  /// When a session encodes media.
  public enum MediaUse: Equatable, Sendable {
    /// Never: encoders take no memory, and are not read.
    case none
    /// These, all before the first answer: encoders work in the memory that the cache takes afterwards.
    case once([MediumSize])
    /// At any time, one after the other, also the largest that the model (and `maximumTiles`) takes.
    case always
  }

  public init(
    context: Int? = nil, kvType: KVType = .int8, threads: Int? = nil, beams: Int = 1, memory: Int? = nil,
    chunk: Int = 256, media: MediaUse = .none, maximumTiles: Int? = nil, maximumMediumRows: Int? = nil,
    prompt: Int? = nil, answer: Int? = nil, fits: Bool = false
  ) {
    self.context = context
    self.kvType = kvType
    self.threads = threads
    self.beams = beams
    self.memory = memory
    self.chunk = chunk
    self.media = media
    self.maximumTiles = maximumTiles
    self.maximumMediumRows = maximumMediumRows
    self.prompt = prompt
    self.answer = answer
    self.fits = fits
  }

  /// Of each medium.
  public var limits: MediaLimits { MediaLimits(units: maximumTiles, rows: maximumMediumRows) }
}

/// A session's memory, worked out before any of it is taken: the buffers of the arena, the weights that stay, and what each
/// phase holds.
///
/// `squint plan` prints it and `Session` executes it; there is no second description.
public struct SessionPlan: Sendable {
  /// Something that takes memory in some phases.
  public struct Item: Equatable, Sendable {
    public enum Name: Hashable, Sendable {
      /// The program itself.
      case process
      /// The stacks of its threads.
      case threads
      case tokenizer
      /// What opening the file takes beside what stays.
      case opening
      /// Media that came through pipes.
      case pipedMedia
      /// Media while they are decoded, and their units.
      case decodingMedia
      case encoder(MediaKind)
      case projector(MediaKind)
      case decoder
      /// The buffers that have been written.
      case arena
    }

    public let name: Name
    public let byteCount: Int
  }

  /// What is held in memory in one phase.
  public struct Phase: Equatable, Sendable {
    /// In the order in which they run; there is one `encode` for each kind of media.
    public enum Name: String, CaseIterable, Sendable {
      case load, encode, prefill, decode
    }

    public let name: Name
    /// What is encoded in it.
    public let media: MediaKind?
    public let items: [Item]

    init(_ name: Name, _ media: MediaKind? = nil, items: [Item]) {
      self.name = name
      self.media = media
      self.items = items
    }

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
  /// nil where the session never encodes a medium.
  let media: MediaRegions?
  let sampler: Sampler.Regions
  let beams: BeamSearch.Regions?

  /// What the session holds at most, in bytes.
  public var peak: Int { phases.map(\.byteCount).max() ?? 0 }

  var fits: Bool { peak <= budget }

  /// What encoding a medium of `size` holds, in bytes.
  func byteCount(decoding size: MediumSize, by kind: MediaKind) -> Int {
    guard let encode = phases.first(where: { $0.media == kind }) else { return 0 }
    let planned = encode.items.first { $0.name == .decodingMedia }?.byteCount ?? 0
    // A session for media at any time has no place for what came through a pipe.
    let held = options.media == .always ? size.heldBytes : 0
    return encode.byteCount + max(size.decodingBytes - planned, 0) + held
  }

  /// Whether the KV cache has memory of its own while media are encoded.
  var keepsCacheWhileEncoding: Bool { options.media == .always }

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
    if let rows = options.maximumMediumRows, rows < 1 {
      throw SquintError(.usage, "at most \(rows) tokens of an image; choose 1 or more")
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
    /// Of each kind of media that is encoded.
    var encoders: [Encoder] = []
    /// Whether the decoder's weights leave memory while media are encoded in the midst of a conversation.
    var takesTurns = false

    struct Encoder: Sendable {
      let kind: MediaKind
      var residency: Residency
      /// The units that go through the encoder's layers together.
      var units = 1
    }
  }

  /// The buffers between units and the rows that the decoder takes.
  struct MediaRegions: Sendable {
    var engines: [(kind: MediaKind, regions: Modality.Regions)]
    let rows: Region<Float>
    let rowWidth: Int
    let rowCapacity: Int
  }

  /// The rows of a prompt that go through the decoder's layers together.
  public var rows: Int { weights.rows }

  /// The weights that are read from the file for each token of an answer, in bytes; of experts as many as if each were chosen as
  /// often as any, which is more than it will be: those that are chosen most stay.
  public var bytesReadPerToken: Int { weights.decoder.bytesReadPerToken }

  /// How many experts are in memory at a time, and how many there are; nil where there are none, or all are used in place in the
  /// file.
  public var experts: (held: Int, all: Int)? { weights.decoder.pool.map { ($0.slots, $0.table.count) } }

  /// The weights that are read from the file to encode the media, beside those that stay, in bytes.
  public var bytesReadToEncode: Int {
    guard case .once(let media) = options.media else { return 0 }
    let sizes = media.flatMap(\.parts)
    return weights.encoders.reduce(0) { bytes, encoder in
      let own = sizes.filter { $0.kind == encoder.kind }
      return bytes + own.reduce(0) { $0 + $1.cost.layout.passes(of: encoder.units) } * encoder.residency.streamedBytes
    }
  }

  /// Whether the budget is too small for all modules at a time: then one that is not needed any more leaves the page cache, too.
  var isTight: Bool {
    let modules = phases.map { phase in
      phase.items.reduce(0) { bytes, item in
        switch item.name {
        case .decoder, .encoder: bytes + item.byteCount
        default: bytes
        }
      }
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
    let (machine, media) = (conditions.machine, conditions.media)
    budget = conditions.budget
    threads = options.threads ?? machine.processors
    let vocabulary = model.vocabularySize
    let isAlways = options.media == .always
    let deepLevels = media?.uses.map { $0.modality.projector?.levels ?? 0 }.max() ?? 0
    var arena = ArenaPlan()
    decoder = try model.decoder.reserve(
      weights.decoder,
      DecoderSize(
        context: context, sequences: options.beams, kvType: options.kvType, rows: weights.rows,
        chunk: max(min(options.chunk, weights.rows), options.beams), logitRows: options.beams, threads: threads,
        keepsStateWhileEncoding: isAlways, deepLevels: deepLevels),
      in: &arena)
    if let media {
      var engines: [(kind: MediaKind, regions: Modality.Regions)] = []
      for (use, encoder) in zip(media.uses, weights.encoders) {
        let regions = try Modality.Regions(
          use.modality, encoder.residency, layouts: use.layouts, units: encoder.units, threads: threads, in: &arena)
        engines.append((use.modality.kind, regions))
      }
      let rowWidth = (1 + deepLevels) * model.decoder.blueprint.width
      let rows: Region<Float> = try arena.reserve(
        "projected rows", count: media.rows * rowWidth, phases: [.encode, .prefill])
      self.media = MediaRegions(engines: engines, rows: rows, rowWidth: rowWidth, rowCapacity: media.rows)
    } else {
      self.media = nil
    }
    sampler = try Sampler.Regions(vocabulary: vocabulary, in: &arena)
    beams =
      options.beams > 1
      ? try BeamSearch.Regions(beams: options.beams, context: context, vocabulary: vocabulary, in: &arena) : nil
    self.arena = arena

    let residencies = [weights.decoder] + weights.encoders.map(\.residency)
    let readers = residencies.count(where: \.streamsUnits) + residencies.count { $0.pool != nil }
    let process =
      [
        // The process holds the tokenizer already.
        Item(
          name: .process,
          byteCount: max(machine.processBytes - model.tokenizerBytes, 0)
            + Machine.growthBytes(model.modalities.map(\.kind))),
        Item(name: .threads, byteCount: (threads - 1) * Workers.stackBytes + readers * WeightStream.stackBytes),
        Item(name: .tokenizer, byteCount: model.tokenizerBytes),
      ] + (media.map { $0.heldBytes > 0 ? [Item(name: .pipedMedia, byteCount: $0.heldBytes)] : [] } ?? [])
    // Of an embedding that is not the head single rows are read.
    let unused =
      model.file.tensor("decoder.head") == nil ? 0 : model.file.tensor("decoder.embedding")?.range.count ?? 0
    let answering = [
      Item(
        name: .decoder, byteCount: weights.decoder.byteCount(of: model.file.range(ofModule: "decoder"), unused: unused))
    ]
    // The arena's pages stay once they are written; what only the encoder needs is given back when it is done.
    func buffers(_ written: Phases) -> [Item] { [Item(name: .arena, byteCount: arena.byteCount(writtenIn: written))] }
    let opening = Item(name: .opening, byteCount: model.openingBytes)
    var phases = [Phase(.load, items: process + [opening])]
    for encoder in weights.encoders {
      let (kind, file) = (encoder.kind, model.file)
      let encoding = [
        Item(
          name: .encoder(kind), byteCount: encoder.residency.byteCount(of: file.range(ofModule: kind.encoderModule))),
        Item(name: .projector(kind), byteCount: file.range(ofModule: kind.projectorModule).count),
        Item(
          name: .decodingMedia,
          byteCount: media.map { $0.decodingBytes + (encoder.units - 1) * $0.streamedUnitBytes } ?? 0),
      ]
      phases.append(
        Phase(
          .encode, kind,
          items: process + encoding + (isAlways && !weights.takesTurns ? answering : [])
            + buffers(isAlways ? [.encode, .prefill, .decode] : .encode)))
    }
    phases.append(
      Phase(.prefill, items: process + answering + buffers(isAlways ? [.prefill, .decode] : .prefill)))
    phases.append(Phase(.decode, items: process + answering + buffers([.prefill, .decode])))
    self.phases = phases
  }
}
