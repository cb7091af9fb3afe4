import SquintFile

/// How many bonds atoms have, and how many hydrogens that leaves (RDKit's Atom.cpp and MolOps.cpp).
extension Molecule {
  /// Twice the sum of the orders of the atom's bonds, and its written hydrogens.
  private func twiceBondOrders(_ atom: Int) -> Int {
    atoms[atom].bonds.reduce(2 * atoms[atom].explicitHydrogens) { $0 + bonds[$1].order.twice }
  }

  /// The element whose valences the atom's charge gives it: N⁺ bonds as C does.
  private func effectiveNumber(_ atom: Int) -> Int {
    let number = atoms[atom].number
    guard Elements.valences(number) != [-1] else { return number }
    return min(max(number - atoms[atom].charge, 0), Elements.last)
  }

  /// Phosphorus and sulfur, arsenic and selenium keep their higher valences where their charge would make noble gases of them.
  private func mayBeHypervalent(_ number: Int, effective: Int) -> Bool {
    (effective > 16 && (number == 15 || number == 16)) || (effective > 34 && (number == 33 || number == 34))
  }

  func explicitValence(_ atom: Int, isStrict: Bool) throws(SquintError) -> Int {
    let number = atoms[atom].number
    var twice = twiceBondOrders(atom)
    let own = Elements.valences(number)
    let effective = effectiveNumber(atom)
    let valences = Elements.valences(effective)
    let usual = valences[0]
    if usual >= 0, twice > 2 * usual, isAromatic(atom) {
      // What aromatic bonds add up to is an estimate: a half order each too many.
      var fitting = usual
      for valence in valences {
        guard valence >= 0, 2 * valence <= twice else { break }
        fitting = valence
      }
      if twice - 2 * fitting <= 3 { twice = 2 * fitting }
    }
    let valence = (twice + 1) / 2
    if isStrict {
      var most = valences[valences.count - 1]
      var counted = valence
      if mayBeHypervalent(number, effective: effective) {
        most = own[own.count - 1]
        counted -= atoms[atom].charge
      }
      if number == 1 && atoms[atom].charge == -1 { most = 2 }
      if most >= 0, own[own.count - 1] >= 0, counted > most {
        throw Self.bad(tooManyBonds(atom, valence, most: most + valence - counted))
      }
    }
    return valence
  }

  private func tooManyBonds(_ atom: Int, _ valence: Int, most: Int) -> String {
    let charge = atoms[atom].charge
    let charged = charge == 0 ? "" : " with a charge of \(charge > 0 ? "+" : "−")\(abs(charge))"
    return
      "\(name(atom))\(charged) has \(valence) bond\(valence == 1 ? "" : "s"), double ones counted twice; it may have \(max(0, most))"
  }

  func implicitValence(_ atom: Int, isStrict: Bool) throws(SquintError) -> Int {
    let number = atoms[atom].number
    guard !atoms[atom].hasNoImplicit, number > 0 else { return 0 }
    let (explicit, charge, radicals) = (atoms[atom].explicitValence, atoms[atom].charge, atoms[atom].radicals)
    if explicit == 0 && radicals == 0 && number == 1 {
      switch charge {
      case 0: return 1
      case 1, -1: return 0
      default:
        guard isStrict else { return 0 }
        throw Self.bad("\(name(atom)) has a charge of \(charge), which no hydrogen has")
      }
    }
    var taken = explicit + radicals
    let own = Elements.valences(number)
    var effective = effectiveNumber(atom)
    guard effective > 0 else { return 0 }
    let usual = Elements.defaultValence(effective)
    guard usual >= 0 else { return 0 }
    if mayBeHypervalent(number, effective: effective) {
      effective = number
      taken -= charge
    }
    let valences = Elements.valences(effective)
    if isAromatic(atom) {
      if taken <= usual { return usual - taken }
      if isStrict, !valences.prefix(while: { $0 > 0 }).contains(taken) {
        throw Self.bad("\(name(atom)) is aromatic with \(taken) bonds, which it cannot have")
      }
      return 0
    }
    for valence in valences {
      guard valence >= 0 else { break }
      if taken <= valence { return valence - taken }
    }
    if isStrict, let most = valences.last, most != -1, own[own.count - 1] > 0 {
      throw Self.bad(tooManyBonds(atom, taken, most: most))
    }
    return 0
  }

  mutating func updateExplicitValence(_ atom: Int) {
    if let valence = try? explicitValence(atom, isStrict: false) { atoms[atom].explicitValence = valence }
  }

  mutating func updateImplicitValence(_ atom: Int) {
    if let valence = try? implicitValence(atom, isStrict: false) { atoms[atom].implicitValence = valence }
  }

  /// Computes both valences of one atom, whatever they are.
  mutating func updateValence(_ atom: Int) {
    updateExplicitValence(atom)
    updateImplicitValence(atom)
  }

  /// Computes both valences of all atoms.
  ///
  /// - Throws: `badData` where an atom has more bonds than it may.
  mutating func updateValences() throws(SquintError) {
    for atom in atoms.indices {
      atoms[atom].explicitValence = try explicitValence(atom, isStrict: true)
      atoms[atom].implicitValence = try implicitValence(atom, isStrict: true)
    }
  }

  // MARK: Usual spellings that are charged in truth

  /// Nitro groups, azides, phosphorus and halogens with too many double bonds become charged.
  mutating func chargeHypervalentAtoms() {
    chargeNitrogens()
    for atom in atoms.indices {
      switch atoms[atom].number {
      case 15: chargePhosphorus(atom)
      case 17, 35, 53: chargeHalogen(atom)
      default: break
      }
    }
  }

  /// Makes the first bond from `atom` of order `order` to a neutral `number` of order `newOrder`, with its charge.
  private mutating func separateCharge(_ atom: Int, to number: Int, _ order: Bond.Order, _ newOrder: Bond.Order) {
    for bond in atoms[atom].bonds where bonds[bond].order == order {
      let neighbor = bonds[bond].other(atom)
      guard atoms[neighbor].number == number, atoms[neighbor].charge == 0 else { continue }
      bonds[bond].order = newOrder
      atoms[atom].charge = 1
      atoms[neighbor].charge = -1
      return
    }
  }

  private mutating func chargeNitrogens() {
    var pentavalent: [Int] = []
    for atom in atoms.indices where atoms[atom].number == 7 && atoms[atom].charge == 0 {
      updateExplicitValence(atom)
      guard atoms[atom].explicitValence == 5 else { continue }
      pentavalent.append(atom)
      separateCharge(atom, to: 8, .double, .single)
    }
    for atom in pentavalent { separateCharge(atom, to: 7, .triple, .double) }
  }

  private mutating func chargePhosphorus(_ atom: Int) {
    guard atoms[atom].charge == 0 else { return }
    updateExplicitValence(atom)
    guard atoms[atom].explicitValence == 5, atoms[atom].degree == 3 else { return }
    var oxide: Int?
    var hasOther = false
    for bond in atoms[atom].bonds where bonds[bond].order == .double {
      let neighbor = atoms[bonds[bond].other(atom)]
      if neighbor.number == 8 && neighbor.charge == 0 {
        oxide = bond
      } else if (neighbor.number == 6 || neighbor.number == 7) && neighbor.degree >= 2 {
        hasOther = true
      }
    }
    guard let oxide, hasOther else { return }
    atoms[bonds[oxide].other(atom)].charge = -1
    bonds[oxide].order = .single
    atoms[atom].charge = 1
  }

  private mutating func chargeHalogen(_ atom: Int) {
    updateExplicitValence(atom)
    guard atoms[atom].charge == 0, [3, 5, 7].contains(atoms[atom].explicitValence),
      atoms[atom].bonds.allSatisfy({ atoms[bonds[$0].other(atom)].number == 8 })
    else { return }
    var charge = 0
    for bond in atoms[atom].bonds where bonds[bond].order == .double {
      bonds[bond].order = .single
      charge += 1
      atoms[bonds[bond].other(atom)].charge = -1
    }
    atoms[atom].charge = charge
  }

  /// Refuses what perception would turn into a dative bond: a single bond from an atom that has too many already to a metal.
  func refuseDativeBonds() throws(SquintError) {
    for atom in atoms.indices {
      let number = atoms[atom].number
      guard !Elements.isMetal(number), ![1, 2, 9, 10].contains(number) else { continue }
      let effective = number - atoms[atom].charge
      guard effective > 0, effective <= Elements.last, let most = Elements.valences(effective).last, most > 0 else {
        continue
      }
      let valence = atoms[atom].explicitValence
      guard valence > most || (valence == most && atoms[atom].isAromatic && atoms[atom].totalDegree == 4) else {
        continue
      }
      for bond in atoms[atom].bonds where bonds[bond].order == .single {
        let metal = bonds[bond].other(atom)
        guard Elements.isMetal(atoms[metal].number) else { continue }
        throw Self.bad(
          "\(name(atom)) has more bonds than it may, so the one to \(name(metal)) is dative, and the features of bonds have no number for that"
        )
      }
    }
  }

  // MARK: Radicals and hydrogens

  /// Electrons that are left alone at atoms whose hydrogens are all written.
  mutating func assignRadicals() {
    for atom in atoms.indices where atoms[atom].hasNoImplicit && atoms[atom].number > 0 {
      let (number, charge) = (atoms[atom].number, atoms[atom].charge)
      let valences = Elements.valences(number)
      let outer = Elements.outerElectrons[number]
      guard valences != [-1] else {
        atoms[atom].radicals = atoms[atom].degree > 0 ? 0 : max(0, outer - charge) % 2
        continue
      }
      let valence = twiceBondOrders(atom) / 2
      let shell = number <= 2 ? 2 : 8
      var radicals = shell - outer - valence + charge
      if radicals < 0 {
        radicals = 0
        if valences.count > 1, let fitting = valences.first(where: { $0 - valence + charge >= 0 }) {
          radicals = fitting - valence + charge
        }
      }
      let early = outer - valence - charge
      if early >= 0 { radicals = min(radicals, early) }
      atoms[atom].radicals = radicals
    }
  }

  /// Which atoms are aromatic, or have an aromatic bond by its flag.
  func aromaticAtoms() -> [Bool] {
    var isAromatic = atoms.map(\.isAromatic)
    for bond in bonds where bond.isAromatic {
      isAromatic[bond.begin] = true
      isAromatic[bond.end] = true
    }
    return isAromatic
  }

  /// Writes down the hydrogens that `aromatic` atoms would lose by being aromatic, such as pyrrole's.
  mutating func keepHydrogens(of aromatic: [Bool]) {
    for atom in atoms.indices where aromatic[atom] {
      let before = atoms[atom].implicitHydrogens
      updateValence(atom)
      let after = atoms[atom].implicitValence
      if after < before {
        atoms[atom].explicitHydrogens += before - after
        updateExplicitValence(atom)
      }
    }
  }
}
