import SquintFile

/// Where the experts of a decoder are in the file: in each layer that has some, as many, one behind the other in two tensors.
package struct ExpertTable: Sendable {
  /// The two tensors of a layer.
  package struct Layer: Sendable {
    /// The tensors in the file: of each expert the gate and the up, and of each the down.
    package let gateUp: Range<Int>
    package let down: Range<Int>

    package init(gateUp: Range<Int>, down: Range<Int>) {
      self.gateUp = gateUp
      self.down = down
    }
  }

  package let layers: [Layer]
  /// The experts of a layer.
  package let experts: Int
  /// How many of a layer a row goes through.
  package let chosen: Int

  /// - Parameter layers: at least one, each with whole experts.
  package init(_ layers: [Layer], experts: Int, chosen: Int) {
    self.layers = layers
    self.experts = experts
    self.chosen = chosen
  }

  /// The experts of all layers.
  package var count: Int { layers.count * experts }

  package var ranges: [Range<Int>] { layers.flatMap { [$0.gateUp, $0.down] } }

  package var byteCount: Int { ranges.reduce(0) { $0 + $1.count } }

  /// The bytes of expert `key`, which is its number counted through all layers.
  fileprivate func gateUp(_ key: Int) -> Range<Int> { part(key, of: layers[key / experts].gateUp) }
  fileprivate func down(_ key: Int) -> Range<Int> { part(key, of: layers[key / experts].down) }

  private func part(_ key: Int, of tensor: Range<Int>) -> Range<Int> {
    let bytes = tensor.count / experts
    let start = tensor.lowerBound + key % experts * bytes
    return start..<start + bytes
  }

  /// What reading an expert of each layer reads, in bytes: whole blocks of the disk.
  private var expertBytes: Int {
    layers.reduce(0) { $0 + Self.space($1.gateUp.count / experts) + Self.space($1.down.count / experts) }
  }

  /// The most that `count` bytes take when they are read into memory by whole blocks.
  fileprivate static func space(_ count: Int) -> Int {
    let blocks = (count + DirectReader.alignment - 1) / DirectReader.alignment
    return (blocks + 1) * DirectReader.alignment
  }

  fileprivate var gateUpSpace: Int { layers.map { Self.space($0.gateUp.count / experts) }.max() ?? 0 }
  fileprivate var downSpace: Int { layers.map { Self.space($0.down.count / experts) }.max() ?? 0 }

  /// The room for one expert of any layer, in bytes.
  package var slotBytes: Int { gateUpSpace + downSpace }

  /// What a pass over `rows` rows that are computed together reads, in bytes, where `slots` experts are in memory: those that it
  /// needs, if each row chose any as likely, times the share of those that are not.
  package func bytesRead(rows: Int, slots: Int) -> Int {
    let missed = 1 - Double(slots) / Double(count)
    guard missed > 0 else { return 0 }
    // The chance that no row needs an expert.
    let unused = (0..<rows).reduce(1.0) { chance, _ in chance * (1 - Double(chosen) / Double(experts)) }
    return Int((Double(experts) * (1 - unused) * Double(expertBytes) * missed).rounded())
  }
}

/// Memory for experts that do not all stay.
package struct ExpertPool: Sendable {
  package let table: ExpertTable
  /// How many experts are in memory at a time.
  package let slots: Int

  /// One is being used while the next is read.
  package static let leastSlots = 2

  /// - Parameter slots: as many as there are experts at most, and `leastSlots` at least, are taken.
  package init(_ table: ExpertTable, slots: Int) {
    self.table = table
    self.slots = min(max(slots, Self.leastSlots), table.count)
  }

  /// What a token reads, in bytes, if it chose any experts as likely. Those that are used most stay, so that it is less where
  /// some are used more.
  package var bytesReadPerToken: Int { table.bytesRead(rows: 1, slots: slots) }
}

/// Hands out the experts that rows have chosen. Those that were used most stay in memory, in slots of the arena; the others are
/// read when they are chosen, by threads of its own, while the ones before them are being used.
///
/// What is in memory changes when something is read, and never what is computed. Use it from one thread at a time. Allocates
/// nothing once it runs.
package final class ExpertStream: Sendable {
  package struct Regions: Sendable {
    package let pool: ExpertPool
    let slots: Region<UInt8>

    package init(_ pool: ExpertPool, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      self.pool = pool
      let (bytes, overflow) = pool.slots.multipliedReportingOverflow(by: pool.table.slotBytes)
      slots = try plan.reserve(
        "experts", count: overflow ? .max : bytes, purpose: .experts, phases: phases, alignment: DirectReader.alignment)
    }
  }

  /// How far behind where the file is mapped the two parts of an expert are.
  package struct Distances: Sendable {
    package let gateUp: Int
    package let down: Int

    package init(gateUp: Int, down: Int) {
      self.gateUp = gateUp
      self.down = down
    }
  }

  private let slots: ExpertSlots

  /// - Throws: `internalError` where the system gives no threads to read.
  package init(_ regions: Regions, reader: DirectReader, file: ModelFile, in arena: Arena) throws(SquintError) {
    slots = ExpertSlots(
      regions.pool, reader: reader, file: file, memory: UnsafeMutableRawPointer(arena[regions.slots].baseAddress!))
    try slots.start()  // where it throws, deinit runs, since every field has its value
  }

  deinit { slots.stop() }

  /// Announces the experts that `take` will hand out next, in this order.
  ///
  /// - Parameters:
  ///   - layer: of those that have experts, the how manieth.
  ///   - chosen: [count]: their numbers in the layer, each once.
  ///   - rows: [count]: how many rows have chosen each.
  package func begin(layer: Int, _ chosen: UnsafePointer<Int32>, rows: UnsafePointer<Int32>, count: Int) {
    slots.begin(layer: layer, chosen, rows: rows, count: count)
  }

  /// Where the expert that was announced as number `index` is. Waits until it has been read. What was handed out before is not
  /// valid any more.
  ///
  /// Where reading fails, the bytes are any, and `failure` says why, until the next pass begins.
  package func take(_ index: Int) -> Distances { slots.take(index) }

  /// Nothing that was handed out is used any more.
  package func end() { slots.end() }

  /// Forgets the errors of the passes before: what failed is read again.
  func beginPass() { slots.beginPass() }

  /// Forgets what is in memory, and reads nothing, until more is announced: the slots are free for other use.
  func pause() { slots.pause() }

  var failure: SquintError? { slots.failure }
  var bytesRead: Int { slots.bytesRead }
}

/// The slots, what is in them, and the threads that fill them.
private final class ExpertSlots: @unchecked Sendable {  // every variable is used with `monitor` held
  /// Large enough that a request costs little beside its data, small enough that every thread has one.
  private static let blockBytes = 512 << 10
  /// How many experts are being read, or have been and wait, at a time. What is read too early takes the place of another that
  /// may be used before.
  private static let mostAhead = 3
  /// After so many tokens what was used counts half.
  private static let memory = 512

  private struct Slot {
    /// The expert that is in it, or will be when it is read; -1 for none.
    var key = -1
    /// Blocks that are still to be read.
    var missing = 0
    var failed = false
    /// Its place among the announced experts, where it is one that has not been taken; else -1.
    var wanted = -1
    /// Whether it was read for this announcement, and has not been taken.
    var isFresh = false
    /// When it was taken last.
    var lastUse = 0
  }

  private let table: ExpertTable
  private let reader: DirectReader
  private let file: ModelFile
  private let memory: UnsafeMutableRawPointer
  private let slotBytes: Int
  private let gateUpSpace: Int
  private let ahead: Int

  private let monitor = Monitor()
  private var threads = ThreadGroup()
  private var isStopping = false
  private var slots: [Slot]
  /// [experts of all layers]: the slot of each, or -1, and how often rows chose it.
  private var places: [Int32]
  private var uses: [UInt32]
  private var counted = 0
  /// The announced experts.
  private var announced: [Int32]
  private var announcedCount = 0
  /// The slot that is in use, or -1.
  private var current = -1
  private var fresh = 0
  private var clock = 0
  /// Slots whose reading has not begun: a ring.
  private var queue: [Int32]
  private var queueStart = 0
  private var queued = 0
  /// The slot that is being read, and its blocks that no thread has begun.
  private var loading = 0
  private var nextBlock = 0
  private var blocks = 0
  private var reading = 0
  private var error: SquintError?
  private var total = 0

  init(_ pool: ExpertPool, reader: DirectReader, file: ModelFile, memory: UnsafeMutableRawPointer) {
    table = pool.table
    self.reader = reader
    self.file = file
    self.memory = memory
    slotBytes = table.slotBytes
    gateUpSpace = table.gateUpSpace
    ahead = min(Self.mostAhead, pool.slots - 1)
    slots = Array(repeating: Slot(), count: pool.slots)
    places = Array(repeating: -1, count: table.count)
    uses = Array(repeating: 0, count: table.count)
    announced = Array(repeating: 0, count: table.experts)
    queue = Array(repeating: 0, count: pool.slots)
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

  func beginPass() { monitor.locked { error = nil } }

  func begin(layer: Int, _ chosen: UnsafePointer<Int32>, rows: UnsafePointer<Int32>, count: Int) {
    monitor.lock()
    defer { monitor.unlock() }
    forgetAnnouncement()
    announcedCount = count
    for index in 0..<count {
      let key = layer * table.experts + Int(chosen[index])
      announced[index] = Int32(key)
      uses[key] &+= UInt32(rows[index])
      counted += Int(rows[index])
      if places[key] >= 0 { slots[Int(places[key])].wanted = index }
    }
    if counted >= Self.memory * table.layers.count * table.chosen {
      counted = 0
      for key in uses.indices { uses[key] /= 2 }
    }
    readAhead(from: 0)
  }

  func take(_ index: Int) -> ExpertStream.Distances {
    monitor.lock()
    defer { monitor.unlock() }
    precondition(index < announcedCount, "an expert that was not announced")
    current = -1
    let key = Int(announced[index])
    if places[key] < 0 {
      if let slot = slotToFill() { load(index, into: slot) } else { load(index, into: lastWanted()) }
    }
    let slot = Int(places[key])
    if slots[slot].isFresh { fresh -= 1 }
    slots[slot].isFresh = false
    slots[slot].wanted = -1
    current = slot
    readAhead(from: index + 1)
    while slots[slot].missing > 0 { monitor.wait() }
    clock += 1
    slots[slot].lastUse = clock
    if slots[slot].failed { forget(slot) }
    let data = UnsafeRawPointer(memory + slot * slotBytes)
    return ExpertStream.Distances(
      gateUp: data - file.address(of: DirectReader.aligned(table.gateUp(key)).lowerBound),
      down: data + gateUpSpace - file.address(of: DirectReader.aligned(table.down(key)).lowerBound))
  }

  func end() {
    monitor.locked {
      current = -1
      forgetAnnouncement()
    }
  }

  func pause() {
    monitor.locked {
      current = -1
      forgetAnnouncement()
      for slot in slots.indices { forget(slot) }
    }
  }

  /// What was announced and not taken may be there or not.
  private func forgetAnnouncement() {
    if fresh > 0 {
      // None was taken after it was read: what is being read has no use.
      (queued, nextBlock) = (0, blocks)
      while reading > 0 { monitor.wait() }
      for slot in slots.indices where slots[slot].missing > 0 { forget(slot) }
    }
    for index in 0..<announcedCount {
      let place = Int(places[Int(announced[index])])
      guard place >= 0 else { continue }
      slots[place].wanted = -1
      slots[place].isFresh = false
      if slots[place].failed { forget(place) }
    }
    fresh = 0
    announcedCount = 0
  }

  /// Nothing is in `slot`, which nobody is filling, any more.
  private func forget(_ slot: Int) {
    if slots[slot].key >= 0 { places[slots[slot].key] = -1 }
    slots[slot] = Slot()
  }

  // MARK: What is read

  /// Begins to read the next experts that are announced and not in memory, as far as there is a place for them.
  private func readAhead(from first: Int) {
    var index = first
    while fresh < ahead, index < announcedCount {
      if places[Int(announced[index])] < 0 {
        guard let slot = slotToFill() else { return }
        load(index, into: slot)
        slots[slot].isFresh = true
        fresh += 1
      }
      index += 1
    }
  }

  /// The slot whose expert was used least, of those that nobody needs now. Of several the one that was used last: with experts that
  /// are used alike, those that are there stay there.
  private func slotToFill() -> Int? {
    var best: Int?
    var (fewest, latest) = (UInt32.max, 0)
    for slot in slots.indices where slots[slot].wanted < 0 && slot != current {
      let key = slots[slot].key
      guard key >= 0 else { return slot }
      let count = uses[key]
      if best == nil || count < fewest || count == fewest && slots[slot].lastUse > latest {
        (best, fewest, latest) = (slot, count, slots[slot].lastUse)
      }
    }
    return best
  }

  /// Where all slots hold announced experts that were there before: that of the one which is taken last.
  private func lastWanted() -> Int {
    var last = 0
    for slot in slots.indices where slots[slot].wanted > slots[last].wanted { last = slot }
    return last
  }

  private func load(_ index: Int, into slot: Int) {
    let key = Int(announced[index])
    forget(slot)
    slots[slot].key = key
    slots[slot].wanted = index
    slots[slot].missing = blockCount(of: table.gateUp(key)) + blockCount(of: table.down(key))
    places[key] = Int32(slot)
    queue[(queueStart + queued) % queue.count] = Int32(slot)
    queued += 1
    monitor.wakeAll()
  }

  private func blockCount(of range: Range<Int>) -> Int {
    (DirectReader.aligned(range).count + Self.blockBytes - 1) / Self.blockBytes
  }

  /// The life of a thread: reads one block after the other.
  private func read() {
    monitor.lock()
    defer { monitor.unlock() }
    while !isStopping {
      if nextBlock == blocks, queued > 0 {
        loading = Int(queue[queueStart])
        queueStart = (queueStart + 1) % queue.count
        queued -= 1
        (nextBlock, blocks) = (0, slots[loading].missing)
      }
      guard nextBlock < blocks else {
        monitor.wait()
        continue
      }
      let slot = loading
      let key = slots[slot].key
      let (range, offset) = block(nextBlock, of: key)
      nextBlock += 1
      reading += 1
      monitor.unlock()
      var failure: SquintError?
      do throws(SquintError) {
        try reader.read(range, into: memory + slot * slotBytes + offset)
      } catch {
        failure = error
      }
      monitor.lock()
      reading -= 1
      total += range.count
      slots[slot].missing -= 1
      if let failure {
        slots[slot].failed = true
        if error == nil { error = failure }
      }
      if slots[slot].missing == 0 || reading == 0 { monitor.wakeAll() }
    }
  }

  /// Block `index` of expert `key`: its bytes in the file, and its place in the slot.
  private func block(_ index: Int, of key: Int) -> (range: Range<Int>, offset: Int) {
    let gateUp = DirectReader.aligned(table.gateUp(key))
    let count = blockCount(of: gateUp)
    let (whole, number, space) =
      index < count ? (gateUp, index, 0) : (DirectReader.aligned(table.down(key)), index - count, gateUpSpace)
    let start = whole.lowerBound + number * Self.blockBytes
    return (start..<min(start + Self.blockBytes, whole.upperBound), space + number * Self.blockBytes)
  }
}
