import SquintFile

/// The relevant cycles of a molecule: those that some minimum basis of all its cycles has.
///
/// Source: Vismara, Union of all the minimum cycle bases of a graph (1997), as RDKit's symmetrized smallest rings are found.
struct Rings: Sendable {
  /// Each ring's atoms, around it: from the smallest on, towards the smaller one of the two next to that.
  var atoms: [[Int]] = []
  /// Each ring's bonds, around it: the first is that from the ring's first atom to its second.
  var bonds: [[Int]] = []
  /// Which of the rings are a minimum basis of all.
  var isInBasis: [Bool] = []
  /// Of each atom and each bond: in how many rings it is.
  var countOfAtom: [Int] = []
  var countOfBond: [Int] = []
  /// Of each bond: the size of its smallest ring; 0 where it is in none.
  var leastOfBond: [Int] = []
  /// Whether an atom is in a ring of three.
  var isInTriangle: [Bool] = []
}

/// The rings of a minimum basis: the smaller ones first, then by their atoms.
struct RingBasis {
  let atoms: [[Int]]
  let bonds: [[Int]]
  /// Of each atom that is in a ring: the indices of its rings.
  let ringsOfAtom: [Int: [Int]]
}

extension Rings {
  var basis: RingBasis {
    let order = atoms.indices.filter { isInBasis[$0] }.sorted {
      atoms[$0].count != atoms[$1].count
        ? atoms[$0].count < atoms[$1].count : atoms[$0].lexicographicallyPrecedes(atoms[$1])
    }
    var ringsOfAtom: [Int: [Int]] = [:]
    for (index, ring) in order.enumerated() {
      for atom in atoms[ring] { ringsOfAtom[atom, default: []].append(index) }
    }
    return RingBasis(atoms: order.map { atoms[$0] }, bonds: order.map { bonds[$0] }, ringsOfAtom: ringsOfAtom)
  }
}

extension Molecule {
  /// Rings whose atoms are more than this in all are refused: the cycles of cages grow as a power of their size.
  private static let mostRingAtoms = 1 << 20
  /// Steps of the search that are allowed, some seconds on a small board.
  private static let mostSteps = 400_000_000

  /// Finds the molecule's rings.
  ///
  /// - Throws: `badData` where they are too many.
  mutating func findRings() throws(SquintError) {
    var found = Rings()
    found.countOfAtom = [Int](repeating: 0, count: atoms.count)
    found.countOfBond = [Int](repeating: 0, count: bonds.count)
    found.leastOfBond = [Int](repeating: 0, count: bonds.count)
    found.isInTriangle = [Bool](repeating: false, count: atoms.count)
    var steps = Self.mostSteps
    var ringAtoms = 0
    for block in ringBlocks() {
      var search = RelevantCycles(self, block: block)
      let first = found.atoms.count
      try search.run(steps: &steps) { (cycle) throws(SquintError) in
        ringAtoms += cycle.count
        guard ringAtoms <= Self.mostRingAtoms else { throw Self.tooManyRings }
        found.atoms.append(Self.normalized(cycle))
        found.isInBasis.append(false)
      }
      for index in search.basisCycles { found.isInBasis[first + index] = true }
    }
    for cycle in found.atoms {
      var ring: [Int] = []
      ring.reserveCapacity(cycle.count)
      for index in cycle.indices {
        guard let bond = bond(between: cycle[index], cycle[(index + 1) % cycle.count]) else { continue }
        ring.append(bond)
        found.countOfBond[bond] += 1
        let least = found.leastOfBond[bond]
        found.leastOfBond[bond] = least == 0 ? cycle.count : min(least, cycle.count)
      }
      for atom in cycle {
        found.countOfAtom[atom] += 1
        if cycle.count == 3 { found.isInTriangle[atom] = true }
      }
      found.bonds.append(ring)
    }
    rings = found
  }

  /// The ring from its smallest atom on, towards the smaller one of the two next to that.
  private static func normalized(_ ring: [Int]) -> [Int] {
    guard let least = ring.min(), let start = ring.firstIndex(of: least) else { return ring }
    let turned = Array(ring[start...] + ring[..<start])
    return turned[1] < turned[turned.count - 1] ? turned : [least] + turned[1...].reversed()
  }

  static var tooManyRings: SquintError {
    bad("the molecule's rings are entangled in too many ways; such cages are not read")
  }

  /// The bonds of each part of the molecule that stays in one piece without any one of its atoms, where it has a ring.
  private func ringBlocks() -> [[Int]] {
    var blocks: [[Int]] = []
    var order = [Int](repeating: -1, count: atoms.count)
    var low = [Int](repeating: 0, count: atoms.count)
    var counter = 0
    var open: [Int] = []  // bonds of unfinished blocks
    var path: [(atom: Int, from: Int, next: Int)] = []
    for start in atoms.indices where order[start] < 0 {
      path.append((start, -1, 0))
      order[start] = counter
      low[start] = counter
      counter += 1
      while let (atom, from, next) = path.last {
        guard next < atoms[atom].bonds.count else {
          path.removeLast()
          guard let parent = path.last?.atom else { continue }
          low[parent] = min(low[parent], low[atom])
          if low[atom] >= order[parent] {
            var block: [Int] = []
            while let bond = open.popLast() {
              block.append(bond)
              if bond == from { break }
            }
            if block.count > 2 { blocks.append(block) }
          }
          continue
        }
        path[path.count - 1].next += 1
        let bond = atoms[atom].bonds[next]
        guard bond != from else { continue }
        let other = bonds[bond].other(atom)
        if order[other] < 0 {
          order[other] = counter
          low[other] = counter
          counter += 1
          open.append(bond)
          path.append((other, bond, 0))
        } else if order[other] < order[atom] {
          open.append(bond)
          low[atom] = min(low[atom], order[other])
        }
      }
    }
    return blocks
  }
}

/// The relevant cycles of one block of a molecule.
private struct RelevantCycles {
  /// A family of cycles: all that go by shortest ways from `root` to `first` and to `second`, and between these by their bond, or by
  /// way of `tip`.
  private struct Family {
    let length: Int
    let root: Int
    let first: Int
    let second: Int
    let tip: Int  // -1 where there is none
  }

  /// The molecule's atoms by their index here.
  private var names: [Int] = []
  /// Of each atom here: its neighbors, and the bonds to them, both by their index here.
  private var neighbors: [[(atom: Int, bond: Int)]] = []
  private let bondCount: Int
  /// Which of the found cycles are a minimum basis, by their order.
  private(set) var basisCycles: [Int] = []

  init(_ molecule: Molecule, block: [Int]) {
    var indices: [Int: Int] = [:]
    bondCount = block.count
    for bond in block {
      for atom in [molecule.bonds[bond].begin, molecule.bonds[bond].end] where indices[atom] == nil {
        indices[atom] = names.count
        names.append(atom)
        neighbors.append([])
      }
    }
    for (index, bond) in block.enumerated() {
      guard let begin = indices[molecule.bonds[bond].begin], let end = indices[molecule.bonds[bond].end] else {
        continue
      }
      neighbors[begin].append((end, index))
      neighbors[end].append((begin, index))
    }
  }

  /// Calls `found` with each relevant cycle's atoms in their order around it, the shorter cycles first.
  mutating func run(steps: inout Int, found: ([Int]) throws(SquintError) -> Void) throws(SquintError) {
    let rank = bondCount - names.count + 1
    if rank == 1 {
      basisCycles = [0]
      try found(onlyCycle())
      return
    }
    var basis = CycleBasis(bondCount: bondCount)
    var count = 0
    var (from, most) = (3, 8)
    while basis.count < rank && from <= names.count {
      let families = try families(from: from, to: most, steps: &steps)
      var index = 0
      while index < families.count && basis.count < rank {
        // Of one length: each is relevant that the shorter ones do not make up.
        var end = index
        while end < families.count && families[end].length == families[index].length { end += 1 }
        var independent: [(cycle: Int, rest: [UInt64])] = []
        for family in families[index..<end] {
          guard let cycle = try cycles(of: family, most: 1, steps: &steps).first else { continue }
          let rest = basis.reduced(vector(of: cycle))
          steps -= basis.work
          guard steps > 0 else { throw Molecule.tooManyRings }
          guard rest.contains(where: { $0 != 0 }) else { continue }
          independent.append((count, rest))
          for cycle in try cycles(of: family, most: .max, steps: &steps) {
            try found(cycle.map { names[$0] })
            count += 1
          }
        }
        for (cycle, rest) in independent {
          let before = basis.count
          basis.add(rest)
          steps -= basis.work
          if basis.count > before { basisCycles.append(cycle) }
        }
        guard steps > 0 else { throw Molecule.tooManyRings }
        index = end
      }
      (from, most) = (most + 1, most * 2)
    }
  }

  private func onlyCycle() -> [Int] {
    var cycle = [0]
    var previous = -1
    while true {
      let last = cycle[cycle.count - 1]
      guard let next = neighbors[last].first(where: { $0.bond != previous }), next.atom != 0 || cycle.count < 3 else {
        break
      }
      if next.atom == 0 { break }
      previous = next.bond
      cycle.append(next.atom)
    }
    return cycle.map { names[$0] }
  }

  private func vector(of cycle: [Int]) -> [UInt64] {
    var vector = [UInt64](repeating: 0, count: (bondCount + 63) / 64)
    for index in cycle.indices {
      let next = cycle[(index + 1) % cycle.count]
      if let bond = neighbors[cycle[index]].first(where: { $0.atom == next })?.bond {
        vector[bond / 64] ^= 1 << UInt64(bond % 64)
      }
    }
    return vector
  }

  /// The families of cycles whose lengths are `from` to `to`, by length.
  private func families(from: Int, to: Int, steps: inout Int) throws(SquintError) -> [Family] {
    var families: [Family] = []
    var distance = [Int](repeating: -1, count: names.count)
    // A way back to the root over smaller atoms, where there is a shortest one.
    var parent = [Int](repeating: -1, count: names.count)
    for root in names.indices {
      var queue = [root]
      distance[root] = 0
      parent[root] = root
      var head = 0
      while head < queue.count {
        let atom = queue[head]
        head += 1
        guard 2 * distance[atom] <= to else { break }
        steps -= neighbors[atom].count
        // Ways to `atom` are complete: all atoms before it in the queue are nearer or as near.
        for (other, _) in neighbors[atom] {
          if distance[other] < 0 {
            distance[other] = distance[atom] + 1
            queue.append(other)
          }
          if parent[other] < 0, other < root, parent[atom] >= 0, distance[other] == distance[atom] + 1 {
            parent[other] = atom
          }
        }
      }
      for atom in queue where parent[atom] >= 0 && atom != root {
        var near: [Int] = []
        for (other, _) in neighbors[atom] where parent[other] >= 0 {
          if distance[other] + 1 == distance[atom] {
            near.append(other)
          } else if distance[other] == distance[atom], other < atom {
            let length = 2 * distance[atom] + 1
            guard length >= from, length <= to else { continue }
            steps -= length
            if areDisjoint(atom, other, parent, root) {
              families.append(Family(length: length, root: root, first: atom, second: other, tip: -1))
            }
          }
        }
        let length = 2 * distance[atom]
        guard near.count > 1, length >= from, length <= to else { continue }
        for (index, first) in near.enumerated() {
          for second in near[(index + 1)...] {
            steps -= length
            if areDisjoint(first, second, parent, root) {
              families.append(Family(length: length, root: root, first: first, second: second, tip: atom))
            }
          }
        }
      }
      guard steps > 0, families.count < 1 << 20 else { throw Molecule.tooManyRings }
      for atom in queue {
        distance[atom] = -1
        parent[atom] = -1
      }
    }
    return families.sorted { $0.length < $1.length }
  }

  /// Whether the ways back from two atoms meet at the root alone.
  private func areDisjoint(_ first: Int, _ second: Int, _ parent: [Int], _ root: Int) -> Bool {
    var way: Set<Int> = []
    var atom = first
    while atom != root {
      way.insert(atom)
      atom = parent[atom]
    }
    atom = second
    while atom != root {
      if way.contains(atom) { return false }
      atom = parent[atom]
    }
    return true
  }

  /// The cycles of a family, at most `most` of them, each by its atoms here.
  private func cycles(of family: Family, most: Int, steps: inout Int) throws(SquintError) -> [[Int]] {
    // Distances from the root, as far as the family goes.
    var distance: [Int: Int] = [family.root: 0]
    var queue = [family.root]
    var head = 0
    let farthest = (family.length - 1) / 2
    while head < queue.count {
      let atom = queue[head]
      head += 1
      guard let here = distance[atom], here < farthest else { break }
      steps -= neighbors[atom].count
      for (other, _) in neighbors[atom] where distance[other] == nil {
        distance[other] = here + 1
        queue.append(other)
      }
    }
    guard steps > 0 else { throw Molecule.tooManyRings }
    let firsts = try ways(from: family.first, to: family.root, distance, most: most, steps: &steps)
    let seconds = try ways(from: family.second, to: family.root, distance, most: most, steps: &steps)
    var cycles: [[Int]] = []
    for first in firsts {
      let seen = Set(first)
      for second in seconds {
        steps -= second.count
        guard steps > 0 else { throw Molecule.tooManyRings }
        guard !second.dropLast().contains(where: { seen.contains($0) }) else { continue }
        // first: from its atom to the root; second: back from behind the root.
        var cycle = first
        cycle.append(contentsOf: second.dropLast().reversed())
        if family.tip >= 0 { cycle.append(family.tip) }
        cycles.append(cycle)
        if cycles.count == most { return cycles }
      }
    }
    return cycles
  }

  /// The shortest ways from `atom` to `root` over atoms smaller than the root.
  private func ways(
    from atom: Int, to root: Int, _ distance: [Int: Int], most: Int, steps: inout Int
  ) throws(SquintError) -> [[Int]] {
    var done: [[Int]] = []
    var open = [[atom]]
    while let way = open.popLast() {
      let last = way[way.count - 1]
      steps -= way.count
      guard steps > 0 else { throw Molecule.tooManyRings }
      guard last != root else {
        done.append(way)
        if done.count == most { break }
        continue
      }
      guard let here = distance[last] else { continue }
      for (other, _) in neighbors[last] where distance[other] == here - 1 && (other < root || other == root) {
        open.append(way + [other])
      }
    }
    return done
  }
}

/// Cycles as sets of bonds, reduced against one another: which further ones they make up.
private struct CycleBasis {
  private var vectors: [[UInt64]] = []
  /// Of each bond: the vector whose first bond it is.
  private var leader: [Int]
  private(set) var work = 0

  init(bondCount: Int) { leader = [Int](repeating: -1, count: bondCount) }

  var count: Int { vectors.count }

  /// What is left of `vector` when all that the basis makes up is taken from it.
  mutating func reduced(_ vector: [UInt64]) -> [UInt64] {
    var vector = vector
    work = 0
    for word in vector.indices {
      var skipped: UInt64 = 0
      while vector[word] & ~skipped != 0 {
        let bit = (vector[word] & ~skipped).trailingZeroBitCount
        let index = leader[word * 64 + bit]
        if index < 0 {
          skipped |= 1 << UInt64(bit)
          continue
        }
        for rest in word..<vector.count { vector[rest] ^= vectors[index][rest] }
        work += vector.count - word
      }
    }
    return vector
  }

  mutating func add(_ vector: [UInt64]) {
    let rest = reduced(vector)
    guard let word = rest.firstIndex(where: { $0 != 0 }) else { return }
    leader[word * 64 + rest[word].trailingZeroBitCount] = vectors.count
    vectors.append(rest)
  }
}
