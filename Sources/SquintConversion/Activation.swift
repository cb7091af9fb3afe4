/// A function that is applied to each number between two matrices, in the words of formats/vision.md.
package enum Activation: String, Sendable, CaseIterable {
  /// x · Φ(x), with the error function.
  case gelu
  /// Its approximation with the hyperbolic tangent.
  case geluTanh = "gelu_tanh"
  /// x · sigmoid(1.702 x)
  case quickGelu = "quick_gelu"
  case relu
  case silu

  /// The function that transformers calls `name` (activations.py, `ACT2CLS`); nil where there is none of ours.
  package init?(huggingFace name: String) {
    switch name {
    case "gelu", "gelu_python": self = .gelu
    case "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate": self = .geluTanh
    case "quick_gelu": self = .quickGelu
    case "relu": self = .relu
    case "silu", "swish": self = .silu
    default: return nil
    }
  }
}
