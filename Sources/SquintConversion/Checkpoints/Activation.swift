import SquintFile

extension Activation {
  /// The function that transformers calls `name` (activations.py, `ACT2CLS`); nil where there is none of ours.
  package init?(huggingFace name: String) {
    switch name {
    case "gelu", "gelu_python": self = .gelu
    case "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate": self = .geluTanh
    case "quick_gelu": self = .quickGELU
    case "relu": self = .relu
    case "silu", "swish": self = .silu
    default: return nil
    }
  }
}
