import SquintFile

/// How keys and values are kept.
public enum KVType: String, CaseIterable, Sendable {
  case f32, f16
  /// A byte a number and an f16 scale per 32 numbers, keys in a form that survives that (`Compute.rotateAndStore`).
  case int8

  /// The kernels' code for it.
  var code: UInt32 {
    switch self {
    case .f32: UInt32(ElementType.f32.rawValue)
    case .f16: UInt32(ElementType.f16.rawValue)
    case .int8: UInt32(ElementType.int8.rawValue)
    }
  }

  /// Whether keys are stored less their center.
  package var centersKeys: Bool { self != .f32 }

  /// Whether keys are spread over the columns of their head.
  var spreadsKeys: Bool { self == .int8 }

  var bytesPerNumber: Int {
    switch self {
    case .f32: 4
    case .f16: 2
    case .int8: 1
    }
  }
}

/// The sizes of a KV cache: keys and values [layers, sequences, kv_heads, rows, head_width].
///
/// A head's positions are contiguous, as the attention kernel reads them. Several sequences serve beam search.
package struct KVShape: Equatable, Sendable {
  package var layers: Int
  package var sequences: Int
  package var heads: Int
  /// The positions that a head has room for.
  package private(set) var rows: Int
  package var headWidth: Int
  package var type: KVType
  /// The positions before the next one that are kept; nil: all.
  package private(set) var kept: Int?

  /// A cache that keeps all `context` positions.
  package init(layers: Int, sequences: Int, heads: Int, context: Int, headWidth: Int, type: KVType) {
    self.layers = layers
    self.sequences = sequences
    self.heads = heads
    rows = context
    self.headWidth = headWidth
    self.type = type
  }

  /// How far beyond a window a conversation can always be cut back, in positions: an answer's usual end, and what a chat template
  /// writes behind it.
  package static let history = 64

  /// The same for layers that see at most the last `window` positions (0: all), where `chunk` rows are added at a time: a cache that
  /// keeps no more than these see, if that is less.
  package func keeping(window: Int, chunk: Int) -> KVShape {
    guard window > 0 else { return self }
    let kept = window - 1 + Self.history
    guard kept + chunk < rows else { return self }
    var shape = self
    shape.kept = kept
    shape.rows = kept + chunk
    return shape
  }

  /// The f16 scales of one position of one head.
  var scalesPerPosition: Int { type == .int8 ? (headWidth + 31) / 32 : 0 }

  /// The positions of all heads, layers and sequences; nil where they do not fit an Int.
  fileprivate var allRows: Int? {
    var product = 1
    for factor in [layers, sequences, heads, rows] {
      let (next, overflow) = product.multipliedReportingOverflow(by: factor)
      if overflow { return nil }
      product = next
    }
    return product < Int.max / 4096 ? product : nil
  }
}

/// The keys and values of the positions that the decoder has seen.
package struct KVCache: @unchecked Sendable {  // a view of the arena
  /// The cache's part of an arena.
  package struct Regions: Sendable {
    let shape: KVShape
    let keys: Region<UInt8>
    let values: Region<UInt8>
    let keyScales: Region<UInt16>
    let valueScales: Region<UInt16>
    /// nil where all positions are kept.
    let starts: Region<Int>?

    /// Reserves a cache of `shape` that keeps its contents through `phases`.
    package init(
      _ shape: KVShape, phases: Phases = [.prefill, .decode], in plan: inout ArenaPlan
    ) throws(SquintError) {
      guard let rows = shape.allRows else {
        throw SquintError(
          .doesNotFit, "a context of \(grouped(shape.rows)) positions is more than any machine holds")
      }
      let bytes = rows * shape.headWidth * shape.type.bytesPerNumber
      self.shape = shape
      keys = try plan.reserve("keys", count: bytes, purpose: .cache, phases: phases)
      values = try plan.reserve("values", count: bytes, purpose: .cache, phases: phases)
      keyScales = try plan.reserve("key scales", count: rows * shape.scalesPerPosition, purpose: .cache, phases: phases)
      valueScales = try plan.reserve(
        "value scales", count: rows * shape.scalesPerPosition, purpose: .cache, phases: phases)
      // Also where the keys are not there while media are encoded: what they say must be true afterwards.
      starts =
        shape.kept == nil
        ? nil
        : try plan.reserve(
          "window starts", count: shape.layers * shape.sequences, purpose: .cache, phases: phases.union(.encode))
    }
  }

  package let shape: KVShape
  private let keys: UnsafeMutableRawPointer
  private let values: UnsafeMutableRawPointer
  private let keyScales: UnsafeMutablePointer<UInt16>
  private let valueScales: UnsafeMutablePointer<UInt16>
  /// nil where all positions are kept.
  private let window: SlidingWindow?

  package init(_ regions: Regions, in arena: Arena) {
    shape = regions.shape
    keys = UnsafeMutableRawPointer(arena[regions.keys].baseAddress!)
    values = UnsafeMutableRawPointer(arena[regions.values].baseAddress!)
    keyScales = arena[regions.keyScales].baseAddress!
    valueScales = arena[regions.valueScales].baseAddress!
    let shape = regions.shape
    if let starts = regions.starts, let kept = shape.kept {
      window = SlidingWindow(
        starts: arena[starts].baseAddress!, buffers: shape.layers * shape.sequences, kept: kept, capacity: shape.rows)
    } else {
      window = nil
    }
  }

  /// One head's keys and values from the first position on that is kept.
  struct Head {
    let keys: UnsafeMutableRawPointer
    let values: UnsafeMutableRawPointer
    let keyScales: UnsafeMutablePointer<UInt16>
    let valueScales: UnsafeMutablePointer<UInt16>

    /// The same from row `row` on.
    func from(_ row: Int, _ shape: KVShape) -> Head {
      let bytes = row * shape.headWidth * shape.type.bytesPerNumber
      let scales = row * shape.scalesPerPosition
      return Head(
        keys: keys + bytes, values: values + bytes, keyScales: keyScales + scales, valueScales: valueScales + scales)
    }
  }

  /// The heads of one layer and sequence.
  struct Heads {
    fileprivate let cache: KVCache
    fileprivate let layer: Int
    fileprivate let sequence: Int

    subscript(_ head: Int) -> Head { cache.head(head, layer: layer, sequence: sequence) }
  }

  func headsOf(layer: Int, sequence: Int) -> Heads { Heads(cache: self, layer: layer, sequence: sequence) }

  func head(_ head: Int, layer: Int, sequence: Int) -> Head {
    let row = ((layer * shape.sequences + sequence) * shape.heads + head) * shape.rows
    let bytes = row * shape.headWidth * shape.type.bytesPerNumber
    let scales = row * shape.scalesPerPosition
    return Head(
      keys: keys + bytes, values: values + bytes, keyScales: keyScales + scales, valueScales: valueScales + scales)
  }

  /// Stores k[head_width] and v[head_width] of one head at `position`.
  func store(
    key: UnsafePointer<Float>, value: UnsafePointer<Float>, head index: Int, layer: Int, sequence: Int, position: Int,
    _ kernels: Kernels
  ) {
    let head = head(index, layer: layer, sequence: sequence)
    let width = shape.headWidth
    let row = position - start(layer: layer, sequence: sequence)
    let first = row * width * shape.type.bytesPerNumber
    switch shape.type {
    case .f32:
      (head.keys + first).copyMemory(from: key, byteCount: width * 4)
      (head.values + first).copyMemory(from: value, byteCount: width * 4)
    case .f16:
      kernels.f32ToF16(key, (head.keys + first).assumingMemoryBound(to: UInt16.self), width)
      kernels.f32ToF16(value, (head.values + first).assumingMemoryBound(to: UInt16.self), width)
    case .int8:
      let scale = row * shape.scalesPerPosition
      kernels.f32ToInt8(
        key, width, (head.keys + first).assumingMemoryBound(to: Int8.self), head.keyScales + scale)
      kernels.f32ToInt8(
        value, width, (head.values + first).assumingMemoryBound(to: Int8.self), head.valueScales + scale)
    }
  }

  /// The position of a head's first row.
  func start(layer: Int, sequence: Int) -> Int { window?.start(of: layer * shape.sequences + sequence) ?? 0 }

  /// Makes room for `positions` of one layer and sequence, which follow those that are there: what no row will see any more goes.
  func makeRoom(for positions: Range<Int>, layer: Int, sequence: Int) {
    guard let window, let rows = window.makeRoom(for: positions, in: layer * shape.sequences + sequence) else { return }
    for index in 0..<shape.heads {
      let head = head(index, layer: layer, sequence: sequence)
      move(rows, of: head, to: head)
    }
  }

  /// Copies the rows `rows` of `source` to the front of `target`.
  private func move(_ rows: Range<Int>, of source: Head, to target: Head) {
    let bytes = shape.headWidth * shape.type.bytesPerNumber
    let (first, scales) = (source.from(rows.lowerBound, shape), shape.scalesPerPosition)
    memmove(target.keys, first.keys, rows.count * bytes)
    memmove(target.values, first.values, rows.count * bytes)
    memmove(target.keyScales, first.keyScales, rows.count * scales * MemoryLayout<UInt16>.stride)
    memmove(target.valueScales, first.valueScales, rows.count * scales * MemoryLayout<UInt16>.stride)
  }

  /// Copies the positions `positions` of sequence `source` to sequence `target`.
  package func copy(_ positions: Range<Int>, from source: Int, to target: Int) {
    guard source != target else { return }
    for layer in 0..<shape.layers {
      let start = start(layer: layer, sequence: source)
      var rows = max(positions.lowerBound - start, 0)..<max(positions.upperBound - start, 0)
      if let window, start != self.start(layer: layer, sequence: target) {
        // The target's rows stand for other positions.
        window.setStart(of: layer * shape.sequences + target, to: start)
        rows = 0..<rows.upperBound
      }
      for index in 0..<shape.heads {
        let from = head(index, layer: layer, sequence: source)
        move(rows, of: from, to: head(index, layer: layer, sequence: target).from(rows.lowerBound, shape))
      }
    }
  }

  /// Whether sequence 0 can go on at `position` with what is kept. Where not, `forget` and compute it again from 0 on.
  package func reaches(_ position: Int) -> Bool {
    // What a row sees before itself; the rest of what is kept is there to be cut back.
    window?.reaches(position, needed: (shape.kept ?? 0) - KVShape.history, every: shape.sequences) ?? true
  }

  /// Forgets all positions.
  package func forget() { window?.forget() }
}
