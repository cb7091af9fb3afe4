import Squint

/// A conversation as `/save` writes it and `/load` reads it: each message begins a line with its role, `user: …`, and where it
/// has more lines, they are indented by two spaces. A medium is `[picture PATH]`, by the word of its kind, where it stands in the text.
struct SavedConversation {
  private(set) var messages: [ChatMessage] = []
  /// The files of the media of all messages, in order.
  private(set) var media: [(kind: MediaKind, path: String)] = []

  private static let indent = "  "

  /// What begins the place of a medium.
  private static func mark(_ kind: MediaKind) -> String { "[\(MediaSyntax.of(kind).savedName) " }
  private static let marks = MediaSyntax.all.map { (kind: $0.kind, text: mark($0.kind)) }

  init(_ messages: [ChatMessage], media: [(kind: MediaKind, path: String)]) {
    self.messages = messages
    self.media = media
  }

  // MARK: Writing

  var text: String {
    // A place takes the next medium of its kind, in whatever order those of several kinds were given.
    var files = Dictionary(grouping: media, by: \.kind).mapValues { $0[...] }
    return messages.map { message in
      var text = ""
      switch message.content {
      case .parts(let parts):
        var isLeading = true
        for part in parts {
          if let kind = part.kind {
            text +=
              "\(Self.mark(kind))\(Self.escaped(files[kind]?.popFirst()?.path ?? "", ["]"]))]\(isLeading ? " " : "")"
          }
          if case .text(let words) = part {
            text += Self.escaped(words, Self.marks.map(\.text))
            isLeading = false
          }
        }
      default: text = Self.escaped(message.text, Self.marks.map(\.text))
      }
      return "\(message.role): \(text.lines.joined(separator: "\n" + Self.indent))\n"
    }.joined()
  }

  /// `text` with a backslash before each of `parts`, and as many more as were there.
  private static func escaped(_ text: String, _ parts: [String]) -> String {
    var result = ""
    var rest = text[...]
    while !rest.isEmpty {
      let slashes = rest.prefix { $0 == "\\" }
      rest = rest.dropFirst(slashes.count)
      result += slashes
      if parts.contains(where: { rest.hasPrefix($0) }) { result += slashes + "\\" }
      if let next = rest.popFirst() { result.append(next) }
    }
    return result
  }

  // MARK: Reading

  /// - Throws: `badData` where `text`, which was read from the file `path`, does not begin with a message.
  init(_ text: String, path: String) throws(SquintError) {
    var current: (role: String, text: String)?
    var lines = text.lines
    if lines.last == "" { lines.removeLast() }
    for (index, line) in lines.enumerated() {
      if line.hasPrefix(Self.indent), let before = current {
        current = (before.role, before.text + "\n" + line.dropFirst(Self.indent.count))
        continue
      }
      guard let role = ["user", "assistant", "system"].first(where: { line.hasPrefix($0 + ": ") }) else {
        throw .badData(
          path,
          "line \(index + 1) begins neither with user:, assistant: or system: nor with two spaces; /save writes such a file"
        )
      }
      if let current { add(current.role, current.text) }
      current = (role, String(line.dropFirst(role.count + 2)))
    }
    guard let current else { throw .badData(path, "there is no conversation in it; /save writes one") }
    add(current.role, current.text)
  }

  private mutating func add(_ role: String, _ text: String) {
    var parts: [ChatMessage.Part] = []
    var words = ""
    var rest = text[...]
    while !rest.isEmpty {
      let before = rest.prefix { $0 == "\\" }
      rest = rest.dropFirst(before.count)
      guard let mark = Self.marks.first(where: { rest.hasPrefix($0.text) }) else {
        words += before
        if let next = rest.popFirst() { words.append(next) }
        continue
      }
      rest = rest.dropFirst(mark.text.count)
      words += before.prefix(before.count / 2)
      if before.count % 2 == 1 {
        words += mark.text
        continue
      }
      let isLeading = parts.allSatisfy { $0.kind != nil } && words.isEmpty
      if !words.isEmpty { parts.append(.text(words)) }
      words = ""
      media.append((mark.kind, Self.name(&rest)))
      parts.append(mark.kind.part)
      if isLeading, rest.first == " " { rest = rest.dropFirst() }
    }
    if parts.isEmpty {
      messages.append(ChatMessage(role: role, words))
    } else {
      messages.append(ChatMessage(role: role, content: .parts(parts + (words.isEmpty ? [] : [.text(words)]))))
    }
  }

  /// What is before the first `]` that has no backslash; without it, and without the backslashes.
  private static func name(_ rest: inout Substring) -> String {
    var name = ""
    while !rest.isEmpty {
      let before = rest.prefix { $0 == "\\" }
      rest = rest.dropFirst(before.count)
      guard let next = rest.popFirst() else { return name + before }
      guard next == "]" else {
        name += before + String(next)
        continue
      }
      name += before.prefix(before.count / 2)
      if before.count % 2 == 0 { return name }
      name += "]"
    }
    return name
  }
}

extension String {
  /// Its lines; the last is empty where it ends with a line end. Split by scalars: "\r\n" is one character.
  fileprivate var lines: [String] {
    unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { String($0) }
  }
}
