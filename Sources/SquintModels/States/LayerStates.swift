import SquintCompute
import SquintFile

/// What a layer remembers of the rows before.
package enum LayerMemory: Equatable, Sendable {
  /// Keys and values of the positions that it sees: of the last `window`, or of all where that is 0.
  ///
  /// - Parameter isFine: whether a byte for each number of a key is too little.
  case keysAndValues(AttentionBlueprint, window: Int, isFine: Bool)
}

/// A layer's place in what all layers remember.
package enum LayerState: Sendable {
  case keysAndValues(KVCache, layer: Int)
}

/// What all layers of a decoder remember: a cache for each kind of layer, which may be cut back where every kind can.
package struct LayerStates: Sendable {
  package struct Regions: Sendable {
    /// [layers]: the layer's cache, and its place in it.
    fileprivate let places: [(cache: Int, layer: Int)]
    fileprivate let caches: [KVCache.Regions]

    /// Reserves what layers with these memories need.
    package init(_ memories: [LayerMemory], _ size: DecoderSize, in plan: inout ArenaPlan) throws(SquintError) {
      var shapes: [KVShape] = []
      var places: [(cache: Int, layer: Int)] = []
      for memory in memories {
        switch memory {
        case .keysAndValues(let c, let window, let isFine):
          let shape = KVShape(
            layers: 0, sequences: size.sequences, heads: c.kvHeads, context: size.context, headWidth: c.headWidth,
            type: isFine && size.kvType == .int8 ? .f16 : size.kvType
          ).keeping(window: window, chunk: size.chunk)
          // Layers of one kind share a cache.
          var cache = shapes.firstIndex { $0.isAlike(shape) }
          if cache == nil {
            shapes.append(shape)
            cache = shapes.count - 1
          }
          places.append((cache!, shapes[cache!].layers))
          shapes[cache!].layers += 1
        }
      }
      var caches: [KVCache.Regions] = []
      for shape in shapes { caches.append(try KVCache.Regions(shape, phases: size.statePhases, in: &plan)) }
      self.places = places
      self.caches = caches
    }
  }

  /// [layers]
  private let layers: [LayerState]
  private let caches: [KVCache]

  package init(_ regions: Regions, in arena: Arena) {
    let caches = regions.caches.map { KVCache($0, in: arena) }
    layers = regions.places.map { .keysAndValues(caches[$0.cache], layer: $0.layer) }
    self.caches = caches
  }

  package subscript(_ layer: Int) -> LayerState { layers[layer] }

  /// Makes sequence `target` remember the positions `positions` as sequence `source` does.
  package func copy(_ positions: Range<Int>, from source: Int, to target: Int) {
    for cache in caches { cache.copy(positions, from: source, to: target) }
  }

  /// The positions, `count` at most, that sequence 0 remembers when it is cut back.
  package func cutBack(to count: Int) -> Int {
    if caches.allSatisfy({ $0.reaches(count) }) { return count }
    for cache in caches { cache.forget() }
    return 0
  }

  /// Notes that sequence 0 remembers `count` positions.
  package func keepSnapshot(at count: Int) {}
}

extension KVShape {
  /// Whether layers of both can share a cache.
  fileprivate func isAlike(_ other: KVShape) -> Bool {
    var other = other
    other.layers = layers
    return self == other
  }
}
