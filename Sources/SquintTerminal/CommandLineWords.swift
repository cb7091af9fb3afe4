import SquintFile

extension SquintError {
  /// The message with what would help in the words of the command line.
  package var commandLine: String { message(\.commandLine) }
}

extension SquintError.Remedy {
  /// What would help, as an option where there is one.
  fileprivate var commandLine: String {
    switch self {
    case .context(let positions): "--context \(positions) would fit"
    case .longerContext: "shorten it or use a larger --context"
    case .smallerMedia: "lower --image-tokens or --max-frames, or use a larger --context"
    case .kvType(let type): "--kv \(type) would fit"
    case .tiles(let tiles): "--max-tiles \(tiles) would fit"
    case .memory(let bytes): "--memory \((bytes >> 20) + 1)M would do"
    case .memoryForStep(let bytes): "--memory \((bytes >> 20) + 1)M would do for that"
    case .oneThread: "or try --threads 1"
    case .noTemplate: "--raw does without the template"
    case .asManyAsMarkers(let kind, let marker):
      "give as many --\(kind) as the prompt has \(marker), or write \\\(marker) for the word"
    case .encoderStage: "--stage encoder"
    case .imageBesideModel: "give images with --image"
    case .closePrograms, .smallerModel, .raiseLimits: message
    }
  }
}
