import SquintFile

// Qwen2 and Qwen3, which compute as Llama does: Qwen2 with biases of queries, keys and values, Qwen3 with norms of queries and
// keys.

extension DecoderFamily {
  /// configuration_qwen2.py
  static let qwen2 = DecoderFamily(
    name: "qwen2",
    huggingFace: HuggingFaceFacts(
      modelType: "qwen2", vocabulary: 151_936, ffnWidth: 22016, keyValueHeads: 32, context: 32768,
      queryKeyValueBias: true, names: .huggingFaceLlama, finish: finishQwen),
    gguf: GGUFFacts(architecture: "qwen2", names: .ggufLlama) { (decoder, reader) throws(SquintError) in
      try decoder.finishLlama(reader)
    })

  /// configuration_qwen3.py
  static let qwen3 = DecoderFamily(
    name: "qwen3",
    huggingFace: HuggingFaceFacts(
      modelType: "qwen3", vocabulary: 151_936, ffnWidth: 22016, keyValueHeads: 32, headWidth: 128, context: 32768,
      hasHeadNorm: true, names: .huggingFaceLlama, finish: finishQwen),
    gguf: GGUFFacts(architecture: "qwen3", hasHeadNorm: true, names: .ggufLlama) {
      (decoder, reader) throws(SquintError) in try decoder.finishLlama(reader)
    })

  @Sendable private static func finishQwen(
    _ decoder: inout DecoderConfiguration, _ reader: ConfigurationReader, _ notes: inout [String]
  ) throws(SquintError) {
    try decoder.finishLlama(reader, window: qwenWindow(reader, layers: decoder.layers, usualFirst: 28), notes: &notes)
  }

  /// `sliding_window` in the layers that `layer_types` names, or from `max_window_layers` on, if `use_sliding_window`.
  ///
  /// - Parameter usualFirst: `max_window_layers` where it is not said.
  static func qwenWindow(
    _ reader: ConfigurationReader, layers: Int, usualFirst: Int
  ) throws(SquintError) -> (positions: Int, layers: [Int]?) {
    let given = try reader.size("sliding_window")
    guard try reader.flag("use_sliding_window") ?? false else { return (0, nil) }
    let window = given ?? (reader.isAbsent("sliding_window") ? 4096 : 0)
    guard window > 0 else { return (0, nil) }
    if let chosen = try reader.windowLayers(of: layers) { return (window, chosen) }
    let first = try reader.count("max_window_layers") ?? usualFirst
    return (window, Array(min(first, layers)..<layers))
  }
}
