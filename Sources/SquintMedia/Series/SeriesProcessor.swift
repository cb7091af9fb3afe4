import SquintFile

/// What a checkpoint does with a series before its encoder.
package struct SeriesProcessor: MediaProcessor {
  package init(_ metadata: Metadata) throws(SquintError) {
    throw SquintError(.badData, "this version takes no series; update squint")
  }

  package var levels: [Float] { [] }

  package func costs() -> [MediaCost] { [] }

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost { throw file.error("it is not read") }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> SeriesProcessor { self }

  package func resizing(toSide side: Int) throws(SquintError) -> SeriesProcessor { self }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? { nil }

  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    (shape, [])
  }
}
