import SquintFile

// Qwen3-VL: a tower with a table of positions beside the rotary ones, and features of earlier layers for the decoder's first layers
// ("DeepStack").

extension MediaFamily {
  static let qwen3VL = MediaFamily(
    description: "qwen3_vl, qwen3_vl_moe", classes: ["qwen3vl", "qwen3vlmoe"],
    recognizes: { ["qwen3_vl", "qwen3_vl_moe"].contains($0["model_type"]?.string ?? "") },
    decoderType: { $0["model_type"]?.string == "qwen3_vl_moe" ? QwenVL.mixtureTextType : QwenVL.qwen3.textType },
    isTied: { _, inner, outer in inner ?? false || outer ?? false },
    parts: { (vision, notes) throws(SquintError) in try vision.qwenVL(.qwen3, notes: &notes) },
    gguf: .qwenVL(.qwen3, projectorType: "qwen3vl_merger", text: ["qwen3vl", "qwen3vlmoe"], images: .qwen2VL) {
      (encoder, source, metadata, _) throws(SquintError) in
      guard let table = source.tensor(named: "v.position_embd.weight"), table.shape.count == 2 else {
        throw .badData(metadata.place, "the matrix v.position_embd.weight is missing")
      }
      encoder.grid = try QwenVL.grid(positions: table.shape[0], place: metadata.place)
      let layers = try metadata.qwenVLDeepLayers()
      return .qwen3(deepLayers: try QwenVL.deepLayers(layers, of: encoder.sourceLayers, place: metadata.place))
    })
}

extension QwenVL {
  /// configuration_qwen3_vl.py, modeling_qwen3_vl.py
  static let qwen3 = QwenVL(
    architecture: "qwen3vl", textType: "qwen3_vl_text", width: 1152, layers: 27, patch: 16, activation: .geluTanh,
    hasPatchBias: true,
    ffnWidth: { (reader, _) throws(SquintError) in try reader.size("intermediate_size") ?? 4304 },
    kind: { (reader, encoder, _) throws(SquintError) in
      let positions = try reader.size("num_position_embeddings") ?? 2304
      encoder.grid = try grid(positions: positions, place: reader.place)
      let layers = try reader.integers("deepstack_visual_indexes") ?? [8, 16, 24]
      return .qwen3(deepLayers: try deepLayers(layers, of: encoder.sourceLayers, place: reader.place))
    }, projector: ["visual.merger.linear_fc1", "visual.merger.linear_fc2"], coordinates: .thousandths,
    videoFamily: .qwen3VL, hasTimes: true)

  /// The side of the grid that a table of so many positions is for.
  fileprivate static func grid(positions: Int, place: String) throws(SquintError) -> Int {
    let side = Int(Double(max(positions, 0)).squareRoot().rounded())
    guard (1...EncoderConfiguration.largestGrid).contains(side), side * side == positions else {
      throw .badData(place, "\(grouped(positions)) positions are not those of a square grid")
    }
    return side
  }

  /// After how many layers features are taken behind the layers `indices`, counted from 0.
  fileprivate static func deepLayers(_ indices: [Int], of layers: Int, place: String) throws(SquintError) -> [Int] {
    guard indices.count < ProjectorConfiguration.mostLayers, indices.allSatisfy({ (0..<layers).contains($0) }),
      zip(indices, indices.dropFirst()).allSatisfy({ $0 < $1 })
    else {
      throw .badData(
        place, "features behind the layers \(indices.prefix(8)) of \(layers) are not supported; they must ascend")
    }
    return indices.map { $0 + 1 }
  }
}

extension QwenVL {
  static let mixtureTextType = "qwen3_vl_moe_text"
}

extension DecoderFamily {
  /// configuration_qwen3_vl_moe.py, modeling_qwen3_vl_moe.py; llama.cpp's LLM_ARCH_QWEN3VLMOE
  static let qwen3VLMoE = DecoderFamily(
    name: "qwen3vlmoe",
    huggingFace: HuggingFaceFacts(
      modelType: QwenVL.mixtureTextType, vocabulary: 151_936, width: 2048, ffnWidth: 5632, layers: 24, heads: 16,
      keyValueHeads: 16, context: 128_000, hasHeadNorm: true, names: .huggingFaceQwen3MoE
    ) { (decoder, reader, notes) throws(SquintError) in
      try decoder.finishQwenVL(
        reader, base: 500_000, sections: [24, 20, 20], isInterleaved: true, window: (0, nil), notes: &notes)
      let axes = (decoder.graph as? LlamaGraph)?.ropeAxes
      var usual = ExpertsBlueprint()
      (usual.count, usual.chosen, usual.width) = (60, 4, 1408)
      try decoder.setExperts(reader, usual: usual, axes: axes, normalizes: true)
    },
    gguf: GGUFFacts(architecture: "qwen3vlmoe", hasHeadNorm: true, hasExperts: true, names: .ggufQwen3MoE) {
      (decoder, reader) throws(SquintError) in
      try decoder.finishQwenVL(reader, isInterleaved: true)
      let axes = (decoder.graph as? LlamaGraph)?.ropeAxes
      try decoder.setExperts(reader, axes: axes)
    })

  /// configuration_qwen3_vl.py; llama.cpp's LLM_ARCH_QWEN3VL
  static let qwen3VL = DecoderFamily(
    name: "qwen3vl",
    huggingFace: HuggingFaceFacts(
      modelType: QwenVL.qwen3.textType, vocabulary: 151_936, ffnWidth: 22_016, keyValueHeads: 32, headWidth: 128,
      context: 128_000, hasHeadNorm: true, names: .huggingFaceLlama
    ) { (decoder, reader, notes) throws(SquintError) in
      try decoder.finishQwenVL(
        reader, base: 500_000, sections: [24, 20, 20], isInterleaved: true, window: (0, nil), notes: &notes)
    },
    gguf: GGUFFacts(architecture: "qwen3vl", hasHeadNorm: true, names: .ggufLlama) {
      (decoder, reader) throws(SquintError) in try decoder.finishQwenVL(reader, isInterleaved: true)
    })
}
