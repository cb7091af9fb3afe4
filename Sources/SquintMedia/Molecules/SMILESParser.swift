import SquintFile

/// Reads SMILES: one atom or bond after the other, without recursion (Weininger, 1988; opensmiles.org; RDKit's grammar of it).
struct SMILESParser {
  /// Longer texts are refused before they are read.
  static let mostCharacters = 1 << 16

  private let bytes: [UInt8]
  private var index: Int
  private let end: Int
  private var molecule = Molecule(.smiles)
  /// The atom that the next one is bonded to.
  private var last = -1
  /// Where branches began: the atom, and the parenthesis.
  private var branches: [(atom: Int, place: Int)] = []
  private var closures: [Int: [Closure]] = [:]
  /// Of each atom: its ring closures in their order, by the bonds that they became.
  private var closuresOfAtom: [Int: [ClosureEnd]] = [:]

  /// Whether the atom that was read last has its chirality by a class (@TH1), and all atoms that do.
  private var isNamedClass = false
  private var namedClass: Set<Int> = []

  private struct Closure {
    let atom: Int
    /// nil where it is left open.
    let bond: BondMark?
    let place: Int
    /// Which of the atom's closures it is.
    let position: Int
  }

  private struct ClosureEnd {
    var bond: Int
  }

  private struct BondMark {
    var order: Molecule.Bond.Order?
    var direction = Molecule.Bond.Direction.none
    /// `~`: of a ring closure it means what no mark does, except that it counts as told.
    var isAny = false
  }

  private init(_ text: [UInt8]) {
    bytes = text
    // As RDKit: a name behind a blank, and blanks and bytes beyond ASCII around it, are no part of it.
    let blank = text.firstIndex { $0 == 0x20 || $0 == 0x09 }
    var (start, stop) = (0, blank ?? text.count)
    if stop == 0 { stop = text.count }
    while start < stop, !Self.isVisible(text[start]) { start += 1 }
    while stop > start, !Self.isVisible(text[stop - 1]) { stop -= 1 }
    if let line = text[start..<stop].firstIndex(of: 0x0A) { stop = line }
    if stop > start, text[stop - 1] == 0x0D { stop -= 1 }
    (index, end) = (start, stop)
  }

  private static func isVisible(_ byte: UInt8) -> Bool { byte > 32 && byte < 128 }

  /// The molecule that `text` spells, with all its hydrogens, and chirality by the order of bonds.
  ///
  /// - Throws: `badData` with the place where it is none.
  static func molecule(_ text: [UInt8]) throws(SquintError) -> Molecule {
    guard text.count <= mostCharacters else {
      throw Molecule.bad(
        "the SMILES has \(grouped(text.count)) characters; at most \(grouped(mostCharacters)) are read")
    }
    try refuseExtensions(text)
    var parser = SMILESParser(text)
    try parser.run()
    return parser.molecule
  }

  /// CXSMILES behind a blank: what tells of groups of centres is left out; all else could change the molecule.
  private static func refuseExtensions(_ text: [UInt8]) throws(SquintError) {
    guard let blank = text.firstIndex(where: { $0 == 0x20 || $0 == 0x09 }), blank > 0,
      let start = text[blank...].firstIndex(where: { $0 != 0x20 && $0 != 0x09 }), text[start] == UInt8(ascii: "|")
    else { return }
    let rest = text[(start + 1)...]
    guard let stop = rest.firstIndex(of: UInt8(ascii: "|")) else {
      throw Molecule.bad("the CXSMILES extension at character \(start + 1) has no second |")
    }
    // Fields are parted by commas; so are the atoms of a field.
    var place = start + 1
    for field in rest[..<stop].split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
      let isGroup =
        field.starts(with: "a:".utf8)
        || ((field.first == UInt8(ascii: "&") || field.first == UInt8(ascii: "o")) && field.contains(UInt8(ascii: ":")))
      guard field.isEmpty || isGroup || field.allSatisfy({ (48...57).contains($0) }) else {
        throw Molecule.bad(
          "the CXSMILES extension \(String(decoding: field.prefix(20), as: UTF8.self)) at character \(place + 1) is not read; give the SMILES without what is between the | |"
        )
      }
      place += field.count + 1
    }
  }

  // MARK: The grammar

  private var byte: UInt8? { index < end ? bytes[index] : nil }
  private var place: Int { index + 1 }

  private func peek(_ offset: Int = 1) -> UInt8? { index + offset < end ? bytes[index + offset] : nil }

  private mutating func skip(_ character: Unicode.Scalar) -> Bool {
    guard byte == UInt8(ascii: character) else { return false }
    index += 1
    return true
  }

  private func bad(_ what: String, at place: Int? = nil) -> SquintError {
    Molecule.bad("\(what) at character \(place ?? self.place)")
  }

  private func unexpected(_ wanted: String) -> SquintError {
    guard let byte else { return Molecule.bad("the SMILES ends where \(wanted) should follow") }
    return Molecule.bad("\(Self.shown(bytes[index..<end], byte)) at character \(place), where \(wanted) should stand")
  }

  /// What stands at the beginning of `bytes`: a character that can be shown, or else its number.
  private static func shown(_ bytes: ArraySlice<UInt8>, _ first: UInt8) -> String {
    if (33...126).contains(first) { return String(UnicodeScalar(first)) }
    var decoder = UTF8()
    var iterator = bytes.makeIterator()
    guard first >= 128, case .scalarValue(let scalar) = decoder.decode(&iterator) else { return "a byte of \(first)" }
    let code = String(scalar.value, radix: 16, uppercase: true)
    let name = "U+\(String(repeating: "0", count: max(0, 4 - code.count)))\(code)"
    return scalar.properties.isAlphabetic ? "\(scalar) (\(name), which no SMILES has)" : "\(name), which no SMILES has,"
  }

  /// What of `text` is left out though it stands at the SMILES without a blank; nil where nothing is.
  static func leftOut(of text: [UInt8]) -> String? {
    let parser = SMILESParser(text)
    let written = text.prefix { $0 != 0x20 && $0 != 0x09 && $0 != 0x0A }
    guard let place = written.indices.first(where: { written[$0] >= 128 && !(parser.index..<parser.end).contains($0) })
    else { return nil }
    return "\(shown(written[place...], written[place])) at character \(place + 1) is left out"
  }

  private mutating func run() throws(SquintError) {
    guard byte != nil else { throw Molecule.bad("the SMILES is empty") }
    try addAtom(bond: nil, isStart: true)
    while let byte {
      switch byte {
      case UInt8(ascii: "("):
        let opening = place
        index += 1
        branches.append((last, opening))
        try addAtom(bond: try bondMark(), isStart: false)
      case UInt8(ascii: ")"):
        guard let branch = branches.popLast() else { throw bad("a ) that no ( belongs to stands") }
        index += 1
        last = branch.atom
      case UInt8(ascii: "."):
        index += 1
        try addAtom(bond: nil, isStart: true)
      default:
        let mark = try bondMark()
        if let next = self.byte, (48...57).contains(next) || next == UInt8(ascii: "%") {
          try addClosure(mark)
        } else {
          try addAtom(bond: mark, isStart: false)
        }
      }
    }
    if let branch = branches.last { throw bad("no ) closes the branch that begins", at: branch.place) }
    try closeRings()
    for atom in molecule.atoms.indices { adjustChirality(atom) }
  }

  private mutating func bondMark() throws(SquintError) -> BondMark? {
    guard let byte else { return nil }
    let start = place
    switch byte {
    case UInt8(ascii: "-"):
      index += 1
      if self.byte == UInt8(ascii: ">") { throw dative(start) }
      return BondMark(order: .single)
    case UInt8(ascii: "="):
      index += 1
      return BondMark(order: .double)
    case UInt8(ascii: "#"):
      index += 1
      return BondMark(order: .triple)
    case UInt8(ascii: ":"):
      index += 1
      return BondMark(order: .aromatic)
    case UInt8(ascii: "/"):
      index += 1
      return BondMark(order: nil, direction: .up)
    case UInt8(ascii: "\\"):
      index += 1
      if self.byte == UInt8(ascii: "\\") { index += 1 }
      return BondMark(order: nil, direction: .down)
    case UInt8(ascii: "$"): throw bad("the features of bonds have no number for the quadruple bond")
    case UInt8(ascii: "~"):
      index += 1
      return BondMark(order: nil, isAny: true)
    case UInt8(ascii: "<") where peek() == UInt8(ascii: "-"): throw dative(start)
    default: return nil
    }
  }

  private func dative(_ place: Int) -> SquintError {
    bad("the features of bonds have no number for the dative bond", at: place)
  }

  // MARK: Atoms

  private mutating func addAtom(bond mark: BondMark?, isStart: Bool) throws(SquintError) {
    if mark?.isAny == true {
      throw bad("the features of bonds have no number for the bond of any kind (~)", at: place - 1)
    }
    isNamedClass = false
    var atom = try readAtom()
    guard molecule.atoms.count < Molecule.mostAtoms else {
      throw Molecule.bad(
        "the molecule has more than \(grouped(Molecule.mostAtoms)) atoms; the features would not fit a prompt")
    }
    atom.startsFragment = isStart
    let new = molecule.atoms.count
    molecule.atoms.append(atom)
    if isNamedClass { namedClass.insert(new) }
    if !isStart { molecule.add(self.bond(from: last, to: new, mark, nil)) }
    last = new
  }

  /// The bond from `begin` to `end`, whose order the atoms tell where `mark` does not.
  private func bond(from begin: Int, to end: Int, _ mark: BondMark?, _ place: Int?) -> Molecule.Bond {
    let areAromatic = molecule.atoms[begin].isAromatic && molecule.atoms[end].isAromatic
    var bond = Molecule.Bond(
      begin, end, mark?.order ?? (areAromatic ? .aromatic : .single), place: place ?? molecule.atoms[end].place)
    bond.isAromatic = bond.order == .aromatic
    bond.direction = mark?.direction ?? .none
    return bond
  }

  private mutating func readAtom() throws(SquintError) -> Molecule.Atom {
    guard let byte else { throw unexpected("an atom") }
    let start = place
    if byte == UInt8(ascii: "[") { return try readBracket() }
    guard let (number, isAromatic, length) = symbol(isBracket: false) else { throw unexpected("an atom") }
    index += length
    var atom = Molecule.Atom(number, place: start)
    atom.isAromatic = isAromatic
    return atom
  }

  /// The element that begins here, in its longest spelling.
  private func symbol(isBracket: Bool) -> (number: Int, isAromatic: Bool, length: Int)? {
    guard let first = byte else { return nil }
    if first == UInt8(ascii: "*") { return (0, false, 1) }
    let second = peek()
    if isBracket {
      if let second, let third = peek(2),
        let number = Self.provisional[String(decoding: [first, second, third], as: UTF8.self)]
      {
        return (number, false, 3)
      }
      if let second {
        let two = String(decoding: [first, second], as: UTF8.self)
        if let number = Self.elements[two] { return (number, false, 2) }
        if let number = Self.aromatic[two] { return (number, true, 2) }
      }
      let one = String(UnicodeScalar(first))
      if let number = Self.aromatic[one] { return (number, true, 1) }
      if first != UInt8(ascii: "H"), let number = Self.elements[one] { return (number, false, 1) }
      return nil
    }
    if first == UInt8(ascii: "C") && second == UInt8(ascii: "l") { return (17, false, 2) }
    if first == UInt8(ascii: "B") && second == UInt8(ascii: "r") { return (35, false, 2) }
    let one = String(UnicodeScalar(first))
    if "BCNOPSFI".contains(one), let number = Self.elements[one] { return (number, false, 1) }
    if let number = Self.aromatic[one] { return (number, true, 1) }
    return nil
  }

  private static let elements: [String: Int] = Dictionary(
    uniqueKeysWithValues: Elements.symbols.enumerated().dropFirst().map { ($1, $0) })
  private static let aromatic = [
    "b": 5, "c": 6, "n": 7, "o": 8, "p": 15, "s": 16, "si": 14, "as": 33, "se": 34, "te": 52,
  ]
  private static let provisional = [
    "Uun": 110, "Uuu": 111, "Uub": 112, "Uut": 113, "Uuq": 114, "Uup": 115, "Uuh": 116, "Uus": 117, "Uuo": 118,
  ]

  /// A number without leading zeros; nil where none stands here.
  private mutating func number() throws(SquintError) -> Int? {
    guard let first = byte, (48...57).contains(first) else { return nil }
    let start = place
    index += 1
    var value = Int(first) - 48
    guard value > 0 else { return 0 }
    while let digit = byte, (48...57).contains(digit) {
      value = value * 10 + Int(digit) - 48
      guard value < Int(Int32.max) else { throw bad("the number is too large", at: start) }
      index += 1
    }
    return value
  }

  private mutating func readBracket() throws(SquintError) -> Molecule.Atom {
    let start = place
    index += 1
    let isotope = try number()
    var atom: Molecule.Atom
    if skip("H") {
      // Hydrogen, perhaps with hydrogens of its own: [HH].
      if let length = twoLetters() {
        index -= 1
        guard let (number, _, _) = symbol(isBracket: true) else { throw unexpected("an element") }
        index += length
        atom = Molecule.Atom(number, place: start)
        try readChirality(&atom)
        try readHydrogens(&atom)
      } else {
        atom = Molecule.Atom(1, place: start)
        try readHydrogens(&atom)
      }
    } else {
      if skip("#") {
        let numberPlace = place
        guard let number = try number() else { throw unexpected("an atomic number") }
        guard number <= Elements.last else { throw bad("there is no element \(grouped(number))", at: numberPlace) }
        atom = Molecule.Atom(number, place: start)
      } else if skip("'") {
        // Some programs write late elements in quotes.
        guard let (number, _, length) = symbol(isBracket: true), number >= 104, length == 2 else {
          throw unexpected("an element from rutherfordium on")
        }
        index += length
        guard skip("'") else { throw unexpected("a second '") }
        atom = Molecule.Atom(number, place: start)
      } else {
        guard let (number, isAromatic, length) = symbol(isBracket: true) else { throw unexpected("an element") }
        index += length
        atom = Molecule.Atom(number, place: start)
        atom.isAromatic = isAromatic
      }
      try readChirality(&atom)
      try readHydrogens(&atom)
    }
    atom.isotope = (isotope ?? 0) & 0xFFFF
    try readCharge(&atom)
    if skip(":") {
      guard let map = try number() else { throw unexpected("the number of an atom map") }
      atom.map = map
    }
    guard skip("]") else { throw unexpected("the ] of the atom that begins at character \(start)") }
    atom.hasNoImplicit = true
    return atom
  }

  /// After an H: the length of the two-letter element that begins with it, if one does.
  private func twoLetters() -> Int? {
    guard let byte, Self.elements[String(decoding: [UInt8(ascii: "H"), byte], as: UTF8.self)] != nil else { return nil }
    return 2
  }

  private mutating func readChirality(_ atom: inout Molecule.Atom) throws(SquintError) {
    let start = place
    guard skip("@") else { return }
    // Quotes and blanks may stand before the class.
    var offset = 0
    while peek(offset) == UInt8(ascii: "'") { offset += 1 }
    if let first = peek(offset), let second = peek(offset + 1) {
      let kind = String(decoding: [first, second], as: UTF8.self)
      if ["TH", "AL", "SP", "TB", "OH"].contains(kind) {
        index += offset + 2
        let numberPlace = place
        let permutation = try number()
        guard permutation != 0 else { throw bad("the chirality @\(kind)0 does not exist; it stands", at: start) }
        let (chirality, most): (Molecule.Chirality, Int) =
          switch kind {
          case "TH": (permutation == 2 ? .clockwise : .counterclockwise, 2)
          case "AL": (.allene, 2)
          case "SP": (.squarePlanar, 3)
          case "TB": (.bipyramidal, 20)
          default: (.octahedral, 30)
          }
        guard (permutation ?? 1) <= most else {
          throw bad("there is no chirality @\(kind)\(permutation ?? 0); its number stands", at: numberPlace)
        }
        atom.chirality = chirality
        isNamedClass = true
        return
      }
    }
    atom.chirality = skip("@") ? .clockwise : .counterclockwise
  }

  private mutating func readHydrogens(_ atom: inout Molecule.Atom) throws(SquintError) {
    guard skip("H") else { return }
    atom.explicitHydrogens = (try number() ?? 1) & 0xFF
  }

  private mutating func readCharge(_ atom: inout Molecule.Atom) throws(SquintError) {
    let sign: Int
    if skip("+") { sign = 1 } else if skip("-") { sign = -1 } else { return }
    let start = place
    if skip(sign > 0 ? "+" : "-") {
      atom.charge = 2 * sign
    } else if let number = try number() {
      guard number <= 127 else { throw bad("the charge is too large", at: start) }
      atom.charge = sign * number
    } else {
      atom.charge = sign
    }
  }

  // MARK: Rings

  private mutating func addClosure(_ mark: BondMark?) throws(SquintError) {
    let start = place
    func digit() -> Int? { byte.flatMap { (48...57).contains($0) ? Int($0) - 48 : nil } }
    var ring = 0
    if skip("%") {
      if skip("(") {
        var count = 0
        while let value = digit() {
          guard count < 5 else { throw bad("the number of the ring is too long", at: start) }
          ring = ring * 10 + value
          count += 1
          index += 1
        }
        guard count > 0 else { throw unexpected("a digit") }
        guard skip(")") else { throw unexpected("the ) of the ring's number") }
      } else {
        guard let first = digit(), first > 0 else { throw unexpected("a digit from 1 to 9") }
        index += 1
        guard let second = digit() else { throw unexpected("a second digit") }
        index += 1
        ring = first * 10 + second
      }
    } else {
      ring = digit() ?? 0
      index += 1
    }
    let position = closuresOfAtom[last]?.count ?? 0
    closuresOfAtom[last, default: []].append(ClosureEnd(bond: -1))
    closures[ring, default: []].append(Closure(atom: last, bond: mark, place: start, position: position))

    // A ring that closes behind a branch: its bond counts as if it stood before.
    let this = molecule.atoms[last]
    if last != molecule.atoms.count - 1, this.chirality == .clockwise || this.chirality == .counterclockwise,
      !namedClass.contains(last),
      this.degree == 1 || (this.degree == 2 && last != 0) || (this.degree == 3 && last == 0)
    {
      molecule.atoms[last].chirality = this.chirality.inverted
    }
  }

  /// Bonds the atoms that bear the same numbers, ring by ring.
  private mutating func closeRings() throws(SquintError) {
    for ring in closures.keys.sorted() {
      guard let ends = closures[ring] else { continue }
      var index = 0
      while index < ends.count {
        let first = ends[index]
        guard index + 1 < ends.count else { throw bad("nothing closes the ring \(ring) that opens", at: first.place) }
        let second = ends[index + 1]
        guard first.atom != second.atom else {
          throw bad("the ring \(ring) closes at the atom where it opens,", at: second.place)
        }
        guard molecule.bond(between: first.atom, second.atom) == nil else {
          throw bad("the ring \(ring) closes with a bond that is there already,", at: second.place)
        }
        // The first one's order counts, if it has one; the bond begins where the order is told, or else at the second.
        let isFirst = first.bond.map { $0.order != nil || $0.isAny } ?? false
        let (from, to) = isFirst ? (first, second) : (second, first)
        var bond = self.bond(from: from.atom, to: to.atom, from.bond, second.place)
        if bond.direction == .none, let direction = to.bond?.direction, direction != .none {
          bond.direction = direction.opposite
        }
        for end in [first, second] { closuresOfAtom[end.atom]?[end.position].bond = molecule.bonds.count }
        molecule.add(bond)
        index += 2
      }
    }
  }

  /// From the order of neighbors in the text to the order of the atom's bonds.
  private mutating func adjustChirality(_ atom: Int) {
    let this = molecule.atoms[atom]
    guard this.chirality == .clockwise || this.chirality == .counterclockwise else { return }
    let closures = (closuresOfAtom[atom] ?? []).map(\.bond)
    let others = this.bonds.filter { !closures.contains($0) }.map { (atom: molecule.bonds[$0].other(atom), bond: $0) }
      .sorted { $0.atom < $1.atom }
    // Rings close behind the atom itself, before what follows.
    let order = others.filter { $0.atom < atom }.map(\.bond) + closures + others.filter { $0.atom > atom }.map(\.bond)
    var isOdd = molecule.isOddPermutation(order, of: atom)
    if this.degree == 3 {
      let isUnsaturated = this.bonds.contains { molecule.bonds[$0].order != .single }
      if (this.startsFragment && this.explicitHydrogens == 1)
        || (this.explicitHydrogens != 1 && closures.count == 1 && !isUnsaturated)
      {
        isOdd.toggle()
      }
    }
    if isOdd { molecule.atoms[atom].chirality = this.chirality.inverted }
  }
}
