import SquintFile

// LLaVA-NeXT (LLaVA 1.6): as LLaVA, with images in tiles, whose rows are packed into one grid with a newline behind each of its rows.

extension VisionFamily {
  /// configuration_llava_next.py, modeling_llava_next.py
  static let llavaNeXT = VisionFamily(
    description: "llava_next", classes: ["llavanext"],
    recognizes: { $0["model_type"]?.string == "llava_next" },
    isTied: { _, _, outer in outer ?? false },
    parts: { (vision, notes) throws(SquintError) in
      var parts = try vision.llava(LLaVAFacts(hasNewline: true), notes: &notes)
      parts.prompt.packing = .anyres
      // Of a tile alone; the processor counts anew.
      parts.tileRows = nil
      return parts
    })
}
