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

/// The `decodedBytes` bytes that the zstd frame `frame` holds; throws where it is corrupt or holds another number.
package func decompress(_ frame: UnsafeRawBufferPointer, decodedBytes: Int) throws(SquintError) -> [UInt8] {
  var problem: String?
  // ZSTD_decompress would accept several frames one after the other; the format has exactly one.
  let frameBytes = ZSTD_findFrameCompressedSize(frame.baseAddress, frame.count)
  guard ZSTD_isError(frameBytes) != 0 || frameBytes == frame.count else {
    throw SquintError(.badData, "the compressed metadata is more than one zstd frame; fetch the file again")
  }
  let bytes = [UInt8](unsafeUninitializedCapacity: decodedBytes) { buffer, count in
    let result = ZSTD_decompress(buffer.baseAddress, buffer.count, frame.baseAddress, frame.count)
    if ZSTD_isError(result) != 0 {
      problem = String(cString: ZSTD_getErrorName(result))
    } else if result != decodedBytes {
      problem = "it decodes to \(grouped(result)) bytes, not \(grouped(decodedBytes))"
    } else {
      count = result
    }
  }
  if let problem {
    throw SquintError(.badData, "the compressed metadata is corrupt (\(problem)); fetch the file again")
  }
  return bytes
}
