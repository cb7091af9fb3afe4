import CSystem
import SquintFile

/// What a checkpoint does with a molecule before its encoder (formats/molecules.md).
///
/// A unit is a molecule, [atoms, edges]: Int32 numbers of its atoms, [atoms, 2], and then of its edges, [edges, 4].
package struct MoleculeProcessor: Sendable, Equatable {
  /// Which numbers stand for atoms and bonds.
  package enum Features: String, Sendable, CaseIterable {
    /// Element and chirality; type and direction (InstructMol's).
    case chirality
  }

  package let features: Features

  package init(features: Features = .chirality) { self.features = features }

  /// Reads the keys `molecule.*`.
  ///
  /// - Throws: `badData` where one is missing, or not known.
  package init(_ metadata: Metadata) throws(SquintError) {
    let name = try metadata.string("molecule.features")
    guard let features = Features(rawValue: name) else {
      throw SquintError(.badData, "metadata molecule.features is \(name), which is not known; convert the model again")
    }
    self.features = features
  }

  /// The graph of a molecule that is written as SMILES, or in a MOL or SDF file.
  ///
  /// - Throws: `badData` with the place where it is none, or where the features have no numbers for it.
  package static func graph(of bytes: [UInt8]) throws(SquintError) -> MoleculeGraph {
    try perceived(bytes).graph()
  }

  private static func perceived(_ bytes: [UInt8]) throws(SquintError) -> Molecule {
    var molecule: Molecule
    if MolBlockParser.isMolBlock(bytes) {
      molecule = try MolBlockParser.molecule(bytes)
    } else {
      let line = firstLine(bytes).line
      do throws(SquintError) {
        molecule = try SMILESParser.molecule(line)
        try molecule.perceive()
      } catch {
        guard let notation = MoleculeNotation(line) else { throw error }
        throw Molecule.bad(notation.remedy)
      }
    }
    molecule.perceiveStereo()
    return molecule
  }

  /// The first line that is not blank, and whether more follow.
  private static func firstLine(_ bytes: [UInt8]) -> (line: [UInt8], hasMore: Bool) {
    let start = bytes.firstIndex { $0 > 0x20 } ?? 0
    let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
    // A blank at the beginning belongs to the SMILES: no name follows it.
    let isBlank = start > 0 && bytes[start - 1] != UInt8(ascii: "\n")
    return (Array(bytes[(isBlank ? start - 1 : start)..<end]), bytes[end...].contains { $0 > 0x20 })
  }

  private func read(_ file: MediaFile) throws(SquintError) -> (bytes: [UInt8], molecule: Molecule, graph: MoleculeGraph)
  {
    let bytes = try file.bytes(at: 0, count: MolBlockParser.mostBytes)
    do throws(SquintError) {
      let molecule = try Self.perceived(bytes)
      return (bytes, molecule, try molecule.graph())
    } catch {
      throw Self.named(error, file, bytes)
    }
  }

  /// The error with the name of the file, or of the text, and what the file was taken for.
  private static func named(_ error: SquintError, _ file: MediaFile, _ bytes: [UInt8]) -> SquintError {
    let isBlank = !bytes.contains { $0 > 0x20 }
    guard file.isText else {
      if isBlank { return .badData(file.path, "the file is empty; it should hold SMILES, or be a MOL or SDF file") }
      if MolBlockParser.isMolBlock(bytes) || MoleculeNotation(firstLine(bytes).line) != nil {
        return error.naming(file.path)
      }
      return error.adding(
        before:
          "\(file.path): this is no MOL or SDF file, which has its counts in the fourth line, and its first line is no SMILES: "
      )
    }
    if isBlank { return .badData(file.name, "the SMILES is empty; give one, such as CCO, or the name of a file") }
    let hint = looksLikeFileName(file.path) ? "; nor is there a file of that name" : ""
    return SquintError(error.kind, error.naming(file.name).message + hint)
  }

  private func layout(atoms: Int, bonds: Int) -> MediaLayout {
    MediaLayout(runs: [
      MediaLayout.Run(
        shape: [atoms, 2 * bonds], count: 1, unitBytes: (2 * atoms + 8 * bonds) * MemoryLayout<Int32>.stride)
    ])
  }

  private func layout(_ molecule: Molecule) -> MediaLayout {
    layout(atoms: molecule.atoms.count, bonds: molecule.bonds.count)
  }

  /// What perception holds of a text of so many bytes, of atoms, of bonds and of the rings that they are in, each amply.
  private func perceptionBytes(text: Int, atoms: Int, bonds: Int, ringAtoms: Int) -> Int {
    4 * text + 1024 * (atoms + bonds) + 64 * ringAtoms
  }
}

extension MoleculeProcessor: MediaProcessor {
  package var levels: [Float] { [] }

  /// Of the usual molecule alone: one of 256 atoms. Few that people ask about are larger; one that is takes its own cost.
  package func costs() -> [MediaCost] {
    let (atoms, bonds) = (Self.usualAtoms, Self.usualAtoms * 5 / 4)
    let layout = layout(atoms: atoms, bonds: bonds)
    // Its text is a MOL file, and all of its atoms are where two rings meet.
    let working = perceptionBytes(
      text: 80 * atoms + 24 * bonds, atoms: atoms, bonds: bonds, ringAtoms: 2 * atoms)
    return [MediaCost(layout: layout, decodingBytes: layout.byteCount + working)]
  }

  private static let usualAtoms = 256

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost {
    let (bytes, molecule, _) = try read(file)
    let layout = layout(molecule)
    let working = perceptionBytes(
      text: bytes.count, atoms: molecule.atoms.count, bonds: molecule.bonds.count,
      ringAtoms: molecule.rings.countOfAtom.reduce(0, +))
    var cost = MediaCost(layout: layout, decodingBytes: file.heldBytes + layout.byteCount + working)
    let hasMore =
      MolBlockParser.isMolBlock(bytes)
      ? MolBlockParser.hasMore(bytes) : Self.firstLine(bytes).hasMore
    if hasMore { cost.notes.append("only the first of its molecules is taken") }
    if !MolBlockParser.isMolBlock(bytes) {
      let line = Self.firstLine(bytes).line
      if let leftOut = SMILESParser.leftOut(of: line) { cost.notes.append(leftOut) }
      if MoleculeNotation(line) == .selfies {
        cost.notes.append(
          "it is taken for SMILES, where atoms in brackets have no hydrogens; \(MoleculeNotation.selfies.remedy)")
      }
    }
    return cost
  }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> MoleculeProcessor {
    guard most >= 1 else { throw SquintError(.usage, "at most \(most) units; choose 1 or more") }
    return self
  }

  package func resizing(toSide side: Int) throws(SquintError) -> MoleculeProcessor {
    throw SquintError(.usage, "a molecule has no size that could be chosen")
  }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? {
    guard shouldContinue() else { return nil }
    let (_, molecule, graph) = try read(file)
    return MediaUnits(layout: layout(molecule), bytes: graph.bytes)
  }

  /// The numbers of the atoms: [atoms, 2].
  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    let count = 2 * shape[0]
    let numbers = (0..<count).map { Float(unit.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self)) }
    return ([shape[0], 2], numbers)
  }
}

extension MoleculeGraph {
  /// Int32 numbers in the machine's order: atoms [atoms, 2] = element, chirality; then edges [edges, 4] = source, target, type,
  /// direction.
  package var bytes: [UInt8] {
    var numbers: [Int32] = []
    numbers.reserveCapacity(2 * atoms.count + 4 * edges.count)
    for atom in atoms { numbers += [atom.element, atom.chirality] }
    for edge in edges { numbers += [edge.source, edge.target, edge.type, edge.direction] }
    return numbers.withUnsafeBytes { Array($0) }
  }
}

extension MoleculeProcessor {
  /// Whether what a user gives for a molecule names a file, and is not SMILES: by its ending, or a pipe, or as there is a file that is
  /// called so and no SMILES is.
  package static func isFileName(_ text: String) -> Bool {
    let name = text.lowercased()
    if [".smi", ".smiles", ".mol", ".sdf", ".sd"].contains(where: { name.hasSuffix($0) })
      || MediaFile.inherited(text) != nil
    {
      return true
    }
    guard !text.isEmpty, text.utf8.count <= mostNameBytes, !text.utf8.contains(0), access(text, F_OK) == 0 else {
      return false
    }
    return (try? SMILESParser.molecule(Array(text.utf8))) == nil
  }

  /// Whether a text that is no SMILES was meant as the name of a file: it ends as such names do.
  private static func looksLikeFileName(_ text: String) -> Bool {
    guard text.utf8.count <= mostNameBytes, let dot = text.utf8.lastIndex(of: UInt8(ascii: ".")) else { return false }
    let ending = text.utf8[text.utf8.index(after: dot)...]
    return (1...5).contains(ending.count) && ending.first.map { (97...122).contains($0) } == true
      && ending.allSatisfy { (48...57).contains($0) || (97...122).contains($0) }
  }

  /// No name of a file is longer.
  private static let mostNameBytes = 4096
}
