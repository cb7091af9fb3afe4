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
    case .smallerMedia:
      "use a larger --context, or give less: a part of it, --image-tokens for images, --max-frames for videos"
    case .kvType(let type): "--kv \(type) would fit"
    case .tiles(let tiles): "--max-tiles \(tiles) would fit"
    case .memory(let bytes): "--memory \(megabytes(bytes))M would do"
    case .memoryForStep(let bytes): "--memory \(megabytes(bytes))M would do for that"
    case .oneThread: "or try --threads 1"
    case .noTemplate: "--raw does without the template"
    case .asManyAsMarkers(let kind, let marker):
      "give as many --\(kind) as the prompt has \(marker), or write \\\(marker) for the word"
    case .beginWith(let kind): "end it, and begin again with --\(kind) FILE; later ones may then be as large"
    case .encoderStage: "--stage encoder"
    case .imageBesideModel: "give images with --image"
    case .closePrograms, .smallerModel, .raiseLimits: message
    }
  }
}

/// What to ask for where `bytes` are needed: a little more, since how much of the program and its libraries the system maps in
/// differs from start to start.
private func megabytes(_ bytes: Int) -> Int { (bytes >> 20) + 2 }
