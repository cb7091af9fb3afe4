import SquintFile
import SquintTemplates
import SquintMedia
import SquintText

/// The kinds of media that there are processors for.
///
/// The raw value is the word of the field: in the names of modules (`encoder.image`), of keys (`image.layout`), in chat templates.
public enum MediaKind: String, CaseIterable, Sendable {
  case image, video, audio, molecule, series

  /// What messages call one, and several.
  package var noun: String { self == .audio ? "sound" : rawValue }
  package var plural: String { self == .series ? noun : noun + "s" }
  package var withArticle: String { self == .image ? "an image" : "a \(noun)" }

  /// What stands for one in what people write.
  package var marker: String { "<\(rawValue)>" }

  /// The modules of the file. The frames of a video go through those of images.
  package var encoderModule: String { "encoder.\(moduleName)" }
  package var projectorModule: String { "projector.\(moduleName)" }
  private var moduleName: String { self == .video ? Self.image.rawValue : rawValue }

  /// Whether a file that has the modules says that it takes media of this kind.
  func isTaken(by metadata: Metadata) -> Bool { self != .video || metadata["video.sampling"] != nil }

  /// What a checkpoint does with the file of one before its encoder.
  ///
  /// - Throws: `badData` where the metadata does not say so, or makes no sense.
  func processor(_ metadata: Metadata) throws(SquintError) -> any MediaProcessor {
    switch self {
    case .image: try ImageProcessor(metadata)
    case .video: try VideoProcessor(metadata)
    case .audio: try SoundProcessor(metadata)
    case .molecule: try MoleculeProcessor(metadata)
    case .series: try SeriesProcessor(metadata)
    }
  }

  /// The file of one that a user names by `path`.
  ///
  /// - Throws: as `MediaFile`.
  func file(_ path: String) throws(SquintError) -> MediaFile {
    if self == .molecule, !MoleculeProcessor.isFileName(path) { return try MediaFile(text: path) }
    return try MediaFile(path: path, noun: noun, takesFolders: self == .video)
  }

  /// What chat templates are given for one.
  package var part: ChatMessage.Part {
    switch self {
    case .image: .image
    case .video: .video
    case .audio: .audio
    case .molecule: .molecule
    case .series: .series
    }
  }
}

extension ChatMessage.Part {
  /// What it is a place for; nil for text, and for media that nothing here understands.
  package var kind: MediaKind? { MediaKind.allCases.first { $0.part == self } }
}
