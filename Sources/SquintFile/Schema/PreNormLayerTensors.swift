/// The tensors of an encoder's layer that has a LayerNorm before attention, and one before a feed-forward network of two matrices.
package struct PreNormLayerTensors: Sendable {
  package let attentionNorm: NormSpecification
  package let attention: EncoderAttentionTensors
  package let ffnNorm: NormSpecification
  package let up, down: MatrixSpecification

  package init(_ prefix: String, width: Int, ffnWidth: Int) {
    attentionNorm = NormSpecification("\(prefix).attention.norm", width)
    attention = EncoderAttentionTensors("\(prefix).attention", width: width)
    ffnNorm = NormSpecification("\(prefix).ffn.norm", width)
    up = MatrixSpecification("\(prefix).ffn.up", rows: ffnWidth, columns: width)
    down = MatrixSpecification("\(prefix).ffn.down", rows: width, columns: ffnWidth)
  }

  package var tensors: [TensorSpecification] {
    attentionNorm.tensors + attention.tensors + ffnNorm.tensors + up.tensors + down.tensors
  }
}

/// An encoder whose layers are all such.
package protocol PreNormBlueprint: NamedBlueprint {
  var width: Int { get }
  var ffnWidth: Int { get }
  var normEpsilon: Double { get }
  var activation: Activation { get }
}

extension PreNormBlueprint {
  package func layer(_ index: Int) -> PreNormLayerTensors {
    PreNormLayerTensors("\(module).\(index)", width: width, ffnWidth: ffnWidth)
  }
}

/// The matrices of attention in a layer of an encoder, behind `prefix`.
package struct EncoderAttentionTensors: Sendable {
  package let q, k, v, o: MatrixSpecification

  package init(_ prefix: String, width: Int) {
    func square(_ name: String) -> MatrixSpecification {
      MatrixSpecification("\(prefix).\(name)", rows: width, columns: width)
    }
    (q, k, v, o) = (square("q"), square("k"), square("v"), square("o"))
  }

  package var tensors: [TensorSpecification] { q.tensors + k.tensors + v.tensors + o.tensors }
}
