import Foundation
import SquintFile
import Testing

@Suite struct DirectReaderTests {
  /// The same bytes as are mapped, wherever the file is: also where no read passes the page cache.
  @Test(arguments: ["/dev/shm", NSTemporaryDirectory()]) func readsWhatIsMapped(_ folder: String) throws {
    guard FileManager.default.isWritableFile(atPath: folder) else { return }
    let path = "\(folder)/squint-direct-\(UUID().uuidString).squint"
    defer { try? FileManager.default.removeItem(atPath: path) }
    var plan = ModelFilePlan()
    plan.modules = [.init(name: "decoder", tensors: [.init(name: "decoder.a", type: .f32, shape: [30_001])])]
    let writer = try ModelFileWriter(path: path, plan: plan)
    try (0..<30_001).map { Float($0) }.withUnsafeBytes { try writer.append($0, toTensor: 0) }
    try writer.finish()
    let file = try ModelFile(path: path)
    let reader = DirectReader(file)
    let range = DirectReader.aligned(file.tensor("decoder.a")!.range)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: DirectReader.alignment)
    defer { memory.deallocate() }
    try reader.read(range, into: memory.baseAddress!)
    let tensor = file.tensor("decoder.a")!
    let found = UnsafeRawBufferPointer(rebasing: memory[(tensor.range.lowerBound - range.lowerBound)...])
    #expect(found.prefix(tensor.range.count).elementsEqual(file.bytes(of: tensor)))

    // A file that has become shorter is noticed.
    truncate(path, off_t(range.lowerBound))
    #expect(throws: SquintError.self) { try reader.read(range, into: memory.baseAddress!) }
  }

  /// Where no read can pass the page cache, several threads find that out at the same time, and none of them fails.
  @Test func threadsThatFindOutTogether() async throws {
    // In the midst of a file, and not at a multiple of any block: reads that pass the page cache are refused there.
    let path = "\(NSTemporaryDirectory())/squint-direct-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: path) }
    var plan = ModelFilePlan()
    plan.modules = [.init(name: "decoder", tensors: [.init(name: "decoder.a", type: .f32, shape: [30_001])])]
    let writer = try ModelFileWriter(path: path, plan: plan)
    try [UInt8](repeating: 7, count: 4 * 30_001).withUnsafeBytes { try writer.append($0, toTensor: 0) }
    try writer.finish()
    let model = try Data(contentsOf: URL(fileURLWithPath: path))
    try (Data(count: 192) + model).write(to: URL(fileURLWithPath: path))
    let file = try ModelFile(path: path, range: 192..<192 + model.count)
    let range = DirectReader.aligned(file.tensor("decoder.a")!.range)
    for _ in 0..<2000 {
      let reader = DirectReader(file)
      try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<4 {
          group.addTask {
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: DirectReader.alignment)
            defer { memory.deallocate() }
            try reader.read(range.lowerBound..<range.lowerBound + 8192, into: memory.baseAddress!)
          }
        }
        try await group.waitForAll()
      }
    }
  }

  @Test func rangesGrowToBlocks() {
    #expect(DirectReader.aligned(0..<1) == 0..<4096)
    #expect(DirectReader.aligned(4095..<4097) == 0..<8192)
    #expect(DirectReader.aligned(4096..<8192) == 4096..<8192)
  }
}
