import SquintCompute
import SquintFile
import Testing

@Suite struct ResidencyTests {
  /// 10 layers of 8 KiB, a head of 3 slices of 4 KiB.
  private let parts = (0..<10).map { $0 * 8192..<($0 + 1) * 8192 } + (20..<23).map { $0 * 4096..<($0 + 1) * 4096 }

  @Test func keepsTheTailFirstAndWhole() {
    let none = Residency(units: parts, tail: 10, keepingAtMost: 8191)
    #expect(none.keptBytes == 0)
    #expect(none.streamedBytes == 10 * 8192 + 3 * 4096)
    let layer = Residency(units: parts, tail: 10, keepingAtMost: 3 * 4096 - 1)
    #expect(layer.keptBytes == 8192)
    #expect(layer.isStreamed.suffix(3).allSatisfy { $0 })
    let tail = Residency(units: parts, tail: 10, keepingAtMost: 3 * 4096)
    #expect(tail.isStreamed == (0..<13).map { $0 < 10 })
    #expect(Residency(units: parts, tail: 10, keepingAtMost: 1 << 20).streamsNothing)
  }

  @Test func spreadsWhatIsRead() {
    for kept in 0...10 {
      let residency = Residency(units: parts, tail: 10, keepingAtMost: 3 * 4096 + kept * 8192)
      #expect(residency.keptBytes == 3 * 4096 + kept * 8192)
      // No run of layers that are read is longer than it has to be; one pass follows the other.
      let passes = residency.isStreamed.prefix(10) + residency.isStreamed.prefix(10)
      let longest = passes.split(separator: false).map(\.count).max() ?? 0
      #expect(kept == 0 || longest == (10 - 1) / kept)
    }
  }

  /// What is over when the phases that need it are, is given back; the rest is left alone.
  @Test func arenasGiveBack() throws {
    var plan = ArenaPlan()
    let early = try plan.reserve("early", UInt8.self, count: 1 << 20, phases: .encode)
    let both = try plan.reserve("both", UInt8.self, count: 100, phases: [.encode, .prefill])
    let late = try plan.reserve("late", UInt8.self, count: 10_000, phases: .prefill, alignment: 4096)
    let arena = try Arena(plan)
    #expect(Int(bitPattern: arena[late].baseAddress!) % 4096 == 0)
    for index in 0..<1 << 20 { arena[early][index] = 1 }
    for index in 0..<100 { arena[both][index] = 2 }
    arena.release(keeping: .prefill)
    #expect(arena[both].allSatisfy { $0 == 2 })
    #expect(arena[early][20_000...].reduce(0) { $0 + Int($1) } < 8192)
    for index in 0..<10_000 { arena[late][index] = 3 }
    #expect(arena[both].allSatisfy { $0 == 2 })
    withExtendedLifetime(arena) {}
  }
}
