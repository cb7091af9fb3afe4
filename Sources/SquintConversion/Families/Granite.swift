import SquintFile

// Granite 3 and 4 without experts, and the text part of Granite-Docling: Llama with four constants, all of which go into weights.
//
// With e, r, a and s for what embeddings, residuals, scores and logits are multiplied with (or, s, divided by), and x for what
// runs from layer to layer, y = x / r follows the same rule without r, since norms do not see r but in their epsilon:
//
//     y = embedding · e / r;  y = y + f(norm(y)) in each layer, the norm's epsilon divided by r²
//
// So r takes no matrix but the embedding, which has e already. a takes the queries' matrix, s the last norm, which where the
// embedding serves as the head takes back e / r, too.

extension DecoderFamily {
  /// configuration_granite.py, modeling_granite.py; llama.cpp's LLM_ARCH_GRANITE
  static let granite = DecoderFamily(
    name: "granite",
    huggingFace: HuggingFaceFacts(
      modelType: "granite", vocabulary: 32000, ffnWidth: 11008, context: 2048, hasFFNBias: true,
      names: .huggingFaceLlama
    ) { (decoder, reader, notes) throws(SquintError) in
      try decoder.finishLlama(reader, window: (0, nil), notes: &notes)
      func constant(_ key: String) throws(SquintError) -> Double { try reader.number(key) ?? 1 }
      let constants = GraniteConstants(
        embedding: try constant("embedding_multiplier"), residual: try constant("residual_multiplier"),
        attention: try constant("attention_multiplier"),
        // Inside a model that sees it is that model's head that counts, which divides by nothing.
        logits: reader.outer["text_config"] == nil ? try constant("logits_scaling") : 1)
      try decoder.fold(constants, place: reader.place)
    },
    gguf: GGUFFacts(architecture: "granite", interleavesPairs: true, names: .ggufLlama) {
      (decoder, reader) throws(SquintError) in
      try decoder.finishLlama(reader)
      let metadata = reader.metadata
      // llama.cpp takes 0 for none (llama-graph.cpp, llama-model.cpp).
      func constant(_ name: String, _ usual: Double) throws(SquintError) -> Double {
        let value = try metadata.number(reader.key(name)) ?? 0
        return value == 0 ? usual : Double(shortest: Float(value))
      }
      let constants = GraniteConstants(
        embedding: try constant("embedding_scale", 1), residual: try constant("residual_scale", 1),
        attention: try constant("attention.scale", 1 / Double(decoder.headWidth).squareRoot()),
        logits: try constant("logit_scale", 1))
      try decoder.fold(constants, place: metadata.place)
    } enter: { decoder in
      decoder.folds["norm"] = nil
    })
}

/// What Granite multiplies with.
private struct GraniteConstants {
  /// The rows of tokens.
  let embedding: Double
  /// What attention and the feed-forward network add.
  let residual: Double
  /// The scores of attention.
  let attention: Double
  /// What logits are divided by.
  let logits: Double
}

extension DecoderConfiguration {
  /// Puts the constants where they are computed with.
  fileprivate mutating func fold(_ constants: GraniteConstants, place: String) throws(SquintError) {
    let all = [constants.embedding, constants.residual, constants.attention, constants.logits]
    // Far beyond what any model has, so that squares and quotients are numbers in f32.
    guard all.allSatisfy({ (1e-6...1e6).contains($0) }) else {
      throw .badData(
        place,
        "Granite's multipliers (embedding, residual, attention, logits) are \(all); each must be between 1e-6 and 1e6")
    }
    inputScale = Float(constants.embedding / constants.residual)
    folds["embedding"] = Fold(factor: inputScale)
    normEpsilon /= constants.residual * constants.residual
    // Attention divides the scores by the root of the head's width.
    let queries = Fold(factor: Float(constants.attention * Double(headWidth).squareRoot()))
    folds["attention.q"] = queries
    folds["attention.q.bias"] = queries
    folds["norm"] = Fold(factor: Float(1 / constants.logits))
  }
}
