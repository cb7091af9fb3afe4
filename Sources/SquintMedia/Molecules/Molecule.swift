import SquintFile

/// A molecule while it is read and perceived: atoms and bonds, each by its index.
///
/// Each atom has a list of its bonds, in the order in which they were added; chirality is told by that order.
struct Molecule {
  /// Molecules of more atoms are refused: an atom becomes a row of the prompt, and no decoder of these models takes as many.
  static let mostAtoms = 4096

  enum Chirality: UInt8 {
    case none, clockwise, counterclockwise, allene, squarePlanar, bipyramidal, octahedral

    var inverted: Chirality {
      switch self {
      case .clockwise: .counterclockwise
      case .counterclockwise: .clockwise
      default: self
      }
    }

    /// How many neighbors a centre has that is none of four; nil for others.
    var coordination: ClosedRange<Int>? {
      switch self {
      case .squarePlanar: 2...4
      case .bipyramidal: 2...5
      case .octahedral: 2...6
      default: nil
      }
    }

    /// What the features of atoms have no number for, in words.
    var unknownName: String? {
      switch self {
      case .allene: "the centre of an allene (@AL)"
      case .squarePlanar: "a square planar centre (@SP)"
      case .bipyramidal: "a trigonal bipyramidal centre (@TB)"
      case .octahedral: "an octahedral centre (@OH)"
      case .none, .clockwise, .counterclockwise: nil
      }
    }
  }

  enum Hybridization: UInt8 {
    case unspecified, s, sp, sp2, sp3, sp3d, sp3d2
  }

  struct Atom {
    var number: Int
    var isotope = 0
    var charge = 0
    /// Hydrogens that are written at the atom, not atoms of their own.
    var explicitHydrogens = 0
    /// Whether the atom has no hydrogens but those written.
    var hasNoImplicit = false
    var isAromatic = false
    var chirality = Chirality.none
    var radicals = 0
    /// The number of a reaction's atom map; nil where there is none.
    var map: Int?
    var startsFragment = false
    var hasUnknownStereo = false
    var hybridization = Hybridization.unspecified
    /// Computed by `updateValence`, and only then: some rules look at what they were before aromaticity was perceived.
    var explicitValence = 0
    var implicitValence = 0
    /// Where it is in the text: a character of SMILES, or a line of a MOL file. From 1.
    var place: Int
    var bonds: [Int] = []

    init(_ number: Int, place: Int) {
      self.number = number
      self.place = place
    }

    var degree: Int { bonds.count }
    var implicitHydrogens: Int { hasNoImplicit ? 0 : implicitValence }
    var hydrogens: Int { explicitHydrogens + implicitHydrogens }
    var totalDegree: Int { hydrogens + degree }
    var totalValence: Int { explicitValence + implicitHydrogens }
  }

  struct Bond {
    enum Order: UInt8 {
      case single, double, triple, aromatic

      /// Twice the bond's order, as valences count it.
      var twice: Int {
        switch self {
        case .single: 2
        case .double: 4
        case .triple: 6
        case .aromatic: 3
        }
      }

      /// The bond's order, where half an order counts as a whole.
      var rounded: Int { (twice + 1) / 2 }
    }

    enum Direction: UInt8 {
      case none, up, down, wedge, dash, unknown, eitherDouble

      var isStereo: Bool { self == .up || self == .down }
      var opposite: Direction { self == .up ? .down : self == .down ? .up : self }
    }

    enum Stereo: UInt8 {
      case none, any, z, e
    }

    var begin: Int
    var end: Int
    var order: Order
    /// Whether the text leaves the order to the atoms.
    var isUnspecified = false
    var isAromatic = false
    var isConjugated = false
    var direction = Direction.none
    var stereo = Stereo.none
    var hasUnknownStereo = false
    var place: Int

    init(_ begin: Int, _ end: Int, _ order: Order, place: Int) {
      self.begin = begin
      self.end = end
      self.order = order
      self.place = place
    }

    func other(_ atom: Int) -> Int { atom == begin ? end : begin }
  }

  enum Text {
    case smiles, molBlock
  }

  let text: Text
  var atoms: [Atom] = []
  var bonds: [Bond] = []
  var rings = Rings()

  init(_ text: Text) { self.text = text }

  // MARK: Building

  mutating func add(_ bond: Bond) {
    atoms[bond.begin].bonds.append(bonds.count)
    atoms[bond.end].bonds.append(bonds.count)
    bonds.append(bond)
  }

  func bond(between first: Int, _ second: Int) -> Int? {
    let (few, other) = atoms[first].degree <= atoms[second].degree ? (first, second) : (second, first)
    return atoms[few].bonds.first { bonds[$0].other(few) == other }
  }

  /// The atoms that `atom` is bonded to, in the order of its bonds.
  func neighbors(_ atom: Int) -> [Int] { atoms[atom].bonds.map { bonds[$0].other(atom) } }

  /// Whether the atom, or one of its bonds, is written as aromatic.
  func isAromatic(_ atom: Int) -> Bool {
    atoms[atom].isAromatic || atoms[atom].bonds.contains { bonds[$0].isAromatic || bonds[$0].order == .aromatic }
  }

  /// Whether it takes an odd number of swaps to bring `order`, indices of the atom's bonds, into the order of its list.
  func isOddPermutation(_ order: [Int], of atom: Int) -> Bool {
    let list = atoms[atom].bonds
    var order = order
    var isOdd = false
    for (index, bond) in list.enumerated() where order[index] != bond {
      guard let place = order[index...].firstIndex(of: bond) else { continue }
      order.swapAt(index, place)
      isOdd.toggle()
    }
    return isOdd
  }

  // MARK: Errors

  /// The atom in the words of a message: "the carbon at character 5".
  func name(_ atom: Int) -> String {
    let number = atoms[atom].number
    return "the \(number == 0 ? "*" : Elements.names[number]) \(position(atoms[atom].place))"
  }

  func position(_ place: Int) -> String {
    switch text {
    case .smiles: "at character \(place)"
    case .molBlock: "of line \(place)"
    }
  }

  /// A molecule that makes no sense, or that the features have no numbers for.
  static func bad(_ message: String) -> SquintError { SquintError(.badData, message) }
}
