import SquintCompute
import SquintFile

/// A feed-forward network with a gate (arXiv 2002.05202): down · (activation(gate · h) * (up · h)).
package struct GatedFFN: @unchecked Sendable {  // a view of the arena
  package struct Weights: Sendable {
    let gate: Matrix  // [inner_width, width]
    let up: Matrix  // [inner_width, width]
    let down: Matrix  // [width, inner_width]

    package init(_ tensors: GatedFFNTensors, in file: ModelFile) throws(SquintError) {
      gate = try Matrix(tensors.gate, in: file)
      up = try Matrix(tensors.up, in: file)
      down = try Matrix(tensors.down, in: file)
    }

    private init(gate: Matrix, up: Matrix, down: Matrix) {
      self.gate = gate
      self.up = up
      self.down = down
    }

    /// The same weights, read `distance` bytes behind where they were.
    package func moved(by distance: Int) -> Weights {
      Weights(gate: gate.moved(by: distance), up: up.moved(by: distance), down: down.moved(by: distance))
    }
  }

  package struct Regions: Sendable {
    let gate: Region<Float>
    let up: Region<Float>

    package init(innerWidth: Int, chunk: Int, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      gate = try plan.reserve("feed-forward gate", count: chunk * innerWidth, phases: phases)
      up = try plan.reserve("feed-forward up", count: chunk * innerWidth, phases: phases)
    }
  }

  /// What the gate goes through.
  package enum Gate {
    case silu
    case geluTanh
  }

  private let compute: Compute
  private let activation: Gate
  private let gate: Rows
  private let up: Rows

  package init(_ activation: Gate, innerWidth: Int, _ regions: Regions, in arena: Arena, _ compute: Compute) {
    self.compute = compute
    self.activation = activation
    gate = Rows(regions.gate, width: innerWidth, in: arena)
    up = Rows(regions.up, width: innerWidth, in: arena)
  }

  /// - Parameters:
  ///   - gate, up: [chunk, inner_width]
  package init(_ activation: Gate, gate: Rows, up: Rows, _ compute: Compute) {
    self.compute = compute
    self.activation = activation
    self.gate = gate
    self.up = up
  }

  /// output (+)= down · (activation(gate · h) * (up · h)) for `count` rows [width].
  package func callAsFunction(
    _ h: Rows, count: Int, _ layer: Weights, quantized: QuantizedRows, into output: Rows, accumulate: Bool
  ) {
    compute.multiply(h, count: count, scratch: quantized, .init(layer.gate, into: gate), .init(layer.up, into: up))
    switch activation {
    case .silu: compute.swiGLU(gate: gate, up: up, count: count)
    case .geluTanh: compute.geGLU(gate: gate, up: up, count: count)
    }
    compute.multiply(gate, count: count, scratch: quantized, .init(layer.down, into: output, accumulate: accumulate))
  }
}
