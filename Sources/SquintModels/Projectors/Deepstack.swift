import SquintCompute
import SquintFile

/// From the features of several of an encoder's layers to the rows that the decoder takes before its first layer, and those that are
/// added behind its first layers (formats/vision.md).
///
/// Source: DeepStack (arXiv 2406.04334), Qwen3-VL (2511.21631); the reference is transformers' Qwen3VLVisionPatchMerger.
package struct Deepstack: Projector {
  /// Of the last features, and then of those of each level.
  private let parts: [MLP]
  private let width: Int

  /// rows: [tokens, (1 + levels) · decoder width]
  package func project(_ features: Rows, _ grid: FeatureGrid, into rows: Rows) {
    for (index, part) in parts.enumerated() {
      part.project(features, grid, into: rows.columns(from: index * width))
    }
  }

  /// The blueprint and the weights.
  package struct Graph: ProjectorModel {
    private let parts: [MLP.Graph]
    package let decoderWidth: Int

    package var levels: Int { parts.count - 1 }

    /// - Throws: `badData` where keys or tensors are missing or impossible, or the widths do not fit.
    package init(
      _ file: ModelFile, module: String, encoderWidth: Int, hasClassRow: Bool, decoderWidth: Int?
    ) throws(SquintError) {
      let blueprint = try DeepstackBlueprint(file, module: module)
      let (levels, width) = (blueprint.levels, encoderWidth / (blueprint.levels + 1))
      guard encoderWidth % (levels + 1) == 0 else {
        throw SquintError(
          .badData,
          "metadata \(module).levels is \(levels), and the encoder's features, \(grouped(encoderWidth)) numbers, are not those "
            + "of \(levels + 1) layers; convert the model again")
      }
      // The features of the last layer come last.
      var parts = [
        try MLP.Graph(
          file,
          MLP.Configuration(
            blueprint.main, encoderWidth: width, column: levels * width, hasClassRow: hasClassRow,
            decoderWidth: decoderWidth))
      ]
      for level in 0..<levels {
        parts.append(
          try MLP.Graph(
            file,
            MLP.Configuration(
              blueprint.level(level), encoderWidth: width, column: level * width, hasClassRow: hasClassRow,
              decoderWidth: decoderWidth)))
      }
      self.parts = parts
      self.decoderWidth = parts[0].decoderWidth
    }

    package func rows(of grid: FeatureGrid) throws(SquintError) -> Int { try parts[0].rows(of: grid) }

    package func reserve(rows: Int, in plan: inout ArenaPlan) throws(SquintError) -> ProjectorMaker {
      // One after the other, in the same buffers: those of the levels have a norm more than the first.
      let regions = try MLP.Regions(parts[parts.count - 1].configuration, rows: rows, in: &plan)
      let graph = self
      return { arena, compute in
        Deepstack(
          parts: graph.parts.map { MLP($0.configuration, $0.weights, regions, in: arena, compute) },
          width: graph.decoderWidth)
      }
    }
  }
}
