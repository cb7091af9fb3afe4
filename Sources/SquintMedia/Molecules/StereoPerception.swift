/// Which marks of chirality and which bond directions mean something; all others are taken off.
///
/// Source: RDKit's Chirality.cpp, `legacyStereoPerception`, which is what `MolFromSmiles` does.
extension Molecule {
  /// Checks all marks, and takes off those that tell nothing.
  mutating func perceiveStereo() {
    var stereo = StereoSearch(atomCount: atoms.count)
    stereo.run(&self)
    clearCentres(stereo)
    clearDirections()
  }

  /// Whether a double bond may have sides: those in small rings have none.
  func mayHaveSides(_ bond: Int) -> Bool {
    let least = rings.leastOfBond[bond]
    return least == 0 || least >= 8
  }

  private mutating func clearCentres(_ stereo: StereoSearch) {
    let isRingCentre = ringCentres(stereo)
    for atom in atoms.indices
    where atoms[atom].chirality != .none && atoms[atom].chirality.coordination == nil && stereo.labels[atom] == .none
      && !isRingCentre[atom]
    {
      atoms[atom].chirality = .none
    }
  }

  /// Takes off directions of bonds that stand at no double bond with sides.
  private mutating func clearDirections() {
    for bond in bonds.indices where bonds[bond].order == .double {
      if bonds[bond].direction == .eitherDouble || bonds[bond].stereo == .any,
        atoms[bonds[bond].begin].degree == 1 || atoms[bonds[bond].end].degree == 1
      {
        if bonds[bond].direction == .eitherDouble { bonds[bond].direction = .none }
        bonds[bond].stereo = .none
      }
      guard bonds[bond].stereo == .none || bonds[bond].stereo == .any else { continue }
      for atom in [bonds[bond].begin, bonds[bond].end] {
        for neighbor in atoms[atom].bonds
        where neighbor != bond && bonds[neighbor].direction.isStereo
          && (bonds[neighbor].order == .single || bonds[neighbor].order == .aromatic)
        {
          let isNeeded = atoms[bonds[neighbor].other(atom)].bonds.contains {
            bonds[$0].order == .double && (bonds[$0].stereo == .z || bonds[$0].stereo == .e)
          }
          if !isNeeded { bonds[neighbor].direction = .none }
        }
      }
    }
  }

  // MARK: Centres of rings

  /// Atoms that are centres by way of others in their ring, as in 1,4-dimethylcyclohexane.
  private func ringCentres(_ stereo: StereoSearch) -> [Bool] {
    var isCentre = [Bool](repeating: false, count: atoms.count)
    guard atoms.contains(where: { $0.chirality != .none }) else { return isCentre }
    let isCandidate = atoms.indices.map { atom in
      atoms[atom].chirality != .none && stereo.labels[atom] == .none && rings.countOfAtom[atom] > 0
        && mayBeRingCentre(atom, stereo.ranks)
    }
    var isSeen = [Bool](repeating: false, count: atoms.count)
    var isUsed = isSeen
    var isBondSeen = [Bool](repeating: false, count: bonds.count)
    for atom in atoms.indices where !isSeen[atom] && isCandidate[atom] {
      var queue: [Int] = []
      func visit(_ from: Int, _ mayUse: (Int) -> Bool) {
        for bond in atoms[from].bonds where !isBondSeen[bond] {
          isBondSeen[bond] = true
          let other = bonds[bond].other(from)
          if rings.countOfBond[bond] > 0 && mayUse(other) {
            queue.append(other)
            isUsed[other] = true
          }
        }
      }
      visit(atom) { !isSeen[$0] }
      var head = 0
      while head < queue.count {
        let other = queue[head]
        head += 1
        isSeen[other] = true
        if isCandidate[other] {
          isCentre[other] = true
          isCentre[atom] = true
        }
        visit(other) { !isSeen[$0] && !isUsed[$0] }
      }
      isSeen[atom] = true
    }
    return isCentre
  }

  private func mayBeRingCentre(_ atom: Int, _ ranks: [Int]) -> Bool {
    let this = atoms[atom]
    if this.number == 7 && this.totalDegree == 3 && !rings.isInTriangle[atom] && !isBridgehead(atom) { return false }
    var outside: [Int] = []
    var inside: [Int] = []
    for bond in this.bonds {
      let rank = ranks[bonds[bond].other(atom)]
      if rings.countOfBond[bond] == 0 { outside.append(rank) } else { inside.append(rank) }
    }
    let different = Set(inside).count
    switch outside.count {
    case 2: return outside[0] != outside[1] && inside.count != different
    case 1: return inside.count > different
    case 0: return (inside.count == 4 && different == 3) || (inside.count == 3 && different == 2)
    default: return false
    }
  }

  /// Whether at least three rings' bonds meet at the atom, each of whose rings shares two bonds with another one there.
  func isBridgehead(_ atom: Int) -> Bool {
    guard atoms[atom].bonds.filter({ rings.countOfBond[$0] > 0 }).count >= 3 else { return false }
    let own = rings.atoms.indices.filter { rings.atoms[$0].contains(atom) }.map { Set(rings.bonds[$0]) }
    return own.indices.allSatisfy { ring in
      own.indices.contains { $0 != ring && own[$0].intersection(own[ring]).count >= 2 }
    }
  }
}

/// The search for centres and sides: labels found make other atoms differ, which makes further labels.
private struct StereoSearch {
  enum Label {
    case none, r, s
  }

  private(set) var labels: [Label]
  /// The last ranks that were used; empty where none were needed.
  private(set) var ranks: [Int] = []

  init(atomCount: Int) { labels = [Label](repeating: .none, count: atomCount) }

  mutating func run(_ molecule: inout Molecule) {
    var hasCentres = false
    var mayHaveCentres = false
    for atom in molecule.atoms.indices {
      if !hasCentres && molecule.atoms[atom].chirality != .none {
        hasCentres = true
      } else if !mayHaveCentres {
        mayHaveCentres = isCentre(atom, molecule)
      }
    }
    var hasSides = false
    var mayHaveSides = false
    for bond in molecule.bonds.indices {
      let order = molecule.bonds[bond].order
      if order == .double || order == .aromatic, !molecule.mayHaveSides(bond) {
        if molecule.bonds[bond].direction == .eitherDouble { molecule.bonds[bond].direction = .none }
        molecule.bonds[bond].stereo = .none
        continue
      }
      guard order == .double else { continue }
      if molecule.bonds[bond].direction == .eitherDouble {
        molecule.bonds[bond].stereo = .any
        molecule.bonds[bond].direction = .none
      } else if molecule.bonds[bond].stereo != .any {
        molecule.bonds[bond].stereo = .none
      }
      guard !hasSides else { continue }
      let ends = [molecule.bonds[bond].begin, molecule.bonds[bond].end]
      hasSides = ends.contains { atom in
        molecule.atoms[atom].bonds.contains { molecule.bonds[$0].direction.isStereo }
      }
      if !hasSides { mayHaveSides = true }
    }

    var keepsGoing = hasCentres || hasSides || mayHaveCentres || mayHaveSides
    while keepsGoing {
      var foundCentres = false
      var foundSides = false
      if hasCentres || mayHaveCentres { (hasCentres, foundCentres) = labelCentres(molecule) }
      if hasSides || mayHaveSides { (hasSides, foundSides) = labelBonds(&molecule) }
      keepsGoing = (hasCentres || hasSides) && (foundCentres || foundSides)
      if keepsGoing { rankAgain(molecule) }
    }
  }

  private mutating func needRanks(_ molecule: Molecule) {
    if ranks.isEmpty { ranks = molecule.stereoRanks() }
  }

  /// Ranks that also tell apart what the labels do.
  private mutating func rankAgain(_ molecule: Molecule) {
    var factor = 100
    while factor < molecule.atoms.count { factor *= 10 }
    ranks = molecule.rankedByNeighbors(
      molecule.atoms.indices.map { atom in
        var key = ranks[atom] * factor
        switch labels[atom] {
        case .none: break
        case .s: key += 10
        case .r: key += 20
        }
        for bond in molecule.atoms[atom].bonds where molecule.bonds[bond].order == .double {
          switch molecule.bonds[bond].stereo {
          case .e: key += 1
          case .z: key += 2
          case .none, .any: break
          }
        }
        return key
      })
  }

  // MARK: Atoms

  /// Whether an atom could be a centre as far as itself and its bonds say, whatever its neighbors are.
  private func isCentre(_ atom: Int, _ molecule: Molecule) -> Bool {
    let this = molecule.atoms[atom]
    let (degree, total) = (this.degree, this.totalDegree)
    guard (3...4).contains(total) else { return false }
    if degree < 3 { return this.number == 15 || this.number == 33 }
    guard degree == 3 else { return true }
    if this.hydrogens == 1 {
      return !molecule.neighbors(atom).contains { molecule.atoms[$0].number == 1 && molecule.atoms[$0].isotope == 0 }
    }
    switch this.number {
    case 7:
      return this.hybridization == .sp3 && !molecule.hasConjugatedBond(atom)
        && (molecule.rings.isInTriangle[atom] || molecule.isBridgehead(atom))
    case 15, 33: return true
    case 16, 34: return this.explicitValence == 4 || (this.explicitValence == 3 && this.charge == 1)
    default: return false
    }
  }

  /// Labels the centres whose neighbors all differ. Returns whether some centres have no label yet, and whether some got one.
  private mutating func labelCentres(_ molecule: Molecule) -> (hasOpen: Bool, hasFound: Bool) {
    var open = 0
    var hasFound = false
    for atom in molecule.atoms.indices where labels[atom] == .none {
      needRanks(molecule)
      guard isCentre(atom, molecule) else { continue }
      open += 1
      let this = molecule.atoms[atom]
      guard this.chirality != .none else { continue }
      let neighbors = molecule.neighbors(atom).map { ranks[$0] }
      guard Set(neighbors).count == neighbors.count else { continue }
      hasFound = true
      open -= 1
      let sorted = neighbors.indices.sorted { neighbors[$0] < neighbors[$1] }.map { this.bonds[$0] }
      var isOdd = molecule.isOddPermutation(sorted, of: atom)
      if sorted.count == 3 && this.hydrogens == 1 { isOdd.toggle() }
      var isCounterclockwise = this.chirality == .counterclockwise
      if isOdd { isCounterclockwise.toggle() }
      labels[atom] = isCounterclockwise ? .s : .r
    }
    return (open > 0, hasFound)
  }

  // MARK: Bonds

  private struct Side {
    let atom: Int
    let bond: Int
    /// As if the bond began at the double bond.
    var direction: Molecule.Bond.Direction
  }

  /// The bonds at one end of a double bond with their directions; none where they tell nothing.
  private func sides(_ atom: Int, _ bond: Int, _ molecule: Molecule, _ isUnknown: inout Bool) -> [Side] {
    var sides: [Side] = []
    for other in molecule.atoms[atom].bonds {
      let this = molecule.bonds[other]
      if this.direction == .unknown || this.hasUnknownStereo { isUnknown = true }
      guard other != bond else { continue }
      let direction = this.begin == atom ? this.direction : this.direction.opposite
      sides.append(Side(atom: this.other(atom), bond: other, direction: direction))
    }
    guard sides.contains(where: \.direction.isStereo) else { return [] }
    if sides.count == 2 && ranks[sides[0].atom] == ranks[sides[1].atom] { return [] }
    if !sides[0].direction.isStereo {
      sides[0].direction = sides[1].direction.opposite
    } else if sides.count > 1 && !sides[1].direction.isStereo {
      sides[1].direction = sides[0].direction.opposite
    }
    return sides
  }

  /// Tells the sides of double bonds. Returns whether some have none yet, and whether some got them.
  private mutating func labelBonds(_ molecule: inout Molecule) -> (hasOpen: Bool, hasFound: Bool) {
    var open = 0
    var hasFound = false
    var contradicting: [Int] = []
    for bond in molecule.bonds.indices
    where molecule.bonds[bond].order == .double && molecule.bonds[bond].stereo == .none {
      needRanks(molecule)
      let (begin, end) = (molecule.bonds[bond].begin, molecule.bonds[bond].end)
      guard molecule.mayHaveSides(bond), (2...3).contains(molecule.atoms[begin].degree),
        (2...3).contains(molecule.atoms[end].degree)
      else { continue }
      open += 1
      var isUnknown = molecule.atoms[begin].hasUnknownStereo || molecule.atoms[end].hasUnknownStereo
      let first = sides(begin, bond, molecule, &isUnknown)
      let second = sides(end, bond, molecule, &isUnknown)
      guard !first.isEmpty && !second.isEmpty else { continue }
      open -= 1
      hasFound = true
      let contradictions = [first, second].filter { $0.count == 2 && $0[0].direction == $0[1].direction }
      if contradictions.isEmpty {
        molecule.bonds[bond].stereo = isUnknown ? .any : higher(first).direction == higher(second).direction ? .z : .e
      } else {
        contradicting.append(contentsOf: contradictions.joined().map(\.bond))
      }
    }
    for bond in contradicting { molecule.bonds[bond].direction = .none }
    return (open > 0, hasFound)
  }

  private func higher(_ sides: [Side]) -> Side {
    sides.count == 1 || ranks[sides[0].atom] > ranks[sides[1].atom] ? sides[0] : sides[1]
  }
}
