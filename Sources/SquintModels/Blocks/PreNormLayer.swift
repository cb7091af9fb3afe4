import SquintCompute
import SquintFile

/// A layer of an encoder with a LayerNorm before attention, in which every row sees all rows, and one before a feed-forward network of
/// two matrices. It is the layer of ViT (arXiv 2010.11929) and of Whisper (2212.04356).
package struct PreNormLayer<Blueprint: PreNormBlueprint>: EncoderLayerWeights, @unchecked Sendable {
  // Views of the file:
  let attentionNorm: Compute.LayerNorm  // [width]
  let attention: SelfAttention
  let ffnNorm: Compute.LayerNorm  // [width]
  let ffn: PlainFFN
}

// MARK: Forward

extension PreNormLayer {
  /// x += attention(norm(x)); x += ffn(norm(x)). x: [count, width].
  ///
  /// - Parameter turn: turns queries or keys [count, width] of the rows from `first` on by their positions, where rows have such.
  func forward(
    _ x: Rows, count: Int, _ activation: Activation, _ buffers: EncoderBuffers, _ compute: Compute,
    turn: (_ rows: Rows, _ first: Int, _ count: Int) -> Void = { _, _, _ in }
  ) {
    let (h, q, quantized) = (buffers.h, buffers.q, buffers.quantized)
    buffers.storeKeys(x, count: count, attention, compute) { x, rows in
      compute.layerNorm(x, attentionNorm, into: h, count: rows)
    } turn: { keys, first, rows in
      turn(keys, first, rows)
    }
    // All keys and values are there: from here on a row needs no other.
    buffers.forEachChunk(of: count) { first, rows in
      let x = x.from(first)
      compute.layerNorm(x, attentionNorm, into: h, count: rows)
      compute.record("attention.norm", h, count: rows)
      compute.multiply(h, count: rows, scratch: quantized, .init(attention.q, into: q))
      turn(q, first, rows)
      buffers.attention.attend(q: q, count: rows, positions: count, into: h, compute)
      compute.record("attention.heads", h, count: rows)
      addAttentionAndFFN(h, count: rows, activation, buffers, compute, to: x)
    }
  }

  /// x += o · heads; x += ffn(norm(x)). heads lie in `h` of the buffers; h, x: [count, width], at most a chunk.
  func addAttentionAndFFN(
    _ h: Rows, count: Int, _ activation: Activation, _ buffers: EncoderBuffers, _ compute: Compute, to x: Rows
  ) {
    compute.multiply(h, count: count, scratch: buffers.quantized, .init(attention.o, into: x, accumulate: true))
    compute.record("attention", x, count: count)

    compute.layerNorm(x, ffnNorm, into: h, count: count)
    compute.record("ffn.norm", h, count: count)
    ffn(h, count: count, activation, buffers, compute, addTo: x)
    compute.record("ffn", x, count: count)
  }
}

// MARK: Weights

extension PreNormLayer {
  package init(_ tensors: PreNormLayerTensors, epsilon: Double, in file: ModelFile) throws(SquintError) {
    attentionNorm = try Compute.LayerNorm(tensors.attentionNorm, epsilon: epsilon, in: file)
    attention = try SelfAttention(tensors.attention, in: file)
    ffnNorm = try Compute.LayerNorm(tensors.ffnNorm, epsilon: epsilon, in: file)
    ffn = try PlainFFN(up: tensors.up, down: tensors.down, in: file)
  }

  package init(_ c: Blueprint, _ index: Int, in file: ModelFile) throws(SquintError) {
    try self.init(c.layer(index), epsilon: c.normEpsilon, in: file)
  }

  package func moved(by distance: Int) -> Self {
    Self(
      attentionNorm: attentionNorm.moved(by: distance), attention: attention.moved(by: distance),
      ffnNorm: ffnNorm.moved(by: distance), ffn: ffn.moved(by: distance))
  }

  package var isQuantized: Bool { attention.q.type.isQuantized }
}
