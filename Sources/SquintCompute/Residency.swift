import SquintFile

/// Which weights of a module stay in memory, and which are read anew in every pass over it.
///
/// A pass uses the module's parts, none of which is empty, in order: the layers, then slices of the head. A least-recently-used cache would miss every
/// one of them whenever not all fit; reading only those that are not kept reads exactly what does not fit.
public struct Residency: Sendable {
  /// The parts in the order of their use, as ranges of the file.
  public let parts: [Range<Int>]
  /// [parts]
  public let isStreamed: [Bool]

  /// Everything stays.
  public init(keeping parts: [Range<Int>]) {
    self.parts = parts
    isStreamed = parts.map { _ in false }
  }

  /// Keeps as many parts as `bytes` hold.
  ///
  /// The parts from `tail` on are kept together or not at all (a tied head is the embedding, too), and before the others, of
  /// which those that are read are spread evenly: so the disk never waits long for a part to be used up.
  public init(parts: [Range<Int>], tail: Int? = nil, keepingAtMost bytes: Int) {
    self.parts = parts
    let tail = tail ?? parts.count
    let sizes = parts.map { Self.residentBytes($0) }
    var isStreamed = parts.map { _ in true }
    var left = bytes
    let tailBytes = sizes[tail...].reduce(0, +)
    if tailBytes <= left {
      for part in tail..<parts.count { isStreamed[part] = false }
      left -= tailBytes
    }
    // Layers have about the same size; the largest stands for all.
    let largest = sizes[..<tail].max() ?? 0
    let kept = largest > 0 ? min(left / largest, tail) : 0
    for part in 0..<tail where (part + 1) * kept / tail > part * kept / tail { isStreamed[part] = false }
    self.isStreamed = isStreamed
  }

  public var streamsNothing: Bool { !isStreamed.contains(true) }

  /// The memory that the parts which stay take, in bytes.
  public var keptBytes: Int {
    zip(parts, isStreamed).reduce(0) { $0 + ($1.1 ? 0 : Self.residentBytes($1.0)) }
  }

  /// What a pass over all parts reads, in bytes.
  public var streamedBytes: Int {
    zip(parts, isStreamed).reduce(0) { $0 + ($1.1 ? DirectReader.aligned($1.0).count : 0) }
  }

  /// What of `module` lies in none of the parts.
  public func others(in module: Range<Int>) -> [Range<Int>] {
    var others: [Range<Int>] = []
    var start = module.lowerBound
    for part in parts.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if start < part.lowerBound { others.append(start..<min(part.lowerBound, module.upperBound)) }
      start = max(start, part.upperBound)
    }
    if start < module.upperBound { others.append(start..<module.upperBound) }
    return others
  }

  /// The memory that `module` takes: the parts that stay, and what is in no part, of which `unused` bytes are never touched.
  public func byteCount(of module: Range<Int>, unused: Int = 0) -> Int {
    guard !streamsNothing else { return module.count }
    // Its ends are parts of pages.
    return keptBytes + max(others(in: module).reduce(0) { $0 + $1.count } - unused, 0) + 4 * DirectReader.alignment
  }

  /// The memory of one part that stays: whole pages.
  private static func residentBytes(_ range: Range<Int>) -> Int { DirectReader.aligned(range).count }
}
