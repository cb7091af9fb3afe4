/// An error written for the person who meets it: one line that says what, where and what to do.
///
/// Every failure that Squint reports is one of these. `kind` decides the exit code of the command line (sysexits.h). `message` is
/// for people; a program that can do something about it looks at `remedies`, and at the bytes.
public struct SquintError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Kind: Int32, Sendable {
    /// The command or the call was wrong: an unknown option, a prompt that is too long.
    case usage = 64
    /// The data is bad: a corrupt, truncated or unsupported file.
    case badData = 65
    /// An input does not exist or cannot be read.
    case noInput = 66
    /// It does not fit the memory budget.
    case doesNotFit = 69
    /// A bug of ours.
    case internalError = 70
    /// The output cannot be created.
    case cannotCreate = 73
    /// Reading or writing failed part-way: a full disk, a bad card.
    case inputOutput = 74
  }

  /// Something that would help.
  public enum Remedy: Equatable, Sendable {
    /// A context of so many positions would fit.
    case context(Int)
    /// The prompt is too long for the context.
    case longerContext
    /// The media in the prompt are too much for the context.
    case smallerMedia
    /// Keys and values kept in this type, the raw value of a `KVType`, would fit.
    case kvType(String)
    /// Images of at most so many tiles would fit.
    case tiles(Int)
    /// A budget of so many bytes would do.
    case memory(Int)
    /// A budget of so many bytes would do for this step; a later one may take more.
    case memoryForStep(Int)
    /// Other programs hold the memory.
    case closePrograms
    case smallerModel
    /// The system allows too few processes, or too little memory.
    case raiseLimits
    case oneThread
    /// The chat template is not usable; a prompt of text does without it.
    case noTemplate
    /// Media of a kind and their markers must be as many.
    case asManyAsMarkers(kind: String, marker: String)
    /// A session has room for a medium of this kind, however large, where it begins with one as large.
    case beginWith(kind: String)
    /// There is no projector; the encoder's features can be had.
    case encoderStage
    /// An image was given as a model.
    case imageBesideModel

    /// In the words of a program that calls this library.
    public var message: String {
      switch self {
      case .context(let positions): "a context of \(grouped(positions)) would fit"
      case .longerContext: "shorten it or plan a longer context"
      case .smallerMedia: "limit the rows of images or the frames of videos, or plan a longer context"
      case .kvType(let type): "a KV cache of \(type) would fit"
      case .tiles(let tiles): "images of at most \(tiles) tile\(tiles == 1 ? "" : "s") would fit"
      case .memory(let bytes): "a budget of \(grouped(bytes)) bytes would do"
      case .memoryForStep(let bytes): "a budget of \(grouped(bytes)) bytes would do for that"
      case .closePrograms: "end other programs"
      case .smallerModel: "or take a smaller model"
      case .raiseLimits: "allow more processes or memory (ulimit -u, -v)"
      case .oneThread: "or try one thread"
      case .noTemplate: "a prompt of text does without the template"
      case .asManyAsMarkers(let kind, let marker):
        "give as many \(kind)s as the prompt has \(marker), or write \\\(marker) for the word"
      case .beginWith(let kind): "plan another session for \(kind == "audio" ? "a sound" : "a \(kind)") as large"
      case .encoderStage: "ask for the encoder's features"
      case .imageBesideModel: "give images beside a model"
      }
    }
  }

  public let kind: Kind
  /// What is wrong, and where.
  public let problem: String
  /// What would help, the best first; where there are several, some may help together only.
  public let remedies: [Remedy]
  /// What would be taken, and what there is, in bytes: of some errors that something does not fit.
  public let neededBytes: Int?
  public let availableBytes: Int?

  /// - Parameter problem: what is wrong and where, and what to do about it where that is none of `remedies`.
  public init(
    _ kind: Kind, _ problem: String, needed: Int? = nil, available: Int? = nil, remedies: [Remedy] = []
  ) {
    self.kind = kind
    self.problem = problem
    self.remedies = remedies
    neededBytes = needed
    availableBytes = available
  }

  /// One line that says what is wrong, where, and what to do.
  public var message: String { message(\.message) }

  /// The same, with the remedies in other words: those of a command line, say.
  public func message(_ words: (Remedy) -> String) -> String {
    remedies.isEmpty ? problem : problem + "; " + remedies.map(words).joined(separator: ", ")
  }

  public var description: String { message }

  /// The exit code that sysexits.h gives this kind of error.
  public var exitCode: Int32 { kind.rawValue }
}

extension SquintError {
  /// An error in a file's bytes, which names the file and the place.
  package static func badData(_ path: String, _ message: String) -> SquintError {
    SquintError(.badData, "\(path): \(message)")
  }

  /// The same error, which names `path` where it did not: errors about metadata, or an image's size, know no file.
  package func naming(_ path: String) -> SquintError {
    // With the colon: a file may be called as a message begins.
    problem.hasPrefix("\(path): ") ? self : adding(before: "\(path): ")
  }

  /// The same error with `text` before what is wrong, and more that would help.
  package func adding(before text: String, remedies more: [Remedy] = []) -> SquintError {
    SquintError(kind, text + problem, needed: neededBytes, available: availableBytes, remedies: remedies + more)
  }
}

/// `value` with its thousands separated by commas, as sizes and offsets are printed in messages.
package func grouped(_ value: some BinaryInteger) -> String {
  let digits = String(value.magnitude)
  var text = ""
  for (index, digit) in digits.enumerated() {
    if index > 0 && (digits.count - index) % 3 == 0 { text.append(",") }
    text.append(digit)
  }
  return value < 0 ? "-" + text : text
}
