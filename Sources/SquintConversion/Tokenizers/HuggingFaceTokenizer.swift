import SquintFile
import SquintText

/// Reads the tokenizer of a Hugging Face checkpoint folder.
///
/// In this order: `tokenizer.json` (huggingface/tokenizers), `tokenizer.model` (SentencePiece), `vocab.json` with
/// `merges.txt` (GPT-2, Qwen); with `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` for what
/// transformers takes from them. What no rule covers is an error that names it.
public enum HuggingFaceTokenizer {
  /// The definition of the tokenizer in `folder`.
  ///
  /// - Throws: `SquintError.noInput` where there is no tokenizer; `.badData` where a file is damaged or asks for
  ///   something that is not supported.
  public static func definition(folder: String) throws(SquintError) -> TokenizerDefinition {
    let settings = try TokenizerSettings(folder: folder)
    if exists("tokenizer.json", in: folder) {
      let path = folder + "/tokenizer.json"
      return try TokenizerJSON(path: path, json: try JSONValue.read(path: path)).definition(settings)
    }
    if exists("tokenizer.model", in: folder) { return try sentencePiece(folder + "/tokenizer.model", settings) }
    if exists("vocab.json", in: folder) && exists("merges.txt", in: folder) {
      return try vocabularyAndMerges(folder, settings)
    }
    throw SquintError(
      .noInput, "\(folder): no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt")
  }

  fileprivate static func exists(_ file: String, in folder: String) -> Bool {
    access(folder + "/" + file, R_OK) == 0
  }

  // MARK: tokenizer.model

  /// A SentencePiece model read as transformers' Llama tokenizer reads it.
  private static func sentencePiece(
    _ path: String, _ settings: TokenizerSettings
  ) throws(SquintError) -> TokenizerDefinition {
    try SourceFile(path: path).refuseForeign()
    let file = try MappedFile(path: path)
    let model = try SentencePieceModel(parsing: file.bytes, name: path)
    guard model.modelType == 2 else {
      let names = [1: "unigram", 3: "word", 4: "character"]
      throw .badData(path, "a SentencePiece \(names[model.modelType] ?? "unknown") model; only BPE is supported")
    }
    guard !model.hasCharacterMap else {
      throw .badData(path, "the model normalizes text with a table of replacements, which is not supported")
    }
    guard !model.removesExtraWhitespace, model.escapesWhitespace, !model.treatsWhitespaceAsSuffix else {
      throw .badData(path, "the model changes white space in a way that is not supported")
    }
    var definition = TokenizerDefinition(
      model: .sentencePiece, decoder: .sentencePiece(byteFallback: model.byteFallback, strippedSpaces: 0))
    var vocabulary = VocabularyAssembly(name: path, model: .sentencePiece)
    var scores: [Int32: Double] = [:]
    for (id, piece) in model.pieces.enumerated() {
      let isMergeable = piece.type == .normal || piece.type == .userDefined || piece.type == .byte
      try vocabulary.add(piece.text, id: id, isMergeable: isMergeable)
      if piece.type == .normal || piece.type == .userDefined { scores[Int32(id)] = Double(piece.score) }
      if piece.type == .control || piece.type == .userDefined {
        try vocabulary.addAdded(.init(id: Int32(id), content: piece.text, isSpecial: piece.type == .control))
      }
      if piece.type == .unknown {
        definition.unknownToken = Int32(id)
        try vocabulary.addAdded(.init(id: Int32(id), content: piece.text, isSpecial: true))
      }
    }
    definition.byteFallback = model.byteFallback
    definition.fusesUnknown = true
    let addsSpace = settings.config["add_prefix_space"]?.bool ?? model.addsDummyPrefix
    if settings.config["legacy"]?.bool ?? false {
      definition.normalizers = (addsSpace ? [.prepend("▁")] : []) + [.replace(pattern: " ", content: "▁")]
    } else {
      definition.preTokenizer = .metaspace
      definition.metaspacePrepend = addsSpace ? .first : .never
    }
    definition.decoder = .sentencePiece(byteFallback: model.byteFallback, strippedSpaces: addsSpace ? 1 : 0)
    definition.merges = vocabulary.merges(scores: scores)
    try settings.addTokens(to: &vocabulary)
    func id(_ index: Int) -> Int32? { model.pieces.indices.contains(index) ? Int32(index) : nil }
    definition.bosToken = settings.token("bos_token", vocabulary) ?? id(model.bosID)
    definition.eosToken = settings.token("eos_token", vocabulary) ?? id(model.eosID)
    definition.padToken = settings.token("pad_token", vocabulary) ?? id(model.padID)
    try vocabulary.write(to: &definition)
    settings.setEnds(of: &definition, addsBosByDefault: true)
    try definition.checked(path)
    return definition
  }

  // MARK: vocab.json and merges.txt

  private static func vocabularyAndMerges(
    _ folder: String, _ settings: TokenizerSettings
  ) throws(SquintError) -> TokenizerDefinition {
    var definition = TokenizerDefinition(model: .byteLevel, decoder: .byteLevel)
    let tokenizerClass = settings.config["tokenizer_class"]?.string ?? "GPT2Tokenizer"
    switch tokenizerClass {
    case "GPT2Tokenizer", "GPT2TokenizerFast":
      definition.preTokenizer = .gpt2
      definition.addsPrefixSpace = settings.config["add_prefix_space"]?.bool ?? false
    case "Qwen2Tokenizer", "Qwen2TokenizerFast":
      definition.preTokenizer = .qwen2
      definition.normalizers = [.nfc]
    default:
      throw .badData(
        folder + "/tokenizer_config.json",
        "tokenizer_class '\(tokenizerClass)' without a tokenizer.json is not supported; save it as tokenizer.json")
    }
    let path = folder + "/vocab.json"
    guard let vocabularyObject = try JSONValue.read(path: path).object else {
      throw .badData(path, "this is not an object of tokens and ids")
    }
    var vocabulary = VocabularyAssembly(name: path, model: .byteLevel)
    for member in vocabularyObject.members {
      guard let id = member.value.int else {
        throw .badData(path, "the id of '\(member.key.prefix(64))' is no integer")
      }
      try vocabulary.add(member.key, id: id)
    }
    try SourceFile(path: folder + "/merges.txt").refuseForeign()
    let mergesFile = try MappedFile(path: folder + "/merges.txt")
    guard let text = String(validating: mergesFile.bytes, as: UTF8.self) else {
      throw .badData(mergesFile.path, "this is not UTF-8")
    }
    // Lines end with a newline alone: other white space belongs to tokens of older vocabularies.
    var rank = 0
    for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
      var line = Substring(line)
      if line.utf8.last == UInt8(ascii: "\r") { line = Substring(line.utf8.dropLast()) }
      guard !line.isEmpty, !line.hasPrefix("#version") else { continue }
      definition.merges += try vocabulary.merge(String(line), rank: rank)
      rank += 1
    }
    if exists("added_tokens.json", in: folder) {
      let addedPath = folder + "/added_tokens.json"
      guard let added = try JSONValue.read(path: addedPath).object else {
        throw .badData(addedPath, "this is not an object of tokens and ids")
      }
      for member in added.members {
        guard let id = member.value.int.flatMap({ Int32(exactly: $0) }) else {
          throw .badData(addedPath, "the id of '\(member.key.prefix(64))' is no integer")
        }
        try vocabulary.addAdded(.init(id: id, content: member.key, isSpecial: true))
      }
    }
    try settings.addTokens(to: &vocabulary)
    definition.bosToken = settings.token("bos_token", vocabulary)
    definition.eosToken = settings.token("eos_token", vocabulary) ?? vocabulary.id("<|endoftext|>")
    definition.padToken = settings.token("pad_token", vocabulary)
    try vocabulary.write(to: &definition)
    settings.setEnds(of: &definition, addsBosByDefault: false)
    try definition.checked(path)
    return definition
  }
}

// MARK: - tokenizer_config.json and its companions

/// What transformers takes from the files beside the tokenizer itself.
struct TokenizerSettings {
  /// tokenizer_config.json, or an empty object.
  var config = JSONValue.object(JSONObject())
  /// special_tokens_map.json, or an empty object.
  var specialTokens = JSONValue.object(JSONObject())
  private var path = "tokenizer_config.json"

  init() {}

  init(folder: String) throws(SquintError) {
    path = folder + "/tokenizer_config.json"
    if HuggingFaceTokenizer.exists("tokenizer_config.json", in: folder) { config = try JSONValue.read(path: path) }
    if HuggingFaceTokenizer.exists("special_tokens_map.json", in: folder) {
      specialTokens = try JSONValue.read(path: folder + "/special_tokens_map.json")
    }
  }

  /// A token written as a text or as an object with its text and flags.
  private static func text(_ value: JSONValue?) -> String? { value?.string ?? value?["content"]?.string }

  /// The id of the token with the role `name`, such as "bos_token".
  func token(_ name: String, _ vocabulary: VocabularyAssembly) -> Int32? {
    // A null in the configuration means none, whatever the older file says.
    if let object = config.object, let value = object[name] {
      return Self.text(value).flatMap { vocabulary.id($0) }
    }
    return Self.text(specialTokens[name]).flatMap { vocabulary.id($0) }
  }

  /// Adds the tokens of `added_tokens_decoder`, and those with a role that the vocabulary has but nothing marks.
  func addTokens(to vocabulary: inout VocabularyAssembly) throws(SquintError) {
    for member in config["added_tokens_decoder"]?.object?.members ?? [] {
      guard let id = Int32(member.key), id >= 0, let content = member.value["content"]?.string else {
        throw .badData(path, "added_tokens_decoder has an entry '\(member.key.prefix(64))' that is no token")
      }
      var token = TokenizerDefinition.AddedToken(json: member.value, id: id, content: content)
      // As in transformers, a token that the tokenizer has keeps its id.
      if let known = vocabulary.id(content) { token.id = known }
      try vocabulary.addAdded(token)
    }
    var named: [String] = []
    for role in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
      if let text = Self.text(config[role]) ?? Self.text(specialTokens[role]) { named.append(text) }
    }
    for list in ["additional_special_tokens", "extra_special_tokens"] {
      for value in config[list]?.array ?? specialTokens[list]?.array ?? [] {
        if let text = Self.text(value) { named.append(text) }
      }
    }
    for text in named where vocabulary.addedToken(text) == nil {
      guard let id = vocabulary.id(text) else { continue }
      try vocabulary.addAdded(.init(id: id, content: text, isSpecial: true))
    }
  }

  /// Sets the tokens around a text where the configuration says so.
  func setEnds(of definition: inout TokenizerDefinition, addsBosByDefault: Bool) {
    let addsBos = config["add_bos_token"]?.bool
    let addsEos = config["add_eos_token"]?.bool
    guard addsBos != nil || addsEos != nil || addsBosByDefault else { return }
    definition.prefix = addsBos ?? addsBosByDefault ? definition.bosToken.map { [$0] } ?? [] : []
    definition.suffix = addsEos ?? false ? definition.eosToken.map { [$0] } ?? [] : []
  }
}

extension TokenizerDefinition.AddedToken {
  fileprivate init(json: JSONValue, id: Int32, content: String) {
    let isSpecial = json["special"]?.bool ?? false
    self.init(
      id: id, content: content, isSpecial: isSpecial, stripsLeft: json["lstrip"]?.bool ?? false,
      stripsRight: json["rstrip"]?.bool ?? false, isSingleWord: json["single_word"]?.bool ?? false,
      isNormalized: json["normalized"]?.bool ?? !isSpecial)
  }
}

// MARK: - tokenizer.json

/// A tokenizer.json document (huggingface/tokenizers, `Tokenizer::from_file`).
struct TokenizerJSON {
  let path: String
  let json: JSONValue

  private func unsupported(_ part: String, _ value: JSONValue?, _ remedy: String) -> SquintError {
    let type = value?["type"]?.string ?? "none"
    return .badData(path, "\(part) of type '\(type)' is not supported\(remedy)")
  }

  private func bad(_ message: String) -> SquintError { .badData(path, message) }

  func definition(_ settings: TokenizerSettings) throws(SquintError) -> TokenizerDefinition {
    guard let model = json["model"], model.object != nil else { throw bad("there is no model") }
    guard model["type"]?.string ?? "BPE" == "BPE", model["merges"] != nil else {
      throw unsupported("a model", model, "; only BPE is")
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] where model[key]?.string ?? "" != "" {
      throw bad("model.\(key) '\(model[key]?.string ?? "")' is not supported")
    }
    guard model["dropout"]?.double ?? 0 == 0 else { throw bad("model.dropout is not supported") }

    let preTokenizers = flattened(json["pre_tokenizer"], "pretokenizers")
    let decoders = flattened(json["decoder"], "decoders")
    let isByteLevel = (preTokenizers + decoders).contains { $0["type"]?.string == "ByteLevel" }
    var definition = TokenizerDefinition(
      model: isByteLevel ? .byteLevel : .sentencePiece,
      decoder: try decoder(decoders, isByteLevel: isByteLevel))
    try setPreTokenizer(of: &definition, preTokenizers)
    definition.normalizers = try normalizers()
    definition.ignoresMerges = model["ignore_merges"]?.bool ?? false
    definition.byteFallback = model["byte_fallback"]?.bool ?? false
    definition.fusesUnknown = model["fuse_unk"]?.bool ?? false

    var vocabulary = try vocabulary(model, isByteLevel: isByteLevel)
    definition.merges = try merges(model, vocabulary)
    if let unknown = model["unk_token"]?.string {
      guard let id = vocabulary.ids[ByteString(Array(unknown.utf8))] else {
        throw bad("model.unk_token '\(unknown)' is not in the vocabulary")
      }
      definition.unknownToken = id
    }
    for token in json["added_tokens"]?.array ?? [] {
      guard let id = token["id"]?.int.flatMap({ Int32(exactly: $0) }), let content = token["content"]?.string else {
        throw bad("an entry of added_tokens has no id or no content")
      }
      try vocabulary.addAdded(.init(json: token, id: id, content: content))
    }
    try settings.addTokens(to: &vocabulary)
    definition.bosToken = settings.token("bos_token", vocabulary)
    definition.eosToken = settings.token("eos_token", vocabulary)
    definition.padToken = settings.token("pad_token", vocabulary)
    try vocabulary.write(to: &definition)
    try setTemplate(of: &definition, vocabulary)
    settings.setEnds(of: &definition, addsBosByDefault: false)
    try definition.checked(path)
    return definition
  }

  /// The members of a sequence, sequences within it taken apart, or the one thing that is none.
  private func flattened(_ value: JSONValue?, _ key: String) -> [JSONValue] {
    guard let value else { return [] }
    guard value["type"]?.string == "Sequence" else { return [value] }
    // The parser bounds the depth.
    return (value[key]?.array ?? []).flatMap { flattened($0, key) }
  }

  // MARK: Parts

  private func vocabulary(_ model: JSONValue, isByteLevel: Bool) throws(SquintError) -> VocabularyAssembly {
    guard let entries = model["vocab"]?.object else { throw bad("model.vocab is not an object of tokens and ids") }
    var vocabulary = VocabularyAssembly(name: path, model: isByteLevel ? .byteLevel : .sentencePiece)
    for member in entries.members {
      guard let id = member.value.int else { throw bad("the id of token '\(member.key.prefix(64))' is no integer") }
      try vocabulary.add(member.key, id: id)
    }
    return vocabulary
  }

  private func merges(_ model: JSONValue, _ vocabulary: VocabularyAssembly) throws(SquintError) -> [UInt32] {
    guard let entries = model["merges"]?.array else { throw bad("model.merges is not a list") }
    var merges: [UInt32] = []
    merges.reserveCapacity(2 * entries.count)
    var rank = 0
    for entry in entries {
      if let line = entry.string {
        if line.hasPrefix("#version") { continue }
        merges += try vocabulary.merge(line, rank: rank)
      } else if let pair = entry.array, pair.count == 2, let left = pair[0].string, let right = pair[1].string {
        merges += try vocabulary.merge(left, right, rank: rank)
      } else {
        throw bad("merge \(rank + 1) is not two tokens")
      }
      rank += 1
    }
    return merges
  }

  private func normalizers() throws(SquintError) -> [TokenizerDefinition.Normalizer] {
    var out: [TokenizerDefinition.Normalizer] = []
    for normalizer in flattened(json["normalizer"], "normalizers") {
      switch normalizer["type"]?.string {
      case "NFC": out.append(.nfc)
      case "Prepend":
        guard let text = normalizer["prepend"]?.string else { throw bad("the Prepend normalizer has no text") }
        out.append(.prepend(text))
      case "Replace":
        guard let pattern = normalizer["pattern"]?["String"]?.string, let content = normalizer["content"]?.string else {
          throw bad("a Replace normalizer whose pattern is not a plain text is not supported")
        }
        out.append(.replace(pattern: pattern, content: content))
      default: throw unsupported("a normalizer", normalizer, "; NFC, Prepend and Replace are")
      }
    }
    return out
  }

  private static let llama3Pattern =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let qwen2Pattern =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let gpt2Pattern =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

  private func setPreTokenizer(
    of definition: inout TokenizerDefinition, _ steps: [JSONValue]
  ) throws(SquintError) {
    let types = steps.map { $0["type"]?.string ?? "none" }
    func byteLevel(_ step: JSONValue) -> (usesExpression: Bool, addsSpace: Bool) {
      (step["use_regex"]?.bool ?? true, step["add_prefix_space"]?.bool ?? true)
    }
    switch types {
    case []: break
    case ["ByteLevel"]:
      let (usesExpression, addsSpace) = byteLevel(steps[0])
      definition.preTokenizer = usesExpression ? .gpt2 : .none
      definition.addsPrefixSpace = addsSpace
    case ["Digits", "ByteLevel"]:
      let (usesExpression, addsSpace) = byteLevel(steps[1])
      guard steps[0]["individual_digits"]?.bool == true, usesExpression, !addsSpace else {
        throw bad("a pre_tokenizer of Digits and ByteLevel other than SmolLM's is not supported")
      }
      definition.preTokenizer = .gpt2Digits
    case ["Split", "ByteLevel"]:
      let (usesExpression, addsSpace) = byteLevel(steps[1])
      let expression = steps[0]["pattern"]?["Regex"]?.string ?? ""
      guard steps[0]["behavior"]?.string == "Isolated", steps[0]["invert"]?.bool ?? false == false, !usesExpression,
        !addsSpace
      else { throw bad("a pre_tokenizer of Split and ByteLevel other than Llama 3's and Qwen2's is not supported") }
      switch expression {
      case Self.llama3Pattern: definition.preTokenizer = .llama3
      case Self.qwen2Pattern: definition.preTokenizer = .qwen2
      case Self.gpt2Pattern: definition.preTokenizer = .gpt2
      default:
        throw bad(
          "the pre_tokenizer's expression is none that is supported (GPT-2's, Llama 3's, Qwen2's): \(expression)")
      }
    case ["Metaspace"]:
      let step = steps[0]
      guard step["replacement"]?.string == "▁" else { throw bad("Metaspace with a character other than ▁") }
      let scheme = step["prepend_scheme"]?.string ?? "always"
      guard let prepend = TokenizerDefinition.MetaspacePrepend(rawValue: scheme) else {
        throw bad("Metaspace with the prepend_scheme '\(scheme)' is not supported")
      }
      definition.preTokenizer = .metaspace
      definition.metaspacePrepend = step["add_prefix_space"]?.bool == false ? .never : prepend
      definition.metaspaceSplits = step["split"]?.bool ?? true
    default:
      throw bad(
        "pre_tokenizer of type '\(types.joined(separator: "', '"))' is not supported; those of GPT-2, SmolLM, Llama and "
          + "Qwen are")
    }
  }

  private func decoder(_ steps: [JSONValue], isByteLevel: Bool) throws(SquintError) -> TokenizerDefinition.Decoder {
    let types = steps.map { $0["type"]?.string ?? "none" }
    if isByteLevel {
      guard types == ["ByteLevel"] else {
        throw bad("a decoder of type '\(types.joined(separator: "', '"))' is not supported with bytes; ByteLevel is")
      }
      return .byteLevel
    }
    var rest = steps[...]
    guard let replace = rest.popFirst(), replace["type"]?.string == "Replace",
      replace["pattern"]?["String"]?.string == "▁", replace["content"]?.string == " "
    else {
      throw bad(
        "a decoder of type '\(types.joined(separator: "', '"))' is not supported; Llama's (Replace ▁, ByteFallback, "
          + "Fuse, Strip) is")
    }
    var byteFallback = false
    var strippedSpaces = 0
    if rest.first?["type"]?.string == "ByteFallback" {
      byteFallback = true
      rest.removeFirst()
    }
    if rest.first?["type"]?.string == "Fuse" {
      rest.removeFirst()
      if let strip = rest.first, strip["type"]?.string == "Strip", strip["content"]?.string == " ",
        strip["stop"]?.int == 0, let start = strip["start"]?.int
      {
        strippedSpaces = start
        rest.removeFirst()
      }
    }
    if let step = rest.first { throw unsupported("a decoder step", step, " at this place") }
    return .sentencePiece(byteFallback: byteFallback, strippedSpaces: strippedSpaces)
  }

  private func setTemplate(
    of definition: inout TokenizerDefinition, _ vocabulary: VocabularyAssembly
  ) throws(SquintError) {
    for processor in flattened(json["post_processor"], "processors") {
      switch processor["type"]?.string {
      case "ByteLevel": break  // moves offsets only
      case "TemplateProcessing":
        var seesText = false
        for item in processor["single"]?.array ?? [] {
          if item["Sequence"] != nil {
            guard !seesText else { throw bad("the post_processor's template repeats the text") }
            seesText = true
          } else if let name = item["SpecialToken"]?["id"]?.string {
            let listed = processor["special_tokens"]?[name]?["ids"]?.array ?? []
            for value in listed {
              guard let id = value.int.flatMap({ Int32(exactly: $0) }) else {
                throw bad("the post_processor's token '\(name)' has no id")
              }
              if seesText { definition.suffix.append(id) } else { definition.prefix.append(id) }
            }
          } else {
            throw bad("the post_processor's template has an entry that is neither text nor token")
          }
        }
        guard seesText else { throw bad("the post_processor's template leaves the text out") }
      default: throw unsupported("a post_processor", processor, "; ByteLevel and TemplateProcessing are")
      }
    }
  }
}
