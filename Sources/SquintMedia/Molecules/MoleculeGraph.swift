/// A molecule as the graph network of MoleculeSTM takes it: two numbers an atom, two numbers a bond (formats/molecules.md).
///
/// Atoms stand in the order of the text that they came from. Source: InstructMol's `smiles2graph`.
package struct MoleculeGraph: Sendable, Equatable {
  package struct Atom: Sendable, Equatable {
    /// The atomic number − 1; of any atom, `*`, 118.
    package let element: Int32
    /// 0 none, 1 clockwise, 2 counterclockwise, seen from the first of the atom's bonds along the others in their order.
    package let chirality: Int32
  }

  package struct Edge: Sendable, Equatable {
    package let source: Int32
    package let target: Int32
    /// 0 single, 1 double, 2 triple, 3 aromatic.
    package let type: Int32
    /// 0 none, 1 its end is up, 2 its end is down: of the bond's own direction, which both of its edges bear.
    package let direction: Int32
  }

  package let atoms: [Atom]
  /// Two for each bond, one after the other: from its beginning to its end, and back.
  package let edges: [Edge]

  package init(atoms: [Atom], edges: [Edge]) {
    self.atoms = atoms
    self.edges = edges
  }
}
