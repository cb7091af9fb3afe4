import CKernels

/// The functions that stand between two matrices; raw values as formats/vision.md has them.
public enum Activation: String, CaseIterable, Sendable {
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

  fileprivate func kernel(of kernels: Kernels) -> Kernels.Activate {
    switch self {
    case .gelu: kernels.gelu
    case .geluTanh: kernels.geluTanh
    case .quickGELU: kernels.quickGELU
    case .relu: kernels.relu
    case .silu: kernels.silu
    }
  }
}

extension Compute {
  /// x = activation(x) for `count` rows.
  public func activate(_ x: Rows, count: Int, _ activation: Activation) {
    struct Job {
      let x: Rows
      let kernel: Kernels.Activate
    }
    var job = Job(x: x, kernel: activation.kernel(of: kernels))
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      job.pointee.kernel(job.pointee.x[row], job.pointee.x.width)
    }
  }
}
