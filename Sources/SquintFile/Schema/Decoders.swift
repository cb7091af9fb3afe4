/// The graphs of text decoders that there are: what `decoder.graph` may say (formats/decoder.md).
package enum DecoderGraph: String, GraphName {
  /// Llama, Mistral, Qwen2, Qwen3.
  case llama
  /// Gemma 3's text part.
  case gemma3
  /// LFM2.
  case lfm2
  /// Qwen3-MoE.
  case qwen3moe

  package static var usual: DecoderGraph { .llama }

  /// The graph that a file names; without the key it is Llama's.
  ///
  /// - Throws: `badData` naming a graph that is not known.
  package init(_ metadata: Metadata) throws(SquintError) { try self.init(metadata, module: "decoder") }

  /// What a decoder of this graph has.
  package var blueprint: any DecoderBlueprint.Type {
    switch self {
    case .llama: LlamaBlueprint.self
    case .gemma3: Gemma3Blueprint.self
    case .lfm2: LFM2Blueprint.self
    case .qwen3moe: Qwen3MoEBlueprint.self
    }
  }
}

/// The sizes and settings of a decoder: the keys `decoder.*` of its graph, and the tensors that follow from them.
package protocol DecoderBlueprint: ModuleBlueprint {
  static var graph: DecoderGraph { get }
  /// The family in the checkpoint's words; for people, nothing depends on it.
  var architecture: String { get set }
  /// The rows of the embedding.
  var vocabulary: Int { get set }
  /// The positions that the model was trained for.
  var context: Int { get set }
  var layers: Int { get set }
  var width: Int { get set }
  var attention: AttentionBlueprint { get set }
  /// How the rotary frequencies were made; for people.
  var ropeScaling: String { get set }
  /// The experts of the layers that have some; of which there are as many in each.
  var expertTensors: [ExpertsTensors] { get }

  /// All sizes are zero.
  init()
}

extension DecoderBlueprint {
  /// Reads the keys `decoder.*`.
  ///
  /// - Throws: `badData` where one is missing or impossible.
  package init(_ metadata: Metadata) throws(SquintError) {
    self.init()
    var reader = KeyReader(metadata)
    try code(&reader)
    try check()
  }

  /// Writes the keys `decoder.*`.
  package func write(to metadata: inout Metadata) {
    metadata["decoder.graph"] = .string(Self.graph.rawValue)
    var writer = KeyWriter(metadata)
    var copy = self
    // Writing throws nothing.
    try? copy.code(&writer)
    metadata = writer.metadata
  }

  /// The names of the keys.
  package static var keys: Set<String> {
    var lister = KeyLister()
    var none = Self()
    try? none.code(&lister)
    return lister.keys.union(["decoder.graph"])
  }

  /// The keys that all decoders begin with.
  package mutating func codeSizes(_ coder: inout some KeyCoder) throws(SquintError) {
    let size = 1...1 << 24
    try coder.text("decoder.architecture", &architecture)
    try coder.int("decoder.vocabulary", &vocabulary, in: size)
    try coder.int("decoder.context", &context, in: 1...1 << 30)
    try coder.int("decoder.layers", &layers, in: 1...4096)
    try coder.int("decoder.width", &width, in: size)
  }

  /// The table of token embeddings.
  package var embedding: MatrixSpecification {
    MatrixSpecification(
      "decoder.embedding", rows: vocabulary, columns: width, role: .embedding, mayHaveBias: false)
  }

  /// The matrix that computes the logits; the embedding where there is none.
  package var head: MatrixSpecification {
    MatrixSpecification(
      "decoder.head", rows: vocabulary, columns: width, role: .head, mayHaveBias: false, isOptional: true)
  }

  /// The norm before the head.
  package var norm: TensorSpecification { .vector("decoder.norm", width) }

  package var expertTensors: [ExpertsTensors] { [] }
}

/// The widest head that attention takes.
package let widestHead = 512

/// The heads of attention.
package struct AttentionBlueprint: Equatable, Sendable {
  package var heads = 0
  /// Each serves heads / kvHeads query heads.
  package var kvHeads = 0
  package var headWidth = 0

  package init() {}

  package var queryWidth: Int { heads * headWidth }
  package var keyWidth: Int { kvHeads * headWidth }

  package mutating func code(_ coder: inout some KeyCoder) throws(SquintError) {
    try coder.int("decoder.heads", &heads, in: 1...4096)
    try coder.int("decoder.kv_heads", &kvHeads, in: 1...4096)
    try coder.int("decoder.head_width", &headWidth, in: 2...widestHead)
  }

  package func check() throws(SquintError) {
    guard kvHeads <= heads, heads % kvHeads == 0 else {
      throw SquintError(.badData, "metadata decoder.kv_heads is \(kvHeads), which does not divide \(heads) heads")
    }
  }

  /// Checks the rotary frequencies under `key`.
  package func check(frequencies: [Float], key: String) throws(SquintError) {
    guard (1...max(headWidth / 2, 1)).contains(frequencies.count), frequencies.allSatisfy(\.isFinite) else {
      throw SquintError(
        .badData,
        "metadata \(key) must be 1 to \(headWidth / 2) finite numbers for heads of \(headWidth); convert the model again"
      )
    }
  }
}

/// Checks a norm's epsilon under `key`: what is added to a mean square.
package func checkEpsilon(_ value: Double, key: String) throws(SquintError) {
  guard value >= 0 else {
    throw SquintError(.badData, "metadata \(key) is \(value), and a mean square is never negative")
  }
}

/// Checks the axes under `key` by which pairs turn: one of 0, 1 and 2 for each of `pairs`.
package func checkAxes(_ axes: [Int]?, pairs: Int, key: String) throws(SquintError) {
  guard let axes else { return }
  guard axes.count == pairs, axes.allSatisfy({ (0...2).contains($0) }) else {
    throw SquintError(
      .badData, "metadata \(key) must be \(pairs) numbers of 0 to 2, one for each pair; convert the model again")
  }
}

/// Checks the numbers of layers under `key`: ascending, and of layers that there are.
package func checkLayers(_ chosen: [Int], layers: Int, key: String) throws(SquintError) {
  guard chosen.allSatisfy({ (0..<layers).contains($0) }), zip(chosen, chosen.dropFirst()).allSatisfy({ $0 < $1 }) else {
    throw SquintError(
      .badData, "metadata \(key) must be ascending numbers of the \(layers) layers; convert the model again")
  }
}

/// The layers of `layers` that `chosen` names, as a mask; all where it is nil.
package func layerMask(_ chosen: [Int]?, layers: Int) -> [Bool] {
  guard let chosen else { return Array(repeating: true, count: layers) }
  let set = Set(chosen)
  return (0..<layers).map(set.contains)
}

/// The tensors of attention in one layer, behind `prefix`.
package struct AttentionTensors: Sendable {
  package let q, k, v, o: MatrixSpecification
  package let qNorm, kNorm: TensorSpecification

  /// - Parameter isHeadNormOptional: whether files may be without the norms of queries and keys.
  package init(_ prefix: String, width: Int, _ c: AttentionBlueprint, isHeadNormOptional: Bool) {
    q = MatrixSpecification("\(prefix).q", rows: c.queryWidth, columns: width)
    k = MatrixSpecification("\(prefix).k", rows: c.keyWidth, columns: width)
    v = MatrixSpecification("\(prefix).v", rows: c.keyWidth, columns: width)
    o = MatrixSpecification("\(prefix).o", rows: width, columns: c.queryWidth)
    qNorm = .vector("\(prefix).q_norm", c.headWidth, isOptional: isHeadNormOptional)
    kNorm = .vector("\(prefix).k_norm", c.headWidth, isOptional: isHeadNormOptional)
  }

  package var tensors: [TensorSpecification] { q.tensors + k.tensors + v.tensors + [qNorm, kNorm] + o.tensors }
}

/// The tensors of a gated feed-forward network in one layer, behind `prefix`.
package struct GatedFFNTensors: Sendable {
  package let gate, up, down: MatrixSpecification

  package init(_ prefix: String, width: Int, innerWidth: Int) {
    gate = MatrixSpecification("\(prefix).gate", rows: innerWidth, columns: width)
    up = MatrixSpecification("\(prefix).up", rows: innerWidth, columns: width)
    down = MatrixSpecification("\(prefix).down", rows: width, columns: innerWidth)
  }

  package var tensors: [TensorSpecification] { gate.tensors + up.tensors + down.tensors }
}

/// The tensors of a gated short convolution in one layer, behind `prefix`.
package struct ShortConvolutionTensors: Sendable {
  /// B, C and x: [3 · width, width]
  package let input: MatrixSpecification
  /// [width, reach], the oldest row's number first.
  package let kernel: TensorSpecification
  package let kernelBias: TensorSpecification
  package let output: MatrixSpecification

  package init(_ prefix: String, width: Int, reach: Int) {
    input = MatrixSpecification("\(prefix).in", rows: 3 * width, columns: width)
    kernel = TensorSpecification("\(prefix).kernel", [width, reach], .vector)
    kernelBias = .vector("\(prefix).kernel.bias", width, isOptional: true)
    output = MatrixSpecification("\(prefix).out", rows: width, columns: width)
  }

  package var tensors: [TensorSpecification] { input.tensors + [kernel, kernelBias] + output.tensors }
}
