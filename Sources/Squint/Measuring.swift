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

  /// Computes the conversation from its first position on, and hands over what each step of each layer gives.
  ///
  /// - Parameter visit: called with the step's name (`decoder.3.attention.norm`), and some of its rows [count, width]: those of one
  ///   name follow each other. The numbers are valid until it returns.
  /// - Throws: what `visit` throws, and what computing does.
  package func trace(
    _ visit: (_ name: String, _ numbers: UnsafeBufferPointer<Float>, _ width: Int) throws(SquintError) -> Void
  ) throws(SquintError) {
    let tokens = prompt
    truncate(to: 0)
    try append(tokens)
    var failure: SquintError?
    try withoutActuallyEscaping(visit) { (visit) throws(SquintError) in
      decoder.trace = Trace { [cancellation] name, rows, count in
        guard failure == nil else { return }
        do throws(SquintError) {
          try visit(name, UnsafeBufferPointer(start: rows.data, count: count * rows.width), rows.width)
        } catch {
          failure = error
          cancellation.cancel()
        }
      }
      defer { decoder.trace = nil }
      try forEachLogits { _, _ in }
    }
    if let failure {
      // It was stopped here, not by who asked for the trace.
      cancellation.reset()
      throw failure
    }
  }

  /// The instruction set whose kernels run.
  package var instructionSet: String { decoder.instructionSet }
}

extension Model {
  /// The weights that each decoded token reads, in bytes: all matrices of the decoder, but one row of an embedding that is
  /// not the head, and of experts those that a token goes through.
  package var bytesPerToken: Int {
    let isTied = file.tensor("decoder.head") == nil
    let share = expertShare
    return file.tensors.filter { tensor in
      file.modules[tensor.module].name == "decoder" && (isTied || tensor.name != "decoder.embedding")
    }.reduce(0) { $0 + share(of: $1.range.count, $1) }
  }

  /// The multiplications and additions of the layers for each token of a prompt (the head serves its last token only).
  package var operationsPerToken: Int {
    let share = expertShare
    return file.tensors.filter { tensor in
      file.modules[tensor.module].name == "decoder" && tensor.shape.count == 2 && tensor.name != "decoder.embedding"
        && tensor.name != "decoder.head"
    }.reduce(0) { $0 + share(of: 2 * $1.elementCount, $1) }
  }

  /// What of a number that is for a tensor counts for a token, which goes through some experts only.
  private var expertShare: ExpertShare {
    let tensors = decoder.blueprint.expertTensors
    return ExpertShare(
      names: Set(tensors.flatMap { [$0.gateUp.name, $0.down.name] }), chosen: tensors.first?.experts.chosen ?? 1,
      count: tensors.first?.experts.count ?? 1)
  }

  private struct ExpertShare {
    let names: Set<String>
    let chosen: Int
    let count: Int

    func callAsFunction(of number: Int, _ tensor: ModelFile.Tensor) -> Int {
      names.contains(tensor.name) ? number / count * chosen : number
    }
  }

  /// The multiplications and additions of encoding and projecting a medium of `size`.
  package func operations(for size: MediumSize) throws(SquintError) -> Double {
    let modality = try modality(size.kind)
    func matrices(of module: String) -> Int {
      file.tensors.filter {
        file.modules[$0.module].name == module && $0.shape.count == 2 && !$0.name.hasSuffix(".positions")
      }
      .reduce(0) { $0 + 2 * $1.elementCount }
    }
    let encoder = matrices(of: size.kind.encoderModule)
    let projector = matrices(of: size.kind.projectorModule)
    var sum = 0.0
    for (run, grid) in zip(size.cost.layout.runs, size.grids) {
      let rows = modality.encoder.layerRows(of: run.shape)
      sum +=
        Double(run.count)
        * (Double(rows) * Double(encoder) + modality.encoder.attentionOperations(rows: rows)
          + Double(grid.count) * Double(projector))
    }
    return sum
  }

  /// How long a medium of `size` takes until the answer begins, in seconds: encoding it, and reading its rows; nil where the encoder
  /// is not quantized, so that the rate says nothing.
  ///
  /// - Parameter rate: the int8 operations of a second that the machine does at most, of which encoders and prompts reach about 45 %.
  package func seconds(for size: MediumSize, at rate: Double) throws(SquintError) -> Double? {
    let isQuantized = file.tensors.contains {
      file.modules[$0.module].name == size.kind.encoderModule && $0.type.isQuantized
    }
    guard isQuantized, rate > 0 else { return nil }
    return (try operations(for: size) + Double(size.rows) * Double(operationsPerToken)) / (0.45 * rate)
  }

  /// What `medium` could take instead within what the model allows, rising: in fewer units, or at lower resolutions. The last is the
  /// medium itself.
  package func choices(for medium: Medium) throws(SquintError) -> [MediumSize] {
    let modality = try modality(medium.kind)
    return try Self.choices(from: medium.size, modality) { (limits) throws(SquintError) in
      try Medium(medium, modality, limits).size
    }
  }

  /// The same for the largest medium of `kind`; none where there is no bound, or the model does not take them.
  package func choices(of kind: MediaKind, _ limits: MediaLimits = MediaLimits()) throws(SquintError) -> [MediumSize] {
    guard accepts(kind) else { return [] }
    let modality = try modality(kind)
    guard let largest = try modality.largest(limits) else { return [] }
    guard modality.processor.multiple == nil else {
      return try Self.choices(from: largest, modality) { (limits) throws(SquintError) in
        try modality.largest(limits) ?? largest
      }
    }
    return try modality.sizes().filter { $0.units <= limits.units ?? Int.max && $0.rows <= largest.rows }
  }

  private static func choices(
    from largest: MediumSize, _ modality: Modality,
    _ limited: (MediaLimits) throws(SquintError) -> MediumSize
  ) throws(SquintError) -> [MediumSize] {
    var choices = [largest]
    while let last = choices.last {
      // Tile by tile, or half as many rows each time.
      guard last.units > 1 || last.rows >= 32 && modality.processor.multiple != nil else { break }
      let limits = last.units > 1 ? MediaLimits(units: last.units - 1) : MediaLimits(rows: last.rows / 2)
      // There may be no smaller one.
      guard let next = try? limited(limits), next.rows < last.rows else { break }
      choices.append(next)
    }
    return choices.reversed()
  }
}
