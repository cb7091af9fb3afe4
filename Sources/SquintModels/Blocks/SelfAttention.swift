import SquintCompute
import SquintFile

/// The matrices of attention in a layer of an encoder.
package struct SelfAttention: Sendable {
  package let q: Matrix  // [width, width]
  package let k: Matrix  // [width, width]
  package let v: Matrix  // [width, width]
  package let o: Matrix  // [width, width]

  package init(_ tensors: EncoderAttentionTensors, in file: ModelFile) throws(SquintError) {
    q = try Matrix(tensors.q, in: file)
    k = try Matrix(tensors.k, in: file)
    v = try Matrix(tensors.v, in: file)
    o = try Matrix(tensors.o, in: file)
  }

  private init(q: Matrix, k: Matrix, v: Matrix, o: Matrix) {
    self.q = q
    self.k = k
    self.v = v
    self.o = o
  }

  /// The same weights, read `distance` bytes behind where they were.
  package func moved(by distance: Int) -> SelfAttention {
    SelfAttention(
      q: q.moved(by: distance), k: k.moved(by: distance), v: v.moved(by: distance), o: o.moved(by: distance))
  }
}

/// A feed-forward network of two matrices with an activation between them.
package struct PlainFFN: Sendable {
  let up: Matrix  // [inner_width, width]
  let down: Matrix  // [width, inner_width]

  package init(up: MatrixSpecification, down: MatrixSpecification, in file: ModelFile) throws(SquintError) {
    self.up = try Matrix(up, in: file)
    self.down = try Matrix(down, in: file)
  }

  private init(up: Matrix, down: Matrix) {
    self.up = up
    self.down = down
  }

  /// The same weights, read `distance` bytes behind where they were.
  package func moved(by distance: Int) -> PlainFFN {
    PlainFFN(up: up.moved(by: distance), down: down.moved(by: distance))
  }

  /// x += down · activation(up · h) for `count` rows. h: [count, width], at most a chunk.
  func callAsFunction(
    _ h: Rows, count: Int, _ activation: Activation, _ buffers: EncoderBuffers, _ compute: Compute, addTo x: Rows
  ) {
    let inner = buffers.inner
    compute.multiply(h, count: count, scratch: buffers.quantized, .init(up, into: inner))
    compute.activate(inner, count: count, activation)
    compute.multiply(inner, count: count, scratch: buffers.quantized, .init(down, into: x, accumulate: true))
  }
}

extension EncoderBuffers {
  /// Computes and stores the keys and values of all `count` rows of x, which `normalize` normalizes chunk by chunk into `h`; `turn`
  /// does with the keys what is done before they are compared.
  func storeKeys(
    _ x: Rows, count: Int, _ layer: SelfAttention, _ compute: Compute,
    normalize: (_ x: Rows, _ count: Int) -> Void,
    turn: (_ keys: Rows, _ first: Int, _ count: Int) -> Void = { _, _, _ in }
  ) {
    forEachChunk(of: count) { first, rows in
      normalize(x.from(first), rows)
      let keys = attention.keys(from: first)
      compute.multiply(
        h, count: rows, scratch: quantized, .init(layer.k, into: keys),
        .init(layer.v, into: attention.values(from: first)))
      turn(keys, first, rows)
      attention.store(first: first, count: rows, positions: count, compute)
    }
  }
}
