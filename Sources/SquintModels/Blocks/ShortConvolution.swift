import SquintCompute
import SquintFile

/// A gated short convolution: out · (C * convolution(B * x)), with B, C, x = in · h, where the convolution is causal and each column
/// has its own kernel of a few numbers.
///
/// Source: LFM2 (arXiv 2511.23404); the reference is `Lfm2ShortConv` in transformers' modeling_lfm2.py.
package struct ShortConvolution: @unchecked Sendable {  // a view of the arena
  package struct Weights: @unchecked Sendable {  // views of the file
    let input: Matrix  // [3 · width, width]: B, C, x
    let kernel: UnsafePointer<Float>  // [width, reach]
    let kernelBias: UnsafePointer<Float>?  // [width]
    package let output: Matrix  // [width, width]

    package init(_ tensors: ShortConvolutionTensors, in file: ModelFile) throws(SquintError) {
      input = try Matrix(tensors.input, in: file)
      kernel = try file.vector(tensors.kernel)
      kernelBias = file.tensor(tensors.kernelBias.name) == nil ? nil : try file.vector(tensors.kernelBias)
      output = try Matrix(tensors.output, in: file)
    }

    private init(
      input: Matrix, kernel: UnsafePointer<Float>, kernelBias: UnsafePointer<Float>?, output: Matrix
    ) {
      self.input = input
      self.kernel = kernel
      self.kernelBias = kernelBias
      self.output = output
    }

    /// The same weights, read `distance` bytes behind where they were.
    package func moved(by distance: Int) -> Weights {
      Weights(
        input: input.moved(by: distance), kernel: kernel.moved(by: distance),
        kernelBias: kernelBias?.moved(by: distance), output: output.moved(by: distance))
    }
  }

  package struct Regions: Sendable {
    let inputs: Region<Float>

    package init(width: Int, chunk: Int, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      inputs = try plan.reserve("convolution inputs", count: chunk * 3 * width, phases: phases)
    }
  }

  private let compute: Compute
  private let reach: Int
  /// B (later B * x), C and x side by side: [chunk, 3 · width]
  private let inputs: Rows

  /// - Parameter reach: the rows that go into one row of the output.
  package init(width: Int, reach: Int, _ regions: Regions, in arena: Arena, _ compute: Compute) {
    self.compute = compute
    self.reach = reach
    inputs = Rows(regions.inputs, width: 3 * width, in: arena)
  }

  /// gated = C * convolution(B * x), for the normalized rows h, which join what the layer remembers.
  ///
  /// h, gated: [count, width]; gated may lie where h does.
  package func callAsFunction(
    _ h: Rows, count: Int, _ layer: Weights, _ state: LayerState, _ placement: Placement, quantized: QuantizedRows,
    into gated: Rows
  ) {
    guard case .convolution(let state, let index) = state else { preconditionFailure("a convolution remembers rows") }
    compute.multiply(h, count: count, scratch: quantized, .init(layer.input, into: inputs))
    compute.record("convolution.bcx", inputs, count: count)
    compute.convolve(
      inputs, count: count, layer.kernel, bias: layer.kernelBias, reach: reach, state, layer: index, placement,
      into: gated)
    compute.record("convolution.gated", gated, count: count)
    placement.forEachRun(of: count) { sequence, positions, row in
      state.append(positions, layer: index, sequence: sequence) { position in
        UnsafePointer(inputs[row + position - positions.lowerBound])
      }
    }
  }
}

extension Compute {
  /// inputs: [count, 3 · width], B, C and x side by side; B becomes B * x.
  fileprivate func convolve(
    _ inputs: Rows, count: Int, _ kernel: UnsafePointer<Float>, bias: UnsafePointer<Float>?, reach: Int,
    _ state: ConvolutionState, layer: Int, _ placement: Placement, into gated: Rows
  ) {
    struct Job {
      let inputs: Rows
      let kernel: UnsafePointer<Float>
      let bias: UnsafePointer<Float>?
      let reach: Int
      let state: ConvolutionState
      let layer: Int
      let placement: Placement
      let gated: Rows
      let kernels: Kernels

      /// B * x
      func gateInput(_ row: Int) {
        let width = gated.width
        kernels.multiply(inputs[row], inputs[row] + 2 * width, inputs[row], width)
      }

      func run(_ row: Int) {
        let width = gated.width
        let output = gated[row]
        if let bias { output.update(from: bias, count: width) } else { output.update(repeating: 0, count: width) }
        let (position, sequence) = (placement.position(ofRow: row), placement.sequence(ofRow: row))
        let first = placement.firstRow(inSequenceOf: row)
        for step in 0..<reach {
          let behind = reach - 1 - step
          guard behind <= position else { continue }
          let source =
            behind <= row - first
            ? inputs[row - behind] : state.row(at: position - behind, layer: layer, sequence: sequence)
          for column in 0..<width { output[column] += kernel[column * reach + step] * source[column] }
        }
        kernels.multiply(output, inputs[row] + width, output, width)
      }
    }
    var job = Job(
      inputs: inputs, kernel: kernel, bias: bias, reach: reach, state: state, layer: layer, placement: placement,
      gated: gated, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.gateInput(row) }
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.run(row) }
  }
}
