/// Unicode's normalization forms C and D (Unicode Standard Annex 15), with the tables of the reference tokenizer.
struct NormalizationForms: Sendable {
  static let shared = NormalizationForms()

  /// `first << 42 | second << 21 | composed`, ascending.
  private let compositions: [UInt64]

  private init() {
    var pairs: [UInt64] = []
    for row in UnicodeTables.decompositions where row >> 63 == 1 {
      pairs.append((row & (1 << 42 - 1)) << 21 | row >> 42 & 0x1F_FFFF)
    }
    compositions = pairs.sorted()
  }

  /// Appends form D of `text` to `out`: each stretch without ASCII taken apart and put in order.
  func appendDecomposed(_ text: TextView, to out: inout ByteBuffer) {
    var scalars: [UInt32] = []
    var index = 0
    while index < text.end {
      let start = index
      while index < text.end && text.base[index] < 0x80 { index += 1 }
      out.append(text.base + start, index - start)
      scalars.removeAll(keepingCapacity: true)
      while index < text.end && text.base[index] >= 0x80 {
        let (value, length) = text.scalar(at: index)
        decompose(value, into: &scalars)
        index += length
      }
      _ = order(&scalars)
      for scalar in scalars { out.append(scalar: scalar) }
    }
  }

  /// Appends form C of `text` to `out`.
  ///
  /// Text is copied as it stands but for stretches that start at the last scalar before one that may change and end
  /// before the next that surely starts anew.
  func appendComposed(_ text: TextView, to out: inout ByteBuffer) {
    let flagged = UnicodeCategories.composes | UnicodeCategories.mark
    var copied = 0
    var starter = 0
    var index = 0
    var scalars: [UInt32] = []
    while index < text.end {
      if text.base[index] < 0x80 {
        starter = index
        index += 1
        continue
      }
      let (bits, length) = text.category(at: index)
      if bits & flagged == 0 {
        starter = index
        index += length
        continue
      }
      out.append(text.base + copied, starter - copied)
      scalars.removeAll(keepingCapacity: true)
      // `starter` is the flagged scalar itself where the text begins with it.
      var end = starter
      repeat {
        let (value, length) = text.scalar(at: end)
        decompose(value, into: &scalars)
        end += length
      } while end < text.end && (end <= index || text.category(at: end).bits & flagged != 0)
      compose(&scalars)
      for scalar in scalars { out.append(scalar: scalar) }
      copied = end
      starter = end
      index = end
    }
    out.append(text.base + copied, text.end - copied)
  }

  private func decompose(_ scalar: UInt32, into out: inout [UInt32]) {
    if scalar >= 0xAC00 && scalar < 0xD7A4 {  // a Hangul syllable: leading consonant, vowel, trailing consonant
      let index = scalar - 0xAC00
      out.append(0x1100 + index / 588)
      out.append(0x1161 + index % 588 / 28)
      if index % 28 != 0 { out.append(0x11A7 + index % 28) }
      return
    }
    guard let row = Self.decomposition(of: scalar) else {
      out.append(scalar)
      return
    }
    // Depth: the tables nest at most four deep.
    decompose(UInt32(row >> 21 & 0x1F_FFFF), into: &out)
    if row & 0x1F_FFFF != 0 { decompose(UInt32(row & 0x1F_FFFF), into: &out) }
  }

  private static func decomposition(of scalar: UInt32) -> UInt64? {
    let rows = UnicodeTables.decompositions
    var low = 0
    var high = rows.count
    while low < high {
      let middle = (low + high) / 2
      if UInt32(rows[middle] >> 42 & 0x1F_FFFF) < scalar { low = middle + 1 } else { high = middle }
    }
    return low < rows.count && UInt32(rows[low] >> 42 & 0x1F_FFFF) == scalar ? rows[low] : nil
  }

  private static func combiningClass(of scalar: UInt32) -> UInt8 {
    if scalar < 0x300 { return 0 }
    let runs = UnicodeTables.combiningClassRuns
    var low = 0
    var high = runs.count
    while low < high {
      let middle = (low + high) / 2
      if runs[middle] >> 8 <= scalar { low = middle + 1 } else { high = middle }
    }
    return UInt8(truncatingIfNeeded: runs[low - 1])  // the first run starts at 0
  }

  private func composition(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if first >= 0x1100 && first < 0x1113 && second >= 0x1161 && second < 0x1176 {
      return 0xAC00 + (first - 0x1100) * 588 + (second - 0x1161) * 28
    }
    if first >= 0xAC00 && first < 0xD7A4 && (first - 0xAC00) % 28 == 0 && second > 0x11A7 && second < 0x11C3 {
      return first + second - 0x11A7
    }
    let key = UInt64(first) << 21 | UInt64(second)
    var low = 0
    var high = compositions.count
    while low < high {
      let middle = (low + high) / 2
      if compositions[middle] >> 21 < key { low = middle + 1 } else { high = middle }
    }
    guard low < compositions.count, compositions[low] >> 21 == key else { return nil }
    return UInt32(compositions[low] & 0x1F_FFFF)
  }

  /// Orders the marks of fully decomposed `scalars` in place, and returns the scalars' combining classes.
  private func order(_ scalars: inout [UInt32]) -> [UInt8] {
    var classes = scalars.map(Self.combiningClass(of:))
    var start = 0
    while start < scalars.count {
      guard classes[start] != 0 else {
        start += 1
        continue
      }
      var end = start
      var isOrdered = true
      while end < scalars.count && classes[end] != 0 {
        if end > start && classes[end] < classes[end - 1] { isOrdered = false }
        end += 1
      }
      if !isOrdered {
        // Sorting (class, place) keeps the order of equal classes.
        let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
        let ordered = order.map { (scalars[$0], classes[$0]) }
        for (offset, pair) in ordered.enumerated() { (scalars[start + offset], classes[start + offset]) = pair }
      }
      start = end
    }
    return classes
  }

  /// Orders the marks of fully decomposed `scalars` and composes what can be composed, in place.
  private func compose(_ scalars: inout [UInt32]) {
    var classes = order(&scalars)
    var kept = 0
    var starter: Int?
    for index in scalars.indices {
      let scalar = scalars[index]
      let combining = classes[index]
      // Blocked: a mark of the same or a higher class, or a starter, stands between it and the starter.
      if let place = starter, kept - 1 == place || (classes[kept - 1] != 0 && classes[kept - 1] < combining),
        let composed = composition(scalars[place], scalar)
      {
        scalars[place] = composed
        continue
      }
      if combining == 0 { starter = kept }
      scalars[kept] = scalar
      classes[kept] = combining
      kept += 1
    }
    scalars.removeLast(scalars.count - kept)
  }
}
