import SquintFile

/// The vision transformer in an ONNX graph, recognized by what it computes (formats/vision.md, "The encoder").
///
/// Names do not help: exporters drop them, transpose matrices, fold constants, and let tensors with equal numbers share one
/// name. So the graph is walked from the patches' convolution on, and every step must be one that the encoder has.
struct ONNXVisionTransformer {
  /// y = x · weightᵀ + bias; the weight is stored as [columns, rows] where it is transposed.
  struct Linear {
    let weight: SourceTensor
    let isTransposed: Bool
    let bias: SourceTensor?
    let output: String

    var rows: Int { weight.shape[isTransposed ? 1 : 0] }
    var columns: Int { weight.shape[isTransposed ? 0 : 1] }
  }

  struct Norm {
    let weight: SourceTensor
    let bias: SourceTensor
    let epsilon: Double
    let output: String
  }

  struct Layer {
    let attentionNorm: Norm
    /// q, k and v, or one matrix of the three.
    let projections: [Linear]
    let output: Linear
    let attentionScale: SourceTensor?
    let ffnNorm: Norm
    let up: Linear
    let down: Linear
    let ffnScale: SourceTensor?
  }

  let patch: SourceTensor
  let patchBias: SourceTensor?
  /// The side of the square that the input is; nil where it may vary.
  let inputSide: Int?
  let classToken: SourceTensor?
  /// The table, or the class token's row and the table of patches.
  let positions: [SourceTensor]
  let preNorm: Norm?
  let layers: [Layer]
  let norm: Norm?
  let heads: Int
  let activation: Activation
  /// What the graph does more, with which we do without: the tensors that it takes for that.
  let leftOut: [SourceTensor]

  var width: Int { patch.shape[0] }

  /// Constants of fewer numbers are the graph's own: epsilons, scales, shapes.
  private static let fewestNumbers = 16

  /// - Throws: `SquintError.badData` which names the node from which on it is no such transformer.
  init(source: ONNXSource, place: String) throws(SquintError) {
    let walk = Walk(flow: try ONNXDataflow(source: source, place: place))
    let convolution = try walk.patchConvolution()
    patch = convolution.weight
    patchBias = convolution.bias
    inputSide = convolution.inputSide
    let width = convolution.weight.shape[0]
    let embedded = try walk.embeddings(patches: convolution.output, width: width)
    classToken = embedded.classToken
    positions = embedded.positions

    var value = embedded.output
    var heads: Int?
    var activation: Activation?
    var preNorm: Norm?
    var layers: [Layer] = []
    if let norm = try walk.norm(of: value, width: width), !walk.isAddedLater(value) {
      preNorm = norm
      value = norm.output
    }
    while walk.isAddedLater(value) {
      guard layers.count < DecoderConfiguration.mostLayers else { throw .badData(place, "it has too many layers") }
      let attentionNorm = try walk.requiredNorm(of: value, width: width)
      let attention = try walk.attention(of: attentionNorm.output, width: width)
      let attended = try walk.residual(attention.output.output, to: value, width: width)
      let ffnNorm = try walk.requiredNorm(of: attended.output, width: width)
      let ffn = try walk.ffn(of: ffnNorm.output, width: width)
      let next = try walk.residual(ffn.down.output, to: attended.output, width: width)
      layers.append(
        Layer(
          attentionNorm: attentionNorm, projections: attention.projections, output: attention.output,
          attentionScale: attended.scale, ffnNorm: ffnNorm, up: ffn.up, down: ffn.down, ffnScale: next.scale))
      guard heads ?? attention.heads == attention.heads, activation ?? ffn.activation == ffn.activation,
        layers[0].up.rows == ffn.up.rows
      else { throw .badData(place, "layer \(layers.count - 1) is not like the ones before it; this is not supported") }
      heads = attention.heads
      activation = ffn.activation
      value = next.output
    }
    guard let heads, let activation else {
      throw .badData(
        place, "behind the patch embedding there is no layer of a transformer; give the original checkpoint's folder")
    }
    norm = try walk.norm(of: value, width: width)
    let epsilons = Set(
      (layers.flatMap { [$0.attentionNorm, $0.ffnNorm] } + [preNorm, norm].compactMap { $0 }).map(\.epsilon))
    guard epsilons.count == 1 else {
      throw .badData(place, "its norms have different epsilons (\(epsilons.sorted())); this is not supported")
    }
    self.preNorm = preNorm
    self.layers = layers
    self.heads = heads
    self.activation = activation
    leftOut = walk.flow.constants(behind: norm?.output ?? value).filter {
      $0.type.isReadable && $0.elementCount >= Self.fewestNumbers
    }
  }
}

// MARK: - The walk

private struct Walk {
  let flow: ONNXDataflow

  typealias Linear = ONNXVisionTransformer.Linear
  typealias Norm = ONNXVisionTransformer.Norm

  private func node(_ use: ONNXDataflow.Use) -> ONNXNode { flow.nodes[use.node] }

  private func failure(_ message: String) -> SquintError {
    .badData(flow.place, "\(message); give the original checkpoint's folder")
  }

  /// A constant of exactly `count` floating-point numbers.
  private func vector(_ value: String, _ count: Int) -> SourceTensor? {
    guard let tensor = flow.constantOfAnyShape(value), tensor.elementCount == count, tensor.type.isReadable,
      tensor.shape.last == count
    else { return nil }
    return tensor
  }

  /// The input of `use`'s node beside the one that it is.
  private func other(_ use: ONNXDataflow.Use) -> String? {
    let inputs = node(use).inputs
    return inputs.count == 2 ? inputs[1 - use.input] : nil
  }

  // MARK: Embeddings

  struct Convolution {
    let weight: SourceTensor
    let bias: SourceTensor?
    let inputSide: Int?
    let output: String
  }

  /// The convolution that takes the image and whose windows do not overlap.
  func patchConvolution() throws(SquintError) -> Convolution {
    var found: [Convolution] = []
    for node in flow.nodes where node.operation == "Conv" && node.inputs.count >= 2 && node.outputs.count == 1 {
      guard found.count < 2 else { break }
      guard let weight = flow.constant(node.inputs[1]), weight.shape.count == 4, weight.shape[1] == 3,
        weight.shape[2] == weight.shape[3], weight.shape[2] > 1, weight.elementCount > 0
      else { continue }
      let side = Int64(weight.shape[2])
      guard node.integers["strides"] == [side, side], node.integers["pads"]?.allSatisfy({ $0 == 0 }) ?? true,
        node.integers["dilations"]?.allSatisfy({ $0 == 1 }) ?? true, node.integers["group"] ?? [1] == [1]
      else { continue }
      guard let input = flow.source.graph.inputs.first(where: { $0.name == flow.resolved(node.inputs[0]) }) else {
        throw failure(
          "the image is changed before the patches' convolution (\(printable(node.name))), which is not supported")
      }
      var bias: SourceTensor?
      if node.inputs.count > 2, !node.inputs[2].isEmpty {
        guard let numbers = vector(node.inputs[2], weight.shape[0]) else {
          throw failure("the bias of the patches' convolution (\(printable(node.name))) is computed")
        }
        bias = numbers
      }
      let isSquare = input.shape.count == 4 && input.shape[2] == input.shape[3]
      found.append(
        Convolution(
          weight: weight, bias: bias, inputSide: isSquare ? input.shape[2] : nil, output: node.outputs[0]))
    }
    guard let first = found.first, found.count == 1 else {
      throw failure(
        found.isEmpty
          ? "there is no convolution that cuts an image into patches: this is no vision transformer"
          : "there are several convolutions that cut an image into patches, so it has more than one encoder")
    }
    return first
  }

  /// The class token in front, and the positions that are added.
  func embeddings(
    patches: String, width: Int
  ) throws(SquintError) -> (classToken: SourceTensor?, positions: [SourceTensor], output: String) {
    var value = patches
    var classToken: SourceTensor?
    var uses = flow.uses(of: value)
    if let use = uses.first, uses.count == 1, node(use).operation == "Concat" {
      guard use.input == 1, node(use).inputs.count == 2, let token = vector(node(use).inputs[0], width) else {
        throw failure(
          "\(flow.described(use.node)) puts more than a class token before the patches, which is not supported")
      }
      classToken = token
      value = node(use).outputs[0]
      uses = flow.uses(of: value)
    }
    guard let use = uses.first, uses.count == 1, node(use).operation == "Add", let table = other(use) else {
      throw failure("nothing is added to the patches as their positions")
    }
    return (classToken, try positions(table, width: width), node(use).outputs[0])
  }

  /// The constants that a table of positions is made of: it is cut, resized and put together in the graph.
  private func positions(_ value: String, width: Int) throws(SquintError) -> [SourceTensor] {
    var found: [SourceTensor] = []
    var values = [value]
    var seen: Set<String> = [value]
    while let value = values.popLast() {
      if let tensor = flow.source.tensor(named: value) {
        guard tensor.type.isReadable, tensor.shape.last == width, tensor.elementCount > 0 else {
          throw failure("tensor \(printable(value)) with the shape \(tensor.shape) is no table of positions")
        }
        found.append(tensor)
        continue
      }
      guard let node = flow.producer(of: value) else { throw failure("the positions depend on the input") }
      if node.operation == "Resize" {
        // Ours is bicubic interpolation as PyTorch's, without antialiasing (formats/vision.md).
        guard node.texts["mode"] == "cubic", node.integers["antialias"] ?? [0] == [0],
          abs((node.floats["cubic_coeff_a"]?.first ?? -0.75) + 0.75) < 1e-6
        else { throw failure("node \(printable(node.name)) resizes the positions in a way that is not supported") }
      } else if !flow.isShaping(node) && !["Slice", "Gather", "Concat", "Split"].contains(node.operation) {
        throw failure("node \(printable(node.name)) (\(printable(node.operation))) computes the positions")
      }
      let inputs = node.operation == "Concat" ? node.inputs[...] : node.inputs.prefix(1)
      for input in inputs.reversed() where seen.insert(input).inserted { values.append(input) }
    }
    guard (1...2).contains(found.count) else { throw failure("the positions are made of \(found.count) tensors") }
    return found
  }

  // MARK: Parts of a layer

  /// Whether `value` is added to something later on, as what a layer starts from is.
  func isAddedLater(_ value: String) -> Bool {
    flow.uses(of: value).contains { node($0).operation == "Add" && flow.constant(other($0) ?? "") == nil }
  }

  func requiredNorm(of value: String, width: Int) throws(SquintError) -> Norm {
    guard let norm = try norm(of: value, width: width) else {
      throw failure("the value \(printable(value)) is not normalized as the start of a layer is")
    }
    return norm
  }

  /// The layer norm of `value`, in one node or in many.
  func norm(of value: String, width: Int) throws(SquintError) -> Norm? {
    for use in flow.uses(of: value) where use.input == 0 {
      let node = node(use)
      if node.operation == "LayerNormalization", node.inputs.count == 3, let output = node.outputs.first,
        let weight = vector(node.inputs[1], width), let bias = vector(node.inputs[2], width)
      {
        return Norm(
          weight: weight, bias: bias, epsilon: Double(shortest: node.floats["epsilon"]?.first ?? 1e-5), output: output)
      }
      if node.operation == "Sub", let norm = try composedNorm(use, width: width) { return norm }
    }
    return nil
  }

  /// x − mean, its squares' mean + epsilon, the root, the division, the weight and the bias.
  private func composedNorm(_ use: ONNXDataflow.Use, width: Int) throws(SquintError) -> Norm? {
    guard let mean = other(use), flow.producer(of: mean)?.operation == "ReduceMean" else { return nil }
    for division in flow.uses(of: node(use).outputs[0]) where node(division).operation == "Div" && division.input == 0 {
      guard let root = flow.producer(of: other(division) ?? ""), root.operation == "Sqrt", root.inputs.count == 1,
        let sum = flow.producer(of: root.inputs[0]), sum.operation == "Add", sum.inputs.count == 2
      else { continue }
      var epsilon: Double?
      for input in sum.inputs where epsilon == nil { epsilon = try flow.scalar(input) }
      guard let epsilon, let product = flow.uses(of: node(division).outputs[0]).first, node(product).operation == "Mul",
        let weight = vector(other(product) ?? "", width),
        let shift = flow.uses(of: node(product).outputs[0]).first, node(shift).operation == "Add",
        let bias = vector(other(shift) ?? "", width)
      else { continue }
      return Norm(
        weight: weight, bias: bias, epsilon: Double(shortest: Float(epsilon)), output: node(shift).outputs[0])
    }
    return nil
  }

  /// The matrix that `use` multiplies with, and the bias that is added.
  private func linear(_ use: ONNXDataflow.Use) -> Linear? {
    let node = node(use)
    guard use.input == 0, node.inputs.count >= 2, let product = node.outputs.first else { return nil }
    func isMatrix(_ tensor: SourceTensor) -> Bool {
      tensor.shape.count == 2 && tensor.elementCount > 0 && tensor.type.isReadable
    }
    switch node.operation {
    case "MatMul":
      var weight = flow.constant(node.inputs[1])
      var isTransposed = true
      if weight == nil, let transpose = flow.producer(of: node.inputs[1]), transpose.operation == "Transpose" {
        guard transpose.integers["perm"] ?? [1, 0] == [1, 0] else { return nil }
        weight = flow.constant(transpose.inputs.first ?? "")
        isTransposed = false
      }
      guard let weight, isMatrix(weight) else { return nil }
      let rows = weight.shape[isTransposed ? 1 : 0]
      let uses = flow.uses(of: product)
      if let sum = uses.first, uses.count == 1, self.node(sum).operation == "Add",
        let bias = vector(other(sum) ?? "", rows)
      {
        return Linear(weight: weight, isTransposed: isTransposed, bias: bias, output: self.node(sum).outputs[0])
      }
      return Linear(weight: weight, isTransposed: isTransposed, bias: nil, output: product)
    case "Gemm":
      guard let weight = flow.constant(node.inputs[1]), isMatrix(weight), node.integers["transA"] ?? [0] == [0],
        node.floats["alpha"] ?? [1] == [1], node.floats["beta"] ?? [1] == [1]
      else { return nil }
      let isTransposed = node.integers["transB"] ?? [0] == [0]
      guard node.inputs.count > 2, !node.inputs[2].isEmpty else {
        return Linear(weight: weight, isTransposed: isTransposed, bias: nil, output: product)
      }
      guard let bias = vector(node.inputs[2], weight.shape[isTransposed ? 1 : 0]) else { return nil }
      return Linear(weight: weight, isTransposed: isTransposed, bias: bias, output: product)
    default: return nil
    }
  }

  private func linears(of value: String) -> [Linear] { flow.uses(of: value).compactMap { linear($0) } }

  /// `value`, scaled where there is a vector for that, added to what the branch started from.
  func residual(
    _ value: String, to start: String, width: Int
  ) throws(SquintError) -> (scale: SourceTensor?, output: String) {
    var value = value
    var scale: SourceTensor?
    if let use = flow.uses(of: value).first, node(use).operation == "Mul", let factors = vector(other(use) ?? "", width)
    {
      scale = factors
      value = node(use).outputs[0]
    }
    for use in flow.uses(of: value) where node(use).operation == "Add" {
      if let other = other(use), flow.resolved(other) == flow.resolved(start) { return (scale, node(use).outputs[0]) }
    }
    throw failure("the value \(printable(value)) is not added to \(printable(start)) as the end of a branch is")
  }

  // MARK: Attention

  func attention(
    of value: String, width: Int
  ) throws(SquintError) -> (projections: [Linear], output: Linear, heads: Int) {
    let linears = linears(of: value)
    guard
      linears.count == 3 && linears.allSatisfy({ $0.rows == width && $0.columns == width })
        || linears.count == 1 && linears[0].rows == 3 * width && linears[0].columns == width
    else { throw failure("the value \(printable(value)) does not go into queries, keys and values of its width") }
    let products = linears.map { productUses(of: $0.output) }
    // softmax(scores) · values, and the product that is the scores
    guard
      let context = products.joined().first(where: { $0.input == 1 && softmax(behind: node($0).inputs[0]) != nil }),
      let softmax = softmax(behind: node(context).inputs[0]),
      let scores = try scores(of: softmax)
    else { throw failure("the value \(printable(value)) does not go into a plain attention without a mask") }
    var projections = linears
    if linears.count == 3 {
      func projection(_ node: Int, _ input: Int) -> Linear? {
        zip(linears, products).first { $1.contains(ONNXDataflow.Use(node: node, input: input)) }?.0
      }
      guard let query = projection(scores, 0), let key = projection(scores, 1), let value = projection(context.node, 1)
      else { throw failure("\(flow.described(scores)) does not multiply queries with keys") }
      projections = [query, key, value]
      guard Set(projections.map(\.output)).count == 3 else {
        throw failure("\(flow.described(scores)) uses one matrix twice, which is not supported")
      }
    }
    let outputs = self.linears(of: node(context).outputs[0])
    guard let output = outputs.first, outputs.count == 1, output.rows == width, output.columns == width else {
      throw failure("\(flow.described(context.node)) does not go into one matrix, the attention's output")
    }
    return (projections, output, try heads(projections[0].output, isFused: linears.count == 1, width: width))
  }

  /// The products of two computed values that `value` goes into, scaled, cut or shaped on the way.
  private func productUses(of value: String) -> [ONNXDataflow.Use] {
    var found: [ONNXDataflow.Use] = []
    flow.forEachUse(of: value) { use in
      let node = node(use)
      switch node.operation {
      case "MatMul":
        found.append(use)
        return false
      case "Gather", "Split", "Slice": return use.input == 0
      case "Mul", "Div": return flow.isScalar(other(use) ?? "")
      default: return flow.isShaping(node) && use.input == 0
      }
    }
    return found
  }

  /// The softmax that `value` is, but for its shape and for a rule against rows that are no numbers.
  private func softmax(behind value: String) -> ONNXNode? {
    var value = value
    for _ in 0..<ONNXDataflow.longestChain {
      guard let node = flow.producer(of: value), let first = node.inputs.first else { return nil }
      if node.operation == "Softmax" { return node }
      if flow.isShaping(node) {
        value = first
      } else if node.operation == "Where", node.inputs.count == 3, flow.isScalar(node.inputs[1]) {
        value = node.inputs[2]
      } else {
        return nil
      }
    }
    return nil
  }

  /// The product that a softmax is of; nil where something is added to it.
  private func scores(of softmax: ONNXNode) throws(SquintError) -> Int? {
    var value = softmax.inputs[0]
    for _ in 0..<ONNXDataflow.longestChain {
      guard let node = flow.producer(of: value), let first = node.inputs.first else { return nil }
      switch node.operation {
      case "MatMul": return flow.nodes.firstIndex { $0.outputs == node.outputs }
      case "Mul" where flow.isScalar(node.inputs.last ?? ""), "Div" where flow.isScalar(node.inputs.last ?? ""):
        value = first
      case "Mul" where flow.isScalar(first): value = node.inputs.last ?? ""
      case "Add":
        // Exporters write a mask that hides nothing.
        guard let mask = flow.constant(node.inputs.last ?? ""), mask.type.isReadable,
          mask.elementCount <= Self.largestMask, try flow.source.read(mask).allSatisfy({ $0 == 0 })
        else { return nil }
        value = first
      default:
        guard flow.isShaping(node) else { return nil }
        value = first
      }
    }
    return nil
  }

  private static let largestMask = 1 << 24

  /// How many heads the queries are cut into; where the graph does not tell, DINOv2's rule: they are 64 wide.
  private func heads(_ value: String, isFused: Bool, width: Int) throws(SquintError) -> Int {
    var reshapes: [Int] = []
    flow.forEachUse(of: value) { use in
      if node(use).operation == "Reshape", use.input == 0 { reshapes.append(use.node) }
      return flow.isShaping(node(use)) && use.input == 0
    }
    for reshape in reshapes.sorted() {
      guard let sizes = try flow.lastSizes(isFused ? 3 : 2, of: flow.nodes[reshape]) else { continue }
      if isFused, sizes[0] != 3 { continue }
      let (heads, headWidth) = (sizes[sizes.count - 2], sizes[sizes.count - 1])
      if heads > 0, width % heads == 0, headWidth == width / heads || headWidth == -1 { return heads }
      if heads == -1, headWidth > 0, width % headWidth == 0 { return width / headWidth }
    }
    guard width % 64 == 0 else { throw failure("how many heads the attention has is not in the graph") }
    return width / 64
  }

  // MARK: Feed-forward

  func ffn(
    of value: String, width: Int
  ) throws(SquintError) -> (up: Linear, down: Linear, activation: Activation) {
    let ups = linears(of: value)
    guard let up = ups.first, ups.count == 1, up.columns == width else {
      throw failure("the value \(printable(value)) does not go into one matrix, the feed-forward network's first")
    }
    var found: [ONNXDataflow.Use] = []
    var isElementwise = true
    flow.forEachUse(of: up.output) { use in
      if linear(use) != nil {
        found.append(use)
        return false
      }
      isElementwise = isElementwise && (flow.isShaping(node(use)) || Self.elementwise.contains(node(use).operation))
      return isElementwise
    }
    guard isElementwise, let use = found.first, found.count == 1, let down = linear(use), down.columns == up.rows,
      down.rows == width
    else { throw failure("the value \(printable(up.output)) does not go through an activation into a second matrix") }
    return (up, down, try activation(from: up.output, to: node(use).inputs[0]))
  }

  private static let elementwise: Set<String> = [
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Erf", "Tanh", "Sigmoid", "Relu", "Gelu",
  ]

  /// The activation that gives the numbers which the nodes from `start` to `end` give.
  private func activation(from start: String, to end: String) throws(SquintError) -> Activation {
    var matching = Activation.allCases
    for x in [-3.1, -1.7, -0.6, 0.4, 1.3, 2.6] {
      var known = [start: x]
      let y = try evaluate(end, &known, depth: 0)
      matching = matching.filter { abs($0(x) - y) < 1e-5 }
    }
    guard matching.count == 1 else {
      throw failure("the activation behind \(printable(start)) is not supported")
    }
    return matching[0]
  }

  private static let deepestActivation = 64

  /// The number that `value` is, where the known ones are as they are.
  private func evaluate(_ value: String, _ known: inout [String: Double], depth: Int) throws(SquintError) -> Double {
    if let number = known[value] { return number }
    if let number = try flow.scalar(value) { return number }
    guard depth < Self.deepestActivation, let node = flow.producer(of: value) else {
      throw failure("the value \(printable(value)) is no part of an activation")
    }
    var inputs: [Double] = []
    for input in flow.isShaping(node) ? node.inputs.prefix(1) : node.inputs[...] {
      inputs.append(try evaluate(input, &known, depth: depth + 1))
    }
    let number: Double
    switch (node.operation, inputs.count) {
    case ("Add", 2): number = inputs[0] + inputs[1]
    case ("Sub", 2): number = inputs[0] - inputs[1]
    case ("Mul", 2): number = inputs[0] * inputs[1]
    case ("Div", 2): number = inputs[0] / inputs[1]
    case ("Pow", 2): number = pow(inputs[0], inputs[1])
    case ("Sqrt", 1): number = inputs[0].squareRoot()
    case ("Erf", 1): number = erf(inputs[0])
    case ("Tanh", 1): number = tanh(inputs[0])
    case ("Sigmoid", 1): number = 1 / (1 + exp(-inputs[0]))
    case ("Relu", 1): number = max(0, inputs[0])
    case ("Gelu", 1):
      number = (node.texts["approximate"] == "tanh" ? Activation.geluTanh : .gelu)(inputs[0])
    case (_, 1) where flow.isShaping(node): number = inputs[0]
    default:
      throw failure("\(printable(node.operation)) in the activation (node \(printable(node.name))) is not supported")
    }
    known[value] = number
    return number
  }
}

extension Activation {
  /// The function's value at `x`.
  package func callAsFunction(_ x: Double) -> Double {
    switch self {
    case .gelu: 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
    case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    case .quickGELU: x / (1 + exp(-1.702 * x))
    case .relu: max(0, x)
    case .silu: x / (1 + exp(-x))
    }
  }
}
