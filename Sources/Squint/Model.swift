import SquintFile
import SquintMedia
import SquintModels
import SquintText

/// A model file, opened and checked, ready for sessions.
///
/// Opening reads the tables and the tokenizer; no weight is touched. A model may serve any number of sessions, also at the
/// same time.
public final class Model: Sendable {
  package let file: ModelFile
  /// Reads weights that do not stay in memory.
  package let reader: DirectReader
  package let decoder: any DecoderModel
  /// nil for a checkpoint that came without one; then prompts and answers are tokens.
  package let tokenizer: Tokenizer?
  /// How a conversation becomes a prompt.
  let chat: ChatFormat
  /// The tokens that end an answer: those that the file names, the usual ends of a turn, and the one that the chat template
  /// puts behind an answer.
  public let stopTokens: Set<Int32>
  /// The checkpoint's own choice of sampling, for conversation.
  public let sampling: SamplingOptions
  /// What the tokenizer and the chat template hold in memory, in bytes.
  let tokenizerBytes: Int
  /// At most what was held beside it while it was made, in bytes.
  let openingBytes: Int
  /// None for a model that takes text alone.
  let modalities: [Modality]
  /// What the numbers of places in an image mean; nil where the model names none.
  let coordinates: ImageCoordinates?
  /// How media of each kind stand in prompts, also of those that the model does not take.
  let markups: [MediaMarkup]

  /// Opens the model at `path`.
  ///
  /// - Parameter memory: the bytes that this process may take to do so; nil: what is free.
  /// - Throws: `noInput` when it cannot be read, `badData` when it is not a sound model with a text decoder, `doesNotFit` where
  ///   its tables or its tokenizer take more memory than that.
  public convenience init(path: String, memory: Int? = nil) throws(SquintError) {
    try self.init(ModelFile(path: path, memory: MemoryLimit(memory: memory)))
  }

  /// Makes `file`, which may be a part of a larger one, ready for sessions.
  ///
  /// - Throws: `badData` when it is not a sound model with a text decoder.
  package init(_ file: ModelFile) throws(SquintError) {
    self.file = file
    reader = DirectReader(file)
    do throws(SquintError) {
      let metadata = file.metadata
      guard file.module("decoder") != nil else {
        throw SquintError(.badData, "there is no text decoder in this file; convert the model again")
      }
      try file.refuseUnknown()
      decoder = try decoderModel(of: file)
      modalities = try Modality.all(in: file, decoderWidth: decoder.blueprint.width)
      coordinates = try ImageCoordinates(metadata)
      markups = try Self.markups(metadata)
      let template = try metadata.string("chat.template", default: "")
      let named = Set(try metadata.ints("generation.stop_tokens").compactMap { Int32(exactly: $0) })
      let residentBefore = Machine.residentBytes()
      (tokenizer, openingBytes) = try Self.storedTokenizer(in: file)
      file.advise(0..<file.frontEnd, .done)  // all of it has been read
      chat = ChatFormat(
        source: template, tokenizer: tokenizer, stopTokens: named,
        media: (Set(markups.compactMap(\.token)), markups.map(\.texts).joined()))
      tokenizerBytes = max(Machine.residentBytes() - residentBefore, 0)
      let vocabulary = decoder.blueprint.vocabulary
      stopTokens = named.union(chat.ends).filter { $0 >= 0 && $0 < vocabulary }
      sampling = SamplingOptions(
        temperature: Float(try metadata.float("generation.temperature", default: 0)),
        topK: try metadata.int("generation.top_k", in: 0...Int(Int32.max), default: 0),
        topP: Float(try metadata.float("generation.top_p", default: 1)),
        minP: Float(try metadata.float("generation.min_p", default: 0)),
        repetitionPenalty: Float(try metadata.float("generation.repetition_penalty", default: 1)))
      do { try sampling.check() } catch {
        throw SquintError(.badData, "metadata generation: \(error.message); convert the model again")
      }
    } catch {
      throw error.naming(file.path)
    }
  }

  /// What people call the model.
  public var name: String {
    let name = try? file.metadata.string("general.name", default: "")
    return name.flatMap { $0.isEmpty ? nil : $0 } ?? file.path
  }

  /// The tokenizer in `file`.
  ///
  /// - Throws: `badData` where it has none or it is corrupt.
  package static func tokenizer(of file: ModelFile) throws(SquintError) -> Tokenizer {
    guard let tokenizer = try storedTokenizer(in: file).tokenizer else { throw noTokenizer(file) }
    return tokenizer
  }

  /// The tokenizer in `file`, and at most what was held beside it while it was made, in bytes.
  private static func storedTokenizer(
    in file: ModelFile
  ) throws(SquintError) -> (tokenizer: Tokenizer?, beside: Int) {
    let metadata = try file.bulkMetadata(
      textBytes: TokenizerDefinition.maximumTextBytes, where: TokenizerDefinition.isKey)
    guard TokenizerDefinition.isPresent(in: metadata) else { return (nil, file.unpackingBytes) }
    let stored = TokenizerDefinition.storedBytes(in: metadata)
    try file.memory.check(stored, for: "\(file.path): reading its tokenizer")
    let definition = try TokenizerDefinition(metadata: metadata)
    try file.memory.check(definition.tableBytes, for: "\(file.path): reading its tokenizer")
    // The metadata, and what was made of it on the way to the tables.
    return (try Tokenizer(definition), max(file.unpackingBytes + stored, 2 * stored + definition.makingBytes))
  }

  var noTokenizer: SquintError { Self.noTokenizer(file) }

  private static func noTokenizer(_ file: ModelFile) -> SquintError {
    .badData(file.path, "it has no tokenizer; convert the checkpoint together with its tokenizer files")
  }

  /// The tokens that there are: 0 ..< vocabularySize.
  public var vocabularySize: Int { decoder.blueprint.vocabulary }

  /// The positions that the decoder was trained for: a context may be longer, and answers in it poorer.
  public var trainedContext: Int { decoder.blueprint.context }

  /// The tokens of `text` as the decoder takes them.
  ///
  /// - Throws: `badData` where the tokenizer has tokens that the decoder has not.
  public func tokens(_ text: String, addSpecialTokens: Bool = true) throws(SquintError) -> [Int32] {
    let tokens = try encode(text, addSpecialTokens: addSpecialTokens)
    try checkVocabulary(tokens)
    return tokens
  }

  /// The text of `tokens`.
  ///
  /// - Throws: `badData` where the file has no tokenizer.
  public func text(_ tokens: [Int32], skipSpecialTokens: Bool = true) throws(SquintError) -> String {
    guard let tokenizer else { throw noTokenizer }
    return tokenizer.decode(tokens, skipSpecialTokens: skipSpecialTokens)
  }

  private func encode(_ text: String, addSpecialTokens: Bool) throws(SquintError) -> [Int32] {
    guard let tokenizer else { throw noTokenizer }
    return tokenizer.encode(text, addSpecialTokens: addSpecialTokens)
  }

  func checkVocabulary(_ tokens: [Int32]) throws(SquintError) {
    if let stranger = tokens.first(where: { $0 != Prompt.featureToken && ($0 < 0 || $0 >= vocabularySize) }) {
      throw .badData(
        file.path,
        "the tokenizer gives token \(stranger), and the decoder has \(vocabularySize); convert it again")
    }
  }

  // MARK: Media

  private static func markups(_ metadata: Metadata) throws(SquintError) -> [MediaMarkup] {
    var markups: [MediaMarkup] = []
    for kind in MediaKind.allCases { markups.append(try MediaMarkup(kind, metadata)) }
    return markups
  }

  func markup(_ kind: MediaKind) -> MediaMarkup {
    guard let markup = markups.first(where: { $0.kind == kind }) else {
      preconditionFailure("there is one for each kind")
    }
    return markup
  }

  /// The token that stands for a row of a medium in what the checkpoint's own processor makes; nil where there is none.
  public func token(for kind: MediaKind) -> Int32? { markup(kind).token }

  /// What the model is asked about a medium of `kind` where the user asks nothing: empty for one whose chat template has no place for a
  /// question. nil: the model does not say.
  public func usualQuestion(about kind: MediaKind) -> String? { markup(kind).question }

  /// Whether the model takes media of this kind.
  public func accepts(_ kind: MediaKind) -> Bool { modalities.contains { $0.kind == kind } }

  /// Whether the model takes more than text.
  public var acceptsMedia: Bool { !modalities.isEmpty }

  /// Whether the model takes images.
  public var acceptsImages: Bool { accepts(.image) }

  /// The image at `path`, as `medium` opens it.
  ///
  /// - Parameter maximumTiles: where the model cuts images into tiles, into no more than these; nil: as the checkpoint does.
  public func image(_ path: String, maximumTiles: Int? = nil) throws(SquintError) -> Image {
    try medium(.image, path, MediaLimits(units: maximumTiles))
  }

  /// The medium at `path`, `-` being stdin, for a prompt. The head of its file is read now, the rest when a session encodes it.
  ///
  /// - Throws: `noInput` where it cannot be read, `badData` where it is no medium of this kind that can be understood, `usage` where
  ///   the model does not take those, or not within `limits`.
  public func medium(
    _ kind: MediaKind, _ path: String, _ limits: MediaLimits = MediaLimits()
  ) throws(SquintError) -> Medium {
    let modality = try modality(kind)
    let hears = kind == .video && limits.hearsVideos && modality.positions.interleaving != nil
    let sounds = hears ? modalities.first { $0.kind == .audio } : nil
    return try Medium(path: path, modality, sounds: sounds, limits)
  }

  /// The images at `paths`, as `image` opens each.
  public func images(_ paths: [String], maximumTiles: Int? = nil) throws(SquintError) -> [Image] {
    try media(paths.map { (.image, $0) }, MediaLimits(units: maximumTiles))
  }

  /// The media in these files, as `medium` opens each.
  package func media(
    _ files: [(kind: MediaKind, path: String)], _ limits: MediaLimits = MediaLimits()
  ) throws(SquintError) -> [Medium] {
    var media: [Medium] = []
    for file in files {
      var limits = limits
      limits.isOneOfSeveral = files.count { $0.kind == file.kind } > 1
      media.append(try medium(file.kind, file.path, limits))
    }
    return media
  }

  /// The media in these files, in as many units as a session with `options` has memory for.
  ///
  /// - Throws: as `medium`.
  package func media(
    _ files: [(kind: MediaKind, path: String)], fitting options: SessionOptions, _ limits: MediaLimits? = nil
  ) throws(SquintError) -> [Medium] {
    var limits = limits ?? options.limits
    var media = try media(files, limits)
    while true {
      var options = options
      options.media = .once(media.map(\.size))
      options.prompt = media.reduce(Planner.usualQuestion) { $0 + $1.size.rowsWithSound }
      // Other media are taken whole, or not at all.
      let shrinks = { (medium: Medium) in medium.kind == .image || medium.kind == .video }
      let most = media.filter(shrinks).map(\.size.units).max() ?? 1
      guard most > 1, (try? SessionPlan(self, options)) == nil else { return media }
      limits.units = most - 1
      // What came through a pipe comes only once.
      for index in media.indices where shrinks(media[index]) {
        var limits = limits
        limits.isOneOfSeveral = files.count { $0.kind == media[index].kind } > 1
        if media[index].size.units == most, most > 1 {
          limits.frames = media[index].size.frames * (most - 1) / most
        } else if media[index].kind == .video {
          limits.frames = media[index].size.frames
        }
        media[index] = try Medium(media[index], modality(media[index].kind), limits)
      }
    }
  }

  /// What media of this kind take, one for each number of units that there can be, rising; none where the model does not take them.
  public func sizes(of kind: MediaKind) throws(SquintError) -> [MediumSize] {
    guard accepts(kind) else { return [] }
    return try modality(kind).sizes()
  }

  /// What a medium within `limits` takes at most.
  func largest(_ modality: Modality, _ limits: MediaLimits) throws(SquintError) -> MediumSize {
    guard let largest = try modality.largest(limits) else {
      throw .badData(
        file.path, "there is no bound to the size of its \(modality.kind.plural); convert the model again")
    }
    return largest
  }

  /// - Throws: `usage` where the model does not take media of this kind.
  func modality(_ kind: MediaKind) throws(SquintError) -> Modality {
    guard let modality = modalities.first(where: { $0.kind == kind }) else {
      guard modalities.isEmpty else {
        let taken = modalities.map { $0.kind.plural }.joined(separator: ", ")
        throw SquintError(
          .usage,
          "\(file.path): this model takes \(taken), and no \(kind.plural); convert one with an encoder for them")
      }
      throw SquintError(
        .usage, "\(file.path): this model takes text alone; convert one with an encoder and a projector")
    }
    return modality
  }
}
