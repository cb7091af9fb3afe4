/// An error written for the person who meets it: one line that says what, where and what to do.
///
/// Every failure that Squint reports is one of these. `kind` decides the exit code of the command line
/// (sysexits.h), `message` is printed as it stands.
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

  public let kind: Kind
  public let message: String

  public init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }

  public var description: String { message }

  /// The exit code that sysexits.h gives this kind of error.
  public var exitCode: Int32 { kind.rawValue }
}

extension SquintError {
  /// An error in a file's bytes, which names the file and the place.
  public static func badData(_ path: String, _ message: String) -> SquintError {
    SquintError(.badData, "\(path): \(message)")
  }

  /// The same error, which names `path` where it did not: errors about metadata, or an image's size, know no file.
  package func naming(_ path: String) -> SquintError {
    // With the colon: a file may be called as a message begins.
    message.hasPrefix("\(path): ") ? self : SquintError(kind, "\(path): \(message)")
  }
}

/// `value` with its thousands separated by commas, as sizes and offsets are printed in messages.
public func grouped(_ value: some BinaryInteger) -> String {
  let digits = String(value.magnitude)
  var text = ""
  for (index, digit) in digits.enumerated() {
    if index > 0 && (digits.count - index) % 3 == 0 { text.append(",") }
    text.append(digit)
  }
  return value < 0 ? "-" + text : text
}
