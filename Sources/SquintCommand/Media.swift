import ArgumentParser
import Squint
import SquintMedia
import SquintTerminal

/// How people give media of one kind on a command line and in a conversation. There is one for each that there are processors for.
struct MediaSyntax: Sendable {
  let kind: MediaKind
  /// The option, without its dashes, and what it has in `MediaOptions`.
  let option: String
  let files: @Sendable (MediaOptions) -> [String]
  /// In a conversation.
  let command: String
  let help: String
  /// The endings of their files' names.
  let extensions: [String]
  /// What a saved conversation calls one.
  let savedName: String
  /// What is asked about them where nothing else is.
  let usualQuestion: String

  static let all = [
    MediaSyntax(
      kind: .image, option: "image", files: \.image, command: "/image",
      help: "show an image with the next question", extensions: ImageFormat.extensions,
      savedName: "picture", usualQuestion: "What is in this picture?"),
    MediaSyntax(
      kind: .video, option: "video", files: \.video, command: "/video",
      help: "show a video with the next question",
      extensions: ["mp4", "mkv", "webm", "mov", "avi", "y4m", "gif", "webp"],
      savedName: "video", usualQuestion: "What happens in this video?"),
    MediaSyntax(
      kind: .audio, option: "audio", files: \.audio, command: "/audio",
      help: "play a sound with the next question",
      extensions: ["wav", "flac", "ogg", "oga", "opus", "mp3", "aiff", "au", "m4a"],
      savedName: "sound", usualQuestion: "What is said?"),
    MediaSyntax(
      kind: .molecule, option: "molecule", files: \.molecule, command: "/molecule",
      help: "give a molecule with the next question", extensions: ["mol", "sdf", "smi"],
      savedName: "molecule", usualQuestion: "Please give me some details about this molecule."),
    MediaSyntax(
      kind: .series, option: "series", files: \.series, command: "/series",
      help: "give a time series with the next question", extensions: ["csv", "tsv", "npy"],
      savedName: "series", usualQuestion: "What does this time series show?"),
  ]

  /// The one for media of `kind`.
  static func of(_ kind: MediaKind) -> MediaSyntax {
    guard let syntax = all.first(where: { $0.kind == kind }) else { preconditionFailure("there is one for each kind") }
    return syntax
  }
}

/// What the model is to look at.
struct MediaOptions: ParsableArguments {
  @Option(
    help: .init(
      """
      An image (\(ImageFormat.list)), or - for one on stdin. Repeatable; it stands where the prompt has <image>, or comes first.
      """, valueName: "file"), completion: .file(extensions: ImageFormat.extensions))
  var image: [String] = []

  @Option(
    help: .init(
      """
      A video: a folder of frames, an animated GIF or WebP, Y4M, or what the program ffmpeg understands where it is installed. \
      Repeatable; it stands where the prompt has <video>, or comes first.
      """, valueName: "file"), completion: .file())
  var video: [String] = []

  @Option(
    help: .init(
      """
      A sound: WAV, FLAC, OGG or MP3, what ffmpeg understands where it is installed, or - for one on stdin. Repeatable; it stands \
      where the prompt has <audio>, or comes first.
      """, valueName: "file"), completion: .file())
  var audio: [String] = []

  @Option(
    help: .init(
      """
      A molecule: its SMILES, or a file (SMILES, MOL or SDF). Repeatable; it stands where the prompt has <molecule>, or \
      comes first.
      """, valueName: "smiles"))
  var molecule: [String] = []

  @Option(
    help: .init(
      """
      A time series: CSV, a column for each, with or without a line of names, or .npy. Repeatable; it stands where the prompt has \
      <series>, or comes first.
      """, valueName: "file"), completion: .file(extensions: ["csv", "tsv", "npy"]))
  var series: [String] = []

  @Option(
    help: .init(
      """
      Look at this many frames of a second of a video. Default: as the model was trained. Of a folder, whose frames are all looked \
      at: how many a second has. Default: 2.
      """, valueName: "n"))
  var fps: Double?

  @Option(
    help: .init("Look at this many frames of a video at most. Default: as the model was trained.", valueName: "n"))
  var maxFrames: Int?

  @Flag(help: "Do not hear the sound of a video, where the model was trained to.")
  var noVideoSound = false

  @Option(
    help: .init(
      """
      The points that a second of each time series has, for models that look at series at their own rate. Default: a quarter of its \
      points.
      """, valueName: "hz"))
  var seriesRate: Double?

  func validate() throws {
    if let fps, !(fps > 0 && fps <= 1000) { throw ValidationError("--fps \(fps): choose more than 0, at most 1000") }
    if let maxFrames, maxFrames < 1 { throw ValidationError("--max-frames \(maxFrames): choose 1 or more") }
    if let seriesRate, !(seriesRate > 0 && seriesRate <= 1e9) {
      throw ValidationError("--series-rate \(seriesRate): choose more than 0, at most 1000000000")
    }
  }

  /// Refuses what is said about media of a kind of which there are none.
  ///
  /// - Throws: `SquintError.usage` that names the option. (In a conversation such media may come later.)
  func checkUse() throws(SquintError) {
    guard files.count(where: { $0.path == "-" }) <= 1 else {
      throw SquintError(.usage, "stdin, -, can be one medium; give the others as files")
    }
    let options: [(option: String, isGiven: Bool, kind: MediaKind)] = [
      ("--fps", fps != nil, .video), ("--max-frames", maxFrames != nil, .video),
      ("--no-video-sound", noVideoSound, .video), ("--series-rate", seriesRate != nil, .series),
    ]
    for (option, isGiven, kind) in options where isGiven && MediaSyntax.of(kind).files(self).isEmpty {
      throw SquintError(
        .usage,
        "\(option) is about \(kind.plural), and there is none; give --\(MediaSyntax.of(kind).option), or leave it out")
    }
  }

  /// `limits`, and what is asked of each video.
  func limited(_ limits: MediaLimits) -> MediaLimits {
    var limits = limits
    (limits.framesPerSecond, limits.frames) = (fps, maxFrames)
    limits.hearsVideos = !noVideoSound
    limits.pointsPerSecond = seriesRate
    return limits
  }

  /// All of them, in the order in which they were given.
  var files: [(kind: MediaKind, path: String)] {
    var rest = Dictionary(uniqueKeysWithValues: MediaSyntax.all.map { ($0.kind, $0.files(self)[...]) })
    var files: [(kind: MediaKind, path: String)] = []
    func take(_ kind: MediaKind) {
      if let path = rest[kind]?.popFirst() { files.append((kind, path)) }
    }
    // Each option's files are known, in order; between options the words of the command line say it.
    for word in CommandLine.arguments.dropFirst() {
      if let syntax = MediaSyntax.all.first(where: { word == "--\($0.option)" || word.hasPrefix("--\($0.option)=") }) {
        take(syntax.kind)
      }
    }
    for syntax in MediaSyntax.all { while rest[syntax.kind]?.isEmpty == false { take(syntax.kind) } }
    return files
  }

  /// What is on stdin; nil where that is no medium.
  var onStandardInput: MediaKind? { files.first { MediaFile.isStandardInput($0.path) }?.kind }
}

extension [Medium] {
  /// Says what of them the model does not get.
  func report() {
    for note in flatMap(\.notes) { Terminal.report(note) }
  }
}

extension SessionOptions.MediaUse {
  /// For one answer about `media`.
  init(_ media: [Medium]) { self = media.isEmpty ? .none : .once(media.map(\.size)) }
}
