import SquintFile

/// RDKit's model of aromaticity (Aromaticity.cpp): rings, alone or up to six fused, with 4n + 2 electrons.
extension Molecule {
  /// What an atom gives to the electrons of a ring.
  private enum Donor {
    case vacant, one, two, any, nothing

    var least: Int {
      switch self {
      case .one, .any: 1
      case .two: 2
      case .vacant, .nothing: 0
      }
    }

    var most: Int {
      switch self {
      case .one: 1
      case .two, .any: 2
      case .vacant, .nothing: 0
      }
    }
  }

  /// Larger rings are not fused with others: a bit more than porphyrin's outer ring.
  private static let mostFusedRingSize = 24
  private static let mostFusedRings = 6
  /// From so many rings on, no more than two are fused.
  private static let manyRings = 300
  /// Rings from this size on are macrocycles, where ethers do not conjugate.
  private static let macrocycle = 9
  /// Sets of fused rings that are tried: what 300 rings of graphene have, twice. They take 100 bytes each while they are tried.
  private static let mostSets = 600_000

  /// Marks the aromatic atoms and bonds; gives the bonds their aromatic order.
  ///
  /// - Throws: `badData` where rings are fused in too many ways, or a charge is impossible.
  mutating func perceiveAromaticity() throws(SquintError) {
    var donors = [Donor](repeating: .nothing, count: atoms.count)
    var isCandidate = [Bool](repeating: false, count: atoms.count)
    var isSeen = [Bool](repeating: false, count: atoms.count)
    var candidates: [Int] = []
    for (index, ring) in rings.atoms.enumerated() {
      var areAll = true
      for atom in ring {
        if !isSeen[atom] {
          isSeen[atom] = true
          var donor = donorType(atom)
          if donor == .two && ring.count >= Self.macrocycle && isEther(atom) { donor = .nothing }
          donors[atom] = donor
          isCandidate[atom] = try mayBeAromatic(atom, donor)
        }
        if !isCandidate[atom] { areAll = false }
      }
      if areAll && ring.contains(where: { atoms[$0].number > 0 }) { candidates.append(index) }
    }

    let neighbors = fusedNeighbors(candidates)
    var isDone = [Bool](repeating: false, count: candidates.count)
    var sets = 0
    for start in candidates.indices where !isDone[start] {
      var system = [start]
      isDone[start] = true
      var head = 0
      while head < system.count {
        for other in neighbors[system[head]] where !isDone[other] {
          isDone[other] = true
          system.append(other)
        }
        head += 1
      }
      try markAromatic(system, candidates, neighbors, donors, &sets)
    }
  }

  /// Of each of `candidates`: those that share one bond with it, by their place in that list.
  private func fusedNeighbors(_ candidates: [Int]) -> [[Int]] {
    var neighbors = [[Int]](repeating: [], count: candidates.count)
    var ofBond: [Int: [Int]] = [:]
    for (index, ring) in candidates.enumerated() where rings.bonds[ring].count <= Self.mostFusedRingSize {
      var shared: [Int: Int] = [:]
      for bond in rings.bonds[ring] {
        for other in ofBond[bond] ?? [] { shared[other, default: 0] += 1 }
        ofBond[bond, default: []].append(index)
      }
      for (other, count) in shared where count == 1 {
        neighbors[index].append(other)
        neighbors[other].append(index)
      }
    }
    return neighbors.map { $0.sorted() }
  }

  private func isEther(_ atom: Int) -> Bool {
    let this = atoms[atom]
    return (this.number == 8 || this.number == 16) && this.degree == 2 && this.charge == 0
      && !this.bonds.contains { bonds[$0].order == .double || bonds[$0].order == .triple }
  }

  /// Marks what is aromatic in one system of fused rings: first single rings, then two together, and so on.
  private mutating func markAromatic(
    _ system: [Int], _ candidates: [Int], _ neighbors: [[Int]], _ donors: [Donor], _ sets: inout Int
  ) throws(SquintError) {
    let bondCount = Set(system.flatMap { rings.bonds[candidates[$0]] }).count
    var done: Set<Int> = []
    // Sets of rings that hang together, each by rising index.
    var level = system.map { [$0] }
    var size = 1
    while true {
      for set in level {
        sets += 1
        guard sets <= Self.mostSets else { throw Self.tooManyRings }
        let chosen = set.map { candidates[$0] }
        if isAromatic(chosen, donors) { mark(chosen, &done) }
      }
      if size == 2 && system.count > Self.manyRings { return }
      size += 1
      guard size <= min(system.count, Self.mostFusedRings), done.count < bondCount else { return }
      var larger: Set<[Int]> = []
      for set in level {
        for ring in set {
          for other in neighbors[ring] where !set.contains(other) {
            larger.insert((set + [other]).sorted())
          }
        }
        guard sets + larger.count <= Self.mostSets else { throw Self.tooManyRings }
      }
      level = Array(larger)
    }
  }

  /// Whether the atoms of one or two of these rings have 4n + 2 electrons.
  private func isAromatic(_ chosen: [Int], _ donors: [Donor]) -> Bool {
    var least = 0
    var most = 0
    var anyCount = 0
    func add(_ atom: Int) {
      if donors[atom] == .any { anyCount += 1 }
      least += donors[atom].least
      most += donors[atom].most
    }
    if chosen.count == 1 {
      for atom in rings.atoms[chosen[0]] { add(atom) }
    } else {
      var counts: [Int: Int] = [:]
      for ring in chosen {
        for atom in rings.atoms[ring] { counts[atom, default: 0] += 1 }
      }
      for (atom, count) in counts where count <= 2 { add(atom) }
    }
    guard anyCount <= 1 else { return false }
    if most >= 6 { return (least...most).contains { ($0 - 2) % 4 == 0 } }
    return most == 2
  }

  /// Marks the bonds that only one of these rings has, and their atoms.
  private mutating func mark(_ chosen: [Int], _ done: inout Set<Int>) {
    var counts: [Int: Int] = [:]
    for ring in chosen {
      for bond in rings.bonds[ring] { counts[bond, default: 0] += 1 }
    }
    for (bond, count) in counts where count == 1 {
      bonds[bond].isAromatic = true
      if bonds[bond].order == .single || bonds[bond].order == .double {
        bonds[bond].order = .aromatic
        atoms[bonds[bond].begin].isAromatic = true
        atoms[bonds[bond].end].isAromatic = true
      }
      done.insert(bond)
    }
  }

  private func mayBeAromatic(_ atom: Int, _ donor: Donor) throws(SquintError) -> Bool {
    let this = atoms[atom]
    if this.number > 18 && this.number != 34 && this.number != 52 { return false }
    guard donor != .nothing else { return false }
    if Elements.defaultValence(this.number) > 0 {
      let effective = this.number - this.charge
      guard (0...Elements.last).contains(effective) else {
        throw Self.bad("\(name(atom)) has a charge of \(this.charge), which no such atom has")
      }
      if this.totalValence > Elements.defaultValence(effective) { return false }
    }
    if this.radicals > 0 && (this.number != 6 || this.charge != 0) { return false }
    if this.explicitValence - this.degree > 1 {
      let multiple = this.bonds.lazy.filter { bonds[$0].order == .double || bonds[$0].order == .triple }
      if multiple.count > 1 { return false }
    }
    return true
  }

  /// The atom that a multiple bond outside of all rings leads to.
  private func acyclicMultipleBond(_ atom: Int) -> Int? {
    atoms[atom].bonds.first { rings.countOfBond[$0] == 0 && bonds[$0].order.twice >= 4 }.map { bonds[$0].other(atom) }
  }

  private func hasCyclicMultipleBond(_ atom: Int) -> Bool {
    atoms[atom].bonds.contains { rings.countOfBond[$0] > 0 && bonds[$0].order.twice >= 4 }
  }

  private func donorType(_ atom: Int) -> Donor {
    if atoms[atom].number == 0 { return hasCyclicMultipleBond(atom) ? .one : .any }
    var electrons = piElectrons(atom)
    guard electrons >= 0 else { return .nothing }
    let outside = acyclicMultipleBond(atom).map { atoms[$0].number }
    let isRobbed = outside.map { Elements.isMoreElectronegative($0, than: atoms[atom].number) } ?? false
    if electrons == 0 {
      return outside != nil ? .vacant : hasCyclicMultipleBond(atom) ? .one : .nothing
    }
    if electrons == 1 {
      if outside != nil { return isRobbed ? .vacant : .one }
      if atoms[atom].explicitValence != atoms[atom].degree + atoms[atom].explicitHydrogens { return .one }
      return atoms[atom].charge == 1 ? .vacant : .nothing
    }
    if isRobbed { electrons -= 1 }
    return electrons % 2 == 1 ? .one : .two
  }

  /// The electrons that an atom can give to a system of double bonds; less than 0 where it cannot be part of one.
  func piElectrons(_ atom: Int) -> Int {
    let this = atoms[atom]
    let valence = Elements.defaultValence(this.number)
    let degree = this.degree + this.hydrogens
    guard valence > 1, degree <= 3 else { return -1 }
    let lonePairs = max(Elements.outerElectrons[this.number] - valence - this.charge, 0)
    let electrons = valence - degree + lonePairs - this.radicals
    return electrons > 1 && this.explicitValence - this.degree > 1 ? 1 : electrons
  }

  // MARK: Conjugation and hybridization

  mutating func perceiveConjugation() {
    for bond in bonds.indices { bonds[bond].isConjugated = bonds[bond].isAromatic }
    let isCandidate = atoms.indices.map(mayConjugate)
    let substituents = atoms.indices.map { isCandidate[$0] ? atoms[$0].totalDegree : 0 }
    for atom in atoms.indices where isCandidate[atom] && (2...3).contains(substituents[atom]) {
      for first in atoms[atom].bonds
      where bonds[first].order.twice >= 3 && isCandidate[bonds[first].other(atom)] {
        for second in atoms[atom].bonds where second != first {
          let other = bonds[second].other(atom)
          if substituents[other] <= 3 && isCandidate[other] {
            bonds[first].isConjugated = true
            bonds[second].isConjugated = true
          }
        }
      }
    }
  }

  private func mayConjugate(_ atom: Int) -> Bool {
    let this = atoms[atom]
    let usual = Elements.defaultValence(this.number)
    if this.charge == 0 && usual >= 0 && this.totalValence > usual { return false }
    let outer = Elements.outerElectrons[this.number]
    let isEligible = this.number <= 10 || (outer != 5 && outer != 6) || (outer == 6 && this.totalDegree < 2)
    return isEligible && piElectrons(atom) > 0
  }

  func hasConjugatedBond(_ atom: Int) -> Bool { atoms[atom].bonds.contains { bonds[$0].isConjugated } }

  mutating func perceiveHybridization() {
    for atom in atoms.indices { atoms[atom].hybridization = hybridization(atom) }
  }

  private func hybridization(_ atom: Int) -> Hybridization {
    let this = atoms[atom]
    guard this.number > 0 else { return .unspecified }
    if (this.chirality == .clockwise || this.chirality == .counterclockwise) && this.totalDegree == 4 { return .sp3 }
    switch this.number < 89 ? bondsAndLonePairs(atom) : this.totalDegree {
    case 0, 1: return .s
    case 2: return .sp
    case 3: return .sp2
    case 4: return this.totalDegree > 3 || !hasConjugatedBond(atom) ? .sp3 : .sp2
    case 5: return .sp3d
    case 6: return .sp3d2
    default: return .unspecified
    }
  }

  private func bondsAndLonePairs(_ atom: Int) -> Int {
    let this = atoms[atom]
    guard this.number > 1 else { return this.totalDegree }
    let outer = Elements.outerElectrons[this.number]
    let free = outer - (this.totalValence + this.charge)
    if this.totalValence + outer - this.charge < 8 {
      return this.totalDegree + (free - this.radicals) / 2 + this.radicals
    }
    return this.totalDegree + free / 2
  }
}
