import CKernels
import SquintFile

/// What every computation needs: the kernels of this CPU and the threads to run them on. Passed along, never global.
package struct Compute: Sendable {
  package let kernels: Kernels
  package let workers: Workers
  /// Who wants to see what is computed.
  package let trace = TraceHolder()

  package init(kernels: Kernels, workers: Workers) {
    self.kernels = kernels
    self.workers = workers
  }
}

/// Rows of f32 in the arena: [count, width], row after row.
package struct Rows: @unchecked Sendable {  // a view of the arena
  package let data: UnsafeMutablePointer<Float>
  package let width: Int

  package init(data: UnsafeMutablePointer<Float>, width: Int) {
    self.data = data
    self.width = width
  }

  package init(_ region: Region<Float>, width: Int, in arena: Arena) {
    self.init(data: arena[region].baseAddress!, width: width)
  }

  package subscript(_ row: Int) -> UnsafeMutablePointer<Float> { data + row * width }

  /// The rows from `first` on.
  package func from(_ first: Int) -> Rows { Rows(data: self[first], width: width) }

  /// The columns from `first` on, of rows that are as far apart as before.
  package func columns(from first: Int) -> Rows { Rows(data: data + first, width: width) }
}

/// Room for the int8 form of rows: what a quantized matrix is multiplied with.
package struct QuantizedRows: @unchecked Sendable {  // a view of the arena
  package struct Regions: Sendable {
    let values: Region<Int8>
    let scales: Region<Float>
    let sums: Region<Int32>

    /// Room for `rows` rows of at most `columns` columns.
    package init(rows: Int, columns: Int, phases: Phases, in plan: inout ArenaPlan) throws(SquintError) {
      let groups = (columns + PanelLayout.columnsPerGroup - 1) / PanelLayout.columnsPerGroup
      values = try plan.reserve(
        "int8 activations", count: rows * groups * PanelLayout.columnsPerGroup, phases: phases)
      scales = try plan.reserve("activation scales", count: rows * groups, phases: phases)
      sums = try plan.reserve("activation sums", count: rows * groups, phases: phases)
    }
  }

  let values: UnsafeMutablePointer<Int8>
  let scales: UnsafeMutablePointer<Float>
  let sums: UnsafeMutablePointer<Int32>

  package init(_ regions: Regions, in arena: Arena) {
    values = arena[regions.values].baseAddress!
    scales = arena[regions.scales].baseAddress!
    sums = arena[regions.sums].baseAddress!
  }

  private init(
    values: UnsafeMutablePointer<Int8>, scales: UnsafeMutablePointer<Float>, sums: UnsafeMutablePointer<Int32>
  ) {
    self.values = values
    self.scales = scales
    self.sums = sums
  }

  /// The rows from `row` on, where a row has at most `groups` groups.
  func from(_ row: Int, groups: Int) -> QuantizedRows {
    QuantizedRows(
      values: values + row * groups * PanelLayout.columnsPerGroup, scales: scales + row * groups,
      sums: sums + row * groups)
  }

  /// Writes the int8 form of x[columns] as row `row` of rows of that many columns.
  func quantize(_ x: UnsafePointer<Float>, columns: Int, row: Int, _ kernels: Kernels) {
    let output = rounded(columns: columns, row: row)
    kernels.quantize(x, columns, output.q, output.scales, output.sums)
  }

  /// Where row `row` of rows of that many columns is.
  func rounded(columns: Int, row: Int) -> squint_rounded {
    let groups = (columns + PanelLayout.columnsPerGroup - 1) / PanelLayout.columnsPerGroup
    return squint_rounded(
      q: values + row * groups * PanelLayout.columnsPerGroup, scales: scales + row * groups, sums: sums + row * groups)
  }
}

// MARK: Matrix products

extension Compute {
  /// One product of a batch: y (+)= W · x + b.
  package struct Product {
    let matrix: Matrix
    let output: Rows
    let accumulate: Bool

    package init(_ matrix: Matrix, into output: Rows, accumulate: Bool = false) {
      self.matrix = matrix
      self.output = output
      self.accumulate = accumulate
    }
  }

  /// y[row] (+)= W · x[row] + b for `count` rows of `x`, for up to three matrices that read the same x in one pass.
  ///
  /// `scratch` takes the int8 form of x where a matrix is quantized.
  package func multiply(
    _ x: Rows, count: Int, scratch: QuantizedRows, _ first: Product, _ second: Product? = nil, _ third: Product? = nil
  ) {
    if first.matrix.type.isQuantized || second?.matrix.type.isQuantized == true
      || third?.matrix.type.isQuantized == true
    {
      quantize(x, columns: first.matrix.columns, count: count, into: scratch)
    }
    var job = ProductJob(
      x: x, quantized: scratch, count: count, first: first, second: second, third: third, kernels: kernels)
    // Where there are rows enough, each thread computes some of them whole: rows pass from core to core slowly, weights are read
    // from a cache that the cores share.
    let blocks = min(workers.count, max(count / ProductJob.leastRows, 1))
    job.rowsPerBlock = ((count + blocks - 1) / blocks + 7) / 8 * 8
    // Eight pieces a thread: few enough that handing them out costs nothing, many enough that a slow core is no brake.
    job.panelsPerPiece = max(1, job.panels * blocks / (workers.count * 8))
    // With one row the weights are read once, at the memory's speed: at the end no thread is to wait long for the other.
    if count == 1 {
      job.panelsPerPiece = min(job.panelsPerPiece, max(1, ProductJob.mostBytes / first.matrix.panelBytes))
    }
    // Kernels may multiply two panels at a time with many tokens.
    if count > 1 { job.panelsPerPiece += job.panelsPerPiece % 2 }
    job.piecesPerBlock = (job.panels + job.panelsPerPiece - 1) / job.panelsPerPiece
    workers.run(&job, pieces: blocks * job.piecesPerBlock) { job, piece, _ in
      job.assumingMemoryBound(to: ProductJob.self).pointee.run(piece)
    }
  }

  /// y (+)= W · x for some panels of a quantized matrix, on the calling thread.
  static func multiplyPanels(
    _ matrix: Matrix, panels: Range<Int>, _ x: QuantizedRows, count: Int, into y: Rows, accumulate: Bool,
    _ kernels: Kernels
  ) {
    var call = squint_product(
      weights: matrix.data.assumingMemoryBound(to: UInt8.self), type: UInt32(matrix.type.rawValue),
      rows: UInt32(matrix.rows), groups: UInt32(matrix.groups), tokens: UInt32(count), x: x.values,
      x_scales: x.scales, x_sums: x.sums, y: y.data, y_stride: y.width, accumulate: accumulate)
    kernels.product(&call, UInt32(panels.lowerBound), UInt32(panels.count))
  }

  /// The int8 form of the first `columns` numbers of `count` rows.
  private func quantize(_ x: Rows, columns: Int, count: Int, into scratch: QuantizedRows) {
    struct Job {
      let x: Rows
      let columns: Int
      let output: QuantizedRows
      let kernels: Kernels
    }
    var job = Job(x: x, columns: columns, output: scratch, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      job.pointee.output.quantize(
        job.pointee.x[row], columns: job.pointee.columns, row: row, job.pointee.kernels)
    }
  }
}

/// A batch of products, cut into blocks of rows of x, and these into pieces of `panelsPerPiece` panels counted through all matrices.
private struct ProductJob {
  /// A block of fewer rows would unpack weights for too little arithmetic.
  static let leastRows = 64
  /// The weights of a piece that is multiplied with one row, in bytes.
  static let mostBytes = 128 << 10

  let x: Rows
  let quantized: QuantizedRows
  let count: Int
  let first: Compute.Product
  let second: Compute.Product?
  let third: Compute.Product?
  let kernels: Kernels
  var rowsPerBlock = 0
  var panelsPerPiece = 0
  var piecesPerBlock = 0

  var panels: Int { panels(of: first) + panels(of: second) + panels(of: third) }

  private func panels(of product: Compute.Product?) -> Int {
    product?.matrix.panels ?? 0
  }

  func run(_ piece: Int) {
    let (block, part) = (piece / piecesPerBlock, piece % piecesPerBlock)
    let rows = block * rowsPerBlock..<min((block + 1) * rowsPerBlock, count)
    guard !rows.isEmpty else { return }
    var range = part * panelsPerPiece..<(part + 1) * panelsPerPiece
    run(first, rows, &range)
    run(second, rows, &range)
    run(third, rows, &range)
  }

  /// Computes the part of `range` that lies in `product`, and leaves in `range` what lies behind it.
  private func run(_ product: Compute.Product?, _ rows: Range<Int>, _ range: inout Range<Int>) {
    guard let product else { return }
    let own = range.clamped(to: 0..<panels(of: product))
    if !own.isEmpty { run(product, rows, own) }
    let lower = max(range.lowerBound - panels(of: product), 0)
    range = lower..<max(range.upperBound - panels(of: product), lower)
  }

  private func run(_ product: Compute.Product, _ rows: Range<Int>, _ panels: Range<Int>) {
    let matrix = product.matrix
    let output = product.output.from(rows.lowerBound)
    let outputs =
      panels.lowerBound
      * PanelLayout.rowsPerPanel..<min(
        panels.upperBound * PanelLayout.rowsPerPanel, matrix.rows)
    if matrix.type.isQuantized {
      Compute.multiplyPanels(
        matrix, panels: panels, quantized.from(rows.lowerBound, groups: matrix.groups), count: rows.count, into: output,
        accumulate: product.accumulate, kernels)
    } else {
      var call = squint_plain_product(
        weights: matrix.data, type: UInt32(matrix.type.rawValue), rows: UInt32(matrix.rows),
        columns: UInt32(matrix.columns), tokens: UInt32(rows.count), x: x[rows.lowerBound], x_stride: x.width,
        y: output.data, y_stride: output.width, accumulate: product.accumulate)
      kernels.plainProduct(&call, UInt32(outputs.lowerBound), UInt32(outputs.count))
    }
    if let bias = matrix.bias {
      for row in 0..<rows.count {
        let y = output[row] + outputs.lowerBound
        kernels.add(y, bias + outputs.lowerBound, y, outputs.count)
      }
    }
  }
}

// MARK: Row by row

extension Compute {
  /// y = rms_norm(x) · weight for `count` rows (arXiv 1910.07467).
  package func rmsNorm(_ x: Rows, _ weight: UnsafePointer<Float>, epsilon: Float, into y: Rows, count: Int) {
    struct Job {
      let x: Rows
      let weight: UnsafePointer<Float>
      let epsilon: Float
      let y: Rows
      let kernels: Kernels
    }
    var job = Job(x: x, weight: weight, epsilon: epsilon, y: y, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      job.pointee.kernels.rmsNorm(
        job.pointee.x[row], job.pointee.weight, job.pointee.y[row], job.pointee.x.width, job.pointee.epsilon)
    }
  }

  /// A layer norm's w[width] and b[width].
  package struct LayerNorm: @unchecked Sendable {  // a view of the file
    package let weight: UnsafePointer<Float>
    package let bias: UnsafePointer<Float>
    package let epsilon: Float

    /// The same norm, read `distance` bytes behind where it was.
    package func moved(by distance: Int) -> LayerNorm {
      LayerNorm(weight: weight.moved(by: distance), bias: bias.moved(by: distance), epsilon: epsilon)
    }

    private init(weight: UnsafePointer<Float>, bias: UnsafePointer<Float>, epsilon: Float) {
      self.weight = weight
      self.bias = bias
      self.epsilon = epsilon
    }

    /// The tensors `name` and `name.bias` of `file`.
    ///
    /// - Throws: `badData` when one is not there or not f32 of [width].
    package init(_ name: String, width: Int, epsilon: Float, in file: ModelFile) throws(SquintError) {
      weight = try file.vector(name, count: width)
      bias = try file.vector(name + ".bias", count: width)
      self.epsilon = epsilon
    }

    /// The norm that a blueprint describes.
    ///
    /// - Throws: `badData` when a tensor is not there or not f32 of its width.
    package init(_ norm: NormSpecification, epsilon: Double, in file: ModelFile) throws(SquintError) {
      try self.init(norm.name, width: norm.count, epsilon: Float(epsilon), in: file)
    }
  }

  /// y = layer_norm(x) · weight + bias for `count` rows (arXiv 1607.06450); y may be x.
  package func layerNorm(_ x: Rows, _ norm: LayerNorm, into y: Rows, count: Int) {
    struct Job {
      let x: Rows
      let norm: LayerNorm
      let y: Rows
      let kernels: Kernels
    }
    var job = Job(x: x, norm: norm, y: y, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      let norm = job.pointee.norm
      job.pointee.kernels.layerNorm(
        job.pointee.x[row], norm.weight, norm.bias, job.pointee.y[row], job.pointee.x.width, norm.epsilon)
    }
  }

  /// gate = silu(gate) · up for `count` rows (SwiGLU, arXiv 2002.05202).
  package func swiGLU(gate: Rows, up: Rows, count: Int) {
    struct Job {
      let gate: Rows
      let up: Rows
      let kernels: Kernels
    }
    var job = Job(gate: gate, up: up, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      let gate = job.pointee.gate[row]
      job.pointee.kernels.siluMultiply(gate, job.pointee.up[row], gate, job.pointee.gate.width)
    }
  }

  /// gate = gelu_tanh(gate) · up for `count` rows (GeGLU, arXiv 2002.05202).
  package func geGLU(gate: Rows, up: Rows, count: Int) {
    struct Job {
      let gate: Rows
      let up: Rows
      let kernels: Kernels
    }
    var job = Job(gate: gate, up: up, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      let gate = job.pointee.gate[row]
      job.pointee.kernels.geluTanh(gate, job.pointee.gate.width)
      job.pointee.kernels.multiply(gate, job.pointee.up[row], gate, job.pointee.gate.width)
    }
  }

  /// x += y for `count` rows of the same width.
  package func add(_ y: Rows, to x: Rows, count: Int) {
    for row in 0..<count { kernels.add(x[row], y[row], x[row], x.width) }
  }
}
