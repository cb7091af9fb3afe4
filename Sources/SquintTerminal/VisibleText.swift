import SquintFile

// Text for a terminal: what would make it do things is made visible, and lines are as long as the window takes.

/// `text` with its control characters made visible, but for line ends and tabs: `^[` as terminals echo them, `<U+202E>` for
/// those that have no such form. A model's answer, or a name in a file, cannot write elsewhere on the screen.
package func visible(_ text: String) -> String {
  guard text.unicodeScalars.contains(where: { $0.isControl && $0 != "\n" && $0 != "\t" }) else { return text }
  var shown = String.UnicodeScalarView()
  var scalars = text.unicodeScalars[...]
  while let scalar = scalars.popFirst() {
    switch scalar {
    case "\n", "\t": shown.append(scalar)
    case "\r" where scalars.first == "\n": break
    default: shown.append(contentsOf: scalar.visible.unicodeScalars)
    }
  }
  return String(shown)
}

/// `text` on one line, at most `limit` characters of it, with its control characters made visible.
package func printable(_ text: String, limit: Int = 1000) -> String {
  var line = String.UnicodeScalarView()
  var count = 0
  for scalar in text.withVisibleBytes.unicodeScalars {
    guard count < limit else { return String(line) + "…" }
    count += 1
    switch scalar {
    case "\n", "\r", "\t", "\u{2028}", "\u{2029}": line.append(" ")
    default: line.append(contentsOf: scalar.visible.unicodeScalars)
    }
  }
  return String(line)
}

extension Unicode.Scalar {
  /// Whether it would make a terminal do things: the controls (C0, DEL, C1), and what changes the direction or the line of the
  /// text behind it.
  package var isControl: Bool {
    switch value {
    case 0..<0x20, 0x7F..<0xA0, 0x2028...0x202E, 0x2066...0x2069: true
    default: false
    }
  }

  fileprivate var visible: String {
    guard isControl else { return String(self) }
    guard value >= 0x80 else { return "^\(Unicode.Scalar(UInt8(value) ^ 0x40))" }
    let digits = String(value, radix: 16, uppercase: true)
    return "<U+\(String(repeating: "0", count: 4 - digits.count))\(digits)>"
  }
}

// MARK: Columns

/// The columns that `text`, which has no control characters, takes on a terminal: two for a wide character, none for one
/// that joins another.
package func columns(of text: String) -> Int { text.unicodeScalars.reduce(0) { $0 + $1.columns } }

/// The beginning of `text` that takes at most `columns`, with an ellipsis where something is left out.
func cut(_ text: String, columns most: Int) -> String {
  guard columns(of: text) > most else { return text }
  var shown = ""
  var taken = 0
  // By whole characters: half of one may look like another.
  for character in text {
    let more = columns(of: String(character))
    guard taken + more < most else { break }
    shown.append(character)
    taken += more
  }
  return most > 0 ? shown + "…" : ""
}

extension Unicode.Scalar {
  /// At most what it takes: terminals disagree about some.
  fileprivate var columns: Int {
    switch value {
    case 0x20..<0x7F: return 1
    case 0xFE0F: return 1  // makes the symbol before it an emoji, which is wide
    case 0x1160...0x11FF, 0xD7B0...0xD7FF: return 0  // Hangul vowels and finals join the consonant before them
    case 0x1100...0x115F, 0x2329...0x232A, 0x2630...0x2637, 0x268A...0x268F, 0x2E80...0x303E, 0x3041...0xA4CF,
      0xA960...0xA97F, 0xAC00...0xD7A3,
      0xF900...0xFAFF, 0xFE10...0xFE19, 0xFE30...0xFE6F, 0xFF01...0xFF60, 0xFFE0...0xFFE6, 0x16FE0...0x18DFF,
      0x1AFF0...0x1B2FF, 0x1D300...0x1D37F, 0x1F1E6...0x1F2FF, 0x20000...0x3FFFD:
      return properties.generalCategory == .nonspacingMark ? 0 : 2
    default: break
    }
    switch properties.generalCategory {
    case .nonspacingMark, .enclosingMark: return 0
    // Those of a script, such as Arabic's number sign, are seen.
    case .format: return value < 0x2000 || 0x11000..<0x20000 ~= value ? 1 : 0
    case .unassigned: return 2  // newer than the tables
    default: return properties.isEmojiPresentation ? 2 : 1
    }
  }
}
