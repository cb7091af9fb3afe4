import SquintFile

/// What a checkpoint does with series before its encoder (formats/series.md).
///
/// Value-preserving (ChatTS), a unit is a column, [points], of f32; its offset and its scale are words of the prompt. As z-scores
/// (Intern-S1-Pro) a unit is all columns, [points, channels, stride], where the stride is what the encoder cuts them by.
package struct SeriesProcessor: Sendable, Equatable {
  /// What becomes of the numbers.
  package enum Normalization: String, CaseIterable, Sendable {
    case valuePreserving = "value_preserving"
    case zScore = "z_score"
  }

  /// What numbers are rounded to before the encoder, whatever it computes in.
  package enum Rounding: String, CaseIterable, Sendable {
    case none, f16, bf16
  }

  package let normalization: Normalization
  package let rounding: Rounding
  /// The points of the longest series.
  package let mostPoints: Int
  /// The points of a second, where the user says it.
  private var rate: Double?

  package static let pointLimit = 1 << 20

  package init(normalization: Normalization, rounding: Rounding, mostPoints: Int) {
    self.normalization = normalization
    self.rounding = rounding
    self.mostPoints = mostPoints
  }

  /// Reads the keys `series.*`.
  ///
  /// - Throws: `badData` where one is missing or makes no sense.
  package init(_ metadata: Metadata) throws(SquintError) {
    let name = try metadata.string("series.normalization")
    guard let normalization = Normalization(rawValue: name) else {
      throw SquintError(
        .badData, "metadata series.normalization is \"\(name)\", which this version does not know; update squint")
    }
    self.normalization = normalization
    rounding = try metadata.choice("series.rounding", default: .none)
    mostPoints = try metadata.int("series.most_points", in: 1...Self.pointLimit)
  }

  /// The same processor for series of so many points a second.
  ///
  /// - Throws: `usage` where that makes no sense, or no difference.
  package func choosing(rate: Double?) throws(SquintError) -> SeriesProcessor {
    guard let rate else { return self }
    guard normalization == .zScore else {
      throw SquintError(.usage, "this model takes series without a rate; leave --series-rate out")
    }
    guard rate > 0, rate <= 1e9 else {
      throw SquintError(.usage, "\(rate) points a second; choose more than 0, at most 1,000,000,000")
    }
    var processor = self
    processor.rate = rate
    return processor
  }

  /// How many points an encoder goes on from one patch to the next, which is twice as long
  /// (`time_series_processor` of lmdeploy's interns1_pro.py).
  package static func stride(rate: Double) -> Int {
    let base = 1 + exp(-rate / 100)
    return max(Int(160 / (base * base * base * base * base * base)), 1)
  }

}

extension SeriesProcessor: MediaProcessor {
  package var levels: [Float] { [] }

  /// The longest single series.
  package func costs() -> [MediaCost] {
    let shape: [Int]
    switch normalization {
    case .valuePreserving: shape = [mostPoints]
    case .zScore: shape = [mostPoints, 1, Self.stride(rate: rate ?? Double(mostPoints) / 4)]
    }
    let bytes = 4 * mostPoints
    let layout = MediaLayout(runs: [MediaLayout.Run(shape: shape, count: 1, unitBytes: bytes)])
    return [MediaCost(layout: layout, decodingBytes: 3 * 8 * mostPoints + Self.readingBytes + bytes)]
  }

  /// What reading a text takes beside its numbers: a piece of it, and a line.
  private static let readingBytes = 4 << 20

  package func cost(of file: MediaFile) throws(SquintError) -> MediaCost { try decoded(file).cost }

  package func limited(toUnits most: Int, of file: MediaFile) throws(SquintError) -> SeriesProcessor {
    guard try decoded(file).cost.layout.count <= most else {
      throw SquintError(
        .usage, "how many series of a file are looked at cannot be limited; give a file with fewer columns")
    }
    return self
  }

  package func resizing(toSide side: Int) throws(SquintError) -> SeriesProcessor {
    throw SquintError(.usage, "series have no size that can be chosen")
  }

  package func units(of file: MediaFile, while shouldContinue: () -> Bool) throws(SquintError) -> MediaUnits? {
    guard shouldContinue() else { return nil }
    let (cost, units) = try decoded(file)
    guard shouldContinue() else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(cost.layout.byteCount)
    for unit in units { unit.withUnsafeBytes { bytes += $0 } }
    return MediaUnits(layout: cost.layout, bytes: bytes)
  }

  /// [points, channels], of single columns [points, 1].
  package func numbers(of unit: UnsafeRawBufferPointer, shape: [Int]) -> (shape: [Int], numbers: [Float]) {
    let numbers = (0..<unit.count / 4).map { unit.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    return ([shape[0], normalization == .zScore ? shape[1] : 1], numbers)
  }

  // MARK: From numbers to units

  /// What the series in a file take, and the numbers of their units.
  private func decoded(_ file: MediaFile) throws(SquintError) -> (cost: MediaCost, units: [[Float]]) {
    let table = try SeriesTable(reading: file)
    do throws(SquintError) {
      switch normalization {
      case .valuePreserving: return try valuePreserving(table)
      case .zScore: return try zScore(table, of: file)
      }
    } catch {
      throw error.naming(file.path)
    }
  }

  private func cost(
    _ runs: [MediaLayout.Run], _ table: SeriesTable, points: Int
  ) -> MediaCost {
    let layout = MediaLayout(runs: runs)
    return MediaCost(
      // The numbers of the file, their normalized form, and the units.
      layout: layout, decodingBytes: 2 * table.byteCount + 8 * points + Self.readingBytes + 2 * layout.byteCount)
  }

  /// The values around their mean, between −3 and 3 (`sp_encoding` of ChatTS's encoding_utils.py and processing_qwen3_ts.py).
  private func valuePreserving(_ table: SeriesTable) throws(SquintError) -> (cost: MediaCost, units: [[Float]]) {
    var runs: [MediaLayout.Run] = []
    var words: [[String: String]] = []
    var units: [[Float]] = []
    for (index, column) in table.columns.enumerated() {
      let count = column.numbers.count
      let name = column.name ?? "TS\(index + 1)"
      guard count <= mostPoints else {
        throw SquintError(
          .badData,
          "\(table.columns.count > 1 ? name : "the series") has \(grouped(count)) points, and the model takes "
            + "\(grouped(mostPoints)); give a part of it, or every second point")
      }
      let result =
        table.isSingle
        ? Self.normalized(column.numbers.map { Float($0) }) : Self.normalized(column.numbers)
      guard result.offset.isFinite, result.scale.isFinite, result.numbers.allSatisfy(\.isFinite) else {
        throw SquintError(.badData, "the numbers are too large to be added up; give them in another unit")
      }
      units.append(result.numbers.map(rounded))
      let last = runs.count - 1
      if last >= 0, runs[last].shape == [count] {
        runs[last].count += 1
      } else {
        runs.append(MediaLayout.Run(shape: [count], count: 1, unitBytes: 4 * count))
      }
      words.append([
        // The words with which ChatTS's own examples introduce several.
        "title": table.columns.count > 1 ? "\(name) is of length \(count): " : "",
        "offset": FixedPoint.four(result.offset), "scaling": FixedPoint.four(result.scale), "length": "\(count)",
        "max": FixedPoint.four(column.numbers.max() ?? 0), "min": FixedPoint.four(column.numbers.min() ?? 0),
        "left": FixedPoint.four(column.numbers[0]), "right": FixedPoint.four(column.numbers[count - 1]),
      ])
    }
    var cost = cost(runs, table, points: table.columns.map(\.numbers.count).max() ?? 0)
    cost.words = words
    cost.notes = table.notes
    return (cost, units)
  }

  /// The mean, subtracted and negated, and what the rest is divided by where a number of it is 3 or more.
  private static func normalized<T: BinaryFloatingPoint>(_ numbers: [T]) -> (
    offset: Double, scale: Double, numbers: [Float]
  ) {
    let mean = sum(numbers[...]) / T(numbers.count)
    var rest = numbers.map { $0 - mean }
    var scale: T = 1
    let largest = rest.reduce(0) { Swift.max($0, $1.magnitude) }
    if largest >= 3 {
      scale = largest / 3
      for index in rest.indices { rest[index] /= scale }
    }
    return (Double(-mean), Double(scale), rest.map { Float($0) })
  }

  /// The sum in NumPy's order (`pairwise_sum` of its loops_utils.h), so that means are the same to the last bit.
  package static func sum<T: BinaryFloatingPoint>(_ numbers: ArraySlice<T>) -> T {
    let (count, first) = (numbers.count, numbers.startIndex)
    guard count >= 8 else { return numbers.reduce(0, +) }
    guard count <= 128 else {
      let half = count / 2 - count / 2 % 8
      return sum(numbers[..<(first + half)]) + sum(numbers[(first + half)...])
    }
    var lanes = Array(numbers[first..<first + 8])
    let whole = count - count % 8
    for start in Swift.stride(from: 8, to: whole, by: 8) {
      for lane in 0..<8 { lanes[lane] += numbers[first + start + lane] }
    }
    var sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for number in numbers[(first + whole)...] { sum += number }
    return sum
  }

  /// Each column around its mean, in its standard deviations (`time_series_processor` of lmdeploy's interns1_pro.py).
  private func zScore(_ table: SeriesTable, of file: MediaFile) throws(SquintError) -> (
    cost: MediaCost, units: [[Float]]
  ) {
    let channels = table.columns.count
    let all = table.columns[0].numbers.count
    guard table.columns.allSatisfy({ $0.numbers.count == all }) else {
      throw SquintError(
        .badData, "its columns have different lengths, and the model looks at them together; give files of their own")
    }
    let count = min(all, mostPoints)
    var numbers = [Float](repeating: 0, count: count * channels)
    for (channel, column) in table.columns.enumerated() {
      let mean = Self.sum(column.numbers[...]) / Double(all)
      let squares = column.numbers.map { ($0 - mean) * ($0 - mean) }
      let deviation = (Self.sum(squares[...]) / Double(all)).squareRoot()
      guard deviation.isFinite else {
        throw SquintError(.badData, "the numbers are too large to be added up; give them in another unit")
      }
      for point in 0..<count {
        numbers[point * channels + channel] = rounded(Float((column.numbers[point] - mean) / (deviation + 1e-8)))
      }
    }
    let stride = Self.stride(rate: rate ?? max(Double(count) / 4, 1))
    var cost = cost(
      [MediaLayout.Run(shape: [count, channels, stride], count: 1, unitBytes: 4 * count * channels)], table, points: all
    )
    cost.notes = table.notes
    if all > count {
      cost.notes.append(
        "of \(grouped(all)) points the first \(grouped(count)) are looked at, which is as many as the model takes"
      )
    }
    return (cost, [numbers])
  }

  private func rounded(_ number: Float) -> Float {
    switch rounding {
    case .none: return number
    case .f16: return HalfPrecision.float(HalfPrecision.bits(number))
    case .bf16:
      // To the nearest, halves to even.
      let bits = number.bitPattern
      return Float(bitPattern: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) & 0xFFFF_0000)
    }
  }
}
