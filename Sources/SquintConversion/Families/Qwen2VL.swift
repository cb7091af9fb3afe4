import SquintFile

// Qwen2-VL: a tower with LayerNorm whose patches all see each other.

extension MediaFamily {
  static let qwen2VL = MediaFamily(
    description: "qwen2_vl", classes: ["qwen2vl"], recognizes: { $0["model_type"]?.string == "qwen2_vl" },
    decoderType: { _ in QwenVL.qwen2.textType },
    // configuration_qwen2_vl.py, `__post_init__`
    isTied: { _, inner, outer in inner ?? false || outer ?? false },
    parts: { (vision, notes) throws(SquintError) in try vision.qwenVL(.qwen2, notes: &notes) },
    gguf: .qwenVL(.qwen2, projectorType: "qwen2vl_merger", text: ["qwen2vl"], images: .qwen2VL) { _, _, _, _ in .qwen2 }
  )
}

extension QwenVL {
  /// configuration_qwen2_vl.py, modeling_qwen2_vl.py
  static let qwen2 = QwenVL(
    architecture: "qwen2vl", textType: "qwen2_vl_text", width: 1280, widthKey: "embed_dim", layers: 32, patch: 14,
    activation: .quickGELU, hasPatchBias: false,
    ffnWidth: { (reader, width) throws(SquintError) in
      let ratio = try reader.number("mlp_ratio") ?? 4
      guard ratio > 0, ratio <= 1024 else {
        throw .badData(reader.place, "mlp_ratio \(ratio) is not between 0 and 1,024")
      }
      return max(1, Int(Double(width) * ratio))
    },
    kind: { _, _, _ in .qwen2 }, projector: ["visual.merger.mlp"], coordinates: .thousandths, videoFamily: .qwen2VL)
}

extension DecoderFamily {
  /// configuration_qwen2_vl.py; llama.cpp's LLM_ARCH_QWEN2VL, which is Qwen2.5-VL's, too
  static let qwen2VL = DecoderFamily(
    name: "qwen2vl", huggingFace: .qwen2VL(modelType: QwenVL.qwen2.textType),
    gguf: GGUFFacts(architecture: "qwen2vl", names: .ggufLlama) { (decoder, reader) throws(SquintError) in
      try decoder.finishQwenVL(reader, isInterleaved: false)
    })
}

extension DecoderFamily.HuggingFaceFacts {
  /// The text part of Qwen2-VL and Qwen2.5-VL.
  static func qwen2VL(modelType: String) -> DecoderFamily.HuggingFaceFacts {
    DecoderFamily.HuggingFaceFacts(
      modelType: modelType, vocabulary: 152_064, width: 8192, ffnWidth: 29_568, layers: 80, heads: 64,
      keyValueHeads: 8, context: 32_768, normEpsilon: 1e-5, queryKeyValueBias: true, names: .huggingFaceLlama
    ) { (decoder, reader, notes) throws(SquintError) in
      try decoder.finishQwenVL(
        reader, base: 1_000_000, sections: [16, 24, 24], isInterleaved: false,
        window: DecoderFamily.qwenWindow(reader, layers: decoder.layers, usualFirst: 80), notes: &notes)
    }
  }
}
