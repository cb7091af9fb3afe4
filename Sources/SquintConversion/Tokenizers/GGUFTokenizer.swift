import SquintFile
import SquintText

/// Reads the tokenizer in a GGUF file's metadata (ggml-org/ggml, docs/gguf.md, "Tokenizer").
public enum GGUFTokenizer {
  /// GGUF's token types, which are SentencePiece's.
  private typealias TokenType = SentencePieceModel.PieceType

  /// The ends of turns that `metadata` calls ordinary tokens, as some converters write them: control tokens all the same, as in
  /// llama.cpp.
  ///
  /// One that merges make is an ordinary token all the same: Qwen2.5's vocabulary has "</s>" as web pages write it.
  package static func unmarkedTurnEnds(metadata: [String: GGUFValue]) -> [String] {
    let texts = metadata["tokenizer.ggml.tokens"]?.strings ?? []
    let types = metadata["tokenizer.ggml.token_type"]?.integers ?? []
    let unmarked = texts.indices.compactMap { id -> String? in
      let isNormal = types.isEmpty || id < types.count && types[id] == TokenType.normal.rawValue
      guard isNormal, let text = texts[id].text, TurnEnds.names.contains(text) else { return nil }
      return text
    }
    guard !unmarked.isEmpty, let merges = metadata["tokenizer.ggml.merges"]?.strings else { return unmarked }
    let made = Set(
      merges.lazy.compactMap { $0.text?.filter { $0 != " " } }.filter { unmarked.contains($0) })
    return unmarked.filter { !made.contains($0) }
  }

  /// The definition that `metadata` holds; errors call the file `name`.
  ///
  /// - Throws: `SquintError.badData` where a key is missing, contradicts another, or asks for what no rule covers.
  package static func definition(
    metadata: [String: GGUFValue], name: String
  ) throws(SquintError) -> TokenizerDefinition {
    func bad(_ message: String) -> SquintError { .badData(name, message) }
    guard let kind = metadata["tokenizer.ggml.model"]?.string else {
      throw bad("tokenizer.ggml.model is missing; the file has no tokenizer")
    }
    guard kind == "gpt2" || kind == "llama" else {
      throw bad("tokenizer.ggml.model '\(kind)' is not supported; 'gpt2' and 'llama' are")
    }
    guard let texts = metadata["tokenizer.ggml.tokens"]?.strings else {
      throw bad("tokenizer.ggml.tokens is missing")
    }
    let types = metadata["tokenizer.ggml.token_type"]?.integers ?? []
    guard types.isEmpty || types.count == texts.count else {
      throw bad("\(grouped(types.count)) token types for \(grouped(texts.count)) tokens")
    }
    let turnEnds = Set(unmarkedTurnEnds(metadata: metadata))
    let isByteLevel = kind == "gpt2"
    var definition =
      isByteLevel
      ? TokenizerDefinition(model: .byteLevel, decoder: .byteLevel)
      : TokenizerDefinition(model: .sentencePiece, decoder: .sentencePiece(byteFallback: true, strippedSpaces: 0))

    var vocabulary = VocabularyAssembly(name: name, model: definition.model)
    var scores: [Int32: Double] = [:]
    let scoreValues = metadata["tokenizer.ggml.scores"]?.floats ?? []
    for (id, bytes) in texts.enumerated() {
      guard let text = bytes.text else { throw bad("token \(id) is not UTF-8") }
      var type = TokenType.normal
      if !types.isEmpty {
        guard let known = TokenType(rawValue: Int(truncatingIfNeeded: types[id])) else {
          throw bad("token \(id) is of type \(types[id]), which GGUF does not have")
        }
        type = known
      }
      if type == .normal, turnEnds.contains(text) { type = .control }
      guard type != .unused else { continue }  // padding that converters add
      // A byte token must be found by its name, and no score makes merges of it.
      let isMergeable = type == .normal || type == .byte || (type == .userDefined && !isByteLevel)
      try vocabulary.add(text, id: id, isMergeable: isMergeable)
      if type == .normal || type == .userDefined, id < scoreValues.count { scores[Int32(id)] = scoreValues[id] }
      if type == .control || type == .userDefined {
        try vocabulary.addAdded(.init(id: Int32(id), content: text, isSpecial: type == .control))
      }
      if type == .unknown && definition.unknownToken == nil && !isByteLevel { definition.unknownToken = Int32(id) }
    }

    func id(_ key: String) throws(SquintError) -> Int32? {
      guard let value = metadata["tokenizer.ggml." + key] else { return nil }
      guard let id = value.int, id >= 0, id < texts.count else {
        // Files say "none" with the largest number.
        if let id = value.int, id == Int(UInt32.max) || id == -1 { return nil }
        throw bad("tokenizer.ggml.\(key) is not one of \(grouped(texts.count)) ids")
      }
      return Int32(id)
    }
    definition.bosToken = try id("bos_token_id")
    definition.eosToken = try id("eos_token_id")
    definition.padToken = try id("padding_token_id")

    var addsBos = !isByteLevel
    if isByteLevel {
      let preName = metadata["tokenizer.ggml.pre"]?.string ?? "default"
      guard let named = TokenizerExpressions.named(preName) else {
        throw bad(
          "tokenizer.ggml.pre '\(preName)' is none of the pre-tokenizers that are known "
            + "(\(TokenizerExpressions.names.sorted().joined(separator: ", "))); convert the checkpoint's folder, whose "
            + "tokenizer.json holds the expression itself")
      }
      definition.preTokenizers = named.steps
      definition.ignoresMerges = named.ignoresMerges
      definition.normalizers = named.normalizers
      addsBos = named.addsBos
      guard let lines = metadata["tokenizer.ggml.merges"]?.strings else {
        throw bad("tokenizer.ggml.merges is missing")
      }
      definition.merges.reserveCapacity(2 * lines.count)
      for (rank, bytes) in lines.enumerated() {
        guard let line = bytes.text else { throw bad("merge \(rank + 1) is not UTF-8") }
        definition.merges += try vocabulary.merge(line, rank: rank)
      }
    } else {
      guard scoreValues.count == texts.count else {
        throw bad("\(grouped(scoreValues.count)) scores for \(grouped(texts.count)) tokens")
      }
      definition.merges = vocabulary.merges(scores: scores)
      definition.byteFallback = true
      definition.fusesUnknown = true
      let addsSpace = metadata["tokenizer.ggml.add_space_prefix"]?.bool ?? true
      if metadata["tokenizer.ggml.remove_extra_whitespaces"]?.bool == true {
        throw bad("tokenizer.ggml.remove_extra_whitespaces is not supported")
      }
      definition.normalizers = (addsSpace ? [.prepend("▁")] : []) + [.replace(pattern: " ", content: "▁")]
      definition.decoder = .sentencePiece(byteFallback: true, strippedSpaces: addsSpace ? 1 : 0)
    }
    try vocabulary.write(to: &definition)
    if metadata["tokenizer.ggml.add_bos_token"]?.bool ?? addsBos, let bos = definition.bosToken {
      definition.prefix = [bos]
    }
    if metadata["tokenizer.ggml.add_eos_token"]?.bool ?? false, let eos = definition.eosToken {
      definition.suffix = [eos]
    }
    try definition.checked(name)
    return definition
  }
}

extension TokenizerDefinition {
  /// Throws, naming the file, what building the tokenizer throws.
  func checked(_ name: String) throws(SquintError) {
    do {
      _ = try Tokenizer(self)
    } catch {
      throw .badData(name, error.message)
    }
  }
}
