import SquintCompute
import SquintFile
import SquintModels

extension Session {
  /// Tokens per second of a prompt of `promptTokens` tokens, and of `generatedTokens` steps behind it. The conversation is
  /// forgotten.
  package func measure(
    promptTokens: Int, generatedTokens: Int
  ) throws(SquintError) -> (prefill: Double, decode: Double) {
    guard promptTokens > 0, generatedTokens >= 0, promptTokens <= context, generatedTokens <= context - promptTokens
    else {
      throw SquintError(
        .usage,
        "a prompt of \(promptTokens) and an answer of \(generatedTokens) tokens do not fit the context of \(context)")
    }
    let clock = ContinuousClock()
    truncate(to: 0)
    defer { truncate(to: 0) }
    // Any tokens do; different ones, so that no cache of the embedding flatters the result.
    try append((0..<promptTokens).map { Int32($0 * 7919 % model.vocabularySize) })
    let begin = clock.now
    _ = try start()
    let middle = clock.now
    for index in 0..<generatedTokens { try step(Int32(index * 104_729 % model.vocabularySize)) }
    let end = clock.now
    return (
      Double(promptTokens) / ((middle - begin) / .seconds(1)),
      Double(generatedTokens) / ((end - middle) / .seconds(1))
    )
  }

  /// What encoding `medium` takes. The conversation is forgotten.
  package func measure(_ medium: Medium) throws(SquintError) -> EncodingStatistics {
    truncate(to: 0)
    defer { truncate(to: 0) }
    var prompt = Prompt()
    prompt.append(0..<medium.rows, of: medium)
    try append(prompt)
    let before = encoded
    _ = try encodePendingMedia()
    return encoded.since(before)
  }

  /// The instruction set whose kernels run.
  package var instructionSet: String { decoder.instructionSet }
}

extension Model {
  /// The weights that each decoded token reads, in bytes: all matrices of the decoder, but one row of an embedding that is
  /// not the head.
  package var bytesPerToken: Int {
    let isTied = file.tensor("decoder.head") == nil
    return file.tensors.filter { tensor in
      file.modules[tensor.module].name == "decoder" && (isTied || tensor.name != "decoder.embedding")
    }.reduce(0) { $0 + $1.range.count }
  }

  /// The multiplications and additions of the layers for each token of a prompt (the head serves its last token only).
  package var operationsPerToken: Int {
    file.tensors.filter { tensor in
      file.modules[tensor.module].name == "decoder" && tensor.shape.count == 2 && tensor.name != "decoder.embedding"
        && tensor.name != "decoder.head"
    }.reduce(0) { $0 + 2 * $1.elementCount }
  }

  /// The multiplications and additions of encoding and projecting `medium`.
  package func operations(for medium: Medium) throws(SquintError) -> Int {
    let modality = try modality(medium.kind)
    func matrices(of module: String) -> Int {
      file.tensors.filter {
        file.modules[$0.module].name == module && $0.shape.count == 2 && !$0.name.hasSuffix(".positions")
      }
      .reduce(0) { $0 + 2 * $1.elementCount }
    }
    let encoder = matrices(of: medium.kind.encoderModule)
    let projector = matrices(of: medium.kind.projectorModule)
    var sum = 0
    for (run, tokens) in zip(medium.size.cost.layout.runs, medium.size.rowsPerUnit) {
      let rows = try modality.encoder.rows(of: run.shape)
      sum += run.count * (rows * encoder + modality.encoder.attentionOperations(rows: rows) + tokens * projector)
    }
    return sum
  }
}
