/// The order of a molecule's atoms by which chirality is told: atoms of one rank are alike.
///
/// Source: Labute, An efficient algorithm for the determination of topological RS chirality (1996), as in RDKit's Chirality.cpp.
/// These are not quite the ranks of Cahn, Ingold and Prelog.
extension Molecule {
  /// The ranks by elements, isotopes and neighbors alone.
  func stereoRanks() -> [Int] {
    rankedByNeighbors(
      atoms.map { atom in
        let massBits = 10
        var mass = 0
        if atom.isotope > 0 {
          mass = atom.isotope - Elements.commonIsotope[atom.number]
          if mass >= 0 { mass += 1 }
        }
        mass += 1 << (massBits - 1)
        mass = mass < 0 ? 0 : mass % (1 << massBits)
        let map = ((atom.map ?? -1) + 1) % 1024
        return (atom.number << massBits | mass) << 10 | map
      })
  }

  /// Ranks that begin with `keys`, and then tell apart atoms whose neighbors' ranks differ, until no more do.
  func rankedByNeighbors(_ keys: [Int]) -> [Int] {
    guard !keys.isEmpty else { return [] }
    var order = Array(keys.indices)
    order.sort { keys[$0] < keys[$1] }
    var ranks = [Int](repeating: 0, count: keys.count)
    // Runs of `order` whose atoms are of one rank.
    var ties: [Range<Int>] = []
    var rankCount = 1
    var start = 0
    for index in 1...keys.count {
      if index == keys.count || keys[order[index]] != keys[order[start]] {
        for atom in order[start..<index] { ranks[atom] = rankCount - 1 }
        if index - start > 1 { ties.append(start..<index) }
        start = index
        rankCount += 1
      }
    }
    rankCount -= 1

    let weights = neighborWeights()
    var lists = [[Int32]](repeating: [], count: keys.count)
    var isFirst = true
    var last = 0
    var rounds = 0
    while !ties.isEmpty && rounds < keys.count / 2 + 1 && (isFirst || last < rankCount) {
      isFirst = false
      last = rankCount
      for atom in ties.lazy.flatMap({ order[$0] }) {
        lists[atom].removeAll(keepingCapacity: true)
        for (neighbor, weight) in weights[atom].sorted(by: { ranks[$0.atom] > ranks[$1.atom] }) {
          for _ in 0..<weight { lists[atom].append(Int32(ranks[neighbor] + 1)) }
        }
        for _ in 0..<atoms[atom].hydrogens { lists[atom].append(0) }
      }
      // Each tie is cut into runs that are alike; ranks behind it grow by as many.
      var cuts: [Int] = []
      var newTies: [Range<Int>] = []
      for tie in ties {
        order[tie].sort { lists[$0].lexicographicallyPrecedes(lists[$1]) }
        var start = tie.lowerBound
        for index in (tie.lowerBound + 1)...tie.upperBound {
          if index == tie.upperBound || lists[order[index]] != lists[order[start]] {
            if index - start > 1 { newTies.append(start..<index) }
            if index < tie.upperBound { cuts.append(index) }
            start = index
          }
        }
      }
      if !cuts.isEmpty {
        var offset = 0
        for index in cuts[0]..<order.count {
          if offset < cuts.count && cuts[offset] == index { offset += 1 }
          ranks[order[index]] += offset
        }
        rankCount += cuts.count
      }
      ties = newTies
      rounds += 1
    }
    return ranks
  }

  /// Of each atom: its neighbors, and how often each counts, twice the bond's order.
  private func neighborWeights() -> [[(atom: Int, weight: Int)]] {
    atoms.indices.map { atom in
      atoms[atom].bonds.map { bond in
        let other = bonds[bond].other(atom)
        // The double bonds of phosphates count as single ones.
        let isPhosphorus =
          bonds[bond].order == .double && atoms[other].number == 15 && (3...4).contains(atoms[other].degree)
        return (other, isPhosphorus ? 1 : bonds[bond].order.twice)
      }
    }
  }
}
