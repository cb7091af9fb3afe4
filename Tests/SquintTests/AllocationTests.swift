import AllocationCounter
import Squint
import SquintCompute
import SquintFile
import Testing

@Suite struct AllocationTests {
  /// Nothing is allocated per decoded token: choosing it, sending it through all layers, and its logits.
  @Test(
    .enabled(if: squint_counts_allocations(), "this allocator cannot be counted"),
    arguments: [
      ("llama-gqa", ElementType.f32, KVType.int8), ("llama-gqa", .int8, .int8), ("llama-gqa", .int4, .int8),
      ("llama-gqa", .f32, .f16), ("llama-gqa", .int8, .f16), ("llama-gqa", .int4, .f16), ("llama-biases", .int8, .int8),
      ("gemma3-linear", .int8, .int8), ("lfm2-biases", .int8, .int8),
      ("qwen3moe", .int8, .int8),
    ])
  func decodingAllocatesNothing(_ name: String, _ type: ElementType, _ kv: KVType) throws {
    let model = try model(name, type)
    for threads in [1, 2] {
      let session = try Session(model, SessionOptions(kvType: kv, threads: threads))
      try session.append(promptIDs(name))
      for sampling in [SamplingOptions(), SamplingOptions(temperature: 1, topK: 20, topP: 0.9, repetitionPenalty: 1.1)]
      {
        var generator = Generator(session, GenerationOptions(sampling: sampling, stopsAtStopTokens: false))
        // The first token computes the prompt.
        _ = try generator.next()
        _ = try generator.next()
        let before = squint_allocations()
        for _ in 0..<50 { _ = try generator.next() }
        #expect(squint_allocations() - before == 0, "\(name), \(type.name), KV \(kv), \(threads) threads")
      }
    }
  }

  /// The text of a token costs little, and no more the longer the answer is.
  @Test(.enabled(if: squint_counts_allocations(), "this allocator cannot be counted"))
  func textAllocatesLittle() throws {
    let session = try Session(model("llama-llama3", .int8), SessionOptions(threads: 1))
    try session.append(promptIDs("llama-llama3"))
    var generator = Generator(session, GenerationOptions(stopsAtStopTokens: false))
    _ = try generator.next()
    _ = try generator.next()
    let before = squint_allocations()
    for _ in 0..<50 { _ = try generator.next() }
    // A string, and the bytes that it is made of.
    #expect(squint_allocations() - before <= 4 * 50)
  }

  /// The counter sees an allocation, or the tests above would prove nothing.
  @Test(.enabled(if: squint_counts_allocations(), "this allocator cannot be counted"))
  func theCounterCounts() {
    let before = squint_allocations()
    let array = [Int](repeating: 1, count: Int.random(in: 1000...2000))
    #expect(array.count >= 1000)
    #expect(squint_allocations() > before)
  }
}
