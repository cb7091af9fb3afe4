import AllocationCounter
import Foundation
import Squint
import SquintCompute
import SquintFile
import Testing

/// Weights that do not stay in memory: the same answers, and no byte read more often than planned.
@Suite struct ResidencyTests {
  private func streamed(
    _ model: Model, _ options: SessionOptions, keeping bytes: Int = 0, rows: Int = 64, units: Int = 1
  ) throws -> Session {
    try Session(model, SessionPlan(model, options, keeping: bytes, rows: rows, units: units))
  }

  private func logits(_ session: Session, _ prompt: Prompt) throws -> [Float] {
    try session.append(prompt)
    var all: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in all += logits }
    return all
  }

  /// The logits behind the first token, with all images looked at again.
  private func continued(_ session: Session, _ prompt: Prompt) throws -> [Float] {
    session.truncate(to: 1)
    try session.replace(with: prompt)
    var all: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in all += logits }
    return all
  }

  /// The logits are equal to the last bit, however much stays, and however many rows share a reading.
  @Test(
    arguments: [
      "llama-gqa", "llama-biases", "qwen2-tied", "qwen3", "mistral-sliding", "gemma3", "lfm2", "qwen3moe-fused",
    ],
    [ElementType.f32, .int8, .int4])
  func answersAreTheSame(_ name: String, _ type: ElementType) throws {
    let model = try model(name, type)
    let prompt = Prompt(tokens: try promptIDs(name))
    let options = SessionOptions(threads: 2, chunk: 8)
    let expected = try logits(Session(model, options), prompt)
    let whole = model.file.module("decoder")!.range.count
    for (bytes, rows) in [(0, 8), (0, 64), (whole / 3, 16), (2 * whole / 3, 64)] {
      let session = try streamed(model, options, keeping: bytes, rows: rows)
      let isEqual = try logits(session, prompt) == expected
      #expect(session.bytesRead > 0)
      #expect(isEqual, "\(bytes) bytes stay, \(rows) rows")
    }
  }

  /// Neither does it matter whether the model is a file or a part of one, also where that is not a place to read past the page
  /// cache.
  @Test(arguments: [65_536, 192]) func aPartOfAFileIsTheSame(offset: Int) throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.squint"
    try convertFixture("llama-gqa", .int8, to: path)
    let whole = try Model(path: path)
    let prompt = Prompt(tokens: try promptIDs("llama-gqa"))
    let options = SessionOptions(threads: 2, chunk: 8)
    let expected = try logits(Session(whole, options), prompt)

    let program = folder.path + "/program"
    let bytes = Data(repeating: 0xAA, count: offset) + (try Data(contentsOf: URL(fileURLWithPath: path)))
    try (bytes + Data(repeating: 0xAA, count: 100)).write(to: URL(fileURLWithPath: program))
    let model = try Model(ModelFile(path: program, range: offset..<bytes.count, name: "nano"))
    for session in [
      try Session(model, options), try streamed(model, options),
      try streamed(model, options, keeping: whole.file.byteCount / 3, rows: 16),
    ] {
      let isEqual = try logits(session, prompt) == expected
      #expect(isEqual)
    }
  }

  /// Neither do they depend on how a prompt is cut, in multiples of the rows whose attention is computed together.
  @Test(
    arguments: [
      "llama-gqa", "llama-one-kv-head", "mistral-sliding", "qwen2-tied", "qwen3", "gemma3", "lfm2", "qwen3moe",
    ],
    [ElementType.f32, .int8, .int4])
  func chunksGiveTheSame(_ name: String, _ type: ElementType) throws {
    let model = try model(name, type)
    let ids = try promptIDs(name)
    let long = (0..<200).map { ids[$0 % ids.count] }
    for (count, kvType) in [(129, KVType.int8), (145, .f16), (200, .f32)] {
      let prompt = Prompt(tokens: Array(long[..<count]))
      var options = SessionOptions(kvType: kvType, threads: 2)
      let expected = try logits(Session(model, options), prompt)
      let c = model.decoder.blueprint.attention
      let rows = Compute.rowsPerPiece(queryHeads: c.heads / c.kvHeads)
      for chunk in [rows, 2 * rows, 3 * rows, 256] {
        options.chunk = chunk
        let isEqual = try logits(Session(model, options), prompt) == expected
        #expect(isEqual, "chunks of \(chunk), a cache of \(kvType)")
      }
    }
  }

  /// The same for what is seen: some tiles at a time, and more than one layer of the encoder's features.
  @Test(arguments: ["smolvlm", "idefics3", "llava-clip-layers", "llava-dinov2"], [ElementType.f32, .int8])
  func imagesAreTheSame(_ name: String, _ type: ElementType) throws {
    let model = try VisionFixture.named(name).model(type)
    let images = try ["wide.png", "square.png"].map { try model.image(VisionFixture.image($0)) }
    let prompt = try model.prompt(text: "a <image> b <image> c", media: images)
    let options = SessionOptions(threads: 2, media: .once(images.map(\.size)))
    let expected = try logits(Session(model, options), prompt)
    for (bytes, tiles) in [(0, 1), (0, 3), (20_000, 2), (0, 64)] {
      let session = try streamed(model, options, keeping: bytes, rows: 128, units: tiles)
      let isEqual = try logits(session, prompt) == expected
      #expect(isEqual, "\(bytes) bytes stay, \(tiles) tiles")
    }
    // Encoder and decoder take turns, and what stays comes back.
    var always = options
    always.media = .always
    let resident = try Session(model, always)
    let whole = try logits(resident, prompt)
    let part = try continued(resident, prompt)
    for keeping in [0, 1 << 20] {
      let session = try streamed(model, always, keeping: keeping, rows: 128)
      let isSame = try logits(session, prompt) == whole
      #expect(isSame)
      let isEqual = try continued(session, prompt) == part
      #expect(isEqual)
    }
  }

  /// A prompt reads each part once for as many rows as fit, a token of the answer once; what the readers have begun for the pass
  /// behind is two parts at most.
  @Test(arguments: [ElementType.f32, .int4]) func readsNoMoreThanPlanned(_ type: ElementType) throws {
    let model = try model("llama-gqa", type)
    let ids = try promptIDs("llama-gqa")
    for (rows, passes) in [(64, (ids.count + 63) / 64), (8, (ids.count + 7) / 8)] {
      let plan = try SessionPlan(model, SessionOptions(threads: 1, chunk: 8), keeping: 0, rows: rows, units: 1)
      let session = try Session(model, plan)
      try session.append(ids)
      var generator = Generator(session, GenerationOptions(maxTokens: 9, stopsAtStopTokens: false))
      while try generator.next() != nil {}
      // The last of 9 tokens is not sent through the decoder.
      let expected = plan.bytesReadPerToken * (passes + 8)
      #expect(session.bytesRead <= expected + 2 * DirectReader.spaceBytes(plan.bytesReadPerToken))
      #expect(session.bytesRead >= plan.bytesReadPerToken * 9)
    }
  }

  /// An embedding that stays is not read again for each token, and one that does not is, by panels.
  @Test(arguments: ["qwen2-tied", "llama-gqa"]) func aResidentEmbeddingIsNotRead(_ name: String) throws {
    let model = try model(name, .int8)
    let isTied = model.file.tensor("decoder.head") == nil
    let prompt = try promptIDs(name)
    let ids = (0..<200).map { prompt[$0 % prompt.count] }
    let embedding = model.file.tensor("decoder.embedding")!.range.count
    // The head stays, the layers do not.
    let plan = try SessionPlan(
      model, SessionOptions(threads: 1), keeping: embedding + 3 * DirectReader.alignment, rows: 64, units: 1)
    #expect(plan.bytesReadPerToken > 0)
    let session = try Session(model, plan)
    let before = model.reader.bytesRead
    try session.append(ids)
    try session.forEachLogits { _, _ in }
    let read = (embedding: model.reader.bytesRead - before, weights: session.bytesRead)
    // What is read ahead may be counted by one of them only.
    let panels = read.embedding - read.weights
    let some = ids.count * DirectReader.alignment
    #expect(2 * plan.bytesReadPerToken < some)
    #expect(isTied ? abs(panels) < some : panels >= some)
    #expect(plan.arena.buffers.contains { $0.name == "embedding panel" } != isTied)
  }

  /// Beams go through the layers together, and so share a reading.
  @Test func beamsAreTheSame() throws {
    let model = try model("llama-gqa", .f32)
    let ids = try promptIDs("llama-gqa")
    var options = SessionOptions(kvType: .f32, threads: 1, beams: 3)
    options.context = 128
    let resident = try Session(model, options)
    try resident.append(ids)
    let expected = try resident.bestBeam(length: 12, stops: [])
    let session = try streamed(model, options)
    try session.append(ids)
    #expect(try session.bestBeam(length: 12, stops: []) == expected)
  }

  @Test(.enabled(if: squint_counts_allocations(), "this allocator cannot be counted"), arguments: [0, 60_000])
  func decodingAllocatesNothing(keeping bytes: Int) throws {
    let model = try model("llama-gqa", .int8)
    for threads in [1, 2] {
      let session = try streamed(model, SessionOptions(threads: threads), keeping: bytes)
      try session.append(promptIDs("llama-gqa"))
      var generator = Generator(session, GenerationOptions(stopsAtStopTokens: false))
      _ = try generator.next()
      _ = try generator.next()
      let before = squint_allocations()
      for _ in 0..<50 { _ = try generator.next() }
      #expect(squint_allocations() - before == 0)
    }
  }

  /// Ctrl-C in the midst of a pass, and the conversation goes on as if nothing had been.
  @Test func cancelledPassesLeaveNoTrace() throws {
    let model = try model("llama-gqa", .int8)
    let ids = try promptIDs("llama-gqa")
    let expected = try logits(Session(model, SessionOptions(threads: 2, chunk: 8)), Prompt(tokens: ids))
    let cancellation = Cancellation()
    let plan = try SessionPlan(model, SessionOptions(threads: 2, chunk: 8), keeping: 0, rows: 64, units: 1)
    let session = try Session(model, plan, cancellation: cancellation)
    var steps = 0
    session.onProgress = { _ in
      steps += 1
      if steps == 2 { cancellation.cancel() }
    }
    #expect(try logits(session, Prompt(tokens: ids)).isEmpty)
    cancellation.reset()
    var found: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in found += logits }
    let isEqual = found == expected
    #expect(isEqual)
  }

  /// A disk that fails ends the answer with a line, not the program.
  @Test func failingReadsAreReported() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.squint"
    try convertFixture("llama-gqa", .f32, to: path)
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    let model = try Model(path: path)
    let session = try streamed(model, SessionOptions(threads: 1))
    try session.append(promptIDs("llama-gqa"))
    // What the file had behind its first layer is gone.
    let start = model.file.tensor("decoder.1.attention.norm")!.range.lowerBound
    #expect(truncate(path, off_t(start)) == 0)
    let error = caught { try session.forEachLogits { _, _ in } }
    #expect(error?.kind == .inputOutput)
    #expect(error?.message.contains(path) == true)

    // It fails again where it still is so, and goes on where it is not.
    #expect(caught { try session.forEachLogits { _, _ in } }?.kind == .inputOutput)
    try whole.write(to: URL(fileURLWithPath: path), options: [])
    let expected = try logits(Session(model, SessionOptions(threads: 1)), Prompt(tokens: promptIDs("llama-gqa")))
    var found: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in found += logits }
    let isEqual = found == expected
    #expect(isEqual)
  }

  /// A budget is kept or refused, and what a refusal says would do, does.
  @Test(arguments: ["llama-gqa", "qwen2-tied"]) func budgetsAreKept(_ name: String) throws {
    let model = try model(name, .int8)
    for step in 0..<40 {
      let memory = (8 + step) << 20
      for options in [
        SessionOptions(threads: 2, memory: memory), SessionOptions(context: 256, kvType: .f32, memory: memory),
        SessionOptions(context: 100_000, memory: memory, fits: true),
      ] {
        do {
          let plan = try SessionPlan(model, options)
          #expect(plan.peak <= memory)
        } catch {
          #expect(error.kind == .doesNotFit)
        }
      }
    }
  }

  @Test func asManyTilesAsFit() throws {
    let model = try VisionFixture.named("smolvlm").model(.int8)
    let wide = VisionFixture.image("wide.png")
    let most = try model.image(wide).size.units
    for tiles in 1...most {
      let image = try model.image(wide, maximumTiles: tiles)
      #expect(image.size.units <= tiles)
    }
    #expect(caught { _ = try model.image(wide, maximumTiles: 0) }?.kind == .usage)
    var options = SessionOptions(memory: 1 << 40)
    #expect(try model.media([(.image, wide)], fitting: options, MediaLimits())[0].size.units == most)
    options.memory = 1 << 20
    #expect(try model.media([(.image, wide)], fitting: options, MediaLimits())[0].size.units == 1)
  }
}
