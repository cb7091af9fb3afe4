import SquintFile

/// A place of an atom, in the units of its file.
struct Point {
  var x = 0.0
  var y = 0.0
  var z = 0.0

  static func - (left: Point, right: Point) -> Point {
    Point(x: left.x - right.x, y: left.y - right.y, z: left.z - right.z)
  }

  func dot(_ other: Point) -> Double { x * other.x + y * other.y + z * other.z }

  func cross(_ other: Point) -> Point {
    Point(x: y * other.z - z * other.y, y: z * other.x - x * other.z, z: x * other.y - y * other.x)
  }

  var squaredLength: Double { dot(self) }
  var length: Double { squaredLength.squareRoot() }

  var normalized: Point {
    let length = length
    return length > 0 ? Point(x: x / length, y: y / length, z: z / length) : self
  }

  var isFinite: Bool { x.isFinite && y.isFinite && z.isFinite }
}

/// Chirality from drawings and from coordinates (RDKit's Chirality.cpp, whose tolerances these are).
struct MolBlockStereo {
  private static let small = 1e-3
  private static let smallCoordinate = 1e-4
  /// The z of a wedged bond's end, where the bond is 1 long.
  private static let wedgeHeight = 0.1
  private static let leastVolume = 0.00174
  private static let tShape = 0.00031
  private static let leastVolumeInSpace = 0.1
  private static let opposite = 0.9

  let points: [Point]

  // MARK: Drawings

  /// Chirality by wedged bonds.
  ///
  /// - Throws: `badData` where an atom has more bonds than it may.
  func readWedges(_ molecule: inout Molecule) throws(SquintError) {
    var isSet = [Bool](repeating: false, count: molecule.atoms.count)
    for bond in molecule.bonds.indices {
      let atom = molecule.bonds[bond].begin
      switch molecule.bonds[bond].direction {
      case .unknown:
        molecule.atoms[atom].chirality = .none
        isSet[atom] = true
      case .wedge, .dash:
        guard !isSet[atom] else { continue }
        molecule.updateImplicitValence(atom)
        let chirality = chirality(of: atom, by: bond, molecule)
        if chirality != .none { isSet[atom] = true }
        molecule.atoms[atom].chirality = chirality
        if molecule.atoms[atom].degree == 3 && molecule.atoms[atom].explicitHydrogens == 0
          && molecule.atoms[atom].implicitHydrogens == 1
        {
          molecule.atoms[atom].explicitHydrogens = 1
          molecule.atoms[atom].explicitValence = try molecule.explicitValence(atom, isStrict: true)
          molecule.atoms[atom].implicitValence = try molecule.implicitValence(atom, isStrict: true)
        }
      case .none, .up, .down, .eitherDouble: break
      }
    }
  }

  /// The chirality of `atom` that `wedge`, which begins there, tells; none where the drawing is ambiguous.
  private func chirality(of atom: Int, by wedge: Int, _ molecule: Molecule) -> Molecule.Chirality {
    let bonds = molecule.atoms[atom].bonds
    guard (3...4).contains(bonds.count) else { return .none }
    var center = points[atom]
    center.z = 0
    var vectors: [Point] = []
    let end = points[molecule.bonds[wedge].end]
    // In space here, as the file's z counts for how high a wedge is.
    let length = (center - end).length
    func height(_ bond: Int) -> Double {
      let height = molecule.bonds[bond].direction == .wedge ? Self.wedgeHeight : -Self.wedgeHeight
      return length > 0 ? height * length : height
    }
    var first = 0
    for (index, bond) in bonds.enumerated() {
      var point = points[molecule.bonds[bond].other(atom)]
      let direction = molecule.bonds[bond].direction
      let isWedged = molecule.bonds[bond].begin == atom && (direction == .wedge || direction == .dash)
      point.z = isWedged ? height(bond) : 0
      if bond == wedge {
        first = index
      } else if (center - point).squaredLength < Self.small {
        return .none
      }
      vectors.append((point - center).normalized)
    }
    for index in vectors.indices {
      for other in 0..<index where (vectors[index] - vectors[other]).squaredLength < Self.small { return .none }
    }
    let number = molecule.atoms[atom].number
    guard bonds.allSatisfy({ molecule.bonds[$0].order == .single }) || number == 15 || number == 16 else {
      return .none
    }

    var order = Array(vectors.indices)
    var isOdd = false
    if first != 0 {
      order.swapAt(0, first)
      isOdd.toggle()
    }
    if vectors.count > 3, vectors[order[1]].cross(vectors[order[2]]).squaredLength < 10 * Self.small,
      vectors[order[1]].cross(vectors[order[0]]).squaredLength > 10 * Self.small
    {
      vectors[order[1]].z = -vectors[order[0]].z
    }
    if sortAround(vectors, &order) { isOdd.toggle() }
    guard !areContradicting(&vectors, order) else { return .none }
    guard let volume = volume(&vectors, order, &isOdd) else { return .none }
    let signed = isOdd ? -volume : volume
    return signed > Self.leastVolume ? .counterclockwise : signed < -Self.leastVolume ? .clockwise : .none
  }

  /// Sorts the bonds behind the first by their angle from it. Returns whether that is an odd permutation.
  private func sortAround(_ vectors: [Point], _ order: inout [Int]) -> Bool {
    let base = vectors[order[0]]
    if vectors.count == 3 {
      let (one, two) = (vectors[order[1]], vectors[order[2]])
      guard mustSwap(base.cross(one).z, base.cross(two).z, base.dot(one), base.dot(two)) else { return false }
      order.swapAt(1, 2)
      return true
    }
    let sorted = order[1...].map { index -> (sign: Double, key: Double, index: Int) in
      let sign = base.cross(vectors[index]).z < -Self.small ? -1.0 : 1.0
      return (sign, sign * base.dot(vectors[index]), index)
    }.sorted { $0 > $1 }
    var changed = 0
    for (place, entry) in sorted.enumerated() where order[place + 1] != entry.index {
      order[place + 1] = entry.index
      changed += 1
    }
    return changed == 2
  }

  private func mustSwap(_ crossOne: Double, _ crossTwo: Double, _ dotOne: Double, _ dotTwo: Double) -> Bool {
    if abs(dotOne) - 1 > -Self.small { return crossTwo < 0 }
    if abs(dotTwo) - 1 > -Self.small && crossOne < 0 { return true }
    if crossOne * crossTwo < -Self.small { return crossOne < crossTwo }
    if dotOne * dotTwo < -Self.small { return dotOne < dotTwo }
    return abs(dotOne) > abs(dotTwo)
  }

  /// Whether wedges gainsay one another.
  private func areContradicting(_ vectors: inout [Point], _ order: [Int]) -> Bool {
    for index in order.indices {
      for other in order.indices where other > index {
        let (one, two) = (vectors[order[index]], vectors[order[other]])
        guard one.z * two.z < -Self.small, one.cross(two).squaredLength < 0.01 else { continue }
        // Drawings of sugars have substituents on a line, one up and one down.
        if order.count == 4, abs(one.dot(two) + 1) < Self.small, other - index == 1 || (index == 0 && other == 3) {
          vectors[order[other]].z = 0
          continue
        }
        return true
      }
    }
    guard order.count == 3 else { return false }
    let (base, one, two) = (vectors[order[0]], vectors[order[1]], vectors[order[2]])
    if one.z * base.z < -Self.smallCoordinate && abs(two.z) < Self.smallCoordinate {
      return two.cross(base).z * two.cross(one).z < -1e-4
    }
    if two.z * base.z < -Self.smallCoordinate && abs(one.z) < Self.smallCoordinate {
      return one.cross(base).z * one.cross(two).z < -Self.smallCoordinate
    }
    return false
  }

  private func volume(_ vectors: inout [Point], _ order: [Int], _ isOdd: inout Bool) -> Double? {
    let base = vectors[order[0]]
    var one = vectors[order[1]]
    var two = vectors[order[2]]
    one.z = 0
    two.z = 0
    var cross = one.cross(two)
    if order.count == 3 {
      if cross.squaredLength < Self.tShape {
        // Two bonds on a line: they are as much down as the other is up.
        one.z = -base.z
        two.z = -base.z
        cross = one.cross(two)
      }
    } else if cross.squaredLength < 10 * Self.small, abs(vectors[order[3]].z) < Self.smallCoordinate {
      vectors[order[3]].z = -base.z
    }
    let first = cross.dot(base)
    guard order.count == 4 else { return first }
    let dotOne = vectors[order[1]].dot(vectors[order[2]])
    var three = vectors[order[3]]
    three.z = 0
    let dotTwo = vectors[order[1]].dot(vectors[order[3]])
    let second = one.cross(three).dot(base)
    if abs(first) < Self.small {
      guard abs(second) >= Self.small else { return nil }
      isOdd.toggle()
      return second
    }
    if first * second > 0 && abs(second) > Self.leastVolume && dotOne < dotTwo {
      isOdd.toggle()
      return second
    }
    if abs(first) < Self.leastVolume && abs(second) > Self.leastVolume {
      if first * second < 0 { isOdd.toggle() }
      return second
    }
    return first
  }

  // MARK: Space

  /// Chirality by the coordinates in space.
  func readSpace(_ molecule: inout Molecule) {
    for atom in molecule.atoms.indices {
      molecule.atoms[atom].chirality = .none
      let this = molecule.atoms[atom]
      let total = this.totalDegree
      guard this.degree >= 3, total <= 6 else { continue }
      let isUnknown = this.bonds.contains {
        molecule.bonds[$0].begin == atom && molecule.bonds[$0].order == .single
          && molecule.bonds[$0].direction == .unknown
      }
      let vectors = molecule.neighbors(atom).map { points[$0] - points[atom] }
      if this.number >= 15, !isUnknown, let other = coordination(vectors.map(\.normalized)) {
        molecule.atoms[atom].chirality = other
        continue
      }
      guard total <= 4, this.number == 16 || this.number == 34 || total == 4, !isUnknown else { continue }
      var volume = vectors[0].dot(vectors[1].cross(vectors[2]))
      if abs(volume) <= Self.leastVolumeInSpace && vectors.count == 4 {
        volume = -vectors[0].dot(vectors[1].cross(vectors[3]))
      }
      molecule.atoms[atom].chirality =
        volume < -Self.leastVolumeInSpace
        ? .clockwise : volume > Self.leastVolumeInSpace ? .counterclockwise : .none
    }
  }

  /// The kind of a centre that is not tetrahedral, by which of its neighbors stand opposite.
  private func coordination(_ vectors: [Point]) -> Molecule.Chirality? {
    guard (3...6).contains(vectors.count) else { return nil }
    var partner = [Int](repeating: -1, count: vectors.count)
    var pairs = 0
    for index in vectors.indices {
      for other in vectors.indices where other > index && vectors[index].dot(vectors[other]) < -Self.opposite {
        guard partner[index] < 0, partner[other] < 0 else { return nil }
        (partner[index], partner[other]) = (other, index)
        pairs += 1
      }
    }
    switch (pairs, vectors.count) {
    case (1, 3), (2, 4): return .squarePlanar
    case (1, 4):
      let rest = vectors.indices.filter { partner[$0] < 0 }.map { vectors[$0] }
      // The other two at less than 100 degrees.
      return rest[0].dot(rest[1]) > -0.17364817766693036 ? .octahedral : .bipyramidal
    case (1, 5): return .bipyramidal
    case (2, 5), (3, 6): return .octahedral
    default: return nil
    }
  }

  // MARK: Double bonds

  /// Directions of the bonds at double bonds, from where their ends lie.
  func readDoubleBonds(_ molecule: inout Molecule) {
    var sides = DoubleBondSides(points: points, molecule)
    sides.run(&molecule)
  }
}

/// RDKit's `setDoubleBondNeighborDirections`.
private struct DoubleBondSides {
  private let points: [Point]
  private var needsDirection: [Bool]
  /// Of each single bond: to how many ends of double bonds it belongs, and which these are.
  private var counts: [Int]
  private var doubleBonds: [[Int]]

  init(points: [Point], _ molecule: Molecule) {
    self.points = points
    needsDirection = [Bool](repeating: false, count: molecule.bonds.count)
    counts = [Int](repeating: 0, count: molecule.bonds.count)
    doubleBonds = [[Int]](repeating: [], count: molecule.bonds.count)
  }

  mutating func run(_ molecule: inout Molecule) {
    var found: [(priority: Int, bond: Int)] = []
    for bond in molecule.bonds.indices {
      let this = molecule.bonds[bond]
      guard this.order == .double, this.stereo != .any, this.direction != .eitherDouble,
        molecule.atoms[this.begin].degree > 1, molecule.atoms[this.end].degree > 1, molecule.mayHaveSides(bond)
      else { continue }
      var sum = 0
      for atom in [this.begin, this.end] {
        for neighbor in molecule.atoms[atom].bonds
        where molecule.bonds[neighbor].order == .single || molecule.bonds[neighbor].order == .aromatic {
          counts[neighbor] += 1
          needsDirection[bond] = true
          let direction = molecule.bonds[neighbor].direction
          if direction == .none || direction.isStereo {
            needsDirection[neighbor] = true
            sum += neighbor
            if !doubleBonds[neighbor].contains(bond) { doubleBonds[neighbor].append(bond) }
          }
        }
      }
      // The sum of indices, not of counts: so is the reference's order.
      found.append((molecule.rings.countOfBond[bond] > 0 ? sum : sum * 10, bond))
    }
    found.sort { $0.priority != $1.priority ? $0.priority > $1.priority : $0.bond < $1.bond }
    for (_, bond) in found {
      var stack = [bond]
      while let next = stack.popLast() { stack.append(contentsOf: update(next, &molecule).reversed()) }
    }
  }

  private struct Control {
    var bond = -1
    var other = -1
    var isUnknown = false
  }

  /// The bond at an end of a double bond that is to have a direction, and the other one there.
  private func control(_ atom: Int, _ double: Int, _ molecule: Molecule) -> Control {
    var control = Control()
    for bond in molecule.atoms[atom].bonds where bond != double {
      let this = molecule.bonds[bond]
      guard this.order == .single || this.order == .aromatic else { continue }
      if this.direction == .none || this.direction.isStereo {
        if control.bond < 0 {
          control.bond = bond
        } else if needsDirection[bond] && counts[bond] <= counts[control.bond] {
          control.other = bond
        } else {
          control.other = control.bond
          control.bond = bond
        }
      }
      if this.direction == .unknown || this.hasUnknownStereo {
        control.isUnknown = true
        return control
      }
    }
    return control
  }

  private func isLinear(_ first: Point, _ second: Point) -> Bool {
    let squared = first.squaredLength * second.squaredLength
    return squared < 1e-6 || first.dot(second) < -0.999388 * squared.squareRoot()
  }

  private mutating func setDirection(
    _ bond: Int, at atom: Int, _ direction: Molecule.Bond.Direction, isReversed: Bool, _ molecule: inout Molecule
  ) {
    let isOpposite = (molecule.bonds[bond].begin == atom) == isReversed
    molecule.bonds[bond].direction = isOpposite ? direction.opposite : direction
  }

  /// Sets the directions at one double bond. Returns the double bonds that come next, which share bonds with it.
  private mutating func update(_ double: Int, _ molecule: inout Molecule) -> [Int] {
    guard needsDirection[double] else { return [] }
    needsDirection[double] = false
    let (begin, end) = (molecule.bonds[double].begin, molecule.bonds[double].end)
    var first = control(begin, double, molecule)
    if first.isUnknown {
      molecule.bonds[double].stereo = .any
      return []
    }
    guard first.bond >= 0 else { return [] }
    var second = control(end, double, molecule)
    if second.isUnknown {
      molecule.bonds[double].stereo = .any
      return []
    }
    guard second.bond >= 0 else { return [] }

    let (beginPoint, endPoint) = (points[begin], points[end])
    func point(_ bond: Int, _ atom: Int) -> Point { points[molecule.bonds[bond].other(atom)] }
    var isStraight = false
    if isLinear(point(first.bond, begin) - beginPoint, endPoint - beginPoint) {
      if first.other < 0 {
        isStraight = true
      } else {
        swap(&first.bond, &first.other)
        isStraight = isLinear(point(first.bond, begin) - beginPoint, endPoint - beginPoint)
      }
    }
    if !isStraight, isLinear(point(second.bond, end) - endPoint, beginPoint - endPoint) {
      if second.other < 0 {
        isStraight = true
      } else {
        swap(&second.bond, &second.other)
        // Measured from the beginning, as the reference does.
        isStraight = isLinear(point(second.bond, end) - beginPoint, beginPoint - endPoint)
      }
    }
    if isStraight {
      molecule.bonds[double].stereo = .any
      return []
    }
    let axis = endPoint - beginPoint
    let firstNormal = (point(first.bond, begin) - beginPoint).cross(axis)
    let secondNormal = (point(second.bond, end) - endPoint).cross(axis)
    var isReversed = firstNormal.dot(secondNormal) <= 0

    var next: [Int] = []
    for bond in [first.bond, second.bond] where needsDirection[bond] {
      next.append(contentsOf: doubleBonds[bond].filter { needsDirection[$0] })
    }
    switch (needsDirection[first.bond], needsDirection[second.bond]) {
    case (false, false): break
    case (false, true):
      if molecule.bonds[first.bond].begin != begin { isReversed.toggle() }
      setDirection(second.bond, at: end, molecule.bonds[first.bond].direction, isReversed: isReversed, &molecule)
    case (true, false):
      if molecule.bonds[second.bond].begin != end { isReversed.toggle() }
      setDirection(first.bond, at: begin, molecule.bonds[second.bond].direction, isReversed: isReversed, &molecule)
    case (true, true):
      setDirection(first.bond, at: begin, .down, isReversed: false, &molecule)
      setDirection(second.bond, at: end, .down, isReversed: isReversed, &molecule)
    }
    needsDirection[first.bond] = false
    needsDirection[second.bond] = false
    for (control, atom) in [(first, begin), (second, end)] where control.other >= 0 && needsDirection[control.other] {
      setDirection(
        control.other, at: atom, molecule.bonds[control.bond].direction,
        isReversed: molecule.bonds[control.bond].begin == atom, &molecule)
      needsDirection[control.other] = false
    }
    return next
  }
}
