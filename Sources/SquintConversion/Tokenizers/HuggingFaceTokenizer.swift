import SquintFile
import SquintText

/// Reads the tokenizer of a Hugging Face checkpoint folder.
///
/// In this order: `vocab.json` with `merges.txt` and Intern-S1's three SentencePiece models, `tokenizer.json` (huggingface/tokenizers), `tokenizer.model` (SentencePiece), `vocab.json` with
/// `merges.txt` (GPT-2, Qwen), `tekken.json` (Mistral); with `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` for what
/// transformers takes from them. What no rule covers is an error that names it.
public enum HuggingFaceTokenizer {
  /// The definition of the tokenizer in `folder`.
  ///
  /// - Throws: `SquintError.noInput` where there is no tokenizer; `.badData` where a file is damaged or asks for
  ///   something that is not supported.
  package static func definition(folder: String) throws(SquintError) -> TokenizerDefinition {
    let settings = try TokenizerSettings(folder: folder)
    if try InternS1Tokenizer.isPresent(in: folder, settings) { return try vocabularyAndMerges(folder, settings) }
    if exists("tokenizer.json", in: folder) {
      let path = folder + "/tokenizer.json"
      return try TokenizerJSON(path: path, json: try JSONValue.read(path: path)).definition(settings)
    }
    if exists("tokenizer.model", in: folder) { return try sentencePiece(folder + "/tokenizer.model", settings) }
    if exists("vocab.json", in: folder) && exists("merges.txt", in: folder) {
      return try vocabularyAndMerges(folder, settings)
    }
    if exists("tekken.json", in: folder) {
      let path = folder + "/tekken.json"
      return try TekkenTokenizer(path: path, json: try JSONValue.read(path: path)).definition(settings)
    }
    for file in ["qwen.tiktoken", "tiktoken.model", "tokenizer.tiktoken"] where exists(file, in: folder) {
      throw tiktoken(folder + "/" + file)
    }
    throw SquintError(
      .noInput,
      "\(folder): no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt nor "
        + "tekken.json")
  }

  private static func tiktoken(_ path: String) -> SquintError {
    .badData(
      path,
      "this is a list of tokens for tiktoken, which does not say how text is cut into words; load the tokenizer with "
        + "transformers and save it, which writes a tokenizer.json")
  }

  /// Whether a file consists of lines of base64 and a number.
  private static func isTiktoken(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let line = bytes.prefix(512).prefix { $0 != UInt8(ascii: "\n") }
    let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
    return parts.count == 2 && Base64.decoded(parts[0]) != nil
      && parts[1].allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } && !parts[1].isEmpty
  }

  static func exists(_ file: String, in folder: String) -> Bool {
    access(folder + "/" + file, R_OK) == 0
  }

  // MARK: tokenizer.model

  /// A SentencePiece model read as transformers' Llama tokenizer reads it.
  private static func sentencePiece(
    _ path: String, _ settings: TokenizerSettings
  ) throws(SquintError) -> TokenizerDefinition {
    try SourceFile(path: path).refuseForeign()
    let file = try MappedFile(path: path)
    guard !isTiktoken(file.bytes) else { throw tiktoken(path) }
    let model = try SentencePieceModel(parsing: file.bytes, name: path)
    guard model.modelType == 2 else {
      let names = [1: "unigram", 3: "word", 4: "character"]
      throw .badData(path, "a SentencePiece \(names[model.modelType] ?? "unknown") model; only BPE is supported")
    }
    guard model.characterMap.isEmpty else {
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
      definition.preTokenizers = [.metaspace(prepend: addsSpace ? .first : .never, splits: false)]
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
    let isInternS1 = try InternS1Tokenizer.isPresent(in: folder, settings)
    let tokenizerClass =
      isInternS1 ? InternS1Tokenizer.className : settings.config["tokenizer_class"]?.string ?? "GPT2Tokenizer"
    switch tokenizerClass {
    case "GPT2Tokenizer", "GPT2TokenizerFast":
      definition.preTokenizers =
        settings.config["add_prefix_space"]?.bool ?? false ? [.prefixSpace, .gpt2] : [.gpt2]
    case "Qwen2Tokenizer", "Qwen2TokenizerFast", InternS1Tokenizer.className:
      definition.preTokenizers = [.qwen2]
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
      // What the reference writes for a domain's piece when it saves a tokenizer is filled in from the models.
      if isInternS1 && InternS1Tokenizer.isPieceName(member.key) { continue }
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
    if isInternS1 { try InternS1Tokenizer.addDomains(of: folder, to: &vocabulary, &definition) }
    try vocabulary.write(to: &definition)
    // Intern-S1's tokenizer puts nothing around a text, whatever the configuration says.
    if !isInternS1 { settings.setEnds(of: &definition, addsBosByDefault: false) }
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
    let isByteLevel = normalizesToBytes || preTokenizers.contains { $0["type"]?.string == "ByteLevel" }
    guard isByteLevel || !decoders.contains(where: { $0["type"]?.string == "ByteLevel" }) else {
      throw bad("the decoder is ByteLevel, but neither the pre_tokenizer nor the normalizer makes bytes of the text")
    }
    var definition = TokenizerDefinition(
      model: isByteLevel ? .byteLevel : .sentencePiece,
      decoder: try decoder(decoders, isByteLevel: isByteLevel))
    definition.preTokenizers = try self.preTokenizers(preTokenizers)
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

  /// Whether the normalizer ends with what ByteLevel does.
  private var normalizesToBytes: Bool {
    flattened(json["normalizer"], "normalizers").last?["type"]?.string == "ByteLevel"
  }

  private func normalizers() throws(SquintError) -> [TokenizerDefinition.Normalizer] {
    var out: [TokenizerDefinition.Normalizer] = []
    let steps = flattened(json["normalizer"], "normalizers")
    for normalizer in normalizesToBytes ? steps.dropLast() : steps[...] {
      switch normalizer["type"]?.string {
      case "NFC": out.append(.nfc)
      case "NFD": out.append(.nfd)
      case "Strip":
        out.append(
          .strip(left: normalizer["strip_left"]?.bool ?? true, right: normalizer["strip_right"]?.bool ?? true))
      case "Prepend":
        guard let text = normalizer["prepend"]?.string else { throw bad("the Prepend normalizer has no text") }
        out.append(.prepend(text))
      case "Replace":
        guard let content = normalizer["content"]?.string else { throw bad("the Replace normalizer has no content") }
        if let pattern = normalizer["pattern"]?["String"]?.string, !pattern.isEmpty {
          out.append(.replace(pattern: pattern, content: content))
        } else {
          let expression = try expression(of: normalizer, "the Replace normalizer")
          out.append(.replaceMatches(expression: expression, content: content))
        }
      default:
        throw unsupported("a normalizer", normalizer, "; NFC, NFD, Prepend, Replace, Strip and a last ByteLevel are")
      }
    }
    return out
  }

  private func preTokenizers(_ steps: [JSONValue]) throws(SquintError) -> [TokenizerDefinition.PreTokenizer] {
    var out: [TokenizerDefinition.PreTokenizer] = []
    // The ByteLevel normalizer leaves bytes to all of them.
    var isBytes = normalizesToBytes
    if isBytes { out.append(.bytes) }
    for (place, step) in steps.enumerated() {
      let behavior = try behavior(step)
      switch step["type"]?.string {
      case "Split":
        out.append(
          .split(
            expression: try expression(of: step, "the Split pre_tokenizer"), behavior,
            isInverted: step["invert"]?.bool ?? false))
      case "Digits":
        out.append(
          step["individual_digits"]?.bool ?? false
            ? .digits : .split(expression: #"\p{x_numeric}"#, .contiguous, isInverted: false))
      case "Punctuation": out.append(.split(expression: #"\p{x_punctuation}"#, behavior, isInverted: false))
      case "Whitespace":
        out.append(.split(expression: #"[\w\u200C\u200D]+|[^\w\s\u200C\u200D]+"#, .removed, isInverted: true))
      case "WhitespaceSplit": out.append(.split(expression: #"\s"#, .removed, isInverted: false))
      case "BertPreTokenizer":
        out.append(.split(expression: #"\s"#, .removed, isInverted: false))
        out.append(.split(expression: #"\p{x_punctuation}"#, .isolated, isInverted: false))
      case "CharDelimiterSplit":
        guard let delimiter = step["delimiter"]?.string else { throw bad("CharDelimiterSplit without a delimiter") }
        out.append(.split(expression: Self.escaped(delimiter), .removed, isInverted: false))
      case "FixedLength":
        guard let length = step["length"]?.int, (1...1024).contains(length) else {
          throw bad("FixedLength without a length of 1 to 1,024")
        }
        out.append(.words(#"\O{1,"# + "\(length)}"))
      case "ByteLevel":
        guard !isBytes else { throw bad("ByteLevel of what is bytes already is not supported") }
        if step["add_prefix_space"]?.bool ?? true { out.append(.prefixSpace) }
        if step["use_regex"]?.bool ?? true { out.append(.gpt2) }
        isBytes = true
        if place + 1 < steps.count { out.append(.bytes) }
      case "Metaspace":
        guard step["replacement"]?.string == "▁" else { throw bad("Metaspace with a character other than ▁") }
        let scheme = step["prepend_scheme"]?.string ?? "always"
        guard let prepend = TokenizerDefinition.MetaspacePrepend(rawValue: scheme) else {
          throw bad("Metaspace with the prepend_scheme '\(scheme)' is not supported")
        }
        out.append(
          .metaspace(
            prepend: step["add_prefix_space"]?.bool == false ? .never : prepend, splits: step["split"]?.bool ?? true))
      default: throw unsupported("a pre_tokenizer", step, "")
      }
    }
    return out
  }

  private func behavior(_ step: JSONValue) throws(SquintError) -> TokenizerDefinition.SplitBehavior {
    switch step["behavior"]?.string {
    case "Isolated", nil: return .isolated
    case "Removed": return .removed
    case "MergedWithPrevious": return .mergedWithPrevious
    case "MergedWithNext": return .mergedWithNext
    case "Contiguous": return .contiguous
    case .some(let name): throw bad("a pre_tokenizer with the behavior '\(name)' is not supported")
    }
  }

  /// The expression of a pattern, which is one or a plain text.
  private func expression(of step: JSONValue, _ part: String) throws(SquintError) -> String {
    if let expression = step["pattern"]?["Regex"]?.string { return expression }
    guard let text = step["pattern"]?["String"]?.string else { throw bad("\(part) has no pattern") }
    return Self.escaped(text)
  }

  /// An expression that matches `text` and nothing else.
  private static func escaped(_ text: String) -> String {
    var out = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if "\\.+*?()|[]{}^$#&-~".unicodeScalars.contains(scalar) { out.append("\\") }
      out.append(scalar)
    }
    return String(out)
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
