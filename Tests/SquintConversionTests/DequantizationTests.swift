import SquintConversion
import SquintFile
import Testing

@Suite struct DequantizationTests {
  /// Every type, to the bit, as PyPI's gguf dequantizes it.
  @Test func allTypesAgreeWithTheReference() throws {
    let source = try GGUFSource(path: ReaderFixtures.path("types.gguf"))
    let expected = try ReaderFixtures.numbers("types.f32")
    let types: [SourceType] = [
      .f32, .f16, .bf16, .q40, .q41, .q50, .q51, .q80, .q2k, .q3k, .q4k, .q5k, .q6k, .iq4nl,
    ]
    #expect(source.tensors.map(\.type) == types)
    #expect(expected.count == types.count * 1024)
    for (index, tensor) in source.tensors.enumerated() {
      #expect(tensor.shape == [4, 256])
      #expect(tensor.type.isReadable)
      let numbers = try source.read(tensor)
      let reference = expected[(index * 1024)..<((index + 1) * 1024)]
      #expect(ReaderFixtures.identical(numbers, reference), "\(tensor.type.name)")
      // The same a row at a time, so from blocks of any alignment.
      for row in 0..<4 {
        var numbers = [Float](repeating: 0, count: 256)
        try numbers.withUnsafeMutableBufferPointer { try source.read(tensor, rows: row..<row + 1, into: $0) }
        #expect(ReaderFixtures.identical(numbers, reference.dropFirst(row * 256).prefix(256)), "\(tensor.type.name)")
      }
    }
  }

  @Test func halfPatterns() {
    let wrong = (UInt16.min...UInt16.max).filter { bits in
      let expected = Float(Float16(bitPattern: bits))
      let converted = HalfPrecision.float(bits)
      // Whether a conversion keeps a NaN's payload differs between processors.
      return expected.isNaN ? !converted.isNaN : converted.bitPattern != expected.bitPattern
    }
    #expect(wrong.isEmpty)
  }

  /// A tensor larger than the pieces that it is read in.
  @Test func manyPieces() throws {
    let folder = try TemporaryFolder()
    let count = 300_000
    let header = Array(
      "{\"x\":{\"dtype\":\"BF16\",\"shape\":[300,1000],\"data_offsets\":[0,\(count * 2)]}}".utf8)
    let data = (0..<count).flatMap { littleEndian(UInt16(truncatingIfNeeded: $0 &* 7) & 0x7EFF) }
    let path = try folder.write("model.safetensors", littleEndian(UInt64(header.count)) + header + data)
    let source = try SafetensorsSource(path: path)
    let numbers = try source.read(try #require(source.tensor(named: "x")))
    #expect(numbers.count == count)
    #expect(
      numbers.enumerated().allSatisfy {
        $1.bitPattern == UInt32(UInt16(truncatingIfNeeded: $0 &* 7) & 0x7EFF) << 16
      })
  }

  @Test func manyThreads() async throws {
    let source = try GGUFSource(path: ReaderFixtures.path("types.gguf"))
    let expected = try ReaderFixtures.numbers("types.f32")
    let wrong = try await withThrowingTaskGroup(of: Int.self) { group in
      for reader in 0..<8 {
        group.addTask {
          var wrong = 0
          for pass in 0..<20 {
            for offset in 0..<source.tensors.count {
              let index = (offset * (reader + 1) + pass) % source.tensors.count
              let numbers = try source.read(source.tensors[index])
              if !ReaderFixtures.identical(numbers, expected[(index * 1024)..<((index + 1) * 1024)]) { wrong += 1 }
            }
          }
          return wrong
        }
      }
      return try await group.reduce(0, +)
    }
    #expect(wrong == 0)
  }
}
