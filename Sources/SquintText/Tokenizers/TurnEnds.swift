/// The tokens that end a turn in the formats that people train with.
package enum TurnEnds {
  /// Their names, as llama.cpp knows them (llama-vocab.cpp, `special_eog_ids`): checkpoints often name only one of theirs, or do
  /// not mark them as control tokens.
  package static let names: Set<String> = [
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|return|>",
    "<|call|>", "<|end_of_text|>", "<|endoftext|>", "<|end_of_turn|>", "<|endofturn|>", "<end_of_utterance>", "</s>",
    "<EOT>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>",
  ]

  /// Those of them that `tokens` has.
  package static func ids(in tokens: [TokenizerDefinition.AddedToken]) -> Set<Int32> {
    var ids: [String: Int32] = [:]
    for token in tokens where names.contains(token.content) { ids[token.content] = token.id }
    // In the harmony format one answer has several messages, and <|end|> ends each but the last.
    if ids["<|return|>"] != nil, ids["<|call|>"] != nil { ids["<|end|>"] = nil }
    return Set(ids.values)
  }
}
