/// Finds molecules (SMILES) and sequences (FASTA) in text as Intern-S1's tokenizer does where RDKit is not installed
/// (transformers, tokenization_intern_s1.py: `SmilesCheckModule`, `FastaCheckModule`); in time that grows with the text alone.
///
/// What the rules say and chemistry does not is kept: a model was trained with it.
enum DomainDetection {
  /// The shortest molecule, in parts, and the shortest sequence, in letters.
  static let moleculeParts = 10
  static let sequenceLetters = 27
  private static let moleculeLetters = 5

  // MARK: Sequences

  /// Gives `body` the ranges of `text` in order: runs of 27 capital letters A to Z and more, and what lies between.
  static func forEachSequence(in text: TextView, _ body: (_ isSequence: Bool, _ start: Int, _ end: Int) -> Void) {
    var done = 0
    var index = 0
    while index < text.end {
      guard isCapital(text.base[index]) else {
        index += 1
        continue
      }
      let start = index
      while index < text.end, isCapital(text.base[index]) { index += 1 }
      guard index - start >= sequenceLetters else { continue }
      if done < start { body(false, done, start) }
      body(true, start, index)
      done = index
    }
    if done < text.end { body(false, done, text.end) }
  }

  // MARK: Molecules

  /// Gives `body` the ranges of `text` in order: molecules, and what lies between.
  static func forEachMolecule(in text: TextView, _ body: (_ isMolecule: Bool, _ start: Int, _ end: Int) -> Void) {
    var scanner = MoleculeScanner(text)
    var done = 0
    var index = 0
    while let candidate = scanner.next(from: index) {
      index = candidate.upperBound
      guard !touchesLetter(candidate, of: text), isMolecule(scalars(of: text, candidate)) else { continue }
      if done < candidate.lowerBound { body(false, done, candidate.lowerBound) }
      body(true, candidate.lowerBound, candidate.upperBound)
      done = candidate.upperBound
    }
    if done < text.end { body(false, done, text.end) }
  }

  private static func touchesLetter(_ range: Range<Int>, of text: TextView) -> Bool {
    (range.lowerBound > 0 && isLetter(UInt32(text.base[range.lowerBound - 1])))
      || (range.upperBound < text.end && isLetter(UInt32(text.base[range.upperBound])))
  }

  private static func scalars(of text: TextView, _ range: Range<Int>) -> [UInt32] {
    var out: [UInt32] = []
    out.reserveCapacity(range.count)
    var index = range.lowerBound
    while index < range.upperBound {
      let (value, length) = text.scalar(at: index)
      out.append(value)
      index += length
    }
    return out
  }

  /// Whether the rules take a candidate for a molecule.
  static func isMolecule(_ text: [UInt32]) -> Bool {
    guard text.count(where: isLetter) >= moleculeLetters else { return false }
    return closesRingsAndBrackets(text) && hasAtomsInBrackets(text)
  }

  private static func closesRingsAndBrackets(_ text: [UInt32]) -> Bool {
    // Rings by their numbers: one character, or two behind a %.
    var openRings = Set<UInt64>()
    func toggle(_ ring: UInt64) { if openRings.remove(ring) == nil { openRings.insert(ring) } }
    var squares = (open: 0, closed: 0)
    var rounds = (open: 0, closed: 0)
    var isLowercase = true
    var digits = 0
    let last = text.count - 1
    // The reference looks for the end of a bracket from the start of the text, so that its rules for what is inside see that of
    // the first bracket alone.
    let firstEnd = text.firstIndex(of: scalar("]")) ?? 0
    var place = 0
    while place < text.count {
      let character = text[place]
      var step = 0
      if character >= 0x41 && character <= 0x5A { isLowercase = false }
      if isBond(character), place == 0 || place == last || isBond(text[place - 1]) { return false }
      switch character {
      case scalar("["):
        step = 1
        squares.open += 1
        guard squares.open <= squares.closed + 1, place < last else { return false }
        if place + 1 < firstEnd, isBanned(text[(place + 1)..<firstEnd]) { return false }
      case scalar("]"):
        step = 1
        squares.closed += 1
        guard squares.closed <= squares.open else { return false }
      case scalar("("):
        step = 1
        rounds.open += 1
      case scalar(")"):
        step = 1
        rounds.closed += 1
        guard rounds.closed <= rounds.open else { return false }
      default: break
      }
      if squares.open == squares.closed {
        if isDigit(character) {
          digits += 1
          step = 1
          let followsPercent =
            (place > 0 && text[place - 1] == scalar("%")) || (place > 1 && text[place - 2] == scalar("%"))
          if !followsPercent { toggle(UInt64(character)) }
        } else if character == scalar("%") {
          guard place + 2 < text.count, isDigit(text[place + 1]), isDigit(text[place + 2]) else { return false }
          step = 3
          digits += 1
          toggle(UInt64(text[place + 1]) << 32 | UInt64(text[place + 2]))
        }
        if step == 0 {
          if place < last, isTwoLetterAtom(character, text[place + 1]) {
            step = 2
          } else if isPlain(character) {
            step = 1
          } else {
            return false
          }
        }
      }
      place += max(step, 1)
    }
    guard squares.open == squares.closed, openRings.isEmpty else { return false }
    return !isLowercase || digits >= 2
  }

  /// Whether a bracket has three letters in a row (but H), four digits in a row, or more than two numbers.
  private static func isBanned(_ text: ArraySlice<UInt32>) -> Bool {
    var (letters, digits, numbers) = (0, 0, 0)
    for character in text {
      letters = isLetter(character) && character != scalar("H") ? letters + 1 : 0
      let isDigit = isDigit(character)
      if isDigit && digits == 0 { numbers += 1 }
      digits = isDigit ? digits + 1 : 0
      if letters >= 3 || digits >= 4 { return true }
    }
    return numbers > 2
  }

  /// Whether no bracket has round ones in it, up to the first that starts with an element, behind which nothing is looked at.
  private static func hasAtomsInBrackets(_ text: [UInt32]) -> Bool {
    var place = 0
    while let start = text[place...].firstIndex(of: scalar("[")) {
      guard let end = text[(start + 1)...].firstIndex(where: { $0 == scalar("[") || $0 == scalar("]") }) else { break }
      place = end
      guard text[end] == scalar("]") else { continue }
      let inside = text[(start + 1)..<end]
      guard let first = inside.first, !inside.contains(scalar("(")), !inside.contains(scalar(")")) else { return false }
      if isOneLetterElement(first) || (inside.count > 1 && isTwoLetterElement(first, inside[start + 2])) { return true }
    }
    return true
  }

  // MARK: Characters

  private static func scalar(_ character: Unicode.Scalar) -> UInt32 { character.value }

  private static func isCapital(_ byte: UInt8) -> Bool { byte >= 0x41 && byte <= 0x5A }

  static func isLetter(_ character: UInt32) -> Bool { (0x41...0x5A).contains(character & ~0x20) && character < 0x80 }

  static func isDigit(_ character: UInt32) -> Bool {
    character < 0x80 ? (0x30...0x39).contains(character) : ScalarSet.digit.contains(character)
  }

  private static let bonds = Set("-=#:/\\.$".unicodeScalars.map(\.value))
  private static func isBond(_ character: UInt32) -> Bool { character < 0x80 && bonds.contains(character) }

  /// What stands outside of brackets for itself; two-letter atoms apart.
  private static let plain = bonds.union("BCNOPSFIbcnops[]();".unicodeScalars.map(\.value))
  private static func isPlain(_ character: UInt32) -> Bool { plain.contains(character) }

  private static func isTwoLetterAtom(_ first: UInt32, _ second: UInt32) -> Bool {
    (first == scalar("C") && second == scalar("l")) || (first == scalar("B") && second == scalar("r"))
  }

  private static let oneLetterElements = Set("BCFHIKNOPSUVWYbcnops".unicodeScalars.map(\.value))
  /// The elements that have one letter, and the aromatic ones in lower case.
  static func isOneLetterElement(_ character: UInt32) -> Bool {
    character < 0x80 && oneLetterElements.contains(character)
  }

  private static let twoLetterElements: [Bool] = {
    let names =
      "AcAgAlAmArAsAtAuBaBeBhBiBkBrCaCdCeCfClCmCnCoCrCsCuDbDsDyErEsEuFeFlFmFrGaGdGeHeHfHgHoHsInIrKrLaLiLrLuLvMcMdMgMnMoMtNaNbNdNeNhNiNo"
      + "NpOgOsPaPbPdPmPoPrPtPuRaRbReRfRgRhRnRuSbScSeSgSiSmSnSrTaTbTcTeThTiTlTmTsXeYbZnZr"
    var table = [Bool](repeating: false, count: 26 * 32)
    let letters = Array(names.utf8)
    for index in stride(from: 0, to: letters.count, by: 2) {
      table[Int(letters[index] - 0x41) * 32 + Int(letters[index + 1] & 31)] = true
    }
    return table
  }()

  static func isTwoLetterElement(_ first: UInt32, _ second: UInt32) -> Bool {
    (0x41...0x5A).contains(first) && (0x61...0x7A).contains(second)
      && twoLetterElements[Int(first - 0x41) * 32 + Int(second & 31)]
  }

  fileprivate static let symbols: [Bool] = {
    var table = [Bool](repeating: false, count: 128)
    for byte in "().=-#@$%*:+/\\0123456789".utf8 { table[Int(byte)] = true }
    for character in oneLetterElements { table[Int(character)] = true }
    return table
  }()
}

/// Finds what could be a molecule: ten parts and more (an atom in brackets, an element, a sign or a digit) that neither start nor
/// end with one of `:.=`.
private struct MoleculeScanner {
  private let text: TextView
  /// The places of all `]`.
  private var ends: [Int] = []
  /// The last run of `:.=` that was read, so that none is read for each place before it.
  private var run = 0..<0

  init(_ text: TextView) {
    self.text = text
    for index in 0..<text.end where text.base[index] == UInt8(ascii: "]") { ends.append(index) }
  }

  /// The first candidate that starts at `start` or behind it.
  mutating func next(from start: Int) -> Range<Int>? {
    var start = start
    while start < text.end {
      if let end = end(from: start) { return start..<end }
      start += 1
    }
    return nil
  }

  private static func isLoose(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: ":") || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "=")
  }

  private mutating func end(from start: Int) -> Int? {
    guard !Self.isLoose(text.base[start]) else { return nil }
    var parts = 0
    var (end, partsToEnd) = (start, 0)
    var index = start
    while index < text.end {
      if Self.isLoose(text.base[index]) {
        let next = endOfRun(at: index)
        parts += next - index
        index = next
      } else {
        guard let next = endOfPart(at: index) else { break }
        parts += 1
        index = next
        (end, partsToEnd) = (index, parts)
      }
    }
    return partsToEnd >= DomainDetection.moleculeParts ? end : nil
  }

  private mutating func endOfRun(at index: Int) -> Int {
    if run.contains(index) { return run.upperBound }
    var end = index
    while end < text.end, Self.isLoose(text.base[end]) { end += 1 }
    run = index..<end
    return end
  }

  private func endOfPart(at index: Int) -> Int? {
    let byte = text.base[index]
    guard byte < 0x80 else {
      // Searches start at every byte; within a character none does.
      guard byte >= 0xC2 else { return nil }
      let (value, length) = text.scalar(at: index)
      return DomainDetection.isDigit(value) ? index + length : nil
    }
    if byte == UInt8(ascii: "[") { return endOfBracket(at: index) }
    if index + 1 < text.end, DomainDetection.isTwoLetterElement(UInt32(byte), UInt32(text.base[index + 1])) {
      return index + 2
    }
    return DomainDetection.symbols[Int(byte)] ? index + 1 : nil
  }

  /// Behind the first `]` with something between.
  private func endOfBracket(at index: Int) -> Int? {
    var low = 0
    var high = ends.count
    while low < high {
      let middle = (low + high) / 2
      if ends[middle] <= index { low = middle + 1 } else { high = middle }
    }
    guard low < ends.count, ends[low] > index + 1 else { return nil }
    return ends[low] + 1
  }
}
