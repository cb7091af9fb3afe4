import SquintCompute
import SquintFile

/// What a layer remembers of the rows before.
package enum LayerMemory: Equatable, Sendable {
  /// Keys and values of the positions that it sees: of the last `window`, or of all where that is 0.
  ///
  /// - Parameter isFine: whether a byte for each number of a key is too little.
  case keysAndValues(AttentionBlueprint, window: Int, isFine: Bool)
  /// The rows [width] that went into a causal convolution, of which `reach` go into one row of its output.
  case convolution(width: Int, reach: Int)
}

/// A layer's place in what all layers remember.
package enum LayerState: Sendable {
  case keysAndValues(KVCache, layer: Int)
  case convolution(ConvolutionState, layer: Int)
}

/// What all layers of a decoder remember: for each kind of layer a state of its own, which may be cut back where every kind can.
package struct LayerStates: @unchecked Sendable {  // a view of the arena
  package struct Regions: Sendable {
    /// A layer's state, and its place in it.
    fileprivate enum Place {
      case cache(Int, layer: Int)
      case convolution(Int, layer: Int)
    }

    /// [layers]
    fileprivate let places: [Place]
    fileprivate let caches: [KVCache.Regions]
    fileprivate let convolutions: [ConvolutionState.Regions]
    fileprivate let snapshot: Region<Int>

    /// Reserves what layers with these memories need.
    package init(_ memories: [LayerMemory], _ size: DecoderSize, in plan: inout ArenaPlan) throws(SquintError) {
      var caches: [KVShape] = []
      var convolutions: [ConvolutionState.Shape] = []
      var places: [Place] = []
      for memory in memories {
        // Layers of one kind share a state.
        switch memory {
        case .keysAndValues(let c, let window, let isFine):
          let shape = KVShape(
            layers: 0, sequences: size.sequences, heads: c.kvHeads, context: size.context, headWidth: c.headWidth,
            type: isFine && size.kvType == .int8 ? .f16 : size.kvType
          ).keeping(window: window, chunk: size.chunk)
          let index = caches.firstIndex { $0.isAlike(shape) } ?? caches.count
          if index == caches.count { caches.append(shape) }
          places.append(.cache(index, layer: caches[index].layers))
          caches[index].layers += 1
        case .convolution(let width, let reach):
          let index = convolutions.firstIndex { $0.width == width && $0.reach == reach } ?? convolutions.count
          if index == convolutions.count {
            convolutions.append(.init(layers: 0, sequences: size.sequences, width: width, reach: reach))
          }
          places.append(.convolution(index, layer: convolutions[index].layers))
          convolutions[index].layers += 1
        }
      }
      self.places = places
      let phases = size.statePhases
      var cacheRegions: [KVCache.Regions] = []
      for shape in caches { cacheRegions.append(try KVCache.Regions(shape, phases: phases, in: &plan)) }
      self.caches = cacheRegions
      var convolutionRegions: [ConvolutionState.Regions] = []
      for shape in convolutions {
        convolutionRegions.append(try ConvolutionState.Regions(shape, phases: phases, in: &plan))
      }
      self.convolutions = convolutionRegions
      snapshot = try plan.reserve(
        "snapshot's position", count: 1, purpose: .cache, phases: phases.union(.encode))
    }
  }

  /// [layers]
  private let layers: [LayerState]
  private let caches: [KVCache]
  private let convolutions: [ConvolutionState]
  /// The positions that the snapshot is for; 0 where there is none.
  private let snapshot: UnsafeMutablePointer<Int>

  package init(_ regions: Regions, in arena: Arena) {
    let caches = regions.caches.map { KVCache($0, in: arena) }
    let convolutions = regions.convolutions.map { ConvolutionState($0, in: arena) }
    layers = regions.places.map { place in
      switch place {
      case .cache(let index, let layer): .keysAndValues(caches[index], layer: layer)
      case .convolution(let index, let layer): .convolution(convolutions[index], layer: layer)
      }
    }
    self.caches = caches
    self.convolutions = convolutions
    snapshot = arena[regions.snapshot].baseAddress!
    snapshot.pointee = 0
  }

  package subscript(_ layer: Int) -> LayerState { layers[layer] }

  /// Makes sequence `target` remember the positions `positions` as sequence `source` does; what is before them is the same in both.
  package func copy(_ positions: Range<Int>, from source: Int, to target: Int) {
    for cache in caches { cache.copy(positions, from: source, to: target) }
    for state in convolutions { state.copy(from: source, to: target) }
  }

  /// Makes sequence 0 remember no more than its first `count` positions: where what is kept does not reach so far back, those of the
  /// last snapshot, or none.
  ///
  /// - Returns: how many it remembers.
  package func cutBack(to count: Int) -> Int {
    // What comes behind the cut is not what the snapshot is of.
    if snapshot.pointee > count { snapshot.pointee = 0 }
    if caches.allSatisfy({ $0.reaches(count) }) {
      if convolutions.allSatisfy({ $0.reaches(count) }) { return count }
      let position = snapshot.pointee
      if position > 0, position <= count, caches.allSatisfy({ $0.reaches(position) }) {
        for state in convolutions { state.restore(position) }
        return position
      }
    }
    for cache in caches { cache.forget() }
    for state in convolutions { state.forget() }
    snapshot.pointee = 0
    return 0
  }

  /// Notes that sequence 0 remembers `count` positions, to which it can be cut back later.
  package func keepSnapshot(at count: Int) {
    for state in convolutions { state.keepSnapshot(at: count) }
    snapshot.pointee = count
  }
}

extension KVShape {
  /// Whether layers of both can share a cache.
  fileprivate func isAlike(_ other: KVShape) -> Bool {
    var other = other
    other.layers = layers
    return self == other
  }
}
