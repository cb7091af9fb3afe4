import SquintFile

/// Hands out the units of a module in the order of their use. Those that do not stay in memory are read ahead, by threads of its
/// own, into a few slots of the arena, while the units before them are being used.
///
/// Use it from one thread at a time. Allocates nothing once it runs.
package final class WeightStream {
  /// The memory for units that are read.
  package struct Regions: Sendable {
    /// One unit is being used while the next is read.
    package static let slots = 2
    /// Threads that read: a disk that is given one request at a time is slow.
    package static let readers = 3

    package let residency: Residency
    let slotBytes: Int
    let slots: Region<UInt8>
    /// nil where there are none, or all stay.
    let experts: ExpertStream.Regions?

    package init(_ residency: Residency, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      self.residency = residency
      let streamed = zip(residency.units, residency.isStreamed).filter { $0.1 }
      slotBytes = streamed.map { DirectReader.aligned($0.0).count }.max() ?? 0
      slots = try plan.reserve(
        "streamed weights", count: Self.slots * slotBytes, purpose: .readAhead, phases: phases,
        alignment: DirectReader.alignment)
      experts = try residency.pool.map { (pool) throws(SquintError) in
        try ExpertStream.Regions(pool, phases: phases, in: &plan)
      }
    }
  }

  /// The stacks of the threads that read, in bytes; no system takes smaller ones.
  package static let stackBytes = Regions.readers * readerStackBytes
  static let readerStackBytes = 128 << 10

  private let file: ModelFile
  private let residency: Residency
  /// What stays.
  private let kept: [Range<Int>]
  /// nil where nothing is read.
  private let queue: ReadQueue?
  /// Hands out experts; nil where there are none, or all stay.
  package let experts: ExpertStream?
  /// Whether what stays has been read.
  private var isResident = false

  /// - Parameter others: what of the module is used besides its units, and stays.
  /// - Throws: `internalError` where the system gives no threads to read.
  package init(
    _ regions: Regions, others: [Range<Int>] = [], reader: DirectReader, file: ModelFile, in arena: Arena
  ) throws(SquintError) {
    self.file = file
    residency = regions.residency
    kept = others + zip(regions.residency.units, regions.residency.isStreamed).filter { !$0.1 }.map(\.0)
    experts = try regions.experts.map { (regions) throws(SquintError) in
      try ExpertStream(regions, reader: reader, file: file, in: arena)
    }
    guard residency.streamsUnits else {
      queue = nil
      return
    }
    let queue = ReadQueue(
      residency, reader: reader, slots: UnsafeMutableRawPointer(arena[regions.slots].baseAddress!),
      slotBytes: regions.slotBytes)
    self.queue = queue
    try queue.start()  // where it throws, deinit runs, since every field has its value
  }

  deinit { queue?.stop() }

  /// Announces a pass over the first `count` units. An error of the passes before is forgotten: what failed is read again.
  package func begin(units count: Int) {
    if !isResident {
      isResident = true
      // What stays is read now, by large requests.
      for unit in kept { file.advise(unit, .soon) }
    }
    queue?.begin(units: count)
    experts?.beginPass()
  }

  /// Reads nothing ahead until the next pass: the memory of the slots may serve another phase.
  package func pause() {
    queue?.pause()
    experts?.pause()
  }

  /// What stays leaves memory after all, until the next pass; the page cache, too, where `uncached`. Nothing is read ahead either.
  package func evict(uncached: Bool) {
    pause()
    isResident = false
    for unit in kept {
      file.advise(unit, .done)
      if uncached { file.dropCached(unit) }
    }
  }

  /// How many bytes behind the place where the file is mapped the unit `unit` is. Waits until it has been read. What was handed
  /// out before is not valid any more.
  ///
  /// Where reading fails, the bytes are any, and `check` throws, until the next pass begins.
  package func use(_ unit: Int) -> Int {
    guard let queue else { return 0 }
    guard residency.isStreamed[unit] else {
      queue.release()
      return 0
    }
    let data = queue.take(unit)
    return data - file.address(of: DirectReader.aligned(residency.units[unit]).lowerBound)
  }

  /// Ends a pass: nothing that was handed out is used any more.
  package func end() { queue?.release() }

  /// Whether unit `unit` is in memory at any time.
  package func keeps(_ unit: Int) -> Bool { !residency.isStreamed[unit] }

  /// Says whether what this pass was handed out is what the file holds. Ask after the last unit that matters.
  ///
  /// - Throws: `inputOutput` where reading it failed.
  package func check() throws(SquintError) {
    if let failure = queue?.failure ?? experts?.failure { throw failure }
  }

  /// What has been read so far, in bytes.
  package var bytesRead: Int { (queue?.bytesRead ?? 0) + (experts?.bytesRead ?? 0) }
}

/// The units that are to be read, cut into blocks, and the threads that read them.
private final class ReadQueue: @unchecked Sendable {  // every variable is used with `monitor` held
  /// Large enough that a request costs little beside its data, small enough that every thread has one.
  private static let blockBytes = 512 << 10

  private struct Slot {
    var unit = 0
    /// Blocks that are still to be read.
    var missing = 0
    /// Why it could not be read.
    var failure: SquintError?
  }

  private let units: [Range<Int>]
  private let isStreamed: [Bool]
  private let reader: DirectReader
  private let slots: UnsafeMutableRawPointer
  private let slotBytes: Int

  private let monitor = Monitor()
  private var threads = ThreadGroup()
  private var isStopping = false
  /// The units of this pass end here.
  private var limit = 0
  /// Where the search for the next unit to read begins.
  private var cursor = 0
  /// How many units have been given a slot, handed out, and given back; unit n lies in slot n modulo their number.
  private var planned = 0
  private var taken = 0
  private var released = 0
  /// The blocks of the last planned unit that no thread has begun.
  private var nextBlock = 0
  private var blocks = 0
  private var reading = 0
  private var state = [Slot](repeating: Slot(), count: WeightStream.Regions.slots)
  /// Why the first unit of this pass that was handed out without having been read was not.
  private var error: SquintError?
  private var total = 0

  init(_ residency: Residency, reader: DirectReader, slots: UnsafeMutableRawPointer, slotBytes: Int) {
    units = residency.units.map { DirectReader.aligned($0) }
    isStreamed = residency.isStreamed
    self.reader = reader
    self.slots = slots
    self.slotBytes = slotBytes
  }

  func start() throws(SquintError) {
    for _ in 0..<WeightStream.Regions.readers {
      try threads.start(stackBytes: WeightStream.readerStackBytes) { self.read() }
    }
  }

  func stop() {
    monitor.locked {
      isStopping = true
      monitor.wakeAll()
    }
    threads.join()
  }

  var failure: SquintError? { monitor.locked { error } }
  var bytesRead: Int { monitor.locked { total } }

  func begin(units count: Int) {
    monitor.locked {
      error = nil
      // What failed when it was read ahead may be read now, or fails for a reason of this pass.
      if (taken..<planned).contains(where: { state[$0 % state.count].failure != nil }) {
        released = taken
        forget()
        cursor = 0
      }
      limit = count
      monitor.wakeAll()
    }
  }

  func release() {
    monitor.locked {
      guard released < taken else { return }
      released = taken
      monitor.wakeAll()
    }
  }

  func take(_ unit: Int) -> UnsafeRawPointer {
    monitor.lock()
    defer { monitor.unlock() }
    released = taken
    if planned > taken ? state[taken % state.count].unit != unit : nextUnit() != unit {
      // Not the order that was announced: what was read ahead is of no use.
      let pass = max(limit, unit + 1)
      forget()
      (limit, cursor) = (pass, unit)
    }
    monitor.wakeAll()
    let slot = taken % state.count
    while planned == taken || state[slot].missing > 0 { monitor.wait() }
    if error == nil { error = state[slot].failure }
    taken += 1
    return UnsafeRawPointer(slots + slot * slotBytes)
  }

  /// Forgets what was read ahead, and reads nothing, until the next pass: the slots are free for other use.
  func pause() {
    monitor.locked {
      released = taken
      forget()
      cursor = 0
    }
  }

  private func forget() {
    (limit, nextBlock) = (0, blocks)
    while reading > 0 { monitor.wait() }
    planned = taken
  }

  /// The unit that is read next: the next of this pass, or the first of the next pass.
  private func nextUnit() -> Int? {
    var unit = cursor
    while unit < limit {
      if isStreamed[unit] { return unit }
      unit += 1
    }
    unit = 0
    while unit < min(cursor, limit) {
      if isStreamed[unit] { return unit }
      unit += 1
    }
    return nil
  }

  /// The life of a thread: reads one block after the other.
  private func read() {
    monitor.lock()
    defer { monitor.unlock() }
    while !isStopping {
      if nextBlock == blocks, planned - released < state.count, let unit = nextUnit() {
        cursor = unit + 1
        nextBlock = 0
        blocks = (units[unit].count + Self.blockBytes - 1) / Self.blockBytes
        state[planned % state.count] = Slot(unit: unit, missing: blocks)
        planned += 1
        if blocks > 1 { monitor.wakeAll() }
      }
      guard nextBlock < blocks else {
        monitor.wait()
        continue
      }
      let slot = (planned - 1) % state.count
      let whole = units[state[slot].unit]
      let offset = nextBlock * Self.blockBytes
      let block = whole.lowerBound + offset..<min(whole.lowerBound + offset + Self.blockBytes, whole.upperBound)
      nextBlock += 1
      reading += 1
      monitor.unlock()
      var failure: SquintError?
      do throws(SquintError) {
        try reader.read(block, into: slots + slot * slotBytes + offset)
      } catch {
        failure = error
      }
      monitor.lock()
      reading -= 1
      total += block.count
      state[slot].missing -= 1
      if let failure, state[slot].failure == nil { state[slot].failure = failure }
      if state[slot].missing == 0 || reading == 0 { monitor.wakeAll() }
    }
  }
}
