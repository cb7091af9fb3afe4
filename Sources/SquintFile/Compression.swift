import CZstd

/// `bytes` as one zstd frame that states its decoded size and carries a checksum.
package func compress(_ bytes: [UInt8], level: Int32 = 19) throws(SquintError) -> [UInt8] {
  let context = ZSTD_createCCtx()
  defer { ZSTD_freeCCtx(context) }
  ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
  var failure = 0
  let frame = [UInt8](unsafeUninitializedCapacity: ZSTD_compressBound(bytes.count)) { buffer, count in
    let result = ZSTD_compress2(context, buffer.baseAddress, buffer.count, bytes, bytes.count)
    if ZSTD_isError(result) != 0 { failure = result } else { count = result }
  }
  guard failure == 0 else {
    throw SquintError(
      .internalError, "zstd cannot compress the metadata: \(String(cString: ZSTD_getErrorName(failure)))")
  }
  return frame
}

/// The bytes that a zstd frame holds, decoded from the first to the last as they are asked for: beside what the caller keeps, no
/// more of them is in memory than later ones may repeat.
final class FrameReader {
  private let frame: UnsafeRawBufferPointer
  private let decodedBytes: Int
  private let context: OpaquePointer
  private var input: ZSTD_inBuffer
  private var isAtEnd = false
  /// How many bytes have been read.
  private(set) var offset = 0

  /// How much is skipped at a time.
  private static let stepBytes = 64 << 10
  /// What decoding holds beside the window (zstd_decompress.c: its tables, a block and what that is made of).
  private static let contextBytes = 768 << 10

  var remaining: Int { decodedBytes - offset }

  /// Begins with `frame`, which must stay where it is, and holds `decodedBytes` bytes.
  ///
  /// - Throws: `badData` where it is no frame, or says that it holds another number of bytes.
  init(_ frame: UnsafeRawBufferPointer, decodedBytes: Int) throws(SquintError) {
    // The format has exactly one frame.
    let frameBytes = ZSTD_findFrameCompressedSize(frame.baseAddress, frame.count)
    guard ZSTD_isError(frameBytes) == 0 else { throw Self.corrupt(String(cString: ZSTD_getErrorName(frameBytes))) }
    guard frameBytes == frame.count else {
      throw SquintError(.badData, "the compressed metadata is more than one zstd frame; fetch the file again")
    }
    let stated = ZSTD_getFrameContentSize(frame.baseAddress, frame.count)
    // All but the two largest numbers, which mean that it says nothing and that it is no frame.
    guard stated >= UInt64.max - 1 || stated == UInt64(decodedBytes) else {
      throw Self.corrupt("it decodes to \(grouped(stated)) bytes, not \(grouped(decodedBytes))")
    }
    guard let context = ZSTD_createDCtx() else {
      throw SquintError(.doesNotFit, "there is no memory to decode the metadata; end other programs")
    }
    self.frame = frame
    self.decodedBytes = decodedBytes
    self.context = context
    input = ZSTD_inBuffer(src: frame.baseAddress, size: frame.count, pos: 0)
  }

  deinit { ZSTD_freeDCtx(context) }

  /// At most what decoding `frame` takes, in bytes: its window, which is what later bytes may repeat (RFC 8878, 3.1.1.1).
  static func byteCount(_ frame: UnsafeRawBufferPointer, decodedBytes: Int) -> Int {
    guard frame.count > 5 else { return contextBytes }
    let (descriptor, window) = (frame[4], frame[5])
    // A frame of one segment has the window that its content takes.
    guard descriptor & 0x20 == 0 else { return contextBytes + decodedBytes }
    let base = 1 << (10 + Int(window >> 3))
    return contextBytes + min(base + base / 8 * Int(window & 7), max(decodedBytes, 1 << 10))
  }

  /// The next `target.count` bytes.
  func read(into target: UnsafeMutableRawBufferPointer) throws(SquintError) {
    guard target.count <= remaining else { throw pastTheEnd(target.count) }
    var output = ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
    while output.pos < output.size {
      guard !isAtEnd else { throw Self.corrupt("it decodes to fewer than \(grouped(decodedBytes)) bytes") }
      try step(&output)
    }
    offset += target.count
  }

  /// The next `count` bytes.
  func bytes(_ count: Int) throws(SquintError) -> [UInt8] {
    guard count <= remaining else { throw pastTheEnd(count) }
    var failure: SquintError?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      do throws(SquintError) {
        try read(into: UnsafeMutableRawBufferPointer(buffer))
        initialized = count
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes
  }

  /// Passes over the next `count` bytes.
  func skip(_ count: Int) throws(SquintError) {
    guard count <= remaining else { throw pastTheEnd(count) }
    var left = count
    while left > 0 {
      let step = min(left, Self.stepBytes)
      _ = try bytes(step)
      left -= step
    }
  }

  /// Checks that the frame ends here, and its checksum, where it has one.
  func finish() throws(SquintError) {
    guard remaining == 0 else {
      throw SquintError(.badData, "the compressed metadata has \(grouped(remaining)) bytes too many")
    }
    let spare = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
    defer { spare.deallocate() }
    while !isAtEnd {
      var output = ZSTD_outBuffer(dst: spare, size: 1, pos: 0)
      try step(&output)
      guard output.pos == 0 else { throw Self.corrupt("it decodes to more than \(grouped(decodedBytes)) bytes") }
    }
  }

  private func step(_ output: inout ZSTD_outBuffer) throws(SquintError) {
    let before = (input.pos, output.pos)
    let result = ZSTD_decompressStream(context, &output, &input)
    guard ZSTD_isError(result) == 0 else { throw Self.corrupt(String(cString: ZSTD_getErrorName(result))) }
    isAtEnd = result == 0
    guard isAtEnd || before != (input.pos, output.pos) else { throw Self.corrupt("it ends too early") }
  }

  private func pastTheEnd(_ count: Int) -> SquintError {
    SquintError(
      .badData,
      "the compressed metadata: \(grouped(count)) bytes at offset \(grouped(offset)) run past the end "
        + "(\(grouped(decodedBytes)) bytes)")
  }

  private static func corrupt(_ problem: String) -> SquintError {
    SquintError(.badData, "the compressed metadata is corrupt (\(problem)); fetch the file again")
  }
}
