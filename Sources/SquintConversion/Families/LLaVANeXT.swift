import SquintFile

// LLaVA-NeXT (LLaVA 1.6): as LLaVA, with images in tiles, whose rows are packed into one grid with a newline behind each of its rows.

extension MediaFamily {
  /// configuration_llava_next.py, modeling_llava_next.py
  static let llavaNeXT = MediaFamily(
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

extension ImageConfiguration {
  /// Sets the sizes that LLaVA 1.6 brings images to, from a GGUF file.
  ///
  /// - Parameter flat: heights and widths, as transformers has them. (llama.cpp and LLaVA's own program read widths first; the published
  ///   lists have each size both ways, so that only images smaller than a tile are brought to another one.)
  mutating func setPinpoints(_ flat: [Int64], ratio: String?, _ metadata: GGUFMetadata) throws(SquintError) {
    guard ratio == nil || ratio == "anyres" else {
      throw .badData(
        metadata.place,
        "clip.vision.image_aspect_ratio \"\(printable(ratio ?? ""))\" is not supported beside image_grid_pinpoints; anyres is"
      )
    }
    let merge = try metadata.text("clip.vision.mm_patch_merge_type") ?? "spatial_unpad"
    guard merge == "spatial_unpad" else {
      throw .badData(
        metadata.place, "clip.vision.mm_patch_merge_type \"\(printable(merge))\" is not supported; spatial_unpad is")
    }
    guard flat.count % 2 == 0, (2...512).contains(flat.count),
      flat.allSatisfy({ $0 > 0 && $0 <= Int64(Self.largestSide) })
    else {
      throw .badData(metadata.place, "metadata clip.vision.image_grid_pinpoints is not a list of widths and heights")
    }
    try cut(
      to: stride(from: 0, to: flat.count, by: 2).map { Size(height: Int(flat[$0]), width: Int(flat[$0 + 1])) },
      place: metadata.place)
  }

  /// Brings images to one of `sizes` and cuts them into the squares that they were so far.
  mutating func cut(to sizes: [Size], place: String) throws(SquintError) {
    guard layout == .whole, let size = tileSize ?? squareSide.map({ Size(height: $0, width: $0) }),
      size.height == size.width,
      sizes.allSatisfy({ $0.height % size.height == 0 && $0.width % size.width == 0 })
    else {
      throw .badData(place, "image_grid_pinpoints are not multiples of the side of the square that the encoder sees")
    }
    layout = .anyres
    tile = size.height
    pinpoints = sizes
    resize = .none
    crop = nil
    squareBackground = nil
  }

  /// The side of the shortest or longest edge.
  private var squareSide: Int? {
    switch resize {
    case .shortestEdge(let side), .longestEdge(let side): side
    case .none, .exact, .smart: nil
    }
  }
}
