import SquintFile

/// Which weights of a module stay in memory, and which are read anew in every pass over it.
///
/// A pass uses the module's units, none of which is empty, in order: the layers, then slices of the head. A least-recently-used cache would miss every
/// one of them whenever not all fit; reading only those that are not kept reads exactly what does not fit.
package struct Residency: Sendable {
  /// The units in the order of their use, as ranges of the file.
  package let units: [Range<Int>]
  /// [units]
  package let isStreamed: [Bool]
  /// The experts, of which the units have none, where they do not all stay.
  package var pool: ExpertPool?

  /// Everything stays.
  package init(keeping units: [Range<Int>]) {
    self.units = units
    isStreamed = units.map { _ in false }
  }

  /// Keeps as many units as `bytes` hold.
  ///
  /// The units from `tail` on are kept together or not at all (a tied head is the embedding, too), and before the others, of
  /// which those that are read are spread evenly: so the disk never waits long for a unit to be used up.
  package init(units: [Range<Int>], tail: Int? = nil, keepingAtMost bytes: Int) {
    self.units = units
    let tail = tail ?? units.count
    let sizes = units.map { Self.residentBytes($0) }
    var isStreamed = units.map { _ in true }
    var left = bytes
    let tailBytes = sizes[tail...].reduce(0, +)
    if tailBytes <= left {
      for unit in tail..<units.count { isStreamed[unit] = false }
      left -= tailBytes
    }
    // Layers have about the same size; the largest stands for all, where not all fit.
    let largest = sizes[..<tail].max() ?? 0
    let fitsAll = sizes[..<tail].reduce(0, +) <= left
    let kept = fitsAll ? tail : largest > 0 ? min(left / largest, tail) : 0
    for unit in 0..<tail where (unit + 1) * kept / tail > unit * kept / tail { isStreamed[unit] = false }
    self.isStreamed = isStreamed
  }

  package var streamsNothing: Bool { !streamsUnits && pool == nil }

  package var streamsUnits: Bool { isStreamed.contains(true) }

  /// The memory that the units which stay take, in bytes.
  package var keptBytes: Int {
    zip(units, isStreamed).reduce(0) { $0 + ($1.1 ? 0 : Self.residentBytes($1.0)) }
  }

  /// What a pass over all units reads, in bytes.
  package var streamedBytes: Int {
    zip(units, isStreamed).reduce(0) { $0 + ($1.1 ? DirectReader.aligned($1.0).count : 0) }
  }

  /// What a token reads, in bytes: of experts, what is likely.
  package var bytesReadPerToken: Int { streamedBytes + (pool?.bytesReadPerToken ?? 0) }

  /// What of `module` lies in none of the units, and is no expert that may not stay.
  package func others(in module: Range<Int>) -> [Range<Int>] {
    var others: [Range<Int>] = []
    var start = module.lowerBound
    for unit in (units + (pool?.table.ranges ?? [])).sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if start < unit.lowerBound { others.append(start..<min(unit.lowerBound, module.upperBound)) }
      start = max(start, unit.upperBound)
    }
    if start < module.upperBound { others.append(start..<module.upperBound) }
    return others
  }

  /// The memory that `module` takes: the units that stay, and what is in no unit, of which `unused` bytes are never touched.
  package func byteCount(of module: Range<Int>, unused: Int = 0) -> Int {
    guard !streamsNothing else { return module.count }
    // Its ends are parts of pages.
    return keptBytes + max(others(in: module).reduce(0) { $0 + $1.count } - unused, 0) + 4 * DirectReader.alignment
  }

  /// The memory of one unit that stays: whole pages.
  private static func residentBytes(_ range: Range<Int>) -> Int { DirectReader.aligned(range).count }
}
