/// The functions that stand between two matrices; raw values as formats/vision.md has them.
package enum Activation: String, CaseIterable, Sendable {
  /// x/2 · (1 + erf(x / √2)) (arXiv 1606.08415).
  case gelu
  /// Its approximation with tanh: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).
  case geluTanh = "gelu_tanh"
  /// x · sigmoid(1.702 x) (CLIP).
  case quickGELU = "quick_gelu"
  /// max(x, 0).
  case relu
  /// x · sigmoid(x).
  case silu
}
