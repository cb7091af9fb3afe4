import SquintCompute
import SquintFile

/// A choice of experts (arXiv 1701.06538): a router gives each row a weight for each of them, and the row goes through the few that
/// have the largest. An expert is a feed-forward network with a gate: down · (silu(gate · h) * (up · h)).
///
/// The reference is `Qwen3MoeSparseMoeBlock` in transformers' modeling_qwen3_moe.py.
package struct MixtureOfExperts: @unchecked Sendable {  // a view of the arena

  // MARK: Weights

  package struct Weights: Sendable {
    let router: Matrix  // [experts, width]
    /// Of each expert its gate [inner_width, width] and then its up, each of whole panels. Not moved with its layer.
    let gateUp: Matrix
    /// Of each expert its down [width, inner_width], of whole panels.
    let down: Matrix
    /// How many layers before this one have experts.
    let ordinal: Int

    package init(_ tensors: ExpertsTensors, ordinal: Int, in file: ModelFile) throws(SquintError) {
      // It decides, and so is not rounded.
      _ = try file.vector(tensors.router)
      router = try Matrix(
        tensors.router.name, rows: tensors.router.shape[0], columns: tensors.router.shape[1], in: file)
      gateUp = try Matrix(tensors.gateUp, in: file)
      down = try Matrix(tensors.down, in: file)
      self.ordinal = ordinal
    }

    private init(router: Matrix, gateUp: Matrix, down: Matrix, ordinal: Int) {
      self.router = router
      self.gateUp = gateUp
      self.down = down
      self.ordinal = ordinal
    }

    /// The same weights, but for the experts read `distance` bytes behind where they were.
    package func moved(by distance: Int) -> Weights {
      Weights(router: router.moved(by: distance), gateUp: gateUp, down: down, ordinal: ordinal)
    }
  }

  // MARK: State

  package struct Regions: Sendable {
    let scores: Region<Float>
    let chosen: Region<Int32>
    let weights: Region<Float>
    let group: Region<Int32>
    let groupWeights: Region<Float>
    let starts: Region<Int32>
    let used: Region<Int32>
    let usedRows: Region<Int32>
    let rows: Region<Float>
    let inner: Region<Float>

    package init(
      _ c: ExpertsBlueprint, width: Int, chunk: Int, phases: Phases, in plan: inout ArenaPlan
    ) throws(SquintError) {
      scores = try plan.reserve("router scores", count: chunk * c.count, phases: phases)
      chosen = try plan.reserve("chosen experts", count: chunk * c.chosen, phases: phases)
      weights = try plan.reserve("their weights", count: chunk * c.chosen, phases: phases)
      group = try plan.reserve("rows by expert", count: chunk * c.chosen, phases: phases)
      groupWeights = try plan.reserve("weights by expert", count: chunk * c.chosen, phases: phases)
      starts = try plan.reserve("first rows of experts", count: c.count + 1, phases: phases)
      used = try plan.reserve("experts of the step", count: c.count, phases: phases)
      usedRows = try plan.reserve("rows of experts", count: c.count, phases: phases)
      rows = try plan.reserve("rows of an expert", count: chunk * width, phases: phases)
      inner = try plan.reserve(
        "gate and up of an expert", count: chunk * 2 * ExpertsTensors.rows(c.width), phases: phases)
    }
  }

  private let compute: Compute
  private let c: ExpertsBlueprint
  private let stream: ExpertStream?
  /// What the router gives: [chunk, experts]
  private let scores: Rows
  /// [chunk, chosen], ascending in a row
  private let chosen: UnsafeMutablePointer<Int32>
  private let weights: UnsafeMutablePointer<Float>
  /// The same by experts: the rows of expert e are those from starts[e] on, in order
  private let group: UnsafeMutablePointer<Int32>
  private let groupWeights: UnsafeMutablePointer<Float>
  private let starts: UnsafeMutablePointer<Int32>
  /// The experts that have rows, ascending, and how many
  private let used: UnsafeMutablePointer<Int32>
  private let usedRows: UnsafeMutablePointer<Int32>
  /// The rows that go through an expert, and then what comes out: [chunk, width]
  private let rows: Rows
  /// Gate and up side by side, as far apart as in the matrix: [chunk, 2 · padded inner_width]
  private let inner: Rows

  /// - Parameter stream: hands out the experts; nil where they are in place in the file.
  package init(
    _ c: ExpertsBlueprint, width: Int, _ regions: Regions, _ stream: ExpertStream?, in arena: Arena, _ compute: Compute
  ) {
    self.compute = compute
    self.c = c
    self.stream = stream
    scores = Rows(regions.scores, width: c.count, in: arena)
    chosen = arena[regions.chosen].baseAddress!
    weights = arena[regions.weights].baseAddress!
    group = arena[regions.group].baseAddress!
    groupWeights = arena[regions.groupWeights].baseAddress!
    starts = arena[regions.starts].baseAddress!
    used = arena[regions.used].baseAddress!
    usedRows = arena[regions.usedRows].baseAddress!
    rows = Rows(regions.rows, width: width, in: arena)
    inner = Rows(regions.inner, width: 2 * ExpertsTensors.rows(c.width), in: arena)
  }

  // MARK: Forward

  /// x += Σ weight · down · (silu(gate · h) * (up · h)) over the chosen experts of each row, in the order of their numbers.
  ///
  /// h, x: [count, width]. The rows of each expert go through it together; what a row gets does not depend on the others.
  package func callAsFunction(_ h: Rows, count: Int, _ layer: Weights, quantized: QuantizedRows, into x: Rows) {
    compute.multiply(h, count: count, scratch: quantized, .init(layer.router, into: scores))
    compute.record("ffn.router", scores, count: count)
    compute.route(
      scores, count: count, chosen: c.chosen, normalizes: c.areNormalized, into: chosen, weights: weights)
    let experts = sortByExpert(count: count)
    stream?.begin(layer: layer.ordinal, used, rows: usedRows, count: experts)
    for index in 0..<experts {
      let expert = Int(used[index])
      let distances = stream?.take(index) ?? ExpertStream.Distances(gateUp: 0, down: 0)
      let first = Int(starts[expert])
      let own = Int(usedRows[index])
      // A single row is where it is.
      let input = count == 1 ? h : rows
      if count > 1 { compute.gather(h, group + first, count: own, into: rows) }
      let panels = layer.gateUp.panels / c.count
      let gateUp = layer.gateUp.part(panel: expert * panels, rows: inner.width, movedBy: distances.gateUp)
      compute.multiply(input, count: own, scratch: quantized, .init(gateUp, into: inner))
      compute.swiGLU(sideBySide: inner, width: c.width, count: own)
      let down = layer.down.part(
        panel: expert * (layer.down.panels / c.count), rows: rows.width, movedBy: distances.down)
      compute.multiply(inner, count: own, scratch: quantized, .init(down, into: rows))
      compute.scatter(rows, group + first, weights: groupWeights + first, count: own, addingTo: x)
    }
    stream?.end()
  }

  /// Sorts what the rows have chosen by experts; returns how many of these have rows.
  private func sortByExpert(count: Int) -> Int {
    starts.update(repeating: 0, count: c.count + 1)
    let pairs = count * c.chosen
    for pair in 0..<pairs { starts[Int(chosen[pair]) + 1] += 1 }
    var experts = 0
    for expert in 0..<c.count {
      if starts[expert + 1] > 0 {
        used[experts] = Int32(expert)
        usedRows[experts] = starts[expert + 1]
        experts += 1
      }
      starts[expert + 1] += starts[expert]
    }
    for pair in 0..<pairs {
      let expert = Int(chosen[pair])
      let place = Int(starts[expert])
      group[place] = Int32(pair / c.chosen)
      groupWeights[place] = weights[pair]
      starts[expert] += 1
    }
    // Each start is now where the next expert's was.
    for index in 0..<experts { starts[Int(used[index])] -= usedRows[index] }
    return experts
  }
}

// MARK: Steps

extension Compute {
  /// Of each of `count` rows of scores [experts] the `chosen` experts with the largest softmax, of equal ones those that come
  /// first, in ascending order, and their weights: the softmax, divided by the sum over them where it `normalizes`. The scores
  /// become the softmax.
  fileprivate func route(
    _ scores: Rows, count: Int, chosen: Int, normalizes: Bool, into experts: UnsafeMutablePointer<Int32>,
    weights: UnsafeMutablePointer<Float>
  ) {
    struct Job {
      let scores: Rows
      let chosen: Int
      let normalizes: Bool
      let experts: UnsafeMutablePointer<Int32>
      let weights: UnsafeMutablePointer<Float>

      func run(_ row: Int) {
        let scores = scores[row]
        let count = self.scores.width
        var largest = -Float.infinity
        for expert in 0..<count { largest = max(largest, scores[expert]) }
        var sum: Float = 0
        for expert in 0..<count {
          scores[expert] = exp(scores[expert] - largest)
          sum += scores[expert]
        }
        for expert in 0..<count { scores[expert] /= sum }
        let experts = experts + row * chosen
        let weights = weights + row * chosen
        var total: Float = 0
        for found in 0..<chosen {
          // The largest of those that are not chosen yet; where none is a number, the first.
          var best = -1
          for expert in 0..<count where !isChosen(expert, experts, found) {
            if best < 0 || scores[expert] > scores[best] { best = expert }
          }
          total += scores[best]
          var place = found
          while place > 0, experts[place - 1] > Int32(best) {
            experts[place] = experts[place - 1]
            place -= 1
          }
          experts[place] = Int32(best)
        }
        for place in 0..<chosen {
          let weight = scores[Int(experts[place])]
          weights[place] = normalizes ? weight / total : weight
        }
      }

      private func isChosen(_ expert: Int, _ experts: UnsafeMutablePointer<Int32>, _ count: Int) -> Bool {
        for place in 0..<count where experts[place] == Int32(expert) { return true }
        return false
      }
    }
    var job = Job(scores: scores, chosen: chosen, normalizes: normalizes, experts: experts, weights: weights)
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.run(row) }
  }

  /// y[i] = x[rows[i]] for `count` rows.
  fileprivate func gather(_ x: Rows, _ rows: UnsafePointer<Int32>, count: Int, into y: Rows) {
    for row in 0..<count { y[row].update(from: x[Int(rows[row])], count: y.width) }
  }

  /// x[rows[i]] += weights[i] · y[i] for `count` rows, each of which is another.
  fileprivate func scatter(
    _ y: Rows, _ rows: UnsafePointer<Int32>, weights: UnsafePointer<Float>, count: Int, addingTo x: Rows
  ) {
    struct Job {
      let y: Rows
      let rows: UnsafePointer<Int32>
      let weights: UnsafePointer<Float>
      let x: Rows

      func run(_ row: Int) {
        let (source, target, weight) = (y[row], x[Int(rows[row])], weights[row])
        for column in 0..<y.width { target[column] += weight * source[column] }
      }
    }
    var job = Job(y: y, rows: rows, weights: weights, x: x)
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.run(row) }
  }

  /// gate = silu(gate) * up for `count` rows whose first half begins with a gate [width], and the second half with an up.
  fileprivate func swiGLU(sideBySide rows: Rows, width: Int, count: Int) {
    struct Job {
      let rows: Rows
      let width: Int
      let kernels: Kernels
    }
    var job = Job(rows: rows, width: width, kernels: kernels)
    workers.run(&job, pieces: count) { job, row, _ in
      let job = job.assumingMemoryBound(to: Job.self)
      let gate = job.pointee.rows[row]
      job.pointee.kernels.siluMultiply(gate, gate + job.pointee.rows.width / 2, gate, job.pointee.width)
    }
  }
}
