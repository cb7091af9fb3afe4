import SquintFile

/// Aromatic bonds as single and double ones (RDKit's Kekulize.cpp): a walk through each system of rings that gives each atom that
/// needs one a double bond, and goes back where that fails.
extension Molecule {
  /// How often a walk goes back before it gives up.
  private static let mostRetreats = 100

  /// Gives all bonds whole orders, and takes all marks of aromaticity off.
  ///
  /// What fails is tried again, as by RDKit: then atoms that have an aromatic bond are aromatic themselves, which those of MOL files are
  /// not before.
  ///
  /// - Throws: `badData` where no choice of double bonds fits.
  mutating func kekulize() throws(SquintError) {
    guard bonds.contains(where: \.isAromatic) || atoms.indices.contains(where: { isAromatic($0) }) else {
      for atom in atoms.indices { updateImplicitValence(atom) }
      return
    }
    let basis = rings.basis
    let aromaticBonds = bonds.indices.filter { bonds[$0].isAromatic }
    let aromaticAtoms = atoms.indices.filter { isAromatic($0) }
    if (try? kekulize(basis, isLast: false)) != nil { return }
    for bond in aromaticBonds {
      bonds[bond].isAromatic = true
      bonds[bond].order = .aromatic
    }
    for atom in aromaticAtoms { atoms[atom].isAromatic = true }
    try kekulize(basis, isLast: true)
  }

  private mutating func kekulize(_ basis: RingBasis, isLast: Bool) throws(SquintError) {
    for atom in atoms.indices { updateImplicitValence(atom) }
    let valences = atoms.map(\.totalValence)
    for system in ringSystems(basis) { try kekulize(system, basis, isLast: isLast) }
    for bond in bonds.indices { bonds[bond].isAromatic = false }
    for atom in atoms.indices where atoms[atom].isAromatic {
      guard rings.countOfAtom[atom] > 0 else {
        throw Self.bad("\(name(atom)) is written as aromatic, and is in no ring")
      }
      atoms[atom].isAromatic = false
      if (atoms[atom].number == 7 || atoms[atom].number == 15) && atoms[atom].charge == 0
        && atoms[atom].explicitHydrogens == 1
      {
        atoms[atom].hasNoImplicit = false
        atoms[atom].explicitHydrogens = 0
        updateValence(atom)
      }
    }
    for atom in atoms.indices where atoms[atom].totalValence != valences[atom] {
      throw Self.bad("\(name(atom)) is aromatic with a number of hydrogens that no choice of double bonds gives it")
    }
  }

  /// Rings that share bonds, not all of whose atoms are `*`: the indices of each system, in the order of a search that goes deep first,
  /// to the ring of the smallest index.
  private func ringSystems(_ basis: RingBasis) -> [[Int]] {
    let candidates = basis.atoms.indices.filter { ring in basis.atoms[ring].contains { atoms[$0].number > 0 } }
    var ringsOfBond: [Int: [Int]] = [:]
    for ring in candidates.reversed() {
      for bond in basis.bonds[ring] { ringsOfBond[bond, default: []].append(ring) }
    }
    var isDone = [Bool](repeating: false, count: basis.atoms.count)
    var systems: [[Int]] = []
    for start in candidates where !isDone[start] {
      isDone[start] = true
      var system = [start]
      var path = [start]
      while let ring = path.last {
        var next: Int?
        for bond in basis.bonds[ring] {
          // What is done stays so: each ring leaves a bond's list once.
          while let other = ringsOfBond[bond]?.last, isDone[other] { ringsOfBond[bond]?.removeLast() }
          if let other = ringsOfBond[bond]?.last { next = min(next ?? other, other) }
        }
        guard let next else {
          path.removeLast()
          continue
        }
        isDone[next] = true
        system.append(next)
        path.append(next)
      }
      systems.append(system)
    }
    return systems
  }

  private mutating func kekulize(_ system: [Int], _ basis: RingBasis, isLast: Bool) throws(SquintError) {
    // In the order of the rings: what is found out about a `*` depends on which of its neighbors stand before it.
    var members: [Int] = []
    var isMember = [Bool](repeating: false, count: atoms.count)
    for ring in system {
      for atom in basis.atoms[ring] where !isMember[atom] {
        isMember[atom] = true
        members.append(atom)
      }
    }
    guard members.contains(where: { atoms[$0].number == 0 || isAromatic($0) }) else { return }
    var walk = KekuleWalk(members: members.sorted(), isMember: isMember, bondCount: bonds.count)
    var questions: [Int] = []
    chooseCandidates(members, basis, &walk, &questions)
    members.sort()
    if walk.run(&self, mostRetreats: Self.mostRetreats) { return }
    // Any atom may do without its double bond: all choices, the smaller ones first, as bits count.
    if !questions.isEmpty {
      var choice = 1
      let choices = 1 << min(questions.count, 12)
      while choice < choices {
        for bond in bonds.indices
        where bonds[bond].isAromatic && isMember[bonds[bond].begin] && isMember[bonds[bond].end] {
          bonds[bond].order = .single
        }
        var without = walk
        for (bit, atom) in questions.prefix(12).enumerated() where choice >> bit & 1 == 1 {
          without.isCandidate[atom] = false
        }
        if without.runAgain(&self, mostRetreats: Self.mostRetreats) { return }
        choice += 1
      }
    }
    // The walk gives up on large systems; a matching is certain.
    var matching = DoubleBondMatching(self, members, walk.isCandidate)
    if isLast, let double = matching.complete() {
      for bond in double {
        bonds[bond].order = .double
        bonds[bond].direction = .none
      }
      return
    }
    let left = members.first { walk.isCandidate[$0] } ?? members[0]
    throw Self.bad(
      "the aromatic ring with \(name(left)) cannot be given single and double bonds; a hydrogen may be missing, as in [nH]"
    )
  }

  /// Which atoms need a double bond; makes the system's aromatic bonds single.
  private mutating func chooseCandidates(
    _ members: [Int], _ basis: RingBasis, _ walk: inout KekuleWalk, _ questions: inout [Int]
  ) {
    // Rings without an aromatic atom that is in no other ring.
    let isRingWithout = basis.atoms.map { ring in
      !ring.contains { basis.ringsOfAtom[$0, default: []].count == 1 && isAromatic($0) }
    }
    var toSingle: [Int] = []
    var isSeen = [Bool](repeating: false, count: atoms.count)
    for atom in members {
      isSeen[atom] = true
      let number = atoms[atom].number
      if number > 0 && !isAromatic(atom) {
        walk.done.append(atom)
        continue
      }
      var orders = 0
      var plainNeighbors = 0
      for bond in atoms[atom].bonds {
        let other = bonds[bond].other(atom)
        if atoms[other].number > 0 && !atoms[other].isAromatic && isSeen[other] { plainNeighbors += 1 }
        if bonds[bond].isAromatic && bonds[bond].order != .triple {
          orders += 1
          toSingle.append(bond)
        } else {
          orders += bonds[bond].order.rounded
        }
      }
      if number == 0 {
        let own = basis.ringsOfAtom[atom, default: []]
        let without = own.filter { isRingWithout[$0] }
        if plainNeighbors < own.count && without.count < own.count {
          walk.isCandidate[atom] = true
          questions.append(atom)
          continue
        }
      }
      if needsDoubleBond(atom, orders: orders) { walk.isCandidate[atom] = true }
    }
    for bond in toSingle { bonds[bond].order = .single }
  }

  private func needsDoubleBond(_ atom: Int, orders: Int) -> Bool {
    let this = atoms[atom]
    let orders = orders + this.hydrogens
    var charge = this.charge
    if Elements.isEarly(this.number) { charge = -charge }
    if this.number == 6 && charge > 0 { charge = -charge }
    let valences = Elements.valences(this.number)
    var valence = valences[0] + charge
    var index = 1
    while this.totalValence > valence, index < valences.count, valences[index] > 0 {
      valence = valences[index] + charge
      index += 1
    }
    let degree = this.degree + this.implicitHydrogens
    if this.totalValence == 5 && orders == 4 && valence == 3 && degree == 3 && this.radicals == 0 && charge == 0
      && this.hydrogens == 0 && [7, 15, 33].contains(this.number)
    {
      valence = 5
    }
    guard degree + this.radicals < valence else { return false }
    return valence == orders + 1 + this.radicals
      || (this.radicals == 0 && this.hasNoImplicit && valence == orders + 2)
  }
}

private struct KekuleWalk {
  /// The atoms of the system in the order of the walk.
  private let members: [Int]
  private let isMember: [Bool]
  var isCandidate: [Bool]
  /// Atoms that need no visit, then those visited, in order.
  var done: [Int] = []
  private var doubled: [Bool]

  init(members: [Int], isMember: [Bool], bondCount: Int) {
    self.members = members
    self.isMember = isMember
    isCandidate = [Bool](repeating: false, count: isMember.count)
    doubled = [Bool](repeating: false, count: bondCount)
  }

  /// The walk where nothing is done beforehand.
  func runAgain(_ molecule: inout Molecule, mostRetreats: Int) -> Bool {
    var walk = self
    walk.done = []
    return walk.run(&molecule, mostRetreats: mostRetreats)
  }

  /// Makes bonds double. Returns whether each candidate has one; where not, all are single again.
  func run(_ molecule: inout Molecule, mostRetreats: Int) -> Bool {
    var isCandidate = isCandidate
    var done = done
    var doubled = doubled
    var added: [Int] = []
    var isDone = [Bool](repeating: false, count: isMember.count)
    for atom in done { isDone[atom] = true }
    var stack: [Int] = []
    var head = 0
    var onStack = [Int](repeating: 0, count: isMember.count)
    var options: [Int: [Int]] = [:]
    var turns: [Int] = []
    var lastTurn = -1
    var retreats = 0
    var first = 0
    while done.count < members.count || head < stack.count {
      let atom: Int
      if head < stack.count {
        atom = stack[head]
        head += 1
        onStack[atom] -= 1
      } else {
        while first < members.count && isDone[members[first]] { first += 1 }
        guard first < members.count else { return true }
        atom = members[first]
      }
      done.append(atom)
      isDone[atom] = true
      let needsDouble = isCandidate[atom]
      var choices: [Int] = []
      let isReturn = options[atom] != nil
      if let left = options[atom] {
        choices = left
      } else {
        let neighbors = molecule.atoms[atom].bonds.map { (atom: molecule.bonds[$0].other(atom), bond: $0) }
          .filter { isMember[$0.atom] && !isDone[$0.atom] }
          .sorted { $0.atom < $1.atom }
        var waiting: [Int] = []
        for (other, bond) in neighbors {
          if onStack[other] == 0 { waiting.append(other) }
          if needsDouble, isCandidate[other],
            molecule.bonds[bond].isAromatic || molecule.atoms[atom].number == 0 || molecule.atoms[other].number == 0
          {
            choices.append(other)
          }
        }
        for other in waiting { onStack[other] += 1 }
        stack.append(contentsOf: waiting)
      }
      guard needsDouble else { continue }
      if !choices.isEmpty {
        let other = choices.removeFirst()
        guard let bond = molecule.bond(between: atom, other) else { continue }
        molecule.bonds[bond].order = .double
        molecule.bonds[bond].direction = .none
        isCandidate[atom] = false
        isCandidate[other] = false
        doubled[bond] = true
        added.append(bond)
        if isReturn {
          if choices.isEmpty {
            options[atom] = nil
            _ = turns.popLast()
            lastTurn = turns.last ?? -1
          } else {
            options[atom] = choices
          }
        } else if !choices.isEmpty {
          lastTurn = atom
          turns.append(atom)
          options[atom] = choices
        }
      } else if molecule.atoms[atom].number > 0 {
        guard lastTurn >= 0, retreats < mostRetreats, let place = done.firstIndex(of: lastTurn) else {
          for bond in added { molecule.bonds[bond].order = .single }
          return false
        }
        // Back to the last turn: all that was done since is to be done again.
        let undone = Array(done[place...])
        stack = undone + stack[head...]
        head = 0
        done.removeLast(done.count - place)
        for atom in undone {
          onStack[atom] += 1
          isDone[atom] = false
        }
        for atom in done { isDone[atom] = true }
        for bond in added where doubled[bond] {
          let (begin, end) = (molecule.bonds[bond].begin, molecule.bonds[bond].end)
          if !isDone[begin] && !isDone[end] {
            doubled[bond] = false
            molecule.bonds[bond].order = .single
            isCandidate[begin] = true
            isCandidate[end] = true
          }
        }
        first = 0
        retreats += 1
      }
    }
    return true
  }
}

/// Which bonds are double where the walk gives up: a matching of all atoms that need one, by Edmonds' blossoms (1965).
private struct DoubleBondMatching {
  private let atoms: [Int]
  /// Of each atom, by its place in `atoms`: those it can have a double bond with, and the bonds.
  private var neighbors: [[(place: Int, bond: Int)]]
  private let isNeeded: [Bool]
  private var mate: [Int]
  private var parent: [Int] = []
  private var base: [Int] = []
  private var steps = 200_000_000

  init(_ molecule: Molecule, _ members: [Int], _ isCandidate: [Bool]) {
    let atoms = members.filter { isCandidate[$0] }
    let places = Dictionary(uniqueKeysWithValues: atoms.enumerated().map { ($1, $0) })
    self.atoms = atoms
    neighbors = atoms.map { atom in
      molecule.atoms[atom].bonds.compactMap { bond in
        let other = molecule.bonds[bond].other(atom)
        let mayBeDouble =
          molecule.bonds[bond].isAromatic || molecule.atoms[atom].number == 0 || molecule.atoms[other].number == 0
        return mayBeDouble ? places[other].map { ($0, bond) } : nil
      }
    }
    isNeeded = atoms.map { molecule.atoms[$0].number > 0 }
    mate = [Int](repeating: -1, count: atoms.count)
  }

  /// The double bonds; nil where some atom must do without.
  mutating func complete() -> [Int]? {
    for place in atoms.indices where mate[place] < 0 {
      guard let free = neighbors[place].first(where: { mate[$0.place] < 0 })?.place else { continue }
      (mate[place], mate[free]) = (free, place)
    }
    for place in atoms.indices where mate[place] < 0 && isNeeded[place] {
      guard var end = pathEnd(from: place) else { return nil }
      while end >= 0 {
        let before = parent[end]
        let next = mate[before]
        (mate[end], mate[before]) = (before, end)
        end = next
      }
    }
    return atoms.indices.compactMap { place in
      mate[place] > place ? neighbors[place].first { $0.place == mate[place] }?.bond : nil
    }
  }

  /// The free end of an alternating path from `root`, whose atoms `parent` and `mate` tell.
  private mutating func pathEnd(from root: Int) -> Int? {
    parent = [Int](repeating: -1, count: atoms.count)
    base = Array(atoms.indices)
    var isEven = [Bool](repeating: false, count: atoms.count)
    isEven[root] = true
    var queue = [root]
    var head = 0
    while head < queue.count {
      let place = queue[head]
      head += 1
      for (other, _) in neighbors[place] where base[place] != base[other] && mate[place] != other {
        steps -= 1
        if other == root || (mate[other] >= 0 && parent[mate[other]] >= 0) {
          // An odd cycle: all its atoms can be reached either way.
          let top = commonBase(place, other)
          var isInside = [Bool](repeating: false, count: atoms.count)
          mark(place, to: top, child: other, &isInside)
          mark(other, to: top, child: place, &isInside)
          steps -= 3 * atoms.count
          guard steps > 0 else { return nil }
          for inner in atoms.indices where isInside[base[inner]] {
            base[inner] = top
            if !isEven[inner] {
              isEven[inner] = true
              queue.append(inner)
            }
          }
        } else if parent[other] < 0 {
          parent[other] = place
          guard mate[other] >= 0 else { return other }
          isEven[mate[other]] = true
          queue.append(mate[other])
        }
      }
    }
    return nil
  }

  private func commonBase(_ first: Int, _ second: Int) -> Int {
    var isAbove = [Bool](repeating: false, count: atoms.count)
    var place = first
    while true {
      place = base[place]
      isAbove[place] = true
      guard mate[place] >= 0 else { break }
      place = parent[mate[place]]
    }
    place = base[second]
    while !isAbove[place] { place = base[parent[mate[place]]] }
    return place
  }

  private mutating func mark(_ from: Int, to top: Int, child: Int, _ isInside: inout [Bool]) {
    var (place, child) = (from, child)
    while base[place] != top {
      isInside[base[place]] = true
      isInside[base[mate[place]]] = true
      parent[place] = child
      child = mate[place]
      place = parent[child]
    }
  }
}
