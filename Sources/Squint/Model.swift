import SquintFile
import SquintModels
import SquintText

/// A model file, opened and checked, ready for sessions.
///
/// Opening reads the tables and the tokenizer; no weight is touched. A model may serve any number of sessions, also at the
/// same time.
public final class Model: Sendable {
  public let file: ModelFile
  package let configuration: TransformerDecoder.Configuration
  /// nil for a checkpoint that came without one; then prompts and answers are tokens.
  public let tokenizer: Tokenizer?
  /// How a conversation becomes a prompt; nil for a model that was not made for conversation.
  private let templateSource: String
  /// The tokens that end an answer.
  public let stopTokens: Set<Int32>
  /// The checkpoint's own choice of sampling, for conversation.
  public let sampling: SamplingOptions
  /// What the tokenizer holds in memory, in bytes.
  let tokenizerBytes: Int
  let weights: TransformerDecoder.Weights

  /// Opens the model at `path`.
  ///
  /// - Throws: `noInput` when it cannot be read, `badData` when it is not a sound model with a text decoder.
  public init(path: String) throws(SquintError) {
    file = try ModelFile(path: path)
    do throws(SquintError) {
      let metadata = file.metadata
      guard file.module("decoder") != nil else {
        throw SquintError(.badData, "there is no text decoder in this file; convert the model again")
      }
      configuration = try TransformerDecoder.Configuration(metadata)
      weights = try TransformerDecoder.Weights(file, configuration)
      let template = try metadata.string("chat.template", default: "")
      templateSource = template
      let residentBefore = Machine.residentBytes()
      tokenizer = try Self.storedTokenizer(in: file)
      tokenizerBytes = max(Machine.residentBytes() - residentBefore, 0)
      let vocabulary = configuration.vocabulary
      stopTokens = Set(
        try metadata.ints("generation.stop_tokens").compactMap { Int32(exactly: $0) }
          .filter { $0 >= 0 && $0 < vocabulary })
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
      // Errors about metadata do not know their file.
      throw error.message.hasPrefix(path) ? error : SquintError(error.kind, "\(path): \(error.message)")
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
    guard let tokenizer = try storedTokenizer(in: file) else { throw noTokenizer(file) }
    return tokenizer
  }

  private static func storedTokenizer(in file: ModelFile) throws(SquintError) -> Tokenizer? {
    let metadata = try file.bulkMetadata()
    return TokenizerDefinition.isPresent(in: metadata) ? try Tokenizer(TokenizerDefinition(metadata: metadata)) : nil
  }

  private static func noTokenizer(_ file: ModelFile) -> SquintError {
    .badData(file.path, "it has no tokenizer; convert the checkpoint together with its tokenizer files")
  }

  /// The tokens that there are: 0 ..< vocabularySize.
  public var vocabularySize: Int { configuration.vocabulary }

  /// The tokens of `text` as the decoder takes them.
  ///
  /// - Throws: `badData` where the tokenizer has tokens that the decoder has not.
  public func tokens(_ text: String, addSpecialTokens: Bool = true) throws(SquintError) -> [Int32] {
    guard let tokenizer else { throw Self.noTokenizer(file) }
    let tokens = tokenizer.encode(text, addSpecialTokens: addSpecialTokens)
    if let stranger = tokens.first(where: { $0 < 0 || $0 >= configuration.vocabulary }) {
      throw .badData(
        file.path,
        "the tokenizer gives token \(stranger), and the decoder has \(configuration.vocabulary); convert it again")
    }
    return tokens
  }

  /// The prompt that asks for the answer to `messages`: the checkpoint's chat template, rendered and tokenized.
  ///
  /// A model without a template gets the contents alone, line by line.
  public func prompt(_ messages: [ChatMessage]) throws(SquintError) -> [Int32] {
    guard !templateSource.isEmpty else {
      return try tokens(messages.map(\.text).joined(separator: "\n"))
    }
    let text: String
    do {
      // Parsed when it is needed: a template that we cannot read is no reason to refuse the rest of the model.
      text = try ChatTemplate(source: templateSource).render(
        messages: messages, addGenerationPrompt: true, variables: templateVariables)
    } catch { throw SquintError(error.kind, "\(file.path): \(error.message)") }
    // The template writes the special tokens itself.
    return try tokens(text, addSpecialTokens: false)
  }
}

extension Model {
  /// What chat templates ask about the tokenizer.
  private var templateVariables: [String: TemplateValue] {
    var variables: [String: TemplateValue] = [:]
    guard let tokenizer else { return variables }
    for (name, token) in [
      ("bos_token", tokenizer.bosToken), ("eos_token", tokenizer.eosToken), ("pad_token", tokenizer.padToken),
    ] {
      guard let token else { continue }
      variables[name] = .string(String(decoding: tokenizer.bytes(of: token), as: UTF8.self))
    }
    return variables
  }
}

extension ChatMessage {
  /// The text of the message, without media.
  public var text: String {
    switch content {
    case .text(let text): return text
    case .parts(let parts):
      return parts.compactMap { if case .text(let text) = $0 { text } else { nil } }.joined()
    case .none: return ""
    }
  }
}
