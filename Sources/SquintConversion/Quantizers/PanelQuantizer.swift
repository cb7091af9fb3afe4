import SquintFile

/// Quantizes one panel: up to 16 rows of a matrix, into the bytes that the file holds.
///
/// Every scale is chosen by the squared error that it leaves, not by the range of the weights. The result depends on
/// the weights alone: not on threads, the machine or what was quantized before. Any number of threads may call it.
///
/// - Parameters:
///   - weights: `[rowsUsed, columns]`, row after row.
///   - rowsUsed: How many of the panel's 16 rows the matrix has: 1 to 16. The others are filled with zero bytes.
///   - layout: The layout of the whole matrix; its type is the panel's.
///   - importance: `[columns]`, how much an error in each column counts (the mean square of the activation that meets
///     it, from calibration); nil counts all alike. Only ratios matter. What is under a thousandth of the mean counts
///     as a thousandth, so that no column is given up.
///   - panel: Takes `layout.panelBytes` bytes; all are written.
///   - firstRow: The row of the matrix that `weights` starts with, for messages and for what is by chance.
///   - byChance: Whether 4-bit weights are rounded up or down with a chance that keeps their mean, which depends on row and column
///     alone. For weights that were of few bits before and have been changed by less than a step: to the nearest, all would
///     become what they were, and the change would be lost.
/// - Returns: Σ (w − ŵ)² and Σ w² over the panel, ŵ as the codec reads it, without importance.
/// - Throws: `SquintError` (badData) that names row and column of a weight that is not finite or is beyond what f16
///   scales reach: ±8,319,008 for int8, ±4,126,752 for int4, ±65,504 for int4_f16.
@discardableResult
package func quantizePanel(
  weights: UnsafeBufferPointer<Float>, rowsUsed: Int, layout: PanelLayout, importance: UnsafeBufferPointer<Float>?,
  into panel: UnsafeMutableRawBufferPointer, firstRow: Int = 0, byChance: Bool = false
) throws(SquintError) -> (squaredError: Double, squaredNorm: Double) {
  let columns = layout.columns
  precondition(
    rowsUsed > 0 && rowsUsed <= PanelLayout.rowsPerPanel && weights.count >= rowsUsed * columns
      && panel.count >= layout.panelBytes && (importance?.count ?? columns) >= columns)
  try checkRange(weights, rows: rowsUsed, columns: columns, type: layout.panelType, firstRow: firstRow)
  let mean = try importanceMean(importance, columns: columns)
  panel.baseAddress!.initializeMemory(as: UInt8.self, repeating: 0, count: layout.panelBytes)
  var result = (squaredError: 0.0, squaredNorm: 0.0)
  withUnsafeTemporaryAllocation(of: Lanes.self, capacity: BlockQuantizer.laneCount) { lanes in
    withUnsafeTemporaryAllocation(of: Float.self, capacity: BlockQuantizer.largestColumnCount) { blockImportance in
      withUnsafeTemporaryAllocation(of: GroupFit.self, capacity: Int4Block.largestGroupCount) { fits in
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: BlockQuantizer.quantCount) { quants in
          var block = BlockQuantizer(
            codec: PanelCodec(layout), rowsUsed: rowsUsed, chanceOf: byChance ? firstRow : nil, panel: panel,
            lanes: lanes.baseAddress!,
            importance: blockImportance.baseAddress!, fits: fits.baseAddress!, quants: quants.baseAddress!)
          for index in 0..<layout.blocks {
            block.load(index, weights: weights, importance: importance, mean: mean)
            switch layout.panelType {
            case .int8: block.quantizeInt8()
            case .int4: block.quantizeInt4()
            case .int4F16: block.quantizeInt4F16()
            }
          }
          result = (block.squaredError, block.squaredNorm)
        }
      }
    }
  }
  return result
}

/// The blocks of one panel, one after the other, through the same working memory.
private struct BlockQuantizer {
  static let largestColumnCount = Int4Block.largestGroupCount * PanelLayout.columnsPerGroup
  static let laneCount = 2 * largestColumnCount + 2 * Int4Block.laneCount
  static let quantCount = PanelLayout.rowsPerPanel * PanelLayout.columnsPerGroup

  let codec: PanelCodec
  let rowsUsed: Int
  /// The panel's first row, where weights are rounded by chance.
  let chanceOf: Int?
  let panel: UnsafeMutableRawBufferPointer
  /// The weights `[2 halves][columns of the block]`, eight rows a lane; rows that the matrix does not have are zero.
  private let lanes: UnsafeMutablePointer<Lanes>
  private let importance: UnsafeMutablePointer<Float>
  /// The stored numbers `[32 columns][16 rows]` of the group at hand.
  private let quants: UnsafeMutablePointer<UInt8>
  private var int4: (Int4Block, Int4Block)
  private var block = 0
  private var firstGroup = 0
  private var groups = 0
  private var columns = 0
  private var errors = SIMD8<Double>()
  private(set) var squaredNorm = 0.0

  var squaredError: Double { errors.sum() }

  init(
    codec: PanelCodec, rowsUsed: Int, chanceOf: Int?, panel: UnsafeMutableRawBufferPointer,
    lanes: UnsafeMutablePointer<Lanes>, importance: UnsafeMutablePointer<Float>,
    fits: UnsafeMutablePointer<GroupFit>, quants: UnsafeMutablePointer<UInt8>
  ) {
    self.codec = codec
    self.rowsUsed = rowsUsed
    self.chanceOf = chanceOf
    self.panel = panel
    self.lanes = lanes
    self.importance = importance
    self.quants = quants
    let rest = lanes + 2 * Self.largestColumnCount
    int4 = (Int4Block(lanes: rest, fits: fits), Int4Block(lanes: rest + Int4Block.laneCount, fits: fits))
  }

  /// Takes the weights of block `index`, rows turned into lanes.
  mutating func load(
    _ index: Int, weights: UnsafeBufferPointer<Float>, importance source: UnsafeBufferPointer<Float>?, mean: Float
  ) {
    let layout = codec.layout
    block = index
    firstGroup = index * PanelLayout.groupsPerBlock
    groups = layout.groups(inBlock: index)
    let firstColumn = firstGroup * PanelLayout.columnsPerGroup
    columns = min(groups * PanelLayout.columnsPerGroup, layout.columns - firstColumn)
    let values = UnsafeMutableRawPointer(lanes).assumingMemoryBound(to: Float.self)
    for row in 0..<PanelLayout.rowsPerPanel {
      let target = values + row / 8 * Self.largestColumnCount * 8 + row % 8
      if row < rowsUsed {
        let start = row * layout.columns + firstColumn
        var norm = 0.0
        for column in 0..<columns {
          let weight = weights[start + column]
          target[8 * column] = weight
          norm += Double(weight) * Double(weight)
        }
        squaredNorm += norm
      } else {
        for column in 0..<columns { target[8 * column] = 0 }
      }
    }
    for column in 0..<columns {
      importance[column] = source.map { min(max($0[firstColumn + column] / mean, 1e-3), 1e6) } ?? 1
    }
  }

  private func group(_ index: Int, half: Int) -> GroupWeights {
    let first = index * PanelLayout.columnsPerGroup
    return GroupWeights(
      weights: lanes + half * Self.largestColumnCount + first, importance: importance + first,
      count: min(PanelLayout.columnsPerGroup, columns - first))
  }

  mutating func quantizeInt8() {
    for index in 0..<groups {
      var scales = (Lanes(), Lanes())
      clearQuants()
      for half in 0..<2 {
        let group = group(index, half: half)
        let scale = group.bestInt8Scale()
        let inverse = scale.inverseOrZero
        for column in 0..<group.count {
          let q = group.int8Quant(column, inverse: inverse)
          errors += Self.square(group.weights[column] - scale * q)
          store(q + 128, column: column, half: half)
        }
        if half == 0 { scales.0 = scale } else { scales.1 = scale }
      }
      codec.setWeights(group: firstGroup + index, quants: quants, panel: panel)
      withHalves(scales) { codec.setScales(group: firstGroup + index, scales: $0, panel: panel) }
    }
  }

  mutating func quantizeInt4F16() {
    for index in 0..<groups {
      var scales = (Lanes(), Lanes())
      var minimums = (Lanes(), Lanes())
      clearQuants()
      for half in 0..<2 {
        let group = group(index, half: half)
        let (scale, minimum) = group.bestInt4F16Line()
        store(group, index, scale: scale, offset: minimum, half: half)
        if half == 0 { (scales.0, minimums.0) = (scale, minimum) } else { (scales.1, minimums.1) = (scale, minimum) }
      }
      codec.setWeights(group: firstGroup + index, quants: quants, panel: panel)
      withHalves(scales) { scales in
        withHalves(minimums) { minimums in
          codec.setScales(group: firstGroup + index, scales: scales, minimums: minimums, panel: panel)
        }
      }
    }
  }

  mutating func quantizeInt4() {
    withUnsafeTemporaryAllocation(of: GroupWeights.self, capacity: Int4Block.largestGroupCount) { weights in
      for half in 0..<2 {
        for index in 0..<groups { weights[index] = group(index, half: half) }
        let groups = UnsafeBufferPointer(rebasing: weights[0..<groups])
        if half == 0 { int4.0.choose(groups) } else { int4.1.choose(groups) }
      }
    }
    for index in 0..<groups {
      clearQuants()
      let scales6 = (int4.0.scales6[index], int4.1.scales6[index])
      let minimums6 = (int4.0.minimums6[index], int4.1.minimums6[index])
      store(
        group(index, half: 0), index, scale: int4.0.d * scales6.0, offset: -(int4.0.dmin * minimums6.0), half: 0)
      store(
        group(index, half: 1), index, scale: int4.1.d * scales6.1, offset: -(int4.1.dmin * minimums6.1), half: 1)
      codec.setWeights(group: firstGroup + index, quants: quants, panel: panel)
      withBytes(scales6) { scales in
        withBytes(minimums6) { minimums in
          codec.setScales6(group: firstGroup + index, scales: scales, minimums: minimums, panel: panel)
        }
      }
    }
    withHalves((int4.0.d, int4.1.d)) { d in
      withHalves((int4.0.dmin, int4.1.dmin)) { dmin in
        codec.setBlockScales(block: block, d: d, dmin: dmin, panel: panel)
      }
    }
  }

  private func clearQuants() { quants.initialize(repeating: 0, count: Self.quantCount) }

  /// Stores the nibbles of a group under its final scale and offset, and adds their squared errors.
  private mutating func store(_ group: GroupWeights, _ index: Int, scale: Lanes, offset: Lanes, half: Int) {
    let inverse = scale.inverseOrZero
    let firstColumn = (firstGroup + index) * PanelLayout.columnsPerGroup
    for column in 0..<group.count {
      let u =
        if let chanceOf {
          group.quant(
            column, inverse: inverse, offset: offset,
            roundedFrom: Self.chance(firstRow: chanceOf + 8 * half, column: firstColumn + column))
        } else {
          group.quant(column, inverse: inverse, offset: offset)
        }
      errors += Self.square(group.weights[column] - (scale * u + offset))
      store(u, column: column, half: half)
    }
  }

  /// Numbers from -0.5 up to 0.5 for eight rows of a column, evenly spread, and the same each time (the finalizer of SplitMix64).
  private static func chance(firstRow: Int, column: Int) -> Lanes {
    var result = Lanes()
    for lane in 0..<8 {
      var bits = UInt64(firstRow + lane) << 32 | UInt64(column)
      bits &+= 0x9E37_79B9_7F4A_7C15
      bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
      bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
      bits ^= bits >> 31
      result[lane] = Float(bits >> 40) * 0x1p-24 - 0.5
    }
    return result
  }

  @inline(__always)
  private static func square(_ difference: Lanes) -> SIMD8<Double> {
    var result = SIMD8<Double>()
    for lane in 0..<8 { result[lane] = Double(difference[lane]) * Double(difference[lane]) }
    return result
  }

  /// Stores whole numbers from 0 to 255, but zero bytes in the rows that the matrix does not have.
  @inline(__always)
  private func store(_ values: Lanes, column: Int, half: Int) {
    let target = quants + 16 * column + 8 * half
    // Added to 2²³, a whole number is the low bits of the sum.
    let bits = unsafeBitCast(values + 8_388_608, to: SIMD8<UInt32>.self)
    for lane in 0..<min(8, max(0, rowsUsed - 8 * half)) { target[lane] = UInt8(truncatingIfNeeded: bits[lane]) }
  }

  private func withBytes(_ lanes: (Lanes, Lanes), _ body: (UnsafePointer<UInt8>) -> Void) {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 16) { bytes in
      for lane in 0..<8 {
        bytes[lane] = UInt8(lanes.0[lane])
        bytes[8 + lane] = UInt8(lanes.1[lane])
      }
      body(bytes.baseAddress!)
    }
  }

  private func withHalves(_ lanes: (Lanes, Lanes), _ body: (UnsafePointer<UInt16>) -> Void) {
    withUnsafeTemporaryAllocation(of: UInt16.self, capacity: 16) { halves in
      for lane in 0..<8 {
        halves[lane] = HalfPrecision.bits(lanes.0[lane])
        halves[8 + lane] = HalfPrecision.bits(lanes.1[lane])
      }
      body(halves.baseAddress!)
    }
  }
}

private func checkRange(
  _ weights: UnsafeBufferPointer<Float>, rows: Int, columns: Int, type: PanelType, firstRow: Int
) throws(SquintError) {
  let largest = type.largestWeight
  for row in 0..<rows {
    var inside = true
    for column in 0..<columns {
      // False for what is not a number.
      let isInside = weights[row * columns + column].magnitude <= largest
      inside = inside && isInside
    }
    if inside { continue }
    for column in 0..<columns {
      let weight = weights[row * columns + column]
      let place = "row \(grouped(firstRow + row)), column \(grouped(column))"
      if !weight.isFinite {
        throw SquintError(.badData, "\(place): the weight is \(weight), not a finite number; the source is damaged")
      }
      if weight.magnitude > largest {
        throw SquintError(
          .badData,
          "\(place): the weight \(weight) is beyond ±\(grouped(Int(largest))), the reach of \(type.elementType.name); "
            + "store this tensor as f32 or bf16")
      }
    }
  }
}

/// The mean importance; 1 where all are zero.
private func importanceMean(
  _ importance: UnsafeBufferPointer<Float>?, columns: Int
) throws(SquintError) -> Float {
  guard let importance else { return 1 }
  var sum = 0.0
  for column in 0..<columns {
    guard importance[column].isFinite, importance[column] >= 0 else {
      throw SquintError(
        .badData,
        "column \(grouped(column)): the importance \(importance[column]) is not a finite number from 0 up; "
          + "calibrate again")
    }
    sum += Double(importance[column])
  }
  let mean = Float(sum / Double(columns))
  return mean >= Float.leastNormalMagnitude && mean.isFinite ? mean : 1
}
