/// The graphs of encoders that there are: what `encoder.NAME.graph` may say (formats/vision.md).
package enum EncoderGraph: String, GraphName {
  /// A vision transformer: CLIP, SigLIP, DINOv2, Idefics3.
  case vit
  /// InternViT-6B.
  case internvit
  /// Qwen2-VL's tower.
  case qwen2vl
  /// Qwen2.5-VL's and Qwen2.5-Omni's.
  case qwen25vl = "qwen2_5vl"
  /// Qwen3-VL's.
  case qwen3vl
  /// Whisper's, Qwen2-Audio's and Qwen2.5-Omni's of sounds.
  case whisper
  /// The audio tower of Qwen3-ASR and Qwen3-Omni.
  case qwen3asr
  /// MoleculeSTM's graph network for molecules (formats/molecule-encoders.md).
  case gin
  /// Patches of a series: ChatTS's.
  case patches
  /// Intern-S1-Pro's encoder of series.
  case internSeries = "interns1_series"

  package static var usual: EncoderGraph { .vit }

  /// The blueprint of `module`, which has this graph.
  ///
  /// - Throws: `badData` where a key is missing or impossible.
  package func blueprint(_ file: ModelFile, module: String) throws(SquintError) -> any ModuleBlueprint {
    switch self {
    case .vit: try ViTBlueprint(file, module: module)
    case .internvit: try InternViTBlueprint(file, module: module)
    case .qwen2vl: try Qwen2ViTBlueprint(file, module: module)
    case .qwen25vl: try Qwen25ViTBlueprint(file, module: module)
    case .qwen3vl: try Qwen3ViTBlueprint(file, module: module)
    case .whisper: try WhisperBlueprint(file, module: module)
    case .qwen3asr: try Qwen3ASRBlueprint(file, module: module)
    case .gin: try GINBlueprint(file, module: module)
    case .patches: try SeriesPatchesBlueprint(file, module: module)
    case .internSeries: try InternSeriesBlueprint(file, module: module)
    }
  }
}

/// What becomes of the table of positions where a tile's grid is another.
public enum PositionRule: String, CaseIterable, Sendable {
  /// The tile is refused.
  case fixed
  /// The table is resized.
  case bicubic
  /// The row of the table that is at about the same place.
  case buckets
}

/// The graph `vit`: a vision transformer whose rows see all rows (formats/vision.md).
package struct ViTBlueprint: PreNormBlueprint {
  package static var graph: EncoderGraph { .vit }
  /// What its keys and tensors begin with: `encoder.image`.
  package let module: String
  /// The family in the checkpoint's words; for people.
  package var architecture = ""
  package var layers = 0
  package var width = 0
  package var ffnWidth = 0
  package var heads = 0
  /// The side of a patch in pixels.
  package var patch = 0
  /// The side of the grid that the table of positions is for.
  package var grid = 0
  package var positions = PositionRule.fixed
  package var normEpsilon = 0.0
  package var activation = Activation.gelu
  /// After how many layers features are taken, ascending; nil or none: after the last.
  package var featureLayers: [Int]?
  /// Whether the class token's row is left out of the features.
  package var dropsClass = false
  /// Whether a row that stands for the whole image goes before the patches: whether there is the tensor `class`.
  package var hasClass = false

  /// All sizes are zero.
  package init(module: String) { self.module = module }

  package mutating func note(_ file: ModelFile) { hasClass = file.tensor("\(module).class") != nil }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.text("\(module).architecture", &architecture)
    try coder.int("\(module).layers", &layers, in: 0...4096)
    try coder.int("\(module).width", &width, in: 1...1 << 20)
    try coder.int("\(module).ffn_width", &ffnWidth, in: 1...1 << 20)
    try coder.int("\(module).heads", &heads, in: 1...max(width, 1))
    try coder.int("\(module).patch", &patch, in: 1...1 << 12)
    try coder.int("\(module).grid", &grid, in: 1...1 << 12)
    try coder.choice("\(module).positions", &positions)
    try coder.number("\(module).norm_epsilon", &normEpsilon)
    try coder.choice("\(module).activation", &activation)
    try coder.ints("\(module).feature_layers", &featureLayers)
    try coder.flag("\(module).drops_class", &dropsClass)
  }

  package func check() throws(SquintError) {
    try checkHeads(heads, width: width, module: module)
    try checkEpsilon(normEpsilon, key: "\(module).norm_epsilon")
    let taken = featureLayers ?? []
    guard taken.count <= 64, taken.allSatisfy({ (0...layers).contains($0) }),
      zip(taken, taken.dropFirst()).allSatisfy({ $0 < $1 })
    else {
      throw SquintError(
        .badData,
        "metadata \(module).feature_layers must be at most 64 ascending numbers of 0 to \(layers); convert the model "
          + "again")
    }
  }

  // MARK: Tensors

  /// Columns: channel, then row, then column of the pixel.
  package var patches: MatrixSpecification {
    MatrixSpecification("\(module).patch", rows: width, columns: 3 * patch * patch)
  }

  package var classToken: TensorSpecification { .vector("\(module).class", width, isOptional: true) }

  package var positionTable: TensorSpecification {
    TensorSpecification("\(module).positions", [grid * grid + (hasClass ? 1 : 0), width], .vector)
  }

  package var preNorm: NormSpecification { NormSpecification("\(module).pre_norm", width, isOptional: true) }

  package var norm: NormSpecification { NormSpecification("\(module).norm", width, isOptional: true) }

  package var tensors: [TensorSpecification] {
    patches.tensors + [classToken, positionTable] + preNorm.tensors + (0..<layers).flatMap { layer($0).tensors }
      + norm.tensors
  }
}
