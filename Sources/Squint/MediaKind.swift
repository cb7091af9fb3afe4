import SquintFile
import SquintTemplates
import SquintMedia
import SquintText

/// The kinds of media that there are processors for.
///
/// The raw value is the word of the field: in the names of modules (`encoder.image`), of keys (`image.layout`), in chat templates.
public enum MediaKind: String, CaseIterable, Sendable {
  case image

  /// What stands for one in what people write.
  package var marker: String { "<\(rawValue)>" }

  /// The modules of the file.
  package var encoderModule: String { "encoder.\(rawValue)" }
  package var projectorModule: String { "projector.\(rawValue)" }

  /// What a checkpoint does with the file of one before its encoder.
  ///
  /// - Throws: `badData` where the metadata does not say so, or makes no sense.
  func processor(_ metadata: Metadata) throws(SquintError) -> any MediaProcessor {
    switch self {
    case .image: try ImageProcessor(metadata)
    }
  }

  /// What chat templates are given for one.
  package var part: ChatMessage.Part {
    switch self {
    case .image: .image
    }
  }
}

extension ChatMessage.Part {
  /// What it is a place for; nil for text, and for media that nothing here understands.
  package var kind: MediaKind? { MediaKind.allCases.first { $0.part == self } }
}
