import AllocationCounter
import Foundation
import Squint
import SquintCompute
import SquintConversion
import SquintFile
import SquintModels
import Testing

/// Experts that do not all stay in memory.
@Suite struct ExpertTests {
  /// A session in which everything stays but experts, of which there are slots for so many.
  private func session(_ model: Model, slots: Int, rows: Int = 64, _ options: SessionOptions) throws -> Session {
    try Session(model, plan(model, slots: slots, rows: rows, options))
  }

  private func plan(_ model: Model, slots: Int, rows: Int = 64, _ options: SessionOptions) throws -> SessionPlan {
    let units = model.decoder.units
    let kept = try #require(units.keeping(experts: 0)).keptBytes
    let bytes = kept + (slots - ExpertPool.leastSlots) * units.experts!.slotBytes
    let plan = try SessionPlan(model, options, keeping: bytes, rows: rows, units: 1)
    #expect(plan.experts! == (slots, units.experts!.count))
    return plan
  }

  private func logits(_ session: Session, _ ids: [Int32]) throws -> [Float] {
    try session.append(ids)
    var all: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in all += logits }
    return all
  }

  /// Whatever is in memory, whatever has to leave it, and however many rows choose together.
  @Test(arguments: ["qwen3moe", "qwen3moe-fused"], [ElementType.f32, .int8, .int4])
  func answersAreTheSame(_ name: String, _ type: ElementType) throws {
    let model = try model(name, type)
    let ids = try promptIDs(name)
    var options = SessionOptions(threads: 2)
    let expected = try logits(Session(model, options), ids)
    let all = model.decoder.units.experts!.count
    for (slots, chunk, threads) in [(2, 256, 2), (3, 32, 1), (5, 64, 2), (all - 1, 256, 3), (all, 32, 2)] {
      (options.chunk, options.threads) = (chunk, threads)
      let session = try session(model, slots: slots, options)
      let isEqual = try logits(session, ids) == expected
      #expect(isEqual, "\(slots) slots, chunks of \(chunk), \(threads) threads")
      #expect(session.bytesRead > 0)
      // The second time some are there.
      session.truncate(to: 0)
      let isSame = try logits(session, ids) == expected
      #expect(isSame, "\(slots) slots, again")
    }
  }

  /// Each expert is read once for all rows of a chunk, and none that is in memory is read again.
  @Test(arguments: [ElementType.f32, .int8]) func readsNoMoreThanIsChosen(_ type: ElementType) throws {
    let model = try model("qwen3moe-fused", type)
    let ids = try promptIDs("qwen3moe-fused")
    let table = model.decoder.units.experts!
    // With a place for each, nothing is read twice.
    let whole = try session(model, slots: table.count, SessionOptions(threads: 2))
    _ = try logits(whole, ids)
    let once = whole.bytesRead
    #expect(once > table.byteCount / 2 && once <= table.count * table.slotBytes)
    whole.truncate(to: 0)
    _ = try logits(whole, ids)
    #expect(whole.bytesRead == once)
    #expect(try plan(model, slots: table.count, SessionOptions()).bytesReadPerToken == 0)

    // With fewer, a token reads as many as it chooses at most.
    let few = try plan(model, slots: 2, SessionOptions(threads: 2))
    let session = try Session(model, few)
    try session.append(ids)
    var generator = Generator(session, GenerationOptions(maxTokens: 17, stopsAtStopTokens: false))
    _ = try generator.next()
    let before = session.bytesRead
    while try generator.next() != nil {}
    let read = session.bytesRead - before
    #expect(read > 0)
    #expect(read <= 16 * table.layers.count * table.chosen * table.slotBytes)
    #expect(few.bytesReadPerToken > 0 && few.bytesReadPerToken <= table.layers.count * table.chosen * table.slotBytes)
  }

  /// Where some are chosen again and again, these stay: a token then reads less than it would if all were chosen alike.
  @Test func whatIsUsedMostStays() throws {
    let model = try model("qwen3moe-fused", .f32)
    let table = model.decoder.units.experts!
    let plan = try plan(model, slots: table.count / 2, SessionOptions(threads: 1))
    let session = try Session(model, plan)
    // One token over and over chooses nearly the same experts at every position.
    let ids = [Int32](repeating: 7, count: 60)
    try session.append(ids)
    try session.forEachLogits { _, _ in }
    let before = session.bytesRead
    session.truncate(to: 30)
    for _ in 0..<30 {
      try session.append([7])
      try session.forEachLogits { _, _ in }
    }
    #expect(session.bytesRead - before < 30 * plan.bytesReadPerToken)
  }

  @Test(.enabled(if: squint_counts_allocations(), "this allocator cannot be counted"), arguments: [2, 5])
  func decodingAllocatesNothing(slots: Int) throws {
    // The tokens of the other model are parts of characters, and text of these is allocated.
    let model = try model("qwen3moe", .int8)
    for threads in [1, 2] {
      let session = try session(model, slots: slots, SessionOptions(threads: threads))
      try session.append(promptIDs("qwen3moe"))
      var generator = Generator(session, GenerationOptions(stopsAtStopTokens: false))
      _ = try generator.next()
      _ = try generator.next()
      let before = squint_allocations()
      for _ in 0..<50 { _ = try generator.next() }
      #expect(squint_allocations() - before == 0)
    }
  }

  /// A disk that fails ends the answer with a line; what failed is read again when it works.
  @Test func failingReadsAreReported() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.squint"
    try convertFixture("qwen3moe", .f32, to: path)
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    let model = try Model(path: path)
    let ids = try promptIDs("qwen3moe")
    let expected = try logits(Session(model, SessionOptions(threads: 1)), ids)
    let session = try session(model, slots: 3, SessionOptions(threads: 1))
    try session.append(ids)
    let start = model.decoder.units.experts!.layers[1].gateUp.lowerBound
    #expect(truncate(path, off_t(start)) == 0)
    for _ in 0..<2 {
      let error = caught { try session.forEachLogits { _, _ in } }
      #expect(error?.kind == .inputOutput)
      #expect(error?.message.contains(path) == true)
    }
    try whole.write(to: URL(fileURLWithPath: path), options: [])
    var found: [Float] = []
    try session.forEachLogits { (_, logits) throws(SquintError) in found += logits }
    let isEqual = found == expected
    #expect(isEqual)
  }

  // MARK: 94 layers of 128 experts

  /// A model of the largest published shape, but for its widths: what matters here is how many experts there are.
  private func wideModel(in folder: TemporaryFolder) throws -> Model {
    var blueprint = Qwen3MoEBlueprint()
    blueprint.architecture = "qwen3_moe"
    (blueprint.vocabulary, blueprint.context, blueprint.layers, blueprint.width) = (32, 512, 94, 8)
    (blueprint.attention.heads, blueprint.attention.kvHeads, blueprint.attention.headWidth) = (2, 1, 4)
    (blueprint.experts.count, blueprint.experts.chosen, blueprint.experts.width) = (128, 8, 4)
    blueprint.experts.areNormalized = true
    blueprint.normEpsilon = 1e-6
    blueprint.ropeFrequencies = [1, 0.1]
    var plan = ModelFilePlan()
    plan.metadata["general.name"] = .string("wide")
    blueprint.write(to: &plan.metadata)
    let tensors = blueprint.tensors.filter { !$0.isOptional }
    plan.modules = [
      ModelFilePlan.Module(
        name: "decoder", tensors: tensors.map { ModelFilePlan.Tensor(name: $0.name, type: .f32, shape: $0.shape) })
    ]
    let writer = try ModelFileWriter(path: folder.path + "/wide.squint", plan: plan)
    var state: UInt32 = 1
    for (index, tensor) in tensors.enumerated() {
      var numbers = [Float](repeating: 0, count: tensor.shape.reduce(1, *))
      for place in numbers.indices {
        state = state &* 1_664_525 &+ 1_013_904_223
        numbers[place] = Float(Int32(bitPattern: state) >> 16) / 32768
      }
      try numbers.withUnsafeBytes { try writer.append($0, toTensor: index) }
    }
    try writer.finish()
    return try Model(path: folder.path + "/wide.squint")
  }

  /// The tables are short, opening is fast, and budgets are kept: all that is not an expert stays, and of experts as many as fit.
  @Test func theLargestShapeFits() throws {
    let folder = try TemporaryFolder()
    let model = try wideModel(in: folder)
    #expect(model.file.tensors.count == 94 * 11 + 2)
    #expect(model.file.frontEnd < 100_000)
    let table = model.decoder.units.experts!
    #expect(table.count == 94 * 128)

    let ids = (0..<20).map { Int32($0 * 7 % 32) }
    let expected = try logits(Session(model, SessionOptions(threads: 1)), ids)
    let isFinite = expected.allSatisfy { $0.isFinite }
    #expect(isFinite)
    let whole = try SessionPlan(model, SessionOptions(context: 64, threads: 1, memory: 1 << 30))
    #expect(whole.bytesReadPerToken == 0 && whole.experts == nil)
    // The slots of so small experts are mostly blocks of the disk, so that fewer fit than one would think.
    var held = 0
    for step in 1...4 {
      let memory = whole.peak - table.byteCount / 5 * (5 - step)
      let plan = try SessionPlan(model, SessionOptions(context: 64, threads: 1, memory: memory))
      #expect(plan.peak <= memory)
      let experts = try #require(plan.experts)
      #expect(experts.held > held && experts.held < experts.all)
      #expect(plan.bytesReadPerToken > 0)
      held = experts.held
      let session = try Session(model, plan)
      let isEqual = try logits(session, ids) == expected
      #expect(isEqual, "\(experts.held) experts in memory")
      #expect(session.bytesRead > 0)
    }
  }
}
