import SquintFile
import SquintMedia
import SquintModels
import SquintText

/// A model file, opened and checked, ready for sessions.
///
/// Opening reads the tables and the tokenizer; no weight is touched. A model may serve any number of sessions, also at the
/// same time.
public final class Model: Sendable {
  public let file: ModelFile
  /// Reads weights that do not stay in memory.
  package let reader: DirectReader
  package let configuration: TransformerDecoder.Configuration
  /// nil for a checkpoint that came without one; then prompts and answers are tokens.
  public let tokenizer: Tokenizer?
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
  let weights: TransformerDecoder.Weights
  /// nil for a model that takes text alone.
  let vision: Vision?
  let markup: ImageMarkup

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
  public init(_ file: ModelFile) throws(SquintError) {
    self.file = file
    reader = DirectReader(file)
    do throws(SquintError) {
      let metadata = file.metadata
      guard file.module("decoder") != nil else {
        throw SquintError(.badData, "there is no text decoder in this file; convert the model again")
      }
      try file.refuseUnknown()
      configuration = try TransformerDecoder.Configuration(metadata)
      weights = try TransformerDecoder.Weights(file, configuration)
      vision = try Vision(file, decoderWidth: configuration.width)
      markup = try ImageMarkup(metadata)
      let template = try metadata.string("chat.template", default: "")
      let named = Set(try metadata.ints("generation.stop_tokens").compactMap { Int32(exactly: $0) })
      let residentBefore = Machine.residentBytes()
      (tokenizer, openingBytes) = try Self.storedTokenizer(in: file)
      file.advise(0..<file.frontEnd, .done)  // all of it has been read
      chat = ChatFormat(
        source: template, tokenizer: tokenizer, stopTokens: named, images: (markup.token, markup.texts))
      tokenizerBytes = max(Machine.residentBytes() - residentBefore, 0)
      let vocabulary = configuration.vocabulary
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
  public static func tokenizer(of file: ModelFile) throws(SquintError) -> Tokenizer {
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
  public var vocabularySize: Int { configuration.vocabulary }

  /// The positions that the decoder was trained for: a context may be longer, and answers in it poorer.
  public var trainedContext: Int { configuration.context }

  /// The tokens of `text` as the decoder takes them.
  ///
  /// - Throws: `badData` where the tokenizer has tokens that the decoder has not.
  public func tokens(_ text: String, addSpecialTokens: Bool = true) throws(SquintError) -> [Int32] {
    let tokens = try encode(text, addSpecialTokens: addSpecialTokens)
    try checkVocabulary(tokens)
    return tokens
  }

  private func encode(_ text: String, addSpecialTokens: Bool) throws(SquintError) -> [Int32] {
    guard let tokenizer else { throw noTokenizer }
    return tokenizer.encode(text, addSpecialTokens: addSpecialTokens)
  }

  func checkVocabulary(_ tokens: [Int32]) throws(SquintError) {
    if let stranger = tokens.first(where: { $0 != Prompt.featureToken && ($0 < 0 || $0 >= configuration.vocabulary) }) {
      throw .badData(
        file.path,
        "the tokenizer gives token \(stranger), and the decoder has \(configuration.vocabulary); convert it again")
    }
  }

  // MARK: Images

  /// The token that stands for a row of an image in what the checkpoint's own processor makes; nil where there is none.
  public var imageToken: Int32? { markup.token }

  /// Whether the model takes images.
  public var acceptsImages: Bool { vision != nil }

  /// The image at `path`, `-` being stdin, for a prompt. Its header is read now, its pixels when a session looks at it.
  ///
  /// - Parameter maximumTiles: where the model cuts images into tiles, into no more than these; nil: as the checkpoint does.
  /// - Throws: `noInput` where it cannot be read, `badData` where it is no image that can be looked at, `usage` where the
  ///   model takes text alone.
  public func image(_ path: String, maximumTiles: Int? = nil) throws(SquintError) -> Image {
    guard let vision else { throw textAlone }
    return try Image(path: path, vision, maximumTiles: maximumTiles)
  }

  /// The images at `paths`, as `image` opens each.
  public func images(_ paths: [String], maximumTiles: Int? = nil) throws(SquintError) -> [Image] {
    var images: [Image] = []
    for path in paths { images.append(try image(path, maximumTiles: maximumTiles)) }
    return images
  }

  /// The images at `paths`, in as many tiles as a session with `options` has memory for.
  ///
  /// - Throws: as `image`.
  public func images(_ paths: [String], fitting options: SessionOptions) throws(SquintError) -> [Image] {
    guard let vision else { throw textAlone }
    var limit = options.maximumTiles
    var images = try images(paths, maximumTiles: limit)
    while true {
      var options = options
      options.vision = .once(images.map(\.size))
      options.prompt = images.reduce(Planner.usualQuestion) { $0 + $1.rows }
      let most = images.map(\.size.layout.count).max() ?? 1
      guard most > 1, (try? SessionPlan(self, options)) == nil else { return images }
      limit = most - 1
      // What came through a pipe comes only once.
      for index in images.indices { images[index] = try Image(images[index], vision, maximumTiles: limit) }
    }
  }

  /// What images take, one for each number of tiles that there can be, rising; none for a model that takes text alone.
  public func imageSizes() throws(SquintError) -> [ImageSize] {
    guard let vision else { return [] }
    var sizes: [ImageSize] = []
    for layout in vision.processor.layouts() {
      sizes.append(
        try ImageSize(
          vision, layout: layout, decodingBytes: layout.byteCount + ImageSize.usualDecoderBytes))
    }
    return sizes
  }

  /// What an image takes at most.
  func largestImage() throws(SquintError) -> ImageSize {
    guard let largest = try imageSizes().last else {
      throw .badData(file.path, "there is no bound to the size of its images; convert the model again")
    }
    return largest
  }

  var textAlone: SquintError {
    SquintError(.usage, "\(file.path): this model takes text alone; convert one with an encoder and a projector")
  }
}
