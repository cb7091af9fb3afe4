import SquintFile
import Foundation
import SquintCompute
import SquintModels

/// The encoder and the projector as formats/vision.md writes them, in double precision and in no hurry.
struct VisionReference {
  let model: TinyVision
  private var s: VisionSettings { model.settings }

  // MARK: Encoder

  /// The features of `tile`, row by row.
  func features(_ tile: Tile) -> [[Double]] {
    let e = "encoder.image"
    let (gridRows, gridColumns) = (tile.height / s.patch, tile.width / s.patch)
    var x: [[Double]] = []
    for row in 0..<gridRows {
      for column in 0..<gridColumns {
        var pixels: [Double] = []
        for channel in 0..<3 {
          for y in 0..<s.patch {
            for x in 0..<s.patch {
              let pixel = ((row * s.patch + y) * tile.width + column * s.patch + x) * 3 + channel
              pixels.append(Double(tile.levels[channel * 256 + Int(tile.pixels[pixel])]))
            }
          }
        }
        let position = position(row, column, gridRows, gridColumns)
        x.append(zip(linear("\(e).patch", pixels), position).map(+))
      }
    }
    if s.hasClass { x.insert(zip(model.values("\(e).class")!, table(0)).map(+), at: 0) }
    if s.preNorm { x = x.map { norm("\(e).pre_norm", $0) } }

    var taken: [[[Double]]] = []
    let wanted = s.featureLayers ?? [s.layers]
    if wanted.contains(0) { taken.append(x) }
    for layer in 0..<s.layers {
      let name = "\(e).\(layer)"
      let h = x.map { norm("\(name).attention.norm", $0) }
      let (q, k, v) = (
        h.map { linear("\(name).attention.q", $0) }, h.map { linear("\(name).attention.k", $0) },
        h.map { linear("\(name).attention.v", $0) }
      )
      let attended = attend(q, k, v)
      x = zip(x, attended).map { x, a in zip(x, linear("\(name).attention.o", a)).map(+) }
      x = x.map { x in
        let up = linear("\(name).ffn.up", norm("\(name).ffn.norm", x)).map { apply(s.activation, $0) }
        return zip(x, linear("\(name).ffn.down", up)).map(+)
      }
      if wanted.contains(layer + 1) { taken.append(x) }
    }
    let normalized = taken.map { x in s.norm ? x.map { norm("\(e).norm", $0) } : x }
    return ((s.hasClass && s.dropsClass ? 1 : 0)..<x.count).map { row in normalized.flatMap { $0[row] } }
  }

  private func table(_ row: Int) -> [Double] {
    Array(model.values("encoder.image.positions")![row * s.width..<(row + 1) * s.width])
  }

  private func position(_ row: Int, _ column: Int, _ rows: Int, _ columns: Int) -> [Double] {
    let first = s.hasClass ? 1 : 0
    switch s.positions {
    case .fixed: return table(first + row * s.grid + column)
    case .buckets:
      // Whole numbers, so that no rounding blurs what the rule means where it is not on a boundary.
      let (r, c) = (row * s.grid / rows, column * s.grid / columns)
      return table(first + r * s.grid + c)
    case .bicubic:
      // The Keys kernel itself, at the distance of each of the table's rows.
      func weights(_ index: Int, _ count: Int) -> [Double] {
        let place = (Double(index) + 0.5) * Double(s.grid) / Double(count) - 0.5
        var weights = [Double](repeating: 0, count: s.grid)
        for neighbour in Int(place.rounded(.down)) - 1...Int(place.rounded(.down)) + 2 {
          let d = abs(place - Double(neighbour))
          let a = -0.75
          let weight =
            d <= 1 ? (a + 2) * d * d * d - (a + 3) * d * d + 1 : a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a
          weights[min(max(neighbour, 0), s.grid - 1)] += weight
        }
        return weights
      }
      var sum = [Double](repeating: 0, count: s.width)
      for (r, vertical) in weights(row, rows).enumerated() {
        for (c, horizontal) in weights(column, columns).enumerated() {
          for (i, value) in table(first + r * s.grid + c).enumerated() { sum[i] += vertical * horizontal * value }
        }
      }
      return sum
    }
  }

  private func attend(_ q: [[Double]], _ k: [[Double]], _ v: [[Double]]) -> [[Double]] {
    let width = s.width / s.heads
    return q.map { q in
      (0..<s.heads).flatMap { head in
        let part = head * width..<(head + 1) * width
        let scores = k.map { k in zip(q[part], k[part]).reduce(0) { $0 + $1.0 * $1.1 } / Double(width).squareRoot() }
        let weights = scores.map { exp($0 - scores.max()!) }
        let sum = weights.reduce(0, +)
        return part.map { i in zip(weights, v).reduce(0) { $0 + $1.0 * $1.1[i] } / sum }
      }
    }
  }

  // MARK: Projector

  /// The decoder's rows for features of a grid.
  func rows(_ features: [[Double]], gridRows: Int, gridColumns: Int) -> [[Double]] {
    var z: [[Double]] = []
    if s.shuffle == 1 {
      z = features
    } else {
      for row in 0..<gridRows / s.shuffle {
        for column in 0..<gridColumns / s.shuffle {
          var square: [Double] = []
          for i in 0..<s.shuffle {
            for j in 0..<s.shuffle {
              square += features[(row * s.shuffle + i) * gridColumns + column * s.shuffle + j]
            }
          }
          z.append(square)
        }
      }
    }
    if s.projectorNorm { z = z.map { norm("projector.image.norm", $0) } }
    let layers = s.allProjectorWidths.count - 1
    for layer in 0..<layers {
      z = z.map { row in
        let y = linear("projector.image.\(layer)", row)
        return layer == layers - 1 ? y : y.map { apply(s.projectorActivation, $0) }
      }
    }
    return z
  }

  // MARK: Parts

  private func linear(_ name: String, _ x: [Double]) -> [Double] {
    let w = model.values(name)!
    let bias = model.values(name + ".bias")
    return (0..<w.count / x.count).map { row in
      var sum: Double = bias?[row] ?? 0
      for column in x.indices { sum += w[row * x.count + column] * x[column] }
      return sum
    }
  }

  private func norm(_ name: String, _ x: [Double]) -> [Double] {
    let (weight, bias) = (model.values(name)!, model.values(name + ".bias")!)
    let mean = x.reduce(0, +) / Double(x.count)
    var variance = 0.0
    for value in x { variance += (value - mean) * (value - mean) / Double(x.count) }
    let scale = 1 / (variance + s.normEpsilon).squareRoot()
    return x.indices.map { (x[$0] - mean) * scale * weight[$0] + bias[$0] }
  }

  private func apply(_ activation: Activation, _ x: Double) -> Double {
    switch activation {
    case .gelu: x / 2 * erfc(-x / 2.0.squareRoot())
    case .geluTanh: x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    case .quickGELU: x / (1 + exp(-1.702 * x))
    case .relu: max(x, 0)
    case .silu: x / (1 + exp(-x))
    }
  }
}
