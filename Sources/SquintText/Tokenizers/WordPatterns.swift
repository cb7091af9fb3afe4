// The regular expressions that cut a text into words, as matchers written by hand: one pass, no backtracking.
// Each follows the alternatives of its expression in their order.

/// Finds where the word that starts at `start` ends; `start` is less than `text.end`, the result is more than `start`.
protocol WordPattern {
  static func end(of start: Int, in text: TextView) -> Int
}

extension TextView {
  /// Where the run of scalars from `index` on whose category has one of `bits` ends.
  @inline(__always)
  fileprivate func run(of bits: UInt8, from index: Int) -> Int {
    var index = index
    while index < end {
      let (category, length) = category(at: index)
      if category & bits == 0 { break }
      index += length
    }
    return index
  }

  /// Where the run of scalars from `index` on that are neither letters nor numbers nor white space ends.
  @inline(__always)
  fileprivate func runOfOthers(from index: Int) -> Int {
    let named = UnicodeCategories.letter | UnicodeCategories.number | UnicodeCategories.space
    var index = index
    while index < end {
      let (category, length) = category(at: index)
      if category & named != 0 { break }
      index += length
    }
    return index
  }

  /// `\s+(?!\S)|\s+` at `start`, which is white space: the run up to the text's end, or less its last scalar, or its
  /// only scalar.
  @inline(__always)
  fileprivate func spaces(from start: Int) -> Int {
    let stop = run(of: UnicodeCategories.space, from: start)
    guard stop < end else { return stop }
    let last = previous(stop)
    return last > start ? last : stop
  }

  /// The length of `'s|'t|'re|'ve|'m|'ll|'d` at `start`, an apostrophe; 0 where it is none of them.
  @inline(__always)
  fileprivate func contraction(at start: Int, ignoresCase: Bool) -> Int {
    guard start + 1 < end else { return 0 }
    let fold: UInt8 = ignoresCase ? 0x20 : 0
    let next = base[start + 1]
    switch next | fold {
    case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return 2
    case UInt8(ascii: "r"), UInt8(ascii: "v"):
      return start + 2 < end && base[start + 2] | fold == UInt8(ascii: "e") ? 3 : 0
    case UInt8(ascii: "l"):
      return start + 2 < end && base[start + 2] | fold == UInt8(ascii: "l") ? 3 : 0
    case 0xC5 | fold:
      // ſ (U+017F) is an s where case does not matter.
      return ignoresCase && next == 0xC5 && base[start + 2] == 0xBF ? 3 : 0
    default: return 0
    }
  }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
enum GPT2Pattern: WordPattern {
  @inline(__always)
  static func end(of start: Int, in text: TextView) -> Int {
    let first = text.base[start]
    if first == UInt8(ascii: "'") {
      let length = text.contraction(at: start, ignoresCase: false)
      if length > 0 { return start + length }
    }
    var body = start
    if first == UInt8(ascii: " ") && start + 1 < text.end { body = start + 1 }
    let (category, length) = text.category(at: body)
    if category & UnicodeCategories.letter != 0 {
      return text.run(of: UnicodeCategories.letter, from: body + length)
    }
    if category & UnicodeCategories.number != 0 {
      return text.run(of: UnicodeCategories.number, from: body + length)
    }
    if category & UnicodeCategories.space == 0 { return text.runOfOthers(from: body + length) }
    return text.spaces(from: start)
  }
}

/// How many numbers Llama 3's expression takes into one word.
protocol NumberLimit { static var numbers: Int { get } }
enum ThreeNumbers: NumberLimit { static var numbers: Int { 3 } }
enum OneNumber: NumberLimit { static var numbers: Int { 1 } }

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|`
/// `\s+(?!\S)|\s+`, with 1 to `Limit.numbers` numbers.
enum Llama3Pattern<Limit: NumberLimit>: WordPattern {
  @inline(__always)
  static func end(of start: Int, in text: TextView) -> Int {
    let first = text.base[start]
    if first == UInt8(ascii: "'") {
      let length = text.contraction(at: start, ignoresCase: true)
      if length > 0 { return start + length }
    }
    let (category, length) = text.category(at: start)
    let next = start + length
    if category & UnicodeCategories.letter != 0 { return text.run(of: UnicodeCategories.letter, from: next) }
    if category & UnicodeCategories.number != 0 {
      var stop = next
      var count = 1
      while count < Limit.numbers && stop < text.end {
        let (category, length) = text.category(at: stop)
        if category & UnicodeCategories.number == 0 { break }
        stop += length
        count += 1
      }
      return stop
    }
    let isNewline = first == 0x0A || first == 0x0D
    if !isNewline && next < text.end {
      let (category, length) = text.category(at: next)
      if category & UnicodeCategories.letter != 0 {
        return text.run(of: UnicodeCategories.letter, from: next + length)
      }
      let named = UnicodeCategories.number | UnicodeCategories.space
      if first == UInt8(ascii: " ") && category & named == 0 {
        return newlines(from: text.runOfOthers(from: next + length), in: text)
      }
    }
    if category & UnicodeCategories.space == 0 {
      return newlines(from: text.runOfOthers(from: next), in: text)
    }
    // White space up to its last newline, or without one as in GPT-2's expression.
    var stop = start
    var afterNewline = 0
    while stop < text.end {
      let (category, length) = text.category(at: stop)
      if category & UnicodeCategories.space == 0 { break }
      if text.base[stop] == 0x0A || text.base[stop] == 0x0D { afterNewline = stop + 1 }
      stop += length
    }
    if afterNewline > 0 { return afterNewline }
    guard stop < text.end else { return stop }
    let last = text.previous(stop)
    return last > start ? last : stop
  }

  @inline(__always)
  private static func newlines(from index: Int, in text: TextView) -> Int {
    var index = index
    while index < text.end && (text.base[index] == 0x0A || text.base[index] == 0x0D) { index += 1 }
    return index
  }
}
