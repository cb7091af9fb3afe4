/// What perception knows about an element, by its atomic number; 0 is any atom, `*`.
///
/// The numbers are those of RDKit 2026.9.1's periodic table. They are a model of valence, not measurements.
enum Elements {
  static let last = 118

  static let symbols: [String] = [
    "*", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb",
    "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba",
    "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",
    "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",
    "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds",
    "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og",
  ]

  static let names: [String] = [
    "any atom", "hydrogen", "helium", "lithium", "beryllium", "boron", "carbon", "nitrogen", "oxygen", "fluorine",
    "neon", "sodium", "magnesium", "aluminium", "silicon", "phosphorus", "sulfur", "chlorine", "argon",
    "potassium", "calcium", "scandium", "titanium", "vanadium", "chromium", "manganese", "iron", "cobalt",
    "nickel", "copper", "zinc", "gallium", "germanium", "arsenic", "selenium", "bromine", "krypton", "rubidium",
    "strontium", "yttrium", "zirconium", "niobium", "molybdenum", "technetium", "ruthenium", "rhodium",
    "palladium", "silver", "cadmium", "indium", "tin", "antimony", "tellurium", "iodine", "xenon", "caesium",
    "barium", "lanthanum", "cerium", "praseodymium", "neodymium", "promethium", "samarium", "europium",
    "gadolinium", "terbium", "dysprosium", "holmium", "erbium", "thulium", "ytterbium", "lutetium", "hafnium",
    "tantalum", "tungsten", "rhenium", "osmium", "iridium", "platinum", "gold", "mercury", "thallium", "lead",
    "bismuth", "polonium", "astatine", "radon", "francium", "radium", "actinium", "thorium", "protactinium",
    "uranium", "neptunium", "plutonium", "americium", "curium", "berkelium", "californium", "einsteinium",
    "fermium", "mendelevium", "nobelium", "lawrencium", "rutherfordium", "dubnium", "seaborgium", "bohrium",
    "hassium", "meitnerium", "darmstadtium", "roentgenium", "copernicium", "nihonium", "flerovium", "moscovium",
    "livermorium", "tennessine", "oganesson",
  ]

  /// The valences that an element may have, rising; -1 at the end: any other too.
  static func valences(_ number: Int) -> [Int] {
    switch number {
    case 1, 9, 17, 35, 55, 87: one
    case 2, 10, 18, 36, 86: none
    case 3, 11, 19, 37: oneOrAny
    case 4, 8: two
    case 5, 7, 13, 31, 49: three
    case 6, 14, 32: four
    case 12, 20, 38, 56, 88: twoOrAny
    case 15, 33, 51, 83: threeFive
    case 16, 34, 52, 84: twoFourSix
    case 50, 82: twoFour
    case 53, 85: oneThreeFive
    case 54: evenFromZero
    default: anyValence
    }
  }

  private static let anyValence = [-1]
  private static let one = [1]
  private static let none = [0]
  private static let oneOrAny = [1, -1]
  private static let two = [2]
  private static let three = [3]
  private static let four = [4]
  private static let twoOrAny = [2, -1]
  private static let threeFive = [3, 5]
  private static let twoFourSix = [2, 4, 6]
  private static let twoFour = [2, 4]
  private static let oneThreeFive = [1, 3, 5]
  private static let evenFromZero = [0, 2, 4, 6]

  /// The first of `valences`; -1 where there is no rule.
  static func defaultValence(_ number: Int) -> Int { valences(number)[0] }

  /// The electrons of the outer shell.
  static let outerElectrons: [Int] = [
    0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4, 5, 6, 7,
    8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  ]

  /// The mass number of the most common isotope.
  static let commonIsotope: [Int] = [
    0, 1, 4, 7, 9, 11, 12, 14, 16, 19, 20, 23, 24, 27, 28, 31, 32, 35, 40, 39, 40, 45, 48, 51, 52, 55, 56, 59, 58,
    63, 64, 69, 74, 75, 80, 79, 84, 85, 88, 89, 90, 93, 98, 97, 102, 103, 106, 107, 114, 115, 120, 121, 130, 127,
    132, 133, 138, 139, 140, 141, 142, 145, 152, 153, 158, 159, 164, 165, 166, 169, 174, 175, 180, 181, 184, 187,
    192, 193, 195, 197, 202, 205, 208, 209, 209, 210, 222, 223, 226, 227, 232, 231, 238, 236, 238, 241, 243, 247,
    249, 252, 257, 258, 259, 262, 267, 268, 271, 270, 269, 278, 281, 281, 285, 284, 289, 288, 293, 292, 294,
  ]

  /// Elements whose charge counts against their valence: those to the left of carbon, roughly.
  private static let early: Set<Int> = [
    3, 4, 5, 11, 12, 13, 19, 20, 21, 22, 30, 31, 32, 37, 38, 39, 40, 41, 48, 49, 50, 51, 55, 56, 57, 58, 59, 60,
    61, 72, 73, 80, 81, 82, 83, 87, 88, 89, 90, 91, 92, 93, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114,
    115, 116, 117, 118,
  ]

  private static let nonmetals: Set<Int> = [
    0, 1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 33, 34, 35, 36, 52, 53, 54, 85, 86,
  ]

  static func isEarly(_ number: Int) -> Bool { early.contains(number) }

  static func isMetal(_ number: Int) -> Bool { !nonmetals.contains(number) }

  /// Whether `first` draws electrons from `second`, in a rough order: by outer electrons, then by lightness.
  static func isMoreElectronegative(_ first: Int, than second: Int) -> Bool {
    let (left, right) = (outerElectrons[first], outerElectrons[second])
    return left > right || (left == right && first < second)
  }
}
