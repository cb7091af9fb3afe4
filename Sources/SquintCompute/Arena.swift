import SquintFile

/// The phases of answering, in the order in which they run. A buffer names those in which it must keep its contents.
package struct Phases: OptionSet, Hashable, Sendable {
  package let rawValue: UInt8

  package init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Media become features, one module after the other.
  package static let encode = Phases(rawValue: 1)
  /// The prompt goes through the decoder, chunk by chunk.
  package static let prefill = Phases(rawValue: 2)
  /// The answer comes out of the decoder, token by token.
  package static let decode = Phases(rawValue: 4)

  package static let all: [(phase: Phases, name: String)] = [
    (.encode, "encode"), (.prefill, "prefill"), (.decode, "decode"),
  ]
}

/// A place in the arena for `count` elements, handed out by `ArenaPlan.reserve`.
package struct Region<Element: BitwiseCopyable>: Sendable {
  package let count: Int
  fileprivate let index: Int
}

/// Every buffer that a run needs, with its size and its phases: the one description from which `squint plan` prints
/// what a run will take and from which the run itself is given its memory.
///
/// Buffers that share no phase share memory.
package struct ArenaPlan: Sendable {
  /// What a buffer is for, as people are told of it.
  package enum Purpose: Sendable {
    /// The numbers that are being computed.
    case working
    /// What the decoder remembers of positions.
    case cache
    /// Weights that do not stay, as they come from the disk.
    case readAhead
    /// Experts that were used most, and those that are being read.
    case experts
  }

  package struct Buffer: Sendable {
    package let name: String
    package let purpose: Purpose
    package let byteCount: Int
    package let phases: Phases
    /// What its offset is a multiple of, in bytes.
    package let alignment: Int
    /// Where the buffer is, in bytes from the start of the arena.
    package fileprivate(set) var offset = 0
  }

  package private(set) var buffers: [Buffer] = []
  /// The size of the arena in bytes.
  package private(set) var byteCount = 0

  /// Every buffer starts at a multiple of this many bytes: a cache line, and the widest register.
  package static let alignment = 64

  package init() {}

  /// Reserves room for `count` elements that keeps its contents through `phases`, at a multiple of `alignment` bytes.
  ///
  /// - Throws: `doesNotFit` where the arena would be larger than an address space.
  package mutating func reserve<Element>(
    _ name: String, _: Element.Type = Element.self, count: Int, purpose: Purpose = .working, phases: Phases,
    alignment: Int = Self.alignment
  ) throws(SquintError) -> Region<Element> {
    let (bytes, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
    guard !overflow, bytes >= 0, bytes < 1 << 46 else {
      throw SquintError(.doesNotFit, "\(name) would take \(grouped(count)) elements, more than any machine has")
    }
    var buffer = Buffer(name: name, purpose: purpose, byteCount: bytes, phases: phases, alignment: alignment)
    buffer.offset = firstFit(buffer)
    buffers.append(buffer)
    byteCount = max(byteCount, buffer.offset + Self.aligned(bytes))
    return Region(count: count, index: buffers.count - 1)
  }

  /// The bytes that the buffers of `phase` take together.
  package func byteCount(in phase: Phases) -> Int {
    buffers.reduce(0) { $0 + ($1.phases.contains(phase) ? Self.aligned($1.byteCount) : 0) }
  }

  /// The bytes that have been written when `phases` are over: those that lie in a buffer of one of them.
  package func byteCount(writtenIn phases: Phases) -> Int {
    var end = 0
    var bytes = 0
    for buffer in buffers.sorted(by: { $0.offset < $1.offset }) where !buffer.phases.isDisjoint(with: phases) {
      let own = max(buffer.offset, end)..<max(buffer.offset + Self.aligned(buffer.byteCount), end)
      bytes += own.count
      end = max(end, own.upperBound)
    }
    return bytes
  }

  /// The lowest offset at which `buffer` overlaps no buffer with which it shares a phase.
  private func firstFit(_ buffer: Buffer) -> Int {
    let neighbours = buffers.filter { !$0.phases.isDisjoint(with: buffer.phases) }.sorted { $0.offset < $1.offset }
    var offset = 0
    for neighbour in neighbours {
      if neighbour.offset - offset >= Self.aligned(buffer.byteCount) { break }
      let end = max(offset, neighbour.offset + Self.aligned(neighbour.byteCount))
      offset = (end + buffer.alignment - 1) / buffer.alignment * buffer.alignment
    }
    return offset
  }

  private static func aligned(_ bytes: Int) -> Int { (bytes + alignment - 1) / alignment * alignment }
}

/// All memory that a run writes to: one mapping, made before the first weight is read, returned when it is destroyed.
package final class Arena: @unchecked Sendable {  // the mapping is fixed; who may write where is the plan's business
  package let plan: ArenaPlan
  private let base: UnsafeMutableRawPointer

  /// Maps the memory that `plan` describes. Pages count from when they are first written.
  ///
  /// - Throws: `doesNotFit` when the system refuses.
  package init(_ plan: ArenaPlan) throws(SquintError) {
    self.plan = plan
    let mapped = mmap(
      nil, max(plan.byteCount, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | Int32(MAP_ANONYMOUS) | mapNoReserve, -1, 0)
    guard let mapped, mapped != MAP_FAILED else {
      throw SquintError(.doesNotFit, "cannot reserve \(grouped(plan.byteCount)) bytes: \(systemMessage(errno))")
    }
    base = mapped
  }

  /// Gives back the pages that hold no buffer of `phases`; they are zero when they are used again.
  package func release(keeping phases: Phases) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    var end = 0
    func giveBack(upTo start: Int) {
      let first = (end + page - 1) / page * page
      let last = start / page * page
      if first < last { madvise(base + first, last - first, MADV_DONTNEED) }
    }
    for buffer in plan.buffers.sorted(by: { $0.offset < $1.offset }) where !buffer.phases.isDisjoint(with: phases) {
      giveBack(upTo: buffer.offset)
      end = max(end, buffer.offset + buffer.byteCount)
    }
    giveBack(upTo: (plan.byteCount + page - 1) / page * page)
  }

  deinit { munmap(base, max(plan.byteCount, 1)) }

  /// The elements of `region`. Valid as long as this object lives.
  package subscript<Element>(_ region: Region<Element>) -> UnsafeMutableBufferPointer<Element> {
    let buffer = plan.buffers[region.index]
    precondition(region.count * MemoryLayout<Element>.stride == buffer.byteCount, "a region of another plan")
    return UnsafeMutableBufferPointer(
      start: (base + buffer.offset).bindMemory(to: Element.self, capacity: max(region.count, 1)), count: region.count)
  }
}

#if canImport(Darwin)
  private let mapNoReserve: Int32 = 0
#else
  private let mapNoReserve = Int32(MAP_NORESERVE)
#endif
