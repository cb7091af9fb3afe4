import Foundation
import SquintTerminal
import Testing

/// What characters are on a terminal.
@Suite struct VisibleTextTests {
  /// No character that PyPI's wcwidth gives columns takes more of them than we think, so that a line never wraps; and we
  /// think that few take more than they do.
  @Test func columnsOfAllCharacters() throws {
    let python = try #require(Screen.python)
    let code = """
      import unicodedata, wcwidth
      print(*(0 if unicodedata.category(chr(c)) in ("Cc", "Cs") else wcwidth.wcwidth(chr(c)) for c in range(0x110000)))
      """
    let outcome = try RunningProgram(program: URL(fileURLWithPath: "/usr/bin/env"), [python, "-c", code]).finish()
    let theirs = outcome.text.split { $0.isWhitespace }.compactMap { Int($0) }
    try #require(theirs.count == 0x110000, "\(outcome.error)")
    var (less, more) = ([Int](), 0)
    for (value, their) in theirs.enumerated() {
      guard let scalar = Unicode.Scalar(UInt32(value)), !scalar.isControl, value != 0xAD else { continue }
      let ours = columns(of: String(scalar))
      if ours < their { less.append(value) }
      // Unassigned ones may be wide one day.
      if ours > their, scalar.properties.generalCategory != .unassigned { more += 1 }
    }
    #expect(less.isEmpty && more < 600, "\(less) \(more)")
  }

  @Test func visibleText() {
    #expect(
      visible("a\u{0}\u{1B}[1m\u{7F}\u{85}\u{9B}\u{2028}\u{202E}\u{2066}b")
        == "a^@^[[1m^?<U+0085><U+009B><U+2028><U+202E><U+2066>b")
    #expect(visible("\tgrüße\r\n👩‍👩‍👧 漢\r.\n") == "\tgrüße\n👩‍👩‍👧 漢^M.\n")
    #expect(printable("two\nlines\t\u{1B}", limit: 20) == "two lines ^[")
    #expect(printable("abcdef", limit: 3) == "abc…")
  }
}
