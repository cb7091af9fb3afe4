/// A set of Unicode scalars: ascending ranges that neither touch nor overlap.
struct ScalarSet: Equatable {
  private(set) var ranges: [ClosedRange<UInt32>]

  static let limit: UInt32 = 0x10FFFF
  static let all = ScalarSet(0...limit)
  static let none = ScalarSet([])

  init(_ range: ClosedRange<UInt32>) { ranges = [range] }

  /// - Parameter unordered: ranges in any order, which may overlap.
  init(_ unordered: [ClosedRange<UInt32>]) {
    ranges = []
    for range in unordered.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = ranges.last, range.lowerBound <= last.upperBound &+ 1 {
        ranges[ranges.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        ranges.append(range)
      }
    }
  }

  init(scalar: UInt32) { ranges = [scalar...scalar] }

  /// The scalars of the runs, `first scalar << 8 | value`, whose value is wanted.
  init(runs: [UInt32], where isWanted: (UInt8) -> Bool) {
    ranges = []
    for index in runs.indices where isWanted(UInt8(truncatingIfNeeded: runs[index])) {
      let first = runs[index] >> 8
      let end = index + 1 < runs.count ? runs[index + 1] >> 8 : Self.limit + 1
      if let last = ranges.last, last.upperBound + 1 == first {
        ranges[ranges.count - 1] = last.lowerBound...end - 1
      } else {
        ranges.append(first...end - 1)
      }
    }
  }

  var complement: ScalarSet {
    var out: [ClosedRange<UInt32>] = []
    var next: UInt32 = 0
    for range in ranges {
      if range.lowerBound > next { out.append(next...range.lowerBound - 1) }
      next = range.upperBound + 1
    }
    if next <= Self.limit { out.append(next...Self.limit) }
    return ScalarSet(out)
  }

  func union(_ other: ScalarSet) -> ScalarSet { ScalarSet(ranges + other.ranges) }

  func intersection(_ other: ScalarSet) -> ScalarSet { complement.union(other.complement).complement }

  func contains(_ scalar: UInt32) -> Bool {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound < scalar { low = middle + 1 } else { high = middle }
    }
    return low < ranges.count && ranges[low].lowerBound <= scalar
  }

  // MARK: Case

  /// The set with every scalar that equals one of it where case does not matter.
  var folded: ScalarSet {
    let rows = UnicodeProperties.foldings
    var isWanted = Set<UInt32>()
    if ranges.count == 1, ranges[0].count == 1 {
      isWanted = [Self.leastFolding(of: ranges[0].lowerBound)]
    } else {
      for row in rows where contains(UInt32(row >> 32)) { isWanted.insert(UInt32(truncatingIfNeeded: row)) }
    }
    let only = isWanted.count == 1 ? isWanted.first : nil
    var out = ranges
    for row in rows {
      let least = UInt32(truncatingIfNeeded: row)
      if only.map({ $0 == least }) ?? isWanted.contains(least) { out.append(UInt32(row >> 32)...UInt32(row >> 32)) }
    }
    return ScalarSet(out)
  }

  /// The least scalar that equals `scalar` where case does not matter.
  static func leastFolding(of scalar: UInt32) -> UInt32 {
    let rows = UnicodeProperties.foldings
    var low = 0
    var high = rows.count
    while low < high {
      let middle = (low + high) / 2
      if rows[middle] >> 32 < scalar { low = middle + 1 } else { high = middle }
    }
    return low < rows.count && rows[low] >> 32 == scalar ? UInt32(truncatingIfNeeded: rows[low]) : scalar
  }

  // MARK: Named sets

  static let digit = category("Nd")
  /// `[\w]`, which `\w` without brackets has a few more of.
  static let wordInBrackets = extra(4).union(category("M")).union(digit).union(category("Pc"))
  static let word = wordInBrackets.union(ScalarSet("²³¹¼½¾".unicodeScalars.map { $0.value...$0.value }))
  static let space = category("Z").union(ScalarSet([0x09...0x0D, 0x85...0x85]))
  static let newline = ScalarSet(scalar: 0x0A)
  static let hexadecimalDigit = ScalarSet([0x30...0x39, 0x41...0x46, 0x61...0x66])

  private static func category(_ prefix: String) -> ScalarSet {
    let isWanted = UnicodeProperties.categories.map { $0.hasPrefix(prefix) }
    return ScalarSet(runs: UnicodeProperties.categoryRuns) { isWanted[Int($0)] }
  }

  private static func extra(_ bit: UInt8) -> ScalarSet {
    ScalarSet(runs: UnicodeProperties.extraRuns) { $0 & bit != 0 }
  }

  /// The names of what is neither a general category nor a script; categories by their long names.
  private static let aliases: [String: String] = [
    "letter": "L", "casedletter": "LC", "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt",
    "modifierletter": "Lm", "otherletter": "Lo", "mark": "M", "combiningmark": "M", "nonspacingmark": "Mn",
    "spacingmark": "Mc", "enclosingmark": "Me", "number": "N", "decimalnumber": "Nd", "letternumber": "Nl",
    "othernumber": "No", "punctuation": "P", "connectorpunctuation": "Pc", "dashpunctuation": "Pd",
    "openpunctuation": "Ps", "closepunctuation": "Pe", "initialpunctuation": "Pi", "finalpunctuation": "Pf",
    "otherpunctuation": "Po", "symbol": "S", "mathsymbol": "Sm", "currencysymbol": "Sc", "modifiersymbol": "Sk",
    "othersymbol": "So", "separator": "Z", "spaceseparator": "Zs", "lineseparator": "Zl", "paragraphseparator": "Zp",
    "other": "C", "control": "Cc", "format": "Cf", "privateuse": "Co", "unassigned": "Cn", "surrogate": "Cs",
    "arab": "arabic", "armn": "armenian", "beng": "bengali", "cyrl": "cyrillic", "deva": "devanagari",
    "ethi": "ethiopic", "geor": "georgian", "grek": "greek", "gujr": "gujarati", "guru": "gurmukhi", "hang": "hangul",
    "hani": "han", "hebr": "hebrew", "hira": "hiragana", "kana": "katakana", "khmr": "khmer", "knda": "kannada",
    "laoo": "lao", "latn": "latin", "mlym": "malayalam", "mong": "mongolian", "mymr": "myanmar", "sinh": "sinhala",
    "taml": "tamil", "telu": "telugu", "tibt": "tibetan", "zinh": "inherited", "zyyy": "common", "bopo": "bopomofo",
  ]

  /// The set that `[\p{name}]` stands for; nil where the name is not known. Case, spaces, - and _ do not matter.
  static func named(_ name: String) -> ScalarSet? {
    var key = simplified(name)
    if let alias = aliases[key] { key = simplified(alias) }
    switch key {
    case "any": return .all
    case "assigned": return category("Cn").complement
    case "ascii": return ScalarSet(0...0x7F)
    case "lc": return category("Lu").union(category("Ll")).union(category("Lt"))
    case "word": return wordInBrackets
    case "digit": return digit
    case "space": return space
    case "cntrl": return category("Cc")
    case "blank": return category("Zs").union(ScalarSet(scalar: 0x09))
    case "xdigit": return hexadecimalDigit
    case "punct": return category("P")
    case "xnumeric": return extra(1)
    case "xpunctuation": return extra(2)
    case "alpha", "alphabetic": return extra(4)
    case "alnum": return extra(4).union(digit)
    case "upper", "uppercase": return extra(8)
    case "lower", "lowercase": return extra(16)
    case "graph": return extra(32)
    case "print": return extra(32).union(category("Zs"))
    default: break
    }
    if UnicodeProperties.categories.contains(where: { simplified($0).hasPrefix(key) }) {
      let isWanted = UnicodeProperties.categories.map { simplified($0).hasPrefix(key) }
      return ScalarSet(runs: UnicodeProperties.categoryRuns) { isWanted[Int($0)] }
    }
    guard let script = UnicodeProperties.scripts.firstIndex(where: { simplified($0) == key }) else { return nil }
    return ScalarSet(runs: UnicodeProperties.scriptRuns) { Int($0) == script + 1 }
  }

  private static func simplified(_ name: String) -> String {
    String(decoding: name.utf8.filter { ![0x20, 0x2D, 0x5F].contains($0) }.map(lowercased), as: UTF8.self)
  }

  private static func lowercased(_ byte: UInt8) -> UInt8 { (0x41...0x5A).contains(byte) ? byte | 0x20 : byte }
}
