import SquintFile

// Qwen2.5-VL: a tower with RMSNorm and SwiGLU, in most of whose layers patches see their window alone.

extension MediaFamily {
  static let qwen25VL = MediaFamily(
    description: "qwen2_5_vl", classes: ["qwen2_5_vl"], recognizes: { $0["model_type"]?.string == "qwen2_5_vl" },
    decoderType: { _ in QwenVL.qwen25.textType },
    // configuration_qwen2_5_vl.py, `__post_init__`
    isTied: { _, inner, outer in inner ?? false || outer ?? false },
    parts: { (vision, notes) throws(SquintError) in try vision.qwenVL(.qwen25, notes: &notes) },
    gguf: .qwenVL(.qwen25, projectorType: "qwen2.5vl_merger", text: ["qwen2vl"], images: .qwen2VL) {
      (encoder, _, metadata, merge) throws(SquintError) in
      // Each so many layers the last one sees all; the windows' side is written into llama.cpp.
      guard let pattern = try metadata.size("clip.vision.n_wa_pattern") else {
        throw .badData(metadata.place, "metadata clip.vision.n_wa_pattern is missing")
      }
      let pixels = try metadata.size("clip.vision.window_size") ?? QwenVL.usualWindow
      let window = try QwenVL.window(pixels, patch: encoder.patch, merge: merge, place: metadata.place)
      return .qwen25(
        window: window, fullLayers: (0..<encoder.sourceLayers).filter { ($0 + 1) % pattern == 0 })
    })
}

extension QwenVL {
  fileprivate static let usualWindow = 112

  /// configuration_qwen2_5_vl.py, modeling_qwen2_5_vl.py
  static let qwen25 = qwen25(textType: "qwen2_5_vl_text", positionsPerSecond: 4)

  /// The tower of Qwen2.5-VL beside a decoder of the type `textType`.
  static func qwen25(textType: String, positionsPerSecond: Double?) -> QwenVL {
    QwenVL(
      architecture: "qwen2_5vl", textType: textType, width: 3584, layers: 32, patch: 14, activation: .silu,
      hasPatchBias: false,
      ffnWidth: { (reader, _) throws(SquintError) in try reader.size("intermediate_size") ?? 3420 },
      kind: { (reader, encoder, merge) throws(SquintError) in
        guard encoder.activation == .silu else {
          throw .badData(
            reader.place, "hidden_act \(encoder.activation.rawValue) is not supported; qwen2_5_vl has silu")
        }
        let pixels = try reader.size("window_size") ?? usualWindow
        let full = try reader.integers("fullatt_block_indexes") ?? [7, 15, 23, 31]
        let layers = encoder.sourceLayers
        return .qwen25(
          window: try window(pixels, patch: encoder.patch, merge: merge, place: reader.place),
          fullLayers: Set(full).sorted().filter { (0..<layers).contains($0) })
      }, projector: ["visual.merger.mlp"], coordinates: .resized,
      videoFamily: .qwen2VL, positionsPerSecond: positionsPerSecond)
  }

  /// The side of a window in merged patches.
  fileprivate static func window(_ pixels: Int, patch: Int, merge: Int, place: String) throws(SquintError) -> Int {
    let window = pixels / merge / patch
    guard (1...EncoderConfiguration.largestGrid).contains(window) else {
      throw .badData(
        place, "a window of \(grouped(pixels)) pixels is not supported; a merged patch has \(merge * patch)")
    }
    return window
  }
}

extension DecoderFamily {
  /// configuration_qwen2_5_vl.py; its GGUF files are Qwen2-VL's
  static let qwen25VL = DecoderFamily(
    name: "qwen2_5vl", huggingFace: .qwen2VL(modelType: QwenVL.qwen25.textType), gguf: nil)
}
