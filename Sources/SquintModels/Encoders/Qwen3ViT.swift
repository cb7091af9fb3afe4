import SquintCompute
import SquintFile

/// Qwen3-VL's tower: Qwen2-VL's with a table of positions that is resized to the image's grid, and features of earlier layers beside
/// those of the last (formats/vision.md).
///
/// Source: Qwen3-VL (arXiv 2511.21631); the reference is transformers' modeling_qwen3_vl.py.
package struct Qwen3ViT: EncoderLayers, @unchecked Sendable {  // views of the arena
  package typealias Layer = PreNormLayer<Qwen3ViTBlueprint>

  package struct Weights: @unchecked Sendable {  // views of the file
    let patches: QwenPatchWeights
    let positions: UnsafePointer<Float>  // [grid · grid, width]
    let norm: Compute.LayerNorm  // [width]
  }

  package struct Regions: Sendable {
    let patches: QwenPatches.Regions
  }

  private let blueprint: Qwen3ViTBlueprint
  private let weights: Weights
  private let buffers: EncoderBuffers
  private let compute: Compute
  private var patches: QwenPatches

  package init(
    _ blueprint: Qwen3ViTBlueprint, _ weights: Weights, levels: [Float], _ regions: Regions, _ buffers: EncoderBuffers,
    in arena: Arena, _ compute: Compute
  ) {
    self.blueprint = blueprint
    self.weights = weights
    self.buffers = buffers
    self.compute = compute
    patches = QwenPatches(blueprint, weights.patches, levels: levels, regions.patches, in: arena)
  }
}

// MARK: Forward

extension Qwen3ViT {
  package func forward(_ x: Rows, count: Int, _ layer: Layer, _ index: Int) {
    layer.forward(x, count: count, blueprint.activation, buffers, compute) { rows, first, count in
      patches.turn(rows, first: first, count: count, compute)
    }
  }

  package mutating func begin(shape: [Int], _ grid: FeatureGrid) { patches.begin(shape: shape, grid, window: nil) }

  /// x = patch · pixels + positions.
  package func embed(_ numbers: UnsafeRawPointer, into x: Rows) {
    patches.embed(numbers, buffers, compute, into: x)
    compute.addStretchedPositions(
      weights.positions, side: blueprint.grid, patches.grid, to: x)
  }

  package func take(_ x: Rows, count: Int, index: Int, into features: Rows) {
    // Those of earlier layers are normalized behind them.
    if index == (blueprint.deepLayers ?? []).count {
      compute.layerNorm(x, weights.norm, into: features, count: count)
    } else {
      for row in 0..<count { features[row].update(from: x[row], count: x.width) }
    }
  }
}

extension Compute {
  /// x[patch, width] += the table [side · side, width], stretched to the grid so that corners stay corners, and interpolated between
  /// four neighbours (`fast_pos_embed_interpolate` of modeling_qwen3_vl.py).
  fileprivate func addStretchedPositions(_ table: UnsafePointer<Float>, side: Int, _ grid: FeatureGrid, to x: Rows) {
    struct Job {
      let table: UnsafePointer<Float>
      let side: Int
      let grid: FeatureGrid
      let x: Rows

      /// What is below and above place `index` of `count` on the table's axis, and how far it is from what is below.
      func neighbours(_ index: Int, of count: Int) -> (below: Int, above: Int, part: Float) {
        let place = count > 1 ? Float(index) * (Float(side - 1) / Float(count - 1)) : 0
        let below = min(Int(place), side - 1)
        return (below, min(below + 1, side - 1), place - Float(below))
      }

      func run(_ patch: Int) {
        let vertical = neighbours(patch / grid.columns, of: grid.rows)
        let horizontal = neighbours(patch % grid.columns, of: grid.columns)
        let x = x[patch]
        let width = self.x.width
        for (row, share) in [(vertical.below, 1 - vertical.part), (vertical.above, vertical.part)] {
          for (column, part) in [(horizontal.below, 1 - horizontal.part), (horizontal.above, horizontal.part)] {
            let from = table + (row * side + column) * width
            let weight = share * part
            for index in 0..<width { x[index] += weight * from[index] }
          }
        }
      }
    }
    var job = Job(table: table, side: side, grid: grid, x: x)
    workers.run(&job, pieces: grid.count) { job, patch, _ in
      job.assumingMemoryBound(to: Job.self).pointee.run(patch)
    }
  }
}

// MARK: Weights and sizes

extension Qwen3ViT {
  package static func sizes(_ c: Qwen3ViTBlueprint) -> EncoderSizes {
    c.sizes(featureLayers: (c.deepLayers ?? []) + [c.layers])
  }

  package static func grid(_ c: Qwen3ViTBlueprint, of shape: [Int]) throws(SquintError) -> FeatureGrid {
    try c.grid(of: shape)
  }

  package static func weights(_ c: Qwen3ViTBlueprint, in file: ModelFile) throws(SquintError) -> Weights {
    Weights(
      patches: try QwenPatchWeights(c, in: file), positions: try file.vector(c.positionTable),
      norm: try Compute.LayerNorm(c.norm, epsilon: c.normEpsilon, in: file))
  }

  package static func reserve(
    _ c: Qwen3ViTBlueprint, patches: Int, in plan: inout ArenaPlan
  ) throws(SquintError) -> Regions {
    Regions(patches: try QwenPatches.Regions(c, patches: patches, hasWindows: false, in: &plan))
  }
}
