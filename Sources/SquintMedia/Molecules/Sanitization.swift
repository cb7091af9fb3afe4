import SquintFile

/// From a molecule as it is written to the one that RDKit would give: without hydrogens, with aromaticity and checked chirality.
extension Molecule {
  /// Perceives all that the features tell, but for what `perceiveStereo` does.
  ///
  /// - Throws: `badData` where the molecule makes no sense, or the features have no numbers for it.
  mutating func perceive() throws(SquintError) {
    for atom in atoms.indices { updateValence(atom) }
    removeHydrogens()
    try sanitize()
    // Several hydrogens at a chiral atom say that it is none.
    for atom in atoms.indices
    where !atoms[atom].hasNoImplicit && atoms[atom].chirality != .none && atoms[atom].explicitHydrogens > 1 {
      atoms[atom].explicitHydrogens = 0
      updateValence(atom)
    }
  }

  /// RDKit's `sanitizeMol`.
  private mutating func sanitize() throws(SquintError) {
    chargeHypervalentAtoms()
    for atom in atoms.indices { updateValence(atom) }
    try refuseDativeBonds()
    try updateValences()
    var aromatic = aromaticAtoms()
    try findRings()
    try kekulize()
    assignRadicals()
    try perceiveAromaticity()
    for (atom, isAromatic) in aromaticAtoms().enumerated() where isAromatic { aromatic[atom] = true }
    perceiveConjugation()
    perceiveHybridization()
    for atom in atoms.indices {
      switch atoms[atom].chirality {
      case .clockwise, .counterclockwise:
        if atoms[atom].hybridization != .sp3 { atoms[atom].chirality = .none }
      case let chirality:
        if let range = chirality.coordination, !range.contains(atoms[atom].totalDegree) {
          atoms[atom].chirality = .none
        }
      }
    }
    keepHydrogens(of: aromatic)
    try updateValences()
  }

  // MARK: Hydrogens

  /// Takes out the hydrogen atoms that say no more than a count does (RDKit's `removeHs`).
  private mutating func removeHydrogens() {
    let removed = atoms.indices.filter(isRemovable)
    guard !removed.isEmpty else { return }
    var isGone = [Bool](repeating: false, count: atoms.count)
    var isBondGone = [Bool](repeating: false, count: bonds.count)
    for hydrogen in removed.reversed() {
      let bond = atoms[hydrogen].bonds[0]
      remove(hydrogen, bond)
      isGone[hydrogen] = true
      isBondGone[bond] = true
    }
    var atomIndex = [Int](repeating: 0, count: atoms.count)
    var bondIndex = [Int](repeating: 0, count: bonds.count)
    var count = 0
    for atom in atoms.indices where !isGone[atom] {
      atomIndex[atom] = count
      count += 1
    }
    count = 0
    for bond in bonds.indices where !isBondGone[bond] {
      bondIndex[bond] = count
      count += 1
    }
    atoms = atoms.indices.filter { !isGone[$0] }.map { index in
      var atom = atoms[index]
      atom.bonds = atom.bonds.map { bondIndex[$0] }
      return atom
    }
    bonds = bonds.indices.filter { !isBondGone[$0] }.map { index in
      var bond = bonds[index]
      (bond.begin, bond.end) = (atomIndex[bond.begin], atomIndex[bond.end])
      return bond
    }
  }

  private func isRemovable(_ atom: Int) -> Bool {
    let this = atoms[atom]
    guard this.number == 1, this.degree == 1, this.isotope == 0, this.charge != -1 else { return false }
    let bond = bonds[this.bonds[0]]
    let neighbor = atoms[bond.other(atom)]
    // A hydrogen that tells on which side of a double bond it is stays, where no other atom tells it.
    if neighbor.degree == 2, bond.direction != .none,
      neighbor.bonds.contains(where: { bonds[$0].order == .double })
    {
      return false
    }
    return neighbor.number > 1 && neighbor.chirality.coordination == nil
  }

  /// Takes a hydrogen's bond from its neighbor, which counts it.
  private mutating func remove(_ hydrogen: Int, _ bond: Int) {
    let heavy = bonds[bond].other(hydrogen)
    if text == .smiles || mustWriteHydrogen(heavy) { atoms[heavy].explicitHydrogens += 1 }
    let others = atoms[heavy].bonds.filter { $0 != bond }
    if atoms[heavy].chirality != .none && isOddPermutation(others + [bond], of: heavy) {
      atoms[heavy].chirality = atoms[heavy].chirality.inverted
    }
    let direction = bonds[bond].direction
    if direction == .unknown && bonds[bond].begin == heavy {
      atoms[heavy].hasUnknownStereo = true
    } else if direction.isStereo {
      // Another bond there takes over what the direction says.
      var free: Int?
      var hasDirection = false
      for other in others where bonds[other].order == .single {
        if bonds[other].direction == .none { free = other } else { hasDirection = true }
      }
      if let free, !hasDirection {
        let isFlipped = bonds[free].begin == heavy && bonds[bond].begin == heavy
        bonds[free].direction = isFlipped ? direction.opposite : direction
      }
    }
    atoms[heavy].bonds = others
  }

  /// Whether an atom of a MOL file would lose the hydrogen that is taken out, if it were not written down.
  private func mustWriteHydrogen(_ atom: Int) -> Bool {
    let this = atoms[atom]
    if this.hasNoImplicit || this.chirality != .none { return true }
    if Elements.valences(this.number).dropFirst().contains(this.totalValence) { return true }
    guard isAromatic(atom) else { return false }
    if this.number == 7 || this.number == 15 { return true }
    let orders = this.bonds.map { bonds[$0].order }
    return orders.count == 3 && orders.filter { $0 == .single }.count == 1
      && orders.filter { $0 == .aromatic }.count == 2 && this.totalValence == 3
  }

  // MARK: The graph

  /// The numbers of the molecule's atoms and bonds.
  ///
  /// - Throws: `badData` where the features have none for it.
  func graph() throws(SquintError) -> MoleculeGraph {
    var nodes: [MoleculeGraph.Atom] = []
    nodes.reserveCapacity(atoms.count)
    for atom in atoms.indices {
      let this = atoms[atom]
      if let name = this.chirality.unknownName {
        throw Self.bad("\(self.name(atom)) is \(name), and the features of atoms have no number for that")
      }
      nodes.append(
        MoleculeGraph.Atom(
          element: Int32(this.number == 0 ? Elements.last : this.number - 1), chirality: Int32(this.chirality.rawValue))
      )
    }
    var edges: [MoleculeGraph.Edge] = []
    edges.reserveCapacity(2 * bonds.count)
    for bond in bonds {
      let direction: Int32 = bond.direction == .up ? 1 : bond.direction == .down ? 2 : 0
      for (source, target) in [(bond.begin, bond.end), (bond.end, bond.begin)] {
        edges.append(
          MoleculeGraph.Edge(
            source: Int32(source), target: Int32(target), type: Int32(bond.order.rawValue), direction: direction))
      }
    }
    return MoleculeGraph(atoms: nodes, edges: edges)
  }
}
