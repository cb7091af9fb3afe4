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
  public var centersKeys: Bool { self != .f32 }

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

/// The sizes of a KV cache: keys and values [layers, sequences, kv_heads, context, head_width].
///
/// A head's positions are contiguous, as the attention kernel reads them. Several sequences serve beam search.
public struct KVShape: Equatable, Sendable {
  public var layers: Int
  public var sequences: Int
  public var heads: Int
  public var context: Int
  public var headWidth: Int
  public var type: KVType

  public init(layers: Int, sequences: Int, heads: Int, context: Int, headWidth: Int, type: KVType) {
    self.layers = layers
    self.sequences = sequences
    self.heads = heads
    self.context = context
    self.headWidth = headWidth
    self.type = type
  }

  /// The f16 scales of one position of one head.
  var scalesPerPosition: Int { type == .int8 ? (headWidth + 31) / 32 : 0 }

  /// The positions of all heads, layers and sequences; nil where they do not fit an Int.
  fileprivate var rows: Int? {
    var rows = 1
    for factor in [layers, sequences, heads, context] {
      let (product, overflow) = rows.multipliedReportingOverflow(by: factor)
      if overflow { return nil }
      rows = product
    }
    return rows < Int.max / 4096 ? rows : nil
  }
}

/// The keys and values of the positions that the decoder has seen.
public struct KVCache: @unchecked Sendable {  // a view of the arena
  /// The cache's part of an arena.
  public struct Regions: Sendable {
    let shape: KVShape
    let keys: Region<UInt8>
    let values: Region<UInt8>
    let keyScales: Region<UInt16>
    let valueScales: Region<UInt16>

    /// Reserves a cache of `shape` that keeps its contents through `phases`.
    public init(
      _ shape: KVShape, phases: Phases = [.prefill, .decode], in plan: inout ArenaPlan
    ) throws(SquintError) {
      guard let rows = shape.rows else {
        throw SquintError(
          .doesNotFit, "a context of \(grouped(shape.context)) positions is more than any machine holds")
      }
      let bytes = rows * shape.headWidth * shape.type.bytesPerNumber
      self.shape = shape
      keys = try plan.reserve("keys", count: bytes, purpose: .cache, phases: phases)
      values = try plan.reserve("values", count: bytes, purpose: .cache, phases: phases)
      keyScales = try plan.reserve("key scales", count: rows * shape.scalesPerPosition, purpose: .cache, phases: phases)
      valueScales = try plan.reserve(
        "value scales", count: rows * shape.scalesPerPosition, purpose: .cache, phases: phases)
    }
  }

  public let shape: KVShape
  private let keys: UnsafeMutableRawPointer
  private let values: UnsafeMutableRawPointer
  private let keyScales: UnsafeMutablePointer<UInt16>
  private let valueScales: UnsafeMutablePointer<UInt16>

  public init(_ regions: Regions, in arena: Arena) {
    shape = regions.shape
    keys = UnsafeMutableRawPointer(arena[regions.keys].baseAddress!)
    values = UnsafeMutableRawPointer(arena[regions.values].baseAddress!)
    keyScales = arena[regions.keyScales].baseAddress!
    valueScales = arena[regions.valueScales].baseAddress!
  }

  /// One head's keys and values from position 0 on.
  struct Head {
    let keys: UnsafeMutableRawPointer
    let values: UnsafeMutableRawPointer
    let keyScales: UnsafeMutablePointer<UInt16>
    let valueScales: UnsafeMutablePointer<UInt16>

    /// The same from `position` on.
    func from(_ position: Int, _ shape: KVShape) -> Head {
      let bytes = position * shape.headWidth * shape.type.bytesPerNumber
      let scales = position * shape.scalesPerPosition
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
    let row = ((layer * shape.sequences + sequence) * shape.heads + head) * shape.context
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
    let first = position * width * shape.type.bytesPerNumber
    switch shape.type {
    case .f32:
      (head.keys + first).copyMemory(from: key, byteCount: width * 4)
      (head.values + first).copyMemory(from: value, byteCount: width * 4)
    case .f16:
      kernels.f32ToF16(key, (head.keys + first).assumingMemoryBound(to: UInt16.self), width)
      kernels.f32ToF16(value, (head.values + first).assumingMemoryBound(to: UInt16.self), width)
    case .int8:
      let scale = position * shape.scalesPerPosition
      kernels.f32ToInt8(
        key, width, (head.keys + first).assumingMemoryBound(to: Int8.self), head.keyScales + scale)
      kernels.f32ToInt8(
        value, width, (head.values + first).assumingMemoryBound(to: Int8.self), head.valueScales + scale)
    }
  }

  /// Copies the positions `positions` of sequence `source` to sequence `target`.
  public func copy(_ positions: Range<Int>, from source: Int, to target: Int) {
    guard source != target else { return }
    let rowBytes = shape.headWidth * shape.type.bytesPerNumber
    let scales = shape.scalesPerPosition
    for layer in 0..<shape.layers {
      for index in 0..<shape.heads {
        let from = head(index, layer: layer, sequence: source)
        let to = head(index, layer: layer, sequence: target)
        let first = positions.lowerBound
        let count = positions.count
        (to.keys + first * rowBytes).copyMemory(from: from.keys + first * rowBytes, byteCount: count * rowBytes)
        (to.values + first * rowBytes).copyMemory(from: from.values + first * rowBytes, byteCount: count * rowBytes)
        (to.keyScales + first * scales).update(from: from.keyScales + first * scales, count: count * scales)
        (to.valueScales + first * scales).update(from: from.valueScales + first * scales, count: count * scales)
      }
    }
  }
}
