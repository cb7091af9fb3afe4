import CKernels
import SquintFile

extension Activation {
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
  package func activate(_ x: Rows, count: Int, _ activation: Activation) {
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
