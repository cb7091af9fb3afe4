import SquintFile

/// The decoder of `file`, by the graph that it names (`decoder.graph`): one file for each graph, in Decoders/.
///
/// - Throws: `badData` for a graph that is not known, and for keys and tensors that are missing or impossible.
package func decoderModel(of file: ModelFile) throws(SquintError) -> any DecoderModel {
  switch try DecoderGraph(file.metadata) {
  case .llama: try LayeredDecoderModel<Llama>(file)
  case .gemma3: try LayeredDecoderModel<Gemma3>(file)
  case .lfm2: try LayeredDecoderModel<LFM2>(file)
  }
}

/// The blueprint of the decoder of `file`; no tensor is looked at.
package func decoderBlueprint(of file: ModelFile) throws(SquintError) -> any DecoderBlueprint {
  try DecoderGraph(file.metadata).blueprint.init(file.metadata)
}
