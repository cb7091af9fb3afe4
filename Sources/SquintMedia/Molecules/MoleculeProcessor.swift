import SquintFile

/// What a checkpoint does with a molecule before its encoder.
package struct MoleculeProcessor: MediaProcessor {
  package init(_ metadata: Metadata) throws(SquintError) {
    throw SquintError(.badData, "this version takes no molecule; update squint")
  }

  package var levels: [Float] { [] }

  package func costs() -> [MediaCost] { [] }

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost { throw file.error("it is not read") }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> MoleculeProcessor { self }

  package func resizing(toSide side: Int) throws(SquintError) -> MoleculeProcessor { self }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? { nil }

  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    (shape, [])
  }
}

extension MoleculeProcessor {
  /// Whether what a user gives for a molecule names a file, and is not SMILES: by its ending, or a pipe.
  package static func isFileName(_ text: String) -> Bool {
    let name = text.lowercased()
    return [".smi", ".smiles", ".mol", ".sdf", ".sd"].contains { name.hasSuffix($0) }
      || MediaFile.inherited(text) != nil
  }
}
