import SquintFile

/// Reads the first molecule of a MOL or SDF file, V2000 or V3000 (BIOVIA, CTfile Formats), as RDKit does.
struct MolBlockParser {
  /// Only so many bytes of a file are read, more than the largest molecule's.
  static let mostBytes = 1 << 20

  private let lines: [Substring.UTF8View]
  /// How many lines are read: also the number of the last one read, from 1.
  private var lineNumber = 0
  private var molecule = Molecule(.molBlock)
  private var points: [Point] = []
  private var hasWedges = false
  private var isMarkedAsSpace = false
  private var hasGroups = false
  /// Of V3000's atoms and bonds: their index by their name.
  private var atomIndices: [Int: Int] = [:]
  /// Valences that are written down: nil where they are not, 0 where there are no more bonds.
  private var valences: [Int: Int] = [:]

  /// Whether `bytes` are a MOL file rather than SMILES: the fourth line is a counts line.
  static func isMolBlock(_ bytes: [UInt8]) -> Bool {
    let lines = bytes.prefix(mostBytes).split(
      separator: UInt8(ascii: "\n"), maxSplits: 4, omittingEmptySubsequences: false)
    guard lines.count > 3 else { return false }
    let counts = String(decoding: lines[3], as: UTF8.self)
    if counts.contains("V2000") || counts.contains("V3000") { return true }
    // Old files name no version: two numbers of three digits.
    let first = Array(lines[3].prefix(6))
    return first.count == 6 && first.allSatisfy { $0 == 0x20 || (48...57).contains($0) } && first[2] != 0x20
      && first[5] != 0x20
  }

  /// Whether another molecule follows the first one in an SDF file.
  static func hasMore(_ bytes: [UInt8]) -> Bool {
    let mark = Array("$$$$".utf8)
    var rest = bytes[...]
    while let line = rest.firstIndex(of: UInt8(ascii: "\n")) {
      if rest.starts(with: mark) { return rest[line...].contains { $0 > 0x20 } }
      rest = rest[(line + 1)...]
    }
    return false
  }

  /// The molecule of `bytes` with its chirality as drawn, perceived up to the point where stereo is checked.
  ///
  /// - Throws: `badData` with the line where it is none.
  static func molecule(_ bytes: [UInt8]) throws(SquintError) -> Molecule {
    var parser = MolBlockParser(bytes)
    try parser.read()
    return try parser.perceived()
  }

  private init(_ bytes: [UInt8]) {
    let text = String(decoding: bytes.prefix(Self.mostBytes), as: UTF8.self)
    // What stands behind the last line's end is no line.
    let whole = text.utf8.last == UInt8(ascii: "\n") ? text.utf8.dropLast() : text.utf8[...]
    lines = whole.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
      let line = line.last == 0x0D ? line.dropLast() : line
      return Substring(line).utf8
    }
  }

  // MARK: Lines and fields

  private func bad(_ what: String) -> SquintError { Molecule.bad("line \(lineNumber): \(what)") }

  private mutating func nextLine() throws(SquintError) -> [UInt8] {
    guard lineNumber < lines.count else {
      throw Molecule.bad("the MOL file ends after line \(lineNumber), before its M  END")
    }
    lineNumber += 1
    return Array(lines[lineNumber - 1])
  }

  /// The bytes of a field of fixed columns; fewer where the line is shorter.
  private func field(_ line: [UInt8], _ start: Int, _ length: Int) -> ArraySlice<UInt8> {
    line[min(start, line.count)..<min(start + length, line.count)]
  }

  private func text(_ bytes: some Sequence<UInt8>) -> String {
    String(decoding: bytes.drop { $0 == 0x20 }.map { $0 }, as: UTF8.self).trimmingBlanks
  }

  /// A whole number; 0 where there is none.
  private func number(_ bytes: some Sequence<UInt8>, _ what: String) throws(SquintError) -> Int {
    let written = text(bytes)
    guard !written.isEmpty else { return 0 }
    guard written.utf8.count <= 9, let value = Int(written) else {
      throw bad("\(what) is “\(written.prefix(20))”, no number")
    }
    return value
  }

  private func coordinate(_ bytes: some Sequence<UInt8>) throws(SquintError) -> Double {
    let written = text(bytes)
    guard let value = Double(written), abs(value) < 1e9 else {
      throw bad("a coordinate is “\(written.prefix(20))”, no number")
    }
    return value
  }

  // MARK: The file

  private mutating func read() throws(SquintError) {
    _ = try nextLine()
    let dimension = text(field(try nextLine(), 20, 2))
    isMarkedAsSpace = dimension == "3D" || dimension == "3d"
    _ = try nextLine()
    let counts = try nextLine()
    guard counts.count >= 6 else { throw bad("the counts line is too short") }
    let version = text(field(counts, 34, 5))
    if version == "V3000" {
      try readV3000()
    } else {
      guard version.isEmpty || version == "V2000" else { throw bad("the version \(version.prefix(8)) is not known") }
      try readV2000(
        atomCount: try number(field(counts, 0, 3), "the number of atoms"),
        bondCount: try number(field(counts, 3, 3), "the number of bonds"))
    }
    guard !molecule.atoms.isEmpty else { throw Molecule.bad("the molecule has no atoms") }
  }

  private func check(atomCount: Int, bondCount: Int) throws(SquintError) {
    guard atomCount >= 0, bondCount >= 0 else { throw bad("a number of atoms or bonds is negative") }
    guard atomCount <= Molecule.mostAtoms else {
      throw bad("the molecule has \(grouped(atomCount)) atoms; at most \(grouped(Molecule.mostAtoms)) are read")
    }
  }

  private mutating func addAtom(_ symbol: String, _ point: Point) throws(SquintError) {
    var atom: Molecule.Atom
    switch symbol {
    case "D", "T":
      atom = Molecule.Atom(1, place: lineNumber)
      atom.isotope = symbol == "D" ? 2 : 3
    case "*", "A", "AH", "Q", "QH", "X", "XH", "M", "MH", "R":
      atom = Molecule.Atom(0, place: lineNumber)
      atom.hasNoImplicit = true
    case "L": throw bad("a list of atoms is a question, not a molecule")
    case "R#", "LP", "Pol", "Mod":
      atom = Molecule.Atom(0, place: lineNumber)
    case let symbol where symbol.first == "R" && symbol.dropFirst().utf8.allSatisfy { (48...57).contains($0) }:
      atom = Molecule.Atom(0, place: lineNumber)
      atom.isotope = Int(symbol.dropFirst()) ?? 0
    default:
      let spelled = symbol.prefix(1) + symbol.dropFirst().lowercased()
      guard let number = Elements.symbols.dropFirst().firstIndex(of: symbol.utf8.count == 2 ? String(spelled) : symbol)
      else {
        throw bad("there is no element “\(symbol.prefix(12))”")
      }
      atom = Molecule.Atom(number, place: lineNumber)
    }
    molecule.atoms.append(atom)
    points.append(point)
  }

  private mutating func addBond(_ begin: Int, _ end: Int, type: Int) throws(SquintError) {
    guard molecule.atoms.indices.contains(begin), molecule.atoms.indices.contains(end) else {
      throw bad("the bond is to an atom that does not exist")
    }
    guard begin != end else { throw bad("the bond is from an atom to itself") }
    guard molecule.bond(between: begin, end) == nil else { throw bad("the bond is there already") }
    let order: Molecule.Bond.Order
    switch type {
    case 1: order = .single
    case 2: order = .double
    case 3: order = .triple
    case 4: order = .aromatic
    case 9: throw bad("the features of bonds have no number for the dative bond")
    case 5, 6, 7, 8: throw bad("the bond is a question (type \(type)), not one of a molecule")
    default: throw bad("the features of bonds have no number for the type \(type)")
    }
    var bond = Molecule.Bond(begin, end, order, place: lineNumber)
    bond.isAromatic = order == .aromatic
    molecule.add(bond)
  }

  private mutating func setRadicals(_ atom: Int, _ value: Int) throws(SquintError) {
    guard (0...3).contains(value) else { throw bad("there is no radical of kind \(value)") }
    molecule.atoms[atom].radicals = value == 0 ? 0 : value == 2 ? 1 : 2
  }

  // MARK: V2000

  private mutating func readV2000(atomCount: Int, bondCount: Int) throws(SquintError) {
    try check(atomCount: atomCount, bondCount: bondCount)
    for atom in 0..<atomCount {
      let line = try nextLine()
      guard line.count >= 34 else { throw bad("the line of an atom is too short") }
      let point = Point(
        x: try coordinate(field(line, 0, 10)), y: try coordinate(field(line, 10, 10)),
        z: try coordinate(field(line, 20, 10)))
      try addAtom(text(field(line, 31, 3)), point)
      let mass = try number(field(line, 34, 2), "the isotope")
      let charge = line.count >= 39 ? try number(field(line, 36, 3), "the charge") : 0
      if charge != 0 { molecule.atoms[atom].charge = 4 - charge }
      if mass != 0 {
        molecule.atoms[atom].isotope = (Elements.commonIsotope[molecule.atoms[atom].number] + mass) & 0xFFFF
      }
      if line.count >= 45, try number(field(line, 42, 3), "the hydrogen count") != 0 {
        throw bad("the atom asks for a number of hydrogens, which is a question, not a molecule")
      }
      if line.count >= 51 {
        let valence = try number(field(line, 48, 3), "the valence")
        if valence != 0 { valences[atom] = valence == 15 ? 0 : valence }
      }
      if line.count >= 63, field(line, 60, 3) != ArraySlice("  0".utf8) {
        molecule.atoms[atom].map = max(0, try number(field(line, 60, 3), "the atom map"))
      }
    }
    for _ in 0..<bondCount {
      let line = try nextLine()
      guard line.count >= 9 else { throw bad("the line of a bond is too short") }
      try addBond(
        try number(field(line, 0, 3), "an atom of the bond") - 1,
        try number(field(line, 3, 3), "an atom of the bond") - 1,
        type: try number(field(line, 6, 3), "the type of the bond"))
      if line.count >= 18, try number(field(line, 15, 3), "the topology") != 0 {
        throw bad("the bond asks for a ring, which is a question, not a molecule")
      }
      let bond = molecule.bonds.count - 1
      switch try? number(field(line, 9, 3), "the stereo") {
      case 1:
        molecule.bonds[bond].direction = .wedge
        hasWedges = true
      case 6:
        molecule.bonds[bond].direction = .dash
        hasWedges = true
      case 3:
        molecule.bonds[bond].direction = .eitherDouble
        molecule.bonds[bond].stereo = .any
        hasWedges = true
      case 4: molecule.bonds[bond].direction = .unknown
      default: break
      }
    }
    try readProperties()
  }

  private mutating func readProperties() throws(SquintError) {
    var isFirstCharge = true
    var isFirst = true
    while true {
      let line = try nextLine()
      let tag = String(decoding: field(line, 0, 6), as: UTF8.self)
      if tag == "M  END" { return }
      if tag.hasPrefix("$$$$") { throw bad("the molecule ends without M  END") }
      if isFirst, !["M", "A", "V", "G", "S"].contains(String(tag.prefix(1))) {
        throw bad(line.isEmpty ? "an empty line before M  END" : "a list of atoms is a question, not a molecule")
      }
      isFirst = false
      switch tag {
      case "M  CHG", "M  RAD":
        if isFirstCharge {
          for atom in molecule.atoms.indices { molecule.atoms[atom].charge = 0 }
          isFirstCharge = false
        }
        for (atom, value) in try entries(line) {
          if tag == "M  CHG" {
            guard abs(value) <= 127 else { throw bad("the charge is too large") }
            molecule.atoms[atom].charge = value
          } else {
            try setRadicals(atom, value)
          }
        }
      case "M  ISO":
        for (atom, value) in try entries(line) where value >= 0 { molecule.atoms[atom].isotope = value & 0xFFFF }
      case "M  RGP":
        for (atom, value) in try entries(line) where value > 0 && value < 999 { molecule.atoms[atom].isotope = value }
      case "M  ALS", "M  RBC", "M  SUB", "M  UNS", "M  ZBO", "M  ZCH", "M  HYD", "M  MRV", "M  CRS":
        throw bad("\(tag) is not read; it is a question, or changes the molecule in a way of one program's own")
      case "M  SDT":
        let name = String(decoding: line, as: UTF8.self)
        for own in ["MRV_", "SMARTSQ", "ZBO", "ZCH", "HYD"] where name.contains(own) {
          throw bad("the data \(own) is not read; it changes the molecule in a way of one program's own")
        }
      case "M  STY": hasGroups = true
      case "S  SKP":
        let count = try number(field(line, 6, 3), "the number of lines")
        guard count >= 0 else { throw bad("a number of lines is negative") }
        for _ in 0..<count { _ = try nextLine() }
      default:
        if tag.hasPrefix("A") || tag.hasPrefix("G") { _ = try nextLine() }
      }
    }
  }

  /// The atoms and values of a line such as `M  CHG  2   1   1   4  -1`.
  private func entries(_ line: [UInt8]) throws(SquintError) -> [(atom: Int, value: Int)] {
    let count = try number(field(line, 6, 3), "the number of entries")
    guard count >= 0, count <= Molecule.mostAtoms else { throw bad("the number of entries is \(count)") }
    var entries: [(Int, Int)] = []
    for entry in 0..<count {
      let atom = try number(field(line, 9 + 8 * entry, 4), "an atom") - 1
      guard molecule.atoms.indices.contains(atom) else { throw bad("there is no atom \(atom + 1)") }
      entries.append((atom, try number(field(line, 13 + 8 * entry, 4), "a value")))
    }
    return entries
  }

  // MARK: V3000

  private mutating func nextV3000() throws(SquintError) -> String {
    var whole = ""
    while true {
      let line = String(decoding: try nextLine(), as: UTF8.self)
      guard line.hasPrefix("M  V30 ") else { throw bad("M  V30 should stand at its beginning") }
      whole += line.dropFirst(7)
      guard whole.hasSuffix("-") else { return whole }
      whole.removeLast()
    }
  }

  private func tokens(_ line: String) -> [String] {
    var tokens: [String] = []
    var token = ""
    var depth = 0
    var isQuoted = false
    for character in line {
      if (character == " " || character == "\t") && depth == 0 && !isQuoted {
        if !token.isEmpty { tokens.append(token) }
        token = ""
        continue
      }
      if character == "(" && !isQuoted { depth += 1 }
      if character == ")" && depth > 0 { depth -= 1 }
      if character == "\"" && depth == 0 { isQuoted.toggle() }
      token.append(character)
    }
    if !token.isEmpty { tokens.append(token) }
    return tokens
  }

  private mutating func expect(_ beginning: String) throws(SquintError) {
    guard try nextV3000().uppercased().hasPrefix(beginning) else { throw bad("\(beginning) should stand here") }
  }

  private mutating func readV3000() throws(SquintError) {
    try expect("BEGIN CTAB")
    let counts = tokens(try nextV3000())
    guard counts.count >= 3, counts[0].uppercased() == "COUNTS" else { throw bad("the COUNTS should stand here") }
    let atomCount = try number(counts[1].utf8, "the number of atoms")
    let bondCount = try number(counts[2].utf8, "the number of bonds")
    try check(atomCount: atomCount, bondCount: bondCount)
    if atomCount > 0 {
      try expect("BEGIN ATOM")
      for _ in 0..<atomCount { try readV3000Atom(tokens(try nextV3000())) }
      try expect("END ATOM")
    }
    if bondCount > 0 {
      try expect("BEGIN BOND")
      for _ in 0..<bondCount { try readV3000Bond(tokens(try nextV3000())) }
      try expect("END BOND")
    }
    // What else there is tells of groups of atoms.
    while true {
      let line = try nextV3000().uppercased()
      if line.hasPrefix("END CTAB") { break }
      if line.hasPrefix("BEGIN SGROUP") { hasGroups = true }
      for own in ["MRV_", "SMARTSQ", "FIELDNAME=ZBO", "FIELDNAME=ZCH", "FIELDNAME=HYD"] where line.contains(own) {
        throw bad("the data \(own) is not read; it changes the molecule in a way of one program's own")
      }
    }
    guard String(decoding: try nextLine(), as: UTF8.self).hasPrefix("M  END") else {
      throw bad("M  END should stand here")
    }
  }

  private mutating func readV3000Atom(_ tokens: [String]) throws(SquintError) {
    guard tokens.count >= 6 else { throw bad("the line of an atom is too short") }
    guard !tokens[1].hasPrefix("["), !tokens[1].uppercased().contains("NOT") else {
      throw bad("a list of atoms is a question, not a molecule")
    }
    let atom = molecule.atoms.count
    try addAtom(
      tokens[1],
      Point(x: try coordinate(tokens[2].utf8), y: try coordinate(tokens[3].utf8), z: try coordinate(tokens[4].utf8)))
    atomIndices[try number(tokens[0].utf8, "the name of the atom")] = atom
    let map = try number(tokens[5].utf8, "the atom map")
    if map > 0 { molecule.atoms[atom].map = map }
    for token in tokens[6...] {
      let parts = token.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard parts.count == 2 else { throw bad("\(token.prefix(20)) is no property of an atom") }
      let value = parts[1]
      switch parts[0].uppercased() {
      case "CHG":
        let charge = try number(value.utf8, "the charge")
        guard abs(charge) <= 127 else { throw bad("the charge is too large") }
        molecule.atoms[atom].charge = charge
      case "RAD": try setRadicals(atom, try number(value.utf8, "the radical"))
      case "MASS":
        guard let mass = Double(value), mass >= 0, mass < 65536 else { throw bad("the mass is “\(value.prefix(20))”") }
        molecule.atoms[atom].isotope = Int(mass)
      case "VAL":
        let valence = try number(value.utf8, "the valence")
        if valence != 0 { valences[atom] = max(0, valence) }
      case "RGROUPS":
        let labels = value.filter { $0 != "(" && $0 != ")" }.split(separator: " ")
        if let label = labels.last.flatMap({ Int($0) }), labels.count > 1 {
          molecule.atoms[atom].isotope = label & 0xFFFF
        }
      case "HCOUNT", "UNSAT", "RBCNT", "SUBST":
        guard value == "0" else { throw bad("\(token.prefix(20)) is a question, not a molecule") }
      default: break
      }
    }
  }

  private mutating func readV3000Bond(_ tokens: [String]) throws(SquintError) {
    guard tokens.count >= 4 else { throw bad("the line of a bond is too short") }
    let type = try number(tokens[1].utf8, "the type of the bond")
    guard let begin = atomIndices[try number(tokens[2].utf8, "an atom of the bond")],
      let end = atomIndices[try number(tokens[3].utf8, "an atom of the bond")]
    else { throw bad("the bond is to an atom that does not exist") }
    try addBond(begin, end, type: type)
    let bond = molecule.bonds.count - 1
    for token in tokens[4...] {
      let parts = token.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard parts.count == 2 else { throw bad("\(token.prefix(20)) is no property of a bond") }
      switch parts[0].uppercased() {
      case "CFG":
        switch parts[1] {
        case "0": break
        case "1":
          molecule.bonds[bond].direction = .wedge
          hasWedges = true
        case "2" where type == 1: molecule.bonds[bond].direction = .unknown
        case "2" where type == 2:
          molecule.bonds[bond].direction = .eitherDouble
          molecule.bonds[bond].stereo = .any
        case "2": break
        case "3":
          molecule.bonds[bond].direction = .dash
          hasWedges = true
        default: throw bad("there is no CFG=\(parts[1].prefix(8))")
        }
      case "TOPO":
        guard parts[1] == "0" else { throw bad("the bond asks for a ring, which is a question, not a molecule") }
      case "ENDPTS": throw bad("bonds to several atoms are not read")
      default: break
      }
    }
  }

  // MARK: Perception

  /// In the reference's order: chirality as drawn, directions of bonds by coordinates, and only then hydrogens are taken out.
  private mutating func perceived() throws(SquintError) -> Molecule {
    for atom in molecule.atoms.indices { molecule.updateExplicitValence(atom) }
    for (atom, valence) in valences {
      molecule.atoms[atom].hasNoImplicit = true
      molecule.atoms[atom].explicitHydrogens = max(0, valence - molecule.atoms[atom].explicitValence)
    }
    if hasGroups,
      let hydrogen = molecule.atoms.indices.first(where: {
        molecule.atoms[$0].number == 1 && molecule.atoms[$0].isotope == 0
      })
    {
      // The reference keeps some of them, by what the groups are.
      throw Molecule.bad(
        "\(molecule.name(hydrogen)) is an atom of its own in a file with groups of atoms (S-groups), which is not read; save it without the groups, or without hydrogens"
      )
    }
    let stereo = MolBlockStereo(points: points)
    let hasDepth = points.contains { abs($0.z) > 1e-3 }
    if hasDepth || (isMarkedAsSpace && !hasWedges) {
      for atom in molecule.atoms.indices { molecule.updateValence(atom) }
      stereo.readSpace(&molecule)
    } else if hasWedges {
      try stereo.readWedges(&molecule)
    }
    for bond in molecule.bonds.indices where molecule.bonds[bond].order == .single {
      if molecule.bonds[bond].direction == .unknown { molecule.bonds[bond].hasUnknownStereo = true }
      molecule.bonds[bond].direction = .none
    }
    molecule.chargeHypervalentAtoms()
    try molecule.findRings()
    stereo.readDoubleBonds(&molecule)
    try molecule.perceive()
    return molecule
  }
}

extension String {
  fileprivate var trimmingBlanks: String {
    var text = Substring(self)
    while text.last == " " || text.last == "\t" { text.removeLast() }
    return String(text)
  }
}
