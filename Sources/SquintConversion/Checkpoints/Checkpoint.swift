import SquintFile
import SquintText

/// A model as it is published, in whatever format: what the converter needs to know of it.
protocol Checkpoint: Sendable {
  /// How messages call it: the folder or file.
  var place: String { get }
  var decoder: DecoderConfiguration { get }
  var decoderTensors: MappedTensors { get }
  /// The ways into the model beside text that it has, or has in part.
  var modalities: [ModalityParts] { get }
  /// The same for media that are not images.
  var others: [OtherParts] { get }
  /// The class that the checkpoint says it is of, where that is none of those that are read.
  var unknownClass: String? { get }

  /// What people, tokenizers and conversations need of it.
  ///
  /// - Parameters:
  ///   - usual: the chat template where it has none.
  ///   - notes: takes what the user should know, a line each.
  func text(usual: ChatTemplates.Usual?, notes: inout [String]) throws(SquintError) -> CheckpointText
}

extension Checkpoint {
  var unknownClass: String? { nil }
  var others: [OtherParts] { [] }
}

/// Everything of a checkpoint but its weights and their configuration.
struct CheckpointText: Sendable {
  var name: String
  /// What the model was converted from, in a few words.
  var source: String
  var license: String?
  /// Modules of the source that are left out.
  var dropped: [String] = []
  var defaults = GenerationDefaults()
  /// The file that the defaults are from, for messages.
  var defaultsPlace: String
  var template: String?
  var tokenizer: TokenizerDefinition?

  /// Writes `general.*`, `chat.*`, `generation.*` and `tokenizer.*`.
  func write(
    to plan: inout ModelFilePlan, for decoder: DecoderConfiguration?, notes: inout [String]
  ) throws(SquintError) {
    plan.metadata["general.name"] = .string(name)
    plan.metadata["general.source"] = .string(source)
    if let license { plan.metadata["general.license"] = .string(license) }
    if !dropped.isEmpty { plan.metadata["general.dropped"] = .strings(dropped) }
    guard let decoder else { return }
    try defaults.write(to: &plan.metadata, vocabulary: decoder.vocabulary, place: defaultsPlace)
    if let template { plan.metadata["chat.template"] = .string(template) }
    tokenizer?.write(to: &plan.bulkMetadata, for: decoder, notes: &notes)
  }
}

/// The last component of `path`, however many slashes end it, as a text.
func lastComponent(_ path: String) -> String {
  (path.split(separator: "/").last.map(String.init) ?? path).withVisibleBytes
}

/// The defaults for generation that a checkpoint gives, checked.
struct GenerationDefaults: Sendable {
  var stopTokens: [Int64] = []
  var temperature: Double?
  var topK: Int?
  var topP: Double?
  var minP: Double?
  var repetitionPenalty: Double?

  /// - Parameter vocabulary: stop tokens outside it, which some checkpoints name, are left out.
  func write(to metadata: inout Metadata, vocabulary: Int, place: String) throws(SquintError) {
    var stops: [Int64] = []
    for token in stopTokens where token >= 0 && token < vocabulary && !stops.contains(token) { stops.append(token) }
    if !stops.isEmpty { metadata["generation.stop_tokens"] = .ints(stops) }
    let numbers: [(String, Double?, ClosedRange<Double>)] = [
      ("temperature", temperature, 0...1e6), ("top_p", topP, 0...1), ("min_p", minP, 0...1),
      ("repetition_penalty", repetitionPenalty, 1e-3...1e3),
    ]
    for (key, value, range) in numbers {
      guard let value else { continue }
      guard range.contains(value) else {
        throw .badData(place, "\(key) is \(value), outside \(range.lowerBound) to \(range.upperBound)")
      }
      metadata["generation.\(key)"] = .float(value)
    }
    if let topK { metadata["generation.top_k"] = .int(Int64(topK)) }
  }
}

extension TokenizerDefinition {
  /// The id of the added token with exactly this text; nil where there is none.
  func addedToken(_ text: String) -> Int? {
    addedTokens.last { ExactString($0.content) == ExactString(text) }.map { Int($0.id) }
  }

  /// Writes the tokenizer beside the decoder that its ids are for.
  ///
  /// - Parameter notes: takes a line where the tokenizer has ids that the decoder does not.
  func write(to metadata: inout Metadata, for decoder: DecoderConfiguration, notes: inout [String]) {
    if vocabularySize > decoder.vocabulary {
      notes.append(
        "the tokenizer has \(grouped(vocabularySize)) tokens, the decoder only \(grouped(decoder.vocabulary)); "
          + "a prompt with one of the others will be refused")
    }
    write(to: &metadata)
  }
}
