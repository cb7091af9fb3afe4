import SquintCompute
import SquintFile
import Testing

#if arch(arm64)
  let isARM = true
#else
  let isARM = false
#endif

let quantizedTypes: [ElementType] = [.int8, .int4, .int4F16]

@Suite struct KernelProductTests {
  @Test(arguments: Kernels.available.map(\.name), quantizedTypes)
  func quantizedProductEqualsReference(name: String, type: ElementType) throws {
    let kernels = try #require(Kernels.named(name))
    for rows in [1, 15, 16, 17, 40] {
      for columns in [1, 31, 33, 40, 100, 576] {
        let cases = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64].map { (tokens: Int) in
          let seed = rows * 1_000_000 + columns * 1000 + tokens
          return productCase(
            type, ProductShape(rows: rows, columns: columns, tokens: tokens), accumulate: tokens % 2 == 0,
            seed: UInt64(seed))
        }
        #expect(complaints(cases, kernels) == [])
      }
    }
    let long = [(17, 576), (40, 100), (1, 33), (33, 1536)].map { rows, columns in
      productCase(type, ProductShape(rows: rows, columns: columns, tokens: 300), seed: UInt64(rows))
    }
    #expect(complaints(long, kernels) == [])
  }

  @Test(arguments: Kernels.available.map(\.name), quantizedTypes)
  func extremeNumbersAreExact(name: String, type: ElementType) throws {
    let kernels = try #require(Kernels.named(name))
    var cases: [KernelCase] = []
    for extremes in [Extremes.largest, .lowest] {
      for tokens in [1, 2, 8, 13] {
        let shape = ProductShape(rows: 33, columns: 320, tokens: tokens)
        cases.append(productCase(type, shape, extremes: extremes, seed: UInt64(tokens)))
      }
    }
    #expect(complaints(cases, kernels) == [])
  }

  @Test(arguments: Kernels.available.map(\.name), quantizedTypes)
  func onlyTheAskedPanelsAreWritten(name: String, type: ElementType) throws {
    let kernels = try #require(Kernels.named(name))
    let cases = [0..<1, 1..<3, 2..<4, 3..<4, 1..<1].flatMap { range in
      [1, 5].map { tokens in
        productCase(
          type, ProductShape(rows: 50, columns: 288, tokens: tokens), panels: range, seed: UInt64(range.upperBound))
      }
    }
    #expect(complaints(cases, kernels) == [])
  }

  @Test(arguments: Kernels.available.map(\.name), [ElementType.f32, .f16, .bf16])
  func plainProductEqualsReference(name: String, type: ElementType) throws {
    let kernels = try #require(Kernels.named(name))
    var cases: [KernelCase] = []
    for rows in [1, 3, 4, 17, 40] {
      for columns in [1, 15, 16, 31, 33, 100, 576] {
        for tokens in [1, 2, 3, 4, 5, 9, 33] {
          cases.append(
            plainProductCase(
              type, ProductShape(rows: rows, columns: columns, tokens: tokens), accumulate: tokens == 3,
              seed: UInt64(rows * 1000 + columns)))
        }
      }
    }
    for range in [0..<1, 2..<7, 9..<10, 3..<3] {
      let shape = ProductShape(rows: 10, columns: 50, tokens: 6)
      cases.append(plainProductCase(type, shape, rows: range, seed: 5))
    }
    #expect(complaints(cases, kernels) == [])
  }

  @Test(arguments: Kernels.available.map(\.name))
  func quantizationEqualsReference(name: String) throws {
    let kernels = try #require(Kernels.named(name))
    #expect(complaints(quantizeCases(isARM: isARM), kernels) == [])
  }

  @Test(arguments: Kernels.available.map(\.name))
  func packedNumbersAreClose(name: String) throws {
    let kernels = try #require(Kernels.named(name))
    #expect(complaints(packCases(), kernels) == [])
  }

  @Test func instructionSetIsChosenByName() throws {
    #expect(Kernels.available.last?.name == "generic")
    #expect(try Kernels.chosen(nil).name == Kernels.available[0].name)
    #expect(try Kernels.chosen("").name == Kernels.available[0].name)
    #expect(try Kernels.chosen("generic").name == "generic")
    #expect(Kernels.named("sse9") == nil)
    do {
      _ = try Kernels.chosen("sse9")
      Issue.record("sse9 is no name")
    } catch { #expect(error.kind == .usage && error.message.contains("generic")) }
  }
}
