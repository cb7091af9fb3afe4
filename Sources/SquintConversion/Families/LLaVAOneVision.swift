import SquintFile

// LLaVA-OneVision (arXiv 2408.03326): as LLaVA-NeXT, with SigLIP, more tiles, and a limit of rows beyond which the grid is resized.

extension MediaFamily {
  /// configuration_llava_onevision.py, modeling_llava_onevision.py
  static let llavaOneVision = MediaFamily(
    description: "llava_onevision", classes: ["llavaonevision"],
    recognizes: { $0["model_type"]?.string == "llava_onevision" },
    decoderType: { config in
      config["text_config"] != nil && config["text_config"]?["model_type"] == nil ? "qwen2" : nil
    },
    // configuration_llava_onevision.py, `__post_init__`
    isTied: { _, inner, outer in inner ?? false || outer ?? false },
    parts: { (vision, notes) throws(SquintError) in
      let facts = LLaVAFacts(tower: .siglip, layer: -1, strategy: "full", token: 151_646, hasNewline: true)
      var parts = try vision.llava(facts, notes: &notes)
      parts.prompt.packing = .anyres
      let ratio = try vision.reader.text("vision_aspect_ratio") ?? "anyres_max_9"
      let start = "anyres_max_"
      guard ratio.hasPrefix(start), let limit = Int(ratio.dropFirst(start.count)), (1...1024).contains(limit) else {
        throw .badData(
          vision.place,
          "vision_aspect_ratio \"\(printable(ratio))\" is not supported; known are anyres_max_1 to anyres_max_1024")
      }
      parts.prompt.packingLimit = limit
      return parts
    })
}
