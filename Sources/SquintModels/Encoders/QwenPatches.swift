import SquintCompute
import SquintFile

/// How Qwen's towers see an image of any size: its patches in the order in which they go through the layers, the angles by which each
/// turns, and the windows that they are in.
struct QwenPatches: @unchecked Sendable {  // views of the arena
  struct Regions: Sendable {
    let places: Region<PatchPlace>
    let cosines: Region<Float>
    let sines: Region<Float>
    let windows: Region<RowBlock>

    /// - Parameter hasWindows: whether patches are grouped by windows.
    init(
      _ c: some QwenViTBlueprint, patches: Int, hasWindows: Bool, in plan: inout ArenaPlan
    ) throws(SquintError) {
      let phases = Phases.encode
      let pairs = 2 * c.ropeFrequencies.count
      places = try plan.reserve("places of patches", count: patches, phases: phases)
      cosines = try plan.reserve("encoder cosines", count: patches * pairs, phases: phases)
      sines = try plan.reserve("encoder sines", count: patches * pairs, phases: phases)
      // None is smaller than a square.
      windows = try plan.reserve(
        "windows of patches", count: hasWindows ? patches / (c.merge * c.merge) : 0, phases: phases)
    }
  }

  private let patch: Matrix
  private let frames: Matrix?
  private let side: Int
  private let merge: Int
  private let frequencies: [Float]
  /// [3, 256]: what each level of each channel is for the model.
  private let levels: [Float]
  private let places: UnsafeMutablePointer<PatchPlace>
  private let allWindows: UnsafeMutablePointer<RowBlock>
  private var windowCount = 0
  /// [patches, head_width / 2]: the first half turns by the row, the second by the column.
  private let angles: RotaryAngles
  private(set) var grid = FeatureGrid(rows: 0, columns: 0)
  private var shape: [Int] = []

  init(
    _ c: some QwenViTBlueprint, _ weights: QwenPatchWeights, levels: [Float], _ regions: Regions, in arena: Arena
  ) {
    patch = weights.patch
    frames = weights.frames
    side = c.patch
    merge = c.merge
    frequencies = c.ropeFrequencies
    self.levels = levels
    places = arena[regions.places].baseAddress!
    allWindows = arena[regions.windows].baseAddress!
    let pairs = 2 * c.ropeFrequencies.count
    angles = RotaryAngles(
      cosines: Rows(regions.cosines, width: pairs, in: arena), sines: Rows(regions.sines, width: pairs, in: arena))
  }

  /// The windows, as runs of rows.
  var windows: UnsafeBufferPointer<RowBlock> { UnsafeBufferPointer(start: allWindows, count: windowCount) }

  /// Turns the heads of queries or keys [count, width] of the rows from `first` on, in place.
  func turn(_ x: Rows, first: Int, count: Int, _ compute: Compute) {
    compute.rotate(x, headWidth: 2 * angles.cosines.width, count: count, angles.from(first))
  }

  /// Computes the places and the angles of a unit of this shape.
  ///
  /// - Parameter window: the side of a window in squares, by which patches are grouped then; nil: they come row after row.
  mutating func begin(shape: [Int], _ grid: FeatureGrid, window: Int?) {
    self.shape = shape
    self.grid = grid
    if let window {
      group(byWindowsOf: window * merge)
    } else {
      for index in 0..<grid.count {
        places[index] = PatchPlace(row: Int32(index / grid.columns), column: Int32(index % grid.columns))
      }
    }
    let half = frequencies.count
    for index in 0..<grid.count {
      let (row, column) = (Float(places[index].row), Float(places[index].column))
      let (cosines, sines) = (angles.cosines[index], angles.sines[index])
      for pair in 0..<half {
        (cosines[pair], sines[pair]) = (cosf(row * frequencies[pair]), sinf(row * frequencies[pair]))
        (cosines[half + pair], sines[half + pair]) = (
          cosf(column * frequencies[pair]), sinf(column * frequencies[pair])
        )
      }
    }
  }

  /// Windows of `side` × `side` patches, row after row, smaller ones at the right and the bottom; in each its patches row after row
  /// (Qwen2_5_VisionTransformer.get_window_index).
  private mutating func group(byWindowsOf side: Int) {
    windowCount = 0
    var count = 0
    for top in stride(from: 0, to: grid.rows, by: side) {
      for left in stride(from: 0, to: grid.columns, by: side) {
        let first = count
        for row in top..<min(top + side, grid.rows) {
          for column in left..<min(left + side, grid.columns) {
            places[count] = PatchPlace(row: Int32(row), column: Int32(column))
            count += 1
          }
        }
        allWindows[windowCount] = RowBlock(first..<count)
        windowCount += 1
      }
    }
  }

  /// x = patch · pixels, of one frame or of two.
  func embed(_ numbers: UnsafeRawPointer, _ buffers: EncoderBuffers, _ compute: Compute, into x: Rows) {
    let isPair = shape.count == 3
    let (height, width) = (shape[shape.count - 2], shape[shape.count - 1])
    guard let matrix = isPair ? frames : patch else { preconditionFailure("the grid was asked for") }
    levels.withUnsafeBufferPointer { levels in
      let image = PixelFrames(
        pixels: numbers.assumingMemoryBound(to: UInt8.self), frames: isPair ? 2 : 1, height: height, width: width,
        levels: levels.baseAddress!)
      let pixels = Rows(data: buffers.pixels.data, width: matrix.columns)
      buffers.forEachChunk(of: grid.count) { first, rows in
        compute.gatherPatches(
          image, side: side, columns: grid.columns, places: places, first: first, count: rows, into: pixels)
        compute.multiply(pixels, count: rows, scratch: buffers.quantized, .init(matrix, into: x.from(first)))
      }
    }
  }

  /// Which row of the features, which come row after row of the image, row `index` becomes.
  func featureRow(_ index: Int) -> Int { Int(places[index].row) * grid.columns + Int(places[index].column) }
}

/// The matrices that patches are multiplied with.
struct QwenPatchWeights: Sendable {
  let patch: Matrix  // [width, 3 · patch · patch]
  let frames: Matrix?  // [width, 6 · patch · patch]

  init(_ c: some QwenViTBlueprint, in file: ModelFile) throws(SquintError) {
    patch = try Matrix(c.patches, in: file)
    frames = !c.hasFrames ? nil : try Matrix(c.frames, in: file).withBias(of: patch)
  }
}

extension QwenViTBlueprint {
  /// The patches of an image of [height, width] pixels, or of two frames, [2, height, width].
  ///
  /// - Throws: `badData` where a side is no multiple of a square's.
  func grid(of shape: [Int]) throws(SquintError) -> FeatureGrid {
    guard shape.count == 2 || shape.count == 3 && shape[0] == 2 else {
      throw SquintError(.badData, "\(module): it takes an image or two frames at a time")
    }
    guard shape.count == 2 || hasFrames else {
      throw SquintError(
        .badData, "\(module): the tensor \(frames.name) is missing, which videos need; convert the model again")
    }
    let (height, width) = (shape[shape.count - 2], shape[shape.count - 1])
    let square = patch * merge
    guard height > 0, width > 0, height % square == 0, width % square == 0 else {
      throw SquintError(
        .badData,
        "\(module): an image of \(height) × \(width) pixels is not cut into squares of \(square) pixels; convert the model "
          + "again")
    }
    return FeatureGrid(rows: height / patch, columns: width / patch)
  }

  func sizes(innerRows: Int = 1, featureLayers: [Int]) -> EncoderSizes {
    var sizes = EncoderSizes(
      module: module, layers: layers, width: width, heads: heads, innerWidth: ffnWidth, patchWidth: 6 * patch * patch,
      featureLayers: featureLayers)
    sizes.innerRows = innerRows
    return sizes
  }
}
